//! The provider's own threads: the completer, and the threads that make callbacks nobody else can make.
//!
//! The completer is one thread; it ends requests in the order they were given to it, and completion routines never
//! wait. Callbacks may take long (a client may hold one open on purpose), so each that cannot run on the thread
//! that caused it gets an idle thread or a new one.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use wsk_sys::nt::NTSTATUS;

use crate::provider::Inner;
use crate::request::Request;

/// How long a call waits for its completion on another thread before it is told that this does not come.
const EARLY_PATIENCE: Duration = Duration::from_secs(10);
/// How long an idle callback thread stays.
const IDLE: Duration = Duration::from_secs(2);

/// What follows the completion of a request.
type Then = Box<dyn FnOnce() + Send>;

struct Job {
    request: Request,
    status: NTSTATUS,
    information: usize,
    due: Option<Instant>,
    done: Option<Arc<Done>>,
    then: Option<Then>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("request", &self.request).field("due", &self.due).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Done {
    reached: Mutex<bool>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct CompleterState {
    jobs: VecDeque<Job>,
    running: bool,
    stopping: bool,
    /// Whose thread completes.
    thread: Option<ThreadId>,
}

/// The thread that completes requests apart from their calls.
#[derive(Debug, Default)]
pub(crate) struct Completer {
    state: Mutex<CompleterState>,
    changed: Condvar,
}

impl Completer {
    /// Completes before the call returns, where the calling thread can wait for that. It cannot when it is the completer
    /// itself, inside a completion routine, or when it holds a spin lock, which the routine may need: then the request
    /// completes after the call.
    pub(crate) fn complete_early(
        self: &Arc<Self>,
        provider: &Arc<Inner>,
        request: Request,
        status: NTSTATUS,
        information: usize,
    ) {
        self.push_and_wait(provider, Job { request, status, information, due: None, done: None, then: None });
    }

    fn push_and_wait(self: &Arc<Self>, provider: &Arc<Inner>, job: Job) {
        if provider.host.holds_spin_lock() || self.state.lock().thread == Some(thread::current().id()) {
            return self.push(provider, job);
        }
        let done = Arc::new(Done::default());
        self.push(provider, Job { done: Some(Arc::clone(&done)), ..job });
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
        let due = Self::late(provider);
        self.push(provider, Job { request, status, information, due, done: None, then: None });
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
        let job = Job { request, status, information, due: None, done: None, then: Some(then) };
        if late {
            self.push(provider, Job { due: Self::late(provider), ..job });
        } else {
            self.push_and_wait(provider, job);
        }
    }

    /// When a late completion is due.
    fn late(provider: &Inner) -> Option<Instant> {
        let steering = &provider.steering;
        steering.delays().then(|| Instant::now() + steering.get(|config| config.late_by))
    }

    fn push(self: &Arc<Self>, provider: &Arc<Inner>, job: Job) {
        let mut state = self.state.lock();
        if state.stopping {
            drop(state);
            finish(provider, job);
            return;
        }
        state.jobs.push_back(job);
        let start = !std::mem::replace(&mut state.running, true);
        drop(state);
        if start {
            let completer = Arc::clone(self);
            let shared = Arc::clone(provider);
            let body = Box::new(move || completer.run(&shared));
            if provider.host.spawn("wsk completer", body).is_err() {
                // No thread to be had: the caller's has to do.
                self.state.lock().running = false;
                self.drain(provider);
            }
        } else {
            self.changed.notify_one();
        }
    }

    fn drain(&self, provider: &Inner) {
        loop {
            let Some(job) = self.state.lock().jobs.pop_front() else { return };
            finish(provider, job);
        }
    }

    fn run(&self, provider: &Inner) {
        let mut state = self.state.lock();
        state.thread = Some(thread::current().id());
        loop {
            let now = Instant::now();
            if let Some(index) = state.jobs.iter().position(|job| job.due.is_none_or(|due| due <= now)) {
                let job = state.jobs.remove(index).expect("the index was just found");
                drop(state);
                finish(provider, job);
                state = self.state.lock();
                continue;
            }
            match state.jobs.iter().filter_map(|job| job.due).min() {
                Some(due) => {
                    self.changed.wait_until(&mut state, due);
                }
                None if state.stopping => {
                    state.running = false;
                    state.thread = None;
                    return;
                }
                None => self.changed.wait(&mut state),
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

/// A piece of work that may call the client.
pub(crate) type Task = Box<dyn FnOnce(&Arc<Inner>) + Send>;

#[derive(Default)]
struct PoolState {
    tasks: VecDeque<Task>,
    idle: usize,
    /// Threads that have been made and have not looked for a task yet.
    coming: usize,
    /// There is a thread that stays as long as the provider does.
    manned: bool,
    stopping: bool,
}

impl PoolState {
    /// Whether more tasks wait than threads are on their way to them.
    fn is_short(&self) -> bool {
        self.tasks.len() > self.idle + self.coming
    }
}

/// The threads for callbacks; there are as many as callbacks are being held open, and one idle.
///
/// A task is never run by the thread that brings it, which may hold locks. Where no thread is to be had for it, it waits
/// for one of those there are. The first one never goes, so that there always is one.
#[derive(Default)]
pub(crate) struct CallbackThreads {
    state: Mutex<PoolState>,
    changed: Condvar,
}

impl fmt::Debug for CallbackThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("CallbackThreads")
            .field("tasks", &state.tasks.len())
            .field("idle", &state.idle)
            .finish_non_exhaustive()
    }
}

impl CallbackThreads {
    /// Makes the thread that stays, unless it is there.
    pub(crate) fn man(self: &Arc<Self>, provider: &Arc<Inner>) -> io::Result<()> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.manned, true) {
            return Ok(());
        }
        state.coming += 1;
        drop(state);
        let made = self.make(provider, true);
        if made.is_err() {
            self.state.lock().manned = false;
        }
        made
    }

    /// Runs `task` on another thread.
    pub(crate) fn run(self: &Arc<Self>, provider: &Arc<Inner>, task: Task) {
        let mut state = self.state.lock();
        state.tasks.push_back(task);
        if state.is_short() {
            state.coming += 1;
            drop(state);
            // Without a thread of its own the task waits for another one's.
            let _ = self.make(provider, false);
        } else {
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Makes a thread, which is counted as coming already.
    fn make(self: &Arc<Self>, provider: &Arc<Inner>, stays: bool) -> io::Result<()> {
        let pool = Arc::clone(self);
        let shared = Arc::clone(provider);
        let made = provider.host.spawn("wsk callbacks", Box::new(move || pool.serve(&shared, stays)));
        if made.is_err() {
            self.state.lock().coming -= 1;
        }
        made
    }

    fn serve(self: &Arc<Self>, provider: &Arc<Inner>, stays: bool) {
        let mut state = self.state.lock();
        state.coming -= 1;
        loop {
            if let Some(task) = state.tasks.pop_front() {
                // The task may take long, and what is behind it may be there because no thread was to be had.
                let short = state.is_short();
                state.coming += usize::from(short);
                drop(state);
                if short {
                    let _ = self.make(provider, false);
                }
                task(provider);
                state = self.state.lock();
                continue;
            }
            if state.stopping {
                return;
            }
            state.idle += 1;
            let timed_out = if stays {
                self.changed.wait(&mut state);
                false
            } else {
                self.changed.wait_for(&mut state, IDLE).timed_out()
            };
            state.idle -= 1;
            if timed_out && state.tasks.is_empty() {
                return;
            }
        }
    }

    /// Ends the idle threads.
    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.changed.notify_all();
    }
}
