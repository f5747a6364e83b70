//! Controls the conditional-accept driver through its control device.
//!
//! ```text
//!   cli ──► run ──► status | policy | watch | ask ──► driver ──► Device ──► DeviceIoControl (Windows, Wine)
//!            ▲                                        typed       bytes └─► a script (tests)
//!     Ctrl-C ┘ ends whatever waits: Device::stop
//! ```
//!
//! Everything but the few lines that speak to Windows ([`device`]) runs, and is tested, on every system.

pub mod ask;
pub mod cli;
pub mod device;
pub mod driver;
pub mod error;
pub mod policy;
pub mod status;
pub mod watch;

mod output;

use std::io::{self, BufRead, Write};
use std::sync::Arc;

use crate::cli::{Command, PolicyCommand};
use crate::device::Device;
use crate::driver::Driver;
pub use crate::error::Error;

/// Source of interactive input, for commands that need any.
pub struct Input {
    /// The lines.
    pub lines: Box<dyn BufRead + Send>,
    /// True if someone types them, looking at the output.
    pub typed: bool,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("typed", &self.typed).finish_non_exhaustive()
    }
}

impl Input {
    /// Returns standard input.
    pub fn standard() -> Self {
        let typed = io::IsTerminal::is_terminal(&io::stdin());
        Self { lines: Box::new(io::BufReader::new(io::stdin())), typed }
    }
}

/// Runs a command on a device: what it is about goes to `out`, remarks on the side go to `remarks`.
///
/// # Errors
///
/// When the driver refuses or is of another version, `out` takes nothing more, or less came than was asked
/// for.
pub fn run(
    command: &Command,
    device: &Arc<dyn Device>,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
    input: impl FnOnce() -> Input,
) -> Result<(), Error> {
    let driver = Driver::new(Arc::clone(device));
    let status = driver.status()?;
    match command {
        Command::Status(format) => status::print(&status, *format, out),
        Command::Policy { command: PolicyCommand::Show(format) } => policy::show(&driver, *format, out),
        Command::Policy { command: PolicyCommand::Set(options) } => policy::set(&driver, options, out),
        Command::Watch(options) => watch::watch(&driver, options, out, remarks),
        Command::Ask(options) => {
            let input = options.verdict.is_none().then(input);
            ask::ask(&driver, options, out, remarks, input)
        }
    }
}
