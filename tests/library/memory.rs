//! Memory: running out of it at every single allocation, needing none in steady state, and little while idle.

use std::future::Future;
use std::time::Duration;

use wsk::executor::block_on_timeout;
use wsk::options::ExclusiveAddress;
use wsk::{Buffer, Client, Connection, Error, Events, Handlers, Listener, ListenerEvents, Result, Verdict};
use wsk_sim::nt_user::pool::{IRP_TAG, MDL_TAG, WORK_ITEM_TAG};
use wsk_sim::raw::Peer;
use wsk_sim::{Completion, Kernel, Sim};
use wsk_sys::nt::DEVICE_OBJECT;

use crate::support::*;

/// Runs a future to its end; the waiting itself needs memory, too.
fn try_wait<F: Future>(future: F) -> Result<F::Output> {
    block_on_timeout(passive(), BOUND, future)
}

/// A client that is unloaded whatever happens. Ending needs no memory.
struct Unloaded(Option<Client>);

impl Unloaded {
    fn register() -> Result<Self> {
        let device = Kernel::current().and_then(|kernel| kernel.find_extension::<TheDevice>());
        let device = device.map_or(std::ptr::null_mut(), |device| device.0);
        // SAFETY: the device is there until the scenario is over.
        Ok(Self(Some(unsafe { Client::register_for(passive(), device) }?)))
    }
}

impl std::ops::Deref for Unloaded {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.0.as_ref().expect("it is there until the end")
    }
}

impl Drop for Unloaded {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            client.unload(passive(), BOUND).expect("unloading needs no memory");
        }
    }
}

/// The device that the clients of a machine are registered for, if there is one.
struct TheDevice(*mut DEVICE_OBJECT);

// SAFETY: a device object may be named on any thread.
unsafe impl Send for TheDevice {}
// SAFETY: a device object may be named on any thread.
unsafe impl Sync for TheDevice {}

/// Runs `scenario` again and again, on new machines, until every single allocation has failed once: first
/// each alone, then each with all that follow it.
#[track_caller]
fn sweep(completion: Completion, scenario: fn() -> Result<()>) {
    for (all_that_follow, with_device) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut attempt = 1;
        loop {
            let sim = Sim::builder().completion(completion).build();
            let (say, said) = channel();
            sim.run(move |sim| {
                let device =
                    with_device.then(|| sim.kernel().extension(|| TheDevice(sim.kernel().create_device())));
                if all_that_follow {
                    sim.kernel().faults().fail_from(attempt);
                } else {
                    sim.kernel().faults().fail_nth(attempt);
                }
                let outcome = scenario();
                let injected = sim.kernel().faults().injected();
                sim.kernel().faults().clear();
                if let Some(device) = device {
                    eventually(|| sim.kernel().device_references(device.0) == 1);
                    sim.kernel().delete_device(device.0);
                }
                say.say((outcome, injected));
            });
            let (outcome, injected): (Result<()>, _) = said.next();
            if injected == 0 {
                outcome.expect("nothing was made to fail");
                break;
            }
            if let Err(error) = outcome {
                assert!(error.is_out_of_memory(), "attempt {attempt}: {error}");
            }
            attempt += 1;
            assert!(attempt < 1000, "the scenario never ends");
        }
        assert!(attempt > 10, "the scenario asks for memory");
    }
}

fn bytes(bytes: &[u8]) -> Result<Buffer> {
    Buffer::try_from_slice(bytes)
}

/// A server takes one connection and echoes.
fn echo() -> Result<()> {
    let client = Unloaded::register()?;
    let provider = client.capture(passive(), BOUND)?;
    let listener = try_wait(provider.listener().bind(localhost()))??;
    let peer = Peer::connect(listener.local_addr());
    let mut connection = try_wait(listener.accept())??;
    peer.send(b"echo");
    let (received, buffer) = try_wait(connection.receive_exact(Buffer::try_with_capacity(4)?))?;
    received?;
    try_wait(connection.send(buffer))?.0?;
    assert_eq!(peer.receive(4), b"echo");
    try_wait(connection.shutdown_after(bytes(b"bye")?))?.0?;
    assert_eq!(peer.receive(3), b"bye");
    peer.close();
    try_wait(connection.drain())??;
    try_wait(connection.close())?;
    try_wait(listener.close())?;
    Ok(())
}

