//! Builds, reports and checks of this workspace, run as `cargo xtask <command>`.
//!
//! | command | what it does |
//! |---|---|
//! | `setup` | lists the packages that a Windows build needs, and installs them |
//! | `driver` | builds the sample driver for Windows |
//! | `netio` | builds the provider as `netio.sys`, the control program and the C driver |
//! | `wine` | loads drivers into a private Wine prefix |
//! | `layouts` | compares structures and constants with those of a C compiler |
//! | `loom` | model-checks the library's thread protocols with loom |
//! | `demo` | loads the driver, and runs clients against it |
//! | `probe` | makes the calls whose results WSK leaves open |
//! | `test` | runs everything that this machine can test |
//! | `api` | compares the public interface of the library with its listing |
//! | `rules` | counts the rules of the WSK contract that tests show, and lists the missing ones |

mod api;
mod command;
mod cross;
mod demo;
mod image;
mod layouts;
mod loom;
mod probe;
mod progress;
mod rules;
mod suites;
mod test_all;
mod wine;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
// See the manifest.
#[cfg(windows)]
use wsk_sim as _;

use crate::cross::Layout;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, reports and checks of this workspace"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build and load the driver, run clients against it, and print a table
    Demo(demo::Args),
    /// Test everything that this machine can test, the driver included
    Test(test_all::Args),
    /// Install the packages that a Windows build needs, or list them
    Setup(cross::packages::Args),
    /// Build the sample driver for Windows
    Driver(cross::driver::Args),
    /// Build netio.sys, gatectl.exe and the C driver
    Netio(cross::netio::Args),
    /// Load drivers into a private Wine prefix
    Wine(wine::Args),
    /// Compare structures and constants with those of a C compiler
    Layouts(layouts::Args),
    /// Model-check the library's thread protocols with loom
    Loom(loom::Args),
    /// Make the calls whose results WSK leaves open
    Probe(probe::Args),
    /// Compare the public interface of the library with its listing
    Api(api::Args),
    /// Report which rules of the contract the tests show
    Rules(rules::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let layout = Layout::new(workspace_root())?;
    match command {
        Command::Demo(args) => demo::run(&layout, &args),
        Command::Test(args) => test_all::run(&layout, &args),
        Command::Setup(args) => cross::packages::run(&layout, &args),
        Command::Driver(args) => cross::driver::run(&layout, &args),
        Command::Netio(args) => cross::netio::run(&layout, &args),
        Command::Wine(args) => wine::run(&layout, args),
        Command::Layouts(args) => layouts::run(&layout, &args),
        Command::Loom(args) => loom::run(&layout, &args),
        Command::Probe(args) => probe::run(&layout, &args),
        Command::Api(args) => api::run(&layout, &args),
        Command::Rules(args) => rules::run(&layout.workspace, &args),
    }
}

/// The directory of the workspace: the parent of this package.
fn workspace_root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}
