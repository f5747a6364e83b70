//! What a connection can be asked to tell its owner: one trait per callback.

use wsk_sys::WSK_CLIENT_CONNECTION_DISPATCH;

use super::events;
use super::{Events, Indication, Taken};
use crate::memory::Ref;

/// Gets the data of a connection as it arrives (`WskReceiveEvent`), without a receive being posted.
///
/// # IRQL
/// Called at up to `DISPATCH_LEVEL`, in any thread, one call at a time per connection. It must not wait for
/// anything.
pub trait ReceiveHandler: Send + Sync + 'static {
    /// Takes all of the data, some of it, or none, or retains it.
    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a>;

    /// WSK has given the connection up, which is learnt at the latest by the next operation; it closes itself. Called once
    /// at most, and not when this side closes it. See [`Connection::closed`](super::Connection::closed) for when that is.
    ///
    /// # IRQL
    /// Called at up to `DISPATCH_LEVEL`, possibly in a completion routine: it must not wait, and not call operations of sockets.
    fn dead(&self) {}
}

/// Learns that the peer has disconnected (`WskDisconnectEvent`).
///
/// # IRQL
/// Called at up to `DISPATCH_LEVEL`, in any thread. It must not wait for anything.
pub trait DisconnectHandler: Send + Sync + 'static {
    /// The peer has disconnected. Not called for what this side did.
    fn disconnected(&self, kind: DisconnectKind);

    /// WSK has given the connection up, which is learnt at the latest by the next operation; it closes itself. Called once
    /// at most, and not when this side closes it. See [`Connection::closed`](super::Connection::closed) for when that is.
    ///
    /// # IRQL
    /// Called at up to `DISPATCH_LEVEL`, possibly in a completion routine: it must not wait, and not call operations of sockets.
    fn dead(&self) {}
}

/// How a peer disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisconnectKind {
    /// No more data will come; sending still works.
    Graceful,
    /// The connection is gone in both directions.
    Abortive,
}

/// Learns how many bytes of sends it is best to keep under way (`WskSendBacklogEvent`).
///
/// # IRQL
/// Called at up to `DISPATCH_LEVEL`, in any thread. It must not wait for anything.
pub trait SendBacklogHandler: Send + Sync + 'static {
    /// The ideal backlog changed; it is advice, and nothing is enforced.
    fn ideal_backlog(&self, bytes: usize);

    /// WSK has given the connection up, which is learnt at the latest by the next operation; it closes itself. Called once
    /// at most, and not when this side closes it. See [`Connection::closed`](super::Connection::closed) for when that is.
    ///
    /// # IRQL
    /// Called at up to `DISPATCH_LEVEL`, possibly in a completion routine: it must not wait, and not call operations of sockets.
    fn dead(&self) {}
}

impl<T: ReceiveHandler> ReceiveHandler for Ref<T> {
    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a> {
        (**self).receive(data)
    }

    fn dead(&self) {
        (**self).dead();
    }
}

impl<T: DisconnectHandler> DisconnectHandler for Ref<T> {
    fn disconnected(&self, kind: DisconnectKind) {
        (**self).disconnected(kind);
    }

    fn dead(&self) {
        (**self).dead();
    }
}

impl<T: SendBacklogHandler> SendBacklogHandler for Ref<T> {
    fn ideal_backlog(&self, bytes: usize) {
        (**self).ideal_backlog(bytes);
    }

    fn dead(&self) {
        (**self).dead();
    }
}

/// The handlers of a connection; every one of them is [`Unset`] or [`On`].
///
/// ```
/// # use wsk::{DisconnectHandler, DisconnectKind, Handlers};
/// struct Counter;
/// impl DisconnectHandler for Counter {
///     fn disconnected(&self, kind: DisconnectKind) {}
/// }
/// let handlers = Handlers::new().disconnect(Counter);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Handlers<R = Unset, D = Unset, B = Unset> {
    pub(super) receive: R,
    pub(super) disconnect: D,
    pub(super) backlog: B,
}

/// No handlers at all.
pub type NoEvents = Handlers;

/// An event that nobody handles; its entry in the table is null.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unset;

/// An event that `H` handles.
#[derive(Clone, Copy, Debug)]
pub struct On<H>(H);

impl Handlers {
    /// Handles nothing yet.
    pub const fn new() -> Self {
        Self { receive: Unset, disconnect: Unset, backlog: Unset }
    }
}

impl<D, B> Handlers<Unset, D, B> {
    /// Adds a handler for received data.
    pub fn receive<H: ReceiveHandler>(self, handler: H) -> Handlers<On<H>, D, B> {
        Handlers { receive: On(handler), disconnect: self.disconnect, backlog: self.backlog }
    }
}

