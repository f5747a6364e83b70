//! Coverage: the rules, the reasons and the tests put together.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::scan::Claim;
use super::table::{Kind, Reasons, Rule, RuleTable};

/// The areas whose rules the user-mode provider is to show, whether they come from a seed page or not.
pub(crate) const IN_SCOPE: [&str; 19] = [
    "REG", "SOCK", "BIND", "LSN", "ACPT", "INSP", "ICMP", "ABRT", "EVT", "DISC", "RCV", "RCVE", "SND",
    "ADDR", "CLOSE", "IRP", "IRQL", "LIFE", "OPT",
];

/// Of a hundred rules with a seed, fewer than so many may have a reason in place of a test.
const REASONS_BELOW_PERCENT: usize = 3;

/// One rule with the tests that name it.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The rule.
    pub(crate) rule: Rule,
    /// The tests that name it.
    pub(crate) claims: Vec<Claim>,
    /// Reason that no user-mode provider can show it, if any.
    pub(crate) reason: Option<String>,
}

impl Entry {
    /// The kinds of evidence that no test gives yet.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Kind> {
        let named = |kind| self.claims.iter().any(|claim| claim.kind == kind);
        self.rule.needs().iter().copied().filter(move |&kind| !named(kind))
    }

    /// True if no evidence is missing.
    pub(crate) fn is_shown(&self) -> bool {
        self.missing().next().is_none()
    }
}

/// Numbers over a set of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Rules in the set.
    pub(crate) total: usize,
    /// Of them shown.
    pub(crate) shown: usize,
    /// Of those not shown, the ones with a reason.
    pub(crate) reasons: usize,
}

impl Count {
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        entries.fold(Self::default(), |count, entry| Self {
            total: count.total + 1,
            shown: count.shown + usize::from(entry.is_shown()),
            reasons: count.reasons + usize::from(entry.reason.is_some()),
        })
    }

    /// Neither shown nor excused.
    pub(crate) fn missing(self) -> usize {
        self.total - self.shown - self.reasons
    }
}

/// The numbers of one area, or of all.
#[derive(Clone, Debug)]
pub(crate) struct Area {
    /// The name: what stands before the number in the ids.
    pub(crate) name: String,
    /// All its rules.
    pub(crate) all: Count,
    /// Its rules with a seed.
    pub(crate) seeds: Count,
}

/// Every rule with the tests that name it, in the order of the table.
#[derive(Debug)]
pub(crate) struct Coverage {
    entries: Vec<Entry>,
}

impl Coverage {
    /// Puts rules, reasons and tests together.
    ///
    /// # Errors
    ///
    /// A test that names an unknown rule, and a reason for a rule that is shown.
    pub(crate) fn new(rules: &RuleTable, reasons: &Reasons, claims: Vec<Claim>) -> Result<Self> {
        let mut problems = Vec::new();
        let mut entries: Vec<_> = rules
            .rules()
            .iter()
            .enumerate()
            .map(|(position, rule)| Entry {
                rule: rule.clone(),
                claims: Vec::new(),
                reason: reasons.get(position).map(str::to_owned),
            })
            .collect();
        for claim in claims {
            match rules.position(&claim.id) {
                Some(position) => entries[position].claims.push(claim),
                None => problems.push(format!(
                    "{}: {} says `{}: {}`, but there is no such rule",
                    claim.place,
                    claim.test,
                    claim.kind.word(),
                    claim.id
                )),
            }
        }
        for entry in &entries {
            if entry.reason.is_some() && entry.is_shown() {
                problems
                    .push(format!("{} is shown by tests: it needs no reason in unshown.tsv", entry.rule.id));
            }
        }
        if !problems.is_empty() {
            bail!("{}", problems.join("\n       "));
        }
        Ok(Self { entries })
    }

