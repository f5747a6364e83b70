//! The functions that drivers allocate with.

use std::ffi::c_void;
use std::ptr;

use wsk_sys::nt::{DISPATCH_LEVEL, POOL_FLAG_NON_PAGED};

use super::{Kind, check_paged};
use crate::checker::context::check_irql;
use crate::checker::violation::rule;
use crate::faults::Point;
use crate::thread::current::{self, CurrentKernel};

/// The bit of a `POOL_TYPE` that selects paged pool.
const PAGED_POOL: i32 = 1;
/// `POOL_FLAG_UNINITIALIZED`.
const POOL_FLAG_UNINITIALIZED: u64 = 0x2;
/// `POOL_FLAG_PAGED`.
const POOL_FLAG_PAGED: u64 = 0x100;

fn allocate(kernel: &CurrentKernel, call: &'static str, bytes: usize, tag: u32, kind: Kind) -> *mut c_void {
    if kind == Kind::Paged {
        check_paged(kernel, call);
    } else {
        check_irql(kernel, call, DISPATCH_LEVEL);
    }
    if tag == 0 {
        kernel.violation(rule::POOL_TAG, call, format!("{bytes} bytes were allocated without a tag"));
    }
    if kernel.faults.fails(Point::Pool, bytes, tag) {
        return ptr::null_mut();
    }
    kernel.pool.allocate(bytes, tag, kind)
}

/// Allocates pool; see [`wsk_sys::nt::ExAllocatePoolWithTag`].
///
/// # Safety
/// None beyond being called on a thread of a kernel; the signature is the kernel's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ExAllocatePoolWithTag(pool_type: i32, bytes: usize, tag: u32) -> *mut c_void {
    const CALL: &str = "ExAllocatePoolWithTag";
    let kind = if pool_type & PAGED_POOL == 0 { Kind::NonPaged } else { Kind::Paged };
    allocate(&current::kernel(CALL), CALL, bytes, tag, kind)
}

/// Allocates zeroed pool; see [`wsk_sys::nt::ExAllocatePool2`].
///
/// # Safety
/// None beyond being called on a thread of a kernel; the signature is the kernel's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ExAllocatePool2(flags: u64, bytes: usize, tag: u32) -> *mut c_void {
    const CALL: &str = "ExAllocatePool2";
    let kernel = current::kernel(CALL);
    let kind = match flags & (POOL_FLAG_NON_PAGED | POOL_FLAG_PAGED) {
        POOL_FLAG_NON_PAGED => Kind::NonPaged,
        POOL_FLAG_PAGED => Kind::Paged,
        _ => return ptr::null_mut(),
    };
    if bytes == 0 {
        return ptr::null_mut();
    }
    let block = allocate(&kernel, CALL, bytes, tag, kind);
    if !block.is_null() && flags & POOL_FLAG_UNINITIALIZED == 0 {
        // SAFETY: the block is new and has the size.
        unsafe { ptr::write_bytes(block.cast::<u8>(), 0, bytes) };
    }
    block
}

/// Frees pool; see [`wsk_sys::nt::ExFreePoolWithTag`].
///
/// # Safety
/// `block` came from this pool and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ExFreePoolWithTag(block: *mut c_void, tag: u32) {
    const CALL: &str = "ExFreePoolWithTag";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    super::free(&kernel, CALL, block, Kind::NonPaged, tag);
}
