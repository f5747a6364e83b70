//! The handle that watches and ends a connection without keeping it open.

use core::fmt;
use core::future::Future;
use core::mem::size_of;
use core::net::SocketAddr;

use bitflags::bitflags;
use wsk_sys::{SIO_WSK_QUERY_IDEAL_SEND_BACKLOG, SIO_WSK_QUERY_RECEIVE_BACKLOG, WskIoctl};

use super::Abort;
use super::shared::ConnectionRef;
use crate::address;
use crate::error::{Error, Operation, Result};
use crate::listener::{Endpoints, InspectId};
use crate::options::{GetOption, SetOption, kind};
use crate::socket::{
    CloseReason, Closed, ControlCode, Disabled, SocketRef, WaitClosed, control, disable_event,
    disable_event_and_wait, enable_events, get_option, one_event, query_inspect_id, set_option,
};

bitflags! {
    /// Events of a connection (`SO_WSK_EVENT_CALLBACK`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Events: u32 {
        /// Data comes to the [`ReceiveHandler`](crate::ReceiveHandler).
        const RECEIVE = wsk_sys::WSK_EVENT_RECEIVE;
        /// The peer's disconnect comes to the [`DisconnectHandler`](crate::DisconnectHandler).
        const DISCONNECT = wsk_sys::WSK_EVENT_DISCONNECT;
        /// Changes of the ideal send backlog come to the [`SendBacklogHandler`](crate::SendBacklogHandler).
        const SEND_BACKLOG = wsk_sys::WSK_EVENT_SEND_BACKLOG;
    }
}

/// A handle that watches and ends a [`Connection`](crate::Connection), but does not keep it open.
///
/// Clones are cheap and may go anywhere, to a watchdog for instance. What is done with it takes effect
/// the user of the connection at that time. It keeps the memory of the connection, and its handlers.
///
/// ```
/// # use core::time::Duration;
/// # use wsk::executor::Spawner;
/// # use wsk::time::sleep;
/// # use wsk::{Connection, Result};
/// /// Resets the connection unless it is closed within a minute.
/// fn watch(connection: &Connection, spawner: &Spawner) -> Result<()> {
///     let control = connection.control();
///     spawner.spawn(async move {
///         if sleep(Duration::from_secs(60)).await.is_ok() && control.is_open() {
///             // It fails if the connection is gone already.
///             let _ = control.abort().await;
///         }
///     })?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Control {
    connection: ConnectionRef,
}

impl Control {
    pub(super) fn new(connection: ConnectionRef) -> Self {
        Self { connection }
    }

    pub(super) fn connection(&self) -> &ConnectionRef {
        &self.connection
    }

    fn socket(&self) -> &SocketRef {
        self.connection.socket()
    }

    fn endpoints(&self) -> Endpoints {
        self.connection.common().state.lock().endpoints
    }

