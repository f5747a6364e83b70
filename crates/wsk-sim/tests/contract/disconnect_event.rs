//! `WskDisconnectEvent`: its calls, its arguments, and the state after it (contract 4.15, 4.19).

use std::sync::{Arc, Mutex};

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::LateDisconnect;
use wsk_sim::{FaultPoint, Level, Sim};
use wsk_sys::nt::{DISPATCH_LEVEL, PASSIVE_LEVEL};
use wsk_sys::*;

use crate::link::*;
use crate::support::*;

/// Shows: DISC-01, DISC-03, DISC-04
#[test]
fn the_peers_disconnect_comes_with_the_context_of_its_socket() {
    for_each_mode(|_| {
        for abortive in [false, true] {
            let client = Client::new();
            let links = from_every_source(&client);
            for link in &links {
                assert_eq!(link.socket.enable(WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
            }
            let contexts: Vec<Recorder> = links.iter().map(|link| link.events.clone()).collect();
            let mut sockets = Vec::new();
            for (index, link) in links.into_iter().enumerate() {
                if abortive {
                    link.peer.reset();
                } else {
                    link.peer.half_close();
                    sockets.push(link.peer);
                }
                assert_eq!(link.events.disconnect().abortive(), abortive, "{}", link.source);
                for (other, events) in contexts.iter().enumerate() {
                    assert_eq!(
                        events.entered(Kind::Disconnect),
                        u64::from(other <= index),
                        "{}",
                        link.source
                    );
                }
            }
        }
    });
}

/// Shows: DISC-02
#[test]
fn an_event_that_was_never_enabled_does_not_come() {
    for_each_mode(|_| {
        let client = Client::new();
        for link in from_every_source(&client) {
            link.peer.half_close();
            assert_eq!(link.socket.receive_some(1), b"");
            assert_quiet(&link.events, Kind::Disconnect);
        }
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        assert_eq!(link.socket.disable(WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        link.peer.reset();
        assert_quiet(&link.events, Kind::Disconnect);
    });
}

/// A disconnect that came while the event was disabled is missed, or indicated once it is enabled; the rule
/// allows both.
///
/// Shows: DISC-02
#[test]
fn a_disconnect_that_came_before_its_event_was_on_is_missed_or_told_then() {
    for_each_choice(
        |behaviours, choice: LateDisconnect| behaviours.late_disconnect = choice,
        |_, choice| {
            for abortive in [false, true] {
                let link = Link::new();
                // Read up to the end, so that the connection has seen it.
                let read = link.socket.receive(&Buffer::new(1)).pends();
                let Link { socket, peer, events, client: _client } = link;
                let mut kept = None;
                if abortive {
                    peer.reset();
                    assert_ne!(read.wait().status, STATUS_SUCCESS);
                } else {
                    peer.half_close();
                    assert_eq!(read.ok().information, 0);
                    kept = Some(peer);
                }
                assert_quiet(&events, Kind::Disconnect);
                assert_eq!(socket.enable(WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
                match choice {
                    LateDisconnect::Missed => assert_quiet(&events, Kind::Disconnect),
                    LateDisconnect::ToldWhenEnabled => assert_eq!(events.disconnect().abortive(), abortive),
                }
                socket.close().ok();
                assert_eq!(
                    events.entered(Kind::Disconnect),
                    u64::from(choice == LateDisconnect::ToldWhenEnabled)
                );
                drop(kept);
            }
        },
    );
    assert_eq!(LateDisconnect::default(), LateDisconnect::Missed);
}

/// Shows: DISC-02
#[test]
fn the_event_comes_when_it_was_inherited_or_is_static() {
    for_each_mode(|_| {
        let client = Client::new();
        let (events, own) = (Recorder::new(), Recorder::new());
        let given = own.clone();
        events.on_accept(move |_| AcceptAnswer::take_with(&given));
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT | WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        let peer = Peer::connect(address);
        let _inheriting = events.accept().socket();
        peer.half_close();
        assert!(!own.disconnect().abortive());

        let client = Client::new();
        assert_eq!(client.static_events(WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        let events = Recorder::new();
        let (_socket, peer) = connect(&client, &events);
        peer.half_close();
        assert!(!events.disconnect().abortive());
    });
}

/// Ends a connection with its event enabled, and returns the flags and the IRQL of the callback.
fn flags_after(abortive: bool) -> (u32, u8) {
    let link = Link::with_events(WSK_EVENT_DISCONNECT);
    if abortive {
        link.peer.reset();
    } else {
        link.peer.half_close();
    }
    let event = link.events.disconnect();
    (event.flags, event.at.irql)
}

/// Shows: DISC-04, DISC-05, DISC-07
#[test]
fn each_flag_is_set_on_its_own() {
    for (level, at) in [(Level::Passive, 0), (Level::Dispatch, WSK_FLAG_AT_DISPATCH_LEVEL)] {
        Sim::builder().callbacks(level).build().run(move |_| {
            assert_eq!(flags_after(false).0, at);
            assert_eq!(flags_after(true).0, at | WSK_FLAG_ABORTIVE);
        });
    }
}

/// Shows: DISC-05
#[test]
fn the_flag_of_the_level_is_true_and_its_absence_tells_nothing() {
    Sim::builder().callbacks(Level::Random(5)).build().run(|_| {
        let (mut flagged, mut unflagged, mut passive) = (0, 0, 0);
        for _ in 0..48 {
            match flags_after(false) {
                (0, PASSIVE_LEVEL) => passive += 1,
                (0, DISPATCH_LEVEL) => unflagged += 1,
                (WSK_FLAG_AT_DISPATCH_LEVEL, DISPATCH_LEVEL) => flagged += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(flagged > 0 && unflagged > 0 && passive > 0, "{flagged}, {unflagged}, {passive}");
    });
}

/// Shows: DISC-09, DISC-10
#[test]
fn after_a_graceful_disconnect_nothing_comes_and_everything_goes() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT | WSK_EVENT_RECEIVE);
        link.peer.half_close();
        assert!(!link.events.disconnect().abortive());
        for _ in 0..3 {
            assert_eq!(link.socket.receive_some(8), b"");
            link.socket.send(b"onwards").ok();
            assert_eq!(link.peer.receive(7), b"onwards");
        }
        assert_eq!(link.events.entered(Kind::Receive), 0);
    });
}

/// Shows: DISC-11
#[test]
fn sending_ends_when_the_peer_has_closed_fully() {
    for_each_mode_of(narrow, |_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        link.peer.half_close();
        assert!(!link.events.disconnect().abortive());
        let waiting = stuck_send(&link.socket);
        // It has read nothing, so its close is a reset.
        drop(link.peer);
        assert_eq!(waiting.fails(STATUS_CONNECTION_RESET).information, 0);
        assert!(link.events.disconnect().abortive());
    });
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        link.peer.half_close();
        assert!(!link.events.disconnect().abortive());
        drop(link.peer);
        eventually("sending ends", || link.socket.send(b"in vain").wait().status != STATUS_SUCCESS);
        assert!(link.events.disconnect().abortive());
    });
}

/// Shows: DISC-12
#[test]
fn sending_ends_when_the_client_disconnects_or_closes_itself() {
    for_each_mode_of(narrow, |_| {
        let after_fin = || {
            let link = Link::with_events(WSK_EVENT_DISCONNECT);
            link.peer.half_close();
            link.events.disconnect();
            link
        };
        let link = after_fin();
        link.socket.disconnect().ok();
        link.socket.send(b"too late").fails(STATUS_INVALID_DEVICE_STATE);
        link.peer.expect_end();

        let link = after_fin();
        let waiting = stuck_send(&link.socket);
        link.socket.abort().ok();
        waiting.fails(STATUS_CANCELLED);

        let link = after_fin();
        let waiting = stuck_send(&link.socket);
        link.socket.close().ok();
        waiting.fails(STATUS_CANCELLED);
    });
}

/// Shows: DISC-13
#[test]
fn after_an_abortive_disconnect_nothing_comes_and_nothing_goes() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        // Unread data goes as well.
        link.peer.send(b"unread");
        await_backlog(&link.socket, 6);
        link.peer.reset();
        assert!(link.events.disconnect().abortive());
        for _ in 0..3 {
            for request in [link.socket.receive(&Buffer::new(8)), link.socket.send(b"x")] {
                let done = request.wait();
                assert!(
                    [STATUS_CONNECTION_RESET, STATUS_FILE_FORCED_CLOSED].contains(&done.status),
                    "{done:?}"
                );
                assert_eq!(done.information, 0);
            }
        }
        assert_eq!(link.socket.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        assert_quiet(&link.events, Kind::Receive);
    });
}

/// Shows: DISC-15
#[test]
fn requests_may_be_started_inside_the_event() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        let started: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (starting, socket) = (Arc::clone(&started), link.socket.clone());
        link.events.on_disconnect(move |_| {
            let mut starting = starting.lock().unwrap();
            starting.push(socket.send(b"last"));
            starting.push(socket.receive(&Buffer::new(1)));
            starting.push(socket.disconnect());
            STATUS_SUCCESS
        });
        link.peer.half_close();
        link.events.disconnect();
        let started = std::mem::take(&mut *started.lock().unwrap());
        let informations: Vec<usize> = started.iter().map(|request| request.ok().information).collect();
        assert_eq!(informations, [4, 0, 0]);
        assert_eq!(link.peer.end(), End::Graceful(b"last".to_vec()));
        link.forget_answers();
    });
}

