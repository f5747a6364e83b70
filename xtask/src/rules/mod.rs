//! `cargo xtask rules`: reports which rules of the contract the tests show.
//!
//! ```text
//!  tests/rules.tsv ──► table ──┐
//!  tests/unshown.tsv ► table ──┼──► coverage ──► render ──► terminal, docs/rules.md
//!  test sources ─────► scan ───┘
//!
//!  tests/probe-answers.tsv, --answers FILE ─► answers ─► what a Windows machine settles
//! ```
//!
//! A test names the rules it is about in its doc comment, one line for each kind of evidence:
//!
//! ```text
//! /// Shows: LSN-03, LSN-05      the behaviour is shown on the provider through raw calls
//! /// Prevents: LSN-09           safe code cannot break the rule
//! /// Catches: LSN-09            the checker reports a raw client that breaks it
//! #[test]
//! fn …
//! ```
//!
//! A rule that leaves the provider a choice is shown under every alternative, which fails the command
//! otherwise: see `open`. So does a disagreement of the table and the checker on violations and advice: see
//! `severity`.
//!
//! A file under a `tests/compile_fail/` directory does the same in its leading `//!` lines (`Prevents:`
//! only).
//!
//! Exit status: 0 if all that was asked for holds, 1 if not, 2 if an input is malformed.

mod answers;
mod coverage;
mod evidence;
mod open;
mod render;
mod scan;
mod severity;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use self::coverage::Coverage;
use self::open::Choices;
use self::severity::Reports;
use self::table::{Reasons, RuleTable};
use crate::probe::EXPECTED;

/// Path of the rules, relative to the workspace.
const RULES: &str = "tests/rules.tsv";
/// Path of the reasons for rules that no user-mode provider can show.
const UNSHOWN: &str = "tests/unshown.tsv";
/// The page that carries the table made by this command.
const PAGE: &str = "docs/rules.md";

/// Options of `cargo xtask rules`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail unless every rule with a seed is shown, or has a written reason (fewer than 3 % may have one)
    #[arg(long)]
    seeds: bool,
    /// Fail unless this share of the other rules in the areas in scope is shown
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, default_missing_value = "80",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    min_areas: Option<u8>,
    /// Regenerate the table in docs/rules.md
    #[arg(long, conflicts_with = "check")]
    write: bool,
    /// Fail if the table in docs/rules.md is not the one `--write` would make
    #[arg(long)]
    check: bool,
    /// Print nothing but failures
    #[arg(long, short)]
    quiet: bool,
    /// Compare a file that the probe driver wrote on a Windows machine with the rules
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "min_areas", "write", "check"])]
    answers: Option<PathBuf>,
    /// Show these rules only: their text and the tests that name them
    #[arg(value_name = "RULE", conflicts_with_all = ["seeds", "min_areas", "write", "check", "answers"])]
    rules: Vec<String>,
}

