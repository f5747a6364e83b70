//! Interface to the network: streams, listeners and datagram ports, all non-blocking.
//!
//! WSK's state machines use [`Transport`] and are independent of the host. The [`live`] implementation uses
//! the host's sockets; another one may move the bytes through memory under its own schedule. No operation
//! blocks, and all later events are reported to a sink.
//!
//! ```text
//!   Transport::reserve ──► Reservation ──connect──► Stream (connecting) ──first writable──► connected
//!                               │
//!                               └──────listen─────► Listener ──incoming──► Stream (connected, no sink yet)
//!   Transport::datagram ─► Datagram
//! ```
//!
//! Rules for every implementation, on which the callers' locking relies:
//!
//! * A sink is never called from inside a call of its owner, which may hold its own lock then.
//! * A sink may block its thread for any time; other sinks are called meanwhile, on other threads.
//! * Readiness is edge-triggered: it is reported once after the sink was attached, and then at each change.
//!   The owner continues until it gets [`WouldBlock`](io::ErrorKind::WouldBlock) or a short transfer.
//! * Reports may be spurious, and one report may still arrive after the object was dropped.
//! * An object ends its traffic when it is dropped; [`Stream::close`] and [`Stream::abort`] select how a
//!   stream ends.

pub mod live;
mod status;

pub use status::status_of;

use std::fmt::Debug;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A job for a thread of the transport; the owner of the transport supplies the thread.
pub type Job = Box<dyn FnOnce() + Send>;

/// Starts a thread with the given name for a job. If that fails the job is dropped.
pub type Spawn = Arc<dyn Fn(&str, Job) -> io::Result<()> + Send + Sync>;

/// Records a failure of the host that belongs to no particular sink.
pub type Complain = Arc<dyn Fn(&str) + Send + Sync>;

/// The network.
pub trait Transport: Send + Sync + Debug {
    /// Starts to deliver readiness, on threads started with `spawn`. Called once, before all other methods;
    /// it may be repeated after a failure, which happens if no thread is available. Later failures are passed
    /// to `complain`.
    fn start(&self, spawn: Spawn, complain: Complain) -> io::Result<()>;

    /// Stops the threads of [`start`](Self::start): on return they will make no further call into a sink,
    /// unless the caller is such a thread itself.
    fn stop(&self);

    /// Donates the calling thread, which would sleep otherwise, until `over` returns true, no work is left,
    /// or `patience` has elapsed. It calls only sinks that [accept it](ReadySink::accepts_donated_thread).
    fn donate_thread(&self, patience: Duration, over: &mut dyn FnMut() -> bool) {
        let _ = (patience, over);
    }

    /// Makes the donated threads check soon whether their wait is over.
    fn kick(&self) {}

    /// Binds the local stream address `local` without listening yet. Port 0 selects a free one.
    fn reserve(&self, local: SocketAddr, options: &BindOptions) -> io::Result<Box<dyn Reservation>>;

    /// Opens the datagram port `local`. Port 0 selects a free one.
    fn datagram(
        &self,
        local: SocketAddr,
        options: &BindOptions,
        sink: Arc<dyn ReadySink>,
    ) -> io::Result<Box<dyn Datagram>>;

    /// Returns the addresses of this machine.
    fn addresses(&self) -> io::Result<Vec<IpAddr>>;

    /// Binds `local` and listens at once.
    fn listen(
        &self,
        local: SocketAddr,
        options: &BindOptions,
        sink: Arc<dyn ListenSink>,
    ) -> io::Result<Box<dyn Listener>> {
        self.reserve(local, options)?.listen(sink)
    }
}

