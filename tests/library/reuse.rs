//! Inspection identifiers that WSK uses again: an old decision never meets a new request, and no request is
//! forgotten.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wsk::{InspectId, Verdict};
use wsk_sim::raw::Peer;
use wsk_sim::wsk_provider::behaviours::{IdReuse, Retransmission};
use wsk_sim::{FaultPoint, Sim};

use crate::support::*;

/// The ways in which a pended request ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Accepted,
    Rejected,
    Dropped,
    Aborted,
}

const ENDS: [End; 4] = [End::Accepted, End::Rejected, End::Dropped, End::Aborted];

/// An address of the host that the peer before this one did not have: it cannot be taken for a repetition of
/// that one.
fn another_address(round: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(round % 200).unwrap())
}

/// Has a request be pended and end; says which identifier it had.
fn one_request(pending: &Pending, round: usize, end: End) -> InspectId {
    let peer = Peer::connect_from(another_address(round), pending.listener.local_addr());
    let mut token = pending.tokens.next();
    let id = token.id();
    assert_eq!(token.peer_addr(), peer.local());
    match end {
        End::Accepted => {
            wait(token.accept()).unwrap();
            let connection = wait(pending.listener.accept()).unwrap();
            assert_eq!(connection.peer_addr(), peer.local());
        }
        End::Rejected => {
            wait(token.reject()).unwrap();
            peer.expect_reset();
        }
        End::Dropped => {
            drop(token);
            peer.expect_reset();
        }
        End::Aborted => {
            peer.reset();
            wait(token.aborted());
            assert_eq!(pending.aborts.next(), id);
        }
    }
    id
}

/// Each request gets a token of its own, however often its identifier was in use before, and however that
/// ended.
///
/// Prevents: INSP-18, INSP-35
#[test]
fn a_used_identifier_is_asked_about_again() {
    for completion in COMPLETIONS {
        for &choice in <IdReuse as wsk_sim::wsk_provider::Alternatives>::ALL {
            let sim = Sim::builder().completion(completion);
            sim.behaviours(|behaviours| behaviours.id_reuse = choice).build().run(move |_| {
                let driver = Driver::start();
                let pending = driver.listen_pending();
                let mut ids = Vec::new();
                for round in 0..40 {
                    ids.push(one_request(&pending, round, ENDS[(round + round / 4) % 4]));
                }
                let reused = ids.iter().filter(|id| **id == ids[0]).count();
                assert!((choice == IdReuse::AtOnce) == (reused > 1), "{choice:?}: {reused} had the same");
                drop(pending);
                driver.unload();
            });
        }
    }
}

/// The peer is back under the identifier that was just rejected, before anybody has heard that the rejection
/// is done.
///
/// Prevents: INSP-18, INSP-35
#[test]
fn a_peer_that_is_back_at_once_is_asked_about() {
    for completion in COMPLETIONS {
        let sim = Sim::builder().completion(completion);
        sim.behaviours(|behaviours| behaviours.id_reuse = IdReuse::AtOnce).build().run(|_| {
            let driver = Driver::start();
            let pending = driver.listen_pending();
            let address = pending.listener.local_addr();
            for round in 0..60 {
                let peer = Peer::connect_from(another_address(2 * round), address);
                let token = pending.tokens.next();
                // It comes back by itself, as soon as it is refused.
                let back = std::thread::spawn(move || {
                    peer.expect_reset();
                    Peer::connect_from(another_address(2 * round + 1), address)
                });
                match round % 3 {
                    0 => drop(token),
                    1 => drop(token.reject()),
                    _ => wait(token.reject()).unwrap(),
                }
                let token = pending.tokens.next();
                let back = back.join().unwrap();
                assert_eq!(token.peer_addr(), back.local());
                wait(token.accept()).unwrap();
                assert_eq!(wait(pending.listener.accept()).unwrap().peer_addr(), back.local());
            }
            assert!(pending.tokens.now().is_none());
            drop(pending);
            driver.unload();
        });
    }
}

/// The same for requests that are decided inside their callback, and for tokens whose decision the callback
/// returns.
///
/// Prevents: INSP-10, INSP-35
#[test]
fn an_identifier_that_was_answered_at_once_is_asked_about_again() {
    for_each_choice(
        |behaviours, choice: IdReuse| behaviours.id_reuse = choice,
        |_, _| {
            let driver = Driver::start();
            let asked = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&asked);
            let inspect = fix(move |request| {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                match number % 4 {
                    0 => return request.accept(),
                    1 => return request.reject(),
                    _ => {}
                }
                let (decision, token) = request.pend().unwrap();
                if number % 4 == 2 {
                    drop(token.accept());
                } else {
                    drop(token);
                }
                decision
            });
            let gate = gate(inspect, |_| {});
            let listener = wait(driver.provider.listener().conditional(gate).bind(localhost())).unwrap();
            for round in 0..40 {
                let peer = Peer::connect(listener.local_addr());
                if round % 2 == 0 {
                    assert_eq!(wait(listener.accept()).unwrap().peer_addr(), peer.local());
                } else {
                    peer.expect_reset();
                }
                assert_eq!(asked.load(Ordering::SeqCst), round + 1);
            }
            drop(listener);
            driver.unload();
        },
    );
}

