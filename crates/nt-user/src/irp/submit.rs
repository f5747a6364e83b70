//! Checks of an IRP that is passed to a lower driver.

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

/// Checks an IRP that a client passes to `call` before it is used, and reports its defects (IRP-01, IRP-02,
/// the stack locations of IRP-05, IRP-06) and writes past its end. Returns false if the IRP must not be used;
/// else the lower driver takes it, and calls [`handed_down`].
///
/// # Safety
/// `irp` is not null and points to readable storage of the size of an IRP.
pub unsafe fn submitted(irp: *mut IRP, call: &'static str) -> bool {
    let kernel = current::kernel(call);
    // SAFETY: the caller guarantees readable storage; an address that cannot be an IRP is ruled out first.
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
            "CurrentLocation of the IRP at {irp:p} is {location} of {count}, but its current stack \
             location is at {pointer:p}"
        );
        kernel.violation("IRP-05", call, detail);
        return false;
    }
    let from_above = location <= count;
    if kernel.pool.is_irp_pending(irp.addr()) {
        kernel.violation("IRP-06", call, format!("the IRP at {irp:p} is already pending"));
        return false;
    }
    if location <= 1 {
        let why =
            if from_above { ": it was moved past its last location before it was submitted" } else { "" };
        kernel.violation("IRP-01", call, format!("the IRP at {irp:p} has no free stack location{why}"));
        return false;
    }
    if state == State::Completed {
        let detail = format!("the IRP at {irp:p} has completed and was not reset with IoReuseIrp");
        kernel.violation("IRP-06", call, detail);
    }
    // SAFETY: there is a free location, since the current one is above the first.
    let next = unsafe { io_get_next_irp_stack_location(irp) };
    // SAFETY: the next location is one of the IRP, as a free location has been found.
    let routine = unsafe { stack_completion_routine(next) };
    // SAFETY: the next location is one of the IRP, as a free location has been found.
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

/// Records that a lower driver takes an IRP, whose current location is still that of the driver above. Until
/// the IRP has returned there, its storage must not be touched.
///
/// # Safety
/// `irp` points to an IRP that the caller has.
pub unsafe fn handed_down(irp: *mut IRP) {
    // SAFETY: the caller has the IRP.
    let from = unsafe { irp_current_location(irp) };
    current::kernel("IoCallDriver").pool.mark_irp_pending(irp.addr(), from);
}
