//! Connections: sockets of the connection category, and stream sockets in that role (contract 5.6).
//!
//! ```text
//!            bind          connect                    ok
//!   Created ─────► Bound ─────────► Connecting ───────────────► Connected ◄──── accepted
//!                    ▲                  │ refused, cancelled     │  │
//!                    └── (CONN-04) ── Failed                     │  │ peer's RST, abortive disconnect
//!                                                                │  └──────────────────────────────► Reset
//!        Connected, by its two directions:                       │ SIO_WSK_SET_TCP_SILENT_MODE
//!                                                                └──────────────────────────────────► Silent
//!                 graceful disconnect             peer's FIN
//!        open ──────────────────────► LocalClosed ──────────┐
//!          │ peer's FIN                                     ▼
//!          └─────────────────────────► RemoteClosed ──► FullyClosed
//!                                             graceful disconnect
//! ```
//!
//! Data is transferred under the socket's lock, on the thread that finds it possible: the caller's in
//! `WskSend` and `WskReceive`, the transport's when it reports readiness. Requests that are done are
//! collected in an [`After`] and completed after the lock is released; [`event::raise`] makes callbacks, on
//! one thread at a time for each connection.

mod connect;
mod control;
mod disconnect;
mod event;
mod inbound;
mod outbound;
mod receive;
mod send;

pub(crate) use connect::{start_connect, wsk_connect, wsk_connect_ex, wsk_get_remote_address};
pub(crate) use control::{gathered, set_ideal_send_backlog};
pub(crate) use disconnect::wsk_disconnect;
pub(crate) use event::{sentinel, switched_on, wsk_release};
pub(crate) use receive::{wsk_receive, wsk_receive_ex};
pub(crate) use send::{wsk_send, wsk_send_ex};

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    STATUS_CANCELLED, STATUS_CONNECTION_ABORTED, STATUS_CONNECTION_RESET, STATUS_FILE_FORCED_CLOSED,
    STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_PARAMETER,
};

use self::connect::Attempt;
use self::inbound::{Inbound, ReceiveLatch};
use self::outbound::Outbound;
use crate::address::Claim;
use crate::behaviours::AfterReset;
use crate::config::Config;
use crate::data::Fault;
use crate::host::FaultPoint;
use crate::provider::Inner;
use crate::request::{Completions, RequestQueue};
use crate::socket::{Ending, Event, Life, Role, Socket, State};
use crate::transport::{BindOptions, Ready, ReadySink, Reservation, Stream, status_of};

/// Phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not bound.
    Created,
    /// Bound; the address is reserved.
    Bound,
    /// An attempt is in progress.
    Connecting,
    /// Connected; the two directions end separately.
    Connected,
    /// The attempt failed.
    Failed,
    /// No data is transferred any more in either direction.
    Reset,
    /// Silent: see `SIO_WSK_SET_TCP_SILENT_MODE`.
    Silent,
}

/// State of a connection.
///
/// # Invariants
/// `reservation` is `Some` exactly in `Bound`; `stream` is `Some` in `Connecting` and `Connected`, and stays
/// after the peer's reset until the socket ends.
#[derive(Debug)]
pub(crate) struct Connection {
    phase: Phase,
    reservation: Option<Box<dyn Reservation>>,
    stream: Option<Box<dyn Stream>>,
    /// Claim on the local address.
    claim: Option<Claim>,
    /// Exclusive use of the address through which it was accepted, for its lifetime (BIND-18).
    listener_claim: Option<Claim>,
    /// Options for another bind of the address after a failed attempt.
    retry: Option<BindOptions>,
    /// The local address, once it cannot change any more or the stream was dropped.
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    attempts: RequestQueue<Attempt>,
    /// Sink to which the stream reports.
    sink: Option<Arc<Sink>>,
    inbound: Inbound,
    outbound: Outbound,
    /// Number of sends with `WSK_FLAG_NODELAY`.
    undelayed: u64,
    /// The client has the socket: an event that is disabled now is missed.
    delivered: bool,
    /// A thread is making callbacks; other threads leave theirs to it.
    raising: bool,
    raise_again: bool,
}

