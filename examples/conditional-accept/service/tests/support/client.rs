//! TCP clients of the service, for its own tests and those of the programs that run it.
#![allow(dead_code, reason = "not every test uses every client")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

/// Limit on everything a client waits for.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Connects, as far as the operating system is concerned: a connection that is reset at once counts.
pub(crate) fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    with_limits(TcpStream::connect(to)?)
}

/// Connects from the address `from`.
pub(crate) fn connect_from(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect(&to.into())?;
    with_limits(socket.into())
}

/// Connects from 127.0.0.`last`.
pub(crate) fn connect_from_loopback(last: u8, to: SocketAddr) -> std::io::Result<TcpStream> {
    connect_from(IpAddr::from([127, 0, 0, last]), to)
}

/// Sets limits on reads and writes.
pub(crate) fn with_limits(stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends a word and returns whether it comes back. Panics if nothing happens within the limit.
pub(crate) fn is_served(mut stream: &TcpStream) -> bool {
    let mut back = [0; 4];
    let result = stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut back));
    let timed_out =
        |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    assert!(!result.as_ref().is_err_and(timed_out), "the request was not decided");
    result.is_ok() && back == *b"ping"
}

/// Connects until a client is served, and returns that one. A client sees the end of its connection before
/// its place is free.
pub(crate) fn served_at_last(connect: impl Fn() -> std::io::Result<TcpStream>) -> TcpStream {
    let start = Instant::now();
    loop {
        match connect() {
            Ok(client) if is_served(&client) => return client,
            _ => assert!(start.elapsed() < PATIENCE, "the place is not released"),
        }
    }
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

/// Sends `bytes` while reading what comes back, ends the sending, and returns all that came until the other
/// side ended its sending too.
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
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused), "{error}");
}

/// Bytes in which a lost, doubled or moved piece shows.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}
