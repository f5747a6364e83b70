//! The gate in front of `WskCloseSocket`.
//!
//! `WskCloseSocket` may be called only while no other function of the socket is executing in any thread, and
//! only after retained indications were released (rules CLOSE-01, RCVE-19). So every call, and every retained
//! indication, holds the gate; closing shuts it, and the last holder out starts the close. Nobody waits.
//!
//! ```text
//!  no socket ──attach──▶ open ──shut──▶ shut, n holders ──last leaves──▶ close starts (told to exactly one caller)
//!      │                                    ▲
//!      └──shut──▶ shut, no socket ──attach──┘
//! ```

use crate::sync::atomic::{AtomicUsize, Ordering};

/// A `WSK_SOCKET` exists.
const ATTACHED: usize = 1;
/// No new holder is let in.
const SHUT: usize = 2;
/// WSK has given the socket up. Nothing of what follows depends on it.
const DEAD: usize = 4;
/// One holder.
const HOLDER: usize = 8;

/// What a caller has to do about closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Duty {
    /// Nothing: somebody else starts the close, or there is no socket to close.
    None,
    /// Start the close: there is a socket, the gate is shut and empty. Told exactly once.
    StartClose,
}

/// # Invariants
/// `Duty::StartClose` is returned exactly once in the gate's life, at the moment when it is attached, shut and
/// without holders. After that no holder is let in any more.
#[derive(Debug)]
pub(crate) struct Gate(AtomicUsize);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Lets a holder in, unless the gate is shut or there is no socket.
    pub(crate) fn enter(&self) -> bool {
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |word| {
                (word & (ATTACHED | SHUT) == ATTACHED).then(|| word.wrapping_add(HOLDER))
            })
            .is_ok()
    }

    /// Lets a holder out.
    pub(crate) fn leave(&self) -> Duty {
        let before = self.0.fetch_sub(HOLDER, Ordering::AcqRel);
        if before & !DEAD == ATTACHED | SHUT | HOLDER { Duty::StartClose } else { Duty::None }
    }

    /// Notes that a socket exists now.
    pub(crate) fn attach(&self) -> Duty {
        let before = self.0.fetch_or(ATTACHED, Ordering::AcqRel);
        if before & !DEAD == SHUT { Duty::StartClose } else { Duty::None }
    }

    /// Notes that a socket exists now, with the caller as a holder.
    pub(crate) fn attach_and_enter(&self) {
        self.0.fetch_add(ATTACHED + HOLDER, Ordering::AcqRel);
    }

    /// Shuts the gate.
    pub(crate) fn shut(&self) -> Duty {
        let before = self.0.fetch_or(SHUT, Ordering::AcqRel);
        if before & !DEAD == ATTACHED { Duty::StartClose } else { Duty::None }
    }

    /// Notes that WSK has given the socket up. `true` if that is news: this is the first to say so, and nobody has shut the
    /// gate; then the caller is a holder.
    ///
    /// It is one step: another one who says so, and shuts the gate, cannot come between the first word and the way in.
    pub(crate) fn die(&self) -> bool {
        let is_open = |word: usize| word & (ATTACHED | SHUT) == ATTACHED;
        let die = |word| {
            let dead = word | DEAD;
            (word != dead).then(|| if is_open(word) { dead.wrapping_add(HOLDER) } else { dead })
        };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, die).is_ok_and(is_open)
    }

    /// Whether WSK has given the socket up.
    pub(crate) fn is_dead(&self) -> bool {
        self.0.load(Ordering::Acquire) & DEAD != 0
    }

    /// Whether calls are let in.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) & (ATTACHED | SHUT) == ATTACHED
    }

    /// Whether there ever was a socket.
    pub(crate) fn is_attached(&self) -> bool {
        self.0.load(Ordering::Acquire) & ATTACHED != 0
    }
}
