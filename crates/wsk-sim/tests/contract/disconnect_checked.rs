//! Breaches of the rules about disconnecting, caught by the checker (contract 4.15, 4.19).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::Alternatives;
use wsk_sim::wsk_provider::behaviours::AbortiveBuffer;
use wsk_sim::{Level, Sim};
use wsk_sys::nt;
use wsk_sys::*;

use crate::link::*;
use crate::support::*;

/// Sleeps for no time, which is for code below `DISPATCH_LEVEL`.
fn sleep() {
    let mut interval = 0_i64;
    // SAFETY: the interval can be read.
    unsafe { nt::KeDelayExecutionThread(0, 0, &raw mut interval) };
}

/// Catches: DISC-06
#[test]
fn taking_a_missing_flag_for_passive_level_is_caught() {
    let sim = Sim::builder().callbacks(Level::Random(5)).build();
    sim.expect("DISC-06").run(|sim| {
        for _ in 0..64 {
            let link = Link::with_events(WSK_EVENT_DISCONNECT);
            let was_told = Arc::new(AtomicBool::new(false));
            let telling = Arc::clone(&was_told);
            link.events.on_disconnect(move |event| {
                telling.store(event.flags & WSK_FLAG_AT_DISPATCH_LEVEL != 0, Ordering::SeqCst);
                if !telling.load(Ordering::SeqCst) {
                    sleep();
                }
                STATUS_SUCCESS
            });
            link.peer.half_close();
            let event = link.events.disconnect();
            let caught = !sim.violations_of("DISC-06").is_empty();
            let mistaken = !was_told.load(Ordering::SeqCst) && event.at.irql != nt::PASSIVE_LEVEL;
            assert_eq!(caught, mistaken);
            if caught {
                assert_caught(sim, "DISC-06", "KeDelayExecutionThread");
                return;
            }
        }
        panic!("no callback came at DISPATCH_LEVEL without telling");
    });
}

/// Catches: DISC-08
#[test]
fn another_answer_than_success_is_caught() {
    for status in [STATUS_UNSUCCESSFUL, STATUS_PENDING, STATUS_REQUEST_NOT_ACCEPTED] {
        let sim = Sim::new();
        sim.expect("DISC-08").run(move |sim| {
            let link = Link::with_events(WSK_EVENT_DISCONNECT);
            link.events.on_disconnect(move |_| status);
            link.peer.half_close();
            link.events.disconnect();
            assert_answer_caught(sim, "DISC-08", "WskDisconnectEvent");
            link.socket.send(b"unharmed").ok();
        });
    }
}

/// Catches: DISC-14
#[test]
fn waiting_inside_the_event_is_caught() {
    let sim = Sim::new();
    sim.expect("DISC-14").run(|sim| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        let socket = link.socket.clone();
        link.events.on_disconnect(move |_| {
            socket.send(b"and wait").ok();
            STATUS_SUCCESS
        });
        link.peer.half_close();
        let event = link.events.disconnect();
        assert_eq!(event.at.irql, nt::PASSIVE_LEVEL);
        assert_caught(sim, "DISC-14", "KeWaitForSingleObject");
        link.forget_answers();
    });
}

/// A buffer of no bytes is none.
///
/// Catches: DISC-23
#[test]
fn an_abort_with_a_buffer_of_no_bytes_is_advised_against() {
    for &choice in AbortiveBuffer::ALL {
        let sim = Sim::builder().behaviours(|behaviours| behaviours.abortive_buffer = choice).build();
        sim.expect_advice("DISC-23").run(move |sim| {
            let link = Link::new();
            let nothing = Buffer::of(b"");
            Request::new().disconnect(&link.socket, Some(&nothing), WSK_FLAG_ABORTIVE).ok();
            assert_advised(sim, "DISC-23", "WskDisconnect");
            link.peer.expect_reset();
        });
    }
}

/// Shows: DISC-24
/// Catches: DISC-23
#[test]
fn an_abort_with_a_buffer_is_caught_and_refused_or_done_without_it() {
    for &choice in AbortiveBuffer::ALL {
        let sim = Sim::builder().behaviours(|behaviours| behaviours.abortive_buffer = choice).build();
        sim.expect("DISC-23").run(move |sim| {
            let link = Link::new();
            let last = Buffer::of(b"last");
            let disconnect = Request::new().disconnect(&link.socket, Some(&last), WSK_FLAG_ABORTIVE);
            assert_caught(sim, "DISC-23", "WskDisconnect");
            match choice {
                AbortiveBuffer::Refused => {
                    assert_eq!(disconnect.fails(STATUS_INVALID_PARAMETER).returned, STATUS_INVALID_PARAMETER);
                    link.socket.send(b"unharmed").ok();
                    assert_eq!(link.peer.receive(8), b"unharmed");
                }
                AbortiveBuffer::Ignored => {
                    disconnect.ok();
                    link.peer.expect_reset();
                }
            }
        });
    }
    assert_eq!(AbortiveBuffer::default(), AbortiveBuffer::Refused);
}

/// Catches: DISC-29
#[test]
fn a_socket_that_was_disconnected_and_is_left_open_is_caught() {
    for flags in [0, WSK_FLAG_ABORTIVE] {
        let report = left_behind(&Sim::new(), move |_| {
            let link = Link::new();
            Request::new().disconnect(&link.socket, None, flags).ok();
            link.socket.forget();
            std::mem::forget((link.events, link.client));
        });
        assert_reported(&report, "DISC-29", "WskCloseSocket");
    }
}

/// Another thread, which may wait, takes over the requests that a callback starts.
///
/// Shows: DISC-15
#[test]
fn handing_requests_on_instead_of_waiting_is_right() {
    Sim::builder().callbacks(Level::Dispatch).build().run(|_| {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        let (started, socket) = (Arc::new(Mutex::new(None)), link.socket.clone());
        let starting = Arc::clone(&started);
        link.events.on_disconnect(move |_| {
            *starting.lock().unwrap() = Some(socket.disconnect());
            STATUS_SUCCESS
        });
        link.peer.half_close();
        link.events.disconnect();
        started.lock().unwrap().take().unwrap().ok();
        link.forget_answers();
    });
}
