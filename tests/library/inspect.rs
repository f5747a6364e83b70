//! Conditional accept: one answer for every request, whenever it is given, and whatever becomes of the
//! request.

use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;

use wsk::{Decision, InspectId, InspectToken, Inspection, Status, Verdict};
use wsk_sim::raw::{Peer, closed_port};
use wsk_sim::wsk_provider::behaviours::{CloseWithPended, CompleteAborted, CompleteEarly, Retransmission};
use wsk_sim::{FaultPoint, Sim};

use crate::support::*;

/// The gate answers inside the callback; the connection knows which inspection it had.
///
/// Prevents: INSP-10, INSP-19, INSP-27, INSP-28, INSP-30, INSP-35, OPT-01, OPT-02, OPT-05, EVT-02, EVT-03
/// Prevents: EVT-23, EVT-24
#[test]
fn a_gate_lets_in_and_keeps_out() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (tell, told) = channel();
        let asked = AtomicUsize::new(0);
        let inspect = hr(move |request| {
            tell.say((request.id(), request.local_addr(), request.peer_addr()));
            if asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                request.accept()
            } else {
                request.reject()
            }
        });
        let gate = gate(inspect, |_| {});
        let listener = wait(driver.provider.listener().conditional(gate).bind(localhost())).unwrap();
        for _ in 0..3 {
            let peer = Peer::connect(listener.local_addr());
            let connection = wait(listener.accept()).unwrap();
            let (id, local, remote) = told.next();
            assert_eq!((local, remote), (listener.local_addr(), peer.local()));
            assert_eq!(connection.inspect_id().unwrap(), id);
            drop(connection);
            peer.expect_reset();
            Peer::connect(listener.local_addr()).expect_reset();
            told.next();
        }
        drop(listener);
        driver.unload();
    });
}

/// A token holds all that deciding needs: it decides once, later, elsewhere, after its callback has gone.
///
/// Prevents: INSP-18, INSP-19, INSP-20, INSP-23, INSP-26, INSP-35, ICMP-04, ICMP-10, LIFE-13
#[test]
fn a_token_decides_later() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let pending = driver.listen_pending();
        let mut accept = Box::pin(pending.listener.accept());
        assert!(poll(&mut accept).is_pending());
        let peer = Peer::connect(pending.listener.local_addr());
        let token = pending.tokens.next();
        assert_eq!(token.peer_addr(), peer.local());
        assert_eq!(token.local_addr(), pending.listener.local_addr());
        let id = token.id();
        assert!(poll(&mut accept).is_pending());
        sim.thread("elsewhere", move || wait(token.accept()).unwrap()).join().unwrap();
        let connection = wait(accept).unwrap();
        assert_eq!(connection.inspect_id().unwrap(), id);

        let kept_out = Peer::connect(pending.listener.local_addr());
        wait(pending.tokens.next().reject()).unwrap();
        kept_out.expect_reset();
        // How it went need not be asked for.
        let kept_out = Peer::connect(pending.listener.local_addr());
        drop(pending.tokens.next().decide(Verdict::Reject));
        kept_out.expect_reset();
        assert!(pending.aborts.now().is_none());
        drop((connection, pending));
        driver.unload();
    });
}

/// A token that is dropped rejects: nobody forgets a request.
///
/// Prevents: INSP-18, ICMP-04
#[test]
fn a_dropped_token_rejects() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let pending = driver.listen_pending();
        for round in 0..4 {
            let peer = Peer::connect(pending.listener.local_addr());
            let token = pending.tokens.next();
            if round % 2 == 0 {
                drop(token);
            } else {
                at_dispatch(|| drop(token));
            }
            peer.expect_reset();
        }
        drop(pending);
        driver.unload();
    });
}

/// A decision that the gate makes with its token before it returns is its answer: WSK is asked for nothing
/// meanwhile.
///
/// Prevents: ICMP-13, ICMP-04, INSP-10
#[test]
fn a_decision_inside_the_callback_is_the_callbacks_answer() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let asked = AtomicUsize::new(0);
        let (tell, told) = channel();
        let inspect = hr(move |request| {
            let (decision, token) = request.pend().unwrap();
            match asked.fetch_add(1, Ordering::SeqCst) {
                0 => tell.say(Some(token.accept())),
                1 => tell.say(Some(token.reject())),
                _ => {
                    drop(token);
                    tell.say(None);
                }
            }
            decision
        });
        let listener =
            wait(driver.provider.listener().conditional(gate(inspect, |_| {})).bind(localhost())).unwrap();
        let peer = Peer::connect(listener.local_addr());
        let connection = wait(listener.accept()).unwrap();
        assert_eq!(connection.peer_addr(), peer.local());
        wait(told.next().unwrap()).unwrap();
        Peer::connect(listener.local_addr()).expect_reset();
        wait(told.next().unwrap()).unwrap();
        Peer::connect(listener.local_addr()).expect_reset();
        assert!(told.next().is_none());
        drop((connection, listener));
        driver.unload();
    });
}

