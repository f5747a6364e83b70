//! The journal: reports about the image and its clients, in lines for people and for programs.
//!
//! Each line begins with `netio:` and a word for its kind:
//!
//! ```text
//! netio: loaded: callbacks=dispatch completions=dispatch completion=natural
//! netio: replaced: IoSetCompletionRoutineEx, of which this kernel has a stub
//! netio: start 2
//! netio: violation REG-25 WskDeregister: called inside WskReceiveEvent
//! netio: advice IRP-14 WskSend: a completion routine was entered 2 deep
//! netio: waiting WskDeregister: 1 socket is open: a listening socket, live
//! netio: error WskRegister: the network cannot be used: …
//! netio: violation REG-27 DriverUnload: echo.sys is unloaded with objects left at WSK: 1 registration
//! netio: deregistered: clients=0 sockets=0 violations=1 advice=1
//! netio: stop 2: violations=1 advice=1
//! ```
//! Counts start at the load of the image.

use std::collections::HashMap;
use std::fmt;

use parking_lot::Mutex;
use wsk_provider::{Report, Severity};

/// The most reports of one rule and call that are written; further ones are only counted, so that a client in
/// a loop cannot fill the disk.
const WRITTEN: u64 = 20;

/// A destination of lines.
pub trait Output: Send + Sync {
    /// Takes one line, without its end.
    fn line(&self, line: &str);
}

/// The journal.
#[derive(Default)]
pub struct Journal {
    outputs: Vec<Box<dyn Output>>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    violations: u64,
    advice: u64,
    /// Of each rule and call.
    each: HashMap<(&'static str, &'static str), u64>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Journal {
    /// A journal that is written to all of `outputs`.
    pub fn new(outputs: Vec<Box<dyn Output>>) -> Self {
        Self { outputs, ..Self::default() }
    }

    /// Writes a line.
    pub fn line(&self, text: &str) {
        let line: String = format!("netio: {text}").replace(char::is_control, " ");
        for output in &self.outputs {
            output.line(&line);
        }
    }

    /// Counts and writes a report.
    pub fn report(&self, report: &Report) {
        let mut counts = self.counts.lock();
        let (count, kind) = match report.severity {
            Severity::Violation => (&mut counts.violations, "violation"),
            Severity::Advice => (&mut counts.advice, "advice"),
        };
        *count += 1;
        let alike = counts.each.entry((report.rule, report.call)).or_default();
        *alike += 1;
        let alike = *alike;
        drop(counts);
        let Report { rule, call, detail, .. } = report;
        if alike <= WRITTEN {
            self.line(&format!("{kind} {rule} {call}: {detail}"));
        }
        if alike == WRITTEN {
            self.line(&format!("{kind} {rule} {call}: further reports of this kind are only counted"));
        }
    }

    /// The counts so far, as they stand in lines.
    pub fn counts(&self) -> String {
        let counts = self.counts.lock();
        format!("violations={} advice={}", counts.violations, counts.advice)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct MemoryOutput(Mutex<Vec<String>>);

    impl Output for Arc<MemoryOutput> {
        fn line(&self, line: &str) {
            self.0.lock().push(line.to_owned());
        }
    }

    fn journal() -> (Journal, Arc<MemoryOutput>) {
        let kept = Arc::<MemoryOutput>::default();
        (Journal::new(vec![Box::new(Arc::clone(&kept))]), kept)
    }

    fn report(severity: Severity) -> Report {
        Report { rule: "REG-25", severity, call: "WskDeregister", detail: "called\nwrongly".to_owned() }
    }

    #[test]
    fn a_report_is_one_line() {
        let (journal, kept) = journal();
        journal.report(&report(Severity::Violation));
        journal.report(&report(Severity::Advice));
        assert_eq!(
            *kept.0.lock(),
            [
                "netio: violation REG-25 WskDeregister: called wrongly",
                "netio: advice REG-25 WskDeregister: called wrongly",
            ]
        );
        assert_eq!(journal.counts(), "violations=1 advice=1");
    }

    #[test]
    fn a_flood_is_counted_and_not_written() {
        let (journal, kept) = journal();
        for _ in 0..WRITTEN + 100 {
            journal.report(&report(Severity::Violation));
        }
        assert_eq!(kept.0.lock().len() as u64, WRITTEN + 1, "and one for the limit");
        assert_eq!(journal.counts(), format!("violations={} advice=0", WRITTEN + 100));
    }
}
