//! The dialogue of `gatectl ask`: the question that is held, and the reactions to events.
//!
//! ```text
//!            question                    answer, in time
//!   free ──────────────► asked ───────────────────────────────────► free
//!    ▲                     │  └─ answer, too late ─► late ──┐
//!    │                     │ lapsed (a record), or its time │ lapsed, or a moment
//!    └─────────────────────┴────────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anstyle::Style;
use gate_protocol::Answer;
use gate_protocol::record::RequestId;
use gate_protocol::text::{BAD, Columns, GOOD, WAITS};
use gate_protocol::wire::{Question, QuestionAnswer};
use serde::Serialize;

use super::input::{HELP, InputLine, parse_line};
use crate::cli::AskOptions;
use crate::driver::{AnswerOutcome, Driver};
use crate::error::{End, Error};
use crate::output;

/// Time that an expired question is held for the record that gives its outcome.
const GRACE: Duration = Duration::from_secs(1);

/// Time to wait for the record that says why an answer was too late.
const WHY: Duration = Duration::from_millis(250);

/// Time after the withdrawal of a question in which input may have been meant for that question.
const TOO_SOON: Duration = Duration::from_secs(1);

/// Number of withdrawals to remember, for questions that have not arrived here yet.
const LAPSES: usize = 256;

/// Source of answers.
#[derive(Debug)]
pub(super) enum Answers {
    /// There is one for all.
    Fixed(Answer),
    /// Someone types them, looking at the question.
    Typed,
    /// A program or a file gives them; they may come before their questions.
    Piped {
        /// Lines that wait for a question.
        lines: VecDeque<String>,
        /// No more come.
        ended: bool,
    },
}

impl Answers {
    pub(super) fn piped() -> Self {
        Self::Piped { lines: VecDeque::new(), ended: false }
    }
}

/// Reason that a question was withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reason {
    /// Its time was up: the answer is reject.
    TimedOut,
    /// Its client is gone.
    GivenUp,
    /// The driver does not say.
    Unknown,
    /// This program has ended: the answer is reject.
    Left,
}

/// The objects for programs.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Object<'a> {
    Question(&'a Question),
    Answer { number: u64, id: RequestId, action: Answer },
    Lapsed { number: u64, id: RequestId, reason: Reason },
}

/// A question that is held.
#[derive(Debug)]
struct Asked {
    question: Question,
    since: Instant,
    /// A bare answer that is typed before this may be for the question before.
    guarded: Option<Instant>,
    /// Time at which it has certainly expired.
    gone: Instant,
    /// An answer came too late.
    late: bool,
    /// The question that lapsed last had the same name, so that an answer by it may be for that one.
    namesake: bool,
}

/// Returns whether both name the same request. Identifiers are reused, so the addresses decide where they are
/// known.
fn same((id, remote): (RequestId, Option<SocketAddr>), this: (RequestId, SocketAddr)) -> bool {
    id == this.0 && remote.is_none_or(|remote| remote == this.1)
}

/// See the module.
pub(super) struct Dialogue<'a> {
    driver: &'a Driver,
    answers: Answers,
    wanted: Option<u64>,
    json: bool,
    out: &'a mut dyn Write,
    remarks: &'a mut dyn Write,
    start: Instant,
    asked: Option<Asked>,
    /// The next question has been sent for.
    fetching: bool,
    /// The question before has lapsed, and nothing was typed since.
    slipped: bool,
    lapses: VecDeque<(RequestId, Option<SocketAddr>, Reason)>,
    /// The last answered request: the record of that answer does not withdraw anything.
    done: Option<(RequestId, SocketAddr)>,
    /// The last request that was withdrawn while it was held.
    gone: Option<RequestId>,
    answered: u64,
}

type Flow = ControlFlow<End>;

impl<'a> Dialogue<'a> {
    pub(super) fn new(
        driver: &'a Driver,
        options: &AskOptions,
        answers: Answers,
        out: &'a mut dyn Write,
        remarks: &'a mut dyn Write,
    ) -> Self {
        Self {
            driver,
            answers,
            wanted: options.until.count,
            json: options.format.json,
            out,
            remarks,
            start: Instant::now(),
            asked: None,
            fetching: false,
            slipped: false,
            lapses: VecDeque::new(),
            done: None,
            gone: None,
            answered: 0,
        }
    }

