//! `cargo xtask test`: everything that this machine can test, the driver included.
//!
//! ```text
//!  host ─► loom ─► rules ─► example ─► packages there?
//!                                           │
//!          ┌────────── yes ─────────────────┴── no: listed, with the reason ──┐
//!          ▼                                                                  ▼
//!       layouts ─► images ─► probe ─► windows ─► driver ──────────────► summary, exit status
//! ```
//!
//! A step that fails does not keep the others from running. Steps that cannot run here do not fail it, unless
//! `--require-driver` says that they must.

use std::fmt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Color, Table, presets};

use crate::command::{self, logged};
use crate::cross::driver::{self, Profile};
use crate::cross::{Layout, host_cargo, netio, packages};
use crate::demo::{self, Tried};
use crate::image;
use crate::probe;
use crate::progress::Step as Shown;
use crate::suites;

/// Limit on the host tests, built from nothing on a small machine.
const HOST: Duration = Duration::from_mins(45);
/// Limit on a report.
const REPORT: Duration = Duration::from_mins(15);
/// Number of starts and stops of the user-mode program under load.
const USER_MODE_STARTS: usize = 25;

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail if the driver cannot be built or loaded here
    #[arg(long)]
    require_driver: bool,
    /// Number of starts and stops of the driver under load
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = demo::STARTS)]
    starts: usize,
    /// Run only this step (repeatable)
    #[arg(long, value_name = "STEP", conflicts_with = "skip")]
    only: Vec<Step>,
    /// Leave this step out (repeatable)
    #[arg(long, value_name = "STEP")]
    skip: Vec<Step>,
}

/// The steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The tests that need nothing but Rust, with cargo-nextest where it is installed
    Host,
    /// Models of the thread protocols (loom)
    Loom,
    /// Coverage of the contract's rules by tests
    Rules,
    /// The user-mode program, driven by clients
    UserMode,
    /// Structures and constants, compared with C headers
    Layouts,
    /// Checks of the images
    Images,
    /// The calls whose results WSK leaves open, made by the probe driver
    Probe,
    /// The host tests, built for Windows and run under Wine
    Windows,
    /// The driver, loaded and driven by clients
    Driver,
}

impl Step {
    /// Returns whether it needs the packages for Windows builds.
    fn is_cross(self) -> bool {
        matches!(self, Self::Layouts | Self::Images | Self::Probe | Self::Windows | Self::Driver)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host tests",
            Self::Loom => "models (loom)",
            Self::Rules => "rules",
            Self::UserMode => "user-mode program",
            Self::Layouts => "layouts",
            Self::Images => "images",
            Self::Probe => "probe",
            Self::Windows => "host tests, Windows",
            Self::Driver => "driver, with clients",
        })
    }
}

/// Outcome of a step.
#[derive(Debug)]
enum Outcome {
    Passed(String),
    Failed(String),
    NotHere(String),
}

/// Runs the command.
pub(crate) fn run(layout: &Layout, args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    // Asked for now: the host tests may build this program anew, and from then on its own file has no name.
    let program = std::env::current_exe().context("this program has no path")?;
    let chosen =
        |step: &Step| (args.only.is_empty() || args.only.contains(step)) && !args.skip.contains(step);
    let steps: Vec<Step> = Step::value_variants().iter().copied().filter(chosen).collect();
    // Before interruptions are dealt with here: apt-get does that better by itself.
    let cross = if steps.iter().any(|step| step.is_cross()) { packages::ensure(layout) } else { Ok(()) };
    demo::end_all_on_interrupt()?;

    let mut outcomes = Vec::new();
    for step in steps {
        eprintln!("\n=== {step}");
        let began = Instant::now();
        let outcome = match &cross {
            Err(reason) if step.is_cross() && args.require_driver => Outcome::Failed(first_line(reason)),
            Err(reason) if step.is_cross() => Outcome::NotHere(first_line(reason)),
            _ => match perform(layout, args, &program, step) {
                Ok(note) => Outcome::Passed(note),
                Err(error) => {
                    eprintln!("error: {error:#}");
                    Outcome::Failed(first_line(&error))
                }
            },
        };
        demo::checkpoint();
        outcomes.push((step, outcome, began.elapsed()));
    }
    if let Err(reason) = &cross {
        eprintln!("\n{reason:#}");
    }
    println!("\n{}", table(&outcomes));
    let failed = outcomes.iter().filter(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_))).count();
    let not_here = outcomes.iter().filter(|(_, outcome, _)| matches!(outcome, Outcome::NotHere(_))).count();
    let passed = outcomes.len() - failed - not_here;
    println!(
        "{passed} passed, {failed} failed, {not_here} cannot run here; {:.0} s",
        start.elapsed().as_secs_f64()
    );
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a step. Returns what there is to say of it.
fn perform(layout: &Layout, args: &Args, program: &Path, step: Step) -> Result<String> {
    match step {
        Step::Host => host(layout),
        Step::Loom => {
            report(layout, program, "loom", &["loom"])?;
            Ok("every model holds".to_owned())
        }
        Step::Rules => {
            report(
                layout,
                program,
                "rules",
                &["rules", "--seeds", "--min-areas", "80", "--check", "--quiet"],
            )?;
            Ok("every rule with a seed is shown".to_owned())
        }
        Step::UserMode => tried(demo::try_user_mode(layout, USER_MODE_STARTS)?),
        Step::Layouts => {
            report(layout, program, "layouts", &["layouts"])?;
            Ok("no differences".to_owned())
        }
        Step::Images => images(layout),
        Step::Probe => probe::check(layout),
        Step::Windows => suites::run(layout),
        Step::Driver => {
            let note = tried(demo::try_driver(layout, args.starts)?)?;
            Ok(format!("{note}, {} starts and stops under load", args.starts))
        }
    }
}

