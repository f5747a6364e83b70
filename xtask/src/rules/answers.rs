//! Answers of a Windows machine, compared with the rules and with the provider's defaults.
//!
//! ```text
//!  wsk-probe.tsv, from Windows ──┐
//!  tests/probe-answers.tsv ──────┼──► a verdict for each rule ──► terminal, and marks for tests/rules.tsv
//!  tests/rules.tsv ──────────────┘
//! ```

use std::fmt::Write as _;

use anyhow::{Result, bail};
use probe_calls::answers::{Answers, Expected, Row};

use super::evidence::Seen;
use super::table::{Rule, RuleTable};

/// The oldest build that a driver over this project is for (Windows 10 1607, Server 2016). What Wine says,
/// whose WSK is this project's own and no evidence, is older.
const OLDEST: u32 = 14393;

/// Result of a run for one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Every call was answered as the provider answers it.
    Agrees,
    /// The answers are others, which the rule has among its alternatives.
    OtherAlternative(String),
    /// The answers are others, which the rule does not name.
    Contradicts(String),
    /// A call was not made.
    Open(String),
}

/// The provider's recorded answers, which must be of calls whose rules there are, and the defaults that these
/// state.
pub(crate) fn expected(text: &str, rules: &RuleTable) -> Result<Expected> {
    let expected = Expected::parse(text).map_err(|error| anyhow::anyhow!(error))?;
    let mut problems = Vec::new();
    for (row, answers) in expected.rows() {
        for id in &row.rules {
            let Some(rule) = rules.rule(id) else {
                problems.push(format!("{}: there is no rule {id}", row.call));
                continue;
            };
            let defaults = rule.defaults();
            let is_default = |answer: &String| {
                status(answer).is_none_or(|status| defaults.is_empty() || defaults.contains(&status))
            };
            if !answers.iter().all(is_default) {
                let answers = answers.join("|");
                problems.push(format!("{}: {answers} is not the default of {id}: {}", row.call, rule.text));
            }
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n       "));
    }
    Ok(expected)
}

/// Returns the report on the file of a Windows machine.
pub(crate) fn report(text: &str, rules: &RuleTable, expected: &Expected) -> Result<String> {
    let answers = Answers::parse(text).map_err(|error| anyhow::anyhow!(error))?;
    if answers.build < OLDEST {
        bail!(
            "the file was written on build {}: Wine calls itself so; this takes Windows, {OLDEST} or later",
            answers.build
        );
    }
    let (mut lines, mut marks) = (String::new(), String::new());
    let mut counts = [0; 4];
    for rule in rules.rules() {
        let rows: Vec<&Row> = answers.rows.iter().filter(|row| row.rules.contains(&rule.id)).collect();
        let wanted = expected.rows().any(|(row, _)| row.rules.contains(&rule.id));
        if rows.is_empty() && !wanted {
            continue;
        }
        let verdict = verdict(rule, &rows, expected);
        let (count, word, said) = match &verdict {
            Verdict::Agrees => (0, "agrees", String::new()),
            Verdict::OtherAlternative(answer) => {
                (1, "DIFFERS", format!("{answer}, an alternative of the rule"))
            }
            Verdict::Contradicts(answer) => {
                (2, "CONTRADICTS", format!("{answer}, which the rule does not name"))
            }
            Verdict::Open(why) => (3, "open", why.clone()),
        };
        counts[count] += 1;
        writeln!(lines, "{:<8} {word:<12}{said}", rule.id)?;
        if count > 0 {
            writeln!(lines, "{:<21}{}", "", rule.text)?;
        }
        let answer = match verdict {
            Verdict::Agrees => None,
            Verdict::OtherAlternative(answer) | Verdict::Contradicts(answer) => Some(answer),
            Verdict::Open(_) => continue,
        };
        let evidence = rule.evidence.with(&Seen { build: answers.build, answer });
        writeln!(marks, "{}\t{evidence}", rule.id)?;
    }
    for row in &answers.rows {
        if let Some(id) = row.rules.iter().find(|id| rules.rule(id).is_none()) {
            bail!("{}: there is no rule {id}; is the file of another version of the probe?", row.call);
        }
    }
    let mut out = format!("Windows build {}, {} calls.\n", answers.build, answers.rows.len());
    if let Some(call) = &answers.broken_off {
        writeln!(out, "The list is incomplete: {call} was started last, and may have crashed the machine.")?;
    }
    writeln!(out, "\n{lines}\n{}", summary(counts))?;
    if !marks.is_empty() {
        writeln!(out, "\nFor the column `evidence` of tests/rules.tsv:\n\n{}", marks.trim_end())?;
    }
    Ok(out)
}

fn summary([agrees, differs, contradicts, open]: [usize; 4]) -> String {
    format!(
        "{agrees} rules agree with the provider's default, {differs} are settled otherwise, {contradicts} \
         are contradicted, \
         {open} are open."
    )
}

fn verdict(rule: &Rule, rows: &[&Row], expected: &Expected) -> Verdict {
    let (mut others, mut open) = (Vec::new(), None);
    for row in rows {
        match &row.answer {
            Ok(answer) if expected.agrees(&row.call, answer) => {}
            Ok(answer) => {
                if !others.contains(&answer.as_str()) {
                    others.push(answer);
                }
            }
            Err(why) => open = Some(format!("{}: {why}", row.call)),
        }
    }
    let missing = expected
        .rows()
        .find(|(row, _)| row.rules.contains(&rule.id) && !rows.iter().any(|found| found.call == row.call));
    let open = open.or_else(|| missing.map(|(row, _)| format!("{}: not in the file", row.call)));
    let joined = others.join("/");
    if others.iter().any(|answer| !rule.names(answer)) {
        Verdict::Contradicts(joined)
    } else if !others.is_empty() {
        Verdict::OtherAlternative(joined)
    } else {
        open.map_or(Verdict::Agrees, Verdict::Open)
    }
}

/// The status of an answer, if it has one.
fn status(answer: &str) -> Option<&str> {
    answer.split('+').find(|part| part.starts_with("STATUS_"))
}

impl Rule {
    /// The statuses that the rule names as the default. Empty if it names none.
    pub(crate) fn defaults(&self) -> Vec<&str> {
        match self.text.split_once("default ") {
            Some((_, default)) if self.is_selectable() => statuses(default),
            _ => Vec::new(),
        }
    }

    fn is_selectable(&self) -> bool {
        self.text.starts_with("selectable: ")
    }

    /// Returns whether an answer is among the alternatives. An alternative in words matches any answer that
    /// is not an error.
    fn names(&self, answer: &str) -> bool {
        if !self.is_selectable() {
            return false;
        }
        let alternatives = self.text.split("default ").next().unwrap_or_default();
        let in_words = alternatives.split(" or ").any(|alternative| statuses(alternative).is_empty());
        let named = statuses(alternatives);
        match status(answer) {
            None => true,
            Some(status) if named.contains(&status) => true,
            // It was taken, and waited for something.
            Some("STATUS_CANCELLED") => named.contains(&"STATUS_PENDING") || in_words,
            Some(status) => status == "STATUS_SUCCESS" && in_words,
        }
    }
}

fn statuses(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !is_part(c)).filter(|word| word.starts_with("STATUS_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "id\tside\tevidence\tseed\tsection\trule\n\
        A-01\tP\tU\t-\t1\tselectable: it fails with STATUS_NOT_FOUND or STATUS_SUCCESS; default \
        STATUS_NOT_FOUND.\n\
        A-02\tP\tU,T@14393\t-\t1\tselectable: it fails with STATUS_NOT_FOUND or is taken; default \
        STATUS_NOT_FOUND.\n\
        A-03\tP\tI\t-\t1\tIt works.\n\
        A-04\tP\tU\t-\t1\tselectable: events are on or off; default off.\n\
        A-05\tP\tD\t-\t1\tNot probed.\n";
    const EXPECTED: &str = "call\trules\tanswer\na\tA-01\tSTATUS_NOT_FOUND\nb\tA-02\tSTATUS_NOT_FOUND\n\
        c\tA-03\tSTATUS_SUCCESS\nd\tA-04\toff\n";

    fn rules() -> RuleTable {
        RuleTable::parse(RULES).expect("well formed")
    }

    fn said(statuses: [&str; 3], on: &str, end: &str) -> String {
        let [a, b, c] = statuses.map(|status| format!("STATUS_PENDING\tyes\t{status}\t0\t1\t0\t-"));
        let columns = probe_calls::COLUMNS;
        let text = format!(
            "# wsk-probe build=26100\n{columns}\na\tA-01\t{a}\nb\tA-02\t{b}\nc\tA-03\t{c}\n\
             d\tA-04\t-\tevent\t-\t-\t-\t2\t{on}\n{end}"
        );
        let rules = rules();
        let expected = expected(EXPECTED, &rules).expect("well formed");
        report(&text, &rules, &expected).expect("well formed")
    }

    #[test]
    fn answers_like_the_providers_settle_the_rules() {
        let said = said(["STATUS_NOT_FOUND", "STATUS_NOT_FOUND", "STATUS_SUCCESS"], "off", "# end 4\n");
        assert!(said.starts_with("Windows build 26100, 4 calls.\n"), "{said}");
        assert!(
            said.contains("4 rules agree with the provider's default, 0 are settled otherwise"),
            "{said}"
        );
        let marks = "A-01\tU,T@26100\nA-02\tU,T@14393,T@26100\nA-03\tI,T@26100\nA-04\tU,T@26100\n";
        assert!(said.ends_with(marks), "{said}");
        assert!(!said.contains("A-05"), "{said}");
    }

    #[test]
    fn other_answers_are_told_from_contradictions() {
        let said = said(["STATUS_SUCCESS", "STATUS_SUCCESS", "STATUS_NOT_FOUND"], "on", "# end 4\n");
        assert!(
            said.contains("0 rules agree with the provider's default, 3 are settled otherwise, 1 are"),
            "{said}"
        );
        assert!(said.contains("A-01     DIFFERS     STATUS_SUCCESS, an alternative"), "{said}");
        assert!(said.contains("A-03     CONTRADICTS STATUS_NOT_FOUND"), "{said}");
        assert!(said.contains("A-04\tU,T@26100=on\n"), "{said}");
    }

    #[test]
    fn an_answer_that_no_alternative_is_contradicts() {
        let said = said(["STATUS_CANCELLED", "STATUS_CANCELLED", "STATUS_SUCCESS"], "off", "# end 4\n");
        assert!(said.contains("A-01     CONTRADICTS STATUS_CANCELLED"), "{said}");
        assert!(said.contains("A-02     DIFFERS     STATUS_CANCELLED"), "{said}");
    }

    #[test]
    fn what_was_not_made_stays_open() {
        let rules = rules();
        let expected = expected(EXPECTED, &rules).expect("well formed");
        let columns = probe_calls::COLUMNS;
        let text = format!(
            "# wsk-probe build=26100\n{columns}\na\tA-01\t-\tnot-made\t-\t-\t-\t-\tno reason at all\n# b\n"
        );
        let said = report(&text, &rules, &expected).expect("well formed");
        assert!(said.contains("b was started last"), "{said}");
        assert!(said.contains("A-01     open        a: no reason at all"), "{said}");
        assert!(said.contains("A-02     open        b: not in the file"), "{said}");
        assert!(!said.contains("For the column"), "{said}");
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let rules = rules();
        let table = expected(EXPECTED, &rules).expect("well formed");
        let columns = probe_calls::COLUMNS;
        let refused = |text: &str| report(text, &rules, &table).expect_err("malformed").to_string();
        for build in [0, 7601] {
            let text = format!("# wsk-probe build={build}\n{columns}\n# end 0\n");
            assert!(refused(&text).contains("Wine calls itself so"));
        }
        let unknown =
            format!("# wsk-probe build=26100\n{columns}\nz\tZ-01\t-\tevent\t-\t-\t-\t0\tx\n# end 1\n");
        assert!(refused(&unknown).contains("no rule Z-01"));
    }

    #[test]
    fn recorded_answers_must_be_the_defaults_of_their_rules() {
        let wrong = "call\trules\tanswer\na\tA-01\tSTATUS_SUCCESS\nz\tZ-01\tx\n";
        let error = expected(wrong, &rules()).expect_err("contradictory").to_string();
        assert!(error.contains("STATUS_SUCCESS is not the default of A-01"), "{error}");
        assert!(error.contains("no rule Z-01"), "{error}");
    }
}
