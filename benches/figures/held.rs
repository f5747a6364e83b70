//! What a connection costs that is held and idle.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::service::{Allocated, BUFFER, Role, Service};

/// Connections held.
const HELD: usize = 5_000;
/// What one may cost besides its buffer.
const LIMIT: usize = 1024;
/// How many are made at a time: WSK refuses more than fit into a listener's queue.
const BATCH: usize = 50;
/// How long the service may take to have them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts, prints, and asserts. Each connection is open, is served by a task, and has a receive under way.
pub(crate) fn report() {
    let service = Service::start(Role::Echo);
    let before = service.allocated();
    let mut clients = Vec::with_capacity(HELD);
    while clients.len() < HELD {
        clients.extend((0..BATCH).map(|_| connect(&service)));
        wait_for(&service, &before, clients.len());
    }
    let after = settled(&service);
    // A buffer is two blocks: the bytes, and the list that describes them.
    let bytes = after.library.bytes - before.library.bytes - HELD * BUFFER;
    let each = bytes.div_ceil(HELD);
    let blocks = after.library.blocks - before.library.blocks - HELD;
    println!("Memory of {HELD} idle connections, each with its task and a receive under way");
    println!(
        "  {each} bytes of non-paged pool each, in {:.1} blocks, besides its buffer",
        blocks as f64 / HELD as f64
    );
    assert!(each < LIMIT, "an idle connection costs less than {LIMIT} bytes");
    for client in &clients {
        SockRef::from(client).set_linger(Some(Duration::ZERO)).expect("a connection can linger");
    }
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
        assert!(start.elapsed() < PATIENCE, "the service has {buffers} of {sessions} connections after {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// What is allocated when nothing changes any more: the last receives are under way.
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
