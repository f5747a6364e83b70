//! Run-down protection.
//!
//! ```text
//!   Count = 2 × holders + run-down started
//!
//!   0 ──acquire──► 2, 4, … ──wait──► odd: acquire fails ──last release──► 1: the waiter goes on
//! ```
//!
//! The release that wakes the waiter changes the word under the parking lot's lock and does not look at it
//! again, because the waiter may free it.

use std::sync::atomic::{AtomicUsize, Ordering};

use wsk_sys::nt::{DISPATCH_LEVEL, EX_RUNDOWN_REF};

use crate::checker::argument;
use crate::checker::context::check_irql;
use crate::checker::violation::rule;
use crate::dispatcher::{Watchdog, check_may_wait};
use crate::platform::{Parked, Unpark};
use crate::thread::current;

const STARTED: usize = 1;
const HOLDER: usize = 2;

/// Returns the word of run-down protection.
///
/// # Safety
/// `rundown` points to live run-down protection, which is accessed through these functions only.
unsafe fn word<'a>(rundown: *mut EX_RUNDOWN_REF, call: &'static str) -> &'a AtomicUsize {
    if argument::is_null_page(rundown) || !rundown.is_aligned() {
        argument::check_aligned(&current::kernel(call), call, "run-down protection", rundown);
    }
    // SAFETY: the caller guarantees live run-down protection, and the structure is this one word.
    unsafe { AtomicUsize::from_ptr(rundown.cast()) }
}

/// Initializes run-down protection; see [`wsk_sys::nt::ExInitializeRundownProtection`].
///
/// # Safety
/// `rundown` points to storage that is not in use as run-down protection.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ExInitializeRundownProtection(rundown: *mut EX_RUNDOWN_REF) {
    const CALL: &str = "ExInitializeRundownProtection";
    check_irql(&current::kernel(CALL), CALL, DISPATCH_LEVEL);
    // SAFETY: the caller guarantees storage for run-down protection.
    unsafe { word(rundown, CALL) }.store(0, Ordering::Release);
}

/// Acquires protection; see [`wsk_sys::nt::ExAcquireRundownProtection`].
///
/// # Safety
/// `rundown` points to live run-down protection.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ExAcquireRundownProtection(rundown: *mut EX_RUNDOWN_REF) -> u8 {
    const CALL: &str = "ExAcquireRundownProtection";
    check_irql(&current::kernel(CALL), CALL, DISPATCH_LEVEL);
    // SAFETY: the caller guarantees live run-down protection.
    let taken = unsafe { word(rundown, CALL) }.fetch_update(Ordering::Acquire, Ordering::Relaxed, |count| {
        (count & STARTED == 0).then_some(count + HOLDER)
    });
    u8::from(taken.is_ok())
}

/// Releases protection; see [`wsk_sys::nt::ExReleaseRundownProtection`].
///
/// # Safety
/// `rundown` points to run-down protection that the caller holds.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ExReleaseRundownProtection(rundown: *mut EX_RUNDOWN_REF) {
    const CALL: &str = "ExReleaseRundownProtection";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    // SAFETY: the caller holds protection, so the structure stays alive until it is released.
    let word = || unsafe { word(rundown, CALL) };
    let released = word().fetch_update(Ordering::Release, Ordering::Relaxed, |count| {
        (count >= HOLDER && count != HOLDER + STARTED).then(|| count - HOLDER)
    });
    match released {
        Ok(_) => {}
        Err(count) if count < HOLDER => {
            kernel.violation(
                rule::RUNDOWN,
                CALL,
                "run-down protection was released that is not held".to_owned(),
            );
        }
        Err(_) => {
            let mut settle = |_| word().store(STARTED, Ordering::Release);
            kernel.platform().unpark(rundown.addr(), Unpark::All, &mut settle);
        }
    }
}

/// Starts run-down and waits for the holders; see [`wsk_sys::nt::ExWaitForRundownProtectionRelease`].
///
/// # Safety
/// `rundown` points to live run-down protection.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ExWaitForRundownProtectionRelease(rundown: *mut EX_RUNDOWN_REF) {
    const CALL: &str = "ExWaitForRundownProtectionRelease";
    let kernel = current::kernel(CALL);
    // A callback or routine that waits may be one of the holders, so the wait is reported in any case.
    check_may_wait(&kernel, CALL);
    // SAFETY: the caller guarantees live run-down protection.
    let word = unsafe { word(rundown, CALL) };
    if word.fetch_or(STARTED, Ordering::AcqRel) & !STARTED == 0 {
        return;
    }
    let watchdog = Watchdog::new(&kernel);
    let mut holders = || word.load(Ordering::Acquire) != STARTED;
    if kernel.platform().park(rundown.addr(), &mut holders, &mut || {}, watchdog.deadline())
        == Parked::TimedOut
    {
        Watchdog::fire(&kernel, CALL, "a wait for the holders of run-down protection");
    }
}
