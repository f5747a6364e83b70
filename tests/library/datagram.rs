//! Datagrams.

use std::net::{SocketAddr, UdpSocket};

use wsk::options::{Broadcast, ExclusiveAddress, ReuseAddress, TimeToLive, V6Only};
use wsk::{Buffer, CloseReason, Datagram, DatagramSocket, Status};
use wsk_sim::raw::host_datagram;
use wsk_sim::wsk_provider::behaviours::Truncated;
use wsk_sim::{Completion, Sim};

use crate::support::*;

fn bytes(bytes: &[u8]) -> Buffer {
    Buffer::try_from_slice(bytes).unwrap()
}

fn room(capacity: usize) -> Buffer {
    Buffer::try_with_capacity(capacity).unwrap()
}

/// A datagram socket, and one of the host.
fn pair(driver: &Driver) -> (DatagramSocket, UdpSocket, SocketAddr) {
    let socket = wait(driver.provider.datagram().bind(localhost())).expect("binding");
    let (host, address) = host_datagram();
    host.set_read_timeout(Some(BOUND)).unwrap();
    (socket, host, address)
}

/// Datagrams come with their senders, go where they are sent, and the buffers come back.
///
/// Prevents: SOCK-03, BIND-12, DGR-01, DGR-07, LIFE-09
#[test]
fn datagrams_are_received_and_sent() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (socket, host, address) = pair(&driver);
        host.send_to(b"ping", socket.local_addr()).unwrap();
        let (received, buffer) = wait(socket.receive_from(room(64)));
        assert_eq!(received, Ok(Datagram { len: 4, from: address, truncated: false }));
        assert_eq!(&buffer[..], b"ping");
        let (sent, buffer) = wait(socket.send_to(buffer, address));
        assert_eq!(sent, Ok(4));
        let mut answer = [0; 64];
        assert_eq!(host.recv_from(&mut answer).unwrap(), (4, socket.local_addr()));
        assert_eq!(&answer[..4], b"ping");
        // A part of a buffer, and nothing at all: a datagram may be empty.
        assert_eq!(wait(socket.send_to(buffer.slice(1..3).unwrap(), address)).0, Ok(2));
        assert_eq!(wait(socket.send_to(room(8), address)).0, Ok(0));
        assert_eq!(host.recv_from(&mut answer).unwrap().0, 2);
        assert_eq!(host.recv_from(&mut answer).unwrap().0, 0);
        host.send_to(b"", socket.local_addr()).unwrap();
        assert_eq!(wait(socket.receive_from(room(8))).0.unwrap().len, 0);
        wait(socket.close());
        driver.unload();
    });
}

/// Several receives wait at the same time, and each datagram goes to one of them.
///
/// Prevents: DGR-18
#[test]
fn several_receives_wait() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (socket, host, _) = pair(&driver);
        let mut receives: Vec<_> = (0..4).map(|_| Box::pin(socket.receive_from(room(8)))).collect();
        for receive in &mut receives {
            assert!(poll(receive).is_pending());
        }
        for number in 0..4_u8 {
            host.send_to(&[number], socket.local_addr()).unwrap();
        }
        let mut numbers: Vec<_> = receives.iter_mut().map(|receive| ready(receive).1[0]).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3]);
        drop((receives, socket));
        driver.unload();
    });
}

/// A datagram that is longer than the buffer says so, whichever way WSK does.
///
/// Prevents: DGR-13
#[test]
fn a_datagram_that_is_cut_says_so() {
    for_each_choice(
        |behaviours, choice: Truncated| behaviours.truncated = choice,
        |_, _| {
            let driver = Driver::start();
            let (socket, host, address) = pair(&driver);
            host.send_to(b"much too long", socket.local_addr()).unwrap();
            host.send_to(b"next", socket.local_addr()).unwrap();
            let (received, buffer) = wait(socket.receive_from(room(4)));
            assert_eq!(received, Ok(Datagram { len: 4, from: address, truncated: true }));
            assert_eq!(&buffer[..], b"much");
            let (received, buffer) = wait(socket.receive_from(buffer));
            assert_eq!(received, Ok(Datagram { len: 4, from: address, truncated: false }));
            assert_eq!(&buffer[..], b"next");
            drop(socket);
            driver.unload();
        },
    );
}

