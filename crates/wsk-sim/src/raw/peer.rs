//! The remote end of a connection, outside of the kernel: plain sockets of the host.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket as HostSocket, Type};

use super::wait::BOUND;

/// A TCP stream of the host. Every read and write is bounded in time.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    /// Its own address, known from before the connection: a stream that was reset has none.
    local: SocketAddr,
    /// The connection was reset before the host could tell that it was established.
    reset: bool,
    /// It has shut down its own sending.
    shut: AtomicBool,
}

/// The end of a connection, seen from the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By a FIN, after these bytes.
    Graceful(Vec<u8>),
    /// By a reset.
    Reset,
}

impl Peer {
    /// Connects. A connection that is reset as soon as it is established counts as established.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        match Self::try_connect(address) {
            Ok(peer) => peer,
            Err(error) => panic!("connecting to {address}: {error}"),
        }
    }

    /// Connects; returns the error if that fails.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let from: IpAddr = match (address.ip().is_loopback(), address) {
            (true, SocketAddr::V4(_)) => Ipv4Addr::LOCALHOST.into(),
            (true, SocketAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
            (false, SocketAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
            (false, SocketAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self::try_connect_from(from, address)
    }

    /// Returns whether a connection to this address is refused. On Windows a reset counts as a refusal:
    /// Wine's server may consume the error of a refused connection, so that only a hang-up is visible. A
    /// stream that got the address itself as its own, and so reached nothing but itself, counts as one, too.
    pub fn is_refused(address: SocketAddr) -> bool {
        match Self::try_connect(address) {
            Ok(peer) => (cfg!(windows) && peer.reset) || peer.local == address,
            Err(_) => true,
        }
    }

    /// Connects from a local address, such as another one of 127.0.0.0/8.
    #[track_caller]
    pub fn connect_from(local: impl Into<IpAddr>, address: SocketAddr) -> Self {
        let local = local.into();
        match Self::try_connect_from(local, address) {
            Ok(peer) => peer,
            Err(error) => panic!("connecting from {local} to {address}: {error}"),
        }
    }

    /// Connects from a local address; returns the error if that fails.
    pub fn try_connect_from(local: IpAddr, address: SocketAddr) -> io::Result<Self> {
        let socket = HostSocket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(local, 0).into())?;
        let bound = socket.local_addr()?.as_socket();
        let reset = match socket.connect_timeout(&address.into(), BOUND) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => true,
            // Wine's server has consumed the error, and a wait finds a hang-up without one. Only this case
            // counts.
            Err(error) if cfg!(windows) && error.to_string() == "no error set after POLLHUP" => true,
            Err(error) => return Err(error),
        };
        let mut peer = Self::over(socket.into(), bound)?;
        peer.reset = reset;
        if !reset {
            peer.stream.set_nodelay(true)?;
        }
        Ok(peer)
    }

    /// The next connection of a listener of the host.
    #[track_caller]
    pub fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().expect("accepting on the host");
        Self::over(stream, None).expect("a stream of the host")
    }

    fn over(stream: TcpStream, bound: Option<SocketAddr>) -> io::Result<Self> {
        stream.set_read_timeout(Some(BOUND))?;
        stream.set_write_timeout(Some(BOUND))?;
        let local = match bound {
            Some(bound) if !bound.ip().is_unspecified() => bound,
            _ => stream.local_addr()?,
        };
        Ok(Self { stream, local, reset: false, shut: AtomicBool::new(false) })
    }

    /// The host's stream.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Its address of the other end; the connection is established and was not reset.
    #[track_caller]
    pub fn remote(&self) -> SocketAddr {
        self.stream.peer_addr().expect("an established connection")
    }

    /// Its own address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends.
    #[track_caller]
    pub fn send(&self, bytes: &[u8]) -> &Self {
        (&self.stream).write_all(bytes).expect("sending from the host");
        self
    }

    /// Receives exactly this many bytes.
    #[track_caller]
    pub fn receive(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        (&self.stream).read_exact(&mut bytes).expect("receiving on the host");
        bytes
    }

    /// Receives until the connection ends.
    #[track_caller]
    pub fn end(&self) -> End {
        if self.reset {
            return End::Reset;
        }
        let mut bytes = Vec::new();
        match (&self.stream).read_to_end(&mut bytes) {
            Ok(_) => self.classify_end(bytes),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => End::Reset,
            Err(error) => panic!("waiting for the end on the host: {error}"),
        }
    }

    /// The end of the connection, if it has ended; no data is expected before that. May be called again until
    /// it returns one.
    #[track_caller]
    pub fn ended(&self) -> Option<End> {
        if self.reset {
            return Some(End::Reset);
        }
        self.stream.set_nonblocking(true).expect("a stream of the host");
        let read = (&self.stream).read(&mut [0]);
        self.stream.set_nonblocking(false).expect("a stream of the host");
        match read {
            Ok(0) => Some(self.classify_end(Vec::new())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Some(End::Reset),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            other => panic!("waiting for the end on the host: {other:?}"),
        }
    }

    /// Distinguishes a reset from the end of the stream that was found after `bytes`. Wine's server polls
    /// sockets itself, and after it has seen a reset a read finds an end. Then even an empty send fails.
    fn classify_end(&self, bytes: Vec<u8>) -> End {
        if cfg!(windows) && !self.shut.load(Ordering::Relaxed) && (&self.stream).write(&[]).is_err() {
            return End::Reset;
        }
        End::Graceful(bytes)
    }

    /// Expects a reset.
    #[track_caller]
    pub fn expect_reset(&self) {
        assert_eq!(self.end(), End::Reset);
    }

    /// Expects the end of the stream without further data.
    #[track_caller]
    pub fn expect_end(&self) {
        assert_eq!(self.end(), End::Graceful(Vec::new()));
    }

    /// Sends a FIN and continues to receive.
    #[track_caller]
    pub fn half_close(&self) -> &Self {
        self.shut.store(true, Ordering::Relaxed);
        self.stream.shutdown(Shutdown::Write).expect("half-closing on the host");
        self
    }

    /// Resets the connection.
    #[track_caller]
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("linger on the host");
    }

    /// Closes gracefully.
    pub fn close(self) {
        drop(self);
    }
}

/// A listener of the host on the loopback address, and its address.
#[track_caller]
pub fn host_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(super::LOCALHOST).expect("listening on the host");
    let address = listener.local_addr().expect("a local address");
    (listener, address)
}

/// A loopback address without a listener. The port stays bound for the life of the process, so that no other
/// test gets it.
#[track_caller]
pub fn closed_port() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .and_then(|socket| socket.bind(&super::LOCALHOST.into()).map(|()| socket))
        .expect("a socket of the host");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    std::mem::forget(socket);
    address.expect("a local address")
}

/// A datagram socket of the host on the loopback address, with bounded receives.
#[track_caller]
pub fn host_datagram() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(super::LOCALHOST).expect("a datagram socket of the host");
    socket.set_read_timeout(Some(BOUND)).expect("a timeout on the host");
    let address = socket.local_addr().expect("a local address");
    (socket, address)
}
