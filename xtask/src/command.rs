//! Child processes: bounded in time, recorded in a log, with the end of the log shown on failure.
//!
//! ```text
//!  logged:  child ──stdout, stderr──► reader threads ──lines──► log file
//!                                                         └───► the step's last line
//!  logged_output: the same, but standard output is for the caller alone
//!  capture: child ──stdout, stderr──► unnamed files ──► read once it has ended
//! ```
//!
//! A child whose time is up is ended with all that it has started.
//!
//! `capture` uses files because a Windows program started here may start services that inherit its
//! descriptors and outlive it: the end of a pipe would never come.

pub(crate) mod family;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::progress::Step;

/// Number of log lines shown when a step fails, and the limit on each.
const TAIL: usize = 40;
const WIDTH: usize = 240;
/// Interval of checks on a running child.
const POLL: Duration = Duration::from_millis(10);
/// Time to wait for lines once the child has ended. Its own children may hold the pipe open.
const DRAIN: Duration = Duration::from_millis(500);

/// Failure of a child.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The child could not be started.
    Start { program: String, error: std::io::Error },
    /// The child was still running at its time limit, and was ended.
    TimedOut { what: String, limit: Duration, log: PathBuf, tail: String },
    /// The child ended with a status other than zero.
    Status { what: String, status: ExitStatus, log: PathBuf, tail: String },
}

