//! A WSK client in C that has nothing of this project's library in it, served by our `netio.sys`.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Paths, Scenario, Seen, Stage};
use crate::demo::client::{Client, Sight, pattern};
use crate::demo::records::PATIENCE;

pub(super) const C_DRIVER: Scenario = Scenario {
    name: "c-driver",
    client: "accept: all 300000 bytes back, then the end; 50 of 50 at once; inspect and reject: reset; \
             pend and accept: all 5 bytes back; pend and reject: reset",
    records: "unloaded, nothing left, no violations",
    paths: Paths::Once,
    driver_only: true,
    run: c_driver,
};

/// Values of its parameter `Inspect`.
const REJECT: u32 = 2;
const PEND_ACCEPT: u32 = 3;
const PEND_REJECT: u32 = 4;
/// Clients that come at once.
const CLIENTS: usize = 50;

fn c_driver(stage: &mut Stage<'_>) -> Result<Seen> {
    let plain = load(stage, 0)?;
    let accepted = Client::connect(2, plain)?.echo_to_the_end(&pattern(300_000));
    let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(2, plain)).collect::<Result<_, _>>()?;
    let bytes = pattern(2000);
    let served = clients.iter().filter(|client| client.echo(&bytes) == Sight::Echo(bytes.len())).count();
    // Unloaded with all of these open.
    let to = load(stage, REJECT)?;
    drop(clients);
    let rejected = Client::connect(2, to)?.listen();
    let to = load(stage, PEND_ACCEPT)?;
    let pended = Client::connect(2, to)?.echo(b"may I");
    let to = load(stage, PEND_REJECT)?;
    let refused = Client::connect(2, to)?.listen();
    stage.gate.unload_other()?;
    Ok(Seen::new(
        format!(
            "accept: {accepted}; {served} of {CLIENTS} at once; inspect and reject: {rejected}; \
             pend and accept: {pended}; pend and reject: {refused}"
        ),
        "unloaded, nothing left, no violations",
    ))
}

/// Loads it on a free port, and waits until it listens.
fn load(stage: &mut Stage<'_>, inspect: u32) -> Result<SocketAddr> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let to = free.context("this machine has no free port")?;
    stage.gate.load_other(&[("Port", to.port().into()), ("Inspect", inspect)])?;
    let deadline = Instant::now() + PATIENCE;
    // A probe is a client, too: it is served like any other, or rejected.
    while Client::connect(9, to)?.refused() {
        if Instant::now() > deadline {
            bail!("the driver in C does not listen on {to}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(to)
}