/// Fixes the lifetimes of a closure that inspects.
fn hr<F: for<'a> Fn(Inspection<'a>) -> Decision<'a>>(inspect: F) -> F {
    inspect
}

/// A decision that another thread makes while the callback still runs is held back until it returns, under
/// both ways in which a provider takes one that comes too early.
///
/// Prevents: ICMP-13, INSP-26
#[test]
fn a_decision_of_another_thread_waits_for_the_callback() {
    for_each_choice(
        |behaviours, choice: CompleteEarly| behaviours.complete_early = choice,
        |sim, _| {
            sim.forbid_advice();
            let driver = Driver::start();
            let (tell, told) = channel();
            let (go, gone) = mpsc::channel();
            let gone = Mutex::new(gone);
            let inspect = hr(move |request| {
                let (decision, token) = request.pend().unwrap();
                tell.say(token);
                gone.lock().unwrap().recv_timeout(BOUND).unwrap();
                decision
            });
            let gate = gate(inspect, |_| {});
            let listener = wait(driver.provider.listener().conditional(gate).bind(localhost())).unwrap();
            let peer = Peer::connect(listener.local_addr());
            let decided = told.next().accept();
            let mut accept = Box::pin(listener.accept());
            assert!(poll(&mut accept).is_pending());
            go.send(()).unwrap();
            wait(decided).unwrap();
            assert_eq!(wait(accept).unwrap().peer_addr(), peer.local());

            let kept_out = Peer::connect(listener.local_addr());
            drop(told.next());
            go.send(()).unwrap();
            kept_out.expect_reset();
            drop(listener);
            driver.unload();
        },
    );
}

/// Decisions and returns of callbacks meet at every distance.
///
/// Prevents: ICMP-04, ICMP-13, INSP-18, INSP-26
#[test]
fn decisions_race_with_the_callbacks_that_pended() {
    for completion in COMPLETIONS {
        Sim::builder().completion(completion).build().forbid_advice().run(|sim| {
            let driver = Driver::start();
            let pending = driver.listen_pending();
            let address = pending.listener.local_addr();
            let tokens = pending.tokens;
            let decider = sim.thread("decider", move || {
                for _ in 0..200 {
                    let token = tokens.next();
                    match token.peer_addr().port() % 3 {
                        0 => wait(token.accept()).unwrap(),
                        1 => wait(token.reject()).unwrap(),
                        _ => drop(token),
                    }
                }
            });
            let mut peers = Vec::new();
            for _ in 0..200 {
                let peer = Peer::connect(address);
                if peer.local().port().is_multiple_of(3) {
                    let connection = wait(pending.listener.accept()).unwrap();
                    assert_eq!(connection.peer_addr(), peer.local());
                }
                peers.push(peer);
            }
            decider.join().unwrap();
            drop(pending.listener);
            driver.unload();
        });
    }
}

/// An abort makes the token inert, says so to whoever waits, and is told to the gate.
///
/// Prevents: ABRT-10, ABRT-11, INSP-21, INSP-18
#[test]
fn an_abort_makes_the_token_inert() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let pending = driver.listen_pending();
        let peer = Peer::connect(pending.listener.local_addr());
        let mut token = pending.tokens.next();
        let other = Peer::connect(pending.listener.local_addr());
        let other_token = pending.tokens.next();
        let id = token.id();
        assert!(!token.is_aborted());
        peer.reset();
        wait(token.aborted());
        assert!(token.is_aborted());
        assert_eq!(pending.aborts.next(), id);
        assert!(!other_token.is_aborted(), "only the request with that ID is gone");
        let error = wait(token.accept()).unwrap_err();
        assert_eq!(error.status(), Status::REQUEST_ABORTED);
        wait(other_token.accept()).unwrap();
        assert_eq!(wait(pending.listener.accept()).unwrap().peer_addr(), other.local());

        let peer = Peer::connect(pending.listener.local_addr());
        let token = pending.tokens.next();
        peer.reset();
        assert_eq!(pending.aborts.next(), token.id());
        drop(token);
        drop(pending);
        driver.unload();
    });
}

