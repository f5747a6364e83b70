//! `WskAbortEvent` (contract 4.9).

use std::sync::{Arc, Mutex};

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::CloseWithPended;
use wsk_sim::{FaultPoint, Sim};
use wsk_sys::*;

use crate::support::*;

/// A conditional listener that pends, and a request that is pended on it.
fn pended(client: &Client, events: &Recorder) -> (Socket, Peer, WSK_INSPECT_ID) {
    events.inspecting(WskInspectPend);
    let (listener, address) = client.conditional_listener(events);
    let peer = Peer::connect(address);
    (listener, peer, events.inspect().id())
}

/// Shows: ABRT-01, ABRT-05, ABRT-08, ABRT-09
#[test]
fn a_request_that_its_sender_drops_is_aborted() {
    for_each_mode(|_| {
        let client = Client::new();
        let (events, other) = (Recorder::new(), Recorder::new());
        let (other_listener, _other_peer, other_id) = pended(&client, &other);
        let (listener, by_reset, first) = pended(&client, &events);
        let by_close = Peer::connect(listener.local_address());
        let second = events.inspect().id();
        // The context points to the recorder: the abort finds that of its own listener.
        by_reset.reset();
        assert_eq!(events.abort().id, Some(first));
        by_close.close();
        assert_eq!(events.abort().id, Some(second));
        assert_eq!(other.entered(Kind::Abort), 0);
        other_listener.inspect_complete(other_id, WskInspectReject).ok();
    });
}

/// Shows: ABRT-02
#[test]
fn without_conditional_accept_nothing_is_aborted() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        let peers = [Peer::connect(address), Peer::connect(address)];
        await_untaken(sim, &listener, 2);
        for peer in peers {
            peer.reset();
        }
        drop(listener.accept().socket());
        drop(listener.accept().socket());
        listener.close().ok();
        assert_eq!((events.entered(Kind::Inspect), events.entered(Kind::Abort)), (0, 0));
    });
}

/// Shows: ABRT-03, ABRT-04
#[test]
fn an_abort_follows_its_inspection_if_that_did_not_reject() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let inspector = Inspector::of(&events);
        let (listener, address) = client.conditional_listener(&events);
        for answer in [WskInspectPend, WskInspectAccept, WskInspectReject] {
            let peer = Peer::connect(address);
            let asked = inspector.next();
            let id = asked.event.id();
            peer.reset();
            asked.answer(answer);
            let (Event::Inspect(inspected), returned) = (events.next(), events.returned(Kind::Inspect))
            else {
                panic!("the inspection returns first");
            };
            assert_eq!(inspected.id(), id);
            if answer != WskInspectReject {
                let Event::Abort(abort) = events.next() else { panic!("then the abort comes") };
                assert_eq!((abort.id, events.returned(Kind::Inspect)), (Some(id), returned));
            }
        }
        listener.close().ok();
        assert_eq!(events.entered(Kind::Abort), 2);
    });
}

/// Shows: ABRT-06
#[test]
fn a_request_that_is_dropped_locally_is_aborted() {
    for knob in [FaultPoint::DropAfterAccept, FaultPoint::DropAfterPend, FaultPoint::DropDuringComplete] {
        for_each_mode(move |sim| {
            sim.choose_once(knob, 1);
            let client = Client::new();
            let events = Recorder::new();
            events.inspecting(if knob == FaultPoint::DropAfterAccept {
                WskInspectAccept
            } else {
                WskInspectPend
            });
            let (listener, address) = client.conditional_listener(&events);
            let peer = Peer::connect(address);
            let id = events.inspect().id();
            if knob == FaultPoint::DropDuringComplete {
                listener.inspect_complete(id, WskInspectAccept).ok();
            }
            assert_eq!(events.abort().id, Some(id));
            peer.expect_reset();
        });
    }
}

/// Shows: ABRT-06
#[test]
fn an_accepted_request_for_which_the_queue_is_full_is_aborted() {
    Sim::builder().provider(|config| config.backlog = 1).build().run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        let _first = Peer::connect(address);
        await_untaken(sim, &listener, 1);
        events.inspect();
        let second = Peer::connect(address);
        let id = events.inspect().id();
        assert_eq!(events.abort().id, Some(id));
        second.expect_reset();
    });
}

/// The client is not called inside its own call, in which it may hold a lock that its callback takes.
///
/// Shows: ABRT-06
#[test]
fn a_decision_for_which_the_queue_is_full_aborts_on_another_thread() {
    Sim::builder().provider(|config| config.backlog = 1).build().run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (sender, receiver) = std::sync::mpsc::channel();
        events.on_abort(move |_| {
            let _ = sender.send(std::thread::current().id());
            STATUS_SUCCESS
        });
        let (listener, address) = client.conditional_listener(&events);
        events.inspecting(WskInspectAccept);
        let _first = Peer::connect(address);
        await_untaken(sim, &listener, 1);
        events.inspect();
        events.inspecting(WskInspectPend);
        let second = Peer::connect(address);
        let id = events.inspect().id();
        listener.inspect_complete(id, WskInspectAccept).wait();
        assert_ne!(receiver.recv_timeout(BOUND).expect("an abort"), std::thread::current().id());
        second.expect_reset();
    });
}

