//! Output of a Rust test program.
//!
//! ```text
//!  test memory::a_block ... ok
//!  test listed - should panic ... ok
//!  test slow ... ignored, takes an hour
//!  test result: FAILED. 12 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.61s
//! ```

/// The tests of a program by what came of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) passed: Vec<String>,
    pub(super) failed: Vec<String>,
    /// With the reason, where there is one.
    pub(super) ignored: Vec<String>,
    /// The result was printed, and counts as many as were read.
    pub(super) complete: bool,
}

impl Outcomes {
    /// Reads what a program has printed.
    pub(super) fn read(printed: &str) -> Self {
        let mut outcomes = Self::default();
        for line in printed.lines() {
            let Some(line) = line.strip_prefix("test ") else { continue };
            if let Some(result) = line.strip_prefix("result: ") {
                outcomes.complete = outcomes.counts_are_in(result);
            } else if let Some((test, outcome)) = line.split_once(" ... ") {
                let test = bare(test);
                // What a test prints past the capture may stand between the name and its outcome.
                if outcome.ends_with("ok") {
                    outcomes.passed.push(test.to_owned());
                } else if outcome.ends_with("FAILED") {
                    outcomes.failed.push(test.to_owned());
                } else if let Some(reason) = outcome.strip_prefix("ignored") {
                    outcomes.ignored.push(format!("{test}{reason}"));
                }
            }
        }
        outcomes
    }

    /// Returns whether these are the numbers that were read.
    fn counts_are_in(&self, result: &str) -> bool {
        let count = |of: &str| {
            let part = result.split([';', '.']).find_map(|part| part.trim().strip_suffix(of));
            part.and_then(|number| number.trim().parse::<usize>().ok())
        };
        [(" passed", &self.passed), (" failed", &self.failed), (" ignored", &self.ignored)]
            .iter()
            .all(|(of, tests)| count(of) == Some(tests.len()))
    }
}

/// The tests in a list that a program has printed.
pub(super) fn listed(printed: &str) -> impl Iterator<Item = &str> {
    printed.lines().filter_map(|line| line.trim_end().strip_suffix(": test"))
}

/// A test's name without the remark that it is to panic.
fn bare(test: &str) -> &str {
    test.strip_suffix(" - should panic").unwrap_or(test)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\nrunning 4 tests\ntest a::one ... ok\ntest two - should panic ... ok\r\n\
        test three ... FAILED\ntest four ... ignored, takes an hour\n\nfailures:\n\n---- three stdout ----\n\
        test me ... not\n\nfailures:\n    three\n\n\
        test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; \
        0 filtered out; finished in 0.01s\n\n";

    #[test]
    fn tests_are_told_by_their_outcome() {
        let outcomes = Outcomes::read(PRINTED);
        assert_eq!(outcomes.passed, ["a::one", "two"]);
        assert_eq!(outcomes.failed, ["three"]);
        assert_eq!(outcomes.ignored, ["four, takes an hour"]);
        assert!(outcomes.complete);
    }

    #[test]
    fn a_program_that_did_not_come_to_its_end_has_no_result() {
        let (begun, _) = PRINTED.split_once("\n\nfailures").unwrap();
        assert!(!Outcomes::read(begun).complete);
        let lost = PRINTED.replace("test a::one ... ok\n", "");
        assert!(!Outcomes::read(&lost).complete, "a line that was not understood is noticed");
        assert!(!Outcomes::read("").complete);
    }

    #[test]
    fn the_list_has_tests_alone() {
        let list = "a::one: test\r\ntwo: test\nspeed: benchmark\n\n2 tests, 1 benchmark\n";
        assert_eq!(listed(list).collect::<Vec<_>>(), ["a::one", "two"]);
    }
}
