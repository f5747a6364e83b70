//! Looking at what others may hold locked, for a bounded time.
//!
//! Whoever asks why nothing goes on, or asks under a lock of the system that those who hold ours may wait
//! for, must not wait for them.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

/// Time: how long a look waits for all locks together: longer than anybody holds one who is not waiting, and
/// short for whoever waits for the look.
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

    /// Takes a lock; `None` if somebody keeps it for longer than the look lasts.
    pub(crate) fn lock<'a, T>(&mut self, what: &'a Mutex<T>) -> Option<MutexGuard<'a, T>> {
        let guard = what.try_lock_until(self.until);
        self.missed |= guard.is_none();
        guard
    }

    /// Returns whether a lock could not be had.
    pub(crate) fn missed(&self) -> bool {
        self.missed
    }
}
