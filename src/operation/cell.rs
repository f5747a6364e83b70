//! The state word of an operation, and the slot of the task that waits for it; the state machine is drawn in
//! the parent module.

use core::task::Context;

use crate::sync::atomic::AtomicWaker;
use crate::sync::{AtomicState, states};

states! {
    /// Whose the IRP and the request are.
    pub(super) enum Phase {
        /// The future's: nothing was asked of WSK yet.
        Idle => [Submitted],
        /// WSK's.
        Submitted => [Refused, Abandoned, Done],
        /// The future's again: WSK was not asked after all.
        Refused => [],
        /// WSK's, and then the completion routine's: the future is gone.
        Abandoned => [Done],
        /// The future's again if it is still there: the completion routine has run.
        Done => [],
    }
}

/// End of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// WSK completed the IRP.
    Completed,
    /// WSK was never given the IRP.
    Refused,
}

/// State in which a dropped future leaves its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abandoned {
    /// A request that was never submitted.
    Idle,
    /// A request that is the completion routine's now; it is to be cancelled.
    Submitted,
    /// A request that has ended and is the future's, which takes care of the result.
    Ended(End),
}

/// # Invariants
/// The future alone moves it out of `Idle`, and to `Refused` and `Abandoned`; the completion routine alone to
/// `Done`.
pub(super) struct Cell {
    phase: AtomicState<Phase>,
    waker: AtomicWaker,
}

impl Cell {
    pub(super) fn new() -> Self {
        Self { phase: AtomicState::new(Phase::Idle), waker: AtomicWaker::new() }
    }

    /// The IRP is about to be WSK's. The operation is idle.
    pub(super) fn submit(&self) {
        self.phase.leave(Phase::Idle, Phase::Submitted);
    }

    /// The IRP was not submitted. The caller has just submitted the operation.
    pub(super) fn refuse(&self) {
        self.phase.leave(Phase::Submitted, Phase::Refused);
    }

    /// Returns how the operation ended, if it has; otherwise the task will be woken.
    pub(super) fn poll(&self, context: &Context<'_>) -> Option<End> {
        self.end().or_else(|| {
            self.waker.register(context.waker());
            // The completion routine may have run between the look and the registration.
            self.end()
        })
    }

    /// Returns whether WSK has the IRP. It may complete at any moment.
    pub(super) fn is_submitted(&self) -> bool {
        self.phase.get() == Phase::Submitted
    }

    fn end(&self) -> Option<End> {
        match self.phase.get() {
            Phase::Done => Some(End::Completed),
            Phase::Refused => Some(End::Refused),
            Phase::Idle | Phase::Submitted | Phase::Abandoned => None,
        }
    }

    /// The future goes.
    pub(super) fn abandon(&self) -> Abandoned {
        match self.phase.step(Phase::Submitted, Phase::Abandoned) {
            Ok(()) => Abandoned::Submitted,
            Err(Phase::Done) => Abandoned::Ended(End::Completed),
            Err(Phase::Refused) => Abandoned::Ended(End::Refused),
            Err(_) => Abandoned::Idle,
        }
    }

    /// The completion routine has done its work. `true` if the future has walked away, so that the request is
    /// the completion routine's; else the future is woken, and has it.
    pub(super) fn complete(&self) -> bool {
        let abandoned = self.phase.replace(Phase::Done) == Phase::Abandoned;
        if !abandoned {
            self.waker.wake();
        }
        abandoned
    }
}
