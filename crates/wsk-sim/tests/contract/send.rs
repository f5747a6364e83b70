//! `WskSend` and `WskSendEx`: sent data, completion, and failures (contract 4.12, 5.6).

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::{AfterReset, EmptySend, SendAfterDisconnect, SendFullyClosed};
use wsk_sim::wsk_provider::{Alternatives, OpenSocket};
use wsk_sim::{Release, Sim};
use wsk_sys::nt::{self, MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED};
use wsk_sys::*;

use crate::link::*;
use crate::support::*;

/// Shows: SND-01
#[test]
fn a_send_is_of_all_the_bytes() {
    for_each_mode(|_| {
        let link = Link::new();
        for length in [1, 1000, 70_000] {
            let bytes = pattern(length);
            assert_eq!(link.socket.send(&bytes).ok().information, length);
            assert_eq!(link.peer.receive(length), bytes);
        }
    });
}

/// Shows: SND-01
#[test]
fn a_send_is_of_the_range_of_its_chain() {
    for_each_mode(|_| {
        let link = Link::new();
        let chain = Buffer::chain(&[6, 0, 5, 9]);
        chain.write(b"0123456789abcdefghij");
        let done = Request::new().send(&link.socket, &chain.slice(4, 12), 0).ok();
        assert_eq!(done.information, 12);
        assert_eq!(link.peer.receive(12), b"456789abcdef");
    });
}

/// Shows: SND-02
#[test]
fn a_send_completes_when_the_transport_has_taken_every_byte() {
    for_each_mode_of(narrow, |_| {
        let link = Link::new();
        let send = stuck_send(&link.socket);
        assert!(send.wait_up_to(A_WHILE).is_none());
        // Some more is taken, and not all of it. The host makes room for a peer that reads much.
        let taken = 32 * 1024;
        assert_eq!(link.peer.receive(taken), pattern(taken));
        assert!(!send.is_completed());
        assert_eq!(link.peer.receive(MUCH - taken), pattern(MUCH)[taken..]);
        assert_eq!(send.ok().information, MUCH);
    });
}

/// Shows: SND-03, SND-04
#[test]
fn several_sends_wait_and_go_out_in_the_order_of_their_calls() {
    for_each_mode_of(narrow, |_| {
        let link = Link::new();
        let mut sends = vec![stuck_send(&link.socket)];
        let mut expected = pattern(MUCH);
        for index in 0..16_u8 {
            let bytes = vec![index; 100 + usize::from(index)];
            sends.push(link.socket.send(&bytes).pends());
            expected.extend(bytes);
        }
        assert_eq!(link.peer.receive(expected.len()), expected);
        assert_eq!(sends.iter().map(|send| send.ok().information).sum::<usize>(), expected.len());
    });
}

/// Shows: SND-05
#[test]
fn a_send_takes_the_flags_of_its_windows_release() {
    for release in [Release::Vista, Release::Redstone2, Release::Redstone3, Release::Redstone4] {
        Sim::builder().provider(|config| config.release = release).build().run(move |_| {
            let link = Link::new();
            for flags in [0, WSK_FLAG_NODELAY] {
                Request::new().send(&link.socket, &Buffer::of(b"x"), flags).ok();
                assert_eq!(link.peer.receive(1), b"x");
            }
            let done = Request::new().send(&link.socket, &Buffer::of(b"y"), WSK_FLAG_OOB).wait();
            let expected = if release >= Release::Redstone3 { STATUS_SUCCESS } else { STATUS_NOT_SUPPORTED };
            assert_eq!(done.status, expected);
        });
    }
}

/// Shows: SND-06
#[test]
fn another_flag_is_not_supported_and_sends_nothing() {
    for_each_mode(|_| {
        let link = Link::new();
        for flags in [0x4, 0x8, 0x100, 0x8000_0000, WSK_FLAG_NODELAY | 0x10] {
            let done =
                Request::new().send(&link.socket, &Buffer::of(b"no"), flags).fails(STATUS_NOT_SUPPORTED);
            assert_eq!((done.returned, done.information), (STATUS_NOT_SUPPORTED, 0));
        }
        link.socket.send(b"yes").ok();
        assert_eq!(link.peer.receive(3), b"yes");
    });
}

/// Shows: SND-07
#[test]
fn a_send_of_nothing_succeeds_or_is_refused() {
    for_each_choice(
        |behaviours, choice: EmptySend| behaviours.empty_send = choice,
        |_, choice| {
            let link = Link::new();
            let done = link.socket.send(b"").wait();
            assert_eq!((done.status, done.information), (choice.status(), 0));
            link.socket.send(b"more").ok();
            assert_eq!(link.peer.receive(4), b"more");
        },
    );
    assert_eq!(EmptySend::default().status(), STATUS_SUCCESS);
}

