//! The executor: tasks, their wakers, the run queue, and the threads that sleep.

#[path = "../../../src/executor/queue.rs"]
mod queue;
#[path = "../../../src/executor/task.rs"]
mod task;

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use self::queue::Shared;
use crate::memory::{Cache, OutOfMemory, Ref};
use crate::shims::{Guarded, orders, passive};
use crate::sync::{EventCell, Signal};

/// The remaining items of `wsk::executor` that the files use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpawnError {
    Stopped,
    OutOfMemory,
}

impl From<OutOfMemory> for SpawnError {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

fn executor() -> Ref<Shared> {
    Shared::try_new(Cache).unwrap_or_else(|OutOfMemory| panic!("there is memory"))
}

fn worker(shared: &Ref<Shared>) -> thread::JoinHandle<()> {
    let shared = shared.clone();
    thread::spawn(move || shared.run(passive()))
}

fn spawn(shared: &Ref<Shared>, future: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
    shared.admit(task::Owned::try_new(shared, future)?)
}

/// State shared by a task and the test.
struct TestState {
    signal: Signal,
    memory: Guarded,
    /// The task's own memory, touched by one thread at a time.
    own: Guarded,
    over: EventCell,
    ended: AtomicUsize,
}

impl TestState {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            signal: Signal::new(),
            memory: Guarded::new(),
            own: Guarded::new(),
            over: EventCell::uninitialized(),
            ended: AtomicUsize::new(0),
        })
    }
}

/// A task that waits for the signal. It reports its end, by the signal or by being dropped.
struct Task(Arc<TestState>);

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.own.change();
        if self.0.signal.poll(context) {
            self.0.memory.change();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.own.change();
        self.0.ended.fetch_add(1, Ordering::Relaxed);
        self.0.over.give();
    }
}

fn ended(state: &TestState) -> usize {
    state.ended.load(Ordering::Relaxed)
}

/// A task that is woken on another thread is polled, whether its thread sleeps, polls it, or is about to do
/// either.
#[test]
fn a_wake_up_is_not_lost() {
    orders(3, || {
        let shared = executor();
        let thread = worker(&shared);
        let state = TestState::new();
        spawn(&shared, Task(state.clone())).unwrap();
        state.memory.change();
        state.signal.give();
        state.over.take();
        assert_eq!(state.memory.look(), 2);
        shared.begin_stop();
        thread.join().unwrap();
        assert_eq!((ended(&state), shared.live()), (1, 0));
    });
}

/// Two threads: a task runs on one at a time, and both threads end when they are stopped.
#[test]
fn two_threads_share_the_tasks() {
    orders(2, || {
        let shared = executor();
        let threads = [worker(&shared), worker(&shared)];
        let state = TestState::new();
        spawn(&shared, Task(state.clone())).unwrap();
        state.signal.give();
        state.over.take();
        shared.begin_stop();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!((ended(&state), shared.live()), (1, 0));
    });
}

/// Work for a second thread wakes one although another is waking up already: two tasks that need each other's
/// thread.
#[test]
fn a_second_task_wakes_a_second_thread() {
    orders(2, || {
        let shared = executor();
        let threads = [worker(&shared), worker(&shared)];
        let events = Arc::new([EventCell::uninitialized(), EventCell::uninitialized()]);
        let over = Arc::new([EventCell::uninitialized(), EventCell::uninitialized()]);
        for (own, other) in [(0, 1), (1, 0)] {
            let (events, over) = (events.clone(), over.clone());
            let task = async move {
                events[own].give();
                // The thread waits with its task, so the other task needs the other thread.
                events[other].take();
                over[own].give();
            };
            spawn(&shared, task).unwrap();
        }
        over[0].take();
        over[1].take();
        shared.begin_stop();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(shared.live(), 0);
    });
}

/// A stop races with a wake-up and with a new task: each future is dropped once, on its thread, and the
/// threads end.
#[test]
fn stopping_meets_a_wake_up() {
    orders(3, || {
        let shared = executor();
        let thread = worker(&shared);
        let state = TestState::new();
        spawn(&shared, Task(state.clone())).unwrap();
        let waker = {
            let state = state.clone();
            thread::spawn(move || state.signal.give())
        };
        shared.begin_stop();
        assert_eq!(spawn(&shared, async {}), Err(SpawnError::Stopped));
        waker.join().unwrap();
        thread.join().unwrap();
        assert_eq!((ended(&state), shared.live()), (1, 0));
    });
}
