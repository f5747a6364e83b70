//! Windows products built on Linux: the driver, the provider as a DLL, the control program.
//!
//! ```text
//!  packages ── what must be installed, and what each is for
//!     │
//!     ├─► wdk_root ── headers and import libraries, laid out as the kit's
//!     ├─► wdk_build ─ the build library of drivers, changed to run here
//!     ├─► link ────── lld-link without the switches it does not know
//!     │        │
//!     │        └────► driver ── conditional_accept.sys   (x86_64-pc-windows-msvc, core and alloc)
//!     └─────────────► netio ─── netio.sys, gatectl.exe, …  (x86_64-pc-windows-gnu, std)
//! ```
//!
//! All of it lives under `<target>/cross/`. Each prepared part is made beside its place and moved there when
//! it is whole, and carries a stamp of what it was made from: an interrupted run leaves nothing half done,
//! and a second run does nothing. Settings of the cross builds exist only in the environment of the child
//! that builds.

pub(crate) mod driver;
mod link;
pub(crate) mod netio;
pub(crate) mod packages;
mod stamp;
mod summary;
mod wdk_build;
mod wdk_root;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command;
use crate::demo;
use crate::progress::Step;

/// The compiler that can build the standard library for Windows.
const RUSTC: &str = "/usr/bin/rustc";

/// Directory of its library's sources.
const RUST: &str = "/usr/lib/rustlib/src/rust";

/// Interval of attempts to take a lock that another run holds.
const WAIT: Duration = Duration::from_millis(200);

/// Paths of everything that is built.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The workspace.
    pub workspace: PathBuf,
    /// `<target>/cross`.
    pub cross: PathBuf,
}

impl Layout {
    /// The layout for a workspace; `CARGO_TARGET_DIR` is respected.
    pub(crate) fn new(workspace: PathBuf) -> Result<Self> {
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(directory) if !directory.is_empty() => {
                std::path::absolute(directory).context("CARGO_TARGET_DIR is not a valid path")?
            }
            _ => workspace.join("target"),
        };
        Ok(Self { workspace, cross: target.join("cross") })
    }

    /// The kit's content root.
    pub(crate) fn wdk(&self) -> PathBuf {
        self.cross.join("wdk")
    }

    /// The prepared copy of `wdk-build`.
    pub(crate) fn wdk_build(&self) -> PathBuf {
        self.cross.join("wdk-build")
    }

    /// The linker wrapper.
    pub(crate) fn linker(&self) -> PathBuf {
        self.cross.join("bin/lld-link")
    }

    /// The target directory of driver builds.
    pub(crate) fn driver_target(&self) -> PathBuf {
        self.cross.join("driver")
    }

    /// The target directory of the builds with `std`.
    pub(crate) fn gnu_target(&self) -> PathBuf {
        self.cross.join("gnu")
    }

    /// Returns the directory of finished images.
    pub(crate) fn images(&self) -> PathBuf {
        self.cross.join("images")
    }

    /// One finished image.
    pub(crate) fn image(&self, name: &str) -> PathBuf {
        self.images().join(name)
    }

    /// The private Wine prefix.
    pub(crate) fn prefix(&self) -> PathBuf {
        self.cross.join("prefix")
    }

    /// One log.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.cross.join("logs").join(format!("{name}.log"))
    }

    /// Keeps other runs of this program out of `<target>/cross` until it is dropped.
    pub(crate) fn lock(&self) -> Result<File> {
        let busy = format!("Waiting for another `cargo xtask` in {}.", self.cross.display());
        lock(&self.cross.join(".lock"), &busy)
    }
}

/// Locks a file, which is made if need be, until it is dropped; `None` if another run has it.
pub(crate) fn try_lock(path: &Path) -> Result<Option<File>> {
    let cannot = || format!("cannot lock {}", path.display());
    std::fs::create_dir_all(path.parent().unwrap_or(path)).with_context(cannot)?;
    let file = File::create(path).with_context(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
    }
}

/// Takes the lock, and waits if another run holds it; prints `busy` then.
pub(crate) fn lock(path: &Path, busy: &str) -> Result<File> {
    let mut reported = false;
    loop {
        if let Some(file) = try_lock(path)? {
            return Ok(file);
        }
        if !std::mem::replace(&mut reported, true) {
            eprintln!("{busy}");
        }
        // Not `File::lock`, which an interruption would wait for.
        demo::checkpoint();
        std::thread::sleep(WAIT);
    }
}

/// Variables that must not reach a cross build: those of the surrounding build, and those that tell compilers
/// and linkers of headers, libraries and switches for this machine.
const LEAKING: [&str; 29] = [
    "AR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_TARGET_DIR",
    "CC",
    "CCC_OVERRIDE_OPTIONS",
    "CFLAGS",
    "CLANG_PATH",
    "COMPILER_PATH",
    "CPATH",
    "CPLUS_INCLUDE_PATH",
    "CPPFLAGS",
    "CXX",
    "CXXFLAGS",
    "C_INCLUDE_PATH",
    "GCC_EXEC_PREFIX",
    "INCLUDE",
    "LDFLAGS",
    "LD_LIBRARY_PATH",
    "LIB",
    "LIBRARY_PATH",
    "LINK",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "TARGET_CC",
    "TARGET_CFLAGS",
];

