//! The host's test suites as Windows programs: built for `x86_64-pc-windows-gnu`, run under Wine.
//!
//! ```text
//!  cargo test --no-run ─► suites ─► each in the private prefix ─► its tests: ok, failed, ignored
//!                            └────► those that Wine does not let pass, by themselves ─► they must fail still
//! ```
//!
//! So statements about Windows stay true where there is no Windows. Failures that are Wine's own are listed
//! in [`expected`] with the reason, and shown on every run; nothing else is left out silently.

mod expected;
mod libtest;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Artifact, Message, TargetKind};

use self::expected::{FAILING, Failing, LEFT_OUT, UNSETTLED};
use self::libtest::Outcomes;
use crate::command::{self, Failure, logged_output};
use crate::cross::{Layout, netio};
use crate::demo;
use crate::progress::Step;
use crate::wine::Prefix;

/// Limit on the build, from nothing on a small machine.
const BUILD: Duration = Duration::from_mins(30);
/// Limit on a suite.
const SUITE: Duration = Duration::from_mins(6);
/// Number of tests that run at once: most of them wait most of the time.
const RUNNING: &str = "4";
/// Number of tests that run at once of those expected to fail.
const WAITING: &str = "16";
/// Limit on the listing of a suite's tests.
const LIST: Duration = Duration::from_secs(20);

/// A suite of tests: one program.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Suite {
    /// `package::target`, or the package alone for its library.
    name: String,
    program: PathBuf,
    /// The directory of its package, where cargo would run it.
    directory: PathBuf,
}

/// Outcome of all suites.
#[derive(Debug, Default)]
struct Sum {
    suites: usize,
    passed: usize,
    ignored: usize,
    failing: usize,
    unsettled: usize,
    troubles: Vec<String>,
}

/// Builds and runs them. Returns what there is to say of it.
pub(crate) fn run(layout: &Layout) -> Result<String> {
    let suites = build(layout)?;
    netio::build_random(layout)?;
    if let Some(stray) = strays(&suites).first() {
        bail!("{stray} is listed in xtask/src/suites/expected.rs, but there is no such suite");
    }

    let prefix = Prefix::open(layout)?;
    let _held = prefix.hold()?;
    demo::end_on_interrupt(&prefix);
    // What an earlier run left is not built upon.
    prefix.kill()?;
    prefix.create()?;
    let machine = Machine(prefix);
    let start = Instant::now();
    let mut sum = Sum::default();
    for suite in &suites {
        demo::checkpoint();
        match LEFT_OUT.iter().find(|(name, _)| *name == suite.name) {
            Some((name, why)) => eprintln!("{name}: left out: {why}"),
            None => machine.run(layout, suite, &mut sum)?,
        }
    }
    let Sum { suites, passed, ignored, failing, unsettled, troubles } = sum;
    for trouble in &troubles {
        eprintln!("error: {trouble}");
    }
    if let Some(first) = troubles.first() {
        let first = first.lines().next().unwrap_or_default();
        bail!("{first} ({} failures in all, {passed} tests passed)", troubles.len());
    }
    Ok(format!(
        "{passed} tests of {suites} suites pass, {ignored} ignored, {failing} fail as listed, {unsettled} \
         not run, \
         {} suites left out, in {:.0} s after the build",
        LEFT_OUT.len(),
        start.elapsed().as_secs_f64()
    ))
}

/// Builds all suites of the workspace.
fn build(layout: &Layout) -> Result<Vec<Suite>> {
    let _lock = layout.lock()?;
    let step = Step::start("Building the test suites for Windows");
    let mut cargo = netio::gnu_cargo(layout, "test", &layout.cross.join("suites"));
    // These are not debugged; the checker needs lines to tell places in the driver's code.
    let profile = ["debug='line-tables-only'", "package.'*'.debug=false", "incremental=false"];
    for setting in profile {
        cargo.args(["--config", &format!("profile.dev.{setting}")]);
    }
    cargo.args(["--no-run", "--workspace", "--no-fail-fast", "-Zbuild-std"]);
    cargo.arg("--message-format=json-render-diagnostics");
    let messages = logged_output(cargo, "cargo test --no-run", &layout.log("suites-build"), BUILD, &step)?;
    step.done();
    let mut suites = suites_in(&messages);
    suites.sort_by(|one, other| one.name.cmp(&other.name));
    if suites.is_empty() {
        bail!("cargo reports no test suite");
    }
    Ok(suites)
}

