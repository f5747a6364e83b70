//! `WskInspectEvent`: its calls, its arguments, and the effect of its result (contract 4.9).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::{CloseWithPended, IdReuse, MissingInspection, Retransmission};
use wsk_sim::{FaultPoint, Sim};
use wsk_sys::*;

use crate::support::*;

/// Shows: INSP-01, INSP-11
#[test]
fn a_request_to_a_conditional_listener_is_inspected() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        for _ in 0..2 {
            let accept = listener.accept().pends();
            let peer = Peer::connect(address);
            assert_eq!(events.inspect().remote, Some(peer.local()));
            let socket = accept.socket();
            socket.send(b"in").ok();
            assert_eq!(peer.receive(2), b"in");
        }
    });
}

/// Shows: INSP-02
#[test]
fn without_conditional_accept_nothing_is_inspected() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (plain, address) = client.bound_listener(&events);
        let off_again = client.listener(&events);
        off_again.conditional_accept();
        off_again.set_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 0).ok();
        let other_address = off_again.bind_localhost();
        for (listener, address) in [(plain, address), (off_again, other_address)] {
            let accept = listener.accept().pends();
            let _peer = Peer::connect(address);
            drop(accept.socket());
            listener.close().ok();
        }
        assert_eq!(events.entered(Kind::Inspect), 0);
    });
}

/// The part of INSP-03 that a client can observe: while the callback runs there is no connection yet.
#[test]
fn there_is_no_connection_while_the_request_is_inspected() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let inspector = Inspector::of(&events);
        let (listener, address) = client.conditional_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let peer = Peer::connect(address);
        let asked = inspector.next();
        let accept = listener.accept().pends();
        assert_eq!(sim.provider().untaken(listener.raw()), Some(0));
        assert_eq!(sim.provider().open_sockets().len(), 1);
        assert_eq!(events.entered(Kind::Accept), 0);
        asked.answer(WskInspectAccept);
        assert_eq!(accept.socket().remote_address(), peer.local());
    });
}

/// Shows: INSP-04, INSP-05
#[test]
fn the_inspection_gets_context_and_addresses() {
    for_each_mode(|_| {
        let client = Client::new();
        let recorders = [Recorder::new(), Recorder::new()];
        let wildcard = client.listener(&recorders[0]);
        wildcard.conditional_accept();
        wildcard.bind(ANY).ok();
        let v6 = client.open(&SocketOptions::new(Category::Listen).recorder(&recorders[1]).v6()).socket();
        v6.conditional_accept();
        v6.bind(LOCALHOST_V6).ok();
        let to = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 3), wildcard.local_address().port()));
        for (events, to) in [(&recorders[0], to), (&recorders[1], v6.local_address())] {
            events.inspecting(WskInspectReject);
            let peer = Peer::connect(to);
            // The context points to the recorder: each listener finds its own.
            let event = events.inspect();
            assert_eq!((event.local, event.remote), (Some(to), Some(peer.local())));
        }
        assert_eq!(recorders.map(|events| events.entered(Kind::Inspect)), [1, 1]);
    });
}

/// Shows: INSP-06
#[test]
fn identifiers_of_live_requests_differ() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let (listener, address) = client.conditional_listener(&events);
        let mut live = Vec::new();
        for round in 0..6 {
            let peer = Peer::connect(address);
            let id = events.inspect().id();
            assert!(live.iter().all(|(known, _)| *known != id));
            live.push((id, peer));
            if round % 3 == 2 {
                let (decided, _peer) = live.remove(1);
                listener.inspect_complete(decided, WskInspectReject).ok();
            }
        }
        for (id, _peer) in live {
            listener.inspect_complete(id, WskInspectReject).ok();
        }
    });
}

/// Shows: INSP-07
#[test]
fn a_dead_listener_is_told_by_an_inspection_without_identifier() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, _) = client.conditional_listener(&events);
        assert!(sim.provider().kill(listener.raw()));
        let event = events.inspect();
        assert_eq!(event.id, None);
        assert!(event.pointers.id.is_null());
        listener.close().ok();
    });
}

