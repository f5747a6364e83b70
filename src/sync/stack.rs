//! An intrusive stack that all threads push to and one thread empties.
//!
//! ```text
//!   push (<= DISPATCH_LEVEL, no memory, no lock) ──▶ head ─▶ 3 ─▶ 2 ─▶ 1
//!   take_all (swaps the head for nothing)        ──▶ 1, 2, 3: the order in which they were pushed
//! ```
//!
//! Nothing is ever popped singly, so the stack has no ABA problem.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::atomic::{AtomicPtr, Ordering};

/// The link that an element of a [`Stack`] carries.
pub(crate) struct Link {
    next: AtomicPtr<Link>,
}

impl Link {
    /// A link of an element that is on no stack.
    pub(crate) fn new() -> Self {
        Self { next: AtomicPtr::new(core::ptr::null_mut()) }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

/// Something that can be on a [`Stack`] as a pointer to its [`Link`].
///
/// # Safety
/// - `into_link` gives up ownership of the element, which then does not move, and returns a pointer to a link
///   inside it that nobody else uses.
/// - `from_link` takes the ownership back from that pointer.
pub(crate) unsafe trait Linked: Sized {
    /// Gives the element up.
    fn into_link(self) -> NonNull<Link>;

    /// Takes the element back.
    ///
    /// # Safety
    /// `link` came from [`Linked::into_link`] and is taken back once.
    unsafe fn from_link(link: NonNull<Link>) -> Self;
}

/// The stack.
///
/// # Invariants
/// The list that starts at `head` consists of links that were given up to the stack.
pub(crate) struct Stack<T: Linked> {
    head: AtomicPtr<Link>,
    _owns: PhantomData<T>,
}

// SAFETY: a stack owns its elements, which may move to another thread.
unsafe impl<T: Linked + Send> Send for Stack<T> {}
// SAFETY: threads that share a stack move elements into it and out of it, by an atomic head, and never look
// at one there.
unsafe impl<T: Linked + Send> Sync for Stack<T> {}

impl<T: Linked> Stack<T> {
    /// An empty stack.
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(core::ptr::null_mut()), _owns: PhantomData }
    }

    /// Adds an element; `true` if the stack was empty, so that the thread that empties it may be asleep.
    ///
    /// # IRQL
    /// Any.
    pub(crate) fn push(&self, element: T) -> bool {
        let link = element.into_link();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the element was given up to the stack, so its link is alive and nobody else's.
            unsafe { link.as_ref() }.next.store(head, Ordering::Relaxed);
            match self.head.compare_exchange_weak(head, link.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return head.is_null(),
                Err(now) => head = now,
            }
        }
    }

    /// Returns whether nothing is on it at some moment.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire).is_null()
    }

    /// Takes everything, first in first out.
    ///
    /// # IRQL
    /// Any.
    pub(crate) fn take_all(&self) -> Taken<T> {
        let mut newest = self.head.swap(core::ptr::null_mut(), Ordering::Acquire);
        let mut oldest = core::ptr::null_mut::<Link>();
        while let Some(link) = NonNull::new(newest) {
            // SAFETY: the whole list was taken, so its links are alive and this thread's.
            newest = unsafe { link.as_ref() }.next.swap(oldest, Ordering::Relaxed);
            oldest = link.as_ptr();
        }
        Taken { head: oldest, _owns: PhantomData }
    }
}

impl<T: Linked> Drop for Stack<T> {
    fn drop(&mut self) {
        drop(self.take_all());
    }
}

/// The elements taken from a [`Stack`].
pub(crate) struct Taken<T: Linked> {
    head: *mut Link,
    _owns: PhantomData<T>,
}

impl<T: Linked> Iterator for Taken<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let link = NonNull::new(self.head)?;
        // SAFETY: the links of this list are alive and this thread's.
        self.head = unsafe { link.as_ref() }.next.load(Ordering::Relaxed);
        // SAFETY: the link was given up to the stack, and is taken back here and nowhere else.
        Some(unsafe { T::from_link(link) })
    }
}

impl<T: Linked> Drop for Taken<T> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
