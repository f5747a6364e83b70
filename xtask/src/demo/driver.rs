//! The driver as the server under test, loaded into a private Wine prefix and controlled as on Windows.
//!
//! ```text
//!   Settings ──► Parameters (reg) ──► sc start ──► `gatectl watch --json` ──► records: loaded, or failed
//!                                                  `gatectl ask`          ──► answers
//!   clients, on the Linux side ──► 127.0.0.1 ──► netio.sys ──► driver
//! ```

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, ChildStdin};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gate_protocol::Action;
use serde_json::Value as Json;

use super::processes;
use super::records::{Mark, PATIENCE, Records};
use super::server::{Asker, BadValue, Holdings, Server, Settings, Started};
use crate::cross::{Layout, driver, netio};
use crate::wine::{self, Parameter, Pool, Prefix, SERVICE, Value};

/// Limit on a program that controls the driver.
const COMMAND: Duration = Duration::from_secs(30);
/// Limit on a start, with the service manager's own time.
const START: Duration = Duration::from_secs(30);
/// Limit on the wait for a stop. The scenarios judge its duration.
const STOP: Duration = Duration::from_mins(1);
/// The service of the driver in C.
const OTHER: &str = "echo_c";
/// Output of `netio.sys` when a client has deregistered, before what is left.
const DEREGISTERED: &str = "netio: deregistered:";
/// Output when a client has violated the contract, or `netio.sys` cannot continue.
const BROKEN: [&str; 3] = ["netio: violation", "netio: panic", "netio: error"];
/// The status of a driver whose parameters do not say where to listen.
const INVALID_PARAMETER: u64 = 0xC000_000D;
/// The control program.
const GATECTL: &str = "gatectl.exe";

/// The driver.
#[derive(Debug)]
pub(crate) struct Driver {
    layout: Layout,
    prefix: Prefix,
    records: Records,
    running: Option<Running>,
    /// The parameters that the registry has.
    parameters: Option<Vec<Parameter>>,
    log_mark: u64,
    /// Position in the log at which the record of pool memory begins.
    pool_mark: u64,
    /// True if the driver is left running.
    left: bool,
    /// Keeps other runs away from the prefix.
    _lock: File,
    /// The driver in C is loaded.
    other: bool,
}

#[derive(Debug)]
struct Running {
    settings: Settings,
    address: SocketAddr,
    watch: Program,
    answers: Option<Program>,
    /// Position in the log of the client's deregistration: the service of a driver that does not listen has
    /// gone by now.
    log_mark: u64,
    /// True once the driver has reached WSK; without an address to listen on it does not.
    came: bool,
}

/// A program in the prefix whose output is read; dropped, it is killed.
#[derive(Debug)]
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: Records,
}

impl Program {
    fn start(prefix: &Prefix, arguments: &[&str], output: Records) -> Result<Self> {
        let mut child = prefix.spawn(GATECTL, arguments)?;
        output.follow(child.stdout.take().context("gatectl has no output")?);
        if let Some(errors) = child.stderr.take() {
            output.follow_remarks(errors);
        }
        Ok(Self { input: child.stdin.take(), child, output })
    }

    /// Waits until it has ended.
    fn ended(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) => return false,
                _ => return true,
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An error says that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that holds a question.
struct QuestionHolder(Program);

impl Asker for QuestionHolder {
    fn asked(&mut self) -> Result<()> {
        self.0.output.wait(Mark::START, "question for gatectl", PATIENCE, |lines| {
            lines.iter().any(|line| line["event"] == "question").then_some(())
        })
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        // The end of its input ends it.
        self.0.input = None;
        if !self.0.ended(PATIENCE) {
            bail!("gatectl ask does not end with its input");
        }
        Ok(())
    }

