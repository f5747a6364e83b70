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
pub(crate) use place::capture as place;

/// A kernel's collection of violations.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    found: Mutex<Vec<Violation>>,
    omitted: AtomicUsize,
    omitted_advice: AtomicUsize,
}

impl Checker {
    /// A loop that breaks a rule does so very often; more than this tells no more. Advice counts for itself: it crowds out
    /// no violation.
    const MOST: usize = 1000;

    /// Records a violation and finds its place.
    #[cold]
    pub(crate) fn report(
        &self,
        severity: Severity,
        rule: &'static str,
        call: String,
        detail: String,
    ) -> Violation {
        let violation = Violation { severity, rule, call, detail, place: place() };
        let mut found = self.found.lock();
        if found.iter().filter(|known| known.severity == severity).count() < Self::MOST {
            found.push(violation.clone());
        } else {
            self.omitted(severity).fetch_add(1, Ordering::Relaxed);
        }
        violation
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.found.lock().clone()
    }

    /// How many of a severity were not kept.
    pub(crate) fn omitted(&self, severity: Severity) -> &AtomicUsize {
        match severity {
            Severity::Violation => &self.omitted,
            Severity::Advice => &self.omitted_advice,
        }
    }

    pub(crate) fn take(&self, rule: &str) -> Vec<Violation> {
        self.found.lock().extract_if(.., |violation| violation.rule == rule).collect()
    }
}