/// Work that is deferred until the lock is released.
#[derive(Debug, Default)]
struct After {
    completions: Completions,
    /// A stream to drop, which ends it.
    stream: Option<Box<dyn Stream>>,
    /// Latch of the receive event that opens after the completions.
    opens: Option<ReceiveLatch>,
    /// Disposal of the socket, which its client does not get.
    discard: Option<fn(&Arc<Socket>)>,
}

impl After {
    fn run(self, socket: &Arc<Socket>) {
        drop(self.stream);
        if let Some(discard) = self.discard {
            discard(socket);
        }
        // Most calls have none, and a move costs more than this check.
        if !self.completions.is_empty() {
            self.completions.run(socket.provider());
        }
        if let Some(latch) = self.opens {
            event::open(socket, latch);
        }
    }
}

impl Connection {
    /// Creates a connection that is not bound yet.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            phase: Phase::Created,
            reservation: None,
            stream: None,
            claim: None,
            listener_claim: None,
            retry: None,
            local: None,
            remote: None,
            attempts: RequestQueue::default(),
            sink: None,
            inbound: Inbound::default(),
            outbound: Outbound::new(config.ideal_send_backlog),
            undelayed: 0,
            delivered: true,
            raising: false,
            raise_again: false,
        }
    }

    /// Creates an accepted connection. [`attach`] follows when its socket was created, [`delivered`] when the
    /// client has it.
    pub(crate) fn accepted(stream: Box<dyn Stream>, claim: Option<Claim>, config: &Config) -> Self {
        let mut connection = Self::new(config);
        connection.listener_claim = claim;
        connection.remote = Some(stream.remote_address());
        connection.stream = Some(stream);
        connection.phase = Phase::Connected;
        connection.inbound.begin();
        connection.delivered = false;
        connection
    }

    /// Records the successful bind.
    pub(crate) fn bound(&mut self, reservation: Box<dyn Reservation>, claim: Claim) -> io::Result<()> {
        self.local = Some(reservation.local_address()?);
        self.reservation = Some(reservation);
        self.claim = Some(claim);
        self.phase = Phase::Bound;
        Ok(())
    }

    /// Returns the local address; `None` before the bind.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match (self.phase, &self.stream) {
            (Phase::Connected | Phase::Silent, Some(stream)) => stream.local_address().ok().or(self.local),
            _ => self.local,
        }
    }

    /// Returns whether data can be transferred, or could until the connection ended.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected | Phase::Reset | Phase::Silent)
    }

    /// Returns whether a bind is too late.
    pub(crate) fn is_past_bind(&self) -> bool {
        self.phase != Phase::Created
    }

    /// Removes the waiting request of `irp`, which is being cancelled, and returns the number of bytes that
    /// it
    /// reports.
    pub(crate) fn cancelled(&mut self, irp: *mut IRP) -> usize {
        if let Some(attempt) = self.attempts.remove_cancelled(irp) {
            self.give_up(&attempt);
            return 0;
        }
        self.outbound.cancelled(irp);
        let bytes = self.inbound.cancelled(irp);
        if self.inbound.has_kept() {
            // Bytes were put back, and other receives may wait for them; they cannot be served here.
            self.nudge();
        }
        bytes
    }

    /// Makes the transport report readiness soon.
    fn nudge(&mut self) {
        if let (Some(stream), Some(sink)) = (&mut self.stream, &self.sink) {
            // On failure the connection has failed too, which is reported separately.
            let _ = stream.attach(Arc::<Sink>::clone(sink));
        }
    }

    /// Returns the indications that the client has retained; the socket is gone.
    pub(crate) fn give_back(mut self: Box<Self>, provider: &Inner, call: &'static str) {
        for packet in self.inbound.take_indicated() {
            provider.take_back(call, packet);
        }
    }

    /// Ends the work of the socket.
    pub(crate) fn end(&mut self, ending: Ending, completions: &mut Completions) {
        let status = ending.status();
        self.attempts.end_all(status, completions);
        self.outbound.end_all(status, completions);
        self.inbound.end_all(status, completions);
        self.local = self.local_address();
        self.reservation = None;
        if let Some(stream) = self.stream.take() {
            if self.is_fully_closed(&*stream) { stream.close() } else { stream.abort() }
        }
        self.claim = None;
        self.listener_claim = None;
        self.phase = Phase::Reset;
    }

    /// Returns whether both directions have been closed gracefully, so that a close needs no reset
    /// (CLOSE-05).
    fn is_fully_closed(&self, stream: &dyn Stream) -> bool {
        self.phase == Phase::Connected && self.outbound.end_sent() && self.inbound.has_ended(stream)
    }

    /// Returns the status if data cannot be transferred in this phase.
    fn refusal(&self, provider: &Inner) -> Option<NTSTATUS> {
        match self.phase {
            Phase::Connected => None,
            Phase::Created | Phase::Bound | Phase::Connecting => {
                Some(provider.live_config.behaviours().not_connected.status())
            }
            Phase::Failed | Phase::Silent => Some(STATUS_INVALID_DEVICE_STATE),
            Phase::Reset => Some(after_reset(provider)),
        }
    }

    /// Transfers as much data as possible.
    fn pump(&mut self, socket: &Arc<Socket>, after: &mut After) {
        if self.phase != Phase::Connected {
            return;
        }
        let Some(stream) = self.stream.as_deref_mut() else { return };
        let moved = self
            .outbound
            .pump(stream, self.inbound.peer_has_ended(), socket, &mut after.completions)
            .and_then(|()| self.inbound.pump(stream, socket, &mut after.completions));
        after.opens = self.inbound.take_opening().or(after.opens);
        if let Err(status) = moved {
            self.broken(status, after);
        }
    }

    /// Handles a reset or another failure of the connection.
    fn broken(&mut self, status: NTSTATUS, after: &mut After) {
        if self.phase != Phase::Connected {
            return;
        }
        self.phase = Phase::Reset;
        self.listener_claim = None;
        self.inbound.reset_due = true;
        self.inbound.discard();
        self.outbound.end_all(status, &mut after.completions);
        self.inbound.end_all(status, &mut after.completions);
    }

    /// Disconnects abortively: waits for nothing, and resets the connection.
    fn abort(&mut self, after: &mut After) {
        self.local = self.local_address();
        self.phase = Phase::Reset;
        self.listener_claim = None;
        self.inbound.discard();
        self.outbound.abort(STATUS_CANCELLED, STATUS_CONNECTION_ABORTED, &mut after.completions);
        self.inbound.end_all(STATUS_CONNECTION_ABORTED, &mut after.completions);
        after.stream = self.stream.take();
    }
}

