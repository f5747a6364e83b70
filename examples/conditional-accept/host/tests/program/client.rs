//! A client that chooses the address it comes from.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{Domain, SockRef, Socket, Type};

/// Anything that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// A connection from 127.0.0.`last`, established as far as the operating system is concerned.
pub(crate) fn connect(last: u8, to: SocketAddr) -> TcpStream {
    connect_from(IpAddr::from([127, 0, 0, last]), to).expect("a connection")
}

/// A connection from `from`.
pub(crate) fn connect_from(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    patient(socket)
}

/// Connections from all of `from`, asked for at once. Those that the operating system refuses are left out.
pub(crate) fn connect_all(from: impl Iterator<Item = IpAddr>, to: SocketAddr) -> Vec<TcpStream> {
    let started: Vec<_> = from
        .map(|from| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
            socket.bind(&SocketAddr::new(from, 0).into()).expect("an address");
            socket.set_nonblocking(true).expect("an open socket");
            // It is under way, or the wait below tells why not.
            let _ = socket.connect(&to.into());
            socket
        })
        .collect();
    started.into_iter().filter_map(|socket| established(socket).ok()).collect()
}

/// Waits until the connection that `socket` has begun is there.
fn established(socket: Socket) -> std::io::Result<TcpStream> {
    let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    if rustix::event::poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&limit))? == 0 {
        return Err(std::io::ErrorKind::TimedOut.into());
    }
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    socket.set_nonblocking(false)?;
    patient(socket)
}

/// The stream of a connected socket; no call on it waits for ever.
fn patient(socket: Socket) -> std::io::Result<TcpStream> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Ends a connection with a reset.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an open socket");
    drop(stream);
}

/// Sends `bytes`, and returns once they have come back.
pub(crate) fn echo(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("sent");
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("echoed");
    assert!(back == bytes, "other bytes came back");
}

/// Sends `bytes` while reading what comes back, ends the sending, and returns all that came until the other side
/// ended its sending too.
pub(crate) fn echo_to_the_end(stream: &TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut back = Vec::with_capacity(bytes.len());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sending = stream;
            sending.write_all(bytes).expect("sent");
            sending.shutdown(Shutdown::Write).expect("ended");
        });
        let mut receiving = stream;
        receiving.read_to_end(&mut back).expect("echoed");
    });
    back
}

/// Asserts that the connection is refused: a reset, whatever call happens to see it.
pub(crate) fn assert_refused(connection: std::io::Result<TcpStream>) {
    let result = connection.and_then(|mut stream| stream.read(&mut [0; 16]));
    let error = result.expect_err("a reset");
    assert!(
        matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::ConnectionRefused),
        "{error}"
    );
}

/// Bytes in which a lost, doubled or moved piece shows.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}
