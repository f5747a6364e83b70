//! Shared state of the threads, wakers and spawners of an executor: the queue of tasks to run and the list of
//! all.
//!
//! A thread is in one of three states, and the lock's holder moves it:
//!
//! ```text
//!              nothing to run                 event set, `waking`
//!   Running ───────────────────▶ Asleep ───────────────────────────▶ Waking ──▶ Running
//!      │ stopping, no task left
//!      ▼
//!    Ended
//! ```
//!
//! At most one thread is waking at any time, so the event is set at most once per wake-up however many tasks
//! are pushed meanwhile. The thread that woke looks again and wakes the next one if there is work for it.

use core::fmt;
use core::ptr::NonNull;
use core::time::Duration;

use super::SpawnError;
use super::task::{Header, Owned, Ran, Running};
use crate::irql::Passive;
use crate::memory::{Cache, OutOfMemory, Ref};
use crate::sync::{EventCell, EventKind, SpinGuard, SpinLock};

/// Longest time a thread sleeps before it goes back to sleep. An idle server rightly waits without end; a
/// limit keeps its threads apart from those that hang, for tools that look for waits without one.
const IDLE: Duration = Duration::from_secs(10);

/// # Invariants
/// `wake_up` was initialised, and never moves.
pub(super) struct Shared {
    queue: SpinLock<Queue>,
    /// Set for one thread that sleeps; a synchronization event.
    wake_up: EventCell,
    cache: Cache,
}

/// # Invariants
/// - The run queue, from `first` to `last` by `Links::next`, holds each task that is scheduled and not
///   running (and not on its way here), once.
/// - The list of `all`, by `Links::newer` and `Links::older`, holds the `live` tasks that are not done. Each
///   entry stands for one reference on the task, the *owner's*.
/// - `asleep` threads wait for `wake_up`, or are about to; one of them has been woken if `waking`.
struct Queue {
    first: Option<NonNull<Header>>,
    last: Option<NonNull<Header>>,
    all: Option<NonNull<Header>>,
    live: usize,
    asleep: u32,
    waking: bool,
    stopping: bool,
}

/// The links of a task, touched by the holder of the executor's lock only.
pub(super) struct Links {
    next: Option<NonNull<Header>>,
    newer: Option<NonNull<Header>>,
    older: Option<NonNull<Header>>,
}

impl Links {
    pub(super) const fn new() -> Self {
        Self { next: None, newer: None, older: None }
    }
}

// SAFETY: the queue owns references on tasks whose futures are `Send` (`Owned::try_new`), so that any thread
// may run and drop them; it is reached by the holder of its lock only.
unsafe impl Send for Queue {}

/// Last act of a thread.
pub(super) enum Done {
    /// Nothing, or a task that now waits to be woken.
    Nothing,
    /// It slept.
    Slept,
    /// It polled a task that was woken meanwhile.
    Again(Ran),
    /// It dropped the future of a task.
    Finished(Ran),
}

/// Next act of a thread.
enum Next {
    Poll(Running),
    Cancel(Running),
    Sleep,
    Exit,
}

impl Shared {
    pub(super) fn try_new(cache: Cache) -> Result<Ref<Self>, OutOfMemory> {
        let queue =
            Queue { first: None, last: None, all: None, live: 0, asleep: 0, waking: false, stopping: false };
        let wake_up = EventCell::uninitialized();
        let shared = Ref::try_new(Self { queue: SpinLock::new(queue), wake_up, cache })?;
        // SAFETY: a `Ref` never moves its value and is non-paged, and nobody else has this one yet.
        unsafe { shared.wake_up.initialize(EventKind::Synchronization) };
        Ok(shared)
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(super) fn live(&self) -> usize {
        self.queue.lock().live
    }

    /// Lets a new task in and schedules it. IRQL: `<= DISPATCH_LEVEL`.
    pub(super) fn admit(&self, task: Owned) -> Result<(), SpawnError> {
        let mut queue = self.queue.lock();
        if queue.stopping {
            // The task, with its future, is dropped without the lock.
            drop(queue);
            drop(task);
            return Err(SpawnError::Stopped);
        }
        let task = task.into_scheduled();
        // SAFETY: the task is new, alive by its first reference, which becomes the list's, and in no list.
        unsafe { queue.enlist(task) };
        // SAFETY: the task is on the list of all, scheduled, and not in the queue.
        unsafe { queue.push(task) };
        self.unlock_and_wake(queue);
        Ok(())
    }

    /// Schedules a task. IRQL: `<= DISPATCH_LEVEL`.
    ///
    /// # Safety
    /// The caller has just made the task scheduled, and holds a reference on it during the call.
    pub(super) unsafe fn schedule(&self, task: NonNull<Header>) {
        let mut queue = self.queue.lock();
        // SAFETY: the caller keeps the task alive, and has made it scheduled, so it is pushed here only.
        unsafe { queue.push(task) };
        self.unlock_and_wake(queue);
    }

    /// Refuses new tasks and has the threads drop the others and end. IRQL: `<= DISPATCH_LEVEL`.
    pub(super) fn begin_stop(&self) {
        let mut queue = self.queue.lock();
        queue.stopping = true;
        // One thread is enough: it drops what waits, and the last task to go lets all threads end.
        self.unlock_and_wake_if(queue, true);
    }

    /// A thread's loop: polls or drops tasks until the executor is stopped and none is left.
    pub(super) fn run(&self, passive: Passive<'_>) {
        let mut done = Done::Nothing;
        loop {
            done = match self.next(done) {
                Next::Poll(task) => task.poll(),
                Next::Cancel(task) => task.cancel(),
                Next::Sleep => {
                    self.sleep(passive);
                    Done::Slept
                }
                Next::Exit => return,
            };
        }
    }

    /// Takes note of what a thread did and tells it what to do next.
    fn next(&self, done: Done) -> Next {
        let mut queue = self.queue.lock();
        let mut finished = None;
        match done {
            Done::Nothing => {}
            Done::Slept => {
                queue.asleep -= 1;
                queue.waking = false;
            }
            // SAFETY: the task is alive, scheduled, and this thread's to push.
            Done::Again(ran) => unsafe { queue.push(ran.task()) },
            Done::Finished(ran) => {
                // SAFETY: the task is on the list, and this thread's to take off.
                unsafe { queue.delist(ran.task()) };
                finished = Some(ran.task());
            }
        }
        let next = queue.next();
        self.unlock_and_wake(queue);
        if let Some(task) = finished {
            // SAFETY: the task was on the list of all, whose reference is given back here, without the lock.
            unsafe { Header::release(task) };
        }
        next
    }

    /// Waits until another thread hands over the right to run.
    fn sleep(&self, passive: Passive<'_>) {
        // SAFETY: the invariant of `Shared` says that this is an event.
        while !unsafe { self.wake_up.wait(passive, Some(IDLE)) } {}
    }

    /// Unlocks, and wakes a thread that sleeps if there is work for it and none is waking up already.
    fn unlock_and_wake(&self, queue: SpinGuard<'_, Queue>) {
        let work = queue.first.is_some() || (queue.stopping && queue.live == 0);
        self.unlock_and_wake_if(queue, work);
    }

    fn unlock_and_wake_if(&self, mut queue: SpinGuard<'_, Queue>, work: bool) {
        let wake = work && queue.asleep > 0 && !queue.waking;
        queue.waking |= wake;
        drop(queue);
        if wake {
            // SAFETY: the invariant of `Shared` says that this is an event.
            unsafe { self.wake_up.set() };
        }
    }
}

impl Queue {
    fn next(&mut self) -> Next {
        if !self.stopping {
            return match self.pop() {
                // SAFETY: the task was just taken out of the queue.
                Some(task) => Next::Poll(unsafe { Running::from_queue(task) }),
                None => self.sleep(),
            };
        }
        if let Some(task) = self.pop() {
            // SAFETY: the task was just taken out of the queue.
            Next::Cancel(unsafe { Running::from_queue(task) })
        } else if let Some(task) = self.take_waiting() {
            Next::Cancel(task)
        } else if self.live == 0 {
            Next::Exit
        } else {
            // The tasks that are left run on other threads, or are on their way into the queue.
            self.sleep()
        }
    }

