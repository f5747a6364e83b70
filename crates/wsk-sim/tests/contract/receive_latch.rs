//! The latch of the receive event: data that `WskReceiveEvent` does not take stops the event until a receive
//! completes (contract 4.13, 5.6).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use wsk_sim::raw::*;
use wsk_sys::*;

use crate::link::*;
use crate::support::*;

/// The answers that leave data behind, and how much of six bytes they take.
fn leaving() -> [(ReceiveAnswer, usize); 4] {
    let declining = |accepted| ReceiveAnswer { accepted, ..ReceiveAnswer::decline() };
    [(ReceiveAnswer::part(2), 2), (ReceiveAnswer::part(0), 0), (declining(None), 0), (declining(Some(4)), 0)]
}

/// A connection whose event has seen `abcdef` and answered it with `answer`; it takes all later data.
fn declined(answer: ReceiveAnswer) -> Link {
    let link = Link::with_events(WSK_EVENT_RECEIVE);
    let first = AtomicBool::new(true);
    link.events.on_receive(
        move |_| {
            if first.swap(false, Ordering::SeqCst) { answer } else { ReceiveAnswer::all() }
        },
    );
    link.peer.send(b"abcdef");
    assert_eq!(link.events.receive().bytes(), b"abcdef");
    link
}

/// Shows: RCVE-05, RCVE-08, RCVE-10
#[test]
fn data_left_behind_stops_the_event() {
    for_each_mode(|_| {
        for (answer, taken) in leaving() {
            let link = declined(answer);
            link.peer.send(b"ghi");
            await_backlog(&link.socket, 9 - taken);
            assert_quiet(&link.events, Kind::Receive);
            // Another enabling does not open the latch.
            link.enable(WSK_EVENT_RECEIVE);
            assert_eq!(link.socket.receive_all(9 - taken), b"abcdefghi"[taken..]);
            assert_eq!(link.events.entered(Kind::Receive), 1);
        }
    });
}

/// Shows: RCVE-06, RCVE-07, RCVE-08, RCVE-10, RCV-11
#[test]
fn a_receive_that_has_completed_starts_the_event_again() {
    for_each_mode(|_| {
        for (answer, taken) in leaving() {
            for read in [0, 3] {
                let link = declined(answer);
                let completed = Arc::new(AtomicBool::new(false));
                let (completing, seen) = (Arc::clone(&completed), Arc::new(AtomicUsize::new(0)));
                let seeing = Arc::clone(&seen);
                link.events.on_receive(move |_| {
                    seeing.fetch_add(usize::from(!completed.load(Ordering::SeqCst)), Ordering::SeqCst);
                    ReceiveAnswer::all()
                });
                let buffer = Buffer::new(read);
                let request = Request::new().hook(move |_, _| completing.store(true, Ordering::SeqCst));
                let done = request.receive(&link.socket, &buffer, 0).ok();
                assert_eq!(done.information, read);
                assert_eq!(buffer.read(), b"abcdef"[taken..taken + read]);
                let rest = 6 - taken - read;
                assert_eq!(link.events.receive_bytes(rest), b"abcdef"[taken + read..]);
                assert_eq!(seen.load(Ordering::SeqCst), 0, "an event came before the receive had completed");
                link.peer.send(b"ghi");
                assert_eq!(link.events.receive_bytes(3), b"ghi");
            }
        }
    });
}

/// Shows: RCVE-06
#[test]
fn a_receive_that_waits_starts_the_event_when_it_completes() {
    for_each_mode(|_| {
        let link = declined(ReceiveAnswer::decline());
        // All that is there, and more.
        let buffer = Buffer::new(8);
        let receive = Request::new().receive(&link.socket, &buffer, WSK_FLAG_WAITALL).pends();
        assert_quiet(&link.events, Kind::Receive);
        link.peer.send(b"ghijkl");
        assert_eq!(receive.ok().information, 8);
        assert_eq!(buffer.read(), b"abcdefgh");
        assert_eq!(link.events.receive_bytes(4), b"ijkl");
    });
}

