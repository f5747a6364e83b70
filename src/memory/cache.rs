//! Free lists by block size, so that a server in steady state asks the pool for nothing.

use core::fmt;
use core::ptr::NonNull;

use super::{OutOfMemory, RefCount, allocate, free};
use crate::sync::SpinLock;

/// Blocks up to [`FINE`] bytes come in steps of this size.
const STEP: usize = 32;
/// The largest size with a step of [`STEP`].
const FINE: usize = 1024;
/// The sizes above [`FINE`]; what is larger than the last goes to the pool.
const COARSE: [usize; 4] = [1536, 2048, 3072, 4096];
/// The number of sizes.
const CLASSES: usize = FINE / STEP + COARSE.len();

/// The free list that serves `bytes`, if one does.
const fn class_of(bytes: usize) -> Option<usize> {
    if bytes <= FINE {
        return Some(bytes.saturating_sub(1) / STEP);
    }
    let mut index = 0;
    while index < COARSE.len() {
        if bytes <= COARSE[index] {
            return Some(FINE / STEP + index);
        }
        index += 1;
    }
    None
}

/// The size of the blocks of a free list.
const fn size_of_class(class: usize) -> usize {
    match class.checked_sub(FINE / STEP) {
        None => (class + 1) * STEP,
        Some(index) => COARSE[index],
    }
}

/// A handle on a set of free lists of non-paged memory, one for each block size.
///
/// Blocks come from the pool while a driver warms up and return to their list when their last owner drops
/// them, at most `depth` per list. The lists live until the last handle and the last block are gone.
///
/// # Invariants
/// `lists` points to a live `Lists` of which this handle owns one reference.
pub struct Cache {
    lists: NonNull<Lists>,
}

// SAFETY: a handle counts as an owner of `Lists`, which is `Sync`: an atomic count, a constant, and lists
// behind spin locks.
unsafe impl Send for Cache {}
// SAFETY: all that a shared handle does is change the count and take the locks.
unsafe impl Sync for Cache {}

struct Lists {
    owners: RefCount,
    depth: u32,
    free: [SpinLock<FreeList>; CLASSES],
}

/// # Invariants
/// `head` starts a list of `len` blocks of the size of this class; nobody else has a pointer to them.
struct FreeList {
    head: Option<NonNull<FreeBlock>>,
    len: u32,
}

/// A block while it is on a list.
struct FreeBlock {
    next: Option<NonNull<FreeBlock>>,
}

// SAFETY: the blocks of a list belong to the list, as its invariant says.
unsafe impl Send for FreeList {}

impl Cache {
    /// Makes empty lists that each keep at most `depth` blocks.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(depth: u32) -> Result<Self, OutOfMemory> {
        let lists = allocate(size_of::<Lists>())?.cast::<Lists>();
        let value = Lists {
            owners: RefCount::one(),
            depth,
            free: [const { SpinLock::new(FreeList { head: None, len: 0 }) }; CLASSES],
        };
        // SAFETY: the block is new, large enough and aligned.
        unsafe { lists.write(value) };
        Ok(Self { lists })
    }

    fn lists(&self) -> &Lists {
        // SAFETY: this handle owns a reference, so the lists live at least as long as `self`.
        unsafe { self.lists.as_ref() }
    }

    /// A block for `bytes` bytes, uninitialised, aligned to [`POOL_ALIGNMENT`](super::POOL_ALIGNMENT).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    pub(crate) fn allocate(&self, bytes: usize) -> Result<NonNull<u8>, OutOfMemory> {
        let Some(class) = class_of(bytes) else { return allocate(bytes) };
        let block = self.lists().free[class].with(FreeList::pop);
        block.map_or_else(|| allocate(size_of_class(class)), |block| Ok(block.cast()))
    }

    /// Returns a block.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Safety
    /// `block` came from [`Cache::allocate`] of this cache for as many `bytes`, and is not used again.
    pub(crate) unsafe fn release(&self, block: NonNull<u8>, bytes: usize) {
        let lists = self.lists();
        let kept = class_of(bytes).is_some_and(|class| {
            let mut list = lists.free[class].lock();
            let room = list.len < lists.depth;
            if room {
                // SAFETY: the caller gives the block up, and it has the size of its class.
                unsafe { list.push(block.cast()) };
            }
            room
        });
        if !kept {
            // SAFETY: every block of a cache came from `allocate`, and the caller gives this one up.
            unsafe { free(block) };
        }
    }
}

impl FreeList {
    fn pop(&mut self) -> Option<NonNull<FreeBlock>> {
        let block = self.head?;
        // SAFETY: the block is on the list, so it is initialised and belongs to the list.
        self.head = unsafe { block.read() }.next;
        self.len -= 1;
        Some(block)
    }

    /// # Safety
    /// `block` is an unused block of the size of this list's class and belongs to the list from now on.
    unsafe fn push(&mut self, block: NonNull<FreeBlock>) {
        // SAFETY: the smallest class is larger than a `FreeBlock`, and the caller gives the block up.
        unsafe { block.write(FreeBlock { next: self.head }) };
        self.head = Some(block);
        self.len += 1;
    }
}

impl Clone for Cache {
    fn clone(&self) -> Self {
        self.lists().owners.acquire();
        Self { lists: self.lists }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if !self.lists().owners.release() {
            return;
        }
        for list in &self.lists().free {
            while let Some(block) = list.with(FreeList::pop) {
                // SAFETY: the block was on the list, which owned it, and came from `allocate`.
                unsafe { free(block.cast()) };
            }
        }
        // SAFETY: this was the last owner; the lists need no dropping any more.
        unsafe { free(self.lists.cast()) };
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("depth", &self.lists().depth).finish_non_exhaustive()
    }
}
