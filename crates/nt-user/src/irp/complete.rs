//! Completion: the walk up the stack locations.
//!
//! ```text
//!   location of the driver that completes
//!        │ take its routine, context and pending bit; move up one location
//!        ▼
//!   is the routine set for this outcome?
//!        ├─ yes: call it ── STATUS_MORE_PROCESSING_REQUIRED ──► stop: the routine has the IRP
//!        │          └─ anything else ─┐
//!        └─ no: carry the pending bit up ─┴─► top reached? the creator did not keep its IRP: IRP-03, IRP-02
//! ```

use std::ptr;
use std::sync::atomic::Ordering;

use wsk_sys::nt::{
    DISPATCH_LEVEL, IO_STACK_LOCATION, IRP, SL_INVOKE_ON_CANCEL, SL_INVOKE_ON_ERROR, SL_INVOKE_ON_SUCCESS,
    SL_PENDING_RETURNED, io_mark_irp_pending, io_set_cancel_routine, irp_cancel, irp_current_location,
    irp_stack_count, irp_stack_pointer, irp_status, set_irp_current_location, set_irp_pending_returned,
    set_irp_stack_pointer, set_stack_control, stack_completion_routine, stack_context, stack_control,
};
use wsk_sys::status::{STATUS_MORE_PROCESSING_REQUIRED, STATUS_PENDING, nt_success};

use super::{STAMP_COMPLETED, State, check, device, stamp, state};
use crate::checker::context::{self, Context, check_irql};
use crate::checker::violation::rule;
use crate::image::{self, Routine};
use crate::irql;
use crate::thread::current::{self, CurrentKernel};

const CALL: &str = "IofCompleteRequest";

/// Completes an IRP; see [`wsk_sys::nt::IofCompleteRequest`].
///
/// # Safety
/// The caller is the driver that has the IRP, and does not touch it afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IofCompleteRequest(irp: *mut IRP, _priority_boost: i8) {
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    // SAFETY: the caller has the IRP, so its storage is alive.
    unsafe { check(&kernel, irp, CALL) };
    // SAFETY: the caller has the IRP, so its storage is alive.
    if unsafe { state(irp) } != Some(State::Submitted) {
        let detail =
            format!("no lower driver has the IRP at {irp:p}: it is complete, or was never submitted");
        kernel.violation(rule::IRP_COMPLETE, CALL, detail);
        return;
    }
    kernel.pool.check_behind_irp(&kernel, CALL, irp.addr());
    // SAFETY: the caller has the IRP.
    unsafe { check_outcome(&kernel, irp) };
    // SAFETY: the caller has the IRP until `step` returns false.
    while unsafe { step(irp) } {}
}

/// Checks the state of an IRP before it is completed.
///
/// # Safety
/// The caller has the IRP.
unsafe fn check_outcome(kernel: &CurrentKernel, irp: *mut IRP) {
    // SAFETY: the caller has the IRP.
    if unsafe { irp_status(irp) } == STATUS_PENDING {
        kernel.violation(
            rule::IRP_COMPLETE,
            CALL,
            format!("the IRP at {irp:p} is completed with STATUS_PENDING"),
        );
    }
    // SAFETY: the caller has the IRP.
    if unsafe { io_set_cancel_routine(irp, None) }.is_some() {
        let detail = format!("the IRP at {irp:p} is completed with its cancel routine set");
        kernel.violation(rule::IRP_COMPLETE, CALL, detail);
    }
}

/// Checks IRP-04: a driver in the middle propagates the pending bit in its completion routine.
///
/// # Safety
/// `upper` is the current location of `irp`, which the caller has.
unsafe fn check_pending_carried(upper: *mut IO_STACK_LOCATION, irp: *mut IRP) {
    // SAFETY: the caller guarantees that `upper` is a stack location of its IRP.
    if unsafe { stack_control(upper) } & SL_PENDING_RETURNED == 0 {
        let detail =
            format!("PendingReturned of the IRP at {irp:p} is TRUE, but its routine did not mark it pending");
        current::kernel(CALL).violation("IRP-04", CALL, detail);
    }
}

