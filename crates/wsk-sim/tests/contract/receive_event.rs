//! `WskReceiveEvent`: indicated data and its layout (contract 4.13, 5.10).

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::Alternatives;
use wsk_sim::wsk_provider::behaviours::BytesAccepted;
use wsk_sim::{FaultPoint, Sim};
use wsk_sys::nt;
use wsk_sys::*;

use crate::link::*;
use crate::support::*;

/// Shows: RCVE-01
#[test]
fn a_null_list_tells_that_the_socket_is_dead() {
    for_each_mode(|sim| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        assert!(sim.provider().kill(link.socket.raw()));
        let event = link.events.receive();
        assert!(event.is_sentinel());
        assert_eq!((event.list, event.indicated), (ListHandle(std::ptr::null_mut()), 0));
        link.peer.expect_reset();
        link.socket.close().ok();
        assert_eq!(link.events.entered(Kind::Receive), 1);

        let silent = Link::new();
        assert!(sim.provider().kill(silent.socket.raw()));
        silent.socket.close().ok();
        assert_eq!(silent.events.entered(Kind::Receive), 0);
    });
}

/// Shows: RCVE-03
#[test]
fn the_events_of_a_socket_come_one_after_the_other() {
    for_each_mode(|sim| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        let hold = link.events.hold(Kind::Receive);
        link.peer.send(b"first");
        hold.wait_entered();
        link.peer.send(b"second");
        await_backlog(&link.socket, 6);
        link.enable(WSK_EVENT_RECEIVE);
        assert!(!hold.reaches(2, A_WHILE));
        hold.open();
        assert_eq!(link.events.receive_bytes(11), b"firstsecond");

        // The sentinel waits its turn, too.
        let hold = link.events.hold(Kind::Receive);
        link.peer.send(b"last");
        hold.wait_entered();
        assert!(sim.provider().kill(link.socket.raw()));
        assert!(!hold.reaches(2, A_WHILE));
        hold.open();
        assert!(!link.events.receive().is_sentinel());
        assert!(link.events.receive().is_sentinel());
        link.socket.close().ok();
    });
}

/// Shows: RCVE-03
#[test]
fn sockets_are_served_at_the_same_time() {
    Sim::new().run(|_| {
        let links = [Link::with_events(WSK_EVENT_RECEIVE), Link::with_events(WSK_EVENT_RECEIVE)];
        let holds = links.each_ref().map(|link| link.events.hold(Kind::Receive));
        for (link, hold) in links.iter().zip(&holds) {
            link.peer.send(b"x");
            hold.wait_entered();
        }
        holds.into_iter().for_each(Hold::open);
    });
}

/// Shows: RCVE-04
#[test]
fn success_accepts_all_that_was_indicated() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        link.peer.send(b"untouched");
        let event = link.events.receive();
        assert_eq!((event.bytes(), event.accepted), (b"untouched".to_vec(), None));
        link.events.on_receive(|event| ReceiveAnswer::part(event.indicated));
        link.peer.send(b"written");
        assert_eq!(link.events.receive().bytes(), b"written");
        link.peer.send(b"last").half_close();
        assert_eq!(link.events.receive_bytes(4), b"last");
        // All of it is gone.
        assert_eq!(link.socket.receive_some(8), b"");
    });
}

/// Shows: RCVE-09
#[test]
fn a_list_that_is_kept_is_valid_until_it_is_released() {
    for_each_mode(|sim| {
        for shape in 0..5 {
            sim.choose(FaultPoint::IndicationShape, shape);
            let link = Link::with_events(WSK_EVENT_RECEIVE);
            // The number of accepted bytes is ignored.
            link.events.on_receive(|_| ReceiveAnswer { accepted: Some(1), ..ReceiveAnswer::retain() });
            let mut kept = Vec::new();
            for word in [&b"kept"[..], b"beyond", b"the", b"callback"] {
                link.peer.send(word);
                let event = link.events.receive();
                assert_eq!(event.bytes(), word);
                kept.push((event.list, word));
            }
            link.events.on_receive(|_| ReceiveAnswer::all());
            link.peer.send(b"more");
            assert_eq!(link.events.receive_bytes(4), b"more");
            // In any order.
            kept.rotate_left(1);
            for (list, word) in kept {
                // SAFETY: the list is kept and not released.
                assert_eq!(unsafe { list.elements() }.concat(), word);
                assert_eq!(link.socket.release(list), STATUS_SUCCESS);
            }
        }
    });
}

/// Layout of the first element of a list in memory: the offset, and the lengths of the MDLs.
fn layout(list: ListHandle) -> (u32, Vec<u32>) {
    let head = list.0.cast::<WSK_DATA_INDICATION>();
    // SAFETY: the list is being indicated.
    let buffer = unsafe { (*head).Buffer };
    let (mut mdl, mut lengths) = (buffer.Mdl, Vec::new());
    while !mdl.is_null() {
        // SAFETY: the list is being indicated.
        lengths.push(unsafe { nt::mdl_byte_count(mdl) });
        // SAFETY: the list is being indicated.
        mdl = unsafe { nt::mdl_next(mdl) };
    }
    (buffer.Offset, lengths)
}

