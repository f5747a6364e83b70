//! Fault injection: allocations that fail on request of a test.
//!
//! A sweep runs a scenario once per attempt to allocate, and fails a different attempt each time.
//!
//! ```
//! use nt_user::{Config, Kernel};
//! use wsk_sys::nt::{ExAllocatePoolWithTag, ExFreePoolWithTag, NON_PAGED_POOL_NX};
//!
//! let kernel = Kernel::new(Config::default());
//! let entered = kernel.enter();
//! for attempt in 1.. {
//!     kernel.faults().fail_nth(attempt);
//!     // SAFETY: the thread has entered a kernel; the block is freed once.
//!     let block = unsafe { ExAllocatePoolWithTag(NON_PAGED_POOL_NX, 16, 0x7465_7354) };
//!     if !block.is_null() {
//!         // SAFETY: the block came from this pool and is freed once.
//!         unsafe { ExFreePoolWithTag(block, 0x7465_7354) };
//!     }
//!     if kernel.faults().injected() == 0 {
//!         break; // every attempt has failed once
//!     }
//! }
//! kernel.faults().clear();
//! ```

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// An operation that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// `ExAllocatePoolWithTag`, `ExAllocatePool2`.
    Pool,
    /// `IoAllocateIrp`.
    Irp,
    /// `IoAllocateMdl`.
    Mdl,
    /// `MmMapLockedPagesSpecifyCache`.
    Mapping,
    /// `PsCreateSystemThread`.
    Thread,
    /// `IoAllocateWorkItem`.
    WorkItem,
}

/// One attempt to allocate something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The operation.
    pub point: Point,
    /// The requested size in bytes.
    pub bytes: usize,
    /// The tag; zero if there is none.
    pub tag: u32,
    /// The number of the attempt since the plan was made, counting from 1.
    pub number: u64,
}

type Chooser = Box<dyn FnMut(&Attempt) -> bool + Send>;

/// The plan of faults of one kernel. Without one, nothing fails.
#[derive(Default)]
pub struct Faults {
    armed: AtomicBool,
    attempts: AtomicU64,
    injected: AtomicU64,
    /// The points that have ever failed, one bit for each.
    refused: AtomicU64,
    choose: Mutex<Option<Chooser>>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("armed", &self.armed)
            .field("attempts", &self.attempts)
            .field("injected", &self.injected)
            .finish_non_exhaustive()
    }
}

impl Faults {
    /// Fails the `n`th attempt from now, counting from 1.
    pub fn fail_nth(&self, n: u64) {
        self.fail_if(move |attempt| attempt.number == n);
    }

    /// Fails the `n`th attempt from now, counting from 1, and all later ones.
    pub fn fail_from(&self, n: u64) {
        self.fail_if(move |attempt| attempt.number >= n);
    }

    /// Fails every attempt at one point.
    pub fn fail_all(&self, point: Point) {
        self.fail_if(move |attempt| attempt.point == point);
    }

    /// Fails the attempts for which `choose` returns true. The closure must not allocate from the kernel.
    pub fn fail_if(&self, choose: impl FnMut(&Attempt) -> bool + Send + 'static) {
        self.plan(Some(Box::new(choose)));
    }

    /// Fails nothing, and restarts the count.
    pub fn clear(&self) {
        self.plan(None);
    }

    fn plan(&self, plan: Option<Chooser>) {
        let mut choose = self.choose.lock();
        self.armed.store(plan.is_some(), Ordering::Release);
        *choose = plan;
        self.attempts.store(0, Ordering::Relaxed);
        self.injected.store(0, Ordering::Relaxed);
    }

    /// The number of attempts since the plan was made.
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// The number of attempts that were made to fail.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// Returns true if an attempt at `point` was ever made to fail, under this plan or an earlier one.
    pub fn has_refused(&self, point: Point) -> bool {
        self.refused.load(Ordering::Relaxed) & (1 << point as u64) != 0
    }

    /// Counts an attempt; returns true if it must fail.
    pub(crate) fn fails(&self, point: Point, bytes: usize, tag: u32) -> bool {
        if !self.armed.load(Ordering::Acquire) {
            self.attempts.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let mut choose = self.choose.lock();
        let number = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        let fails = choose.as_mut().is_some_and(|choose| choose(&Attempt { point, bytes, tag, number }));
        if fails {
            self.injected.fetch_add(1, Ordering::Relaxed);
            self.refused.fetch_or(1 << point as u64, Ordering::Relaxed);
        }
        fails
    }
}
