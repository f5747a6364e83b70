//! Wholeness of the stream that a connection sends.
//!
//! ```text
//!   Whole ──── a send is cancelled, or a posted one fails ──▶ Broken: nothing is sent any more
//!    ▲ │
//!    │ │ the graceful disconnect is submitted: no send is cancelled from here on
//!    │ ▼
//!   Ended ──── a posted send fails ──▶ Torn: the disconnect fails, too
//!    │            ◀── WSK was not asked for the disconnect after all
//!    └── and back if WSK was not asked
//! ```
//!
//! A stream with a hole must not look whole to the peer. Once a send was lost whose future was dropped, or
//! behind which others may have been posted, the connection sends nothing more, no end of the stream either,
//! so that the peer sees a reset. And once the end was asked for, which WSK sends behind all that was posted,
//! no send is cancelled any more: that would take bytes out of the middle.

use crate::sync::{AtomicState, states};

states! {
    /// State of the stream that is sent.
    pub(super) enum Wholeness {
        /// Everything that was asked for goes out.
        Whole => [Broken, Ended],
        /// A send was lost.
        Broken => [],
        /// The end goes out behind everything that was asked for.
        Ended => [Whole, Torn],
        /// A send was lost behind which the end was asked for.
        Torn => [Broken],
    }
}

/// The stream that a connection sends.
pub(super) struct Stream(AtomicState<Wholeness>);

impl Stream {
    pub(super) fn new() -> Self {
        Self(AtomicState::new(Wholeness::Whole))
    }

    /// Returns whether a send was lost.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.0.get(), Wholeness::Broken | Wholeness::Torn)
    }

    /// Returns whether a send may be cancelled. The stream is broken then.
    pub(super) fn cancel_send(&self) -> bool {
        match self.0.step(Wholeness::Whole, Wholeness::Broken) {
            Ok(()) | Err(Wholeness::Broken) => true,
            Err(_) => false,
        }
    }

    /// A send was lost.
    pub(super) fn lose_send(&self) {
        // The end may be asked for, and taken back, meanwhile.
        while !self.cancel_send() {
            if self.0.step(Wholeness::Ended, Wholeness::Torn) != Err(Wholeness::Whole) {
                return;
            }
        }
    }

    /// The end is about to be asked for. `false` if a send was lost.
    pub(super) fn begin_end(&self) -> bool {
        self.0.step(Wholeness::Whole, Wholeness::Ended).is_ok()
    }

    /// WSK was not asked for the end after all.
    pub(super) fn take_end_back(&self) {
        if self.0.step(Wholeness::Ended, Wholeness::Whole).is_err() {
            let _ = self.0.step(Wholeness::Torn, Wholeness::Broken);
        }
    }
}
