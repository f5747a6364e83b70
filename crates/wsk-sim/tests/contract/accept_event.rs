//! `WskAcceptEvent`: its calls, its arguments, and the effect of its result (contract 4.8, 5.5).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::InheritedEvents;
use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::support::*;

/// A bound listener with its accept event enabled.
fn listener_with_event(client: &Client, events: &Recorder) -> (Socket, SocketAddr) {
    let (listener, address) = client.bound_listener(events);
    assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
    (listener, address)
}

/// Shows: ACPT-01
#[test]
fn a_connection_comes_by_event() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (_listener, address) = listener_with_event(&client, &events);
        for _ in 0..3 {
            let peer = Peer::connect(address);
            let event = events.accept();
            assert_eq!(event.remote, Some(peer.local()));
            let socket = event.socket();
            peer.send(b"in");
            assert_eq!(socket.receive_all(2), b"in");
        }
    });
}

/// Shows: ACPT-02
#[test]
fn the_handshake_has_finished_when_the_event_comes() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (_listener, address) = listener_with_event(&client, &events);
        let hold = events.hold(Kind::Accept);
        let peer = Peer::connect(address);
        hold.wait_entered();
        // While the callback runs, the peer counts as connected and may send.
        assert_eq!(peer.stream().peer_addr().expect("a connected stream"), address);
        peer.send(b"early");
        hold.open();
        assert_eq!(events.accept().socket().receive_all(5), b"early");
    });
}

/// Shows: ACPT-03
#[test]
fn the_event_gets_context_addresses_and_a_connection() {
    for_each_mode(|_| {
        let client = Client::new();
        let own = client.connection(&Recorder::new());
        let recorders = [Recorder::new(), Recorder::new()];
        let wildcard = client.listener(&recorders[0]);
        wildcard.bind(ANY).ok();
        let v6 = client.open(&SocketOptions::new(Category::Listen).recorder(&recorders[1]).v6()).socket();
        v6.bind(LOCALHOST_V6).ok();
        let to = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 3), wildcard.local_address().port()));
        for (listener, events, to) in
            [(&wildcard, &recorders[0], to), (&v6, &recorders[1], v6.local_address())]
        {
            assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
            let peer = Peer::connect(to);
            // The context points to the recorder: each listener finds its own.
            let event = events.accept();
            assert_eq!((event.local, event.remote), (Some(to), Some(peer.local())));
            assert_eq!(event.socket().dispatch(), own.dispatch());
        }
        assert_eq!(recorders.map(|events| events.entered(Kind::Accept)), [1, 1]);
    });
}

/// Shows: ACPT-04
#[test]
fn a_dead_listener_says_so_once() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, _) = listener_with_event(&client, &events);
        assert!(sim.provider().kill(listener.raw()));
        assert!(events.accept().socket.is_none());
        sim.provider().kill(listener.raw());
        listener.close().ok();
        assert_eq!(events.entered(Kind::Accept), 1);
    });
}

/// Shows: ACPT-06
#[test]
fn success_gives_the_socket_to_the_client() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = listener_with_event(&client, &events);
        let peer = Peer::connect(address);
        let socket = events.accept().socket();
        listener.close().ok();
        let raw = socket.raw() as usize;
        assert!(sim.provider().open_sockets().iter().any(|open| open.address == raw));
        socket.send(b"mine").ok();
        assert_eq!(peer.receive(4), b"mine");
        socket.close().ok();
        peer.expect_reset();
    });
}

/// Shows: ACPT-08
#[test]
fn a_refused_socket_is_closed_by_the_provider() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.on_accept(|_| AcceptAnswer::refuse());
        let (_listener, address) = listener_with_event(&client, &events);
        let peer = Peer::connect(address);
        peer.expect_reset();
        assert_eq!(events.accept().remote, Some(peer.local()));
        assert_eq!(sim.provider().open_sockets().len(), 1);
    });
}

/// Shows: ACPT-10
/// Catches: ACPT-10
#[test]
fn another_failure_is_a_rejection_and_is_caught() {
    let sim = Sim::new();
    sim.expect("ACPT-10").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.on_accept(|_| AcceptAnswer { status: STATUS_UNSUCCESSFUL, ..AcceptAnswer::refuse() });
        let (_listener, address) = listener_with_event(&client, &events);
        Peer::connect(address).expect_reset();
        drop(events.accept());
        assert_answer_caught(sim, "ACPT-10", "WskAcceptEvent");
        assert_eq!(sim.provider().open_sockets().len(), 1);
    });
}

