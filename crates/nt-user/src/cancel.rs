//! Cancellation of IRPs.
//!
//! ```text
//!   IoCancelIrp:  take the cancel lock → Cancel = TRUE → take the cancel routine out
//!                    ├─ there was one: CancelIrql = former IRQL, call it; it releases the lock; TRUE
//!                    └─ there was none: release the lock; FALSE (the owner of the IRP checks Cancel)
//! ```

use std::sync::atomic::Ordering;

use wsk_sys::nt::{DISPATCH_LEVEL, IRP, KIRQL, io_set_cancel_routine, irp_cancel, set_irp_cancel_irql};

use crate::checker::argument;
use crate::checker::context::{self, Context, check_irql};
use crate::irp;
use crate::irql;
use crate::spinlock;
use crate::thread::current;

/// Takes the cancel spin lock; see [`wsk_sys::nt::IoAcquireCancelSpinLock`].
///
/// # Safety
/// `irql` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoAcquireCancelSpinLock(irql: *mut KIRQL) {
    const CALL: &str = "IoAcquireCancelSpinLock";
    let kernel = current::kernel(CALL);
    argument::check_aligned(&kernel, CALL, "storage for the IRQL", irql);
    let old = spinlock::acquire_raise(&kernel, &kernel.cancel_lock, CALL);
    // SAFETY: the caller guarantees that `irql` can be written.
    unsafe { irql.write(old) };
}

/// Releases the cancel spin lock; see [`wsk_sys::nt::IoReleaseCancelSpinLock`].
///
/// # Safety
/// None beyond being called on a thread of a kernel; the signature is the kernel's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoReleaseCancelSpinLock(irql: KIRQL) {
    const CALL: &str = "IoReleaseCancelSpinLock";
    let kernel = current::kernel(CALL);
    spinlock::release_lower(&kernel, &kernel.cancel_lock, irql, CALL);
}

/// Cancels an IRP; see [`wsk_sys::nt::IoCancelIrp`].
///
/// # Safety
/// `irp` points to a live IRP, which the caller keeps alive until this returns.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoCancelIrp(irp: *mut IRP) -> u8 {
    const CALL: &str = "IoCancelIrp";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    // SAFETY: the caller keeps the IRP alive until this function returns.
    unsafe { irp::check(&kernel, irp, CALL) };
    let locks = current::locks();
    let old = spinlock::acquire_raise(&kernel, &kernel.cancel_lock, CALL);
    // SAFETY: the caller keeps the IRP alive until this function returns.
    unsafe { irp_cancel(irp) }.store(1, Ordering::SeqCst);
    // SAFETY: the IRP is alive, and the routine's slot is changed by atomic exchange only.
    let Some(routine) = (unsafe { io_set_cancel_routine(irp, None) }) else {
        spinlock::release_lower(&kernel, &kernel.cancel_lock, old, CALL);
        return 0;
    };
    // SAFETY: the driver that set the routine does not complete the IRP before the routine has run.
    unsafe { set_irp_cancel_irql(irp, old) };
    // SAFETY: the IRP is alive until its cancel routine has run; its owner moved the stack pointer before it
    // set the routine.
    let device = unsafe { irp::current_device(irp) };
    let context = context::enter(Context::Cancel);
    // SAFETY: the owner of the IRP set the routine to be called like this.
    unsafe { routine(device, irp) };
    drop(context);
    irql::check_return("the cancel routine", old, locks);
    1
}