/// Runs the command on the workspace at `root`.
pub(crate) fn run(root: &Path, args: &Args) -> Result<ExitCode> {
    if let Some(file) = &args.answers {
        print!("{}", settled(root, file)?);
        return Ok(ExitCode::SUCCESS);
    }
    let table = rules(root)?;
    let coverage = load(root, &table)?;
    if !args.rules.is_empty() {
        for id in &args.rules {
            let Some(entry) = coverage.entry(id) else { bail!("there is no rule {id} in {RULES}") };
            print!("{}", render::entry(entry));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.quiet {
        print!("{}\n{}", render::terminal(&coverage), severity::summary(&table));
    }

    let mut failures = Choices::read(root)?.failures(coverage.entries());
    failures.extend(Reports::read(root)?.failures(&table));
    if args.seeds {
        failures.extend(coverage.seed_failures());
    }
    if let Some(percent) = args.min_areas {
        failures.extend(coverage.area_failure(percent));
    }
    if args.write || args.check {
        let path = root.join(PAGE);
        let page = std::fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
        let wanted = render::page(&page, &coverage).with_context(|| PAGE.to_owned())?;
        if args.write && wanted != page {
            std::fs::write(&path, wanted).with_context(|| format!("cannot write {PAGE}"))?;
            println!("{PAGE} written");
        } else if wanted != page {
            failures.push(format!("{PAGE} is out of date: run `cargo xtask rules --write`"));
        }
    }
    for failure in &failures {
        eprintln!("failed: {failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Reads the rules, the reasons and every test under `root`. Everything malformed is reported at once.
fn load(root: &Path, rules: &RuleTable) -> Result<Coverage> {
    let reasons = Reasons::parse(&read(root, UNSHOWN)?, rules).with_context(|| UNSHOWN.to_owned())?;
    answers::expected(&read(root, EXPECTED)?, rules).with_context(|| EXPECTED.to_owned())?;
    let scan = scan::workspace(root)?;
    Coverage::new(rules, &reasons, scan)
}

/// Compares the answers of a Windows machine with the rules.
fn settled(root: &Path, file: &Path) -> Result<String> {
    let rules = rules(root)?;
    let expected = answers::expected(&read(root, EXPECTED)?, &rules).with_context(|| EXPECTED.to_owned())?;
    let name = || file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", name()))?;
    answers::report(&text, &rules, &expected).with_context(name)
}

fn rules(root: &Path) -> Result<RuleTable> {
    RuleTable::parse(&read(root, RULES)?).with_context(|| RULES.to_owned())
}

fn read(root: &Path, path: &str) -> Result<String> {
    std::fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HEAD: &str = "id\tside\tevidence\tseed\tsection\trule\n";

    fn workspace(rules: &str, unshown: &str, tests: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        put(RULES, &format!("{HEAD}{rules}"));
        put(UNSHOWN, &format!("id\treason\n{unshown}"));
        put(EXPECTED, "call\trules\tanswer\n");
        put("tests/all.rs", tests);
        put(PAGE, "# Rules\n\n<!-- rules:begin -->\n<!-- rules:end -->\n\nEnd.\n");
        dir
    }

    fn args(words: &[&str]) -> Args {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        <Line as clap::Parser>::parse_from(["rules", "--quiet"].iter().chain(words)).args
    }

    fn code(dir: &tempfile::TempDir, words: &[&str]) -> Result<bool> {
        run(dir.path(), &args(words)).map(|code| code == ExitCode::SUCCESS)
    }

    #[test]
    fn plain_report_passes_with_rules_missing_and_seeds_does_not() {
        let dir = workspace("LSN-01\tP\tD\t001\t4.1\tOne.\n", "", "");
        assert!(code(&dir, &[]).expect("well formed"));
        assert!(!code(&dir, &["--seeds"]).expect("well formed"));
        assert!(code(&dir, &["LSN-01"]).expect("well formed"));
        assert!(code(&dir, &["LSN-02"]).is_err());
    }

    #[test]
    fn seeds_pass_when_shown() {
        let dir = workspace(
            "LSN-01\tP\tD\t001\t4.1\tOne.\nLSN-02\tC\tD\t-\t4.1\tTwo.\n",
            "",
            "/// Shows: LSN-01\n#[test]\nfn one() { assert!(true); }\n",
        );
        assert!(code(&dir, &["--seeds"]).expect("well formed"));
        assert!(!code(&dir, &["--min-areas"]).expect("well formed"));
        assert!(code(&dir, &["--min-areas", "0"]).expect("well formed"));
    }

    #[test]
    fn the_page_is_written_once_and_then_current() {
        let dir = workspace("LSN-01\tP\tD\t001\t4.1\tOne.\n", "", "");
        assert!(!code(&dir, &["--check"]).expect("well formed"));
        assert!(code(&dir, &["--write"]).expect("well formed"));
        assert!(code(&dir, &["--check"]).expect("well formed"));
        let page = fs::read_to_string(dir.path().join(PAGE)).expect("the page");
        assert!(page.starts_with("# Rules\n\n<!-- rules:begin -->\n"), "{page}");
        assert!(page.ends_with("<!-- rules:end -->\n\nEnd.\n"), "{page}");
        assert!(page.contains("LSN"), "{page}");
    }

    #[test]
    fn an_unknown_rule_in_a_test_is_malformed_input() {
        let dir = workspace(
            "LSN-01\tP\tD\t001\t4.1\tOne.\n",
            "",
            "/// Shows: LSN-77\n#[test]\nfn one() { assert!(true); }\n",
        );
        let error = format!("{:#}", code(&dir, &[]).expect_err("LSN-77 does not exist"));
        assert!(error.contains("LSN-77") && error.contains("tests/all.rs:3"), "{error}");
    }

    #[test]
    fn what_windows_answered_is_visible() {
        let text = "selectable: it fails with STATUS_NOT_FOUND or STATUS_SUCCESS; default STATUS_NOT_FOUND.";
        let dir = workspace(
            &format!(
                "LSN-01\tP\tU,T@14393,T@26100=STATUS_SUCCESS\t-\t4.1\t{text}\n\
                 LSN-02\tP\tD,T@26100\t-\t1\tTwo.\n"
            ),
            "",
            "",
        );
        let coverage = load(dir.path(), &rules(dir.path()).expect("well formed")).expect("well formed");
        let terminal = render::terminal(&coverage);
        assert!(terminal.contains("Seen on Windows: 2 rules; builds 14393 (1), 26100 (2)."), "{terminal}");
        assert!(terminal.contains("LSN-01 on build 26100: STATUS_SUCCESS"), "{terminal}");
        let entry = render::entry(coverage.entry("LSN-01").expect("it is there"));
        assert!(entry.contains("windows   14393: as the provider by default\n"), "{entry}");
        assert!(entry.contains("windows   26100: STATUS_SUCCESS, not the provider's default\n"), "{entry}");
        // The page is written nevertheless.
        assert!(!code(&dir, &["--write"]).expect("well formed"), "no test shows the open rules");
        let page = fs::read_to_string(dir.path().join(PAGE)).expect("the page");
        assert!(page.contains("LSN-01 on build 26100: STATUS_SUCCESS"), "{page}");
    }

    #[test]
    fn an_answer_that_is_the_default_is_malformed_evidence() {
        let text = "selectable: it fails with STATUS_NOT_FOUND or STATUS_SUCCESS; default STATUS_NOT_FOUND.";
        let row = format!("LSN-01\tP\tU,T@26100=STATUS_NOT_FOUND\t-\t4.1\t{text}\n");
        let error = format!("{:#}", code(&workspace(&row, "", ""), &[]).expect_err("no difference"));
        assert!(error.contains("line 2") && error.contains("write T@26100 alone"), "{error}");
        let error = code(&workspace("LSN-01\tP\tT@11\t-\t4.1\tOne.\n", "", ""), &[]).expect_err("no build");
        assert!(format!("{error:#}").contains("not a Windows build"), "{error:#}");
    }

    #[test]
    fn the_file_of_the_probe_is_read_from_anywhere() {
        let dir = workspace("LSN-01\tP\tU\t-\t4.1\tOne.\n", "", "");
        let file = dir.path().join("home.tsv");
        let text = format!("# wsk-probe build=26100\r\n{}\r\n# end 0\r\n", probe_calls::COLUMNS);
        fs::write(&file, text).expect("a file");
        let said = settled(dir.path(), &file).expect("well formed");
        assert!(said.starts_with("Windows build 26100, 0 calls.\n"), "{said}");
        assert!(code(&dir, &["--answers", file.to_str().expect("text")]).expect("well formed"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = workspace("LSN-01\tP\tD\t001\t4.1\tOne.\n", "", "");
        fs::remove_file(dir.path().join(UNSHOWN)).expect("removed");
        assert!(format!("{:#}", code(&dir, &[]).expect_err("no file")).contains(UNSHOWN));
    }

    /// A rule that leaves a choice fails the command until a test that shows it goes through the
    /// alternatives.
    #[test]
    fn a_rule_that_leaves_a_choice_is_shown_under_every_alternative() {
        let rows = "LSN-01\tP\tU\t-\t4.1\tselectable: one or two.\n";
        let test = |body: &str| format!("/// Shows: LSN-01\n#[test]\nfn one() {{ {body} }}\n");
        let dir = workspace(rows, "", &test("run();"));
        assert!(!code(&dir, &[]).expect("well formed"), "there is nothing to choose");
        let provider = dir.path().join("crates/wsk-provider/src");
        fs::create_dir_all(&provider).expect("a directory");
        fs::write(
            provider.join("behaviours.rs"),
            "behaviours! { statuses { \"LSN-01\" one: One = A | B; } choices { \"LSN-01\" two: Two { A, B } \
             } }",
        )
        .expect("a file");
        let with = |body: &str| {
            fs::write(dir.path().join("tests/all.rs"), test(body)).expect("a file");
            code(&dir, &[]).expect("well formed")
        };
        assert!(!with("run();"));
        assert!(!with("for_each_choice(|b, choice: One| b.one = choice, run);"));
        assert!(!with("for choice in Two::ALL { run(); }"));
        assert!(with(
            "for_each_choice(|b, choice: One| b.one = choice, run); for choice in Two::ALL { run(); }"
        ));
        // Nor is it enough that no test claims to show it.
        fs::write(dir.path().join("tests/all.rs"), "#[test]\nfn one() { run(); }\n").expect("a file");
        assert!(!code(&dir, &[]).expect("well formed"));
    }

    /// The project's own inputs are well formed, and the number of rules with a seed is the known one.
    #[test]
    fn the_workspace_is_well_formed() {
        let table = rules(&crate::workspace_root()).expect("well formed");
        let coverage = load(&crate::workspace_root(), &table).expect("well formed");
        let reports = Reports::read(&crate::workspace_root()).expect("Rust");
        assert_eq!(reports.failures(&table), Vec::<String>::new());
        assert_eq!(coverage.seeds().count(), 131);
        let choices = Choices::read(&crate::workspace_root()).expect("well formed");
        assert_eq!(choices.failures(coverage.entries()), Vec::<String>::new());
    }
}
