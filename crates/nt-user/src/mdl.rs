//! Memory descriptor lists.
//!
//! A host maps nothing: the system address of a page is its address. The fields of an MDL are nevertheless
//! correct, and its size is that of a real one, including page numbers.

use std::ffi::c_void;
use std::mem::size_of;
use std::ptr;

use parking_lot::Mutex;
use wsk_sys::nt::{
    DISPATCH_LEVEL, IRP, MDL, MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED, MDL_SOURCE_IS_NONPAGED_POOL,
    mdl_byte_count, mdl_byte_offset, mdl_flags, mdl_mapped_system_va, mdl_next, mdl_start_va,
    set_mdl_byte_count, set_mdl_byte_offset, set_mdl_flags, set_mdl_mapped_system_va, set_mdl_next,
    set_mdl_size, set_mdl_start_va,
};

use crate::checker::argument;
use crate::checker::context::{check_irql, mapping_failed};
use crate::checker::violation::rule;
use crate::faults::Point;
use crate::irp;
use crate::pool::{self, Kind};
use crate::thread::current::{self, CurrentKernel};

const PAGE: usize = 4096;
/// The most bytes that one MDL describes: 4 GiB less a page.
const LONGEST: u32 = u32::MAX - PAGE as u32 + 1;

/// The address of `Irp->MdlAddress`.
///
/// # Safety
/// `irp` points to a live IRP that the caller owns.
unsafe fn irp_mdl(irp: *mut IRP) -> *mut *mut MDL {
    // SAFETY: the caller guarantees a live IRP.
    unsafe { &raw mut (*irp).MdlAddress }
}

/// Sets the MDL of an IRP, or appends it to the chain if `behind`.
///
/// # Safety
/// `irp` points to a live IRP that the caller owns, and so does its chain of MDLs.
unsafe fn attach(irp: *mut IRP, mdl: *mut MDL, behind: bool) {
    // SAFETY: the caller owns the live IRP.
    let first = unsafe { irp_mdl(irp) };
    // SAFETY: the field is part of the IRP that the caller owns.
    let mut last = unsafe { first.read() };
    if !behind || last.is_null() {
        // SAFETY: the field is part of the IRP that the caller owns.
        unsafe { first.write(mdl) };
        return;
    }
    loop {
        // SAFETY: the chain is the caller's, and `last` is in it.
        let next = unsafe { mdl_next(last) };
        if next.is_null() {
            break;
        }
        last = next;
    }
    // SAFETY: the chain is the caller's, and `last` is in it.
    unsafe { set_mdl_next(last, mdl) };
}

/// Allocates an MDL; see [`wsk_sys::nt::IoAllocateMdl`].
///
/// # Safety
/// `irp` is null or points to an IRP that the caller owns.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoAllocateMdl(
    address: *mut c_void,
    length: u32,
    secondary_buffer: u8,
    _charge_quota: u8,
    irp: *mut IRP,
) -> *mut MDL {
    const CALL: &str = "IoAllocateMdl";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    let offset = address.addr() % PAGE;
    let pages = (offset + length as usize).div_ceil(PAGE);
    let bytes = size_of::<MDL>() + pages * size_of::<usize>();
    if length > LONGEST {
        return ptr::null_mut();
    }
    if !irp.is_null() {
        // SAFETY: the caller guarantees that an IRP that is not null is its own.
        unsafe { irp::check(&kernel, irp, CALL) };
    }
    if kernel.faults.fails(Point::Mdl, bytes, pool::MDL_TAG) {
        return ptr::null_mut();
    }
    let mdl = kernel.pool.allocate(bytes, pool::MDL_TAG, Kind::Mdl).cast::<MDL>();
    if mdl.is_null() {
        return mdl;
    }
    // SAFETY: the block is new and has the size.
    unsafe { ptr::write_bytes(mdl.cast::<u8>(), 0, bytes) };
    // The field is a signed 16-bit number. For an MDL of 16 MiB and more it has only the lower bits, and is
    // not read.
    // SAFETY: the block is an MDL, all zero.
    unsafe { set_mdl_size(mdl, bytes as i16) };
    // SAFETY: the block is a new MDL that only this function knows.
    unsafe { set_mdl_start_va(mdl, address.wrapping_byte_sub(offset)) };
    // SAFETY: the block is a new MDL that only this function knows.
    unsafe { set_mdl_byte_offset(mdl, offset as u32) };
    // SAFETY: the block is a new MDL that only this function knows.
    unsafe { set_mdl_byte_count(mdl, length) };
    if !irp.is_null() {
        // SAFETY: the caller owns the IRP and its chain, and the MDL is new.
        unsafe { attach(irp, mdl, secondary_buffer != 0) };
    }
    mdl
}

/// Frees an MDL; see [`wsk_sys::nt::IoFreeMdl`].
///
/// # Safety
/// `mdl` came from [`IoAllocateMdl`] and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoFreeMdl(mdl: *mut MDL) {
    const CALL: &str = "IoFreeMdl";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    pool::free(&kernel, CALL, mdl.cast(), Kind::Mdl, pool::MDL_TAG);
}

