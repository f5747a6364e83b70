//! What the servers achieved, and how they compare.

#![expect(clippy::cast_precision_loss, reason = "the counts are far below 2^52")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::SERVERS;
use crate::host::processor_time;

/// One run of the client.
#[derive(Clone, Copy, Debug)]
struct Run {
    count: u64,
    elapsed: Duration,
    processor: Option<Duration>,
}

/// The runs of one comparison.
#[derive(Debug)]
pub(crate) struct Rates {
    name: &'static str,
    runs: BTreeMap<&'static str, Vec<Run>>,
}

impl Rates {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, runs: BTreeMap::new() }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Has the client make `count` steps and tells how long they took.
    pub(crate) fn measure(
        &mut self,
        server: &'static str,
        count: u64,
        drive: &mut impl FnMut(u64),
    ) -> Duration {
        let before = processor_time();
        let start = Instant::now();
        drive(count);
        let elapsed = start.elapsed();
        let processor = before.and_then(|before| Some(processor_time()?.saturating_sub(before)));
        self.runs.entry(server).or_default().push(Run { count, elapsed, processor });
        elapsed
    }

    /// The runs that were measured: those of the warm-up are shorter, the others are all of one length.
    fn measured(&self, server: &str) -> Vec<Run> {
        let Some(runs) = self.runs.get(server) else { return Vec::new() };
        let Some(last) = runs.last() else { return Vec::new() };
        runs.iter().rev().take_while(|run| run.count == last.count).copied().collect()
    }

    /// Steps per second: the median of the runs.
    fn rate(&self, server: &str) -> Option<f64> {
        median(self.measured(server).iter().map(|run| run.count as f64 / run.elapsed.as_secs_f64()))
    }

    /// Microseconds of processor time per step, in the whole process with the client's: the median of the runs.
    fn cost(&self, server: &str) -> Option<f64> {
        let runs = self.measured(server);
        median(runs.iter().filter_map(|run| Some(run.processor?.as_secs_f64() * 1e6 / run.count as f64)))
    }

    /// Prints the servers, and the library against each of the others.
    pub(crate) fn print(&self, title: &str) {
        println!("{title}");
        println!("  {:<10}{:>12}{:>18}{:>14}", "server", "per second", "processor µs each", "wsk / server");
        let wsk = self.rate("wsk");
        for server in SERVERS {
            let Some(rate) = self.rate(server) else { continue };
            let cost = self.cost(server).map_or_else(|| "-".to_owned(), |cost| format!("{cost:.1}"));
            let ratio = wsk.map_or_else(|| "-".to_owned(), |wsk| format!("{:.2}", wsk / rate));
            println!("  {server:<10}{rate:>12.0}{cost:>18}{ratio:>14}");
        }
        println!();
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
