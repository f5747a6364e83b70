//! An IRP with one stack location in the owner's own memory.
//!
//! ```text
//!   IrpStorage:   prepare ──▶ [keep_image] ──▶ handed to WSK, or completed here ──▶ completion routine
//!   ReservedIrp:  reserve (may fail) ──▶ kept ──▶ take: submitted ──▶ completion routine
//!                                         │ dropped
//!                                         └──▶ completed here: the routine sees that it comes back unused
//! ```
//!
//! When a completion routine returns to the I/O manager, the task that waited for the request may have gone
//! on with its result already, up to the driver's unloading. With a device object of the driver,
//! [`keep_image`] has the I/O manager hold that object, and with it the image, until the routine has returned
//! (`IoSetCompletionRoutineEx`). No code of the image can do that for itself: the routine's last instruction,
//! which gives the status back (rule IRP-03), is always still to come.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::{MaybeUninit, align_of, offset_of, size_of};
use core::sync::atomic::{AtomicBool, Ordering};

use wsk_sys::nt::{self, NTSTATUS};
use wsk_sys::{STATUS_CANCELLED, STATUS_MORE_PROCESSING_REQUIRED, nt_success};

use crate::memory::OutOfMemory;

/// Storage for an IRP with one stack location, initialised anew for every request (`IoInitializeIrp`), so
/// that no request allocates an IRP.
///
/// # Invariants
/// Between [`IrpStorage::prepare`] and the run of the completion routine the storage belongs to the driver
/// that the IRP was submitted to; the owner keeps it alive and does not touch it. The owning operation keeps
/// this.
// Microsoft declares an IRP with MEMORY_ALLOCATION_ALIGNMENT; the headers that bindings are made of may not
// (rule IRP-28).
#[cfg_attr(target_pointer_width = "64", repr(C, align(16)))]
#[cfg_attr(not(target_pointer_width = "64"), repr(C, align(8)))]
pub(crate) struct IrpStorage {
    irp: UnsafeCell<MaybeUninit<nt::IRP>>,
    stack: UnsafeCell<MaybeUninit<nt::IO_STACK_LOCATION>>,
    /// For [`ReservedIrp`]. It is here because alignment leaves room for it.
    unused: AtomicBool,
}

// The stack location follows the IRP without a gap, as `IoSizeOfIrp(1)` expects (rule IRP-01). The storage
// may be longer than that, where alignment pads it.
const _: () = assert!(offset_of!(IrpStorage, stack) == size_of::<nt::IRP>());
const _: () = assert!(size_of::<IrpStorage>() >= nt::io_size_of_irp(1) as usize);
// The IRP comes first, so it is aligned as the whole is, and as the pool aligns the blocks that it lies in.
const _: () = assert!(offset_of!(IrpStorage, irp) == 0);
const _: () = assert!(align_of::<IrpStorage>() == nt::MEMORY_ALLOCATION_ALIGNMENT);

// SAFETY: the storage is plain memory; the invariant says who may touch it when, on whatever processor.
unsafe impl Send for IrpStorage {}
// SAFETY: a shared reference alone gives no access without `unsafe`; the invariant says who may touch the
// storage when.
unsafe impl Sync for IrpStorage {}

impl IrpStorage {
    /// Memory not yet an IRP.
    pub(crate) const fn new() -> Self {
        Self {
            irp: UnsafeCell::new(MaybeUninit::uninit()),
            stack: UnsafeCell::new(MaybeUninit::uninit()),
            unused: AtomicBool::new(false),
        }
    }

    /// The IRP inside.
    ///
    /// Derived from the address of the whole storage, so that the pointer may also reach the stack location.
    pub(crate) fn as_ptr(&self) -> *mut nt::IRP {
        core::ptr::from_ref(self).cast_mut().cast()
    }

