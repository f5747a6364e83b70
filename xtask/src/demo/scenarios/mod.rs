//! Scenarios: each sets the server up, sends clients, and compares what they saw and what was recorded, word
//! for word, with what was expected.
//!
//! | file | what |
//! |---|---|
//! | `serving.rs` | accepted, rejected, ended and reset clients |
//! | `asking.rs` | pended clients: answered, not answered, given up |
//! | `configuration.rs` | policy, limits, parameters, a busy port |
//! | `other.rs` | the driver in C, served by the same `netio.sys` |
//! | `memory.rs` | every block of pool is given back |
//! | `endurance.rs` | a mixed load for as long as one likes, and nothing grows |
//! | `lifecycle.rs` | unload, crash, many starts under load, the ledger of all records |

mod asking;
mod configuration;
mod endurance;
mod lifecycle;
mod memory;
mod other;
mod serving;

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gate_protocol::record::AcceptBy;

use super::client::Client;
use super::records::{Mark, Records};
use super::report::{Outcome, RECORDS};
use super::server::{Server, Settings, Started};

/// A scenario.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// Name.
    pub name: &'static str,
    /// Expected observations of the clients; `{by}` stands for the accept path, `{n}` for the number of
    /// starts.
    client: &'static str,
    /// Expected records.
    records: &'static str,
    /// By which accept paths.
    paths: Paths,
    /// True if it needs the driver.
    pub driver_only: bool,
    run: fn(&mut Stage<'_>) -> Result<Seen>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Paths {
    /// Once by each.
    Both,
    /// Once; the path makes no difference.
    Once,
}

/// Actual observations, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Observations of the clients.
    client: String,
    /// Records of the server, or its other reports.
    records: String,
    /// Figures, which are not expected to be anything.
    note: String,
}

impl Seen {
    fn new(client: impl Display, records: impl Display) -> Self {
        Self { client: format!("{client}"), records: format!("{records}"), note: String::new() }
    }

    fn with_note(self, note: String) -> Self {
        Self { note, ..self }
    }

    fn line(&self) -> String {
        match (self.client.is_empty(), self.records.is_empty()) {
            (_, true) => self.client.clone(),
            _ => format!("{}{RECORDS}{}", self.client, self.records),
        }
    }
}

/// Extent of the scenarios that can last as long as one likes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Number of starts.
    pub starts: usize,
    /// Time it serves.
    pub endurance: Duration,
}

/// Environment of a scenario.
pub(crate) struct Stage<'a> {
    server: &'a mut dyn Server,
    by: AcceptBy,
    extent: Extent,
    /// Position at which its records begin.
    mark: Mark,
}

impl Stage<'_> {
    /// The usual settings, by this scenario's accept path.
    fn usual(&self) -> Settings {
        Settings::usual(self.by)
    }

    /// Makes the server run with these settings.
    fn serve(&mut self, settings: &Settings) -> Result<()> {
        match self.server.start(settings)? {
            Started::Listening => Ok(()),
            Started::Failed(why) => bail!("the server does not start: {why}"),
        }
    }

    /// A client from 127.0.0.`last`.
    fn client(&self, last: u8) -> Result<Client> {
        Client::connect(last, self.server.address()).context("this machine cannot make a client")
    }

    fn records(&self) -> &Records {
        self.server.records()
    }

    /// Returns all records of a client.
    fn story(&self, client: SocketAddr) -> Result<String> {
        self.records().story(self.mark, client)
    }
}

/// All scenarios, in the order in which they are tried.
pub(crate) const ALL: &[Scenario] = &[
    serving::ACCEPT,
    serving::REJECT,
    serving::GRACEFUL,
    serving::ABORTIVE,
    serving::HALF_CLOSE,
    serving::CROWD,
    asking::ACCEPT,
    asking::REJECT,
    asking::GIVE_UP,
    asking::TIMEOUT,
    asking::ASKER_CLOSED,
    asking::ASKER_KILLED,
    lifecycle::UNLOAD,
    configuration::LIMITS,
    configuration::POLICY,
    configuration::BAD_SETTINGS,
    configuration::BAD_ADDRESS,
    configuration::BUSY_PORT,
    other::C_DRIVER,
    memory::POOL,
    lifecycle::CRASH,
    lifecycle::STARTS,
    endurance::ENDURANCE,
    lifecycle::LEDGER,
];

/// Plans the scenarios of a server with their accept paths, ordered so that the path seldom changes.
pub(crate) fn plan(driver: bool, only: &[String]) -> Result<Vec<(Scenario, AcceptBy)>> {
    let names = || ALL.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    for name in only {
        match ALL.iter().find(|scenario| scenario.name == *name) {
            None => bail!("unknown scenario {name}; scenarios: {}", names()),
            Some(scenario) if scenario.driver_only && !driver => bail!("{name} needs the driver"),
            Some(_) => {}
        }
    }
    let chosen = |scenario: &&Scenario| {
        (driver || !scenario.driver_only)
            && (only.is_empty() || only.iter().any(|name| *name == scenario.name))
    };
    let with = |paths: Paths, by: AcceptBy| {
        let ours = ALL.iter().filter(chosen).filter(move |scenario| scenario.paths == paths);
        ours.map(move |scenario| (*scenario, by))
    };
    Ok(with(Paths::Both, AcceptBy::Irp)
        .chain(with(Paths::Both, AcceptBy::Event))
        .chain(with(Paths::Once, AcceptBy::Event))
        .collect())
}

/// Tries one.
pub(crate) fn run(server: &mut dyn Server, scenario: &Scenario, by: AcceptBy, extent: Extent) -> Outcome {
    let start = Instant::now();
    let fill = |text: &str| text.replace("{by}", &by.to_string()).replace("{n}", &extent.starts.to_string());
    let expected = Seen::new(fill(scenario.client), fill(scenario.records)).line();
    let mark = server.records().mark();
    let seen = (scenario.run)(&mut Stage { server: &mut *server, by, extent, mark });
    let (mut seen, note) = match seen {
        Ok(seen) => (seen.line(), seen.note),
        Err(error) => (format!("{error:#}"), String::new()),
    };
    if seen != expected
        && let Some(why) = server.gone()
    {
        seen = format!("{seen}; {why}");
    }
    for crash in server.crashes().iter().take(3) {
        seen = format!("{seen}; log: {crash}");
    }
    Outcome {
        scenario: scenario.name,
        accept_path: if scenario.paths == Paths::Both { by.to_string() } else { String::new() },
        ok: seen == expected,
        expected,
        seen,
        note,
        milliseconds: start.elapsed().as_millis(),
    }
}

/// A duration that should not be longer than `limit`, in words that are the same whenever it is not.
fn within(took: Duration, limit: Duration) -> String {
    if took <= limit {
        format!("within {} s", limit.as_secs())
    } else {
        format!("after {:.1} s", took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_plans_are_made_of_them() {
        let names: BTreeSet<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
        let all = plan(true, &[]).unwrap();
        assert!(all.len() > ALL.len() && plan(false, &[]).unwrap().len() < all.len());
        assert_eq!(plan(false, &["reject".to_owned()]).unwrap().len(), 2);
        assert!(plan(true, &["nothing".to_owned()]).is_err());
        assert!(plan(false, &["ask-timeout".to_owned()]).is_err());
    }
}
