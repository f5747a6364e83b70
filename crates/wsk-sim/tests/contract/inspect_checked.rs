//! Mistakes of a client with an inspection, and how they are caught (contract 4.9, 4.19).

use std::sync::{Arc, Mutex};

use wsk_sim::raw::*;
use wsk_sim::{FaultPoint, Sim};
use wsk_sys::*;

use crate::support::*;

/// Catches: INSP-08
#[test]
fn a_listener_whose_inspection_told_its_death_and_that_is_not_closed_is_caught() {
    let report = left_behind(&Sim::new(), |sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, _) = client.conditional_listener(&events);
        assert!(sim.provider().kill(listener.raw()));
        assert_eq!(events.inspect().id, None);
        listener.forget();
        client.forget();
    });
    assert_reported(&report, "INSP-08", "WskCloseSocket");
}

/// Catches: INSP-08
#[test]
fn a_listener_whose_inspection_told_its_death_and_that_is_used_is_caught() {
    let sim = Sim::new();
    sim.expect("INSP-08").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, _) = client.conditional_listener(&events);
        assert!(sim.provider().kill(listener.raw()));
        assert_eq!(events.inspect().id, None);
        // This thread may have been on its way in when another one was told; the answer tells it, too.
        listener.accept().fails(STATUS_FILE_FORCED_CLOSED);
        listener.accept().fails(STATUS_FILE_FORCED_CLOSED);
        assert_caught(sim, "INSP-08", "WskAccept");
    });
}

/// The answer has no effect, and an address that is read nevertheless leads nowhere.
///
/// Catches: INSP-09
#[test]
fn an_address_of_the_sentinel_that_is_used_is_caught() {
    let sim = Sim::new();
    sim.expect("INSP-09").expect("BIND-12").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectAccept);
        let (listener, _) = client.conditional_listener(&events);
        let other = client.connection(&Recorder::new());
        assert!(sim.provider().kill(listener.raw()));
        let event = events.inspect();
        let stale = event.pointers.local;
        // SAFETY: the provider keeps the memory for a while, for this very purpose.
        assert_eq!(unsafe { read_address(stale) }, None);
        listener.close().ok();
        // SAFETY: the provider keeps the memory for a while, for this very purpose.
        unsafe { Request::new().bind_at(&other, stale) }.fails(STATUS_INVALID_PARAMETER);
        assert_caught(sim, "INSP-09", "WskBind");
        assert_eq!((events.entered(Kind::Inspect), events.entered(Kind::Abort)), (1, 0));
    });
}

/// Catches: INSP-10, INSP-29
#[test]
fn an_answer_that_is_no_action_is_a_rejection_and_is_caught() {
    let sim = Sim::new();
    sim.expect("INSP-10").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (_listener, address) = client.conditional_listener(&events);
        for action in [3, -1, i32::MAX] {
            events.inspecting(WSK_INSPECT_ACTION(action));
            Peer::connect(address).expect_reset();
            events.inspect();
        }
        assert_answer_caught(sim, "INSP-10", "WskInspectEvent");
        assert_eq!(sim.violations_of("INSP-10").len(), 3);
    });
}

/// Catches: INSP-29
#[test]
fn a_panic_that_would_leave_the_inspection_is_caught() {
    let sim = Sim::new();
    sim.expect("LIFE-18").run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        events.on_inspect(|_| panic!("an inspection that goes wrong"));
        let (listener, address) = client.conditional_listener(&events);
        let accept = listener.accept();
        let _peer = Peer::connect(address);
        accept.wait();
    });
}

/// Catches: INSP-18
#[test]
fn a_forgotten_decision_is_caught() {
    let sim = Sim::new();
    sim.expect("INSP-18").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let (listener, address) = client.conditional_listener(&events);
        let [(decided, first), (aborted, second), (forgotten, third)] = [(); 3].map(|()| {
            let peer = Peer::connect(address);
            (peer, events.inspect().id())
        });
        listener.inspect_complete(first, WskInspectReject).ok();
        decided.expect_reset();
        aborted.reset();
        assert_eq!(events.abort().id, Some(second));
        listener.close().ok();
        forgotten.expect_reset();
        let caught = sim.violations_of("INSP-18");
        assert_eq!(caught.len(), 1);
        assert!(caught[0].detail.contains(&format!("/{} ", third.SerialNumber)), "{}", caught[0]);
    });
}

/// Catches: INSP-18
#[test]
fn a_request_that_is_pended_by_a_callback_which_has_closed_the_listener_is_caught() {
    for (answer, caught) in [(WskInspectPend, 1), (WskInspectReject, 0)] {
        let sim = Sim::new();
        if caught != 0 {
            sim.expect("INSP-18");
        }
        sim.run(move |sim| {
            let client = Client::new();
            let events = Recorder::new();
            let (listener, address) = client.conditional_listener(&events);
            let close = Arc::new(Mutex::new(None));
            let (keep, handle) = (Arc::clone(&close), listener.clone());
            events.on_inspect(move |_| {
                *keep.lock().unwrap() = Some(handle.close());
                answer
            });
            Peer::connect(address).expect_reset();
            events.inspect();
            close.lock().unwrap().take().expect("it was closed").ok();
            assert_eq!(sim.violations_of("INSP-18").len(), caught);
            // The closure keeps the listener.
            events.inspecting(WskInspectReject);
        });
    }
}

