//! The program as a process, and its output.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Anything that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_mins(1);
/// An unload takes no longer than this, whatever is open.
const UNLOAD: Duration = Duration::from_secs(5);

/// A running example that prints JSON.
pub(crate) struct Service {
    child: Child,
    printed: Arc<Printed>,
    reader: Option<JoinHandle<()>>,
    /// Address it listens on.
    pub(crate) address: SocketAddr,
}

/// Output of the program so far.
#[derive(Default)]
struct Printed {
    state: Mutex<(Vec<Value>, bool)>,
    changed: Condvar,
}

impl Service {
    /// Starts the program on a free port of 127.0.0.1 and waits until it listens.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::spawn(program_command().args(["--listen", "127.0.0.1:0", "--log", "json"]).args(options))
    }

    /// Starts `command`, which runs the program with `--log json`, and waits until it listens.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let printed = Arc::new(Printed::default());
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let reader = std::thread::spawn({
            let printed = Arc::clone(&printed);
            move || {
                for line in output.lines() {
                    let line = line.expect("text");
                    let value = serde_json::from_str(&line)
                        .unwrap_or_else(|error| panic!("{line:?} is no JSON: {error}"));
                    printed.state.lock().expect("not poisoned").0.push(value);
                    printed.changed.notify_all();
                }
                printed.state.lock().expect("not poisoned").1 = true;
                printed.changed.notify_all();
            }
        });
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut service = Self { child, printed, reader: Some(reader), address };
        let loaded = service.wait(&[("event", "loaded")]);
        service.address = text(&loaded, "local").parse().expect("an address");
        service
    }

    /// Waits until a line is printed that has all these fields.
    pub(crate) fn wait(&self, fields: &[(&str, &str)]) -> Value {
        self.wait_for(1, fields).pop().expect("one line")
    }

    /// Waits until so many lines are printed that have all these fields.
    pub(crate) fn wait_for(&self, count: usize, fields: &[(&str, &str)]) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        let (mut found, mut looked_at) = (Vec::new(), 0);
        let mut state = self.printed.state.lock().expect("not poisoned");
        loop {
            let (lines, ended) = &*state;
            found.extend(lines[looked_at..].iter().filter(|line| has(line, fields)).cloned());
            looked_at = lines.len();
            if found.len() >= count {
                found.truncate(count);
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let last = &lines[lines.len().saturating_sub(40)..];
            assert!(
                !ended && !left.is_zero(),
                "{} of {count} lines with {fields:?}; ended: {ended}; last: {last:#?}",
                found.len()
            );
            state = self.printed.changed.wait_timeout(state, left).expect("not poisoned").0;
        }
    }

    /// The lines printed so far that have all these fields.
    pub(crate) fn seen(&self, fields: &[(&str, &str)]) -> Vec<Value> {
        let state = self.printed.state.lock().expect("not poisoned");
        state.0.iter().filter(|line| has(line, fields)).cloned().collect()
    }

    /// Stops the program, and returns everything it printed. It has to end within five seconds,
    /// with nothing violated and nothing leaked.
    pub(crate) fn stop(mut self) -> Vec<Value> {
        let pid = Pid::from_child(&self.child);
        let start = Instant::now();
        kill_process(pid, Signal::TERM).expect("the process is there");
        self.end(start + UNLOAD)
    }

    /// Waits until the program ends by itself, which it does within `limit`, and returns everything it
    /// printed.
    pub(crate) fn ended_within(mut self, limit: Duration) -> Vec<Value> {
        self.end(Instant::now() + limit)
    }

    fn end(&mut self, deadline: Instant) -> Vec<Value> {
        let mut state = self.printed.state.lock().expect("not poisoned");
        while !state.1 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the program did not end in time; it printed {:#?}", state.0.last());
            state = self.printed.changed.wait_timeout(state, left).expect("not poisoned").0;
        }
        let lines = std::mem::take(&mut state.0);
        drop(state);
        let status = self.child.wait().expect("a status");
        assert!(status.success(), "{status}; it printed {lines:#?}");
        let unloaded = lines.last().expect("it printed something");
        assert_eq!(*unloaded, serde_json::json!({"event": "unloaded", "violations": 0, "leaks": 0}));
        lines
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A test that failed leaves the process running. One that passed has waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Runs the program to its end, which must come soon.
pub(crate) fn run(options: &[&str]) -> Output {
    let mut child = program_command()
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let (mut stdout, mut stderr) =
        (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let mut output =
        Output { status: child.wait().expect("a status"), stdout: Vec::new(), stderr: Vec::new() };
    stdout.read_to_end(&mut output.stdout).expect("read");
    stderr.read_to_end(&mut output.stderr).expect("read");
    output
}

/// The field `name` of a line.
pub(crate) fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_else(|| panic!("no text {name} in {line}"))
}

fn has(line: &Value, fields: &[(&str, &str)]) -> bool {
    fields.iter().all(|(name, value)| line[name] == *value)
}

/// A command that runs the program.
pub(crate) fn program_command() -> Command {
    Command::new(program())
}

/// Path of the program.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_gate-host"))
}
