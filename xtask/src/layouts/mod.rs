//! `cargo xtask layouts`: comparison of the structures and constants of `wsk-sys` with those of a C compiler.
//!
//! ```text
//!   sources of wsk-sys ── names ──► questions ──┬──► Rust probe ── rustc ──► object ─┐
//!                                               └──► C probe ──── clang ──► object ─┴─► answers, differences
//!                                                       ▲
//!     wsk_layout.h (ours, written from the published interface) · mingw-w64 · Wine
//! ```
//!
//! The questions come from the sources, so a new structure or constant is compared without being listed
//! anywhere. The Rust probe has `wsk-sys` as a dependency: its compile-time assertions are checked for each
//! target on the way. Our own header must know every name. Other people's headers are compared as far as they
//! go.

mod names;
mod probe;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, presets};

use crate::command;
use crate::cross::{Layout, cross_cargo, packages, remapped, tool};
use crate::progress::Step;
use names::{Constant, Names, Structure};
use probe::Question;

const TARGETS: [&str; 3] = ["x86_64-pc-windows-msvc", "aarch64-pc-windows-msvc", "i686-pc-windows-msvc"];
const CLANG: &str = "clang";
const BUILD: Duration = Duration::from_mins(10);
const COMPILE: Duration = Duration::from_mins(1);
/// Headers of mingw-w64, for all its targets.
const MINGW: &str = "/usr/share/mingw-w64/include";
/// Wine's headers.
const WINE: &str = "/usr/include/wine/wine/windows";

/// Options of `cargo xtask layouts`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare for these targets only
    #[arg(long = "target", value_name = "TRIPLE", value_parser = TARGETS)]
    targets: Vec<String>,
}

/// Whose headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// `crates/wsk-sys/c/wsk_layout.h`.
    Ours,
    /// The headers for drivers of mingw-w64.
    MingwKernel,
    /// The headers for programs of mingw-w64.
    MingwSockets,
    /// Wine's `ddk/wsk.h`.
    Wine,
}

/// Result of one C compiler for one target.
#[derive(Debug)]
struct Comparison {
    view: View,
    target: String,
    structures: usize,
    fields: usize,
    constants: usize,
    differences: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(layout: &Layout, args: &Args) -> Result<ExitCode> {
    let targets: Vec<&str> = if args.targets.is_empty() {
        TARGETS.to_vec()
    } else {
        args.targets.iter().map(String::as_str).collect()
    };
    packages::require()?;
    let _lock = layout.lock()?;
    let work = Work::new(layout)?;
    for view in View::ALL {
        if let Some(line) = view.absent(&view.header(&layout.workspace)) {
            eprintln!("{line}");
        }
    }
    let mut comparisons = Vec::new();
    for target in targets {
        let step = Step::start(format!("Comparing layouts for {target}"));
        for view in View::ALL {
            if let Some(comparison) = work.compare(view, target, &step)? {
                comparisons.push(comparison);
            }
        }
        step.done();
    }
    Ok(report(&comparisons))
}

/// Prints what was compared. The exit code tells whether there are differences.
fn report(comparisons: &[Comparison]) -> ExitCode {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["headers", "target", "structures", "fields", "constants", "differences"]);
    for comparison in comparisons {
        table.add_row([
            comparison.view.name().to_owned(),
            comparison.target.clone(),
            comparison.structures.to_string(),
            comparison.fields.to_string(),
            comparison.constants.to_string(),
            comparison.differences.len().to_string(),
        ]);
    }
    println!("{table}");
    let mut same = true;
    for comparison in comparisons {
        for difference in &comparison.differences {
            same = false;
            println!("{difference} ({}, {})", comparison.view.name(), comparison.target);
        }
    }
    if same { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl View {
    const ALL: [Self; 4] = [Self::Ours, Self::MingwKernel, Self::MingwSockets, Self::Wine];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "wsk_layout.h",
            Self::MingwKernel => "mingw-w64, drivers",
            Self::MingwSockets => "mingw-w64, sockets",
            Self::Wine => "Wine",
        }
    }

