//! Conditional accept: all outcomes of an inspection.

use std::time::Duration;

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::{CloseWithPended, CompleteAborted, CompleteEarly};
use wsk_sim::{FaultPoint, Sim};
use wsk_sys::*;

const A_WHILE: Duration = Duration::from_millis(30);

/// A conditional listener whose inspections return `action`.
fn conditional_listener(
    client: &Client,
    action: WSK_INSPECT_ACTION,
) -> (Recorder, Socket, std::net::SocketAddr) {
    let events = Recorder::new();
    events.inspecting(action);
    let (listener, address) = client.conditional_listener(&events);
    (events, listener, address)
}

#[test]
fn a_drop_during_the_inspection_is_told_after_it() {
    for (action, aborts) in [(WskInspectAccept, true), (WskInspectPend, true), (WskInspectReject, false)] {
        Sim::new().run(move |_| {
            let client = Client::new();
            let (events, _listener, address) = conditional_listener(&client, action);
            let hold = events.hold(Kind::Inspect);
            let peer = Peer::connect(address);
            hold.wait_entered();
            peer.reset();
            assert!(events.next_of(Kind::Abort, A_WHILE).is_none(), "not while the inspection runs");
            hold.open();
            let inspected = events.inspect();
            if aborts {
                assert_eq!(events.abort().id, inspected.id);
            } else {
                assert!(events.next_of(Kind::Abort, A_WHILE).is_none());
            }
        });
    }
}

#[test]
fn a_pended_request_that_ends_is_aborted_once() {
    let sim = Sim::builder().behaviours(|b| b.complete_aborted = CompleteAborted::NotFound).build();
    sim.run(|_| {
        let client = Client::new();
        let (events, listener, address) = conditional_listener(&client, WskInspectPend);
        let accept = listener.accept().pends();
        let (one, two) = (Peer::connect(address), Peer::connect(address));
        let (first, second) = (events.inspect(), events.inspect());
        one.close();
        two.reset();
        let aborted = [events.abort().id, events.abort().id];
        assert!(aborted.contains(&first.id) && aborted.contains(&second.id));
        listener.inspect_complete(first.id(), WskInspectAccept).fails(STATUS_NOT_FOUND);
        assert!(accept.wait_up_to(A_WHILE).is_none());
        assert_eq!(events.entered(Kind::Abort), 2);
    });
}

#[test]
fn data_that_came_before_the_end_is_no_drop() {
    Sim::new().run(|_| {
        let client = Client::new();
        let (events, listener, address) = conditional_listener(&client, WskInspectPend);
        let peer = Peer::connect(address);
        peer.send(b"still here");
        peer.half_close();
        let inspected = events.inspect();
        assert!(events.next_of(Kind::Abort, A_WHILE).is_none());
        listener.inspect_complete(inspected.id(), WskInspectAccept).ok();
        let accepted = listener.accept().socket();
        assert_eq!(accepted.receive_all(10), b"still here");
        assert_eq!(accepted.query_inspect_id(), Ok(inspected.id()));
    });
}

#[test]
fn a_reset_is_a_drop_even_behind_data() {
    Sim::new().run(|_| {
        let client = Client::new();
        let (events, _listener, address) = conditional_listener(&client, WskInspectPend);
        let peer = Peer::connect(address);
        peer.send(b"never mind");
        let inspected = events.inspect();
        assert!(events.next_of(Kind::Abort, A_WHILE).is_none());
        peer.reset();
        assert_eq!(events.abort().id, inspected.id);
    });
}

#[test]
fn injected_drops_are_aborts() {
    for point in [FaultPoint::DropAfterAccept, FaultPoint::DropAfterPend, FaultPoint::DropDuringComplete] {
        Sim::new().run(move |sim| {
            sim.choose(point, 1);
            let client = Client::new();
            let action = if point == FaultPoint::DropAfterAccept { WskInspectAccept } else { WskInspectPend };
            let (events, listener, address) = conditional_listener(&client, action);
            let accept = listener.accept().pends();
            let peer = Peer::connect(address);
            let inspected = events.inspect();
            if point == FaultPoint::DropDuringComplete {
                listener.inspect_complete(inspected.id(), WskInspectReject).ok();
            }
            assert_eq!(events.abort().id, inspected.id);
            peer.expect_reset();
            assert!(!accept.is_completed());
        });
    }
}

