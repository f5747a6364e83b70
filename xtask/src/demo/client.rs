//! Clients of the server: each chooses its source address, and reports what it observed.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::records::PATIENCE;

/// Observation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observation {
    /// Every byte it sent came back.
    Echo(usize),
    /// Every byte came back, and then the end.
    EchoAndEnd(usize),
    /// Other bytes came back, after so many that were right.
    Wrong(usize),
    /// The end, after so many bytes.
    Cut(usize),
    /// The end, without a byte.
    End,
    /// A reset.
    Reset,
    /// The connection was refused.
    Refused,
    /// Nothing at all.
    Silence,
    /// Something else.
    Error(ErrorKind),
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo(count) => write!(f, "all {count} bytes back"),
            Self::EchoAndEnd(count) => write!(f, "all {count} bytes back, then the end"),
            Self::Wrong(count) => write!(f, "other bytes after {count} right ones"),
            Self::Cut(count) => write!(f, "the end after {count} bytes"),
            Self::End => f.write_str("the end"),
            Self::Reset => f.write_str("reset"),
            Self::Refused => f.write_str("refused"),
            Self::Silence => f.write_str("silence"),
            Self::Error(kind) => write!(f, "{kind}"),
        }
    }
}

impl From<io::Error> for Observation {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Self::Reset,
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Silence,
            kind => Self::Error(kind),
        }
    }
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    /// The address it comes from: the gate knows it by this name.
    pub name: SocketAddr,
    stream: Result<TcpStream, Observation>,
}

impl Client {
    /// A client from 127.0.0.`last`, connected as far as the operating system is concerned, or refused.
    ///
    /// # Errors
    ///
    /// When this machine cannot make it.
    pub(crate) fn connect(last: u8, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(IpAddr::from([127, 0, 0, last]), 0).into())?;
        // Bound to port 0, it has its port already; the name is known even if the connection is refused.
        let name = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_tcp_nodelay(true)?;
        let stream =
            socket.connect_timeout(&to.into(), PATIENCE).map(|()| socket.into()).map_err(Observation::from);
        Ok(Self { name, stream })
    }

    /// Was the connection refused?
    pub(crate) fn refused(&self) -> bool {
        matches!(self.stream, Err(Observation::Refused))
    }

    /// No read takes longer than this.
    pub(crate) fn patience(&self, limit: Duration) {
        if let Ok(stream) = &self.stream {
            // A client that cannot be made impatient waits longer.
            let _ = stream.set_read_timeout(Some(limit));
        }
    }

    /// Sends `bytes` and reads as many.
    pub(crate) fn echo(&self, bytes: &[u8]) -> Observation {
        self.send(bytes, false).unwrap_or_else(|observation| observation)
    }

    /// Sends `bytes`, ends the sending, and reads to the end.
    pub(crate) fn echo_to_the_end(&self, bytes: &[u8]) -> Observation {
        self.send(bytes, true).unwrap_or_else(|observation| observation)
    }

    /// Sends `bytes` and ends the sending; only then it reads, to the end. Not for more bytes than fit on the
    /// way.
    pub(crate) fn half_close(&self, bytes: &[u8]) -> Observation {
        let ended = self.stream.as_ref().map_err(|observation| *observation).and_then(|mut stream| {
            stream.write_all(bytes)?;
            stream.shutdown(Shutdown::Write)?;
            receive(stream, bytes, true)
        });
        ended.unwrap_or_else(|observation| observation)
    }

    /// Ends the sending, and reads to the end.
    pub(crate) fn finish(&self) -> Observation {
        let ended = self.stream.as_ref().map_err(|observation| *observation).and_then(|mut stream| {
            stream.shutdown(Shutdown::Write)?;
            Ok(stream.read(&mut [0; 16])?)
        });
        match ended {
            Ok(0) => Observation::End,
            Ok(_) => Observation::Wrong(0),
            Err(observation) => observation,
        }
    }

    /// Waits, without sending anything.
    pub(crate) fn listen(&self) -> Observation {
        match self
            .stream
            .as_ref()
            .map_err(|observation| *observation)
            .and_then(|mut stream| Ok(stream.read(&mut [0; 16])?))
        {
            Ok(0) => Observation::End,
            Ok(_) => Observation::Wrong(0),
            Err(observation) => observation,
        }
    }

    /// Gives up: the other side sees a reset.
    pub(crate) fn reset(self) -> io::Result<()> {
        match self.stream {
            Ok(stream) => SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
            Err(_) => Ok(()),
        }
    }

    fn send(&self, bytes: &[u8], finish: bool) -> Result<Observation, Observation> {
        let stream = self.stream.as_ref().map_err(|observation| *observation)?;
        std::thread::scope(|scope| {
            // Beside the reading: both directions have bounded room.
            let sender = scope.spawn(move || -> Result<(), Observation> {
                let mut sending = stream;
                sending.write_all(bytes)?;
                if finish {
                    sending.shutdown(Shutdown::Write)?;
                }
                Ok(())
            });
            match (receive(stream, bytes, finish), sender.join()) {
                (Ok(Observation::Echo(_) | Observation::EchoAndEnd(_)), Ok(Err(observation))) => {
                    Err(observation)
                }
                (seen, _) => seen,
            }
        })
    }
}

