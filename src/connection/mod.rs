//! A connection: receiving, sending, disconnecting, closing, and its events.
//!
//! ```text
//!                       disconnect                 peer's FIN
//!            ┌──────────▶ sending over ─────────────────┐
//!  connected ┤                                          ▼
//!            │ peer's FIN                         fully closed ──close──▶ closed, without a reset
//!            ├──────────▶ receiving over ──disconnect───┘
//!            │
//!            └ abort, the peer's reset, or close: reset
//! ```
//!
//! All operations may be under way together: one receive, any number of sends, a disconnect. Buffers are passed
//! by value and come back with the result, because WSK has them in between. Dropping the handle closes the
//! connection in the background; if it was not disconnected in both directions, the peer sees a reset.

mod disconnect;
mod events;
mod handlers;
mod indicated;
mod indication;
mod receive;
mod send;
mod sends;
mod turn;

use core::ffi::c_void;
use core::fmt;
use core::future::Future;
use core::mem::size_of;
use core::net::SocketAddr;

use bitflags::bitflags;
use wsk_sys::{
    SIO_WSK_QUERY_IDEAL_SEND_BACKLOG, SIO_WSK_QUERY_RECEIVE_BACKLOG, WSK_CLIENT_CONNECTION_DISPATCH,
    WSK_DATA_INDICATION, WskIoctl,
};

pub use crate::socket::CloseReason;
pub use disconnect::Disconnect;
pub use handlers::{
    BacklogSlot, ConnectionEvents, DisconnectHandler, DisconnectKind, DisconnectSlot, Handlers, NoEvents, On,
    ReceiveHandler, ReceiveSlot, SendBacklogHandler, Unset,
};
use indicated::Indicated;
pub use indication::{Indication, RetainedData, Taken};
use receive::Kept;
pub use receive::{Drain, Receive, ReceiveFlags};
pub use send::{SendFlags, Sending};
use sends::Sends;
use turn::Turn;

use crate::address;
use crate::client::ClientShared;
use crate::error::{Error, Operation, Result};
use crate::listener::{Endpoints, InspectId};
use crate::memory::{OutOfMemory, Ref};
use crate::socket::{
    Closed, Control, Core, CoreRef, Disabled, Silent, Socket, SocketRef, WaitClosed, control, disable_event,
    disable_event_and_wait, enable_events, query_inspect_id, reserve,
};
use crate::sync::SpinLock;

bitflags! {
    /// The events of a connection (`SO_WSK_EVENT_CALLBACK`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Events: u32 {
        /// Data comes to the [`ReceiveHandler`].
        const RECEIVE = wsk_sys::WSK_EVENT_RECEIVE;
        /// The peer's disconnect comes to the [`DisconnectHandler`].
        const DISCONNECT = wsk_sys::WSK_EVENT_DISCONNECT;
        /// Changes of the ideal send backlog come to the [`SendBacklogHandler`].
        const SEND_BACKLOG = wsk_sys::WSK_EVENT_SEND_BACKLOG;
    }
}

/// The part of a connection that does not depend on its handlers.
#[repr(C)]
pub(crate) struct ConnectionCommon {
    socket: Socket,
    /// Who has the one receive; see `receive`.
    turn: Turn,
    /// Bytes that arrived for a receive nobody waits for any more.
    kept: SpinLock<Option<Kept>>,
    /// The indication whose callback is running; see `indication`.
    indicated: Indicated<WSK_DATA_INDICATION>,
    sends: Sends,
}

/// # Invariants
/// Its address is the socket context of the connection, when it has handlers; WSK holds a reference from `attach`
/// until the close has completed.
#[repr(C)]
pub(crate) struct ConnectionCore<E: ConnectionEvents> {
    common: ConnectionCommon,
    events: E,
}

// SAFETY: `repr(C)`, and the socket is the first field of the first field; `try_new` makes it with the `Lifetime` of this type.
unsafe impl<E: ConnectionEvents> Core for ConnectionCore<E> {
    fn socket(&self) -> &Socket {
        &self.common.socket
    }

    unsafe fn dead(&self) {
        self.events.dead();
    }
}