    fn stem(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::MingwKernel => "mingw_kernel",
            Self::MingwSockets => "mingw_sockets",
            Self::Wine => "wine",
        }
    }

    /// The header without which the view does not exist.
    fn header(self, workspace: &Path) -> PathBuf {
        match self {
            Self::Ours => workspace.join("crates/wsk-sys/c/wsk_layout.h"),
            Self::MingwKernel => Path::new(MINGW).join("ddk/wdm.h"),
            Self::MingwSockets => Path::new(MINGW).join("winsock2.h"),
            Self::Wine => Path::new(WINE).join("ddk/wsk.h"),
        }
    }

    /// The package that has it; `None` if it is a part of the workspace.
    fn package(self) -> Option<&'static str> {
        match self {
            Self::Ours => None,
            Self::MingwKernel | Self::MingwSockets => Some("mingw-w64-common"),
            Self::Wine => Some("libwine-dev"),
        }
    }

    /// Returns a message if there is nothing to compare with. Wine's headers take 100 MB and are optional.
    fn absent(self, header: &Path) -> Option<String> {
        let package = self.package().filter(|_| !header.is_file())?;
        let header = header.file_name().unwrap_or_default().display();
        Some(format!(
            "{}: not compared, as {header} is not here (it is in the package {package})",
            self.name()
        ))
    }

    /// The free kits know nothing of 64-bit ARM.
    fn serves(self, target: &str) -> bool {
        self == Self::Ours || !target.starts_with("aarch64")
    }

    /// Returns the beginning of a probe.
    fn prelude(self) -> &'static str {
        match self {
            Self::Ours => "#include \"wsk_layout.h\"\n",
            Self::MingwKernel => "#include <ntifs.h>\n#include <ntstatus.h>\n",
            Self::MingwSockets => "#include <winsock2.h>\n#include <ws2tcpip.h>\n#include <mswsock.h>\n",
            Self::Wine => {
                "#include <stdarg.h>\n#define WIN32_NO_STATUS\n#include <windef.h>\n#include <winbase.h>\n\
                 #undef WIN32_NO_STATUS\n\
                 #include <ntstatus.h>\n#include <winternl.h>\n#include <ddk/wdm.h>\n#include <ddk/wsk.h>\n"
            }
        }
    }

    /// The structures that this view has.
    fn structures(self, all: &Names, workspace: &Path) -> Result<Vec<Structure>> {
        let named = |names: &[&str]| {
            all.structures
                .iter()
                .filter(|structure| names.contains(&structure.name.as_str()))
                .cloned()
                .collect()
        };
        Ok(match self {
            Self::Ours => {
                let mut structures = all.structures.clone();
                structures.extend(of_table(&SHARED));
                structures
            }
            Self::MingwKernel => [of_table(&SHARED), of_table(&KERNEL)].concat(),
            Self::MingwSockets => named(&SOCKETS),
            Self::Wine => {
                let header = self.header(workspace);
                let text = std::fs::read_to_string(&header)
                    .with_context(|| format!("cannot read {}", header.display()))?;
                let has = |name: &str| {
                    text.contains(&format!("}} {name},")) || text.contains(&format!("}} {name};"))
                };
                all.structures.iter().filter(|structure| has(&structure.name)).cloned().collect()
            }
        })
    }

    /// The constants to ask this view about.
    fn constants(self, all: &Names) -> Vec<Constant> {
        match self {
            Self::Ours => all.constants.clone(),
            _ => all.constants.iter().filter(|constant| !constant.enumerator).cloned().collect(),
        }
    }
}

/// Socket structures that the headers of mingw-w64 have under the same names.
const SOCKETS: [&str; 9] = [
    "SOCKADDR",
    "IN_ADDR",
    "IN6_ADDR",
    "SOCKADDR_IN",
    "SOCKADDR_IN6",
    "SOCKADDR_STORAGE",
    "SOCKET_ADDRESS",
    "SOCKET_ADDRESS_LIST",
    "ADDRINFOEXW",
];

type Row = (&'static str, &'static [(&'static str, &'static str)]);

/// Types that bindings generate and WSK uses, with their fields in Rust and in C.
const SHARED: [Row; 3] = [
    ("GUID", &[("data1", "Data1"), ("data2", "Data2"), ("data3", "Data3"), ("data4", "Data4")]),
    ("UNICODE_STRING", &[("Length", "Length"), ("MaximumLength", "MaximumLength"), ("Buffer", "Buffer")]),
    ("IO_STATUS_BLOCK", &[("Anonymous.Status", "Status"), ("Information", "Information")]),
];

