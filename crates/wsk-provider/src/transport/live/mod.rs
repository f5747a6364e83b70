//! The network of the host: its sockets, polled by a reactor.
//!
//! ```text
//!   mio::Poll ──events──► Reactor ──ready──► sinks (connections, datagram sockets, pended inspections)
//!                            └────accept──► Acceptor ──incoming──► sink of the listener
//! ```

mod bindings;
mod datagram;
mod listener;
mod reactor;
mod slots;
mod stream;
mod tuned;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use self::bindings::{Bindings, Kind};
use self::reactor::Reactor;
use super::{BindOptions, Complain, Datagram, ReadySink, Reservation, Spawn, Transport};

/// Settings of the host network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Send buffer size of every stream (`SO_SNDBUF`); `None` lets the host tune it. With a small one, a
    /// client's sends wait for a peer that does not read, as on Windows; below about 128 KiB the loopback of
    /// a host is very slow.
    pub send_buffer: Option<usize>,
    /// Maximum number of streams; further connections wait in the host's queue. `None` is limited only by the
    /// host's descriptors.
    pub streams: Option<usize>,
}

/// [`Transport`] over the host's sockets.
#[derive(Debug)]
pub struct Live {
    reactor: Arc<Reactor>,
    bindings: Arc<Bindings>,
    settings: Settings,
}

impl Live {
    /// Creates a network with the host's own settings.
    pub fn new() -> io::Result<Self> {
        Self::with(Settings::default())
    }

    /// Creates a network with `settings`.
    pub fn with(settings: Settings) -> io::Result<Self> {
        Ok(Self {
            reactor: Arc::new(Reactor::new(settings.streams)?),
            bindings: Arc::new(Bindings::default()),
            settings,
        })
    }
}

impl Transport for Live {
    fn start(&self, spawn: Spawn, complain: Complain) -> io::Result<()> {
        self.reactor.start(&spawn, complain)
    }

    fn stop(&self) {
        self.reactor.stop();
    }

    fn donate_thread(&self, patience: Duration, over: &mut dyn FnMut() -> bool) {
        self.reactor.donate_thread(patience, over);
    }

    fn kick(&self) {
        self.reactor.wake();
    }

    fn reserve(&self, local: SocketAddr, options: &BindOptions) -> io::Result<Box<dyn Reservation>> {
        let socket = open(Kind::Stream, local, options)?;
        if let Some(bytes) = self.settings.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        let binding = self.bindings.bind(Kind::Stream, &socket, local, options.share)?;
        Ok(Box::new(stream::Reserved::new(binding, socket, Arc::clone(&self.reactor))))
    }

    fn datagram(
        &self,
        local: SocketAddr,
        options: &BindOptions,
        sink: Arc<dyn ReadySink>,
    ) -> io::Result<Box<dyn Datagram>> {
        let socket = open(Kind::Datagram, local, options)?;
        socket.set_broadcast(options.broadcast)?;
        let binding = self.bindings.bind(Kind::Datagram, &socket, local, options.share)?;
        Ok(Box::new(datagram::Port::open(binding, socket, &self.reactor, sink)?))
    }

    fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        Ok(if_addrs::get_if_addrs()?.iter().map(if_addrs::Interface::ip).collect())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.reactor.stop();
    }
}

/// Creates a host socket with the options that must be set before the bind.
fn open(kind: Kind, local: SocketAddr, options: &BindOptions) -> io::Result<Socket> {
    let (ty, protocol) = match kind {
        Kind::Stream => (Type::STREAM, Protocol::TCP),
        Kind::Datagram => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(local), ty, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if local.is_ipv6() {
        socket.set_only_v6(options.v6_only)?;
    }
    match kind {
        // A Unix host refuses a port for minutes after its last connection without this option. Windows does
        // not, and there the option would allow sharing with live sockets, so it is not set.
        Kind::Stream => {
            if cfg!(unix) && local.port() != 0 {
                socket.set_reuse_address(true)?;
            }
            // WSK passes a request to TCP as a whole, and TCP sends its last segment once the earlier ones
            // are acknowledged. Here one request can reach the host in several writes, whose ends Nagle's
            // algorithm would delay until an acknowledgement: 40 ms that no WSK client ever sees.
            socket.set_tcp_nodelay(true)?;
        }
        Kind::Datagram => {
            if options.reuse {
                socket.set_reuse_address(true)?;
            }
        }
    }
    if options.keep_alive && kind == Kind::Stream {
        socket.set_keepalive(true)?;
    }
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    for tuning in &options.tunings {
        tuned::apply(&SockRef::from(&socket), tuning)?;
    }
    Ok(socket)
}

/// [`Tune`](super::Tune) for a type whose field `socket` is a host socket and which has a method
/// `local(&self) -> io::Result<SocketAddr>`.
macro_rules! tune {
    ($type:ty, $with:ident) => {
        impl crate::transport::Tune for $type {
            fn local_address(&self) -> std::io::Result<std::net::SocketAddr> {
                self.$with(|socket| {
                    socket.local_addr()?.as_socket().ok_or_else(|| std::io::ErrorKind::InvalidInput.into())
                })
            }

            fn set_keep_alive(&self, on: bool) -> std::io::Result<()> {
                self.$with(|socket| socket.set_keepalive(on))
            }

            fn set_receive_buffer(&self, bytes: usize) -> std::io::Result<()> {
                self.$with(|socket| socket.set_recv_buffer_size(bytes))
            }

            fn set_broadcast(&self, on: bool) -> std::io::Result<()> {
                self.$with(|socket| socket.set_broadcast(on))
            }

            fn tune(&self, tuning: &crate::transport::Tuning) -> std::io::Result<()> {
                self.$with(|socket| crate::transport::live::tuned::apply(socket, tuning))
            }
        }
    };
}
use tune;

/// Calls `with` on a socket of any type.
fn on<S, R>(socket: &S, with: impl FnOnce(&SockRef<'_>) -> R) -> R
where
    for<'a> SockRef<'a>: From<&'a S>,
{
    with(&SockRef::from(socket))
}
