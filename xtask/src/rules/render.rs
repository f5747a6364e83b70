//! The report: a table on the terminal, and a table in `docs/rules.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};
use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};

use super::coverage::{Area, Count, Coverage, Entry, IN_SCOPE};
use super::severity::Severity;

const BEGIN: &str = "<!-- rules:begin -->";
const END: &str = "<!-- rules:end -->";

const HEADINGS: [&str; 6] = ["area", "rules", "shown", "missing", "seed rules", "seed shown"];

/// The report for a terminal (plain when standard output is not one).
pub(crate) fn terminal(coverage: &Coverage) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(HEADINGS.map(|heading| Cell::new(heading).add_attribute(Attribute::Bold)));
    for area in coverage.areas() {
        table.add_row(row(&area));
    }
    let total = total(coverage);
    table.add_row(row(&total).map(|cell| cell.add_attribute(Attribute::Bold)));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }

    let mut out = format!("{table}\n");
    let unshown: Vec<_> = coverage.entries().iter().filter(|entry| !entry.is_shown()).collect();
    if !unshown.is_empty() {
        out.push_str("\nNot shown (s: the rule has a seed):\n");
    }
    for entry in unshown {
        let (id, seed) = (&entry.rule.id, if entry.rule.seed { 's' } else { ' ' });
        let state =
            entry.reason.as_ref().map_or_else(|| missing(entry), |reason| format!("reason: {reason}"));
        writeln!(out, "  {id:<8} {seed} {state}").expect("a string takes all");
    }
    writeln!(out, "\n{}", summary(coverage)).expect("a string takes all");
    out.push_str(&windows(coverage));
    out
}

/// Returns the observations on Windows; empty if there are none.
fn windows(coverage: &Coverage) -> String {
    let mut builds = BTreeMap::new();
    let (mut rules, mut otherwise) = (0, Vec::new());
    for Entry { rule, .. } in coverage.entries() {
        rules += usize::from(!rule.evidence.seen.is_empty());
        for seen in &rule.evidence.seen {
            *builds.entry(seen.build).or_insert(0) += 1;
        }
        let statements = rule
            .evidence
            .otherwise()
            .map(|(build, answer)| format!("{} on build {build}: {answer}", rule.id));
        otherwise.extend(statements);
    }
    if rules == 0 {
        return String::new();
    }
    let builds: Vec<_> =
        builds.iter().map(|(build, rules): (_, &usize)| format!("{build} ({rules})")).collect();
    let mut out = format!("\nSeen on Windows: {rules} rules; builds {}.\n", builds.join(", "));
    if !otherwise.is_empty() {
        writeln!(out, "\nNot what the provider answers by default:\n\n- {}", otherwise.join("\n- "))
            .expect("a string takes all");
    }
    out
}

/// One rule with the tests that name it.
pub(crate) fn entry(entry: &Entry) -> String {
    let mut out = format!("{}  {}\n", entry.rule.id, entry.rule.text);
    if entry.rule.severity != Severity::Violation {
        writeln!(out, "  broken    reported as {}", entry.rule.severity).expect("a string takes all");
    }
    for claim in &entry.claims {
        writeln!(out, "  {:<9} {} ({})", claim.kind.word(), claim.test, claim.place)
            .expect("a string takes all");
    }
    for seen in &entry.rule.evidence.seen {
        let answer = seen.answer.as_ref().map_or_else(
            || "as the provider by default".to_owned(),
            |answer| format!("{answer}, not the provider's default"),
        );
        writeln!(out, "  windows   {}: {answer}", seen.build).expect("a string takes all");
    }
    if !entry.is_shown() {
        writeln!(out, "  missing   {}", missing(entry)).expect("a string takes all");
    }
    if let Some(reason) = &entry.reason {
        writeln!(out, "  reason    {reason}").expect("a string takes all");
    }
    out
}

