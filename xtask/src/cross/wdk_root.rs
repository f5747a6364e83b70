//! A content root of the Windows Driver Kit, made of Debian's packages.
//!
//! ```text
//!  <root>/Include/<version>/shared ──────► the headers of mingw-w64
//!                          /km/*.h ──────► its headers for drivers; ntifs.h is ours
//!                          /km/crt/*.h ──► freestanding headers of clang; empty ones for intrinsics
//!  <root>/Lib/<version>/km/x64/*.lib ────► its import libraries under the kit's names
//!                              BufferOverflowFastFailK.lib: what the import libraries lack (assets/)
//!                              wmilib.lib: nothing
//! ```
//!
//! The headers are linked, not copied: an upgrade of the packages is seen by the stamp.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::link::forget_linked;
use super::packages::Versions;
use super::stamp::Stamp;
use super::{Layout, tool, unix_lines};
use crate::command;

/// The version that the root claims to be. Any of this form does.
pub(super) const VERSION: &str = "10.0.22621.0";

const NTIFS: &str = include_str!("../../assets/ntifs.h");
const POOL: &str = include_str!("../../assets/pool2.c");
const STACK: &str = include_str!("../../assets/chkstk.c");
const EMPTY: &str = include_str!("../../assets/empty.c");

/// Directory of the headers and libraries of mingw-w64.
const MINGW: &str = "/usr/x86_64-w64-mingw32";
/// Headers of clang that need no C library.
const FREESTANDING: [&str; 6] =
    ["__stddef_max_align_t.h", "float.h", "limits.h", "stdarg.h", "stddef.h", "stdint.h"];
/// Headers of compiler intrinsics, which a generator of bindings has no use for.
const INTRINSICS: [&str; 5] = ["emmintrin.h", "intrin.h", "mmintrin.h", "x86intrin.h", "xmmintrin.h"];
/// Import libraries that mingw-w64 has.
const IMPORTS: [&str; 3] = ["hal", "netio", "ntoskrnl"];

/// Prepares the root, unless it is there and up to date.
pub(super) fn prepare(layout: &Layout, versions: &Versions) -> Result<bool> {
    let stamp = ["mingw-w64-x86-64-dev", "clang", "llvm"]
        .iter()
        .fold(Stamp::default(), |stamp, name| stamp.version(name, versions.of(name)))
        .text("ntifs.h", NTIFS)
        .text("pool2.c", POOL)
        .text("chkstk.c", STACK)
        .text("empty.c", EMPTY)
        .text("layout", &format!("1 {VERSION} {FREESTANDING:?} {INTRINSICS:?} {IMPORTS:?}"));
    stamp.prepare(&layout.wdk(), |root| {
        forget_linked(layout)?;
        headers(&root.join("Include").join(VERSION))?;
        libraries(&root.join("Lib").join(VERSION).join("km/x64"))
    })
}

fn headers(include: &Path) -> Result<()> {
    let mingw = Path::new(MINGW).join("include");
    let km = include.join("km");
    let crt = km.join("crt");
    fs::create_dir_all(&crt).with_context(|| format!("cannot create {}", crt.display()))?;
    link(&mingw, &include.join("shared"))?;

    let ddk = mingw.join("ddk");
    let entries = fs::read_dir(&ddk).with_context(|| format!("cannot read {}", ddk.display()))?;
    for entry in entries {
        let header = entry.with_context(|| format!("cannot read {}", ddk.display()))?.path();
        let Some(name) = header.file_name() else { continue };
        if header.extension().is_some_and(|extension| extension == "h") && name != "ntifs.h" {
            link(&header, &km.join(name))?;
        }
    }
    write(&km.join("ntifs.h"), NTIFS)?;

    let clang = resource_directory()?.join("include");
    for name in FREESTANDING {
        link(&clang.join(name), &crt.join(name))?;
    }
    for name in INTRINSICS {
        write(&crt.join(name), "#pragma once\n")?;
    }
    Ok(())
}

fn libraries(to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for name in IMPORTS {
        let from = Path::new(MINGW).join(format!("lib/lib{name}.a"));
        let library = to.join(format!("{name}.lib"));
        fs::copy(&from, &library).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    archive(&to.join("BufferOverflowFastFailK.lib"), &[("pool2", POOL), ("chkstk", STACK)])?;
    archive(&to.join("wmilib.lib"), &[("empty", EMPTY)])
}

/// An archive with an object for each name, compiled from C.
fn archive(library: &Path, sources: &[(&str, &str)]) -> Result<()> {
    let scratch = tempfile::tempdir().context("cannot create a temporary directory")?;
    let mut out = std::ffi::OsString::from("/out:");
    out.push(library);
    let mut llvm_lib = tool("llvm-lib");
    llvm_lib.arg(out);
    for (name, source) in sources {
        let c = scratch.path().join(format!("{name}.c"));
        let object = scratch.path().join(format!("{name}.obj"));
        write(&c, source)?;
        let mut clang = tool("clang");
        clang
            .args(["--target=x86_64-pc-windows-msvc", "-c", "-O2", "-Wall", "-Wextra", "-Werror"])
            .args(["-ffreestanding", "-fno-stack-protector", "-mno-sse", "-o"])
            .args([&object, &c]);
        quietly(&mut clang)?;
        llvm_lib.arg(object);
    }
    quietly(&mut llvm_lib)
}

/// The directory of clang's own headers.
fn resource_directory() -> Result<PathBuf> {
    let directory = command::ask("clang", &["-print-resource-dir"]).map(PathBuf::from);
    directory
        .filter(|directory| directory.is_dir())
        .context("cannot find clang's headers: run `cargo xtask setup`")
}

/// Returns the directory of libclang; `None` leaves it to be found.
pub(super) fn libclang() -> Option<PathBuf> {
    command::ask("llvm-config", &["--libdir"]).map(PathBuf::from)
}

/// Runs a short command, whose output matters only when it fails.
fn quietly(command: &mut Command) -> Result<()> {
    let captured = command::capture(command, Duration::from_mins(1))?;
    if !captured.ok() {
        let program = command.get_program().to_string_lossy();
        bail!("{program} failed:\n{}{}", captured.stdout, captured.stderr);
    }
    Ok(())
}

fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, &*unix_lines(content)).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(unix)]
fn link(to: &Path, at: &Path) -> Result<()> {
    if !to.exists() {
        bail!("{} is missing: run `cargo xtask setup`", to.display());
    }
    std::os::unix::fs::symlink(to, at).with_context(|| format!("cannot link {}", at.display()))
}

#[cfg(not(unix))]
fn link(to: &Path, _at: &Path) -> Result<()> {
    bail!("{} is linked on Linux only; on Windows use the real kit", to.display())
}
