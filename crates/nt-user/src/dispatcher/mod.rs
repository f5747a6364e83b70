//! Dispatcher objects: waitable kernel objects.
//!
//! Events, timers and threads begin with a `DISPATCHER_HEADER` of 24 bytes. Its first eight are one atomic
//! word here:
//!
//! ```text
//!   bits 0..8 kind │ 8..16 mark │ 16..32 threads asleep or donated │ 32..64 SignalState
//! ```
//!
//! so that signaling an object without sleepers is one compare-exchange. Threads sleep in the platform's
//! parking lot under the object's address. A thread that signals an object with sleepers changes the word
//! under the lock of the parking lot and does not access the object afterwards: a woken thread may free it at
//! once.
//!
//! ```text
//!   notification: not signaled ──signal: wakes all──► signaled ──reset──► not signaled
//!   synchronization: not signaled ──signal: hands itself to one sleeper, stays; without sleepers──► signaled
//!                    signaled ──a wait takes it──► not signaled
//! ```

mod event;
mod wait;

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::{offset_of, size_of};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wsk_sys::nt::KEVENT;

use crate::checker::argument::is_null_page;
use crate::kernel::Inner;
use crate::platform::{Parked, Platform, Unpark};
use crate::thread::current;

pub use event::*;
pub use wait::*;

/// The kinds of objects, with the numbers the kernel gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    NotificationEvent = 0,
    SynchronizationEvent = 1,
    Thread = 6,
    NotificationTimer = 8,
}

impl Kind {
    fn of(word: u64) -> Option<Self> {
        if word & MARK_MASK != MARK {
            return None;
        }
        [Self::NotificationEvent, Self::SynchronizationEvent, Self::Thread, Self::NotificationTimer]
            .into_iter()
            .find(|kind| *kind as u64 == word & KIND_MASK)
    }
}

const KIND_MASK: u64 = 0xFF;
/// Distinguishes an initialized header from zeros.
const MARK: u64 = 0xD0 << 8;
const MARK_MASK: u64 = 0xFF << 8;
const SLEEPER: u64 = 1 << 16;
const SLEEPERS_MASK: u64 = 0xFFFF << 16;
const SIGNALED: u64 = 1 << 32;
const SIGNAL_SHIFT: u32 = 32;

/// A dispatcher header; see the module.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Header {
    word: AtomicU64,
    _links: [usize; 2],
}

const _: () = assert!(size_of::<Header>() == size_of::<KEVENT>());
const _: () = assert!(offset_of!(KEVENT, Header.SignalState) * 8 == SIGNAL_SHIFT as usize);

const fn initial(kind: Kind, signaled: bool) -> u64 {
    kind as u64 | MARK | if signaled { SIGNALED } else { 0 }
}

impl Header {
    pub(crate) const fn new(kind: Kind, signaled: bool) -> Self {
        Self { word: AtomicU64::new(initial(kind, signaled)), _links: [0; 2] }
    }

    pub(crate) fn object(&self) -> Object<'_> {
        Object { header: NonNull::from(self), _lives: PhantomData }
    }
}

/// A pointer to a dispatcher object.
///
/// # Invariants
/// The object is alive until the last access that the driver can know of. The change of the word by a signal
/// may be the last one, so this is not a reference.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a> {
    header: NonNull<Header>,
    _lives: PhantomData<&'a Header>,
}

impl<'a> Object<'a> {
    /// # Safety
    /// `object` points to storage for a dispatcher header that lives for `'a`.
    pub(crate) unsafe fn from_raw(object: *mut c_void) -> Option<Self> {
        let header = NonNull::new(object.cast::<Header>()).filter(|header| header.is_aligned())?;
        if is_null_page(object) {
            return None;
        }
        Some(Self { header, _lives: PhantomData })
    }

