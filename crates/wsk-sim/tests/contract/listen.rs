//! `WskAccept`: its results, its completion, and the connection (contract 4.8).

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::AcceptUnbound;
use wsk_sim::{FaultPoint, Sim};
use wsk_sys::*;

use crate::support::*;

/// Shows: LSN-01
#[test]
fn listening_and_stream_sockets_accept_once_bound() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        let stream = client.socket(Category::Stream, &events);
        let stream_address = stream.bind_localhost();
        stream.listen().ok();
        for (socket, address) in [(listener, address), (stream, stream_address)] {
            let accept = socket.accept().pends();
            let peer = Peer::connect(address);
            let accepted = accept.socket();
            peer.send(b"in");
            assert_eq!(accepted.receive_all(2), b"in");
        }
    });
}

/// Shows: LSN-02
#[test]
fn accept_on_an_unbound_listener_is_refused() {
    for_each_choice(
        |behaviours, choice: AcceptUnbound| behaviours.accept_unbound = choice,
        |_, choice| {
            let client = Client::new();
            let listener = client.listener(&Recorder::new());
            let done = listener.accept().fails(choice.status());
            assert_eq!((done.returned, done.information), (choice.status(), 0));
            listener.bind_localhost();
            assert_eq!(listener.accept().returned(), STATUS_PENDING);
        },
    );
    assert_eq!(AcceptUnbound::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Shows: LSN-03
#[test]
fn accept_takes_a_waiting_connection_at_once() {
    for_each_mode(|sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let peer = Peer::connect(address);
        await_untaken(sim, &listener, 1);
        let accept = listener.accept();
        assert_eq!(accept.returned(), STATUS_SUCCESS);
        assert!(accept.is_completed());
        assert_ne!(accept.ok().information, 0);
        assert_eq!(accept.socket().remote_address(), peer.local());
    });
}

/// Shows: LSN-04, LSN-05
#[test]
fn accept_waits_for_a_connection() {
    for_each_mode(|_| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let accept = listener.accept().pends();
        assert_eq!(listener.local_address(), address);
        assert!(!accept.is_completed());
        let peer = Peer::connect(address);
        let done = accept.ok();
        assert_eq!(done.returned, STATUS_PENDING);
        assert!(done.pending_returned && !done.before_return);
        assert_ne!(done.information, 0);
        assert_eq!(accept.socket().remote_address(), peer.local());
    });
}

/// Shows: LSN-06
#[test]
fn accept_on_a_dead_listener_says_forced_closed() {
    for_each_mode(|sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        assert!(sim.provider().kill(listener.raw()));
        let accept = listener.accept();
        let done = accept.fails(STATUS_FILE_FORCED_CLOSED);
        assert_eq!((done.returned, done.information), (STATUS_FILE_FORCED_CLOSED, 0));
        listener.close().ok();
    });
}

/// Shows: LSN-08
#[test]
fn any_other_answer_is_a_failure_with_a_failed_irp() {
    for_each_mode(|sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let peer = Peer::connect(address);
        await_untaken(sim, &listener, 1);
        sim.choose_once(FaultPoint::AllocationFails, 1);
        let accept = listener.accept();
        let done = accept.fails(STATUS_INSUFFICIENT_RESOURCES);
        assert_eq!((done.returned, done.information), (STATUS_INSUFFICIENT_RESOURCES, 0));
        peer.expect_reset();
    });
}

/// Shows: LSN-21
#[test]
fn the_addresses_are_there_when_the_completion_routine_runs() {
    for_each_mode(|sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        for waiting in [true, false] {
            let (local, remote) = (Arc::new(CAddress::empty()), Arc::new(CAddress::empty()));
            let parameters =
                AcceptParameters { local: local.as_ptr(), remote: remote.as_ptr(), ..Default::default() };
            let seen = Arc::new(Mutex::new(None));
            let seen_there = Arc::clone(&seen);
            let request = Request::new()
                .hook(move |_, _| *seen_there.lock().unwrap() = Some((local.get(), remote.get())));
            let (peer, accept) = if waiting {
                let peer = Peer::connect(address);
                await_untaken(sim, &listener, 1);
                (peer, accept_as(request, &listener, parameters))
            } else {
                let accept = accept_as(request, &listener, parameters).pends();
                (Peer::connect(address), accept)
            };
            drop(accept.socket());
            assert_eq!(*seen.lock().unwrap(), Some((Some(address), Some(peer.local()))));
        }
    });
}

/// Shows: LSN-28, LSN-29
#[test]
fn several_accepts_wait_and_the_oldest_is_served_first() {
    for_each_mode(|_| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let mut accepts: Vec<Request> = (0..4).map(|_| listener.accept().pends()).collect();
        while !accepts.is_empty() {
            let peer = Peer::connect(address);
            let socket = accepts.remove(0).socket();
            assert_eq!(socket.remote_address(), peer.local());
            assert!(accepts.iter().all(|later| !later.is_completed()));
        }
    });
}