impl<E: ConnectionEvents> ConnectionCore<E> {
    pub(crate) fn try_new(
        client: &Ref<ClientShared>,
        events: E,
    ) -> core::result::Result<CoreRef<Self>, OutOfMemory> {
        let make = |events| {
            let common = ConnectionCommon {
                socket: Socket::new::<Self>(client.clone()),
                turn: Turn::new(),
                kept: SpinLock::new(None),
                indicated: Indicated::new(),
                sends: Sends::new(),
            };
            Self { common, events }
        };
        let core = Ref::try_make(Some(client.cache()), events, make).map_err(|(error, _)| error)?;
        let core = CoreRef::new(core);
        reserve(&core)?;
        Ok(core)
    }

    /// What WSK gets as the connection's context and table: null for both when no event will ever be enabled
    /// (rules LSN-13, LSN-15).
    pub(crate) fn context_and_dispatch(
        core: &Ref<Self>,
    ) -> (*mut c_void, *const WSK_CLIENT_CONNECTION_DISPATCH) {
        if E::HANDLED.is_empty() {
            (core::ptr::null_mut(), core::ptr::null())
        } else {
            (Ref::as_ptr(core).cast_mut().cast(), E::DISPATCH)
        }
    }
}

/// A reference on a connection with any handlers.
#[derive(Clone)]
pub(crate) struct ConnectionRef(SocketRef);

impl ConnectionRef {
    fn new<E: ConnectionEvents>(core: &Ref<ConnectionCore<E>>) -> Self {
        Self(SocketRef::new(core))
    }

    fn common(&self) -> &ConnectionCommon {
        // SAFETY: the reference was made from a `ConnectionCore`, which begins with its common part, which begins
        // with the socket that the pointer leads to; the pointer reaches the whole core.
        unsafe { self.0.as_ptr().cast::<ConnectionCommon>().as_ref() }
    }
}

impl core::ops::Deref for ConnectionRef {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.0
    }
}

/// An established connection. Dropping it closes it in the background; see [`Connection::close`] and
/// [`Connection::disconnect`]. A close waits for [`RetainedData`] to be dropped.
///
/// Its handlers are dropped when the close has completed and neither the handle nor an operation or future of it is left, at up
/// to `DISPATCH_LEVEL`, never inside the `Drop` of another socket's handlers. So a handler must not keep those of its own
/// connection for good: that is a circle of memory that nobody frees. [`RetainedData`] that it keeps holds up the close besides,
/// and with it the unloading.
pub struct Connection<E: ConnectionEvents = NoEvents> {
    core: CoreRef<ConnectionCore<E>>,
    endpoints: Endpoints,
}

impl<E: ConnectionEvents> Connection<E> {
    pub(crate) fn new(core: CoreRef<ConnectionCore<E>>, endpoints: Endpoints) -> Self {
        Self { core, endpoints }
    }

    fn reference(&self) -> ConnectionRef {
        ConnectionRef::new(&self.core)
    }

    /// The address the peer connected to; an IPv4 one also where the socket is an IPv6 one
    /// ([`address::canonical`]).
    pub fn local_addr(&self) -> SocketAddr {
        address::canonical(self.endpoints.local)
    }

    /// As [`Self::local_addr`], as WSK gave it: an IPv4-mapped address stays one.
    pub fn raw_local_addr(&self) -> SocketAddr {
        self.endpoints.local
    }

    /// The address the peer came from; an IPv4 one also where the socket is an IPv6 one
    /// ([`address::canonical`]).
    pub fn peer_addr(&self) -> SocketAddr {
        address::canonical(self.endpoints.remote)
    }

    /// As [`Self::peer_addr`], as WSK gave it: an IPv4-mapped address stays one.
    pub fn raw_peer_addr(&self) -> SocketAddr {
        self.endpoints.remote
    }

    /// The handlers.
    pub fn events(&self) -> &E {
        &self.core.events
    }

    /// Whether the connection can still be used, as far as is known; a dead connection closes itself. See
    /// [`Connection::closed`].
    pub fn is_open(&self) -> bool {
        self.core.socket().is_open()
    }

