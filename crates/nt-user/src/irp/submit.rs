//! What a driver below may expect of an IRP that it is given.

use wsk_sys::nt::{
    IO_STACK_LOCATION, IRP, SL_INVOKE_ON_CANCEL, SL_INVOKE_ON_ERROR, SL_INVOKE_ON_SUCCESS,
    io_get_next_irp_stack_location, irp_current_location, irp_stack_count, irp_stack_pointer,
    stack_completion_routine, stack_control,
};

use super::{State, state};
use crate::checker::argument::is_null_page;
use crate::checker::violation::rule;
use crate::thread::current;

const ALWAYS: u8 = SL_INVOKE_ON_SUCCESS | SL_INVOKE_ON_ERROR | SL_INVOKE_ON_CANCEL;

/// Checks an IRP that a client hands to `call`, before anything is done with it, and reports what is wrong (IRP-01,
/// IRP-02, IRP-05 as to the stack locations, IRP-06), and what was written behind it. False if the IRP must be left alone; else the driver below
/// takes it, and says so ([`handed_down`]).
///
/// # Safety
/// `irp` is not null and points to readable storage of the size of an IRP.
pub unsafe fn submitted(irp: *mut IRP, call: &'static str) -> bool {
    let kernel = current::kernel(call);
    // SAFETY: forwarded to the caller, except that what cannot be an IRP is told apart here.
    let found = if is_null_page(irp) { None } else { unsafe { state(irp) } };
    let Some(state) = found else {
        kernel.violation(rule::OBJECT, call, format!("there is no IRP at {irp:p}, or it has been freed"));
        return false;
    };
    kernel.pool.check_behind_irp(&kernel, call, irp.addr());
    // SAFETY: there is an IRP.
    let location = unsafe { irp_current_location(irp) };
    // SAFETY: there is an IRP.
    let count = unsafe { irp_stack_count(irp) };
    // SAFETY: there is an IRP.
    let pointer = unsafe { irp_stack_pointer(irp) };
    let first = irp.wrapping_add(1).cast::<IO_STACK_LOCATION>();
    if location > count + 1 || pointer != first.wrapping_offset(isize::from(location) - 1) {
        let detail = format!(
            "CurrentLocation of the IRP at {irp:p} is {location} of {count}, and its current stack location at {pointer:p}"
        );
        kernel.violation("IRP-05", call, detail);
        return false;
    }
    let from_above = location <= count;
    if kernel.pool.is_irp_pending(irp.addr()) {
        kernel.violation("IRP-06", call, format!("the IRP at {irp:p} is pending already"));
        return false;
    }
    if location <= 1 {
        let why =
            if from_above { ": it has been moved past its last one before it was handed over" } else { "" };
        kernel.violation("IRP-01", call, format!("the IRP at {irp:p} has no free stack location{why}"));
        return false;
    }
    if state == State::Completed {
        let detail = format!("the IRP at {irp:p} has completed and was not given to IoReuseIrp since");
        kernel.violation("IRP-06", call, detail);
    }
    // SAFETY: there is a free location, since the current one is above the first.
    let next = unsafe { io_get_next_irp_stack_location(irp) };
    // SAFETY: as above.
    let routine = unsafe { stack_completion_routine(next) };
    // SAFETY: as above.
    let control = unsafe { stack_control(next) };
    if !from_above && (routine.is_none() || control & ALWAYS != ALWAYS) {
        let what = if routine.is_none() {
            "no completion routine".to_owned()
        } else {
            format!("a completion routine for some outcomes only ({control:#04X})")
        };
        kernel.violation("IRP-02", call, format!("the IRP at {irp:p} has {what}"));
    }
    true
}

/// A driver below takes an IRP, whose current location is still that of the driver above: until it has come up to there, its
/// storage must be left alone.
///
/// # Safety
/// `irp` points to an IRP that the caller has.
pub unsafe fn handed_down(irp: *mut IRP) {
    // SAFETY: forwarded to the caller.
    let from = unsafe { irp_current_location(irp) };
    current::kernel("IoCallDriver").pool.mark_irp_pending(irp.addr(), from);
}