/// Shows: SND-09
#[test]
fn memory_that_is_locked_is_not_locked_again() {
    for_each_mode(|_| {
        let link = Link::new();
        let pool = Buffer::of(b"of the pool");
        // SAFETY: the MDL lives with the buffer.
        let before = unsafe { nt::mdl_flags(pool.mdl()) };
        Request::new().send(&link.socket, &pool, 0).ok();
        assert_eq!(link.peer.receive(11), b"of the pool");
        // SAFETY: the MDL lives with the buffer.
        let after = unsafe { nt::mdl_flags(pool.mdl()) };
        assert_eq!(after & !MDL_MAPPED_TO_SYSTEM_VA, before & !MDL_MAPPED_TO_SYSTEM_VA);

        let locked = Buffer::of(b"locked");
        // SAFETY: the MDL lives with the buffer; the MDL is not in use.
        unsafe { nt::set_mdl_flags(locked.mdl(), MDL_PAGES_LOCKED) };
        Request::new().send(&link.socket, &locked, 0).ok();
        assert_eq!(link.peer.receive(6), b"locked");
        link.peer.send(b"answer");
        assert_eq!(link.socket.receive(&locked).ok().information, 6);
        assert_eq!(locked.read(), b"answer");
        // SAFETY: the MDL lives with the buffer; the MDL is not in use.
        let after = unsafe { nt::mdl_flags(locked.mdl()) };
        assert_eq!(after & !MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED);
    });
}

/// Shows: SND-10
#[test]
fn forced_closed_is_an_answer_and_a_completion() {
    for_each_mode_of(narrow, |sim| {
        let link = Link::new();
        let send = stuck_send(&link.socket);
        assert!(sim.provider().kill(link.socket.raw()));
        assert_eq!(send.fails(STATUS_FILE_FORCED_CLOSED).returned, STATUS_PENDING);
        let done = link.socket.send(b"late").fails(STATUS_FILE_FORCED_CLOSED);
        assert_eq!((done.returned, done.information), (STATUS_FILE_FORCED_CLOSED, 0));
        link.socket.close().ok();
    });
}

/// Shows: SND-11
#[test]
fn a_send_on_a_broken_connection_says_how_it_broke() {
    for_each_mode_of(narrow, |_| {
        let link = Link::new();
        let sends = [stuck_send(&link.socket), link.socket.send(b"behind").pends()];
        link.peer.reset();
        assert_eq!(sends.map(|send| send.fails(STATUS_CONNECTION_RESET).information), [0, 0]);

        let link = Link::new();
        let sends = [stuck_send(&link.socket), link.socket.send(b"behind").pends()];
        sends[1].cancel();
        assert_eq!(sends[1].fails(STATUS_CANCELLED).information, 0);
        link.socket.close().ok();
        assert_eq!(sends[0].fails(STATUS_CANCELLED).information, 0);
    });
}

/// Shows: SND-12
#[test]
fn a_change_of_the_ideal_backlog_is_told() {
    for_each_mode(|sim| {
        let link = Link::with_events(WSK_EVENT_SEND_BACKLOG);
        for ideal in [100_000, 30_000] {
            assert!(sim.provider().set_ideal_send_backlog(link.socket.raw(), ideal));
            assert_eq!(link.events.send_backlog().size, ideal);
            assert_eq!(query(&link.socket, SIO_WSK_QUERY_IDEAL_SEND_BACKLOG), ideal);
        }
        // Only a change is indicated.
        assert!(sim.provider().set_ideal_send_backlog(link.socket.raw(), 30_000));
        assert_quiet(&link.events, Kind::SendBacklog);
        assert_eq!(link.socket.disable(WSK_EVENT_SEND_BACKLOG), STATUS_SUCCESS);
        assert!(sim.provider().set_ideal_send_backlog(link.socket.raw(), 20_000));
        assert_quiet(&link.events, Kind::SendBacklog);
    });
}

/// Shows: SND-13
#[test]
fn sends_beyond_the_ideal_backlog_succeed() {
    for_each_mode_of(
        |machine| narrow(machine).provider(|config| config.ideal_send_backlog = 1),
        |_| {
            let link = Link::with_events(WSK_EVENT_SEND_BACKLOG);
            link.socket.send(b"twelve bytes").ok();
            assert_eq!(link.peer.receive(12), b"twelve bytes");
            let sends = [stuck_send(&link.socket), stuck_send(&link.socket)];
            // The client has more data in flight than the ideal, so the ideal is raised.
            assert!(link.events.send_backlog().size > 1);
            assert_eq!(link.peer.receive(2 * MUCH), [pattern(MUCH), pattern(MUCH)].concat());
            assert_eq!(sends.map(|send| send.ok().information), [MUCH, MUCH]);
        },
    );
}

