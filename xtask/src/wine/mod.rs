//! `cargo xtask wine`: a private Wine prefix as the machine that loads drivers.
//!
//! ```text
//!            start                       stop (or: kill)
//!  nothing ─────────► prefix created ─► server up ─► service RUNNING ──────► server down, prefix kept
//!                          ▲                                   │
//!                          └──────── start again ◄─────────────┘ crash: `start` cleans up, starts again
//! ```
//!
//! | file | what |
//! |---|---|
//! | `prefix.rs` | [`Prefix`]: create, bring up, run programs, end, read the log |
//! | `service.rs` | [`Service`]: install a driver, parameters, start, stop, state |
//! | `pool.rs` | [`Pool`]: what became of every block of pool, from the log |
//! | `parameters.rs` | values of a `Parameters` key, as text of the command line and of a `.reg` file |
//!
//! Nothing outside the prefix is touched: not the user's own prefix, not another one's server.

mod parameters;
mod pool;
mod prefix;
mod service;

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

pub(crate) use self::parameters::{Parameter, Value};
pub(crate) use self::pool::Pool;
pub(crate) use self::prefix::Prefix;
pub(crate) use self::service::{Service, State};
use crate::cross::{Layout, driver, netio};

/// The sample driver's service.
pub(crate) const SERVICE: &str = "conditional_accept";

/// Options of `cargo xtask wine`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

/// Default of [`COMPLETION`].
const NATURAL: &str = "natural";

/// The service whose parameters are those of our `netio.sys`, and the one that says when requests complete.
const NETIO: &str = "netio";
const COMPLETION: &str = "Completion";

/// Checks what [`COMPLETION`] is to be.
fn completion(text: &str) -> Result<String, String> {
    let seed = text.strip_prefix("random:").and_then(|seed| seed.parse::<u64>().ok());
    let is_known = [NATURAL, "inline", "nested", "early", "late"].contains(&text) || seed.is_some();
    if is_known {
        Ok(text.to_owned())
    } else {
        Err(format!("expected {NATURAL}, inline, nested, early, late or random:SEED"))
    }
}

