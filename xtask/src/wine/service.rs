//! A driver as a service of the prefix.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::parameters::{Parameter, Value, reg_change, reg_file};
use super::prefix::{self, COMMAND, Prefix};

/// Limit on an answer of the service manager.
const ANSWER: Duration = Duration::from_secs(20);
/// Interval of queries of a state that changes.
const POLL: Duration = Duration::from_millis(100);
/// Number of queries in a row that must fail before a service counts as not installed.
const REFUSALS: u32 = 3;

/// State of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// There is no such service.
    Absent,
    /// Not loaded.
    Stopped,
    /// Loaded.
    Running,
    /// Changing from one to the other.
    Pending,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "not installed",
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Pending => "starting or stopping",
        })
    }
}

/// A driver's service, by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service<'a> {
    prefix: &'a Prefix,
    name: &'a str,
}

impl<'a> Service<'a> {
    pub(super) fn new(prefix: &'a Prefix, name: &'a str) -> Self {
        Self { prefix, name }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.name
    }

    /// Copies the driver's image into the machine, and creates the service if there is none.
    pub(crate) fn install(&self, image: &Path) -> Result<()> {
        let file = format!("{}.sys", self.name);
        if !image.is_file() {
            bail!("{} is not there: `cargo xtask driver` makes the sample driver's", image.display());
        }
        prefix::copy_if_new(image, &self.prefix.drivers().join(&file))?;
        if self.state()? == State::Absent {
            let path = format!(r"C:\windows\system32\drivers\{file}");
            // Drivers of one group share a process: while one of them is loaded, it stays when the others go.
            self.sc("create", &["type=", "kernel", "start=", "demand", "group=", "wsk", "binPath=", &path])?;
        }
        Ok(())
    }

    /// Gives the service's `Parameters` key these values and no others. They count from the next start.
    pub(crate) fn set_parameters(&self, parameters: &[Parameter]) -> Result<()> {
        self.import(&reg_file(self.name, parameters))
    }

    /// Gives one value of the service's `Parameters` key, or removes it.
    pub(crate) fn change_parameter(&self, name: &str, value: Option<&Value>) -> Result<()> {
        self.import(&reg_change(self.name, name, value))
    }

    fn import(&self, reg_file: &[u8]) -> Result<()> {
        let file = self.prefix.directory().join(format!("drive_c/{}.reg", self.name));
        std::fs::write(&file, reg_file).with_context(|| format!("cannot write {}", file.display()))?;
        let mut import = self.prefix.command("reg")?;
        import.args(["import", &format!(r"C:\{}.reg", self.name)]);
        self.prefix.bounded(&mut import, COMMAND, "reg import")?;
        Ok(())
    }

    /// Loads the driver and waits until it runs.
    pub(crate) fn start(&self) -> Result<()> {
        self.start_within(COMMAND)
    }

    /// Starts it within another limit.
    pub(crate) fn start_within(&self, limit: Duration) -> Result<()> {
        self.change("start", State::Running, limit).with_context(|| format!("{} does not start", self.name))
    }

    /// Unloads the driver and waits until it is gone.
    pub(crate) fn stop(&self) -> Result<()> {
        self.stop_within(COMMAND)
    }

    /// Starts it within another limit.
    pub(crate) fn stop_within(&self, limit: Duration) -> Result<()> {
        self.change("stop", State::Stopped, limit).with_context(|| format!("{} does not stop", self.name))
    }

    /// Queries its state. That there is no such service is believed when it is said several times: under load
    /// the service manager may refuse a query, with the same answer.
    pub(crate) fn state(&self) -> Result<State> {
        for _ in 1..REFUSALS {
            match self.query()? {
                State::Absent => std::thread::sleep(POLL),
                known => return Ok(known),
            }
        }
        self.query()
    }

    /// Asks for its state once.
    fn query(&self) -> Result<State> {
        let captured = self.prefix.run("sc", &["query", self.name], ANSWER)?;
        match captured.status {
            Some(status) if status.success() => state_in(&captured.stdout).with_context(|| {
                format!(
                    "the service manager's answer for {} is not understood:\n{}",
                    self.name, captured.stdout
                )
            }),
            // `sc` of Wine does not say why.
            Some(_) => Ok(State::Absent),
            None => bail!(
                "the service manager does not answer within {} s; `cargo xtask wine kill` ends it",
                ANSWER.as_secs()
            ),
        }
    }

    fn sc(&self, verb: &str, arguments: &[&str]) -> Result<String> {
        let mut sc = self.prefix.command("sc")?;
        sc.arg(verb).arg(self.name).args(arguments);
        self.prefix.bounded(&mut sc, COMMAND, &format!("sc {verb} {}", self.name))
    }

    fn change(&self, verb: &str, wanted: State, limit: Duration) -> Result<()> {
        let mark = self.prefix.log_mark();
        let deadline = Instant::now() + limit;
        let mut sc = self.prefix.command("sc")?;
        let asked = self.prefix.bounded(sc.arg(verb).arg(self.name), limit, &format!("sc {verb}"));
        loop {
            let state = self.state()?;
            // One that ran before it was started has other parameters than it was to have.
            if state == wanted && (asked.is_ok() || wanted == State::Stopped) {
                return Ok(());
            }
            // A request that was refused is final; one that was taken may need time.
            // A service whose start was accepted exists, even if a query fails.
            if asked.is_err() || Instant::now() > deadline {
                bail!("{}", self.story(state, mark));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Describes a change that did not happen.
    fn story(&self, state: State, mark: u64) -> String {
        let tail = prefix::last_lines(&self.prefix.log_since(mark), 15);
        let tail = if tail.is_empty() { "(nothing in the log)".to_owned() } else { tail };
        format!("it is {state}; the log says:\n{tail}\n(full log: {})", self.prefix.log().display())
    }
}

/// The state in an answer of `sc query`.
fn state_in(answer: &str) -> Option<State> {
    let line = answer.lines().find(|line| line.trim_start().starts_with("STATE"))?;
    let number = line.split(':').nth(1)?.split_whitespace().next()?;
    match number {
        "1" => Some(State::Stopped),
        "2" | "3" | "5" | "6" | "7" => Some(State::Pending),
        "4" => Some(State::Running),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_read_by_its_number() {
        let answer = |state: &str| {
            format!(
                "SERVICE_NAME: gate\n        TYPE               : 1  \n        STATE              : {state}\n"
            )
        };
        assert_eq!(state_in(&answer("4  RUNNING")), Some(State::Running));
        assert_eq!(state_in(&answer("1  STOPPED")), Some(State::Stopped));
        assert_eq!(state_in(&answer("3  STOP_PENDING")), Some(State::Pending));
        assert_eq!(state_in(&answer("9  ODD")), None);
        assert_eq!(state_in(""), None);
    }
}
