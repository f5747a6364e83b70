//! `cargo xtask loom`: model-checks the library's thread protocols.
//!
//! `crates/wsk-loom` includes the files of the library that several threads write words of, and has models of
//! their use. They are built with `--cfg loom` in a target directory of their own, so that nothing else is
//! built anew for it.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::logged;
use crate::cross::{Layout, host_cargo};
use crate::progress::Step;

/// Limit on building and running, on a small machine with other work.
const LIMIT: Duration = Duration::from_mins(15);
/// Compiler flags of the models.
const CFG: &str = "--cfg loom";

/// Options of `cargo xtask loom`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only models whose name has this in it
    filter: Option<String>,
}

/// Runs the command.
pub(crate) fn run(layout: &Layout, args: &Args) -> Result<ExitCode> {
    let started = Instant::now();
    let log = layout.log("loom");
    let shown = Step::start("Models of the protocols between threads (loom)");
    logged(cargo(layout, args), "cargo test -p wsk-loom", &log, LIMIT, &shown)?;
    let text = std::fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let Some(passed) = passed(&text).filter(|passed| *passed > 0) else {
        bail!("no model was run (the log: {})", log.display());
    };
    shown.done();
    println!("{passed} models hold in every order that was tried; {:.0} s", started.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// The tests of the crate with the models, built and run.
fn cargo(layout: &Layout, args: &Args) -> Command {
    let mut command = host_cargo(layout);
    command.args(["test", "--locked", "--package", "wsk-loom", "--lib", "--profile", "loom"]);
    command.arg("--target-dir").arg(target(layout));
    command.arg("--").args(&args.filter);
    // The encoded variable would take precedence over the other.
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.env("RUSTFLAGS", with_cfg(std::env::var("RUSTFLAGS").ok()));
    command
}

fn target(layout: &Layout) -> std::path::PathBuf {
    layout.cross.parent().unwrap_or(Path::new("target")).join("loom")
}

/// The flags of the user, and the cfg.
fn with_cfg(flags: Option<String>) -> String {
    match flags {
        Some(flags) if !flags.trim().is_empty() => format!("{flags} {CFG}"),
        _ => CFG.to_owned(),
    }
}

/// Returns the number of tests that passed, from the log.
fn passed(log: &str) -> Option<u32> {
    let line = log.lines().rev().find(|line| line.starts_with("test result: ok."))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_the_user_are_kept() {
        assert_eq!(with_cfg(None), "--cfg loom");
        assert_eq!(with_cfg(Some(" ".to_owned())), "--cfg loom");
        assert_eq!(with_cfg(Some("-C debuginfo=1".to_owned())), "-C debuginfo=1 --cfg loom");
    }

    #[test]
    fn the_log_says_how_many_models_there_were() {
        let log = "running 2 tests\ntest result: ok. 29 passed; 0 failed; 0 ignored; 0 measured\n";
        assert_eq!(passed(log), Some(29));
        assert_eq!(passed("error: no such command"), None);
    }
}
