//! An event count: how the threads of this crate wait for a condition of their own.
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

/// See the module.
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

    /// To be taken before the condition is looked at.
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

    /// Says that a condition may have become true.
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
