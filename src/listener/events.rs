//! Event callbacks of a listening socket, and their table.
//!
//! Each callback is a plain function, generic over the handlers, that turns pointers into values, calls one
//! handler, and turns the answer back. All of them run at up to `DISPATCH_LEVEL` in any thread, and the core
//! they get as context is alive: WSK holds a reference on it until its close has completed.

use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::net::SocketAddr;

use wsk_sys::nt::NTSTATUS;
use wsk_sys::{
    PSOCKADDR, STATUS_REQUEST_NOT_ACCEPTED, STATUS_SUCCESS, WSK_CLIENT_CONNECTION_DISPATCH,
    WSK_CLIENT_LISTEN_DISPATCH, WSK_INSPECT_ACTION, WSK_INSPECT_ID, WSK_SOCKET, WskInspectAccept,
    WskInspectPend, WskInspectReject,
};

use super::handlers::{AbortSlot, AcceptSlot, InspectSlot};
use super::inspect::Answer;
use super::shared::{ListenerCore, ListenerRef};
use super::{Endpoints, InspectId, Inspection};
use crate::address;
use crate::connection::{Connection, ConnectionHandlers, ConnectionRef};
use crate::error::{Error, Operation, Result};
use crate::memory::Ref;
use crate::socket::{Core, SocketRef, attach_and_enter, reserve};

impl<I: InspectSlot, B: AbortSlot, A: AcceptSlot> ListenerCore<I, B, A> {
    /// The dispatch table, a constant of the handler types: events without a handler are null.
    pub(super) const TABLE: &'static WSK_CLIENT_LISTEN_DISPATCH = &WSK_CLIENT_LISTEN_DISPATCH {
        WskAcceptEvent: if A::SET { Some(accept_event::<I, B, A>) } else { None },
        WskInspectEvent: if I::SET { Some(inspect_event::<I, B, A>) } else { None },
        WskAbortEvent: if I::SET { Some(abort_event::<I, B, A>) } else { None },
    };
}

/// `WskInspectEvent`.
///
/// # Safety
/// Called by WSK, with the context given to `WskSocket` and pointers that are valid during the call.
unsafe extern "system" fn inspect_event<I: InspectSlot, B: AbortSlot, A: AcceptSlot>(
    context: *mut c_void,
    local: PSOCKADDR,
    remote: PSOCKADDR,
    id: *mut WSK_INSPECT_ID,
) -> WSK_INSPECT_ACTION {
    // SAFETY: the context is the core that `WskSocket` was given, and WSK holds a reference on it.
    let core = unsafe { Ref::<ListenerCore<I, B, A>>::clone_from_raw(context.cast_const().cast()) };
    // SAFETY: null, or valid during the call.
    let Some(id) = (unsafe { id.as_ref() }) else {
        // The listener is dead; addresses are not looked at (rules INSP-07 to INSP-09).
        core.socket().close_dead();
        return WskInspectReject;
    };
    let id = InspectId::from_raw(id);
    // SAFETY: with an ID, the addresses are valid during the call.
    let Some(endpoints) = (unsafe { endpoints(local, remote) }) else { return WskInspectReject };
    if !core.common().pending.is_new(id, &endpoints) {
        // The peer has repeated itself. The request has its token, or its decision, and gets no second one.
        return WskInspectPend;
    }
    // SAFETY: this is a callback, and `core` is dropped before it returns.
    let Some(handlers) = (unsafe { core.handlers() }) else { return WskInspectReject };
    let listener = ListenerRef::of(&core);
    let request = Inspection { listener: &listener, id, endpoints, _callback: PhantomData };
    let answered = handlers.inspect.inspect(request).answer;
    // What can be done before is done before, so that nothing comes between the record's last word and the
    // return.
    drop(listener);
    drop(core);
    match answered {
        Answer::Accept => WskInspectAccept,
        Answer::Reject => WskInspectReject,
        Answer::Pend(record) => record.callback_returns(),
    }
}

/// `WskAbortEvent`.
///
/// # Safety
/// Called by WSK, with the context given to `WskSocket` and an ID that is valid during the call.
unsafe extern "system" fn abort_event<I: InspectSlot, B: AbortSlot, A: AcceptSlot>(
    context: *mut c_void,
    id: *mut WSK_INSPECT_ID,
) -> NTSTATUS {
    // SAFETY: the context is the core that `WskSocket` was given, and WSK holds a reference on it.
    let core = unsafe { &*context.cast_const().cast::<ListenerCore<I, B, A>>() };
    // SAFETY: never null by rule ABRT-15, and valid during the call.
    if let Some(id) = unsafe { id.as_ref() } {
        let id = InspectId::from_raw(id);
        core.common().pending.abort(id);
        // SAFETY: this is a callback.
        if let Some(handlers) = unsafe { core.handlers() } {
            handlers.abort.abort(id);
        }
    }
    STATUS_SUCCESS
}

