//! `gatectl status`: shows the status of the service.

use std::fmt::Display;
use std::io::{self, Write};

use gate_protocol::text::{BAD, GOOD, WAITS};
use gate_protocol::{Counters, Limits, Phase, Status};

use crate::cli::Format;
use crate::error::Error;
use crate::output::{self, limit};

/// Prints a status.
pub fn print(status: &Status, format: Format, out: &mut dyn Write) -> Result<(), Error> {
    let printed = if format.json { output::json(out, status) } else { table(status, out) };
    Ok(printed?)
}

/// The width of the names: that of the longest.
const NAMES: usize = 16;

fn table(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let style = match status.phase {
        Phase::Starting | Phase::Stopping => WAITS,
        Phase::Listening => GOOD,
        Phase::Failed => BAD,
    };
    let mut row =
        |name: &str, value: &dyn Display| output::line(out, format_args!("{name:<NAMES$}  {value}"));
    if status.error == 0 {
        row("phase", &format_args!("{style}{}{style:#}", status.phase))?;
    } else {
        row("phase", &format_args!("{style}{}{style:#}, status {:#010x}", status.phase, status.error))?;
    }
    row("address", &status.local)?;
    row("accepts by", &status.accept_by)?;
    row("verdict time-out", &format_args!("{} ms", status.verdict_timeout))?;
    let Limits { clients, per_source, idle_timeout } = status.limits;
    row("max clients", &clients)?;
    row("max per source", &limit(per_source, ""))?;
    row("idle time-out", &limit(idle_timeout, " ms"))?;
    output::line(out, "")?;
    let values = status.counters.values().map(|value| value.to_string());
    let width = values.iter().map(String::len).max().unwrap_or(0);
    for (name, value) in Counters::NAMES.iter().zip(values) {
        let name = name.replace('_', " ");
        output::line(out, format_args!("{name:<NAMES$}  {value:>width$}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use gate_protocol::record::AcceptBy;

    use super::*;

    fn printed(status: &Status, json: bool) -> String {
        let mut out = Vec::new();
        print(status, Format { json }, &mut anstream::StripStream::new(&mut out)).expect("memory takes all");
        String::from_utf8(out).expect("text")
    }

    fn status() -> Status {
        Status {
            phase: Phase::Listening,
            error: 0,
            local: SocketAddr::from(([0, 0, 0, 0], 7007)),
            accept_by: AcceptBy::Irp,
            verdict_timeout: 30_000,
            limits: Limits { per_source: Limits::NONE, ..Limits::DEFAULT },
            counters: Counters {
                accepted: 12,
                answered_accept: 3,
                received: 1_234_567,
                ..Counters::default()
            },
        }
    }

    #[test]
    fn the_table_is_aligned() {
        let expected = "\
phase             listening
address           0.0.0.0:7007
accepts by        irp
verdict time-out  30000 ms
max clients       4096
max per source    none
idle time-out     120000 ms

accepted               12
rejected                0
pended                  0
answered accept         3
";
        let table = printed(&status(), false);
        assert!(table.starts_with(expected), "{table}");
        let width = |line: &str| line.len();
        let counters: Vec<_> = table.lines().skip(8).map(width).collect();
        assert_eq!(counters, vec![NAMES + 2 + 7; Counters::COUNT], "{table}");
    }

    #[test]
    fn a_failure_says_its_status() {
        let failed = Status { phase: Phase::Failed, error: 0xC000_0225, ..status() };
        assert!(printed(&failed, false).starts_with("phase             failed, status 0xc0000225\n"));
    }

    #[test]
    fn json_is_one_object_with_all_of_it() {
        let line = printed(&status(), true);
        let start = [
            r#"{"phase":"listening","error":0,"local":"0.0.0.0:7007","accept_by":"irp","#,
            r#""verdict_timeout":30000,"#,
            r#""limits":{"clients":4096,"per_source":0,"idle_timeout":120000},"counters":{"accepted":12,"#,
        ];
        assert!(line.starts_with(&start.concat()), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn no_name_is_wider_than_its_column() {
        assert!(Counters::NAMES.iter().all(|name| name.len() <= NAMES));
    }
}
