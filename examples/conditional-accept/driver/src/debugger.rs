//! Messages for a kernel debugger.
//!
//! `DbgPrint` formats numbers and counted text by itself. `wdk::println!` has `core::fmt` do it, which is as
//! convenient as anywhere, and takes five kilobytes of the image; five lines do not earn that.
//!
//! # IRQL
//! All of it: `PASSIVE_LEVEL`, as all callers are.

use core::ffi::c_int;

use gate_service::record::{Problem, Setting};
use wdk_sys::NTSTATUS;
use wdk_sys::ntddk::DbgPrint;

/// A counted text, as the two arguments that `%.*s` takes.
macro_rules! text {
    ($text:expr) => {
        ($text.len() as c_int, $text.as_ptr())
    };
}

/// A parameter could not be used.
pub(crate) fn bad_setting(setting: Setting, problem: Problem) {
    let (name, what) = (text!(setting.name()), text!(problem.text()));
    // SAFETY: the format takes two counted texts, which are valid during the call.
    unsafe { DbgPrint(c"conditional_accept: %.*s %.*s\n".as_ptr(), name.0, name.1, what.0, what.1) };
}

/// The service listens.
pub(crate) fn listening(port: u16) {
    // SAFETY: the format takes one number.
    unsafe { DbgPrint(c"conditional_accept: listening on port %u\n".as_ptr(), u32::from(port)) };
}

/// The service did not start.
pub(crate) fn not_started(status: NTSTATUS) {
    // SAFETY: the format takes one number.
    unsafe { DbgPrint(c"conditional_accept: failed to start: status 0x%08X\n".as_ptr(), status) };
}

/// Unloading takes long: so much of a kind is left.
pub(crate) fn still_waiting(count: usize, kind: &str) {
    let kind = text!(kind);
    // SAFETY: the format takes a number of the size of a pointer, and a counted text, which is valid during
    // the call.
    unsafe { DbgPrint(c"conditional_accept: still waiting: %Iu %.*s\n".as_ptr(), count, kind.0, kind.1) };
}

/// Prints that the driver is unloaded.
pub(crate) fn unloaded() {
    // SAFETY: the format takes nothing.
    unsafe { DbgPrint(c"conditional_accept: unloaded\n".as_ptr()) };
}
