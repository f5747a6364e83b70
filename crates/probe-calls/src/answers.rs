//! Reading the lines, and comparing them with the answers that are expected.
//!
//! An *answer* consists of the parts of a line that must be the same on two runs of one system, joined by
//! `+`: the status of the completed IRP or of the call without one, `cancelled` or `untouched`, the
//! `Information` unless it is zero, and the first word of the note. It does not include the IRQL, nor whether
//! the call completed before it returned.

extern crate alloc;

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::COLUMNS;

/// The lines of one run.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The build of the system, zero if it has none.
    pub build: u32,
    /// The calls, in order.
    pub rows: Vec<Row>,
    /// The last announced call, if the list is incomplete.
    pub broken_off: Option<String>,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub call: String,
    /// The rules it bears on.
    pub rules: Vec<String>,
    /// The answer, or the reason why there is none.
    pub answer: Result<String, String>,
}

impl Answers {
    /// Reads the text of a file that the probe wrote.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate();
        let head = lines.next().map_or("", |(_, line)| line);
        let build = head.strip_prefix("# wsk-probe build=").and_then(|build| build.parse().ok());
        let build = build.ok_or("line 1: this is not a file of the probe: there is no build")?;
        if lines.next().map(|(_, line)| line) != Some(COLUMNS) {
            return Err(format!("line 2: expected the columns {COLUMNS:?}"));
        }
        let mut answers =
            Self { build, rows: Vec::new(), broken_off: Some("(before the first call)".to_owned()) };
        for (index, line) in lines {
            let number = index + 1;
            if let Some(count) = line.strip_prefix("# end ") {
                if count.parse() != Ok(answers.rows.len()) {
                    return Err(format!(
                        "line {number}: {count} calls are announced, but there are {}",
                        answers.rows.len()
                    ));
                }
                answers.broken_off = None;
            } else if let Some(call) = line.strip_prefix("# ") {
                answers.broken_off = Some(call.to_owned());
            } else {
                let row = Row::parse(line).map_err(|error| format!("line {number}: {error}"))?;
                if answers.rows.iter().any(|other| other.call == row.call) {
                    return Err(format!("line {number}: {} is there already", row.call));
                }
                answers.rows.push(row);
            }
        }
        Ok(answers)
    }
}

impl Row {
    fn parse(line: &str) -> Result<Self, String> {
        let columns: Vec<&str> = line.split('\t').collect();
        let [call, rules, returned, completed, status, information, _pended, _irql, note] = columns[..]
        else {
            return Err(format!("expected 9 columns separated by tabs, found {}", columns.len()));
        };
        let note = note.split(' ').next().unwrap_or_default();
        let parts = match completed {
            "yes" => [status, "-", information, note],
            "cancelled" => [status, "cancelled", information, note],
            "untouched" => [returned, "untouched", "-", note],
            "no-irp" => [returned, "-", "-", note],
            "event" => ["-", "-", "-", note],
            "not-made" => {
                let why = columns.last().copied().unwrap_or_default();
                return Ok(Self { call: call.to_owned(), rules: listed(rules), answer: Err(why.to_owned()) });
            }
            _ => return Err(format!("{call} is {completed:?}, which no call is")),
        };
        let parts: Vec<&str> = parts.into_iter().filter(|part| !matches!(*part, "-" | "0" | "")).collect();
        Ok(Self { call: call.to_owned(), rules: listed(rules), answer: Ok(parts.join("+")) })
    }
}

fn listed(rules: &str) -> Vec<String> {
    rules.split(',').filter(|rule| *rule != "-").map(str::to_owned).collect()
}

/// The expected answers of a system: `call`, `rules`, `answer`, with `|` between equally valid answers.
#[derive(Clone, Debug)]
pub struct Expected {
    rows: Vec<(Row, Vec<String>)>,
}

impl Expected {
    const HEADER: &str = "call\trules\tanswer";

