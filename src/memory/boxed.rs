//! A value in non-paged memory with one owner.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::{OutOfMemory, allocate, assert_pool_alignment, free};

/// A value in its own block of non-paged pool.
///
/// The value never moves while it is in the box, so kernel objects may live in one.
///
/// # Invariants
/// `value` points to an initialised `T` in a block of the pool that nobody else owns.
pub struct PoolBox<T> {
    value: NonNull<T>,
    _owns: PhantomData<T>,
}

// SAFETY: the box owns its value as a `T` held directly would be owned.
unsafe impl<T: Send> Send for PoolBox<T> {}
// SAFETY: a shared box gives shared access to the value only.
unsafe impl<T: Sync> Sync for PoolBox<T> {}

impl<T> PoolBox<T> {
    /// Moves `value` into non-paged memory.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`OutOfMemory`]; `value` is dropped then.
    pub fn try_new(value: T) -> Result<Self, OutOfMemory> {
        const { assert_pool_alignment::<T>() };
        let block = allocate(size_of::<T>())?.cast::<T>();
        // SAFETY: the block is new, large enough and aligned for a `T`.
        unsafe { block.write(value) };
        Ok(Self { value: block, _owns: PhantomData })
    }

    /// Gives the value up as a pointer; [`PoolBox::from_raw`] takes it back.
    pub fn into_raw(this: Self) -> *mut T {
        ManuallyDrop::new(this).value.as_ptr()
    }

    /// Takes back a value that [`PoolBox::into_raw`] gave up.
    ///
    /// # Safety
    /// `value` came from [`PoolBox::into_raw`] and is taken back once.
    pub unsafe fn from_raw(value: *mut T) -> Self {
        // SAFETY: the caller says that the pointer came from a box, and a box never holds null.
        Self { value: unsafe { NonNull::new_unchecked(value) }, _owns: PhantomData }
    }

    /// Moves the value out and frees the block.
    pub fn into_inner(this: Self) -> T {
        let this = ManuallyDrop::new(this);
        // SAFETY: the box owned an initialised value, and is not dropped any more.
        let value = unsafe { this.value.read() };
        // SAFETY: the block came from `allocate`, and this was its only owner.
        unsafe { free(this.value.cast()) };
        value
    }

    /// The address of the value, good for as long as the box lives.
    pub fn as_ptr(this: &Self) -> *mut T {
        this.value.as_ptr()
    }
}

impl<T> Drop for PoolBox<T> {
    fn drop(&mut self) {
        // SAFETY: the box owns an initialised value, dropped here for the last time.
        unsafe { self.value.drop_in_place() };
        // SAFETY: the block came from `allocate`, and this was its only owner.
        unsafe { free(self.value.cast()) };
    }
}

impl<T> Deref for PoolBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the box owns an initialised value, and `&self` excludes writers.
        unsafe { self.value.as_ref() }
    }
}

impl<T> DerefMut for PoolBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the box owns an initialised value, and `&mut self` excludes everybody else.
        unsafe { self.value.as_mut() }
    }
}

impl<T: fmt::Debug> fmt::Debug for PoolBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
