//! The words of the sources: first lines of docs, SAFETY comments, and the width of lines.
//!
//! [`ALLOWED`] has the folders that do not keep these rules yet. Its numbers may only shrink: a folder with more
//! findings than its numbers fails the test, and one with fewer is printed, so that its numbers can be lowered.

use std::collections::BTreeMap;
use std::fs;
use std::ops::AddAssign;
use std::path::Path;

use walkdir::WalkDir;

/// The width of lines, as in `rustfmt.toml`.
const WIDTH: usize = 110;

/// Words that no doc comment begins with.
const RIDDLES: [&str; 9] = ["What", "Who", "Whoever", "How", "Where", "Nobody", "Whether", "Why", "When"];

/// Phrases that do not name an invariant.
const HOLLOW: [&str; 4] = ["as above", "forwarded", "Forwarded", "as for "];

const ADVICE: &str = "\
Doc comments begin with a noun phrase (\"Size of the buffer\") or a verb in the third person (\"Returns true if …\").
SAFETY comments name the invariant and who keeps it, not another comment; one block with one comment is best.
Lines have at most 110 columns, comments and strings too.";

/// Findings of one folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    first_lines: usize,
    safety: usize,
    wide: usize,
}

impl Counts {
    fn exceeds(self, allowed: Self) -> bool {
        self.first_lines > allowed.first_lines || self.safety > allowed.safety || self.wide > allowed.wide
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.first_lines += other.first_lines;
        self.safety += other.safety;
        self.wide += other.wide;
    }
}

/// The findings that are left, by folder. All other folders have none.
const ALLOWED: &[(&str, Counts)] = &[("tests", counts(0, 0, 1))];

const fn counts(first_lines: usize, safety: usize, wide: usize) -> Counts {
    Counts { first_lines, safety, wide }
}

/// Returns the kind and the text of a doc comment's line.
fn doc(line: &str) -> Option<(&'static str, &str)> {
    ["//!", "///"].into_iter().find_map(|kind| Some((kind, line.strip_prefix(kind)?.trim_start())))
}

/// Returns the findings of a source, and a line of text for each.
fn findings(path: &str, source: &str) -> (Counts, Vec<String>) {
    let mut total = Counts::default();
    let mut lines = Vec::new();
    let mut former = None;
    for (index, line) in source.lines().enumerate() {
        let text = line.trim_start();
        let mut found = |count: Counts, what: &str| {
            total += count;
            lines.push(format!("{path}:{}: {what}: {text}", index + 1));
        };
        let now = doc(text);
        let begins = now.filter(|(kind, _)| former != Some(*kind));
        let first_word = begins.and_then(|(_, text)| text.split(|c: char| !c.is_alphanumeric()).next());
        if first_word.is_some_and(|word| RIDDLES.contains(&word)) {
            found(counts(1, 0, 0), "first line of a doc comment");
        }
        former = now.map(|(kind, _)| kind);
        if text.contains("SAFETY:") && HOLLOW.iter().any(|phrase| text.contains(phrase)) {
            found(counts(0, 1, 0), "SAFETY comment without an invariant");
        }
        if line.chars().count() > WIDTH {
            found(counts(0, 0, 1), "wide line");
        }
    }
    (total, lines)
}

/// Returns the folder of a file under which its findings are counted.
fn folder(path: &str) -> String {
    let parts: Vec<_> = path.split('/').collect();
    let depth = match parts.as_slice() {
        ["crates", _, _, ..] => 2,
        _ => 1,
    };
    parts[..depth].join("/")
}

#[test]
fn sources_keep_the_rules_for_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut folders = BTreeMap::<String, (Counts, Vec<String>)>::new();
    let files = WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(|entry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || !(name.starts_with('.') || name == "target")
    });
    for file in files {
        let file = file.expect("the workspace can be read");
        if file.path().extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let path =
            file.path().strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
        // This file quotes the phrases.
        if path == "xtask/tests/words.rs" {
            continue;
        }
        let source = fs::read_to_string(file.path()).expect("a source is text");
        let (counts, lines) = findings(&path, &source);
        let of_folder = folders.entry(folder(&path)).or_default();
        of_folder.0 += counts;
        of_folder.1.extend(lines);
    }
    let mut worse = Vec::new();
    for (folder, (found, lines)) in &folders {
        let allowed = ALLOWED.iter().find(|(name, _)| name == folder);
        let allowed = allowed.map_or(Counts::default(), |(_, allowed)| *allowed);
        if found.exceeds(allowed) {
            worse.push(format!("{folder}: {found:?}, allowed are {allowed:?}\n  {}", lines.join("\n  ")));
        } else if *found != allowed {
            println!("{folder}: lower its numbers to {found:?}");
        }
    }
    assert!(worse.is_empty(), "{}\n\n{ADVICE}", worse.join("\n"));
}

#[test]
fn each_finding_is_counted() {
    let source = format!(
        "//! What this is.\n//! How it works.\n\n/// Whether it is.\nfn a() {{}}\n/// A thing.\n/// When it is not first.\n\
         // SAFETY: as above.\n// SAFETY: forwarded to the caller.\n{}\n",
        "x".repeat(WIDTH + 1)
    );
    let (found, lines) = findings("a.rs", &source);
    assert_eq!(found, counts(2, 2, 1), "{lines:#?}");
    assert_eq!(
        (folder("crates/netio/src/lib.rs"), folder("src/lib.rs")),
        ("crates/netio".into(), "src".into())
    );
}
