//! A spin lock around a value (`KSPIN_LOCK`).

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use wsk_sys::nt;

/// A value that one processor at a time may touch, at `DISPATCH_LEVEL`.
///
/// Hold it briefly: the holder's processor does nothing else, and the others spin.
///
/// # Invariants
/// `value` is touched only between taking and releasing `lock`, or through `&mut self`.
pub struct SpinLock<T> {
    lock: UnsafeCell<nt::KSPIN_LOCK>,
    value: UnsafeCell<T>,
}

// SAFETY: the lock owns its value, which may move to another thread, and a lock that moves is held by nobody.
unsafe impl<T: Send> Send for SpinLock<T> {}
// SAFETY: by the invariant one thread at a time reaches the value, as if it had been moved there, and the
// lock orders them.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self { lock: UnsafeCell::new(0), value: UnsafeCell::new(value) }
    }

    /// Takes the lock, runs `body` at `DISPATCH_LEVEL` and releases it.
    ///
    /// `body` is `Send` so that it cannot capture a [`Passive`](crate::irql::Passive), and the value is so
    /// that it cannot be one: nothing that waits can be called in it. It must not take the same lock again.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// ```compile_fail,E0277
    /// fn waits(lock: &wsk::sync::SpinLock<()>, event: &wsk::sync::Event, passive: wsk::Passive<'_>) {
    ///     lock.with(|()| event.wait(passive, None));
    /// }
    /// ```
    ///
    /// ```compile_fail,E0277
    /// fn waits(lock: &wsk::sync::SpinLock<wsk::Passive<'_>>, event: &wsk::sync::Event) {
    ///     lock.with(|passive| event.wait(*passive, None));
    /// }
    /// ```
    pub fn with<R>(&self, body: impl FnOnce(&mut T) -> R + Send) -> R
    where
        T: Send,
    {
        body(&mut self.lock())
    }

    /// Takes the lock until the guard is dropped.
    ///
    /// Not public, because code that holds a guard could still have a [`Passive`](crate::irql::Passive).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `DISPATCH_LEVEL` while the guard lives.
    pub(crate) fn lock(&self) -> SpinGuard<'_, T> {
        // SAFETY: the lock word is initialised and lives as long as `self`.
        let irql = unsafe { nt::KeAcquireSpinLockRaiseToDpc(self.lock.get()) };
        SpinGuard { lock: self, irql, _thread: PhantomData }
    }

    /// The value, without locking: nobody else can have the lock now.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpinLock").finish_non_exhaustive()
    }
}

/// A lock that is held.
///
/// # Invariants
/// This thread holds `lock`, and was at `irql` before it took it.
pub(crate) struct SpinGuard<'a, T> {
    lock: &'a SpinLock<T>,
    irql: nt::KIRQL,
    /// The IRQL belongs to the thread that raised it.
    _thread: PhantomData<*mut ()>,
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this thread holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this thread holds the lock, and the guard is borrowed for writing.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: this thread holds the lock and took it at this IRQL.
        unsafe { nt::KeReleaseSpinLock(self.lock.lock.get(), self.irql) };
    }
}
