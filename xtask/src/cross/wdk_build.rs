//! A copy of `wdk-build`, as published, that also runs on Linux.
//!
//! ```text
//!  cargo metadata of the driver ─► where the published sources are, and their version
//!        └─► copied ─► EDITS ─► <target>/cross/wdk-build ─► cargo --config 'paths=[…]'
//! ```
//!
//! Only what keeps the crate from running here is changed: the registry is not asked, the two refusals to set
//! a variable are lifted, links are made the Unix way, and the driver's manifest is taken from the
//! environment instead of being searched above the build's output. An edit that does not fit the published
//! text ends the command: nothing is built with a library that is half changed.
//!
//! `paths` replaces a package and leaves `Cargo.lock` alone, so the driver's own lock file is the one of a
//! Windows user.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use walkdir::WalkDir;

use super::Layout;
use super::stamp::Stamp;

/// The version whose text the edits are written for.
pub(super) const VERSION: &str = "0.6.0";
/// The variable that tells the copy which manifest is being built.
pub(super) const MANIFEST_VARIABLE: &str = "WDK_BUILD_TOP_LEVEL_MANIFEST";

/// One change of one file.
#[derive(Debug, Clone, Copy)]
struct Edit {
    file: &'static str,
    /// Reason.
    reason: &'static str,
    change: Change,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    /// Removes everything from the first text up to the second.
    Cut { from: &'static str, until: &'static str },
    /// A text, found exactly so many times, is replaced.
    Replace { what: &'static str, times: usize, with: &'static str },
}

const EDITS: [Edit; 11] = [
    Edit {
        file: "src/utils.rs",
        reason: "there is no registry",
        change: Change::Cut { from: "use windows::{\n", until: "use crate::{" },
    },
    Edit {
        file: "src/utils.rs",
        reason: "there is no registry",
        change: Change::Cut {
            from: "    // Check HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows Kits\\Installed\n",
            until: "    None\n}\n",
        },
    },
    Edit {
        file: "src/utils.rs",
        reason: "there is no registry",
        change: Change::Cut {
            from: "/// Read a string value from a registry key\n",
            until: "/// Detects the Windows SDK version from the `Version_Number`",
        },
    },
    Edit {
        file: "src/utils.rs",
        reason: "an import nothing uses any more",
        change: Change::Replace { what: "ffi::{CStr, OsStr},", times: 1, with: "ffi::OsStr," },
    },
    Edit {
        file: "src/utils.rs",
        reason: "build scripts may set variables here too: they have one thread",
        change: Change::Replace { what: "#[cfg(target_os = \"windows\")]\npub fn", times: 2, with: "pub fn" },
    },
    Edit {
        file: "src/utils.rs",
        reason: "the refusal to set a variable",
        change: Change::Replace {
            what: "#[cfg(not(target_os = \"windows\"))]\npub fn",
            times: 2,
            with: "#[cfg(any())]\npub fn",
        },
    },
    Edit {
        file: "src/cargo_make.rs",
        reason: "links are made the Unix way",
        change: Change::Replace {
            what: "std::os::windows::fs::symlink_file",
            times: 2,
            with: "std::os::unix::fs::symlink",
        },
    },
    Edit {
        file: "src/lib.rs",
        reason: "the target directory is not inside the driver's",
        change: Change::Replace {
            what: "pub fn find_top_level_cargo_manifest() -> PathBuf {\n",
            times: 1,
            with: "pub fn find_top_level_cargo_manifest() -> PathBuf {\n    \
                   if let Some(manifest) = env::var_os(\"WDK_BUILD_TOP_LEVEL_MANIFEST\") {\n        \
                   return PathBuf::from(manifest);\n    }\n",
        },
    },
    Edit {
        file: "Cargo.toml",
        reason: "the windows crate does not compile here, and is not used any more",
        change: Change::Replace {
            what: "[dependencies.windows]\n",
            times: 1,
            with: "[target.'cfg(windows)'.dependencies.windows]\n",
        },
    },
    Edit {
        file: "Cargo.toml",
        reason: "the same for tests",
        change: Change::Replace {
            what: "[dev-dependencies.windows]\n",
            times: 1,
            with: "[target.'cfg(windows)'.dev-dependencies.windows]\n",
        },
    },
    Edit {
        file: "Cargo.toml",
        reason: "a replaced package shows warnings that a published one does not",
        change: Change::Replace {
            what: "[lints.rust]\n",
            times: 1,
            with: "[lints.rust]\nwarnings = \"allow\"\n",
        },
    },
];

