//! Handlers of the events of a connection: one trait per callback.

use wsk_sys::WSK_CLIENT_CONNECTION_DISPATCH;

use super::{Events, Indication, Taken, events};
use crate::memory::Ref;

/// Handler of data as it arrives (`WskReceiveEvent`), without a receive being posted.
///
/// # IRQL
/// Called at up to `DISPATCH_LEVEL`, in any thread, one call at a time per connection. It must not wait for
/// anything.
pub trait ReceiveHandler: Send + Sync + 'static {
    /// Takes all of the data, some of it, or none, or retains it.
    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a>;

    /// Called when WSK has given the connection up, which shows at the latest in the next operation; the
    /// connection closes itself. Called at most once, and not when this side closes it. See
    /// [`Control::closed`](super::Control::closed) for when that is.
    ///
    /// # IRQL
    /// Called at up to `DISPATCH_LEVEL`, possibly in a completion routine: it must not wait, and not call
    /// operations of sockets.
    fn dead(&self) {}
}

/// Handler of the peer's disconnect (`WskDisconnectEvent`).
///
/// # IRQL
/// Called at up to `DISPATCH_LEVEL`, in any thread. It must not wait for anything.
pub trait DisconnectHandler: Send + Sync + 'static {
    /// Called when the peer has disconnected, not when this side has.
    fn disconnected(&self, kind: DisconnectKind);

    /// Called when WSK has given the connection up, which shows at the latest in the next operation; the
    /// connection closes itself. Called at most once, and not when this side closes it. See
    /// [`Control::closed`](super::Control::closed) for when that is.
    ///
    /// # IRQL
    /// Called at up to `DISPATCH_LEVEL`, possibly in a completion routine: it must not wait, and not call
    /// operations of sockets.
    fn dead(&self) {}
}

/// Kind of a peer's disconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisconnectKind {
    /// No more data will come; sending still works.
    Graceful,
    /// The connection is gone in both directions.
    Abortive,
}

/// Handler of changes of the ideal send backlog (`WskSendBacklogEvent`).
///
/// # IRQL
/// Called at up to `DISPATCH_LEVEL`, in any thread. It must not wait for anything.
pub trait SendBacklogHandler: Send + Sync + 'static {
    /// Called when the number of bytes of sends that is best kept under way has changed. It is advice, and
    /// not enforced.
    fn ideal_backlog(&self, bytes: usize);

    /// Called when WSK has given the connection up, which shows at the latest in the next operation; the
    /// connection closes itself. Called at most once, and not when this side closes it. See
    /// [`Control::closed`](super::Control::closed) for when that is.
    ///
    /// # IRQL
    /// Called at up to `DISPATCH_LEVEL`, possibly in a completion routine: it must not wait, and not call
    /// operations of sockets.
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

/// The handlers of a connection, put together one by one. An event without a handler cannot be enabled.
///
/// ```
/// # use wsk::{DisconnectHandler, DisconnectKind, Handlers};
/// struct Counter;
/// impl DisconnectHandler for Counter {
///     fn disconnected(&self, kind: DisconnectKind) {}
/// }
/// let handlers = Handlers::new().disconnect(Counter);
/// ```
///
/// The parameters are the types of the handlers for received data, the peer's disconnect and the send
/// backlog, `()` for none. They have to be written where an [`AcceptHandler`](crate::AcceptHandler) says
/// which handlers its connections get: `type Handlers = Handlers<(), Counter>;`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handlers<R = (), D = (), B = ()> {
    pub(super) receive: R,
    pub(super) disconnect: D,
    pub(super) send_backlog: B,
}

impl Handlers {
    /// Creates a set without any handler.
    pub const fn new() -> Self {
        Self { receive: (), disconnect: (), send_backlog: () }
    }
}

impl<D, B> Handlers<(), D, B> {
    /// Adds a handler for received data.
    pub fn receive<H: ReceiveHandler>(self, handler: H) -> Handlers<H, D, B> {
        Handlers { receive: handler, disconnect: self.disconnect, send_backlog: self.send_backlog }
    }
}

impl<R, B> Handlers<R, (), B> {
    /// Adds a handler for the peer's disconnect.
    pub fn disconnect<H: DisconnectHandler>(self, handler: H) -> Handlers<R, H, B> {
        Handlers { receive: self.receive, disconnect: handler, send_backlog: self.send_backlog }
    }
}

impl<R, D> Handlers<R, D, ()> {
    /// Adds a handler for the ideal send backlog.
    pub fn send_backlog<H: SendBacklogHandler>(self, handler: H) -> Handlers<R, D, H> {
        Handlers { receive: self.receive, disconnect: self.disconnect, send_backlog: handler }
    }
}

/// A set of handlers for a connection: [`Handlers`] with any of them. Sealed.
pub trait ConnectionHandlers: sealed::Sealed + Send + Sync + Sized + 'static {
    /// The events that have a handler.
    const HANDLED: Events;
    #[doc(hidden)]
    const DISPATCH: &'static WSK_CLIENT_CONNECTION_DISPATCH;
    #[doc(hidden)]
    fn dead(&self);
}

impl<R: ReceiveSlot, D: DisconnectSlot, B: BacklogSlot> ConnectionHandlers for Handlers<R, D, B> {
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
        self.send_backlog.dead();
    }
}

/// A [`ReceiveHandler`], or `()` for none.
pub trait ReceiveSlot: Send + Sync + 'static {
    #[doc(hidden)]
    const SET: bool;
    #[doc(hidden)]
    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a>;
    #[doc(hidden)]
    fn dead(&self) {}
}

/// A [`DisconnectHandler`], or `()` for none.
pub trait DisconnectSlot: Send + Sync + 'static {
    #[doc(hidden)]
    const SET: bool;
    #[doc(hidden)]
    fn disconnected(&self, _kind: DisconnectKind) {}
    #[doc(hidden)]
    fn dead(&self) {}
}

/// A [`SendBacklogHandler`], or `()` for none.
pub trait BacklogSlot: Send + Sync + 'static {
    #[doc(hidden)]
    const SET: bool;
    #[doc(hidden)]
    fn ideal_backlog(&self, _bytes: usize) {}
    #[doc(hidden)]
    fn dead(&self) {}
}

impl ReceiveSlot for () {
    const SET: bool = false;

    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a> {
        data.refuse()
    }
}

impl<H: ReceiveHandler> ReceiveSlot for H {
    const SET: bool = true;

    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a> {
        ReceiveHandler::receive(self, data)
    }

    fn dead(&self) {
        ReceiveHandler::dead(self);
    }
}

impl DisconnectSlot for () {
    const SET: bool = false;
}

impl<H: DisconnectHandler> DisconnectSlot for H {
    const SET: bool = true;

    fn disconnected(&self, kind: DisconnectKind) {
        DisconnectHandler::disconnected(self, kind);
    }

    fn dead(&self) {
        DisconnectHandler::dead(self);
    }
}

impl BacklogSlot for () {
    const SET: bool = false;
}

impl<H: SendBacklogHandler> BacklogSlot for H {
    const SET: bool = true;

    fn ideal_backlog(&self, bytes: usize) {
        SendBacklogHandler::ideal_backlog(self, bytes);
    }

    fn dead(&self) {
        SendBacklogHandler::dead(self);
    }
}

mod sealed {
    pub trait Sealed {}
    impl<R, D, B> Sealed for super::Handlers<R, D, B> {}
}
