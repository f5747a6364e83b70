//! Role of a socket: the state that depends on its category, and its interface to the common code.

use std::net::SocketAddr;
use std::sync::Arc;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{STATUS_CANCELLED, STATUS_FILE_FORCED_CLOSED};

use super::{Event, Running, Socket};
use crate::connection::{self, Connection};
use crate::datagram::{self, Datagram};
use crate::listen::{self, Listener};
use crate::provider::Inner;
use crate::request::Completions;
use crate::stream::StreamSocket;
use crate::transport::Tune;

/// Reason for the end of a socket's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It has died.
    Died,
    /// It is being closed; it may have died before.
    Closed,
}

impl Ending {
    /// Returns the status of its waiting requests.
    pub(crate) fn status(self) -> NTSTATUS {
        match self {
            Self::Died => STATUS_FILE_FORCED_CLOSED,
            Self::Closed => STATUS_CANCELLED,
        }
    }
}

/// State of a socket that depends on its category.
#[derive(Debug)]
pub(crate) enum Role {
    /// A basic socket, or the shell of a closed one.
    Basic,
    /// A listening socket, or a stream socket that listens.
    Listen(Box<Listener>),
    /// A connection socket, or a stream socket in that role.
    Connection(Box<Connection>),
    /// A datagram socket.
    Datagram(Box<Datagram>),
    /// A stream socket without a role.
    Stream(Box<StreamSocket>),
}

impl Role {
    /// Removes the waiting request of `irp`, which is being cancelled, from its queue, and returns the number
    /// of bytes transferred.
    pub(crate) fn cancelled(&mut self, irp: *mut IRP) -> usize {
        match self {
            Self::Basic => 0,
            Self::Listen(listener) => listener.cancelled(irp),
            Self::Connection(connection) => connection.cancelled(irp),
            Self::Datagram(datagram) => datagram.cancelled(irp),
            Self::Stream(stream) => stream.cancelled(irp),
        }
    }

    /// Ends the work: waiting requests end with [`Ending::status`], and the transport is dropped (a
    /// connection not closed in both directions is reset). May be called twice, for death and then for close.
    pub(crate) fn end(&mut self, ending: Ending, completions: &mut Completions) {
        match self {
            Self::Basic => {}
            Self::Listen(listener) => listener.end(ending, completions),
            Self::Connection(connection) => connection.end(ending, completions),
            Self::Datagram(datagram) => datagram.end(ending, completions),
            Self::Stream(stream) => stream.end(ending, completions),
        }
    }

    /// Returns the indications that the client has retained to the provider, which quarantines them; the
    /// socket is gone.
    pub(crate) fn give_back(self, provider: &Inner, call: &'static str) {
        match self {
            Self::Connection(connection) => connection.give_back(provider, call),
            Self::Datagram(datagram) => datagram.give_back(provider, call),
            Self::Basic | Self::Listen(_) | Self::Stream(_) => {}
        }
    }

    /// Returns the local address; `None` before the bind.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Basic => None,
            Self::Listen(listener) => listener.local_address(),
            Self::Connection(connection) => connection.local_address(),
            Self::Datagram(datagram) => datagram.local_address(),
            Self::Stream(stream) => stream.local_address(),
        }
    }

    /// Returns the object for option changes, if there is one.
    pub(crate) fn tune(&self) -> Option<&dyn Tune> {
        match self {
            Self::Basic => None,
            Self::Listen(listener) => listener.tune(),
            Self::Connection(connection) => connection.tune(),
            Self::Datagram(datagram) => datagram.tune(),
            Self::Stream(stream) => stream.tune(),
        }
    }

    /// Returns whether a bind is too late although there is no local address (any more).
    pub(crate) fn is_past_bind(&self) -> bool {
        match self {
            Self::Basic | Self::Listen(_) | Self::Datagram(_) | Self::Stream(_) => false,
            Self::Connection(connection) => connection.is_past_bind(),
        }
    }

    /// Returns whether events may be enabled and disabled in this state (EVT-07, EVT-08).
    pub(crate) fn allows_events(&self) -> bool {
        match self {
            Self::Basic | Self::Stream(_) => false,
            Self::Listen(listener) => listener.local_address().is_some(),
            Self::Connection(connection) => connection.is_connected(),
            Self::Datagram(datagram) => datagram.local_address().is_some(),
        }
    }

    /// Returns whether [`switched_on`] has input for the event.
    pub(crate) fn has_waiting(&self, event: Event) -> bool {
        match (self, event) {
            (Self::Listen(listener), Event::Accept) => listener.has_waiting(),
            (Self::Connection(connection), event) => connection.has_waiting(event),
            (Self::Datagram(datagram), Event::ReceiveFrom) => datagram.has_waiting(),
            _ => false,
        }
    }
}

/// Delivers buffered input for `event`, which was enabled. Called without the lock, on a thread of the
/// provider.
pub(crate) fn switched_on(socket: &Arc<Socket>, event: Event) {
    match event {
        Event::Accept => listen::pump(socket),
        Event::ReceiveFrom => datagram::switched_on(socket),
        Event::Receive | Event::Disconnect | Event::SendBacklog => connection::switched_on(socket, event),
    }
}

/// Calls `event` in its sentinel form: the socket is dead. Called without the lock.
pub(crate) fn sentinel(socket: &Arc<Socket>, event: Event, running: &Running) {
    match event {
        Event::Accept => listen::accept_sentinel(socket, running),
        Event::Receive => connection::sentinel(socket, running),
        Event::ReceiveFrom => datagram::sentinel(socket, running),
        Event::Disconnect | Event::SendBacklog => {}
    }
}
