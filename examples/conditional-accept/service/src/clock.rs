//! The time since boot.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use wsk::Passive;
use wsk_sys::nt;

/// Time since boot, in units of 100 ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(u64);

/// Units per second.
const SECOND: u64 = 10_000_000;
/// Nanoseconds per unit.
const UNIT: u32 = 100;

impl Instant {
    /// Returns the current time.
    ///
    /// # IRQL
    /// Any.
    pub(crate) fn now() -> Self {
        // SAFETY: the function has no preconditions.
        Self(unsafe { nt::KeQueryInterruptTime() })
    }

    /// Returns the time `duration` later.
    pub(crate) fn after(self, duration: Duration) -> Self {
        let units =
            duration.as_secs().saturating_mul(SECOND).saturating_add((duration.subsec_nanos() / UNIT).into());
        Self(self.0.saturating_add(units))
    }

    /// Returns the time since `earlier`, or zero if that is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let units = self.0.saturating_sub(earlier.0);
        Duration::new(units / SECOND, (units % SECOND) as u32 * UNIT)
    }
}

/// Time of the last activity.
#[derive(Debug)]
pub(crate) struct LastActivity(AtomicU64);

impl LastActivity {
    /// Starts with the current time.
    ///
    /// # IRQL
    /// Any.
    pub(crate) fn now() -> Self {
        Self(AtomicU64::new(Instant::now().0))
    }

    /// Sets it to the current time.
    ///
    /// # IRQL
    /// Any.
    pub(crate) fn touch(&self) {
        self.0.store(Instant::now().0, Ordering::Relaxed);
    }

    /// Returns the time since then.
    ///
    /// # IRQL
    /// Any.
    pub(crate) fn elapsed(&self) -> Duration {
        Instant::now().since(Instant(self.0.load(Ordering::Relaxed)))
    }
}

/// Delays the thread for a millisecond (`KeDelayExecutionThread`).
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub(crate) fn pause(_passive: Passive<'_>) {
    // Negative times are relative.
    let mut interval = -(SECOND as i64 / 1000);
    // SAFETY: `Passive` says that this thread may wait, and the interval lives during the call.
    unsafe { nt::KeDelayExecutionThread(nt::KERNEL_MODE, 0, &raw mut interval) };
}
