//! Breaches of the rules about sending, caught by the checker (contract 4.12, 0.3).

use wsk_sim::raw::*;
use wsk_sim::{Completion, Sim};
use wsk_sys::nt;
use wsk_sys::*;

use crate::link::*;
use crate::support::*;

/// Descriptors that reach out of their memory.
fn unfit_ranges() -> [Buffer; 5] {
    let chain = Buffer::chain(&[8, 8]);
    [
        Buffer::new(8).unchecked_slice(0, 9),
        Buffer::new(8).unchecked_slice(8, 1),
        chain.unchecked_slice(9, 2),
        chain.unchecked_slice(4, 13),
        chain.unchecked_slice(0, usize::MAX),
    ]
}

/// Catches: SND-08
#[test]
fn a_range_that_leaves_its_memory_is_caught() {
    let sim = Sim::new();
    sim.expect("SND-08").run(|sim| {
        let caught = || sim.violations_of("SND-08").len();
        for buffer in unfit_ranges() {
            let (link, before) = (Link::new(), caught());
            let send = Request::new().send(&link.socket, &buffer, 0);
            assert_eq!(send.fails(STATUS_INVALID_PARAMETER).returned, STATUS_INVALID_PARAMETER);
            Request::new().receive(&link.socket, &buffer, 0).fails(STATUS_INVALID_PARAMETER);
            Request::new().disconnect(&link.socket, Some(&buffer), 0).fails(STATUS_INVALID_PARAMETER);
            assert_eq!(caught(), before + 3, "{buffer:?}");
            link.socket.send(b"unharmed").ok();
            assert_eq!(link.peer.receive(8), b"unharmed");
        }
        for call in ["WskSend", "WskReceive", "WskDisconnect"] {
            assert_caught(sim, "SND-08", call);
        }
    });
}

/// Catches: SND-09
#[test]
fn memory_that_is_neither_locked_nor_non_paged_is_caught() {
    for second in [false, true] {
        let sim = Sim::new();
        sim.expect("SND-09").run(move |sim| {
            let link = Link::new();
            let buffer = Buffer::chain(&[4, 4]);
            // SAFETY: the MDL and the next one live with the buffer, and they are not in use.
            let mdl = if second { unsafe { nt::mdl_next(buffer.mdl()) } } else { buffer.mdl() };
            // SAFETY: the MDL and the next one live with the buffer, and they are not in use.
            unsafe { nt::set_mdl_flags(mdl, 0) };
            Request::new().send(&link.socket, &buffer, 0).fails(STATUS_INVALID_PARAMETER);
            assert_caught(sim, "SND-09", "WskSend");
            Request::new().receive(&link.socket, &buffer, 0).fails(STATUS_INVALID_PARAMETER);
            assert_caught(sim, "SND-09", "WskReceive");
        });
    }
}

/// Catches: SND-15
#[test]
fn a_send_after_the_own_disconnect_is_caught() {
    for completion in COMPLETIONS {
        let sim = Sim::builder().completion(completion).build();
        sim.expect("SND-15").run(|sim| {
            let link = Link::new();
            let disconnect = link.socket.disconnect();
            link.socket.send(b"too late").fails(STATUS_INVALID_DEVICE_STATE);
            assert_caught(sim, "SND-15", "WskSend");
            disconnect.ok();
            link.peer.expect_end();
        });
    }
}

/// Everything that the client does is right as far as the checker can see.
fn is_advised_against(call: impl FnOnce(&Link) + Send + 'static) -> bool {
    let sim = Sim::builder().completion(Completion::Inline).build();
    let report = left_behind(&sim, move |_| {
        let link = Link::new();
        link.peer.send(b"x");
        call(&link);
    });
    assert!(report.violations.is_empty(), "{report}");
    report.advice.iter().any(|advice| advice.rule == "SND-20" && advice.location.contains("contract"))
}

/// Catches: SND-20
#[test]
fn reserved_functions_are_advised_against() {
    assert!(is_advised_against(|link| {
        Request::new().send_ex(&link.socket, &Buffer::of(b"x"), b"", 0).ok();
    }));
    assert!(is_advised_against(|link| {
        Request::new().receive_ex(&link.socket, &Buffer::new(1), 0).ok();
    }));
    assert!(!is_advised_against(|link| {
        link.socket.send(b"x").ok();
        link.socket.receive(&Buffer::new(1)).ok();
    }));
}
