//! Non-paged memory: everything this crate allocates, it allocates here, and every allocation can fail.
//!
//! Callbacks and completion routines run at up to `DISPATCH_LEVEL` and may touch no paged memory (rule
//! IRQL-14), so there is one kind of memory only. The crate `alloc` is not used: its collections abort when
//! memory is out.
//!
//! ```text
//!   PoolBox<T>   one owner                      ─┐
//!   PoolVec<T>   one owner, fixed capacity       ├─▶ ExAllocatePoolWithTag(NonPagedPoolNx, …, TAG)
//!   Ref<T>       shared, 16 bytes of header ──┐  │            ▲
//!                                             ▼  ┘            │ only while warming up
//!                                           Cache: free lists by size
//! ```

mod boxed;
mod cache;
mod count;
mod shared;
mod vec;

use core::fmt;
use core::ptr::NonNull;

use wsk_sys::nt;

pub use boxed::PoolBox;
pub use cache::Cache;
pub(crate) use count::RefCount;
pub use shared::Ref;
pub use vec::PoolVec;

/// The pool tag of every block of this crate; a debugger shows it as `WskR`.
pub const TAG: u32 = u32::from_le_bytes(*b"WskR");

/// The alignment that pool blocks have: 16 on 64-bit targets, 8 on 32-bit ones.
pub const POOL_ALIGNMENT: usize = nt::MEMORY_ALLOCATION_ALIGNMENT;

/// Non-paged pool is exhausted, or a size was asked for that no pool can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("non-paged pool is exhausted")
    }
}

impl core::error::Error for OutOfMemory {}

/// Allocates uninitialised non-paged memory, aligned to [`POOL_ALIGNMENT`].
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
pub(crate) fn allocate(bytes: usize) -> Result<NonNull<u8>, OutOfMemory> {
    // SAFETY: the pool type is a non-paged one, which may be asked for at any IRQL up to DISPATCH_LEVEL; a
    // size of zero is not passed on.
    let block = unsafe { nt::ExAllocatePoolWithTag(nt::NON_PAGED_POOL_NX, bytes.max(1), TAG) };
    NonNull::new(block.cast()).ok_or(OutOfMemory)
}

/// Frees a block of [`allocate`].
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// `block` came from [`allocate`], was not freed before and is not used again.
pub(crate) unsafe fn free(block: NonNull<u8>) {
    // SAFETY: the caller says that the block is a live one of `allocate`, which uses this tag.
    unsafe { nt::ExFreePoolWithTag(block.as_ptr().cast(), TAG) };
}

/// Fails to compile for a type that needs more alignment than the pool gives.
pub(crate) const fn assert_pool_alignment<T>() {
    assert!(align_of::<T>() <= POOL_ALIGNMENT, "the pool aligns to 16 bytes (8 on 32-bit targets) only");
}
