//! Waiting for a moment without memory: the reaper thread has the time.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::ClientShared;
use crate::memory::Ref;
use crate::sync::{Registered, Waiter};

/// A moment to wait before something is tried again; see [`Provider::pause`](super::Provider::pause).
#[must_use = "futures do nothing unless polled"]
pub struct Pause {
    client: Ref<ClientShared>,
    /// In the list of the client.
    waiter: Waiter,
    begun: bool,
}

impl Pause {
    pub(crate) fn new(client: Ref<ClientShared>) -> Self {
        Self { client, waiter: Waiter::new(), begun: false }
    }
}

impl Future for Pause {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: nothing is moved out of it, and the waiter is handed on pinned.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: the waiter is pinned with the whole and never moved out of it.
        let waiter = unsafe { Pin::new_unchecked(&this.waiter) };
        // SAFETY: it is in the list of the client alone, and `drop` takes it out.
        match unsafe { this.client.pause(waiter, context.waker()) } {
            Registered::New { .. } if !this.begun => {
                this.begun = true;
                Poll::Pending
            }
            Registered::Again => Poll::Pending,
            // The reaper has taken it out, or stops.
            Registered::New { .. } | Registered::Over => Poll::Ready(()),
        }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        // SAFETY: `poll` lists it there alone.
        unsafe { self.client.pause_no_more(&self.waiter) };
    }
}

impl fmt::Debug for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pause").finish_non_exhaustive()
    }
}
