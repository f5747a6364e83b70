//! Scenarios of the configuration: replaced at run time, invalid, or unavailable.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gate_protocol::{Action, Limits};

use super::{Paths, Scenario, Seen, Stage, within};
use crate::demo::client::{Client, Observation};
use crate::demo::records::{PATIENCE, count};
use crate::demo::server::{BadValue, Started};

/// Number of clients that one source can have in [`LIMITS`].
const SHARE: usize = 3;

pub(super) const LIMITS: Scenario = Scenario {
    name: "limits",
    client: "3 silent, one more of them: reset; another: all 3 bytes back; then the 3: reset, reset, reset; \
             one more: all 3 bytes back",
    records: "one more: reject (source); each of the 3: accept, accepted by {by}, dropped (idle), closed 0/0",
    paths: Paths::Both,
    driver_only: false,
    run: limits,
};

/// Idle time limit in [`LIMITS`], in milliseconds: more than a loaded machine takes for what happens
/// meanwhile.
const SILENCE: u32 = 10_000;

/// Idle clients of one source keep no other source out, and lose their own places after the limit.
fn limits(stage: &mut Stage<'_>) -> Result<Seen> {
    let mut settings = stage.usual();
    settings.limits = Limits { clients: 8, per_source: SHARE as u32, idle_timeout: SILENCE };
    stage.serve(&settings)?;
    let silent: Vec<Client> = (0..SHARE).map(|_| stage.client(2)).collect::<Result<_>>()?;
    for client in &silent {
        stage.records().accepted(stage.mark, client.name)?;
    }
    let one_more = stage.client(2)?;
    let (refused, other) = (one_more.listen(), stage.client(6)?.echo(b"one"));
    let ends: Vec<_> = silent.iter().map(|client| client.listen().to_string()).collect();
    let mut stories: Vec<_> = silent.iter().map(|client| stage.story(client.name)).collect::<Result<_>>()?;
    let again = served_again(stage)?;
    let refusal = stage.story(one_more.name)?;
    stories.dedup();
    Ok(Seen::new(
        format!(
            "{SHARE} silent, one more of them: {refused}; another: {other}; then the {SHARE}: {}; one more: \
             {again}",
            ends.join(", ")
        ),
        format!("one more: {refusal}; each of the {SHARE}: {}", stories.join(", or ")),
    ))
}

/// Returns what one more client of a source sees once the source has room again. A connection is recorded as
/// closed just before its place is free.
fn served_again(stage: &Stage<'_>) -> Result<Observation> {
    let start = Instant::now();
    loop {
        let observation = stage.client(2)?.echo(b"one");
        if observation == Observation::Echo(3) || start.elapsed() > PATIENCE {
            return Ok(observation);
        }
    }
}

pub(super) const POLICY: Scenario = Scenario {
    name: "policy-set",
    client: "all 3 bytes back; replaced: reset, who was in: all 3 bytes back; put back: all 3 bytes back",
    records: "2 replaced",
    paths: Paths::Once,
    driver_only: true,
    run: |stage| {
        let usual = stage.usual();
        stage.serve(&usual)?;
        let (old, bytes) = (stage.client(6)?, b"one");
        let first = old.echo(bytes);
        stage.server.set_policy(&[("127.0.0.6/31", Action::Reject)], Action::Accept)?;
        let (refused, kept) = (stage.client(6)?.listen(), old.echo(bytes));
        stage.server.set_policy(&usual.nets, usual.default)?;
        let last = stage.client(6)?.echo(bytes);
        let replaced =
            stage.records().wait(stage.mark, "records that the policy was replaced", PATIENCE, |lines| {
                let replaced = count(lines, "policy");
                (replaced >= 2).then_some(replaced)
            })?;
        Ok(Seen::new(
            format!("{first}; replaced: {refused}, who was in: {kept}; put back: {last}"),
            format!("{replaced} replaced"),
        ))
    },
};