/// Types of the kernel, with the fields that are read or written in Rust and in C. Where a structure has more
/// fields, they are between these.
const KERNEL: [Row; 6] = [
    (
        "IRP",
        &[
            ("Type", "Type"),
            ("Size", "Size"),
            ("MdlAddress", "MdlAddress"),
            ("Flags", "Flags"),
            ("IoStatus.Anonymous.Status", "IoStatus.Status"),
            ("IoStatus.Information", "IoStatus.Information"),
            ("PendingReturned", "PendingReturned"),
            ("StackCount", "StackCount"),
            ("CurrentLocation", "CurrentLocation"),
            ("Cancel", "Cancel"),
            ("CancelIrql", "CancelIrql"),
            ("AllocationFlags", "AllocationFlags"),
            ("CancelRoutine", "CancelRoutine"),
            ("Tail.Overlay.Thread", "Tail.Overlay.Thread"),
            ("Tail.Overlay.Anonymous1.Anonymous.DriverContext", "Tail.Overlay.DriverContext"),
            ("Tail.Overlay.Anonymous2.ListEntry", "Tail.Overlay.ListEntry"),
            ("Tail.Overlay.Anonymous2.Anonymous.CurrentStackLocation", "Tail.Overlay.CurrentStackLocation"),
        ],
    ),
    (
        "IO_STACK_LOCATION",
        &[
            ("Control", "Control"),
            ("DeviceObject", "DeviceObject"),
            ("CompletionRoutine", "CompletionRoutine"),
            ("Context", "Context"),
        ],
    ),
    (
        "MDL",
        &[
            ("Next", "Next"),
            ("Size", "Size"),
            ("MdlFlags", "MdlFlags"),
            ("MappedSystemVa", "MappedSystemVa"),
            ("StartVa", "StartVa"),
            ("ByteCount", "ByteCount"),
            ("ByteOffset", "ByteOffset"),
        ],
    ),
    ("KEVENT", &[("Header", "Header")]),
    ("KDPC", &[("DeferredRoutine", "DeferredRoutine"), ("DeferredContext", "DeferredContext")]),
    ("LIST_ENTRY", &[("Flink", "Flink"), ("Blink", "Blink")]),
];

fn of_table(rows: &[Row]) -> Vec<Structure> {
    let owned = |(rust, c): &(&str, &str)| ((*rust).to_owned(), (*c).to_owned());
    rows.iter()
        .map(|(name, fields)| Structure {
            name: (*name).to_owned(),
            fields: fields.iter().map(owned).collect(),
        })
        .collect()
}

/// Working directory and tools of the comparison.
struct Work<'a> {
    layout: &'a Layout,
    directory: PathBuf,
    names: Names,
}

impl<'a> Work<'a> {
    fn new(layout: &'a Layout) -> Result<Self> {
        let directory = layout.cross.join("layouts");
        let stubs = directory.join("stubs");
        std::fs::create_dir_all(&stubs).with_context(|| format!("cannot create {}", stubs.display()))?;
        // Intrinsic functions are no part of any layout, and those of mingw-w64 are not for this compiler.
        for name in ["intrin", "x86intrin", "emmintrin", "xmmintrin", "mmintrin"] {
            write(&stubs.join(format!("{name}.h")), "#pragma once\n")?;
        }
        let names = names::read(&layout.workspace.join("crates/wsk-sys/src"))?;
        Ok(Self { layout, directory, names })
    }

    /// Compares with one view; `None` if its headers are not there or do not serve the target.
    fn compare(&self, view: View, target: &str, step: &Step) -> Result<Option<Comparison>> {
        let workspace = &self.layout.workspace;
        if !view.serves(target) || (view != View::Ours && !view.header(workspace).is_file()) {
            return Ok(None);
        }
        let structures = view.structures(&self.names, workspace)?;
        let constants = view.constants(&self.names);
        let questions = probe::questions(&structures, &constants);
        let rust = probe::answers(&self.ask_rust(view, target, &questions, step)?, questions.len())?;
        let c = probe::answers(&self.ask_c(view, target, &questions)?, questions.len())?;
        Ok(Some(judge(view, target, &questions, &rust, &c)))
    }

    fn ask_rust(&self, view: View, target: &str, questions: &[Question], step: &Step) -> Result<PathBuf> {
        // One package for all: the sources differ, the dependencies are built once.
        let package = self.directory.join(view.stem());
        let source = package.join("src");
        std::fs::create_dir_all(&source).with_context(|| format!("cannot create {}", source.display()))?;
        let wsk_sys = self.layout.workspace.join("crates/wsk-sys");
        let manifest = format!(
            "[package]\nname = \"probe_{}\"\nedition = \"2024\"\n\n[workspace]\n\n\
             [dependencies]\nwsk-sys = {{ path = {:?} }}\n",
            view.stem(),
            wsk_sys.display().to_string(),
        );
        write(&package.join("Cargo.toml"), &manifest)?;
        write(&source.join("lib.rs"), &probe::rust_source(questions))?;
        renew_lock(&self.layout.workspace, &package)?;
        let object = package.join(format!("rust-{target}.obj"));
        let mut cargo = cross_cargo(&package);
        cargo
            .args(["rustc", "--lib", "--release", "-Zbuild-std=core", "--target", target, "--target-dir"])
            .arg(self.directory.join("target"))
            // Without flags for the target a user's own for all targets would count, such as a processor's
            // name.
            .args(["--config", &remapped(self.layout, target, None)])
            .arg("--")
            .arg(format!("--emit=obj={}", object.display()))
            .arg("-Ccodegen-units=1");
        let log = self.layout.log(&format!("layouts-{}-{target}", view.stem()));
        command::logged(cargo, "cargo", &log, BUILD, step)?;
        Ok(object)
    }