/// Reads what should be `bytes`, and, with `finish`, the end.
fn receive(mut stream: &TcpStream, bytes: &[u8], finish: bool) -> Result<Observation, Observation> {
    let (mut back, mut right) = (vec![0; 1 << 16], 0);
    loop {
        if right == bytes.len() && !finish {
            return Ok(Observation::Echo(right));
        }
        match stream.read(&mut back)? {
            0 if right == bytes.len() => return Ok(Observation::EchoAndEnd(right)),
            0 if right == 0 => return Ok(Observation::End),
            0 => return Ok(Observation::Cut(right)),
            count if bytes[right..].starts_with(&back[..count]) => right += count,
            _ => return Ok(Observation::Wrong(right)),
        }
    }
}

/// Bytes in which a lost, doubled or moved piece shows.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

// Other systems have no addresses but 127.0.0.1 there without being asked.
#[cfg(all(test, any(target_os = "linux", windows)))]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that does `serve` with one client, and what that client sees.
    fn seen(serve: fn(TcpStream), look: fn(&Client) -> Observation) -> Observation {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || serve(listener.accept().unwrap().0));
        let client = Client::connect(2, address).unwrap();
        assert_eq!(client.name.ip(), IpAddr::from([127, 0, 0, 2]));
        let observation = look(&client);
        drop(client);
        server.join().unwrap();
        observation
    }

    fn echo_all(mut stream: TcpStream) {
        let mut other = stream.try_clone().unwrap();
        let _ = io::copy(&mut stream, &mut other);
    }

    #[test]
    fn observations_are_told_apart() {
        assert_eq!(seen(echo_all, |client| client.echo(&pattern(100_000))), Observation::Echo(100_000));
        assert_eq!(seen(echo_all, |client| client.echo_to_the_end(b"all")), Observation::EchoAndEnd(3));
        assert_eq!(seen(echo_all, |client| client.half_close(b"then")), Observation::EchoAndEnd(4));
        let short = |mut stream: TcpStream| {
            stream.read_exact(&mut [0; 3]).unwrap();
            stream.write_all(b"tw").unwrap();
        };
        assert_eq!(seen(short, |client| client.echo(b"two")), Observation::Cut(2));
        assert_eq!(seen(drop, Client::finish), Observation::End);
        let wrong = |mut stream: TcpStream| {
            stream.read_exact(&mut [0; 3]).unwrap();
            stream.write_all(b"tew").unwrap();
        };
        assert_eq!(seen(wrong, |client| client.echo(b"two")), Observation::Wrong(0));
        let reset = |stream: TcpStream| SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        assert_eq!(seen(reset, Client::listen), Observation::Reset);
        let silent = |mut stream: TcpStream| _ = stream.read(&mut [0; 1]);
        let impatient = |client: &Client| {
            client.patience(Duration::from_millis(50));
            client.listen()
        };
        assert_eq!(seen(silent, impatient), Observation::Silence);
    }

    #[test]
    fn an_unused_port_refuses() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(Client::connect(2, address).unwrap().listen(), Observation::Refused);
    }
}
