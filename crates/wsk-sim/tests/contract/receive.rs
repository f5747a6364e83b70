//! `WskReceive` and `WskReceiveEx`: received data, completion, and the end of the stream (contract 4.13).

use std::sync::Arc;

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::Alternatives;
use wsk_sim::wsk_provider::behaviours::WaitAllAndDrain;
use wsk_sim::{FaultPoint, Sim};
use wsk_sys::*;

use crate::link::*;
use crate::support::*;

/// Starts a receive of everything that fits.
fn receive_whole(socket: &Socket, buffer: &Buffer) -> Request {
    Request::new().receive(socket, buffer, WSK_FLAG_WAITALL)
}

/// Shows: RCV-01
#[test]
fn a_receive_completes_with_the_first_bytes() {
    for_each_mode(|_| {
        let link = Link::new();
        let buffer = Buffer::new(100);
        let receive = link.socket.receive(&buffer).pends();
        link.peer.send(b"a");
        assert_eq!(receive.ok().information, 1);
        assert_eq!(buffer.read_first(1), b"a");
        link.peer.send(b"bcd");
        await_backlog(&link.socket, 3);
        let there = link.socket.receive(&buffer);
        assert_eq!(there.ok().information, 3);
        assert_eq!(buffer.read_first(3), b"bcd");
    });
}

/// Shows: RCV-01
#[test]
fn a_receive_takes_no_more_than_fits() {
    for_each_mode(|_| {
        let link = Link::new();
        link.peer.send(b"abcdefgh");
        await_backlog(&link.socket, 8);
        for expected in [&b"abc"[..], b"def", b"gh"] {
            assert_eq!(link.socket.receive_some(3), expected);
        }
    });
}

/// Shows: RCV-02
#[test]
fn a_receive_without_data_waits() {
    for_each_mode(|_| {
        let link = Link::new();
        let buffer = Buffer::new(4);
        let receive = link.socket.receive(&buffer).pends();
        // Other events on the socket do not end it.
        link.socket.send(b"meanwhile").ok();
        assert_eq!(link.peer.receive(9), b"meanwhile");
        assert!(receive.wait_up_to(A_WHILE).is_none());
        link.peer.send(b"data");
        let done = receive.ok();
        assert_eq!((done.returned, done.information), (STATUS_PENDING, 4));
        assert_eq!(buffer.read(), b"data");
    });
}

/// Shows: RCV-03
#[test]
fn a_receive_of_all_completes_when_the_buffer_is_full() {
    for_each_mode(|_| {
        let link = Link::new();
        let buffer = Buffer::new(9);
        let receive = receive_whole(&link.socket, &buffer).pends();
        for piece in [b"abc", b"def"] {
            link.peer.send(piece);
            eventually("the piece is taken", || {
                buffer.read().ends_with(&[0; 3]) && buffer.read().contains(&piece[2])
            });
            assert!(!receive.is_completed());
        }
        link.peer.send(b"ghijk");
        assert_eq!(receive.ok().information, 9);
        assert_eq!(buffer.read(), b"abcdefghi");
        assert_eq!(link.socket.receive_all(2), b"jk");
    });
}

/// Shows: RCV-04
#[test]
fn a_receive_of_all_is_short_at_the_end_of_the_stream() {
    for_each_mode(|_| {
        let link = Link::new();
        let buffer = Buffer::new(9);
        let receive = receive_whole(&link.socket, &buffer).pends();
        link.peer.send(b"abc").half_close();
        assert_eq!(receive.ok().information, 3);
        assert_eq!(buffer.read_first(3), b"abc");

        let link = Link::new();
        link.peer.send(b"abc").half_close();
        await_backlog(&link.socket, 3);
        let buffer = Buffer::new(9);
        assert_eq!(receive_whole(&link.socket, &buffer).ok().information, 3);
        assert_eq!(receive_whole(&link.socket, &buffer).ok().information, 0);
    });
}

/// A receive of all that has got its first bytes.
fn half_received() -> (Link, Buffer, Request) {
    let link = Link::new();
    let buffer = Buffer::new(9);
    let receive = receive_whole(&link.socket, &buffer).pends();
    link.peer.send(b"abc");
    eventually("the first bytes are taken", || buffer.read_first(3) == b"abc");
    (link, buffer, receive)
}