/// Beginnings of such variables: settings by configuration, settings for one target, and what `cargo run`
/// told this program of itself.
const LEAKING_PREFIXES: [&str; 12] = [
    "AR_",
    "BINDGEN_EXTRA_CLANG_ARGS",
    "CARGO_BUILD_",
    "CARGO_CFG_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "CARGO_UNSTABLE_",
    "CC_",
    "CFLAGS_",
    "CXXFLAGS_",
];

/// Returns whether this variable must be kept from a cross build.
fn leaks(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    LEAKING.contains(&name.as_ref()) || LEAKING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The cargo that runs this program.
fn same_cargo(directory: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(directory);
    command
}

/// Returns this cargo for the workspace with the settings of the host build: its products are where the
/// user's own builds are.
pub(crate) fn host_cargo(layout: &Layout) -> Command {
    let mut command = same_cargo(&layout.workspace);
    place_targets(&mut command, |name| std::env::var_os(name));
    command
}

/// Makes a child use the target directory of this program: a relative one belongs to the current directory,
/// and the child runs in another.
fn place_targets(command: &mut Command, variable: impl Fn(&str) -> Option<OsString>) {
    for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"] {
        // An empty one is left for cargo to judge.
        if let Some(Ok(directory)) = variable(name).map(std::path::absolute) {
            command.env(name, directory);
        }
    }
}

/// Returns this cargo without the settings of the host build.
fn cargo(directory: &Path) -> Command {
    let mut command = same_cargo(directory);
    without_leaks(&mut command, std::env::vars_os().map(|(name, _)| name));
    command
}

/// A compiler or another tool of a cross build, free of the same settings.
pub(crate) fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    without_leaks(&mut command, std::env::vars_os().map(|(name, _)| name));
    command
}

fn without_leaks(command: &mut Command, variables: impl Iterator<Item = OsString>) {
    for name in variables.filter(|name| leaks(name)) {
        command.env_remove(name);
    }
}

/// Returns this cargo, set up to build for Windows with a standard library built from its sources.
pub(crate) fn cross_cargo(directory: &Path) -> Command {
    let mut command = cargo(directory);
    // The feature gate is lifted for this child alone; nothing of it reaches the host build.
    command.env("RUSTC", RUSTC).env("RUSTC_BOOTSTRAP", "1");
    command
}

/// A setting that keeps the paths of this machine out of an image: where sources are is told by short names.
///
/// For the target alone, so that neither build scripts nor `cargo metadata` see it; the package's own
/// settings for the target stay in force beside it, and `build.rustflags` of a user's configuration gives way
/// to it.
pub(crate) fn remapped(layout: &Layout, target: &str, registry: Option<&Path>) -> String {
    let home = std::env::home_dir().filter(|home| home.parent().is_some());
    // The last that fits counts: the home is for what else there is, such as another driver and its parts.
    let places = [
        (home.as_deref(), "home"),
        (Some(layout.workspace.as_path()), "wsk"),
        (registry, "crates"),
        (Some(Path::new(RUST)), "rust"),
    ];
    let flags = places.into_iter().filter_map(|(from, to)| {
        // A string in TOML is written as one in Rust.
        from.map(|from| format!("{:?}", format!("--remap-path-prefix={}={to}", from.display())))
    });
    format!("target.{target}.rustflags=[{}]", flags.collect::<Vec<_>>().join(","))
}

/// Returns the directory in which cargo keeps the sources of published packages, for all registries.
fn registries() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    Some(home.or_else(|| Some(std::env::home_dir()?.join(".cargo")))?.join("registry/src"))
}

/// Runs a cargo build to its end, and says so if the network is to blame for its failure.
fn cargo_logged(command: Command, log: &Path, limit: Duration, step: &Step) -> Result<()> {
    match command::logged(command, "cargo", log, limit, step) {
        Err(failure) if unreachable(failure.tail()) => bail!("{NO_NETWORK}\n{failure}"),
        outcome => Ok(outcome?),
    }
}

const NO_NETWORK: &str = "packages cannot be fetched from the registry: is there a network?";

/// Returns whether cargo reports a network error.
fn unreachable(said: &str) -> bool {
    const WORDS: [&str; 6] = [
        "failed to download",
        "network failure",
        "resolve host",
        "Unable to update registry",
        "failed to fetch",
        "attempting to make an HTTP request, but --offline",
    ];
    WORDS.iter().any(|word| said.contains(word))
}

