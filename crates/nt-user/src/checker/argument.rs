//! Pointers that a driver passes to the kernel: what no object can be behind.

use super::violation::rule;
use crate::thread::current::CurrentKernel;

/// Nothing is mapped below this address in system space or in a process.
const LOWEST: usize = 0x1_0000;

/// Whether nothing can be at `address`: it is null, or nearly.
pub(crate) fn is_null_page<T>(address: *const T) -> bool {
    address.addr() < LOWEST
}

/// Stops the kernel unless there can be `what`, such as "an event", at `address`.
pub(crate) fn check_aligned<T>(kernel: &CurrentKernel, call: &'static str, what: &str, address: *const T) {
    if is_null_page(address) {
        kernel.bug_check(rule::OBJECT, call, format!("{what} is needed, and nothing can be at {address:p}"));
    }
    if !address.is_aligned() {
        kernel.bug_check(rule::ALIGNMENT, call, format!("{what} cannot be at {address:p}"));
    }
}

/// Stops the kernel unless `what`, which may lie unaligned, can be at `address`.
pub(crate) fn check_unaligned<T>(kernel: &CurrentKernel, call: &'static str, what: &str, address: *const T) {
    check_aligned(kernel, call, what, address.cast::<u8>());
}
