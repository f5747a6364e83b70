//! Accepting by IRP: `WskAccept` as a future.
//!
//! ```text
//!   Accept ── first poll: connection core and operation block from the cache ──▶ WskAccept(IRP)
//!     │                                                                              │
//!     │ dropped: cancel, walk away                                                   │ completes
//!     ▼                                                                              ▼
//!   a connection that came in spite of it is attached and closed by the reaper   Connection
//! ```
//!
//! The core of the connection-to-be is part of the request, so a connection that arrives always finds a home and,
//! in it, the IRP to close it with: neither a dropped future nor want of memory can leak a socket. It moves in right
//! in the completion routine, so that an unloading client knows of it.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use wsk_sys::nt::IRP;
use wsk_sys::{STATUS_FILE_FORCED_CLOSED, STATUS_INVALID_ADDRESS, WSK_PROVIDER_LISTEN_DISPATCH, WSK_SOCKET};

use super::{Endpoints, ListenerRef};
use crate::address::SockAddr;
use crate::connection::{Connection, ConnectionCore, ConnectionEvents};
use crate::error::{Error, Operation, Result};
use crate::operation::{Op, Outcome, Request, Submission};
use crate::socket::{Core, CoreRef, attach};

/// What WSK reads and writes while an accept is under way.
struct AcceptRequest<E: ConnectionEvents> {
    listener: ListenerRef,
    connection: CoreRef<ConnectionCore<E>>,
    local: SockAddr,
    remote: SockAddr,
}

impl<E: ConnectionEvents> Request for AcceptRequest<E> {
    fn close_if_dead(&self, outcome: Outcome) {
        self.listener.close_if_dead(outcome);
    }

    /// The socket belongs to the client from here on: it is counted, and closed when the client unloads, also if the
    /// future is never polled again.
    fn completed(&mut self, outcome: Outcome) {
        if let Ok(socket) = outcome.result(Operation::Accept) {
            // SAFETY: WSK has just made the socket, for the core of this request, and says so once.
            unsafe { attach(&self.connection, socket as *mut WSK_SOCKET) };
        }
    }

    fn orphaned(self, _outcome: Outcome) {
        // A cancelled accept can have won all the same (rule LSN-31). A core without a socket closes nothing.
        self.connection.socket().close_later();
    }
}

impl<E: ConnectionEvents> AcceptRequest<E> {
    /// Calls `WskAccept`.
    ///
    /// # Safety
    /// `request` is live, not yet WSK's, and stays where it is until `irp`, which was prepared for it, has completed.
    unsafe fn submit_irp(listener: &ListenerRef, irp: *mut IRP, request: *mut Self) -> Submission {
        // SAFETY: the request is live and not yet WSK's.
        let (context, dispatch) = ConnectionCore::context_and_dispatch(unsafe { &(*request).connection });
        // SAFETY: the request is live; only the address of a field is computed.
        let local = unsafe { &raw mut (*request).local }.cast();
        // SAFETY: the request is live; only the address of a field is computed.
        let remote = unsafe { &raw mut (*request).remote }.cast();
        let call = |handle: *mut WSK_SOCKET| {
            // SAFETY: rundown protection is held, so the socket is a listener that is not closing.
            let table = unsafe { (*handle).Dispatch }.cast::<WSK_PROVIDER_LISTEN_DISPATCH>();
            // SAFETY: the table is that of a listening socket; the member was always there.
            let accept = unsafe { (*table).WskAccept }?;
            // SAFETY: flags are zero; the context is the core of the connection-to-be, non-paged and complete; the
            // address buffers live in the request until the IRP has completed (rules LSN-09 to LSN-20).
            Some(unsafe { accept(handle, 0, context, dispatch, local, remote, irp) })
        };
        // SAFETY: the operation has just prepared the IRP, and `call` hands it to WSK or leaves it alone.
        unsafe { listener.submit(irp, call) }
    }
}

/// A connection to come; see [`Listener::accept`](super::Listener::accept).
#[must_use = "futures do nothing unless polled"]
pub struct Accept<E: ConnectionEvents> {
    state: State<E>,
}

enum State<E: ConnectionEvents> {
    Start(ListenerRef, E),
    Waiting(Op<AcceptRequest<E>>),
    Finished,
}

impl<E: ConnectionEvents> Accept<E> {
    pub(super) fn new(listener: ListenerRef, events: E) -> Self {
        Self { state: State::Start(listener, events) }
    }

    fn start(listener: &ListenerRef, events: E) -> Result<Op<AcceptRequest<E>>> {
        // Said before memory is asked for: a loop that has none ends with its listener all the same.
        if !listener.is_open() {
            return Err(Error::new(Operation::Accept, STATUS_FILE_FORCED_CLOSED));
        }
        let out_of_memory = || Error::out_of_memory(Operation::Accept);
        // Held from here on: the client's device, which the connection's IRPs are made with, is there meanwhile.
        let Some(_permit) = listener.call() else {
            return Err(Error::new(Operation::Accept, STATUS_FILE_FORCED_CLOSED));
        };
        let connection = ConnectionCore::try_new(listener.client(), events).map_err(|_| out_of_memory())?;
        let (local, remote) = (SockAddr::unspecified(), SockAddr::unspecified());
        let client = listener.client().clone();
        let request = AcceptRequest { listener: listener.clone(), connection, local, remote };
        let op = Op::try_new(client.cache(), request).map_err(|_| out_of_memory())?;
        let call = |irp, request| {
            // SAFETY: `submit` passes the request, and an IRP that was prepared for it.
            unsafe { AcceptRequest::submit_irp(listener, irp, request) }
        };
        // SAFETY: the operation is new; `submit_irp` passes the IRP and the request's memory to `WskAccept` alone.
        unsafe { op.submit(call) };
        Ok(op)
    }

    fn finish(outcome: Outcome, request: AcceptRequest<E>) -> Result<Connection<E>> {
        outcome.result(Operation::Accept)?;
        let local = request.local.to_socket_addr();
        let remote = request.remote.to_socket_addr();
        let invalid = || Error::new(Operation::Accept, STATUS_INVALID_ADDRESS);
        if local.is_none() || remote.is_none() {
            request.connection.socket().close_later();
        }
        let endpoints = Endpoints { local: local.ok_or_else(invalid)?, remote: remote.ok_or_else(invalid)? };
        Ok(Connection::new(request.connection, endpoints))
    }
}

// Nothing in it is ever pinned: operations live in their own blocks.
impl<E: ConnectionEvents> Unpin for Accept<E> {}

impl<E: ConnectionEvents> Future for Accept<E> {
    type Output = Result<Connection<E>>;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let op = match core::mem::replace(&mut self.state, State::Finished) {
            State::Start(listener, events) => Self::start(&listener, events)?,
            State::Waiting(op) => op,
            State::Finished => return Poll::Pending,
        };
        match op.poll(context) {
            Ok((outcome, request)) => Poll::Ready(Self::finish(outcome, request)),
            Err(op) => {
                self.state = State::Waiting(op);
                Poll::Pending
            }
        }
    }
}

impl<E: ConnectionEvents> fmt::Debug for Accept<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Start(..) => "Accept(not started)",
            State::Waiting(_) => "Accept(waiting)",
            State::Finished => "Accept(finished)",
        })
    }
}
