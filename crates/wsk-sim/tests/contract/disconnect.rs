//! `WskDisconnect`, graceful and abortive (contract 4.15).

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::{GracefulEnd, SecondDisconnect};
use wsk_sys::*;

use crate::link::*;
use crate::support::*;

/// Shows: DISC-19
#[test]
fn a_graceful_disconnect_lets_everything_out_first() {
    for_each_mode_of(narrow, |_| {
        let link = Link::new();
        let sends = [stuck_send(&link.socket), link.socket.send(b"behind it").pends()];
        let last = Buffer::of(b"and the last");
        let disconnect = Request::new().disconnect(&link.socket, Some(&last), 0).pends();
        let expected = [&pattern(MUCH)[..], b"behind it", b"and the last"].concat();
        assert_eq!(link.peer.end(), End::Graceful(expected));
        assert_eq!(sends.map(|send| send.ok().information), [MUCH, 9]);
        assert_eq!(disconnect.ok().information, 0);
    });
}

/// Shows: DISC-19
#[test]
fn the_last_buffer_goes_out_before_the_end() {
    for_each_mode(|_| {
        let link = Link::new();
        let last = Buffer::chain(&[4, 4]);
        last.write(b"abcdefgh");
        let disconnect = Request::new().disconnect(&link.socket, Some(&last.slice(1, 6)), 0);
        assert_eq!(link.peer.end(), End::Graceful(b"bcdefg".to_vec()));
        disconnect.ok();
    });
}

/// Shows: DISC-20
#[test]
fn receiving_goes_on_until_the_peer_closes() {
    for_each_mode(|_| {
        let link = Link::new();
        let before = link.socket.receive(&Buffer::new(8)).pends();
        link.socket.disconnect().ok();
        link.peer.expect_end();
        for round in 0..3_u8 {
            link.peer.send(&[round]);
            if round == 0 {
                assert_eq!(before.ok().information, 1);
            } else {
                assert_eq!(link.socket.receive_some(8), [round]);
            }
        }
        link.peer.half_close();
        assert_eq!(link.socket.receive_some(8), b"");
    });
}

/// Shows: DISC-21
#[test]
fn a_graceful_disconnect_waits_for_a_peer_that_is_stuck() {
    for_each_mode_of(narrow, |_| {
        let link = Link::new();
        let send = stuck_send(&link.socket);
        let disconnect = link.socket.disconnect().pends();
        assert!(disconnect.wait_up_to(A_WHILE).is_none());
        assert!(!send.is_completed());
        assert_eq!(link.peer.end(), End::Graceful(pattern(MUCH)));
        send.ok();
        assert_eq!(disconnect.ok().information, 0);
    });
}

/// Shows: DISC-21
#[test]
fn a_graceful_disconnect_waits_for_what_the_peer_has_yet_to_take() {
    // More than the peer's host takes in before the peer reads, and less than the own host does.
    const SENT: usize = 300_000;
    for_each_mode_of(narrow, |_| {
        let link = Link::new();
        link.socket.send(&pattern(SENT)).ok();
        let disconnect = link.socket.disconnect().pends();
        assert!(disconnect.wait_up_to(A_WHILE).is_none());
        assert_eq!(link.peer.end(), End::Graceful(pattern(SENT)));
        disconnect.ok();
    });
}

/// A peer that has read everything and goes on sending does not keep the disconnect pending, unless that is
/// selected.
///
/// Shows: DISC-21
#[test]
fn a_graceful_disconnect_is_over_with_the_acknowledgement_or_with_the_peers_end() {
    for_each_choice(
        |behaviours, choice: GracefulEnd| behaviours.graceful_end = choice,
        |_, choice| {
            let link = Link::new();
            link.socket.send(b"last words").ok();
            let disconnect = link.socket.disconnect();
            assert_eq!(link.peer.end(), End::Graceful(b"last words".to_vec()));
            if choice == GracefulEnd::Acknowledged {
                disconnect.ok();
                link.peer.send(b"and mine");
                assert_eq!(link.socket.receive_all(8), b"and mine");
                link.peer.half_close();
            } else {
                link.peer.send(b"and mine");
                assert_eq!(link.socket.receive_all(8), b"and mine");
                assert!(disconnect.wait_up_to(A_WHILE).is_none());
                link.peer.half_close();
                disconnect.ok();
            }
            assert_eq!(link.socket.receive_some(1), b"");
        },
    );
    assert_eq!(GracefulEnd::default(), GracefulEnd::Acknowledged);
}