    fn kill(mut self: Box<Self>) -> Result<()> {
        self.0.child.kill().context("gatectl cannot be killed")?;
        self.0.child.wait().context("gatectl cannot be waited for")?;
        Ok(())
    }
}

impl Driver {
    /// Builds the driver and what it needs, unless told not to, and brings up the prefix with the driver
    /// installed.
    pub(crate) fn load(layout: &Layout, build: bool) -> Result<Self> {
        if build {
            driver::build(layout)?;
            netio::build(layout)?;
        }
        let prefix = Prefix::open(layout)?;
        // Nothing of the machine is ended before it is this run's.
        let lock = prefix.hold()?;
        processes::end_on_interrupt(&prefix);
        // What an earlier run left, if it was killed, is not built upon.
        prefix.kill()?;
        let mut server = Self {
            layout: layout.clone(),
            prefix,
            records: Records::default(),
            running: None,
            parameters: None,
            log_mark: 0,
            pool_mark: 0,
            left: false,
            _lock: lock,
            other: false,
        };
        server.machine()?;
        // Messages of a machine that boots are not crashes of the driver.
        server.log_mark = server.prefix.log_mark();
        Ok(server)
    }

    /// Starts the machine, with the service installed.
    fn machine(&mut self) -> Result<()> {
        if !self.prefix.is_up() {
            self.prefix.create()?;
            self.prefix.service(SERVICE).install(&self.layout.image("conditional_accept.sys"))?;
            // An earlier run may have chosen another.
            wine::set_completion(&self.prefix, None)?;
            self.parameters = None;
        }
        Ok(())
    }

    /// Loads it with these settings; it is not loaded now.
    fn load_with(&mut self, settings: &Settings) -> Result<Started> {
        self.machine()?;
        let service = self.prefix.service(SERVICE);
        let parameters = parameters(settings);
        if self.parameters.as_ref() != Some(&parameters) {
            service.set_parameters(&parameters)?;
            self.parameters = Some(parameters);
        }
        let (mark, log_mark) = (self.records.mark(), self.prefix.log_mark());
        service.start_within(START)?;
        let watch = Program::start(&self.prefix, &["watch", "--json"], self.records.clone())?;
        let started = self.records.wait(mark, "record that it listens", START, |lines| {
            lines.iter().find_map(|line| match line["event"].as_str() {
                Some("loaded") => Some(line["local"].as_str().and_then(|local| local.parse().ok()).ok_or(0)),
                Some("failed") => Some(Err(line["status"].as_u64().unwrap_or_default())),
                _ => None,
            })
        })?;
        let unanswered = Settings { answer: None, ..settings.clone() };
        let address = *started.as_ref().unwrap_or(&settings.listen);
        let came = started != Err(INVALID_PARAMETER);
        self.running = Some(Running { settings: unanswered, address, watch, answers: None, log_mark, came });
        match started {
            Ok(_) => {
                self.answer(settings)?;
                Ok(Started::Listening)
            }
            Err(recorded) => {
                let status = self.status()?;
                let (phase, error) = (&status["phase"], status["error"].as_u64().unwrap_or_default());
                if *phase != "failed" || error != recorded {
                    bail!("the record says {recorded:#010x}, the status {status}");
                }
                Ok(Started::Failed(format!("status {error:#010x}")))
            }
        }
    }

    /// Starts a program that answers, or none.
    fn answer(&mut self, settings: &Settings) -> Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        if running.answers.is_some() && running.settings.answer == settings.answer {
            return Ok(());
        }
        // Gone before the next one starts, handle and all: it must not get its questions.
        if running.answers.take().is_some() {
            self.handles_are_closed()?;
        }
        let Some(running) = &mut self.running else { return Ok(()) };
        if let Some(answer) = settings.answer {
            let arguments = ["ask", "--json", "--verdict", &answer.to_string()];
            running.answers = Some(Program::start(&self.prefix, &arguments, Records::default())?);
        }
        running.settings.answer = settings.answer;
        Ok(())
    }

