//! An event count: the crate's own primitive for waiting on a condition.
//!
//! ```text
//!   waiter:   t = ticket()  →  is the condition true?  ── yes ──► go on
//!                                     │ no
//!                                     ▼
//!                               wait(t): sleeps unless notify() came after ticket()
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::platform::{Parked, Platform, Unpark};

/// An event count; see the [module](self).
///
/// # Invariants
/// An event count outlives every call on it: it lives inside a kernel, which every caller holds.
#[derive(Debug, Default)]
pub(crate) struct EventCount {
    epoch: AtomicUsize,
    waiters: AtomicUsize,
}

impl EventCount {
    pub(crate) const fn new() -> Self {
        Self { epoch: AtomicUsize::new(0), waiters: AtomicUsize::new(0) }
    }

    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Takes a ticket; call this before checking the condition.
    pub(crate) fn ticket(&self) -> usize {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Sleeps until a notification newer than `ticket`; false if `deadline` passed first.
    pub(crate) fn wait(&self, platform: &dyn Platform, ticket: usize, deadline: Option<Duration>) -> bool {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let parked = platform.park(
            self.key(),
            &mut || self.epoch.load(Ordering::SeqCst) == ticket,
            &mut || {},
            deadline,
        );
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        parked != Parked::TimedOut
    }

    /// Wakes the waiters: a condition may have become true.
    pub(crate) fn notify(&self, platform: &dyn Platform) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) != 0 {
            platform.unpark(self.key(), Unpark::All, &mut |_| {});
        }
    }

    /// Sleeps until `condition` holds; false if `deadline` passed first.
    pub(crate) fn wait_until(
        &self,
        platform: &dyn Platform,
        deadline: Option<Duration>,
        mut condition: impl FnMut() -> bool,
    ) -> bool {
        loop {
            let ticket = self.ticket();
            if condition() {
                return true;
            }
            if !self.wait(platform, ticket, deadline) {
                return condition();
            }
        }
    }
}
