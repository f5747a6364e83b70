//! Scenario of endurance: a mixed load for any time, while the server's resources are watched.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use gate_protocol::Answer;

use super::lifecycle::{Load, ends};
use super::{Paths, Scenario, Seen, Stage};
use crate::demo::processes::checkpoint;
use crate::demo::server::Holdings;

pub(super) const ENDURANCE: Scenario = Scenario {
    name: "endurance",
    client: "served throughout",
    records: "threads, descriptors and memory are flat",
    paths: Paths::Once,
    driver_only: false,
    run: endurance,
};

/// Clients that come at the same time.
const LOAD: usize = 8;
/// Pause of each before the next: the load is to be mixed, not the maximum. All records are kept here.
const PAUSE: Duration = Duration::from_millis(20);
/// Number of parts of the run, in each of which a client has to be served,
const PARTS: u32 = 10;
/// or fewer: each takes so many seconds at least, as the whole machine may stall for a while.
const PART: u64 = 5;
/// Number of samples of the server's resources: the same in each part.
const LOOKS: u32 = 60;
/// Growth that is allowed at the end: clients come and go, and the memory that recognizes late calls fills in
/// the first minutes, up to some megabytes. Leaks of each client add up to more than that in ten minutes: a
/// hundred bytes of each do.
const SLACK: Holdings = Holdings { threads: 8, descriptors: 24, memory: 8 << 10 };

/// Clients that talk, are rejected, pended and accepted, give up, or reset, for the given time.
fn endurance(stage: &mut Stage<'_>) -> Result<Seen> {
    let mut settings = stage.usual();
    settings.answer = Some(Answer::Accept);
    stage.serve(&settings)?;
    let load = Load::new(stage.server.address(), PAUSE);
    let parts = parts(stage.extent.endurance);
    let looks = LOOKS / parts;
    let (mut held, mut idle) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        for number in 0..LOAD {
            let load = &load;
            scope.spawn(move || load.work(number));
        }
        let start = Instant::now();
        for part in 1..=parts {
            let before = load.served.load(Ordering::Relaxed);
            for look in 1..=looks {
                let due = stage.extent.endurance * ((part - 1) * looks + look) / (parts * looks);
                std::thread::sleep((start + due).saturating_duration_since(Instant::now()));
                checkpoint();
                held.extend(stage.server.holdings());
            }
            idle += u32::from(load.served.load(Ordering::Relaxed) == before);
        }
        load.over.store(true, Ordering::Relaxed);
    });
    // Figures of a gate that has come to its end would be those of what is left of it.
    if let Some(why) = stage.server.gone() {
        bail!("{why}");
    }
    let Some((first, last)) = ends(&held) else { bail!("cannot determine the resources of the server") };
    let grown = grown(first, last);
    let (served, wrong) = (load.served.load(Ordering::Relaxed), load.wrong.load(Ordering::Relaxed));
    let client = match (idle, wrong) {
        (0, 0) => "served throughout".to_owned(),
        _ => format!("no client served in {idle} of {parts} parts of the time; {wrong} with wrong bytes"),
    };
    let records = if grown.is_empty() {
        "threads, descriptors and memory are flat".to_owned()
    } else {
        format!("grown: {}", grown.join(", "))
    };
    let seconds = stage.extent.endurance.as_secs();
    let note = format!("{served} clients served in {seconds} s; at first {first}; at last {last}");
    Ok(Seen::new(client, records).with_note(note))
}

/// Number of parts of the time in which a client must be served.
fn parts(time: Duration) -> u32 {
    u32::try_from(time.as_secs() / PART).unwrap_or(PARTS).clamp(1, PARTS)
}

/// Returns the resources that have grown beyond that.
fn grown(first: Holdings, last: Holdings) -> Vec<String> {
    [
        ("threads", first.threads, last.threads, SLACK.threads),
        ("descriptors", first.descriptors, last.descriptors, SLACK.descriptors),
        ("memory", first.memory, last.memory, SLACK.memory),
    ]
    .into_iter()
    .filter(|(_, first, last, slack)| *last > first + slack)
    .map(|(name, first, last, _)| format!("{name} from {first} to {last}"))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_fits_into_each_part() {
        for (seconds, expected) in [(1, 1), (10, 2), (49, 9), (50, 10), (86_400, 10)] {
            assert_eq!(parts(Duration::from_secs(seconds)), expected, "{seconds} s");
        }
    }

    #[test]
    fn growth_is_named() {
        let first = Holdings { threads: 10, descriptors: 20, memory: 30_000 };
        assert!(grown(first, first).is_empty());
        let more = Holdings { threads: 18, descriptors: 44, memory: 38_192 };
        assert!(grown(first, more).is_empty() && grown(more, first).is_empty());
        let last = Holdings { threads: 19, ..more };
        assert_eq!(grown(first, last), ["threads from 10 to 19"]);
        let last = Holdings { memory: 40_000, descriptors: 45, ..first };
        assert_eq!(grown(first, last), ["descriptors from 20 to 45", "memory from 30000 to 40000"]);
    }
}