/// Shows: DISC-15
#[test]
fn a_close_may_be_started_inside_the_event_and_completes_after_it() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        let (socket, started) = (link.socket.clone(), Arc::new(Mutex::new(None)));
        let starting = Arc::clone(&started);
        link.events.on_disconnect(move |_| {
            let close = socket.close();
            let inside = (close.returned(), close.is_completed());
            *starting.lock().unwrap() = Some((close, inside));
            STATUS_SUCCESS
        });
        link.peer.reset();
        link.events.disconnect();
        let (close, inside) = started.lock().unwrap().take().unwrap();
        assert_eq!(inside, (STATUS_PENDING, false));
        close.ok();
        link.events.on_disconnect(|_| STATUS_SUCCESS);
    });
}

/// Shows: DISC-16, DISC-31
#[test]
fn a_local_disconnect_raises_no_event_until_the_peer_disconnects_too() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        let disconnect = link.socket.disconnect();
        link.peer.expect_end();
        link.peer.send(b"still");
        assert_eq!(link.socket.receive_all(5), b"still");
        assert_eq!(link.events.entered(Kind::Disconnect), 0);
        link.peer.half_close();
        let event = link.events.disconnect();
        assert!(!event.abortive());
        assert_eq!(disconnect.ok().information, 0);
        assert_eq!(link.events.entered(Kind::Disconnect), 1);
    });
}