/// A request is pended, decided, and becomes a connection.
fn inspect() -> Result<()> {
    let client = Unloaded::register()?;
    let provider = client.capture(passive(), BOUND)?;
    let (tell, told) = channel();
    let gate = gate(
        move |request| match request.pend() {
            Ok((decision, token)) => {
                tell.say(Ok(token));
                decision
            }
            Err((error, request)) => {
                tell.say(Err(error));
                request.reject()
            }
        },
        |_| {},
    );
    let listener =
        try_wait(provider.listener().conditional(gate).option(ExclusiveAddress(true)).bind(localhost()))??;
    let peer = Peer::connect(listener.local_addr());
    let token = match told.next() {
        Ok(token) => token,
        Err(error) => {
            peer.expect_reset();
            return Err(error);
        }
    };
    let id = token.id();
    try_wait(token.decide_with(async { Verdict::Accept }))??;
    let connection = try_wait(listener.accept())??;
    assert_eq!(connection.inspect_id()?, id);
    let dropped = Peer::connect(listener.local_addr());
    drop(told.next()?);
    dropped.expect_reset();
    Ok(())
}

/// Connections come by event, with events of their own.
fn events() -> Result<()> {
    let client = Unloaded::register()?;
    let provider = client.capture(passive(), BOUND)?;
    let (tell, told) = channel();
    let (tell_data, data) = channel();
    let take = move |incoming: wsk::Incoming<'_, _>| {
        tell.say(incoming.accept(Handlers::new().receive(tells_data(tell_data.clone()))));
    };
    let listener = try_wait(provider.listener().on_accept(taker(take)).bind(localhost()))??;
    listener.inherit(Events::RECEIVE)?;
    listener.enable(ListenerEvents::ACCEPT)?;
    let peer = Peer::connect(listener.local_addr());
    let connection = match told.next() {
        Ok(connection) => connection,
        Err(error) => {
            peer.expect_reset();
            return Err(error);
        }
    };
    peer.send(b"event");
    assert_eq!(data.next(), b"event");
    try_wait(connection.disable_and_wait(Events::RECEIVE))??;
    let accept = listener.accept_with(Handlers::new());
    try_wait(listener.disable_and_wait(ListenerEvents::ACCEPT))??;
    let other = Peer::connect(listener.local_addr());
    let taken = try_wait(accept)??;
    assert_eq!(taken.peer_addr(), other.local());
    try_wait(taken.ideal_send_backlog())??;
    try_wait(taken.abort())??;
    other.expect_reset();
    Ok(())
}

/// Futures of every kind are dropped under way.
fn dropped() -> Result<()> {
    let client = Unloaded::register()?;
    let provider = client.capture(passive(), BOUND)?;
    let mut bind = Box::pin(provider.listener().bind(localhost()));
    let _ = poll(&mut bind);
    drop(bind);
    let listener = try_wait(provider.listener().bind(localhost()))??;
    let _peer = Peer::connect(listener.local_addr());
    let (mut receiving, mut sending) = try_wait(listener.accept())??.into_split();
    let mut accept = Box::pin(listener.accept());
    let mut receive = Box::pin(receiving.receive(Buffer::try_with_capacity(8)?));
    let mut send = Box::pin(sending.post(bytes(b"x")?));
    let mut disconnect = Box::pin(sending.shutdown());
    let _ = (poll(&mut accept), poll(&mut receive), poll(&mut send), poll(&mut disconnect));
    drop((accept, receive, send, disconnect));
    Ok(())
}