    /// All rules.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// One rule.
    pub(crate) fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.rule.id == id)
    }

    /// The rules with a seed.
    pub(crate) fn seeds(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.rule.seed)
    }

    /// The rules without a seed in the areas in scope.
    fn others(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.rule.seed && IN_SCOPE.contains(&entry.rule.area()))
    }

    /// The numbers of each area, in the order in which the areas appear.
    pub(crate) fn areas(&self) -> Vec<Area> {
        let mut names: Vec<&str> = Vec::new();
        for entry in &self.entries {
            if !names.contains(&entry.rule.area()) {
                names.push(entry.rule.area());
            }
        }
        let of = |name: &str| {
            let rules = || self.entries.iter().filter(move |entry| entry.rule.area() == name);
            Area {
                name: name.to_owned(),
                all: Count::of(rules()),
                seeds: Count::of(rules().filter(|e| e.rule.seed)),
            }
        };
        names.into_iter().map(of).collect()
    }

    /// The numbers over all rules, over the rules with a seed, and over the other rules in scope.
    pub(crate) fn totals(&self) -> [Count; 3] {
        [Count::of(self.entries.iter()), Count::of(self.seeds()), Count::of(self.others())]
    }

    /// The number of distinct tests that name a rule.
    pub(crate) fn tests(&self) -> usize {
        self.entries
            .iter()
            .flat_map(|entry| &entry.claims)
            .map(|claim| &claim.place)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Returns what keeps the rules with a seed from counting as shown.
    pub(crate) fn seed_failures(&self) -> Vec<String> {
        let [_, seeds, _] = self.totals();
        let mut failures = Vec::new();
        if seeds.missing() > 0 {
            failures.push(format!(
                "{} of {} rules with a seed are neither shown nor have a reason in tests/unshown.tsv",
                seeds.missing(),
                seeds.total
            ));
        }
        if seeds.reasons > 0 && seeds.reasons * 100 >= REASONS_BELOW_PERCENT * seeds.total {
            failures.push(format!(
                "{} of {} rules with a seed have a reason in tests/unshown.tsv; it must be under \
                 {REASONS_BELOW_PERCENT} %",
                seeds.reasons, seeds.total
            ));
        }
        failures
    }

    /// Returns what keeps the other rules in scope from being shown to `percent`. A reason does not count
    /// here.
    pub(crate) fn area_failure(&self, percent: u8) -> Option<String> {
        let [_, _, others] = self.totals();
        (others.shown * 100 < usize::from(percent) * others.total).then(|| {
            format!(
                "{} of {} rules without a seed in the areas in scope are shown; at least {percent} % are \
                 asked for",
                others.shown, others.total
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use Kind::{Catches, Prevents, Shows};

    use super::*;

    fn coverage(rows: &str, reasons: &str, claims: &[(Kind, &str)]) -> Result<Coverage> {
        let rules = RuleTable::parse(&format!("id\tside\tevidence\tseed\tsection\trule\n{rows}"))
            .expect("well formed");
        let reasons = Reasons::parse(&format!("id\treason\n{reasons}"), &rules).expect("well formed");
        let claims = claims
            .iter()
            .enumerate()
            .map(|(line, &(kind, id))| Claim {
                id: id.to_owned(),
                kind,
                test: "t".to_owned(),
                place: format!("t.rs:{line}"),
                chooses: BTreeSet::new(),
            })
            .collect();
        Coverage::new(&rules, &reasons, claims)
    }

    fn seeds(count: usize) -> String {
        use std::fmt::Write as _;
        (1..=count).fold(String::new(), |mut rows, n| {
            writeln!(rows, "LSN-{n:02}\tP\tD\t001\t4.1\tRule.").expect("written");
            rows
        })
    }

    #[test]
    fn a_rule_is_shown_when_no_evidence_is_missing() {
        let rows = "A-01\tP\tD\t-\t1\tx\nA-02\tC\tD\t-\t1\tx\nA-03\tPC\tD\t-\t1\tx\n";
        let missing = |claims: &[(Kind, &str)]| -> Vec<Vec<Kind>> {
            let coverage = coverage(rows, "", claims).expect("well formed");
            coverage.entries().iter().map(|entry| entry.missing().collect()).collect()
        };
        assert_eq!(missing(&[]), [vec![Shows], vec![Prevents, Catches], vec![Shows, Prevents]]);
        assert_eq!(
            missing(&[(Shows, "A-01"), (Prevents, "A-02"), (Shows, "A-03")]),
            [vec![], vec![Catches], vec![Prevents]]
        );
        // Evidence of another kind is welcome and does not stand in for the one that is needed.
        assert_eq!(
            missing(&[(Catches, "A-01"), (Shows, "A-02"), (Catches, "A-03")]),
            [vec![Shows], vec![Prevents, Catches], vec![Shows, Prevents]]
        );
    }

    #[test]
    fn areas_are_counted_in_order() {
        let rows = "B-01\tP\tD\t001\t1\tx\nA-01\tP\tD\t-\t1\tx\nB-02\tP\tD\t-\t1\tx\n";
        let coverage = coverage(rows, "B-01\tno\n", &[(Kind::Shows, "B-02"), (Kind::Shows, "B-02")])
            .expect("well formed");
        let areas = coverage.areas();
        assert_eq!(areas.iter().map(|a| &*a.name).collect::<Vec<_>>(), ["B", "A"]);
        assert_eq!(areas[0].all, Count { total: 2, shown: 1, reasons: 1 });
        assert_eq!(areas[0].seeds, Count { total: 1, shown: 0, reasons: 1 });
        assert_eq!(areas[1].all.missing(), 1);
        assert_eq!(coverage.tests(), 2);
    }

    #[test]
    fn unknown_rules_and_needless_reasons_are_errors() {
        let unknown =
            coverage(&seeds(1), "", &[(Kind::Shows, "LSN-1")]).expect_err("no such rule").to_string();
        assert!(unknown.contains("t.rs:0") && unknown.contains("LSN-1"), "{unknown}");
        let needless =
            coverage(&seeds(1), "LSN-01\tno", &[(Kind::Shows, "LSN-01")]).expect_err("shown").to_string();
        assert!(needless.contains("LSN-01 is shown"), "{needless}");
    }

    #[test]
    fn seeds_fail_while_one_is_missing() {
        let failing =
            coverage(&seeds(2), "", &[(Kind::Shows, "LSN-01")]).expect("well formed").seed_failures();
        assert!(failing.len() == 1 && failing[0].starts_with("1 of 2"), "{failing:?}");
        let passing =
            coverage(&seeds(1), "", &[(Kind::Shows, "LSN-01")]).expect("well formed").seed_failures();
        assert_eq!(passing, Vec::<String>::new());
    }

    #[test]
    fn fewer_than_three_percent_may_have_a_reason() {
        let failures = |excused: usize| {
            let rows = seeds(100);
            let ids: Vec<String> = (1..=100).map(|n| format!("LSN-{n:02}")).collect();
            let reasons: String = ids[..excused].iter().flat_map(|id| [id, "\tno\n"]).collect();
            let claims: Vec<_> = ids[excused..].iter().map(|id| (Kind::Shows, &**id)).collect();
            coverage(&rows, &reasons, &claims).expect("well formed").seed_failures()
        };
        assert_eq!(failures(2), Vec::<String>::new());
        assert!(failures(3)[0].starts_with("3 of 100"));
    }

    #[test]
    fn other_rules_count_in_scope_only_and_reasons_do_not_help() {
        let rows =
            "LSN-01\tP\tD\t-\t1\tx\nLSN-02\tP\tD\t-\t1\tx\nIOC-01\tP\tD\t-\t1\tx\nLSN-03\tP\tD\t1\t1\tx\n";
        let coverage = coverage(rows, "LSN-02\tno\n", &[(Kind::Shows, "LSN-01")]).expect("well formed");
        assert_eq!(coverage.area_failure(50), None);
        assert!(coverage.area_failure(51).expect("1 of 2").starts_with("1 of 2"));
    }
}
