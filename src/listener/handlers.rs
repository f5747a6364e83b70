//! What a listener can be asked to tell its owner: one trait per callback.

use core::net::SocketAddr;

use super::{Decision, Incoming, InspectId, Inspection};
use crate::connection::ConnectionEvents;
use crate::memory::Ref;
use crate::socket::{Probing, Silent, Told};

/// Decides about connection requests before the handshake (`WskInspectEvent`), in conditional accept mode.
///
/// # IRQL
/// Called at up to `DISPATCH_LEVEL`, in any thread, several calls at a time. It must not wait for anything; to
/// decide later it pends.
///
/// # Panics
/// A handler that panics stops the system, as every panic of a driver does: nothing unwinds into WSK, no answer gets out,
/// and the request is not let in. So a handler of what comes from outside has to be free of them, indexing included.
pub trait InspectHandler: Send + Sync + 'static {
    /// Answers one request: accept, reject, or pend and decide later with a token.
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a>;

    /// WSK has given the listener up (`WskInspectEvent` without a request says so); it closes itself, and the tokens of its
    /// requests are inert. Called once at most, and not when this side closes it. See also
    /// [`Listener::closed`](super::Listener::closed).
    ///
    /// # IRQL
    /// Called at up to `DISPATCH_LEVEL`, possibly in a completion routine: it must not wait, and not call operations of sockets.
    fn dead(&self) {}
}

/// Learns that a request which was pended or accepted is gone before it became a connection (`WskAbortEvent`).
///
/// The token of a pended request needs no such handler to become inert; this is for whoever keeps records of
/// their own. It is not told of requests that the listener rejects because it closes.
///
/// # IRQL
/// Called at up to `DISPATCH_LEVEL`, in any thread, possibly the moment the inspection has returned. It must not
/// wait for anything.
pub trait AbortHandler: Send + Sync + 'static {
    /// The request with this ID will not become a connection.
    ///
    /// Another request may have the ID as soon as this has returned, so whoever keeps records by ID forgets this one here.
    fn abort(&self, id: InspectId);
}

/// Takes connections as they arrive (`WskAcceptEvent`), once [`Listener::enable`](super::Listener::enable)d.
///
/// # IRQL
/// Called at up to `DISPATCH_LEVEL`, in any thread. It must not wait for anything.
pub trait AcceptHandler: Send + Sync + 'static {
    /// The handlers that accepted connections get.
    type Events: ConnectionEvents;

    /// Takes the connection with [`Incoming::accept`], or refuses it by doing nothing.
    fn accept(&self, incoming: Incoming<'_, Self::Events>);

    /// WSK has given the listener up (`WskAcceptEvent` without a connection says so); it closes itself, and no connection will
    /// come any more. Called once at most, and not when this side closes it. While the event is off, and the listener is not
    /// conditional either, it is called no sooner than the next operation; [`Listener::closed`](super::Listener::closed) learns it
    /// all the same.
    ///
    /// # IRQL
    /// Called at up to `DISPATCH_LEVEL`, possibly in a completion routine: it must not wait, and not call operations of sockets.
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
    type Events = T::Events;

    fn accept(&self, incoming: Incoming<'_, Self::Events>) {
        (**self).accept(incoming);
    }

    fn dead(&self) {
        (**self).dead();
    }
}

/// Whether a listener is conditional: [`Unconditional`] or [`Conditional`].
pub trait Condition: sealed::Sealed + Send + Sync + 'static {
    /// Whether `SO_CONDITIONAL_ACCEPT` is set, and the two callbacks are in the table.
    #[doc(hidden)]
    const INSPECTS: bool;
    /// How it is learnt that the listener has died: a conditional one is always told (rule INSP-07).
    #[doc(hidden)]
    type Probing: Probing;
    #[doc(hidden)]
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a>;
    #[doc(hidden)]
    fn abort(&self, id: InspectId);
    #[doc(hidden)]
    fn dead(&self) {}
}

/// Every request is accepted; the inspect and abort entries of the table are null.
#[derive(Clone, Copy, Debug)]
pub struct Unconditional;

/// Requests are inspected by `G`.
#[derive(Clone, Copy, Debug)]
pub struct Conditional<G>(pub(super) G);

impl Condition for Unconditional {
    const INSPECTS: bool = false;
    type Probing = Silent;

    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        request.reject()
    }

    fn abort(&self, _id: InspectId) {}
}

impl<G: InspectHandler + AbortHandler> Condition for Conditional<G> {
    const INSPECTS: bool = true;
    type Probing = Told;

    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        self.0.inspect(request)
    }

    fn abort(&self, id: InspectId) {
        self.0.abort(id);
    }

    fn dead(&self) {
        self.0.dead();
    }
}

/// Whether a listener has an accept callback: [`NoAcceptEvent`] or [`OnAccept`].
pub trait Acceptance: sealed::Sealed + Send + Sync + 'static {
    /// The handlers of connections that come by the event.
    #[doc(hidden)]
    type Events: ConnectionEvents;
    #[doc(hidden)]
    const HANDLED: bool;
    #[doc(hidden)]
    fn accept(&self, incoming: Incoming<'_, Self::Events>);
    #[doc(hidden)]
    fn dead(&self) {}
}

/// Connections are taken with [`Listener::accept`](super::Listener::accept) alone; the table's entry is null.
#[derive(Clone, Copy, Debug)]
pub struct NoAcceptEvent;

/// Connections can also come to `A`.
#[derive(Clone, Copy, Debug)]
pub struct OnAccept<A>(pub(super) A);

impl Acceptance for NoAcceptEvent {
    type Events = crate::connection::NoEvents;
    const HANDLED: bool = false;

    fn accept(&self, _incoming: Incoming<'_, Self::Events>) {}
}

impl<A: AcceptHandler> Acceptance for OnAccept<A> {
    type Events = A::Events;
    const HANDLED: bool = true;

    fn accept(&self, incoming: Incoming<'_, Self::Events>) {
        self.0.accept(incoming);
    }

    fn dead(&self) {
        self.0.dead();
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Unconditional {}
    impl<G> Sealed for super::Conditional<G> {}
    impl Sealed for super::NoAcceptEvent {}
    impl<A> Sealed for super::OnAccept<A> {}
}

/// The two ends of a request or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The address the peer connected to.
    pub local: SocketAddr,
    /// The address the peer came from.
    pub remote: SocketAddr,
}
