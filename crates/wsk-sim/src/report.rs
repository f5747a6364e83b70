//! The report at the end of a run.

use std::fmt;

use nt_user::{LeakReport, Violation};

/// Result of a run.
#[derive(Clone, Debug)]
#[must_use]
pub struct Report {
    /// Unexpected violations.
    pub violations: Vec<Violation>,
    /// Expected violations and advice.
    pub expected: Vec<Violation>,
    /// Unexpected advice.
    pub advice: Vec<Violation>,
    /// True if unexpected advice fails the run; see [`Sim::forbid_advice`](crate::Sim::forbid_advice).
    pub advice_counts: bool,
    /// Expected rules that were not reported.
    pub missing: Vec<&'static str>,
    /// The number of reports beyond those that the checker keeps. They count as unexpected violations.
    pub omitted: usize,
    /// Resources that were left behind.
    pub leaks: LeakReport,
}

impl Report {
    /// Returns true if there were no unexpected reports and no leaks. Advice does not count, unless it was
    /// forbidden.
    pub fn is_clean(&self) -> bool {
        let stopped_as_expected =
            self.leaks.stopped.as_ref().is_some_and(|stop| self.expected.contains(stop));
        let leaks = stopped_as_expected || self.leaks.is_clean();
        let advised = self.advice_counts && !self.advice.is_empty();
        self.violations.is_empty() && self.missing.is_empty() && self.omitted == 0 && leaks && !advised
    }

    /// Prints the unexpected advice, without repetitions.
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
    /// If the report is not clean; the message is the report.
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
            writeln!(f, "{rule} was expected but not reported")?;
        }
        if self.omitted != 0 {
            writeln!(f, "{} more reports that were not kept", self.omitted)?;
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
