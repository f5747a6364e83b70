//! `WskSocketConnect`: a socket made, bound and connected by one request (contract 4.6).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::Config;
use wsk_sim::{Completion, FaultPoint, Sim};
use wsk_sys::*;

use crate::support::*;

/// Shows: SOCK-17, SOCK-18
#[test]
fn one_request_makes_binds_and_connects() {
    for_each_mode(|_| {
        let client = Client::new();
        let (v4, v4_address) = host_listener();
        let v6 = std::net::TcpListener::bind(LOCALHOST_V6).expect("the host has IPv6");
        let v6_address = v6.local_addr().unwrap();
        for (host, remote, local) in [(v4, v4_address, ANY), (v6, v6_address, LOCALHOST_V6)] {
            let events = Recorder::new();
            let request = client.socket_connect(Request::new(), local, remote, 0, Some(&events));
            let done = request.ok();
            assert_ne!(done.information, 0);
            let socket = request.socket();
            assert_eq!(socket.raw().expose_provenance(), done.information);
            let peer = Peer::accept(&host);
            // The family is that of the local address, and both ends agree about it.
            assert_eq!(socket.local_address(), peer.stream().peer_addr().unwrap());
            assert_eq!(socket.remote_address(), remote);
            // It is connection-oriented, its events are off, and its callbacks are the ones given.
            peer.send(b"in");
            assert_eq!(socket.receive_all(2), b"in");
            assert!(events.drain().is_empty());
            assert_eq!(socket.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
            peer.send(b"by event");
            assert_eq!(events.receive_bytes(8), b"by event");
            socket.bind(local).fails(STATUS_INVALID_DEVICE_STATE);
        }
        // Addresses of different families do not go together.
        let mixed = client.socket_connect(Request::new(), LOCALHOST, LOCALHOST_V6, 0, None);
        assert_eq!(mixed.fails(STATUS_INVALID_PARAMETER).information, 0);
    });
}

/// Shows: SOCK-19
#[test]
fn a_failed_part_leaves_no_socket() {
    for_each_mode(|sim| {
        let client = Client::new();
        let (holder, taken) = client.bound_listener(&Recorder::new());
        let only_the_holder = || {
            eventually("the holder alone is open", || sim.provider().open_sockets().len() == 1);
        };
        let bind = client.socket_connect(Request::new(), taken, closed_port(), 0, None);
        assert_eq!(bind.fails(STATUS_ADDRESS_ALREADY_EXISTS).information, 0);
        only_the_holder();
        let connect = client.socket_connect(Request::new(), LOCALHOST, closed_port(), 0, None);
        assert_eq!(connect.fails(STATUS_CONNECTION_REFUSED).information, 0);
        only_the_holder();
        holder.close().ok();
    });
}

/// Shows: SOCK-19
#[test]
fn a_cancelled_one_leaves_no_socket() {
    Sim::new().run(|sim| {
        let client = Client::new();
        let silent = SilentHost::new();
        let connect = client.socket_connect(Request::new(), ANY, silent.address(), 0, None).pends();
        connect.cancel();
        assert_eq!(connect.fails(STATUS_CANCELLED).information, 0);
        eventually("the socket goes", || sim.provider().open_sockets().is_empty());
    });
}

/// Shows: SOCK-19, REG-21
#[test]
fn a_deregistration_waits_for_one_that_has_failed_at_once() {
    for completion in COMPLETIONS {
        let late = |config: &mut Config| config.late_by = 2 * A_WHILE;
        Sim::builder().completion(completion).provider(late).build().run(|sim| {
            let client = Client::new();
            let ended = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&ended);
            let request = Request::new().hook(move |_, _| seen.store(true, Ordering::SeqCst));
            // The host has no route for a stream to the broadcast address, and fails the call.
            let broadcast = (std::net::Ipv4Addr::BROADCAST, 7).into();
            let connect = client.socket_connect(request, ANY, broadcast, 0, None);
            client.release();
            client.deregister();
            assert!(ended.load(Ordering::SeqCst), "WskDeregister has returned before the request completed");
            assert_eq!(connect.wait().information, 0);
            assert!(sim.provider().open_sockets().is_empty());
        });
    }
}

/// Shows: SOCK-20
#[test]
fn an_allocation_that_fails_leaves_no_socket() {
    let sim = Sim::builder().completion(Completion::Random(9)).build();
    sim.run(|sim| {
        let client = Client::new();
        let (_host, served) = host_listener();
        sim.choose_once(FaultPoint::AllocationFails, 1);
        let failed = client.socket_connect(Request::new(), LOCALHOST, served, 0, None);
        assert_eq!(failed.fails(STATUS_INSUFFICIENT_RESOURCES).information, 0);
        assert!(sim.provider().open_sockets().is_empty());
        client.socket_connect(Request::new(), LOCALHOST, served, 0, None).socket();
    });
}
