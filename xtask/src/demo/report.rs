//! Output: a line while a scenario runs, JSON as each ends, and a table at the end.

use std::io::IsTerminal as _;
use std::time::Duration;

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

/// Outcome of a scenario.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// Its name.
    pub scenario: &'static str,
    /// Accept path.
    pub accept_path: String,
    /// Expected observations.
    pub expected: String,
    /// Actual observations.
    pub seen: String,
    /// True if they are the same.
    pub ok: bool,
    /// Figures.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Duration in milliseconds.
    pub milliseconds: u128,
}

/// Between what the client saw and what the gate recorded.
pub(crate) const RECORDS: &str = "; records: ";

/// Width of the table without a terminal.
const WIDTH: u16 = 150;

/// Prints a line for a scenario that has ended.
pub(crate) fn line(outcome: &Outcome) {
    let Outcome { scenario, accept_path, milliseconds, .. } = outcome;
    let mark = match (outcome.ok, std::io::stderr().is_terminal()) {
        (true, true) => "\x1b[32m✓\x1b[0m",
        (false, true) => "\x1b[31m✗\x1b[0m",
        (true, false) => "ok    ",
        (false, false) => "FAILED",
    };
    let note = if outcome.note.is_empty() { String::new() } else { format!("  ({})", outcome.note) };
    eprintln!("{mark} {scenario:<18} {accept_path:<6} {milliseconds:>7} ms{note}");
    if !outcome.ok {
        eprintln!(
            "  expected: {}\n  seen:     {}",
            outcome.expected,
            outcome.seen.replace('\n', "\n            ")
        );
    }
}

/// Prints a scenario as an object on a line.
pub(crate) fn json(outcome: &Outcome) {
    match serde_json::to_string(outcome) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("error: {error}"),
    }
}

/// The table of all that was tried.
pub(crate) fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["scenario", "accept by", "expected", "seen", "", "ms"]);
    if !table.is_tty() {
        table.set_width(WIDTH);
    }
    for outcome in outcomes {
        let (word, colour) = if outcome.ok { ("ok", Color::Green) } else { ("FAILED", Color::Red) };
        let note = if outcome.note.is_empty() { String::new() } else { format!("\n({})", outcome.note) };
        let seen = Cell::new(lines(&outcome.seen) + &note);
        table.add_row([
            Cell::new(outcome.scenario),
            Cell::new(&outcome.accept_path),
            Cell::new(lines(&outcome.expected)),
            if outcome.ok { seen } else { seen.fg(colour) },
            Cell::new(word).fg(colour),
            Cell::new(outcome.milliseconds).set_alignment(comfy_table::CellAlignment::Right),
        ]);
    }
    table
}

/// Puts the client's observations on one line, and the records on the next.
fn lines(text: &str) -> String {
    text.replacen(RECORDS, "\n", 1)
}

/// A duration in seconds.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_objects_and_rows() {
        let outcome = Outcome {
            scenario: "reject",
            accept_path: "irp".to_owned(),
            expected: "reset; records: reject".to_owned(),
            seen: "silence; records: reject".to_owned(),
            ok: false,
            note: String::new(),
            milliseconds: 7,
        };
        assert_eq!(
            serde_json::to_string(&outcome).unwrap(),
            "{\"scenario\":\"reject\",\"accept_path\":\"irp\",\"expected\":\"reset; records: reject\",\
             \"seen\":\"silence; records: reject\",\"ok\":false,\"milliseconds\":7}"
        );
        let shown = table(&[outcome]).to_string();
        assert!(shown.contains("FAILED") && shown.contains("silence"), "{shown}");
    }
}
