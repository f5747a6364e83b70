//! The time since boot.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use wsk::Passive;
use wsk_sys::nt;

/// A moment, in units of 100 ns since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// The units of a second.
const SECOND: u64 = 10_000_000;
/// The nanoseconds of a unit.
const UNIT: u32 = 100;

impl Moment {
    /// Now.
    ///
    /// # IRQL
    /// Any.
    pub(crate) fn now() -> Self {
        // SAFETY: the function has no preconditions.
        Self(unsafe { nt::KeQueryInterruptTime() })
    }

    /// The moment `duration` later.
    pub(crate) fn after(self, duration: Duration) -> Self {
        let units =
            duration.as_secs().saturating_mul(SECOND).saturating_add((duration.subsec_nanos() / UNIT).into());
        Self(self.0.saturating_add(units))
    }

    /// How long it is since `earlier`; zero if that is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let units = self.0.saturating_sub(earlier.0);
        Duration::new(units / SECOND, (units % SECOND) as u32 * UNIT)
    }
}

/// A moment that moves on.
#[derive(Debug)]
pub(crate) struct Last(AtomicU64);

impl Last {
    /// It is now.
    ///
    /// # IRQL
    /// Any.
    pub(crate) fn now() -> Self {
        Self(AtomicU64::new(Moment::now().0))
    }

    /// It is now, again.
    ///
    /// # IRQL
    /// Any.
    pub(crate) fn touch(&self) {
        self.0.store(Moment::now().0, Ordering::Relaxed);
    }

    /// How long ago it was.
    ///
    /// # IRQL
    /// Any.
    pub(crate) fn ago(&self) -> Duration {
        Moment::now().since(Moment(self.0.load(Ordering::Relaxed)))
    }
}

/// Lets a moment pass (`KeDelayExecutionThread`).
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub(crate) fn rest(_passive: Passive<'_>) {
    // A millisecond; negative times are relative.
    let mut interval = -(SECOND as i64 / 1000);
    // SAFETY: `Passive` says that this thread may wait, and the interval lives during the call.
    unsafe { nt::KeDelayExecutionThread(nt::KERNEL_MODE, 0, &raw mut interval) };
}
