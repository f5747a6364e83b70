//! The state word of a pended request; its diagram is drawn in [`pending`](super::pending).

use core::task::Context;

use crate::sync::atomic::AtomicWaker;
use crate::sync::{AtomicState, states};

states! {
    /// Stage of a pended request.
    pub(super) enum Stage {
        /// The inspection callback has not returned yet.
        Asking => [Accepted, Rejected, Pended, Aborted, Repeated],
        /// The callback returns accept.
        Accepted => [],
        /// The callback returns reject.
        Rejected => [],
        /// The callback has returned pend; nothing is decided.
        Pended => [Dropped, Completing, Aborted],
        /// Its token was dropped, and the reaper is about to tell WSK.
        Dropped => [Completing, Aborted],
        /// It is decided, and WSK is being told.
        Completing => [Completed],
        /// WSK was told.
        Completed => [],
        /// The request is gone; the token is inert.
        Aborted => [],
        /// Another record is that of the request, which was inspected twice; this one's token is inert.
        Repeated => [],
    }
}

impl Stage {
    /// Returns whether the token can do nothing any more, without having done anything.
    pub(super) fn is_gone(self) -> bool {
        matches!(self, Self::Aborted | Self::Repeated)
    }
}

/// The stage of a request, and the task that waits for it to change.
///
/// The token, the callback, an abort, the closing listener, the reaper and WSK's completion move it, each
/// from the stages that are theirs to leave, and each by comparison: of two that race, one succeeds.
pub(super) struct Progress {
    stage: AtomicState<Stage>,
    /// Wakes the task that has the token, or waits for the decision's outcome.
    waker: AtomicWaker,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { stage: AtomicState::new(Stage::Asking), waker: AtomicWaker::new() }
    }

    /// The stage at some moment.
    pub(super) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Moves on from `from`, if that is the stage; else says which one is. Waiting tasks are not woken.
    pub(super) fn step(&self, from: Stage, to: Stage) -> Result<(), Stage> {
        self.stage.step(from, to)
    }

    /// Wakes the task that waits; called after a step that it waits for.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// The stage, with the task registered before it is looked at: a step that this does not see wakes it.
    pub(super) fn watch(&self, context: &Context<'_>) -> Stage {
        self.waker.register(context.waker());
        self.stage.get()
    }
}