/// Returns the status of transfers after a reset (SND-18).
fn after_reset(provider: &Inner) -> NTSTATUS {
    let reset = match provider.live_config.behaviours().after_reset {
        AfterReset::Either => provider.host.choose(FaultPoint::ResetStatus, 2) == 0,
        AfterReset::Reset => true,
        AfterReset::ForcedClosed => false,
    };
    if reset { STATUS_CONNECTION_RESET } else { STATUS_FILE_FORCED_CLOSED }
}

/// Reports an invalid buffer, and returns the status of the call.
pub(crate) fn refuse_buffer(provider: &Inner, call: &'static str, fault: Fault) -> NTSTATUS {
    match fault {
        Fault::OutOfChain => {
            provider.violation("SND-08", call, "the WSK_BUF range exceeds its MDL chain");
            STATUS_INVALID_PARAMETER
        }
        Fault::NotLocked => {
            provider.violation("SND-09", call, "an MDL describes neither locked pages nor non-paged pool");
            STATUS_INVALID_PARAMETER
        }
        Fault::NotMapped => STATUS_INSUFFICIENT_RESOURCES,
    }
}

/// Returns the status of a connection call on a socket that is no connection: a stream socket in another
/// role, or without one.
fn no_connection(state: &State, provider: &Inner) -> NTSTATUS {
    let behaviours = provider.live_config.behaviours();
    match &state.role {
        Role::Listen(_) => behaviours.other_role.status(),
        _ => behaviours.not_connected.status(),
    }
}

