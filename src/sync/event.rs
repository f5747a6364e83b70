//! Kernel events (`KEVENT`).

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::time::Duration;

use wsk_sys::nt;

use crate::irql::Passive;
use crate::memory::{OutOfMemory, Ref};
use crate::time;

/// Kind of an [`Event`]: how it becomes unset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Stays set until [`Event::reset`], and lets every waiter through.
    Notification,
    /// Lets one waiter through and is unset by that.
    Synchronization,
}

/// A kernel event, shared by its clones.
///
/// The event lives in non-paged memory of its own and never moves; a waiter and a setter may therefore drop
/// their clones in either order.
#[derive(Clone)]
pub struct Event {
    cell: Ref<EventCell>,
}

/// Storage for a `KEVENT` inside a larger object.
///
/// # Invariants
/// Once [`EventCell::initialize`] was called, the object does not move and the event is touched only by the
/// kernel's functions.
pub(crate) struct EventCell {
    event: UnsafeCell<MaybeUninit<nt::KEVENT>>,
}

// SAFETY: an event belongs to no thread; it is moved only before it was initialised.
unsafe impl Send for EventCell {}
// SAFETY: the invariant leaves the event to the kernel's functions, which any number of processors may call
// for one event.
unsafe impl Sync for EventCell {}

impl EventCell {
    /// Memory that is not an event yet.
    pub(crate) const fn uninitialized() -> Self {
        Self { event: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Makes the memory an event that is not set.
    ///
    /// # Safety
    /// The object stays where it is from now on, in non-paged memory, and no other thread uses it yet.
    pub(crate) unsafe fn initialize(&self, kind: EventKind) {
        let kind = match kind {
            EventKind::Notification => nt::NOTIFICATION_EVENT,
            EventKind::Synchronization => nt::SYNCHRONIZATION_EVENT,
        };
        // SAFETY: the storage has the size and alignment of a `KEVENT`, and the caller says that it is not in
        // use.
        unsafe { nt::KeInitializeEvent(self.as_ptr(), kind, 0) };
    }

    fn as_ptr(&self) -> *mut nt::KEVENT {
        self.event.get().cast()
    }

    /// Sets the event.
    ///
    /// # Safety
    /// The event was initialised.
    pub(crate) unsafe fn set(&self) {
        // SAFETY: the caller says that this is an event, and `&self` keeps it alive; no wait follows.
        unsafe { nt::KeSetEvent(self.as_ptr(), nt::IO_NO_INCREMENT, 0) };
    }

    /// Waits until the event is set; `false` if it was not after `timeout`.
    ///
    /// # Safety
    /// The event was initialised.
    pub(crate) unsafe fn wait(&self, passive: Passive<'_>, timeout: Option<Duration>) -> bool {
        // SAFETY: the caller says that this is an event, and `&self` keeps it alive during the wait.
        unsafe { wait_for_object(passive, self.as_ptr().cast(), timeout) }
    }
}

/// Waits for a dispatcher object; `false` if it was not signalled after `timeout`.
///
/// # Safety
/// `object` points to an initialised event, timer or thread that stays alive during the call.
pub(crate) unsafe fn wait_for_object(
    _passive: Passive<'_>,
    object: *mut core::ffi::c_void,
    timeout: Option<Duration>,
) -> bool {
    let mut due = timeout.map(time::relative);
    let due = due.as_mut().map_or(core::ptr::null_mut(), core::ptr::from_mut);
    // SAFETY: the caller says that the object is one to wait for, and is alive; `Passive` says that this
    // thread may wait (rule IRQL-13); the time lives during the call.
    let status = unsafe { nt::KeWaitForSingleObject(object, nt::EXECUTIVE, nt::KERNEL_MODE, 0, due) };
    // A wait in kernel mode that is not alertable ends for two reasons only.
    status == wsk_sys::STATUS_SUCCESS
}

impl Event {
    /// Makes an event that is not set.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(kind: EventKind) -> Result<Self, OutOfMemory> {
        let cell = Ref::try_new(EventCell::uninitialized())?;
        // SAFETY: a `Ref` never moves its value, is non-paged, and nobody else has this one yet.
        unsafe { cell.initialize(kind) };
        Ok(Self { cell })
    }

    /// Sets the event (`KeSetEvent`).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    pub fn set(&self) {
        // SAFETY: `try_new` initialised the event.
        unsafe { self.cell.set() };
    }

    /// Makes the event not set (`KeClearEvent`).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    pub fn reset(&self) {
        // SAFETY: `try_new` initialised the event, and `&self` keeps it alive.
        unsafe { nt::KeClearEvent(self.cell.as_ptr()) };
    }

    /// Returns whether the event is set (`KeReadStateEvent`).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    pub fn is_set(&self) -> bool {
        // SAFETY: `try_new` initialised the event, and `&self` keeps it alive.
        unsafe { nt::KeReadStateEvent(self.cell.as_ptr()) != 0 }
    }

    /// Waits until the event is set (`KeWaitForSingleObject`); `false` if it was not after `timeout`.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`, outside of callbacks and completion routines (rule IRQL-13).
    pub fn wait(&self, passive: Passive<'_>, timeout: Option<Duration>) -> bool {
        // SAFETY: `try_new` initialised the event.
        unsafe { self.cell.wait(passive, timeout) }
    }

    /// The shared event itself, for a waker.
    pub(crate) fn cell(&self) -> &Ref<EventCell> {
        &self.cell
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("set", &self.is_set()).finish()
    }
}