/// A client connects and is echoed to.
fn connect() -> Result<()> {
    let client = Unloaded::register()?;
    let provider = client.capture(passive(), BOUND)?;
    let (host, address) = wsk_sim::raw::host_listener();
    let mut dropped = Box::pin(provider.connect(address));
    let _ = poll(&mut dropped);
    drop(dropped);
    let mut connection = try_wait(provider.connector().handlers(Handlers::new()).connect(address))??;
    // The attempt that was dropped may have been accepted before.
    let peers = [(); 2].map(|()| host.set_nonblocking(true).and_then(|()| host.accept()).ok());
    try_wait(connection.send(bytes(b"echo")?))?.0?;
    try_wait(connection.shutdown())??;
    drop(peers);
    Ok(())
}

/// Prevents: CLOSE-14, SOCK-06
#[test]
fn memory_may_run_out_at_every_allocation_of_a_connect() {
    for completion in [Completion::Natural, Completion::Inline, Completion::PendLate] {
        sweep(completion, connect);
    }
}

/// Each allocation of each scenario fails once: the result is an error value or a refused connection; nothing
/// leaks, hangs or panics, and the machine is left as it was found.
///
/// Prevents: CLOSE-14, REG-02, REG-11, LSN-34, INSP-18, IRQL-14, LIFE-18
#[test]
fn memory_may_run_out_at_every_allocation_of_an_echo() {
    for completion in [Completion::Natural, Completion::Inline, Completion::PendLate] {
        sweep(completion, echo);
    }
}

/// Prevents: CLOSE-14, INSP-18, INSP-29
#[test]
fn memory_may_run_out_at_every_allocation_of_an_inspection() {
    for completion in [Completion::Natural, Completion::Inline, Completion::PendLate] {
        sweep(completion, inspect);
    }
}

/// Prevents: CLOSE-14, ACPT-09, ACPT-10
#[test]
fn memory_may_run_out_at_every_allocation_with_events() {
    for completion in [Completion::Natural, Completion::Inline, Completion::PendLate] {
        sweep(completion, events);
    }
}

/// Prevents: CLOSE-14, IRP-16, LSN-31
#[test]
fn memory_may_run_out_at_every_allocation_while_futures_are_dropped() {
    for completion in [Completion::Natural, Completion::PendEarly, Completion::PendLate] {
        sweep(completion, dropped);
    }
}

/// Closing, unloading and every kind of dropping need no memory at all.
///
/// Prevents: CLOSE-14, REG-27, RCVE-19, IRP-16
#[test]
fn ending_needs_no_memory() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let pending = driver.listen_pending();
        let (tell, told) = channel();
        let retains = on_receive(move |data| match data.retain() {
            Ok((received, retained)) => {
                tell.say(retained);
                received
            }
            Err((_, data)) => data.refuse(),
        });
        let accept = listener.accept_with(Handlers::new().receive(retains));
        let peer = Peer::connect(listener.local_addr());
        let connection = wait(accept).unwrap();
        connection.enable(Events::RECEIVE).unwrap();
        peer.send(b"kept");
        let retained = told.next();
        let (mut other, _other_peer) = connected(&listener);
        let _inspected = Peer::connect(pending.listener.local_addr());
        let token = pending.tokens.next();
        let mut accept = Box::pin(listener.accept());
        let mut receive = Box::pin(other.receive(Buffer::try_with_capacity(8).unwrap()));
        assert!(poll(&mut accept).is_pending());
        assert!(poll(&mut receive).is_pending());

        sim.kernel().faults().fail_from(1);
        drop((accept, receive, token));
        drop((connection, listener, pending));
        let mut close = Box::pin(other.close());
        ready(&mut close);
        drop((close, retained));
        driver.unload();
        sim.kernel().faults().clear();
        drop(peer);
    });
}

/// Counts of what is allocated so far: pool of the library, IRPs, MDLs, work items.
fn allocations() -> [u64; 4] {
    let kernel = Kernel::current().unwrap();
    [wsk::memory::TAG, IRP_TAG, MDL_TAG, WORK_ITEM_TAG].map(|tag| kernel.pool_stats(tag).allocations)
}