/// Shows: DISC-22
#[test]
fn an_abort_or_a_close_ends_a_disconnect_that_waits() {
    for_each_mode_of(narrow, |_| {
        let stuck = || {
            let link = Link::new();
            let requests = (stuck_send(&link.socket), link.socket.disconnect().pends());
            (link, requests)
        };
        let (link, (send, disconnect)) = stuck();
        link.socket.abort().ok();
        assert_ne!(disconnect.wait().status, STATUS_SUCCESS);
        send.fails(STATUS_CANCELLED);
        link.peer.expect_reset();

        let (link, (send, disconnect)) = stuck();
        link.socket.close().ok();
        disconnect.fails(STATUS_CANCELLED);
        send.fails(STATUS_CANCELLED);
        link.peer.expect_reset();
    });
}

/// Shows: DISC-25
#[test]
fn an_abort_cancels_sends_and_waits_for_nothing() {
    for_each_mode_of(narrow, |_| {
        let link = Link::new();
        let sends = [stuck_send(&link.socket), link.socket.send(b"behind").pends()];
        assert_eq!(link.socket.abort().ok().information, 0);
        assert_eq!(sends.map(|send| send.fails(STATUS_CANCELLED).information), [0, 0]);
        link.peer.expect_reset();
    });
}

/// Shows: DISC-26
#[test]
fn after_an_abort_nothing_is_received() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        let receives = [(); 2].map(|()| link.socket.receive(&Buffer::new(4)).pends());
        link.socket.abort().ok();
        for receive in receives {
            let done = receive.wait();
            assert!(!nt_success(done.status) && done.information == 0, "{done:?}");
        }
        link.peer.expect_reset();
        assert!(!nt_success(link.socket.receive(&Buffer::new(4)).wait().status));
    });
    for_each_mode(|_| {
        let link = Link::new();
        link.peer.send(b"unread");
        await_backlog(&link.socket, 6);
        link.socket.abort().ok();
        let done = link.socket.receive(&Buffer::new(4)).wait();
        assert!(!nt_success(done.status) && done.information == 0, "{done:?}");
        link.enable(WSK_EVENT_RECEIVE);
        assert_quiet(&link.events, Kind::Receive);
    });
}

/// Shows: DISC-27
#[test]
fn an_abort_reaches_the_peer_as_a_reset() {
    for_each_mode(|_| {
        let link = Link::new();
        link.socket.abort().ok();
        link.peer.expect_reset();

        let far = Recorder::new();
        let (socket, other) = both_ends(&link.client, &Recorder::new(), &far);
        assert_eq!(other.enable(WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        socket.abort().ok();
        assert!(far.disconnect().abortive());
    });
}

/// Shows: DISC-28
#[test]
fn a_second_graceful_disconnect_is_refused_or_succeeds() {
    for_each_choice(
        |behaviours, choice: SecondDisconnect| behaviours.second_disconnect = choice,
        |_, choice| {
            let link = Link::new();
            link.socket.disconnect().ok();
            let done = link.socket.disconnect().wait();
            assert_eq!((done.status, done.information), (choice.status(), 0));
            if choice != SecondDisconnect::STATUS_SUCCESS {
                assert_eq!(done.returned, choice.status());
            }
            link.peer.expect_end();
            link.peer.half_close();
            assert_eq!(link.socket.receive_some(1), b"");
            assert_eq!(link.socket.disconnect().wait().status, choice.status());
        },
    );
    assert_eq!(SecondDisconnect::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Shows: DISC-29
#[test]
fn the_socket_is_there_until_it_is_closed() {
    for_each_mode(|sim| {
        let is_open = |link: &Link| {
            let address = link.socket.raw() as usize;
            sim.provider().open_sockets().iter().any(|open| open.address == address)
        };
        for flags in [0, WSK_FLAG_ABORTIVE] {
            let link = Link::new();
            Request::new().disconnect(&link.socket, None, flags).ok();
            assert!(is_open(&link));
            // It is still one to ask.
            assert!(link.socket.local_address().ip().is_loopback());
            link.socket.close().ok();
            eventually("the provider lets go of the socket", || !is_open(&link));
        }
    });
}

/// Shows: DISC-30
#[test]
fn a_disconnect_behind_the_peers_end_closes_fully() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        link.peer.half_close();
        link.events.disconnect();
        assert_eq!(link.socket.disconnect().ok().information, 0);
        link.peer.expect_end();
        assert_eq!(link.socket.receive_some(1), b"");
        link.socket.send(b"x").fails(STATUS_INVALID_DEVICE_STATE);
        assert_eq!(link.events.entered(Kind::Disconnect), 1);
    });
}

/// Shows: DISC-25, DISC-26
#[test]
fn an_abort_is_possible_where_a_graceful_disconnect_was() {
    Sim::new().run(|_| {
        let link = Link::new();
        link.socket.disconnect().ok();
        link.peer.expect_end();
        let receive = link.socket.receive(&Buffer::new(1)).pends();
        link.socket.abort().ok();
        assert!(!nt_success(receive.wait().status));
        // Which of the two is what a host makes of a reset behind an end.
        let end = link.peer.end();
        assert!(end == End::Reset || end == End::Graceful(Vec::new()), "{end:?}");
    });
}
