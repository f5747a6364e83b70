//! Learning that a socket is closed: by WSK, which can give it up at any moment, or by this side.
//!
//! ```text
//!   a null indication (receive, accept or inspect) ─┐
//!   STATUS_FILE_FORCED_CLOSED from any operation ───┼─▶ dead ─▶ the rundown has begun ─▶ waiters wake ─▶ the handlers are told
//!   a probe, for a waiter on a silent socket ───────┘             ▲
//!   close, dropped handle, unload ────────────────────────────────┘ (no handler is told of what this side does)
//! ```
//!
//! WSK says that a socket is dead by a null indication, and only on receive, accept and inspect events that are on (rule
//! LIFE-16). A socket without such an event is *silent*: its death shows in the next operation, or in those that wait (rules
//! LIFE-14, LIFE-17). So whoever waits for the end of a socket that may be silent has it *probed* several times a second: one
//! call without an IRP and without memory, which fails on a dead socket and changes nothing on others (rules IOC-10, IOC-11).
//! The reaper thread has the time: it wakes the waiters, and they make the call.
//!
//! Waiting for the rundown to begin, and not for the close, means that retained data, which keeps the close from starting, does
//! not keep the news back.

#![allow(
    private_interfaces,
    reason = "the trait is a bound in public types, but nobody else can name or use it"
)]

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::control::probe;
use super::waiters::{Registered, Waiter};
use super::{Socket, SocketRef};

/// Why a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// WSK has given the socket up: its transport is gone, for instance (rule LIFE-17). A new one may work.
    Dead,
    /// This side closes it: its handle was closed or dropped, or the client unloads.
    Local,
}

/// How a socket that waits for its end is probed. A type, so that a driver has code for what its sockets need only.
pub trait Probing: Send + Sync + 'static {
    #[doc(hidden)]
    fn new() -> Self;

    /// Probes the socket if it is time for that, and has the task woken when it is time again.
    ///
    /// # Safety
    /// The value is pinned, is used for this socket alone, and `end` is called before it goes.
    #[doc(hidden)]
    unsafe fn poll(&self, socket: &SocketRef, context: &Context<'_>);

    /// # Safety
    /// The value is used for this socket alone.
    #[doc(hidden)]
    unsafe fn end(&self, socket: &SocketRef);
}

/// For sockets that are always told.
#[derive(Debug)]
pub struct Told;

impl Probing for Told {
    fn new() -> Self {
        Self
    }

    unsafe fn poll(&self, _socket: &SocketRef, _context: &Context<'_>) {}

    unsafe fn end(&self, _socket: &SocketRef) {}
}

/// For sockets that may be silent.
pub struct Silent(Waiter);

impl Probing for Silent {
    fn new() -> Self {
        Self(Waiter::new())
    }

    unsafe fn poll(&self, socket: &SocketRef, context: &Context<'_>) {
        // SAFETY: the caller has pinned the value.
        let waiter = unsafe { Pin::new_unchecked(&self.0) };
        // SAFETY: it is in the list of the client alone, and the caller sees to it that `end` takes it out.
        let registered = unsafe { socket.client().pause(waiter, context.waker()) };
        if matches!(registered, Registered::New { .. }) {
            // This is the first poll, or it is time again.
            probe(socket);
        }
    }

    unsafe fn end(&self, socket: &SocketRef) {
        // SAFETY: `poll` lists it there alone.
        unsafe { socket.client().pause_no_more(&self.0) };
    }
}

impl core::fmt::Debug for Silent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Silent")
    }
}

/// Resolves when a socket is dead, or closing.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct WaitClosed<P: Probing> {
    socket: SocketRef,
    /// In the list of the socket.
    waiter: Waiter,
    /// Pinned with the whole.
    probing: P,
}

impl<P: Probing> WaitClosed<P> {
    /// Waits for the end of `socket`.
    pub(crate) fn new(socket: SocketRef) -> Self {
        Self { socket, waiter: Waiter::new(), probing: P::new() }
    }
}

impl Socket {
    /// Why the socket is closed, if it is.
    fn close_reason(&self) -> Option<CloseReason> {
        (!self.is_open()).then(|| if self.is_dead() { CloseReason::Dead } else { CloseReason::Local })
    }
}

impl<P: Probing> Future for WaitClosed<P> {
    type Output = CloseReason;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CloseReason> {
        let this = self.into_ref().get_ref();
        let socket = &*this.socket;
        // SAFETY: the value is pinned with the whole and never moved out of it, and `drop` calls `end`.
        unsafe { this.probing.poll(&this.socket, context) };
        // SAFETY: the waiter is pinned with the whole and never moved out of it.
        let waiter = unsafe { Pin::new_unchecked(&this.waiter) };
        // SAFETY: it is in the list of the socket alone, and `drop` takes it out.
        match unsafe { socket.waiters.register(waiter, context.waker(), || !socket.is_open()) } {
            Registered::Over => Poll::Ready(socket.close_reason().unwrap_or(CloseReason::Local)),
            Registered::New { .. } | Registered::Again => Poll::Pending,
        }
    }
}

impl<P: Probing> Drop for WaitClosed<P> {
    fn drop(&mut self) {
        // SAFETY: `poll` lists it there alone.
        unsafe { self.socket.waiters.remove(&self.waiter) };
        // SAFETY: `poll` used it for this socket alone.
        unsafe { self.probing.end(&self.socket) };
    }
}
