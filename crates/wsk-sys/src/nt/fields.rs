//! Reading and writing single fields of the generated types.
//!
//! Each function takes a raw pointer, reads or writes one field of a live object, and leaves every other
//! field alone. No reference to the whole object is ever made, because another processor may own the rest of
//! it.
//!
//! The fields here are spelled alike by every binding crate; the few that are not are in `binding`. Beside
//! each stands its offset on 64-bit and on 32-bit targets, asserted while compiling.

use core::ffi::c_void;
use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use super::*;

/// The same address with the type a field has here: binding crates differ in `bool` and `u8`, `usize` and
/// `u64`.
#[inline]
pub(super) const fn retyped<From, To>(field: *mut From) -> *mut To {
    const { assert!(size_of::<From>() == size_of::<To>() && align_of::<From>() == align_of::<To>()) };
    field.cast()
}

/// Accessors of fields: `read / write: Object => path: type, offset on 64-bit / offset on 32-bit targets;`
macro_rules! accessors {
    ($($(#[$doc:meta])* $get:ident / $set:ident :
        $object:ty => $($field:ident).+ : $ty:ty, $wide:literal / $narrow:literal;)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// `object` points to a live object whose field no other thread writes meanwhile.
        #[inline]
        pub unsafe fn $get(object: *mut $object) -> $ty {
            // SAFETY: the caller guarantees a live object; only the address of one field is computed.
            let field = unsafe { core::ptr::addr_of_mut!((*object).$($field).+) };
            // SAFETY: the field lies inside the live object and the caller excludes concurrent writers.
            unsafe { $crate::nt::fields::retyped::<_, $ty>(field).read() }
        }
        /// Writes the field that the function of the same stem reads.
        ///
        /// # Safety
        /// `object` points to a live object whose field no other thread reads or writes meanwhile.
        #[inline]
        pub unsafe fn $set(object: *mut $object, value: $ty) {
            // SAFETY: the caller guarantees a live object; only the address of one field is computed.
            let field = unsafe { core::ptr::addr_of_mut!((*object).$($field).+) };
            // SAFETY: the field lies inside the live object and the caller excludes concurrent access.
            unsafe { $crate::nt::fields::retyped::<_, $ty>(field).write(value) }
        }
        const _: () =
            assert!(core::mem::offset_of!($object, $($field).+) == $crate::layout::at($wide, $narrow));
    )* };
}
pub(super) use accessors;

accessors! {
    /// `Irp->IoStatus.Information`.
    irp_information / set_irp_information: IRP => IoStatus.Information: usize, 0x38 / 0x1C;
    /// `Irp->PendingReturned`, meaningful inside a completion routine.
    irp_pending_returned / set_irp_pending_returned: IRP => PendingReturned: bool, 0x41 / 0x21;
    /// `Irp->StackCount`.
    irp_stack_count / set_irp_stack_count: IRP => StackCount: i8, 0x42 / 0x22;
    /// `Irp->CurrentLocation`.
    irp_current_location / set_irp_current_location: IRP => CurrentLocation: i8, 0x43 / 0x23;
    /// `Irp->CancelIrql`.
    irp_cancel_irql / set_irp_cancel_irql: IRP => CancelIrql: u8, 0x45 / 0x25;
    /// `Irp->AllocationFlags`.
    irp_allocation_flags / set_irp_allocation_flags: IRP => AllocationFlags: u8, 0x47 / 0x27;
    /// `Irp->Type`.
    irp_type / set_irp_type: IRP => Type: i16, 0 / 0;
    /// `Irp->Size`.
    irp_size / set_irp_size: IRP => Size: u16, 2 / 2;
    /// `Irp->Tail.Overlay.Thread`; a WSK client leaves it alone.
    irp_thread / set_irp_thread: IRP => Tail.Overlay.Thread: isize, 0x98 / 0x50;
    /// `IO_STACK_LOCATION.Control`: the `SL_…` bits.
    stack_control / set_stack_control: IO_STACK_LOCATION => Control: u8, 3 / 3;
    /// `IO_STACK_LOCATION.Context`.
    stack_context / set_stack_context: IO_STACK_LOCATION => Context: *mut c_void, 0x40 / 0x20;
    /// `Mdl->Next`.
    mdl_next / set_mdl_next: MDL => Next: *mut MDL, 0 / 0;
    /// `Mdl->MdlFlags`.
    mdl_flags / set_mdl_flags: MDL => MdlFlags: i16, 10 / 6;
    /// `Mdl->Size`, in bytes, of the MDL itself.
    mdl_size / set_mdl_size: MDL => Size: i16, 8 / 4;
    /// `Mdl->MappedSystemVa`.
    mdl_mapped_system_va / set_mdl_mapped_system_va: MDL => MappedSystemVa: *mut c_void, 24 / 12;
    /// `Mdl->StartVa`, page aligned.
    mdl_start_va / set_mdl_start_va: MDL => StartVa: *mut c_void, 32 / 16;
    /// `Mdl->ByteCount` (`MmGetMdlByteCount`).
    mdl_byte_count / set_mdl_byte_count: MDL => ByteCount: u32, 40 / 20;
    /// `Mdl->ByteOffset` (`MmGetMdlByteOffset`).
    mdl_byte_offset / set_mdl_byte_offset: MDL => ByteOffset: u32, 44 / 24;
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
    // SAFETY: an optional function pointer is one word, and every concurrent access goes through this
    // function.
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
    // SAFETY: whatever the binding crate calls the type, it is represented as an optional function pointer.
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
    // SAFETY: whatever the binding crate calls the type, it is represented as an optional function pointer.
    unsafe { field.cast::<Option<IO_COMPLETION_ROUTINE>>().write(routine) }
}