/// Shows: INSP-10
#[test]
fn each_of_the_three_answers_is_taken() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        let accept = listener.accept().pends();
        events.inspecting(WskInspectReject);
        let rejected = Peer::connect(address);
        rejected.expect_reset();
        events.inspecting(WskInspectPend);
        let pended = Peer::connect(address);
        events.inspect();
        let id = events.inspect().id();
        assert!(!accept.is_completed());
        events.inspecting(WskInspectAccept);
        let accepted = Peer::connect(address);
        assert_eq!(accept.socket().remote_address(), accepted.local());
        listener.inspect_complete(id, WskInspectReject).ok();
        pended.expect_reset();
    });
}

/// Shows: INSP-12
#[test]
fn an_accepted_request_is_delivered_by_request_or_by_event() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let accept = listener.accept().pends();
        let first = Peer::connect(address);
        let id = events.inspect().id();
        let by_request = accept.socket();
        assert_eq!((by_request.remote_address(), by_request.query_inspect_id()), (first.local(), Ok(id)));
        let second = Peer::connect(address);
        let id = events.inspect().id();
        let by_event = events.accept().socket();
        assert_eq!((by_event.remote_address(), by_event.query_inspect_id()), (second.local(), Ok(id)));
        listener.close().ok();
        assert_eq!((events.entered(Kind::Accept), events.entered(Kind::Abort)), (1, 0));
    });
}

/// Shows: INSP-13, INSP-14
#[test]
fn an_accepted_request_is_delivered_or_aborted_and_never_both() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        for drops in [false, true, true, false] {
            sim.choose_once(FaultPoint::DropAfterAccept, u32::from(drops));
            let peer = Peer::connect(address);
            let id = events.inspect().id();
            if drops {
                peer.expect_reset();
                assert_eq!(events.abort().id, Some(id));
            } else {
                assert_eq!(events.accept().socket().query_inspect_id(), Ok(id));
            }
        }
        listener.close().ok();
        assert_eq!((events.entered(Kind::Accept), events.entered(Kind::Abort)), (2, 2));
    });
}

/// Shows: INSP-16, INSP-28
#[test]
fn a_rejected_request_is_over() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        // Zero, as a forgotten answer would be, is the same.
        for action in [WskInspectReject, WSK_INSPECT_ACTION(0)] {
            events.inspecting(action);
            Peer::connect(address).expect_reset();
            events.inspect();
        }
        assert_eq!(listener.accept().returned(), STATUS_PENDING);
        listener.close().ok();
        assert_eq!((events.entered(Kind::Accept), events.entered(Kind::Abort)), (0, 0));
    });
}

/// Shows: INSP-17
#[test]
fn a_pended_request_is_not_delivered_before_it_is_decided() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let (listener, address) = client.conditional_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let accept = listener.accept().pends();
        let pended = Peer::connect(address);
        pended.send(b"impatient");
        let id = events.inspect().id();
        // A later request overtakes it.
        events.inspecting(WskInspectAccept);
        let accepted = Peer::connect(address);
        assert_eq!(accept.socket().remote_address(), accepted.local());
        assert_eq!((events.entered(Kind::Accept), events.entered(Kind::Abort)), (0, 0));
        assert_eq!(sim.provider().untaken(listener.raw()), Some(0));
        listener.inspect_complete(id, WskInspectAccept).ok();
        let event = events.accept();
        assert_eq!(event.remote, Some(pended.local()));
        assert_eq!(event.socket().receive_all(9), b"impatient");
    });
}

/// Shows: INSP-20
#[test]
fn a_decision_finds_its_request_by_the_contents_of_the_identifier() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let (listener, address) = client.conditional_listener(&events);
        let accept = listener.accept().pends();
        let peer = Peer::connect(address);
        let event = events.inspect();
        let copy =
            PoolBox::new(WSK_INSPECT_ID { Key: event.id().Key, SerialNumber: event.id().SerialNumber });
        assert_ne!(copy.as_ptr(), event.pointers.id);
        // SAFETY: the copy outlives the request.
        let request =
            unsafe { Request::new().inspect_complete_at(&listener, copy.as_ptr(), WskInspectAccept) };
        request.ok();
        assert_eq!(accept.socket().remote_address(), peer.local());
    });
}