/// The request is dropped the moment it was pended, while the gate's worker is at it already.
///
/// Prevents: ABRT-17, ABRT-11, INSP-26
#[test]
fn an_abort_may_follow_the_inspection_at_once() {
    for_each_mode(|sim| {
        sim.choose(FaultPoint::DropAfterPend, 1);
        let driver = Driver::start();
        let pending = driver.listen_pending();
        for _ in 0..5 {
            let peer = Peer::connect(pending.listener.local_addr());
            let mut token = pending.tokens.next();
            wait(token.aborted());
            assert_eq!(pending.aborts.next(), token.id());
            assert_eq!(wait(token.accept()).unwrap_err().status(), Status::REQUEST_ABORTED);
            peer.expect_reset();
        }
        drop(pending);
        driver.unload();
    });
}

/// The request is dropped while its decision is on its way: both answers of WSK are the end of it.
///
/// Prevents: ICMP-03, ICMP-04
#[test]
fn an_abort_may_meet_the_decision() {
    for_each_choice(
        |behaviours, choice: CompleteAborted| behaviours.complete_aborted = choice,
        |sim, _| {
            // A decision that is made before the callback has returned is its answer, and is not asked about.
            let drops = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&drops);
            sim.choose_by(FaultPoint::DropDuringComplete, move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                1
            });
            let driver = Driver::start();
            let pending = driver.listen_pending();
            for verdict in [Verdict::Accept, Verdict::Reject, Verdict::Accept] {
                while drops.swap(0, Ordering::SeqCst) == 0 {
                    let peer = Peer::connect(pending.listener.local_addr());
                    let token = pending.tokens.next();
                    let id = token.id();
                    std::thread::yield_now();
                    wait(token.decide(verdict)).unwrap();
                    // A decision that was the callback's answer may have no end yet; the peer stays until it
                    // has one.
                    settled(&pending, verdict, &drops, &peer);
                    if drops.load(Ordering::SeqCst) > 0 {
                        assert_eq!(pending.aborts.next(), id);
                    }
                }
            }
            sim.choose_naturally(FaultPoint::DropDuringComplete);
            // Resets and decisions meet by themselves, too.
            for _ in 0..60 {
                let peer = Peer::connect(pending.listener.local_addr());
                let token = pending.tokens.next();
                let reset = std::thread::spawn(move || peer.reset());
                // Whether it was in time is WSK's to say.
                let _ = wait(token.accept());
                reset.join().unwrap();
            }
            drop(pending);
            driver.unload();
        },
    );
}

/// Waits until nothing more comes of a request that was decided: its connection is there, or it was refused,
/// or dropped.
fn settled(pending: &Pending, verdict: Verdict, drops: &AtomicUsize, peer: &Peer) {
    if verdict == Verdict::Reject {
        return peer.expect_reset();
    }
    let mut accept = Box::pin(pending.listener.accept());
    let mut connection = None;
    eventually(|| {
        if let Poll::Ready(accepted) = poll(&mut accept) {
            connection = Some(accepted.unwrap());
        }
        connection.is_some() || drops.load(Ordering::SeqCst) > 0
    });
    if connection.is_none() {
        peer.expect_reset();
    }
}

/// A request that was let in can be dropped before it is a connection; the gate is told, and no accept
/// completes.
///
/// Prevents: ABRT-10, INSP-35
#[test]
fn a_request_that_was_accepted_may_be_aborted() {
    for_each_mode(|sim| {
        sim.choose(FaultPoint::DropAfterAccept, 1);
        let driver = Driver::start();
        let (tell, told) = channel();
        let (tell_abort, aborts) = channel();
        let inspect = hr(move |request| {
            tell.say(request.id());
            request.accept()
        });
        let gate = gate(inspect, move |id: InspectId| tell_abort.say(id));
        let listener = wait(driver.provider.listener().conditional(gate).bind(localhost())).unwrap();
        let mut accept = Box::pin(listener.accept());
        assert!(poll(&mut accept).is_pending());
        Peer::connect(listener.local_addr()).expect_reset();
        assert_eq!(aborts.next(), told.next());
        assert!(poll(&mut accept).is_pending());
        drop((accept, listener));
        driver.unload();
    });
}

