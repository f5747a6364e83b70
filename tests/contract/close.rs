//! `WskCloseSocket`: what it waits for, what it ends, and what must not be done around it (contract 4.20).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use wsk_sim::raw::*;
use wsk_sim::{Completion, Sim};
use wsk_sys::*;

use crate::support::*;

/// A connection with its peer; `events` has its callbacks.
fn connected_pair(client: &Client, events: &Recorder) -> (Socket, Peer) {
    let (listener, address) = client.bound_listener(&Recorder::new());
    let accept = listener.accept_with(events).pends();
    let peer = Peer::connect(address);
    let connection = accept.socket();
    listener.close().ok();
    (connection, peer)
}

/// Shows: CLOSE-02, CLOSE-03, CLOSE-09, CLOSE-10
#[test]
fn a_close_cancels_what_is_pending_and_completes_after_it() {
    for_each_mode(|_| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let (connection, _peer) = connected_pair(&client, &Recorder::new());
        let order = Arc::new(Mutex::new(Vec::new()));
        let noting = |what: &'static str| {
            let order = Arc::clone(&order);
            Request::new().hook(move |_, _| order.lock().unwrap().push(what))
        };
        let accept = noting("pending").accept(&listener, None, 0).pends();
        let done = listener.close_with(noting("close")).ok();
        assert_eq!((done.information, done.runs), (0, 1));
        assert_eq!(accept.fails(STATUS_CANCELLED).information, 0);
        let receive = noting("pending").receive(&connection, &Buffer::new(1), 0).pends();
        assert_eq!(connection.close_with(noting("close")).ok().information, 0);
        assert_eq!(receive.fails(STATUS_CANCELLED).information, 0);
        assert_eq!(*order.lock().unwrap(), ["pending", "close", "pending", "close"]);
    });
}

/// Shows: CLOSE-04
#[test]
fn closing_a_connection_that_was_not_disconnected_both_ways_resets_it() {
    for_each_mode(|_| {
        let client = Client::new();
        let (open, peer) = connected_pair(&client, &Recorder::new());
        open.close().ok();
        peer.expect_reset();
        let (half, peer) = connected_pair(&client, &Recorder::new());
        half.disconnect().returned();
        peer.expect_end();
        half.close().ok();
        // The peer's next bytes meet no connection.
        eventually("the peer is reset", || {
            use std::io::Write;
            peer.stream().write_all(b"late").is_err()
        });
    });
}

/// Shows: CLOSE-05
#[test]
fn closing_a_connection_that_was_disconnected_both_ways_is_silent() {
    for_each_mode(|_| {
        let client = Client::new();
        let (connection, peer) = connected_pair(&client, &Recorder::new());
        peer.half_close();
        assert_eq!(connection.receive(&Buffer::new(1)).ok().information, 0);
        connection.disconnect().ok();
        connection.close().ok();
        peer.expect_end();
    });
}

/// Shows: CLOSE-06, CLOSE-07
#[test]
fn a_close_pends_until_the_callbacks_in_progress_have_returned() {
    for completion in [Completion::Natural, Completion::Inline, Completion::PendEarly] {
        let sim = Sim::builder().completion(completion).build();
        sim.run(|_| {
            let client = Client::new();
            let events = Recorder::new();
            let (connection, peer) = connected_pair(&client, &events);
            assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
            let gate = events.hold(Kind::Receive);
            peer.send(b"x");
            gate.wait_entered();
            let close = connection.close();
            assert_eq!(close.returned(), STATUS_PENDING);
            assert!(close.wait_up_to(A_WHILE).is_none(), "the callback is still running");
            gate.open();
            close.ok();
            assert_eq!(events.entered(Kind::Receive), events.returned(Kind::Receive));
        });
    }
}

