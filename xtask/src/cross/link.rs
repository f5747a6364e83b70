//! The linker: `lld-link` behind a script that drops what it does not know.
//!
//! The script has the linker's name, from which rustc tells how to talk to it; so no linker flavour has to be put
//! into flags that would also reach the host compiler.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::Layout;
use super::stamp::Stamp;

const SCRIPT: &str = include_str!("../../assets/lld-link.sh");
/// Stands in the script for the linker's path.
const REAL: &str = "lld-link-real";

/// Writes the script, unless it is there.
pub(super) fn prepare(layout: &Layout) -> Result<()> {
    let real = which::which("lld-link").context("lld-link is not there: run `cargo xtask setup`")?;
    let script = SCRIPT.replace(REAL, &real.to_string_lossy());
    let linker = layout.linker();
    let directory = linker.parent().unwrap_or(&layout.cross);
    Stamp::default().text("lld-link", &script).prepare(directory, |to| {
        let path = to.join("lld-link");
        std::fs::write(&path, &script).with_context(|| format!("cannot write {}", path.display()))?;
        executable(&path).with_context(|| format!("cannot make {} executable", path.display()))
    })?;
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
