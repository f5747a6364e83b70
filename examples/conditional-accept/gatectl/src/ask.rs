//! `gatectl ask`: answers the driver's questions, all with one answer or each with interactive input.
//!
//! ```text
//!   thread: next question ──┐
//!   thread: records ────────┼─► inbox ─► dialogue ─► answer, lines of output
//!   thread: input lines ────┘      ▲         │
//!                                  └─ time ──┘ wants the next question
//! ```
//!
//! One question is held at a time: the others stay with the driver, for other programs that answer. The
//! records tell when the question that is held has lapsed, while a person still thinks about it. Identifiers
//! of requests are used again, so a record is that of a question only if both have the same address, too.

mod dialogue;
mod input;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use gate_protocol::Answer;
use gate_protocol::record::{Inspection, Record, RequestId};
use gate_protocol::wire::Question;

use crate::Input;
use crate::ask::dialogue::{Answers, Dialogue, Reason};
use crate::cli::AskOptions;
use crate::driver::Driver;
use crate::error::{End, Error};

/// Limit on fetches of old records: a driver keeps about a thousand and returns some dozens at once.
const MOST_OLD: usize = 64;

/// Input of the dialogue.
#[derive(Debug)]
enum Event {
    /// A question has come.
    Question(Question),
    /// A request, from there if that is known, does not wait for its answer any more.
    Lapsed(RequestId, Option<SocketAddr>, Reason),
    /// A line was typed.
    Line(String),
    /// There are no more of them.
    InputEnd,
    /// No more questions come: the time is up, or this was stopped.
    Ended,
    /// The driver refuses, or the input cannot be read.
    Failed(Error),
}

/// Answers questions until as many are answered as were asked for, the time is up, or the input ends. Without
/// `input`, the options have the answer.
pub fn ask(
    driver: &Driver,
    options: &AskOptions,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
    input: Option<Input>,
) -> Result<(), Error> {
    let until = options.until;
    let end = until.end();
    let (events, inbox) = channel();
    let (next, wanted) = channel();
    let answers = match (options.verdict, &input) {
        (Some(answer), _) => Answers::Fixed(answer),
        (None, Some(Input { typed: true, .. })) => Answers::Typed,
        (None, _) => Answers::piped(),
    };
    if let Some(Input { lines, .. }) = input {
        let events = events.clone();
        // Nothing can end the wait for a line, so this thread is not joined.
        thread::spawn(move || read_lines(lines, &events));
    }
    let mut requests = Requests::default();
    skip_records(driver, &mut requests)?;
    let mut dialogue = Dialogue::new(driver, options, answers, out, remarks);
    dialogue.begin()?;
    let (ended, found) = thread::scope(|scope| {
        let (lapses, questions) = (events.clone(), events);
        scope.spawn(move || follow_records(driver, requests, &lapses));
        scope.spawn(move || fetch_questions(driver, end, &wanted, &questions));
        let ended = run(&mut dialogue, &inbox, &next, end);
        let left = dialogue.finish();
        driver.stop();
        drop(next);
        (ended.and_then(|end| left.map(|()| end)), dialogue.answered())
    });
    match (ended?, until.count) {
        (end, Some(wanted)) if found < wanted => {
            Err(Error::Incomplete { found, wanted, what: "questions were answered", end })
        }
        _ => Ok(()),
    }
}

