//! Running a future to its end on a thread that may wait.

use core::future::Future;
use core::mem::ManuallyDrop;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use core::time::Duration;

use crate::error::{Error, Operation, Result, Status};
use crate::irql::Passive;
use crate::memory::Ref;
use crate::sync::{Event, EventCell, EventKind};
use crate::time::Deadline;

/// Runs a future to its end on the current thread.
///
/// # IRQL
/// `PASSIVE_LEVEL`, outside of callbacks and completion routines (rule IRQL-13).
///
/// # Errors
/// Out of memory, for the event that the thread waits for; the future was not polled then.
pub fn block_on<F: Future>(passive: Passive<'_>, future: F) -> Result<F::Output> {
    run(passive, None, pin!(future))
}

/// Runs a future to its end on the current thread, unless that takes longer than `timeout`.
///
/// The future is polled at least once, and again whenever it was woken. That the time is up is no reason to
/// poll it: a result without a wake-up is not found, here as in [`block_on`].
///
/// # IRQL
/// `PASSIVE_LEVEL`, outside of callbacks and completion routines (rule IRQL-13).
///
/// # Errors
/// `STATUS_IO_TIMEOUT` when the time is up; the future is dropped then. Out of memory, as for [`block_on`].
pub fn block_on_timeout<F: Future>(passive: Passive<'_>, timeout: Duration, future: F) -> Result<F::Output> {
    run(passive, Some(Deadline::after(timeout)), pin!(future))
}

fn run<F: Future>(
    passive: Passive<'_>,
    deadline: Option<Deadline>,
    mut future: Pin<&mut F>,
) -> Result<F::Output> {
    let event = Event::try_new(EventKind::Synchronization)
        .map_err(|error| Error::from(error).during(Operation::Wait))?;
    let waker = waker(event.cell().clone());
    let mut context = Context::from_waker(&waker);
    loop {
        // Looked at before the poll: what happens in time is never reported as too late.
        let left = deadline.map(Deadline::remaining);
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Ok(output);
        }
        if left == Some(Duration::ZERO) || !event.wait(passive, left) {
            return Err(Error::new(Operation::Wait, Status::IO_TIMEOUT));
        }
    }
}

/// A waker that sets an event, which lives as long as the waiter or any waker.
fn waker(event: Ref<EventCell>) -> Waker {
    // SAFETY: the functions of the table keep the contract of `RawWaker`: each waker owns one reference.
    unsafe { Waker::from_raw(raw_waker(event)) }
}

static WAKER: RawWakerVTable = RawWakerVTable::new(clone_waker, wake, wake_by_ref, drop_waker);

fn raw_waker(event: Ref<EventCell>) -> RawWaker {
    RawWaker::new(Ref::into_raw(event).cast(), &WAKER)
}

/// # Safety
/// `data` is that of a live waker.
unsafe fn clone_waker(data: *const ()) -> RawWaker {
    // SAFETY: the data of a waker is a reference on an event, which the waker keeps during the call.
    raw_waker(unsafe { Ref::clone_from_raw(data.cast()) })
}

/// # Safety
/// `data` is that of a waker, which the call consumes.
unsafe fn wake(data: *const ()) {
    // SAFETY: the data of a waker is a reference on an event, and the waker gives it up.
    let event = unsafe { Ref::<EventCell>::from_raw(data.cast()) };
    // SAFETY: `Event::try_new` initialised the event.
    unsafe { event.set() };
}

/// # Safety
/// `data` is that of a live waker.
unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: the data of a waker is a reference on an event, and `ManuallyDrop` leaves it with the waker.
    let event = ManuallyDrop::new(unsafe { Ref::<EventCell>::from_raw(data.cast()) });
    // SAFETY: `Event::try_new` initialised the event.
    unsafe { event.set() };
}

/// # Safety
/// `data` is that of a waker, which the call consumes.
unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the data of a waker is a reference on an event, and the waker gives it up.
    drop(unsafe { Ref::<EventCell>::from_raw(data.cast()) });
}
