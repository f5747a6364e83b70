//! Clocks.

use crate::checker::argument;
use crate::thread::current;

/// Returns the time since boot; see [`wsk_sys::nt::KeQueryInterruptTime`].
///
/// # Safety
/// None beyond being called on a thread of a kernel; the signature is the kernel's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeQueryInterruptTime() -> u64 {
    (current::kernel("KeQueryInterruptTime").platform().now().as_nanos() / 100) as u64
}

/// Returns the system time; see [`wsk_sys::nt::KeQuerySystemTime`].
///
/// # Safety
/// `time` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeQuerySystemTime(time: *mut i64) {
    const CALL: &str = "KeQuerySystemTime";
    let kernel = current::kernel(CALL);
    argument::check_unaligned(&kernel, CALL, "storage for the time", time);
    let now = kernel.platform().system_time();
    // SAFETY: the caller guarantees that `time` can be written.
    unsafe { time.write_unaligned(now) };
}
