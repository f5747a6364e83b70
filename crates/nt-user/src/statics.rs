//! Static data of a driver's image.
//!
//! On a real machine each loaded driver has its own static data, but a process has one copy of a static and
//! any number of kernels. The few statics that drivers need are stored in the kernel instead.

use std::cell::UnsafeCell;
use std::fmt;

use crate::thread::current;

/// Two words, zero at first.
#[derive(Default)]
pub(crate) struct Words(UnsafeCell<[usize; 2]>);

// SAFETY: nothing here reads or writes the words; the driver that gets their address orders that.
unsafe impl Send for Words {}
// SAFETY: a shared `Words` gives out the address only; the driver orders its accesses to the words.
unsafe impl Sync for Words {}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Words")
    }
}

/// Returns two words that belong to the driver; see [`wsk_sys::nt::image_words`]. They live as long as the
/// kernel.
///
/// # Safety
/// None beyond being called on a thread of a kernel; the signature is that of a kernel's function.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn NtUserImageWords() -> *mut [usize; 2] {
    current::kernel("NtUserImageWords").statics.0.get()
}
