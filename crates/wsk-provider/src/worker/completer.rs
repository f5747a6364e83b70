//! Completing requests apart from their calls.
//!
//! ```text
//!   a call ──ready──► queue ──► a thread that is lent, as it is about to wait; else the completer's own
//!        └─────late──► by time ──due──► queue
//! ```
//!
//! One thread at a time completes, in the order in which requests became ready, and completion routines never
//! wait. A change of threads costs more than most requests do. So a thread that is lent whenever it waits is
//! left to complete what it has brought itself: nobody is woken for that. In case it does something else
//! first, the completer looks from time to time, as long as there is something to look for.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use wsk_sys::nt::NTSTATUS;

use crate::provider::Inner;
use crate::request::Request;

/// Time: how long a call waits for its completion on another thread before it is told that this does not
/// come.
const EARLY_PATIENCE: Duration = Duration::from_secs(10);
/// Time: how long a request may be left to the thread that brought it.
const WATCH: Duration = Duration::from_millis(1);

/// Continuation of the completion of a request.
type Then = Box<dyn FnOnce() + Send>;

struct Job {
    request: Request,
    status: NTSTATUS,
    information: usize,
    done: Option<Arc<Done>>,
    then: Option<Then>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("request", &self.request).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Done {
    reached: Mutex<bool>,
    changed: Condvar,
}

/// # Invariants
/// `completing` is there exactly while a thread completes what is ready. It goes on until nothing is, unless
/// it was lent: then what has come meanwhile is left to the completer.
#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Job>,
    /// Jobs that complete later, by their time, and in the order of the calls.
    later: BTreeMap<(Instant, u64), Job>,
    /// Number of jobs that came so far, and of those that were ready and have been completed.
    came: u64,
    completed: u64,
    /// Something that is ready was brought by a thread that may not come back for it.
    urgent: bool,
    completing: Option<ThreadId>,
    running: bool,
    /// The completer's thread sleeps until it is woken.
    rests: bool,
    stopping: bool,
}

impl State {
    /// Makes ready what is due.
    fn advance(&mut self, now: Instant) {
        while let Some(first) = self.later.first_entry()
            && first.key().0 <= now
        {
            self.ready.push_back(first.remove());
            self.urgent = true;
        }
    }
}

thread_local! {
    /// The completer that this thread was lent to last.
    static LENT_TO: Cell<usize> = const { Cell::new(0) };
    /// This thread is lent right now.
    static IS_LENT: Cell<bool> = const { Cell::new(false) };
}

/// The thread that completes requests apart from their calls.
#[derive(Debug, Default)]
pub(crate) struct Completer {
    state: Mutex<State>,
    changed: Condvar,
}

impl Completer {
    /// Completes before the call returns, where the calling thread can wait for that. It cannot when it is
    /// completing itself, inside a completion routine, or when it holds a spin lock, which the routine may
    /// need: then the request completes after the call.
    pub(crate) fn complete_early(
        self: &Arc<Self>,
        provider: &Arc<Inner>,
        request: Request,
        status: NTSTATUS,
        information: usize,
    ) {
        self.push_and_wait(provider, Job { request, status, information, done: None, then: None });
    }

    fn push_and_wait(self: &Arc<Self>, provider: &Arc<Inner>, job: Job) {
        if provider.host.holds_spin_lock() || self.state.lock().completing == Some(thread::current().id()) {
            return self.push(provider, job, None);
        }
        let done = Arc::new(Done::default());
        self.push(provider, Job { done: Some(Arc::clone(&done)), ..job }, None);
        let mut reached = done.reached.lock();
        let late = done.changed.wait_while_for(&mut reached, |reached| !*reached, EARLY_PATIENCE).timed_out();
        if late && !*reached {
            drop(reached);
            provider.violation(
                "-",
                "the completer",
                "no completion before the call's return: the routine, or one before it, waits for the caller",
            );
        }
    }

    /// Completes some time after the call has returned.
    pub(crate) fn complete_late(
        self: &Arc<Self>,
        provider: &Arc<Inner>,
        request: Request,
        status: NTSTATUS,
        information: usize,
    ) {
        let job = Job { request, status, information, done: None, then: None };
        self.push(provider, job, Self::due(provider));
    }

    /// Completes early or late, and does something when that is done.
    pub(crate) fn complete_then(
        self: &Arc<Self>,
        provider: &Arc<Inner>,
        request: Request,
        status: NTSTATUS,
        information: usize,
        late: bool,
        then: Then,
    ) {
        let job = Job { request, status, information, done: None, then: Some(then) };
        if late {
            self.push(provider, job, Self::due(provider));
        } else {
            self.push_and_wait(provider, job);
        }
    }