/// Shows: ACPT-12
#[test]
fn events_enabled_inside_the_event_come_before_it_has_returned() {
    for_each_mode(|_| {
        let client = Client::new();
        let (events, connected) = (Recorder::new(), Recorder::new());
        let (listener, address) = client.bound_listener(&events);
        let hold = Mutex::new(Some(connected.hold(Kind::Receive)));
        let given = connected.clone();
        events.on_accept(move |event| {
            event.outputs.set(Some(&given));
            let socket = event.socket.as_ref().expect("a connection");
            assert_eq!(socket.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
            let hold = hold.lock().unwrap().take().expect("one connection");
            hold.wait_entered();
            hold.open();
            AcceptAnswer::take_with(&given)
        });
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let peer = Peer::connect(address);
        peer.send(b"already here");
        let _socket = events.accept().socket();
        assert_eq!(connected.receive_bytes(12), b"already here");
    });
}

/// Shows: ACPT-13
#[test]
fn transfers_may_be_started_inside_the_event() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        let buffer = Buffer::new(4);
        let started = Arc::new(Mutex::new(None));
        let (room, put) = (buffer.clone(), Arc::clone(&started));
        events.on_accept(move |event| {
            let socket = event.socket.as_ref().expect("a connection");
            *put.lock().unwrap() =
                Some((socket.send(b"out"), Request::new().receive(socket, &room, WSK_FLAG_WAITALL)));
            AcceptAnswer::take()
        });
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let peer = Peer::connect(address);
        assert_eq!(peer.receive(3), b"out");
        peer.send(b"back");
        let _socket = events.accept().socket();
        let (send, receive) = started.lock().unwrap().take().expect("both were started");
        assert_eq!((send.ok().information, receive.ok().information), (3, 4));
        assert_eq!(buffer.read(), b"back");
    });
}

/// Shows: ACPT-14
#[test]
fn a_socket_from_the_event_has_inherited_and_static_events_on() {
    for_each_mode(|_| {
        let client = Client::new();
        assert_eq!(client.static_events(WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        let (events, connected) = (Recorder::new(), Recorder::new());
        let given = connected.clone();
        events.on_accept(move |_| AcceptAnswer::take_with(&given));
        let (listener, address) = listener_with_event(&client, &events);
        assert_eq!(listener.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        let peer = Peer::connect(address);
        let _socket = events.accept().socket();
        peer.send(b"inherited");
        assert_eq!(connected.receive_bytes(9), b"inherited");
        peer.close();
        assert!(!connected.disconnect().abortive());
    });
}

/// Shows: ACPT-15
#[test]
fn inherited_events_come_after_the_event_or_before_its_return() {
    for_each_choice(
        |behaviours, choice: InheritedEvents| behaviours.inherited_events = choice,
        |_, choice| {
            let client = Client::new();
            let (events, connected) = (Recorder::new(), Recorder::new());
            let (listener, address) = client.bound_listener(&events);
            let hold = Mutex::new(Some(connected.hold(Kind::Receive)));
            let given = connected.clone();
            let early = Arc::new(Mutex::new(None));
            let seen = Arc::clone(&early);
            let sent = Arc::new(std::sync::Barrier::new(2));
            let has_sent = Arc::clone(&sent);
            events.on_accept(move |event| {
                has_sent.wait();
                event.outputs.set(Some(&given));
                let hold = hold.lock().unwrap().take().expect("one connection");
                let bound = if choice == InheritedEvents::AfterReturn { A_WHILE } else { BOUND };
                *seen.lock().unwrap() = Some(hold.reaches(1, bound));
                AcceptAnswer::take_with(&given)
            });
            assert_eq!(listener.enable(WSK_EVENT_ACCEPT | WSK_EVENT_RECEIVE), STATUS_SUCCESS);
            let peer = Peer::connect(address);
            peer.send(b"data");
            sent.wait();
            let _socket = events.accept().socket();
            assert_eq!(connected.receive_bytes(4), b"data");
            assert_eq!(*early.lock().unwrap(), Some(choice == InheritedEvents::OnceOutputsWritten));
        },
    );
    assert_eq!(InheritedEvents::default(), InheritedEvents::AfterReturn);
}

/// Catches: ACPT-05
#[test]
fn a_sentinel_answered_with_success_is_caught() {
    let sim = Sim::new();
    sim.expect("ACPT-05").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.on_accept(|_| AcceptAnswer::take());
        let (listener, _) = listener_with_event(&client, &events);
        assert!(sim.provider().kill(listener.raw()));
        assert!(events.accept().socket.is_none());
        assert_answer_caught(sim, "ACPT-05", "WskAcceptEvent");
    });
}

/// Catches: ACPT-05
#[test]
fn a_listener_whose_sentinel_came_and_that_is_not_closed_is_caught() {
    let report = left_behind(&Sim::new(), |sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, _) = listener_with_event(&client, &events);
        assert!(sim.provider().kill(listener.raw()));
        assert!(events.accept().socket.is_none());
        listener.forget();
        client.forget();
    });
    assert_reported(&report, "ACPT-05", "WskCloseSocket");
}

