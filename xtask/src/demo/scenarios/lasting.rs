//! What a gate has to survive: its unload with everything open, a crash of its machine, and starts without number.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Paths, Scenario, Seen, Stage, within};
use crate::demo::client::{Client, Sight, pattern};
use crate::demo::records::PATIENCE;

/// An unload takes no longer than this, whatever is open.
const UNLOAD_LIMIT: Duration = Duration::from_secs(10);

pub(super) const UNLOAD: Scenario = Scenario {
    name: "unload",
    client: "4 idle, 2 talking, 2 pended: all ended",
    records: "stopped within 10 s; then served again: all 3 bytes back",
    paths: Paths::Both,
    driver_only: false,
    run: unload,
};

/// Idle clients, clients in the middle of their talk, pended ones, and, with the driver, a program that holds a question and
/// one that follows the records: then the gate is unloaded.
fn unload(stage: &mut Stage<'_>) -> Result<Seen> {
    stage.serve(&stage.usual())?;
    // Where programs are asked, one of them has a handle open and a question in hand.
    let asker = stage.gate.asker().ok();
    let idle: Vec<Client> = (0..4).map(|_| stage.client(2)).collect::<Result<_>>()?;
    let pended: Vec<Client> = (0..2).map(|_| stage.client(4)).collect::<Result<_>>()?;
    for client in &idle {
        stage.records().accepted(stage.mark, client.name)?;
    }
    for client in &pended {
        stage.records().pended(stage.mark, client.name)?;
    }
    let talking: Vec<Client> = (0..2).map(|_| stage.client(2)).collect::<Result<_>>()?;
    let (bytes, rounds) = (pattern(30_000), AtomicUsize::new(0));
    let (took, talkers) = std::thread::scope(|scope| {
        let (bytes, rounds) = (&bytes, &rounds);
        let talk = |client| {
            scope.spawn(move || {
                // Until the gate is gone; a client that is never ended notices that by its patience.
                let expected = Sight::Echo(bytes.len());
                loop {
                    match Client::echo(client, bytes) {
                        sight if sight == expected => _ = rounds.fetch_add(1, Ordering::Relaxed),
                        sight => return sight,
                    }
                }
            })
        };
        let talkers: Vec<_> = talking.iter().map(talk).collect();
        let deadline = Instant::now() + PATIENCE;
        while rounds.load(Ordering::Relaxed) < 10 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let took = stage.gate.stop();
        let sights: Vec<Sight> = talkers.into_iter().filter_map(|talker| talker.join().ok()).collect();
        (took, sights)
    });
    let took = took?;
    if let Some(asker) = asker {
        asker.close()?;
    }
    // Either kind of end is one; silence is none.
    let ended = |sights: Vec<Sight>| {
        sights.iter().filter(|sight| !matches!(sight, Sight::Silence | Sight::Error(_))).count()
    };
    let idle = ended(idle.iter().map(Client::listen).collect());
    let pended = ended(pended.iter().map(Client::listen).collect());
    let talking = ended(talkers);
    let all = if (idle, talking, pended) == (4, 2, 2) { "all" } else { "only these" };
    stage.serve(&stage.usual())?;
    let again = stage.client(2)?.echo(b"one");
    Ok(Seen::new(
        format!("{idle} idle, {talking} talking, {pended} pended: {all} ended"),
        format!("stopped {}; then served again: {again}", within(took, UNLOAD_LIMIT)),
    ))
}

pub(super) const CRASH: Scenario = Scenario {
    name: "machine-killed",
    client: "cut off; then served again: all 3 bytes back",
    records: "",
    paths: Paths::Once,
    driver_only: false,
    run: |stage| {
        stage.serve(&stage.usual())?;
        let client = stage.client(2)?;
        let before = client.echo(b"one");
        if before != Sight::Echo(3) {
            bail!("not served before: {before}");
        }
        stage.gate.crash()?;
        let cut = match client.listen() {
            Sight::End | Sight::Reset => "cut off".to_owned(),
            other => other.to_string(),
        };
        stage.serve(&stage.usual())?;
        let again = stage.client(2)?.echo(b"one");
        Ok(Seen::new(format!("{cut}; then served again: {again}"), ""))
    },
};

pub(super) const STARTS: Scenario = Scenario {
    name: "starts-under-load",
    client: "served after each of {n} starts",
    records: "each stop within 10 s; no growth",
    paths: Paths::Once,
    driver_only: false,
    run: starts,
};

