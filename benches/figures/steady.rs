//! What the library allocates once it has warmed up: nothing.

use crate::client::{Callers, Talkers};
use crate::service::{Role, Service};
use crate::{CONNECTIONS, MESSAGE};

/// Steps of the client before anything is counted.
const WARM_UP: u64 = 5_000;
/// More connections are under way in the warm-up than later: the server may still have the last ones to close when the
/// client has made new ones.
const WARM_UP_CONNECTIONS: usize = 2 * CONNECTIONS;
/// Steps that are counted.
const COUNTED: u64 = 10_000;

/// Counts, prints, and asserts.
pub(crate) fn report() {
    println!("Allocations in steady state, in {COUNTED} steps each");
    println!("  {:<44}{:>10}{:>8}{:>8}", "step", "library", "IRPs", "MDLs");
    let service = Service::start(Role::Greet);
    Callers::new(service.address(), WARM_UP_CONNECTIONS).call(WARM_UP);
    let mut callers = Callers::new(service.address(), CONNECTIONS);
    count(&service, "inspect, accept, send, receive, close", || callers.call(COUNTED));
    drop(service);
    let service = Service::start(Role::Echo);
    let mut talkers = Talkers::connect(service.address(), CONNECTIONS, MESSAGE);
    talkers.talk(WARM_UP);
    count(&service, "receive, send", || talkers.talk(COUNTED));
    println!();
}

fn count(service: &Service, what: &str, drive: impl FnOnce()) {
    let before = service.allocated();
    drive();
    let after = service.allocated();
    let library = after.library.allocations - before.library.allocations;
    let irps = after.irps.allocations - before.irps.allocations;
    let mdls = after.mdls.allocations - before.mdls.allocations;
    println!("  {what:<44}{library:>10}{irps:>8}{mdls:>8}");
    let attempts = after.attempts - before.attempts;
    assert_eq!((library, irps, mdls, attempts), (0, 0, 0, 0), "steady state allocates nothing: {what}");
}
