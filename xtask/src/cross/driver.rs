//! `cargo xtask driver`: builds the sample driver, unchanged, or another driver.
//!
//! The driver's manifest, build script and sources are what a Windows user has. Only this child's environment
//! differs:
//!
//! | setting | why |
//! |---|---|
//! | `RUSTC`, `RUSTC_BOOTSTRAP`, `-Zbuild-std` | `core` and `alloc` are built from source, for size |
//! | `WDKContentRoot`, `Version_Number` | the kit made of Debian's packages |
//! | `paths=[…/wdk-build]` | the copy of `wdk-build` that runs here |
//! | `CARGO_TARGET_…_LINKER` | `lld-link` behind its wrapper |
//! | `LIBCLANG_PATH` | the library that reads the headers |
//!
//! The linker here knows no `/RELEASE`, so the checksum that it would have written is written afterwards.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{CrateType, Metadata, MetadataCommand, Package};

use super::{
    Layout, NO_NETWORK, cargo, cargo_logged, cross_cargo, link, packages, publish, remapped, summary,
    unreachable, wdk_build, wdk_root,
};
use crate::command;
use crate::image::{self, Expected};
use crate::progress::Step;

/// The sample driver.
const MANIFEST: &str = "examples/conditional-accept/driver/Cargo.toml";
/// The driver that makes calls and writes down the answers.
const PROBE: &str = "examples/wsk-probe/Cargo.toml";
pub(super) const TARGET: &str = "x86_64-pc-windows-msvc";
/// Limits on fetching and on building.
const FETCH: Duration = Duration::from_mins(15);
const BUILD: Duration = Duration::from_mins(30);

/// Options of `cargo xtask driver`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only type-check
    #[arg(long)]
    check: bool,
    /// Print the image as one JSON object
    #[arg(long, conflicts_with = "check")]
    json: bool,
    /// Build with the settings of the debug build, which is what `cargo make` deploys first
    #[arg(long)]
    debug: bool,
    /// Build another driver, by its Cargo.toml, instead of the sample.
    ///
    /// It needs a `cdylib` target and a dependency on the published `wdk-build`. A goal for the size of its
    /// release image, in bytes, is `image-size-goal` in its table `[package.metadata.wsk]`; without one the
    /// size is printed and not compared.
    #[arg(long, value_name = "CARGO_TOML")]
    manifest_path: Option<PathBuf>,
}

/// Runs the command. Exit status 1 if the image is not fit to be loaded.
pub(crate) fn run(layout: &Layout, args: &Args) -> Result<ExitCode> {
    let manifest = match &args.manifest_path {
        Some(manifest) => std::path::absolute(manifest).context("invalid manifest path")?,
        None => layout.workspace.join(MANIFEST),
    };
    let profile = if args.debug { Profile::Debug } else { Profile::Release };
    let fit = match build_manifest(layout, &manifest, profile, args.check)? {
        Some(Built { image, expected }) => summary::print(&image, Some(&expected), args.json)?,
        None => true,
    };
    Ok(if fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The settings a driver is built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Release,
    Debug,
}

impl Profile {
    /// The directory of cargo's products.
    fn directory(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Debug => "debug",
        }
    }

    /// The file name of a driver's image: both builds are kept.
    fn image(self, library: &str) -> String {
        match self {
            Self::Release => format!("{library}.sys"),
            Self::Debug => format!("{library}.debug.sys"),
        }
    }
}

/// A driver that was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// Path of the image, which is in the layout's images.
    pub image: PathBuf,
    /// Requirements on it.
    pub expected: Expected,
}

/// Builds the sample driver. Returns the path of its image.
pub(crate) fn build(layout: &Layout) -> Result<PathBuf> {
    build_profile(layout, Profile::Release).map(|built| built.image)
}

/// Builds the sample driver with the settings of a profile.
pub(crate) fn build_profile(layout: &Layout, profile: Profile) -> Result<Built> {
    let image = build_manifest(layout, &layout.workspace.join(MANIFEST), profile, false)?;
    image.context("the driver was checked, not built")
}

