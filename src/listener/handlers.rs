//! Handlers of the events of a listener: one trait per callback.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Decision, Incoming, InspectId, Inspection};
use crate::connection::{ConnectionHandlers, Handlers};
use crate::memory::Ref;

/// Handler that decides on connection requests before the handshake (`WskInspectEvent`), in conditional
/// accept mode.
///
/// # IRQL
/// Called at up to `DISPATCH_LEVEL`, in any thread, several calls at a time. It must not wait for anything;
/// to decide later it pends.
///
/// # Panics
/// A handler that panics stops the system, as every panic of a driver does: nothing unwinds into WSK, no
/// answer gets out, and the request is not accepted. So a handler of outside input has to be free of panics,
/// indexing included.
pub trait InspectHandler: Send + Sync + 'static {
    /// Answers one request: accept, reject, or pend and decide later with a token.
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a>;

    /// Called when WSK has given the listener up (`WskInspectEvent` without a request); it closes itself, and
    /// the tokens of its requests are inert. Called at most once, and not when this side closes it. See also
    /// [`Listener::closed`](super::Listener::closed).
    ///
    /// # IRQL
    /// Called at up to `DISPATCH_LEVEL`, possibly in a completion routine: it must not wait, and not call
    /// operations of sockets.
    fn dead(&self) {}
}

/// Handler of requests that were pended or accepted and are gone before they became a connection
/// (`WskAbortEvent`).
///
/// The token of a pended request needs no such handler to become inert; it serves drivers that keep records
/// of their own. It is not called for requests that the listener rejects because it closes.
///
/// # IRQL
/// Called at up to `DISPATCH_LEVEL`, in any thread, possibly the moment the inspection has returned. It must
/// not wait for anything.
pub trait AbortHandler: Send + Sync + 'static {
    /// Called when the request with this ID will not become a connection.
    ///
    /// Another request may have the ID as soon as this has returned, so records that are kept by ID end here.
    fn abort(&self, id: InspectId);
}

/// Handler that takes connections as they arrive (`WskAcceptEvent`), once
/// [`Listener::enable`](super::Listener::enable)d.
///
/// # IRQL
/// Called at up to `DISPATCH_LEVEL`, in any thread. It must not wait for anything.
pub trait AcceptHandler: Send + Sync + 'static {
    /// The handlers that accepted connections get, for instance [`Handlers`](crate::Handlers) for none.
    type Handlers: ConnectionHandlers;

    /// Takes the connection with [`Incoming::accept`], or refuses it by doing nothing.
    fn accept(&self, incoming: Incoming<'_, Self::Handlers>);

    /// Called when WSK has given the listener up (`WskAcceptEvent` without a connection); it closes itself,
    /// and no connection will come any more. Called at most once, and not when this side closes it. While the
    /// event is off, and the listener is not conditional either, it is called no sooner than the next
    /// operation; [`Listener::closed`](super::Listener::closed) resolves all the same.
    ///
    /// # IRQL
    /// Called at up to `DISPATCH_LEVEL`, possibly in a completion routine: it must not wait, and not call
    /// operations of sockets.
    fn dead(&self) {}
}

impl<T: InspectHandler> InspectHandler for Ref<T> {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        (**self).inspect(request)
    }

    fn dead(&self) {
        (**self).dead();
    }
}

impl<T: AbortHandler> AbortHandler for Ref<T> {
    fn abort(&self, id: InspectId) {
        (**self).abort(id);
    }
}

impl<T: AcceptHandler> AcceptHandler for Ref<T> {
    type Handlers = T::Handlers;

    fn accept(&self, incoming: Incoming<'_, Self::Handlers>) {
        (**self).accept(incoming);
    }

    fn dead(&self) {
        (**self).dead();
    }
}

/// An [`InspectHandler`], or `()` for a listener that is not conditional.
pub trait InspectSlot: Send + Sync + 'static {
    /// True if `SO_CONDITIONAL_ACCEPT` is set, and the two callbacks are in the table.
    #[doc(hidden)]
    const SET: bool;
    #[doc(hidden)]
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a>;
    #[doc(hidden)]
    fn dead(&self) {}
}

/// An [`AbortHandler`], or `()` for none.
pub trait AbortSlot: Send + Sync + 'static {
    #[doc(hidden)]
    fn abort(&self, _id: InspectId) {}
}

/// An [`AcceptHandler`], or `()` for none.
pub trait AcceptSlot: Send + Sync + 'static {
    /// The handlers of connections that come by the event.
    #[doc(hidden)]
    type Handlers: ConnectionHandlers;
    #[doc(hidden)]
    const SET: bool;
    #[doc(hidden)]
    fn accept(&self, _incoming: Incoming<'_, Self::Handlers>) {}
    #[doc(hidden)]
    fn dead(&self) {}
}

impl InspectSlot for () {
    const SET: bool = false;

    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        request.reject()
    }
}

impl<H: InspectHandler> InspectSlot for H {
    const SET: bool = true;

    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        InspectHandler::inspect(self, request)
    }

    fn dead(&self) {
        InspectHandler::dead(self);
    }
}

impl AbortSlot for () {}

impl<H: AbortHandler> AbortSlot for H {
    fn abort(&self, id: InspectId) {
        AbortHandler::abort(self, id);
    }
}

impl AcceptSlot for () {
    type Handlers = Handlers;
    const SET: bool = false;
}

impl<H: AcceptHandler> AcceptSlot for H {
    type Handlers = H::Handlers;
    const SET: bool = true;

    fn accept(&self, incoming: Incoming<'_, H::Handlers>) {
        AcceptHandler::accept(self, incoming);
    }

    fn dead(&self) {
        AcceptHandler::dead(self);
    }
}

/// The two addresses of a request or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// The address the peer connected to.
    pub(crate) local: SocketAddr,
    /// The address of the peer.
    pub(crate) peer: SocketAddr,
}

impl Endpoints {
    /// Before they are known.
    pub(crate) const UNSPECIFIED: Self = {
        let unspecified = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self { local: unspecified, peer: unspecified }
    };
}
