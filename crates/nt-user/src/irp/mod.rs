//! I/O request packets.
//!
//! ```text
//!                  IoAllocateIrp / IoInitializeIrp
//!                             │
//!                             ▼   stack location moved down
//!     IoReuseIrp ─────────► idle ──────────────────► submitted
//!         ▲                   │                          │ IofCompleteRequest, up to the top routine
//!         │                   │ IoFreeIrp                ▼
//!         └───────────────────┼───────────────────── completed ──► freed, reused, reinitialized,
//!                             ▼                                    or abandoned with its storage
//!                           freed
//! ```
//!
//! An IRP is *submitted* exactly while its current stack location is one that it has. *Completed* differs
//! from *idle* by a stamp in `ThreadListEntry`, which on Windows belongs to the I/O manager, so drivers do
//! not touch it. The state of an IRP is therefore read from the IRP itself. Whether a *lower* driver has it
//! cannot be read there: its driver may keep locations for itself, and the storage of a former IRP may hold
//! anything. So the [pool] keeps the addresses of the IRPs that have been handed down ([`handed_down`]) and
//! have not returned.

mod complete;
mod submit;

use std::ffi::c_void;
use std::mem::{offset_of, size_of};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use wsk_sys::nt::{
    DEVICE_OBJECT, DISPATCH_LEVEL, IO_STACK_LOCATION, IRP, MEMORY_ALLOCATION_ALIGNMENT, NTSTATUS,
    io_size_of_irp, irp_allocation_flags, irp_current_location, irp_size, irp_stack_count, irp_stack_pointer,
    irp_type, set_irp_allocation_flags, set_irp_current_location, set_irp_size, set_irp_stack_count,
    set_irp_stack_pointer, set_irp_status, set_irp_type,
};

use crate::checker::argument::is_null_page;
use crate::checker::context::check_irql;
use crate::checker::violation::{Severity, rule};
use crate::faults::Point;
use crate::pool::{self, Kind};
use crate::thread::current::{self, CurrentKernel};

pub use complete::*;
pub use submit::{handed_down, submitted};

/// `IO_TYPE_IRP`.
const IO_TYPE_IRP: i16 = 6;

/// State of an IRP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No lower driver has it, and it can be submitted.
    Idle,
    /// One of its locations is current: a lower driver has it, or its own driver uses that location.
    Submitted,
    /// It has completed and may be reused.
    Completed,
}

/// The checker's word in an IRP.
const STAMP_OFFSET: usize = offset_of!(IRP, ThreadListEntry);
const STAMP_IDLE: usize = 0x4952_5000_4944_4C45;
const STAMP_COMPLETED: usize = 0x4952_5000_444F_4E45;

/// # Safety
/// `irp` points to storage of the size of an IRP that lives as long as the result is used.
unsafe fn stamp<'a>(irp: *mut IRP) -> &'a AtomicUsize {
    // SAFETY: the field lies inside the storage.
    let field = unsafe { irp.byte_add(STAMP_OFFSET) };
    // SAFETY: the field is an aligned word that only this function gives access to.
    unsafe { AtomicUsize::from_ptr(field.cast()) }
}

/// Returns the state of the IRP at `irp`; `None` if there is no IRP.
///
/// # Safety
/// `irp` points to readable storage of the size of an IRP.
pub unsafe fn state(irp: *mut IRP) -> Option<State> {
    // SAFETY: the caller guarantees readable storage of the size of an IRP; every bit pattern is a valid
    // type.
    if unsafe { irp_type(irp) } != IO_TYPE_IRP {
        return None;
    }
    // SAFETY: the caller guarantees readable storage of the size of an IRP.
    let stamp = unsafe { stamp(irp) }.load(Ordering::Acquire);
    // SAFETY: the caller guarantees readable storage of the size of an IRP; every bit pattern is a valid
    // number.
    let location = unsafe { irp_current_location(irp) };
    // SAFETY: the caller owns the IRP.
    let count = unsafe { irp_stack_count(irp) };
    match stamp {
        STAMP_IDLE | STAMP_COMPLETED if location <= count => Some(State::Submitted),
        STAMP_IDLE => Some(State::Idle),
        STAMP_COMPLETED => Some(State::Completed),
        _ => None,
    }
}