impl Failure {
    /// The last lines that the child printed.
    pub(crate) fn tail(&self) -> &str {
        match self {
            Self::Start { .. } => "",
            Self::TimedOut { tail, .. } | Self::Status { tail, .. } => tail,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (log, tail) = match self {
            Self::Start { program, error } if error.kind() == std::io::ErrorKind::NotFound => {
                return write!(f, "{program} is not installed: `cargo xtask setup` lists what to install");
            }
            Self::Start { program, error } => return write!(f, "cannot start {program}: {error}"),
            Self::TimedOut { what, limit, log, tail } => {
                write!(f, "{what}: timed out after {} s", limit.as_secs())?;
                (log, tail)
            }
            Self::Status { what, status, log, tail } => {
                write!(f, "{what}: {status}")?;
                (log, tail)
            }
        };
        if !tail.is_empty() {
            write!(f, "\n{tail}")?;
        }
        write!(f, "\n(full log: {})", log.display())
    }
}

impl std::error::Error for Failure {}

/// Output and status of a captured child.
#[derive(Debug)]
pub(crate) struct Captured {
    /// Exit status; `None` if it was ended at its time limit.
    pub status: Option<ExitStatus>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Captured {
    /// Did it end by itself, with status zero?
    pub(crate) fn ok(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// Runs a child to its end with its output in `log` (a new file), its last line shown by `step`.
pub(crate) fn logged(
    command: Command,
    what: &str,
    log: &Path,
    limit: Duration,
    step: &Step,
) -> Result<(), Failure> {
    run(command, what, log, limit, step, None)
}

/// Does the same for a child whose standard output is for another program: it is returned, and neither logged
/// nor shown.
pub(crate) fn logged_output(
    command: Command,
    what: &str,
    log: &Path,
    limit: Duration,
    step: &Step,
) -> Result<String, Failure> {
    let mut output = String::new();
    run(command, what, log, limit, step, Some(&mut output))?;
    Ok(output)
}

fn run(
    mut command: Command,
    what: &str,
    log: &Path,
    limit: Duration,
    step: &Step,
    mut output: Option<&mut String>,
) -> Result<(), Failure> {
    let start = |program: &Command, error| Failure::Start { program: program_of(program), error };
    let mut file = create_log(log).map_err(|error| start(&command, error))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| start(&command, error))?;

    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        read_lines(stdout, sender.clone(), Line::Output);
    }
    if let Some(stderr) = child.stderr.take() {
        read_lines(stderr, sender, Line::Error);
    }

    let deadline = Instant::now() + limit;
    let mut tail = Tail::default();
    let mut ended: Option<(ExitStatus, Instant)> = None;
    let mut timed_out = false;
    loop {
        match lines.recv_timeout(POLL) {
            Ok(line) => {
                let line = match (line, &mut output) {
                    (Line::Output(line), Some(output)) => {
                        output.push_str(&line);
                        output.push('\n');
                        continue;
                    }
                    (Line::Output(line) | Line::Error(line), _) => line,
                };
                // A log that cannot be written is no reason to stop the work.
                let _ = writeln!(file, "{line}");
                step.line(&line);
                tail.push(&line);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) if ended.is_some() => break,
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(POLL),
            Err(RecvTimeoutError::Timeout) => {}
        }
        match ended {
            Some((_, at)) if at.elapsed() > DRAIN => break,
            Some(_) => {}
            None => match child.try_wait() {
                Ok(Some(status)) => ended = Some((status, Instant::now())),
                Ok(None) if Instant::now() > deadline => {
                    timed_out = true;
                    end(&mut child);
                }
                Ok(None) => {}
                Err(error) => return Err(start(&command, error)),
            },
        }
    }
    let tail = tail.text();
    match ended {
        _ if timed_out => Err(Failure::TimedOut { what: what.to_owned(), limit, log: log.to_owned(), tail }),
        Some((status, _)) if !status.success() => {
            Err(Failure::Status { what: what.to_owned(), status, log: log.to_owned(), tail })
        }
        _ => Ok(()),
    }
}

/// Runs a child to its end, at most for `limit`, and returns what it printed.
pub(crate) fn capture(command: &mut Command, limit: Duration) -> Result<Captured> {
    let mut stdout = tempfile::tempfile().context("cannot create a temporary file")?;
    let mut stderr = tempfile::tempfile().context("cannot create a temporary file")?;
    let child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().context("cannot create a temporary file")?)
        .stderr(stderr.try_clone().context("cannot create a temporary file")?)
        .spawn()
        .map_err(|error| Failure::Start { program: program_of(command), error })?;
    let status = wait(child, limit)?;
    Ok(Captured { status, stdout: whole(&mut stdout)?, stderr: whole(&mut stderr)? })
}

/// Waits for a child, and ends it when the time is up: then the status is `None`.
pub(crate) fn wait(mut child: Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            end(&mut child);
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// The output of a short question to another program; `None` if it is not there or says no.
pub(crate) fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let captured = capture(Command::new(program).args(arguments), Duration::from_secs(20)).ok()?;
    captured.ok().then(|| captured.stdout.trim().to_owned())
}

/// Part of a failed child's output that is shown: from its first error on, or else the end.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    at_error: bool,
}

impl Tail {
    fn push(&mut self, line: &str) {
        if line.trim().is_empty() || (self.at_error && self.lines.len() >= TAIL) {
            return;
        }
        if !self.at_error && line.starts_with("error") {
            self.at_error = true;
            self.lines.clear();
        }
        let mut shown: String = line.chars().take(WIDTH).collect();
        if shown.len() < line.len() {
            shown.push('…');
        }
        self.lines.push_back(shown);
        if self.lines.len() > TAIL {
            self.lines.pop_front();
        }
    }

    fn text(&mut self) -> String {
        self.lines.make_contiguous().join("\n")
    }
}

/// The last lines of a file, without empty ones.
pub(crate) fn tail_of(log: &Path, count: usize) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A new, empty log, its directory made if need be.
fn create_log(log: &Path) -> std::io::Result<File> {
    if let Some(directory) = log.parent() {
        std::fs::create_dir_all(directory)?;
    }
    File::create(log)
}

/// Ends a child that has overrun its time, with all that it has started, and reaps it.
fn end(child: &mut Child) {
    family::end(child.id().cast_signed());
    // Both fail only if it has ended by now.
    let _ = child.kill();
    let _ = child.wait();
}