/// Prepares the copy from the published sources at `source`, unless it is there and up to date.
pub(super) fn prepare(layout: &Layout, source: &Path, version: &str) -> Result<bool> {
    let stamp = Stamp::default()
        .version("wdk-build", version)
        .text("source", &source.to_string_lossy())
        .text("edits", &format!("{EDITS:?}"));
    stamp.prepare(&layout.wdk_build(), |to| {
        copy(source, to)?;
        for edit in EDITS {
            let path = to.join(edit.file);
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("wdk-build {version} has no {}", edit.file))?;
            // Some releases are published with the line ends of Windows.
            let text = edit.apply(&text.replace("\r\n", "\n")).with_context(|| not_as_known(version))?;
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    })
}

fn not_as_known(version: &str) -> String {
    format!(
        "wdk-build {version} is not the text that this tool knows how to change (it knows {VERSION}); \
         xtask/src/cross/wdk_build.rs has to be brought up to date"
    )
}

impl Edit {
    /// The changed text.
    fn apply(&self, text: &str) -> Result<String> {
        let wrong = |what: &str, times: usize, found: usize| {
            let what = what.lines().next().unwrap_or(what).trim();
            format!(
                "{}: expected {what:?} {times} times, found it {found} times ({})",
                self.file, self.reason
            )
        };
        match self.change {
            Change::Replace { what, times, with } => {
                let found = text.matches(what).count();
                if found != times {
                    bail!(wrong(what, times, found));
                }
                Ok(text.replace(what, with))
            }
            Change::Cut { from, until } => {
                let mut places = text.match_indices(from).map(|(at, _)| at);
                let (Some(start), None) = (places.next(), places.next()) else {
                    bail!(wrong(from, 1, text.matches(from).count()));
                };
                let Some(length) = text[start..].find(until) else { bail!(wrong(until, 1, 0)) };
                Ok([&text[..start], &text[start + length..]].concat())
            }
        }
    }
}

/// Copies a directory, and makes the copy writable.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in WalkDir::new(from) {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let relative = entry.path().strip_prefix(from).unwrap_or(entry.path());
        let target = to.join(relative);
        let copied = if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target)
        } else {
            // Content alone: the registry's files may be read-only.
            std::fs::read(entry.path()).and_then(|content| std::fs::write(&target, content))
        };
        copied.with_context(|| format!("cannot copy {}", entry.path().display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(what: &'static str, times: usize) -> Edit {
        Edit { file: "src/x.rs", reason: "a test", change: Change::Replace { what, times, with: "new" } }
    }

    fn cut(from: &'static str, until: &'static str) -> Edit {
        Edit { file: "src/x.rs", reason: "a test", change: Change::Cut { from, until } }
    }

    #[test]
    fn edits_change_what_they_name() {
        assert_eq!(replace("old", 2).apply("old and old").unwrap(), "new and new");
        assert_eq!(cut("b", "d").apply("abcde").unwrap(), "ade");
    }

    #[test]
    fn an_edit_that_does_not_fit_says_where_and_why() {
        for (edit, text) in [
            (replace("old", 2), "old"),
            (replace("old", 1), "none"),
            (cut("b", "d"), "abc"),
            (cut("b", "d"), "abd bd"),
            (cut("b", "d"), "d"),
        ] {
            let error = edit.apply(text).expect_err(text).to_string();
            assert!(error.starts_with("src/x.rs: expected") && error.ends_with("(a test)"), "{error}");
        }
    }

    #[test]
    fn an_unknown_text_leaves_nothing_behind() {
        let source = tempfile::tempdir().unwrap();
        std::fs::create_dir(source.path().join("src")).unwrap();
        std::fs::write(source.path().join("src/utils.rs"), "fn other() {}\n").unwrap();
        let place = tempfile::tempdir().unwrap();
        let layout = Layout { workspace: place.path().to_owned(), cross: place.path().join("cross") };
        let error = prepare(&layout, source.path(), "0.7.0").expect_err("it is another text");
        assert!(format!("{error:#}").contains("wdk-build 0.7.0 is not the text"), "{error:#}");
        assert!(!layout.wdk_build().exists());
    }
}
