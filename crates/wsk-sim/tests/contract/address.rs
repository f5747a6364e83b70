//! `WskGetLocalAddress` and `WskGetRemoteAddress` (contract 4.23).

use wsk_sim::raw::*;
use wsk_sys::*;

use crate::support::*;

/// Shows: ADDR-01
#[test]
fn an_unbound_socket_has_no_local_address() {
    for_each_mode(|_| {
        let client = Client::new();
        for category in [Category::Listen, Category::Connection, Category::Datagram, Category::Stream] {
            let socket = client.open(&SocketOptions::new(category)).socket();
            let (query, address) = Request::new().local_address(&socket);
            let done = query.fails(STATUS_INVALID_DEVICE_STATE);
            assert_eq!((done.returned, done.information), (STATUS_INVALID_DEVICE_STATE, 0), "{category:?}");
            assert_eq!(address.get(), None);
            socket.bind(LOCALHOST).ok();
            assert_ne!(socket.local_address().port(), 0);
        }
    });
}

/// Shows: ADDR-03
#[test]
fn an_unconnected_socket_has_no_remote_address() {
    for_each_mode(|_| {
        let client = Client::new();
        let (_host, served) = host_listener();
        for category in [Category::Connection, Category::Stream] {
            let socket = client.open(&SocketOptions::new(category)).socket();
            for bound in [false, true] {
                if bound {
                    socket.bind_localhost();
                }
                let (query, address) = Request::new().remote_address(&socket);
                let done = query.fails(STATUS_INVALID_DEVICE_STATE);
                assert_eq!((done.returned, done.information), (STATUS_INVALID_DEVICE_STATE, 0));
                assert_eq!(address.get(), None);
            }
            socket.connect(served).ok();
            assert_eq!(socket.remote_address(), served);
        }
    });
}

/// The raw bytes of a port in an address, wherever the family keeps it: right behind the family itself.
fn port_bytes(address: &CAddress) -> [u8; 2] {
    // SAFETY: an address of either family has its port at offset 2.
    unsafe { address.as_ptr().cast::<[u8; 2]>().wrapping_add(1).read() }
}

/// Shows: ADDR-04
#[test]
fn ports_are_in_network_byte_order() {
    const { assert!(std::mem::offset_of!(SOCKADDR_IN, sin_port) == 2) };
    const { assert!(std::mem::offset_of!(SOCKADDR_IN6, sin6_port) == 2) };
    for_each_mode(|_| {
        let client = Client::new();
        for (options, local) in [
            (SocketOptions::new(Category::Listen), LOCALHOST),
            (SocketOptions::new(Category::Listen).v6(), LOCALHOST_V6),
        ] {
            let listener = client.open(&options).socket();
            listener.bind(local).ok();
            let (query, address) = Request::new().local_address(&listener);
            query.ok();
            let [high, low] = port_bytes(&address);
            // The host reports the same port, and so does the provider for an explicit port.
            let port = u16::from(high) << 8 | u16::from(low);
            let peer = Peer::connect((local.ip(), port).into());
            let connection = listener.accept().socket();
            let (query, remote) = Request::new().remote_address(&connection);
            query.ok();
            assert_eq!(port_bytes(&remote), peer.local().port().to_be_bytes());
            let other = client.open(&options).socket();
            let wish = CAddress::new((local.ip(), port).into());
            assert_eq!(port_bytes(&wish), [high, low]);
            // SAFETY: the address is kept beyond the request.
            unsafe { Request::new().bind_at(&other, wish.as_ptr()) }.fails(STATUS_ADDRESS_ALREADY_EXISTS);
        }
    });
}