    /// Makes the storage a fresh IRP with its completion routine set for success, error and cancel
    /// (rules IRP-02, IRP-06).
    ///
    /// # Safety
    /// No request uses the storage now. The storage stays where it is until `routine` has run, and so does
    /// what the routine makes of `context`.
    pub(crate) unsafe fn prepare(
        &self,
        routine: nt::IO_COMPLETION_ROUTINE,
        context: *mut c_void,
    ) -> *mut nt::IRP {
        let irp = self.as_ptr();
        // SAFETY: the pointer reaches the whole storage, which the caller keeps until the routine has run,
        // with its context.
        unsafe { prepare(irp, routine, context) };
        irp
    }
}

/// Makes memory a fresh IRP; see [`IrpStorage::prepare`].
///
/// # Safety
/// `irp` leads to an [`IrpStorage`] and reaches all of it; the rest is as for [`IrpStorage::prepare`].
unsafe fn prepare(irp: *mut nt::IRP, routine: nt::IO_COMPLETION_ROUTINE, context: *mut c_void) {
    // SAFETY: the storage holds `IoSizeOfIrp(1)` bytes, and the caller says that it is not in use.
    unsafe { nt::IoInitializeIrp(irp, nt::io_size_of_irp(1), 1) };
    // SAFETY: the IRP was initialised with one free location; the caller keeps `context` alive.
    unsafe { nt::io_set_completion_routine(irp, routine, context) };
}

/// Has the image of `device`'s driver stay until the completion routine of a prepared IRP has returned.
/// Without a device there is nothing to do.
///
/// After success the IRP must be completed, by WSK or by [`complete_here`]: what the I/O manager has
/// allocated is given back then. Each call takes memory of the I/O manager's; IRQL up to `DISPATCH_LEVEL`.
///
/// # Safety
/// `irp` was prepared and not yet submitted. `device` is null, or a device object that is there during the
/// call.
#[inline(never)]
pub(crate) unsafe fn keep_image(
    irp: *mut nt::IRP,
    device: *mut nt::DEVICE_OBJECT,
) -> Result<(), OutOfMemory> {
    if device.is_null() {
        return Ok(());
    }
    // SAFETY: a prepared IRP has one free location.
    let location = unsafe { nt::io_get_next_irp_stack_location(irp) };
    // SAFETY: the location is the caller's.
    let routine = unsafe { nt::stack_completion_routine(location) };
    // SAFETY: the location is the caller's.
    let context = unsafe { nt::stack_context(location) };
    // SAFETY: the IRP has one free location and was not submitted; routine and context are the ones that
    // were to be set anyhow, and the caller vouches for the device.
    let status = unsafe { nt::IoSetCompletionRoutineEx(device, irp, routine, context, 1, 1, 1) };
    if nt_success(status) { Ok(()) } else { Err(OutOfMemory) }
}

/// Completes a prepared IRP that WSK was not given: its routine runs before this returns.
///
/// # Safety
/// `irp` was prepared and not submitted. It is the routine's from here on.
#[inline(never)]
pub(crate) unsafe fn complete_here(irp: *mut nt::IRP, status: NTSTATUS) {
    // SAFETY: the IRP was not submitted.
    unsafe { nt::set_irp_status(irp, status) };
    // SAFETY: the IRP was not submitted.
    unsafe { nt::set_irp_information(irp, 0) };
    // SAFETY: the IRP was not submitted, and was prepared with one free location.
    unsafe { nt::io_set_next_irp_stack_location(irp) };
    // SAFETY: the IRP was not submitted, and its routine was set when it was prepared; this code plays the
    // driver below, and does not touch the IRP any more.
    unsafe { nt::IofCompleteRequest(irp, nt::IO_NO_INCREMENT as i8) };
}

/// An IRP that was made ready beforehand, so that handing it to WSK cannot fail.
///
/// # Invariants
/// - While `unused` is set, the IRP is prepared, the I/O manager holds the image for its routine, and it
///   was not submitted.
/// - The pointer that the IRP is submitted with reaches this whole value, as [`comes_back_unused`] needs.
/// - Its completion routine is that of [`Completion`].
#[repr(transparent)]
pub(crate) struct ReservedIrp(IrpStorage);

