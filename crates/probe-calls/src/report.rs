//! The report: one line for each call, even if its scene fails.

use wsk_sys::nt::NTSTATUS;

use crate::COLUMNS;
use crate::client::Client;
use crate::line::Line;
use crate::request::{Answer, Ended, Pending};
use crate::scenes::Scene;
use crate::socket::Socket;

/// A destination of lines.
pub trait Output {
    /// Takes a line, without its end. Called at `PASSIVE_LEVEL`.
    fn line(&mut self, line: &[u8]);
}

/// The report so far.
pub(crate) struct Report<'a> {
    output: &'a mut dyn Output,
    calls: &'static [(&'static str, &'static str)],
    /// One bit for each of `calls` that has its line.
    written: u32,
    lines: usize,
}

impl<'a> Report<'a> {
    pub(crate) fn new(output: &'a mut dyn Output, build: u32) -> Self {
        let mut head = Line::new();
        output.line(head.text("# wsk-probe build=").number(build as usize).bytes());
        output.line(COLUMNS.as_bytes());
        Self { output, calls: &[], written: 0, lines: 0 }
    }

    /// Runs a scene with its own client. Calls that were not made get a line with the reason.
    pub(crate) fn scene(&mut self, scene: &'static Scene) {
        (self.calls, self.written) = (scene.calls, 0);
        let ended = Client::new().and_then(|client| (scene.run)(self, &client));
        for (index, (call, _)) in scene.calls.iter().enumerate() {
            if self.written & (1 << index) == 0 {
                let mut why = Line::new();
                match ended {
                    Ok(()) => why.text("the scene ended before it"),
                    Err(status) => why.text("a step before it failed: ").status(status),
                };
                self.not_made(call, core::str::from_utf8(why.bytes()).unwrap_or_default());
            }
        }
    }

    pub(crate) fn end(&mut self) {
        let mut line = Line::new();
        self.output.line(line.text("# end ").number(self.lines).bytes());
    }

    /// Announces a call.
    pub(crate) fn begin(&mut self, call: &str) {
        let mut line = Line::new();
        self.output.line(line.text("# ").text(call).bytes());
    }

    /// Makes a call, waits for its end and writes its line. Returns the answer, and the socket if the call
    /// gave one.
    pub(crate) fn call<'c>(
        &mut self,
        call: &str,
        start: impl FnOnce() -> Result<Pending<'c>, NTSTATUS>,
    ) -> Result<(Answer, Option<Socket<'c>>), NTSTATUS> {
        self.begin(call);
        let (answer, socket) = start()?.settle();
        self.answer(call, &answer, "");
        Ok((answer, socket))
    }

    /// Writes the line of a call that was made.
    pub(crate) fn answer(&mut self, call: &str, answer: &Answer, note: &str) {
        let ended = match answer.ended {
            Ended::Completed => "yes",
            Ended::Cancelled => "cancelled",
            Ended::Untouched => "untouched",
            Ended::NoIrp => "no-irp",
        };
        let mut line = self.head(call);
        line.tab().status(answer.returned).tab().text(ended).tab();
        if matches!(answer.ended, Ended::Completed | Ended::Cancelled) {
            line.status(answer.status).tab();
            if answer.is_socket {
                line.text("socket");
            } else {
                line.number(answer.information);
            }
            line.tab().text(if answer.pending_returned { "1" } else { "0" });
            line.tab().number(usize::from(answer.irql)).tab();
        } else {
            line.text("-\t-\t-\t-\t");
        }
        self.write(call, line, note);
    }

    /// Writes the line of an observation of a callback.
    pub(crate) fn observed(&mut self, call: &str, irql: u8, note: &str) {
        let mut line = self.head(call);
        line.text("\t-\tevent\t-\t-\t-\t").number(usize::from(irql)).tab();
        self.write(call, line, note);
    }

    /// Writes the line of a call that could not be made.
    pub(crate) fn not_made(&mut self, call: &str, why: &str) {
        let mut line = self.head(call);
        line.text("\t-\tnot-made\t-\t-\t-\t-\t");
        self.write(call, line, why);
    }

    fn head(&self, call: &str) -> Line {
        let rules = self.calls.iter().find(|(name, _)| *name == call).map_or("-", |(_, rules)| rules);
        let mut line = Line::new();
        line.text(call).tab().text(rules);
        line
    }

    fn write(&mut self, call: &str, mut line: Line, note: &str) {
        line.text(if note.is_empty() { "-" } else { note });
        if let Some(index) = self.calls.iter().position(|(name, _)| *name == call) {
            self.written |= 1 << index;
        }
        self.lines += 1;
        self.output.line(line.bytes());
    }
}