/// A listener that closes rejects what is pended, whatever WSK would have done with it; the tokens are inert,
/// and outlive the listener, the client and all.
///
/// Prevents: INSP-18, ICMP-04, CLOSE-01, CLOSE-13
#[test]
fn tokens_outlive_their_listener() {
    for_each_choice(
        |behaviours, choice: CloseWithPended| behaviours.close_with_pended = choice,
        |sim, choice| {
            for completion in COMPLETIONS {
                sim.provider().configure(|config| config.completion = completion);
                let driver = Driver::start();
                let pending = driver.listen_pending();
                let peers: Vec<_> = (0..5).map(|_| Peer::connect(pending.listener.local_addr())).collect();
                let mut tokens: Vec<_> = (0..5).map(|_| pending.tokens.next()).collect();
                let waiting = tokens.pop().unwrap();
                let mut waiting = Box::pin(waiting.decide_with(std::future::pending()));
                let wakes = Arc::new(Wakes::default());
                assert!(wakes.poll(&mut waiting).is_pending());
                if choice == CloseWithPended::Silent {
                    wait(pending.listener.close());
                } else {
                    drop(pending.listener);
                }
                for peer in peers {
                    peer.expect_reset();
                }
                driver.unload();
                assert!(wakes.count() > 0);
                assert_eq!(ready(&mut waiting).unwrap_err().status(), Status::REQUEST_ABORTED);
                let mut tokens = tokens.into_iter();
                let last = tokens.next().unwrap();
                assert!(last.is_aborted());
                let mut decided = Box::pin(last.accept());
                assert_eq!(ready(&mut decided).unwrap_err().status(), Status::REQUEST_ABORTED);
                drop(tokens);
            }
        },
    );
}

/// Tokens are decided, dropped and aborted while their listener closes.
///
/// Prevents: INSP-18, ICMP-04, CLOSE-01, REG-27
#[test]
fn decisions_race_with_the_close_of_the_listener() {
    for completion in COMPLETIONS {
        Sim::builder().completion(completion).build().run(|sim| {
            for round in 0..20 {
                let driver = Driver::start();
                let pending = driver.listen_pending();
                let address = pending.listener.local_addr();
                let peers: Vec<_> = (0..6).map(|_| Peer::connect(address)).collect();
                let tokens: Vec<_> = (0..6).map(|_| pending.tokens.next()).collect();
                let late = std::thread::spawn(move || Peer::try_connect(address));
                let decider = sim.thread("decider", move || {
                    for (number, token) in tokens.into_iter().enumerate() {
                        match number % 3 {
                            0 => drop(token.accept()),
                            1 => drop(token.reject()),
                            _ => drop(token),
                        }
                    }
                });
                if round % 2 == 0 {
                    wait(pending.listener.close());
                    driver.unload();
                } else {
                    driver.unload();
                    drop(pending.listener);
                }
                decider.join().unwrap();
                drop((peers, late.join().unwrap()));
                // A token that was still on its way to the test.
                drop(pending.tokens);
            }
        });
    }
}

/// Callbacks may come as soon as a socket is bound, long before anybody has seen that it is: what they need
/// is there from before the socket is made.
///
/// Prevents: EVT-47, EVT-49, INSP-26, SOCK-05
#[test]
fn the_gate_may_be_asked_before_the_binding_is_seen() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (tell, told) = channel();
        let gate = gate(
            hr(move |request| {
                tell.say(request.peer_addr());
                request.reject()
            }),
            |_| {},
        );
        // No other test listens on this address.
        let address = ([127, 44, 1, 1], closed_port().port()).into();
        let mut bind = Box::pin(driver.provider.listener().conditional(gate).bind(address));
        // Driven until the socket is bound, and no further, where that can be helped.
        let mut bound = None;
        let peer = loop {
            if let Ok(peer) = Peer::try_connect(address) {
                break peer;
            }
            assert!(bound.is_none(), "it was bound without listening");
            if let Poll::Ready(listener) = poll(&mut bind) {
                bound = Some(listener.unwrap());
            }
        };
        assert_eq!(told.next(), peer.local());
        peer.expect_reset();
        drop((bind, bound));
        driver.await_sockets(0);
        driver.unload();
    });
}

/// An asynchronous inspection is cancelled by an abort, and decides when it is done; dropped, it rejects.
///
/// Prevents: ABRT-11, INSP-18
#[test]
fn an_asynchronous_inspection_is_cancelled_by_an_abort() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let pending = driver.listen_pending();
        let (tell, told) = channel();
        let peer = Peer::connect(pending.listener.local_addr());
        let on_drop = OnDrop(tell.clone());
        let inspection = pending.tokens.next().decide_with(async move {
            let _on_drop = on_drop;
            std::future::pending::<Verdict>().await
        });
        let mut inspection = Box::pin(inspection);
        assert!(poll(&mut inspection).is_pending());
        assert!(told.now().is_none());
        peer.reset();
        assert_eq!(wait(inspection.as_mut()).unwrap_err().status(), Status::REQUEST_ABORTED);
        told.next();
        drop(inspection);

        let peer = Peer::connect(pending.listener.local_addr());
        wait(pending.tokens.next().decide_with(async { Verdict::Accept })).unwrap();
        assert_eq!(wait(pending.listener.accept()).unwrap().peer_addr(), peer.local());

        for polled in [false, true] {
            let peer = Peer::connect(pending.listener.local_addr());
            let mut inspection = Box::pin(pending.tokens.next().decide_with(std::future::pending()));
            if polled {
                assert!(poll(&mut inspection).is_pending());
            }
            drop(inspection);
            peer.expect_reset();
        }
        drop(pending);
        driver.unload();
    });
}

