//! The platform: time, threads, blocking and randomness of the operating system.
//!
//! Everything in this crate that reads a clock, starts a thread, blocks, wakes, yields or draws a random
//! number does so through a [`Platform`]. [`Live`] uses real threads and real time.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot_core::{FilterOp, ParkResult, ParkToken, UnparkResult, UnparkToken};

/// The outcome of a [`Platform::park`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// A [`Platform::unpark`] chose this thread.
    Woken,
    /// The validation failed; the thread never slept.
    Refused,
    /// The deadline passed.
    TimedOut,
}

/// The number of threads that a [`Platform::unpark`] may wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpark {
    /// The one that has waited longest.
    One,
    /// All of them.
    All,
}

/// The services that a kernel needs from the operating system.
///
/// `park` and `unpark` are a parking lot: for one key, the closures passed to them run one at a time, so that
/// a state word can be checked before sleeping and changed before waking without a lost wake-up. The closures
/// must be short, must not block and must not call the platform.
///
/// A platform that changes another one in a few points overrides those methods, and names the other one as
/// its [`base`](Self::base).
///
/// ```
/// use std::io;
///
/// use nt_user::platform::{Live, Platform};
///
/// /// Real time, and no threads.
/// #[derive(Debug, Default)]
/// struct Exhausted(Live);
///
/// impl Platform for Exhausted {
///     fn base(&self) -> &dyn Platform {
///         &self.0
///     }
///
///     fn spawn(&self, _name: &str, _body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
///         Err(io::ErrorKind::WouldBlock.into())
///     }
/// }
/// ```
pub trait Platform: Send + Sync + fmt::Debug {
    /// Platform that the methods which are not overridden are those of.
    fn base(&self) -> &dyn Platform;

    /// Time since the kernel booted.
    fn now(&self) -> Duration {
        self.base().now()
    }

    /// The processor time of the calling thread, if the host counts it; else the time since the kernel
    /// booted.
    fn processor_time(&self) -> Duration {
        thread_time().unwrap_or_else(|| self.now())
    }

    /// System time: units of 100 ns since 1601.
    fn system_time(&self) -> i64 {
        self.base().system_time()
    }

    /// Starts a thread.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.base().spawn(name, body)
    }

    /// Puts the calling thread to sleep on `key` if `validate` agrees, until it is woken or `deadline` (in
    /// the time of [`now`](Self::now)) has passed; `timed_out` runs in the latter case, before any other
    /// closure for the key.
    fn park(
        &self,
        key: usize,
        validate: &mut dyn FnMut() -> bool,
        timed_out: &mut dyn FnMut(),
        deadline: Option<Duration>,
    ) -> Parked {
        self.base().park(key, validate, timed_out, deadline)
    }

    /// Takes threads out of the queue of `key`, runs `settle` with their number, and only then lets them go.
    fn unpark(&self, key: usize, count: Unpark, settle: &mut dyn FnMut(usize)) {
        self.base().unpark(key, count, settle);
    }

    /// Pauses in a busy wait; `turn` is the number of turns before.
    fn spin(&self, turn: u32) {
        self.base().spin(turn);
    }

    /// A random number.
    fn random(&self) -> u64 {
        self.base().random()
    }
}

/// The processor time of the calling thread.
#[cfg(unix)]
fn thread_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` can be written.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    (failed == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// No processor time: this system counts it too coarsely.
#[cfg(not(unix))]
fn thread_time() -> Option<Duration> {
    None
}

/// Real threads and real time.
#[derive(Debug)]
pub struct Live {
    boot: Instant,
    state: AtomicU64,
}

impl Live {
    /// A platform whose clock starts now.
    pub fn new() -> Self {
        let seed = RandomState::new().hash_one(0_u8);
        Self { boot: Instant::now(), state: AtomicU64::new(seed) }
    }
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

/// Units of 100 ns between 1601 and 1970.
const UNIX_EPOCH_IN_SYSTEM_TIME: i64 = 116_444_736_000_000_000;

impl Platform for Live {
    /// The platform itself, which has methods of its own for everything.
    fn base(&self) -> &dyn Platform {
        self
    }

    fn now(&self) -> Duration {
        self.boot.elapsed()
    }

    fn system_time(&self) -> i64 {
        let since_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UNIX_EPOCH_IN_SYSTEM_TIME + (since_unix.as_nanos() / 100) as i64
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
    }

    fn park(
        &self,
        key: usize,
        validate: &mut dyn FnMut() -> bool,
        timed_out: &mut dyn FnMut(),
        deadline: Option<Duration>,
    ) -> Parked {
        let deadline = deadline.and_then(|deadline| self.boot.checked_add(deadline));
        // SAFETY: by the contract of the trait, the closures neither panic nor call the parking lot, and the
        // keys are addresses of objects of this crate's callers.
        let result = unsafe {
            parking_lot_core::park(key, validate, || {}, |_, _| timed_out(), ParkToken(0), deadline)
        };
        match result {
            ParkResult::Unparked(_) => Parked::Woken,
            ParkResult::Invalid => Parked::Refused,
            ParkResult::TimedOut => Parked::TimedOut,
        }
    }

    fn unpark(&self, key: usize, count: Unpark, settle: &mut dyn FnMut(usize)) {
        let callback = |result: UnparkResult| {
            settle(result.unparked_threads);
            UnparkToken(0)
        };
        match count {
            // SAFETY: by the contract of the trait, the closure neither panics nor calls the parking lot.
            Unpark::One => unsafe { parking_lot_core::unpark_one(key, callback) },
            // SAFETY: by the contract of the trait, the closures neither panic nor call the parking lot.
            Unpark::All => unsafe { parking_lot_core::unpark_filter(key, |_| FilterOp::Unpark, callback) },
        };
    }

    fn spin(&self, turn: u32) {
        /// With fewer processors than this, spinning only keeps the owner from running.
        const TURNS_BEFORE_YIELD: u32 = 64;
        static MANY: OnceLock<bool> = OnceLock::new();
        let many = *MANY.get_or_init(|| std::thread::available_parallelism().is_ok_and(|n| n.get() > 1));
        if many && turn < TURNS_BEFORE_YIELD {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }

    fn random(&self) -> u64 {
        // SplitMix64.
        let mut z = self.state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
