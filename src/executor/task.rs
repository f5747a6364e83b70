//! A task: one block of memory that holds a future and everything that schedules it.
//!
//! The state is two bits that the wakers and the threads move without a lock, and a third at the end:
//!
//! ```text
//!                 wake                 a thread takes it
//!   Waiting ───────────────▶ Scheduled ─────────────────▶ Running ──poll: Ready, or cancelled──▶ Done
//!      ▲                         ▲                         │   │ wake
//!      │                         │ poll: Pending           │   ▼
//!      │                         └──────────────── Running, Scheduled
//!      └──────────────── poll: Pending ────────────────────┘
//! ```
//!
//! The thread that moves a task from *Waiting* to *Scheduled* pushes it to the queue; one that sees it
//! scheduled, running or done already does nothing. So a task is in the queue at most once and runs on one
//! thread at a time, and a wake-up during a poll is not lost. When a task is done its future is gone; the
//! memory goes with the last waker.

use core::cell::UnsafeCell;
use core::future::Future;
use core::mem::ManuallyDrop;
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::queue::{Done, Links, Shared};
use crate::memory::{OutOfMemory, Ref, RefCount, assert_pool_alignment};
use crate::sync::atomic::{AtomicU32, Ordering};

/// The task is to be polled: it is in the queue, or will be pushed by the thread that runs it.
const SCHEDULED: u32 = 1;
/// A thread polls the future or drops it.
const RUNNING: u32 = 2;
/// The future is gone.
const DONE: u32 = 4;

/// Common part of all tasks, at the start of their block.
///
/// # Invariants
/// - `state` follows the diagram of this module.
/// - `links` is touched under the lock of `shared` only.
/// - The block lives while `references` are held: one by the list of all tasks until the task is done, and
///   one by each waker.
pub(super) struct Header {
    state: AtomicU32,
    references: RefCount,
    functions: &'static Functions,
    shared: Ref<Shared>,
    links: UnsafeCell<Links>,
}

/// # Invariants
/// The future is initialised until the task is done, and touched by the thread that made the task running
/// only.
#[repr(C)]
struct Task<F> {
    header: Header,
    future: UnsafeCell<ManuallyDrop<F>>,
}

/// Functions that depend on the type of the future.
struct Functions {
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> Poll<()>,
    drop_future: unsafe fn(NonNull<Header>),
    bytes: usize,
}

impl Header {
    /// The address of the links.
    ///
    /// # Safety
    /// The task is alive.
    pub(super) unsafe fn links(task: NonNull<Self>) -> *mut Links {
        // SAFETY: the caller says that the task is alive.
        unsafe { task.as_ref() }.links.get()
    }

    /// Gives a reference back, and the block with the last one. IRQL: `<= DISPATCH_LEVEL`.
    ///
    /// # Safety
    /// The caller owns a reference and does not use the task any more. If it is the last one, the future is
    /// gone.
    pub(super) unsafe fn release(task: NonNull<Self>) {
        // SAFETY: the caller owns a reference.
        let header = unsafe { task.as_ref() };
        if !header.references.release() {
            return;
        }
        let bytes = header.functions.bytes;
        // SAFETY: nobody else has the block any more, and its field is not used where it was again.
        let shared = unsafe { core::ptr::read(&raw const header.shared) };
        // The rest of the header and the hollow future need no dropping.
        // SAFETY: the block came from this cache with this size, and nobody has it any more.
        unsafe { shared.cache().release(task.cast(), bytes) };
    }

    /// Schedules the task, unless it is already or is done. IRQL: `<= DISPATCH_LEVEL`.
    ///
    /// # Safety
    /// The caller owns a reference, and keeps it during the call.
    unsafe fn wake(task: NonNull<Self>) {
        // SAFETY: the caller owns a reference.
        let header = unsafe { task.as_ref() };
        // Release: what was done before the wake-up is seen by the poll that follows it.
        let before = header.state.fetch_or(SCHEDULED, Ordering::AcqRel);
        if before & (SCHEDULED | RUNNING | DONE) == 0 {
            // SAFETY: this call moved the task from waiting to scheduled, and the caller keeps its reference.
            unsafe { header.shared.schedule(task) };
        }
    }
}

