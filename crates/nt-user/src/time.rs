//! The clocks.

use crate::checker::argument;
use crate::thread::current;

/// Time since boot; see [`wsk_sys::nt::KeQueryInterruptTime`].
///
/// # Safety
/// None beyond being called on a thread of a kernel; the signature is the kernel's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeQueryInterruptTime() -> u64 {
    (current::kernel("KeQueryInterruptTime").platform().now().as_nanos() / 100) as u64
}

/// System time; see [`wsk_sys::nt::KeQuerySystemTime`].
///
/// # Safety
/// `time` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeQuerySystemTime(time: *mut i64) {
    const CALL: &str = "KeQuerySystemTime";
    let kernel = current::kernel(CALL);
    argument::check_unaligned(&kernel, CALL, "a place for the time", time);
    let now = kernel.platform().system_time();
    // SAFETY: the caller guarantees a place for the time.
    unsafe { time.write_unaligned(now) };
}