/// Stops the kernel if `mdl` cannot be an MDL.
fn check(kernel: &CurrentKernel, mdl: *mut MDL, call: &'static str) {
    argument::check_aligned(kernel, call, "an MDL", mdl);
    if kernel.pool.is_freed(mdl.addr()) {
        kernel.bug_check(rule::OBJECT, call, format!("the MDL at {mdl:p} has been freed"));
    }
}

/// The address that an MDL describes.
///
/// # Safety
/// `mdl` points to a live MDL.
unsafe fn described(mdl: *mut MDL) -> *mut c_void {
    // SAFETY: the caller guarantees a live MDL.
    let start = unsafe { mdl_start_va(mdl) };
    // SAFETY: the caller guarantees a live MDL.
    let offset = unsafe { mdl_byte_offset(mdl) };
    start.wrapping_byte_add(offset as usize)
}

/// Describes non-paged pool; see [`wsk_sys::nt::MmBuildMdlForNonPagedPool`].
///
/// # Safety
/// `mdl` points to an MDL of [`IoAllocateMdl`] over non-paged memory.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn MmBuildMdlForNonPagedPool(mdl: *mut MDL) {
    const CALL: &str = "MmBuildMdlForNonPagedPool";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    check(&kernel, mdl, CALL);
    // SAFETY: the caller guarantees a live MDL.
    let address = unsafe { described(mdl) };
    // SAFETY: the caller guarantees a live MDL.
    let bytes = unsafe { mdl_byte_count(mdl) };
    if !kernel.pool.is_non_paged(address.addr(), bytes as usize) {
        let detail = format!("the {bytes} bytes at {address:p} are not non-paged memory of this kernel");
        kernel.violation(rule::NON_PAGED, CALL, detail);
    }
    // SAFETY: the caller guarantees a live MDL.
    unsafe { set_mdl_mapped_system_va(mdl, address) };
    // SAFETY: the caller guarantees a live MDL.
    let flags = unsafe { mdl_flags(mdl) };
    // SAFETY: the caller guarantees a live MDL.
    unsafe { set_mdl_flags(mdl, flags | MDL_SOURCE_IS_NONPAGED_POOL) };
}

/// Maps the pages of an MDL; see [`wsk_sys::nt::MmMapLockedPagesSpecifyCache`].
///
/// # Safety
/// `mdl` points to a live MDL whose pages are locked or non-paged.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn MmMapLockedPagesSpecifyCache(
    mdl: *mut MDL,
    _access_mode: i8,
    _cache_type: i32,
    _requested_address: *mut c_void,
    _bug_check_on_failure: u32,
    _priority: u32,
) -> *mut c_void {
    const CALL: &str = "MmMapLockedPagesSpecifyCache";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    check(&kernel, mdl, CALL);
    if let Some(address) = mapped_already(&kernel, CALL, mdl) {
        return address;
    }
    // SAFETY: the caller guarantees a live MDL.
    let flags = unsafe { mdl_flags(mdl) };
    if flags & (MDL_PAGES_LOCKED | MDL_SOURCE_IS_NONPAGED_POOL) == 0 {
        let detail = format!("the pages of the MDL at {mdl:p} are neither locked nor non-paged pool");
        kernel.violation(rule::NON_PAGED, CALL, detail);
        return ptr::null_mut();
    }
    // SAFETY: the caller guarantees a live MDL.
    let bytes = unsafe { mdl_byte_count(mdl) };
    if kernel.faults.fails(Point::Mapping, bytes as usize, 0) {
        mapping_failed();
        return ptr::null_mut();
    }
    // SAFETY: the caller guarantees a live MDL.
    let address = unsafe { described(mdl) };
    let mapping = MAPPING.lock();
    // SAFETY: the caller guarantees a live MDL.
    let flags = unsafe { mdl_flags(mdl) };
    if flags & MDL_MAPPED_TO_SYSTEM_VA != 0 {
        drop(mapping);
        return mapped_already(&kernel, CALL, mdl).unwrap_or(address);
    }
    // SAFETY: the caller guarantees a live MDL, and the lock keeps other mappings away.
    unsafe { set_mdl_mapped_system_va(mdl, address) };
    // SAFETY: the caller guarantees a live MDL, and the lock keeps other mappings away.
    unsafe { set_mdl_flags(mdl, flags | MDL_MAPPED_TO_SYSTEM_VA) };
    address
}

/// Orders the mappings of MDLs, so that the second one of two at once finds the first.
static MAPPING: Mutex<()> = Mutex::new(());

/// Reports the second mapping of an MDL, and returns the address of the first one. The memory manager does
/// not check if an MDL is mapped: it makes another mapping, loses the first one, and writes the MDL while
/// others read it.
fn mapped_already(kernel: &CurrentKernel, call: &'static str, mdl: *mut MDL) -> Option<*mut c_void> {
    let _mapping = MAPPING.lock();
    // SAFETY: the callers guarantee a live MDL.
    let flags = unsafe { mdl_flags(mdl) };
    if flags & MDL_MAPPED_TO_SYSTEM_VA == 0 {
        return None;
    }
    kernel.violation(rule::MDL_MAPPED, call, format!("the MDL at {mdl:p} is already mapped"));
    // SAFETY: the callers guarantee a live MDL.
    Some(unsafe { mdl_mapped_system_va(mdl) })
}
