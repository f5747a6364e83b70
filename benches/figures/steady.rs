//! Allocations of the library once it has warmed up: none.

use crate::client::{self, Callers, Talkers};
use crate::service::{Role, Service, WORKERS};
use crate::{CONNECTIONS, MESSAGE};

/// Steps of the client before anything is counted.
const WARM_UP: u64 = 5_000;
/// Steps that are counted.
const COUNTED: u64 = 10_000;

/// Allocations in [`COUNTED`] steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    step: &'static str,
    library: u64,
    irps: u64,
    mdls: u64,
    /// Attempts at anything, whoever made them.
    attempts: u64,
}

/// Counts.
pub(crate) fn count() -> [Count; 2] {
    let service = Service::start(Role::Greet);
    // Once every worker has been busy at the same time, there is nothing that could still grow.
    client::occupy(service.address(), WORKERS);
    let mut callers = Callers::new(service.address(), CONNECTIONS);
    callers.call(WARM_UP);
    let accepts = during(&service, "inspect, accept, send, receive, close", || callers.call(COUNTED));
    drop(service);
    let service = Service::start(Role::Echo);
    let mut talkers = Talkers::connect(service.address(), CONNECTIONS, MESSAGE);
    talkers.talk(WARM_UP);
    let round_trips = during(&service, "receive, send", || talkers.talk(COUNTED));
    [accepts, round_trips]
}

fn during(service: &Service, step: &'static str, drive: impl FnOnce()) -> Count {
    let before = service.allocated();
    drive();
    let after = service.allocated();
    Count {
        step,
        library: after.library.allocations - before.library.allocations,
        irps: after.irps.allocations - before.irps.allocations,
        mdls: after.mdls.allocations - before.mdls.allocations,
        attempts: after.attempts - before.attempts,
    }
}

/// Prints.
pub(crate) fn print(counts: &[Count]) {
    println!("Allocations in steady state, in {COUNTED} steps each");
    println!("  {:<40}{:>9}{:>7}{:>7}", "step", "library", "IRPs", "MDLs");
    for Count { step, library, irps, mdls, .. } in counts {
        println!("  {step:<40}{library:>9}{irps:>7}{mdls:>7}");
    }
    println!();
}

/// # Panics
/// If anything was allocated.
pub(crate) fn check(counts: &[Count]) {
    for count in counts {
        let Count { library, irps, mdls, attempts, .. } = *count;
        assert_eq!(
            (library, irps, mdls, attempts),
            (0, 0, 0, 0),
            "steady state allocates nothing: {count:?}"
        );
    }
}
