//! The modules that are no sockets know nothing of sockets: a driver can use them for anything, and they can
//! be read alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules that are no sockets.
const PLAIN: [&str; 5] = ["executor", "irql", "memory", "sync", "time"];

/// Other modules that they may use: errors.
const ERRORS: [&str; 2] = ["busy", "error"];

/// All source files of a module of the crate.
fn sources(module: &str) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let file = src.join(module).with_extension("rs");
    if file.is_file() {
        return vec![file];
    }
    let mut files: Vec<_> = fs::read_dir(src.join(module))
        .expect("a module is a file or a folder")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    assert!(
        files.iter().all(|file| file.extension().is_some_and(|extension| extension == "rs")),
        "{files:?}"
    );
    files.sort();
    files
}

/// The top modules of the crate that a source text names: the words after `crate::`, and after `super::` in a
/// file of its own.
fn named(text: &str, is_top: bool) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut named = BTreeSet::new();
    for line in code {
        for prefix in ["crate::", if is_top { "super::" } else { "crate::" }] {
            for after in line.split(prefix).skip(1) {
                let word: String =
                    after.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                // `crate::{a, b}` would hide names from this test.
                assert!(!word.is_empty(), "one path in each use: {line}");
                named.insert(word);
            }
        }
    }
    named
}

#[test]
fn what_is_no_socket_knows_no_sockets() {
    for module in PLAIN {
        for file in sources(module) {
            let text = fs::read_to_string(&file).expect("the file can be read");
            let is_top = file.ends_with(format!("src/{module}.rs"));
            for name in named(&text, is_top) {
                let allowed = PLAIN.contains(&name.as_str()) || ERRORS.contains(&name.as_str());
                assert!(allowed, "{} uses `crate::{name}`, which is not below sockets", file.display());
            }
        }
    }
}

/// Errors are below everything.
#[test]
fn errors_know_memory_only() {
    for module in ERRORS {
        for file in sources(module) {
            let text = fs::read_to_string(&file).expect("the file can be read");
            for name in named(&text, true) {
                assert!(
                    ["error", "memory"].contains(&name.as_str()),
                    "{} uses `crate::{name}`",
                    file.display()
                );
            }
        }
    }
}
