//! Breaches of the rules about received data, caught by the checker (contract 4.13, 5.10).

use wsk_sim::nt_user::Failure;
use wsk_sim::nt_user::faults::Point;
use wsk_sim::raw::*;
use wsk_sim::{FaultPoint, Sim};
use wsk_sys::*;

use crate::link::*;
use crate::support::*;

/// Catches: RCVE-02
#[test]
fn another_answer_to_the_sentinel_is_caught() {
    for answer in
        [ReceiveAnswer::decline(), ReceiveAnswer::retain(), ReceiveAnswer::status(STATUS_UNSUCCESSFUL)]
    {
        let sim = Sim::new();
        sim.expect("RCVE-02").run(move |sim| {
            let link = Link::with_events(WSK_EVENT_RECEIVE);
            link.events.on_receive(move |_| answer);
            assert!(sim.provider().kill(link.socket.raw()));
            assert!(link.events.receive().is_sentinel());
            assert_answer_caught(sim, "RCVE-02", "WskReceiveEvent");
            link.socket.close().ok();
        });
    }
}

/// Catches: RCVE-02
#[test]
fn a_dead_socket_that_is_used_or_left_open_is_caught() {
    let sim = Sim::new();
    sim.expect("RCVE-02").run(|sim| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        assert!(sim.provider().kill(link.socket.raw()));
        assert!(link.events.receive().is_sentinel());
        // The client knows from the return of its callback on.
        eventually("the use is caught", || {
            link.socket.send(b"x").fails(STATUS_FILE_FORCED_CLOSED);
            !sim.violations_of("RCVE-02").is_empty()
        });
        assert_caught(sim, "RCVE-02", "WskSend");
        link.socket.close().ok();
    });
    let report = left_behind(&Sim::new(), |sim| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        assert!(sim.provider().kill(link.socket.raw()));
        assert!(link.events.receive().is_sentinel());
        let notified = || sim.provider().open_sockets().iter().any(|open| open.rule == "RCVE-02");
        eventually("the client has been notified", notified);
        link.socket.forget();
        std::mem::forget((link.events, link.client));
    });
    assert_reported(&report, "RCVE-02", "WskCloseSocket");
}

/// Catches: RCVE-05
#[test]
fn more_bytes_accepted_than_indicated_are_caught() {
    let sim = Sim::new();
    sim.expect("RCVE-05").run(|sim| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        link.events.on_receive(|event| ReceiveAnswer::part(event.indicated + 1));
        link.peer.send(b"x");
        assert_eq!(link.events.receive().bytes(), b"x");
        assert_answer_caught(sim, "RCVE-05", "WskReceiveEvent");
    });
}

/// Catches: RCVE-10
#[test]
fn an_answer_that_is_not_defined_is_caught_and_leaves_the_data() {
    let sim = Sim::new();
    sim.expect("RCVE-10").run(|sim| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        link.events.on_receive(|_| ReceiveAnswer::status(STATUS_UNSUCCESSFUL));
        link.peer.send(b"x");
        assert_eq!(link.events.receive().bytes(), b"x");
        assert_answer_caught(sim, "RCVE-10", "WskReceiveEvent");
        assert_eq!(link.socket.disable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        assert_eq!(link.socket.receive_all(1), b"x");
    });
}

/// The mapping of the data is used here without a look, as a driver might that then ends in a bug
/// check.
///
/// Catches: RCVE-17
#[test]
fn a_callback_that_does_not_survive_unmapped_data_is_caught() {
    let sim = Sim::new();
    sim.choose(FaultPoint::IndicationShape, 4);
    let own = sim.clone();
    let run = sim.thread("test", move || {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        own.kernel().faults().fail_all(Point::Mapping);
        link.peer.send(b"x");
        link.events.receive();
    });
    assert!(matches!(run.join(), Err(Failure::Stopped(_))));
    assert_reported(&sim.finish(), "RCVE-17", "WskReceiveEvent");
}

/// Without such a failure it is not.
#[test]
fn data_that_has_yet_to_be_mapped_can_be_read() {
    Sim::new().run(|sim| {
        sim.choose(FaultPoint::IndicationShape, 4);
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        link.peer.send(b"x");
        assert_eq!(link.events.receive().bytes(), b"x");
    });
}

/// A connection whose client keeps a list.
fn keeping() -> (Link, ListHandle) {
    let link = Link::with_events(WSK_EVENT_RECEIVE);
    link.events.on_receive(|_| ReceiveAnswer::retain());
    link.peer.send(b"kept bytes");
    let list = link.events.receive().list;
    (link, list)
}