/// Builds the probe driver. Returns the path of its image.
pub(crate) fn build_probe(layout: &Layout) -> Result<PathBuf> {
    let built = build_manifest(layout, &layout.workspace.join(PROBE), Profile::Release, false)?;
    built.map(|built| built.image).context("the driver was checked, not built")
}

/// Builds a driver by its manifest; `None` if it is only checked.
fn build_manifest(layout: &Layout, manifest: &Path, profile: Profile, check: bool) -> Result<Option<Built>> {
    if !manifest.is_file() {
        bail!("there is no driver at {}", manifest.display());
    }
    let versions = packages::require()?;
    let _lock = layout.lock()?;
    let directory = manifest.parent().unwrap_or(manifest);

    let step = Step::start("Fetching the driver's packages");
    let metadata = metadata(ask(layout, directory, manifest))?;
    step.done();
    let library = library(&metadata)?;
    let (source, version) = published_wdk_build(&metadata)?;

    let step = Step::start("Preparing the driver kit");
    let mut made = wdk_root::prepare(layout, &versions)?;
    made |= wdk_build::prepare(layout, &source, &version)?;
    made |= link::prepare(layout, &versions)?;
    if made {
        step.done();
    } else {
        step.skipped();
    }

    let name = if check { "Checking the driver" } else { "Building the driver" };
    let step = Step::start(name);
    let registry = source.parent().unwrap_or(&source);
    let mut command = cargo_build(layout, directory, manifest, registry, check)?;
    if profile == Profile::Release {
        command.arg("--release");
    }
    cargo_logged(command, &layout.log("driver"), BUILD, &step)?;
    step.done();
    if check {
        return Ok(None);
    }
    let products = layout.driver_target().join(TARGET).join(profile.directory());
    let product = products.join(format!("{library}.dll"));
    let sealed = products.join(format!("{library}.sys"));
    seal(&product, &sealed)?;
    let image = layout.image(&profile.image(&library));
    publish(&sealed, &image)?;
    let package = metadata.root_package().context("the driver's manifest has no package")?;
    let goal = if profile == Profile::Release { size_goal(&package.metadata)? } else { None };
    Ok(Some(Built { image, expected: Expected { goal, ..image::DRIVER } }))
}

/// Returns the goal for the size of the release image, in bytes, that `package.metadata` of the driver's
/// manifest sets.
fn size_goal(metadata: &serde_json::Value) -> Result<Option<u64>> {
    match &metadata["wsk"]["image-size-goal"] {
        serde_json::Value::Null => Ok(None),
        goal => goal
            .as_u64()
            .map(Some)
            .context("`image-size-goal` in the driver's manifest is not a number of bytes"),
    }
}

/// Copies an image, with its checksum.
fn seal(product: &Path, sealed: &Path) -> Result<()> {
    let mut bytes = std::fs::read(product).with_context(|| format!("cannot read {}", product.display()))?;
    image::write_checksum(&mut bytes)
        .with_context(|| format!("{} is not a valid image", product.display()))?;
    std::fs::write(sealed, bytes).with_context(|| format!("cannot write {}", sealed.display()))
}

/// The build itself.
fn cargo_build(
    layout: &Layout,
    directory: &Path,
    manifest: &Path,
    registry: &Path,
    check: bool,
) -> Result<Command> {
    let wdk_build = layout.wdk_build();
    let wdk_build = wdk_build.to_str().context("the target directory's path is not valid UTF-8")?;
    let mut command = cross_cargo(directory);
    command
        .arg(if check { "check" } else { "build" })
        .args(["--target", TARGET, "--manifest-path"])
        .arg(manifest)
        .args(locked(layout, manifest))
        .arg("--target-dir")
        .arg(layout.driver_target())
        .args(["-Zbuild-std=core,alloc", "-Zbuild-std-features=compiler-builtins-mem,optimize_for_size"])
        .args(["--config", &remapped(layout, TARGET, Some(registry))])
        // A string in TOML is written as one in Rust, for any path worth the name.
        .args(["--config", &format!("paths=[{wdk_build:?}]")])
        .env("WDKContentRoot", layout.wdk())
        .env("Version_Number", wdk_root::VERSION)
        .env(wdk_build::MANIFEST_VARIABLE, manifest)
        .env("CARGO_TARGET_X86_64_PC_WINDOWS_MSVC_LINKER", layout.linker());
    if let Some(libclang) = wdk_root::libclang() {
        command.env("LIBCLANG_PATH", libclang);
    }
    Ok(command)
}

