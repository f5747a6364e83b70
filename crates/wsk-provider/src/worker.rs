//! The provider's own threads: the completer, and the threads that make callbacks nobody else can make.
//!
//! The completer ends requests in the order in which they were given to it. Callbacks may take long (a client
//! may hold one open on purpose), so each that cannot run on the thread that caused it gets an idle thread or
//! a new one.

mod completer;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub(crate) use self::completer::Completer;
use crate::provider::Inner;

/// Number of callback threads at the most. Each callback that a client holds open takes one, and no
/// client waits in so many of them for one more; what comes in a storm waits for its turn.
const MOST_THREADS: usize = 64;
/// Time: how long an idle callback thread stays.
const IDLE: Duration = Duration::from_secs(2);

/// A piece of work that may call the client.
pub(crate) type Task = Box<dyn FnOnce(&Arc<Inner>) + Send>;

#[derive(Default)]
struct PoolState {
    tasks: VecDeque<Task>,
    /// Those that have been made and have not ended.
    threads: usize,
    idle: usize,
    /// Threads that have been made and have not looked for a task yet.
    coming: usize,
    /// There is a thread that stays as long as the provider does.
    started: bool,
    stopping: bool,
}

impl PoolState {
    /// Returns whether more tasks wait than threads are on their way to them, and there may be one more.
    fn is_short(&self) -> bool {
        self.threads < MOST_THREADS && self.tasks.len() > self.idle + self.coming
    }

    /// Counts a thread that is about to be made.
    fn add_thread(&mut self) {
        self.threads += 1;
        self.coming += 1;
    }
}

/// The threads for callbacks; there are as many as callbacks are being held open, and one idle, up to
/// [`MOST_THREADS`].
///
/// A task is never run by the thread that brings it, which may hold locks. Where no thread is to be had for
/// it, it waits for one of those there are. The first one never goes, so that there always is one.
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
    /// Makes the thread that stays, unless it is there.
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
                // The task may take long, and what is behind it may be there because no thread was to be had.
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
