//! Scenarios of pended requests: answered, not answered, given up by the client.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use gate_protocol::Answer;

use super::{Paths, Scenario, Seen, Stage, within};
use crate::demo::server::Asker;

/// Limit until a client is rejected when the program that was asked has gone.
const SOON: Duration = Duration::from_secs(5);
/// The time-out where it is waited for.
const TIMEOUT_AFTER: Duration = Duration::from_millis(700);

pub(super) const ACCEPT: Scenario = Scenario {
    name: "ask-accept",
    client: "all 6 bytes back, then the end",
    records: "pend, verdict accept, accepted by {by}, graceful disconnect, closed 6/6",
    paths: Paths::Both,
    driver_only: false,
    run: |stage| {
        let mut settings = stage.usual();
        settings.answer = Some(Answer::Accept);
        stage.serve(&settings)?;
        let client = stage.client(4)?;
        // Sent before the decision.
        let observation = client.echo_to_the_end(b"may I?");
        Ok(Seen::new(observation, stage.story(client.name)?))
    },
};

pub(super) const REJECT: Scenario = Scenario {
    name: "ask-reject",
    client: "reset",
    records: "pend, verdict reject",
    paths: Paths::Both,
    driver_only: false,
    run: |stage| {
        let mut settings = stage.usual();
        settings.answer = Some(Answer::Reject);
        stage.serve(&settings)?;
        let client = stage.client(4)?;
        let observation = client.listen();
        Ok(Seen::new(observation, stage.story(client.name)?))
    },
};

pub(super) const GIVE_UP: Scenario = Scenario {
    name: "give-up",
    client: "waits, then resets",
    records: "pend, abort",
    paths: Paths::Both,
    driver_only: false,
    run: |stage| {
        stage.serve(&stage.usual())?;
        let client = stage.client(4)?;
        let name = client.name;
        stage.records().pended(stage.mark, name)?;
        client.reset()?;
        Ok(Seen::new("waits, then resets", stage.story(name)?))
    },
};

pub(super) const TIMEOUT: Scenario = Scenario {
    name: "ask-timeout",
    client: "reset when the time-out is over",
    records: "pend, verdict reject; 1 timed out",
    paths: Paths::Both,
    driver_only: true,
    run: |stage| {
        let mut settings = stage.usual();
        settings.verdict_timeout = TIMEOUT_AFTER;
        stage.serve(&settings)?;
        let before = timed_out(stage)?;
        let start = Instant::now();
        let client = stage.client(4)?;
        let observation = client.listen();
        let took = start.elapsed();
        // A timer may be a tick early.
        let early = took < TIMEOUT_AFTER.saturating_sub(Duration::from_millis(50));
        let when = if early || took > TIMEOUT_AFTER + SOON {
            format!("after {} ms", took.as_millis())
        } else {
            "when the time-out is over".to_owned()
        };
        let story = stage.story(client.name)?;
        let lapsed = timed_out(stage)? - before;
        Ok(Seen::new(format!("{observation} {when}"), format!("{story}; {lapsed} timed out")))
    },
};

fn timed_out(stage: &mut Stage<'_>) -> Result<u64> {
    Ok(stage.server.status()?["counters"]["timed_out"].as_u64().unwrap_or_default())
}

pub(super) const ASKER_CLOSED: Scenario = Scenario {
    name: "asker-ends",
    client: "reset within 5 s after the program that was asked ended",
    records: "pend, verdict reject",
    paths: Paths::Once,
    driver_only: true,
    run: |stage| asker(stage, Asker::close, "ended"),
};

pub(super) const ASKER_KILLED: Scenario = Scenario {
    name: "asker-killed",
    client: "reset within 5 s after the program that was asked was killed",
    records: "pend, verdict reject",
    paths: Paths::Once,
    driver_only: true,
    run: |stage| asker(stage, Asker::kill, "was killed"),
};

/// A program holds a question, and goes: what it held is rejected long before the time-out.
fn asker(stage: &mut Stage<'_>, leave: fn(Box<dyn Asker>) -> Result<()>, how: &str) -> Result<Seen> {
    stage.serve(&stage.usual())?;
    let mut asker = stage.server.asker()?.context("no programs are asked")?;
    let client = stage.client(4)?;
    asker.asked()?;
    let start = Instant::now();
    leave(asker)?;
    let observation = client.listen();
    let when = within(start.elapsed(), SOON);
    Ok(Seen::new(
        format!("{observation} {when} after the program that was asked {how}"),
        stage.story(client.name)?,
    ))
}