/// A new task that no executor has let in yet.
///
/// # Invariants
/// The one reference on the task is this value's, and the future is initialised.
pub(super) struct Owned {
    task: NonNull<Header>,
}

impl Owned {
    /// Moves a future into a block of the executor's cache. IRQL: `<= DISPATCH_LEVEL`.
    pub(super) fn try_new<F>(shared: &Ref<Shared>, future: F) -> Result<Self, OutOfMemory>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        const { assert_pool_alignment::<Task<F>>() };
        let block = shared.cache().allocate(size_of::<Task<F>>())?.cast::<Task<F>>();
        let header = Header {
            state: AtomicU32::new(SCHEDULED),
            references: RefCount::one(),
            functions: &Functions {
                poll: poll::<F>,
                drop_future: drop_future::<F>,
                bytes: size_of::<Task<F>>(),
            },
            shared: shared.clone(),
            links: UnsafeCell::new(Links::new()),
        };
        // SAFETY: the block is new, large enough and aligned.
        unsafe { block.write(Task { header, future: UnsafeCell::new(ManuallyDrop::new(future)) }) };
        Ok(Self { task: block.cast() })
    }

    /// Gives the task, already marked as scheduled, and its reference to the lists of the executor.
    pub(super) fn into_scheduled(self) -> NonNull<Header> {
        ManuallyDrop::new(self).task
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the task is alive.
        let functions = unsafe { self.task.as_ref() }.functions;
        // SAFETY: nobody else has the task, and its future is dropped here for the last time.
        unsafe { (functions.drop_future)(self.task) };
        // SAFETY: the one reference is this value's, and the future is gone.
        unsafe { Header::release(self.task) };
    }
}

/// A task that this thread has run, for the queue to take note of.
///
/// # Invariants
/// - In [`Done::Again`]: the task was woken while it ran, and is alive, because it is not done. No other
///   thread pushes it.
/// - In [`Done::Finished`]: the task is done, and still on the list of all tasks. No other thread takes it
///   off.
pub(super) struct Ran {
    task: NonNull<Header>,
}

impl Ran {
    pub(super) fn task(&self) -> NonNull<Header> {
        self.task
    }
}

/// A task that this thread runs.
///
/// # Invariants
/// This thread made the task running, and its future is initialised. The list of all tasks keeps it alive.
pub(super) struct Running {
    task: NonNull<Header>,
}

impl Running {
    /// Makes a task running that was just taken out of the queue.
    ///
    /// # Safety
    /// The task was in the queue of its executor, scheduled, and the caller alone has taken it out.
    pub(super) unsafe fn from_queue(task: NonNull<Header>) -> Self {
        // SAFETY: a task in the queue is not done, so it is on the list of all, which keeps it alive.
        let header = unsafe { task.as_ref() };
        // Acquire: this poll sees what was done before each wake-up that it answers.
        header.state.swap(RUNNING, Ordering::AcqRel);
        Self { task }
    }

    /// Makes a task running that waits to be woken; `None` if it does not.
    ///
    /// # Safety
    /// The task is alive.
    pub(super) unsafe fn from_waiting(task: NonNull<Header>) -> Option<Self> {
        // SAFETY: the caller says that the task is alive.
        let header = unsafe { task.as_ref() };
        let taken = header.state.compare_exchange(0, RUNNING, Ordering::AcqRel, Ordering::Relaxed);
        taken.is_ok().then_some(Self { task })
    }

    /// Polls the future once.
    pub(super) fn poll(self) -> Done {
        // The waker borrows the reference of the list of all tasks, which lasts as long as the task runs;
        // clones take references of their own. SAFETY: the functions of the table keep the contract of
        // `RawWaker`, and the reference is not dropped.
        let waker = unsafe { ManuallyDrop::new(Waker::from_raw(raw_waker(self.task))) };
        let mut context = Context::from_waker(&waker);
        // SAFETY: this thread runs the task, so the future is initialised and nobody else touches it.
        match unsafe { (self.header().functions.poll)(self.task, &mut context) } {
            Poll::Ready(()) => self.cancel(),
            Poll::Pending => {
                let task = self.task;
                // From here on, unless it was woken meanwhile, the task is any other thread's to run and
                // finish.
                let before = self.header().state.fetch_and(!RUNNING, Ordering::AcqRel);
                if before & SCHEDULED == 0 { Done::Nothing } else { Done::Again(Ran { task }) }
            }
        }
    }

