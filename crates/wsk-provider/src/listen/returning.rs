//! Detection of decisions before the inspection callback returns (ICMP-12, ICMP-13).
//!
//! ```text
//!   Asking ──the callback has returned──► returned: only provider code is left, which ends by itself
//!     │
//!     ├── its thread sleeps at every sample, or ran for a while ──► the callback waits
//!     └── its thread is running or ready to run ──► unknown; elapsed time alone does not tell
//! ```
//!
//! A client may decide after the last action of its callback, and cannot observe the return itself. The host
//! may delay the thread in between for any time, so elapsed time proves nothing; but such a thread is ready
//! to run. A thread that sleeps does so in the client's code, which therefore has not finished; nor has code
//! that has used the processor for long. Only a long sleep counts, because a returning thread may sleep
//! briefly in host code. Samples are counted as well as time: a host that is short of processors delays the
//! sampling thread as it delays others, such as one for which the callback's thread sleeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// Number of consecutive samples, and duration, of the same sleep that show that a thread is not about to
/// return. Host code sleeps, too: a thread that waits for a host lock sleeps for as long as the preempted
/// owner of the lock does not run.
const LOOKS: u32 = 30;
const ASLEEP: Duration = Duration::from_millis(300);
/// Processor time of a callback that is taken for a loop which waits for the decision.
const RUN: Duration = Duration::from_millis(150);
/// Interval between two samples.
const STEP: Duration = Duration::from_millis(1);

/// Result of the detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returns {
    /// The callback has returned.
    Yes,
    /// The callback has more to do first.
    No,
    /// Unknown.
    Unknown,
}

/// A sleep of the callback's thread.
#[derive(Clone, Copy, Debug)]
struct Sleep {
    number: u64,
    looks: u32,
    /// End of the first sample that found it.
    since: Instant,
    /// Begin of the last sample. The sampling thread may be delayed after a sample.
    until: Instant,
}

impl Sleep {
    fn is_long(&self) -> bool {
        self.looks >= LOOKS && self.until.saturating_duration_since(self.since) >= ASLEEP
    }
}

/// A callback that was entered on the thread that created this.
#[derive(Debug)]
pub(super) struct Asking {
    returned: AtomicBool,
    thread: ThreadId,
    host: host::Thread,
}

impl Asking {
    /// The calling thread is about to enter the callback.
    pub(super) fn here() -> Self {
        let thread = std::thread::current().id();
        Self { returned: AtomicBool::new(false), thread, host: host::Thread::current() }
    }

    /// Records the return of the callback. Must be called at once, on its thread.
    pub(super) fn returned(&self) {
        self.returned.store(true, Ordering::Release);
    }

    /// Waits until the callback has returned or certainly has more to do first, for at most `longest`.
    pub(super) fn returns(&self, longest: Duration) -> Returns {
        if self.thread == std::thread::current().id() {
            // The calling thread is inside the callback.
            let returned = self.returned.load(Ordering::Acquire);
            return if returned { Returns::Yes } else { Returns::No };
        }
        let begin = Instant::now();
        let ran = self.host.ran();
        let mut asleep: Option<Sleep> = None;
        loop {
            let until = Instant::now();
            let sleeps = self.host.sleeps();
            // Checked after the sample: a thread that has returned may sleep.
            if self.returned.load(Ordering::Acquire) {
                return Returns::Yes;
            }
            asleep = match (sleeps, asleep) {
                (Some(number), Some(sleep)) if number == sleep.number => {
                    Some(Sleep { looks: sleep.looks + 1, until, ..sleep })
                }
                (number, _) => number.map(|number| Sleep { number, looks: 1, since: Instant::now(), until }),
            };
            let runs = ran.zip(self.host.ran()).is_some_and(|(then, now)| now.saturating_sub(then) >= RUN);
            if runs || asleep.is_some_and(|sleep| sleep.is_long()) {
                return Returns::No;
            }
            if begin.elapsed() >= longest {
                return Returns::Unknown;
            }
            std::thread::sleep(STEP);
        }
    }
}

/// State of a thread, as Linux reports it.
#[cfg(target_os = "linux")]
mod host {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Duration;

    thread_local! {
        static HERE: Option<Arc<Path>> = directory_of_this();
    }

    fn directory_of_this() -> Option<Arc<Path>> {
        let proc = PathBuf::from("/proc");
        let link = fs::read_link(proc.join("thread-self")).ok()?;
        Some(proc.join(link).into())
    }

    #[derive(Debug)]
    pub(super) struct Thread(Option<Arc<Path>>);

    impl Thread {
        pub(super) fn current() -> Self {
            Self(HERE.with(Clone::clone))
        }

        /// Number of the sleep, if the thread sleeps.
        pub(super) fn sleeps(&self) -> Option<u64> {
            let status = fs::read_to_string(self.0.as_deref()?.join("status")).ok()?;
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let sleeps = field("State:")?.starts_with('S');
            sleeps.then(|| field("voluntary_ctxt_switches:")?.parse().ok()).flatten()
        }

        /// Returns the processor time of the thread.
        pub(super) fn ran(&self) -> Option<Duration> {
            let times = fs::read_to_string(self.0.as_deref()?.join("schedstat")).ok()?;
            times.split(' ').next()?.parse().ok().map(Duration::from_nanos)
        }
    }
}

/// State of a thread, as Windows reports it: without its sleeps.
#[cfg(windows)]
mod host {
    use std::time::Duration;

    use windows_sys::Win32::Foundation::{CloseHandle, FILETIME};
    use windows_sys::Win32::System::Threading::{
        GetCurrentThreadId, GetThreadTimes, OpenThread, THREAD_QUERY_LIMITED_INFORMATION,
    };