pub(super) const BAD_SETTINGS: Scenario = Scenario {
    name: "bad-settings",
    client: "all 3 bytes back; 127.0.0.3 reset; who is not named any more reset",
    records: "AcceptBy unknown-word, Default wrong-type, Reject entry 2 not-a-network, \
              VerdictTimeout out-of-range",
    paths: Paths::Once,
    driver_only: true,
    run: |stage| {
        let mut settings = stage.usual();
        settings.nets.push(("127.0.0.2", Action::Accept));
        settings.bad = vec![
            ("AcceptBy", BadValue::Text("pigeon")),
            ("Default", BadValue::Number(1)),
            // The valid entry counts nevertheless; all other addresses are rejected, since the invalid entry
            // may have rejected them.
            ("Reject", BadValue::Texts(&["127.0.0.3", "127.0.0.300"])),
            ("VerdictTimeout", BadValue::Number(0)),
        ];
        stage.serve(&settings)?;
        let served = stage.client(2)?.echo(b"one");
        let (refused, unnamed) = (stage.client(3)?.listen(), stage.client(6)?.listen());
        let mut bad = stage.records().wait(stage.mark, "record of each bad value", PATIENCE, |lines| {
            let bad: Vec<_> = lines.iter().filter(|line| line["event"] == "bad-setting").cloned().collect();
            (bad.len() >= settings.bad.len()).then_some(bad)
        })?;
        bad.sort_by_key(|line| line["setting"].to_string());
        let words = bad.iter().map(|line| {
            let text = |field: &str| line[field].as_str().unwrap_or("?").to_owned();
            let entry = line["entry"].as_u64().filter(|entry| *entry > 0);
            let entry = entry.map_or_else(String::new, |entry| format!(" entry {entry}"));
            format!("{}{entry} {}", text("setting"), text("problem"))
        });
        let words: Vec<_> = words.collect();
        let client = format!("{served}; 127.0.0.3 {refused}; who is not named any more {unnamed}");
        Ok(Seen::new(client, words.join(", ")))
    },
};

pub(super) const BAD_ADDRESS: Scenario = Scenario {
    name: "bad-address",
    client: "then, with a good one: all 3 bytes back",
    records: "Listen not-an-address; not started: STATUS_INVALID_PARAMETER; stopped within 10 s",
    paths: Paths::Once,
    driver_only: true,
    run: |stage| {
        let mut settings = stage.usual();
        settings.bad = vec![("Listen", BadValue::Text("127.0.0.1:port"))];
        let started = match stage.server.start(&settings)? {
            Started::Failed(why) if why.contains("0xc000000d") => "STATUS_INVALID_PARAMETER".to_owned(),
            Started::Failed(why) => why,
            Started::Listening => bail!("it listens somewhere"),
        };
        let problem = stage.records().wait(stage.mark, "record of the bad value", PATIENCE, |lines| {
            let bad = lines.iter().find(|line| line["event"] == "bad-setting")?;
            Some(format!("{} {}", bad["setting"].as_str()?, bad["problem"].as_str()?))
        })?;
        let stopped = within(stage.server.stop()?, Duration::from_secs(10));
        stage.serve(&stage.usual())?;
        let served = stage.client(2)?.echo(b"one");
        Ok(Seen::new(
            format!("then, with a good one: {served}"),
            format!("{problem}; not started: {started}; stopped {stopped}"),
        ))
    },
};

pub(super) const BUSY_PORT: Scenario = Scenario {
    name: "busy-port",
    client: "served by who has the port; then, with another port: all 3 bytes back",
    records: "not started: STATUS_ADDRESS_ALREADY_EXISTS; stopped within 10 s",
    paths: Paths::Once,
    driver_only: false,
    run: busy_port,
};

/// Status when the port is taken.
const ADDRESS_ALREADY_EXISTS: u32 = 0xC000_020A;

fn busy_port(stage: &mut Stage<'_>) -> Result<Seen> {
    let taken = TcpListener::bind("127.0.0.1:0").context("no port to take")?;
    let mut settings = stage.usual();
    settings.listen = taken.local_addr().context("the port has no number")?;
    let started = match stage.server.start(&settings)? {
        Started::Listening => "started on a port that is taken".to_owned(),
        Started::Failed(why) if why.contains("STATUS_ADDRESS_ALREADY_EXISTS") => {
            "not started: STATUS_ADDRESS_ALREADY_EXISTS".to_owned()
        }
        Started::Failed(why) if why.contains(&format!("{ADDRESS_ALREADY_EXISTS:#010x}")) => {
            "not started: STATUS_ADDRESS_ALREADY_EXISTS".to_owned()
        }
        Started::Failed(why) => format!("not started: {why}"),
    };
    let connected = std::net::TcpStream::connect_timeout(&settings.listen, PATIENCE);
    let whose = match connected.and_then(|_| taken.accept()) {
        Ok(_) => "served by who has the port",
        Err(_) => "not served by who has the port",
    };
    let stopped = stage.server.stop()?;
    stage.serve(&stage.usual())?;
    let served = stage.client(2)?.echo(b"one");
    let stopped = within(stopped, Duration::from_secs(10));
    Ok(Seen::new(
        format!("{whose}; then, with another port: {served}"),
        format!("{started}; stopped {stopped}"),
    ))
}