/// Clients of the load that come at the same time.
const LOAD: usize = 4;
/// How many of them are served between a start and the stop that follows.
const SERVED: usize = 12;
/// After so many starts everything that is made once has been made.
const WARM: usize = 3;
/// What may be more than after that: what just happens to be under way.
const SLACK: usize = 4;

/// What the clients of the load share.
struct Load {
    to: Mutex<SocketAddr>,
    served: AtomicUsize,
    wrong: AtomicUsize,
    over: AtomicBool,
}

fn starts(stage: &mut Stage<'_>) -> Result<Seen> {
    let settings = stage.usual();
    // With another driver loaded the process of the drivers stays, so what a start leaves behind adds up.
    if stage.gate.load_other(&[("Port", 0)]).is_err() && stage.gate.status().is_ok() {
        bail!("the driver in C is not loaded");
    }
    stage.serve(&settings)?;
    let load = Load {
        to: Mutex::new(stage.gate.address()),
        served: AtomicUsize::new(0),
        wrong: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        for number in 0..LOAD {
            let load = &load;
            scope.spawn(move || load.work(number));
        }
        let result = cycle(stage, &settings, &load);
        load.over.store(true, Ordering::Relaxed);
        result
    })
    .and_then(|seen| stage.gate.unload_other().map(|()| seen))
}

/// Stops and starts the gate, while the load goes on.
fn cycle(stage: &mut Stage<'_>, settings: &super::Settings, load: &Load) -> Result<Seen> {
    let (mut good, mut slowest, mut warm, mut last) = (0, Duration::ZERO, None, None);
    for number in 0..stage.starts {
        slowest = slowest.max(stage.gate.stop()?);
        stage.serve(settings)?;
        let before = load.served.load(Ordering::Relaxed);
        *load.to.lock().unwrap_or_else(PoisonError::into_inner) = stage.gate.address();
        let deadline = Instant::now() + PATIENCE;
        let served = || load.served.load(Ordering::Relaxed) - before;
        while served() < SERVED && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if served() >= SERVED {
            good += 1;
        }
        last = stage.gate.holdings();
        if number + 1 == WARM.min(stage.starts) {
            warm = last;
        }
    }
    let growth = match (warm, last) {
        (Some(warm), Some(last))
            if last.threads > warm.threads + SLACK || last.descriptors > warm.descriptors + LOAD + SLACK =>
        {
            format!("grown from {warm} to {last}")
        }
        _ => "no growth".to_owned(),
    };
    let wrong = match load.wrong.load(Ordering::Relaxed) {
        0 => String::new(),
        wrong => format!(", {wrong} with wrong bytes"),
    };
    Ok(Seen::new(
        format!("served after each of {good} starts{wrong}"),
        format!("each stop {}; {growth}", within(slowest, UNLOAD_LIMIT)),
    ))
}

impl Load {
    /// One client after the other: most talk, some are rejected, pended and give up, or reset.
    fn work(&self, number: usize) {
        let bytes = pattern(2000);
        let mut round = number;
        while !self.over.load(Ordering::Relaxed) {
            round += 1;
            let to = *self.to.lock().unwrap_or_else(PoisonError::into_inner);
            let last = [2, 2, 4, 2, 3][round % 5];
            let Ok(client) = Client::connect(last, to) else { continue };
            if last == 2 {
                match client.echo(&bytes) {
                    Sight::Echo(_) => _ = self.served.fetch_add(1, Ordering::Relaxed),
                    // The gate was being stopped.
                    Sight::Cut(_) | Sight::End | Sight::Reset => {}
                    Sight::Refused => std::thread::sleep(Duration::from_millis(2)),
                    _ => _ = self.wrong.fetch_add(1, Ordering::Relaxed),
                }
            } else {
                // It gives up, or is rejected.
                client.patience(Duration::from_millis(2));
                client.listen();
            }
            if round.is_multiple_of(3) {
                // A client that cannot reset ends in order.
                let _ = client.reset();
            }
        }
    }
}

pub(super) const LEDGER: Scenario = Scenario {
    name: "all-records",
    client: "each request has one answer and one end",
    records: "no contradictions",
    paths: Paths::Once,
    driver_only: false,
    run: |stage| {
        // All of them, also those of the last stop.
        stage.gate.stop()?;
        let ledger = stage.records().ledger();
        if ledger.requests == 0 {
            bail!("nothing was recorded");
        }
        match ledger.contradictions.first() {
            None => Ok(Seen::new("each request has one answer and one end", "no contradictions")),
            Some(first) => bail!("{} contradictions, the first: {first}", ledger.contradictions.len()),
        }
    },
};