impl<R, B> Handlers<R, Unset, B> {
    /// Adds a handler for the peer's disconnect.
    pub fn disconnect<H: DisconnectHandler>(self, handler: H) -> Handlers<R, On<H>, B> {
        Handlers { receive: self.receive, disconnect: On(handler), backlog: self.backlog }
    }
}

impl<R, D> Handlers<R, D, Unset> {
    /// Adds a handler for the ideal send backlog.
    pub fn send_backlog<H: SendBacklogHandler>(self, handler: H) -> Handlers<R, D, On<H>> {
        Handlers { receive: self.receive, disconnect: self.disconnect, backlog: On(handler) }
    }
}

/// The handlers of a connection as a type; only [`Handlers`] is one.
pub trait ConnectionEvents: sealed::Sealed + Send + Sync + Sized + 'static {
    /// The events that have a handler.
    const HANDLED: Events;
    /// The dispatch table, a constant of the handler types.
    #[doc(hidden)]
    const DISPATCH: &'static WSK_CLIENT_CONNECTION_DISPATCH;
    /// Tells the handlers that the connection is dead.
    #[doc(hidden)]
    fn dead(&self) {}
}

impl<R: ReceiveSlot, D: DisconnectSlot, B: BacklogSlot> ConnectionEvents for Handlers<R, D, B> {
    const HANDLED: Events = {
        let receive = if R::SET { Events::RECEIVE.bits() } else { 0 };
        let disconnect = if D::SET { Events::DISCONNECT.bits() } else { 0 };
        let backlog = if B::SET { Events::SEND_BACKLOG.bits() } else { 0 };
        Events::from_bits_truncate(receive | disconnect | backlog)
    };
    const DISPATCH: &'static WSK_CLIENT_CONNECTION_DISPATCH = &WSK_CLIENT_CONNECTION_DISPATCH {
        WskReceiveEvent: if R::SET { Some(events::receive_event::<R, D, B>) } else { None },
        WskDisconnectEvent: if D::SET { Some(events::disconnect_event::<R, D, B>) } else { None },
        WskSendBacklogEvent: if B::SET { Some(events::send_backlog_event::<R, D, B>) } else { None },
    };

    fn dead(&self) {
        self.receive.dead();
        self.disconnect.dead();
        self.backlog.dead();
    }
}

/// [`Unset`], or [`On`] a [`ReceiveHandler`].
pub trait ReceiveSlot: sealed::Sealed + Send + Sync + 'static {
    #[doc(hidden)]
    const SET: bool;
    #[doc(hidden)]
    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a>;
    #[doc(hidden)]
    fn dead(&self) {}
}

/// [`Unset`], or [`On`] a [`DisconnectHandler`].
pub trait DisconnectSlot: sealed::Sealed + Send + Sync + 'static {
    #[doc(hidden)]
    const SET: bool;
    #[doc(hidden)]
    fn disconnected(&self, kind: DisconnectKind);
    #[doc(hidden)]
    fn dead(&self) {}
}

/// [`Unset`], or [`On`] a [`SendBacklogHandler`].
pub trait BacklogSlot: sealed::Sealed + Send + Sync + 'static {
    #[doc(hidden)]
    const SET: bool;
    #[doc(hidden)]
    fn ideal_backlog(&self, bytes: usize);
    #[doc(hidden)]
    fn dead(&self) {}
}

impl ReceiveSlot for Unset {
    const SET: bool = false;

    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a> {
        data.refuse()
    }
}

impl<H: ReceiveHandler> ReceiveSlot for On<H> {
    const SET: bool = true;

    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a> {
        self.0.receive(data)
    }

    fn dead(&self) {
        self.0.dead();
    }
}

impl DisconnectSlot for Unset {
    const SET: bool = false;

    fn disconnected(&self, _kind: DisconnectKind) {}
}

impl<H: DisconnectHandler> DisconnectSlot for On<H> {
    const SET: bool = true;

    fn disconnected(&self, kind: DisconnectKind) {
        self.0.disconnected(kind);
    }

    fn dead(&self) {
        self.0.dead();
    }
}

impl BacklogSlot for Unset {
    const SET: bool = false;

    fn ideal_backlog(&self, _bytes: usize) {}
}

impl<H: SendBacklogHandler> BacklogSlot for On<H> {
    const SET: bool = true;

    fn ideal_backlog(&self, bytes: usize) {
        self.0.ideal_backlog(bytes);
    }

    fn dead(&self) {
        self.0.dead();
    }
}

mod sealed {
    pub trait Sealed {}
    impl<R, D, B> Sealed for super::Handlers<R, D, B> {}
    impl Sealed for super::Unset {}
    impl<H> Sealed for super::On<H> {}
}