/// The lock file of a driver of this workspace is not changed by a build. Another driver may have none, or
/// one that is to be written.
fn locked(layout: &Layout, manifest: &Path) -> &'static [&'static str] {
    let ours = [MANIFEST, PROBE].iter().any(|own| manifest == layout.workspace.join(own));
    if ours { &["--locked"] } else { &[] }
}

/// The question what cargo knows of a driver.
fn ask(layout: &Layout, directory: &Path, manifest: &Path) -> Command {
    let mut command = cargo(directory);
    command.args(["metadata", "--format-version", "1", "--manifest-path"]).arg(manifest);
    command.args(locked(layout, manifest));
    command
}

/// The answer, every package of the driver fetched.
fn metadata(mut command: Command) -> Result<Metadata> {
    let captured = command::capture(&mut command, FETCH)?;
    if !captured.ok() {
        let said = captured.stderr.trim();
        let advice = if unreachable(said) { NO_NETWORK } else { "cargo cannot read the driver's manifest" };
        bail!("{advice}\n{said}");
    }
    MetadataCommand::parse(captured.stdout).context("cannot parse cargo's metadata")
}

/// The name of the driver's library.
fn library(metadata: &Metadata) -> Result<String> {
    let package = metadata.root_package().context("the driver's manifest has no package")?;
    let library = package.targets.iter().find(|target| target.crate_types.contains(&CrateType::CDyLib));
    Ok(library.context("the driver has no `cdylib` target")?.name.replace('-', "_"))
}

/// Returns the directory and the version of the published `wdk-build`.
fn published_wdk_build(metadata: &Metadata) -> Result<(PathBuf, String)> {
    let is_published = |package: &&Package| package.name.as_str() == "wdk-build" && package.source.is_some();
    let package = metadata.packages.iter().find(is_published);
    let package = package.context("the driver does not depend on `wdk-build` as published")?;
    let directory = package.manifest_path.parent().context("wdk-build has no directory")?;
    Ok((directory.as_std_path().to_owned(), package.version.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_driver_that_is_not_there_is_named() {
        let layout = Layout { workspace: PathBuf::from("/none"), cross: PathBuf::from("/none/cross") };
        let error = build_manifest(&layout, Path::new("/none/Cargo.toml"), Profile::Release, true)
            .expect_err("there is none");
        assert_eq!(error.to_string(), "there is no driver at /none/Cargo.toml");
    }

    #[test]
    fn the_size_goal_is_that_of_the_driver() {
        let goal = |metadata| size_goal(&metadata);
        assert_eq!(goal(serde_json::Value::Null).unwrap(), None);
        assert_eq!(goal(json!({ "wsk": {} })).unwrap(), None);
        assert_eq!(goal(json!({ "wsk": { "image-size-goal": 4096 } })).unwrap(), Some(4096));
        assert!(goal(json!({ "wsk": { "image-size-goal": "small" } })).is_err());
    }

    #[test]
    fn the_lock_files_of_our_drivers_alone_are_kept() {
        let layout = Layout { workspace: PathBuf::from("/w"), cross: PathBuf::from("/w/target/cross") };
        let is_locked = |manifest: &Path| {
            let place = Path::new("/w");
            let build = cargo_build(&layout, place, manifest, place, false).unwrap();
            let commands = [build, ask(&layout, place, manifest)];
            commands.map(|command| command.get_args().any(|argument| argument == "--locked"))
        };
        assert_eq!(is_locked(&layout.workspace.join(MANIFEST)), [true, true]);
        assert_eq!(is_locked(&layout.workspace.join(PROBE)), [true, true]);
        assert_eq!(is_locked(Path::new("/another/Cargo.toml")), [false, false]);
    }
}
