//! Faults: allocations that fail because a test wants them to.
//!
//! The sweep: run a scenario once and count its attempts; then run it once per attempt, failing that one.
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
//!         // SAFETY: as above.
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

/// What can fail.
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
    /// What.
    pub point: Point,
    /// How large it is to be.
    pub bytes: usize,
    /// With which tag; zero where there is none.
    pub tag: u32,
    /// The how manieth attempt since the plan was made, counting from 1.
    pub number: u64,
}

type Chooser = Box<dyn FnMut(&Attempt) -> bool + Send>;

/// The plan of faults of one kernel. Without one, nothing fails.
#[derive(Default)]
pub struct Faults {
    armed: AtomicBool,
    attempts: AtomicU64,
    injected: AtomicU64,
    /// Where anything was ever made to fail, a bit for each point.
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
    /// Lets the `n`th attempt from now fail, counting from 1, whatever it is for.
    pub fn fail_nth(&self, n: u64) {
        self.fail_if(move |attempt| attempt.number == n);
    }

    /// Lets every attempt from the `n`th from now fail, counting from 1.
    pub fn fail_from(&self, n: u64) {
        self.fail_if(move |attempt| attempt.number >= n);
    }

    /// Lets every attempt at one point fail.
    pub fn fail_all(&self, point: Point) {
        self.fail_if(move |attempt| attempt.point == point);
    }

    /// Lets the attempts fail that `choose` says. The closure must not allocate from the kernel.
    pub fn fail_if(&self, choose: impl FnMut(&Attempt) -> bool + Send + 'static) {
        self.plan(Some(Box::new(choose)));
    }

    /// Lets nothing fail, and counts from 1 again.
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

    /// How many attempts there were since the plan was made.
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// How many of them were made to fail.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// Whether an attempt at `point` was ever made to fail, under this plan or an earlier one.
    pub fn has_refused(&self, point: Point) -> bool {
        self.refused.load(Ordering::Relaxed) & (1 << point as u64) != 0
    }

    /// Counts an attempt; true if it is to fail.
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
