//! Interface to the network: streams, listeners and datagram ports, all non-blocking.
//!
//! WSK's state machines sit on top of [`Transport`] and know nothing of the host. The [`live`] implementation
//! serves them from the host's own sockets; another one may move the bytes through memory under a schedule of
//! its own. Nothing here waits, and everything that can happen later is told to a sink.
//!
//! ```text
//!   Transport::reserve ──► Reservation ──connect──► Stream (connecting) ──first writable──► connected
//!                               │
//!                               └──────listen─────► Listener ──incoming──► Stream (connected, no sink yet)
//!   Transport::datagram ─► Datagram
//! ```
//!
//! Rules for every implementation, on which the callers' locking rests:
//!
//! * A sink is never called from inside a call that its owner makes: the owner may hold its own lock then.
//! * A sink may hold its thread for as long as it likes; others are told meanwhile, by other threads.
//! * Readiness is reported by edge: once after the sink was attached, and then whenever it comes anew. The
//!   owner keeps trying until it is told [`WouldBlock`](io::ErrorKind::WouldBlock), or until a transfer came
//!   out shorter than it could have.
//! * Readiness may be reported without cause, and one report may still arrive after the object is gone.
//! * An object ends its traffic when it is dropped; how a stream ends is chosen with [`Stream::close`] and
//!   [`Stream::abort`].

pub mod live;
mod status;

pub use status::status_of;

use std::fmt::Debug;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A job for a thread of the transport's own; its owner supplies the thread.
pub type Job = Box<dyn FnOnce() + Send>;

/// Makes a thread of the given name for a job. Where that fails the job is dropped.
pub type Spawn = Arc<dyn Fn(&str, Job) -> io::Result<()> + Send + Sync>;

/// Takes note of a trouble with the host that the transport cannot tell anybody in particular.
pub type Complain = Arc<dyn Fn(&str) + Send + Sync>;

/// The network.
pub trait Transport: Send + Sync + Debug {
    /// Starts to deliver readiness, on threads made with `spawn`. Called once, before anything else; again if
    /// it failed, which it does if there is no thread to be had. What goes wrong later is told to `complain`.
    fn start(&self, spawn: Spawn, complain: Complain) -> io::Result<()>;

    /// Stops the threads of [`start`](Self::start): on return they will make no further call into a sink,
    /// unless the caller is such a thread itself.
    fn stop(&self);

    /// Donates the calling thread, which would sleep otherwise, until `over` returns true, no work is left, or
    /// `patience` has elapsed. It calls only sinks that [accept it](ReadySink::accepts_donated_thread).
    fn donate_thread(&self, patience: Duration, over: &mut dyn FnMut() -> bool) {
        let _ = (patience, over);
    }

    /// Makes the donated threads check soon whether their wait is over.
    fn kick(&self) {}

    /// Takes the local stream address `local`, port 0 meaning any free one, without listening yet.
    fn reserve(&self, local: SocketAddr, options: &BindOptions) -> io::Result<Box<dyn Reservation>>;

    /// Opens the datagram port `local`, port 0 meaning any free one.
    fn datagram(
        &self,
        local: SocketAddr,
        options: &BindOptions,
        sink: Arc<dyn ReadySink>,
    ) -> io::Result<Box<dyn Datagram>>;

    /// The addresses of this machine.
    fn addresses(&self) -> io::Result<Vec<IpAddr>>;

    /// Takes `local` and listens there at once.
    fn listen(
        &self,
        local: SocketAddr,
        options: &BindOptions,
        sink: Arc<dyn ListenSink>,
    ) -> io::Result<Box<dyn Listener>> {
        self.reserve(local, options)?.listen(sink)
    }
}

/// Manner in which an address is taken. Whether it *may* be taken beside another socket of this provider is
/// decided before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindOptions {
    /// An IPv6 socket serves IPv6 only. WSK's default.
    pub v6_only: bool,
    /// The client asked to share the address with whoever asks likewise (`SO_REUSEADDR`).
    pub reuse: bool,
    /// The provider has granted this address although another socket of its own holds it, or one that
    /// overlaps. Only then may a host be told to allow two holders, so that foreign processes still collide.
    pub share: bool,
    /// Probe idle connections (`SO_KEEPALIVE`); inherited by accepted streams.
    pub keep_alive: bool,
    /// Receive buffer size (`SO_RCVBUF`), inherited by accepted streams; `None` leaves it to the transport.
    pub receive_buffer: Option<usize>,
    /// Datagrams may go to broadcast addresses (`SO_BROADCAST`).
    pub broadcast: bool,
    /// Other choices.
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

