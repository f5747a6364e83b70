//! Outgoing connections.

use std::net::SocketAddr;

use wsk::{Buffer, Connection, DisconnectKind, Events, Handlers, Status};
use wsk_sim::raw::{Peer, closed_port, host_listener};
use wsk_sim::{Completion, Sim};

use crate::support::*;

fn bytes(bytes: &[u8]) -> Buffer {
    Buffer::try_from_slice(bytes).unwrap()
}

/// A connection to a listener of the host carries bytes both ways, and knows its two addresses.
///
/// Prevents: SOCK-03, SOCK-06, REG-21
#[test]
fn a_connection_is_made_and_carries_bytes() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (host, address) = host_listener();
        let mut connection = wait(driver.provider.connect(address)).unwrap();
        let peer = Peer::accept(&host);
        assert_eq!(connection.peer_addr(), address);
        assert_eq!(connection.local_addr(), peer.remote());
        assert_eq!(wait(connection.send(bytes(b"hello"))).0, Ok(5));
        assert_eq!(peer.receive(5), b"hello");
        peer.send(b"and back");
        let (received, buffer) = wait(connection.receive_exact(Buffer::try_with_capacity(8).unwrap()));
        assert_eq!((received, &buffer[..]), (Ok(()), &b"and back"[..]));
        wait(connection.shutdown()).unwrap();
        peer.expect_end();
        drop((connection, peer));
        driver.unload();
    });
}

/// Handlers, and the local address that was asked for.
///
/// Prevents: SOCK-03, SOCK-06, EVT-26
#[test]
fn a_connection_has_its_handlers_and_its_local_address() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (host, address) = host_listener();
        let ((tell, data), (tell_end, end)) = (channel(), channel());
        let handlers = Handlers::new().receive(tells_data(tell)).disconnect(TellsDisconnects(tell_end));
        let from = SocketAddr::from(([127, 0, 0, 9], 0));
        let builder = driver.provider.connector().handlers(handlers).bind(from);
        let connection = wait(builder.connect(address)).unwrap();
        let peer = Peer::accept(&host);
        assert_eq!(connection.local_addr().ip(), from.ip());
        assert_eq!(connection.local_addr(), peer.remote());
        assert!(connection.enable(Events::SEND_BACKLOG).is_err());
        connection.enable(Events::RECEIVE | Events::DISCONNECT).unwrap();
        peer.send(b"event");
        assert_eq!(data.next(), b"event");
        peer.half_close();
        assert_eq!(end.next(), DisconnectKind::Graceful);
        drop((connection, peer));
        driver.unload();
    });
}

/// An attempt that fails says why, and leaves no socket.
///
/// Prevents: CLOSE-14, BIND-12
#[test]
fn an_attempt_that_fails_leaves_nothing() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let refused = wait(driver.provider.connect(closed_port())).unwrap_err();
        assert_eq!(refused.status(), Status::CONNECTION_REFUSED);
        let six = SocketAddr::from(([0_u16; 8], 0));
        let mixed = wait(driver.provider.connector().bind(six).connect(closed_port())).unwrap_err();
        assert_eq!(mixed.status(), Status::INVALID_ADDRESS);
        let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
        let builder = driver.provider.connector().bind(foreign);
        assert!(wait(builder.connect(closed_port())).is_err());
        assert_eq!(driver.client.open_sockets(), 0);
        driver.unload();
    });
}

/// An attempt may be dropped at any point. A connection that comes in spite of it is closed.
///
/// Prevents: IRP-10, IRP-16, LIFE-05, CLOSE-14
#[test]
fn an_attempt_may_be_dropped_at_any_point() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (_host, address) = host_listener();
        drop(driver.provider.connect(address));
        for polls in 1..6 {
            let mut connect = Box::pin(driver.provider.connect(address));
            for _ in 0..polls {
                if poll(&mut connect).is_ready() {
                    break;
                }
                std::thread::yield_now();
            }
            drop(connect);
        }
        driver.await_sockets(0);
        driver.unload();
    });
}

/// A driver connects to its own listener, in tasks of one thread.
///
/// Prevents: IRQL-14
#[test]
fn a_driver_connects_to_itself() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let mut accept = Box::pin(listener.accept());
        let _ = poll(&mut accept);
        let mut client: Connection = wait(driver.provider.connect(listener.local_addr())).unwrap();
        let mut server = ready(&mut accept).unwrap();
        assert_eq!(server.peer_addr(), client.local_addr());
        wait(client.send(bytes(b"self"))).0.unwrap();
        let (received, buffer) = wait(server.receive_exact(Buffer::try_with_capacity(4).unwrap()));
        assert_eq!((received, &buffer[..]), (Ok(()), &b"self"[..]));
        drop((client, server, listener));
        driver.unload();
    });
}

/// An attempt that is under way keeps the capture, and so the client; dropping it lets both go.
///
/// Prevents: REG-21
#[test]
fn an_attempt_keeps_the_capture() {
    Sim::builder().completion(Completion::PendLate).build().run(|_| {
        let Driver { client, provider } = Driver::start();
        let (_host, address) = host_listener();
        let mut connect = Box::pin(provider.connect(address));
        drop(provider);
        let connection = ready(&mut connect).unwrap();
        drop(connect);
        drop(connection);
        client.unload(passive(), BOUND).expect("unloading");
    });
}
