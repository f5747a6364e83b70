//! Scenarios of the server's life: an unload with everything open, a crash of its machine, and many starts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Paths, Scenario, Seen, Stage, within};
use crate::demo::client::{Client, Observation, pattern};
use crate::demo::records::PATIENCE;
use crate::demo::server::Holdings;

/// Number of times that the talking clients are served before the unload.
const ROUNDS: usize = 10;
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

/// Idle clients, clients in the middle of their talk, pended ones, and, with the driver, a program that holds
/// a question and one that follows the records: then the gate is unloaded.
fn unload(stage: &mut Stage<'_>) -> Result<Seen> {
    stage.serve(&stage.usual())?;
    // With the driver, a program has a handle open and a question in hand.
    let mut asker = stage.server.asker()?;
    let idle: Vec<Client> = (0..4).map(|_| stage.client(2)).collect::<Result<_>>()?;
    let pended: Vec<Client> = (0..2).map(|_| stage.client(4)).collect::<Result<_>>()?;
    for client in &idle {
        stage.records().accepted(stage.mark, client.name)?;
    }
    for client in &pended {
        stage.records().pended(stage.mark, client.name)?;
    }
    if let Some(asker) = &mut asker {
        asker.asked()?;
    }
    let talking: Vec<Client> = (0..2).map(|_| stage.client(2)).collect::<Result<_>>()?;
    let (bytes, rounds) = (pattern(30_000), AtomicUsize::new(0));
    let (took, talkers) = std::thread::scope(|scope| {
        let (bytes, rounds) = (&bytes, &rounds);
        let talk = |client| {
            scope.spawn(move || {
                // Until the gate is gone; a client that is never ended notices that by its patience.
                let expected = Observation::Echo(bytes.len());
                loop {
                    match Client::echo(client, bytes) {
                        observation if observation == expected => _ = rounds.fetch_add(1, Ordering::Relaxed),
                        observation => return observation,
                    }
                }
            })
        };
        let talkers: Vec<_> = talking.iter().map(talk).collect();
        let deadline = Instant::now() + PATIENCE;
        while rounds.load(Ordering::Relaxed) < ROUNDS && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = stage.server.stop();
        let observations: Vec<Observation> =
            talkers.into_iter().filter_map(|talker| talker.join().ok()).collect();
        (took, observations)
    });
    let took = took?;
    if rounds.load(Ordering::Relaxed) < ROUNDS {
        bail!("the talking clients were not served");
    }
    if let Some(asker) = asker {
        asker.close()?;
    }
    // Either kind of end is one, in the midst of an answer, too; silence and other bytes are none.
    let ended = |observations: Vec<Observation>| {
        observations
            .iter()
            .filter(|observation| {
                matches!(observation, Observation::End | Observation::Reset | Observation::Cut(_))
            })
            .count()
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
        if before != Observation::Echo(3) {
            bail!("not served before: {before}");
        }
        stage.server.crash()?;
        let cut = match client.listen() {
            Observation::End | Observation::Reset => "cut off".to_owned(),
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
/// Number of them that are served between a start and the stop that follows.
const SERVED: usize = 12;
/// Growth that is allowed after so many starts: Wine's own threads come and go, and each start with a leak
/// adds at least one. Memory is measured coarsely, as Wine keeps some for each start; `pool` counts every
/// block.
fn slack(starts: usize) -> Holdings {
    Holdings { threads: 2 + starts / 10, descriptors: 10 + starts / 10, memory: 4096 + 128 * starts }
}

/// State shared by the clients of a load.
pub(super) struct Load {
    to: Mutex<SocketAddr>,
    pub(super) served: AtomicUsize,
    pub(super) wrong: AtomicUsize,
    pub(super) over: AtomicBool,
    /// Pause of each between two of its clients.
    pause: Duration,
}

fn starts(stage: &mut Stage<'_>) -> Result<Seen> {
    let settings = stage.usual();
    stage.server.keep_process()?;
    stage.serve(&settings)?;
    let load = Load::new(stage.server.address(), Duration::ZERO);
    std::thread::scope(|scope| {
        for number in 0..LOAD {
            let load = &load;
            scope.spawn(move || load.work(number));
        }
        let result = cycle(stage, &settings, &load);
        load.over.store(true, Ordering::Relaxed);
        result
    })
    .and_then(|seen| stage.server.unload_other().map(|()| seen))
    .inspect_err(|_| {
        // It is not available for later scenarios; the error is reported, and another one would add nothing.
        let _ = stage.server.crash();
    })
}

/// Stops and starts the gate, while the load goes on.
fn cycle(stage: &mut Stage<'_>, settings: &super::Settings, load: &Load) -> Result<Seen> {
    let (mut good, mut slowest, mut held) = (0, Duration::ZERO, Vec::new());
    for _ in 0..stage.extent.starts {
        slowest = slowest.max(stage.server.stop()?);
        // While it is not loaded: everything that exists now is a leak.
        held.extend(stage.server.holdings());
        stage.serve(settings)?;
        let before = load.served.load(Ordering::Relaxed);
        *load.to.lock().unwrap_or_else(PoisonError::into_inner) = stage.server.address();
        let deadline = Instant::now() + PATIENCE;
        let served = || load.served.load(Ordering::Relaxed) - before;
        while served() < SERVED && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if served() >= SERVED {
            good += 1;
        }
    }
    let ends = ends(&held);
    let growth = match ends {
        Some((first, last)) if has_grown((first, last), stage.extent.starts) => {
            format!("grown from {first} to {last}")
        }
        None if !held.is_empty() => format!("{} starts are too few to tell growth", held.len()),
        // A gate that is a process of its own has said each time that nothing was left, or `stop` would have
        // failed.
        _ => "no growth".to_owned(),
    };
    let held = ends.map_or_else(String::new, |(first, last)| format!("; at first {first}; at last {last}"));
    let served = load.served.load(Ordering::Relaxed);
    let note = format!("{served} clients served, slowest stop {} ms{held}", slowest.as_millis());
    let wrong = match load.wrong.load(Ordering::Relaxed) {
        0 => String::new(),
        wrong => format!(", {wrong} with wrong bytes"),
    };
    Ok(Seen::new(
        format!("served after each of {good} starts{wrong}"),
        format!("each stop {}; {growth}", within(slowest, UNLOAD_LIMIT)),
    )
    .with_note(note))
}

/// Returns the resources that the processes held at the beginning and at the end. Of several samples the
/// least counts: processes that are just ending add to the others.
pub(super) fn ends(held: &[Holdings]) -> Option<(Holdings, Holdings)> {
    // The first start makes what is made once.
    let held = held.get(1..)?;
    let part = (held.len() / 3).clamp(1, 10).min(held.len() / 2);
    Some((least(&held[..part])?, least(&held[held.len() - part..])?))
}

/// Returns whether there is more at the end than ordinary changes explain.
fn has_grown((first, last): (Holdings, Holdings), starts: usize) -> bool {
    let slack = slack(starts);
    last.threads > first.threads + slack.threads
        || last.descriptors > first.descriptors + slack.descriptors
        || last.memory > first.memory + slack.memory
}

/// The least of each.
fn least(held: &[Holdings]) -> Option<Holdings> {
    held.iter().copied().reduce(|one, other| Holdings {
        threads: one.threads.min(other.threads),
        descriptors: one.descriptors.min(other.descriptors),
        memory: one.memory.min(other.memory),
    })
}

impl Load {
    pub(super) fn new(to: SocketAddr, pause: Duration) -> Self {
        let (served, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { to: Mutex::new(to), served, wrong, over: AtomicBool::new(false), pause }
    }

    /// One client after the other: most talk, some are rejected, pended and give up, or reset.
    pub(super) fn work(&self, number: usize) {
        let bytes = pattern(2000);
        let mut round = number;
        while !self.over.load(Ordering::Relaxed) {
            round += 1;
            std::thread::sleep(self.pause);
            let to = *self.to.lock().unwrap_or_else(PoisonError::into_inner);
            let last = [2, 2, 4, 2, 3][round % 5];
            let Ok(client) = Client::connect(last, to) else {
                // This machine has no port left for it right now.
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            if last == 2 {
                match client.echo(&bytes) {
                    Observation::Echo(_) => _ = self.served.fetch_add(1, Ordering::Relaxed),
                    // The gate was being stopped.
                    Observation::Cut(_) | Observation::End | Observation::Reset => {}
                    Observation::Refused => std::thread::sleep(Duration::from_millis(2)),
                    _ => _ = self.wrong.fetch_add(1, Ordering::Relaxed),
                }
            } else {
                // It gives up, or is rejected: it gets no data, whether the gate was being stopped or
                // not.
                client.patience(Duration::from_millis(2));
                if !matches!(
                    client.listen(),
                    Observation::Silence | Observation::Reset | Observation::End | Observation::Refused
                ) {
                    self.wrong.fetch_add(1, Ordering::Relaxed);
                }
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
        stage.server.stop()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn held(descriptors: impl IntoIterator<Item = usize>) -> Vec<Holdings> {
        let with = |descriptors| Holdings { threads: 50, descriptors, memory: 1000 };
        descriptors.into_iter().map(with).collect()
    }

    fn grown(held: &[Holdings]) -> bool {
        ends(held).is_some_and(|ends| has_grown(ends, held.len()))
    }

    #[test]
    fn what_comes_and_goes_is_no_growth() {
        assert!(ends(&[]).is_none() && ends(&held([900])).is_none());
        assert!(!grown(&held([900, 500, 510])));
        assert!(!grown(&held((0..100).map(|n| 500 + n % 7 * 3))));
    }

    #[test]
    fn what_stays_is_growth() {
        assert!(grown(&held(500..600)));
        assert_eq!(ends(&held(500..600)).unwrap().0.descriptors, 501);
    }
}