/// An option that the state machines of WSK have no use for themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// Probes of idle connections: whether, after how long, how often, and how many times.
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
    /// `IP_MULTICAST_IF`: an address of the interface; the unspecified one leaves the choice to the host.
    GroupInterface(Ipv4Addr),
    /// `IPV6_MULTICAST_IF`: the number of the interface; 0 leaves the choice to the host.
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

/// Options that can change after an address was taken.
pub trait Tune: Send + Sync + Debug {
    /// The local address in use, with the port that was really assigned.
    fn local_address(&self) -> io::Result<SocketAddr>;

    /// `SO_KEEPALIVE`; on a listener for the streams to come.
    fn set_keep_alive(&self, on: bool) -> io::Result<()>;

    /// `SO_RCVBUF`; on a listener for the streams to come.
    fn set_receive_buffer(&self, bytes: usize) -> io::Result<()>;

    /// `SO_BROADCAST`; means something for datagrams only.
    fn set_broadcast(&self, on: bool) -> io::Result<()>;

    /// Any other option; on a listener for the streams to come. A network that has nothing of the kind lets
    /// it be.
    fn tune(&self, tuning: &Tuning) -> io::Result<()> {
        let _ = tuning;
        Ok(())
    }
}

/// A local stream address that is taken but not yet used.
pub trait Reservation: Tune {
    /// Listens at this address.
    fn listen(self: Box<Self>, sink: Arc<dyn ListenSink>) -> io::Result<Box<dyn Listener>>;

    /// Starts to connect to `remote`. The outcome is there once the sink was told that the stream is
    /// writable: see [`Stream::connected`]. Dropping the stream before that gives the attempt up.
    fn connect(self: Box<Self>, remote: SocketAddr, sink: Arc<dyn ReadySink>) -> io::Result<Box<dyn Stream>>;
}

/// Sink to which a listener delivers.
pub trait ListenSink: Send + Sync {
    /// A stream was established. It has no sink yet; dropping it resets the connection.
    fn incoming(&self, stream: Box<dyn Stream>);

    /// The listener has failed for good.
    fn failed(&self, error: io::Error);
}

/// A listening address; dropping it ends the listening, and streams nobody has taken are reset.
pub trait Listener: Tune {
    /// Returns whether incoming streams are delivered. While they are not they wait in the transport's own
    /// queue.
    fn set_accepting(&self, on: bool);
}

/// Sink to which streams and datagram ports report.
pub trait ReadySink: Send + Sync {
    /// Something has become possible.
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
    /// The peer has sent all it will send: the end of the stream is in sight, behind what is still unread.
    pub peer_closed: bool,
    /// The stream has failed; the next transfer tells how.
    pub failed: bool,
    /// The peer has reset the connection, and no transfer need tell. Only some hosts say so.
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
/// A stream belongs to one owner, and dropping it is an end like [`abort`](Self::abort).
pub trait Stream: Tune {
    /// Sends reports to `sink` from now on, and the present state soon.
    fn attach(&mut self, sink: Arc<dyn ReadySink>) -> io::Result<()>;

    /// Returns how the connection attempt stands: `Ok(false)` while it runs.
    fn connected(&self) -> io::Result<bool>;

    /// Reads what is there into `buffers`, in order. Zero bytes into room means the end of the stream.
    fn try_read(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize>;

    /// Takes bytes of `buffers`, in order, and takes over the responsibility for them.
    fn try_write(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Looks at what waits without taking it.
    fn peek(&self) -> io::Result<Waiting>;

    /// The number of bytes that wait to be read.
    fn unread(&self) -> io::Result<usize>;

    /// Ends the sending direction behind what was written.
    fn shut_write(&mut self) -> io::Result<()>;

    /// Returns whether the peer has acknowledged all that was written, and the end if
    /// [`shut_write`](Self::shut_write) was called. `None` where the host cannot tell, and a graceful
    /// disconnect is then over when the host has taken the end; a host that can also reports readiness when
    /// it becomes true.
    fn drained(&self) -> io::Result<Option<bool>>;

    /// The peer's address.
    fn remote_address(&self) -> SocketAddr;

    /// Ends a stream that was closed in both directions: the peer is told nothing more.
    fn close(self: Box<Self>);

    /// Resets the connection.
    fn abort(self: Box<Self>);
}

/// One datagram that was received.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Its length.
    pub length: usize,
    /// Whose it is.
    pub from: SocketAddr,
    /// Which address it was sent to, where the host tells.
    pub to: Option<IpAddr>,
    /// It was sent to all hosts of a network.
    pub broadcast: bool,
    /// The number of the interface by which it came; 0 where the host does not tell.
    pub interface: u32,
    /// Its type of service, or traffic class, where the host tells.
    pub service: Option<u8>,
}

/// One datagram port.
pub trait Datagram: Tune {
    /// Takes one datagram. `buffer` has room for the largest there is.
    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Received>;

    /// Sends one datagram.
    fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize>;
}