/// Shows: LSN-30
#[test]
fn a_cancelled_accept_ends_and_the_listener_goes_on() {
    for_each_mode(|_| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let (first, second) = (listener.accept().pends(), listener.accept().pends());
        assert!(first.cancel());
        assert_eq!(first.fails(STATUS_CANCELLED).information, 0);
        let peer = Peer::connect(address);
        assert_eq!(second.socket().remote_address(), peer.local());
    });
}

/// Shows: LSN-32
#[test]
fn closing_the_listener_cancels_its_accepts() {
    for_each_mode(|_| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let accepts = [listener.accept().pends(), listener.accept().pends()];
        let done = listener.close().ok();
        assert_eq!(done.information, 0);
        for accept in accepts {
            assert_eq!(accept.fails(STATUS_CANCELLED).information, 0);
        }
    });
}

/// Shows: LSN-33
#[test]
fn accepted_sockets_survive_their_listener() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        let accept = listener.accept().pends();
        let by_request = (Peer::connect(address), accept.socket());
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let peer = Peer::connect(address);
        let by_event = (peer, events.accept().socket());
        listener.close().ok();
        for (peer, socket) in [by_request, by_event] {
            peer.send(b"still");
            assert_eq!(socket.receive_all(5), b"still");
            socket.send(b"here").ok();
            assert_eq!(peer.receive(4), b"here");
        }
    });
}

/// Shows: LSN-35
#[test]
fn an_accepted_socket_has_the_table_of_connections() {
    Sim::new().run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let own = client.connection(&events);
        let (listener, address) = client.bound_listener(&events);
        let stream = client.socket(Category::Stream, &events);
        let stream_address = stream.bind_localhost();
        stream.listen().ok();
        for (socket, address) in [(&listener, address), (&stream, stream_address)] {
            let accept = socket.accept().pends();
            let _peer = Peer::connect(address);
            let by_request = accept.socket();
            assert_eq!(by_request.dispatch(), own.dispatch());
            assert_eq!(socket.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
            let _peer = Peer::connect(address);
            assert_eq!(events.accept().socket().dispatch(), own.dispatch());
        }
        assert_ne!(own.dispatch(), stream.dispatch());
    });
}

/// Shows: LSN-36
#[test]
fn connections_wait_for_a_later_accept_or_for_the_event() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        let peers = [(); 3].map(|()| Peer::connect(address));
        await_untaken(sim, &listener, 3);
        let by_request = listener.accept().socket().remote_address();
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let by_event = [(); 2].map(|()| events.accept().socket().remote_address());
        let taken = HashSet::from([by_request, by_event[0], by_event[1]]);
        assert_eq!(taken, peers.iter().map(Peer::local).collect());
        await_untaken(sim, &listener, 0);
    });
}

/// Shows: LSN-37
#[test]
fn a_full_queue_drops_new_requests() {
    for depth in [1, 3, wsk_sim::Config::default().backlog] {
        Sim::builder().provider(|config| config.backlog = depth).build().run(move |sim| {
            let client = Client::new();
            let (listener, address) = client.bound_listener(&Recorder::new());
            let peers: Vec<Peer> = (0..depth).map(|_| Peer::connect(address)).collect();
            await_untaken(sim, &listener, depth);
            Peer::connect(address).expect_reset();
            assert_eq!(sim.provider().untaken(listener.raw()), Some(depth));
            let taken = peers.iter().map(|_| listener.accept().socket().remote_address());
            assert_eq!(taken.collect::<HashSet<_>>(), peers.iter().map(Peer::local).collect());
        });
    }
}

/// Shows: LSN-38
#[test]
fn untaken_connections_are_reset_with_their_listener() {
    for_each_mode(|sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let peers = [Peer::connect(address), Peer::connect(address)];
        await_untaken(sim, &listener, 2);
        listener.close().ok();
        for peer in peers {
            peer.expect_reset();
        }
    });
}

/// Shows: LSN-27
#[test]
fn the_provider_owns_the_memory_of_an_accepted_socket() {
    for_each_mode(|sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let accept = listener.accept().pends();
        let _peer = Peer::connect(address);
        let socket = accept.socket();
        if cfg!(target_os = "linux") {
            // Other kernels cannot detect memory that is not the client's.
            assert!(!sim.kernel().is_non_paged(socket.raw().cast(), size_of::<WSK_SOCKET>()));
        }
        let address = socket.raw() as usize;
        let is_open = || sim.provider().open_sockets().iter().any(|open| open.address == address);
        assert!(is_open());
        socket.close().ok();
        eventually("the provider lets go of the socket", || !is_open());
    });
}
