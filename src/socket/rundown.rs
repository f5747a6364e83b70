//! Rundown protection before `WskCloseSocket`.
//!
//! `WskCloseSocket` may be called only while no other function of the socket is executing in any thread, and
//! only after retained indications were released (rules CLOSE-01, RCVE-19). So every call, and every retained
//! indication, holds rundown protection. Closing begins the rundown, and the last release starts the close.
//! No thread waits.
//!
//! ```text
//!  no socket ──attach──▶ open ──begin──▶ running down, n holders ──last release──▶ close starts
//!      │                                    ▲
//!      └──begin──▶ run down, no socket ──attach──┘
//! ```

use crate::sync::atomic::{AtomicUsize, Ordering};

/// A `WSK_SOCKET` exists.
const ATTACHED: usize = 1;
/// The rundown has begun: protection is no longer granted.
const RUN_DOWN: usize = 2;
/// WSK has reported the socket dead. No other state depends on it.
const DEAD: usize = 4;
/// Protection for an abort was granted. No other state depends on it.
const ABORTED: usize = 8;
/// The flags that no other state depends on.
const NOTES: usize = DEAD | ABORTED;
/// One holder.
const HOLDER: usize = 16;

/// The duty of a caller to close the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Duty {
    /// None: another caller starts the close, or there is no socket to close.
    None,
    /// Start the close: there is a socket, the rundown has begun, and no protection is held. Returned exactly
    /// once.
    StartClose,
}

/// # Invariants
/// `Duty::StartClose` is returned exactly once, at the moment when there is a socket, the rundown has begun
/// and no protection is held. After that no protection is granted.
#[derive(Debug)]
pub(crate) struct Rundown(AtomicUsize);

impl Rundown {
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Acquires protection, unless the rundown has begun or there is no socket.
    pub(crate) fn acquire(&self) -> bool {
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |word| {
                (word & (ATTACHED | RUN_DOWN) == ATTACHED).then(|| word.wrapping_add(HOLDER))
            })
            .is_ok()
    }

    /// Releases protection.
    pub(crate) fn release(&self) -> Duty {
        let before = self.0.fetch_sub(HOLDER, Ordering::AcqRel);
        if before & !NOTES == ATTACHED | RUN_DOWN | HOLDER { Duty::StartClose } else { Duty::None }
    }

    /// Notes that a socket exists now.
    pub(crate) fn attach(&self) -> Duty {
        let before = self.0.fetch_or(ATTACHED, Ordering::AcqRel);
        if before & !NOTES == RUN_DOWN { Duty::StartClose } else { Duty::None }
    }

    /// Notes that a socket exists now, and acquires protection for the caller.
    pub(crate) fn attach_and_acquire(&self) {
        self.0.fetch_add(ATTACHED + HOLDER, Ordering::AcqRel);
    }

    /// Begins the rundown.
    pub(crate) fn begin(&self) -> Duty {
        let before = self.0.fetch_or(RUN_DOWN, Ordering::AcqRel);
        if before & !NOTES == ATTACHED { Duty::StartClose } else { Duty::None }
    }

    /// Acquires protection once more although the rundown has begun, unless no protection is held any more.
    /// Granted once.
    pub(crate) fn acquire_for_abort(&self) -> bool {
        let acquire = |word: usize| {
            let is_held = word & (ATTACHED | RUN_DOWN) == ATTACHED | RUN_DOWN && word >= HOLDER;
            (is_held && word & ABORTED == 0).then(|| (word | ABORTED).wrapping_add(HOLDER))
        };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, acquire).is_ok()
    }

    /// Notes that WSK has given the socket up. `true` if that is news: this is the first to say so, and the
    /// rundown has not begun; then the caller is a holder.
    ///
    /// It is one step: another one who says so, and begins the rundown, cannot come between the first word
    /// and the way in.
    pub(crate) fn die(&self) -> bool {
        let is_open = |word: usize| word & (ATTACHED | RUN_DOWN) == ATTACHED;
        let die = |word| {
            let dead = word | DEAD;
            (word != dead).then(|| if is_open(word) { dead.wrapping_add(HOLDER) } else { dead })
        };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, die).is_ok_and(is_open)
    }

    /// Returns whether WSK has given the socket up.
    pub(crate) fn is_dead(&self) -> bool {
        self.0.load(Ordering::Acquire) & DEAD != 0
    }

    /// Returns whether calls are let in.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) & (ATTACHED | RUN_DOWN) == ATTACHED
    }

    /// Returns whether there ever was a socket.
    pub(crate) fn is_attached(&self) -> bool {
        self.0.load(Ordering::Acquire) & ATTACHED != 0
    }
}