/// Reports an IRP that is not aligned (IRP-28). It is used nevertheless, as on Windows.
fn check_alignment(kernel: &CurrentKernel, irp: *mut IRP, call: &'static str) {
    if !irp.addr().is_multiple_of(MEMORY_ALLOCATION_ALIGNMENT) {
        let detail = format!("the IRP at {irp:p} is not aligned to {MEMORY_ALLOCATION_ALIGNMENT} bytes");
        kernel.violation("IRP-28", call, detail);
    }
}

/// Stops the kernel unless there is an IRP at `irp`.
///
/// # Safety
/// `irp` points to readable storage of the size of an IRP.
pub(crate) unsafe fn check(kernel: &CurrentKernel, irp: *mut IRP, call: &'static str) {
    check_alignment(kernel, irp, call);
    // SAFETY: the caller guarantees readable storage unless the address is null or misaligned, which is ruled
    // out first.
    if is_null_page(irp) || !irp.is_aligned() || unsafe { state(irp) }.is_none() {
        kernel.bug_check(rule::OBJECT, call, format!("there is no IRP at {irp:p}, or it has been freed"));
    }
}

/// Returns the device object of the driver that has the IRP; null if none has it.
///
/// # Safety
/// `irp` points to a live IRP.
pub(crate) unsafe fn current_device(irp: *mut IRP) -> *mut DEVICE_OBJECT {
    // SAFETY: the caller guarantees a live IRP.
    if unsafe { state(irp) } != Some(State::Submitted) {
        return ptr::null_mut();
    }
    // SAFETY: the caller guarantees a live IRP.
    let location = unsafe { irp_stack_pointer(irp) };
    // SAFETY: the current location of a submitted IRP is one of its own.
    unsafe { device(location) }
}

/// # Safety
/// `location` points to a live stack location.
unsafe fn device(location: *mut IO_STACK_LOCATION) -> *mut DEVICE_OBJECT {
    // SAFETY: the caller guarantees a live stack location.
    unsafe { (*location).DeviceObject }
}

/// Makes `size` bytes at `irp` an idle IRP with `count` stack locations.
///
/// # Safety
/// The storage is `size` bytes long, large enough for the IRP, and not in use.
unsafe fn initialize(irp: *mut IRP, size: u16, count: i8) {
    // SAFETY: the caller guarantees `size` bytes of unused storage.
    unsafe { ptr::write_bytes(irp.cast::<u8>(), 0, size.into()) };
    // SAFETY: the storage is an IRP's, all zero.
    unsafe { set_irp_type(irp, IO_TYPE_IRP) };
    // SAFETY: the storage is an IRP that the caller owns.
    unsafe { set_irp_size(irp, size) };
    // SAFETY: the storage is an IRP that the caller owns.
    unsafe { set_irp_stack_count(irp, count) };
    // SAFETY: the storage is an IRP that the caller owns.
    unsafe { set_irp_current_location(irp, count + 1) };
    let locations = irp.wrapping_add(1).cast::<IO_STACK_LOCATION>();
    // SAFETY: the storage is an IRP that the caller owns; the pointer starts one past the last location, as
    // in NT.
    unsafe { set_irp_stack_pointer(irp, locations.wrapping_add(count as usize)) };
    // SAFETY: the storage is an IRP that the caller owns.
    unsafe { stamp(irp) }.store(STAMP_IDLE, Ordering::Release);
}