/// `WskAcceptEvent`.
///
/// # Safety
/// Called by WSK, with the context given to `WskSocket` and pointers that are valid during the call.
unsafe extern "system" fn accept_event<I: InspectSlot, B: AbortSlot, A: AcceptSlot>(
    context: *mut c_void,
    _flags: u32,
    local: PSOCKADDR,
    remote: PSOCKADDR,
    socket: *mut WSK_SOCKET,
    accept_context: *mut *mut c_void,
    accept_dispatch: *mut *const WSK_CLIENT_CONNECTION_DISPATCH,
) -> NTSTATUS {
    // SAFETY: the context is the core that `WskSocket` was given, and WSK holds a reference on it.
    let core = unsafe { &*context.cast_const().cast::<ListenerCore<I, B, A>>() };
    if socket.is_null() {
        // The listener is dead (rules ACPT-04, ACPT-05).
        core.socket().close_dead();
        return STATUS_REQUEST_NOT_ACCEPTED;
    }
    // SAFETY: with a socket, the addresses are valid during the call.
    let Some(endpoints) = (unsafe { endpoints(local, remote) }) else { return STATUS_REQUEST_NOT_ACCEPTED };
    // SAFETY: this is a callback.
    let Some(handlers) = (unsafe { core.handlers() }) else { return STATUS_REQUEST_NOT_ACCEPTED };
    let mut taken = None;
    handlers.accept.accept(Incoming {
        listener: core.socket(),
        socket,
        endpoints,
        accept_context,
        accept_dispatch,
        taken: &mut taken,
        _handlers: PhantomData,
    });
    let Some(connection) = taken else { return STATUS_REQUEST_NOT_ACCEPTED };
    // The socket is the client's once this returns, so a close that was asked for meanwhile starts only now.
    connection.release();
    STATUS_SUCCESS
}

/// Copies the two addresses; they are valid only during the callback (rule INSP-22).
///
/// # Safety
/// Both point to addresses of the family they name, or are null.
unsafe fn endpoints(local: PSOCKADDR, remote: PSOCKADDR) -> Option<Endpoints> {
    // SAFETY: the caller says that it is null or an address of the family it names.
    let local = unsafe { address::socket_addr_from_raw(local) }?;
    // SAFETY: the caller says that it is null or an address of the family it names.
    let peer = unsafe { address::socket_addr_from_raw(remote) }?;
    Some(Endpoints { local, peer })
}

/// A connection that came by the accept event. Unless it is [accepted](Incoming::accept), it is refused.
pub struct Incoming<'a, H: ConnectionHandlers> {
    listener: &'a crate::socket::Socket,
    socket: *mut WSK_SOCKET,
    endpoints: Endpoints,
    accept_context: *mut *mut c_void,
    accept_dispatch: *mut *const WSK_CLIENT_CONNECTION_DISPATCH,
    /// The connection that was made of it, whose rundown protection is held until the callback returns.
    taken: &'a mut Option<SocketRef>,
    _handlers: PhantomData<fn(H)>,
}

impl<H: ConnectionHandlers> Incoming<'_, H> {
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
        address::canonical(self.endpoints.peer)
    }

    /// As [`Self::peer_addr`], as WSK gave it: an IPv4-mapped address stays one.
    pub fn raw_peer_addr(&self) -> SocketAddr {
        self.endpoints.peer
    }

    /// Takes the connection. Its events may start before this returns, if the listener enabled them for it.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`; the connection is refused then.
    pub fn accept(self, handlers: H) -> Result<Connection> {
        let connection = ConnectionRef::try_new(self.listener.client(), handlers)
            .and_then(|connection| reserve(connection.socket()).map(|()| connection))
            .map_err(|_| Error::out_of_memory(Operation::Accept))?;
        // The context is complete before the outputs are written (rule ACPT-16), and the outputs are written
        // before any call is made on the socket (rules ACPT-07, ACPT-11).
        let (context, dispatch) = connection.context_and_dispatch();
        // SAFETY: the output is valid during the callback, which this value cannot outlive.
        unsafe { self.accept_context.write(context) };
        // SAFETY: the output is valid during the callback, which this value cannot outlive.
        unsafe { self.accept_dispatch.write(dispatch) };
        // SAFETY: WSK has just made the socket, for this core, whose callback answers with it; this value is
        // used up.
        unsafe { attach_and_enter(connection.socket(), self.socket) };
        *self.taken = Some(connection.socket().clone());
        Ok(Connection::new(connection, self.endpoints))
    }
}

impl<H: ConnectionHandlers> fmt::Debug for Incoming<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}
