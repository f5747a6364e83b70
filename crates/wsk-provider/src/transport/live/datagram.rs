//! Datagram ports of the host.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::UdpSocket;
use socket2::{SockRef, Socket};

use super::bindings::Binding;
use super::reactor::{Reactor, Registration};
use super::{on, tune};
use crate::transport::{Datagram, ReadySink, Received};

/// A bound UDP socket.
///
/// # Invariants
/// Fields are dropped in the order of declaration: see [`Binding`].
#[derive(Debug)]
pub(super) struct Port {
    registration: Option<Registration>,
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
        let mut port =
            Self { registration: None, _binding: binding, socket: UdpSocket::from_std(socket.into()) };
        host::enable_destinations(&port.socket)?;
        port.registration = Some(reactor.register_sink(&mut port.socket, sink)?);
        Ok(port)
    }

    fn with<R>(&self, call: impl FnOnce(&SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        on(&self.socket, call)
    }
}

tune!(Port, with);

impl Datagram for Port {
    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        host::receive(&self.socket, buffer)
    }

    fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.socket.send_to(datagram, to)
    }
}

/// A host that tells which address a datagram was sent to.
#[cfg(target_os = "linux")]
mod host {
    use std::io;
    use std::mem::{size_of, zeroed};
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::os::fd::AsRawFd;
    use std::ptr;

    use mio::net::UdpSocket;
    use socket2::SockAddr;

    use crate::transport::Received;

    /// Room for the control messages of either family.
    const CONTROL: usize = 128;

    /// A control buffer, aligned for the headers in it.
    #[repr(C, align(8))]
    struct Control([u8; CONTROL]);

    /// Has the host tell the destination of each datagram, and its type of service.
    pub(super) fn enable_destinations(socket: &UdpSocket) -> io::Result<()> {
        if socket.local_addr()?.is_ipv4() {
            switch_on(socket, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
            return switch_on(socket, libc::IPPROTO_IP, libc::IP_RECVTOS);
        }
        switch_on(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
        switch_on(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)?;
        // For the datagrams of IPv4 on a socket that serves both; a host without IPv4 need not know it.
        let _ = switch_on(socket, libc::IPPROTO_IP, libc::IP_RECVTOS);
        Ok(())
    }

    fn switch_on(socket: &UdpSocket, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
        let on: libc::c_int = 1;
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the descriptor is open, and the option takes an `int`, which lives during the call.
        let result =
            unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Receives one datagram with the host's control messages.
    pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
        let mut control = Control([0; CONTROL]);
        let mut data = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: all zeroes is a valid `msghdr`: null pointers and no lengths.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL as _;
        let (length, from) = {
            let receive = |storage: *mut socket2::SockAddrStorage, size: *mut libc::socklen_t| {
                message.msg_name = storage.cast();
                // SAFETY: `try_init` passes a valid length variable.
                message.msg_namelen = unsafe { size.read() };
                // SAFETY: the descriptor is open; the header points to buffers that live during the call.
                let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
                if length < 0 {
                    return Err(io::Error::last_os_error());
                }
                // SAFETY: the descriptor is open; the header points to buffers that live during the call.
                unsafe { size.write(message.msg_namelen) };
                Ok(length as usize)
            };
            // SAFETY: on success the host has written an address of the length it tells.
            unsafe { SockAddr::try_init(receive) }?
        };
        let from = from.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        let mut received = Received { length, from, to: None, broadcast: false, interface: 0, service: None };
        read_control(&message, &mut received);
        Ok(received)
    }

    /// Returns the data of the control messages of a received message.
    fn read_control(message: &libc::msghdr, received: &mut Received) {
        // SAFETY: the host has filled in the header and the control buffer it points to.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
        while !header.is_null() {
            // SAFETY: the header lies in the control buffer, which is aligned for it.
            let known = unsafe { header.read() };
            // SAFETY: the header lies in the control buffer, which is aligned for it.
            let data = unsafe { libc::CMSG_DATA(header) };
            match (known.cmsg_level, known.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // SAFETY: the kind tells what the data is; it may lie unaligned.
                    let info = unsafe { ptr::read_unaligned(data.cast::<libc::in_pktinfo>()) };
                    let to = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                    let own = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
                    // The host answers a broadcast from an address of its own, so the two differ then.
                    received.to = Some(to.into());
                    received.broadcast = to.is_broadcast() || (!to.is_multicast() && to != own);
                    received.interface = info.ipi_ifindex.unsigned_abs();
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    // SAFETY: the kind tells what the data is; it may lie unaligned.
                    let info = unsafe { ptr::read_unaligned(data.cast::<libc::in6_pktinfo>()) };
                    received.to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                    received.interface = info.ipi6_ifindex;
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => {
                    // SAFETY: the kind tells that the data is a byte.
                    received.service = Some(unsafe { data.read() });
                }
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    // SAFETY: the kind tells that the data is an `int`; it may lie unaligned.
                    let class = unsafe { ptr::read_unaligned(data.cast::<libc::c_int>()) };
                    received.service = u8::try_from(class).ok();
                }
                _ => {}
            }
            // SAFETY: the kind tells that the data is an `int`; it may lie unaligned.
            header = unsafe { libc::CMSG_NXTHDR(message, header) };
        }
    }
}

/// A host that does not tell.
#[cfg(not(target_os = "linux"))]
mod host {
    use std::io;

    use mio::net::UdpSocket;

    use crate::transport::Received;

    #[allow(clippy::unnecessary_wraps, reason = "the signature is that of the hosts with this feature")]
    pub(super) fn enable_destinations(_socket: &UdpSocket) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
        let (length, from) = socket.recv_from(buffer)?;
        Ok(Received { length, from, to: None, broadcast: false, interface: 0, service: None })
    }
}
