//! The rules (`tests/rules.tsv`) and the reasons for those that cannot be shown (`tests/unshown.tsv`).

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};

use super::evidence::Evidence;
use super::severity::Severity;

/// Party that must obey a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The provider: a test shows the behaviour through raw calls.
    Provider,
    /// The client: safe code cannot break the rule, and the checker reports a raw client that does.
    Client,
    /// Both: the behaviour is shown, and safe code cannot get it wrong.
    Both,
}

/// One kind of evidence, as tests name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The behaviour is shown on the provider through raw calls.
    Shows,
    /// Safe code cannot break the rule.
    Prevents,
    /// The checker reports a raw client that breaks the rule.
    Catches,
}

impl Kind {
    /// All kinds, in the order they are printed.
    pub(crate) const ALL: [Self; 3] = [Self::Shows, Self::Prevents, Self::Catches];

    /// The word that opens a line of rule names.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Shows => "Shows",
            Self::Prevents => "Prevents",
            Self::Catches => "Catches",
        }
    }
}

/// One rule of the contract.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// `AREA-NN`.
    pub(crate) id: String,
    /// Party that must obey it.
    pub(crate) side: Side,
    /// Severity of breaking it.
    pub(crate) severity: Severity,
    /// Its source, and the Windows versions on which it was seen.
    pub(crate) evidence: Evidence,
    /// True if it comes from one of the seed pages.
    pub(crate) seed: bool,
    /// True if it leaves the provider a choice (evidence `U`).
    pub(crate) open: bool,
    /// The rule itself.
    pub(crate) text: String,
}

impl Rule {
    /// The part of the id before the number.
    pub(crate) fn area(&self) -> &str {
        self.id.split_once('-').map_or(&*self.id, |(area, _)| area)
    }

    /// The kinds of evidence that together show this rule.
    ///
    /// A layout rule is shown once: a size or an offset is the same for every party.
    pub(crate) fn needs(&self) -> &'static [Kind] {
        match self.side {
            _ if self.area() == "LAY" => &[Kind::Shows],
            Side::Provider => &[Kind::Shows],
            Side::Client => &[Kind::Prevents, Kind::Catches],
            Side::Both => &[Kind::Shows, Kind::Prevents],
        }
    }
}

/// Every rule, in the order of the file.
#[derive(Debug)]
pub(crate) struct RuleTable {
    rules: Vec<Rule>,
    by_id: HashMap<String, usize>,
}

impl RuleTable {
    const HEADER: &str = "id\tside\tevidence\tseed\tsection\trule";

    /// Reads the text of `rules.tsv`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().enumerate();
        match lines.next() {
            Some((_, Self::HEADER)) => {}
            other => {
                bail!("line 1: expected the header {:?}, found {:?}", Self::HEADER, other.map_or("", |l| l.1))
            }
        }
        let mut table = Self { rules: Vec::new(), by_id: HashMap::new() };
        for (index, line) in lines {
            let number = index + 1;
            let columns: Vec<&str> = line.split('\t').collect();
            let [id, side, evidence, seed, section, rule] = columns[..] else {
                bail!("line {number}: expected 6 columns separated by tabs, found {}", columns.len());
            };
            if !is_rule_id(id) {
                bail!("line {number}: {id:?} is not a rule id (AREA-NN)");
            }
            let (side, severity) = side.split_once('/').map_or((side, None), |(side, of)| (side, Some(of)));
            let side = match side {
                "P" => Side::Provider,
                "C" => Side::Client,
                "PC" => Side::Both,
                _ => bail!("line {number}: {id} has the side {side:?}; it is P, C or PC"),
            };
            let severity = match severity {
                None => Severity::Violation,
                Some("advice") => Severity::Advice,
                Some("both") => Severity::Both,
                Some(of) => bail!("line {number}: {id} has {of:?} behind its side; it is advice or both"),
            };
            for (name, value) in
                [("evidence", evidence), ("seed", seed), ("section", section), ("rule", rule)]
            {
                if value.trim().is_empty() {
                    bail!("line {number}: {id} has an empty column {name}");
                }
            }
            let evidence =
                Evidence::parse(evidence).with_context(|| format!("line {number}: {id}: evidence"))?;
            if let Some(&first) = table.by_id.get(id) {
                bail!("line {number}: {id} was defined on line {} already", first + 2);
            }
            table.by_id.insert(id.to_owned(), table.rules.len());
            let open = evidence.text.split(',').any(|kind| kind == "U");
            let text = rule.to_owned();
            let rule = Rule { id: id.to_owned(), side, severity, evidence, seed: seed != "-", open, text };
            // What is the default is not an answer that differs from it.
            if let [default] = rule.defaults()[..]
                && let Some((build, _)) = rule.evidence.otherwise().find(|(_, answer)| *answer == default)
            {
                bail!("line {number}: {id}: {default} is the default of the rule: write T@{build} alone");
            }
            table.rules.push(rule);
        }
        if table.rules.is_empty() {
            bail!("there are no rules");
        }
        Ok(table)
    }

    /// All rules, in order.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// A rule by its id.
    pub(crate) fn rule(&self, id: &str) -> Option<&Rule> {
        self.position(id).map(|position| &self.rules[position])
    }

    /// The position of a rule.
    pub(crate) fn position(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }
}

