//! The checker: collects the broken rules of a kernel.
//!
//! [`violation`] defines the reports, `location` finds source locations, [`context`] tracks the call stack of
//! a thread, and `panics` turns a panic that would cross the kernel boundary into a report.

pub(crate) mod argument;
pub mod context;
mod location;
mod panics;
pub mod violation;

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use violation::{Severity, Violation};

use location::Frames;
pub(crate) use location::capture as location;
pub(crate) use panics::{halt, install as install_panic_hook, message as panic_message};

/// A report. The frames of advice are symbolized on request only: a long-lived server gets advice now and
/// then, and reading the debug information takes tens of megabytes that are not freed.
#[derive(Clone, Debug)]
struct Record {
    violation: Violation,
    frames: Option<Frames>,
}

impl Record {
    fn into_violation(self) -> Violation {
        let Self { mut violation, frames } = self;
        if let Some(frames) = frames {
            violation.location = frames.location();
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
    /// The most reports kept of one severity: a loop that breaks a rule does so very often. Advice has its
    /// own limit, so that it does not crowd out violations.
    const MAX_KEPT: usize = 1000;

    /// Records a violation with its location; the location of advice is found on request.
    #[cold]
    pub(crate) fn report(
        &self,
        severity: Severity,
        rule: &'static str,
        call: String,
        detail: String,
    ) -> Violation {
        let is_advice = severity == Severity::Advice;
        let location = if is_advice { String::new() } else { location() };
        let violation = Violation { severity, rule, call, detail, location };
        let frames = is_advice.then(Frames::capture);
        let mut found = self.found.lock();
        if found.iter().filter(|known| known.violation.severity == severity).count() < Self::MAX_KEPT {
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

    /// The number of reports of a severity that were not kept.
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