/// A dead conditional listener is closed without asking the gate; its tokens are inert.
///
/// Prevents: INSP-08, INSP-09, LIFE-17
#[test]
fn a_dead_conditional_listener_is_closed_without_asking_the_gate() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let pending = driver.listen_pending();
        let peer = Peer::connect(pending.listener.local_addr());
        let mut token = pending.tokens.next();
        sim.provider().depart();
        driver.await_sockets(0);
        peer.expect_reset();
        assert!(!pending.listener.is_open());
        assert!(pending.tokens.now().is_none());
        wait(token.aborted());
        assert!(wait(token.accept()).is_err());
        drop(pending);
        driver.unload();
    });
}

/// A peer that repeats itself is inspected once: there is one token, and one decision.
///
/// Prevents: ICMP-04, INSP-18
#[test]
fn a_repeated_request_is_inspected_once() {
    for_each_choice(
        |behaviours, choice: Retransmission| behaviours.retransmission = choice,
        |sim, _| {
            sim.choose(FaultPoint::Retransmission, 1);
            let driver = Driver::start();
            let pending = driver.listen_pending();
            for _ in 0..5 {
                let peer = Peer::connect(pending.listener.local_addr());
                let token = pending.tokens.next();
                wait(token.accept()).unwrap();
                assert_eq!(wait(pending.listener.accept()).unwrap().peer_addr(), peer.local());
            }
            assert!(pending.tokens.now().is_none());
            drop(pending);
            driver.unload();
        },
    );
}

/// Nothing that happens to tokens needs memory or a thread: here they are dropped, decided and closed over
/// without any.
///
/// Prevents: INSP-18, CLOSE-14
#[test]
fn tokens_need_no_memory() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let pending = driver.listen_pending();
        let peers: Vec<_> = (0..6).map(|_| Peer::connect(pending.listener.local_addr())).collect();
        let mut tokens: Vec<_> = (0..6).map(|_| pending.tokens.next()).collect();
        let mut accepts: Vec<_> = (0..2).map(|_| Box::pin(pending.listener.accept())).collect();
        for accept in &mut accepts {
            assert!(poll(accept).is_pending());
        }
        sim.kernel().faults().fail_from(1);
        drop(tokens.pop());
        drop(tokens.pop().unwrap().reject());
        let mut decided: Vec<Pin<Box<_>>> =
            tokens.drain(..2).map(|token: InspectToken| Box::pin(token.accept())).collect();
        for decided in &mut decided {
            ready(decided).unwrap();
        }
        for accept in &mut accepts {
            drop(ready(accept).unwrap());
        }
        let tokens = ManuallyDrop::new(tokens);
        drop(pending.listener);
        driver.await_sockets(0);
        sim.kernel().faults().clear();
        for peer in peers {
            peer.expect_reset();
        }
        assert!(tokens.iter().all(InspectToken::is_aborted));
        drop(ManuallyDrop::into_inner(tokens));
        driver.unload();
    });
}

/// An inspection comes back when there is no memory for a token, to be answered at once.
///
/// Prevents: INSP-10, INSP-29
#[test]
fn a_request_that_cannot_be_pended_is_answered_at_once() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let pending = driver.listen_pending();
        sim.kernel().faults().fail_from(1);
        // Blocks that the driver still has serve the first.
        let mut pended = Vec::new();
        while sim.kernel().faults().injected() == 0 {
            let peer = Peer::connect(pending.listener.local_addr());
            eventually(|| {
                pended.extend(pending.tokens.now());
                pended.last().is_some_and(|token: &InspectToken| token.peer_addr() == peer.local())
                    || sim.kernel().faults().injected() > 0
            });
            if sim.kernel().faults().injected() > 0 {
                peer.expect_reset();
            }
        }
        sim.kernel().faults().clear();
        drop(pended);
        let peer = Peer::connect(pending.listener.local_addr());
        drop(pending.tokens.next());
        peer.expect_reset();
        drop(pending);
        driver.unload();
    });
}
