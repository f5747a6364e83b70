//! Many connections at once, with tasks that come from outside meanwhile.
//!
//! Under load the executor's threads also look after the network while they wait, so here they are woken in
//! all ways: by what they complete themselves, by each other, and by threads that know nothing of the
//! network.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use wsk::executor::{Executor, Spawner, block_on};
use wsk::memory::Ref;
use wsk::{
    AbortHandler, Buffer, Client, Connection, Decision, InspectHandler, InspectId, Inspection, Listener,
    Passive,
};
use wsk_sim::Sim;

const PATIENCE: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 48;
const ROUNDS: usize = 60;

struct Gate;

impl InspectHandler for Gate {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        request.accept()
    }
}

impl AbortHandler for Gate {
    fn abort(&self, _id: InspectId) {}
}

/// Handles that the service gives away when it is up.
struct Up {
    address: SocketAddr,
    spawner: Spawner,
    /// Ends it.
    stop: Sender<()>,
}

fn drive(threads: usize, up: &Sender<Up>) {
    // SAFETY: this is the start of a thread of the kernel, at PASSIVE_LEVEL, and it holds no locks.
    let passive = unsafe { Passive::assume() };
    let client = Client::register(passive).unwrap();
    let provider = client.capture(passive, PATIENCE).unwrap();
    let executor = Executor::start(passive, threads).unwrap();
    let spawner = executor.spawner();
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener =
        block_on(passive, provider.listener().inspect(Gate).on_abort(Gate).bind(local)).unwrap().unwrap();
    let address = listener.local_addr();
    let listener = Ref::try_new(listener).unwrap();
    for _ in 0..8 {
        spawner.spawn(accept(listener.clone(), spawner.clone())).unwrap();
    }
    let (stop, stopped) = channel();
    up.send(Up { address, spawner, stop }).unwrap();
    stopped.recv().unwrap();
    executor.stop(passive, PATIENCE).unwrap();
    drop(listener);
    drop(provider);
    client.unload(passive, PATIENCE).unwrap();
}

async fn accept(listener: Ref<Listener>, spawner: Spawner) {
    while let Ok(connection) = listener.accept().await {
        spawner.spawn(echo(connection)).unwrap();
    }
}

async fn echo(mut connection: Connection) {
    let mut buffer = Buffer::try_with_capacity(4096).unwrap();
    loop {
        let (received, filled) = connection.receive(buffer).await;
        if !matches!(received, Ok(1..)) {
            return;
        }
        let (sent, emptied) = connection.send(filled).await;
        if sent.is_err() {
            return;
        }
        buffer = emptied;
    }
}

/// All peers speak, then all listen.
fn talk(peers: &mut [TcpStream], rounds: usize) {
    for round in 0..rounds {
        let message = [round as u8; 64];
        for peer in &mut *peers {
            peer.write_all(&message).unwrap();
        }
        for peer in &mut *peers {
            let mut answer = [0; 64];
            peer.read_exact(&mut answer).unwrap();
            assert_eq!(answer, message);
        }
    }
}

fn under_load(threads: usize) {
    let sim = Sim::new();
    let (sender, up) = channel();
    let driver = sim.thread("driver", move || drive(threads, &sender));
    let Up { address, spawner, stop } = up.recv_timeout(PATIENCE).unwrap();
    let mut peers: Vec<_> = (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
    for peer in &peers {
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let talking = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let outsider = scope.spawn(|| {
            let entered = sim.enter();
            let mut tasks = 0;
            while talking.load(Ordering::Relaxed) || tasks < 10 {
                let (done, is_done) = channel();
                spawner.spawn(async move { done.send(()).unwrap() }).unwrap();
                is_done.recv_timeout(PATIENCE).expect("the task runs");
                tasks += 1;
            }
            drop(entered);
        });
        talk(&mut peers, ROUNDS);
        talking.store(false, Ordering::Relaxed);
        outsider.join().unwrap();
    });
    // Unloaded in the middle of it: what the peers still say is answered by a reset, or not at all.
    for peer in &mut peers {
        peer.write_all(&[0; 64]).unwrap();
    }
    let entered = sim.enter();
    drop(spawner);
    drop(entered);
    stop.send(()).unwrap();
    driver.join().unwrap();
    sim.finish().assert_clean();
}

/// Nothing is lost and nothing is left when one thread serves many connections.
#[test]
fn one_thread_under_load() {
    under_load(1);
}

/// Nothing is lost and nothing is left when several threads serve many connections.
#[test]
fn several_threads_under_load() {
    under_load(3);
}
