//! The interrupt request level, one per thread.
//!
//! Raising the IRQL does not exclude other threads, as a host has no processors to mask. It is bookkeeping
//! for the checks of the other functions.

use std::borrow::Cow;

use wsk_sys::nt::{APC_LEVEL, DISPATCH_LEVEL, KIRQL, PASSIVE_LEVEL};

use crate::checker::violation::rule;
use crate::thread::current;

/// The name of a level.
pub fn name(irql: KIRQL) -> Cow<'static, str> {
    match irql {
        PASSIVE_LEVEL => "PASSIVE_LEVEL".into(),
        APC_LEVEL => "APC_LEVEL".into(),
        DISPATCH_LEVEL => "DISPATCH_LEVEL".into(),
        other => format!("IRQL {other}").into(),
    }
}

/// The highest level on 64-bit processors.
const HIGH_LEVEL: KIRQL = 15;

/// The current IRQL; see [`wsk_sys::nt::KeGetCurrentIrql`].
///
/// # Safety
/// None; the signature is the kernel's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeGetCurrentIrql() -> KIRQL {
    current::irql()
}

/// Raises the IRQL; see [`wsk_sys::nt::KfRaiseIrql`].
///
/// # Safety
/// None beyond being called on a thread of a kernel; the signature is the kernel's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KfRaiseIrql(irql: KIRQL) -> KIRQL {
    const CALL: &str = "KfRaiseIrql";
    let kernel = current::kernel(CALL);
    let old = current::irql();
    if irql < old || irql > HIGH_LEVEL {
        let detail = format!("raised from {} to {}", name(old), name(irql));
        kernel.violation(rule::IRQL, CALL, detail);
    }
    current::set_irql(irql);
    old
}

/// Lowers the IRQL; see [`wsk_sys::nt::KeLowerIrql`].
///
/// # Safety
/// None beyond being called on a thread of a kernel; the signature is the kernel's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeLowerIrql(irql: KIRQL) {
    const CALL: &str = "KeLowerIrql";
    let kernel = current::kernel(CALL);
    let old = current::irql();
    if irql > old {
        let detail = format!("lowered from {} to {}", name(old), name(irql));
        kernel.violation(rule::IRQL, CALL, detail);
    } else if irql < DISPATCH_LEVEL && current::locks() != 0 {
        let detail = format!("lowered to {} with {} spin locks held", name(irql), current::locks());
        kernel.violation(rule::IRQL, CALL, detail);
    }
    current::set_irql(irql);
}

/// Checks and restores the IRQL and the spin locks after a routine of the driver: they must be the same as at
/// its call.
pub(crate) fn check_return(routine: &str, irql: KIRQL, locks: u32) {
    if current::irql() == irql && current::locks() == locks {
        return;
    }
    restore_irql(routine, irql, locks);
}

#[cold]
fn restore_irql(routine: &str, irql: KIRQL, locks: u32) {
    let kernel = current::kernel(routine);
    let left = current::irql();
    if left != irql {
        let detail = format!("called at {}, returned at {}", name(irql), name(left));
        kernel.violation(rule::IRQL, routine, detail);
        current::set_irql(irql);
    }
    let held = current::locks();
    if held != locks {
        let detail = format!("called with {locks} spin locks held, returned with {held}");
        kernel.violation(rule::SPIN_LOCK, routine, detail);
        current::set_locks(locks);
    }
}