/// True for `AREA-NN`: capital letters, a hyphen, digits.
pub(super) fn is_rule_id(id: &str) -> bool {
    id.split_once('-').is_some_and(|(area, number)| {
        !area.is_empty()
            && area.bytes().all(|b| b.is_ascii_uppercase())
            && number.len() >= 2
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}

/// Written reasons why no user-mode provider can show a rule.
#[derive(Debug, Default)]
pub(crate) struct Reasons {
    by_rule: HashMap<usize, String>,
}

impl Reasons {
    const HEADER: &str = "id\treason";

    /// Reads the text of `unshown.tsv`.
    pub(crate) fn parse(text: &str, rules: &RuleTable) -> Result<Self> {
        let mut lines = text.lines().enumerate();
        match lines.next() {
            Some((_, Self::HEADER)) => {}
            other => {
                bail!("line 1: expected the header {:?}, found {:?}", Self::HEADER, other.map_or("", |l| l.1))
            }
        }
        let mut by_rule = HashMap::new();
        for (index, line) in lines {
            let number = index + 1;
            let Some((id, reason)) = line.split_once('\t') else {
                bail!("line {number}: expected an id, a tab and a reason");
            };
            let Some(position) = rules.position(id) else { bail!("line {number}: unknown rule {id:?}") };
            if reason.trim().is_empty() {
                bail!("line {number}: {id} has no reason");
            }
            if by_rule.insert(position, reason.trim().to_owned()).is_some() {
                bail!("line {number}: {id} already has a reason");
            }
        }
        Ok(Self { by_rule })
    }

    /// The reason for the rule at `position`.
    pub(crate) fn get(&self, position: usize) -> Option<&str> {
        self.by_rule.get(&position).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(rows: &str) -> Result<RuleTable> {
        RuleTable::parse(&format!("{}\n{rows}", RuleTable::HEADER))
    }

    fn error<T: std::fmt::Debug>(result: Result<T>) -> String {
        format!("{:#}", result.expect_err("malformed"))
    }

    #[test]
    fn rows_are_read() {
        let table =
            rules("LSN-01\tP\tU\t-\t4.1\tOne.\nINSP-02\tC\tH,D\t000,001\t4.1\tTwo.\n").expect("well formed");
        let [one, two] = table.rules() else { panic!("two rules") };
        assert_eq!((one.area(), one.seed, one.side, &*one.text), ("LSN", false, Side::Provider, "One."));
        assert_eq!((two.area(), two.seed, two.side), ("INSP", true, Side::Client));
        assert_eq!((one.open, two.open), (true, false));
        assert_eq!(table.position("INSP-02"), Some(1));
        assert_eq!(table.position("INSP-03"), None);
    }

    #[test]
    fn each_side_needs_its_evidence() {
        let table =
            rules("A-01\tP\tD\t-\t1\tx\nA-02\tC\tD\t-\t1\tx\nA-03\tPC\tD\t-\t1\tx\nLAY-01\tPC\tD\t-\t1\tx")
                .expect("well formed");
        let needs: Vec<_> = table.rules().iter().map(Rule::needs).collect();
        assert_eq!(
            needs,
            [
                &[Kind::Shows][..],
                &[Kind::Prevents, Kind::Catches],
                &[Kind::Shows, Kind::Prevents],
                &[Kind::Shows]
            ]
        );
    }

    #[test]
    fn malformed_rules_are_named_with_their_line() {
        assert!(error(RuleTable::parse("")).contains("line 1"));
        assert!(error(RuleTable::parse("id,side\n")).contains("line 1"));
        assert!(error(rules("")).contains("no rules"));
        assert!(error(rules("LSN-01\tP\tD\n")).contains("line 2: expected 6 columns"));
        assert!(error(rules("LSN-01\tP\tD\t-\t1\tx\n\n")).contains("line 3"));
        assert!(error(rules("LSN01\tP\tD\t-\t1\tx")).contains("not a rule id"));
        assert!(error(rules("lsn-01\tP\tD\t-\t1\tx")).contains("not a rule id"));
        assert!(error(rules("LSN-1\tP\tD\t-\t1\tx")).contains("not a rule id"));
        assert!(error(rules("LSN-01\tX\tD\t-\t1\tx")).contains("the side \"X\""));
        assert!(error(rules("LSN-01\tC/hint\tD\t-\t1\tx")).contains("advice or both"));
        assert!(error(rules("LSN-01\tP\tD\t\t1\tx")).contains("empty column seed"));
        let twice = error(rules("LSN-01\tP\tD\t-\t1\tx\nLSN-01\tP\tD\t-\t1\tx"));
        assert!(twice.contains("line 3") && twice.contains("line 2"), "{twice}");
    }

    #[test]
    fn reasons_are_read_and_checked() {
        let table = rules("LSN-01\tP\tD\t-\t1\tx\nLSN-02\tP\tD\t-\t1\tx").expect("well formed");
        let parse = |rows: &str| Reasons::parse(&format!("id\treason\n{rows}"), &table);
        let reasons = parse("LSN-02\tNeeds a real network card.\n").expect("well formed");
        assert_eq!((reasons.get(0), reasons.get(1)), (None, Some("Needs a real network card.")));
        assert!(error(parse("LSN-09\tx")).contains("unknown rule \"LSN-09\""));
        assert!(error(parse("LSN-01")).contains("a tab"));
        assert!(error(parse("LSN-01\t ")).contains("no reason"));
        assert!(error(parse("LSN-01\tx\nLSN-01\ty")).contains("line 3"));
        assert!(error(Reasons::parse("", &table)).contains("header"));
    }
}