/// Catches: ACPT-06
#[test]
fn a_socket_from_the_event_that_is_left_open_is_caught() {
    let report = left_behind(&Sim::new(), |_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = listener_with_event(&client, &events);
        let _peer = Peer::connect(address);
        events.accept().socket().forget();
        listener.close().ok();
        client.forget();
    });
    assert_reported(&report, "ACPT-06", "WskCloseSocket");
}

/// Catches: ACPT-07
#[test]
fn success_without_the_outputs_is_caught() {
    let sim = Sim::new();
    sim.expect("ACPT-07").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.on_accept(|_| AcceptAnswer::take().without_outputs());
        let (_listener, address) = listener_with_event(&client, &events);
        let _peer = Peer::connect(address);
        let _socket = events.accept().socket();
        assert_answer_caught(sim, "ACPT-07", "WskAcceptEvent");
        // One for each output.
        assert_eq!(sim.violations_of("ACPT-07").len(), 2);
    });
}

/// Catches: ACPT-09
#[test]
fn a_refused_socket_that_is_used_is_caught() {
    let sim = Sim::new();
    sim.expect("ACPT-09").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let refused = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&refused);
        events.on_accept(move |event| {
            *keep.lock().unwrap() = event.socket.clone();
            AcceptAnswer::refuse()
        });
        let (_listener, address) = listener_with_event(&client, &events);
        let peer = Peer::connect(address);
        drop(events.accept());
        let refused = refused.lock().unwrap().take().expect("a socket");
        refused.send(b"after all").fails(STATUS_FILE_FORCED_CLOSED);
        assert_caught(sim, "ACPT-09", "WskSend");
        peer.expect_reset();
    });
}

/// Calls of a client inside the event that it does not answer with success.
type Use = fn(&Socket) -> Option<Request>;

/// Runs `test` for a client that uses each connection inside the event and refuses it; it is given what was
/// begun.
fn used_and_refused(sim: &Sim, use_it: Use, status: NTSTATUS) -> Option<Request> {
    let client = Client::new();
    let events = Recorder::new();
    let begun = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&begun);
    events.on_accept(move |event| {
        *keep.lock().unwrap() = use_it(event.socket.as_ref().expect("a connection"));
        AcceptAnswer { status, ..AcceptAnswer::refuse() }
    });
    let (listener, address) = listener_with_event(&client, &events);
    // It may be ended and reset before the host of the peer looks.
    let _peer = Peer::try_connect(address);
    drop(events.accept());
    let begun = begun.lock().unwrap().take();
    if let Some(request) = &begun {
        // Whatever comes of it, it ends.
        request.wait();
    }
    listener.close().ok();
    eventually("no socket is left", || sim.provider().open_sockets().is_empty());
    begun
}

/// Catches: ACPT-09
#[test]
fn a_connection_that_is_used_inside_the_event_and_refused_is_caught() {
    let uses: [(&str, Use); 5] = [
        ("WskCloseSocket", |socket| Some(socket.close())),
        ("WskReceive", |socket| Some(socket.receive(&Buffer::new(1)))),
        ("WskSend", |socket| Some(socket.send(b"x"))),
        ("WskDisconnect", |socket| Some(socket.disconnect())),
        ("WskDisconnect", |socket| Some(socket.abort())),
    ];
    for completion in COMPLETIONS {
        for (call, use_it) in uses {
            let sim = Sim::builder().completion(completion).build();
            sim.expect("ACPT-09").run(move |sim| {
                let request = used_and_refused(sim, use_it, STATUS_REQUEST_NOT_ACCEPTED);
                assert_answer_caught(sim, "ACPT-09", "WskAcceptEvent");
                let caught = sim.violations_of("ACPT-09");
                assert_eq!(caught.len(), 1);
                assert!(caught[0].detail.contains(call), "{}", caught[0]);
                drop(request);
            });
        }
    }
    let sim = Sim::new();
    sim.expect("ACPT-09").expect("ACPT-10").run(|sim| {
        used_and_refused(sim, |socket| Some(socket.send(b"x")), STATUS_UNSUCCESSFUL);
        assert_answer_caught(sim, "ACPT-09", "WskAcceptEvent");
    });
}