/// Shows: SND-14
#[test]
fn the_first_ideal_backlog_is_fixed_and_can_be_chosen() {
    let ideal_of_new = |sim: Sim, expected: Option<usize>| {
        sim.run(move |_| {
            let client = Client::new();
            for link in from_every_source(&client) {
                let ideal = query(&link.socket, SIO_WSK_QUERY_IDEAL_SEND_BACKLOG);
                assert!(ideal > 0);
                assert!(expected.is_none_or(|expected| ideal == expected), "{}: {ideal}", link.source);
            }
        });
    };
    let fixed = wsk_sim::Config::default().ideal_send_backlog;
    ideal_of_new(Sim::new(), Some(fixed));
    for chosen in [1, 12_345, 1 << 30] {
        ideal_of_new(
            Sim::builder().provider(|config| config.ideal_send_backlog = chosen).build(),
            Some(chosen),
        );
    }
}

/// Shows: SND-16
#[test]
fn a_send_after_the_own_disconnect_is_refused() {
    for &choice in SendAfterDisconnect::ALL {
        let sim = Sim::builder().behaviours(|behaviours| behaviours.send_after_disconnect = choice).build();
        sim.expect("SND-15").run(move |_| {
            let link = Link::new();
            link.socket.disconnect().ok();
            let done = link.socket.send(b"too late").fails(choice.status());
            assert_eq!((done.returned, done.information), (choice.status(), 0));
            link.peer.expect_end();
            link.peer.send(b"unharmed");
            assert_eq!(link.socket.receive_all(8), b"unharmed");
        });
    }
    assert_eq!(SendAfterDisconnect::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Shows: SND-17
#[test]
fn a_send_on_a_fully_closed_connection_is_refused() {
    for_each_choice(
        |behaviours, choice: SendFullyClosed| behaviours.send_fully_closed = choice,
        |_, choice| {
            for own_first in [true, false] {
                let link = Link::with_events(WSK_EVENT_DISCONNECT);
                if own_first {
                    link.socket.disconnect().ok();
                }
                link.peer.half_close();
                link.events.disconnect();
                if !own_first {
                    link.socket.disconnect().ok();
                }
                let done = link.socket.send(b"too late").fails(choice.status());
                assert_eq!((done.returned, done.information), (choice.status(), 0));
            }
        },
    );
    assert_eq!(SendFullyClosed::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Shows: SND-18
#[test]
fn after_a_reset_transfers_say_reset_or_forced_closed() {
    assert_eq!(AfterReset::default(), AfterReset::Either);
    for_each_choice(
        |behaviours, choice: AfterReset| behaviours.after_reset = choice,
        |sim, choice| {
            let link = Link::with_events(WSK_EVENT_DISCONNECT);
            link.peer.reset();
            link.events.disconnect();
            for turn in 0..4 {
                sim.choose(wsk_sim::FaultPoint::ResetStatus, turn % 2);
                let expected = match (choice, turn % 2) {
                    (AfterReset::Reset, _) | (AfterReset::Either, 0) => STATUS_CONNECTION_RESET,
                    _ => STATUS_FILE_FORCED_CLOSED,
                };
                let done = link.socket.send(b"x").fails(expected);
                assert_eq!((done.returned, done.information), (expected, 0));
                link.socket.receive(&Buffer::new(1)).fails(expected);
            }
            // It is not a dead socket nevertheless.
            let is_live = |open: &OpenSocket| open.description.contains("Live");
            assert!(sim.provider().open_sockets().iter().all(is_live));
        },
    );
}

/// Shows: SND-19
#[test]
fn send_ex_sends_as_send_does() {
    for_each_mode_of(narrow, |_| {
        let link = Link::new();
        for control in [&b""[..], &[0; 24]] {
            let done = Request::new().send_ex(&link.socket, &Buffer::of(b"extended"), control, 0).ok();
            assert_eq!(done.information, 8);
            assert_eq!(link.peer.receive(8), b"extended");
        }
        Request::new().send_ex(&link.socket, &Buffer::of(b"x"), b"", WSK_FLAG_NODELAY).ok();
        Request::new().send_ex(&link.socket, &Buffer::of(b"x"), b"", 0x40).fails(STATUS_NOT_SUPPORTED);
        let first = Request::new().send_ex(&link.socket, &Buffer::of(&pattern(MUCH)), b"", 0).pends();
        let second = link.socket.send(b"second").pends();
        assert_eq!(link.peer.receive(1 + MUCH + 6), [b"x", &pattern(MUCH)[..], b"second"].concat());
        assert_eq!([first, second].map(|send| send.ok().information), [MUCH, 6]);
    });
}