    /// Reads a file of expected answers.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate();
        if lines.next().map(|(_, line)| line) != Some(Self::HEADER) {
            return Err(format!("line 1: expected the header {:?}", Self::HEADER));
        }
        let mut rows = Vec::new();
        for (index, line) in lines {
            let [call, rules, answer] = line.split('\t').collect::<Vec<_>>()[..] else {
                return Err(format!("line {}: expected 3 columns separated by tabs", index + 1));
            };
            let row = Row { call: call.to_owned(), rules: listed(rules), answer: Ok(answer.to_owned()) };
            rows.push((row, answer.split('|').map(str::to_owned).collect()));
        }
        Ok(Self { rows })
    }

    /// The calls with their equally valid answers.
    pub fn rows(&self) -> impl Iterator<Item = (&Row, &[String])> {
        self.rows.iter().map(|(row, answers)| (row, &**answers))
    }

    /// Returns true if a call is answered as expected.
    pub fn agrees(&self, call: &str, answer: &str) -> bool {
        self.rows().any(|(row, answers)| row.call == call && answers.iter().any(|one| one == answer))
    }

    /// Returns the differences, one line for each call.
    pub fn differences(&self, found: &Answers) -> Vec<String> {
        let mut differences = Vec::new();
        for row in &found.rows {
            let Some((expected, answers)) = self.rows().find(|(expected, _)| expected.call == row.call)
            else {
                differences.push(format!("{}: not among the expected calls", row.call));
                continue;
            };
            match &row.answer {
                Ok(answer) if answers.contains(answer) => {}
                Ok(answer) => {
                    differences.push(format!("{}: {answer} instead of {}", row.call, answers.join("|")));
                }
                Err(why) => differences.push(format!("{}: not made: {why}", row.call)),
            }
            if expected.rules != row.rules {
                differences.push(format!("{}: the rules differ", row.call));
            }
        }
        for (row, _) in self.rows() {
            if !found.rows.iter().any(|found| found.call == row.call) {
                differences.push(format!("{}: missing", row.call));
            }
        }
        if let Some(call) = &found.broken_off {
            differences.push(format!("the list is incomplete; last call: {call}"));
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString as _;
    use std::vec;

    use super::*;

    fn file(rows: &str) -> String {
        format!("# wsk-probe build=26100\n{COLUMNS}\n{rows}")
    }

    #[test]
    fn an_answer_is_what_stays_the_same() {
        let rows = "# a\na\tA-01\tSTATUS_PENDING\tyes\tSTATUS_SUCCESS\tsocket\t1\t2\t-\n\
                    b\tA-01,B-02\tSTATUS_INVALID_HANDLE\tuntouched\t-\t-\t-\t-\t-\n\
                    c\t-\tSTATUS_SUCCESS\tno-irp\t-\t-\t-\t-\tpositive 65536\n\
                    d\tA-01\tSTATUS_PENDING\tcancelled\tSTATUS_CANCELLED\t0\t1\t0\t-\n\
                    e\tA-01\t-\tevent\t-\t-\t-\t2\tzero\n\
                    f\tA-01\t-\tnot-made\t-\t-\t-\t-\tno abort came\n# end 6\n";
        let answers = Answers::parse(&file(rows)).expect("well formed");
        let found: Vec<_> =
            answers.rows.iter().map(|row| row.answer.as_deref().map_err(String::as_str)).collect();
        assert_eq!(
            found,
            [
                Ok("STATUS_SUCCESS+socket"),
                Ok("STATUS_INVALID_HANDLE+untouched"),
                Ok("STATUS_SUCCESS+positive"),
                Ok("STATUS_CANCELLED+cancelled"),
                Ok("zero"),
                Err("no abort came"),
            ]
        );
        assert_eq!((answers.build, &answers.broken_off), (26100, &None));
        assert_eq!(answers.rows[1].rules, ["A-01", "B-02"]);
        assert_eq!(answers.rows[2].rules, Vec::<String>::new());
    }

    #[test]
    fn a_list_that_is_broken_off_names_the_last_call() {
        let answers =
            Answers::parse(&file("# a\na\t-\t-\tevent\t-\t-\t-\t0\tx\n# b\n")).expect("well formed");
        assert_eq!(answers.broken_off.as_deref(), Some("b"));
    }

    #[test]
    fn malformed_files_are_refused() {
        for (text, part) in [
            ("call\n".to_string(), "no build"),
            ("# wsk-probe build=1\ncall\n".to_string(), "columns"),
            (file("a\tb\n"), "9 columns"),
            (file("a\t-\t-\tperhaps\t-\t-\t-\t0\tx\n"), "perhaps"),
            (file("a\t-\t-\tevent\t-\t-\t-\t0\tx\na\t-\t-\tevent\t-\t-\t-\t0\tx\n"), "already"),
            (file("# end 3\n"), "3 calls"),
        ] {
            let error = Answers::parse(&text).expect_err("malformed");
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn differences_are_told_by_call() {
        let expected =
            Expected::parse("call\trules\tanswer\na\tA-01\tx|y\nb\t-\tz\nc\t-\tz\n").expect("well formed");
        let rows = "a\tA-01\t-\tevent\t-\t-\t-\t0\ty\nb\t-\t-\tevent\t-\t-\t-\t0\ty\n\
                    d\t-\t-\tevent\t-\t-\t-\t0\ty\n# end 3\n";
        let found = Answers::parse(&file(rows)).expect("well formed");
        let differences = expected.differences(&found);
        let wanted = vec!["b: y instead of z", "d: not among the expected calls", "c: missing"];
        assert_eq!(differences, wanted);
        assert!(expected.agrees("a", "x") && !expected.agrees("a", "z"));
    }
}
