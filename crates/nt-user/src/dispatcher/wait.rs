//! Waits and sleeps.
//!
//! A wait first checks that the IRQL is low enough (IRQL-13), and that the thread is not in a callback
//! (INSP-24, ABRT-13, DISC-14, EVT-56) or a completion routine (IRP-13). A poll with a zero timeout is not a
//! wait.

use std::ffi::c_void;
use std::time::Duration;

use wsk_sys::nt::{APC_LEVEL, NTSTATUS};
use wsk_sys::status::{STATUS_SUCCESS, STATUS_TIMEOUT};

use super::{Kind, Object};
use crate::checker::argument;
use crate::checker::context::{self, check_irql};
use crate::checker::violation::rule;
use crate::image::Routine;
use crate::thread::current::{self, CurrentKernel};

/// The time in the platform's clock at which a driver's timeout passes: relative if negative, else system
/// time.
pub(crate) fn due(kernel: &CurrentKernel, timeout: i64) -> Duration {
    let units = if timeout < 0 {
        timeout.unsigned_abs()
    } else {
        u64::try_from(timeout.saturating_sub(kernel.platform().system_time())).unwrap_or(0)
    };
    kernel.platform().now() + Duration::from_micros(units / 10) + Duration::from_nanos(units % 10 * 100)
}

/// Reports a wait in a context that does not allow one.
pub(crate) fn check_may_wait(kernel: &CurrentKernel, call: &str) {
    if let Some((rule, what)) = context::wait_violation() {
        kernel.violation(rule, call, what);
    }
}

/// The deadline of a wait without a timeout, and the bug check when it passes.
pub(crate) struct Watchdog(Option<Duration>);

impl Watchdog {
    pub(crate) fn new(kernel: &CurrentKernel) -> Self {
        Self(kernel.config.watchdog.map(|limit| kernel.platform().now() + limit))
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.0
    }

    pub(crate) fn fire(kernel: &CurrentKernel, call: &str, what: &str) -> ! {
        let limit = kernel.config.watchdog.unwrap_or_default();
        let hang_explanation = kernel.hang_explanation();
        kernel.bug_check(
            rule::HANG,
            call,
            format!("{what} has lasted {limit:?}; nothing will end it{hang_explanation}"),
        );
    }
}

/// Completes a successful wait: a driver that has waited for a thread knows that it has left its image. The
/// object is not read, because another waiter may have freed it.
fn seen(kernel: &CurrentKernel, kind: Kind, target: Object<'_>) -> NTSTATUS {
    if kind == Kind::Thread {
        kernel.threads.seen(target.key());
        kernel.image.settle(kernel, |routine| routine == Routine::Thread(target.key()));
    }
    STATUS_SUCCESS
}

/// Waits for an event, timer or thread; see [`wsk_sys::nt::KeWaitForSingleObject`].
///
/// # Safety
/// `object` points to an initialized dispatcher object that lives until the wait is over; `timeout` is null
/// or can be read.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeWaitForSingleObject(
    object: *mut c_void,
    _wait_reason: i32,
    _wait_mode: i8,
    _alertable: u8,
    timeout: *mut i64,
) -> NTSTATUS {
    const CALL: &str = "KeWaitForSingleObject";
    let kernel = current::kernel(CALL);
    // SAFETY: the caller guarantees a dispatcher object that lives until the wait is over.
    let target = unsafe { Object::from_raw(object) };
    let Some((target, kind)) = target.and_then(|target| Some((target, target.kind()?))) else {
        kernel.bug_check(
            rule::OBJECT,
            CALL,
            format!("there is no initialized dispatcher object at {object:p}"),
        );
    };
    let timeout = if timeout.is_null() {
        None
    } else {
        argument::check_unaligned(&kernel, CALL, "a timeout", timeout);
        // SAFETY: the caller guarantees that a timeout that is not null can be read.
        Some(unsafe { timeout.read_unaligned() })
    };
    if timeout == Some(0) {
        return if target.try_take() { seen(&kernel, kind, target) } else { STATUS_TIMEOUT };
    }
    check_may_wait(&kernel, CALL);
    if target.try_take() {
        return seen(&kernel, kind, target);
    }
    let deadline = match timeout {
        Some(timeout) => Some(due(&kernel, timeout)),
        None => Watchdog::new(&kernel).deadline(),
    };
    if kernel.donate(target, deadline) || target.wait(kernel.platform(), deadline) {
        return seen(&kernel, kind, target);
    }
    if timeout.is_none() {
        Watchdog::fire(&kernel, CALL, "a wait without a timeout");
    }
    STATUS_TIMEOUT
}

/// Puts the thread to sleep; see [`wsk_sys::nt::KeDelayExecutionThread`].
///
/// # Safety
/// `interval` can be read.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeDelayExecutionThread(
    _wait_mode: i8,
    _alertable: u8,
    interval: *mut i64,
) -> NTSTATUS {
    const CALL: &str = "KeDelayExecutionThread";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, APC_LEVEL);
    argument::check_unaligned(&kernel, CALL, "an interval", interval);
    // SAFETY: the caller guarantees that the interval can be read.
    let interval = unsafe { interval.read_unaligned() };
    let deadline = due(&kernel, interval);
    // The key is an address on the own stack, so no other thread wakes this one.
    let key = std::ptr::from_ref(&deadline).addr();
    kernel.platform().park(key, &mut || true, &mut || {}, Some(deadline));
    STATUS_SUCCESS
}
