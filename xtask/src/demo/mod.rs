//! `cargo xtask demo`: builds and loads the driver and serves clients, from a fresh checkout.
//!
//! ```text
//!   packages ─► driver, netio.sys, gatectl ─► prefix ─► scenarios ─────────────► table, exit status
//!                                                        │        ▲
//!                              clients from 127.0.0.2 … ─┘        └─ what they saw, what was recorded
//! ```
//!
//! With `--user-mode` the same scenarios, but those that take a driver, are tried with the user-mode program,
//! which needs nothing but Rust.

mod client;
mod driver;
mod processes;
mod records;
mod report;
mod scenarios;
mod server;
mod user_mode;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gate_protocol::record::AcceptBy;

use self::driver::Driver;
pub(crate) use self::processes::{checkpoint, end_all_on_interrupt, end_on_interrupt};
use self::report::Outcome;
use self::scenarios::Extent;
use self::server::{Server, Settings, Started};
use self::user_mode::UserMode;
use crate::cross::{Layout, packages};

/// Options of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Try the user-mode program instead of the driver: needs nothing but Rust
    #[arg(long)]
    user_mode: bool,
    /// Print an object for each scenario, one per line, instead of the table
    #[arg(long)]
    json: bool,
    /// Try only this scenario (repeatable)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Number of starts and stops under load
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = STARTS)]
    starts: usize,
    /// Duration of the endurance scenario in seconds: a mixed load during which resources are watched
    #[arg(
        long, value_name = "SECONDS", default_value_t = ENDURANCE,
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    endurance: u32,
    /// Use the products of an earlier build
    #[arg(long)]
    no_build: bool,
    /// Leave the driver running at the end, and say how to talk to it
    #[arg(long, conflicts_with = "user_mode")]
    keep: bool,
}

/// Seconds that are enough to see threads and descriptors that each client leaves behind. For memory, that
/// takes ten minutes: in less time there are too few clients to tell a leak from ordinary changes.
const ENDURANCE: u32 = 10;

/// Reads a number of starts.
pub(crate) const STARTS: fn(&str) -> Result<usize, String> = |text| match text.parse() {
    Ok(starts @ 1..=100_000) => Ok(starts),
    _ => Err("expected a number from 1 to 100000".to_owned()),
};

/// Runs the command.
pub(crate) fn run(layout: &Layout, args: &Args) -> Result<ExitCode> {
    // Before interruptions are dealt with here: apt-get does that better by itself.
    if !args.user_mode
        && let Err(reason) = packages::ensure(layout)
    {
        bail!("{reason:#}\n`cargo xtask demo --user-mode` tries the user-mode program in the same way.");
    }
    end_all_on_interrupt()?;
    let result = run_through(layout, args);
    checkpoint();
    result
}

fn run_through(layout: &Layout, args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let plan = scenarios::plan(!args.user_mode, &args.only)?;
    let mut server: Box<dyn Server> = if args.user_mode {
        Box::new(UserMode::prepare(layout, !args.no_build)?)
    } else {
        Box::new(Driver::load(layout, !args.no_build)?)
    };
    eprintln!("Trying {} ({} scenarios)", server.title(), plan.len());
    let extent = Extent { starts: args.starts, endurance: Duration::from_secs(args.endurance.into()) };
    let outcomes = try_all(server.as_mut(), &plan, extent, args.json);
    let failed = outcomes.iter().filter(|outcome| !outcome.ok).count();
    if failed > 0 {
        eprintln!("\nThe end of the log:\n{}", server.log_tail());
    }
    let kept = if args.keep { keep(server.as_mut()) } else { server.end() };
    if !args.json {
        println!("{}", report::table(&outcomes));
        if args.user_mode && args.only.is_empty() {
            let more: Vec<_> = scenarios::ALL
                .iter()
                .filter(|scenario| scenario.driver_only)
                .map(|scenario| scenario.name)
                .collect();
            println!("With the driver (`cargo xtask demo`) also: {}.", more.join(", "));
        }
    }
    let tried = outcomes.len();
    let took = report::seconds(start.elapsed());
    eprintln!("{} of {tried} as expected, with {}, in {took}", tried - failed, server.title());
    kept?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Outcome of a server's scenarios for `cargo xtask test`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    /// Scenarios that were as expected.
    pub expected: usize,
    /// All of them.
    pub all: usize,
    /// Duration, without the builds.
    pub took: Duration,
}

/// Tries the driver with everything, and so many starts under load.
pub(crate) fn try_driver(layout: &Layout, starts: usize) -> Result<Tried> {
    try_server(&mut Driver::load(layout, true)?, true, starts)
}

/// Does the same with the user-mode program.
pub(crate) fn try_user_mode(layout: &Layout, starts: usize) -> Result<Tried> {
    try_server(&mut UserMode::prepare(layout, true)?, false, starts)
}

fn try_server(server: &mut dyn Server, driver: bool, starts: usize) -> Result<Tried> {
    let plan = scenarios::plan(driver, &[])?;
    let start = Instant::now();
    let extent = Extent { starts, endurance: Duration::from_secs(ENDURANCE.into()) };
    let outcomes = try_all(server, &plan, extent, false);
    let (expected, all) = (outcomes.iter().filter(|outcome| outcome.ok).count(), outcomes.len());
    if expected < all {
        eprintln!("\nThe end of the log:\n{}", server.log_tail());
    }
    server.end()?;
    Ok(Tried { expected, all, took: start.elapsed() })
}

fn try_all(
    server: &mut dyn Server,
    plan: &[(scenarios::Scenario, AcceptBy)],
    extent: Extent,
    json: bool,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(plan.len());
    for (scenario, by) in plan {
        checkpoint();
        let outcome = scenarios::run(server, scenario, *by, extent);
        checkpoint();
        report::line(&outcome);
        if json {
            report::json(&outcome);
        }
        outcomes.push(outcome);
    }
    outcomes
}

/// Leaves the gate running, and says how to talk to it.
fn keep(server: &mut dyn Server) -> Result<()> {
    if let Started::Failed(why) = server.start(&Settings::usual(AcceptBy::Irp))? {
        bail!("the server does not start again: {why}");
    }
    let address = server.address();
    let (ip, port) = (address.ip(), address.port());
    // Not on standard output, which may be read as objects.
    eprintln!(
        "The driver is left running. Talk to it:\n\
         \x20   nc -s 127.0.0.2 {ip} {port}                          accepted: every byte comes back\n\
         \x20   nc -s 127.0.0.3 {ip} {port}                          rejected\n\
         \x20   nc -s 127.0.0.4 {ip} {port}                          waits for an answer:\n\
         \x20   cargo xtask wine run -- gatectl.exe ask              answers\n\
         \x20   cargo xtask wine run -- gatectl.exe watch            follows what happens\n\
         \x20   cargo xtask wine stop                                ends it"
    );
    server.leave().context("the server cannot be left running")
}
