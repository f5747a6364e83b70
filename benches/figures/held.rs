//! Cost of a connection that is held and idle.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::service::{Allocated, BUFFER, Role, Service};

/// Connections held.
const HELD: usize = 5_000;
/// Bytes that one may cost besides its buffer.
const LIMIT: usize = 1024;
/// Number of connections that are made at a time: WSK refuses more than fit into a listener's queue.
const BATCH: usize = 50;
/// Time that the service may take to have them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Cost of one connection besides its buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    what: &'static str,
    bytes: usize,
    blocks: usize,
}

/// Holds connections in two ways.
pub(crate) fn measure() -> [Cost; 2] {
    [
        cost(Role::Hold, "the connection, and a receive under way"),
        cost(Role::Echo, "and the task that serves it"),
    ]
}

fn cost(role: Role, what: &'static str) -> Cost {
    let service = Service::start(role);
    let before = service.allocated();
    let mut clients = Vec::with_capacity(HELD);
    while clients.len() < HELD {
        clients.extend((0..BATCH).map(|_| connect(&service)));
        wait_for(&service, &before, clients.len());
    }
    let after = settled(&service);
    for client in &clients {
        SockRef::from(client).set_linger(Some(Duration::ZERO)).expect("a connection can linger");
    }
    // A buffer is a block of the library, and a list of the kernel's that describes it.
    let bytes = after.library.bytes - before.library.bytes - HELD * BUFFER;
    let blocks = after.library.blocks - before.library.blocks - HELD;
    Cost { what, bytes: bytes.div_ceil(HELD), blocks: (blocks + HELD / 2) / HELD }
}

/// Prints.
pub(crate) fn print(costs: &[Cost]) {
    println!("Non-paged pool of each of {HELD} idle connections, besides its buffer");
    println!("  {:<40}{:>9}{:>9}", "what", "bytes", "blocks");
    for Cost { what, bytes, blocks } in costs {
        println!("  {what:<40}{bytes:>9}{blocks:>9}");
    }
    println!();
}

/// # Panics
/// If a connection costs the library too much. The task is not the library's: its size is that of the
/// service's future.
pub(crate) fn check(costs: &[Cost]) {
    let [connection, ..] = costs else { return };
    assert!(connection.bytes < LIMIT, "an idle connection costs less than {LIMIT} bytes");
}

fn connect(service: &Service) -> TcpStream {
    TcpStream::connect(service.address()).unwrap_or_else(|error| {
        panic!("cannot hold {HELD} connections, which needs twice as many descriptors: {error}")
    })
}

/// Waits until so many sessions have their buffers.
fn wait_for(service: &Service, before: &Allocated, sessions: usize) {
    let start = Instant::now();
    loop {
        let buffers = service.allocated().mdls.blocks - before.mdls.blocks;
        if buffers == sessions {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "the service has {buffers} of {sessions} connections after {PATIENCE:?}"
        );
        std::thread::yield_now();
    }
}

/// Allocations when nothing changes any more: the last receives are under way.
fn settled(service: &Service) -> Allocated {
    loop {
        let now = service.allocated();
        std::thread::sleep(Duration::from_millis(50));
        let later = service.allocated();
        if now.attempts == later.attempts {
            return later;
        }
    }
}