#[test]
fn a_decision_that_comes_early_is_kept_or_reported() {
    for form in [CompleteEarly::Queued, CompleteEarly::Reported] {
        let sim = Sim::builder().behaviours(|b| b.complete_early = form).build();
        if form == CompleteEarly::Reported {
            sim.expect("ICMP-12");
        }
        sim.run(move |_| {
            let client = Client::new();
            let (events, listener, address) = conditional_listener(&client, WskInspectPend);
            let hold = events.hold(Kind::Inspect);
            let accept = listener.accept().pends();
            let _peer = Peer::connect(address);
            hold.wait_entered();
            let id = WSK_INSPECT_ID { Key: 0x40, SerialNumber: 1 };
            let early = listener.inspect_complete(id, WskInspectAccept);
            if form == CompleteEarly::Reported {
                early.fails(STATUS_INVALID_DEVICE_STATE);
                hold.open();
                listener.inspect_complete(events.inspect().id(), WskInspectAccept).ok();
            } else {
                assert_eq!(early.returned(), STATUS_PENDING);
                assert!(!early.is_completed());
                hold.open();
                early.ok();
            }
            drop(accept.socket());
        });
    }
}

#[test]
fn closing_with_pended_requests() {
    for form in [CloseWithPended::Aborted, CloseWithPended::Silent] {
        let sim = Sim::builder().behaviours(|b| b.close_with_pended = form).build();
        sim.expect("INSP-18");
        sim.run(move |_| {
            let client = Client::new();
            let (events, listener, address) = conditional_listener(&client, WskInspectPend);
            let peer = Peer::connect(address);
            let inspected = events.inspect();
            listener.close().ok();
            peer.expect_reset();
            match form {
                CloseWithPended::Aborted => {
                    assert_eq!(events.returned(Kind::Abort), 1, "before the close completed");
                    assert_eq!(events.abort().id, inspected.id);
                }
                _ => assert_eq!(events.entered(Kind::Abort), 0),
            }
        });
    }
}

#[test]
fn a_dead_conditional_listener_is_told_by_both_callbacks() {
    Sim::new().run(|sim| {
        let client = Client::new();
        let (events, listener, address) = conditional_listener(&client, WskInspectPend);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let peer = Peer::connect(address);
        events.inspect();
        sim.provider().kill(listener.raw());
        assert_eq!(events.inspect().id, None);
        assert!(events.accept().socket.is_none());
        peer.expect_reset();
        listener.close().ok();
    });
}

#[test]
fn mistakes_are_reported() {
    let sim = Sim::new();
    for rule in ["INSP-10", "INSP-19", "INSP-20", "INSP-30", "ICMP-04", "ICMP-09", "ICMP-10", "ABRT-10"] {
        sim.expect(rule);
    }
    sim.run(|sim| {
        let client = Client::new();
        let bare = client.listener(&Recorder::with_tables(|tables| tables.listen.WskAbortEvent = None));
        bare.set_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1).fails(STATUS_INVALID_PARAMETER);
        let (events, listener, address) = conditional_listener(&client, WSK_INSPECT_ACTION(17));
        Peer::connect(address).expect_reset();
        events.inspect();

        events.inspecting(WskInspectPend);
        let _peer = Peer::connect(address);
        let inspected = events.inspect();
        listener.inspect_complete(inspected.id(), WskInspectPend).fails(STATUS_INVALID_PARAMETER);
        // The pointer of the callback, and a copy that is made too late.
        let lent = inspected.pointers.id;
        // SAFETY: the provider keeps the memory for a while.
        let borrowed = unsafe { Request::new().inspect_complete_at(&listener, lent, WskInspectAccept) };
        borrowed.fails(STATUS_NOT_FOUND);
        // SAFETY: the provider keeps the memory for a while.
        let stale = unsafe { lent.read() };
        assert_ne!(stale, inspected.id());
        listener.inspect_complete(stale, WskInspectAccept).fails(STATUS_NOT_FOUND);
        listener.inspect_complete(inspected.id(), WskInspectReject).ok();
        listener.inspect_complete(inspected.id(), WskInspectReject).fails(STATUS_NOT_FOUND);

        events.on_abort(|_| STATUS_UNSUCCESSFUL);
        let peer = Peer::connect(address);
        events.inspect();
        peer.reset();
        events.abort();
        assert_eq!(sim.violations_of("ABRT-10").len(), 1);
    });
}
