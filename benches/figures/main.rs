//! The figures of the library, next to plain servers that do the same on the same machine in the same run.
//!
//! ```text
//!              accepts, echo (criterion)             memory, allocations (counted)
//!   client ──► plain, a thread per connection        client ──► library over wsk_sim ──► pool statistics
//!          ──► plain, one thread with mio
//!          ──► library over wsk_sim, live, Natural
//! ```
//!
//! `cargo bench --bench figures` runs it; `docs/figures.md` says how it measures, and what was measured last.

mod client;
mod held;
mod host;
mod plain;
mod rates;
mod service;
mod steady;

use std::net::SocketAddr;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};

use crate::client::{Callers, Talkers};
use crate::plain::{polling, threads};
use crate::rates::Rates;
use crate::service::{Role, Service};

/// Number of connections that the client has under way at a time.
const CONNECTIONS: usize = 64;
/// Number of bytes that it sends at a time.
const MESSAGE: usize = 64;

/// The servers that are compared, in the order of their turns.
const SERVERS: [&str; 3] = ["mio", "wsk", "threads"];

/// A server of one of the three kinds. It ends when it is dropped.
enum Server {
    Threads(threads::Server),
    Polling(polling::Server),
    Wsk(Service),
}

impl Server {
    fn start(name: &str, role: Role) -> Self {
        match name {
            "threads" => Self::Threads(threads::Server::start(role)),
            "mio" => Self::Polling(polling::Server::start(role)),
            _ => Self::Wsk(Service::start(role)),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Threads(server) => server.address(),
            Self::Polling(server) => server.address(),
            Self::Wsk(service) => service.address(),
        }
    }
}

fn main() {
    host::allow_descriptors();
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .without_plots()
        .configure_from_args();
    let accepts = compare(&mut criterion, "accepts", Role::Greet, |address| {
        let mut callers = Callers::new(address, CONNECTIONS);
        move |count| callers.call(count)
    });
    let round_trips = compare(&mut criterion, "echo", Role::Echo, |address| {
        let mut talkers = Talkers::connect(address, CONNECTIONS, MESSAGE);
        move |count| talkers.talk(count)
    });
    criterion.final_summary();
    let counts = steady::count();
    let costs = held::measure();

    println!();
    accepts.print("Accepts per second, through gate and IRP accept", "wsk");
    round_trips.print("Echo round trips per second, 64 connections, 64 bytes", "wsk");
    steady::print(&counts);
    held::print(&costs);
    steady::check(&counts);
    held::check(&costs);
}

/// Measures the three servers with the same client.
fn compare<C: FnMut(u64)>(
    criterion: &mut Criterion,
    what: &str,
    role: Role,
    client: impl Fn(SocketAddr) -> C,
) -> Rates {
    let mut rates = Rates::default();
    let mut group = criterion.benchmark_group(what);
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(1));
    for name in SERVERS {
        group.bench_function(name, |bencher| {
            let server = Server::start(name, role);
            let mut drive = client(server.address());
            bencher.iter_custom(|count| rates.measure(name, count, &mut drive));
        });
    }
    group.finish();
    let servers = SERVERS.map(|name| (name, Server::start(name, role)));
    let mut drives = servers.iter().map(|(name, server)| (*name, client(server.address()))).collect();
    rates.take_turns(&mut drives);
    rates
}