/// The suites in cargo's messages.
fn suites_in(messages: &str) -> Vec<Suite> {
    let suite = |artifact: Artifact| {
        if !artifact.profile.test {
            return None;
        }
        let directory = artifact.manifest_path.parent()?.to_owned();
        let package = package_of(&artifact)?;
        let target = &artifact.target.name;
        let name = match artifact.target.kind.first()? {
            TargetKind::Bin => format!("{package}::bin/{target}"),
            TargetKind::Example => format!("{package}::example/{target}"),
            TargetKind::Test => format!("{package}::{target}"),
            _ => package,
        };
        Some(Suite { name, program: artifact.executable?.into(), directory: directory.into() })
    };
    let artifacts = Message::parse_stream(messages.as_bytes()).filter_map(|message| match message.ok()? {
        Message::CompilerArtifact(artifact) => Some(artifact),
        _ => None,
    });
    artifacts.filter_map(suite).collect()
}

/// The package of an artifact, from its identity: `path+file:///w/crates/wsk-sim#0.1.0`, or
/// `…/main#wsk@0.1.0` where the directory has another name.
fn package_of(artifact: &Artifact) -> Option<String> {
    let (place, version) = artifact.package_id.repr.rsplit_once('#')?;
    let name = match version.split_once('@') {
        Some((name, _)) => name,
        None => place.rsplit('/').next()?,
    };
    Some(name.to_owned())
}

/// The suites on the lists that are not there.
fn strays(suites: &[Suite]) -> Vec<&'static str> {
    let tests = FAILING.iter().chain(UNSETTLED).map(|test| test.suite);
    let listed = LEFT_OUT.iter().map(|(name, _)| *name).chain(tests);
    let listed: BTreeSet<&str> = listed.collect();
    listed.into_iter().filter(|name| suites.iter().all(|suite| suite.name != *name)).collect()
}

/// The machine that runs them; dropped, it ends.
struct Machine(Prefix);

impl Drop for Machine {
    fn drop(&mut self) {
        // Nothing more can be done about processes that do not end.
        let _ = self.0.kill();
    }
}

impl Machine {
    /// Runs a suite, and what of it is expected to fail.
    fn run(&self, layout: &Layout, suite: &Suite, sum: &mut Sum) -> Result<()> {
        let failing: Vec<_> = FAILING.iter().filter(|failing| failing.suite == suite.name).collect();
        let log = log_of(layout, &suite.name);
        let step = Step::start(&suite.name);
        let mut command = self.command(suite)?;
        command.args(["--exact", "--test-threads", RUNNING]);
        for failing in &failing {
            command.args(["--skip", failing.test]);
        }
        for unsettled in UNSETTLED.iter().filter(|unsettled| unsettled.suite == suite.name) {
            command.args(["--skip", unsettled.test]);
            sum.unsettled += 1;
            eprintln!("{}: not run: {}: {}", suite.name, unsettled.test, unsettled.why);
        }
        let ran = command::logged(command, &suite.name, &log, SUITE, &step);
        let outcomes = read(&log)?;
        match ran {
            Ok(()) if outcomes.complete => step.done(),
            Ok(()) => {
                drop(step);
                sum.troubles.push(format!("{}: ended without a result: {}", suite.name, log.display()));
            }
            Err(failure @ Failure::Start { .. }) => return Err(failure.into()),
            Err(failure) => {
                drop(step);
                demo::checkpoint();
                sum.troubles.push(self.trouble(suite, &outcomes, &failure, &log)?);
            }
        }
        sum.suites += 1;
        sum.passed += outcomes.passed.len();
        sum.ignored += outcomes.ignored.len();
        for ignored in &outcomes.ignored {
            eprintln!("{}: ignored: {ignored}", suite.name);
        }
        if !failing.is_empty() {
            demo::checkpoint();
            self.run_failing(layout, suite, &failing, sum)?;
        }
        Ok(())
    }

    /// Describes the failure of a suite: the tests to blame, or those that had not ended.
    fn trouble(&self, suite: &Suite, outcomes: &Outcomes, failure: &Failure, log: &Path) -> Result<String> {
        let (name, log) = (&suite.name, log.display());
        if outcomes.complete && !outcomes.failed.is_empty() {
            return Ok(format!("{name}: failed: {} ({log})", outcomes.failed.join(", ")));
        }
        let listed = command::capture(self.command(suite)?.args(["--list", "--format", "terse"]), LIST)?;
        let mut open: BTreeSet<&str> = libtest::listed(&listed.stdout).collect();
        for over in [&outcomes.passed, &outcomes.failed, &outcomes.ignored].into_iter().flatten() {
            open.remove(over.as_str());
        }
        let open: Vec<_> = open.into_iter().take(12).collect();
        Ok(format!(
            "{failure}\n{name}: failed: {}; not over: {}",
            outcomes.failed.join(", "),
            open.join(", ")
        ))
    }

