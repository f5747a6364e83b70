//! A small executor on system threads, and `block_on` for code that may wait.
//!
//! ```text
//!   Spawner::spawn ─▶ one block of memory: state, links, future
//!                        │
//!                        ▼            pop            poll
//!   Waker::wake ───▶ run queue ─────────────▶ thread ──────▶ Pending: back to waiting, or to the queue
//!   (<= DISPATCH)        ▲                                   Ready:   future dropped, memory returned
//!                        └── an event is set only if a thread sleeps and none is waking up already
//! ```
//!
//! Wakers only schedule, as WSK asks of completion routines (rules IRP-13, IRP-14): they take a spin lock,
//! link the task into the queue and at most set an event. A future is polled and dropped on the threads of
//! its executor only, at `PASSIVE_LEVEL`, wherever its last waker is dropped.
//!
//! An executor is stopped before its driver unloads: [`Executor::stop`] drops all unfinished futures and
//! waits for the thread *objects*, so that no thread is left inside the driver's code.

mod block_on;
mod queue;
mod task;
mod thread;

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

pub use block_on::{block_on, block_on_timeout};
pub use thread::Thread;

use crate::busy::{Left, StillBusy};
use crate::error::{Error, Operation, Result, Status};
use crate::irql::Passive;
use crate::memory::{Cache, OutOfMemory, PoolVec, Ref};
use crate::time::Deadline;
use queue::Shared;

/// Number of free blocks of each size that an executor keeps for new tasks.
const CACHED_BLOCKS: u32 = 1024;

/// System threads that run tasks.
///
/// Stop it with [`Executor::stop`] before the driver unloads. Dropping it without that refuses new tasks,
/// drops the unfinished futures and ends the threads too, but there is no telling when they have ended;
/// `wsk-sim` reports that as a violation of REG-27.
#[derive(Debug)]
#[must_use = "a driver must stop its executor before it unloads"]
pub struct Executor {
    shared: Ref<Shared>,
    threads: PoolVec<Thread>,
}

impl Executor {
    /// Starts an executor with this many threads (at least one).
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Out of memory, or the status of `PsCreateSystemThread`. Threads started before the failure have ended.
    pub fn start(passive: Passive<'_>, threads: usize) -> Result<Self> {
        Self::start_in(passive, threads, &Cache::try_new(CACHED_BLOCKS)?)
    }

    /// Starts an executor whose tasks come from `cache`.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// As [`Executor::start`].
    pub fn start_in(passive: Passive<'_>, threads: usize, cache: &Cache) -> Result<Self> {
        let threads = threads.max(1);
        let mut executor =
            Self { shared: Shared::try_new(cache.clone())?, threads: PoolVec::try_with_capacity(threads)? };
        for _ in 0..threads {
            let shared = executor.shared.clone();
            let started = Thread::spawn(passive, move |passive| {
                shared.run(passive);
                // Here, because it is done nowhere else for an executor that is dropped and not stopped.
                crate::time::flush_timers(passive);
            });
            let kept = started.map(|thread| executor.threads.push(thread).is_ok());
            if let Err(error) = kept {
                executor.shared.begin_stop();
                // The threads have nothing to do, so they end at once.
                executor.join(passive, None);
                return Err(error);
            }
        }
        Ok(executor)
    }

    /// Returns a handle that starts tasks on this executor.
    pub fn spawner(&self) -> Spawner {
        Spawner { shared: self.shared.clone() }
    }

    /// Stops the executor: new tasks are refused, unfinished futures are dropped on the executor's threads,
    /// and the threads end.
    ///
    /// After `Ok`, no thread and no timer of this executor's tasks runs code of the driver any more.
    /// Wakers may outlive it; they do nothing.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// [`StillBusy`] if a thread was still busy after `limit`. It tells how many tasks are left and holds the
    /// executor, so that the driver can wait again; it must not unload.
    pub fn stop(
        mut self,
        passive: Passive<'_>,
        limit: Duration,
    ) -> core::result::Result<(), StillBusy<Self>> {
        self.shared.begin_stop();
        if !self.join(passive, Some(Deadline::after(limit))) {
            let tasks = Left { count: self.shared.live(), kind: "unfinished tasks" };
            let threads = Left { count: self.threads.len(), kind: "threads that have not ended" };
            return Err(StillBusy { inner: self, left: [tasks, threads] });
        }
        crate::time::flush_timers(passive);
        Ok(())
    }

    /// Waits for the threads to end; `false` if the deadline passed first.
    fn join(&mut self, passive: Passive<'_>, deadline: Option<Deadline>) -> bool {
        while let Some(thread) = self.threads.pop() {
            if thread.wait(passive, deadline.map(Deadline::remaining)) {
                continue;
            }
            // There is room: the thread was there a moment ago.
            drop(self.threads.push(thread));
            return false;
        }
        true
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.shared.begin_stop();
    }
}

/// Starts tasks on an [`Executor`]; clones start them on the same one.
#[derive(Clone, Debug)]
pub struct Spawner {
    shared: Ref<Shared>,
}

impl Spawner {
    /// Starts a task. It takes one block of the executor's [`Cache`].
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`. The future is polled and dropped at `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// [`SpawnError`]; the future is dropped then, by this call.
    pub fn spawn<F>(&self, future: F) -> core::result::Result<(), SpawnError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = task::Owned::try_new(&self.shared, future)?;
        self.shared.admit(task)
    }

    /// The memory that tasks come from, for timers and operations too.
    pub fn cache(&self) -> &Cache {
        self.shared.cache()
    }

    /// Returns the number of unfinished tasks.
    pub fn unfinished(&self) -> usize {
        self.shared.live()
    }
}

/// Reason why a task was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnError {
    /// The executor was stopped.
    Stopped,
    /// There was no memory for the task.
    OutOfMemory,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "the executor was stopped and takes no more tasks",
            Self::OutOfMemory => "non-paged pool has no room for another task",
        })
    }
}

impl core::error::Error for SpawnError {}

impl From<OutOfMemory> for SpawnError {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<SpawnError> for Error {
    fn from(error: SpawnError) -> Self {
        match error {
            SpawnError::Stopped => Self::new(Operation::Spawn, Status::REQUEST_NOT_ACCEPTED),
            SpawnError::OutOfMemory => Self::out_of_memory(Operation::Spawn),
        }
    }
}

impl StillBusy<Executor> {
    /// Returns the number of unfinished tasks. A task is left while it is being polled or dropped, or waits
    /// for its turn.
    pub fn tasks(&self) -> usize {
        self.left[0].count
    }

    /// Returns the number of threads that have yet to end; at least one, also when no task is left.
    pub fn threads(&self) -> usize {
        self.left[1].count
    }
}

/// Lets other tasks of the executor run first.
///
/// Requests that WSK completes at once never make a task wait, so a task that serves a fast peer in a loop
/// should call this every now and then.
///
/// # Cancel safety
/// Dropping the future has no effect.
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