/// Shows: RCV-05
#[test]
fn a_receive_of_all_ends_with_the_connection_or_its_cancellation() {
    for_each_mode(|_| {
        let (link, _, receive) = half_received();
        link.peer.reset();
        receive.fails(STATUS_CONNECTION_RESET);

        let (link, _, receive) = half_received();
        link.socket.abort().ok();
        assert!(!nt_success(receive.wait().status));

        let (_link, _, receive) = half_received();
        receive.cancel();
        receive.fails(STATUS_CANCELLED);

        let (link, _, receive) = half_received();
        link.socket.close().ok();
        receive.fails(STATUS_CANCELLED);
    });
}

/// Shows: RCV-06
#[test]
fn a_cancelled_receive_of_all_tells_its_bytes_or_leaves_them() {
    for_each_mode(|sim| {
        for reports in [0, 1] {
            sim.choose(FaultPoint::CancelledWaitAll, reports);
            let (link, buffer, receive) = half_received();
            receive.cancel();
            let done = receive.fails(STATUS_CANCELLED);
            assert_eq!(done.information, 3 * reports as usize);
            link.peer.send(b"def");
            let rest = if reports == 1 { &b"def"[..] } else { b"abcdef" };
            assert_eq!(link.socket.receive_all(rest.len()), rest);
            assert_eq!(buffer.read_first(3), b"abc");
        }
    });
}

/// Shows: RCV-07
#[test]
fn a_drain_throws_away_what_comes_until_the_end() {
    for_each_mode(|_| {
        let link = Link::new();
        link.peer.send(b"already here");
        await_backlog(&link.socket, 12);
        let drain = Request::new().receive_nothing(&link.socket, WSK_FLAG_DRAIN).pends();
        for _ in 0..4 {
            link.peer.send(&pattern(50_000));
        }
        eventually("all is thrown away", || query(&link.socket, SIO_WSK_QUERY_RECEIVE_BACKLOG) == 0);
        assert!(!drain.is_completed());
        link.peer.half_close();
        assert_eq!(drain.ok().information, 0);
        assert_eq!(link.socket.receive_some(8), b"");
    });
}

/// Shows: RCV-07
#[test]
fn a_drain_ends_with_its_cancellation_or_an_abort() {
    for_each_mode(|_| {
        let link = Link::new();
        let drain = Request::new().receive(&link.socket, &Buffer::new(0), WSK_FLAG_DRAIN).pends();
        drain.cancel();
        assert_eq!(drain.fails(STATUS_CANCELLED).information, 0);
        link.peer.send(b"for a client");
        assert_eq!(link.socket.receive_all(12), b"for a client");
        let drain = Request::new().receive_nothing(&link.socket, WSK_FLAG_DRAIN).pends();
        link.peer.reset();
        drain.fails(STATUS_CONNECTION_RESET);
    });
}

/// Shows: RCV-10
/// Catches: RCV-09
#[test]
fn waiting_for_all_and_draining_at_once_is_caught() {
    for &choice in WaitAllAndDrain::ALL {
        let sim = Sim::builder().behaviours(|behaviours| behaviours.wait_all_and_drain = choice).build();
        sim.expect("RCV-09").run(move |sim| {
            let link = Link::new();
            let both = WSK_FLAG_WAITALL | WSK_FLAG_DRAIN;
            let done = Request::new().receive_nothing(&link.socket, both).fails(choice.status());
            assert_eq!((done.returned, done.information), (choice.status(), 0));
            assert_caught(sim, "RCV-09", "WskReceive");
        });
    }
    assert_eq!(WaitAllAndDrain::default().status(), STATUS_INVALID_PARAMETER);
}

/// Shows: RCV-11
#[test]
fn a_receive_of_nothing_waits_for_data_and_leaves_it() {
    for_each_mode(|_| {
        let link = Link::new();
        let without_mdl = Request::new().receive_nothing(&link.socket, 0).pends();
        let with_mdl = link.socket.receive(&Buffer::new(0)).pends();
        assert!(with_mdl.wait_up_to(A_WHILE).is_none());
        link.peer.send(b"data");
        assert_eq!([without_mdl, with_mdl].map(|receive| receive.ok().information), [0, 0]);
        assert_eq!(Request::new().receive_nothing(&link.socket, 0).ok().information, 0);
        assert_eq!(link.socket.receive_all(4), b"data");
    });
}