/// Shows: INSP-22
#[test]
fn the_addresses_mean_nothing_after_the_callback() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectReject);
        let (_listener, address) = client.conditional_listener(&events);
        let peer = Peer::connect(address);
        let event = events.inspect();
        assert_eq!((event.local, event.remote), (Some(address), Some(peer.local())));
        for stale in [event.pointers.local, event.pointers.remote] {
            // SAFETY: the provider keeps the memory for a while, for this very purpose.
            assert_eq!(unsafe { read_address(stale) }, None);
        }
    });
}

/// Shows: INSP-25
#[test]
fn requests_may_be_started_inside_the_inspection() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        let started = Arc::new(Mutex::new(None));
        let (put, handle) = (Arc::clone(&started), listener.clone());
        events.on_inspect(move |_| {
            *put.lock().unwrap() = Some(handle.accept());
            WskInspectAccept
        });
        let peer = Peer::connect(address);
        events.inspect();
        let accept = started.lock().unwrap().take().expect("it was started");
        assert_eq!(accept.returned(), STATUS_PENDING);
        assert_eq!(accept.socket().remote_address(), peer.local());
        // The recorder must not keep its own listener.
        events.inspecting(WskInspectReject);
    });
}

/// Shows: INSP-31
/// Catches: INSP-30
#[test]
fn conditional_accept_without_its_callbacks_fails_or_is_caught_later() {
    for_each_choice(
        |behaviours, choice: MissingInspection| behaviours.missing_inspection = choice,
        |sim, choice| {
            sim.expect("INSP-30");
            let client = Client::new();
            let without_inspect = Recorder::with_tables(|tables| tables.listen.WskInspectEvent = None);
            let without_abort = Recorder::with_tables(|tables| tables.listen.WskAbortEvent = None);
            for events in [without_inspect, without_abort] {
                let listener = client.listener(&events);
                let option = listener.set_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1);
                if choice == MissingInspection::Refused {
                    assert_eq!(option.fails(STATUS_INVALID_PARAMETER).returned, STATUS_INVALID_PARAMETER);
                    assert_caught(sim, "INSP-30", "WskControlSocket");
                    continue;
                }
                option.ok();
                let address = listener.bind_localhost();
                Peer::connect(address).expect_reset();
                assert_answer_caught(sim, "INSP-30", "WskInspectEvent");
                assert_eq!((events.entered(Kind::Inspect), events.entered(Kind::Abort)), (0, 0));
            }
            assert_eq!(sim.violations_of("INSP-30").len(), 2);
        },
    );
    assert_eq!(MissingInspection::default(), MissingInspection::Refused);
}

/// Shows: INSP-32
#[test]
fn no_event_bit_switches_inspection() {
    Sim::new().run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let (listener, address) = client.conditional_listener(&events);
        for bit in (0..31).map(|shift| 1_u32 << shift) {
            // Whatever it answers for a bit that is no event: it switches neither callback off.
            let _ = listener.disable(bit);
        }
        let peer = Peer::connect(address);
        let id = events.inspect().id();
        peer.reset();
        assert_eq!(events.abort().id, Some(id));
        let plain = client.listener(&events);
        let address = plain.bind_localhost();
        for bit in (0..31).map(|shift| 1_u32 << shift) {
            let _ = plain.enable(bit);
        }
        let _peer = Peer::connect(address);
        drop(events.accept().socket());
        assert_eq!(events.entered(Kind::Inspect), 1);
    });
}