/// Options of a bind. The right to share the address with another socket of this provider is checked before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindOptions {
    /// An IPv6 socket serves IPv6 only. WSK's default.
    pub v6_only: bool,
    /// The client shares the address with other sockets that have this option (`SO_REUSEADDR`).
    pub reuse: bool,
    /// The provider has granted this address although another socket of its own has it, or an overlapping
    /// one. Only then is the host configured for two sockets, so that other processes still collide.
    pub share: bool,
    /// Probe idle connections (`SO_KEEPALIVE`); inherited by accepted streams.
    pub keep_alive: bool,
    /// Receive buffer size (`SO_RCVBUF`), inherited by accepted streams; `None` leaves it to the transport.
    pub receive_buffer: Option<usize>,
    /// Datagrams may go to broadcast addresses (`SO_BROADCAST`).
    pub broadcast: bool,
    /// Other options.
    pub tunings: Vec<Tuning>,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self {
            v6_only: true,
            reuse: false,
            share: false,
            keep_alive: false,
            receive_buffer: None,
            broadcast: false,
            tunings: Vec::new(),
        }
    }
}

/// An option that has no meaning for the state machines of WSK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// Keep-alive probes of idle connections.
    KeepAlive {
        /// `SO_KEEPALIVE`.
        on: bool,
        /// `TCP_KEEPIDLE`.
        idle: Duration,
        /// `TCP_KEEPINTVL`.
        interval: Duration,
        /// `TCP_KEEPCNT`.
        count: u32,
    },
    /// Send buffer size (`SO_SNDBUF`).
    SendBuffer(usize),
    /// `IP_TOS`.
    TypeOfService(u32),
    /// `IP_TTL`.
    TimeToLive(u32),
    /// `IPV6_UNICAST_HOPS`.
    Hops(u32),
    /// `IP_MULTICAST_TTL`.
    GroupTimeToLive(u32),
    /// `IPV6_MULTICAST_HOPS`.
    GroupHops(u32),
    /// `IP_MULTICAST_LOOP`.
    GroupLoop(bool),
    /// `IPV6_MULTICAST_LOOP`.
    GroupLoopV6(bool),
    /// `IP_MULTICAST_IF`: an address of the interface; the unspecified one lets the host choose.
    GroupInterface(Ipv4Addr),
    /// `IPV6_MULTICAST_IF`: the index of the interface; 0 lets the host choose.
    GroupInterfaceV6(u32),
    /// `IP_ADD_MEMBERSHIP` and `IP_DROP_MEMBERSHIP`: a group, and an address of the interface.
    Group {
        /// Joined rather than left.
        joined: bool,
        /// The group.
        group: Ipv4Addr,
        /// An address of the interface.
        interface: Ipv4Addr,
    },
    /// `IPV6_ADD_MEMBERSHIP` and `IPV6_DROP_MEMBERSHIP`: a group, and the number of the interface.
    GroupV6 {
        /// Joined rather than left.
        joined: bool,
        /// The group.
        group: Ipv6Addr,
        /// The number of the interface.
        interface: u32,
    },
}

/// Options that can change after the bind.
pub trait Tune: Send + Sync + Debug {
    /// Returns the local address, with the assigned port.
    fn local_address(&self) -> io::Result<SocketAddr>;

    /// `SO_KEEPALIVE`; on a listener for future streams.
    fn set_keep_alive(&self, on: bool) -> io::Result<()>;

    /// `SO_RCVBUF`; on a listener for future streams.
    fn set_receive_buffer(&self, bytes: usize) -> io::Result<()>;

    /// `SO_BROADCAST`; has an effect on datagrams only.
    fn set_broadcast(&self, on: bool) -> io::Result<()>;

    /// Any other option; on a listener for future streams. A network without the option ignores it.
    fn tune(&self, tuning: &Tuning) -> io::Result<()> {
        let _ = tuning;
        Ok(())
    }
}

/// A bound local stream address that is not yet used.
pub trait Reservation: Tune {
    /// Listens at this address.
    fn listen(self: Box<Self>, sink: Arc<dyn ListenSink>) -> io::Result<Box<dyn Listener>>;

    /// Starts to connect to `remote`. The outcome is available once the stream is reported as writable: see
    /// [`Stream::connected`]. Dropping the stream before that cancels the attempt.
    fn connect(self: Box<Self>, remote: SocketAddr, sink: Arc<dyn ReadySink>) -> io::Result<Box<dyn Stream>>;
}

