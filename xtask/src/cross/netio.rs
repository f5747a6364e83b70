//! `cargo xtask netio`: builds what the loader and its user need beside the driver.
//!
//! | image | from | how |
//! |---|---|---|
//! | `netio.sys` | `crates/netio` | `cdylib` with `std`, which is built from its sources |
//! | `gatectl.exe` | `examples/conditional-accept/gatectl` | the same build |
//! | `bcryptprimitives.dll` | `assets/bcryptprimitives.c` | C; the random numbers that `std` asks for |
//! | `echo_c.sys` | `crates/netio/c` | C; a WSK client that has nothing of ours in it |

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{
    Layout, cargo_logged, cross_cargo, packages, publish, registries, remapped, sources, summary, tool,
    unix_lines,
};
use crate::command;
use crate::image;
use crate::progress::Step;

const TARGET: &str = "x86_64-pc-windows-gnu";
const GCC: &str = "x86_64-w64-mingw32-gcc";
const BUILD: Duration = Duration::from_mins(30);
const COMPILE: Duration = Duration::from_mins(2);
/// Directory of the C driver's sources.
const C_CLIENT: &str = "crates/netio/c";

const RANDOM: &str = include_str!("../../assets/bcryptprimitives.c");

/// Options of `cargo xtask netio`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print each image as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command. Exit status 1 if one of the images is not as it must be.
pub(crate) fn run(layout: &Layout, args: &Args) -> Result<ExitCode> {
    let mut fit = true;
    for path in build(layout)? {
        let expected = match path.file_name().and_then(|name| name.to_str()) {
            Some("netio.sys") => Some(&image::NETIO),
            Some("echo_c.sys") => Some(&summary::C_DRIVER),
            _ => None,
        };
        fit &= summary::print(&path, expected, args.json)?;
    }
    Ok(if fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds all of them. Returns the paths of the images, which are in the layout's images.
pub(crate) fn build(layout: &Layout) -> Result<Vec<PathBuf>> {
    packages::require()?;
    let _lock = layout.lock()?;

    let step = Step::start("Building netio.sys and gatectl.exe");
    for (command, name) in [(image(layout), "netio"), (control_program(layout), "gatectl")] {
        cargo_logged(command, &layout.log(name), BUILD, &step)?;
    }
    step.done();
    let built = layout.gnu_target().join(TARGET).join("release");
    let mut images = Vec::new();
    for (product, name) in [("netio.dll", "netio.sys"), ("gatectl.exe", "gatectl.exe")] {
        let image = layout.image(name);
        publish(&built.join(product), &image)?;
        images.push(image);
    }

    let step = Step::start("Compiling the C parts");
    let objects = objects(layout)?;
    images.push(random(layout, &objects)?);
    images.push(c_client(layout, &objects)?);
    step.done();
    Ok(images)
}

/// `bcryptprimitives.dll` alone, which every program with `std` needs.
pub(crate) fn build_random(layout: &Layout) -> Result<()> {
    packages::require()?;
    let _lock = layout.lock()?;
    let objects = objects(layout)?;
    random(layout, &objects).map(drop)
}

/// The provider as the image. Only here it is a `cdylib`: such a thing can be linked only to a kernel, and
/// `cargo test` on Windows would link it too.
fn image(layout: &Layout) -> Command {
    let mut command = release(layout, "rustc");
    // The feature makes the crate the image; without it, it is its portable parts.
    command.args(["--package", "netio", "--features", "image", "--lib", "--crate-type", "cdylib"]);
    command
}

/// `gatectl.exe`.
fn control_program(layout: &Layout) -> Command {
    let mut command = release(layout, "build");
    command.args(["--package", "gatectl"]);
    command
}

/// A command of cargo for what is loaded and run beside the driver.
fn release(layout: &Layout, subcommand: &str) -> Command {
    let mut command = gnu_cargo(layout, subcommand, &layout.gnu_target());
    command
        .args(["--release", "-Zbuild-std=std,panic_abort"])
        .args(["--config", &remapped(layout, TARGET, registries().as_deref())]);
    command
}

/// A command of cargo for programs of the workspace with `std`.
pub(crate) fn gnu_cargo(layout: &Layout, subcommand: &str, target: &Path) -> Command {
    let mut command = cross_cargo(&layout.workspace);
    command
        .args([subcommand, "--locked", "--target", TARGET, "--target-dir"])
        .arg(target)
        .env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", GCC);
    command
}

/// Returns the directory for C object files.
fn objects(layout: &Layout) -> Result<PathBuf> {
    let objects = layout.gnu_target().join("c");
    std::fs::create_dir_all(&objects).with_context(|| format!("cannot create {}", objects.display()))?;
    Ok(objects)
}

/// `bcryptprimitives.dll`.
fn random(layout: &Layout, objects: &Path) -> Result<PathBuf> {
    let source = objects.join("bcryptprimitives.c");
    std::fs::write(&source, &*unix_lines(RANDOM))
        .with_context(|| format!("cannot write {}", source.display()))?;
    let product = objects.join("bcryptprimitives.dll");
    let mut gcc = gcc(&product);
    gcc.args(["-shared", "-nostdlib", "-Wl,--entry,DllMain"]).arg(&source).arg("-ladvapi32");
    compile(gcc, "bcryptprimitives.dll")?;
    let image = layout.image("bcryptprimitives.dll");
    publish(&product, &image)?;
    Ok(image)
}

/// `echo_c.sys`, from all C files of its directory.
fn c_client(layout: &Layout, objects: &Path) -> Result<PathBuf> {
    let sources = sources(&layout.workspace.join(C_CLIENT), "c")?;
    let product = objects.join("echo_c.sys");
    let mut gcc = gcc(&product);
    gcc.args(["-shared", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-mno-red-zone"])
        .args(["-Wl,--subsystem,native", "-Wl,--entry,DriverEntry"])
        .args(["-Wl,--dynamicbase", "-Wl,--nxcompat"])
        // The headers for drivers refer to one another without their directory.
        .args(["-isystem", "/usr/x86_64-w64-mingw32/include/ddk"])
        .args(sources)
        .args(["-lntoskrnl", "-lhal", "-lnetio", "-lgcc"]);
    compile(gcc, "echo_c.sys")?;
    let image = layout.image("echo_c.sys");
    publish(&product, &image)?;
    Ok(image)
}

fn gcc(product: &Path) -> Command {
    let mut gcc = tool(GCC);
    gcc.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-o"]).arg(product);
    gcc
}

fn compile(mut gcc: Command, what: &str) -> Result<()> {
    let captured = command::capture(&mut gcc, COMPILE)?;
    if !captured.ok() {
        bail!("{what} does not compile:\n{}", captured.stderr.trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_takes_neither_other_versions_nor_other_flags() {
        let layout = Layout { workspace: PathBuf::from("/w"), cross: PathBuf::from("/w/target/cross") };
        for command in [image(&layout), control_program(&layout)] {
            let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
            assert!(arguments.iter().any(|argument| argument == "--locked"), "{arguments:?}");
            let at = arguments.iter().position(|argument| argument == "--config").unwrap();
            let flags = &arguments[at + 1];
            // Only these take precedence over `build.rustflags` of a user's configuration.
            assert!(flags.starts_with("target.x86_64-pc-windows-gnu.rustflags=["), "{flags}");
            assert!(flags.contains("\"--remap-path-prefix=/w=wsk\""), "{flags}");
            assert!(flags.contains("registry/src=crates\""), "{flags}");
        }
    }
}