/// Shows: CLOSE-08
#[test]
fn nothing_is_called_after_a_close_has_completed() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, peer) = connected_pair(&client, &events);
        assert_eq!(connection.enable(WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        peer.send(b"before");
        events.receive_bytes(6);
        connection.close().ok();
        let called = events.entered(Kind::Receive) + events.entered(Kind::Disconnect);
        let _ = std::io::Write::write(&mut peer.stream(), b"after");
        peer.reset();
        // Another connection is served meanwhile, so the provider was not idle.
        let (other, other_peer) = connected_pair(&client, &Recorder::new());
        other_peer.send(b"ok");
        assert_eq!(other.receive_all(2), b"ok");
        assert_eq!(events.entered(Kind::Receive) + events.entered(Kind::Disconnect), called);
    });
}

/// Shows: CLOSE-15
#[test]
fn a_close_may_be_started_inside_a_callback_and_completes_after_it() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, peer) = connected_pair(&client, &events);
        let socket = Arc::new(Mutex::new(Some(connection)));
        let close = Arc::new(Mutex::new(None));
        let inside = Arc::new(AtomicBool::new(false));
        let (own, started, within) = (Arc::clone(&socket), Arc::clone(&close), Arc::clone(&inside));
        events.on_receive(move |_| {
            if let Some(connection) = own.lock().unwrap().take() {
                within.store(true, Ordering::SeqCst);
                let seen = Arc::clone(&within);
                let overlapped = move |_, _| assert!(!seen.load(Ordering::SeqCst), "the callback is running");
                let request = connection.close_with(Request::new().hook(overlapped));
                assert_eq!(request.returned(), STATUS_PENDING);
                *started.lock().unwrap() = Some(request);
                within.store(false, Ordering::SeqCst);
            }
            ReceiveAnswer::all()
        });
        let enabled = socket.lock().unwrap().as_ref().map(|connection| connection.enable(WSK_EVENT_RECEIVE));
        assert_eq!(enabled, Some(STATUS_SUCCESS));
        peer.send(b"x");
        eventually("the callback closes", || close.lock().unwrap().is_some());
        let request = close.lock().unwrap().take().unwrap();
        request.ok();
        assert_eq!(events.returned(Kind::Receive), 1);
        events.on_receive(|_| ReceiveAnswer::all());
    });
}

/// Catches: CLOSE-01
#[test]
fn a_close_while_another_call_executes_is_caught() {
    let sim = Sim::builder().completion(Completion::Inline).build();
    sim.expect("CLOSE-01");
    sim.run(|sim| {
        let client = Client::new();
        let (connection, _peer) = connected_pair(&client, &Recorder::new());
        let connection = Arc::new(connection);
        let again = Arc::clone(&connection);
        // The completion routine runs inside of `WskSend`, which is still executing when it closes.
        Request::new().hook(move |_, _| drop(again.close())).send(&connection, &Buffer::of(b"x"), 0).wait();
        assert_caught(sim, "CLOSE-01", "WskCloseSocket");
    });
}

/// Catches: CLOSE-12
#[test]
fn a_second_close_is_caught() {
    let sim = Sim::new();
    sim.expect("CLOSE-12");
    sim.run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, peer) = connected_pair(&client, &events);
        assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        // A callback keeps the first close from completing, so that the socket is still there.
        let gate = events.hold(Kind::Receive);
        peer.send(b"x");
        gate.wait_entered();
        let close = connection.close();
        connection.close().wait();
        assert_caught(sim, "CLOSE-12", "WskCloseSocket");
        gate.open();
        close.ok();
    });
}

/// Catches: CLOSE-13
#[test]
fn a_call_on_a_closing_socket_is_caught() {
    let sim = Sim::new();
    sim.expect("CLOSE-13");
    sim.run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, peer) = connected_pair(&client, &events);
        assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        let gate = events.hold(Kind::Receive);
        peer.send(b"x");
        gate.wait_entered();
        let close = connection.close();
        connection.send(b"late").wait();
        assert_caught(sim, "CLOSE-13", "WskSend");
        gate.open();
        close.ok();
    });
}
