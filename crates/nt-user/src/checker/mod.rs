//! The checker: what a kernel knows about the rules that were broken on it.
//!
//! [`violation`] is what it reports, `place` finds where, [`context`] knows in whose call a thread is, and
//! `panics` turns a panic that would cross the kernel boundary into a report.

pub(crate) mod argument;
pub mod context;
mod panics;
mod place;
pub mod violation;

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use violation::{Severity, Violation};

pub(crate) use panics::{halt, install as install_panic_hook, message as panic_message};
use place::Frames;
pub(crate) use place::capture as place;

/// What was reported, and for advice where, until somebody asks: a server that lives on is given advice now and then, and reading the
/// debug information takes tens of megabytes, which stay.
#[derive(Clone, Debug)]
struct Record {
    violation: Violation,
    frames: Option<Frames>,
}

impl Record {
    fn into_violation(self) -> Violation {
        let Self { mut violation, frames } = self;
        if let Some(frames) = frames {
            violation.place = frames.place();
        }
        violation
    }
}

/// A kernel's collection of violations.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    found: Mutex<Vec<Record>>,
    omitted: AtomicUsize,
    omitted_advice: AtomicUsize,
}

impl Checker {
    /// A loop that breaks a rule does so very often; more than this tells no more. Advice counts for itself: it crowds out
    /// no violation.
    const MOST: usize = 1000;

    /// Records a violation and finds its place; that of advice is found when it is asked for.
    #[cold]
    pub(crate) fn report(
        &self,
        severity: Severity,
        rule: &'static str,
        call: String,
        detail: String,
    ) -> Violation {
        let is_advice = severity == Severity::Advice;
        let place = if is_advice { String::new() } else { place() };
        let violation = Violation { severity, rule, call, detail, place };
        let frames = is_advice.then(Frames::capture);
        let mut found = self.found.lock();
        if found.iter().filter(|known| known.violation.severity == severity).count() < Self::MOST {
            found.push(Record { violation: violation.clone(), frames });
        } else {
            self.omitted(severity).fetch_add(1, Ordering::Relaxed);
        }
        violation
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        let found = self.found.lock().clone();
        found.into_iter().map(Record::into_violation).collect()
    }

    /// How many of a severity were not kept.
    pub(crate) fn omitted(&self, severity: Severity) -> &AtomicUsize {
        match severity {
            Severity::Violation => &self.omitted,
            Severity::Advice => &self.omitted_advice,
        }
    }

    pub(crate) fn take(&self, rule: &str) -> Vec<Violation> {
        let taken: Vec<_> = self.found.lock().extract_if(.., |found| found.violation.rule == rule).collect();
        taken.into_iter().map(Record::into_violation).collect()
    }
}
