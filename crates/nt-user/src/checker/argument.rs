//! Checks of pointers that a driver passes to the kernel.

use super::violation::rule;
use crate::thread::current::CurrentKernel;

/// Nothing is mapped below this address in system space or in a process.
const LOWEST: usize = 0x1_0000;

/// Returns true if `address` is in the null page, where nothing is mapped.
pub(crate) fn is_null_page<T>(address: *const T) -> bool {
    address.addr() < LOWEST
}

/// Stops the kernel unless `address` is a possible, aligned address for `what`, such as "an event".
pub(crate) fn check_aligned<T>(kernel: &CurrentKernel, call: &'static str, what: &str, address: *const T) {
    if is_null_page(address) {
        kernel.bug_check(
            rule::OBJECT,
            call,
            format!("{what} is required, and {address:p} is not a valid address"),
        );
    }
    if !address.is_aligned() {
        kernel.bug_check(rule::ALIGNMENT, call, format!("{what} must be aligned, and {address:p} is not"));
    }
}

/// Stops the kernel unless `address` is a possible address for `what`, which may be unaligned.
pub(crate) fn check_unaligned<T>(kernel: &CurrentKernel, call: &'static str, what: &str, address: *const T) {
    check_aligned(kernel, call, what, address.cast::<u8>());
}
