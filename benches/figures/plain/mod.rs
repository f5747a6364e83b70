//! Plain servers, as they are written without this library.

pub(crate) mod polling;
pub(crate) mod threads;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// The room for a message.
const BUFFER: usize = 4096;
/// More than the client ever has under way.
const BACKLOG: i32 = 4096;

/// A socket that listens; connections inherit that nothing is held back to be sent with more.
fn listen() -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("the host has sockets");
    socket.set_tcp_nodelay(true).expect("a socket need not delay");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port is free");
    socket.listen(BACKLOG).expect("a bound socket can listen");
    socket.into()
}