/// Shows: RCVE-11, RCVE-12, RCVE-13
#[test]
fn a_list_may_be_laid_out_in_any_way() {
    for_each_mode(|sim| {
        let (mut several, mut chained, mut empty, mut offset) = (false, false, false, false);
        for shape in 0..5 {
            sim.choose(FaultPoint::IndicationShape, shape);
            let link = Link::with_events(WSK_EVENT_RECEIVE);
            let (layouts, seen) = std::sync::mpsc::channel();
            let layouts = std::sync::Mutex::new(layouts);
            link.events.on_receive(move |event| {
                let _ = layouts.lock().unwrap().send(layout(event.list));
                ReceiveAnswer::all()
            });
            for length in [1, 2, 10, 60_000] {
                let bytes = pattern(length);
                link.peer.send(&bytes);
                let mut received = Vec::new();
                while received.len() < length {
                    let event = link.events.receive();
                    let elements = event.elements.as_ref().expect("no sentinel");
                    assert_eq!(elements.iter().map(Vec::len).sum::<usize>(), event.indicated);
                    several |= elements.len() > 1;
                    empty |= elements.iter().any(Vec::is_empty);
                    received.extend(event.bytes());
                }
                assert_eq!(received, bytes);
            }
            for (first, lengths) in seen.try_iter() {
                chained |= lengths.len() > 1;
                offset |= first > 0;
                // The offset lies in the first MDL, and counts there only.
                assert!(first == 0 || first < lengths[0]);
            }
        }
        assert!(several && chained && empty && offset);
    });
}

/// Shows: RCVE-14
#[test]
fn a_quick_release_is_asked_for_by_a_flag() {
    for_each_mode(|sim| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        for asked in [0, 1, 0] {
            sim.choose(FaultPoint::ReleaseAsap, asked);
            link.peer.send(b"x");
            let flags = link.events.receive().flags;
            assert_eq!(flags & WSK_FLAG_RELEASE_ASAP != 0, asked == 1);
        }
    });
}

/// Shows: RCVE-15
#[test]
fn the_end_of_a_message_is_told_by_a_flag() {
    const LONG: usize = 100_000;
    for_each_mode(|_| {
        let link = Link::new();
        link.peer.send(&pattern(LONG));
        await_backlog(&link.socket, LONG);
        link.enable(WSK_EVENT_RECEIVE);
        let first = link.events.receive();
        assert!(first.indicated < LONG);
        assert_eq!(first.flags & WSK_FLAG_ENTIRE_MESSAGE, 0);
        let last = link.events.receive();
        assert_eq!(first.indicated + last.indicated, LONG);
        assert_ne!(last.flags & WSK_FLAG_ENTIRE_MESSAGE, 0);
        link.peer.send(b"short");
        assert_ne!(link.events.receive().flags & WSK_FLAG_ENTIRE_MESSAGE, 0);
    });
}

/// Shows: RCVE-16
#[test]
fn the_accepted_bytes_are_preset_to_all_or_none() {
    for_each_choice(
        |behaviours, choice: BytesAccepted| behaviours.bytes_accepted = choice,
        |_, choice| {
            let link = Link::with_events(WSK_EVENT_RECEIVE);
            link.events.on_receive(|event| ReceiveAnswer::part(event.indicated));
            link.peer.send(b"some bytes");
            let event = link.events.receive();
            let expected = if choice == BytesAccepted::Zero { 0 } else { event.indicated };
            assert_eq!(event.preset, Some(expected));
        },
    );
    assert_eq!(BytesAccepted::ALL[0], BytesAccepted::Indicated);
}

/// Shows: RCVE-18
#[test]
fn a_release_is_answered_with_success_or_invalid_parameter() {
    let sim = Sim::new();
    sim.expect("RCVE-20").run(|_| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        link.events.on_receive(|_| ReceiveAnswer::retain());
        link.peer.send(b"kept");
        let list = link.events.receive().list;
        assert_eq!(link.socket.release(list), STATUS_SUCCESS);
        assert_eq!(link.socket.release(list), STATUS_INVALID_PARAMETER);
    });
}

/// A list may be released inside its own callback, if that then returns that it retains the list.
///
/// Shows: RCVE-09, RCVE-18
#[test]
fn a_list_may_be_released_before_the_callback_returns() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        let socket = link.socket.clone();
        link.events.on_receive(move |event| {
            assert_eq!(socket.release(event.list), STATUS_SUCCESS);
            ReceiveAnswer::retain()
        });
        for word in [b"once", b"more"] {
            link.peer.send(word);
            assert_eq!(link.events.receive().bytes(), word);
        }
        link.forget_answers();
    });
}

/// Shows: RCVE-21
#[test]
fn data_that_comes_while_the_event_is_off_is_kept() {
    for_each_mode(|_| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        assert_eq!(link.socket.disable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        link.peer.send(b"for a receive, ");
        await_backlog(&link.socket, 15);
        assert_eq!(link.socket.receive_all(15), b"for a receive, ");
        link.peer.send(b"for the event");
        await_backlog(&link.socket, 13);
        assert_eq!(link.events.entered(Kind::Receive), 0);
        link.enable(WSK_EVENT_RECEIVE);
        assert_eq!(link.events.receive_bytes(13), b"for the event");
    });
}
