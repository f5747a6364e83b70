//! The linker: `lld-link` behind a script that drops the switches that it does not support.
//!
//! The script has the linker's name, from which rustc tells how to talk to it; so no linker flavour has to be
//! put into flags that would also reach the host compiler.

use std::path::Path;

use anyhow::{Context as _, Result};
use walkdir::WalkDir;

use super::driver::TARGET;
use super::packages::Versions;
use super::stamp::Stamp;
use super::{Layout, unix_lines};

const SCRIPT: &str = include_str!("../../assets/lld-link.sh");
/// Stands in the script for the linker's path.
const REAL: &str = "lld-link-real";

/// Writes the script, unless it is there and up to date.
pub(super) fn prepare(layout: &Layout, versions: &Versions) -> Result<bool> {
    let real = which::which("lld-link").context("lld-link is not installed: run `cargo xtask setup`")?;
    write(layout, &real, versions.of("lld"))
}

fn write(layout: &Layout, real: &Path, version: &str) -> Result<bool> {
    let script = script(SCRIPT, real);
    let linker = layout.linker();
    let directory = linker.parent().unwrap_or(&layout.cross);
    Stamp::default().version("lld", version).text("lld-link", &script).prepare(directory, |to| {
        forget_linked(layout)?;
        let path = to.join("lld-link");
        std::fs::write(&path, &script).with_context(|| format!("cannot write {}", path.display()))?;
        executable(&path).with_context(|| format!("cannot make {} executable", path.display()))
    })
}

/// The script for this linker. A shell takes a carriage return for a part of the last word.
fn script(text: &str, real: &Path) -> String {
    unix_lines(text).replace(REAL, &real.to_string_lossy())
}

/// Removes what was linked of drivers, so that cargo links it again: it knows nothing of another linker, or
/// of other libraries of the kit, and would take the old image for a fresh one.
///
/// To be called before what is new is in its place. A run that is interrupted between the two then links once
/// too often.
pub(super) fn forget_linked(layout: &Layout) -> Result<()> {
    // Cargo has it under two names: the one it looks at is in `deps`.
    for entry in WalkDir::new(layout.driver_target().join(TARGET)).into_iter().filter_map(Result::ok) {
        let path = entry.path();
        if entry.file_type().is_file() && path.extension().is_some_and(|extension| extension == "dll") {
            std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn executable(path: &Path) -> std::io::Result<()> {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;
    set_permissions(path, Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn executable(path: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::fs::metadata(path)?.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_from_any_checkout_is_one_for_a_shell() {
        let unix = unix_lines(SCRIPT).into_owned();
        let real = Path::new("/opt/lld-link");
        assert!(!unix.contains('\r') && unix.starts_with("#!/bin/sh\n"), "{unix}");
        assert_eq!(script(&unix.replace('\n', "\r\n"), real), script(&unix, real));
    }

    #[test]
    fn with_another_linker_the_driver_is_linked_again() {
        let place = tempfile::tempdir().unwrap();
        let layout = Layout { workspace: place.path().to_owned(), cross: place.path().join("cross") };
        let release = layout.driver_target().join(TARGET).join("release");
        let names = ["x.dll", "deps/x.dll", "deps/libx.rlib"].map(|name| release.join(name));
        let left = |real: &str, version: &str| {
            std::fs::create_dir_all(release.join("deps")).unwrap();
            for name in &names {
                std::fs::write(name, "").unwrap();
            }
            let made = write(&layout, Path::new(real), version).unwrap();
            (made, names.each_ref().map(|name| name.exists()))
        };
        assert_eq!(left("/usr/bin/lld-link", "14"), (true, [false, false, true]));
        assert_eq!(left("/usr/bin/lld-link", "14"), (false, [true; 3]));
        assert_eq!(left("/usr/bin/lld-link", "15"), (true, [false, false, true]));
        assert_eq!(left("/opt/lld-link", "15"), (true, [false, false, true]));
        assert!(std::fs::read_to_string(layout.linker()).unwrap().ends_with("exec /opt/lld-link \"$@\"\n"));
    }
}
