//! Requests that go away: what was not decided by then is not decided any more.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};

use wsk::{AbortHandler, Decision, InspectHandler, InspectId, InspectToken, Inspection, Listener};
use wsk_sim::raw::Peer;
use wsk_sim::wsk_provider::behaviours::IdReuse;
use wsk_sim::{Completion, FaultPoint, Sim};

use crate::support::*;

/// A waker that keeps the thread that wakes it.
struct Holds {
    here: Mutex<Sender<()>>,
    go: Mutex<Receiver<()>>,
}

impl Wake for Holds {
    fn wake(self: Arc<Self>) {
        self.here.lock().unwrap().send(()).unwrap();
        // An error means that the test has ended.
        let _ = self.go.lock().unwrap().recv_timeout(BOUND);
    }
}

/// Keeps the thread that closes listeners, and rejects requests for dropped tokens, from doing anything until
/// the result is dropped. Needs requests that complete inline.
fn hold_the_reaper(driver: &Driver) -> Sender<()> {
    let (here, arrived) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    let listener: Listener = driver.listen();
    let mut accept = Box::pin(listener.accept());
    let waker = Waker::from(Arc::new(Holds { here: Mutex::new(here), go: Mutex::new(gone) }));
    assert!(std::future::Future::poll(accept.as_mut(), &mut Context::from_waker(&waker)).is_pending());
    // The close of the listener, which is made by that thread, ends the accept.
    drop(listener);
    arrived.recv_timeout(BOUND).expect("the accept ends");
    go
}

/// Tokens are dropped, and then their peers go away, before WSK was told of the rejections: it is told of
/// none of them.
///
/// Prevents: ABRT-11, ICMP-09, ICMP-04
#[test]
fn an_abort_ends_a_rejection_that_is_on_its_way() {
    for choice in [IdReuse::Counted, IdReuse::AtOnce] {
        let sim = Sim::builder().completion(Completion::Inline);
        sim.behaviours(|behaviours| behaviours.id_reuse = choice).build().forbid_advice().run(move |sim| {
            let driver = Driver::start();
            let pending = driver.listen_pending();
            let address = pending.listener.local_addr();
            let pended = count_pended(sim);
            let peers: Vec<_> = (0..300).map(|_| Peer::connect(address)).collect();
            let tokens: Vec<_> = (0..300).map(|_| pending.tokens.next()).collect();
            let hold = hold_the_reaper(&driver);
            eventually(|| pended.load(Ordering::SeqCst) == 300);
            drop(tokens);
            for peer in peers {
                peer.reset();
            }
            for _ in 0..300 {
                pending.aborts.next();
            }
            // Somebody else may have one of the identifiers by now, and is not rejected for it.
            let peer = Peer::connect(address);
            let token = pending.tokens.next();
            drop(hold);
            // The reaper has done all it had to do once it has closed one more listener.
            drop(driver.listen());
            driver.await_sockets(1);
            assert!(sim.violations_of("ABRT-11").is_empty(), "WSK was told of a request it had aborted");
            assert!(!token.is_aborted());
            wait(token.accept()).unwrap();
            assert_eq!(wait(pending.listener.accept()).unwrap().peer_addr(), peer.local());
            drop(pending);
            driver.unload();
        });
    }
}

/// Thousands of requests are pended when the listener closes, and while it rejects them their peers go away.
///
/// Prevents: INSP-18, ICMP-04, ICMP-09, CLOSE-01
#[test]
fn a_crowd_is_pended_when_the_listener_closes() {
    for aborting in [false, true] {
        Sim::new().run(move |sim| {
            let driver = Driver::start();
            let pending = driver.listen_pending();
            let address = pending.listener.local_addr();
            let peers: Vec<_> = (0..2000).map(|_| Peer::connect(address)).collect();
            let tokens: Vec<_> = (0..2000).map(|_| pending.tokens.next()).collect();
            let leaving = std::thread::spawn(move || {
                for peer in peers {
                    if aborting { peer.reset() } else { peer.expect_reset() }
                }
            });
            if aborting {
                pending.aborts.next();
            }
            drop(pending.listener);
            driver.unload();
            leaving.join().unwrap();
            assert!(tokens.iter().all(InspectToken::is_aborted));
            assert!(sim.violations_of("ICMP-09").is_empty());
            drop(tokens);
        });
    }
}

