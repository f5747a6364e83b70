//! Enabling and disabling of events, inheritance, static events, and closes during running callbacks.

use std::time::Duration;

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::InheritedEvents;
use wsk_sim::{FaultPoint, Sim};
use wsk_sys::*;

const A_WHILE: Duration = Duration::from_millis(30);
static FOREIGN: NPIID = NPIID { data1: 1, data2: 2, data3: 3, data4: [4; 8] };

#[test]
fn a_connection_that_waits_is_indicated_when_the_event_comes_on() {
    Sim::new().run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        let peers: Vec<Peer> = (0..3).map(|_| Peer::connect(address)).collect();
        while sim.provider().untaken(listener.raw()) != Some(3) {
            std::thread::yield_now();
        }
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        for _ in &peers {
            drop(events.accept().socket());
        }
    });
}

#[test]
fn disabling_waits_for_the_last_of_two_calls() {
    Sim::new().run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let hold = events.hold(Kind::Accept);
        let _peers = [Peer::connect(address), Peer::connect(address)];
        hold.wait_inside(2);
        assert_eq!(listener.disable(WSK_EVENT_ACCEPT), STATUS_EVENT_PENDING);
        let disabling = listener.disable_with_irp(WSK_EVENT_ACCEPT).pends();
        assert!(disabling.wait_up_to(A_WHILE).is_none());
        hold.open();
        disabling.ok();
        let _late = Peer::connect(address);
        drop((events.accept().socket(), events.accept().socket()));
        assert!(events.next_of(Kind::Accept, A_WHILE).is_none());
        assert_eq!(listener.disable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        assert_eq!(listener.disable_with_irp(WSK_EVENT_ACCEPT).ok().returned, STATUS_SUCCESS);
    });
}

#[test]
fn inherited_events_reach_sockets_accepted_by_event_alone() {
    Sim::new().run(|_| {
        let client = Client::new();
        let (listening, connected) = (Recorder::new(), Recorder::new());
        let given = connected.clone();
        listening.on_accept(move |_| AcceptAnswer::take_with(&given));
        let (listener, address) = client.bound_listener(&listening);
        assert_eq!(listener.enable(WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        assert_eq!(listener.disable(WSK_EVENT_RECEIVE), STATUS_INVALID_PARAMETER);

        let accept = Request::new().accept(&listener, Some(&connected), 0).pends();
        let by_accept = Peer::connect(address);
        let accepted = accept.socket();
        by_accept.send(b"silent");
        assert!(connected.next_of(Kind::Receive, A_WHILE).is_none());
        assert_eq!(accepted.receive_all(6), b"silent");

        for _ in 0..2 {
            assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
            let by_event = Peer::connect(address);
            by_event.send(b"heard");
            let accepted = listening.accept().socket();
            assert_eq!(connected.receive_bytes(5), b"heard");
            by_event.close();
            assert!(!connected.disconnect().abortive());
            accepted.close().ok();
            assert_eq!(listener.disable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        }
    });
}

#[test]
fn inherited_events_may_come_before_the_accept_event_returns() {
    Sim::builder().behaviours(|b| b.inherited_events = InheritedEvents::OnceOutputsWritten).build().run(
        |_| {
            let client = Client::new();
            let (listening, connected) = (Recorder::new(), Recorder::new());
            let (given, seen) = (connected.clone(), connected.clone());
            listening.on_accept(move |event| {
                event.outputs.set(Some(&given));
                while seen.entered(Kind::Receive) == 0 {
                    std::thread::yield_now();
                }
                AcceptAnswer::take_with(&given)
            });
            let (listener, address) = client.bound_listener(&listening);
            assert_eq!(listener.enable(WSK_EVENT_ACCEPT | WSK_EVENT_RECEIVE), STATUS_SUCCESS);
            let peer = Peer::connect(address);
            peer.send(b"early");
            drop(listening.accept().socket());
        },
    );
}

#[test]
fn static_events_are_always_on() {
    Sim::new().run(|_| {
        let client = Client::new();
        assert_eq!(
            client.static_events(WSK_EVENT_ACCEPT | WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT),
            STATUS_SUCCESS
        );
        let (listening, connected) = (Recorder::new(), Recorder::new());
        let given = connected.clone();
        listening.on_accept(move |_| AcceptAnswer::take_with(&given));
        let (listener, address) = client.bound_listener(&listening);
        let peer = Peer::connect(address);
        peer.send(b"static");
        let accepted = listening.accept().socket();
        assert_eq!(connected.receive_bytes(6), b"static");
        assert_eq!(listener.disable(WSK_EVENT_ACCEPT), STATUS_INVALID_PARAMETER);
        assert_eq!(accepted.disable(WSK_EVENT_RECEIVE), STATUS_INVALID_PARAMETER);
    });
}

#[test]
fn a_close_waits_for_callbacks_and_ends_what_waits() {
    Sim::new().run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let hold = events.hold(Kind::Accept);
        let _peer = Peer::connect(address);
        hold.wait_entered();
        let accept = listener.accept().pends();
        let close = listener.close().pends();
        accept.fails(STATUS_CANCELLED);
        assert!(close.wait_up_to(A_WHILE).is_none());
        hold.open();
        close.ok();
        drop(events.accept().socket());
    });
}

#[test]
fn a_close_may_be_started_inside_a_callback() {
    Sim::new().run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        let (close, inside) = (std::sync::mpsc::channel(), listener.clone());
        let sender = parking_lot::Mutex::new(close.0);
        events.on_accept(move |_| {
            let request = inside.close();
            assert_eq!(request.returned(), STATUS_PENDING);
            assert!(!request.is_completed());
            let _ = sender.lock().send(request);
            AcceptAnswer::refuse()
        });
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let peer = Peer::connect(address);
        close.1.recv_timeout(BOUND).expect("the callback runs").ok();
        peer.expect_reset();
        events.on_accept(|_| AcceptAnswer::refuse());
    });
}