/// Catches: RCVE-18
#[test]
fn a_release_of_another_pointer_than_the_lists_is_caught() {
    let sim = Sim::new();
    sim.choose(FaultPoint::IndicationShape, 1);
    sim.expect("RCVE-18").run(|sim| {
        let (link, list) = keeping();
        // SAFETY: the list is kept and not released.
        let second = unsafe { (*list.0.cast::<WSK_DATA_INDICATION>()).Next };
        for wrong in [second.cast(), std::ptr::null_mut()] {
            assert_eq!(link.socket.release(ListHandle(wrong)), STATUS_INVALID_PARAMETER);
        }
        assert_caught(sim, "RCVE-18", "WskRelease");
        assert_eq!(sim.violations_of("RCVE-18").len(), 2);
        assert_eq!(link.socket.release(list), STATUS_SUCCESS);
    });
}

/// Closes the socket inside the callback that retains its data, which cannot be released then.
///
/// Catches: RCVE-19
#[test]
fn a_list_that_is_kept_by_a_callback_which_has_closed_the_socket_is_caught() {
    let sim = Sim::new();
    sim.expect("RCVE-19").run(|sim| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        let close = std::sync::Arc::new(std::sync::Mutex::new(None));
        let (keep, socket) = (std::sync::Arc::clone(&close), link.socket.clone());
        link.events.on_receive(move |_| {
            *keep.lock().unwrap() = Some(socket.close());
            ReceiveAnswer::retain()
        });
        link.peer.send(b"x");
        link.events.receive();
        close.lock().unwrap().take().expect("it was closed").ok();
        assert_answer_caught(sim, "RCVE-19", "WskReceiveEvent");
        link.forget_answers();
    });
    let sim = Sim::new();
    sim.expect("RCVE-19").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let datagram = client.datagram(&events);
        let address = datagram.bind_localhost();
        assert_eq!(datagram.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
        let close = std::sync::Arc::new(std::sync::Mutex::new(None));
        let (keep, socket) = (std::sync::Arc::clone(&close), datagram.clone());
        events.on_receive_from(move |_| {
            *keep.lock().unwrap() = Some(socket.close());
            STATUS_PENDING
        });
        let (host, _) = host_datagram();
        host.send_to(b"x", address).expect("sending on the host");
        events.receive_from();
        close.lock().unwrap().take().expect("it was closed").ok();
        assert_answer_caught(sim, "RCVE-19", "WskReceiveFromEvent");
        events.on_receive_from(|_| STATUS_SUCCESS);
    });
}

/// Catches: RCVE-19
#[test]
fn closing_with_a_list_that_is_kept_is_caught() {
    let sim = Sim::new();
    sim.expect("RCVE-19").run(|sim| {
        let (link, _) = keeping();
        link.socket.close().ok();
        assert_caught(sim, "RCVE-19", "WskCloseSocket");
    });
}

/// Catches: RCVE-20
#[test]
fn a_second_release_of_a_list_is_caught() {
    let sim = Sim::new();
    sim.expect("RCVE-20").run(|sim| {
        let (link, list) = keeping();
        assert_eq!(link.socket.release(list), STATUS_SUCCESS);
        assert!(sim.violations_of("RCVE-20").is_empty());
        assert_eq!(link.socket.release(list), STATUS_INVALID_PARAMETER);
        assert_caught(sim, "RCVE-20", "WskRelease");
    });
}

/// Catches: RCVE-20
#[test]
fn a_release_on_another_socket_is_caught() {
    let sim = Sim::new();
    sim.expect("RCVE-20").run(|sim| {
        let ((link, list), other) = (keeping(), Link::new());
        assert_eq!(other.socket.release(list), STATUS_INVALID_PARAMETER);
        assert_caught(sim, "RCVE-20", "WskRelease");
        assert_eq!(link.socket.release(list), STATUS_SUCCESS);
    });
}

/// Catches: RCVE-20
#[test]
fn a_release_of_a_list_that_was_not_kept_is_caught() {
    let sim = Sim::new();
    sim.expect("RCVE-20").run(|sim| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        let socket = link.socket.clone();
        link.events.on_receive(move |event| {
            socket.release(event.list);
            ReceiveAnswer::all()
        });
        link.peer.send(b"x");
        let list = link.events.receive().list;
        assert_answer_caught(sim, "RCVE-20", "WskReceiveEvent");
        assert_eq!(link.socket.release(list), STATUS_INVALID_PARAMETER);
        assert_caught(sim, "RCVE-20", "WskRelease");
        link.forget_answers();
    });
}
