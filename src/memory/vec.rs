//! A vector whose memory is reserved once.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::{OutOfMemory, allocate, assert_pool_alignment, free};

/// A vector in non-paged memory whose capacity is fixed when it is made, so that filling it cannot fail for
/// lack of memory.
///
/// # Invariants
/// - `items` points to a block of the pool with room for `capacity` values, of which this vector is the only
///   owner.
/// - The first `len <= capacity` of them are initialised.
pub struct PoolVec<T> {
    items: NonNull<T>,
    len: usize,
    capacity: usize,
    _owns: PhantomData<T>,
}

// SAFETY: the vector owns its values as a `[T]` held directly would be owned.
unsafe impl<T: Send> Send for PoolVec<T> {}
// SAFETY: a shared vector gives shared access to its values only.
unsafe impl<T: Sync> Sync for PoolVec<T> {}

impl<T> PoolVec<T> {
    /// Reserves room for `capacity` values.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_with_capacity(capacity: usize) -> Result<Self, OutOfMemory> {
        const { assert_pool_alignment::<T>() };
        let bytes = size_of::<T>().checked_mul(capacity).ok_or(OutOfMemory)?;
        let items = allocate(bytes)?.cast();
        Ok(Self { items, len: 0, capacity, _owns: PhantomData })
    }

    /// Appends a value.
    ///
    /// # Errors
    /// The value itself, when the vector is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.len == self.capacity {
            return Err(value);
        }
        // SAFETY: `len < capacity`, so the slot lies inside the block.
        let slot = unsafe { self.items.add(self.len) };
        // SAFETY: the slot is inside the block and holds no value yet.
        unsafe { slot.write(value) };
        self.len += 1;
        Ok(())
    }

    /// Takes the last value away.
    pub fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: the new length is less than the old one, so the slot lies inside the block.
        let slot = unsafe { self.items.add(self.len) };
        // SAFETY: the slot was initialised, and the new length says that it is not any more.
        Some(unsafe { slot.read() })
    }

    /// Takes a value out and moves those behind it up; `None` if there is none at `index`.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        let behind = self.len.checked_sub(index)?.checked_sub(1)?;
        // SAFETY: `index` is less than the length, so the slot lies inside the block.
        let slot = unsafe { self.items.add(index) };
        // SAFETY: the slot holds a value, which is overwritten below or behind the new length.
        let value = unsafe { slot.read() };
        // SAFETY: `index + 1` is at most the length, so the address is inside the block or at its end.
        let next = unsafe { slot.add(1) };
        // SAFETY: `behind` values begin at `next`, and there is room for them one slot earlier; the regions
        // may overlap.
        unsafe { next.copy_to(slot, behind) };
        self.len -= 1;
        Some(value)
    }

    /// The number of values there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Drops all values and keeps the room.
    pub fn clear(&mut self) {
        while self.pop().is_some() {}
    }
}

impl<T> Drop for PoolVec<T> {
    fn drop(&mut self) {
        self.clear();
        // SAFETY: the block came from `allocate`, and this vector was its only owner.
        unsafe { free(self.items.cast()) };
    }
}

impl<T> Deref for PoolVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the first `len` values are initialised, and `&self` excludes writers.
        unsafe { core::slice::from_raw_parts(self.items.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for PoolVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: the first `len` values are initialised, and `&mut self` excludes everybody else.
        unsafe { core::slice::from_raw_parts_mut(self.items.as_ptr(), self.len) }
    }
}

impl<T: fmt::Debug> fmt::Debug for PoolVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
