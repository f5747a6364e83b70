//! Many clients at once.

use std::net::{IpAddr, SocketAddr, TcpStream};

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{Domain, Socket, Type};

use crate::client::{PATIENCE, with_limits};

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
    with_limits(socket.into())
}