/// Moves up one location; returns false at the end of the walk.
///
/// # Safety
/// The IRP is submitted and the caller has it; it is not touched after a false result.
unsafe fn step(irp: *mut IRP) -> bool {
    // SAFETY: the caller has the IRP.
    let lower = unsafe { irp_stack_pointer(irp) };
    // SAFETY: the current location of a submitted IRP is one of its own.
    let control = unsafe { stack_control(lower) };
    // SAFETY: the current location of a submitted IRP is one of its own.
    let routine = unsafe { stack_completion_routine(lower) };
    // SAFETY: the current location of a submitted IRP is one of its own.
    let argument = unsafe { stack_context(lower) };
    // SAFETY: the location belongs to the submitted IRP; cleared flags keep a second completion from using
    // it.
    unsafe { set_stack_control(lower, 0) };
    let pending = control & SL_PENDING_RETURNED != 0;
    // SAFETY: the caller has the IRP.
    unsafe { set_irp_pending_returned(irp, pending) };
    // SAFETY: the caller has the IRP.
    let location = unsafe { irp_current_location(irp) } + 1;
    // SAFETY: the caller has the IRP.
    let top = location > unsafe { irp_stack_count(irp) };
    let upper = lower.wrapping_add(1);
    // SAFETY: the caller has the IRP.
    unsafe { set_irp_stack_pointer(irp, upper) };
    // The IRP has returned to the driver that handed it down, whose routine may free or reuse it.
    current::kernel(CALL).pool.mark_irp_returned(irp.addr(), location);
    if top {
        // SAFETY: the caller has the IRP.
        unsafe { stamp(irp) }.store(STAMP_COMPLETED, Ordering::Release);
    }
    // SAFETY: the caller has the IRP.
    unsafe { set_irp_current_location(irp, location) };
    let device = if top {
        ptr::null_mut()
    } else {
        // SAFETY: below the top, the upper location is one of the IRP's own.
        unsafe { device(upper) }
    };
    // SAFETY: the caller has the IRP.
    let outcome =
        if nt_success(unsafe { irp_status(irp) }) { SL_INVOKE_ON_SUCCESS } else { SL_INVOKE_ON_ERROR };
    // SAFETY: the caller has the IRP.
    let cancelled = unsafe { irp_cancel(irp) }.load(Ordering::Acquire) != 0;
    let wanted = outcome | if cancelled { SL_INVOKE_ON_CANCEL } else { 0 };
    match routine.filter(|_| control & wanted != 0) {
        Some(routine) => {
            let irql = current::irql();
            let locks = current::locks();
            let context = context::enter(Context::Completion);
            let kernel = current::kernel(CALL);
            let number = if image::keeps_account(routine) {
                0
            } else {
                kernel.image.enter(&kernel, Routine::Completion, None)
            };
            // SAFETY: the driver above set the routine and its context for this IRP.
            let answer = unsafe { routine(device, irp, argument) };
            kernel.image.leave(&kernel, number);
            drop(context);
            irql::check_return("the completion routine", irql, locks);
            if answer == STATUS_MORE_PROCESSING_REQUIRED {
                return false;
            }
            if !top && pending {
                // SAFETY: the routine returned the IRP, and below the top the location is one of its own.
                unsafe { check_pending_carried(upper, irp) };
            }
            if top {
                let detail = format!("the completion routine of the IRP's creator returned {answer:#010X}");
                current::kernel(CALL).violation("IRP-03", CALL, detail);
            }
        }
        None if top => {
            let detail = format!(
                "the IRP at {irp:p} has no completion routine for its outcome: its creator does not get it"
            );
            current::kernel(CALL).violation("IRP-02", CALL, detail);
        }
        None if pending => {
            // SAFETY: below the top, the current location is one of the IRP's own.
            unsafe { io_mark_irp_pending(irp) };
        }
        None => {}
    }
    !top
}