/// Shows: RCVE-06
#[test]
fn the_event_waits_for_the_end_of_the_completion_routine() {
    for_each_mode(|_| {
        let link = declined(ReceiveAnswer::decline());
        let ((enter, entered), (leave, left)) = (channel(), channel());
        let request = Request::new().hook(move |_, _| {
            enter.send(()).unwrap();
            left.recv_timeout(BOUND).unwrap();
        });
        let receive = request.receive(&link.socket, &Buffer::new(8), WSK_FLAG_WAITALL).pends();
        link.peer.send(b"ghijkl");
        entered.recv_timeout(BOUND).expect("the receive completes");
        link.peer.send(b"mno");
        await_backlog(&link.socket, 7);
        assert_quiet(&link.events, Kind::Receive);
        leave.send(()).unwrap();
        assert_eq!(receive.ok().information, 8);
        assert_eq!(link.events.receive_bytes(7), b"ijklmno");
    });
}

/// Shows: RCVE-07
#[test]
fn bytes_that_a_cancelled_receive_leaves_are_the_first_of_the_event() {
    const LENGTH: usize = 100_000;
    for_each_mode(|_| {
        let link = Link::new();
        let bytes = pattern(LENGTH);
        let receive =
            Request::new().receive(&link.socket, &Buffer::new(2 * LENGTH), WSK_FLAG_WAITALL).pends();
        link.peer.send(&bytes);
        // The number of bytes received so far is unknown; in any case no byte is lost.
        eventually("the host has handed over", || query(&link.socket, SIO_WSK_QUERY_RECEIVE_BACKLOG) == 0);
        receive.cancel();
        assert_eq!(receive.fails(STATUS_CANCELLED).information, 0);
        await_backlog(&link.socket, LENGTH);
        // More is left than one event tells, and a part of that is left once more.
        let first = AtomicBool::new(true);
        link.events.on_receive(move |event| {
            let taken =
                if first.swap(false, Ordering::SeqCst) { event.indicated / 2 } else { event.indicated };
            ReceiveAnswer::part(taken)
        });
        link.enable(WSK_EVENT_RECEIVE);
        let event = link.events.receive();
        assert!(event.indicated < LENGTH);
        let mut received = event.bytes()[..event.accepted.unwrap()].to_vec();
        received.extend(link.socket.receive_some(1000));
        received.extend(link.events.receive_bytes(LENGTH - received.len()));
        assert!(received == bytes);
    });
}

/// Shows: RCVE-07
#[test]
fn what_is_left_behind_again_and_again_arrives_once_and_in_order() {
    const LENGTH: usize = 20_000;
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        link.events.on_receive(|event| ReceiveAnswer::part(event.indicated / 3));
        let bytes = pattern(LENGTH);
        link.peer.send(&bytes);
        let mut received = Vec::new();
        while received.len() < LENGTH {
            if let Some(Event::Receive(event)) = link.events.next_of(Kind::Receive, BOUND) {
                received.extend(&event.bytes()[..event.indicated / 3]);
            }
            if received.len() < LENGTH {
                received.extend(link.socket.receive_some(97));
            }
        }
        assert_eq!(received, bytes);
        link.events.on_receive(|_| ReceiveAnswer::all());
    });
}

/// Shows: RCVE-10
#[test]
fn declined_data_is_buffered_until_the_peer_has_to_wait() {
    for_each_mode(|_| {
        let link = declined(ReceiveAnswer::decline());
        link.peer.stream().set_nonblocking(true).unwrap();
        let chunk = pattern(64 * 1024);
        let mut sent = 6;
        let blocked = loop {
            match std::io::Write::write(&mut link.peer.stream(), &chunk) {
                Ok(bytes) => sent += bytes,
                Err(error) => break error,
            }
        };
        assert_eq!(blocked.kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(link.events.entered(Kind::Receive), 1);
        link.peer.stream().set_nonblocking(false).unwrap();
        // The whole of it is delivered once the client is ready.
        link.socket.receive(&Buffer::new(0)).ok();
        let mut received = 0;
        while received < sent {
            received += link.events.receive().indicated;
        }
        assert_eq!(received, sent);
    });
}
