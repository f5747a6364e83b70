//! I/O request packets.
//!
//! ```text
//!                      IoAllocateIrp / IoInitializeIrp
//!                                 │
//!                                 ▼   stack location moved down
//!     IoReuseIrp ──────────────► idle ─────────────────────────► submitted
//!         ▲                       │                                  │ IofCompleteRequest, up to the top routine
//!         │                       │ IoFreeIrp                        ▼
//!         └───────────────────────┼───────────────────────────── completed ──► freed, re-used, re-initialised,
//!                                 ▼                                             or abandoned with its storage
//!                               freed
//! ```
//!
//! An IRP is *submitted* exactly while its current stack location is one that it has. *Completed* differs from *idle* by a
//! stamp in `ThreadListEntry`, which on Windows belongs to the I/O manager and is therefore left alone by everybody else.
//! So an IRP tells itself where it is, to whoever knows that there is one. Whether a driver *below* has it is something
//! else: its driver may keep locations for itself, and storage where there was an IRP may be anything. So the [pool] keeps the
//! addresses of the IRPs that have been handed down ([`handed_down`]) and have not risen to where they came from.

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
use crate::checker::context::at_most;
use crate::checker::violation::{Severity, rule};
use crate::faults::Point;
use crate::pool::{self, Kind};
use crate::thread::current::{self, CurrentKernel};

pub use complete::*;
pub use submit::{handed_down, submitted};

/// `IO_TYPE_IRP`.
const IO_TYPE_IRP: i16 = 6;

/// Where an IRP is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody below has it, and it is ready to be submitted.
    Idle,
    /// One of its locations is current: a driver below has it, or its own driver has taken that location.
    Submitted,
    /// It has come back and may be re-used.
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

/// Where the IRP at `irp` is in its life; `None` if there is no IRP.
///
/// # Safety
/// `irp` points to readable storage of the size of an IRP.
pub unsafe fn state(irp: *mut IRP) -> Option<State> {
    // SAFETY: forwarded to the caller; every bit pattern is a value of the field.
    if unsafe { irp_type(irp) } != IO_TYPE_IRP {
        return None;
    }
    // SAFETY: forwarded to the caller.
    let stamp = unsafe { stamp(irp) }.load(Ordering::Acquire);
    // SAFETY: forwarded to the caller; every bit pattern is a value of the field.
    let location = unsafe { irp_current_location(irp) };
    // SAFETY: forwarded to the caller; every bit pattern is a value of the field.
    let count = unsafe { irp_stack_count(irp) };
    match stamp {
        STAMP_IDLE | STAMP_COMPLETED if location <= count => Some(State::Submitted),
        STAMP_IDLE => Some(State::Idle),
        STAMP_COMPLETED => Some(State::Completed),
        _ => None,
    }
}

/// Reports an IRP that does not lie where one may (IRP-28). It is used all the same, as Windows does.
fn check_alignment(kernel: &CurrentKernel, irp: *mut IRP, call: &'static str) {
    if !irp.addr().is_multiple_of(MEMORY_ALLOCATION_ALIGNMENT) {
        let detail = format!("the IRP at {irp:p} is not aligned to {MEMORY_ALLOCATION_ALIGNMENT} bytes");
        kernel.violation("IRP-28", call, detail);
    }
}

/// Stops the kernel unless there is an IRP at `irp`.
///
/// # Safety
/// As for [`state`].
pub(crate) unsafe fn check(kernel: &CurrentKernel, irp: *mut IRP, call: &'static str) {
    check_alignment(kernel, irp, call);
    // SAFETY: forwarded to the caller, except that null and what cannot be read as an IRP are told apart here.
    if is_null_page(irp) || !irp.is_aligned() || unsafe { state(irp) }.is_none() {
        kernel.bug_check(rule::OBJECT, call, format!("there is no IRP at {irp:p}, or it has been freed"));
    }
}

/// The device object of the driver that has the IRP now; null if none has.
///
/// # Safety
/// `irp` points to a live IRP.
pub(crate) unsafe fn current_device(irp: *mut IRP) -> *mut DEVICE_OBJECT {
    // SAFETY: forwarded to the caller.
    if unsafe { state(irp) } != Some(State::Submitted) {
        return ptr::null_mut();
    }
    // SAFETY: forwarded to the caller.
    let location = unsafe { irp_stack_pointer(irp) };
    // SAFETY: the current location of a submitted IRP is one of its own.
    unsafe { device(location) }
}

/// # Safety
/// `location` points to a live stack location.
unsafe fn device(location: *mut IO_STACK_LOCATION) -> *mut DEVICE_OBJECT {
    // SAFETY: forwarded to the caller.
    unsafe { (*location).DeviceObject }
}

