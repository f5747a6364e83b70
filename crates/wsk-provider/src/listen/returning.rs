//! True if an inspection's callback has yet to return (ICMP-12, ICMP-13).
//!
//! ```text
//!   Asking ──the callback has returned──► returned: what follows is the provider's own, and ends by itself
//!     │
//!     ├── its thread sleeps at every look, or has been run for a while ──► it stays: the callback waits
//!     └── its thread runs, or is to run ──► nothing is known yet, nor will time alone tell
//! ```
//!
//! A client decides after the last act of its callback, and no client can see the return itself. The host may
//! keep the thread from running in between for as long as it likes, so time tells nothing; but such a thread
//! is ready to run. One that sleeps has been told to by the client's code, which is therefore not done; nor
//! is code that the processor has run for long since. Only a sleep that is long counts, because on its way
//! out a thread may sleep a moment for another one of the host's. Looks are counted as well as the time:
//! where the host is short of processors it keeps whoever looks waiting as it does others, such as one for
//! which the callback's thread sleeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// At how many looks, one after the other, and for how long a thread is found in the same sleep that is not
/// about to return. The host itself puts threads to sleep: one that comes upon a lock of the host's, whose
/// holder has been preempted, sleeps for as long as that is kept from running.
const LOOKS: u32 = 30;
const ASLEEP: Duration = Duration::from_millis(300);
/// Time: how long the processor runs a callback before that is taken for a loop which waits for the decision.
const RUN: Duration = Duration::from_millis(150);
/// The time between two looks.
const STEP: Duration = Duration::from_millis(1);

/// True if a callback returns by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returns {
    /// It has returned.
    Yes,
    /// It does something first.
    No,
    /// It is not known.
    Unknown,
}

/// A sleep of the callback's thread.
#[derive(Clone, Copy, Debug)]
struct Sleep {
    number: u64,
    looks: u32,
    /// Time at which the first look had found it.
    since: Instant,
    /// Time at which the last look began. The one that looks may be kept from running as well, after the
    /// look.
    until: Instant,
}

impl Sleep {
    fn is_long(&self) -> bool {
        self.looks >= LOOKS && self.until.saturating_duration_since(self.since) >= ASLEEP
    }
}

/// A callback that was entered on the thread which made this.
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

    /// The callback has returned. To be called at once, on its thread.
    pub(super) fn returned(&self) {
        self.returned.store(true, Ordering::Release);
    }

    /// Waits until the callback has returned, or it is certain that it does something first, but no longer
    /// than `longest`.
    pub(super) fn returns(&self, longest: Duration) -> Returns {
        if self.thread == std::thread::current().id() {
            // Whatever this thread does it does inside.
            let returned = self.returned.load(Ordering::Acquire);
            return if returned { Returns::Yes } else { Returns::No };
        }
        let begin = Instant::now();
        let ran = self.host.ran();
        let mut asleep: Option<Sleep> = None;
        loop {
            let until = Instant::now();
            let sleeps = self.host.sleeps();
            // Looked at second: a thread that has returned may sleep.
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

/// State of a thread, as Linux tells it.
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

        /// If it sleeps, which of its sleeps this is.
        pub(super) fn sleeps(&self) -> Option<u64> {
            let status = fs::read_to_string(self.0.as_deref()?.join("status")).ok()?;
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let sleeps = field("State:")?.starts_with('S');
            sleeps.then(|| field("voluntary_ctxt_switches:")?.parse().ok()).flatten()
        }

        /// Returns how long a processor has run it.
        pub(super) fn ran(&self) -> Option<Duration> {
            let times = fs::read_to_string(self.0.as_deref()?.join("schedstat")).ok()?;
            times.split(' ').next()?.parse().ok().map(Duration::from_nanos)
        }
    }
}

/// State of a thread, as Windows tells it: not whether it sleeps.
#[cfg(windows)]
mod host {
    use std::time::Duration;

    use windows_sys::Win32::Foundation::{CloseHandle, FILETIME};
    use windows_sys::Win32::System::Threading::{
        GetCurrentThreadId, GetThreadTimes, OpenThread, THREAD_QUERY_LIMITED_INFORMATION,
    };

    /// Its number. Another thread may have it when the callback has returned, and is not asked about then.
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
            let told = unsafe {
                GetThreadTimes(thread, &raw mut created, &raw mut ended, &raw mut kernel, &raw mut user)
            };
            // SAFETY: the handle was opened above, and is used no more.
            unsafe { CloseHandle(thread) };
            let units = |time: FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
            (told != 0).then(|| Duration::from_nanos((units(kernel) + units(user)) * 100))
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

    /// Longer than anything here takes.
    const LONGEST: Duration = Duration::from_mins(1);

    /// A thread that runs `body` inside the callback, and returns from it when that returns.
    fn asking(body: impl FnOnce() + Send + 'static) -> (Arc<Asking>, thread::JoinHandle<()>) {
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let asking = Arc::new(Asking::here());
            tell.send(Arc::clone(&asking)).expect("the receiver exists");
            body();
            asking.returned();
        });
        (told.recv().expect("it was made"), thread)
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

    /// However long it takes: the thread is on its way, as one is that the host does not let run.
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

    /// As where its last act meets a lock of the host's.
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

    /// Sleeps that are short, one after the other, are not one that is long.
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
        let told = thread::spawn(move || own.returns(LONGEST)).join().expect("it ends");
        assert_eq!(told, Returns::Yes);
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
