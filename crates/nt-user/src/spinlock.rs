//! Spin locks.
//!
//! The word holds the number of the thread that owns the lock, so that a second acquisition by the same
//! thread is detected at once and not as a hang:
//!
//! ```text
//!   0 (free) ──acquire: IRQL becomes DISPATCH──► owner's number ──release by the owner──► 0
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wsk_sys::nt::{DISPATCH_LEVEL, KIRQL, KSPIN_LOCK};

use crate::checker::argument;
use crate::checker::context::check_irql;
use crate::checker::violation::rule;
use crate::irql;
use crate::thread::current::{self, CurrentKernel};

/// Returns the word of the lock at `lock`.
///
/// # Safety
/// `lock` points to a live spin lock, which is accessed through these functions only.
unsafe fn word<'a>(kernel: &CurrentKernel, lock: *mut KSPIN_LOCK, call: &'static str) -> &'a AtomicUsize {
    argument::check_aligned(kernel, call, "a spin lock", lock);
    // SAFETY: the caller guarantees a live spin lock that is accessed through these functions only.
    unsafe { AtomicUsize::from_ptr(lock) }
}

pub(crate) fn acquire(kernel: &CurrentKernel, lock: &AtomicUsize, call: &'static str) {
    let me = current::id();
    if lock.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
        contend(kernel, lock, call, me);
    }
    current::set_locks(current::locks() + 1);
}

#[cold]
fn contend(kernel: &CurrentKernel, lock: &AtomicUsize, call: &'static str, me: usize) {
    /// The number of turns between two reads of the clock, which is more expensive than a turn.
    const TURNS_PER_LOOK: u32 = 1024;
    if lock.load(Ordering::Relaxed) == me {
        kernel.bug_check(
            rule::SPIN_LOCK,
            call,
            format!("the thread already holds the spin lock at {lock:p}"),
        );
    }
    let mut turn = 0_u32;
    let mut began: Option<Duration> = None;
    loop {
        if lock.load(Ordering::Relaxed) == 0
            && lock.compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok()
        {
            return;
        }
        kernel.platform().spin(turn);
        turn = turn.saturating_add(1);
        if turn.is_multiple_of(TURNS_PER_LOOK) {
            let now = kernel.platform().now();
            let began = *began.get_or_insert(now);
            if kernel.config.watchdog.is_some_and(|limit| now.saturating_sub(began) > limit) {
                let owner = lock.load(Ordering::Relaxed);
                let detail = format!("thread {owner} does not release the spin lock at {lock:p}");
                kernel.bug_check(rule::HANG, call, detail);
            }
        }
    }
}

pub(crate) fn release(kernel: &CurrentKernel, lock: &AtomicUsize, call: &'static str) {
    let me = current::id();
    let owner = lock.load(Ordering::Relaxed);
    if owner == me {
        current::set_locks(current::locks().saturating_sub(1));
        lock.store(0, Ordering::Release);
        return;
    }
    let owner = if owner == 0 { "no thread".to_owned() } else { format!("thread {owner}") };
    kernel.violation(rule::SPIN_LOCK, call, format!("{owner} holds the spin lock at {lock:p}"));
}

/// Acquires a lock and raises to DISPATCH_LEVEL; returns the previous IRQL.
pub(crate) fn acquire_raise(kernel: &CurrentKernel, lock: &AtomicUsize, call: &'static str) -> KIRQL {
    check_irql(kernel, call, DISPATCH_LEVEL);
    let old = current::irql();
    current::set_irql(DISPATCH_LEVEL.max(old));
    acquire(kernel, lock, call);
    old
}

/// Releases a lock and returns to `irql`.
pub(crate) fn release_lower(kernel: &CurrentKernel, lock: &AtomicUsize, irql: KIRQL, call: &'static str) {
    at_dispatch(kernel, call);
    if irql > DISPATCH_LEVEL {
        kernel.violation(rule::IRQL, call, format!("asked to return to {}", irql::name(irql)));
    }
    release(kernel, lock, call);
    if irql < DISPATCH_LEVEL && current::locks() != 0 {
        let detail =
            format!("returned to {} with {} other spin locks held", irql::name(irql), current::locks());
        kernel.violation(rule::IRQL, call, detail);
    }
    current::set_irql(irql);
}

fn at_dispatch(kernel: &CurrentKernel, call: &'static str) {
    let now = current::irql();
    if now < DISPATCH_LEVEL {
        kernel.violation(
            rule::IRQL,
            call,
            format!("called at {}, which is below DISPATCH_LEVEL", irql::name(now)),
        );
    }
}

/// Acquires a spin lock; see [`wsk_sys::nt::KeAcquireSpinLockRaiseToDpc`].
///
/// # Safety
/// `lock` points to a live spin lock.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeAcquireSpinLockRaiseToDpc(lock: *mut KSPIN_LOCK) -> KIRQL {
    const CALL: &str = "KeAcquireSpinLockRaiseToDpc";
    let kernel = current::kernel(CALL);
    // SAFETY: the caller guarantees a live spin lock.
    acquire_raise(&kernel, unsafe { word(&kernel, lock, CALL) }, CALL)
}

/// Releases a spin lock; see [`wsk_sys::nt::KeReleaseSpinLock`].
///
/// # Safety
/// `lock` points to a live spin lock.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeReleaseSpinLock(lock: *mut KSPIN_LOCK, irql: KIRQL) {
    const CALL: &str = "KeReleaseSpinLock";
    let kernel = current::kernel(CALL);
    // SAFETY: the caller guarantees a live spin lock.
    release_lower(&kernel, unsafe { word(&kernel, lock, CALL) }, irql, CALL);
}

/// Acquires a spin lock at DISPATCH_LEVEL; see [`wsk_sys::nt::KeAcquireSpinLockAtDpcLevel`].
///
/// # Safety
/// `lock` points to a live spin lock.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeAcquireSpinLockAtDpcLevel(lock: *mut KSPIN_LOCK) {
    const CALL: &str = "KeAcquireSpinLockAtDpcLevel";
    let kernel = current::kernel(CALL);
    at_dispatch(&kernel, CALL);
    // SAFETY: the caller guarantees a live spin lock.
    acquire(&kernel, unsafe { word(&kernel, lock, CALL) }, CALL);
}

/// Releases a spin lock and stays at DISPATCH_LEVEL; see [`wsk_sys::nt::KeReleaseSpinLockFromDpcLevel`].
///
/// # Safety
/// `lock` points to a live spin lock.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeReleaseSpinLockFromDpcLevel(lock: *mut KSPIN_LOCK) {
    const CALL: &str = "KeReleaseSpinLockFromDpcLevel";
    let kernel = current::kernel(CALL);
    at_dispatch(&kernel, CALL);
    // SAFETY: the caller guarantees a live spin lock.
    release(&kernel, unsafe { word(&kernel, lock, CALL) }, CALL);
}
