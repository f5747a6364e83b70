//! Client threads that are donated to the reactor while they wait.
//!
//! Under load, each event wakes the polling thread, which reads the data and wakes the client's thread. Each
//! wake-up costs more than the work. A donated thread does both: it polls, completes requests, and continues
//! with its client's work once its own wait is satisfied. The reactor's own threads do everything else, and
//! take the sockets back when no donated thread returns.
//!
//! ```text
//!   polling ──a full batch, and a thread was offered──► resting: donated threads poll
//!      ▲                                                     │
//!      └── one goes to sleep, or finds an event that may     │
//!          call the client, or none returned within REST ────┘
//! ```
//!
//! A donated thread is never blocked by a client's callback: it makes none, see
//! [`ReadySink::accepts_donated_thread`](crate::transport::ReadySink::accepts_donated_thread).

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::super::slots::Target;
use super::{PATIENCE, Reactor, Workers};
use crate::transport::Ready;

/// Number of events in one batch from which on polling is left to donated threads.
const FULL: usize = 4;
/// Interval without a poll by a donated thread after which the polling thread takes over again.
const REST: Duration = Duration::from_millis(1);
/// Maximum time that a donated thread waits for work before it is returned.
const DONATION: Duration = Duration::from_millis(10);
/// Number of batches that the polling thread handles itself after a donated thread returned
/// [`Served::Unfit`].
const UNFIT: u32 = 64;
/// Minimum donation. A thread that is needed sooner is not taken: the host's polls count in milliseconds.
const SHORTEST: Duration = Duration::from_millis(2);

/// State of the donated threads.
#[derive(Debug, Default)]
pub(super) struct DonatedThreads {
    /// A thread was offered while none was needed.
    offered: AtomicBool,
    /// The polling thread rests; changed with `rest` locked.
    resting: AtomicBool,
    /// Number of polls by donated threads.
    polls: AtomicU64,
    /// Number of further full batches that must not be followed by a rest.
    unfit: AtomicU32,
    rest: Mutex<()>,
    changed: Condvar,
}

impl DonatedThreads {
    /// Returns whether the polling thread should rest after a batch of so many events.
    pub(super) fn relieve_after(&self, events: usize) -> bool {
        if events < FULL {
            return false;
        }
        let wait = self.unfit.load(Ordering::Relaxed);
        self.unfit.store(wait.saturating_sub(1), Ordering::Relaxed);
        wait == 0 && self.offered.swap(false, Ordering::Relaxed)
    }

    /// Ends the rest.
    pub(super) fn rouse(&self) {
        let _rest = self.rest.lock();
        self.resting.store(false, Ordering::SeqCst);
        self.changed.notify_all();
    }
}

/// Outcome of a donated thread's service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    /// It called sinks.
    Some,
    /// It had nothing to do.
    Nothing,
    /// Another thread is polling.
    ByOthers,
    /// It found an event that a donated thread must not handle.
    Unfit,
}

impl Reactor {
    /// Rests as long as donated threads poll.
    pub(super) fn rest(&self) {
        let donated = &self.donated;
        let mut rest = donated.rest.lock();
        donated.resting.store(true, Ordering::SeqCst);
        loop {
            let before = donated.polls.load(Ordering::Relaxed);
            donated.changed.wait_for(&mut rest, REST);
            let in_use = self.poll_state.is_locked() || donated.polls.load(Ordering::Relaxed) != before;
            if !donated.resting.load(Ordering::SeqCst) || !in_use || self.stop.load(Ordering::SeqCst) {
                break;
            }
        }
        donated.resting.store(false, Ordering::SeqCst);
    }

    /// Serves the sockets on the calling client thread until `over` returns true or no work is left.
    pub(in super::super) fn donate_thread(&self, patience: Duration, over: &mut dyn FnMut() -> bool) {
        if patience < SHORTEST {
            return;
        }
        if !self.donated.resting.load(Ordering::SeqCst) {
            self.donated.offered.store(true, Ordering::Relaxed);
            return;
        }
        let id = thread::current().id();
        self.workers.lock().donated.push(id);
        if !self.serve(patience.min(DONATION), over) {
            self.donated.rouse();
        }
        let mut workers = self.workers.lock();
        if let Some(index) = workers.donated.iter().position(|donated| *donated == id) {
            workers.donated.swap_remove(index);
        }
        drop(workers);
        if self.stop.load(Ordering::SeqCst) {
            self.workers_changed.notify_all();
        }
    }

    /// Serves the sockets; false if they need one of the reactor's own threads again.
    fn serve(&self, patience: Duration, over: &mut dyn FnMut() -> bool) -> bool {
        loop {
            let served = self.serve_batch(patience);
            if over() {
                return served != Served::Unfit;
            }
            match served {
                Served::Some => {}
                Served::ByOthers => return true,
                Served::Nothing | Served::Unfit => return false,
            }
        }
    }

    /// Polls, unless a batch is left, and calls the sinks of the batch.
    fn serve_batch(&self, patience: Duration) -> Served {
        let mut served = Served::Nothing;
        loop {
            let Some(mut poll_state) = self.poll_state.try_lock() else { return Served::ByOthers };
            if self.stop.load(Ordering::SeqCst) || !self.donated.resting.load(Ordering::SeqCst) {
                return Served::ByOthers;
            }
            if poll_state.batch.is_empty() {
                if served == Served::Some {
                    return served;
                }
                // A donated thread must not wait before a retry.
                if self.starved.load(Ordering::Relaxed) {
                    return Served::Unfit;
                }
                self.donated.polls.fetch_add(1, Ordering::Relaxed);
                // Nor does it handle a failed poll.
                if self.poll(&mut poll_state, Some(patience)).is_err() {
                    return Served::Unfit;
                }
            }
            let Some((target, ready)) = poll_state.batch.pop_front() else { return served };
            match target {
                Target::Ready(sink) if sink.accepts_donated_thread() => {
                    drop(poll_state);
                    sink.ready(Ready { donated: true, ..ready });
                    served = Served::Some;
                }
                unfit => {
                    poll_state.batch.push_front((unfit, ready));
                    self.donated.unfit.store(UNFIT, Ordering::Relaxed);
                    return Served::Unfit;
                }
            }
        }
    }

    /// Waits until no donated thread is in a call, except this one, with a timeout for one that is blocked.
    pub(super) fn take_leave(&self, workers: &mut parking_lot::MutexGuard<'_, Workers>) {
        let id = thread::current().id();
        let deadline = Instant::now() + PATIENCE;
        while workers.donated.iter().any(|donated| *donated != id) {
            if self.workers_changed.wait_until(workers, deadline).timed_out() {
                return;
            }
        }
    }
}
