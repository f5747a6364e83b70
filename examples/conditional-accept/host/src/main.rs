//! The user-mode front end of [`gate_service`]: an echo service with a gate in front.
//!
//! ```text
//!   cli ──► Settings ──► gate_service::serve, on a Network in the user-mode kernel
//!   log ◄── Record ◄───────────┘            stopped by Ctrl-C, SIGTERM or --seconds
//! ```
//!
//! `cargo run --release -p gate-host -- --help` lists the options.

mod cli;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod host;
mod log;

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use gate_service::policy::Policy;
use gate_service::{Asker, Record, Rules, Settings};
use wsk::{Network, NetworkConfig, Passive};
use wsk_sim::nt_user::Failure;
use wsk_sim::{Report, Sim};

use crate::cli::Options;
use crate::log::{Journal, Printer};

/// The network of the driver.
static NETWORK: Network = Network::new();

/// Limit on the start: the wait for WSK, and for the listener.
const START: Duration = Duration::from_secs(10);

/// Limit on the wait for the end of the network.
const UNLOAD: Duration = Duration::from_secs(4);

/// Time between two reports of what that waits for.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Threads that serve connections.
const THREADS: usize = 2;

/// Number of established connections that may wait to be accepted: as many as clients may come at once. Tests
/// cover the requests that a small number drops (rule LSN-37).
const ACCEPT_BACKLOG: usize = 16_384;

/// The status a shell shows for a program that was interrupted.
const INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    host::limit_arenas();
    let (options, policy) = Options::from_command_line();
    match run(&options, policy) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Boots a machine, serves on it until told to stop, and looks at what is left.
fn run(options: &Options, policy: Policy) -> Result<(), String> {
    let (stop, stopped) = channel();
    stop_on_signals(stop.clone())?;
    // The receiver may be gone by the time printing fails; then there is nothing to stop.
    let (journal, printer) = Printer::start(options.log, move || _ = stop.send(()))
        .map_err(|error| format!("cannot start the output thread: {error}"))?;

    let sim = Sim::builder().provider(|config| config.backlog = ACCEPT_BACKLOG).build();
    let (sink, limit) = (journal.clone(), options.unload_after());
    let (listen, accept_by) = (options.listen, options.accept_by);
    let asker = Asker::Timed { answer: options.verdict, after: options.verdict_after() };
    let driver = sim.thread("driver", move || {
        // The policy is in the pool of the simulated kernel, which only its threads can use.
        let policy = Rules::try_new(&policy).map_err(|error| error.to_string())?;
        let settings = Settings { listen, policy, asker, accept_by };
        drive(settings, sink, &stopped, limit)
    });
    let driven = match driver.join() {
        Ok(driven) => driven,
        Err(Failure::Panicked(payload)) => std::panic::resume_unwind(payload),
        Err(Failure::Stopped(stop)) => Err(format!("the simulated kernel has stopped: {stop}")),
    };
    let report = sim.finish();
    let (violations, leaks) = (report.violations.len() as u64, report.leaks.count() as u64);
    let unloaded = driven.is_ok().then_some(Record::Unloaded { violations, leaks });
    let printed = printer.finish(journal, unloaded);
    driven?;
    check_report(&report)?;
    match printed {
        Ok(0) => Ok(()),
        Ok(lost) => Err(format!("{lost} records were not printed: standard output was not read fast enough")),
        Err(error) => Err(format!("cannot write to standard output: {error}")),
    }
}

/// Runs the driver from its load to its unload, on a thread of the simulated kernel.
fn drive(
    settings: Settings,
    sink: Journal,
    stopped: &Receiver<()>,
    limit: Option<Duration>,
) -> Result<(), String> {
    // SAFETY: this is the start of a system thread, at PASSIVE_LEVEL, and it holds no locks.
    let passive = unsafe { Passive::assume() };
    let listen = settings.listen;
    let config = NetworkConfig {
        interval: REPORT_INTERVAL,
        ..gate_service::config(THREADS, |report| {
            // A failure is the result of the start.
            if report.error().is_none() {
                eprintln!("{report}");
            }
        })
    };
    let started = NETWORK
        .start(passive, config, move |net| gate_service::serve(net, settings, sink))
        .and_then(|started| started.wait_ready(START).map(|()| started))
        .map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    started.keep();
    // However this wait ends, it is time to unload.
    let _ = match limit {
        Some(limit) => stopped.recv_timeout(limit).is_ok(),
        None => stopped.recv().is_ok(),
    };
    if NETWORK.stop_within(passive, UNLOAD) {
        Ok(())
    } else {
        Err(format!("the service did not stop within {} s", UNLOAD.as_secs()))
    }
}

/// Stops the service on Ctrl-C and SIGTERM. A second signal exits the program at once.
fn stop_on_signals(stop: Sender<()>) -> Result<(), String> {
    let mut stopping = false;
    let handler = move || {
        if stopping {
            std::process::exit(INTERRUPTED);
        }
        stopping = true;
        // Without a receiver the service is down already.
        let _ = stop.send(());
    };
    ctrlc::set_handler(handler).map_err(|error| format!("cannot set a signal handler: {error}"))
}

/// Returns an error if the checker or the final count found anything.
fn check_report(report: &Report) -> Result<(), String> {
    if report.is_clean() { Ok(()) } else { Err(format!("the WSK contract was violated:\n{report}")) }
}