/// Sets when `netio.sys` completes requests, from its next start on.
pub(crate) fn set_completion(prefix: &Prefix, completion: Option<&str>) -> Result<()> {
    let value = completion.filter(|when| *when != NATURAL).map(|when| Value::Text(when.to_owned()));
    prefix.service(NETIO).change_parameter(COMPLETION, value.as_ref())
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Load a driver: builds what is missing, creates the prefix, starts the service
    Start {
        /// The service's name; its image is the built one of that name
        #[arg(long, default_value = SERVICE)]
        service: String,
        /// Another image
        #[arg(long, value_name = "FILE")]
        image: Option<PathBuf>,
        /// A value of the service's Parameters key: NAME=TEXT, NAME=dword:NUMBER, NAME=multi:ONE,TWO
        #[arg(long = "set", value_name = "NAME=VALUE")]
        parameters: Vec<Parameter>,
        /// Order of completions in netio.sys for requests whose outcome is known at once: natural, inline,
        /// nested, early, late, or random:SEED [default: unchanged]
        #[arg(long, value_name = "WHEN", value_parser = completion)]
        completion: Option<String>,
        /// Use the images as they are, without building
        #[arg(long)]
        no_build: bool,
    },
    /// Unload the driver and end the prefix's processes
    Stop {
        /// The service's name
        #[arg(long, default_value = SERVICE)]
        service: String,
    },
    /// Print whether the prefix is up, and the state of the service
    Status {
        /// The service's name
        #[arg(long, default_value = SERVICE)]
        service: String,
    },
    /// Print the output of the loader and the driver
    Logs {
        /// Number of lines
        #[arg(short = 'n', long, default_value_t = 40)]
        lines: usize,
    },
    /// Run a Windows program in the prefix, for instance `run -- gatectl.exe status`
    Run {
        /// The program, a path or the name of a built image, and its arguments
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// End all of the prefix's processes at once, without unloading, even if they are in use
    Kill,
    /// End them, and remove the prefix
    Clean,
}

/// Runs the command.
pub(crate) fn run(layout: &Layout, args: Args) -> Result<ExitCode> {
    match args.action {
        Action::Start { service, image, parameters, completion, no_build } => {
            if !no_build {
                netio::build(layout)?;
                if image.is_none() && service == SERVICE {
                    driver::build(layout)?;
                }
            }
            let image = image.unwrap_or_else(|| layout.image(&format!("{service}.sys")));
            let prefix = Prefix::open(layout)?;
            let _held = hold(&prefix)?;
            prefix.create()?;
            let service = prefix.service(&service);
            let state = service.state().or_else(|_| {
                // The remains of a crash may not respond: end all processes, and start again.
                prefix.kill()?;
                prefix.create()?;
                service.state()
            })?;
            if state == State::Running {
                bail!("{} is running: `cargo xtask wine stop` first", service.name());
            }
            service.install(&image)?;
            service.set_parameters(&parameters)?;
            // Not given, it may have been set by other means.
            if let Some(when) = completion {
                set_completion(&prefix, Some(&when))?;
            }
            service.start()?;
            println!("{} is running. Log: {}", service.name(), prefix.log().display());
        }
        Action::Stop { service } => {
            let prefix = Prefix::open(layout)?;
            let _held = hold(&prefix)?;
            let service = prefix.service(&service);
            let loaded = prefix.is_ready() && prefix.is_up() && service.state()? == State::Running;
            let stopped = if loaded { service.stop() } else { Ok(()) };
            // A driver that does not end is ended with the prefix.
            prefix.kill()?;
            stopped?;
            if loaded {
                println!("{} is stopped.", service.name());
            }
            println!("The prefix is down.");
        }
        Action::Status { service } => {
            let prefix = Prefix::open(layout)?;
            let state = if prefix.is_up() { prefix.service(&service).state()? } else { State::Stopped };
            println!(
                "prefix: {} ({})",
                prefix.directory().display(),
                if prefix.is_up() { "up" } else { "down" }
            );
            println!("{service}: {state}");
            println!("log: {}", prefix.log().display());
            for crash in prefix.crashes() {
                println!("crash: {crash}");
            }
            return Ok(if state == State::Running { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Action::Logs { lines } => {
            println!("{}", Prefix::open(layout)?.log_tail(lines));
        }
        Action::Run { command } => {
            let prefix = Prefix::open(layout)?;
            // A machine that is up is not changed by a program; one may look into a demo that way.
            if !(prefix.is_ready() && prefix.is_up()) {
                let _held = hold(&prefix)?;
                prefix.create()?;
            }
            let (program, arguments) = command.split_first().context("which program?")?;
            let mut child = prefix.command(program)?;
            // Here the user's terminal is the program's.
            let status = child.args(arguments).status().context("cannot start Wine")?;
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(1)));
        }
        Action::Kill => Prefix::open(layout)?.kill()?,
        Action::Clean => {
            let prefix = Prefix::open(layout)?;
            let _held = hold(&prefix)?;
            prefix.remove()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps other runs from changing the machine; fails if one is at it.
fn hold(prefix: &Prefix) -> Result<File> {
    prefix.try_hold()?.context(
        "a demo, a test or another command is using the prefix: wait for its end (or end the prefix: \
         `cargo xtask wine kill`)",
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn when_requests_complete_is_said_at_the_start_or_left() {
        let read = |arguments: &[&str]| {
            let arguments = ["wine"].iter().chain(arguments);
            Command::try_parse_from(arguments).map(|command| match command.args.action {
                Action::Start { completion, .. } => completion,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(read(&["start"]).expect("no more is needed"), None);
        assert_eq!(read(&["start", "--completion", "late"]).expect("a time").as_deref(), Some("late"));
        for other in [&["stop"][..], &["kill"], &["status"]] {
            assert!(read(&[other, &["--completion", "late"]].concat()).is_err(), "{other:?}");
        }
        assert!(read(&["--completion", "late", "start"]).is_err());
    }

    #[test]
    fn when_requests_complete_is_one_of_six() {
        for when in ["natural", "inline", "nested", "early", "late", "random:7"] {
            assert_eq!(completion(when).as_deref(), Ok(when));
        }
        for other in ["", "Inline", "random", "random:", "random:x", "soon"] {
            assert!(completion(other).is_err(), "{other}");
        }
    }
}