    /// Waits until only the watcher and this program have the device open: the machine notices a killed
    /// program late.
    fn handles_are_closed(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let handles =
                self.status()?["counters"]["handles"].as_u64().context("the status has no handles")?;
            if handles <= 2 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{handles} handles of the device are still open after gatectl was killed");
            }
        }
    }

    /// Asks what `netio.sys` said since `mark`, when a driver was unloaded: nothing of it may be left, and it
    /// must not have broken the contract.
    fn nothing_left(&self, mark: u64) -> Result<()> {
        let log = self.prefix.log_since(mark);
        let said = log.lines().filter_map(|line| line.split_once(DEREGISTERED)).next_back();
        let Some((_, left)) = said else {
            bail!("netio.sys does not report that the driver has deregistered")
        };
        // What is left is the other driver's: the one in C has a listener, ours may serve clients.
        let expected = match (self.other, self.running.is_some()) {
            (false, false) => "clients=0 sockets=0 ",
            (true, false) => "clients=1 sockets=1 ",
            (false, true) => "clients=1 ",
            (true, true) => "clients=2 ",
        };
        if !(left.trim_start().starts_with(expected) && left.contains("violations=0")) {
            bail!("netio.sys reports after the driver was unloaded:{left}");
        }
        Ok(())
    }

    /// Runs gatectl to its end.
    fn gatectl(&self, arguments: &[&str]) -> Result<String> {
        let captured = self.prefix.run(GATECTL, arguments, COMMAND)?;
        if !captured.ok() {
            let how = captured.status.map_or_else(|| "no end".to_owned(), |status| status.to_string());
            bail!("gatectl {}: {how}: {}", arguments.join(" "), captured.stderr.trim());
        }
        Ok(captured.stdout)
    }
}

/// The registry values of settings.
fn parameters(settings: &Settings) -> Vec<Parameter> {
    let nets = |wanted: Action| {
        let chosen = settings.nets.iter().filter(|(_, action)| *action == wanted);
        Value::Texts(chosen.map(|(net, _)| (*net).to_owned()).collect())
    };
    let timeout = u32::try_from(settings.verdict_timeout.as_millis()).unwrap_or(u32::MAX);
    let mut parameters = vec![
        Parameter::new("Listen", Value::Text(settings.listen.to_string())),
        Parameter::new("Accept", nets(Action::Accept)),
        Parameter::new("Reject", nets(Action::Reject)),
        Parameter::new("Ask", nets(Action::Ask)),
        Parameter::new("Default", Value::Text(settings.default.to_string())),
        Parameter::new("VerdictTimeout", Value::Number(timeout)),
        Parameter::new("AcceptBy", Value::Text(settings.by.to_string())),
        Parameter::new("MaxClients", Value::Number(settings.limits.clients)),
        Parameter::new("MaxPerSource", Value::Number(settings.limits.per_source)),
        Parameter::new("IdleTimeout", Value::Number(settings.limits.idle_timeout)),
    ];
    for (name, bad) in &settings.bad {
        let value = match bad {
            BadValue::Text(text) => Value::Text((*text).to_owned()),
            BadValue::Number(number) => Value::Number(*number),
            BadValue::Texts(texts) => Value::Texts(texts.iter().map(|text| (*text).to_owned()).collect()),
        };
        parameters.retain(|parameter| parameter.name != *name);
        parameters.push(Parameter::new(name, value));
    }
    parameters
}

impl Server for Driver {
    fn title(&self) -> String {
        "the driver, loaded by Wine over our netio.sys".to_owned()
    }

    fn start(&mut self, settings: &Settings) -> Result<Started> {
        processes::checkpoint();
        if let Some(running) = &self.running {
            let same = Settings { answer: running.settings.answer, ..settings.clone() };
            if running.settings == same {
                self.answer(settings)?;
                return Ok(Started::Listening);
            }
        }
        self.stop()?;
        let started = self.load_with(settings);
        if started.is_err() && self.running.is_none() {
            // Whatever state it is in, the next one begins with a new machine.
            self.crash()?;
        }
        started
    }

    fn address(&self) -> SocketAddr {
        self.running.as_ref().map_or(SocketAddr::from(([127, 0, 0, 1], 0)), |running| running.address)
    }

    fn stop(&mut self) -> Result<Duration> {
        let Some(mut running) = self.running.take() else { return Ok(Duration::ZERO) };
        let start = Instant::now();
        if let Err(error) = self.prefix.service(SERVICE).stop_within(STOP) {
            // It will not be there when the next one is started.
            self.crash()?;
            return Err(error);
        }
        let took = start.elapsed();
        running.answers = None;
        // With the driver its records end, and so does the program that follows them.
        if !running.watch.ended(PATIENCE) {
            bail!("gatectl watch does not end with the driver");
        }
        self.records.ended(PATIENCE);
        if running.came {
            self.nothing_left(running.log_mark)?;
        }
        Ok(took)
    }