/// `page` with the part between the markers replaced by the present numbers.
pub(crate) fn page(page: &str, coverage: &Coverage) -> Result<String> {
    let (Some(begin), Some(end)) = (page.find(BEGIN), page.find(END)) else {
        bail!("the markers {BEGIN} and {END} are missing");
    };
    let begin = begin + BEGIN.len();
    if end < begin || page[begin..].matches(BEGIN).count() > 0 || page[end + END.len()..].contains(END) {
        bail!("the markers {BEGIN} and {END} must occur once each, in this order");
    }
    let table = format!("\n{}", markdown(coverage));
    // A checkout may have given the page other line ends; then the table has them too.
    let table = if page[begin..].starts_with("\r\n") { table.replace('\n', "\r\n") } else { table };
    Ok(format!("{}{table}{}", &page[..begin], &page[end..]))
}

/// The table of the page. It has no line numbers and no test names: it changes only when the numbers do.
fn markdown(coverage: &Coverage) -> String {
    let mut out = format!("| {} |\n|:---|---:|---:|---:|---:|---:|\n", HEADINGS.join(" | "));
    for area in coverage.areas().iter().chain([&total(coverage)]) {
        let name = if area.name == TOTAL { format!("**{TOTAL}**") } else { area.name.clone() };
        let [rules, shown, missing, seeds, seeds_shown] = numbers(area);
        writeln!(out, "| {name} | {rules} | {shown} | {missing} | {seeds} | {seeds_shown} |")
            .expect("a string takes all");
    }
    writeln!(out, "\n{}", summary(coverage)).expect("a string takes all");

    let lists = [
        ("Rules with a seed that are not shown", true, true),
        ("Other rules in scope that are not shown", false, true),
        ("Rules out of scope that are not shown", false, false),
    ];
    for (title, seed, in_scope) in lists {
        let listed = coverage.entries().iter().filter(|entry| {
            let scope = entry.rule.seed || IN_SCOPE.contains(&entry.rule.area());
            !entry.is_shown() && entry.reason.is_none() && entry.rule.seed == seed && scope == in_scope
        });
        let listed: Vec<_> = listed.map(|entry| format!("{} ({})", entry.rule.id, missing(entry))).collect();
        if !listed.is_empty() {
            writeln!(out, "\n{title}: {}.", listed.join(", ")).expect("a string takes all");
        }
    }
    let reasons: Vec<_> = coverage.entries().iter().filter_map(|e| Some((e, e.reason.as_ref()?))).collect();
    if !reasons.is_empty() {
        out.push_str("\nWhat no user-mode provider can show, and why:\n\n");
        for (entry, reason) in reasons {
            writeln!(out, "- {}: {reason}", entry.rule.id).expect("a string takes all");
        }
    }
    out.push_str(&windows(coverage));
    out
}

const TOTAL: &str = "total";

fn total(coverage: &Coverage) -> Area {
    let [all, seeds, _] = coverage.totals();
    Area { name: TOTAL.to_owned(), all, seeds }
}

/// Rules, shown, missing, seed rules, seed shown.
fn numbers(area: &Area) -> [String; 5] {
    let seeds = |number: usize| if area.seeds.total == 0 { "–".to_owned() } else { number.to_string() };
    [
        area.all.total.to_string(),
        area.all.shown.to_string(),
        (area.all.total - area.all.shown).to_string(),
        seeds(area.seeds.total),
        seeds(area.seeds.shown),
    ]
}

fn row(area: &Area) -> [Cell; 6] {
    let [rules, shown, missing, seeds, seeds_shown] = numbers(area);
    let state = |count: Count, text: String| {
        let colour = match count {
            Count { total: 0, .. } => return Cell::new(text),
            count if count.missing() == 0 => Color::Green,
            Count { shown: 0, .. } => Color::Red,
            _ => Color::Yellow,
        };
        Cell::new(text).fg(colour)
    };
    [
        Cell::new(&area.name),
        Cell::new(rules),
        state(area.all, shown),
        Cell::new(missing),
        Cell::new(seeds),
        state(area.seeds, seeds_shown),
    ]
}

/// `needs Prevents, Catches`.
fn missing(entry: &Entry) -> String {
    let kinds: Vec<_> = entry.missing().map(super::table::Kind::word).collect();
    format!("needs {}", kinds.join(", "))
}