/// Catches: ACPT-09
#[test]
fn a_connection_whose_events_are_enabled_inside_the_event_and_that_is_refused_is_caught() {
    let sim = Sim::new();
    sim.expect("ACPT-09").run(|sim| {
        let client = Client::new();
        let (events, connected) = (Recorder::new(), Recorder::new());
        let given = connected.clone();
        events.on_accept(move |event| {
            event.outputs.set(Some(&given));
            assert_eq!(
                event.socket.as_ref().expect("a connection").enable(WSK_EVENT_RECEIVE),
                STATUS_SUCCESS
            );
            AcceptAnswer::refuse()
        });
        let (_listener, address) = listener_with_event(&client, &events);
        Peer::connect(address).expect_reset();
        assert_answer_caught(sim, "ACPT-09", "WskAcceptEvent");
    });
}

/// A client may query the address of the peer and then refuse.
#[test]
fn a_connection_may_be_asked_about_and_refused() {
    for_each_mode(|sim| {
        used_and_refused(
            sim,
            |socket| {
                assert_eq!(socket.query_inspect_id(), Err(STATUS_INVALID_DEVICE_REQUEST));
                Some(Request::new().remote_address(socket).0)
            },
            STATUS_REQUEST_NOT_ACCEPTED,
        );
    });
}

/// A client that takes a connection may have closed it by then.
#[test]
fn a_connection_may_be_taken_and_closed_at_once() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let close = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&close);
        events.on_accept(move |event| {
            *keep.lock().unwrap() = event.socket.as_ref().map(Socket::close);
            AcceptAnswer::take()
        });
        let (_listener, address) = listener_with_event(&client, &events);
        Peer::connect(address).expect_reset();
        events.accept();
        let close = close.lock().unwrap().take().expect("it was closed");
        close.ok();
    });
}

/// Catches: ACPT-11
#[test]
fn enabling_inside_the_event_before_the_outputs_are_written_is_caught() {
    let sim = Sim::new();
    // Without a table there is no callback either.
    sim.expect("ACPT-11").expect("EVT-34").run(|sim| {
        let client = Client::new();
        let (events, connected) = (Recorder::new(), Recorder::new());
        let given = connected.clone();
        events.on_accept(move |event| {
            let socket = event.socket.as_ref().expect("a connection");
            assert_eq!(socket.enable(WSK_EVENT_RECEIVE), STATUS_INVALID_PARAMETER);
            AcceptAnswer::take_with(&given)
        });
        let (_listener, address) = listener_with_event(&client, &events);
        let _peer = Peer::connect(address);
        let _socket = events.accept().socket();
        assert_caught(sim, "ACPT-11", "WskControlSocket");
    });
}

/// Catches: ACPT-16
#[test]
fn a_context_that_is_exchanged_after_it_was_handed_over_is_caught() {
    let sim = Sim::builder()
        .behaviours(|behaviours| behaviours.inherited_events = InheritedEvents::OnceOutputsWritten)
        .build();
    sim.expect("ACPT-16").run(|sim| {
        let client = Client::new();
        let (events, unfinished, finished) = (Recorder::new(), Recorder::new(), Recorder::new());
        let (first, last) = (unfinished.clone(), finished.clone());
        events.on_accept(move |event| {
            let hold = first.hold(Kind::Receive);
            event.outputs.set(Some(&first));
            hold.wait_entered();
            hold.open();
            AcceptAnswer::take_with(&last)
        });
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT | WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        let peer = Peer::connect(address);
        peer.send(b"data");
        let _socket = events.accept().socket();
        assert_answer_caught(sim, "ACPT-16", "WskAcceptEvent");
        assert_eq!(unfinished.receive_bytes(4), b"data");
    });
}