/// Makes `size` bytes at `irp` an idle IRP with `count` stack locations.
///
/// # Safety
/// The storage is `size` bytes long, which are enough, and nobody uses it.
unsafe fn initialise(irp: *mut IRP, size: u16, count: i8) {
    // SAFETY: forwarded to the caller.
    unsafe { ptr::write_bytes(irp.cast::<u8>(), 0, size.into()) };
    // SAFETY: the storage is an IRP's, all zero.
    unsafe { set_irp_type(irp, IO_TYPE_IRP) };
    // SAFETY: as above.
    unsafe { set_irp_size(irp, size) };
    // SAFETY: as above.
    unsafe { set_irp_stack_count(irp, count) };
    // SAFETY: as above.
    unsafe { set_irp_current_location(irp, count + 1) };
    let locations = irp.wrapping_add(1).cast::<IO_STACK_LOCATION>();
    // SAFETY: as above; the pointer starts one past the last location, as the kernel has it.
    unsafe { set_irp_stack_pointer(irp, locations.wrapping_add(count as usize)) };
    // SAFETY: as above.
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
    at_most(&kernel, CALL, DISPATCH_LEVEL);
    if stack_size < 1 {
        kernel.violation("IRP-01", CALL, format!("an IRP with {stack_size} stack locations is of no use"));
        return ptr::null_mut();
    }
    let size = io_size_of_irp(stack_size);
    if kernel.faults.fails(Point::Irp, size.into(), pool::IRP_TAG) {
        return ptr::null_mut();
    }
    let irp = kernel.pool.allocate(size.into(), pool::IRP_TAG, Kind::Irp).cast::<IRP>();
    if !irp.is_null() {
        // SAFETY: the block is new and has the size.
        unsafe { initialise(irp, size, stack_size) };
    }
    irp
}

/// Initialises an IRP in the driver's storage; see [`wsk_sys::nt::IoInitializeIrp`].
///
/// # Safety
/// `irp` points to `packet_size` bytes of non-paged storage that no driver below has.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoInitializeIrp(irp: *mut IRP, packet_size: u16, stack_size: i8) {
    const CALL: &str = "IoInitializeIrp";
    let kernel = current::kernel(CALL);
    at_most(&kernel, CALL, DISPATCH_LEVEL);
    if stack_size < 0 || packet_size < io_size_of_irp(stack_size) || !irp.is_aligned() || is_null_page(irp) {
        let detail =
            format!("{packet_size} bytes at {irp:p} cannot hold an IRP with {stack_size} stack locations");
        kernel.bug_check(rule::OBJECT, CALL, detail);
    }
    check_alignment(&kernel, irp, CALL);
    // Nothing is read from the storage: it may be new, or have been something else since there was an IRP.
    if kernel.pool.is_irp_pending(irp.addr()) {
        let detail = format!("the IRP at {irp:p} is initialised again while a driver below has it");
        kernel.violation("IRP-06", CALL, detail);
        return;
    }
    if !kernel.pool.has_irp(irp.addr()) && !pool::in_image(irp.addr(), packet_size.into()) {
        let detail = format!("the storage at {irp:p} is no non-paged memory of this kernel");
        kernel.report(Severity::Advice, rule::NON_PAGED, CALL, detail);
    }
    // SAFETY: forwarded to the caller.
    unsafe { initialise(irp, packet_size, stack_size) };
}

/// Makes a completed IRP idle again; see [`wsk_sys::nt::IoReuseIrp`].
///
/// # Safety
/// `irp` points to an IRP that no driver below has.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoReuseIrp(irp: *mut IRP, status: NTSTATUS) {
    const CALL: &str = "IoReuseIrp";
    let kernel = current::kernel(CALL);
    at_most(&kernel, CALL, DISPATCH_LEVEL);
    // SAFETY: forwarded to the caller.
    unsafe { check(&kernel, irp, CALL) };
    if kernel.pool.is_irp_pending(irp.addr()) {
        let detail = format!("the IRP at {irp:p} is re-used while a driver below has it");
        kernel.violation("IRP-06", CALL, detail);
        return;
    }
    // SAFETY: the caller owns the IRP.
    let flags = unsafe { irp_allocation_flags(irp) };
    // SAFETY: as above.
    let size = unsafe { irp_size(irp) };
    // SAFETY: as above.
    let count = unsafe { irp_stack_count(irp) };
    // SAFETY: as above; size and count are the ones it was initialised with.
    unsafe { initialise(irp, size, count) };
    // SAFETY: as above.
    unsafe { set_irp_allocation_flags(irp, flags) };
    // SAFETY: as above.
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
    at_most(&kernel, CALL, DISPATCH_LEVEL);
    pool::free(&kernel, CALL, irp.cast::<c_void>(), Kind::Irp, pool::IRP_TAG);
}

const _: () = assert!(size_of::<IRP>() == 0xD0, "the IRP has its 64-bit size");
const _: () = assert!(size_of::<IO_STACK_LOCATION>() == 0x48, "the stack location has its 64-bit size");