/// The three numbers that matter, in words.
fn summary(coverage: &Coverage) -> String {
    let [all, seeds, others] = coverage.totals();
    let part = |count: Count| format!("{} of {} ({})", count.shown, count.total, percent(count));
    let reasons = match seeds.reasons {
        0 => String::new(),
        reasons => format!(", {reasons} more with a reason"),
    };
    format!(
        "Shown by {} tests: {} of all rules; {} of the rules with a seed{reasons}; {} of the other rules in \
         scope.",
        coverage.tests(),
        part(all),
        part(seeds),
        part(others)
    )
}

fn percent(count: Count) -> String {
    match count.total {
        0 => "–".to_owned(),
        // Rounded down: 100 % means all.
        total => format!("{} %", count.shown * 100 / total),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::Claim;
    use super::super::table::{Kind, Reasons, RuleTable};
    use super::*;

    fn coverage() -> Coverage {
        let rules = RuleTable::parse(
            "id\tside\tevidence\tseed\tsection\trule\nLSN-01\tP\tD\t001\t4.1\tOne.\n\
             LSN-02\tC\tD\t-\t4.1\tTwo.\n\
             LSN-03\tP\tD\t002\t4.1\tThree.\nIOC-01\tPC\tD\t-\t4.1\tFour.\n",
        )
        .expect("well formed");
        let reasons = Reasons::parse("id\treason\nLSN-03\tNo card.\n", &rules).expect("well formed");
        let claim = |id: &str, kind| Claim {
            id: id.to_owned(),
            kind,
            test: "listen".to_owned(),
            place: "tests/a.rs:7".to_owned(),
            chooses: std::collections::BTreeSet::new(),
        };
        let claims = vec![claim("LSN-01", Kind::Shows), claim("LSN-02", Kind::Catches)];
        Coverage::new(&rules, &reasons, claims).expect("well formed")
    }

    #[test]
    fn the_terminal_report_lists_what_is_missing() {
        let text = terminal(&coverage());
        for line in [
            "  LSN-02     needs Prevents",
            "  LSN-03   s reason: No card.",
            "  IOC-01     needs Shows, Prevents",
            "Shown by 1 tests: 1 of 4 (25 %) of all rules; 1 of 2 (50 %) of the rules with a seed, 1 more \
             with a \
             reason; 0 of 1 (0 %) of the other rules in scope.",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("LSN-01"), "{text}");
    }

    #[test]
    fn the_page_keeps_what_is_around_the_markers() {
        let coverage = coverage();
        let first =
            page("A\n<!-- rules:begin -->\nold\n<!-- rules:end -->\nB\n", &coverage).expect("markers");
        assert!(first.starts_with("A\n<!-- rules:begin -->\n| area |"), "{first}");
        assert!(first.ends_with("- LSN-03: No card.\n<!-- rules:end -->\nB\n"), "{first}");
        assert!(first.contains("| LSN | 3 | 1 | 2 | 2 | 1 |\n| IOC | 1 | 0 | 1 | – | – |\n"), "{first}");
        assert!(first.contains("| **total** | 4 | 1 | 3 | 2 | 1 |\n"), "{first}");
        assert!(
            first.contains("Other rules in scope that are not shown: LSN-02 (needs Prevents)."),
            "{first}"
        );
        assert_eq!(page(&first, &coverage).expect("markers"), first);
    }

    #[test]
    fn the_page_keeps_its_line_ends() {
        let coverage = coverage();
        let unix = page("A\n<!-- rules:begin -->\nold\n<!-- rules:end -->\nB\n", &coverage).expect("markers");
        let windows = unix.replace('\n', "\r\n");
        assert_eq!(page(&windows, &coverage).expect("markers"), windows);
    }

    #[test]
    fn a_page_without_proper_markers_is_refused() {
        let coverage = coverage();
        for text in [
            "",
            "<!-- rules:begin -->",
            "<!-- rules:end --><!-- rules:begin -->",
            "<!-- rules:begin --><!-- rules:begin --><!-- rules:end -->",
            "<!-- rules:begin --><!-- rules:end --><!-- rules:end -->",
        ] {
            assert!(page(text, &coverage).is_err(), "{text}");
        }
    }

    #[test]
    fn one_rule_is_shown_with_its_tests() {
        let coverage = coverage();
        let text = entry(coverage.entry("LSN-02").expect("there"));
        assert_eq!(text, "LSN-02  Two.\n  Catches   listen (tests/a.rs:7)\n  missing   needs Prevents\n");
    }
}
