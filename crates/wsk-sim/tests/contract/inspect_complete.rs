//! `WskInspectComplete` (contract 4.9, 5.4).

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::{
    CompleteAborted, CompleteAction, CompleteEarly, CompleteUnbound, CompleteUnknown,
};
use wsk_sim::{FaultPoint, Sim};
use wsk_sys::*;

use crate::support::*;

/// A conditional listener and a request that is pended on it.
fn pended(client: &Client, events: &Recorder) -> (Socket, Peer, WSK_INSPECT_ID) {
    events.inspecting(WskInspectPend);
    let (listener, address) = client.conditional_listener(events);
    let peer = Peer::connect(address);
    (listener, peer, events.inspect().id())
}

/// Shows: ICMP-01, ICMP-07
#[test]
fn accept_goes_on_to_delivery_or_abort() {
    for_each_mode(|sim| {
        for dropped in [false, true] {
            let client = Client::new();
            let events = Recorder::new();
            let (listener, peer, id) = pended(&client, &events);
            let accept = listener.accept().pends();
            sim.choose_once(FaultPoint::DropDuringComplete, u32::from(dropped));
            assert_eq!(listener.inspect_complete(id, WskInspectAccept).ok().information, 0);
            if dropped {
                assert_eq!(events.abort().id, Some(id));
                peer.expect_reset();
                listener.close().ok();
                accept.fails(STATUS_CANCELLED);
            } else {
                assert_eq!(accept.socket().remote_address(), peer.local());
                listener.close().ok();
            }
            assert_eq!(events.entered(Kind::Abort), u64::from(dropped));
        }
    });
}

/// Shows: ICMP-02, ICMP-07
#[test]
fn reject_drops_the_request() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, peer, id) = pended(&client, &events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let accept = listener.accept().pends();
        assert_eq!(listener.inspect_complete(id, WskInspectReject).ok().information, 0);
        peer.expect_reset();
        listener.close().ok();
        accept.fails(STATUS_CANCELLED);
        assert_eq!((events.entered(Kind::Accept), events.entered(Kind::Abort)), (0, 0));
    });
}

/// Shows: ICMP-03
#[test]
fn an_abort_may_meet_a_rejection() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, peer, id) = pended(&client, &events);
        sim.choose_once(FaultPoint::DropDuringComplete, 1);
        listener.inspect_complete(id, WskInspectReject).ok();
        assert_eq!(events.abort().id, Some(id));
        peer.expect_reset();
        listener.close().ok();
        assert_eq!(events.entered(Kind::Abort), 1);
    });
}

/// Shows: ICMP-05
#[test]
fn a_decision_needs_an_irp_and_completes_it_always() {
    for_each_mode(|sim| {
        sim.expect("IRP-18").expect("ICMP-10");
        let client = Client::new();
        let events = Recorder::new();
        let (listener, peer, id) = pended(&client, &events);
        let without = Request::null().inspect_complete(&listener, id, WskInspectAccept);
        assert_eq!(without.returned(), STATUS_INVALID_PARAMETER);
        let refused = listener.inspect_complete(id, WskInspectPend);
        assert_eq!(refused.wait().runs, 1);
        let done = listener.inspect_complete(id, WskInspectReject).ok();
        assert_eq!(done.runs, 1);
        peer.expect_reset();
    });
}

/// Shows: ICMP-06
#[test]
fn a_decision_answers_success_or_pending_or_forced_closed_or_another_failure() {
    for_each_mode(|sim| {
        sim.expect("ICMP-10");
        let client = Client::new();
        let events = Recorder::new();
        let (listener, peer, id) = pended(&client, &events);
        let refused = listener.inspect_complete(id, WskInspectPend).wait();
        assert_eq!((refused.returned, refused.status), (STATUS_INVALID_PARAMETER, STATUS_INVALID_PARAMETER));
        let done = listener.inspect_complete(id, WskInspectReject).ok();
        assert!(matches!(done.returned, STATUS_SUCCESS | STATUS_PENDING), "{done:?}");
        peer.expect_reset();
        sim.choose_once(FaultPoint::DieInCall, 1);
        let dead = listener.inspect_complete(id, WskInspectReject).wait();
        assert_eq!((dead.returned, dead.status), (STATUS_FILE_FORCED_CLOSED, STATUS_FILE_FORCED_CLOSED));
        listener.close().ok();
    });
}