    /// Its identifier. It may be reused after the callback has returned, and is not used then.
    #[derive(Debug)]
    pub(super) struct Thread(u32);

    impl Thread {
        pub(super) fn current() -> Self {
            // SAFETY: the call has no precondition.
            Self(unsafe { GetCurrentThreadId() })
        }

        pub(super) fn sleeps(&self) -> Option<u64> {
            None
        }

        pub(super) fn ran(&self) -> Option<Duration> {
            // SAFETY: the call has no precondition; it fails for what is no thread.
            let thread = unsafe { OpenThread(THREAD_QUERY_LIMITED_INFORMATION, 0, self.0) };
            if thread.is_null() {
                return None;
            }
            let [mut created, mut ended, mut kernel, mut user] =
                [FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 }; 4];
            // SAFETY: the handle is open, and the four times are there to be written.
            let succeeded = unsafe {
                GetThreadTimes(thread, &raw mut created, &raw mut ended, &raw mut kernel, &raw mut user)
            };
            // SAFETY: the handle was opened above, and is used no more.
            unsafe { CloseHandle(thread) };
            let units = |time: FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
            (succeeded != 0).then(|| Duration::from_nanos((units(kernel) + units(user)) * 100))
        }
    }
}

/// Returns `None`: other hosts do not report it.
#[cfg(not(any(target_os = "linux", windows)))]
mod host {
    use std::time::Duration;

    #[derive(Debug)]
    pub(super) struct Thread;

    impl Thread {
        pub(super) fn current() -> Self {
            Self
        }

        pub(super) fn sleeps(&self) -> Option<u64> {
            None
        }

        pub(super) fn ran(&self) -> Option<Duration> {
            None
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::{Arc, Barrier, mpsc};
    use std::thread;

    use super::*;

    /// Longer than every wait in these tests.
    const LONGEST: Duration = Duration::from_mins(1);

    /// Starts a thread whose callback runs `body` and then returns.
    fn asking(body: impl FnOnce() + Send + 'static) -> (Arc<Asking>, thread::JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            let asking = Arc::new(Asking::here());
            sender.send(Arc::clone(&asking)).expect("the receiver exists");
            body();
            asking.returned();
        });
        (receiver.recv().expect("it was made"), thread)
    }

    #[test]
    fn a_callback_that_waits_does_not_return() {
        let (go, wait) = mpsc::channel::<()>();
        let (asking, thread) = asking(move || wait.recv().expect("it is let go"));
        assert_eq!(asking.returns(LONGEST), Returns::No);
        assert_eq!(asking.returns(LONGEST), Returns::No);
        go.send(()).expect("it waits");
        thread.join().expect("it ends");
        assert_eq!(asking.returns(LONGEST), Returns::Yes);
    }

    /// A thread that the host delays is never taken for one that waits.
    #[test]
    fn a_callback_that_runs_does_return() {
        let begun = Arc::new(Barrier::new(2));
        let begins = Arc::clone(&begun);
        let (asking, thread) = asking(move || {
            begins.wait();
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(100) {
                std::hint::spin_loop();
            }
        });
        begun.wait();
        assert_eq!(asking.returns(LONGEST), Returns::Yes);
        thread.join().expect("it ends");
    }

    #[test]
    fn a_callback_that_runs_and_runs_does_not_return() {
        let (begun, stop) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
        let (begins, stops) = (Arc::clone(&begun), Arc::clone(&stop));
        let (asking, thread) = asking(move || {
            begins.wait();
            while !stops.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
        });
        begun.wait();
        assert_eq!(asking.returns(LONGEST), Returns::No);
        stop.store(true, Ordering::Release);
        thread.join().expect("it ends");
    }

    /// A short sleep, as in a host lock, does not count.
    #[test]
    fn a_callback_that_sleeps_a_moment_on_its_way_out_does_return() {
        let begun = Arc::new(Barrier::new(2));
        let begins = Arc::clone(&begun);
        let (asking, thread) = asking(move || {
            begins.wait();
            thread::sleep(ASLEEP / 2);
        });
        begun.wait();
        assert_eq!(asking.returns(LONGEST), Returns::Yes);
        thread.join().expect("it ends");
    }

    /// Consecutive short sleeps do not count as a long one.
    #[test]
    fn a_callback_that_is_woken_again_and_again_does_return() {
        let (asking, thread) = asking(|| {
            for _ in 0..40 {
                thread::sleep(Duration::from_millis(2));
            }
        });
        assert_eq!(asking.returns(LONGEST), Returns::Yes);
        thread.join().expect("it ends");
    }

    #[test]
    fn a_callback_that_asks_itself_has_not_returned() {
        let asking = Asking::here();
        assert_eq!(asking.returns(LONGEST), Returns::No);
        asking.returned();
        assert_eq!(asking.returns(LONGEST), Returns::Yes);
    }

    #[test]
    fn a_thread_that_has_returned_may_sleep() {
        let asking = Arc::new(Asking::here());
        asking.returned();
        let own = Arc::clone(&asking);
        let returned = thread::spawn(move || own.returns(LONGEST)).join().expect("it ends");
        assert_eq!(returned, Returns::Yes);
    }

    #[test]
    fn time_alone_tells_nothing() {
        let (go, wait) = mpsc::channel::<()>();
        let (asking, thread) = asking(move || while wait.try_recv().is_err() {});
        assert_eq!(asking.returns(Duration::ZERO), Returns::Unknown);
        go.send(()).expect("it runs");
        thread.join().expect("it ends");
        assert_eq!(asking.returns(LONGEST), Returns::Yes);
    }
}
