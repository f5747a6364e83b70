//! A value in non-paged memory with several owners.

use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, offset_of};
use core::ops::Deref;
use core::ptr::NonNull;

use super::{Cache, OutOfMemory, RefCount, allocate, assert_pool_alignment, free};

/// A shared value in non-paged memory, like `Arc`.
///
/// The value never moves, so kernel objects may live in one. A reference can travel through a C context
/// pointer: [`Ref::into_raw`] and [`Ref::from_raw`] hand over ownership, [`Ref::clone_from_raw`] makes a
/// further owner out of a pointer that somebody else keeps valid, as the trampoline of a callback does.
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
    /// A new block of this many bytes, from `home` or, without one, from the pool: its header with one owner,
    /// and then nothing yet. The same for all types, so that there is one copy of it.
    ///
    /// # Safety
    /// A header fits into so many bytes.
    #[inline(never)]
    unsafe fn allocate(home: Option<&Cache>, bytes: usize) -> Result<NonNull<Self>, OutOfMemory> {
        let block = home.map_or_else(|| allocate(bytes), |cache| cache.allocate(bytes))?.cast::<Self>();
        // SAFETY: the block is new, aligned as the pool aligns, and large enough, as the caller says.
        unsafe { block.write(Self { owners: RefCount::one(), home: home.cloned() }) };
        Ok(block)
    }

    /// Gives one owner's count back; the last one drops the value and frees the block. The same for all
    /// types, so that there is one copy of it.
    ///
    /// # Safety
    /// `header` begins a block of this many bytes, of which the caller owns one count, and `drop_value` drops
    /// the block's value in place.
    #[inline(never)]
    unsafe fn release(header: NonNull<Self>, drop_value: unsafe fn(NonNull<Self>), bytes: usize) {
        // SAFETY: the caller's count keeps the block alive.
        if !unsafe { header.as_ref() }.owners.release() {
            return;
        }
        // SAFETY: that was the last owner, so nobody else reads or writes the value, and it is dropped once,
        // here.
        unsafe { drop_value(header) };
        // SAFETY: the block is still there; the header is moved out, and its memory is not read again.
        match unsafe { header.read() }.home {
            // SAFETY: the block came from this cache with this size, and nobody has it any more.
            Some(cache) => unsafe { cache.release(header.cast(), bytes) },
            // SAFETY: the block came from the pool, and nobody has it any more.
            None => unsafe { free(header.cast()) },
        }
    }
}

impl<T> Block<T> {
    /// A new block with one owner, and no value yet.
    fn allocate(home: Option<&Cache>) -> Result<NonNull<Self>, OutOfMemory> {
        const { assert_pool_alignment::<Self>() };
        // SAFETY: a block begins with its header.
        unsafe { Header::allocate(home, size_of::<Self>()) }.map(NonNull::cast)
    }

    /// Drops the value of a block.
    ///
    /// # Safety
    /// `header` begins a `Block<T>` whose value is initialised, used by nobody else, and not used again.
    unsafe fn drop_value(header: NonNull<Header>) {
        // SAFETY: the caller says what the block is; only the address of one field is computed.
        let value = unsafe { &raw mut (*header.as_ptr().cast::<Self>()).value };
        // SAFETY: the caller gives the value up.
        unsafe { value.drop_in_place() };
    }
}

// SAFETY: owners on several threads share the value, and the last one, anywhere, drops it.
unsafe impl<T: Send + Sync> Send for Ref<T> {}
// SAFETY: a shared reference gives `&T`, and can be cloned into an owner, which another thread may drop: `T`
// is both.
unsafe impl<T: Send + Sync> Sync for Ref<T> {}

impl<T> Ref<T> {
    /// Moves `value` into a block of the pool.
    ///
    /// # Errors
    /// [`OutOfMemory`]; `value` is dropped then.
    pub fn try_new(value: T) -> Result<Self, OutOfMemory> {
        // Not made as `try_make` does it, which gives the value back: of each type that would be one more
        // move.
        let block = Block::allocate(None)?;
        // SAFETY: the block was made for a value, and has none yet.
        Ok(unsafe { Self::fill(block, value) })
    }

    /// Moves `value` into a block of `cache`, to which the block returns when its last owner is gone.
    ///
    /// # Errors
    /// [`OutOfMemory`], with `value` given back.
    pub fn try_new_in(value: T, cache: &Cache) -> Result<Self, (OutOfMemory, T)> {
        Self::try_make(Some(cache), value, |value| value)
    }

    /// Makes a value of `seed` in a block from `home` or, without one, from the pool, so that a large one
    /// need not be moved there.
    ///
    /// # Errors
    /// [`OutOfMemory`], with `seed` given back.
    pub(crate) fn try_make<S>(
        home: Option<&Cache>,
        seed: S,
        make: impl FnOnce(S) -> T,
    ) -> Result<Self, (OutOfMemory, S)> {
        match Block::allocate(home) {
            // SAFETY: the block was made for a value, and has none yet.
            Ok(block) => Ok(unsafe { Self::fill(block, make(seed)) }),
            Err(error) => Err((error, seed)),
        }
    }

    /// # Safety
    /// `block` came from [`Block::allocate`] and was not filled before.
    unsafe fn fill(block: NonNull<Block<T>>, value: T) -> Self {
        // SAFETY: the caller says that the block is there; only the address of one field is computed.
        let place = unsafe { &raw mut (*block.as_ptr()).value };
        // SAFETY: there is room for a value, and none is there yet.
        unsafe { place.write(value) };
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
        // SAFETY: the owner that the caller knows of keeps the value alive, and `ManuallyDrop` keeps its
        // count.
        let other = ManuallyDrop::new(unsafe { Self::from_raw(value) });
        Self::clone(&other)
    }

    /// Returns whether two owners share one value.
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.block == other.block
    }

    /// Drops this owner, unless it is the last one, which is given back.
    pub(crate) fn drop_unless_last(this: Self) -> Option<Self> {
        let this = ManuallyDrop::new(this);
        // The count that is given back is not used again, because nothing drops `this`.
        let dropped = this.block().header.owners.release_unless_last();
        (!dropped).then(|| ManuallyDrop::into_inner(this))
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
        // SAFETY: a block begins with its header, and the count given back is this value's.
        unsafe { Header::release(self.block.cast(), Block::<T>::drop_value, size_of::<Block<T>>()) };
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
