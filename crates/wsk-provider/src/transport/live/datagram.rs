//! Datagram ports of the host.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::UdpSocket;
use socket2::{SockRef, Socket};

use super::bindings::Binding;
use super::reactor::{Reactor, Watch};
use super::{on, tune};
use crate::transport::{Datagram, ReadySink, Received};

/// A bound UDP socket.
///
/// # Invariants
/// Fields are dropped in the order of declaration: see [`Binding`].
#[derive(Debug)]
pub(super) struct Port {
    watch: Option<Watch>,
    _binding: Binding,
    socket: UdpSocket,
}

impl Port {
    pub(super) fn open(
        binding: Binding,
        socket: Socket,
        reactor: &Arc<Reactor>,
        sink: Arc<dyn ReadySink>,
    ) -> io::Result<Self> {
        let mut port = Self { watch: None, _binding: binding, socket: UdpSocket::from_std(socket.into()) };
        port.watch = Some(reactor.watch(&mut port.socket, sink)?);
        Ok(port)
    }

    fn with<R>(&self, call: impl FnOnce(&SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        on(&self.socket, call)
    }
}

tune!(Port, with);

impl Datagram for Port {
    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let (length, from) = self.socket.recv_from(buffer)?;
        Ok(Received { length, from, to: None })
    }

    fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.socket.send_to(datagram, to)
    }
}