/// Allocates an IRP; see [`wsk_sys::nt::IoAllocateIrp`].
///
/// # Safety
/// None beyond being called on a thread of a kernel; the signature is the kernel's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoAllocateIrp(stack_size: i8, _charge_quota: u8) -> *mut IRP {
    const CALL: &str = "IoAllocateIrp";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    if stack_size < 1 {
        kernel.violation(
            "IRP-01",
            CALL,
            format!("an IRP needs at least one stack location, not {stack_size}"),
        );
        return ptr::null_mut();
    }
    let size = io_size_of_irp(stack_size);
    if kernel.faults.fails(Point::Irp, size.into(), pool::IRP_TAG) {
        return ptr::null_mut();
    }
    let irp = kernel.pool.allocate(size.into(), pool::IRP_TAG, Kind::Irp).cast::<IRP>();
    if !irp.is_null() {
        // SAFETY: the block is new and has the size.
        unsafe { initialize(irp, size, stack_size) };
    }
    irp
}

/// Initializes an IRP in the driver's storage; see [`wsk_sys::nt::IoInitializeIrp`].
///
/// # Safety
/// `irp` points to `packet_size` bytes of non-paged storage that no driver below has.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoInitializeIrp(irp: *mut IRP, packet_size: u16, stack_size: i8) {
    const CALL: &str = "IoInitializeIrp";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    if stack_size < 0 || packet_size < io_size_of_irp(stack_size) || !irp.is_aligned() || is_null_page(irp) {
        let detail =
            format!("{packet_size} bytes at {irp:p} cannot hold an IRP with {stack_size} stack locations");
        kernel.bug_check(rule::OBJECT, CALL, detail);
    }
    check_alignment(&kernel, irp, CALL);
    // Nothing is read from the storage: it may be new, or have been something else since there was an IRP.
    if kernel.pool.is_irp_pending(irp.addr()) {
        let detail = format!("the IRP at {irp:p} is initialized again while a lower driver has it");
        kernel.violation("IRP-06", CALL, detail);
        return;
    }
    if !kernel.pool.has_irp(irp.addr()) && !pool::in_image(irp.addr(), packet_size.into()) {
        let detail = format!("the storage at {irp:p} is not non-paged memory of this kernel");
        kernel.report(Severity::Advice, rule::NON_PAGED, CALL, detail);
    }
    // SAFETY: the caller guarantees unused storage of this size, which has been checked to be large enough.
    unsafe { initialize(irp, packet_size, stack_size) };
}

/// Makes a completed IRP idle again; see [`wsk_sys::nt::IoReuseIrp`].
///
/// # Safety
/// `irp` points to an IRP that no driver below has.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoReuseIrp(irp: *mut IRP, status: NTSTATUS) {
    const CALL: &str = "IoReuseIrp";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    // SAFETY: the caller guarantees that `irp` points to an IRP.
    unsafe { check(&kernel, irp, CALL) };
    if kernel.pool.is_irp_pending(irp.addr()) {
        let detail = format!("the IRP at {irp:p} is reused while a lower driver has it");
        kernel.violation("IRP-06", CALL, detail);
        return;
    }
    // SAFETY: the caller owns the IRP.
    let flags = unsafe { irp_allocation_flags(irp) };
    // SAFETY: the caller owns the IRP.
    let size = unsafe { irp_size(irp) };
    // SAFETY: the caller owns the IRP.
    let count = unsafe { irp_stack_count(irp) };
    // SAFETY: the caller owns the IRP, which was initialized with this size and count.
    unsafe { initialize(irp, size, count) };
    // SAFETY: the caller owns the IRP.
    unsafe { set_irp_allocation_flags(irp, flags) };
    // SAFETY: the caller owns the IRP.
    unsafe { set_irp_status(irp, status) };
}

/// Frees an allocated IRP; see [`wsk_sys::nt::IoFreeIrp`].
///
/// # Safety
/// `irp` came from [`IoAllocateIrp`], no driver below has it, and it is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoFreeIrp(irp: *mut IRP) {
    const CALL: &str = "IoFreeIrp";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    pool::free(&kernel, CALL, irp.cast::<c_void>(), Kind::Irp, pool::IRP_TAG);
}

const _: () = assert!(size_of::<IRP>() == 0xD0, "the IRP has its 64-bit size");
const _: () = assert!(size_of::<IO_STACK_LOCATION>() == 0x48, "the stack location has its 64-bit size");
