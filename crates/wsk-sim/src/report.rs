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
    /// What is legal, but unwise, and was not expected.
    pub advice: Vec<Violation>,
    /// Whether advice counts; see [`Sim::forbid_advice`](crate::Sim::forbid_advice).
    pub advice_counts: bool,
    /// Expected rules that nobody broke, and expected advice that nobody needed.
    pub missing: Vec<&'static str>,
    /// How much more was reported than the checker keeps. Nobody knows what it was, so it is taken for the worst.
    pub omitted: usize,
    /// What was left behind.
    pub leaks: LeakReport,
}

impl Report {
    /// Whether everything was as it should be. Advice does not count, unless it was forbidden.
    pub fn is_clean(&self) -> bool {
        let stopped_as_expected =
            self.leaks.stopped.as_ref().is_some_and(|stop| self.expected.contains(stop));
        let leaks = stopped_as_expected || self.leaks.is_clean();
        let advised = self.advice_counts && !self.advice.is_empty();
        self.violations.is_empty() && self.missing.is_empty() && self.omitted == 0 && leaks && !advised
    }

    /// Prints the unexpected advice, the same one once.
    pub(crate) fn print_advice(&self) {
        let mut seen: Vec<(&Violation, usize)> = Vec::new();
        for advice in &self.advice {
            match seen.iter_mut().find(|(known, _)| *known == advice) {
                Some((_, times)) => *times += 1,
                None => seen.push((advice, 1)),
            }
        }
        for (advice, times) in seen {
            eprintln!("{advice}\n    ({times} times)");
        }
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
        if self.omitted != 0 {
            writeln!(f, "{} more that were not kept", self.omitted)?;
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
