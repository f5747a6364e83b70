//! Something that happens once, and the task that waits for it.

use core::task::Context;

use super::atomic::{AtomicBool, AtomicWaker, Ordering};

/// An event that happens once. One task at a time waits for it.
pub(crate) struct Signal {
    given: AtomicBool,
    waker: AtomicWaker,
}

impl Signal {
    pub(crate) fn new() -> Self {
        Self { given: AtomicBool::new(false), waker: AtomicWaker::new() }
    }

    /// It has happened; waiting tasks are woken. What was done before is visible to those that see the
    /// signal.
    pub(crate) fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Returns whether it has happened.
    pub(crate) fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    /// Returns whether it has happened; else the task will be woken.
    pub(crate) fn poll(&self, context: &Context<'_>) -> bool {
        self.is_given() || {
            self.waker.register(context.waker());
            // It may have happened between the look and the registration.
            self.is_given()
        }
    }
}
