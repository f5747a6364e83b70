//! An IRP with one stack location in the owner's own memory.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::{MaybeUninit, align_of, offset_of, size_of};

use wsk_sys::nt;

/// Storage for an IRP with one stack location, initialised anew for every request (`IoInitializeIrp`), so that
/// no request allocates an IRP.
///
/// # Invariants
/// Between [`IrpStorage::prepare`] and the run of the completion routine the storage belongs to whoever the IRP
/// was handed to; the owner keeps it alive and does not touch it. The owning operation keeps this.
// Microsoft declares an IRP with MEMORY_ALLOCATION_ALIGNMENT; the headers that bindings are made of may not (rule IRP-28).
#[cfg_attr(target_pointer_width = "64", repr(C, align(16)))]
#[cfg_attr(not(target_pointer_width = "64"), repr(C, align(8)))]
pub(crate) struct IrpStorage {
    irp: UnsafeCell<MaybeUninit<nt::IRP>>,
    stack: UnsafeCell<MaybeUninit<nt::IO_STACK_LOCATION>>,
}

// The stack location follows the IRP without a gap, as `IoSizeOfIrp(1)` expects (rule IRP-01). The storage may be
// longer than that, where alignment pads it.
const _: () = assert!(offset_of!(IrpStorage, stack) == size_of::<nt::IRP>());
const _: () = assert!(size_of::<IrpStorage>() >= nt::io_size_of_irp(1) as usize);
// The IRP comes first, so it is aligned as the whole is, and as the pool aligns the blocks that it lies in.
const _: () = assert!(offset_of!(IrpStorage, irp) == 0);
const _: () = assert!(align_of::<IrpStorage>() == nt::MEMORY_ALLOCATION_ALIGNMENT);

// SAFETY: the storage is plain memory; the invariant says who may touch it when, on whatever processor.
unsafe impl Send for IrpStorage {}
// SAFETY: as for `Send`; a shared reference alone gives no access without `unsafe`.
unsafe impl Sync for IrpStorage {}

impl IrpStorage {
    /// Memory not yet an IRP.
    pub(crate) const fn new() -> Self {
        Self { irp: UnsafeCell::new(MaybeUninit::uninit()), stack: UnsafeCell::new(MaybeUninit::uninit()) }
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
    /// No request uses the storage now, and `this` points to storage that stays where it is, with `context`,
    /// until `routine` has run.
    pub(crate) unsafe fn prepare(
        &self,
        routine: nt::IO_COMPLETION_ROUTINE,
        context: *mut c_void,
    ) -> *mut nt::IRP {
        let irp = self.as_ptr();
        // SAFETY: the storage holds `IoSizeOfIrp(1)` bytes, and the caller says that nobody else uses it.
        unsafe { nt::IoInitializeIrp(irp, nt::io_size_of_irp(1), 1) };
        // SAFETY: the IRP was initialised with one free location; the caller keeps `context` alive.
        unsafe { nt::io_set_completion_routine(irp, routine, context) };
        irp
    }
}
