//! Wakers of any number of futures, in a list made of the futures' own memory.
//!
//! An `AtomicWaker` holds one waker; several tasks may wait for one socket. Each future brings the [`Waiter`]
//! it is listed with, so registering allocates nothing and cannot fail.
//!
//! ```text
//!             register                 wake_all
//!   unlisted ──────────▶ listed ──────────────────▶ unlisted, then the waker is called
//!                         │  ▲
//!                         │  └ register again: the waker is replaced
//!                         └ remove (the future is dropped) ──▶ unlisted
//! ```
//!
//! Wakers are cloned, called and dropped outside of the lock, because they are code of the executor's.

use core::cell::UnsafeCell;
use core::marker::PhantomPinned;
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::Waker;

use super::SpinLock;

/// One future's place in a list of [`Waiters`].
///
/// # Invariants
/// `entry` is read and written only while the lock of the list is held. A listed waiter is pinned and alive.
pub(crate) struct Waiter {
    entry: UnsafeCell<Entry>,
    _pinned: PhantomPinned,
}

/// # Invariants
/// `waker` is there exactly while the waiter is listed.
struct Entry {
    previous: Option<NonNull<Waiter>>,
    next: Option<NonNull<Waiter>>,
    waker: Option<Waker>,
}

// SAFETY: the entry is touched under the lock of the list alone, by any thread, and wakers are `Send`.
unsafe impl Send for Waiter {}
// SAFETY: a shared waiter gives access to its entry under the lock of the list alone.
unsafe impl Sync for Waiter {}

impl Waiter {
    /// A waiter that is not listed.
    pub(crate) const fn new() -> Self {
        let entry = Entry { previous: None, next: None, waker: None };
        Self { entry: UnsafeCell::new(entry), _pinned: PhantomPinned }
    }

    /// The entry of a waiter.
    ///
    /// # Safety
    /// The waiter is alive, the lock of its list is held for as long as the reference lives, and no other
    /// reference on the entry lives.
    unsafe fn entry<'a>(waiter: NonNull<Self>) -> &'a mut Entry {
        // SAFETY: the caller says that the waiter is alive.
        let cell = unsafe { &raw const (*waiter.as_ptr()).entry };
        // SAFETY: the caller holds the lock and has no other reference.
        unsafe { &mut *UnsafeCell::raw_get(cell) }
    }
}

/// Outcome of [`Waiters::register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// The waiter was listed, and was not before; `first` says whether the list was empty.
    New {
        /// True if the list was empty.
        first: bool,
    },
    /// The waiter was listed already, and has another waker now.
    Again,
    /// The awaited event has happened: the waiter is not listed.
    Over,
}

/// The futures that wait for something.
pub(crate) struct Waiters {
    list: SpinLock<List>,
}

struct List {
    first: Option<NonNull<Waiter>>,
    last: Option<NonNull<Waiter>>,
    count: usize,
}

// SAFETY: the pointers lead to waiters, which are `Send + Sync`.
unsafe impl Send for List {}

impl List {
    /// Takes a waiter out, and its waker with it; `None` if it is not listed.
    ///
    /// # Safety
    /// The waiter is alive, and this is the only list it is ever in.
    unsafe fn unlink(&mut self, waiter: NonNull<Waiter>) -> Option<Waker> {
        // SAFETY: `&mut self` means that the lock is held, and no other reference on an entry lives.
        let entry = unsafe { Waiter::entry(waiter) };
        let waker = entry.waker.take()?;
        let (previous, next) = (entry.previous.take(), entry.next.take());
        match previous {
            // SAFETY: a listed waiter is alive, the lock is held, and the reference above is not used any
            // more.
            Some(previous) => unsafe { Waiter::entry(previous) }.next = next,
            None => self.first = next,
        }
        match next {
            // SAFETY: a listed waiter is alive, the lock is held, and no other reference on its entry lives.
            Some(next) => unsafe { Waiter::entry(next) }.previous = previous,
            None => self.last = previous,
        }
        self.count -= 1;
        Some(waker)
    }
}

impl Waiters {
    pub(crate) const fn new() -> Self {
        Self { list: SpinLock::new(List { first: None, last: None, count: 0 }) }
    }

    /// Lists `waiter`, or gives it another waker, unless `over` says, under the lock, that there is nothing
    /// to wait for any more. The thread that makes `over` true calls [`Waiters::wake_all`] afterwards, so no
    /// waiter is missed.
    ///
    /// # Safety
    /// This is the only list the waiter is ever in, and [`Waiters::remove`] is called before it goes.
    pub(crate) unsafe fn register(
        &self,
        waiter: Pin<&Waiter>,
        waker: &Waker,
        over: impl FnOnce() -> bool,
    ) -> Registered {
        let own = NonNull::from(waiter.get_ref());
        let mut waker = Some(waker.clone());
        let mut list = self.list.lock();
        if over() {
            // SAFETY: the waiter is borrowed; the rest is the caller's promise.
            let former = unsafe { list.unlink(own) };
            drop(list);
            drop((former, waker));
            return Registered::Over;
        }
        // SAFETY: the waiter is borrowed, the lock is held, and no other reference on an entry lives.
        let entry = unsafe { Waiter::entry(own) };
        core::mem::swap(&mut entry.waker, &mut waker);
        if waker.is_some() {
            drop(list);
            return Registered::Again;
        }
        let last = list.last;
        entry.previous = last;
        match last {
            // SAFETY: a listed waiter is alive, the lock is held, and the reference above is not used any
            // more.
            Some(last) => unsafe { Waiter::entry(last) }.next = Some(own),
            None => list.first = Some(own),
        }
        list.last = Some(own);
        list.count += 1;
        Registered::New { first: last.is_none() }
    }

    /// Takes `waiter` out, if it is listed.
    ///
    /// # Safety
    /// This is the only list the waiter is ever in.
    pub(crate) unsafe fn remove(&self, waiter: &Waiter) {
        let mut list = self.list.lock();
        // SAFETY: the waiter is borrowed; the rest is the caller's promise.
        let waker = unsafe { list.unlink(NonNull::from(waiter)) };
        drop(list);
        drop(waker);
    }

    /// Returns whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.lock().count == 0
    }

    /// Takes out and wakes whatever is listed now. What is listed meanwhile waits for the next time, so this
    /// ends however fast the woken tasks register again.
    ///
    /// IRQL: up to `DISPATCH_LEVEL`.
    pub(crate) fn wake_all(&self) {
        let mut left = self.list.lock().count;
        while left > 0 {
            let mut list = self.list.lock();
            let Some(first) = list.first else { return };
            // SAFETY: a listed waiter is alive, and this is its list.
            let waker = unsafe { list.unlink(first) };
            drop(list);
            if let Some(waker) = waker {
                waker.wake();
            }
            left -= 1;
        }
    }
}
