//! Rates of the servers, and how they compare.
//!
//! Criterion measures one server after the other. The ratios come from short turns that the servers take one
//! after the other, round by round, so that whatever else the machine does in the meantime concerns all of
//! them.

#![expect(clippy::cast_precision_loss, reason = "the counts are far below 2^52")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::host::processor_time;

/// Number of turns of each server.
const ROUNDS: usize = 15;
/// Time that a turn is to last.
const TURN: Duration = Duration::from_millis(250);

/// One run of the client.
#[derive(Clone, Copy, Debug)]
struct Run {
    count: u64,
    elapsed: Duration,
    processor: Option<Duration>,
}

impl Run {
    fn measure(count: u64, drive: &mut impl FnMut(u64)) -> Self {
        let before = processor_time();
        let start = Instant::now();
        drive(count);
        let elapsed = start.elapsed();
        let processor = before.and_then(|before| Some(processor_time()?.saturating_sub(before)));
        Self { count, elapsed, processor }
    }

    /// Steps per second.
    fn rate(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds of processor time per step, in the whole process with the client's.
    fn cost(&self) -> Option<f64> {
        Some(self.processor?.as_secs_f64() * 1e6 / self.count as f64)
    }
}

/// The runs of one comparison.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    /// The last run that criterion asked for, which is as long as any.
    last: BTreeMap<&'static str, Run>,
    /// Results of the turns.
    turns: BTreeMap<&'static str, Vec<Run>>,
}

impl Rates {
    /// Has the client make `count` steps and tells how long they took.
    pub(crate) fn measure(
        &mut self,
        server: &'static str,
        count: u64,
        drive: &mut impl FnMut(u64),
    ) -> Duration {
        let run = Run::measure(count, drive);
        self.last.insert(server, run);
        run.elapsed
    }

    /// Lets the servers take turns, unless one of them was not measured before.
    pub(crate) fn take_turns<D: FnMut(u64)>(&mut self, drives: &mut BTreeMap<&'static str, D>) {
        for _ in 0..ROUNDS {
            for (server, drive) in &mut *drives {
                let Some(last) = self.last.get(server) else { return };
                let count = (last.rate() * TURN.as_secs_f64()) as u64;
                self.turns.entry(server).or_default().push(Run::measure(count.max(1), drive));
            }
        }
    }

    /// Prints the servers, and `subject` against each of them.
    pub(crate) fn print(&self, title: &str, subject: &str) {
        println!("{title}");
        let ratio = format!("{subject} / server");
        println!("  {:<10}{:>12}{:>18}{ratio:>14}", "server", "per second", "processor µs each");
        let subjects = self.turns.get(subject).map_or(&[][..], Vec::as_slice);
        for (server, turns) in &self.turns {
            let rate = median(turns.iter().map(Run::rate));
            let cost = turns.iter().map(Run::cost).collect::<Option<Vec<_>>>();
            let cost = cost.map_or_else(|| "-".to_owned(), |costs| format!("{:.1}", median(costs)));
            let ratio =
                median(subjects.iter().zip(turns).map(|(subject, turn)| subject.rate() / turn.rate()));
            println!("  {server:<10}{rate:>12.0}{cost:>18}{ratio:>14.2}");
        }
        println!();
    }
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