    /// Returns the time at which a late completion is due.
    fn due(provider: &Inner) -> Option<Instant> {
        let live_config = &provider.live_config;
        live_config.delays().then(|| Instant::now() + live_config.get(|config| config.late_by))
    }

    /// Returns whether the calling thread comes back to complete what it brings.
    fn comes_back(&self) -> bool {
        LENT_TO.get() == std::ptr::from_ref(self).addr() && !IS_LENT.get()
    }

    fn push(self: &Arc<Self>, provider: &Arc<Inner>, job: Job, due: Option<Instant>) {
        let quiet = due.is_none() && job.done.is_none() && self.comes_back();
        let mut state = self.state.lock();
        if state.stopping {
            drop(state);
            finish(provider, job);
            return;
        }
        state.came += 1;
        match due {
            Some(due) => {
                let number = state.came;
                state.later.insert((due, number), job);
            }
            None => state.ready.push_back(job),
        }
        state.urgent |= !quiet && due.is_none();
        let start = !std::mem::replace(&mut state.running, true);
        let wake = !quiet || std::mem::take(&mut state.rests);
        drop(state);
        if start {
            let completer = Arc::clone(self);
            let shared = Arc::clone(provider);
            let body = Box::new(move || completer.run(&shared));
            if provider.host.spawn("wsk completer", body).is_err() {
                // No thread to be had: the caller's has to do.
                let mut state = self.state.lock();
                state.running = false;
                let later = std::mem::take(&mut state.later);
                state.ready.extend(later.into_values());
                Self::complete(provider, &mut state, usize::MAX);
            }
        } else if wake {
            self.changed.notify_one();
        }
    }

    /// Completes up to `most` of what is ready, unless a thread is at it already.
    fn complete(provider: &Inner, state: &mut MutexGuard<'_, State>, most: usize) {
        if state.completing.is_some() {
            return;
        }
        state.completing = Some(thread::current().id());
        for _ in 0..most {
            let Some(job) = state.ready.pop_front() else { break };
            state.completed += 1;
            MutexGuard::unlocked(state, || finish(provider, job));
        }
        state.completing = None;
        state.urgent = !state.ready.is_empty();
    }

    /// Lends the calling thread, which is about to wait, for `body`, and completes what is ready before.
    pub(crate) fn lend<R>(&self, provider: &Inner, body: impl FnOnce() -> R) -> R {
        LENT_TO.set(std::ptr::from_ref(self).addr());
        let former = IS_LENT.replace(true);
        let mut state = self.state.lock();
        // No more than there is now: a routine that submits again would keep the thread for ever from what it
        // waits for.
        let there_now = state.ready.len();
        if there_now > 0 {
            Self::complete(provider, &mut state, there_now);
            if state.urgent {
                self.changed.notify_one();
            }
        }
        drop(state);
        let result = body();
        IS_LENT.set(former);
        result
    }

    fn run(&self, provider: &Inner) {
        let mut state = self.state.lock();
        let mut came = 0;
        // How many were completed when something was found ready that was left to its thread.
        let mut left = None;
        loop {
            state.advance(Instant::now());
            let is_due = state.urgent || state.stopping || left == Some(state.completed);
            if is_due && !state.ready.is_empty() && state.completing.is_none() {
                Self::complete(provider, &mut state, usize::MAX);
                continue;
            }
            left = (!state.ready.is_empty()).then_some(state.completed);
            let is_used = std::mem::replace(&mut came, state.came) != state.came;
            let due = state.later.first_key_value().map(|(key, _)| key.0);
            if is_used || left.is_some() {
                let look = Instant::now() + WATCH;
                self.changed.wait_until(&mut state, due.map_or(look, |due| due.min(look)));
            } else if due.is_none() && state.stopping {
                state.running = false;
                return;
            } else {
                state.rests = true;
                match due {
                    Some(due) => drop(self.changed.wait_until(&mut state, due)),
                    None => self.changed.wait(&mut state),
                }
                state.rests = false;
            }
        }
    }

    /// Ends the thread once it has nothing left to complete.
    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.changed.notify_all();
    }
}

fn finish(provider: &Inner, job: Job) {
    job.request.complete_exactly(provider, job.status, job.information);
    if let Some(then) = job.then {
        then();
    }
    if let Some(done) = job.done {
        *done.reached.lock() = true;
        done.changed.notify_all();
    }
}