/// Sink to which a listener delivers.
pub trait ListenSink: Send + Sync {
    /// A stream was established. It has no sink yet; dropping it resets the connection.
    fn incoming(&self, stream: Box<dyn Stream>);

    /// The listener has failed for good.
    fn failed(&self, error: io::Error);
}

/// A listening address. Dropping it ends the listening and resets streams that are not delivered yet.
pub trait Listener: Tune {
    /// Enables or disables the delivery of incoming streams. While it is disabled they wait in the
    /// transport's queue.
    fn set_accepting(&self, on: bool);
}

/// Sink to which streams and datagram ports report.
pub trait ReadySink: Send + Sync {
    /// Reports a change of readiness.
    fn ready(&self, ready: Ready);

    /// Returns whether a [donated](Transport::donate_thread) thread may call this sink. Such a call sets
    /// [`Ready::donated`] and must be short: it may complete requests, and leaves callbacks to other threads.
    fn accepts_donated_thread(&self) -> bool {
        false
    }
}

/// Operations that have become possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Reading may give data, the end of the stream or an error.
    pub readable: bool,
    /// Writing may take data or give an error; for a connecting stream: the attempt has ended.
    pub writable: bool,
    /// The peer has ended its side: the end of the stream follows the unread data.
    pub peer_closed: bool,
    /// The stream has failed; the next transfer returns the error.
    pub failed: bool,
    /// The peer has reset the connection; transfers may not report it. Only some hosts detect this.
    pub reset: bool,
    /// The call is made on a donated thread, which must not be blocked.
    pub donated: bool,
}

/// Data that waits to be read, as [`Stream::peek`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing now.
    Nothing,
    /// At least one byte.
    Data,
    /// The end of the stream, with no data before it.
    End,
}

/// One connection.
///
/// # Invariants
/// A stream has one owner. Dropping it has the effect of [`abort`](Self::abort).
pub trait Stream: Tune {
    /// Sets the sink, which gets a report of the current state soon.
    fn attach(&mut self, sink: Arc<dyn ReadySink>) -> io::Result<()>;

    /// Returns the state of the connection attempt: `Ok(false)` while it is in progress.
    fn connected(&self) -> io::Result<bool>;

    /// Reads available data into `buffers`, in order. Zero bytes for non-empty buffers mean the end of the
    /// stream.
    fn try_read(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize>;

    /// Writes bytes of `buffers`, in order; the transport is responsible for those it takes.
    fn try_write(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Checks for waiting data without reading it.
    fn peek(&self) -> io::Result<Waiting>;

    /// Returns the number of bytes that wait to be read.
    fn unread(&self) -> io::Result<usize>;

    /// Ends the sending direction behind the written data.
    fn shut_write(&mut self) -> io::Result<()>;

    /// Returns whether the peer has acknowledged all written data, and the end if
    /// [`shut_write`](Self::shut_write) was called. `None` if the host cannot tell: then a graceful
    /// disconnect is over when the host has taken the end. A host that can tell also reports readiness when
    /// this becomes true.
    fn drained(&self) -> io::Result<Option<bool>>;

    /// Returns the peer's address.
    fn remote_address(&self) -> SocketAddr;

    /// Ends a stream that was closed in both directions, without a further message to the peer.
    fn close(self: Box<Self>);

    /// Resets the connection.
    fn abort(self: Box<Self>);
}

/// One datagram that was received.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Its length.
    pub length: usize,
    /// Its source address.
    pub from: SocketAddr,
    /// Its destination address, if the host reports it.
    pub to: Option<IpAddr>,
    /// It was sent to all hosts of a network.
    pub broadcast: bool,
    /// Index of the receiving interface; 0 if the host does not report it.
    pub interface: u32,
    /// Its type of service or traffic class, if the host reports it.
    pub service: Option<u8>,
}

/// One datagram port.
pub trait Datagram: Tune {
    /// Receives one datagram. `buffer` has room for the largest one.
    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Received>;

    /// Sends one datagram.
    fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize>;
}
