//! Accepting by IRP: `WskAccept` as a future.
//!
//! ```text
//!   Accept, with the connection core ── first poll: operation block from the cache ──▶ WskAccept(IRP)
//!     │                                                                              │
//!     │ dropped: cancel, walk away                                                   │ completes
//!     ▼                                                                              ▼
//!   a connection that came in spite of it is attached and closed by the reaper   Connection
//! ```
//!
//! The core of the connection-to-be is part of the request, so a connection that arrives always finds a home
//! and, in it, the IRP to close it with: neither a dropped future nor want of memory can leak a socket. It
//! moves in right in the completion routine, so that an unloading client knows of it.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use wsk_sys::nt::IRP;
use wsk_sys::{STATUS_FILE_FORCED_CLOSED, STATUS_INVALID_ADDRESS, WSK_SOCKET};

use super::Endpoints;
use super::shared::ListenerRef;
use crate::address::SockAddr;
use crate::connection::{Connection, ConnectionHandlers, ConnectionRef};
use crate::error::{Error, Operation, Result};
use crate::memory::{Cache, OutOfMemory};
use crate::operation::{self, Lazy, Op, Outcome, Request, Submission};
use crate::socket::{ListenTable, attach, reserve};

/// The memory that WSK reads and writes while an accept is under way.
struct AcceptRequest {
    listener: ListenerRef,
    connection: ConnectionRef,
    local: SockAddr,
    remote: SockAddr,
}

impl Request for AcceptRequest {
    fn close_if_dead(&self, outcome: Outcome) {
        self.listener.close_if_dead(outcome);
    }

    /// The socket belongs to the client from here on: it is counted, and closed when the client unloads, also
    /// if the future is never polled again.
    fn completed(&mut self, outcome: Outcome) {
        if let Ok(socket) = outcome.result(Operation::Accept) {
            // SAFETY: WSK has just made the socket, for the core of this request, and says so once.
            unsafe { attach(self.connection.socket(), socket as *mut WSK_SOCKET) };
        }
    }

    fn orphaned(self, _outcome: Outcome) {
        // A cancelled accept can have won all the same (rule LSN-31). A core without a socket closes nothing.
        self.connection.close_later();
    }
}

impl AcceptRequest {
    /// Calls `WskAccept`.
    ///
    /// # Safety
    /// `request` is live, not yet WSK's, and stays where it is until `irp`, which was prepared for it, has
    /// completed.
    unsafe fn submit_irp(listener: &ListenerRef, irp: *mut IRP, request: *mut Self) -> Submission {
        // SAFETY: the request is live and not yet WSK's.
        let (context, dispatch) = unsafe { &(*request).connection }.context_and_dispatch();
        // SAFETY: the request is live; only the address of a field is computed.
        let local = unsafe { &raw mut (*request).local }.cast();
        // SAFETY: the request is live; only the address of a field is computed.
        let remote = unsafe { &raw mut (*request).remote }.cast();
        let call = |handle, table: &ListenTable| {
            let accept = table.accept()?;
            // SAFETY: flags are zero; the context is the core of the connection-to-be, non-paged and
            // complete; the address buffers live in the request until the IRP has completed (rules LSN-09 to
            // LSN-20).
            Some(unsafe { accept(handle, 0, context, dispatch, local, remote, irp) })
        };
        // SAFETY: the operation has just prepared the IRP, which `call` submits or leaves alone.
        unsafe { listener.submit(irp, call) }
    }
}

/// An accept to come, with the connection-to-be.
struct AcceptOperation {
    listener: ListenerRef,
    /// Taken by the first poll.
    connection: Option<core::result::Result<ConnectionRef, OutOfMemory>>,
}

impl AcceptOperation {
    fn submit(
        &self,
        connection: core::result::Result<ConnectionRef, OutOfMemory>,
    ) -> Result<Op<AcceptRequest>> {
        let listener = &self.listener;
        let closed = || Error::new(Operation::Accept, STATUS_FILE_FORCED_CLOSED);
        let out_of_memory = |_| Error::out_of_memory(Operation::Accept);
        // Held from here on: the client's device, which the connection's IRPs are made with, is there
        // meanwhile. It comes before a failure for want of memory, so that a loop that has none ends with its
        // listener all the same.
        let _permit = listener.acquire().ok_or_else(closed)?;
        let connection = connection.map_err(out_of_memory)?;
        reserve(connection.socket()).map_err(out_of_memory)?;
        let (local, remote) = (SockAddr::unspecified(), SockAddr::unspecified());
        let request = AcceptRequest { listener: listener.clone(), connection, local, remote };
        let op =
            Op::try_new(listener.client().cache(), request).map_err(|(error, _)| out_of_memory(error))?;
        let call = |irp, request| {
            // SAFETY: `submit` passes the request, and an IRP that was prepared for it.
            unsafe { AcceptRequest::submit_irp(listener, irp, request) }
        };
        // SAFETY: the operation is new; `submit_irp` passes the IRP and the request's memory to `WskAccept`
        // alone.
        unsafe { op.submit(call) };
        Ok(op)
    }
}

impl operation::Operation for AcceptOperation {
    type Request = AcceptRequest;
    type Output = Result<Connection>;

    fn start(
        &mut self,
        _context: &Context<'_>,
    ) -> Poll<core::result::Result<Op<AcceptRequest>, Result<Connection>>> {
        let Some(connection) = self.connection.take() else { return Poll::Pending };
        Poll::Ready(self.submit(connection).map_err(Err))
    }

    fn finish(&mut self, outcome: Outcome, request: AcceptRequest) -> Result<Connection> {
        outcome.result(Operation::Accept)?;
        let (Some(local), Some(peer)) = (request.local.to_socket_addr(), request.remote.to_socket_addr())
        else {
            request.connection.close_later();
            return Err(Error::new(Operation::Accept, STATUS_INVALID_ADDRESS));
        };
        Ok(Connection::new(request.connection, Endpoints { local, peer }))
    }

    fn refuse(&mut self, error: Error) -> Option<Result<Connection>> {
        self.connection.take().map(|_| Err(error))
    }

    fn name(&self) -> Operation {
        Operation::Accept
    }

    fn cache(&self) -> &Cache {
        self.listener.client().cache()
    }
}

/// Future of [`Listener::accept`](super::Listener::accept).
#[must_use = "futures do nothing unless polled"]
pub struct Accept(Lazy<AcceptOperation>);

impl Accept {
    pub(super) fn new<H: ConnectionHandlers>(listener: ListenerRef, handlers: H) -> Self {
        let connection = Some(ConnectionRef::try_new(listener.client(), handlers));
        Self(Lazy::new(AcceptOperation { listener, connection }))
    }
}

impl Future for Accept {
    type Output = Result<Connection>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

operation::limited! {
    [] Accept, 0,
    /// A connection that was accepted is the result, also when the time was up.
}

impl fmt::Debug for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accept").finish_non_exhaustive()
    }
}