    /// Waits until the connection is closed, and says why: WSK has given it up, or this side closes it. This is not the
    /// peer's disconnect, after which the connection is still there.
    ///
    /// Any number of tasks may wait, beside operations that are under way, and whether or not events are on. It resolves as
    /// soon as the death is known, which [`RetainedData`] does not put off: at once if the receive event is on or an operation
    /// is under way, because WSK ends those; else WSK says nothing by itself, and the connection is asked several times a second,
    /// with a call that needs no memory (`SIO_WSK_QUERY_INSPECT_ID`). The future outlives the connection, whose memory and
    /// handlers it keeps.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future; not in completion routines.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// ```
    /// # use wsk::connection::{CloseReason, Connection};
    /// # use wsk::executor::Spawner;
    /// # fn example(connection: &Connection, spawner: &Spawner) -> wsk::Result<()> {
    /// let closed = connection.closed();
    /// spawner.spawn(async move {
    ///     if closed.await == CloseReason::Dead {
    ///         // Say so to whoever looks after the connections.
    ///     }
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn closed(&self) -> impl Future<Output = CloseReason> + Send + 'static {
        WaitClosed::<Silent>::new(SocketRef::new(&self.core))
    }

    /// The ID of the inspection this connection went through (`SIO_WSK_QUERY_INSPECT_ID`).
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` when its listener was not conditional.
    pub fn inspect_id(&self) -> Result<InspectId> {
        let (outcome, id) = query_inspect_id(&SocketRef::new(&self.core));
        outcome.result(Operation::QueryInspectId).map(|_| InspectId::from_raw(&id))
    }

    /// How many bytes of sends it is best to keep under way (`SIO_WSK_QUERY_IDEAL_SEND_BACKLOG`); advice only.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// # Errors
    /// Whatever WSK answers.
    pub fn ideal_send_backlog(&self) -> impl Future<Output = Result<usize>> + Send + 'static {
        query(SocketRef::new(&self.core), SIO_WSK_QUERY_IDEAL_SEND_BACKLOG)
    }

    /// How many received bytes wait to be read (`SIO_WSK_QUERY_RECEIVE_BACKLOG`).
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// # Errors
    /// Whatever WSK answers.
    pub fn receive_backlog(&self) -> impl Future<Output = Result<usize>> + Send + 'static {
        query(SocketRef::new(&self.core), SIO_WSK_QUERY_RECEIVE_BACKLOG)
    }

    /// Switches events on (`SO_WSK_EVENT_CALLBACK`); those that are on stay on. They may come before this returns,
    /// for data that is there already.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`; allowed inside the accept handler.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` for an event that the connection has no handler for.
    pub fn enable(&self, events: Events) -> Result<()> {
        if events.is_empty() || !E::HANDLED.contains(events) {
            return Err(Error::new(Operation::EventCallbacks, wsk_sys::STATUS_INVALID_PARAMETER));
        }
        enable_events(&SocketRef::new(&self.core), events.bits())
    }

    /// Switches one event off, without waiting for a call in progress.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`; allowed inside the handler.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` unless `event` is exactly one event (rule EVT-28), or whatever WSK answers.
    pub fn disable(&self, event: Events) -> Result<Disabled> {
        disable_event(&SocketRef::new(&self.core), one(event)?)
    }

    /// Switches one event off and waits until no call of its handler is in progress.
    ///
    /// # Cancel safety
    /// The event is off, or goes off, also when this is dropped; only the waiting ends.
    ///
    /// # Errors
    /// As for [`Connection::disable`].
    pub fn disable_and_wait(&self, event: Events) -> impl Future<Output = Result<()>> + Send + 'static {
        let socket = SocketRef::new(&self.core);
        async move { disable_event_and_wait(socket, one(event)?).await }
    }

    /// Closes the socket (`WskCloseSocket`) and waits until no callback of it runs or will run. What is under way
    /// ends with `STATUS_CANCELLED`; unless the connection was disconnected in both directions, it is reset.
    ///
    /// # Cancel safety
    /// The close goes on when this is dropped.
    pub fn close(self) -> impl Future<Output = ()> + Send + 'static {
        Closed::new(SocketRef::new(&self.core))
    }
}

/// Exactly one event.
fn one(event: Events) -> Result<u32> {
    if event.bits().is_power_of_two() && Events::all().contains(event) {
        Ok(event.bits())
    } else {
        Err(Error::new(Operation::EventCallbacks, wsk_sys::STATUS_INVALID_PARAMETER))
    }
}

/// Reads one `SIZE_T`.
async fn query(socket: SocketRef, code: u32) -> Result<usize> {
    let what = Control {
        operation: Operation::Ioctl,
        request: WskIoctl,
        code,
        level: 0,
        input: 0,
        output: size_of::<usize>(),
    };
    control(socket, what, 0_usize).await.map(|(output, _)| output[0])
}

impl<E: ConnectionEvents> Drop for Connection<E> {
    fn drop(&mut self) {
        self.core.socket().close_later();
    }
}

impl<E: ConnectionEvents> fmt::Debug for Connection<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}
