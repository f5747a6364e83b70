//! Threads that are lent to the reactor while their clients wait.
//!
//! Under load, the polling thread is woken to read what has come and wakes the client's thread to
//! deal with it, over and over, and each wake-up costs more than the work. A thread that is lent does both:
//! it polls, completes what it finds to be complete, and goes on with its client's work when that is what it
//! was waiting for. The own threads look after everything else, and after the sockets when no lent thread
//! comes back.
//!
//! ```text
//!   at the poll state ──a full batch, and a thread was offered──► resting: lent threads poll
//!        ▲                                                     │
//!        └── one goes to sleep, or finds something that may    │
//!            call the client, or none was back for a REST ─────┘
//! ```
//!
//! A lent thread is never held up by a client's callback: it makes none, see [`ReadySink::takes_loan`].
//!
//! [`ReadySink::takes_loan`]: crate::transport::ReadySink::takes_loan

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::super::slots::Target;
use super::{PATIENCE, Reactor, Workers};
use crate::transport::Ready;

/// Events in one go from which on the poll state is left to lent threads.
const FULL: usize = 4;
/// Time: how long no lent thread may have polled before the poll state is taken back.
const REST: Duration = Duration::from_millis(1);
/// Time: how long a lent thread waits for something to do before it is given back.
const LOAN: Duration = Duration::from_millis(10);
/// Number of batches the own thread sees to after a lent one came upon something that was not for it.
const UNFIT: u32 = 64;
/// A thread that is needed again sooner than this is not taken: the host's polls count in milliseconds.
const SHORTEST: Duration = Duration::from_millis(2);

/// State of the loans.
#[derive(Debug, Default)]
pub(super) struct Loans {
    /// A thread would have been lent, and was not needed.
    offered: AtomicBool,
    /// The polling thread rests; changed with `rest` locked.
    resting: AtomicBool,
    /// Count: how often lent threads have polled.
    polls: AtomicU64,
    /// Number of full batches that are still not to be followed by a rest.
    unfit: AtomicU32,
    rest: Mutex<()>,
    changed: Condvar,
}

impl Loans {
    /// Returns whether the polling thread had better rest after a batch of so many events.
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

/// Outcome of a lent thread's service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    /// It has made calls.
    Some,
    /// It had nothing to do.
    Nothing,
    /// Another thread sees to the sockets.
    ByOthers,
    /// It came upon what is not for a lent thread.
    Unfit,
}

impl Reactor {
    /// Rests as long as lent threads poll.
    pub(super) fn rest(&self) {
        let loans = &self.loans;
        let mut rest = loans.rest.lock();
        loans.resting.store(true, Ordering::SeqCst);
        loop {
            let before = loans.polls.load(Ordering::Relaxed);
            loans.changed.wait_for(&mut rest, REST);
            let in_use = self.poll_state.is_locked() || loans.polls.load(Ordering::Relaxed) != before;
            if !loans.resting.load(Ordering::SeqCst) || !in_use || self.stop.load(Ordering::SeqCst) {
                break;
            }
        }
        loans.resting.store(false, Ordering::SeqCst);
    }

    /// Serves the sockets on a thread of the client's until `over` says that its wait is, or there is nothing
    /// to do.
    pub(in super::super) fn lend(&self, patience: Duration, over: &mut dyn FnMut() -> bool) {
        if patience < SHORTEST {
            return;
        }
        if !self.loans.resting.load(Ordering::SeqCst) {
            self.loans.offered.store(true, Ordering::Relaxed);
            return;
        }
        let id = thread::current().id();
        self.workers.lock().lent.push(id);
        if !self.serve(patience.min(LOAN), over) {
            self.loans.rouse();
        }
        let mut workers = self.workers.lock();
        if let Some(index) = workers.lent.iter().position(|lent| *lent == id) {
            workers.lent.swap_remove(index);
        }
        drop(workers);
        if self.stop.load(Ordering::SeqCst) {
            self.crew_changed.notify_all();
        }
    }

    /// False if the sockets need a thread of the reactor's own again.
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

    /// Polls, unless there is a batch left, and makes the calls of the batch.
    fn serve_batch(&self, patience: Duration) -> Served {
        let mut served = Served::Nothing;
        loop {
            let Some(mut poll_state) = self.poll_state.try_lock() else { return Served::ByOthers };
            if self.stop.load(Ordering::SeqCst) || !self.loans.resting.load(Ordering::SeqCst) {
                return Served::ByOthers;
            }
            if poll_state.batch.is_empty() {
                if served == Served::Some {
                    return served;
                }
                // To wait before trying again is not for a thread that is lent.
                if self.starved.load(Ordering::Relaxed) {
                    return Served::Unfit;
                }
                self.loans.polls.fetch_add(1, Ordering::Relaxed);
                // Nor is it to deal with a poll that fails.
                if self.poll(&mut poll_state, Some(patience)).is_err() {
                    return Served::Unfit;
                }
            }
            let Some((target, ready)) = poll_state.batch.pop_front() else { return served };
            match target {
                Target::Ready(sink) if sink.takes_loan() => {
                    drop(poll_state);
                    sink.ready(Ready { lent: true, ..ready });
                    served = Served::Some;
                }
                unfit => {
                    poll_state.batch.push_front((unfit, ready));
                    self.loans.unfit.store(UNFIT, Ordering::Relaxed);
                    return Served::Unfit;
                }
            }
        }
    }

    /// Waits until no lent thread is in a call, except this one, and one that is held up.
    pub(super) fn take_leave(&self, workers: &mut parking_lot::MutexGuard<'_, Workers>) {
        let id = thread::current().id();
        let deadline = Instant::now() + PATIENCE;
        while workers.lent.iter().any(|lent| *lent != id) {
            if self.crew_changed.wait_until(workers, deadline).timed_out() {
                return;
            }
        }
    }
}
