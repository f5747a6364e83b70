//! Connecting: `WskSocketConnect` as a future.
//!
//! ```text
//!   Provider::connect, with the connection core ── first poll ──▶ WskSocketConnect(IRP)
//!     │                                                              │
//!     │ dropped: cancel, walk away                                   │ completes
//!     ▼                                                              ▼
//!   a connection that came in spite of it is closed        WskGetLocalAddress ──▶ Connection
//! ```
//!
//! As with an accept, the core of the connection-to-be is part of the request, so that a socket that is made
//! always finds its core and, in it, the IRP to close it with.

use core::fmt;
use core::future::Future;
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use wsk_sys::nt::IRP;
use wsk_sys::{IPPROTO_TCP, SOCK_STREAM, STATUS_INVALID_ADDRESS, WSK_SOCKET};

use super::shared::ConnectionRef;
use super::{Connection, ConnectionHandlers, Handlers};
use crate::address::{Family, SockAddr};
use crate::client::Provider;
use crate::error::{Error, Operation, Result};
use crate::listener::Endpoints;
use crate::memory::{Cache, OutOfMemory};
use crate::operation::{self, Lazy, Limit, Limited, Op, Outcome, Request, Submission, Within};
use crate::socket::{ConnectionTable, ProviderTable, StepOperation, attach, local_address, reserve};

/// Builder for an outgoing [`Connection`]; see [`Provider::connector`].
///
/// ```
/// # use core::net::SocketAddr;
/// # use wsk::{Connection, Provider, Result};
/// # async fn example(provider: &Provider, from: SocketAddr, to: SocketAddr) -> Result<Connection> {
/// provider.connector().bind(from).connect(to).await
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing happens before `connect`"]
pub struct ConnectionBuilder<H = Handlers> {
    provider: Provider,
    handlers: H,
    local: Option<SocketAddr>,
}

impl ConnectionBuilder {
    pub(crate) fn new(provider: Provider) -> Self {
        Self { provider, handlers: Handlers::new(), local: None }
    }

    /// Gives the connection handlers for its events. They are all off until
    /// [enabled](super::Control::enable).
    pub fn handlers<H: ConnectionHandlers>(self, handlers: H) -> ConnectionBuilder<H> {
        ConnectionBuilder { provider: self.provider, handlers, local: self.local }
    }
}

impl<H: ConnectionHandlers> ConnectionBuilder<H> {
    /// Sets the local address, of the family of the address that is connected to. Without it, WSK chooses
    /// one.
    pub fn bind(mut self, local: SocketAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// Makes a socket, binds it and connects it, in one request (`WskSocketConnect`), and reads its local
    /// address (`WskGetLocalAddress`).
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future; not in completion routines.
    ///
    /// # Cancel safety
    /// May be dropped at any time: the attempt is cancelled, and a connection that comes in spite of it is
    /// closed.
    ///
    /// The future keeps the capture, so the client cannot unload before the attempt has ended.
    ///
    /// # Errors
    /// `STATUS_CONNECTION_REFUSED`, `STATUS_IO_TIMEOUT`, `STATUS_HOST_UNREACHABLE` and the like; those of a
    /// bind if there is a local address; `STATUS_INVALID_ADDRESS` if the families differ;
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn connect(self, to: SocketAddr) -> Connect {
        let Self { provider, handlers, local } = self;
        let connection = ConnectionRef::try_new(provider.client(), handlers);
        let operation = ConnectOperation { provider, connection: Some(connection), local, to };
        Connect { connect: Lazy::new(operation), named: None }
    }
}

/// Future of [`Provider::connect`] and [`ConnectionBuilder::connect`].
#[must_use = "futures do nothing unless polled"]
pub struct Connect {
    connect: Lazy<ConnectOperation>,
    /// The connection, while its local address is read, unless the time for that is up.
    named: Option<(Connection, Option<Lazy<StepOperation<ConnectionTable>>>)>,
}

impl Future for Connect {
    type Output = Result<Connection>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.named.is_none() {
            let connection = ready!(Pin::new(&mut this.connect).poll(context))?;
            // SAFETY: the socket is a connection, and the table is that of connections.
            let address = unsafe { local_address(connection.connection().socket()) };
            this.named = Some((connection, Some(Lazy::new(address))));
        }
        let Some((_, address)) = &mut this.named else { return Poll::Pending };
        let local = match address {
            Some(address) => ready!(Pin::new(address).poll(context))?,
            None => Endpoints::UNSPECIFIED.local,
        };
        let Some((connection, _)) = this.named.take() else { return Poll::Pending };
        connection.connection().common().state.lock().endpoints.local = local;
        Poll::Ready(Ok(connection))
    }
}

impl Connect {
    /// Gives the connect a time limit. When it expires the attempt is cancelled, and the future resolves when
    /// that has completed. A connection that was made is the result, also when the time was up; its local
    /// address may be unspecified then.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future; not in completion routines.
    ///
    /// # Cancel safety
    /// The same as that of the connect.
    ///
    /// # Errors
    /// Those of the connect; `STATUS_IO_TIMEOUT` in place of `STATUS_CANCELLED` once the time is up;
    /// `STATUS_INSUFFICIENT_RESOURCES` of [`Operation::Timer`] if there is no memory for the timer, and
    /// nothing has been begun then.
    pub fn within(self, limit: Duration) -> Within<Self> {
        Within::new(self, limit)
    }
}

