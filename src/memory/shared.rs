//! A value in non-paged memory with several owners.

use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, offset_of};
use core::ops::Deref;
use core::ptr::NonNull;

use super::{Cache, OutOfMemory, RefCount, allocate, assert_pool_alignment, free};

/// A shared value in non-paged memory, like `Arc`.
///
/// The value never moves, so kernel objects may live in one. A reference can travel through a C context pointer:
/// [`Ref::into_raw`] and [`Ref::from_raw`] hand over ownership, [`Ref::clone_from_raw`] makes a further owner out
/// of a pointer that somebody else keeps valid, as the trampoline of a callback does.
///
/// # IRQL
/// Everything here works at `<= DISPATCH_LEVEL`, dropping the last owner included.
///
/// # Invariants
/// `block` points to an initialised `Block` of which this value owns one count.
pub struct Ref<T> {
    block: NonNull<Block<T>>,
    _owns: PhantomData<Block<T>>,
}

/// The header and the value.
#[repr(C)]
struct Block<T> {
    header: Header,
    value: T,
}

/// The count, and the cache the block returns to if it came from one.
struct Header {
    owners: RefCount,
    home: Option<Cache>,
}

impl Header {
    /// Frees a block whose value is gone. The same for all types, so that there is one copy of it.
    ///
    /// # Safety
    /// `header` begins a block of this many bytes that nobody has any more, its value dropped already.
    #[inline(never)]
    unsafe fn free(header: NonNull<Self>, bytes: usize) {
        // SAFETY: the block is live; the header is moved out, and its memory is not read again.
        match unsafe { header.read() }.home {
            // SAFETY: the block came from this cache with this size, and the caller gives it up.
            Some(cache) => unsafe { cache.release(header.cast(), bytes) },
            // SAFETY: the block came from the pool, and the caller gives it up.
            None => unsafe { free(header.cast()) },
        }
    }
}

// SAFETY: owners on several threads share the value, and the last one, anywhere, drops it.
unsafe impl<T: Send + Sync> Send for Ref<T> {}
// SAFETY: as for `Send`: a shared reference can be cloned into an owner.
unsafe impl<T: Send + Sync> Sync for Ref<T> {}

impl<T> Ref<T> {
    /// Moves `value` into a block of the pool.
    ///
    /// # Errors
    /// [`OutOfMemory`]; `value` is dropped then.
    pub fn try_new(value: T) -> Result<Self, OutOfMemory> {
        const { assert_pool_alignment::<Block<T>>() };
        let block = allocate(size_of::<Block<T>>())?.cast();
        // SAFETY: the block is new, large enough and aligned.
        Ok(unsafe { Self::fill(block, None, value) })
    }

    /// Moves `value` into a block of `cache`, to which the block returns when its last owner is gone.
    ///
    /// # Errors
    /// [`OutOfMemory`], with `value` given back.
    pub fn try_new_in(value: T, cache: &Cache) -> Result<Self, (OutOfMemory, T)> {
        const { assert_pool_alignment::<Block<T>>() };
        match cache.allocate(size_of::<Block<T>>()) {
            // SAFETY: the block is new, large enough and aligned, and came from the cache it will go back to.
            Ok(block) => Ok(unsafe { Self::fill(block.cast(), Some(cache.clone()), value) }),
            Err(error) => Err((error, value)),
        }
    }

    /// # Safety
    /// `block` is unused memory for a `Block<T>`, from `home` or, without one, from the pool.
    unsafe fn fill(block: NonNull<Block<T>>, home: Option<Cache>, value: T) -> Self {
        // SAFETY: the caller says that the memory is unused and fits.
        unsafe { block.write(Block { header: Header { owners: RefCount::one(), home }, value }) };
        Self { block, _owns: PhantomData }
    }

    fn block(&self) -> &Block<T> {
        // SAFETY: this owner keeps the block alive, and it is only ever shared.
        unsafe { self.block.as_ref() }
    }

    /// The address of the value. The pointer reaches the whole block, so [`Ref::clone_from_raw`] accepts it.
    pub fn as_ptr(this: &Self) -> *const T {
        // SAFETY: the block is live; only the address of one field is computed, without a reference to it.
        unsafe { &raw const (*this.block.as_ptr()).value }
    }

    /// Gives this owner's count up as a pointer to the value; [`Ref::from_raw`] takes it back.
    pub fn into_raw(this: Self) -> *const T {
        Self::as_ptr(&ManuallyDrop::new(this))
    }

    /// Takes back an owner that [`Ref::into_raw`] gave up.
    ///
    /// # Safety
    /// `value` came from [`Ref::into_raw`], whose count nobody else has taken back.
    pub unsafe fn from_raw(value: *const T) -> Self {
        // SAFETY: the value lies in a block at this offset, and the pointer reaches the whole block.
        let block = unsafe { value.byte_sub(offset_of!(Block<T>, value)) };
        let block = block.cast_mut().cast::<Block<T>>();
        // SAFETY: the address of a live block is not null.
        Self { block: unsafe { NonNull::new_unchecked(block) }, _owns: PhantomData }
    }

    /// A further owner of the value behind `value`, whose count stays where it is.
    ///
    /// # Safety
    /// `value` came from [`Ref::into_raw`] or [`Ref::as_ptr`], and at least one owner exists during the call.
    pub unsafe fn clone_from_raw(value: *const T) -> Self {
        // SAFETY: the owner that the caller knows of keeps the value alive, and `ManuallyDrop` keeps its count.
        let other = ManuallyDrop::new(unsafe { Self::from_raw(value) });
        Self::clone(&other)
    }

    /// Whether two owners share one value.
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.block == other.block
    }

    /// The number of owners at some moment.
    pub fn strong_count(this: &Self) -> u32 {
        this.block().header.owners.get()
    }

    /// The value for writing, if this is its only owner.
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        if Self::strong_count(this) != 1 {
            return None;
        }
        // SAFETY: the block is live, and the only owner is borrowed for writing.
        Some(unsafe { &mut this.block.as_mut().value })
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        self.block().header.owners.acquire();
        Self { block: self.block, _owns: PhantomData }
    }
}

impl<T> Drop for Ref<T> {
    fn drop(&mut self) {
        if !self.block().header.owners.release() {
            return;
        }
        // SAFETY: this was the last owner; only the address of one field is computed.
        let value = unsafe { &raw mut (*self.block.as_ptr()).value };
        // SAFETY: nobody else reads or writes the value, and it is dropped once, here.
        unsafe { value.drop_in_place() };
        // SAFETY: a block begins with its header, and nobody has this one any more.
        unsafe { Header::free(self.block.cast(), size_of::<Block<T>>()) };
    }
}

impl<T> Deref for Ref<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.block().value
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
