//! `WskAccept` beside `WskAcceptEvent`, and the events of the sockets it gives (contract 4.8).

use wsk_sim::raw::*;
use wsk_sim::{FaultPoint, Sim};
use wsk_sys::*;

use crate::support::*;

/// Shows: LSN-22
#[test]
fn a_queued_accept_comes_before_the_event() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let accept = listener.accept().pends();
        let first = Peer::connect(address);
        assert_eq!(accept.socket().remote_address(), first.local());
        let second = Peer::connect(address);
        assert_eq!(events.accept().remote, Some(second.local()));
        assert_eq!(events.entered(Kind::Accept), 1);
    });
}

/// Shows: LSN-23
#[test]
fn the_event_may_come_although_an_accept_is_queued() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let accept = listener.accept().pends();
        sim.choose_once(FaultPoint::EventDespiteIrp, 1);
        let first = Peer::connect(address);
        assert_eq!(events.accept().remote, Some(first.local()));
        assert!(!accept.is_completed());
        let second = Peer::connect(address);
        assert_eq!(accept.socket().remote_address(), second.local());
    });
}

/// Shows: LSN-24
#[test]
fn only_disabling_keeps_the_event_from_coming() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        sim.choose(FaultPoint::EventDespiteIrp, 1);
        let accept = listener.accept().pends();
        let _by_event = Peer::connect(address);
        drop(events.accept());
        assert_eq!(listener.disable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let by_request = Peer::connect(address);
        assert_eq!(accept.socket().remote_address(), by_request.local());
        let _untaken = Peer::connect(address);
        await_untaken(sim, &listener, 1);
        listener.close().ok();
        assert_eq!(events.entered(Kind::Accept), 1);
    });
}

/// Shows: LSN-25
#[test]
fn a_socket_from_accept_starts_with_every_event_off() {
    for_each_mode(|_| {
        let client = Client::new();
        let (events, connected) = (Recorder::new(), Recorder::new());
        let (listener, address) = client.bound_listener(&events);
        let inherited = WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT | WSK_EVENT_SEND_BACKLOG;
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT | inherited), STATUS_SUCCESS);
        let accept = listener.accept_with(&connected).pends();
        let peer = Peer::connect(address);
        let socket = accept.socket();
        peer.send(b"data");
        peer.close();
        assert_eq!(socket.receive_all(4), b"data");
        assert_eq!(socket.receive(&Buffer::new(1)).ok().information, 0);
        socket.close().ok();
        for kind in [Kind::Receive, Kind::Disconnect, Kind::SendBacklog] {
            assert_eq!(connected.entered(kind), 0, "{kind:?}");
        }
    });
}

/// Shows: LSN-26
#[test]
fn events_of_a_socket_from_accept_can_be_enabled_afterwards() {
    for_each_mode(|_| {
        let client = Client::new();
        let connected = Recorder::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let accept = listener.accept_with(&connected).pends();
        let peer = Peer::connect(address);
        let socket = accept.socket();
        peer.send(b"before");
        assert_eq!(socket.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        assert_eq!(connected.receive_bytes(6), b"before");
        peer.send(b"after");
        assert_eq!(connected.receive_bytes(5), b"after");
        assert_eq!(socket.enable(WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        peer.close();
        assert!(!connected.disconnect().abortive());
    });
}

/// Catches: LSN-23
#[test]
fn a_client_that_did_not_expect_the_event_and_loses_the_socket_is_caught() {
    let report = left_behind(&Sim::new(), |sim| {
        let client = Client::new();
        let events = Recorder::new();
        // Takes the connection, and does not look at it again: was there not a request for it?
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let accept = listener.accept().pends();
        sim.choose_once(FaultPoint::EventDespiteIrp, 1);
        let _peer = Peer::connect(address);
        events.accept().socket().forget();
        drop(accept);
        listener.close().ok();
        client.forget();
    });
    assert_reported(&report, "ACPT-06", "WskCloseSocket");
}
