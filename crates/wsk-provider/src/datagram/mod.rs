//! Datagram sockets (contract 4.13, 4.14, 5.7).
//!
//! ```text
//!            bind
//!   Created ─────► Bound ── datagram ──► oldest receive IRP
//!                    │         │ none queued
//!                    │         ▼
//!                    │      event on? ──► WskReceiveFromEvent ──► consumed / retained / not accepted
//!                    │         │ off                                                     │
//!                    │         ▼                                                         │
//!                    │      buffered up to a limit, then dropped ◄── option-enabled: off ┘
//!                    └── sends go out at once, or wait until the host has room
//! ```

mod control;
mod event;
mod message;
mod receive;
mod send;

pub(crate) use event::{sentinel, switched_on, wsk_release};
pub(crate) use receive::wsk_receive_from;
pub(crate) use send::{wsk_send_messages, wsk_send_to};

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use wsk_sys::nt::IRP;

use self::control::Wanted;
use self::message::Message;
use self::receive::ReceiveFrom;
use self::send::Outgoing;
use crate::address::Claim;
use crate::config::Config;
use crate::provider::Inner;
use crate::request::{Completions, RequestQueue};
use crate::socket::{Ending, Life, Role, Socket, State};
use crate::transport::{self, Ready, ReadySink, Tune};

/// Number of datagrams that are read from the host at a time.
const BATCH: usize = 64;

/// State of a datagram socket.
///
/// # Invariants
/// `messages` are in the order of arrival. `indicated` has the messages that a client may access, by the
/// address of their list node.
#[derive(Debug)]
pub(crate) struct Datagram {
    port: Option<Box<dyn transport::Datagram>>,
    claim: Option<Claim>,
    local: Option<SocketAddr>,
    /// `SIO_WSK_SET_REMOTE_ADDRESS`: the destination, and the only source.
    remote: Option<SocketAddr>,
    /// `SIO_WSK_SET_SENDTO_ADDRESS`: the destination.
    send_to: Option<SocketAddr>,
    readable: bool,
    writable: bool,
    receives: RequestQueue<ReceiveFrom>,
    /// `WskReceiveFrom` was called.
    asked: bool,
    sends: RequestQueue<Outgoing>,
    messages: VecDeque<Box<Message>>,
    indicated: HashMap<usize, Box<Message>>,
    limit: usize,
}

// SAFETY: the raw pointers inside are list links between messages that this object owns.
unsafe impl Send for Datagram {}

impl Datagram {
    /// Creates a datagram socket that is not bound.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            port: None,
            claim: None,
            local: None,
            remote: None,
            send_to: None,
            readable: false,
            writable: true,
            receives: RequestQueue::default(),
            asked: false,
            sends: RequestQueue::default(),
            messages: VecDeque::new(),
            indicated: HashMap::new(),
            limit: config.datagrams,
        }
    }

    /// Records the successful bind.
    pub(crate) fn bound(&mut self, port: Box<dyn transport::Datagram>, claim: Claim) -> io::Result<()> {
        self.local = Some(port.local_address()?);
        self.port = Some(port);
        self.claim = Some(claim);
        Ok(())
    }

    /// Returns the local address; `None` before the bind.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Returns whether datagrams are waiting to be received.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Returns the object for option changes, if there is one.
    pub(crate) fn tune(&self) -> Option<&dyn Tune> {
        self.port.as_deref().map(|port| port as &dyn Tune)
    }

    /// Sets the fixed destination and only source; `None` removes it.
    pub(crate) fn set_remote(&mut self, remote: Option<SocketAddr>) {
        self.remote = remote;
        if let Some(remote) = remote {
            self.messages.retain(|message| message.from == remote);
        }
    }

    /// Sets the fixed destination; `None` removes it.
    pub(crate) fn set_send_to(&mut self, send_to: Option<SocketAddr>) {
        self.send_to = send_to;
    }

    /// Returns whether datagrams are waiting although `WskReceiveFrom` was never called.
    pub(crate) fn is_ignored(&self) -> bool {
        !self.messages.is_empty() && !self.asked
    }

    /// Removes the waiting request of `irp`, which is being cancelled.
    pub(crate) fn cancelled(&mut self, irp: *mut IRP) -> usize {
        if self.receives.remove_cancelled(irp).is_none() {
            self.sends.remove_cancelled(irp);
        }
        0
    }

    /// Returns the indications that the client has retained; the socket is gone.
    pub(crate) fn give_back(mut self: Box<Self>, provider: &Inner, call: &'static str) {
        for (_, message) in self.indicated.drain() {
            provider.quarantine(call, message);
        }
    }

    /// Ends the work of the socket. Retained indications stay until they are released.
    pub(crate) fn end(&mut self, ending: Ending, completions: &mut Completions) {
        self.receives.end_all(ending.status(), completions);
        self.sends.end_all(ending.status(), completions);
        self.messages.clear();
        self.port = None;
        self.claim = None;
    }

    /// Reads the datagrams that have arrived, and serves the waiting requests.
    fn pump(&mut self, socket: &Arc<Socket>, wanted: Wanted, completions: &mut Completions) {
        self.pump_sends(socket, completions);
        let mut packet = socket.provider().packets.take();
        for _ in 0..BATCH {
            let Some(port) = self.port.as_deref().filter(|_| self.readable) else { break };
            match port.try_receive(packet.room()) {
                Ok(received) => {
                    if self.remote.is_none_or(|remote| remote == received.from) {
                        packet.set_length(received.length);
                        self.arrived(Message::new(packet.bytes(), &received, wanted, socket.family));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                // The host reports here that an earlier datagram did not arrive; WSK does not.
                Err(_) => {}
            }
            self.pump_receives(socket, completions);
        }
        socket.provider().packets.give_back(packet);
        self.pump_receives(socket, completions);
    }

    /// Buffers a datagram, or drops it (DGR-32).
    fn arrived(&mut self, message: Box<Message>) {
        if self.messages.len() < self.limit {
            self.messages.push_back(message);
        }
    }

    fn pump_receives(&mut self, socket: &Arc<Socket>, completions: &mut Completions) {
        while !self.messages.is_empty()
            && let Some((request, receive)) = self.receives.pop()
        {
            let Some(message) = self.messages.pop_front() else { break };
            let (status, bytes) = receive.take(&message, socket);
            completions.push(request, status, bytes);
        }
    }
}

/// Returns the datagram state of a socket whose lock is held.
fn part(state: &mut State) -> Option<&mut Datagram> {
    match &mut state.role {
        Role::Datagram(datagram) => Some(datagram),
        _ => None,
    }
}

/// Sink to which the transport reports.
#[derive(Debug)]
struct Sink(Weak<Socket>);

/// A sink for the port of `socket`.
pub(crate) fn sink(socket: &Arc<Socket>) -> Arc<dyn ReadySink> {
    Arc::new(Sink(Arc::downgrade(socket)))
}

impl ReadySink for Sink {
    fn ready(&self, ready: Ready) {
        let Some(socket) = self.0.upgrade() else { return };
        let mut more = ready;
        loop {
            let mut completions = Completions::default();
            let mut state = socket.lock();
            let life = state.life;
            let wanted = Wanted::of(&state.options);
            let Some(datagram) = part(&mut state).filter(|_| life == Life::Live) else { return };
            datagram.readable |= more.readable || more.failed;
            datagram.writable |= more.writable || more.failed;
            more = Ready::default();
            datagram.pump(&socket, wanted, &mut completions);
            let unread = datagram.readable;
            drop(state);
            completions.run(socket.provider());
            event::raise(&socket);
            if !unread {
                return;
            }
        }
    }
}