/// The files of a directory whose names end so, in their order. The directory's path may hold what means
/// something in a pattern.
pub(crate) fn sources(directory: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let pattern = format!("{}/*.{ending}", glob::Pattern::escape(&directory.to_string_lossy()));
    let found = glob::glob(&pattern).with_context(|| format!("{} is not usable", directory.display()))?;
    let mut files: Vec<PathBuf> = found.filter_map(Result::ok).collect();
    files.sort();
    if files.is_empty() {
        bail!("there are no .{ending} files in {}", directory.display());
    }
    Ok(files)
}

/// A text of the checkout as tools on Linux want it: Git may have given its lines the ends that Windows has.
fn unix_lines(text: &str) -> Cow<'_, str> {
    if text.contains('\r') { text.replace("\r\n", "\n").into() } else { text.into() }
}

/// Copies a finished product to the images, whole or not at all.
fn publish(product: &Path, image: &Path) -> Result<()> {
    let directory = image.parent().unwrap_or(image);
    std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    replace(product, image)
}

/// Copies a file over another, which may be in use: it is replaced as a whole, not written to.
pub(crate) fn replace(from: &Path, to: &Path) -> Result<()> {
    let mut new = to.as_os_str().to_owned();
    new.push(".new");
    std::fs::copy(from, &new)
        .and_then(|_| std::fs::rename(&new, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_host_build_leak_and_ordinary_ones_do_not() {
        for name in [
            "RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_LTO",
            "RUSTUP_TOOLCHAIN",
            "BINDGEN_EXTRA_CLANG_ARGS",
            "BINDGEN_EXTRA_CLANG_ARGS_x86_64_pc_windows_msvc",
            "CPATH",
            "C_INCLUDE_PATH",
            "CFLAGS",
            "CFLAGS_x86_64-pc-windows-gnu",
            "LIB",
        ] {
            assert!(leaks(OsStr::new(name)), "{name}");
        }
        for name in
            ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO", "PATH", "HOME", "CARGO_TERM_COLOR", "LIBCLANG_PATH"]
        {
            assert!(!leaks(OsStr::new(name)), "{name}");
        }
        let mut command = Command::new("clang");
        without_leaks(&mut command, ["CPATH", "PATH"].map(OsString::from).into_iter());
        assert_eq!(command.get_envs().collect::<Vec<_>>(), [(OsStr::new("CPATH"), None)]);
    }

    #[test]
    fn a_child_in_another_directory_sees_the_same_target_directory() {
        let mut command = Command::new("cargo");
        place_targets(&mut command, |name| (name == "CARGO_TARGET_DIR").then(|| "out/here".into()));
        let here = std::path::absolute("out/here").unwrap();
        assert!(here.is_absolute() && here.ends_with("out/here"), "{}", here.display());
        let set: Vec<_> = command.get_envs().collect();
        assert_eq!(set, [(OsStr::new("CARGO_TARGET_DIR"), Some(here.as_os_str()))]);
    }

    #[test]
    fn the_short_name_of_the_nearest_place_counts() {
        let layout = Layout { workspace: "/w".into(), cross: "/w/target/cross".into() };
        let flags = remapped(&layout, "t", Some(Path::new("/c")));
        assert!(flags.starts_with("target.t.rustflags=["), "{flags}");
        // The compiler takes the last that fits, and the others may be inside of the home.
        let at = |end: &str| flags.find(end).unwrap_or_else(|| panic!("{end}: {flags}"));
        assert!(at("=/w=wsk\"") < at("=/c=crates\"") && at("=/c=crates\"") < at("=rust\"]"));
        if let Some(home) = flags.find("=home\"") {
            assert!(home < at("=/w=wsk\""), "{flags}");
        }
    }

    #[test]
    fn a_missing_network_is_told_from_a_bad_manifest() {
        assert!(unreachable(
            "error: failed to download from `https://example/x`\n[6] Could not resolve hostname"
        ));
        assert!(!unreachable("error: failed to parse manifest at `Cargo.toml`"));
    }

    #[test]
    fn sources_are_found_in_a_directory_of_any_name() {
        let place = tempfile::Builder::new().prefix("a[b]").tempdir().unwrap();
        assert!(sources(place.path(), "c").is_err());
        for name in ["two.c", "one.c", "one.h"] {
            std::fs::write(place.path().join(name), "").unwrap();
        }
        let expected = ["one.c", "two.c"].map(|name| place.path().join(name));
        assert_eq!(sources(place.path(), "c").unwrap(), expected);
    }

    #[test]
    fn an_image_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let product = directory.path().join("product");
        let image = directory.path().join("images/x.sys");
        for content in ["one", "two"] {
            std::fs::write(&product, content).unwrap();
            publish(&product, &image).unwrap();
            assert_eq!(std::fs::read_to_string(&image).unwrap(), content);
        }
        assert_eq!(std::fs::read_dir(image.parent().unwrap()).unwrap().count(), 1);
    }
}