/// Shows: DISC-31
#[test]
fn the_peers_end_behind_a_disconnect_that_waits_is_graceful() {
    for_each_mode_of(narrow, |_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        let send = stuck_send(&link.socket);
        let disconnect = link.socket.disconnect().pends();
        link.peer.half_close();
        assert!(!link.events.disconnect().abortive());
        assert_eq!(link.peer.end(), End::Graceful(pattern(MUCH)));
        send.ok();
        assert_eq!(disconnect.ok().information, 0);
    });
}

/// Shows: DISC-16
#[test]
fn a_local_abort_or_close_raises_no_event() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        link.socket.abort().ok();
        link.peer.expect_reset();
        assert_quiet(&link.events, Kind::Disconnect);
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        link.socket.close().ok();
        link.peer.expect_reset();
        assert_eq!(link.events.entered(Kind::Disconnect), 0);
    });
}

/// Shows: DISC-17
#[test]
fn the_death_of_the_socket_is_not_told_by_this_event() {
    for_each_mode(|sim| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT | WSK_EVENT_RECEIVE | WSK_EVENT_SEND_BACKLOG);
        assert!(sim.provider().kill(link.socket.raw()));
        assert!(link.events.receive().is_sentinel());
        link.peer.expect_reset();
        link.socket.close().ok();
        assert_eq!(link.events.entered(Kind::Disconnect), 0);
    });
}

/// Shows: DISC-18
#[test]
fn data_before_the_end_is_delivered_before_the_event() {
    for_each_mode(|sim| {
        sim.choose_by(FaultPoint::IndicationShape, |alternatives| alternatives - 1);
        let link = Link::with_events(WSK_EVENT_DISCONNECT | WSK_EVENT_RECEIVE);
        let hold = link.events.hold(Kind::Receive);
        link.peer.send(b"first");
        hold.wait_entered();
        link.peer.send(b"second").half_close();
        // The end is here, behind data that is being indicated: its event waits.
        assert!(link.events.next_of(Kind::Disconnect, A_WHILE).is_none());
        hold.open();
        let mut bytes = Vec::new();
        loop {
            match link.events.next() {
                Event::Receive(event) => bytes.extend(event.bytes()),
                Event::Disconnect(event) => break assert!(!event.abortive()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(bytes, b"firstsecond");
    });
}

/// Shows: DISC-18
#[test]
fn the_event_waits_for_data_that_has_to_be_read() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        link.peer.send(b"data").half_close();
        await_backlog(&link.socket, 4);
        assert!(link.events.next_of(Kind::Disconnect, A_WHILE).is_none());
        assert_eq!(link.socket.receive_all(4), b"data");
        assert!(!link.events.disconnect().abortive());
    });
}