    fn crash(&mut self) -> Result<()> {
        self.prefix.kill()?;
        self.running = None;
        self.other = false;
        self.records.ended(PATIENCE);
        Ok(())
    }

    fn records(&self) -> &Records {
        &self.records
    }

    fn crashes(&mut self) -> Vec<String> {
        let mark = std::mem::replace(&mut self.log_mark, self.prefix.log_mark());
        let mut crashes = self.prefix.crashes_since(mark);
        let log = self.prefix.log_since(mark);
        let broken = log.lines().filter(|line| BROKEN.iter().any(|word| line.contains(word)));
        crashes.extend(broken.map(str::to_owned));
        crashes
    }

    fn gone(&mut self) -> Option<String> {
        self.running.as_ref()?;
        // The program that follows the records ends with the driver.
        if !self.records.ended(Duration::ZERO) {
            return None;
        }
        // What is left of it is not asked: the next start begins anew.
        self.running = None;
        self.other = false;
        Some(
            "the driver has gone without having been stopped: was Wine killed, or has it crashed?".to_owned(),
        )
    }

    fn log_tail(&self) -> String {
        format!("{}\n(full log: {})", self.prefix.log_tail(30), self.prefix.log().display())
    }

    fn holdings(&self) -> Option<Holdings> {
        let ours = processes::of_wine(self.prefix.directory());
        // Those that stay; others come and go with each command.
        let stays = |process: &i32| {
            let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            ["wineserver", "winedevice", "services"].iter().any(|start| name.starts_with(start))
        };
        Some(processes::holdings(ours.into_iter().filter(stays)))
    }

    fn record_pool(&mut self, record: bool) -> Result<()> {
        self.crash()?;
        self.prefix.log_all_calls(record);
        self.pool_mark = self.prefix.log_mark();
        Ok(())
    }

    fn pool(&self) -> Pool {
        Pool::in_log(&self.prefix.log_since(self.pool_mark))
    }

    fn keep_process(&mut self) -> Result<()> {
        // Drivers of one group share a process.
        self.load_other(&[("Port", 0)])
    }

    fn set_policy(&mut self, nets: &[(&str, Action)], default: Action) -> Result<()> {
        let default = default.to_string();
        let options: Vec<String> =
            nets.iter().flat_map(|(net, action)| [format!("--{action}"), (*net).to_owned()]).collect();
        let mut arguments = vec!["policy", "set", "--default", &default];
        arguments.extend(options.iter().map(String::as_str));
        self.gatectl(&arguments).map(drop)
    }

    fn status(&mut self) -> Result<Json> {
        let said = self.gatectl(&["status", "--json"])?;
        serde_json::from_str(&said).with_context(|| format!("gatectl status --json said {said:?}"))
    }

    fn asker(&mut self) -> Result<Option<Box<dyn Asker>>> {
        let program = Program::start(&self.prefix, &["ask", "--json"], Records::default())?;
        Ok(Some(Box::new(QuestionHolder(program))))
    }

    fn load_other(&mut self, parameters: &[(&str, u32)]) -> Result<()> {
        self.machine()?;
        self.unload_other()?;
        let service = self.prefix.service(OTHER);
        service.install(&self.layout.image("echo_c.sys"))?;
        let values = parameters.iter().map(|(name, value)| Parameter::new(name, Value::Number(*value)));
        service.set_parameters(&values.collect::<Vec<_>>())?;
        service.start_within(START)?;
        self.other = true;
        Ok(())
    }

    fn unload_other(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.other) {
            return Ok(());
        }
        let mark = self.prefix.log_mark();
        self.prefix.service(OTHER).stop_within(STOP)?;
        self.nothing_left(mark)
    }

    fn leave(&mut self) -> Result<()> {
        self.left = true;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.prefix.is_up() {
            let stopped = self.stop().map(drop);
            self.running = None;
            self.prefix.kill()?;
            return stopped;
        }
        self.running = None;
        Ok(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.left {
            self.running = None;
            // Nothing more can be done about processes that do not end.
            let _ = self.prefix.kill();
        }
    }
}