    /// Drops the future.
    pub(super) fn cancel(self) -> Done {
        // SAFETY: this thread runs the task, so the future is initialised, and it is dropped here for the
        // last time.
        unsafe { (self.header().functions.drop_future)(self.task) };
        self.header().state.store(DONE, Ordering::Release);
        Done::Finished(Ran { task: self.task })
    }

    fn header(&self) -> &Header {
        // SAFETY: the list of all tasks keeps a running task alive.
        unsafe { self.task.as_ref() }
    }
}

/// # Safety
/// `task` heads a `Task<F>` that the caller runs, whose future is initialised.
unsafe fn poll<F: Future<Output = ()>>(task: NonNull<Header>, context: &mut Context<'_>) -> Poll<()> {
    // SAFETY: the caller says that the block is a `Task<F>`; only the address of one field is computed.
    let future = unsafe { &raw mut (*task.as_ptr().cast::<Task<F>>()).future };
    let future = future.cast::<F>();
    // SAFETY: the caller runs the task, so this is the only reference to the initialised future.
    let future = unsafe { &mut *future };
    // SAFETY: the block never moves, and the future is dropped in place.
    unsafe { Pin::new_unchecked(future) }.poll(context)
}

/// # Safety
/// `task` heads a `Task<F>` that the caller runs or alone has, whose future is initialised and not used
/// again.
unsafe fn drop_future<F>(task: NonNull<Header>) {
    // SAFETY: the caller says that the block is a `Task<F>`; only the address of one field is computed.
    let future = unsafe { &raw mut (*task.as_ptr().cast::<Task<F>>()).future };
    // SAFETY: the caller runs the task, so nobody else touches the initialised future.
    unsafe { future.cast::<F>().drop_in_place() };
}

static WAKER: RawWakerVTable = RawWakerVTable::new(clone_waker, wake, wake_by_ref, drop_waker);

/// A waker for a reference on a task.
fn raw_waker(task: NonNull<Header>) -> RawWaker {
    RawWaker::new(task.as_ptr().cast_const().cast(), &WAKER)
}

/// The task of a waker.
///
/// # Safety
/// `data` came from [`raw_waker`].
unsafe fn task_of(data: *const ()) -> NonNull<Header> {
    // SAFETY: the caller says that this is the address of a task.
    unsafe { NonNull::new_unchecked(data.cast_mut().cast()) }
}

/// # Safety
/// `data` is that of a live waker.
unsafe fn clone_waker(data: *const ()) -> RawWaker {
    // SAFETY: the data of a waker is a task.
    let task = unsafe { task_of(data) };
    // SAFETY: the waker that is cloned has a reference on the task, or borrows one.
    unsafe { task.as_ref() }.references.acquire();
    raw_waker(task)
}

/// # Safety
/// `data` is that of a waker, which the call consumes.
unsafe fn wake(data: *const ()) {
    // SAFETY: the data of a waker is a task.
    let task = unsafe { task_of(data) };
    // SAFETY: the waker's reference is given back only afterwards.
    unsafe { Header::wake(task) };
    // SAFETY: the reference was the waker's. A waker never has the last one before the future is gone,
    // because the list of all tasks has one until then.
    unsafe { Header::release(task) };
}

/// # Safety
/// `data` is that of a live waker.
unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: the data of a waker is a task.
    let task = unsafe { task_of(data) };
    // SAFETY: the waker, which has a reference or borrows one, lives during the call.
    unsafe { Header::wake(task) };
}

/// # Safety
/// `data` is that of a waker, which the call consumes.
unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the data of a waker is a task.
    let task = unsafe { task_of(data) };
    // SAFETY: the reference was the waker's; see `wake` for the last one.
    unsafe { Header::release(task) };
}