    fn sleep(&mut self) -> Next {
        self.asleep += 1;
        Next::Sleep
    }

    /// The links of a task.
    ///
    /// # Safety
    /// The task is alive, and is this executor's.
    #[expect(
        clippy::unused_self,
        reason = "the borrow of the queue stands for the lock that guards all links"
    )]
    unsafe fn links(&mut self, task: NonNull<Header>) -> &mut Links {
        // SAFETY: the caller says that the task is alive.
        let links = unsafe { Header::links(task) };
        // SAFETY: links belong to the holder of the lock, who has `&mut self`, and are borrowed one at a
        // time.
        unsafe { &mut *links }
    }

    /// Puts a task at the end of the run queue.
    ///
    /// # Safety
    /// The task is alive, scheduled, and not in the queue; it stays alive as long as it is there.
    unsafe fn push(&mut self, task: NonNull<Header>) {
        // SAFETY: the caller says that the task is alive.
        unsafe { self.links(task) }.next = None;
        match self.last.replace(task) {
            None => self.first = Some(task),
            // SAFETY: tasks in the queue are alive.
            Some(last) => unsafe { self.links(last) }.next = Some(task),
        }
    }

    fn pop(&mut self) -> Option<NonNull<Header>> {
        let task = self.first?;
        // SAFETY: tasks in the queue are alive.
        self.first = unsafe { self.links(task) }.next.take();
        if self.first.is_none() {
            self.last = None;
        }
        Some(task)
    }

    /// Puts a task on the list of all.
    ///
    /// # Safety
    /// The task is alive and on no list, and a reference on it is given up to the list.
    unsafe fn enlist(&mut self, task: NonNull<Header>) {
        let older = self.all.replace(task);
        // SAFETY: the caller says that the task is alive.
        let links = unsafe { self.links(task) };
        links.older = older;
        links.newer = None;
        if let Some(older) = older {
            // SAFETY: tasks on the list are alive.
            unsafe { self.links(older) }.newer = Some(task);
        }
        self.live += 1;
    }

    /// Takes a task off the list of all; its reference is the caller's.
    ///
    /// # Safety
    /// The task is on the list.
    unsafe fn delist(&mut self, task: NonNull<Header>) {
        // SAFETY: tasks on the list are alive.
        let links = unsafe { self.links(task) };
        let (newer, older) = (links.newer.take(), links.older.take());
        match newer {
            None => self.all = older,
            // SAFETY: tasks on the list are alive.
            Some(newer) => unsafe { self.links(newer) }.older = older,
        }
        if let Some(older) = older {
            // SAFETY: tasks on the list are alive.
            unsafe { self.links(older) }.newer = newer;
        }
        self.live -= 1;
    }

    /// A task that waits to be woken, if there is one, made running.
    fn take_waiting(&mut self) -> Option<Running> {
        let mut task = self.all;
        while let Some(candidate) = task {
            // SAFETY: tasks on the list are alive.
            if let Some(running) = unsafe { Running::from_waiting(candidate) } {
                return Some(running);
            }
            // SAFETY: tasks on the list are alive.
            task = unsafe { self.links(candidate) }.older;
        }
        None
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("live", &self.live()).finish_non_exhaustive()
    }
}
