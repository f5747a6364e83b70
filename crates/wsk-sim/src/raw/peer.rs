//! The other end of a connection, outside of the kernel: plain sockets of the host.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket as HostSocket, Type};

use super::wait::BOUND;

/// A TCP stream of the host. Every read and write is bounded in time.
#[derive(Debug)]
pub struct Peer(TcpStream);

/// How a connection ended, seen from the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By a FIN, after these bytes.
    Graceful(Vec<u8>),
    /// By a reset.
    Reset,
}

impl Peer {
    /// Connects.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        match Self::try_connect(address) {
            Ok(peer) => peer,
            Err(error) => panic!("connecting to {address}: {error}"),
        }
    }

    /// Connects, or says why not.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, BOUND)?)
    }

    /// Connects from a local address, such as another one of 127.0.0.0/8.
    #[track_caller]
    pub fn connect_from(local: impl Into<IpAddr>, address: SocketAddr) -> Self {
        let local = SocketAddr::new(local.into(), 0);
        let connect = || {
            let socket = HostSocket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.bind(&local.into())?;
            socket.connect_timeout(&address.into(), BOUND)?;
            Self::over(socket.into())
        };
        match connect() {
            Ok(peer) => peer,
            Err(error) => panic!("connecting from {local} to {address}: {error}"),
        }
    }

    /// The next connection of a listener of the host.
    #[track_caller]
    pub fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().expect("accepting on the host");
        Self::over(stream).expect("a stream of the host")
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(BOUND))?;
        stream.set_write_timeout(Some(BOUND))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// The host's stream.
    pub fn stream(&self) -> &TcpStream {
        &self.0
    }

    /// Its own address.
    pub fn local(&self) -> SocketAddr {
        self.0.local_addr().expect("a local address")
    }

    /// Sends.
    #[track_caller]
    pub fn send(&self, bytes: &[u8]) -> &Self {
        (&self.0).write_all(bytes).expect("sending from the host");
        self
    }

    /// Receives exactly so many bytes.
    #[track_caller]
    pub fn receive(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        (&self.0).read_exact(&mut bytes).expect("receiving on the host");
        bytes
    }

    /// Receives until the connection ends.
    #[track_caller]
    pub fn end(&self) -> End {
        let mut bytes = Vec::new();
        match (&self.0).read_to_end(&mut bytes) {
            Ok(_) => End::Graceful(bytes),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => End::Reset,
            Err(error) => panic!("waiting for the end on the host: {error}"),
        }
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

    /// Sends a FIN and goes on receiving.
    #[track_caller]
    pub fn half_close(&self) -> &Self {
        self.0.shutdown(Shutdown::Write).expect("half-closing on the host");
        self
    }

    /// Resets the connection.
    #[track_caller]
    pub fn reset(self) {
        SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).expect("linger on the host");
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

/// A loopback address on which nobody listens.
#[track_caller]
pub fn closed_port() -> SocketAddr {
    host_listener().1
}

/// A datagram socket of the host on the loopback address, with bounded receives.
#[track_caller]
pub fn host_datagram() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(super::LOCALHOST).expect("a datagram socket of the host");
    socket.set_read_timeout(Some(BOUND)).expect("a timeout on the host");
    let address = socket.local_addr().expect("a local address");
    (socket, address)
}
