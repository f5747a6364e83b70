//! Listening: from the bind to the delivery of each connection (contract 4.8, 4.9, 5.4, 5.5).
//!
//! ```text
//!   transport ──incoming──► conditional? ──no──────────────────────────────► deliver
//!                               │ yes                                          ▲
//!                               ▼                                              │ accept
//!                          Inspecting ──reject──► reset                        │
//!                               │ pend      └─────accept───────────────────────┤
//!                               ▼                                              │
//!                            Pended ──WskInspectComplete──► reject / accept ───┘
//!                               └──peer drops──► Aborted (AbortEvent)
//!
//!   deliver: oldest accept IRP, else AcceptEvent, else the backlog, else reset
//! ```
//!
//! The transport has already accepted a connection when it reports it. During the inspection nothing is read
//! or sent, and a reset by the peer counts as a dropped request. A peer that has only finished sending is
//! delivered with its end. While its request is pended, though, an end without data before it counts as a
//! dropped request, unless that is selected otherwise, since it looks the same.

mod accept;
mod cells;
mod complete;
mod deliver;
mod inspect;
mod names;
mod returning;

pub(crate) use accept::{AcceptItem, wsk_accept};
pub(crate) use cells::IdCells;
pub(crate) use complete::wsk_inspect_complete;
pub(crate) use deliver::{accept_sentinel, pump};
pub(crate) use inspect::{inspect_sentinel, take_undecided};

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use wsk_sys::PWSK_SOCKET;
use wsk_sys::nt::IRP;

use crate::address::Claim;
use crate::provider::Provider;
use crate::request::{Completions, RequestQueue};
use crate::socket::{Ending, Role, Socket};
use crate::transport::{self, ListenSink, Stream, Tune};
use inspect::Inspections;
use names::Name;

/// A connection that is not accepted yet.
#[derive(Debug)]
pub(crate) struct Established {
    stream: Box<dyn Stream>,
    local: SocketAddr,
    remote: SocketAddr,
    inspection: Option<Arc<Name>>,
}

/// State of a listening socket.
///
/// # Invariants
/// `accepts` and `backlog` are never both non-empty, except for requests that are being cancelled.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    port: Option<Box<dyn transport::Listener>>,
    claim: Option<Claim>,
    local: Option<SocketAddr>,
    accepts: RequestQueue<AcceptItem>,
    backlog: VecDeque<Established>,
    /// `WskAccept` was called.
    asked: bool,
    inspections: Inspections,
}

impl Listener {
    /// Creates a listener that is not bound.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Records the successful bind.
    pub(crate) fn bound(&mut self, port: Box<dyn transport::Listener>, claim: Claim) -> io::Result<()> {
        self.local = Some(port.local_address()?);
        self.port = Some(port);
        self.claim = Some(claim);
        Ok(())
    }

    /// Takes over accept requests that came before the listening (STRM-08).
    pub(crate) fn adopt(&mut self, accepts: RequestQueue<AcceptItem>) {
        self.accepts = accepts;
    }

    pub(crate) fn cancelled(&mut self, irp: *mut IRP) -> usize {
        self.accepts.remove_cancelled(irp);
        0
    }

    pub(crate) fn end(&mut self, ending: Ending, completions: &mut Completions) {
        self.accepts.end_all(ending.status(), completions);
        self.inspections.end(ending, completions);
        for untaken in self.backlog.drain(..) {
            untaken.stream.abort();
        }
        self.port = None;
        self.claim = None;
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Returns the claim that each accepted connection has on the address.
    pub(super) fn claim_of_connections(&self) -> Option<Claim> {
        self.claim.as_ref().and_then(Claim::of_connections)
    }

    /// Returns whether connections are waiting to be accepted.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Returns whether connections are waiting although `WskAccept` was never called.
    pub(crate) fn is_ignored(&self) -> bool {
        self.has_waiting() && !self.asked
    }

    /// Returns the object for option changes, if there is one.
    pub(crate) fn tune(&self) -> Option<&dyn Tune> {
        self.port.as_deref().map(|port| port as &dyn Tune)
    }
}

impl Provider {
    /// Returns the number of connections that wait on a listening socket to be accepted; `None` if
    /// it is no such socket.
    pub fn untaken(&self, socket: PWSK_SOCKET) -> Option<usize> {
        let found = self.0.registrar.sockets().into_iter().find(|open| open.raw() == socket)?;
        match &found.lock().role {
            Role::Listen(listener) => Some(listener.backlog.len()),
            _ => None,
        }
    }
}

/// Sink through which the transport delivers to a listening socket.
#[derive(Debug)]
struct Sink(Weak<Socket>);

/// The sink of a listening socket.
pub(crate) fn sink(socket: &Arc<Socket>) -> Arc<dyn ListenSink> {
    Arc::new(Sink(Arc::downgrade(socket)))
}

impl ListenSink for Sink {
    fn incoming(&self, stream: Box<dyn Stream>) {
        let Some(socket) = self.0.upgrade() else { return stream.abort() };
        let Ok(local) = stream.local_address() else { return stream.abort() };
        let remote = stream.remote_address();
        let established = Established { stream, local, remote, inspection: None };
        let conditional = socket.lock().options.conditional;
        if conditional {
            inspect::inspect(&socket, established);
        } else {
            deliver::deliver(&socket, established, deliver::Thread::Provider);
        }
    }

    fn failed(&self, _error: io::Error) {
        if let Some(socket) = self.0.upgrade() {
            Socket::die(&socket);
        }
    }
}
