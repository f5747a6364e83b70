//! Handles that are still there when the client unloads: they keep nothing of WSK's, and nothing of the
//! user's.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use wsk::{AbortHandler, Decision, InspectHandler, InspectId, InspectToken, Inspection, SecurityDescriptor};
use wsk_sim::Sim;
use wsk_sim::raw::Peer;

use crate::support::*;

/// A security descriptor that WSK keeps.
fn descriptor(driver: &Driver) -> SecurityDescriptor {
    let mut bytes = [0_u8; 20];
    // Self-relative, revision 1, with no lists: everybody is let in.
    (bytes[0], bytes[3]) = (1, 0x80);
    let bytes = wsk_sim::raw::Buffer::of(&bytes);
    // SAFETY: the bytes are a whole descriptor.
    unsafe { driver.provider.cache_security_descriptor(passive(), bytes.address()) }.expect("caching")
}

/// A gate that keeps the tokens of its own listener, and whatever else it is given.
struct Keeps<K> {
    tokens: Mutex<Vec<InspectToken>>,
    pended: Tell<()>,
    _kept: K,
}

impl<K: Send + Sync + 'static> InspectHandler for Keeps<K> {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        let Ok((decision, token)) = request.pend() else { panic!("there is memory") };
        self.tokens.lock().unwrap().push(token);
        self.pended.say(());
        decision
    }
}

impl<K: Send + Sync + 'static> AbortHandler for Keeps<K> {
    fn abort(&self, _id: InspectId) {}
}

/// Accepts that were never polled, or are still waited for, keep neither the descriptor of their listener nor
/// its handlers, and so no capture.
///
/// Prevents: CTL-07, LIFE-12, REG-27
#[test]
fn an_accept_that_is_left_over_keeps_nothing() {
    for_each_mode(|_| {
        for polled in [false, true] {
            let driver = Driver::start();
            let (dropped, was_dropped) = channel();
            let gate = Keeps {
                tokens: Mutex::default(),
                pended: channel().0,
                _kept: (driver.provider.clone(), Mutex::new(OnDrop(dropped))),
            };
            let builder = driver.provider.listener().security(descriptor(&driver)).conditional(gate);
            let listener = wait(builder.bind(localhost())).unwrap();
            let mut accept = Box::pin(listener.accept());
            if polled {
                assert!(poll(&mut accept).is_pending());
            }
            drop(listener);
            driver.unload();
            was_dropped.next();
            assert!(ready(&mut accept).is_err());
        }
    });
}

/// A gate may keep the tokens of its own listener: that is a circle, which the close opens.
///
/// Prevents: CTL-07, INSP-18, REG-27
#[test]
fn a_gate_may_keep_its_own_tokens() {
    for_each_mode(|_| {
        for secured in [false, true] {
            let driver = Driver::start();
            let ((pended, was_pended), (dropped, was_dropped)) = (channel(), channel());
            let kept = Mutex::new(OnDrop(dropped));
            let gate = Keeps { tokens: Mutex::default(), pended, _kept: kept };
            let builder = driver.provider.listener().conditional(gate);
            let builder = if secured { builder.security(descriptor(&driver)) } else { builder };
            let listener = wait(builder.bind(localhost())).unwrap();
            let peers: Vec<_> = (0..3).map(|_| Peer::connect(listener.local_addr())).collect();
            for _ in &peers {
                was_pended.next();
            }
            drop(listener);
            driver.unload();
            was_dropped.next();
            for peer in peers {
                peer.expect_reset();
            }
        }
    });
}

/// Tokens, and decisions nobody has asked about, outlive a listener that had a descriptor.
///
/// Prevents: CTL-07, LIFE-12, REG-27
#[test]
fn a_token_that_is_left_over_keeps_nothing() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (tell, tokens) = channel();
        let (dropped, was_dropped) = channel();
        let dropped = Mutex::new(OnDrop(dropped));
        let inspect = fix(move |request| {
            let _ = &dropped;
            let (decision, token) = request.pend().unwrap();
            tell.say(token);
            decision
        });
        let gate = gate(inspect, |_| {});
        let builder = driver.provider.listener().security(descriptor(&driver)).conditional(gate);
        let listener = wait(builder.bind(localhost())).unwrap();
        let peers: Vec<_> = (0..3).map(|_| Peer::connect(listener.local_addr())).collect();
        let (left, rejected) = (tokens.next(), tokens.next().reject());
        let mut aborted = tokens.next();
        for peer in peers {
            if peer.local() == aborted.peer_addr() {
                peer.reset();
                break;
            }
        }
        wait(aborted.aborted());
        drop(listener);
        driver.unload();
        was_dropped.next();
        assert!(left.is_aborted());
        drop((left, rejected, aborted));
    });
}

/// Captures and descriptors may be let go anywhere, also at `DISPATCH_LEVEL` and last of all, and each is
/// given back.
///
/// Prevents: CTL-07, REG-24
#[test]
fn leases_may_end_anywhere() {
    Sim::new().run(|sim| {
        for round in 0..4 {
            let driver = Driver::start();
            let descriptor = descriptor(&driver);
            let (provider, second) = (driver.provider.clone(), descriptor.clone());
            drop(second);
            match round {
                0 => drop(descriptor),
                1 => at_dispatch(|| drop(descriptor)),
                2 => at_dispatch(|| drop((provider.clone(), descriptor))),
                _ => sim.thread("elsewhere", move || drop(descriptor)).join().unwrap(),
            }
            drop(provider);
            driver.unload();
        }
    });
}

/// While descriptors are kept, unloading does not end, and says that a capture is held.
///
/// Prevents: CTL-07, REG-27
#[test]
fn a_descriptor_that_is_kept_is_reported() {
    Sim::new().run(|_| {
        let driver = Driver::start();
        let descriptor = descriptor(&driver);
        drop(driver.provider);
        let held = driver.client.unload(passive(), std::time::Duration::ZERO).unwrap_err();
        eventually(|| held.sockets() == 0 && held.providers() == 1);
        drop(descriptor);
        held.into_inner().unload(passive(), BOUND).expect("unloading");
    });
}

/// A handler is dropped once, with the close; one whose listener never had a socket, with the builder.
#[test]
fn handlers_are_dropped_once() {
    Sim::new().run(|_| {
        let drops = std::sync::Arc::new(AtomicUsize::new(0));
        let counting = || {
            let drops = Counts(drops.clone());
            gate(
                fix(move |request| {
                    let _ = &drops;
                    request.reject()
                }),
                |_| {},
            )
        };
        let driver = Driver::start();
        let listener = wait(driver.provider.listener().conditional(counting()).bind(localhost())).unwrap();
        let accept = listener.accept();
        wait(listener.close());
        assert_eq!(drops.load(Ordering::SeqCst), 1);
        drop(accept);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
        drop(driver.provider.listener().conditional(counting()).bind(localhost()));
        assert_eq!(drops.load(Ordering::SeqCst), 2);
        driver.unload();
        assert_eq!(drops.load(Ordering::SeqCst), 2);
    });
}

struct Counts(std::sync::Arc<AtomicUsize>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Fixes the lifetimes of a closure that inspects.
fn fix<F: for<'a> Fn(Inspection<'a>) -> Decision<'a>>(inspect: F) -> F {
    inspect
}
