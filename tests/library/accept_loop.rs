//! The accept loop of the README: it survives errors that pass, and ends with its listener.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use wsk::executor::{Executor, Spawner};
use wsk::{Buffer, Connection, Listener, Result, Status};
use wsk_sim::raw::Peer;
use wsk_sim::{Completion, FaultPoint, Sim};

use crate::support::*;

async fn greet(mut connection: Connection) -> Result<()> {
    let (sent, _buffer) = connection.send(Buffer::try_from_slice(b"hello\n")?).await;
    sent?;
    connection.shutdown().await
}

async fn serve(listener: Listener, spawner: Spawner) -> Result<()> {
    // The arms are those of the README and of the crate's documentation, to the letter.
    loop {
        match listener.accept().await {
            // Without memory for a task the connection is dropped, which resets it.
            Ok(connection) => drop(spawner.spawn(async move { greet(connection).await.unwrap_or(()) })),
            // Out of memory, or the peer is gone already: the next one may succeed.
            Err(error) if error.is_transient() => listener.pause().await,
            // The listener has died, or is closed.
            Err(error) => return Err(error),
        }
    }
}

/// The arms of the match in the first accept loop in a text.
fn arms_in(text: &str) -> Vec<&str> {
    let lines = text.lines().map(|line| line.trim_start_matches("//!").trim());
    let mut lines =
        lines.skip_while(|line| !line.starts_with("// Without memory for a task")).collect::<Vec<_>>();
    lines.truncate(8);
    lines
}

#[test]
fn it_is_the_documented_one() {
    let own = arms_in(include_str!("accept_loop.rs"));
    assert_eq!(own[6..], ["}", "}"]);
    assert_eq!(arms_in(&include_str!("../../README.md").replace("net.spawn", "spawner.spawn")), own);
    assert_eq!(arms_in(&include_str!("../../src/lib.rs").replace("echo", "greet")), own);
}

/// Runs the loop on an executor, without memory from its start if it is to `starve`; `body` says what happens
/// meanwhile, and must end the listener.
fn run(sim: &Sim, starve: bool, body: impl FnOnce(&Driver, std::net::SocketAddr)) -> Result<()> {
    let driver = Driver::start();
    let executor = Executor::start(passive(), 2).unwrap();
    let listener = driver.listen();
    let local = listener.local_addr();
    let (tell, told) = channel();
    let serving = serve(listener, executor.spawner());
    let kernel = sim.kernel().clone();
    let task = async move {
        if starve {
            kernel.faults().fail_from(1);
        }
        tell.say(serving.await);
    };
    executor.spawner().spawn(task).unwrap();
    body(&driver, local);
    let ended = told.next();
    sim.kernel().faults().clear();
    assert!(executor.stop(passive(), BOUND).is_ok());
    driver.unload();
    ended
}

/// Kills the one listener.
fn kill(sim: &Sim) {
    for socket in sim.provider().open_sockets() {
        if socket.description.starts_with("Listen") {
            sim.provider().kill(socket.address as *mut _);
        }
    }
}

/// Returns whether a peer is greeted; else it is reset.
fn greeted(local: std::net::SocketAddr) -> bool {
    let Ok(peer) = Peer::try_connect(local) else { return false };
    let mut bytes = [0; 6];
    let mut stream = peer.stream();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    match stream.read_exact(&mut bytes) {
        Ok(()) => bytes == *b"hello\n",
        Err(error) => {
            assert!(
                !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                "nobody serves the peer"
            );
            false
        }
    }
}

/// Every allocation that the loop, its tasks and WSK on their behalf ask for fails once: peers may be reset
/// meanwhile, but then others are greeted.
///
/// Prevents: LSN-31
#[test]
fn the_loop_survives_every_failed_allocation() {
    for completion in [Completion::Natural, Completion::Inline, Completion::PendLate] {
        let mut attempt = 1;
        loop {
            let sim = Sim::builder().completion(completion).build();
            let (say, said) = channel();
            sim.run(move |sim| {
                let ended = run(sim, false, |driver, local| {
                    sim.kernel().faults().fail_nth(attempt);
                    for _ in 0..3 {
                        greeted(local);
                    }
                    say.say(sim.kernel().faults().injected());
                    sim.kernel().faults().clear();
                    eventually(|| greeted(local));
                    assert!(driver.client.open_sockets() >= 1);
                    kill(sim);
                });
                assert_eq!(ended.unwrap_err().status(), Status::FILE_FORCED_CLOSED);
            });
            if said.next() == 0 {
                break;
            }
            attempt += 1;
        }
        assert!(attempt > 3, "serving asks for memory");
    }
}

/// WSK's own memory is out for a while.
#[test]
fn the_loop_survives_what_wsk_cannot_do_for_a_while() {
    for_each_mode(|sim| {
        let ended = run(sim, false, |_, local| {
            sim.choose(FaultPoint::AllocationFails, 1);
            let peer = Peer::try_connect(local);
            sim.choose_naturally(FaultPoint::AllocationFails);
            eventually(|| greeted(local));
            drop(peer);
            kill(sim);
        });
        assert_eq!(ended.unwrap_err().status(), Status::FILE_FORCED_CLOSED);
    });
}

/// While all memory is out the loop waits, and does not spin; then it goes on. It ends also without memory.
#[test]
fn the_loop_survives_a_time_without_memory() {
    for_each_mode(|sim| {
        for ends_without in [false, true] {
            let start = Instant::now();
            let ended = run(sim, true, |driver, local| {
                // Each try fails at its first allocation, and a pause follows.
                eventually(|| sim.kernel().faults().injected() >= 3);
                assert!(start.elapsed() >= Duration::from_millis(400), "it spins");
                assert!(driver.client.open_sockets() == 1);
                if !ends_without {
                    sim.kernel().faults().clear();
                    assert!(greeted(local));
                }
                kill(sim);
            });
            assert!(!ended.unwrap_err().is_transient());
        }
    });
}

/// The loop ends when its client unloads.
#[test]
fn the_loop_ends_with_the_client() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let executor = Executor::start(passive(), 1).unwrap();
        let listener = driver.listen();
        let local = listener.local_addr();
        let (tell, told) = channel();
        let serving = serve(listener, executor.spawner());
        executor.spawner().spawn(async move { tell.say(serving.await) }).unwrap();
        assert!(greeted(local));
        driver.unload();
        assert!(!told.next().unwrap_err().is_transient());
        assert!(executor.stop(passive(), BOUND).is_ok());
    });
}

/// A pause lasts, ends, ends at once when the client stops, and may be dropped.
#[test]
fn a_pause_is_a_moment() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        sim.kernel().faults().fail_from(1);
        let wakes = std::sync::Arc::new(Wakes::default());
        let mut pause = Box::pin(listener.pause());
        let mut dropped = Box::pin(driver.provider.pause());
        assert!(wakes.poll(&mut pause).is_pending() && poll(&mut dropped).is_pending());
        assert!(wakes.poll(&mut pause).is_pending());
        drop(dropped);
        eventually(|| wakes.count() > 0);
        assert!(wakes.poll(&mut pause).is_ready());
        let mut last = Box::pin(driver.provider.pause());
        assert!(poll(&mut last).is_pending());
        sim.kernel().faults().clear();
        let provider = driver.provider.clone();
        drop(listener);
        assert!(poll(&mut last).is_pending() || poll(&mut last).is_ready());
        drop(provider);
        driver.unload();
        assert!(poll(&mut last).is_ready());
    });
}
