//! What is said at the end of a run.

use std::fmt;

use nt_user::{LeakReport, Violation};

/// The end of a run.
#[derive(Clone, Debug)]
#[must_use]
pub struct Report {
    /// Rules that were broken and were not expected to be.
    pub violations: Vec<Violation>,
    /// Rules that were broken as expected.
    pub expected: Vec<Violation>,
    /// What is legal, but unwise.
    pub advice: Vec<Violation>,
    /// Expected rules that nobody broke.
    pub missing: Vec<&'static str>,
    /// What was left behind.
    pub leaks: LeakReport,
}

impl Report {
    /// Whether everything was as it should be. Advice does not count.
    pub fn is_clean(&self) -> bool {
        let stopped_as_expected =
            self.leaks.stopped.as_ref().is_some_and(|stop| self.expected.contains(stop));
        let leaks = stopped_as_expected || self.leaks.is_clean();
        self.violations.is_empty() && self.missing.is_empty() && leaks
    }

    /// # Panics
    /// If something was not as it should be; the message is the report.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in self.violations.iter().chain(&self.advice) {
            writeln!(f, "{violation}")?;
        }
        for rule in &self.missing {
            writeln!(f, "{rule} should have been broken, and was not")?;
        }
        if !self.leaks.is_clean() {
            writeln!(f, "left behind:\n{}", self.leaks)?;
        }
        if self.is_clean() {
            writeln!(f, "no violations, no leaks")?;
        }
        Ok(())
    }
}
