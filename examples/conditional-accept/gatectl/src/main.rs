//! Controls the conditional-accept driver; see the library of this package.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use gatectl::cli::Options;
use gatectl::device::{self, Device};
use gatectl::{Error, Input};

/// The status a shell shows for a program that was interrupted.
const INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            // If even that cannot be written, the status has to do.
            let _ = writeln!(anstream::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Error> {
    let device = device::open()?;
    stop_on_signals(Arc::clone(&device))?;
    // The streams know whether they are terminals, and leave the colours out if not.
    let mut out = anstream::AutoStream::auto(io::stdout());
    let mut remarks = anstream::AutoStream::auto(io::stderr());
    gatectl::run(&options.command, &device, &mut out, &mut remarks, Input::standard)
}

/// Stops waits on Ctrl-C. A second Ctrl-C exits the program at once.
fn stop_on_signals(device: Arc<dyn Device>) -> Result<(), Error> {
    let mut stopping = false;
    let handler = move || {
        if stopping {
            std::process::exit(INTERRUPTED);
        }
        stopping = true;
        device.stop();
    };
    ctrlc::set_handler(handler).map_err(|error| Error::Local {
        doing: "set a Ctrl-C handler",
        source: match error {
            ctrlc::Error::System(error) => error,
            error => io::Error::other(error),
        },
    })
}