/// Returns the connection of a socket whose lock is held.
fn part(state: &mut State) -> Option<&mut Connection> {
    match &mut state.role {
        Role::Connection(connection) => Some(connection),
        _ => None,
    }
}

/// Sink to which the transport reports.
#[derive(Debug)]
struct Sink(Weak<Socket>);

/// A sink for the stream of `socket`.
fn sink(socket: &Arc<Socket>) -> Arc<Sink> {
    Arc::new(Sink(Arc::downgrade(socket)))
}

impl ReadySink for Sink {
    fn ready(&self, ready: Ready) {
        let Some(socket) = self.0.upgrade() else { return };
        let mut after = After::default();
        let mut state = socket.lock();
        let life = state.life;
        let receives = state.events.is_on(Event::Receive);
        if let Some(connection) = part(&mut state)
            && life == Life::Live
        {
            connection.inbound.event_first = receives
                && ready.readable
                && connection.inbound.has_receives()
                && socket.provider().injects(FaultPoint::EventDespiteIrp);
            connection.ready(ready, &socket, &mut after);
        }
        let mut due = event::is_due(&socket, &mut state);
        if !due
            && let Some(connection) = part(&mut state)
            && std::mem::take(&mut connection.inbound.event_first)
        {
            connection.pump(&socket, &mut after);
            due = event::is_due(&socket, &mut state);
        }
        let defers = ready.donated && event::may_call(&state);
        drop(state);
        after.run(&socket);
        if due && defers {
            event::defer_raise(&socket);
        } else if due {
            event::raise(&socket);
        }
    }

    /// Calls into the client are deferred to other threads.
    fn accepts_donated_thread(&self) -> bool {
        true
    }
}

impl Connection {
    fn ready(&mut self, ready: Ready, socket: &Arc<Socket>, after: &mut After) {
        if self.phase == Phase::Connecting && !self.is_through(socket, after) {
            return;
        }
        self.inbound.note(ready);
        self.outbound.note(ready);
        if (ready.failed || ready.reset)
            && let Some(stream) = &self.stream
        {
            match stream.connected() {
                Err(error) => self.broken(status_of(&error), after),
                Ok(_) if ready.reset => self.broken(STATUS_CONNECTION_RESET, after),
                Ok(_) => {}
            }
        }
        self.pump(socket, after);
    }
}

/// Attaches the sink of an accepted connection, whose socket was created.
pub(crate) fn attach(socket: &Arc<Socket>) {
    let mut after = After::default();
    let mut state = socket.lock();
    let handed_over = state.handover.is_none();
    if let Some(connection) = part(&mut state)
        && let Some(stream) = connection.stream.as_deref_mut()
    {
        connection.delivered = handed_over;
        let sink = Arc::clone(connection.sink.insert(sink(socket)));
        if let Err(error) = stream.attach(sink) {
            connection.broken(status_of(&error), &mut after);
        }
    }
    drop(state);
    after.run(socket);
}

/// Records that the client has a connection that was handed over by `WskAcceptEvent`, with its initial
/// events.
pub(crate) fn delivered(socket: &Arc<Socket>) {
    let mut state = socket.lock();
    if let Some(connection) = part(&mut state) {
        connection.delivered = true;
    }
    let due = event::is_due(socket, &mut state);
    drop(state);
    if due {
        event::defer_raise(socket);
    }
}

impl Connection {
    /// Returns whether there is input for `event`.
    pub(crate) fn has_waiting(&self, event: Event) -> bool {
        match event {
            Event::Receive => self.phase == Phase::Connected && self.inbound.may_have_data(),
            Event::Disconnect => self.inbound.end_is_due() || self.inbound.reset_due,
            Event::SendBacklog => self.outbound.backlog_due(),
            Event::ReceiveFrom | Event::Accept => false,
        }
    }
}