/// Catches: INSP-19
#[test]
fn an_identifier_that_was_copied_too_late_is_caught() {
    let sim = Sim::new();
    // With the contents of its own request gone it names none.
    sim.expect("INSP-19").expect("ICMP-09").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let (listener, address) = client.conditional_listener(&events);
        let _peer = Peer::connect(address);
        let event = events.inspect();
        // SAFETY: the provider keeps the memory for a while, for this very purpose.
        let late = unsafe { event.pointers.id.read() };
        assert_ne!(late, event.id());
        listener.inspect_complete(late, WskInspectAccept).fails(STATUS_NOT_FOUND);
        assert_caught(sim, "INSP-19", "WskInspectComplete");
        listener.inspect_complete(event.id(), WskInspectReject).ok();
    });
}

/// Catches: INSP-20
#[test]
fn an_identifier_that_is_not_the_clients_own_is_caught() {
    let sim = Sim::new();
    sim.expect("INSP-20").expect("ICMP-09").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let (listener, address) = client.conditional_listener(&events);
        let _peer = Peer::connect(address);
        let event = events.inspect();
        // SAFETY: the provider keeps the memory for a while, for this very purpose.
        let borrowed =
            unsafe { Request::new().inspect_complete_at(&listener, event.pointers.id, WskInspectAccept) };
        borrowed.fails(STATUS_NOT_FOUND);
        assert_caught(sim, "INSP-20", "WskInspectComplete");
        listener.inspect_complete(event.id(), WskInspectReject).ok();
    });
}

/// The bytes of an identifier as they are in memory, padding included.
fn bytes_at(id: PWSK_INSPECT_ID) -> Vec<u8> {
    let bytes = id.cast::<[u8; size_of::<WSK_INSPECT_ID>()]>();
    // SAFETY: the callback that was given the pointer is running; the provider has written every byte.
    unsafe { bytes.read() }.to_vec()
}

/// The client knows its requests by pointer or by raw bytes, does not recognize the aborted one, and goes on
/// with it.
///
/// Catches: INSP-21, INSP-27, ABRT-11
#[test]
fn a_client_that_compares_identifiers_wrongly_is_caught() {
    let sim = Sim::new();
    sim.expect_advice("ABRT-11").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (inspected, aborted) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let put = Arc::clone(&inspected);
        events.on_inspect(move |event| {
            *put.lock().unwrap() = bytes_at(event.pointers.id);
            WskInspectPend
        });
        let put = Arc::clone(&aborted);
        events.on_abort(move |event| {
            *put.lock().unwrap() = bytes_at(event.pointers.id);
            STATUS_SUCCESS
        });
        let (listener, address) = client.conditional_listener(&events);
        let peer = Peer::connect(address);
        let inspection = events.inspect();
        peer.reset();
        let abort = events.abort();
        assert_eq!(abort.id, inspection.id);
        assert_ne!(abort.pointers.id, inspection.pointers.id);
        if cfg!(target_pointer_width = "64") {
            // Only there the structure has padding.
            assert_ne!(*aborted.lock().unwrap(), *inspected.lock().unwrap());
        }
        listener.inspect_complete(inspection.id(), WskInspectAccept).wait();
        assert_caught(sim, "ABRT-11", "WskInspectComplete");
    });
}

/// The abort comes before the client has made its record, which therefore stays, and the client goes on with
/// it.
///
/// Catches: INSP-26
#[test]
fn a_client_that_records_a_request_only_after_the_inspection_is_caught() {
    let sim = Sim::new();
    sim.expect_advice("ABRT-11").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let records: Arc<Mutex<Vec<WSK_INSPECT_ID>>> = Arc::default();
        let known = Arc::clone(&records);
        events.on_abort(move |event| {
            known.lock().unwrap().retain(|record| Some(*record) != event.id);
            STATUS_SUCCESS
        });
        let (listener, address) = client.conditional_listener(&events);
        sim.choose_once(FaultPoint::DropAfterPend, 1);
        let _peer = Peer::connect(address);
        events.abort();
        records.lock().unwrap().push(events.inspect().id());
        let record = records.lock().unwrap().pop().expect("the abort did not find it");
        listener.inspect_complete(record, WskInspectAccept).wait();
        assert_caught(sim, "ABRT-11", "WskInspectComplete");
    });
}

/// Catches: INSP-23
#[test]
fn an_address_that_was_not_copied_in_time_is_caught() {
    let sim = Sim::new();
    sim.expect("INSP-23").expect("BIND-12").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectReject);
        let (_listener, address) = client.conditional_listener(&events);
        let connection = client.connection(&Recorder::new());
        Peer::connect(address).expect_reset();
        let event = events.inspect();
        // SAFETY: the provider keeps the memory for a while, for this very purpose.
        let bind = unsafe { Request::new().bind_at(&connection, event.pointers.local) };
        bind.fails(STATUS_INVALID_PARAMETER);
        assert_caught(sim, "INSP-23", "WskBind");
    });
}

/// Catches: INSP-24
#[test]
fn waiting_inside_the_inspection_is_caught() {
    let sim = Sim::new();
    sim.expect("INSP-24").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        let handle = listener.clone();
        events.on_inspect(move |_| {
            handle.local_address();
            WskInspectReject
        });
        Peer::connect(address).expect_reset();
        events.inspect();
        assert!(sim.violations_of("INSP-24")[0].location.contains("contract"));
        events.inspecting(WskInspectReject);
    });
}

/// Catches: INSP-35
#[test]
fn an_identifier_that_is_used_after_its_request_is_over_is_caught() {
    let sim = Sim::new();
    sim.expect("ICMP-04").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        let accept = listener.accept().pends();
        let _peer = Peer::connect(address);
        let delivered = events.inspect().id();
        let socket = accept.socket();
        listener.inspect_complete(delivered, WskInspectReject).fails(STATUS_NOT_FOUND);
        assert_caught(sim, "ICMP-04", "WskInspectComplete");
        socket.send(b"unharmed").ok();
    });
}