/// Tells the dialogue what happens, until one of them ends it.
fn run(
    dialogue: &mut Dialogue<'_>,
    inbox: &Receiver<Event>,
    next: &Sender<()>,
    end: Option<Instant>,
) -> Result<End, Error> {
    loop {
        // Events may come faster than they are dealt with: the time is up all the same.
        if end.is_some_and(|end| end <= Instant::now()) {
            return Ok(End::Time);
        }
        if dialogue.wants_question() {
            // Without a receiver its thread has ended, and has said why.
            let _ = next.send(());
        }
        let wake = dialogue.wake().into_iter().chain(end).min();
        let event = match wake {
            Some(at) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let flow = match event {
            Ok(Event::Question(question)) => dialogue.question(question)?,
            Ok(Event::Lapsed(id, remote, reason)) => dialogue.withdrawn(id, remote, reason)?,
            Ok(Event::Line(line)) => dialogue.line(line)?,
            Ok(Event::InputEnd) => dialogue.input_end(),
            Ok(Event::Failed(error)) => return Err(error),
            Ok(Event::Ended) | Err(_) if end.is_some_and(|end| end <= Instant::now()) => {
                return Ok(End::Time);
            }
            Err(RecvTimeoutError::Timeout) => dialogue.time()?,
            Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => return Ok(End::Stopped),
        };
        if let ControlFlow::Break(end) = flow {
            return Ok(end);
        }
    }
}

/// Fetches a question whenever one is wanted.
fn fetch_questions(driver: &Driver, end: Option<Instant>, wanted: &Receiver<()>, events: &Sender<Event>) {
    while wanted.recv().is_ok() {
        let event = match driver.question(end) {
            Ok(Some(question)) => Event::Question(question),
            Ok(None) => Event::Ended,
            Err(error) => Event::Failed(error),
        };
        let last = !matches!(event, Event::Question(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
}

/// Addresses of the requests that records may still mention.
#[derive(Debug, Default)]
struct Requests(HashMap<RequestId, SocketAddr>);

impl Requests {
    /// Returns the question that a record withdraws, and the reason.
    fn withdraw(&mut self, record: Record) -> Option<(RequestId, Option<SocketAddr>, Reason)> {
        match record {
            Record::Inspect { id, remote, action: Inspection::Pend, .. } => {
                self.0.insert(id, remote);
                None
            }
            Record::Abort { id } => Some((id, self.0.remove(&id), Reason::GivenUp)),
            Record::Verdict { id, action: Answer::Reject } => {
                Some((id, self.0.remove(&id), Reason::TimedOut))
            }
            // It may be given up after it was accepted, and before this.
            Record::Accepted { remote, .. } => {
                self.0.retain(|_, known| *known != remote);
                None
            }
            _ => None,
        }
    }
}

/// Skips the records of what was before, but for where it came from: a handle's first come from the past.
fn skip_records(driver: &Driver, requests: &mut Requests) -> Result<(), Error> {
    let mut buffer = Vec::new();
    // Where records come faster than they are fetched, some of them are from now on, and are as good.
    for _ in 0..MOST_OLD {
        let Some(records) = driver.records(&mut buffer, Some(Instant::now()))? else { break };
        for timed in records.iter().flatten() {
            let _ = requests.withdraw(timed.record);
        }
    }
    Ok(())
}

/// Follows the records for requests that need no answer any more. [`Driver::stop`] ends it.
fn follow_records(driver: &Driver, mut requests: Requests, events: &Sender<Event>) {
    let mut buffer = Vec::new();
    loop {
        let records = match driver.records(&mut buffer, None) {
            Ok(Some(records)) => records,
            Ok(None) => {
                // A dialogue that has ended needs no telling.
                let _ = events.send(Event::Ended);
                return;
            }
            Err(error) => {
                let _ = events.send(Event::Failed(error));
                return;
            }
        };
        for timed in records.iter().flatten() {
            let Some((id, remote, reason)) = requests.withdraw(timed.record) else { continue };
            if events.send(Event::Lapsed(id, remote, reason)).is_err() {
                return;
            }
        }
    }
}

/// Reads lines until there are none.
fn read_lines(lines: Box<dyn BufRead + Send>, events: &Sender<Event>) {
    for line in lines.lines() {
        let event = match line {
            Ok(line) => Event::Line(line),
            Err(source) => Event::Failed(Error::Local { doing: "read the answers", source }),
        };
        let last = matches!(event, Event::Failed(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
    // A dialogue that has ended needs no telling.
    let _ = events.send(Event::InputEnd);
}
