//! Uses of a registration, and its end.

use crate::sync::atomic::{AtomicUsize, Ordering};

/// No more uses are let in.
const STOPPING: usize = 1;
/// One use.
const ONE: usize = 2;

/// The uses of a registration that is ended once, when it is to stop and is no longer used.
///
/// The flag and the count are one word: a use is let in before the stop, and then waited for, or it is not
/// let in.
///
/// # Invariants
/// A use that was [let in](Uses::enter) lasts until it [leaves](Uses::leave).
#[derive(Debug)]
pub(super) struct Uses(AtomicUsize);

impl Uses {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Begins a use, unless the registration is to end.
    #[must_use]
    pub(super) fn enter(&self) -> bool {
        let enter = |word| (word & STOPPING == 0).then_some(word + ONE);
        self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, enter).is_ok()
    }

    /// Ends a use. `true` if the thread that waits for the end has to look again.
    #[must_use]
    pub(super) fn leave(&self) -> bool {
        self.0.fetch_sub(ONE, Ordering::AcqRel) == STOPPING | ONE
    }

    /// Lets no more uses in. The thread that waits for the end has to look again.
    pub(super) fn stop(&self) {
        self.0.fetch_or(STOPPING, Ordering::AcqRel);
    }

    /// Returns whether no more uses are let in.
    pub(super) fn is_stopping(&self) -> bool {
        self.0.load(Ordering::Acquire) & STOPPING != 0
    }

    /// Returns the number of uses.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Acquire) / ONE
    }

    /// Returns whether there is no use, nor ever will be, and nothing `left` of them.
    ///
    /// The rest is counted last: uses make it, and before they leave, so there is no more of it afterwards.
    pub(super) fn are_over(&self, left: impl FnOnce() -> usize) -> bool {
        self.0.load(Ordering::Acquire) == STOPPING && left() == 0
    }
}