/// Shows: ABRT-07
#[test]
fn a_connection_that_is_lost_after_its_delivery_is_not_aborted() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        let accept = listener.accept().pends();
        let peer = Peer::connect(address);
        let socket = accept.socket();
        peer.reset();
        assert!(!nt_success(socket.receive(&Buffer::new(1)).wait().status));
        listener.close().ok();
        assert_eq!(events.entered(Kind::Abort), 0);
    });
}

/// Shows: ABRT-12
#[test]
fn an_aborted_request_makes_no_connection_whatever_is_decided() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, peer, id) = pended(&client, &events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let accept = listener.accept().pends();
        peer.reset();
        events.abort();
        listener.inspect_complete(id, WskInspectAccept).wait();
        listener.close().ok();
        accept.fails(STATUS_CANCELLED);
        assert_eq!(events.entered(Kind::Accept), 0);
    });
}

/// Shows: ABRT-14
#[test]
fn requests_may_be_started_inside_the_abort() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, peer, _) = pended(&client, &events);
        let started = Arc::new(Mutex::new(None));
        let (put, handle) = (Arc::clone(&started), listener.clone());
        events.on_abort(move |_| {
            *put.lock().unwrap() = Some(handle.accept());
            STATUS_SUCCESS
        });
        peer.reset();
        events.abort();
        let accept = started.lock().unwrap().take().expect("it was started");
        assert_eq!(accept.returned(), STATUS_PENDING);
        events.inspecting(WskInspectAccept);
        let peer = Peer::connect(listener.local_address());
        assert_eq!(accept.socket().remote_address(), peer.local());
        // The recorder must not keep its own listener.
        events.on_abort(|_| STATUS_SUCCESS);
    });
}

/// Shows: ABRT-15
#[test]
fn an_abort_always_names_its_request() {
    for behaviour in [CloseWithPended::Aborted, CloseWithPended::Silent] {
        let sim = Sim::builder().behaviours(|behaviours| behaviours.close_with_pended = behaviour).build();
        sim.run(|sim| {
            let client = Client::new();
            let events = Recorder::new();
            let (listener, peer, id) = pended(&client, &events);
            peer.reset();
            let abort = events.abort();
            assert!(!abort.pointers.id.is_null());
            assert_eq!(abort.id, Some(id));
            let _peer = Peer::connect(listener.local_address());
            events.inspect();
            // WskInspectEvent notifies the client of the listener's death; there is no abort without a
            // request.
            assert!(sim.provider().kill(listener.raw()));
            assert_eq!(events.inspect().id, None);
            listener.close().ok();
            for event in events.drain() {
                assert!(matches!(event, Event::Abort(Abort { id: Some(_), .. })), "{event:?}");
            }
        });
    }
}

/// Shows: ABRT-16
#[test]
fn a_request_is_aborted_once() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        events.inspecting(WskInspectPend);
        // Everything that could tell of the drop happens at once.
        sim.choose(FaultPoint::DropAfterPend, 1);
        let peer = Peer::connect(address);
        let id = events.inspect().id();
        peer.reset();
        assert_eq!(events.abort().id, Some(id));
        listener.inspect_complete(id, WskInspectAccept).wait();
        listener.inspect_complete(id, WskInspectReject).wait();
        listener.close().ok();
        assert_eq!(events.entered(Kind::Abort), 1);
    });
}

/// Shows: ABRT-17
#[test]
fn an_abort_may_run_during_an_inspection() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let (_listener, address) = client.conditional_listener(&events);
        sim.choose_once(FaultPoint::DropAfterPend, 1);
        let hold = events.hold(Kind::Abort);
        let _peer = Peer::connect(address);
        // This thread is the worker that the request was given to; the abort runs in another.
        hold.wait_entered();
        let inspecting = std::thread::current().id();
        hold.open();
        let (inspection, abort) = (events.inspect(), events.abort());
        assert_eq!(abort.id, inspection.id);
        assert_ne!(abort.at.thread, inspecting);
    });
}

/// Catches: ABRT-10
#[test]
fn an_abort_answered_with_anything_but_success_is_caught() {
    let sim = Sim::new();
    sim.expect("ABRT-10").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        for (count, answer) in [(1, STATUS_PENDING), (2, STATUS_UNSUCCESSFUL)] {
            events.on_abort(move |_| answer);
            let (_listener, peer, _) = pended(&client, &events);
            peer.reset();
            events.abort();
            eventually("ABRT-10", || sim.violations_of("ABRT-10").len() == count);
        }
        assert_answer_caught(sim, "ABRT-10", "WskAbortEvent");
    });
}

/// Catches: ABRT-11, ABRT-17
#[test]
fn a_client_that_goes_on_with_an_aborted_request_is_caught() {
    let sim = Sim::new();
    sim.expect_advice("ABRT-11").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, peer, id) = pended(&client, &events);
        peer.reset();
        events.abort();
        listener.inspect_complete(id, WskInspectReject).wait();
        assert_caught(sim, "ABRT-11", "WskInspectComplete");
    });
}

/// Catches: ABRT-13
#[test]
fn waiting_inside_the_abort_is_caught() {
    let sim = Sim::new();
    sim.expect("ABRT-13").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, peer, _) = pended(&client, &events);
        let handle = listener.clone();
        events.on_abort(move |_| {
            handle.local_address();
            STATUS_SUCCESS
        });
        peer.reset();
        events.abort();
        assert!(sim.violations_of("ABRT-13")[0].location.contains("contract"));
        events.on_abort(|_| STATUS_SUCCESS);
    });
}
