//! Scenarios of clients that are accepted or rejected, and of the ends of connections.

use anyhow::Result;

use super::{Paths, Scenario, Seen, Stage};
use crate::demo::client::{Client, Observation, pattern};
use crate::demo::records::{PATIENCE, count};

pub(super) const ACCEPT: Scenario = Scenario {
    name: "accept",
    client: "all 3145728 bytes back, then the end",
    records: "accept, accepted by {by}, graceful disconnect, closed 3145728/3145728",
    paths: Paths::Both,
    driver_only: false,
    run: |stage| {
        stage.serve(&stage.usual())?;
        let client = stage.client(2)?;
        let observation = client.echo_to_the_end(&pattern(3 << 20));
        Ok(Seen::new(observation, stage.story(client.name)?))
    },
};

pub(super) const REJECT: Scenario = Scenario {
    name: "reject",
    client: "reset",
    records: "reject",
    paths: Paths::Both,
    driver_only: false,
    run: |stage| {
        stage.serve(&stage.usual())?;
        let client = stage.client(3)?;
        let observation = client.listen();
        Ok(Seen::new(observation, stage.story(client.name)?))
    },
};

pub(super) const GRACEFUL: Scenario = Scenario {
    name: "graceful-end",
    client: "all 5 bytes back; it ends: the end",
    records: "accept, accepted by {by}, graceful disconnect, closed 5/5",
    paths: Paths::Both,
    driver_only: false,
    run: |stage| {
        stage.serve(&stage.usual())?;
        let client = stage.client(2)?;
        let (echoed, ended) = (client.echo(b"hello"), client.finish());
        Ok(Seen::new(format!("{echoed}; it ends: {ended}"), stage.story(client.name)?))
    },
};

pub(super) const ABORTIVE: Scenario = Scenario {
    name: "abortive-end",
    client: "all 5 bytes back; it resets",
    records: "accept, accepted by {by}, abortive disconnect, closed 5/5",
    paths: Paths::Both,
    driver_only: false,
    run: |stage| {
        stage.serve(&stage.usual())?;
        let client = stage.client(2)?;
        let (name, echoed) = (client.name, client.echo(b"hello"));
        client.reset()?;
        Ok(Seen::new(format!("{echoed}; it resets"), stage.story(name)?))
    },
};

pub(super) const HALF_CLOSE: Scenario = Scenario {
    name: "half-close",
    client: "it sends, ends its sending, and reads: all 100000 bytes back, then the end",
    records: "accept, accepted by {by}, graceful disconnect, closed 100000/100000",
    paths: Paths::Both,
    driver_only: false,
    run: |stage| {
        stage.serve(&stage.usual())?;
        let client = stage.client(2)?;
        let observation = client.half_close(&pattern(100_000));
        Ok(Seen::new(
            format!("it sends, ends its sending, and reads: {observation}"),
            stage.story(client.name)?,
        ))
    },
};

/// Number of clients that come at once.
const CLIENTS: usize = 200;

pub(super) const CROWD: Scenario = Scenario {
    name: "crowd",
    client: "200 of 200 clients at once: all 1000 bytes back, then the end",
    records: "200 accepted, 200 closed",
    paths: Paths::Both,
    driver_only: false,
    run: crowd,
};

fn crowd(stage: &mut Stage<'_>) -> Result<Seen> {
    stage.serve(&stage.usual())?;
    let bytes = pattern(1000);
    // All are connected before the first one says anything.
    let clients: Vec<Client> = (0..CLIENTS).map(|_| stage.client(2)).collect::<Result<_>>()?;
    let expected = Observation::EchoAndEnd(bytes.len());
    let observations: Vec<Observation> =
        clients.iter().map(|client| client.echo_to_the_end(&bytes)).collect();
    let right = observations.iter().filter(|observation| **observation == expected).count();
    let odd = clients.iter().zip(&observations).find(|(_, observation)| **observation != expected);
    let records = stage.records();
    let odd = match odd {
        None => expected.to_string(),
        Some((client, observation)) => {
            format!("{} saw: {observation} ({})", client.name, records.story_so_far(stage.mark, client.name))
        }
    };
    // If it does not come, the numbers tell.
    let _ = records.wait(stage.mark, "record of the last client's end", PATIENCE, |lines| {
        (count(lines, "closed") >= CLIENTS).then_some(())
    });
    let closed = records.count(stage.mark, "closed");
    let accepted = records.count(stage.mark, "accepted");
    Ok(Seen::new(
        format!("{right} of {CLIENTS} clients at once: {odd}"),
        format!("{accepted} accepted, {closed} closed"),
    ))
}
