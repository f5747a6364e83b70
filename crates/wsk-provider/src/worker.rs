//! Threads of the provider: the completer, and the threads for deferred callbacks.
//!
//! The completer completes requests in the order of their submission. Callbacks may take long (a client may
//! block in one on purpose), so each that cannot run on the thread that caused it gets an idle thread or a
//! new one.

mod completer;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub(crate) use self::completer::Completer;
use crate::provider::Inner;

/// Maximum number of callback threads. Each callback that blocks takes one, and no client waits in so many
/// callbacks for another one; further callbacks wait for a thread.
const MOST_THREADS: usize = 64;
/// Lifetime of an idle callback thread.
const IDLE: Duration = Duration::from_secs(2);

/// A task that may call the client.
pub(crate) type Task = Box<dyn FnOnce(&Arc<Inner>) + Send>;

#[derive(Default)]
struct PoolState {
    tasks: VecDeque<Task>,
    /// Number of threads that were started and have not ended.
    threads: usize,
    idle: usize,
    /// Number of threads that were started and have not looked for a task yet.
    coming: usize,
    /// There is a thread that lives as long as the provider.
    started: bool,
    stopping: bool,
}

impl PoolState {
    /// Returns whether more tasks wait than threads are available or starting, and another one is allowed.
    fn is_short(&self) -> bool {
        self.threads < MOST_THREADS && self.tasks.len() > self.idle + self.coming
    }

    /// Counts a thread that is about to be started.
    fn add_thread(&mut self) {
        self.threads += 1;
        self.coming += 1;
    }
}

/// Threads for callbacks: one for each callback that blocks, and one idle, up to [`MOST_THREADS`].
///
/// A task never runs on the thread that submits it, which may hold locks. If no new thread is available, it
/// waits for an existing one. The first thread never ends, so that there is always one.
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
            .field("threads", &state.threads)
            .field("idle", &state.idle)
            .finish_non_exhaustive()
    }
}

impl CallbackThreads {
    /// Starts the permanent thread, unless it is running.
    pub(crate) fn start(self: &Arc<Self>, provider: &Arc<Inner>) -> io::Result<()> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.started, true) {
            return Ok(());
        }
        state.add_thread();
        drop(state);
        let made = self.make(provider, true);
        if made.is_err() {
            self.state.lock().started = false;
        }
        made
    }

    /// Runs `task` on another thread.
    pub(crate) fn run(self: &Arc<Self>, provider: &Arc<Inner>, task: Task) {
        let mut state = self.state.lock();
        state.tasks.push_back(task);
        if state.is_short() {
            state.add_thread();
            drop(state);
            // Without a new thread the task waits for an existing one.
            let _ = self.make(provider, false);
        } else {
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Starts a thread that is already counted.
    fn make(self: &Arc<Self>, provider: &Arc<Inner>, stays: bool) -> io::Result<()> {
        let pool = Arc::clone(self);
        let shared = Arc::clone(provider);
        let made = provider.host.spawn("wsk callbacks", Box::new(move || pool.serve(&shared, stays)));
        if made.is_err() {
            let mut state = self.state.lock();
            state.coming -= 1;
            state.threads -= 1;
        }
        made
    }

    fn serve(self: &Arc<Self>, provider: &Arc<Inner>, stays: bool) {
        let mut state = self.state.lock();
        state.coming -= 1;
        loop {
            if let Some(task) = state.tasks.pop_front() {
                // The task may take long, and further tasks may wait because no thread was available.
                let short = state.is_short();
                if short {
                    state.add_thread();
                }
                drop(state);
                if short {
                    let _ = self.make(provider, false);
                }
                task(provider);
                state = self.state.lock();
                continue;
            }
            if state.stopping {
                state.threads -= 1;
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
                state.threads -= 1;
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