/// Shows: ICMP-06
#[test]
fn both_ways_of_success_occur() {
    let answers = [wsk_sim::Completion::Inline, wsk_sim::Completion::PendLate].map(|completion| {
        let (sender, receiver) = std::sync::mpsc::channel();
        Sim::builder().completion(completion).build().run(move |_| {
            let client = Client::new();
            let (listener, _peer, id) = pended(&client, &Recorder::new());
            sender.send(listener.inspect_complete(id, WskInspectReject).ok().returned).expect("a receiver");
        });
        receiver.recv().expect("an answer")
    });
    assert_eq!(answers, [STATUS_SUCCESS, STATUS_PENDING]);
}

/// Shows: ICMP-08
#[test]
fn a_decision_on_an_aborted_request_succeeds_or_finds_nothing() {
    for_each_choice(
        |behaviours, choice: CompleteAborted| behaviours.complete_aborted = choice,
        |sim, choice| {
            let client = Client::new();
            let events = Recorder::new();
            let (listener, peer, id) = pended(&client, &events);
            peer.reset();
            events.abort();
            for injected in [0, 1] {
                sim.choose(FaultPoint::AbortedCompletion, injected);
                let status = match (choice, injected) {
                    (CompleteAborted::Success, _) | (CompleteAborted::Either, 0) => STATUS_SUCCESS,
                    _ => STATUS_NOT_FOUND,
                };
                listener.inspect_complete(id, WskInspectAccept).fails(status);
            }
        },
    );
    assert_eq!(CompleteAborted::default(), CompleteAborted::Either);
}

/// Shows: ICMP-09
#[test]
fn a_decision_on_no_request_finds_nothing_or_succeeds_and_is_reported() {
    for_each_choice(
        |behaviours, choice: CompleteUnknown| behaviours.complete_unknown = choice,
        |sim, choice| {
            sim.expect("ICMP-09").expect("ICMP-04");
            let client = Client::new();
            let events = Recorder::new();
            let (listener, _peer, id) = pended(&client, &events);
            let unknown = WSK_INSPECT_ID { Key: id.Key, SerialNumber: id.SerialNumber + 1 };
            listener.inspect_complete(unknown, WskInspectAccept).fails(choice.status());
            assert_caught(sim, "ICMP-09", "WskInspectComplete");
            listener.inspect_complete(id, WskInspectReject).ok();
            listener.inspect_complete(id, WskInspectReject).fails(choice.status());
            assert_caught(sim, "ICMP-04", "WskInspectComplete");
        },
    );
    assert_eq!(CompleteUnknown::default().status(), STATUS_NOT_FOUND);
}

/// Shows: ICMP-11
/// Catches: ICMP-10
#[test]
fn a_decision_that_is_none_is_refused_and_caught() {
    for_each_choice(
        |behaviours, choice: CompleteAction| behaviours.complete_action = choice,
        |sim, choice| {
            sim.expect("ICMP-10");
            let client = Client::new();
            let events = Recorder::new();
            let (listener, peer, id) = pended(&client, &events);
            for action in [WskInspectPend, WSK_INSPECT_ACTION(3), WSK_INSPECT_ACTION(-1)] {
                listener.inspect_complete(id, action).fails(choice.status());
            }
            assert_eq!(sim.violations_of("ICMP-10").len(), 3);
            assert_caught(sim, "ICMP-10", "WskInspectComplete");
            // The request is still there to be decided.
            listener.inspect_complete(id, WskInspectReject).ok();
            peer.expect_reset();
        },
    );
    assert_eq!(CompleteAction::default().status(), STATUS_INVALID_PARAMETER);
}