    /// Returns the address the peer connected to, in canonical form: an IPv4 address also where the socket is
    /// an IPv6 one.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    pub fn local_addr(&self) -> SocketAddr {
        address::canonical(self.raw_local_addr())
    }

    /// Returns [`Self::local_addr`] as WSK gave it: an IPv4-mapped address stays one.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    pub fn raw_local_addr(&self) -> SocketAddr {
        self.endpoints().local
    }

    /// Returns the address of the peer, in canonical form: an IPv4 address also where the socket is an IPv6
    /// one.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    pub fn peer_addr(&self) -> SocketAddr {
        address::canonical(self.raw_peer_addr())
    }

    /// Returns [`Self::peer_addr`] as WSK gave it: an IPv4-mapped address stays one.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    pub fn raw_peer_addr(&self) -> SocketAddr {
        self.endpoints().peer
    }

    /// Returns whether the connection can still be used, as far as is known; a dead connection closes itself.
    /// See [`Control::closed`].
    pub fn is_open(&self) -> bool {
        self.connection.is_open()
    }

    /// Waits until the connection is closed, and returns the reason: WSK has given it up, or this side closes
    /// it. The peer's disconnect is no such reason: the connection is still there then.
    ///
    /// Any number of tasks may wait, beside operations that are under way, and whether or not events are on.
    /// It resolves as soon as the death is known, which [`RetainedData`](crate::RetainedData) does not put
    /// off: at once if the receive event is on or an operation is under way, because WSK ends those.
    /// Otherwise WSK reports nothing by itself, and the connection is asked several times a second, with a
    /// call that needs no memory (`SIO_WSK_QUERY_INSPECT_ID`). The future outlives the connection, whose
    /// memory and handlers it keeps.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future; not in completion routines.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// ```
    /// # use wsk::executor::Spawner;
    /// # use wsk::{CloseReason, Connection};
    /// # fn example(connection: &Connection, spawner: &Spawner) -> wsk::Result<()> {
    /// let closed = connection.closed();
    /// spawner.spawn(async move {
    ///     if closed.await == CloseReason::Dead {
    ///         // Report it.
    ///     }
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn closed(&self) -> impl Future<Output = CloseReason> + Send + use<> {
        WaitClosed::new(self.socket().clone(), true)
    }

    /// Ends both directions at once (`WskDisconnect` with `WSK_FLAG_ABORTIVE`): the peer sees a reset, and
    /// operations that are under way fail.
    ///
    /// # Cancel safety
    /// Once polled, it takes effect also when dropped.
    ///
    /// # Errors
    /// `STATUS_CONNECTION_RESET` and the like, `STATUS_FILE_FORCED_CLOSED`, `STATUS_CANCELLED`,
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn abort(&self) -> Abort {
        Abort::new(&self.connection)
    }

    /// Closes the connection (`WskCloseSocket`) and waits until no callback of it runs or will run.
    /// Operations that are under way end with `STATUS_CANCELLED`. Unless both sides have ended their
    /// direction, the peer sees a reset.
    ///
    /// The close waits for [`RetainedData`](crate::RetainedData) to be dropped.
    ///
    /// # Cancel safety
    /// The close goes on when this is dropped.
    pub fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        Closed::new(self.socket().clone())
    }

    /// Returns the ID of the inspection that the connection went through (`SIO_WSK_QUERY_INSPECT_ID`).
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` when its listener was not conditional.
    pub fn inspect_id(&self) -> Result<InspectId> {
        let (outcome, id) = query_inspect_id(self.socket());
        outcome.result(Operation::QueryInspectId).map(|_| InspectId::from_raw(&id))
    }

    /// Reads the number of bytes of sends that is best kept under way (`SIO_WSK_QUERY_IDEAL_SEND_BACKLOG`).
    /// It is advice only.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// # Errors
    /// Any error of WSK.
    pub fn ideal_send_backlog(&self) -> impl Future<Output = Result<usize>> + Send + use<> {
        query(self.socket().clone(), SIO_WSK_QUERY_IDEAL_SEND_BACKLOG)
    }

    /// Reads the number of received bytes that wait to be read (`SIO_WSK_QUERY_RECEIVE_BACKLOG`).
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// # Errors
    /// Any error of WSK.
    pub fn receive_backlog(&self) -> impl Future<Output = Result<usize>> + Send + use<> {
        query(self.socket().clone(), SIO_WSK_QUERY_RECEIVE_BACKLOG)
    }

    /// Sets an option (`WskControlSocket`).
    ///
    /// # Cancel safety
    /// Once polled, the option is set, or goes to be set, also when this is dropped.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, and any error of WSK.
    ///
    /// ```
    /// # use wsk::options::{KeepAlive, KeepAliveIdle};
    /// # async fn example(connection: wsk::Connection) -> wsk::Result<()> {
    /// connection.set(KeepAliveIdle(60)).await?;
    /// connection.set(KeepAlive(true)).await?;
    /// let KeepAliveIdle(seconds) = connection.get().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set<O: SetOption<kind::Connection>>(
        &self,
        option: O,
    ) -> impl Future<Output = Result<()>> + Send + use<O> {
        set_option(self.socket().clone(), O::LEVEL, O::NAME, option.to_raw())
    }

    /// Reads an option (`WskControlSocket`).
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, and any error of WSK.
    pub fn get<O: GetOption<kind::Connection>>(&self) -> impl Future<Output = Result<O>> + Send + use<O> {
        let read = get_option(self.socket().clone(), O::LEVEL, O::NAME);
        async move { read.await.map(O::from_raw) }
    }

    /// Switches events on (`SO_WSK_EVENT_CALLBACK`); those that are on stay on. They may come before this
    /// returns, for data that is there already.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`; allowed inside the accept handler.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` for an event that the connection has no handler for.
    pub fn enable(&self, events: Events) -> Result<()> {
        if events.is_empty() || !self.connection.handled().contains(events) {
            return Err(Error::new(Operation::EventCallbacks, wsk_sys::STATUS_INVALID_PARAMETER));
        }
        enable_events(self.socket(), events.bits())
    }

    /// Switches one event off, without waiting for a call in progress.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`; allowed inside the handler.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` unless `event` is exactly one event (rule EVT-28), and any error of WSK.
    pub fn disable(&self, event: Events) -> Result<Disabled> {
        disable_event(self.socket(), one_event(event.bits(), Events::all().bits())?)
    }

    /// Switches one event off and waits until no call of its handler is in progress.
    ///
    /// # Cancel safety
    /// The event is off, or goes off, also when this is dropped; only the waiting ends.
    ///
    /// # Errors
    /// The same as those of [`Control::disable`].
    pub fn disable_and_wait(&self, event: Events) -> impl Future<Output = Result<()>> + Send + use<> {
        let socket = self.socket().clone();
        async move { disable_event_and_wait(socket, one_event(event.bits(), Events::all().bits())?).await }
    }
}

/// Reads one `SIZE_T`.
async fn query(socket: SocketRef, code: u32) -> Result<usize> {
    let what = ControlCode {
        operation: Operation::Ioctl,
        request: WskIoctl,
        code,
        level: 0,
        input: 0,
        output: size_of::<usize>(),
    };
    control(socket, what, 0_usize).await.map(|(output, _)| output[0])
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoints { local, peer } = self.endpoints();
        f.debug_struct("Control").field("local", &local).field("peer", &peer).finish_non_exhaustive()
    }
}
