//! Time limits on operations, which give back what the operation holds.
//!
//! ```text
//!            first poll: the timer is set, the operation submitted
//!   New ─────────────────────────────────────────────▶ Running ──completes──▶ its output
//!    │                                                    │
//!    │ no memory for the timer                            │ the time is up: IoCancelIrp
//!    ▼                                                    ▼
//!   the output with the error              Expired ──completes──▶ its output, or STATUS_IO_TIMEOUT
//! ```
//!
//! The timer is set before the operation is submitted: without memory for it nothing has begun.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use crate::error::Error;
use crate::memory::Cache;
use crate::time::{self, Sleep};

/// Proof that the caller is this module: no other code can name it.
#[derive(Debug)]
pub struct Limit(());

/// An operation that can be given a time limit. Sealed.
pub trait Limited: Future + Unpin {
    /// Ends the operation with this error, or because its time is up: at once if it has not started, and by
    /// its cancellation otherwise.
    #[doc(hidden)]
    fn end(&mut self, error: Option<Error>, limit: Limit);
    /// Returns the cache for the memory of the timer.
    #[doc(hidden)]
    fn cache(&self) -> &Cache;
}

/// Future of the `within` of an operation, [`Receive::within`](crate::Receive::within) for instance.
#[must_use = "futures do nothing unless polled"]
pub struct Within<F> {
    operation: F,
    sleep: Sleep,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not polled yet.
    New,
    /// The timer is set.
    Running,
    /// The operation was cancelled, or could not be begun.
    Expired,
}

impl<F: Limited> Within<F> {
    pub(crate) fn new(operation: F, limit: Duration) -> Self {
        let sleep = time::sleep_in(limit, operation.cache());
        Self { operation, sleep, state: State::New }
    }

    /// Waits for the end of the time, and has the operation end then. Returns whether it was made to.
    fn poll_limit(&mut self, context: &mut Context<'_>) -> bool {
        if self.state == State::Expired || Pin::new(&mut self.sleep).poll(context).is_pending() {
            return false;
        }
        self.state = State::Expired;
        self.operation.end(None, Limit(()));
        true
    }
}

impl<F: Limited> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if this.state == State::New {
            this.state = State::Running;
            if let Poll::Ready(Err(error)) = Pin::new(&mut this.sleep).poll(context) {
                this.state = State::Expired;
                this.operation.end(Some(error), Limit(()));
            }
        }
        // The operation comes first: a result that is there is not thrown away for being late.
        match Pin::new(&mut this.operation).poll(context) {
            Poll::Pending if this.poll_limit(context) => Pin::new(&mut this.operation).poll(context),
            other => other,
        }
    }
}

impl<F> fmt::Debug for Within<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Implements [`Limited`] for a future with a [`Lazy`](super::Lazy) in the named field, and its `within`.
macro_rules! limited {
    ([$($generics:tt)*] $future:ty, $lazy:tt $(. $inner:tt)*, $(#[$doc:meta])*) => {
        impl<$($generics)*> $future {
            /// Gives the operation a time limit. When it expires the request is cancelled, and the future
            /// resolves when that has completed: nothing that came meanwhile is lost, and a buffer comes
            /// back.
            $(#[$doc])*
            ///
            /// # IRQL
            /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future; not in completion routines.
            ///
            /// # Cancel safety
            /// The same as that of the operation.
            ///
            /// # Errors
            /// Those of the operation; `STATUS_IO_TIMEOUT` in place of `STATUS_CANCELLED` once the time is
            /// up; `STATUS_INSUFFICIENT_RESOURCES` of [`Operation::Timer`](crate::Operation::Timer) if there
            /// is no memory for the timer, and nothing has been begun then.
            pub fn within(self, limit: core::time::Duration) -> crate::Within<Self> {
                crate::Within::new(self, limit)
            }
        }

        impl<$($generics)*> crate::operation::Limited for $future {
            fn end(&mut self, error: Option<crate::Error>, _limit: crate::operation::Limit) {
                self.$lazy$(.$inner)*.end(error);
            }

            fn cache(&self) -> &crate::memory::Cache {
                self.$lazy$(.$inner)*.cache()
            }
        }
    };
}
pub(crate) use limited;