impl Limited for Connect {
    fn end(&mut self, error: Option<Error>, _limit: Limit) {
        match &mut self.named {
            Some((_, address)) => *address = None,
            None => self.connect.end(error),
        }
    }

    fn cache(&self) -> &Cache {
        self.connect.cache()
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").finish_non_exhaustive()
    }
}

/// The memory that WSK reads while a connect is under way.
struct ConnectRequest {
    /// Keeps the capture until the IRP has completed (rule REG-21).
    provider: Provider,
    connection: ConnectionRef,
    local: SockAddr,
    remote: SockAddr,
}

impl Request for ConnectRequest {
    /// The request is made on the client, and there is no socket yet.
    fn close_if_dead(&self, _outcome: Outcome) {}

    /// The socket belongs to the client from here on, also if the future is never polled again.
    fn completed(&mut self, outcome: Outcome) {
        if let Ok(socket) = outcome.result(Operation::SocketConnect) {
            // SAFETY: WSK has just made the socket, for the core of this request, and says so once.
            unsafe { attach(self.connection.socket(), socket as *mut WSK_SOCKET) };
        }
    }

    fn orphaned(self, _outcome: Outcome) {
        // A core without a socket closes nothing.
        self.connection.close_later();
        drop(self.provider);
    }
}

impl ConnectRequest {
    /// Calls `WskSocketConnect`.
    ///
    /// # Safety
    /// `request` is live, not yet WSK's, and stays where it is until `irp`, which was prepared for it, has
    /// completed.
    unsafe fn submit_irp(provider: &Provider, irp: *mut IRP, request: *mut Self) -> Submission {
        // SAFETY: the request is live and not yet WSK's.
        let (context, dispatch) = unsafe { &(*request).connection }.context_and_dispatch();
        // SAFETY: the request is live; only the address of a field is computed.
        let local = unsafe { &raw mut (*request).local }.cast();
        // SAFETY: the request is live; only the address of a field is computed.
        let remote = unsafe { &raw mut (*request).remote }.cast();
        let call = |client, table: &ProviderTable| {
            let connect = table.socket_connect()?;
            // SAFETY: the client is captured and flags are zero; the context is the core of the
            // connection-to-be, non-paged and complete, with the table of its type; the addresses live in the
            // request until the IRP has completed; no owner and no descriptor are named.
            Some(unsafe {
                connect(
                    client,
                    SOCK_STREAM,
                    IPPROTO_TCP,
                    local,
                    remote,
                    0,
                    context,
                    dispatch,
                    core::ptr::null_mut(),
                    core::ptr::null_mut(),
                    core::ptr::null_mut(),
                    irp,
                )
            })
        };
        // SAFETY: the operation has just prepared the IRP, which `call` submits or leaves alone.
        unsafe { provider.submit(irp, call) }
    }
}

/// A connect to come, with the connection-to-be.
struct ConnectOperation {
    provider: Provider,
    /// Taken by the first poll.
    connection: Option<core::result::Result<ConnectionRef, OutOfMemory>>,
    local: Option<SocketAddr>,
    to: SocketAddr,
}

impl ConnectOperation {
    fn submit(
        &self,
        connection: core::result::Result<ConnectionRef, OutOfMemory>,
    ) -> Result<Op<ConnectRequest>> {
        let out_of_memory = |_| Error::out_of_memory(Operation::SocketConnect);
        let connection = connection.map_err(out_of_memory)?;
        let family = Family::of(&self.to);
        let local = self.local.unwrap_or(family.wildcard(0));
        if Family::of(&local) != family {
            return Err(Error::new(Operation::SocketConnect, STATUS_INVALID_ADDRESS));
        }
        // The capture keeps the client's device.
        reserve(connection.socket()).map_err(out_of_memory)?;
        let request = ConnectRequest {
            provider: self.provider.clone(),
            connection,
            local: SockAddr::from(local),
            remote: SockAddr::from(self.to),
        };
        let op = Op::try_new(self.provider.client().cache(), request)
            .map_err(|(error, _)| out_of_memory(error))?;
        let call = |irp, request| {
            // SAFETY: `submit` passes the request, and an IRP that was prepared for it.
            unsafe { ConnectRequest::submit_irp(&self.provider, irp, request) }
        };
        // SAFETY: the operation is new; `submit_irp` passes the IRP and the request's memory to WSK alone.
        unsafe { op.submit(call) };
        Ok(op)
    }
}

impl operation::Operation for ConnectOperation {
    type Request = ConnectRequest;
    type Output = Result<Connection>;

    fn start(
        &mut self,
        _context: &Context<'_>,
    ) -> Poll<core::result::Result<Op<ConnectRequest>, Result<Connection>>> {
        let Some(connection) = self.connection.take() else { return Poll::Pending };
        Poll::Ready(self.submit(connection).map_err(Err))
    }

    fn finish(&mut self, outcome: Outcome, request: ConnectRequest) -> Result<Connection> {
        outcome.result(Operation::SocketConnect)?;
        let endpoints = Endpoints { peer: self.to, ..Endpoints::UNSPECIFIED };
        Ok(Connection::new(request.connection, endpoints))
    }

    fn refuse(&mut self, error: Error) -> Option<Result<Connection>> {
        self.connection.take().map(|_| Err(error))
    }

    fn name(&self) -> Operation {
        Operation::SocketConnect
    }

    fn cache(&self) -> &Cache {
        self.provider.client().cache()
    }
}
