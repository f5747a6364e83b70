//! Interrupt request levels, as types.
//!
//! The kernel allows a thread to wait only at `PASSIVE_LEVEL`, and WSK forbids it in callbacks and completion
//! routines at any level (rules IRQL-13, IRP-13). Whatever waits in this crate therefore asks for a
//! [`Passive`], a value without size that only code outside of all that can have:
//!
//! - it is made by `unsafe`, once, where a driver starts and where it unloads;
//! - it is neither `Send` nor `'static`, so no handler, no task of an [`Executor`](crate::executor::Executor)
//!   and no closure that runs under a [`SpinLock`](crate::sync::SpinLock) can hold one.

use core::fmt;
use core::marker::PhantomData;

/// Proof that the current thread runs at `PASSIVE_LEVEL`, outside of WSK callbacks and completion routines,
/// and may wait, for as long as `'a`.
///
/// # Invariants
/// A value exists only on the thread it was made for, and only while that thread stays at `PASSIVE_LEVEL`
/// outside of callbacks, or runs code that cannot reach the value.
///
/// A thread cannot hand its proof to another one:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// fn give_away(passive: wsk::Passive<'_>) {
///     is_send(passive);
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Passive<'a> {
    /// Ties the proof to a stretch of code and, by not being `Send`, to a thread.
    _scope: PhantomData<*mut &'a ()>,
}

impl Passive<'_> {
    /// States that the current thread is at `PASSIVE_LEVEL` and may wait.
    ///
    /// Meant for `DriverEntry`, the unload routine, dispatch routines that are called at `PASSIVE_LEVEL`, and
    /// the start of a system thread.
    ///
    /// # Safety
    /// For as long as the result or a copy of it is in use, this thread runs at `PASSIVE_LEVEL` with normal
    /// kernel APCs enabled, is not inside a WSK callback or a completion routine, and holds no lock that a
    /// callback, a completion routine or a task takes.
    #[inline]
    pub const unsafe fn assume() -> Self {
        Self { _scope: PhantomData }
    }
}

impl fmt::Debug for Passive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passive")
    }
}