/// Shows: ICMP-12
/// Catches: ICMP-13
#[test]
fn a_decision_before_the_inspection_has_returned_is_reported_or_kept() {
    for_each_choice(
        |behaviours, choice: CompleteEarly| behaviours.complete_early = choice,
        |sim, choice| {
            let client = Client::new();
            let events = Recorder::new();
            let inspector = Inspector::of(&events);
            let (listener, address) = client.conditional_listener(&events);
            let accept = listener.accept().pends();
            let peer = Peer::connect(address);
            let asked = inspector.next();
            let id = asked.event.id();
            if choice == CompleteEarly::Reported {
                sim.expect("ICMP-12");
                listener.inspect_complete(id, WskInspectAccept).fails(STATUS_INVALID_DEVICE_STATE);
                assert_caught(sim, "ICMP-12", "WskInspectComplete");
                asked.answer(WskInspectPend);
                events.inspect();
                listener.inspect_complete(id, WskInspectAccept).ok();
            } else {
                let early = listener.inspect_complete(id, WskInspectAccept).pends();
                assert!(!accept.is_completed());
                asked.answer(WskInspectPend);
                early.ok();
            }
            assert_eq!(accept.socket().remote_address(), peer.local());
        },
    );
    assert_eq!(CompleteEarly::default(), CompleteEarly::Reported);
}

/// Shows: ICMP-12
/// Catches: ICMP-13
#[test]
fn a_kept_decision_is_void_when_the_inspection_decides_itself() {
    let sim =
        Sim::builder().behaviours(|behaviours| behaviours.complete_early = CompleteEarly::Queued).build();
    sim.expect("ICMP-13").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let inspector = Inspector::of(&events);
        let (listener, address) = client.conditional_listener(&events);
        let peer = Peer::connect(address);
        let asked = inspector.next();
        let early = listener.inspect_complete(asked.event.id(), WskInspectAccept).pends();
        asked.answer(WskInspectReject);
        early.fails(STATUS_NOT_FOUND);
        peer.expect_reset();
        assert_answer_caught(sim, "ICMP-13", "WskInspectEvent");
        let asked_at_close = Peer::connect(address);
        let asked = inspector.next();
        let early = listener.inspect_complete(asked.event.id(), WskInspectAccept).pends();
        let close = listener.close();
        early.fails(STATUS_CANCELLED);
        assert!(!close.is_completed());
        asked.answer(WskInspectPend);
        close.ok();
        asked_at_close.expect_reset();
    });
}

/// Shows: ICMP-14
#[test]
fn a_decision_on_an_unbound_listener_is_refused() {
    for_each_choice(
        |behaviours, choice: CompleteUnbound| behaviours.complete_unbound = choice,
        |_, choice| {
            let client = Client::new();
            let listener = client.listener(&Recorder::new());
            listener.conditional_accept();
            let id = WSK_INSPECT_ID { Key: 0x40, SerialNumber: 1 };
            let done = listener.inspect_complete(id, WskInspectReject).fails(choice.status());
            assert_eq!(done.returned, choice.status());
        },
    );
    assert_eq!(CompleteUnbound::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Catches: ICMP-04
#[test]
fn a_second_decision_is_caught() {
    let sim = Sim::new();
    sim.expect("ICMP-04").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, peer, id) = pended(&client, &events);
        let accept = listener.accept().pends();
        listener.inspect_complete(id, WskInspectAccept).ok();
        let socket = accept.socket();
        listener.inspect_complete(id, WskInspectReject).fails(STATUS_NOT_FOUND);
        assert_caught(sim, "ICMP-04", "WskInspectComplete");
        // The first one stands.
        peer.send(b"in");
        assert_eq!(socket.receive_all(2), b"in");
    });
}
