//! Whose turn it is to receive; the state machine is drawn in [`receive`](super::receive).

use core::task::Context;

use crate::sync::atomic::AtomicWaker;
use crate::sync::{AtomicState, states};

states! {
    /// Holder of the connection's one receive.
    pub(super) enum Holder {
        /// No receive is under way.
        Free => [Busy],
        /// A receive future has it.
        Busy => [Free, Abandoned],
        /// WSK still has a receive whose future was dropped.
        Abandoned => [Free, Claimed],
        /// As `Abandoned`, and a receive future waits for its end.
        Claimed => [Busy, Abandoned],
    }
}

/// Admission of a new receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Nothing: the turn is the caller's.
    Mine,
    /// An abandoned receive; the turn after it is the caller's.
    Claimed,
    /// Another receive future.
    Busy,
}

/// The right to have the connection's one receive.
///
/// # Invariants
/// A future that was told [`Admission::Mine`], or whose claim [has come](Turn::has_come), has the turn until
/// it [gives](Turn::give) it back or [abandons](Turn::abandon) it. An abandoned turn is ended exactly once.
/// One future at most has a claim.
pub(super) struct Turn {
    holder: AtomicState<Holder>,
    /// Wakes the future that has the claim.
    waker: AtomicWaker,
}

impl Turn {
    pub(super) fn new() -> Self {
        Self { holder: AtomicState::new(Holder::Free), waker: AtomicWaker::new() }
    }

    /// Takes the turn, or the one after an abandoned receive.
    pub(super) fn take(&self) -> Admission {
        loop {
            match self.holder.step(Holder::Free, Holder::Busy) {
                Ok(()) => return Admission::Mine,
                Err(Holder::Abandoned) => {
                    if self.holder.step(Holder::Abandoned, Holder::Claimed).is_ok() {
                        return Admission::Claimed;
                    }
                }
                Err(_) => return Admission::Busy,
            }
        }
    }

    /// Returns whether the turn that the caller has claimed has come; else the task will be woken.
    pub(super) fn has_come(&self, context: &Context<'_>) -> bool {
        self.waker.register(context.waker());
        // Looked at after registering: the abandoned receive's end changes it first and wakes then.
        self.holder.get() == Holder::Busy
    }

    /// Gives the caller's turn back.
    pub(super) fn give(&self) {
        self.holder.leave(Holder::Busy, Holder::Free);
    }

    /// Leaves the caller's turn to its receive, which WSK still has, and whose end is told by
    /// [`Turn::end_abandoned`].
    pub(super) fn abandon(&self) {
        self.holder.leave(Holder::Busy, Holder::Abandoned);
    }

    /// The abandoned receive has ended. A future with a claim has the turn without asking again.
    ///
    /// A claim comes and goes at any moment, so both moves are made only from the state that they are right
    /// for.
    pub(super) fn end_abandoned(&self) {
        while self.holder.step(Holder::Abandoned, Holder::Free).is_err() {
            if self.holder.step(Holder::Claimed, Holder::Busy).is_ok() {
                return self.waker.wake();
            }
        }
    }

    /// Gives the caller's claim up, or the turn, if that has come and was not used.
    pub(super) fn give_up_claim(&self) {
        if self.holder.step(Holder::Claimed, Holder::Abandoned).is_err() {
            self.give();
        }
    }
}
