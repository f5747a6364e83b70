//! Field paths of the generated types: the one file that knows how a binding crate spells them.
//!
//! Each function takes a raw pointer, reads or writes one field of a live object, and leaves every other field
//! alone. No reference to the whole object is ever made, because another processor may own the rest of it.

use core::ffi::c_void;
use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use super::*;

macro_rules! accessors {
    ($($(#[$doc:meta])* $get:ident / $set:ident : $object:ty => $($field:ident).+ : $ty:ty;)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// `object` points to a live object whose field no other thread writes meanwhile.
        #[inline]
        pub unsafe fn $get(object: *mut $object) -> $ty {
            // SAFETY: the caller guarantees a live object; only the address of one field is computed.
            let field = unsafe { addr_of_mut!((*object).$($field).+) };
            // SAFETY: the field lies inside the live object and the caller excludes concurrent writers.
            unsafe { field.read() }
        }
        /// Writes the field that the function of the same stem reads.
        ///
        /// # Safety
        /// `object` points to a live object whose field no other thread reads or writes meanwhile.
        #[inline]
        pub unsafe fn $set(object: *mut $object, value: $ty) {
            // SAFETY: the caller guarantees a live object; only the address of one field is computed.
            let field = unsafe { addr_of_mut!((*object).$($field).+) };
            // SAFETY: the field lies inside the live object and the caller excludes concurrent access.
            unsafe { field.write(value) }
        }
    )* };
}

accessors! {
    /// `Irp->IoStatus.Status`.
    irp_status / set_irp_status: IRP => IoStatus.Anonymous.Status: NTSTATUS;
    /// `Irp->IoStatus.Information`.
    irp_information / set_irp_information: IRP => IoStatus.Information: usize;
    /// `Irp->PendingReturned`, meaningful inside a completion routine.
    irp_pending_returned / set_irp_pending_returned: IRP => PendingReturned: bool;
    /// `Irp->StackCount`.
    irp_stack_count / set_irp_stack_count: IRP => StackCount: i8;
    /// `Irp->CurrentLocation`.
    irp_current_location / set_irp_current_location: IRP => CurrentLocation: i8;
    /// `Irp->CancelIrql`.
    irp_cancel_irql / set_irp_cancel_irql: IRP => CancelIrql: u8;
    /// `Irp->AllocationFlags`.
    irp_allocation_flags / set_irp_allocation_flags: IRP => AllocationFlags: u8;
    /// `Irp->Type`.
    irp_type / set_irp_type: IRP => Type: i16;
    /// `Irp->Size`.
    irp_size / set_irp_size: IRP => Size: u16;
    /// `Irp->Tail.Overlay.Thread`; a WSK client leaves it alone.
    irp_thread / set_irp_thread: IRP => Tail.Overlay.Thread: isize;
    /// `Irp->Tail.Overlay.DriverContext`, four words for whoever owns the IRP now (the provider while it pends).
    irp_driver_context / set_irp_driver_context:
        IRP => Tail.Overlay.Anonymous1.Anonymous.DriverContext: [*mut c_void; 4];
    /// `Irp->Tail.Overlay.CurrentStackLocation`.
    irp_stack_pointer / set_irp_stack_pointer:
        IRP => Tail.Overlay.Anonymous2.Anonymous.CurrentStackLocation: *mut IO_STACK_LOCATION;
    /// `Irp->Tail.Overlay.ListEntry`, for whoever owns the IRP now.
    irp_list_entry / set_irp_list_entry: IRP => Tail.Overlay.Anonymous2.ListEntry: LIST_ENTRY;
    /// `IO_STACK_LOCATION.Control`: the `SL_…` bits.
    stack_control / set_stack_control: IO_STACK_LOCATION => Control: u8;
    /// `IO_STACK_LOCATION.Context`.
    stack_context / set_stack_context: IO_STACK_LOCATION => Context: *mut c_void;
    /// `Mdl->Next`.
    mdl_next / set_mdl_next: MDL => Next: *mut MDL;
    /// `Mdl->MdlFlags`.
    mdl_flags / set_mdl_flags: MDL => MdlFlags: i16;
    /// `Mdl->Size`, in bytes, of the MDL itself.
    mdl_size / set_mdl_size: MDL => Size: i16;
    /// `Mdl->MappedSystemVa`.
    mdl_mapped_system_va / set_mdl_mapped_system_va: MDL => MappedSystemVa: *mut c_void;
    /// `Mdl->StartVa`, page aligned.
    mdl_start_va / set_mdl_start_va: MDL => StartVa: *mut c_void;
    /// `Mdl->ByteCount` (`MmGetMdlByteCount`).
    mdl_byte_count / set_mdl_byte_count: MDL => ByteCount: u32;
    /// `Mdl->ByteOffset` (`MmGetMdlByteOffset`).
    mdl_byte_offset / set_mdl_byte_offset: MDL => ByteOffset: u32;
}

/// `Irp->Cancel` as an atomic: it is set by [`IoCancelIrp`] while others look at it.
///
/// # Safety
/// `irp` points to an IRP that lives as long as the returned reference is used.
#[inline]
pub unsafe fn irp_cancel<'a>(irp: *mut IRP) -> &'a AtomicU8 {
    // SAFETY: the caller guarantees a live IRP; only the address of one field is computed.
    let field = unsafe { addr_of_mut!((*irp).Cancel) };
    // SAFETY: a BOOLEAN is one byte, and every concurrent access to it goes through this function.
    unsafe { AtomicU8::from_ptr(field.cast()) }
}

/// `Irp->CancelRoutine` as an atomic; see [`io_set_cancel_routine`].
///
/// # Safety
/// `irp` points to an IRP that lives as long as the returned reference is used.
#[inline]
pub unsafe fn irp_cancel_routine<'a>(irp: *mut IRP) -> &'a AtomicPtr<c_void> {
    // SAFETY: the caller guarantees a live IRP; only the address of one field is computed.
    let field = unsafe { addr_of_mut!((*irp).CancelRoutine) };
    // SAFETY: an optional function pointer is one word, and every concurrent access goes through this function.
    unsafe { AtomicPtr::from_ptr(field.cast()) }
}

/// Sets the cancel routine and returns the former one (`IoSetCancelRoutine`).
///
/// # Safety
/// `irp` points to a live IRP that the caller owns.
#[inline]
pub unsafe fn io_set_cancel_routine(irp: *mut IRP, routine: Option<DRIVER_CANCEL>) -> Option<DRIVER_CANCEL> {
    let new = routine.map_or(core::ptr::null_mut(), |routine| routine as *mut c_void);
    // SAFETY: the caller guarantees a live IRP.
    let slot = unsafe { irp_cancel_routine(irp) };
    let old = slot.swap(new, Ordering::AcqRel);
    // SAFETY: the slot holds null or a `DRIVER_CANCEL`, and an optional function pointer is null for `None`.
    unsafe { core::mem::transmute::<*mut c_void, Option<DRIVER_CANCEL>>(old) }
}

/// `IO_STACK_LOCATION.CompletionRoutine`, with its true signature.
///
/// # Safety
/// `location` points to a live stack location that no other thread writes meanwhile.
#[inline]
pub unsafe fn stack_completion_routine(location: *mut IO_STACK_LOCATION) -> Option<IO_COMPLETION_ROUTINE> {
    // SAFETY: the caller guarantees a live location; only the address of one field is computed.
    let field = unsafe { addr_of_mut!((*location).CompletionRoutine) };
    // SAFETY: the generated type lost its parameters; the representation is that of an optional function pointer.
    unsafe { field.cast::<Option<IO_COMPLETION_ROUTINE>>().read() }
}

/// Sets `IO_STACK_LOCATION.CompletionRoutine`.
///
/// # Safety
/// `location` points to a live stack location that no other thread reads or writes meanwhile.
#[inline]
pub unsafe fn set_stack_completion_routine(
    location: *mut IO_STACK_LOCATION,
    routine: Option<IO_COMPLETION_ROUTINE>,
) {
    // SAFETY: the caller guarantees a live location; only the address of one field is computed.
    let field = unsafe { addr_of_mut!((*location).CompletionRoutine) };
    // SAFETY: the generated type lost its parameters; the representation is that of an optional function pointer.
    unsafe { field.cast::<Option<IO_COMPLETION_ROUTINE>>().write(routine) }
}
