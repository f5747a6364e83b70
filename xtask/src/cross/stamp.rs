//! Prepared directories, and what they were made from.
//!
//! ```text
//!            stamp agrees
//!  wanted ───────────────────────────────────────► used as it is
//!     │ differs or is missing
//!     ▼
//!  made in a temporary place ──stamp written──► old one away ──► moved into its place
//!     │ interrupted: the temporary place is removed by the next run
//! ```

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::Path;

use anyhow::{Context as _, Result};

use super::unix_lines;

/// The name of the stamp inside a prepared directory.
const STAMP: &str = ".made-from";

/// Inputs that a directory is made from, one line each.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Stamp(String);

impl Stamp {
    /// Adds something with a version.
    pub(crate) fn version(mut self, name: &str, version: &str) -> Self {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{name} {version}");
        self
    }

    /// Adds a text by its hash, whatever its line ends are.
    pub(crate) fn text(self, name: &str, text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(unix_lines(text).as_bytes());
        let hash = format!("{:016x}", hasher.finish());
        self.version(name, &hash)
    }

    /// Was this directory made from the same?
    pub(crate) fn is_on(&self, directory: &Path) -> bool {
        std::fs::read_to_string(directory.join(STAMP)).is_ok_and(|stamp| stamp == self.0)
    }

    /// Makes `directory` with `make`, unless it is there and was made from the same. Returns whether it was
    /// made.
    pub(crate) fn prepare(&self, directory: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<bool> {
        if self.is_on(directory) {
            return Ok(false);
        }
        let cannot = || format!("cannot create {}", directory.display());
        let new = directory.with_extension("new");
        let old = directory.with_extension("old");
        remove(&new).with_context(cannot)?;
        remove(&old).with_context(cannot)?;
        std::fs::create_dir_all(&new).with_context(cannot)?;
        make(&new)?;
        std::fs::write(new.join(STAMP), &self.0).with_context(cannot)?;
        if directory.exists() {
            std::fs::rename(directory, &old).with_context(cannot)?;
        }
        std::fs::rename(&new, directory).with_context(cannot)?;
        // What is left of the old one is removed by the next run at the latest.
        let _ = remove(&old);
        Ok(true)
    }
}

fn remove(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn the_same_stamp_is_made_once_and_another_again() {
        let parent = tempfile::tempdir().unwrap();
        let place = parent.path().join("wdk");
        let stamp = Stamp::default().version("clang", "14").text("ntifs.h", "one");
        let make = |content: &'static str| {
            move |to: &Path| std::fs::write(to.join("file"), content).context("cannot write")
        };
        assert!(stamp.prepare(&place, make("first")).unwrap());
        assert!(!stamp.prepare(&place, make("second")).unwrap());
        assert_eq!(std::fs::read_to_string(place.join("file")).unwrap(), "first");

        let other = Stamp::default().version("clang", "14").text("ntifs.h", "two");
        assert!(other.prepare(&place, make("third")).unwrap());
        assert_eq!(std::fs::read_to_string(place.join("file")).unwrap(), "third");
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn other_line_ends_are_no_other_text() {
        let of = |text: &str| Stamp::default().text("ntifs.h", text);
        assert_eq!(of("one\r\ntwo\r\n"), of("one\ntwo\n"));
        assert_ne!(of("one\ntwo\n"), of("one two\n"));
    }

    #[test]
    fn a_failed_attempt_leaves_the_old_one_and_is_repeated() {
        let parent = tempfile::tempdir().unwrap();
        let place = parent.path().join("wdk");
        let stamp = Stamp::default().version("clang", "14");
        stamp.prepare(&place, |_| Ok(())).unwrap();
        let newer = Stamp::default().version("clang", "15");
        let failed = newer.prepare(&place, |to| {
            std::fs::write(to.join("half"), "").unwrap();
            bail!("interrupted")
        });
        assert!(failed.is_err());
        assert!(stamp.is_on(&place));
        assert!(
            newer
                .prepare(&place, |to| {
                    assert!(!to.join("half").exists());
                    Ok(())
                })
                .unwrap()
        );
    }
}
