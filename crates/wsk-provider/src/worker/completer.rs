//! Completing requests apart from their calls.
//!
//! ```text
//!   a call ──ready──► queue ──► a donated thread that is about to wait; else the completer's own
//!        └─────late──► by time ──due──► queue
//! ```
//!
//! One thread at a time completes, in the order in which requests became ready, and completion routines never
//! wait. A thread switch costs more than most requests. So a thread that is donated whenever it waits
//! completes its own requests, and no other thread is woken for them. In case it does something else first,
//! the completer checks from time to time, as long as requests are ready.

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

/// Maximum time that a call waits for its completion on another thread before the absence of that completion
/// is reported.
const EARLY_PATIENCE: Duration = Duration::from_secs(10);
/// Maximum time that a request is left to the thread that submitted it.
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
/// `completing` is set exactly while a thread completes ready jobs. The thread continues until none is ready;
/// a donated thread leaves jobs that came meanwhile to the completer.
#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Job>,
    /// Jobs that complete later, by their time, and in the order of the calls.
    later: BTreeMap<(Instant, u64), Job>,
    /// Number of jobs that were submitted, and of those that have been completed.
    came: u64,
    completed: u64,
    /// A ready job was submitted by a thread that may not complete it.
    urgent: bool,
    completing: Option<ThreadId>,
    running: bool,
    /// The completer's thread sleeps until it is woken.
    rests: bool,
    stopping: bool,
}

impl State {
    /// Makes the jobs ready that are due.
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
    /// The completer that this thread was donated to last.
    static DONATED_TO: Cell<usize> = const { Cell::new(0) };
    /// This thread is currently donated.
    static IS_DONATED: Cell<bool> = const { Cell::new(false) };
}

/// The thread that completes requests apart from their calls.
#[derive(Debug, Default)]
pub(crate) struct Completer {
    state: Mutex<State>,
    changed: Condvar,
}

impl Completer {
    /// Completes before the call returns, if the calling thread can wait for that. It cannot while it runs a
    /// completion routine or holds a spin lock, which the routine may need: then the request completes after
    /// the call.
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
                "the request did not complete before the call returned: its completion routine, or an \
                 earlier one, waits for the caller",
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

    /// Completes early or late, and runs `then` after the completion.
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

    /// Returns whether the calling thread will complete its own requests.
    fn comes_back(&self) -> bool {
        DONATED_TO.get() == std::ptr::from_ref(self).addr() && !IS_DONATED.get()
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
                // No thread is available: complete on the calling thread.
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

    /// Completes up to `most` ready jobs, unless another thread is completing.
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

    /// Completes the ready jobs on the calling thread, which is about to wait, then donates it for `body`.
    pub(crate) fn donate_thread<R>(&self, provider: &Inner, body: impl FnOnce() -> R) -> R {
        DONATED_TO.set(std::ptr::from_ref(self).addr());
        let former = IS_DONATED.replace(true);
        let mut state = self.state.lock();
        // Only the jobs that are ready now: a routine that submits again must not keep the thread from its
        // wait for ever.
        let there_now = state.ready.len();
        if there_now > 0 {
            Self::complete(provider, &mut state, there_now);
            if state.urgent {
                self.changed.notify_one();
            }
        }
        drop(state);
        let result = body();
        IS_DONATED.set(former);
        result
    }

    fn run(&self, provider: &Inner) {
        let mut state = self.state.lock();
        let mut came = 0;
        // Number of completed jobs when a ready job was last left to its thread.
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

    /// Ends the thread once no job is left.
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
