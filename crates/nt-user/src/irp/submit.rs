//! What a driver below may expect of an IRP that it is given.

use wsk_sys::nt::{
    IRP, SL_INVOKE_ON_CANCEL, SL_INVOKE_ON_ERROR, SL_INVOKE_ON_SUCCESS, io_get_next_irp_stack_location,
    irp_current_location, irp_stack_count, irp_thread, stack_completion_routine, stack_control,
};

use super::{State, state};
use crate::checker::violation::rule;
use crate::thread::this;

const ALWAYS: u8 = SL_INVOKE_ON_SUCCESS | SL_INVOKE_ON_ERROR | SL_INVOKE_ON_CANCEL;

/// Checks an IRP that a client hands to `call`, before anything is done with it, and reports what is wrong (IRP-01,
/// IRP-02, IRP-05, IRP-06), and what was written behind it. False if the IRP must be left alone; else the driver below
/// takes it, and says so ([`handed_down`]).
///
/// # Safety
/// `irp` is not null and points to readable storage of the size of an IRP.
pub unsafe fn submitted(irp: *mut IRP, call: &'static str) -> bool {
    let here = this::here(call);
    // SAFETY: forwarded to the caller.
    let Some(state) = (unsafe { state(irp) }) else {
        here.violation(rule::OBJECT, call, format!("there is no IRP at {irp:p}, or it has been freed"));
        return false;
    };
    here.pool.check_behind_irp(&here, call, irp.addr());
    // SAFETY: there is an IRP.
    let location = unsafe { irp_current_location(irp) };
    // SAFETY: there is an IRP.
    let from_above = location <= unsafe { irp_stack_count(irp) };
    if location <= 1 {
        let (rule, what) = if from_above {
            ("IRP-06", "is pending already")
        } else {
            ("IRP-01", "has no free stack location")
        };
        here.violation(rule, call, format!("the IRP at {irp:p} {what}"));
        return false;
    }
    if state == State::Completed {
        let detail = format!("the IRP at {irp:p} has completed and was not given to IoReuseIrp since");
        here.violation("IRP-06", call, detail);
    }
    // SAFETY: the IRP is the client's until the location is moved.
    if unsafe { irp_thread(irp) } != 0 {
        let detail = format!("Tail.Overlay.Thread of the IRP at {irp:p} is set");
        here.violation("IRP-05", call, detail);
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
        here.violation("IRP-02", call, format!("the IRP at {irp:p} has {what}"));
    }
    true
}

/// A driver below takes an IRP: until it is complete, its storage must be left alone.
pub fn handed_down(irp: *mut IRP) {
    this::here("IoCallDriver").pool.irp_goes_down(irp.addr());
}