impl ReservedIrp {
    /// Memory not yet an IRP.
    pub(crate) const fn new() -> Self {
        Self(IrpStorage::new())
    }

    /// The IRP inside, as a pointer that reaches the whole value.
    pub(crate) fn as_ptr(&self) -> *mut nt::IRP {
        core::ptr::from_ref(self).cast_mut().cast()
    }

    /// Prepares the IRP; see [`IrpStorage::prepare`] and [`keep_image`]. `C` is told when it has completed.
    ///
    /// # Safety
    /// As for both of them, once. `C::completed` may be called with `context` when the IRP was
    /// [taken](Self::take) and has completed.
    pub(crate) unsafe fn reserve<C: Completion>(
        &self,
        device: *mut nt::DEVICE_OBJECT,
        context: *mut c_void,
    ) -> Result<(), OutOfMemory> {
        let irp = self.as_ptr();
        // SAFETY: the pointer reaches the whole storage, which the caller keeps until the routine has run,
        // with its context.
        unsafe { prepare(irp, completed::<C>, context) };
        // SAFETY: the IRP was just prepared, and the caller vouches for the device.
        unsafe { keep_image(irp, device) }?;
        self.0.unused.store(!device.is_null(), Ordering::Relaxed);
        Ok(())
    }

    /// The IRP, which the caller now hands to WSK.
    ///
    /// # Safety
    /// It was reserved, and is taken once.
    pub(crate) unsafe fn take(&self) -> *mut nt::IRP {
        self.0.unused.store(false, Ordering::Relaxed);
        self.as_ptr()
    }
}

impl Drop for ReservedIrp {
    fn drop(&mut self) {
        if *self.0.unused.get_mut() {
            // Its routine sees that it comes back unused, and only what the I/O manager holds for it is given
            // back. SAFETY: by the invariant it is prepared and was not submitted.
            unsafe { complete_here(self.as_ptr(), STATUS_CANCELLED) };
        }
    }
}

/// Returns whether a reserved IRP comes back to its routine without having been handed to WSK, because its
/// owner goes. The routine then leaves its context alone.
///
/// # Safety
/// `irp` is that of a [`ReservedIrp`], as that gave it out, which has completed.
unsafe fn comes_back_unused(irp: *mut nt::IRP) -> bool {
    // SAFETY: the caller says that the IRP is the first field of one, which is there as long as its routine
    // runs; by its invariant the pointer reaches all of it. Nobody writes to it now but through cells.
    unsafe { &*irp.cast::<ReservedIrp>() }.0.unused.load(Ordering::Relaxed)
}

/// Completion of a request that was made with a [`ReservedIrp`].
pub(crate) trait Completion {
    /// Called once, when the request has completed. IRQL: up to `DISPATCH_LEVEL`; makes no WSK call and
    /// allocates nothing.
    ///
    /// # Safety
    /// `context` is that of [`ReservedIrp::reserve`], and the IRP was taken and has completed.
    unsafe fn completed(context: *mut c_void, status: NTSTATUS);
}

/// The completion routine of all reserved IRPs.
///
/// # Safety
/// `irp` is a reserved one whose completion is `C`; the I/O manager calls this once, when the request has
/// completed, or when its owner goes without having made one.
unsafe extern "system" fn completed<C: Completion>(
    _device: *mut nt::DEVICE_OBJECT,
    irp: *mut nt::IRP,
    context: *mut c_void,
) -> NTSTATUS {
    // SAFETY: the IRP is a reserved one.
    if !unsafe { comes_back_unused(irp) } {
        // SAFETY: a completed IRP is not written any more.
        let status = unsafe { nt::irp_status(irp) };
        // SAFETY: the context is that of the IRP, which was taken and has completed.
        unsafe { C::completed(context, status) };
    }
    // The IRP is the owner's memory, so the I/O manager must not look at it again (rule IRP-03).
    STATUS_MORE_PROCESSING_REQUIRED
}
