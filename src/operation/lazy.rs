//! The one future of all operations: submits on the first poll, waits, and finishes.
//!
//! ```text
//!              poll                   poll, once the request has completed
//!   Starting ────────▶ Waiting ─────────────────────────────────────────▶ Finished
//!    ▲    │                │                                                 ▲
//!    │    │ pending:       │ drop: `Operation::dropped`, and cancellation    │
//!    │    │ another has    ▼                                                 │
//!    └────┤ to end first  gone                                               │
//!         └─────────────────────────────▶ Over ──────────── poll ────────────┘
//!           it ends without a request      (its output waits for the poll)
//! ```
//!
//! A limit that expires ends what is *Starting* without a request, and cancels the request of what is
//! *Waiting*, which stays there until that has completed; see [`within`](super::within).

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use super::block::{Op, Outcome, Request};
use crate::error::{self, Error, Status};
use crate::memory::Cache;

/// An operation that a [`Lazy`] future carries out.
pub(crate) trait Operation: Sized {
    /// The memory of its request.
    type Request: Request;
    /// The output of the future.
    type Output;

    /// Submits the request, or ends the operation without one (`Err`). `Pending` if another operation has to
    /// end first; the task is woken then. Not called again after it was ready.
    ///
    /// Operations that are [submitted](Lazy::submitted) at once are never pending.
    fn start(&mut self, context: &Context<'_>) -> Poll<Result<Op<Self::Request>, Self::Output>>;

    /// Turns the outcome of the request into the output. Called once.
    fn finish(&mut self, outcome: Outcome, request: Self::Request) -> Self::Output;

    /// Called when the future is dropped before it was ready: `submitted` if WSK has the request. Returns
    /// whether that is to be cancelled.
    fn dropped(&mut self, _submitted: bool) -> bool {
        true
    }

    /// Ends the operation before it has started: the output gives back what the operation holds. `None` if it
    /// has started.
    fn refuse(&mut self, error: Error) -> Option<Self::Output>;

    /// Called when the time is up while WSK has the request. Returns whether that is to be cancelled.
    fn expired(&mut self) -> bool {
        true
    }

    /// Returns the operation that errors name.
    fn name(&self) -> error::Operation;

    /// Returns the cache for memory that the operation needs.
    fn cache(&self) -> &Cache;
}

/// The future of an [`Operation`].
pub(crate) struct Lazy<O: Operation> {
    operation: O,
    state: State<O>,
    /// The status that stands for that of a request which a time limit has cancelled.
    cancelled: Option<Status>,
}

enum State<O: Operation> {
    Starting,
    Waiting(Op<O::Request>),
    /// It has ended without a request.
    Over(O::Output),
    Finished,
}

impl<O: Operation> Lazy<O> {
    /// The future; nothing happens before it is polled.
    pub(crate) fn new(operation: O) -> Self {
        Self { operation, state: State::Starting, cancelled: None }
    }

    /// The future of an operation that is started right here, and never pending then.
    pub(crate) fn submitted(mut operation: O) -> Self {
        let state = match operation.start(&Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(op)) => State::Waiting(op),
            Poll::Ready(Err(output)) => State::Over(output),
            Poll::Pending => State::Starting,
        };
        Self { operation, state, cancelled: None }
    }

    /// Ends the operation with this error, or because its time is up: at once if it has not started, and by
    /// the cancellation of its request otherwise, whose completion ends it.
    pub(crate) fn end(&mut self, error: Option<Error>) {
        let error = error.unwrap_or_else(|| Error::new(self.operation.name(), Status::IO_TIMEOUT));
        match &self.state {
            State::Starting => {
                if let Some(output) = self.operation.refuse(error) {
                    self.state = State::Over(output);
                }
            }
            State::Waiting(op) if self.operation.expired() => {
                self.cancelled = Some(error.status());
                op.cancel();
            }
            State::Waiting(_) | State::Over(_) | State::Finished => {}
        }
    }

    /// Returns the cache for memory that the operation needs.
    pub(crate) fn cache(&self) -> &Cache {
        self.operation.cache()
    }

    /// Drops the future of a submitted operation without cancelling its request.
    pub(crate) fn detach(mut self) {
        if let State::Waiting(op) = core::mem::replace(&mut self.state, State::Finished) {
            op.detach();
        }
    }
}

// Nothing in it is ever pinned: the memory of the request is a block of its own.
impl<O: Operation> Unpin for Lazy<O> {}

impl<O: Operation> Future for Lazy<O> {
    type Output = O::Output;

    // One copy for each kind of operation, not one for each place that waits for it.
    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<O::Output> {
        let this = &mut *self;
        let op = match core::mem::replace(&mut this.state, State::Finished) {
            State::Starting => match this.operation.start(context) {
                Poll::Ready(Ok(op)) => op,
                Poll::Ready(Err(output)) => return Poll::Ready(output),
                Poll::Pending => {
                    this.state = State::Starting;
                    return Poll::Pending;
                }
            },
            State::Waiting(op) => op,
            State::Over(output) => return Poll::Ready(output),
            State::Finished => return Poll::Pending,
        };
        match op.poll(context) {
            Ok((outcome, request)) => {
                let outcome = this.cancelled.map_or(outcome, |status| outcome.or_cancelled(status));
                Poll::Ready(this.operation.finish(outcome, request))
            }
            Err(op) => {
                this.state = State::Waiting(op);
                Poll::Pending
            }
        }
    }
}

impl<O: Operation> Drop for Lazy<O> {
    fn drop(&mut self) {
        match core::mem::replace(&mut self.state, State::Finished) {
            State::Starting => _ = self.operation.dropped(false),
            // Told before the cancellation, whose completion may need to know.
            State::Waiting(op) => {
                if self.operation.dropped(true) {
                    drop(op);
                } else {
                    op.detach();
                }
            }
            State::Over(_) | State::Finished => {}
        }
    }
}
