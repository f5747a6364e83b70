//! Making a listening socket: everything that must precede bind is said before bind, because afterwards there
//! is no builder any more.

use core::future::Future;
use core::net::SocketAddr;

use super::handlers::{AbortSlot, AcceptSlot, InspectSlot};
use super::shared::{ListenerHandlers, ListenerRef};
use super::{AbortHandler, AcceptHandler, InspectHandler, Listener};
use crate::client::{Provider, SecurityDescriptor};
use crate::error::{Error, Operation, Result};
use crate::memory::OutOfMemory;
use crate::options::{BindOption, Place, kind};
use crate::socket::{Category, ListenTable, Opening, SocketParams};

/// Builder for a [`Listener`]; see [`Provider::listener`].
///
/// Options that have to precede the bind are set here, because afterwards there is no builder any more. The
/// parameters are the types of the handlers, which need not be named.
///
/// ```
/// # use wsk::{Decision, InspectHandler, Inspection, Listener, Provider, Result};
/// /// Accepts connections of this machine only.
/// struct Local;
///
/// impl InspectHandler for Local {
///     fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
///         if request.peer_addr().ip().is_loopback() { request.accept() } else { request.reject() }
///     }
/// }
///
/// async fn listen(provider: &Provider) -> Result<Listener> {
///     provider.listener().inspect(Local).bind(([0, 0, 0, 0], 7007).into()).await
/// }
/// ```
#[derive(Debug)]
#[must_use = "nothing happens before `bind`"]
pub struct ListenerBuilder<I = (), B = (), A = ()> {
    opening: Opening,
    inspect: I,
    abort: B,
    accept: A,
}

impl ListenerBuilder {
    pub(crate) fn new(provider: Provider) -> Self {
        Self { opening: Opening::new(provider), inspect: (), abort: (), accept: () }
    }
}

impl<A> ListenerBuilder<(), (), A> {
    /// Has every connection request inspected before its handshake (`SO_CONDITIONAL_ACCEPT`).
    ///
    /// This switches off the transport's protection against SYN floods, and its backlog, for this socket:
    /// nothing is accepted on the listener's behalf, so a slow decision can let the peer time out.
    pub fn inspect<H: InspectHandler>(self, handler: H) -> ListenerBuilder<H, (), A> {
        ListenerBuilder { opening: self.opening, inspect: handler, abort: (), accept: self.accept }
    }
}

impl<I: InspectHandler, A> ListenerBuilder<I, (), A> {
    /// Gives the listener a handler for requests that are gone before they became a connection.
    pub fn on_abort<H: AbortHandler>(self, handler: H) -> ListenerBuilder<I, H, A> {
        ListenerBuilder { opening: self.opening, inspect: self.inspect, abort: handler, accept: self.accept }
    }
}

impl<I, B> ListenerBuilder<I, B, ()> {
    /// Gives the listener a handler for connections; its event is off until [`Listener::enable`].
    pub fn on_accept<H: AcceptHandler>(self, handler: H) -> ListenerBuilder<I, B, H> {
        ListenerBuilder { opening: self.opening, inspect: self.inspect, abort: self.abort, accept: handler }
    }
}

impl<I: InspectSlot, B: AbortSlot, A: AcceptSlot> ListenerBuilder<I, B, A> {
    /// Sets the security descriptor that says who may share the address (`SO_WSK_SECURITY`). Without it, it
    /// is not shared.
    pub fn security(mut self, descriptor: SecurityDescriptor) -> Self {
        self.opening.security = Some(descriptor);
        self
    }

    /// Sets an option before the bind; a later value of the same option replaces an earlier one.
    ///
    /// ```
    /// # use wsk::options::{ExclusiveAddress, KeepAlive};
    /// # use wsk::{Listener, Provider, Result};
    /// # async fn listen(provider: &Provider) -> Result<Listener> {
    /// let builder = provider.listener().option(ExclusiveAddress(true)).option(KeepAlive(true));
    /// builder.bind(([0, 0, 0, 0], 7007).into()).await
    /// # }
    /// ```
    pub fn option<O: BindOption<kind::Listener>>(mut self, option: O) -> Self {
        self.opening.options.insert(O::PLACE, option.to_raw());
        self
    }

    /// Makes the socket, sets the options, and binds it, which makes it listen (`WskSocket`,
    /// `WskControlSocket`, `WskBind`, `WskGetLocalAddress`). Port 0 has one assigned.
    ///
    /// # Cancel safety
    /// May be dropped at any time; a socket that was made is closed.
    ///
    /// # Errors
    /// `STATUS_ADDRESS_ALREADY_EXISTS` when the address is taken, `STATUS_ACCESS_DENIED` when it may not be
    /// shared, `STATUS_INVALID_ADDRESS_COMPONENT` when it is not local, `STATUS_NOT_SUPPORTED` when the
    /// transport cannot do conditional accept, `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn bind(self, local: SocketAddr) -> impl Future<Output = Result<Listener>> + Send + use<I, B, A> {
        let Self { mut opening, inspect, abort, accept } = self;
        if I::SET {
            opening.options.insert(Place::ConditionalAccept, 1);
        }
        let handlers = ListenerHandlers { inspect, abort, accept };
        let core = ListenerRef::try_new(opening.provider.client(), handlers, opening.security.clone());
        make(opening, core, local)
    }
}

/// Makes the socket of a listener. The same for all handlers, so that there is one copy of it.
fn make(
    mut opening: Opening,
    core: core::result::Result<ListenerRef, OutOfMemory>,
    local: SocketAddr,
) -> impl Future<Output = Result<Listener>> + Send {
    if !local.is_ipv6() {
        opening.options.remove(Place::V6Only);
    }
    async move {
        let core = core.map_err(|_| Error::out_of_memory(Operation::Socket))?;
        // Leaving early drops the listener, which closes the socket if there is one.
        let mut listener = Listener { core, local };
        let params = SocketParams { category: Category::Listen, ipv6: local.is_ipv6() };
        // SAFETY: the table is that of listening sockets, which the parameters are for, and the core.
        let bound = unsafe { opening.bind::<ListenTable>(listener.core.socket(), params, local) };
        listener.local = bound.await?;
        Ok(listener)
    }
}
