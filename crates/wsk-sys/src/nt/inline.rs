//! Macros and inline functions of the kernel headers.

use core::ffi::c_void;
use core::mem::size_of;

use super::*;

/// The bytes of an IRP with `stack_size` stack locations (`IoSizeOfIrp`).
#[inline]
pub const fn io_size_of_irp(stack_size: i8) -> u16 {
    (size_of::<IRP>() + stack_size as usize * size_of::<IO_STACK_LOCATION>()) as u16
}

/// The stack location of the driver that has the IRP now (`IoGetCurrentIrpStackLocation`).
///
/// # Safety
/// `irp` points to a live IRP that the caller owns and that has been handed down at least once.
#[inline]
pub unsafe fn io_get_current_irp_stack_location(irp: *mut IRP) -> *mut IO_STACK_LOCATION {
    // SAFETY: the caller owns the live IRP.
    unsafe { irp_stack_pointer(irp) }
}

/// The stack location of the driver below (`IoGetNextIrpStackLocation`).
///
/// # Safety
/// `irp` points to a live IRP that the caller owns and that has a free stack location.
#[inline]
pub unsafe fn io_get_next_irp_stack_location(irp: *mut IRP) -> *mut IO_STACK_LOCATION {
    // SAFETY: the caller owns the live IRP.
    let current = unsafe { irp_stack_pointer(irp) };
    current.wrapping_sub(1)
}

/// Moves to the next stack location, as handing an IRP down does (`IoSetNextIrpStackLocation`).
///
/// # Safety
/// `irp` points to a live IRP that the caller owns and that has a free stack location.
#[inline]
pub unsafe fn io_set_next_irp_stack_location(irp: *mut IRP) {
    // SAFETY: the caller owns the live IRP.
    let location = unsafe { irp_current_location(irp) };
    // SAFETY: the caller owns the live IRP.
    unsafe { set_irp_current_location(irp, location - 1) };
    // SAFETY: the caller owns the live IRP.
    let next = unsafe { io_get_next_irp_stack_location(irp) };
    // SAFETY: the caller owns the live IRP.
    unsafe { set_irp_stack_pointer(irp, next) };
}

/// Sets the completion routine for success, error and cancel (`IoSetCompletionRoutine` with all three
/// `TRUE`).
///
/// # Safety
/// `irp` points to a live IRP that the caller owns and that has a free stack location; `routine` may be
/// called with `context` until the IRP has completed.
#[inline]
pub unsafe fn io_set_completion_routine(irp: *mut IRP, routine: IO_COMPLETION_ROUTINE, context: *mut c_void) {
    // SAFETY: the caller owns the live IRP.
    let next = unsafe { io_get_next_irp_stack_location(irp) };
    // SAFETY: the next location belongs to the IRP that the caller owns.
    unsafe { set_stack_completion_routine(next, Some(routine)) };
    // SAFETY: the next location belongs to the IRP that the caller owns.
    unsafe { set_stack_context(next, context) };
    // SAFETY: the next location belongs to the IRP that the caller owns.
    unsafe { set_stack_control(next, SL_INVOKE_ON_SUCCESS | SL_INVOKE_ON_ERROR | SL_INVOKE_ON_CANCEL) };
}

/// Marks the IRP pending in the current stack location (`IoMarkIrpPending`).
///
/// # Safety
/// `irp` points to a live IRP that the caller owns and that has been handed down.
#[inline]
pub unsafe fn io_mark_irp_pending(irp: *mut IRP) {
    // SAFETY: the caller owns the live IRP.
    let current = unsafe { irp_stack_pointer(irp) };
    // SAFETY: the current location belongs to the IRP that the caller owns.
    let control = unsafe { stack_control(current) };
    // SAFETY: the current location belongs to the IRP that the caller owns.
    unsafe { set_stack_control(current, control | SL_PENDING_RETURNED) };
}

/// The system address of the memory an MDL describes, mapped if need be (`MmGetSystemAddressForMdlSafe`).
///
/// Null when mapping space is out. IRQL <= DISPATCH.
///
/// # Safety
/// `mdl` points to a live MDL that describes locked pages or non-paged pool.
#[inline]
pub unsafe fn mm_get_system_address_for_mdl_safe(mdl: *mut MDL) -> *mut c_void {
    // SAFETY: the caller guarantees a live MDL.
    let flags = unsafe { mdl_flags(mdl) };
    if flags & (MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL) != 0 {
        // SAFETY: the caller guarantees a live MDL.
        return unsafe { mdl_mapped_system_va(mdl) };
    }
    // SAFETY: the caller guarantees locked pages, which is what the function asks for.
    unsafe {
        MmMapLockedPagesSpecifyCache(
            mdl,
            KERNEL_MODE,
            MM_CACHED,
            core::ptr::null_mut(),
            0,
            NORMAL_PAGE_PRIORITY_NX,
        )
    }
}
