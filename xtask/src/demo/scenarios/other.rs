//! Scenario of a WSK client in C, without this project's library, served by our `netio.sys`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Paths, Scenario, Seen, Stage};
use crate::demo::client::{Client, Observation, pattern};
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
    let served =
        clients.iter().filter(|client| client.echo(&bytes) == Observation::Echo(bytes.len())).count();
    // Unloaded with all of these open.
    let to = load(stage, REJECT)?;
    drop(clients);
    let rejected = Client::connect(2, to)?.listen();
    let to = load(stage, PEND_ACCEPT)?;
    let pended = Client::connect(2, to)?.echo(b"may I");
    let to = load(stage, PEND_REJECT)?;
    let refused = Client::connect(2, to)?.listen();
    stage.server.unload_other()?;
    Ok(Seen::new(
        format!(
            "accept: {accepted}; {served} of {CLIENTS} at once; inspect and reject: {rejected}; \
             pend and accept: {pended}; pend and reject: {refused}"
        ),
        "unloaded, nothing left, no violations",
    ))
}

/// Returns an unused port, another one each time. It is below the host's range for clients: one of ours could
/// have it before the driver does, or have released it just before.
fn free_port() -> Result<u16> {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id();
    (0..COUNT)
        .map(|_| FIRST + own.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok())
        .context("this machine has no free port")
}

/// Loads it on a free port, and waits until it listens.
fn load(stage: &mut Stage<'_>, inspect: u32) -> Result<SocketAddr> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    stage.server.load_other(&[("Port", to.port().into()), ("Inspect", inspect)])?;
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
