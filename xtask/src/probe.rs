//! `cargo xtask probe`: makes calls whose results WSK leaves open, and compares them with the expected ones.
//!
//! ```text
//!   wsk_probe.sys, netio.sys ─► prefix ─► service started ─► C:\wsk-probe.tsv to its last line ─► stopped
//!                                                                      │
//!   tests/probe-answers.tsv ───────────────────────────────────────────┴─► differences, exit status
//! ```
//!
//! The same driver, built by `cargo make`, writes the same file on Windows; `cargo xtask rules --answers`
//! reads that one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, presets};
use probe_calls::answers::{Answers, Expected};

use crate::cross::{Layout, driver, netio, packages};
use crate::demo;
use crate::image;
use crate::progress::Step;
use crate::wine::{self, Prefix};

/// Answers of this project's provider.
pub(crate) const EXPECTED: &str = "tests/probe-answers.tsv";
/// The driver's service.
const SERVICE: &str = "wsk_probe";
/// File that it writes.
const FILE: &str = "drive_c/wsk-probe.tsv";
/// Limit on the calls, of which some wait for two seconds.
const CALLS: Duration = Duration::from_mins(3);
/// Interval of checks on the file.
const POLL: Duration = Duration::from_millis(100);
/// Output of `netio.sys` after the last client has deregistered, with the required text.
const DEREGISTERED: &str = "netio: deregistered:";
const NOTHING_LEFT: &str = "clients=0 sockets=0 ";

/// Options of `cargo xtask probe`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only build the driver
    #[arg(long, conflicts_with = "no_build")]
    build: bool,
    /// Use the products of an earlier build
    #[arg(long)]
    no_build: bool,
    /// Print the file of the probe instead of a table
    #[arg(long)]
    lines: bool,
}

/// Runs the command. Exit status 1 if an answer is not the recorded one.
pub(crate) fn run(layout: &Layout, args: &Args) -> Result<ExitCode> {
    packages::ensure(layout)?;
    if args.build {
        println!("{}", build(layout)?.display());
        return Ok(ExitCode::SUCCESS);
    }
    demo::end_all_on_interrupt()?;
    let Probed { lines, answers, differences } = probe(layout, !args.no_build)?;
    if args.lines {
        print!("{lines}");
    } else {
        println!("{}", table(&answers));
    }
    for difference in &differences {
        eprintln!("differs: {difference}");
    }
    println!("{} calls, {} differ from {EXPECTED}", answers.rows.len(), differences.len());
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The step of `cargo xtask test`: fails unless every answer is the recorded one.
pub(crate) fn check(layout: &Layout) -> Result<String> {
    let Probed { answers, differences, .. } = probe(layout, true)?;
    if let Some(first) = differences.first() {
        bail!("{} answers differ from {EXPECTED}: {first}", differences.len());
    }
    Ok(format!("{} calls answered as recorded", answers.rows.len()))
}

/// Outcome of a run.
struct Probed {
    lines: String,
    answers: Answers,
    differences: Vec<String>,
}

/// Builds the driver and sees that a kernel would be content with it.
fn build(layout: &Layout) -> Result<PathBuf> {
    let path = driver::build_probe(layout)?;
    let expected = image::DRIVER;
    let findings = image::inspect(&path)?.check(&expected);
    if let Some(finding) = findings.iter().find(|finding| finding.is_error()) {
        bail!("{}: {finding}", path.display());
    }
    Ok(path)
}

/// Loads the driver, waits for its last line, unloads it, and compares.
fn probe(layout: &Layout, build_first: bool) -> Result<Probed> {
    let expected = std::fs::read_to_string(layout.workspace.join(EXPECTED));
    let expected = expected.with_context(|| format!("cannot read {EXPECTED}"))?;
    let expected = Expected::parse(&expected).map_err(|error| anyhow::anyhow!("{EXPECTED}: {error}"))?;
    if build_first {
        build(layout)?;
        netio::build(layout)?;
    }
    let prefix = Prefix::open(layout)?;
    let _held = prefix.hold()?;
    // What an earlier run left, if it was killed, is not built upon.
    prefix.kill()?;
    let lines = on_machine(layout, &prefix);
    let ended = prefix.kill();
    let lines = lines.with_context(|| format!("the log is {}", prefix.log().display()))?;
    ended?;
    let answers = Answers::parse(&lines).map_err(|error| anyhow::anyhow!("{FILE}: {error}"))?;
    let differences = expected.differences(&answers);
    Ok(Probed { lines, answers, differences })
}

/// The lines, from a machine that is down before and may be up afterwards.
fn on_machine(layout: &Layout, prefix: &Prefix) -> Result<String> {
    prefix.create()?;
    let file = prefix.directory().join(FILE);
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", file.display()));
        }
        _ => {}
    }
    let mark = prefix.log_mark();
    let service = prefix.service(SERVICE);
    service.install(&layout.image(&format!("{SERVICE}.sys")))?;
    wine::set_completion(prefix, None)?;
    let step = Step::start("Making the calls");
    service.start()?;
    let deadline = Instant::now() + CALLS;
    let lines = loop {
        demo::checkpoint();
        // Not there yet, or in the middle of being written: the next look sees more.
        let lines = std::fs::read_to_string(&file).unwrap_or_default().replace('\r', "");
        if lines.lines().last().is_some_and(|line| line.starts_with("# end ")) && lines.ends_with('\n') {
            break lines;
        }
        let crashes = prefix.crashes_since(mark);
        if let Some(crash) = crashes.first() {
            bail!("{crash}\nthe last line: {}", lines.lines().last().unwrap_or("(none)"));
        }
        if Instant::now() > deadline {
            let last = lines.lines().last().unwrap_or("(none)").to_owned();
            bail!("not done within {} s; the last line: {last}", CALLS.as_secs());
        }
        std::thread::sleep(POLL);
    };
    service.stop()?;
    step.done();
    if let Some(crash) = prefix.crashes_since(mark).first() {
        bail!("{crash}");
    }
    let log = prefix.log_since(mark);
    let left = log.lines().filter_map(|line| line.split_once(DEREGISTERED)).next_back();
    match left {
        Some((_, left)) if left.trim_start().starts_with(NOTHING_LEFT) => Ok(lines),
        Some((_, left)) => bail!("netio.sys reports after the driver was unloaded:{left}"),
        None => bail!("netio.sys does not report that the driver has deregistered"),
    }
}

fn table(answers: &Answers) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["call", "rules", "answer"]);
    for row in &answers.rows {
        let answer = row.answer.clone().unwrap_or_else(|why| format!("not made: {why}"));
        table.add_row([row.call.clone(), row.rules.join(","), answer]);
    }
    table
}
