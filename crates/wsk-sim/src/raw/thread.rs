//! System threads of a driver.

use std::ffi::c_void;
use std::ptr::null_mut;

use wsk_sys::STATUS_SUCCESS;
use wsk_sys::nt::{HANDLE, KSTART_ROUTINE, PsCreateSystemThread, THREAD_ALL_ACCESS};

/// Creates a system thread (`PsCreateSystemThread`), and returns its handle.
///
/// # Panics
/// Panics if there is no thread.
///
/// # Safety
/// `routine` may be called with `context`, in another thread.
#[track_caller]
pub unsafe fn system_thread(routine: KSTART_ROUTINE, context: *mut c_void) -> HANDLE {
    let (mut handle, none) = (null_mut(), null_mut());
    let place = &raw mut handle;
    // SAFETY: the handle has a place, and the caller vouches for the routine.
    let status =
        unsafe { PsCreateSystemThread(place, THREAD_ALL_ACCESS, none, none, none, Some(routine), context) };
    assert_eq!(status, STATUS_SUCCESS, "a system thread");
    handle
}