fn tried(Tried { expected, all, took }: Tried) -> Result<String> {
    if expected < all {
        bail!("{} of {all} scenarios were not as expected", all - expected);
    }
    Ok(format!("{all} scenarios as expected in {:.0} s", took.as_secs_f64()))
}

/// The tests of the workspace, each in a process of its own where cargo-nextest is there.
fn host(layout: &Layout) -> Result<String> {
    let nextest = command::ask("cargo", &["nextest", "--version"]).is_some();
    let runs: &[&[&str]] = if nextest {
        &[&["nextest", "run", "--locked"], &["test", "--locked", "--doc"]]
    } else {
        &[&["test", "--locked"]]
    };
    for arguments in runs {
        let line = format!("cargo {}", arguments.join(" "));
        let shown = Shown::start(&line);
        let mut cargo = host_cargo(layout);
        cargo.args(*arguments);
        logged(cargo, &line, &layout.log(&format!("host-{}", arguments[0])), HOST, &shown)?;
        shown.done();
    }
    Ok(if nextest { "cargo nextest run, cargo test --doc" } else { "cargo test" }.to_owned())
}

/// Runs another command of this program.
fn report(layout: &Layout, program: &Path, name: &str, arguments: &[&str]) -> Result<()> {
    let shown = Shown::start(format!("cargo xtask {}", arguments.join(" ")));
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&layout.workspace);
    logged(command, &format!("cargo xtask {name}"), &layout.log(&format!("test-{name}")), REPORT, &shown)?;
    shown.done();
    Ok(())
}

/// Builds the images, and checks each. The driver is built in both profiles.
fn images(layout: &Layout) -> Result<String> {
    let release = driver::build_profile(layout, Profile::Release)?;
    let debug = driver::build_profile(layout, Profile::Debug)?;
    netio::build(layout)?;
    let (mut size, mut frame) = (0, 0);
    for (path, expected) in [
        (release.image, release.expected),
        (debug.image, debug.expected),
        (layout.image("echo_c.sys"), image::DRIVER),
        (layout.image("netio.sys"), image::NETIO),
    ] {
        let image = image::inspect(&path)?;
        let name = image.name.clone();
        let findings = image.check(&expected);
        for finding in &findings {
            eprintln!("{name}: {finding}");
        }
        if let Some(finding) = findings.iter().find(|finding| finding.is_error()) {
            bail!("{name}: {finding}");
        }
        match name.as_str() {
            "conditional_accept.sys" => size = image.size,
            "conditional_accept.debug.sys" => frame = image.frames.largest,
            _ => {}
        }
    }
    Ok(format!("the driver has {size} bytes; largest frame of the debug build {frame}"))
}

/// Returns the part of an error that fits into a table.
fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}

fn table(outcomes: &[(Step, Outcome, Duration)]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["step", "", "seconds", ""]);
    for (step, outcome, took) in outcomes {
        let (word, colour, note) = match outcome {
            Outcome::Passed(note) => ("passed", Color::Green, note),
            Outcome::Failed(note) => ("FAILED", Color::Red, note),
            Outcome::NotHere(note) => ("not here", Color::Yellow, note),
        };
        table.add_row([
            Cell::new(step),
            Cell::new(word).fg(colour),
            Cell::new(format!("{:.0}", took.as_secs_f64())).set_alignment(CellAlignment::Right),
            Cell::new(note),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_a_row_for_each_step() {
        let outcomes = [
            (Step::Host, Outcome::Passed("all".to_owned()), Duration::from_secs(61)),
            (Step::Layouts, Outcome::NotHere("not Debian".to_owned()), Duration::ZERO),
            (Step::Driver, Outcome::Failed("1 of 40 scenarios".to_owned()), Duration::from_secs(9)),
        ];
        let shown = table(&outcomes).to_string();
        for part in ["host tests", "61", "not here", "not Debian", "FAILED", "1 of 40 scenarios"] {
            assert!(shown.contains(part), "{part}:\n{shown}");
        }
    }

    #[test]
    fn scenarios_that_differ_fail_the_step() {
        let took = Duration::from_secs(3);
        assert!(tried(Tried { expected: 3, all: 3, took }).is_ok());
        let error = tried(Tried { expected: 2, all: 3, took }).expect_err("one differs");
        assert_eq!(error.to_string(), "1 of 3 scenarios were not as expected");
    }
}
