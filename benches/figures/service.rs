//! The server that is measured: the library over the user-mode kernel and the live provider, as they come.

use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;
use std::time::Duration;

use crate::CONNECTIONS;

use wsk::executor::{Executor, Spawner, block_on};
use wsk::memory::{Ref, TAG};
use wsk::sync::SpinLock;
use wsk::{
    AbortHandler, Buffer, Client, Connection, Decision, InspectHandler, InspectId, Inspection, Listener,
    Passive,
};
use wsk_sim::Sim;
use wsk_sim::nt_user::Joiner;
use wsk_sim::nt_user::pool::{IRP_TAG, MDL_TAG, PoolStats};

/// Threads that run sessions. The provider has one more of its own for the sockets.
const THREADS: usize = 1;
/// Accept requests under way at a time, where every connection gets a task of its own.
const ACCEPTS: usize = 16;
/// Tasks that accept and serve one connection after the other, where connections are short.
pub(crate) const WORKERS: usize = CONNECTIONS;
/// The room for a message.
pub(crate) const BUFFER: usize = 4096;
/// Time that starting and ending may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Service of a server to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sends one byte, then waits for the client to close.
    Greet,
    /// Sends everything back.
    Echo,
    /// Keeps the connection with a receive under way, and has no task for it.
    Hold,
}

/// A service on a machine of its own. Dropping it unloads it and looks for violations and leaks.
#[derive(Debug)]
pub(crate) struct Service {
    sim: Sim,
    address: SocketAddr,
    stop: Sender<()>,
    driver: Option<Joiner<()>>,
}

/// Allocations of the library.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocated {
    /// Under the library's own tag.
    pub(crate) library: PoolStats,
    /// IRPs.
    pub(crate) irps: PoolStats,
    /// MDLs.
    pub(crate) mdls: PoolStats,
    /// Every attempt at anything, whoever made it.
    pub(crate) attempts: u64,
}

impl Service {
    pub(crate) fn start(role: Role) -> Self {
        let sim = Sim::new();
        let (started, address) = channel();
        let (stop, stopped) = channel();
        let driver = sim.thread("driver", move || drive(role, &started, &stopped));
        let address = address.recv_timeout(PATIENCE).expect("the service starts");
        Self { sim, address, stop, driver: Some(driver) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn allocated(&self) -> Allocated {
        let kernel = self.sim.kernel();
        Allocated {
            library: kernel.pool_stats(TAG),
            irps: kernel.pool_stats(IRP_TAG),
            mdls: kernel.pool_stats(MDL_TAG),
            attempts: kernel.faults().attempts(),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // If the driver is gone, joining it says why.
        let _ = self.stop.send(());
        if let Some(driver) = self.driver.take() {
            driver.join().expect("the driver does not panic");
        }
        self.sim.finish().assert_clean();
    }
}

/// Lets in whoever comes from this machine.
struct Gate;

impl InspectHandler for Gate {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        if request.peer_addr().ip().is_loopback() { request.accept() } else { request.reject() }
    }
}

impl AbortHandler for Gate {
    fn abort(&self, _id: InspectId) {}
}

/// A receive under way, with its connection.
type Held = Pin<Box<dyn Future<Output = ()> + Send>>;

/// State that the tasks share.
struct Shared {
    role: Role,
    listener: Listener,
    spawner: Spawner,
    /// Buffers that no session has.
    buffers: SpinLock<Vec<Buffer>>,
    /// The connections that are only held.
    held: SpinLock<Vec<Held>>,
}

/// Life of a driver between its load and its unload.
fn drive(role: Role, started: &Sender<SocketAddr>, stop: &Receiver<()>) {
    // SAFETY: this is the start of a thread of the kernel, at PASSIVE_LEVEL, and it holds no locks.
    let passive = unsafe { Passive::assume() };
    let client = Client::register(passive).expect("WSK takes the registration");
    let provider = client.capture(passive, PATIENCE).expect("WSK is there");
    let executor = Executor::start(passive, THREADS).expect("there are threads");
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = block_on(passive, provider.listener().inspect(Gate).on_abort(Gate).bind(local))
        .expect("there is memory");
    let listener = listener.expect("a port is free");
    let address = listener.local_addr();
    let (buffers, held) = (SpinLock::new(Vec::new()), SpinLock::new(Vec::new()));
    let shared = Shared { role, listener, spawner: executor.spawner(), buffers, held };
    let shared = Ref::try_new(shared).expect("there is memory");
    for _ in 0..if role == Role::Greet { WORKERS } else { ACCEPTS } {
        executor.spawner().spawn(accept(shared.clone())).expect("there is memory");
    }
    started.send(address).expect("the host waits");
    stop.recv().expect("the host says when to stop");
    executor.stop(passive, PATIENCE).expect("no task holds a thread");
    drop(shared);
    drop(provider);
    client.unload(passive, PATIENCE).expect("nothing is held");
}

/// Takes one connection after the other, until the listener is closed.
async fn accept(shared: Ref<Shared>) {
    loop {
        let connection = match shared.listener.accept().await {
            Ok(connection) => connection,
            Err(error) if error.is_transient() => {
                shared.listener.pause().await;
                continue;
            }
            Err(_) => return,
        };
        // Without memory the connection is closed.
        match shared.role {
            Role::Greet => serve(&shared, connection).await,
            Role::Echo => drop(shared.spawner.spawn(serve_alone(shared.clone(), connection))),
            Role::Hold => drop(hold(&shared, connection).await),
        }
    }
}

async fn hold(shared: &Shared, mut connection: Connection) -> wsk::Result<()> {
    let buffer = Buffer::try_with_capacity(BUFFER)?;
    let mut receive: Held = Box::pin(async move {
        let _ = connection.receive(buffer).await;
    });
    // Starts it. Nothing comes, and no task is to be woken.
    let begun = poll_fn(|context| Poll::Ready(receive.as_mut().poll(context))).await;
    if begun.is_pending() {
        shared.held.with(|held| held.push(receive));
    }
    Ok(())
}

async fn serve_alone(shared: Ref<Shared>, connection: Connection) {
    serve(&shared, connection).await;
}

async fn serve(shared: &Shared, mut connection: Connection) {
    let kept = shared.buffers.with(Vec::pop);
    let Some(buffer) = kept.or_else(|| Buffer::try_with_capacity(BUFFER).ok()) else { return };
    let buffer = match shared.role {
        Role::Greet => greet(&mut connection, buffer).await,
        Role::Echo | Role::Hold => echo(&mut connection, buffer).await,
    };
    connection.close().await;
    shared.buffers.with(|buffers| buffers.push(buffer));
}

async fn greet(connection: &mut Connection, mut buffer: Buffer) -> Buffer {
    if buffer.set_len(1).is_err() {
        return buffer;
    }
    let (sent, buffer) = connection.send(buffer).await;
    if sent.is_err() {
        return buffer;
    }
    // A client that has gone ends the connection, which is all there is to do about it.
    let (_, buffer) = connection.receive(buffer).await;
    buffer
}

async fn echo(connection: &mut Connection, mut buffer: Buffer) -> Buffer {
    loop {
        let (received, filled) = connection.receive(buffer).await;
        if !matches!(received, Ok(1..)) {
            return filled;
        }
        let (sent, emptied) = connection.send(filled).await;
        if sent.is_err() {
            return emptied;
        }
        buffer = emptied;
    }
}
