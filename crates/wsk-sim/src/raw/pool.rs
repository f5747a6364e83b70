//! Non-paged memory: a box in pool.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use wsk_sys::nt;

/// The pool tag of everything this kit allocates: `RawT` in a debugger.
pub const TAG: u32 = u32::from_le_bytes(*b"RawT");

/// A value in non-paged pool.
///
/// # Invariants
/// The pointer is a block of [`TAG`] that holds an initialized `T` and is freed by this box only.
pub struct PoolBox<T>(NonNull<T>);

impl<T> PoolBox<T> {
    /// Moves `value` to pool.
    ///
    /// # Panics
    /// If the allocation fails: this kit does not support fault injection for itself.
    pub fn new(value: T) -> Self {
        assert!(align_of::<T>() <= 16, "pool blocks are aligned to 16 bytes");
        let size = size_of::<T>().max(1);
        // SAFETY: non-paged pool may be allocated at any IRQL of a test.
        let block = unsafe { nt::ExAllocatePoolWithTag(nt::NON_PAGED_POOL_NX, size, TAG) };
        let block = NonNull::new(block.cast::<T>()).expect("pool for the test itself");
        // SAFETY: the block is fresh, large enough and aligned.
        unsafe { block.write(value) };
        Self(block)
    }

    /// The address of the value.
    pub fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }

    /// Releases the ownership of the block to the caller.
    pub fn into_raw(self) -> *mut T {
        let block = self.0.as_ptr();
        std::mem::forget(self);
        block
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` came from [`into_raw`](Self::into_raw), and is taken back once.
    pub unsafe fn from_raw(block: *mut T) -> Self {
        // SAFETY: a block of `into_raw` is not null.
        Self(unsafe { NonNull::new_unchecked(block) })
    }
}

impl<T> Deref for PoolBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the block holds a value, by the invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for PoolBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the block holds a value, by the invariant, and the box is borrowed exclusively.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for PoolBox<T> {
    fn drop(&mut self) {
        // SAFETY: the block holds a value, by the invariant; it is not used again.
        unsafe { self.0.drop_in_place() };
        // SAFETY: the block is one of this tag, by the invariant.
        unsafe { nt::ExFreePoolWithTag(self.0.as_ptr().cast(), TAG) };
    }
}

impl<T: fmt::Debug> fmt::Debug for PoolBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

// SAFETY: the box owns its value as `Box` does.
unsafe impl<T: Send> Send for PoolBox<T> {}
// SAFETY: the box shares its value as `Box` does.
unsafe impl<T: Sync> Sync for PoolBox<T> {}