/// An old token that is still kept does nothing to the request that has its identifier now.
///
/// Prevents: INSP-21, INSP-35, ICMP-04
#[test]
fn the_token_of_an_aborted_request_leaves_the_next_one_alone() {
    for_each_choice(
        |behaviours, choice: IdReuse| behaviours.id_reuse = choice,
        |sim, choice| {
            sim.forbid_advice();
            let driver = Driver::start();
            let pending = driver.listen_pending();
            let mut accept = Box::pin(pending.listener.accept());
            assert!(poll(&mut accept).is_pending());
            let mut old = Vec::new();
            for _ in 0..5 {
                let peer = Peer::connect(pending.listener.local_addr());
                let token = pending.tokens.next();
                peer.reset();
                assert_eq!(pending.aborts.next(), token.id());
                old.push(token);
            }
            let peer = Peer::connect(pending.listener.local_addr());
            let token = pending.tokens.next();
            assert_eq!(old.iter().all(|old| old.id() == token.id()), choice == IdReuse::AtOnce);
            for (number, token) in old.into_iter().enumerate() {
                assert!(token.is_aborted());
                match number % 3 {
                    0 => assert!(wait(token.accept()).is_err()),
                    1 => assert!(wait(token.reject()).is_err()),
                    _ => drop(token),
                }
            }
            assert!(!token.is_aborted());
            assert!(poll(&mut accept).is_pending(), "no old decision has let it in");
            wait(token.accept()).unwrap();
            assert_eq!(wait(accept).unwrap().peer_addr(), peer.local());
            drop(pending);
            driver.unload();
        },
    );
}

/// A peer that repeats itself, while its request is pended or while it is being decided, is inspected once,
/// also where identifiers are used again.
///
/// Prevents: ICMP-04, INSP-18, INSP-35
#[test]
fn a_repetition_is_told_from_a_new_request() {
    for knob in [FaultPoint::Retransmission, FaultPoint::RetransmissionDuringComplete] {
        for completion in COMPLETIONS {
            for_each_choice(
                move |behaviours, choice: IdReuse| {
                    behaviours.id_reuse = choice;
                    behaviours.retransmission = Retransmission::InspectedAgain;
                },
                move |sim, _| {
                    sim.provider().configure(|config| config.completion = completion);
                    sim.choose(knob, 1);
                    let driver = Driver::start();
                    let pending = driver.listen_pending();
                    for round in 0..24 {
                        one_request(&pending, round, ENDS[round % 4]);
                        assert!(pending.tokens.now().is_none(), "a second token");
                    }
                    drop(pending);
                    driver.unload();
                },
            );
        }
    }
}

/// A listener that closes rejects what is pended, and a peer that repeats itself meanwhile gets no second
/// answer.
///
/// Prevents: ICMP-04, INSP-18, CLOSE-01
#[test]
fn a_repetition_may_meet_the_close() {
    for completion in COMPLETIONS {
        let sim = Sim::builder().completion(completion);
        let sim = sim.behaviours(|behaviours| {
            behaviours.id_reuse = IdReuse::AtOnce;
            behaviours.retransmission = Retransmission::InspectedAgain;
        });
        sim.build().run(|sim| {
            sim.choose(FaultPoint::RetransmissionDuringComplete, 1);
            let driver = Driver::start();
            let pending = driver.listen_pending();
            let peers: Vec<_> = (0..8).map(|_| Peer::connect(pending.listener.local_addr())).collect();
            let tokens: Vec<_> = (0..8).map(|_| pending.tokens.next()).collect();
            wait(pending.listener.close());
            for peer in peers {
                peer.expect_reset();
            }
            assert!(pending.tokens.now().is_none());
            for token in tokens {
                assert!(token.is_aborted());
                drop(token.decide(Verdict::Accept));
            }
            driver.unload();
        });
    }
}

/// Fixes the lifetimes of a closure that inspects.
fn fix<F: for<'a> Fn(wsk::Inspection<'a>) -> wsk::Decision<'a>>(inspect: F) -> F {
    inspect
}
