//! A scripted device: it has queues of replies, one for each control code, and records the requests.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gate_protocol::record::AcceptBy;
use gate_protocol::wire::{
    IOCTL_STATUS, Question, QuestionBytes, RecordBytes, RecordsHeader, StatusBytes, TimedRecord,
};
use gate_protocol::{Counters, Limits, Phase, Record, Status};
use gatectl::device::{Device, RequestError, WaitLimit};
use gatectl::{Error, Input};
use zerocopy::IntoBytes as _;
use zerocopy::little_endian::{U32, U64};

use crate::screen::{LIMIT, Screen};

/// Completion of a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Success, with this output.
    Bytes(Vec<u8>),
    /// Failure, with this error code.
    Code(u32),
}

#[derive(Default)]
struct State {
    replies: HashMap<u32, VecDeque<Reply>>,
    /// Completions of requests that have no reply of their own.
    always: HashMap<u32, Reply>,
    seen: Vec<(u32, Vec<u8>)>,
    stopped: bool,
}

/// The device.
#[derive(Default)]
pub(crate) struct Script {
    state: Mutex<State>,
    changed: Condvar,
}

impl Script {
    /// A device that says it listens.
    pub(crate) fn new() -> Arc<Self> {
        let script = Self::default();
        script.always(IOCTL_STATUS, Reply::Bytes(StatusBytes::from(&status()).as_bytes().to_vec()));
        Arc::new(script)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }

    /// Completes the next request `code` that has no reply yet, now or when it comes.
    pub(crate) fn reply(&self, code: u32, reply: Reply) {
        self.state().replies.entry(code).or_default().push_back(reply);
        self.changed.notify_all();
    }

    /// Completes every request `code`.
    pub(crate) fn always(&self, code: u32, reply: Reply) {
        self.state().always.insert(code, reply);
        self.changed.notify_all();
    }

    /// The inputs of the requests `code` so far.
    pub(crate) fn inputs(&self, code: u32) -> Vec<Vec<u8>> {
        let state = self.state();
        state.seen.iter().filter(|(seen, _)| *seen == code).map(|(_, input)| input.clone()).collect()
    }

    /// Waits until there were `count` requests `code`.
    pub(crate) fn wait_for(&self, code: u32, count: usize) {
        let state = self.state();
        let few = |state: &mut State| state.seen.iter().filter(|(seen, _)| *seen == code).count() < count;
        let (_state, waited) =
            self.changed.wait_timeout_while(state, LIMIT, few).expect("no test panics with it");
        assert!(!waited.timed_out(), "{count} requests {code:#x} have not come");
    }
}

impl Device for Script {
    fn request(
        &self,
        code: u32,
        input: &[u8],
        output: &mut [u8],
        limit: WaitLimit,
    ) -> Result<usize, RequestError> {
        let end = match limit {
            WaitLimit::Short(limit) => Instant::now().checked_add(limit),
            WaitLimit::Until(end) => end,
        };
        let mut state = self.state();
        state.seen.push((code, input.to_vec()));
        self.changed.notify_all();
        loop {
            if state.stopped && matches!(limit, WaitLimit::Until(_)) {
                return Err(RequestError::Ended);
            }
            let queued = state.replies.get_mut(&code).and_then(VecDeque::pop_front);
            if let Some(reply) = queued.or_else(|| state.always.get(&code).cloned()) {
                return match reply {
                    Reply::Bytes(bytes) => {
                        output[..bytes.len()].copy_from_slice(&bytes);
                        Ok(bytes.len())
                    }
                    Reply::Code(code) => Err(RequestError::Code(code)),
                };
            }
            if end.is_some_and(|end| end <= Instant::now()) {
                return Err(RequestError::Ended);
            }
            let limit = end.map_or(LIMIT, |end| end.saturating_duration_since(Instant::now()));
            state = self.changed.wait_timeout(state, limit).expect("no test panics with it").0;
        }
    }

    fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }
}

pub(crate) fn status() -> Status {
    Status {
        phase: Phase::Listening,
        error: 0,
        local: "127.0.0.1:7007".parse().expect("an address"),
        accept_by: AcceptBy::Event,
        verdict_timeout: 30_000,
        limits: Limits::DEFAULT,
        counters: Counters { open: 3, ..Counters::default() },
    }
}

/// The output of a request for records.
pub(crate) fn records(lost: u64, records: &[Record]) -> Reply {
    let header =
        RecordsHeader { lost: U64::new(lost), count: U32::new(records.len() as u32), reserved: U32::ZERO };
    let mut bytes = header.as_bytes().to_vec();
    for (at, record) in records.iter().enumerate() {
        let timed = TimedRecord { time: Duration::from_millis(1500 + at as u64), record: *record };
        bytes.extend_from_slice(RecordBytes::from(&timed).as_bytes());
    }
    Reply::Bytes(bytes)
}

/// The output of a request for a question.
pub(crate) fn question(question: &Question) -> Reply {
    Reply::Bytes(QuestionBytes::from(question).as_bytes().to_vec())
}

/// Output and result of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) remarks: String,
    pub(crate) result: Result<(), Error>,
}

impl Ran {
    /// The error's line.
    pub(crate) fn error(&self) -> String {
        self.result.as_ref().expect_err("it should have failed").to_string()
    }

    /// The lines without their times, which are the first 11 letters.
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.out.lines().map(|line| &line[11..]).collect()
    }
}

/// Runs a command line to its end.
pub(crate) fn run(script: &Arc<Script>, words: &str, input: Option<Input>) -> Ran {
    run_on(script, words, input, &Screen::default(), &Screen::default())
}

/// A command that runs beside the test.
pub(crate) struct Running {
    pub(crate) out: Screen,
    pub(crate) remarks: Screen,
    thread: JoinHandle<Ran>,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(script: &Arc<Script>, words: &'static str, input: Option<Input>) -> Self {
        let (script, out, remarks) = (Arc::clone(script), Screen::default(), Screen::default());
        let thread = std::thread::spawn({
            let (out, remarks) = (out.clone(), remarks.clone());
            move || run_on(&script, words, input, &out, &remarks)
        });
        Self { out, remarks, thread }
    }

    /// Waits for its end.
    pub(crate) fn end(self) -> Ran {
        self.thread.join().expect("no panic")
    }
}

fn run_on(script: &Arc<Script>, words: &str, input: Option<Input>, out: &Screen, remarks: &Screen) -> Ran {
    let words = ["gatectl"].into_iter().chain(words.split_whitespace());
    let options = <gatectl::cli::Options as clap::Parser>::try_parse_from(words).expect("well formed");
    let device: Arc<dyn Device> = script.clone();
    let result = gatectl::run(
        &options.command,
        &device,
        &mut anstream::StripStream::new(Box::new(out.clone()) as Box<dyn Write>),
        &mut anstream::StripStream::new(Box::new(remarks.clone()) as Box<dyn Write>),
        || input.expect("the command asks for no input"),
    );
    Ran { out: out.text(), remarks: remarks.text(), result }
}

/// Input that a test writes while the command runs; dropping the sender ends it.
pub(crate) fn input(typed: bool) -> (Sender<&'static str>, Input) {
    struct Lines(Receiver<&'static str>);
    impl Read for Lines {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Ok(line) = self.0.recv() else { return Ok(0) };
            let mut room = buffer;
            writeln!(room, "{line}")?;
            Ok(line.len() + 1)
        }
    }
    let (sender, receiver) = channel();
    (sender, Input { lines: Box::new(BufReader::new(Lines(receiver))), typed })
}

/// Input that is all there.
pub(crate) fn text(lines: &'static str) -> Input {
    Input { lines: Box::new(lines.as_bytes()), typed: false }
}