    fn ask_c(&self, view: View, target: &str, questions: &[Question]) -> Result<PathBuf> {
        let source = self.directory.join(format!("{}.c", view.stem()));
        write(&source, &probe::c_source(view.prelude(), questions, view != View::Ours))?;
        let object = self.directory.join(view.stem()).join(format!("c-{target}.obj"));
        let workspace = &self.layout.workspace;
        let mut clang = tool(CLANG);
        // Headers for programs expect the compiler they come with; sizes and offsets are the same.
        let triple = match view {
            View::MingwSockets | View::Wine => target.replace("pc-windows-msvc", "w64-windows-gnu"),
            View::Ours | View::MingwKernel => target.to_owned(),
        };
        clang.arg(format!("--target={triple}")).args(["-std=gnu11", "-ffreestanding", "-nostdlibinc"]);
        match view {
            View::Ours => {
                clang
                    .args(["-Wall", "-Wextra", "-Werror", "-Wno-multichar", "-Wno-four-char-constants"])
                    .arg("-I")
                    .arg(workspace.join("crates/wsk-sys/c"));
            }
            View::MingwKernel => {
                let machine = if target.starts_with("x86_64") { "-D_AMD64_" } else { "-D_X86_" };
                // The stand-in for <ntifs.h>, which drivers are built with as well, comes first.
                clang.args(["-w", machine, "-isystem"]).arg(workspace.join("xtask/assets"));
                clang.arg("-isystem").arg(self.directory.join("stubs"));
                clang.args(["-isystem", &format!("{MINGW}/ddk"), "-isystem", MINGW]);
            }
            View::MingwSockets => {
                clang.args(["-w", "-isystem"]).arg(self.directory.join("stubs")).args(["-isystem", MINGW]);
            }
            View::Wine => {
                clang.args(["-w", "-isystem"]).arg(self.directory.join("stubs")).args(["-isystem", WINE]);
                clang.args(["-isystem", &format!("{WINE}/../msvcrt")]);
            }
        }
        clang.arg("-c").arg(&source).arg("-o").arg(&object);
        let captured = command::capture(&mut clang, COMPILE)?;
        if !captured.ok() {
            let errors: Vec<_> =
                captured.stderr.lines().filter(|line| line.contains("error")).take(20).collect();
            bail!("{} does not compile for {target}:\n{}", view.name(), errors.join("\n"));
        }
        Ok(object)
    }
}

/// Compares the answers.
fn judge(
    view: View,
    target: &str,
    questions: &[Question],
    rust: &[Option<u64>],
    c: &[Option<u64>],
) -> Comparison {
    let mut comparison = Comparison {
        view,
        target: target.to_owned(),
        structures: 0,
        fields: 0,
        constants: 0,
        differences: Vec::new(),
    };
    for ((question, rust), c) in questions.iter().zip(rust).zip(c) {
        let (Some(rust), Some(c)) = (rust, c) else { continue };
        match question {
            Question::Size { .. } => comparison.structures += 1,
            Question::Offset { .. } => comparison.fields += 1,
            Question::Value { .. } => comparison.constants += 1,
            Question::Align { .. } | Question::FieldSize { .. } => {}
        }
        if rust != c {
            comparison.differences.push(format!("{question}: {rust:#x} in Rust, {c:#x} in C"));
        }
    }
    comparison
}

/// Gives a probe the versions that the workspace has now.
///
/// Cargo makes a lock file of the probe of it, as `--locked` would not let it; no other than this copy is
/// changed.
fn renew_lock(workspace: &Path, package: &Path) -> Result<()> {
    let lock = workspace.join("Cargo.lock");
    if lock.is_file() {
        std::fs::copy(&lock, package.join("Cargo.lock")).context("cannot copy Cargo.lock")?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    // A file that is as it should be keeps its time, so that nothing is built again.
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_are_not_here_are_named_with_their_package() {
        let place = tempfile::tempdir().unwrap();
        let header = place.path().join("wsk.h");
        assert_eq!(
            View::Wine.absent(&header).unwrap(),
            "Wine: not compared, as wsk.h is not here (it is in the package libwine-dev)"
        );
        // Without our own header the comparison fails.
        assert_eq!(View::Ours.absent(&header), None);
        std::fs::write(&header, "").unwrap();
        assert_eq!(View::Wine.absent(&header), None);
    }

    #[test]
    fn a_probe_follows_the_lock_file_of_the_workspace() {
        let (workspace, package) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        renew_lock(workspace.path(), package.path()).unwrap();
        assert!(!package.path().join("Cargo.lock").exists());
        for versions in ["one", "two"] {
            std::fs::write(workspace.path().join("Cargo.lock"), versions).unwrap();
            renew_lock(workspace.path(), package.path()).unwrap();
            assert_eq!(std::fs::read_to_string(package.path().join("Cargo.lock")).unwrap(), versions);
        }
    }
}
