//! A reference count that cannot overflow into a use after free.

use crate::sync::atomic::{AtomicU32, Ordering};

/// Counts at or above this value have saturated: the object is leaked rather than freed too early.
const SATURATED: u32 = 1 << 31;
/// Value of a saturated count, far from both ends, so that no number of racing threads moves it out.
const PARKED: u32 = SATURATED + (1 << 30);

/// A count of owners.
///
/// Two thousand million owners can only come from code that forgets references in a loop. Such an object
/// stays allocated for ever; the kernel has no other answer that is neither a bug check nor a use after free.
///
/// Both changes are calls, not copies at each of some hundred places: next to an atomic operation a call
/// costs nothing, and an image is a kilobyte smaller.
#[derive(Debug)]
pub(crate) struct RefCount(AtomicU32);

impl RefCount {
    /// One owner.
    pub(crate) fn one() -> Self {
        Self(AtomicU32::new(1))
    }

    /// The number of owners at some moment.
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Adds an owner; the caller is one already.
    #[inline(never)]
    pub(crate) fn acquire(&self) {
        // Nothing is published by a new owner, so the order does not matter (as in `alloc::sync::Arc`).
        if self.0.fetch_add(1, Ordering::Relaxed) >= SATURATED {
            self.0.store(PARKED, Ordering::Relaxed);
        }
    }

    /// Takes an owner away, unless it is the last, who stays one; `true` if it was taken away.
    ///
    /// No other can become an owner meanwhile: only owners make owners, and the last one is the caller.
    #[must_use]
    #[inline(never)]
    pub(crate) fn release_unless_last(&self) -> bool {
        self.get() != 1 && {
            let release =
                |owners| (owners != 1).then(|| if owners >= SATURATED { PARKED } else { owners - 1 });
            self.0.fetch_update(Ordering::Release, Ordering::Acquire, release).is_ok()
        }
    }

    /// Takes an owner away; `true` if it was the last, who must free the object.
    #[must_use]
    #[inline(never)]
    pub(crate) fn release(&self) -> bool {
        match self.0.fetch_sub(1, Ordering::Release) {
            1 => {
                // What other owners did to the object happens before it is freed.
                self.0.load(Ordering::Acquire);
                true
            }
            before if before >= SATURATED => {
                self.0.store(PARKED, Ordering::Relaxed);
                false
            }
            _ => false,
        }
    }
}