/// Shows: INSP-33
#[test]
fn a_drop_during_the_inspection_is_remembered() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let inspector = Inspector::of(&events);
        let (listener, address) = client.conditional_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        for (answer, aborts) in [(WskInspectAccept, true), (WskInspectPend, true), (WskInspectReject, false)]
        {
            let before = events.entered(Kind::Abort);
            let peer = Peer::connect(address);
            let asked = inspector.next();
            peer.reset();
            assert_eq!(events.entered(Kind::Abort), before);
            let id = asked.event.id();
            asked.answer(answer);
            assert_eq!(events.inspect().id(), id);
            if aborts {
                assert_eq!(events.abort().id, Some(id));
            }
        }
        listener.close().ok();
        assert_eq!((events.entered(Kind::Abort), events.entered(Kind::Accept)), (2, 0));
    });
}

/// Shows: INSP-34
#[test]
fn a_retransmitted_request_is_inspected_again_or_not() {
    for_each_choice(
        |behaviours, choice: Retransmission| behaviours.retransmission = choice,
        |sim, choice| {
            sim.choose(FaultPoint::Retransmission, 1);
            let client = Client::new();
            let events = Recorder::new();
            events.inspecting(WskInspectPend);
            let (listener, address) = client.conditional_listener(&events);
            let accept = listener.accept().pends();
            let peer = Peer::connect(address);
            let id = events.inspect().id();
            let times = if choice == Retransmission::InspectedAgain {
                let again = events.inspect();
                assert_eq!((again.id(), again.remote), (id, Some(peer.local())));
                2
            } else {
                1
            };
            listener.inspect_complete(id, WskInspectAccept).ok();
            drop(accept.socket());
            listener.close().ok();
            assert_eq!(events.entered(Kind::Inspect), times);
        },
    );
    assert_eq!(Retransmission::default(), Retransmission::Ignored);
}

/// Shows: INSP-35
#[test]
fn the_value_of_an_identifier_may_return() {
    for_each_choice(
        |behaviours, choice: IdReuse| behaviours.id_reuse = choice,
        |_, choice| {
            let client = Client::new();
            let events = Recorder::new();
            let (listener, address) = client.conditional_listener(&events);
            events.inspecting(WskInspectPend);
            let ids = [(); 3].map(|()| {
                let peer = Peer::connect(address);
                let id = events.inspect().id();
                listener.inspect_complete(id, WskInspectReject).ok();
                peer.expect_reset();
                id
            });
            assert!(ids.iter().all(|id| id.Key == ids[0].Key));
            let serials: std::collections::BTreeSet<_> = ids.iter().map(|id| id.SerialNumber).collect();
            assert_eq!(serials.len(), if choice == IdReuse::AtOnce { 1 } else { 3 });
        },
    );
    assert_eq!(IdReuse::default(), IdReuse::Counted);
}

/// Shows: INSP-35
#[test]
fn an_identifier_lives_until_its_request_is_over_and_its_key_may_return() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        let accept = listener.accept().pends();
        let _first = Peer::connect(address);
        let delivered = events.inspect().id();
        assert_eq!(accept.socket().query_inspect_id(), Ok(delivered));
        events.inspecting(WskInspectReject);
        Peer::connect(address).expect_reset();
        let rejected = events.inspect().id();
        assert_eq!(rejected.Key, delivered.Key);
        assert_ne!(rejected, delivered);
        // The third outcome: the abort passes the value once more, and it is free then.
        events.inspecting(WskInspectPend);
        let peer = Peer::connect(address);
        let aborted = events.inspect().id();
        assert_eq!(aborted.Key, rejected.Key);
        // During its lifetime, no other request has its key.
        let _other = Peer::connect(address);
        let other = events.inspect().id();
        assert_ne!(other.Key, aborted.Key);
        peer.reset();
        assert_eq!(events.abort().id, Some(aborted));
        let asking = Peer::connect(address);
        let last = events.inspect().id();
        assert_eq!(last.Key, aborted.Key);
        assert!(![delivered, rejected, aborted].contains(&last));
        // The decision is for the request that has the identifier now.
        listener.inspect_complete(last, WskInspectReject).ok();
        asking.expect_reset();
        listener.inspect_complete(other, WskInspectReject).ok();
    });
}

