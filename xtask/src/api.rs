//! `cargo xtask api`: compares the public interface of `wsk` with its listing, `docs/api.txt`.
//!
//! The listing is in the tree so that a change of the interface shows in review. It is made from the JSON
//! output of rustdoc, whose format changes with the compiler: with a compiler that is not known here nothing
//! is compared, which is printed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::command::logged;
use crate::cross::{Layout, host_cargo};
use crate::progress::Step;

/// Path of the listing in the workspace.
const LISTING: &str = "docs/api.txt";
/// Limit on running rustdoc.
const LIMIT: Duration = Duration::from_mins(10);
/// Number of changes that are printed.
const SHOWN: usize = 40;

/// Options of `cargo xtask api`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the listing instead of comparing it
    #[arg(long)]
    write: bool,
}

/// Runs the command.
pub(crate) fn run(layout: &Layout, args: &Args) -> Result<ExitCode> {
    let target = layout.cross.parent().unwrap_or(Path::new("target")).join("api");
    let shown = Step::start("Listing the public interface");
    logged(rustdoc(layout, &target), "cargo rustdoc -p wsk", &layout.log("api"), LIMIT, &shown)?;
    shown.done();
    let listing = match items(&target.join("doc/wsk.json")) {
        Ok(items) => items,
        Err(error) => {
            println!("Not compared: the output of this compiler's rustdoc cannot be read ({error:#}).");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let path = layout.workspace.join(LISTING);
    if args.write {
        fs::write(&path, listing.join("\n") + "\n").with_context(|| format!("cannot write {LISTING}"))?;
        println!("{LISTING}: {} items", listing.len());
        return Ok(ExitCode::SUCCESS);
    }
    let known = fs::read_to_string(&path).with_context(|| format!("cannot read {LISTING}"))?;
    Ok(compare(&known, &listing))
}

/// The command that has rustdoc write the interface as JSON.
fn rustdoc(layout: &Layout, target: &Path) -> Command {
    let mut command = host_cargo(layout);
    command.args(["rustdoc", "--locked", "--package", "wsk", "--lib"]);
    command.arg("--target-dir").arg(target);
    command.args(["--", "-Z", "unstable-options", "--output-format", "json"]);
    // The JSON output is unstable.
    command.env("RUSTC_BOOTSTRAP", "1");
    command
}

/// The items of the interface, one for each line.
fn items(json: &Path) -> Result<Vec<String>> {
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    Ok(api.items().map(ToString::to_string).collect())
}

/// Prints how the interface differs from the listing; the code is a failure if it does.
fn compare(known: &str, listing: &[String]) -> ExitCode {
    let known: BTreeSet<&str> = known.lines().collect();
    let current: BTreeSet<&str> = listing.iter().map(String::as_str).collect();
    if known == current {
        println!("The public interface is as listed: {} items.", listing.len());
        return ExitCode::SUCCESS;
    }
    let removed = known.difference(&current).map(|item| format!("- {item}"));
    let added = current.difference(&known).map(|item| format!("+ {item}"));
    let changes: Vec<_> = removed.chain(added).collect();
    for change in changes.iter().take(SHOWN) {
        println!("{change}");
    }
    if changes.len() > SHOWN {
        println!("and {} more", changes.len() - SHOWN);
    }
    println!("The public interface differs from {LISTING}. If that is meant: `cargo xtask api --write`.");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_failure() {
        let listing = ["pub fn wsk::a()".to_owned(), "pub fn wsk::b()".to_owned()];
        assert_eq!(compare("pub fn wsk::b()\npub fn wsk::a()\n", &listing), ExitCode::SUCCESS);
        assert_eq!(compare("pub fn wsk::a()\n", &listing), ExitCode::FAILURE);
        assert_eq!(
            compare("pub fn wsk::a()\npub fn wsk::b()\npub fn wsk::c()\n", &listing),
            ExitCode::FAILURE
        );
    }
}