/// Receives and sends may be dropped at any point, and the socket closed while they wait.
///
/// Prevents: IRP-10, IRP-16, LIFE-05, LIFE-09, LIFE-10, CLOSE-13
#[test]
fn datagram_operations_may_be_dropped_and_end_with_the_socket() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (socket, host, address) = pair(&driver);
        drop(socket.receive_from(room(8)));
        drop(socket.send_to(bytes(b"never"), address));
        let mut dropped = Box::pin(socket.receive_from(room(8)));
        assert!(poll(&mut dropped).is_pending());
        drop(dropped);
        let mut dropped = Box::pin(socket.send_to(bytes(b"perhaps"), address));
        let _ = poll(&mut dropped);
        drop(dropped);
        let mut waits = Box::pin(socket.receive_from(room(8)));
        assert!(poll(&mut waits).is_pending());
        let later = socket.receive_from(room(8));
        let closed = socket.closed();
        wait(socket.close());
        let (cancelled, buffer) = ready(&mut waits);
        assert!(cancelled.unwrap_err().is_cancelled());
        assert_eq!(buffer.capacity(), 8);
        assert!(wait(later).0.unwrap_err().is_socket_dead());
        assert_eq!(wait(closed), CloseReason::Local);
        drop(host);
        driver.unload();
    });
}

/// Options of datagram sockets, before the bind and afterwards; an IPv4 peer of an IPv6 socket has an IPv4
/// address.
///
/// Prevents: OPT-01, OPT-02, OPT-15, BIND-12
#[test]
fn datagram_sockets_have_options_and_families() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let builder = driver.provider.datagram().option(ExclusiveAddress(true)).option(V6Only(false));
        let four = wait(builder.option(TimeToLive(9)).bind(localhost())).unwrap();
        assert_eq!(wait(four.get()), Ok(ExclusiveAddress(true)));
        assert_eq!(wait(four.get()), Ok(ReuseAddress(false)));
        assert_eq!(wait(four.get()), Ok(TimeToLive(9)));
        wait(four.set(Broadcast(true))).unwrap();
        assert_eq!(wait(four.get()), Ok(Broadcast(true)));
        let six = SocketAddr::from(([0_u16, 0, 0, 0, 0, 0, 0, 1], 9));
        assert_eq!(wait(four.send_to(bytes(b"x"), six)).0.unwrap_err().status(), Status::INVALID_ADDRESS);

        let dual =
            wait(driver.provider.datagram().option(V6Only(false)).bind("[::]:0".parse().unwrap())).unwrap();
        let (host, address) = host_datagram();
        host.set_read_timeout(Some(BOUND)).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], dual.local_addr().port()));
        host.send_to(b"mapped", to).unwrap();
        let (received, buffer) = wait(dual.receive_from(room(8)));
        assert_eq!(received.unwrap().from, address);
        assert_eq!(wait(dual.send_to(buffer, address)).0, Ok(6));
        assert_eq!(host.recv_from(&mut [0; 8]).unwrap().0, 6);
        drop((four, dual));
        driver.unload();
    });
}

/// A socket whose transport has gone closes itself, whoever is told first.
///
/// Prevents: LIFE-17, CLOSE-11
#[test]
fn a_dead_datagram_socket_closes_itself() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let (waiting, _, address) = pair(&driver);
        let silent = wait(driver.provider.datagram().bind(localhost())).unwrap();
        let mut receive = Box::pin(waiting.receive_from(room(8)));
        assert!(poll(&mut receive).is_pending());
        sim.provider().depart();
        assert!(wait(receive).0.is_err());
        assert_eq!(wait(silent.closed()), CloseReason::Dead);
        assert!(wait(silent.send_to(bytes(b"x"), address)).0.unwrap_err().is_socket_dead());
        driver.await_sockets(0);
        drop((waiting, silent));
        driver.unload();
    });
}

/// A bind may be dropped at any point.
///
/// Prevents: IRP-10, IRP-16, LIFE-05
#[test]
fn a_datagram_bind_may_be_dropped_at_any_point() {
    for completion in [Completion::PendEarly, Completion::PendLate, Completion::Random(5)] {
        Sim::builder().completion(completion).build().run(|_| {
            let driver = Driver::start();
            for polls in 0..8 {
                let mut bind = Box::pin(driver.provider.datagram().option(TimeToLive(3)).bind(localhost()));
                for _ in 0..polls {
                    if poll(&mut bind).is_ready() {
                        break;
                    }
                    std::thread::yield_now();
                }
            }
            driver.await_sockets(0);
            driver.unload();
        });
    }
}
