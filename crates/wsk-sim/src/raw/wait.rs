//! Bounded waits for the test thread.

use std::time::Duration;

use wsk_sys::nt::{self, KEVENT};
use wsk_sys::{STATUS_SUCCESS, STATUS_TIMEOUT};

/// The longest time that this kit waits for anything.
pub const BOUND: Duration = Duration::from_secs(20);

/// A zeroed event, not yet initialized.
pub(crate) fn blank_event() -> KEVENT {
    // SAFETY: an event is plain data, for which zeroes are a value.
    unsafe { std::mem::zeroed() }
}

/// Waits for a kernel event; false if `bound` passed first.
///
/// # Safety
/// `event` is initialized and alive until the call returns.
pub(crate) unsafe fn wait_for(event: *mut KEVENT, bound: Duration) -> bool {
    let mut timeout = -((bound.as_nanos() / 100) as i64);
    // SAFETY: the caller guarantees an initialized event; the timeout is a local.
    let status = unsafe {
        nt::KeWaitForSingleObject(event.cast(), nt::EXECUTIVE, nt::KERNEL_MODE, 0, &raw mut timeout)
    };
    assert!(status == STATUS_SUCCESS || status == STATUS_TIMEOUT, "a wait ended with {status:#x}");
    status == STATUS_SUCCESS
}