/// The host has completed the handshake already, so this shows only the part of INSP-36 that a client
/// observes.
#[test]
fn nothing_is_accepted_on_the_listeners_behalf() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let (listener, address) = client.conditional_listener(&events);
        let peers = [Peer::connect(address), Peer::connect(address)];
        let ids = [events.inspect().id(), events.inspect().id()];
        // There is no backlog that an accept could be served from.
        assert_eq!(sim.provider().untaken(listener.raw()), Some(0));
        let accept = listener.accept().pends();
        // A peer that waits too long gives up, and the decision is too late.
        for peer in peers {
            peer.reset();
            events.abort();
        }
        for id in ids {
            assert_ne!(listener.inspect_complete(id, WskInspectAccept).wait().returned, STATUS_CANCELLED);
        }
        listener.close().ok();
        accept.fails(STATUS_CANCELLED);
    });
}

/// Shows: INSP-37
/// Catches: INSP-18
#[test]
fn a_closing_listener_aborts_its_pended_requests_or_drops_them() {
    for_each_choice(
        |behaviours, choice: CloseWithPended| behaviours.close_with_pended = choice,
        |sim, choice| {
            sim.expect("INSP-18");
            let client = Client::new();
            let injections = if choice == CloseWithPended::Either { vec![0, 1] } else { vec![0] };
            for injected in injections {
                sim.choose(FaultPoint::AbortAtClose, injected);
                let events = Recorder::new();
                events.inspecting(WskInspectPend);
                let (listener, address) = client.conditional_listener(&events);
                let peers = [Peer::connect(address), Peer::connect(address)];
                events.inspect();
                events.inspect();
                listener.close().ok();
                let aborts = choice == CloseWithPended::Aborted || injected == 1;
                assert_eq!(events.entered(Kind::Abort), if aborts { 2 } else { 0 });
                for peer in peers {
                    peer.expect_reset();
                }
                assert_eq!(events.entered(Kind::Abort), if aborts { 2 } else { 0 });
                assert_caught(sim, "INSP-18", "WskCloseSocket");
            }
        },
    );
    assert_eq!(CloseWithPended::default(), CloseWithPended::Either);
}

/// Shows: INSP-38
#[test]
fn pended_requests_are_decided_in_any_order() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let (listener, address) = client.conditional_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let mut pended: Vec<_> = (0..5)
            .map(|_| {
                let peer = Peer::connect(address);
                (peer, events.inspect().id())
            })
            .collect();
        for (index, action) in [
            (3, WskInspectAccept),
            (0, WskInspectReject),
            (1, WskInspectAccept),
            (1, WskInspectReject),
            (0, WskInspectAccept),
        ] {
            let (peer, id) = pended.remove(index);
            listener.inspect_complete(id, action).ok();
            if action == WskInspectAccept {
                let socket = events.accept().socket();
                assert_eq!((socket.remote_address(), socket.query_inspect_id()), (peer.local(), Ok(id)));
            } else {
                peer.expect_reset();
            }
        }
    });
}

/// Shows: IOC-09, IOC-10
#[test]
fn an_accepted_socket_knows_its_inspection_and_no_other_socket_does() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (conditional, address) = client.conditional_listener(&events);
        let accept = conditional.accept().pends();
        let _peer = Peer::connect(address);
        let id = events.inspect().id();
        let inspected = accept.socket();
        assert_eq!(inspected.query_inspect_id(), Ok(id));
        let (plain, address) = client.bound_listener(&events);
        let accept = plain.accept().pends();
        let _peer = Peer::connect(address);
        let uninspected = accept.socket();
        let (_host, address) = host_listener();
        let connected = client.connected(address, &events);
        let datagram = client.datagram(&events);
        let basic = client.open(&SocketOptions::new(Category::Basic)).socket();
        for other in [conditional, plain, uninspected, connected, datagram, basic] {
            assert_eq!(other.query_inspect_id(), Err(STATUS_INVALID_DEVICE_REQUEST), "{other:?}");
        }
    });
}