/// Shows: RCV-12, RCV-13
#[test]
fn the_end_of_the_stream_completes_every_receive() {
    for_each_mode(|_| {
        let link = Link::new();
        let buffers = [(); 4].map(|()| Buffer::new(4));
        let receives: Vec<Request> =
            buffers.iter().map(|buffer| link.socket.receive(buffer).pends()).collect();
        link.peer.send(b"data").half_close();
        let informations: Vec<usize> = receives.iter().map(|receive| receive.ok().information).collect();
        assert_eq!(informations, [4, 0, 0, 0]);
        assert_eq!(buffers[0].read(), b"data");
        for flags in [0, WSK_FLAG_WAITALL] {
            let done = Request::new().receive(&link.socket, &buffers[1], flags).ok();
            assert_eq!(done.information, 0);
        }
        assert_eq!(Request::new().receive_nothing(&link.socket, WSK_FLAG_DRAIN).ok().information, 0);
        assert_eq!(Request::new().receive_nothing(&link.socket, 0).ok().information, 0);
    });
}

/// Shows: RCV-15
#[test]
fn receives_that_wait_fail_when_the_connection_is_reset() {
    for_each_mode(|_| {
        let link = Link::new();
        let receives = [(); 3].map(|()| link.socket.receive(&Buffer::new(4)).pends());
        link.peer.reset();
        assert_eq!(receives.map(|receive| receive.fails(STATUS_CONNECTION_RESET).information), [0; 3]);
    });
}

/// Shows: RCV-16
#[test]
fn receives_are_filled_in_their_order() {
    for_each_mode(|_| {
        let link = Link::new();
        let buffers = [3, 5, 2, 4].map(Buffer::new);
        let receives: Vec<Request> =
            buffers.iter().map(|buffer| receive_whole(&link.socket, buffer).pends()).collect();
        link.peer.send(b"abcd");
        assert_eq!(receives[0].ok().information, 3);
        link.peer.send(b"efghijklmn");
        for receive in &receives[1..] {
            receive.ok();
        }
        assert_eq!(buffers.map(|buffer| buffer.read()), [&b"abc"[..], b"defgh", b"ij", b"klmn"]);
    });
}

/// Shows: RCV-16
#[test]
fn a_cancelled_receive_is_passed_over() {
    for_each_mode(|_| {
        let link = Link::new();
        let buffers = [(); 3].map(|()| Buffer::new(2));
        let receives: Vec<Request> =
            buffers.iter().map(|buffer| link.socket.receive(buffer).pends()).collect();
        receives[1].cancel();
        receives[1].fails(STATUS_CANCELLED);
        link.peer.send(b"abcd");
        assert_eq!([&receives[0], &receives[2]].map(|receive| receive.ok().information), [2, 2]);
        assert_eq!(buffers.map(|buffer| buffer.read()), [&b"ab"[..], &[0, 0], b"cd"]);
    });
}

/// Shows: RCV-17
#[test]
fn another_flag_is_not_supported_and_receives_nothing() {
    for_each_mode(|_| {
        let link = Link::new();
        link.peer.send(b"data");
        await_backlog(&link.socket, 4);
        for flags in [0x1, 0x8, 0x100, 0x8000_0000, WSK_FLAG_WAITALL | 0x10] {
            let done =
                Request::new().receive(&link.socket, &Buffer::new(4), flags).fails(STATUS_NOT_SUPPORTED);
            assert_eq!((done.returned, done.information), (STATUS_NOT_SUPPORTED, 0));
        }
        assert_eq!(link.socket.receive_all(4), b"data");
    });
}

/// Shows: RCV-18
#[test]
fn receives_that_wait_come_before_the_event() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        let buffers = [(); 2].map(|()| Buffer::new(3));
        let receives = buffers.each_ref().map(|buffer| link.socket.receive(buffer).pends());
        for (receive, piece) in receives.iter().zip([b"one", b"two"]) {
            link.peer.send(piece);
            assert_eq!(receive.ok().information, 3);
            assert_eq!(link.events.entered(Kind::Receive), 0);
        }
        assert_eq!(buffers.map(|buffer| buffer.read()), [b"one", b"two"]);
        link.peer.send(b"three");
        assert_eq!(link.events.receive_bytes(5), b"three");
    });
}

