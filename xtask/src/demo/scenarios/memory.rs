//! Scenario of non-paged pool, by the account of the kernel that allocates it.

use anyhow::{Result, bail};

use super::{Paths, Scenario, Seen, Stage};
use crate::demo::client::{Client, Observation, pattern};

pub(super) const POOL: Scenario = Scenario {
    name: "pool",
    client: "20 served, 10 rejected, 10 gave up; at an unload 10 pended, 10 idle: ended",
    records: "every block was given back",
    paths: Paths::Both,
    driver_only: true,
    run: pool,
};

/// Number of loads.
const LOADS: usize = 2;
/// Clients that are served in one load after the other, and those of each other kind.
const SERVED: usize = 10;
const OTHERS: usize = 5;

/// Each kind of client, and an unload with some of them still there. The account is that of Wine's kernel,
/// which logs every block that it gives out and gets back.
fn pool(stage: &mut Stage<'_>) -> Result<Seen> {
    stage.server.record_pool(true)?;
    let mut seen = [0; 5];
    for _ in 0..LOADS {
        load(stage, &mut seen)?;
    }
    let pool = stage.server.pool();
    stage.server.record_pool(false)?;
    if pool.allocated == 0 {
        bail!("the log has no allocations");
    }
    let [served, rejected, gave_up, pended, idle] = seen;
    let left = if pool.left.is_empty() { "every block was given back".to_owned() } else { pool.to_string() };
    Ok(Seen::new(
        format!(
            "{served} served, {rejected} rejected, {gave_up} gave up; at an unload {pended} pended, \
            {idle} idle: ended"
        ),
        left,
    )
    .with_note(pool.to_string()))
}

/// Loads it, has clients come, and unloads it.
fn load(stage: &mut Stage<'_>, seen: &mut [usize; 5]) -> Result<()> {
    stage.serve(&stage.usual())?;
    let several =
        |stage: &Stage<'_>, last| (0..OTHERS).map(|_| stage.client(last)).collect::<Result<Vec<Client>>>();
    let bytes = pattern(20_000);
    for _ in 0..SERVED {
        seen[0] +=
            usize::from(stage.client(2)?.echo_to_the_end(&bytes) == Observation::EchoAndEnd(bytes.len()));
    }
    seen[1] += several(stage, 3)?.iter().filter(|client| client.listen() == Observation::Reset).count();
    for client in several(stage, 4)? {
        stage.records().pended(stage.mark, client.name)?;
        client.reset()?;
        seen[2] += 1;
    }
    let pended = several(stage, 4)?;
    for client in &pended {
        stage.records().pended(stage.mark, client.name)?;
    }
    let idle = several(stage, 2)?;
    for client in &idle {
        stage.records().accepted(stage.mark, client.name)?;
    }
    stage.server.stop()?;
    let ended = |clients: &[Client]| {
        let ends = clients.iter().map(Client::listen);
        ends.filter(|observation| matches!(observation, Observation::End | Observation::Reset)).count()
    };
    seen[3] += ended(&pended);
    seen[4] += ended(&idle);
    Ok(())
}
