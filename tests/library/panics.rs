//! Handlers that panic.

use std::sync::Arc;

use wsk::{AbortHandler, Decision, InspectHandler, InspectId, Inspection};
use wsk_sim::Sim;
use wsk_sim::raw::Peer;

use crate::support::*;

/// Safe code that is wrong: it indexes out of bounds.
struct Indexes([bool; 2]);

impl InspectHandler for Indexes {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        let port = usize::from(request.peer_addr().port());
        if self.0[port] { request.accept() } else { request.reject() }
    }
}

impl AbortHandler for Indexes {
    fn abort(&self, _id: InspectId) {}
}

/// A gate that panics stops the machine then and there, as a driver's panic does: nothing unwinds into WSK,
/// no answer gets out, and nobody is let in. The library has no way to go on: what a panic has left half done
/// is not known to it.
///
/// Prevents: INSP-29
#[test]
fn a_gate_that_panics_lets_nobody_in() {
    let sim = Sim::new();
    sim.expect("LIFE-18");
    let wakes = Arc::new(Wakes::default());
    let woken = Arc::clone(&wakes);
    let machine = sim.clone();
    sim.run(move |_| {
        let driver = Driver::start();
        let listener =
            wait(driver.provider.listener().conditional(Indexes([true; 2])).bind(localhost())).unwrap();
        let mut accept = Box::pin(listener.accept());
        assert!(woken.poll(&mut accept).is_pending());
        let peer = Peer::connect(listener.local_addr());
        eventually(|| machine.kernel().stopped().is_some());
        drop(peer);
    });
    assert_eq!(wakes.count(), 0, "a connection came of it");
    let [stopped] = &sim.violations_of("LIFE-18")[..] else { panic!("one panic, one report") };
    assert!(stopped.detail.contains("WskInspectEvent"), "{stopped}");
    assert!(stopped.detail.contains("index out of bounds"), "{stopped}");
}
