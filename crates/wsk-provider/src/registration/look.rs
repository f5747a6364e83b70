//! Access to locked state with a bounded wait.
//!
//! A caller that diagnoses a hang must not wait for the threads that hang. The same holds for a caller with a
//! system lock that the owner of a provider lock may wait for.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

/// Total time that a look waits for locks: longer than a running thread holds one, and short for the caller.
const PATIENCE: Duration = Duration::from_millis(200);

/// One look.
#[derive(Debug)]
pub(crate) struct Look {
    until: Instant,
    missed: bool,
}

impl Look {
    /// Begins.
    pub(crate) fn begin() -> Self {
        Self { until: Instant::now() + PATIENCE, missed: false }
    }

    /// Takes a lock; `None` if it is not released in time.
    pub(crate) fn lock<'a, T>(&mut self, what: &'a Mutex<T>) -> Option<MutexGuard<'a, T>> {
        let guard = what.try_lock_until(self.until);
        self.missed |= guard.is_none();
        guard
    }

    /// Returns whether a lock was not available.
    pub(crate) fn missed(&self) -> bool {
        self.missed
    }
}