#[test]
fn an_event_may_come_although_an_accept_waits() {
    let sim = Sim::new();
    sim.choose_once(FaultPoint::EventDespiteIrp, 1);
    sim.run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let accept = listener.accept().pends();
        let (_one, _two) = (Peer::connect(address), Peer::connect(address));
        drop(events.accept().socket());
        drop(accept.socket());
    });
}

#[test]
fn mistakes_are_reported() {
    let sim = Sim::new();
    for rule in [
        "EVT-02", "EVT-03", "EVT-07", "EVT-08", "EVT-10", "EVT-23", "EVT-28", "EVT-34", "ACPT-07", "ACPT-10",
        "ACPT-11",
    ] {
        sim.expect(rule);
    }
    sim.run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let listener = client.listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_INVALID_DEVICE_STATE);
        let connection = client.connection(&events);
        assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_INVALID_DEVICE_STATE);
        let address = listener.bind_localhost();
        let mut control = Control::events(WSK_EVENT_ACCEPT);
        control.input.as_mut().expect("an input").truncate(12);
        assert_eq!(listener.control_now(&control).status, STATUS_INVALID_PARAMETER);
        assert_eq!(
            listener.control_now(&Control::events(WSK_EVENT_ACCEPT).with_size()).status,
            STATUS_SUCCESS
        );
        listener.control(&Control::events(WSK_EVENT_ACCEPT)).ok();
        let both = WSK_EVENT_ACCEPT | WSK_EVENT_RECEIVE;
        assert_eq!(listener.disable(both), STATUS_INVALID_PARAMETER);

        let foreign =
            Control::set(SOL_SOCKET, SO_WSK_EVENT_CALLBACK, &event_control(&FOREIGN, WSK_EVENT_ACCEPT));
        assert_eq!(listener.control_now(&foreign).status, STATUS_NOT_SUPPORTED);
        let empty = Recorder::with_tables(|tables| tables.listen.WskAcceptEvent = None);
        let (bare, _) = client.bound_listener(&empty);
        assert_eq!(bare.enable(WSK_EVENT_ACCEPT), STATUS_INVALID_PARAMETER);

        events.on_accept(|_| AcceptAnswer::take().without_outputs());
        let _one = Peer::connect(address);
        drop(events.accept().socket());
        events.on_accept(|_| AcceptAnswer { status: STATUS_UNSUCCESSFUL, ..AcceptAnswer::refuse() });
        Peer::connect(address).expect_reset();
        drop(events.accept());
        events.on_accept(|event| {
            let socket = event.socket.as_ref().expect("a socket");
            socket.enable(WSK_EVENT_DISCONNECT);
            AcceptAnswer::take()
        });
        let _three = Peer::connect(address);
        drop(events.accept().socket());
    });
}
