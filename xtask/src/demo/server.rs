//! The server under test, as the scenarios see it.
//!
//! ```text
//!   scenarios ──► Server ─┬─ user_mode: gate-host as a process
//!                         └─ driver:    the driver in Wine, controlled by sc, reg and gatectl
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use gate_protocol::{Action, Answer, Limits, record::AcceptBy};

use super::records::Records;
use crate::wine::Pool;

/// Settings of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Address to listen on; port 0 requests a free port.
    pub listen: SocketAddr,
    /// Networks and what they get.
    pub nets: Vec<(&'static str, Action)>,
    /// Action for all other addresses.
    pub default: Action,
    /// Time limit of an answer.
    pub verdict_timeout: Duration,
    /// Accept path.
    pub by: AcceptBy,
    /// Limits on the number of clients and on idle time.
    pub limits: Limits,
    /// Answer of a program to every question; without one there is no such program.
    pub answer: Option<Answer>,
    /// Values that cannot be used, by name. They come last, so they stand in the place of good ones.
    pub bad: Vec<(&'static str, BadValue)>,
}

/// A registry value that the driver has to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadValue {
    /// A text.
    Text(&'static str),
    /// A number.
    Number(u32),
    /// A list of texts.
    Texts(&'static [&'static str]),
}

impl Settings {
    /// Returns the settings of most scenarios: all are accepted but 127.0.0.3, which is rejected, and
    /// 127.0.0.4 and 127.0.0.5, which are asked about. The number of clients from one address is not limited,
    /// as all clients come from few.
    pub(crate) fn usual(by: AcceptBy) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            nets: vec![("127.0.0.3", Action::Reject), ("127.0.0.4/31", Action::Ask)],
            default: Action::Accept,
            verdict_timeout: Duration::from_mins(1),
            by,
            limits: Limits { per_source: Limits::NONE, ..Limits::DEFAULT },
            answer: None,
            bad: Vec::new(),
        }
    }
}

/// Outcome of a start.
#[derive(Debug)]
pub(crate) enum Started {
    /// The server listens.
    Listening,
    /// The server does not listen, for this reason.
    Failed(String),
}

/// Resources that the server's processes hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// Threads.
    pub threads: usize,
    /// Descriptors, which stand for sockets and handles.
    pub descriptors: usize,
    /// Memory, in KiB.
    pub memory: usize,
}

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { threads, descriptors, memory } = self;
        write!(f, "{threads} threads, {descriptors} descriptors, {memory} KiB")
    }
}

/// A program that asks what to answer, and gets no answer from us.
pub(crate) trait Asker {
    /// Waits until it was asked about a client.
    fn asked(&mut self) -> Result<()>;
    /// Ends it in order: it closes its handle.
    fn close(self: Box<Self>) -> Result<()>;
    /// Ends it as a crash would.
    fn kill(self: Box<Self>) -> Result<()>;
}

/// Server under test.
pub(crate) trait Server {
    /// Returns its name, for the title of the table.
    fn title(&self) -> String;

    /// Makes it run with these settings. Does nothing if it does already.
    fn start(&mut self, settings: &Settings) -> Result<Started>;

    /// Returns the address it listens on.
    fn address(&self) -> SocketAddr;

    /// Unloads it, and returns how long that took. An error says what it left behind. Nothing is done if it
    /// does not run.
    fn stop(&mut self) -> Result<Duration>;

    /// Ends it as a crash of the machine would.
    fn crash(&mut self) -> Result<()>;

    /// Returns its records.
    fn records(&self) -> &Records;

    /// Lines of its log since the last call that tell of a crash.
    fn crashes(&mut self) -> Vec<String>;

    /// Returns the reason that it has gone, if it was not stopped.
    fn gone(&mut self) -> Option<String>;

    /// The last lines of its log.
    fn log_tail(&self) -> String;

    /// Returns the resources of the processes that it is loaded into, or of its own process, as long as it
    /// runs; `None` if there is none.
    fn holdings(&self) -> Option<Holdings> {
        None
    }

    /// Ends its machine, and has it keep a record of pool memory from its next start on, or not.
    fn record_pool(&mut self, record: bool) -> Result<()> {
        let _ = record;
        bail!("only a machine that loads drivers records their pool memory")
    }

    /// Returns the account of the pool memory that was recorded.
    fn pool(&self) -> Pool {
        Pool::default()
    }

    /// Replaces the policy while it runs.
    fn set_policy(&mut self, nets: &[(&str, Action)], default: Action) -> Result<()> {
        let _ = (nets, default);
        bail!("only the driver's policy can be replaced")
    }

    /// Its status, as `gatectl status --json` gives it.
    fn status(&mut self) -> Result<serde_json::Value> {
        bail!("only the driver has a status")
    }

    /// A program that takes questions and answers none; `None` where no programs are asked.
    fn asker(&mut self) -> Result<Option<Box<dyn Asker>>> {
        Ok(None)
    }

    /// Keeps the process that it is loaded into when it is unloaded, so that leaks add up.
    fn keep_process(&mut self) -> Result<()> {
        Ok(())
    }

    /// Loads the driver in C beside it, with these parameters; it is replaced if it is loaded already.
    fn load_other(&mut self, parameters: &[(&str, u32)]) -> Result<()> {
        let _ = parameters;
        bail!("only a machine that loads drivers can load another")
    }

    /// Unloads the driver in C, if it is loaded. An error says what it left behind.
    fn unload_other(&mut self) -> Result<()> {
        Ok(())
    }

    /// Lets it run on when this program ends.
    fn leave(&mut self) -> Result<()> {
        bail!("only the driver can be left running")
    }

    /// Ends everything, as at the end of the demo. It can be called at any time, and again.
    fn end(&mut self) -> Result<()>;
}
