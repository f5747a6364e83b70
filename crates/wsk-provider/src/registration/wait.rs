//! A kernel event for the provider's own waits.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::ptr;
use std::time::Duration;

use wsk_sys::STATUS_SUCCESS;
use wsk_sys::nt::{self, KEVENT};

/// A notification event.
///
/// # Invariants
/// The event is initialized and does not move during the lifetime of this object.
pub(crate) struct Flag(Pin<Box<UnsafeCell<MaybeUninit<KEVENT>>>>);

// SAFETY: kernel events may be used from any thread; the kernel synchronises every access.
unsafe impl Send for Flag {}
// SAFETY: kernel events may be used from any thread; the kernel synchronises every access.
unsafe impl Sync for Flag {}

impl std::fmt::Debug for Flag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flag")
    }
}

impl Flag {
    /// Creates a flag that is not set.
    pub(crate) fn new() -> Self {
        let flag = Self(Box::pin(UnsafeCell::new(MaybeUninit::zeroed())));
        // SAFETY: the storage is of the right size and stays in its box.
        unsafe { nt::KeInitializeEvent(flag.event(), nt::NOTIFICATION_EVENT, 0) };
        flag
    }

    fn event(&self) -> *mut KEVENT {
        self.0.get().cast()
    }

    /// Sets the flag and wakes all its waiters.
    pub(crate) fn set(&self) {
        // SAFETY: the event was initialised by `new`.
        unsafe { nt::KeSetEvent(self.event(), nt::IO_NO_INCREMENT, 0) };
    }

    /// Clears the flag.
    pub(crate) fn clear(&self) {
        // SAFETY: the event was initialised by `new`.
        unsafe { nt::KeClearEvent(self.event()) };
    }

    /// Waits until the flag is set; false after `timeout`. `None` waits without a timeout.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> bool {
        let mut interval =
            timeout.map(|timeout| -i64::try_from(timeout.as_nanos() / 100).unwrap_or(i64::MAX));
        let interval = interval.as_mut().map_or_else(ptr::null_mut, ptr::from_mut);
        // SAFETY: the event was initialised by `new`, and the interval is null or lives during the call.
        let status = unsafe {
            nt::KeWaitForSingleObject(self.event().cast(), nt::EXECUTIVE, nt::KERNEL_MODE, 0, interval)
        };
        status == STATUS_SUCCESS
    }
}
