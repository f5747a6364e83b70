//! Which sends go before a graceful disconnect.

use core::task::Context;

use crate::sync::atomic::{AtomicUsize, AtomicWaker, Ordering};

/// This side of the connection is over: no send is let in.
const OVER: usize = 1;
/// One send that is being handed to WSK.
const ONE: usize = 2;

/// Keeps sends from being handed to WSK after a graceful disconnect (rule SND-15), also when both happen at the same
/// time in two threads: the disconnect waits for the sends that are on their way in, which takes no longer than a call.
pub(super) struct Sends {
    word: AtomicUsize,
    /// Wakes the one disconnect that waits.
    waker: AtomicWaker,
}

impl Sends {
    pub(super) fn new() -> Self {
        Self { word: AtomicUsize::new(0), waker: AtomicWaker::new() }
    }

    /// Lets a send in, unless this side is over; it [leaves](Sends::leave) when it was handed to WSK.
    pub(super) fn enter(&self) -> bool {
        let enter = |word| (word & OVER == 0).then_some(word + ONE);
        self.word.fetch_update(Ordering::Acquire, Ordering::Relaxed, enter).is_ok()
    }

    /// A send was handed to WSK, or was not after all.
    pub(super) fn leave(&self) {
        if self.word.fetch_sub(ONE, Ordering::AcqRel) == OVER | ONE {
            self.waker.wake();
        }
    }

    /// Lets no more sends in; `false` if that was so before.
    pub(super) fn end(&self) -> bool {
        self.word.fetch_or(OVER, Ordering::AcqRel) & OVER == 0
    }

    /// Takes [`Sends::end`] back, for a disconnect that was dropped before it was made.
    pub(super) fn go_on(&self) {
        self.word.fetch_and(!OVER, Ordering::AcqRel);
    }

    /// Whether no send is on its way in; else the task will be woken. The caller has ended them.
    pub(super) fn have_ended(&self, context: &Context<'_>) -> bool {
        let idle = || self.word.load(Ordering::Acquire) == OVER;
        idle() || {
            self.waker.register(context.waker());
            // The last send may have left between the look and the registration.
            idle()
        }
    }
}