    fn word(self) -> &'a AtomicU64 {
        // SAFETY: by the invariant of the type the object is alive, and the word is accessed atomically only.
        unsafe { &(*self.header.as_ptr()).word }
    }

    pub(crate) fn key(self) -> usize {
        self.header.addr().get()
    }

    /// Makes the storage an object of `kind`.
    pub(crate) fn initialize(self, kind: Kind, signaled: bool) {
        self.word().store(initial(kind, signaled), Ordering::Release);
    }

    /// Returns the kind of the object, if it has been initialized.
    pub(crate) fn kind(self) -> Option<Kind> {
        Kind::of(self.word().load(Ordering::Relaxed))
    }

    pub(crate) fn state(self) -> i32 {
        (self.word().load(Ordering::Acquire) >> SIGNAL_SHIFT) as i32
    }

    /// Makes the object not signaled; returns the former state.
    pub(crate) fn reset(self) -> i32 {
        let old = self.word().fetch_and(SIGNALED - 1, Ordering::AcqRel);
        (old >> SIGNAL_SHIFT) as i32
    }

    /// Signals the object; returns the former state.
    pub(crate) fn signal(self, kernel: &Inner) -> i32 {
        let mut word = self.word().load(Ordering::Relaxed);
        loop {
            if word & SIGNALED == 0 && word & SLEEPERS_MASK != 0 && !self.is_awaited_by_caller(word) {
                return self.signal_sleepers(kernel, word);
            }
            // Also if it is already signaled: the earlier writes of this thread must be visible to the
            // waiter.
            match self.word().compare_exchange_weak(
                word,
                word | SIGNALED,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return (word >> SIGNAL_SHIFT) as i32,
                Err(now) => word = now,
            }
        }
    }

    /// Returns true if the calling thread is donated while it waits for this object, and must take the signal
    /// itself.
    fn is_awaited_by_caller(self, word: u64) -> bool {
        current::donated_to() == self.key() && Kind::of(word) == Some(Kind::SynchronizationEvent)
    }

    #[cold]
    fn signal_sleepers(self, kernel: &Inner, word: u64) -> i32 {
        let one = Kind::of(word) == Some(Kind::SynchronizationEvent);
        let count = if one { Unpark::One } else { Unpark::All };
        let mut donated = false;
        kernel.platform().unpark(self.key(), count, &mut |woken| {
            let handed_over = one && woken == 1;
            let settle = |word: u64| {
                let word = word - SLEEPER * woken as u64;
                donated = !handed_over && word & SLEEPERS_MASK != 0;
                Some(if handed_over { word } else { word | SIGNALED })
            };
            // The last access: a thread that was woken, or one that sees the signal, may free the object.
            let settled = self.word().fetch_update(Ordering::AcqRel, Ordering::Relaxed, settle);
            debug_assert!(settled.is_ok(), "the update never declines");
        });
        if donated {
            kernel.kick();
        }
        0
    }

    /// Takes the signal if there is one.
    pub(crate) fn try_take(self) -> bool {
        self.take_or(|_| None)
    }

    /// Takes the signal, or else changes the word with `otherwise`, atomically.
    fn take_or(self, otherwise: impl Fn(u64) -> Option<u64>) -> bool {
        let mut word = self.word().load(Ordering::Acquire);
        loop {
            let signaled = word & SIGNALED != 0;
            let new = if !signaled {
                otherwise(word)
            } else if Kind::of(word) == Some(Kind::SynchronizationEvent) {
                Some(word & !SIGNALED)
            } else {
                None
            };
            let Some(new) = new else { return signaled };
            match self.word().compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return signaled,
                Err(now) => word = now,
            }
        }
    }

    /// Takes the signal if there is one; else counts the donated thread as a sleeper, although it is awake.
    pub(crate) fn begin_donation(self) -> bool {
        self.take_or(|word| Some(word + SLEEPER))
    }

    /// Takes the signal if there is one, and stops counting the donated thread as a sleeper.
    pub(crate) fn end_donation(self) -> bool {
        let mut word = self.word().load(Ordering::Acquire);
        loop {
            let signaled = word & SIGNALED != 0;
            let takes = signaled && Kind::of(word) == Some(Kind::SynchronizationEvent);
            let new = (if takes { word & !SIGNALED } else { word }) - SLEEPER;
            match self.word().compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return signaled,
                Err(now) => word = now,
            }
        }
    }

    /// Waits for the object; false if `deadline` passed first.
    pub(crate) fn wait(self, platform: &dyn Platform, deadline: Option<Duration>) -> bool {
        if self.try_take() {
            return true;
        }
        let mut validate = || !self.take_or(|word| Some(word + SLEEPER));
        let mut timed_out = || {
            self.word().fetch_sub(SLEEPER, Ordering::Relaxed);
        };
        match platform.park(self.key(), &mut validate, &mut timed_out, deadline) {
            Parked::Woken | Parked::Refused => true,
            Parked::TimedOut => false,
        }
    }
}