fn program_of(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// A line of a child, and where it was printed.
#[derive(Debug)]
enum Line {
    Output(String),
    Error(String),
}

fn read_lines(from: impl Read + Send + 'static, to: mpsc::Sender<Line>, line_of: fn(String) -> Line) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        // A reader that is gone or a pipe that breaks ends the thread, and nothing else.
        while from.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line);
            if to.send(line_of(text.trim_end_matches(['\r', '\n']).to_owned())).is_err() {
                return;
            }
            line.clear();
        }
    });
}

fn whole(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).context("cannot read what a child printed")?;
    file.read_to_end(&mut bytes).context("cannot read what a child printed")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child that does this, told in the words of the system's own shell.
    fn shell(unix: &str, windows: &str) -> Command {
        let (program, switch, script) =
            if cfg!(windows) { ("cmd", "/c", windows) } else { ("sh", "-c", unix) };
        let mut command = Command::new(program);
        command.args([switch, script]);
        command
    }

    /// Sleeps, in the words of a shell that has no `sleep`.
    const SLEEP: &str = "ping -n 60 127.0.0.1 >nul";

    #[test]
    fn both_streams_are_logged_and_the_end_is_shown_on_failure() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("logs/one.log");
        let step = Step::start("a test");
        let script = shell("echo out; echo err >&2; exit 3", "echo out& echo err>&2& exit 3");
        let failure = logged(script, "work", &log, POLL * 500, &step).expect_err("status 3");
        let Failure::Status { status, .. } = &failure else { panic!("{failure}") };
        assert_eq!(status.code(), Some(3));
        let shown = failure.to_string();
        // How a status is worded is the system's own affair.
        assert!(shown.contains(&format!("work: {status}")), "{shown}");
        assert!(failure.tail().contains("out") && failure.tail().contains("err"), "{shown}");
        assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 2);
        step.skipped();
    }

    #[test]
    fn output_for_the_caller_is_not_in_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let step = Step::start("a test");
        let script = shell("echo one; echo progress >&2; echo two", "echo one& echo progress>&2& echo two");
        let output = logged_output(script, "work", &log, POLL * 500, &step).unwrap();
        assert_eq!(output, "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "progress\n");
        step.skipped();
    }

    #[test]
    fn a_child_that_overruns_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let step = Step::start("a test");
        let started = Instant::now();
        let failure = logged(
            shell("echo begun; exec sleep 60", &format!("echo begun& {SLEEP}")),
            "work",
            &directory.path().join("log"),
            Duration::from_millis(200),
            &step,
        )
        .expect_err("it sleeps");
        assert!(matches!(failure, Failure::TimedOut { .. }));
        assert!(started.elapsed() < Duration::from_secs(20));
        step.skipped();
    }

    #[test]
    fn a_daemon_that_keeps_the_descriptors_does_not_keep_us() {
        let started = Instant::now();
        let mut script = shell("sleep 30 & echo over", &format!("start /b {SLEEP}& echo over"));
        let captured = capture(&mut script, Duration::from_secs(20)).unwrap();
        assert!(captured.ok());
        assert_eq!(captured.stdout.trim_end(), "over");
        assert!(started.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn the_first_error_is_shown_rather_than_the_end() {
        let mut tail = Tail::default();
        for number in 0..100 {
            tail.push(&format!("   Compiling part{number}"));
        }
        assert!(tail.text().ends_with("part99") && tail.lines.len() == TAIL);
        tail.push("error: no such thing");
        for number in 0..100 {
            tail.push(&format!("  = note: {number} {}", "x".repeat(1000)));
        }
        let text = tail.text();
        assert!(text.starts_with("error: no such thing\n  = note: 0 xxx"), "{text}");
        assert!(text.lines().count() == TAIL && text.lines().all(|line| line.chars().count() <= WIDTH + 1));
    }

    #[test]
    fn a_missing_program_names_the_remedy() {
        let error = capture(&mut Command::new("no-such-program-here"), POLL).expect_err("it is not there");
        assert!(error.to_string().contains("cargo xtask setup"), "{error}");
    }
}