    /// Runs the tests of a suite that are expected to fail. One that passes is a trouble: its place is no
    /// longer on the list.
    fn run_failing(&self, layout: &Layout, suite: &Suite, failing: &[&Failing], sum: &mut Sum) -> Result<()> {
        let name = format!("{}: {} tests, which must fail", suite.name, failing.len());
        let step = Step::start(&name);
        let mut command = self.command(suite)?;
        // Most of them wait until their own time-out.
        command.args(["--exact", "--test-threads", WAITING]).args(failing.iter().map(|failing| failing.test));
        let log = log_of(layout, &format!("{}-failing", suite.name));
        let ran = command::logged(command, &name, &log, SUITE, &step);
        if let Err(failure @ Failure::Start { .. }) = ran {
            return Err(failure.into());
        }
        let outcomes = read(&log)?;
        let listed = command::capture(self.command(suite)?.args(["--list", "--format", "terse"]), LIST)?;
        let there: BTreeSet<&str> = libtest::listed(&listed.stdout).collect();
        for Failing { test, why, .. } in failing.iter().copied() {
            if !there.contains(test) {
                sum.troubles.push(format!("{}: there is no test {test}: take it off the list", suite.name));
            } else if outcomes.passed.iter().any(|passed| passed == test) {
                sum.troubles.push(format!("{}: {test} passes: take it off the list", suite.name));
            } else {
                sum.failing += 1;
                eprintln!("    {test}: {why}");
            }
        }
        step.done();
        Ok(())
    }

    fn command(&self, suite: &Suite) -> Result<Command> {
        let program = suite.program.to_str().context("the target directory's path is not valid UTF-8")?;
        let mut command = self.0.command(program)?;
        command
            .current_dir(&suite.directory)
            .env("CARGO_MANIFEST_DIR", &suite.directory)
            .env("WINEDEBUG", "-all")
            .env("RUST_BACKTRACE", "0");
        Ok(command)
    }
}

/// The log of a suite.
fn log_of(layout: &Layout, name: &str) -> PathBuf {
    layout.log(&format!("suite-{}", name.replace("::", "-").replace('/', "-")))
}

/// Reads the output of a suite from its log.
fn read(log: &Path) -> Result<Outcomes> {
    let text = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(Outcomes::read(&String::from_utf8_lossy(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(package: &str, kind: &str, name: &str, test: bool) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"path+file:///w/{package}",
            "manifest_path":"/w/crates/x/Cargo.toml","target":{{"kind":["{kind}"],"crate_types":["bin"],
            "name":"{name}","src_path":"/w/m.rs","edition":"2024","doc":false,"doctest":false,"test":true}},
            "profile":{{"opt_level":"0","debuginfo":0,"debug_assertions":true,"overflow_checks":true,
            "test":{test}}},"features":[],"filenames":[],"executable":"/t/{name}-1.exe","fresh":true}}"#
        )
        .replace('\n', "")
    }

    #[test]
    fn suites_are_what_cargo_has_built_for_tests() {
        let messages = [
            artifact("crates/wsk-sim#0.1.0", "lib", "wsk_sim", true),
            artifact("main#wsk@0.1.0", "test", "library", true),
            artifact("main#wsk@0.1.0", "example", "conditional_accept", true),
            artifact("examples/conditional-accept/gatectl#0.1.0", "bin", "gatectl", false),
            artifact("xtask#0.1.0", "bin", "xtask", true),
        ];
        let suites = suites_in(&messages.join("\n"));
        let names: Vec<_> = suites.iter().map(|suite| &*suite.name).collect();
        assert_eq!(names, ["wsk-sim", "wsk::library", "wsk::example/conditional_accept", "xtask::bin/xtask"]);
        assert_eq!(suites[1].program, Path::new("/t/library-1.exe"));
        assert_eq!(suites[1].directory, Path::new("/w/crates/x"));
    }

    #[test]
    fn every_exception_has_a_reason_and_a_suite_is_either_run_or_not() {
        for (name, why) in LEFT_OUT {
            assert!(why.len() > 20, "{name}");
            assert!(FAILING.iter().all(|failing| failing.suite != *name), "{name}");
        }
        for Failing { suite, test, why } in FAILING.iter().chain(UNSETTLED) {
            assert!(why.len() > 20, "{suite}: {test}");
        }
    }

    #[test]
    fn a_list_that_names_no_suite_is_noticed() {
        let all = strays(&[]);
        let there: Vec<_> = all
            .iter()
            .map(|name| Suite { name: (*name).to_owned(), program: "p".into(), directory: "d".into() })
            .collect();
        assert!(!all.is_empty() && strays(&there).is_empty());
        assert_eq!(strays(&there[1..]), [there[0].name.as_str()]);
    }
}