/// Shows: RCV-19
#[test]
fn the_event_may_come_although_a_receive_waits_unless_it_is_disabled() {
    for_each_mode(|sim| {
        sim.choose(FaultPoint::EventDespiteIrp, 1);
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        let buffer = Buffer::new(8);
        let receive = link.socket.receive(&buffer).pends();
        link.peer.send(b"raced");
        assert_eq!(link.events.receive().bytes(), b"raced");
        assert!(!receive.is_completed());
        // The receive gets the data that the event does not take.
        link.events.on_receive(|_| ReceiveAnswer::part(2));
        link.peer.send(b"shared");
        assert_eq!(link.events.receive().bytes(), b"shared");
        assert_eq!(receive.ok().information, 4);
        assert_eq!(buffer.read_first(4), b"ared");

        assert_eq!(link.socket.disable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        let entered = link.events.entered(Kind::Receive);
        let receive = link.socket.receive(&buffer).pends();
        link.peer.send(b"alone");
        assert_eq!(receive.ok().information, 5);
        assert_eq!(link.events.entered(Kind::Receive), entered);
    });
}

/// Shows: RCV-20
#[test]
fn bytes_are_written_from_the_offset_on_along_the_chain() {
    for_each_mode(|_| {
        let link = Link::new();
        for posted_first in [true, false] {
            let chain = Buffer::chain(&[6, 0, 5, 9]);
            chain.write(&[b'.'; 20]);
            let range = chain.slice(4, 12);
            let receive = posted_first.then(|| receive_whole(&link.socket, &range).pends());
            link.peer.send(b"0123456789ab");
            let receive = receive.unwrap_or_else(|| {
                await_backlog(&link.socket, 12);
                receive_whole(&link.socket, &range)
            });
            assert_eq!(receive.ok().information, 12);
            assert_eq!(chain.read(), b"....0123456789ab....");
        }
    });
}

/// Shows: RCV-21
#[test]
fn a_fully_closed_connection_is_at_its_end() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        let waiting = link.socket.receive(&Buffer::new(4)).pends();
        link.socket.disconnect().ok();
        link.peer.half_close();
        link.events.disconnect();
        assert_eq!(waiting.ok().information, 0);
        for flags in [0, WSK_FLAG_WAITALL] {
            assert_eq!(Request::new().receive(&link.socket, &Buffer::new(4), flags).ok().information, 0);
        }
    });
}

/// Catches: RCV-08
#[test]
fn draining_into_a_buffer_is_caught() {
    let sim = Sim::new();
    sim.expect("RCV-08").run(|sim| {
        let link = Link::new();
        let drain = Request::new().receive(&link.socket, &Buffer::new(1), WSK_FLAG_DRAIN);
        assert_eq!(drain.fails(STATUS_INVALID_PARAMETER).returned, STATUS_INVALID_PARAMETER);
        assert_caught(sim, "RCV-08", "WskReceive");
    });
}

/// Catches: RCV-14
#[test]
fn reading_on_at_the_end_of_the_stream_is_caught() {
    let sim = Sim::new();
    sim.expect("RCV-14").run(|sim| {
        let link = Link::new();
        link.peer.half_close();
        // A client that takes 0 bytes for an empty read tries again.
        eventually("it is caught", || {
            assert_eq!(link.socket.receive(&Buffer::new(8)).ok().information, 0);
            !sim.violations_of("RCV-14").is_empty()
        });
        assert_caught(sim, "RCV-14", "WskReceive");
        assert_eq!(sim.violations_of("RCV-14").len(), 1);
    });
}

/// Catches: RCV-22
#[test]
fn a_variable_for_the_reserved_flags_is_caught() {
    let sim = Sim::new();
    sim.expect("RCV-22").run(|sim| {
        let link = Link::new();
        link.peer.send(b"data");
        let (length, reserved) = (Arc::new(PoolBox::new(9)), Arc::new(PoolBox::new(7)));
        let buffer = Buffer::new(4);
        let receive =
            Request::new().receive_ex_with(&link.socket, &buffer, 0, Some(&length), Some(&reserved));
        receive.fails(STATUS_INVALID_PARAMETER);
        assert_caught(sim, "RCV-22", "WskReceiveEx");
        assert_eq!((**length, **reserved), (9, 7));
        let receive =
            Request::new().receive_ex_with(&link.socket, &buffer, WSK_FLAG_WAITALL, Some(&length), None);
        assert_eq!(receive.ok().information, 4);
        assert_eq!((**length, buffer.read()), (0, b"data".to_vec()));
    });
}
