//! Learning that a socket is closed: by WSK, which can give it up at any moment, or by this side.
//!
//! ```text
//!   a null indication (receive, accept or inspect) ─┐
//!   STATUS_FILE_FORCED_CLOSED from any operation ───┼─▶ dead ─▶ the rundown has begun ─▶ waiters wake
//!   a probe, for a waiter on a silent socket ───────┘             ▲
//!   close, dropped handle, unload ────────────────────────────────┘ (no handler is told)
//! ```
//!
//! WSK says that a socket is dead by a null indication, and only on receive, accept and inspect events that
//! are on (rule LIFE-16). A socket without such an event is *silent*: its death shows in the next operation,
//! or in those that wait (rules LIFE-14, LIFE-17). So a task that waits for the end of a socket that may be
//! silent has it *probed* several times a second: one call without an IRP and without memory, which fails on
//! a dead socket and changes nothing on others (rules IOC-10, IOC-11). The reaper thread has the time: it
//! wakes the waiters, and they make the call.
//!
//! Waiting for the rundown to begin, and not for the close, means that retained data, which keeps the close
//! from starting, does not keep the news back.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::control::probe;
use super::{Socket, SocketRef};
use crate::sync::{Registered, Waiter};

/// Reason why a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// WSK has given the socket up: its transport is gone, for instance (rule LIFE-17). A new one may work.
    Dead,
    /// This side closes it: its handle was closed or dropped, or the client unloads.
    Local,
}

/// Future that resolves when a socket is dead, or closing.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct WaitClosed {
    socket: SocketRef,
    /// In the list of the socket.
    waiter: Waiter,
    /// In the list of the client, for a socket that may be silent.
    probing: Waiter,
    silent: bool,
}

impl WaitClosed {
    /// Waits for the end of `socket`; `silent` if WSK may not announce its death.
    pub(crate) fn new(socket: SocketRef, silent: bool) -> Self {
        Self { socket, waiter: Waiter::new(), probing: Waiter::new(), silent }
    }

    /// Probes the socket if it is time for that, and has the task woken when it is time again.
    fn probe(self: Pin<&Self>, context: &Context<'_>) {
        let this = self.get_ref();
        // SAFETY: the waiter is pinned with the whole and never moved out of it.
        let probing = unsafe { Pin::new_unchecked(&this.probing) };
        // SAFETY: it is in the list of the client alone, and `drop` takes it out.
        let registered = unsafe { this.socket.client().pause(probing, context.waker()) };
        if matches!(registered, Registered::New { .. }) {
            // This is the first poll, or it is time again.
            probe(&this.socket);
        }
    }
}

impl Socket {
    /// Returns why the socket is closed, if it is.
    fn close_reason(&self) -> Option<CloseReason> {
        (!self.is_open()).then(|| if self.is_dead() { CloseReason::Dead } else { CloseReason::Local })
    }
}

impl Future for WaitClosed {
    type Output = CloseReason;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CloseReason> {
        let this = self.into_ref();
        if this.silent {
            this.probe(context);
        }
        let this = this.get_ref();
        let socket = &*this.socket;
        // SAFETY: the waiter is pinned with the whole and never moved out of it.
        let waiter = unsafe { Pin::new_unchecked(&this.waiter) };
        // SAFETY: it is in the list of the socket alone, and `drop` takes it out.
        match unsafe { socket.waiters.register(waiter, context.waker(), || !socket.is_open()) } {
            Registered::Over => Poll::Ready(socket.close_reason().unwrap_or(CloseReason::Local)),
            Registered::New { .. } | Registered::Again => Poll::Pending,
        }
    }
}

impl Drop for WaitClosed {
    fn drop(&mut self) {
        // SAFETY: `poll` lists it there alone.
        unsafe { self.socket.waiters.remove(&self.waiter) };
        if self.silent {
            // SAFETY: `probe` lists it there alone.
            unsafe { self.socket.client().pause_no_more(&self.probing) };
        }
    }
}