/// Takes a connection, echoes, disconnects and closes; gives the buffer back.
fn serve(listener: &Listener, buffer: Buffer) -> Buffer {
    let mut accept = Box::pin(listener.accept());
    let _ = poll(&mut accept).map(|_| panic!("nobody has connected"));
    let peer = Peer::connect(listener.local_addr());
    let mut connection: Connection = ready(&mut accept).unwrap();
    peer.send(b"echo");
    let (received, buffer) = ready(&mut Box::pin(connection.receive(buffer)));
    assert_eq!(received.unwrap(), 4);
    let (sent, buffer) = ready(&mut Box::pin(connection.send(buffer)));
    sent.unwrap();
    assert_eq!(peer.receive(4), b"echo");
    ready(&mut Box::pin(connection.shutdown())).unwrap();
    peer.close();
    ready(&mut Box::pin(connection.drain())).unwrap();
    let mut dropped = Box::pin(connection.receive_backlog());
    let _ = poll(&mut dropped);
    ready(&mut Box::pin(connection.close()));
    buffer
}

/// In steady state nothing is allocated: neither for a connection, nor for an operation, nor for a pended
/// request.
#[test]
fn a_server_in_steady_state_allocates_nothing() {
    for completion in [Completion::Natural, Completion::Inline, Completion::PendLate] {
        Sim::builder().completion(completion).build().run(|_| {
            let driver = Driver::start();
            let listener = driver.listen();
            let pending = driver.listen_pending();
            let mut buffer = Some(Buffer::try_with_capacity(64).unwrap());
            let inspected = || {
                let peer = Peer::connect(pending.listener.local_addr());
                drop(pending.tokens.next());
                peer.expect_reset();
            };
            // A block may still be on its way back to its list when the next one is asked for, so how many
            // there are in all shows only after a while.
            let steady = (0..20).find(|_| {
                let before = allocations();
                for _ in 0..10 {
                    let lent = buffer.take().expect("it came back");
                    buffer = Some(serve(&listener, lent));
                    inspected();
                }
                allocations() == before
            });
            assert!(steady.is_some(), "it goes on allocating");
            drop((buffer, listener));
            drop(pending);
            driver.unload();
        });
    }
}

/// An idle connection with a receive under way takes less than 1 KiB besides the buffer.
#[test]
fn an_idle_connection_takes_less_than_a_kibibyte() {
    const CONNECTIONS: usize = 200;
    const CAPACITY: usize = 64;
    Sim::new().run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let stats = || Kernel::current().unwrap().pool_stats(wsk::memory::TAG);
        let before = stats().bytes;
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS {
            let (connection, peer) = connected(&listener);
            let mut receive = receiving(connection, Buffer::try_with_capacity(CAPACITY).unwrap());
            assert!(poll(&mut receive).is_pending());
            idle.push((receive, peer));
        }
        let each = (stats().bytes - before) / CONNECTIONS - CAPACITY;
        assert!(each < 1024, "{each} bytes for each idle connection");
        drop((idle, listener));
        driver.unload();
    });
}

/// Errors of the library say that memory was out, and of which operation.
#[test]
fn running_out_of_memory_is_an_error_of_the_operation() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let mut accepts = Vec::new();
        sim.kernel().faults().fail_from(1);
        let error: Error = loop {
            let mut accept = Box::pin(listener.accept());
            match poll(&mut accept) {
                std::task::Poll::Pending => accepts.push(accept),
                std::task::Poll::Ready(outcome) => break outcome.unwrap_err(),
            }
        };
        sim.kernel().faults().clear();
        assert_eq!(error.operation(), wsk::Operation::Accept);
        assert!(error.is_out_of_memory());
        // Those that were under way go on.
        let peer = Peer::connect(listener.local_addr());
        let first = if accepts.is_empty() { Box::pin(listener.accept()) } else { accepts.remove(0) };
        assert_eq!(wait(first).unwrap().peer_addr(), peer.local());
        drop((accepts, listener));
        driver.unload();
    });
}

/// The bound of the sweep's scenarios is one of this machine, not of the library.
#[test]
fn waiting_is_bounded() {
    Sim::new().run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let late = block_on_timeout(passive(), Duration::from_millis(5), listener.accept());
        assert!(late.unwrap_err().is_timeout());
        drop(listener);
        driver.unload();
    });
}