/// The reaper finds the listener dead when it comes to reject: nobody is told, and the request is gone.
///
/// Prevents: LIFE-17, INSP-08
#[test]
fn a_dropped_token_of_a_dead_listener_does_nothing() {
    Sim::builder().completion(Completion::Inline).build().run(|sim| {
        let driver = Driver::start();
        let pending = driver.listen_pending();
        let pended = count_pended(sim);
        let peers: Vec<_> = (0..3).map(|_| Peer::connect(pending.listener.local_addr())).collect();
        let tokens: Vec<_> = (0..3).map(|_| pending.tokens.next()).collect();
        let hold = hold_the_reaper(&driver);
        eventually(|| pended.load(Ordering::SeqCst) == 3);
        drop(tokens);
        sim.provider().depart();
        eventually(|| !pending.listener.is_open());
        drop(hold);
        driver.await_sockets(0);
        for peer in peers {
            peer.expect_reset();
        }
        drop(pending);
        driver.unload();
    });
}

/// The requests of a listener that has died are gone with it, and who waits for that is woken.
///
/// Prevents: LIFE-17, INSP-08
#[test]
fn the_tokens_of_a_dead_listener_are_woken() {
    for completion in COMPLETIONS {
        Sim::builder().completion(completion).build().run(|sim| {
            let driver = Driver::start();
            let pending = driver.listen_pending();
            let pended = count_pended(sim);
            let peer = Peer::connect(pending.listener.local_addr());
            let mut token = pending.tokens.next();
            eventually(|| pended.load(Ordering::SeqCst) == 1);
            let mut aborted = Box::pin(token.aborted());
            let wakes = Arc::new(Wakes::default());
            assert!(wakes.poll(&mut aborted).is_pending());
            sim.provider().depart();
            eventually(|| wakes.count() > 0);
            ready(&mut aborted);
            drop(aborted);
            assert!(wait(token.accept()).is_err());
            peer.expect_reset();
            drop(pending);
            driver.unload();
        });
    }
}

/// WSK gives the listener up at a decision: it is closed, as it says of itself, without anybody asking for
/// that.
///
/// Prevents: LIFE-17, LSN-07, ICMP-06
#[test]
fn a_decision_may_find_the_listener_dead() {
    for dropped in [false, true] {
        for completion in COMPLETIONS {
            Sim::builder().completion(completion).build().run(move |sim| {
                let driver = Driver::start();
                let pending = driver.listen_pending();
                let pended = count_pended(sim);
                let peer = Peer::connect(pending.listener.local_addr());
                let token = pending.tokens.next();
                let waiting = Peer::connect(pending.listener.local_addr());
                let left = pending.tokens.next();
                eventually(|| pended.load(Ordering::SeqCst) == 2);
                sim.choose_once(FaultPoint::DieInCall, 1);
                if dropped {
                    drop(token);
                } else {
                    let error = wait(token.accept());
                    assert!(error.is_err());
                }
                driver.await_sockets(0);
                assert!(!pending.listener.is_open());
                assert!(left.is_aborted());
                peer.expect_reset();
                waiting.expect_reset();
                drop((left, pending));
                driver.unload();
            });
        }
    }
}

/// Looks at its own token when it is told of the abort.
struct Looks {
    token: Mutex<Option<InspectToken>>,
    pended: Tell<()>,
    inert: Tell<bool>,
}

impl InspectHandler for Looks {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        let Ok((decision, token)) = request.pend() else { panic!("there is memory") };
        *self.token.lock().unwrap() = Some(token);
        self.pended.say(());
        decision
    }
}

impl AbortHandler for Looks {
    fn abort(&self, id: InspectId) {
        let token = self.token.lock().unwrap().take().expect("a token");
        self.inert.say(token.id() == id && token.is_aborted());
    }
}

/// The token is inert already when the gate is told of an abort.
///
/// Prevents: ABRT-11, INSP-21
#[test]
fn a_token_is_inert_before_the_gate_hears_of_the_abort() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let ((pended, was_pended), (inert, was_inert)) = (channel(), channel());
        let gate = Looks { token: Mutex::default(), pended, inert };
        let listener = wait(driver.provider.listener().conditional(gate).bind(localhost())).unwrap();
        for _ in 0..10 {
            let peer = Peer::connect(listener.local_addr());
            was_pended.next();
            peer.reset();
            assert!(was_inert.next());
        }
        drop(listener);
        driver.unload();
    });
}

/// Pends everything, and has no handler for aborts.
struct OnlyInspects(Tell<InspectToken>);

impl InspectHandler for OnlyInspects {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        let (decision, token) = request.pend().expect("there is memory");
        self.0.say(token);
        decision
    }
}

/// A listener that has a handler for inspections alone is told of aborts all the same: its tokens become
/// inert.
///
/// Prevents: INSP-30
#[test]
fn a_listener_without_an_abort_handler_learns_of_aborts() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (tell, tokens) = channel();
        let builder = driver.provider.listener().inspect(OnlyInspects(tell));
        let listener = wait(builder.bind(localhost())).unwrap();
        for _ in 0..10 {
            let peer = Peer::connect(listener.local_addr());
            let token = tokens.next();
            peer.reset();
            eventually(|| token.is_aborted());
        }
        drop(listener);
        driver.unload();
    });
}