    /// Prints the help for interactive input.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        if matches!(self.answers, Answers::Typed) {
            output::line(self.remarks, HELP)?;
        }
        Ok(())
    }

    /// Returns the number of questions that were answered in time.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// True once for each question that is to be fetched.
    pub(super) fn wants_question(&mut self) -> bool {
        let wants = self.asked.is_none() && !self.fetching;
        self.fetching |= wants;
        wants
    }

    /// Returns the time at which to call [`Dialogue::time`].
    pub(super) fn wake(&self) -> Option<Instant> {
        self.asked.as_ref().map(|asked| asked.gone)
    }

    /// A question has come.
    pub(super) fn question(&mut self, question: Question) -> Result<Flow, Error> {
        self.fetching = false;
        let since = Instant::now();
        let gone = since + Duration::from_millis(question.time_left.into()) + GRACE;
        let guarded = (self.slipped && matches!(self.answers, Answers::Typed)).then(|| since + TOO_SOON);
        let namesake = self.gone == Some(question.id);
        self.asked = Some(Asked { question, since, guarded, gone, late: false, namesake });
        let fixed = matches!(self.answers, Answers::Fixed(_));
        if self.json {
            output::json(self.out, &Object::Question(&question))?;
        } else if !fixed {
            let Question { id, time_left, .. } = question;
            let seconds = f64::from(time_left) / 1000.0;
            let how = format_args!("request {id}, {seconds:.1} s left: a or r?");
            self.line_of("question", WAITS, &question, how)?;
        }
        let this = (question.id, question.remote);
        if let Some(at) = self.lapses.iter().position(|(id, remote, _)| same((*id, *remote), this))
            && let Some((_, _, reason)) = self.lapses.remove(at)
        {
            return self.withdraw(reason);
        }
        self.reply()
    }

    /// A request, from there if that is known, does not wait any more.
    pub(super) fn withdrawn(
        &mut self,
        id: RequestId,
        remote: Option<SocketAddr>,
        reason: Reason,
    ) -> Result<Flow, Error> {
        let held = self.asked.as_ref().map(|asked| (asked.question.id, asked.question.remote));
        if held.is_some_and(|held| same((id, remote), held)) {
            return self.withdraw(reason);
        }
        if !self.done.is_some_and(|done| same((id, remote), done)) {
            self.lapses.truncate(LAPSES - 1);
            self.lapses.push_front((id, remote, reason));
        }
        Ok(Flow::Continue(()))
    }

    /// The time of [`Dialogue::wake`] has come.
    pub(super) fn time(&mut self) -> Result<Flow, Error> {
        let now = Instant::now();
        match &self.asked {
            Some(asked) if asked.gone <= now => {
                let left = Duration::from_millis(asked.question.time_left.into());
                let up = asked.since + left <= now;
                self.withdraw(if up { Reason::TimedOut } else { Reason::Unknown })
            }
            _ => Ok(Flow::Continue(())),
        }
    }

    /// A line has come.
    pub(super) fn line(&mut self, line: String) -> Result<Flow, Error> {
        match &mut self.answers {
            Answers::Piped { lines, .. } => {
                lines.push_back(line);
                self.reply()
            }
            _ => self.handle_line(&line),
        }
    }

    /// No more lines come.
    pub(super) fn input_end(&mut self) -> Flow {
        match &mut self.answers {
            Answers::Piped { ended, .. } => {
                *ended = true;
                self.end_if_done()
            }
            _ => Flow::Break(End::Input),
        }
    }

    /// The end: what is held stays unanswered.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        let late = self.asked.as_ref().is_some_and(|asked| asked.late);
        self.withdraw(if late { Reason::Unknown } else { Reason::Left }).map(drop)
    }

    /// Handles the lines that have arrived: answers wait for a question.
    fn reply(&mut self) -> Result<Flow, Error> {
        loop {
            let waits = self.asked.as_ref().is_some_and(|asked| !asked.late);
            let line = match &mut self.answers {
                Answers::Fixed(answer) if waits => {
                    let answer = *answer;
                    return self.answer(answer);
                }
                Answers::Fixed(_) | Answers::Typed => return Ok(Flow::Continue(())),
                Answers::Piped { lines, .. } => match lines.front() {
                    Some(line) if !waits && matches!(parse_line(line), InputLine::Answer(..)) => {
                        return Ok(Flow::Continue(()));
                    }
                    Some(_) => lines.pop_front().unwrap_or_default(),
                    None => return Ok(self.end_if_done()),
                },
            };
            let flow = self.handle_line(&line)?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
    }

    /// Once the last line is used, nothing can be answered any more. Why it was too late can still be told.
    fn end_if_done(&self) -> Flow {
        let late = self.asked.as_ref().is_some_and(|asked| asked.late);
        match &self.answers {
            Answers::Piped { lines, ended: true } if lines.is_empty() && !late => Flow::Break(End::Input),
            _ => Flow::Continue(()),
        }
    }

    /// Handles a line.
    fn handle_line(&mut self, line: &str) -> Result<Flow, Error> {
        let (answer, name) = match parse_line(line) {
            InputLine::Answer(answer, name) => (answer, name),
            InputLine::Quit => return Ok(Flow::Break(End::Input)),
            InputLine::Empty => return Ok(Flow::Continue(())),
            InputLine::Unknown => return self.notice(&HELP),
        };
        let slipped = std::mem::take(&mut self.slipped);
        let held = self.asked.as_mut().filter(|asked| !asked.late);
        match (held, name) {
            (Some(asked), Some(name)) if asked.question.number.to_string() == name => self.answer(answer),
            (Some(asked), Some(name)) if asked.question.id.to_string() == name => {
                if !asked.namesake {
                    return self.answer(answer);
                }
                let number = asked.question.number;
                self.notice(&format_args!(
                    "the previous question had the same name: answer by number, {number}"
                ))
            }
            (_, Some(name)) => self.notice(&format_args!("no pending question for request {name}")),
            (None, None) if slipped => self.notice(&"too late: the question was withdrawn"),
            (None, None) => self.notice(&"no pending question"),
            (Some(Asked { guarded: Some(until), question, .. }), None) if Instant::now() < *until => {
                let id = question.id;
                self.notice(&format_args!(
                    "that may have been for the previous question: answer again for request {id}"
                ))
            }
            (Some(_), None) => self.answer(answer),
        }
    }

    fn answer(&mut self, answer: Answer) -> Result<Flow, Error> {
        let Some(Asked { question, .. }) = &self.asked else { return Ok(Flow::Continue(())) };
        let question = *question;
        match self.driver.answer(QuestionAnswer { number: question.number, answer })? {
            AnswerOutcome::InTime => {
                self.asked = None;
                self.done = Some((question.id, question.remote));
                self.answered += 1;
                let Question { number, id, .. } = question;
                if self.json {
                    output::json(self.out, &Object::Answer { number, id, action: answer })?;
                } else {
                    let style = if answer == Answer::Accept { GOOD } else { BAD };
                    self.line_of("answer", style, &question, format_args!("{answer}, request {id}"))?;
                }
                let enough = self.wanted.is_some_and(|wanted| self.answered >= wanted);
                Ok(if enough { Flow::Break(End::Count) } else { self.end_if_done() })
            }
            AnswerOutcome::TooLate => {
                if let Some(asked) = &mut self.asked {
                    asked.late = true;
                    asked.gone = Instant::now() + WHY;
                }
                Ok(Flow::Continue(()))
            }
        }
    }

    /// The question that is held is no question any more.
    fn withdraw(&mut self, reason: Reason) -> Result<Flow, Error> {
        let Some(Asked { question, late, .. }) = self.asked.take() else { return Ok(Flow::Continue(())) };
        self.slipped = !late;
        self.gone = Some(question.id);
        let Question { number, id, .. } = question;
        if self.json {
            output::json(self.out, &Object::Lapsed { number, id, reason })?;
        } else {
            let why = match reason {
                Reason::TimedOut => "timed out: rejected",
                Reason::GivenUp => "withdrawn by the client",
                Reason::Unknown => "withdrawn before it was answered",
                Reason::Left => "left unanswered, so rejected",
            };
            self.line_of("lapsed", BAD, &question, format_args!("{why}, request {id}"))?;
        }
        Ok(self.end_if_done())
    }

    fn line_of(
        &mut self,
        what: &str,
        style: Style,
        question: &Question,
        how: std::fmt::Arguments<'_>,
    ) -> Result<(), Error> {
        let time = self.start.elapsed();
        Ok(output::line(self.out, Columns { time, style, what, who: &question.remote, how })?)
    }

    fn notice(&mut self, notice: &dyn std::fmt::Display) -> Result<Flow, Error> {
        output::line(self.remarks, notice)?;
        Ok(Flow::Continue(()))
    }
}
