//! A record as one line of text: time, event, address, details.
//!
//! The colours are always there; a stream that is no terminal takes them out (`anstream` does).

use core::fmt;
use core::time::Duration;

use anstyle::{AnsiColor, Style};

use crate::policy::Answer;
use crate::record::{DisconnectKind, Inspection, Record};

/// Success.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Failure, or refusal.
pub const BAD: Style = AnsiColor::Red.on_default();
/// Pending, or worth a look.
pub const WAITS: Style = AnsiColor::Yellow.on_default();
/// Neutral.
pub const PLAIN: Style = Style::new();
/// Supplementary.
pub const FAINT: Style = Style::new().dimmed();

/// A line: its parts in columns.
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    /// Time of the event; the program chooses the origin.
    pub time: Duration,
    /// Style of the event.
    pub style: Style,
    /// Name of the event.
    pub what: &'a str,
    /// With whom.
    pub who: &'a dyn fmt::Display,
    /// Details.
    pub how: fmt::Arguments<'a>,
}

impl fmt::Debug for Columns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Columns").field("what", &self.what).finish_non_exhaustive()
    }
}

impl fmt::Display for Columns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { style, what, who, how, .. } = self;
        let seconds = self.time.as_secs_f64();
        // The padding is inside the colours: it has to count letters, not escape sequences.
        write!(f, "{FAINT}{seconds:9.3}{FAINT:#}  {style}{what:<10}{style:#}  {who:<21}  {how}")
    }
}

/// A record as a line, without the end of line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Time of the event; the program chooses the origin.
    pub time: Duration,
    /// The record.
    pub record: &'a Record,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time;
        let mut line = |style, what, who: &dyn fmt::Display, how: fmt::Arguments<'_>| {
            Columns { time, style, what, who, how }.fmt(f)
        };
        match self.record {
            Record::Loaded { local } => line(GOOD, "loaded", local, format_args!("listening")),
            Record::Inspect { id, remote, action, reason } => {
                let style = match action {
                    Inspection::Accept => GOOD,
                    Inspection::Reject => BAD,
                    Inspection::Pend => WAITS,
                };
                match reason {
                    Some(reason) => {
                        line(style, "inspect", remote, format_args!("{action} ({reason}), request {id}"))
                    }
                    None => line(style, "inspect", remote, format_args!("{action}, request {id}")),
                }
            }
            Record::Verdict { id, action } => {
                let style = if *action == Answer::Accept { GOOD } else { BAD };
                line(style, "verdict", &"", format_args!("{action}, request {id}"))
            }
            Record::Abort { id } => line(BAD, "abort", &"", format_args!("given up, request {id}")),
            Record::Accepted { remote, by } => line(GOOD, "accepted", remote, format_args!("by {by}")),
            Record::Disconnect { remote, kind } => {
                let style = if *kind == DisconnectKind::Graceful { PLAIN } else { BAD };
                line(style, "disconnect", remote, format_args!("{kind}"))
            }
            Record::Closed { remote, received, sent } => {
                let style = if received == sent { PLAIN } else { WAITS };
                line(style, "closed", remote, format_args!("received {received}, sent {sent}"))
            }
            Record::Dropped { remote, reason } => line(BAD, "dropped", remote, format_args!("{reason}")),
            Record::Policy { networks } => {
                line(PLAIN, "policy", &"", format_args!("replaced, {networks} networks"))
            }
            Record::BadSetting { setting, problem, entry: 0 } => {
                line(BAD, "setting", setting, format_args!("{problem}"))
            }
            Record::BadSetting { setting, problem, entry } => {
                line(BAD, "setting", setting, format_args!("entry {entry} {problem}"))
            }
            Record::Died { local } => line(BAD, "died", local, format_args!("no longer listening")),
            Record::Failed { status } => line(BAD, "failed", &"", format_args!("status {status:#010x}")),
            Record::Unloaded { violations, leaks } => {
                let style = if *violations == 0 && *leaks == 0 { GOOD } else { BAD };
                line(style, "unloaded", &"", format_args!("violations {violations}, leaks {leaks}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;
    use std::format;
    use std::string::{String, ToString as _};
    use std::vec::Vec;

    use super::*;
    use crate::limits::Reason;
    use crate::record::{AcceptBy, Problem, RequestId, Setting};

    /// The line without its colours and its time.
    fn plain(record: &Record) -> String {
        let line = Line { time: Duration::from_millis(1234), record }.to_string();
        let mut plain = String::new();
        let mut parts = line.split('\x1b');
        plain.push_str(parts.next().expect("a first part"));
        for part in parts {
            plain.push_str(part.split_once('m').expect("a colour").1);
        }
        plain.strip_prefix("    1.234  ").expect("the time").to_string()
    }

    #[test]
    fn lines_are_aligned() {
        let id = RequestId { key: 1, serial: 2 };
        let remote = SocketAddr::from(([127, 0, 0, 2], 5555));
        let records = [
            Record::Loaded { local: remote },
            Record::Inspect { id, remote, action: Inspection::Pend, reason: None },
            Record::Inspect { id, remote, action: Inspection::Reject, reason: Some(Reason::Full) },
            Record::Dropped { remote, reason: Reason::Idle },
            Record::Verdict { id, action: Answer::Reject },
            Record::Abort { id },
            Record::Accepted { remote, by: AcceptBy::Irp },
            Record::Disconnect { remote, kind: DisconnectKind::Abortive },
            Record::Closed { remote, received: 3, sent: 2 },
            Record::Policy { networks: 4 },
            Record::BadSetting { setting: Setting::Listen, problem: Problem::WrongType, entry: 0 },
            Record::BadSetting { setting: Setting::Ask, problem: Problem::NotText, entry: 3 },
            Record::Failed { status: 0xC000_0001 },
            Record::Died { local: remote },
            Record::Unloaded { violations: 1, leaks: 2 },
        ];
        let lines: Vec<_> = records.iter().map(plain).collect();
        assert_eq!(
            lines,
            [
                "loaded      127.0.0.2:5555         listening",
                "inspect     127.0.0.2:5555         pend, request 1-2",
                "inspect     127.0.0.2:5555         reject (full), request 1-2",
                "dropped     127.0.0.2:5555         idle",
                "verdict                            reject, request 1-2",
                "abort                              given up, request 1-2",
                "accepted    127.0.0.2:5555         by irp",
                "disconnect  127.0.0.2:5555         abortive",
                "closed      127.0.0.2:5555         received 3, sent 2",
                "policy                             replaced, 4 networks",
                "setting     Listen                 has the wrong type",
                "setting     Ask                    entry 3 is not ASCII text",
                "failed                             status 0xc0000001",
                "died        127.0.0.2:5555         no longer listening",
                "unloaded                           violations 1, leaks 2",
            ]
        );
    }

    #[test]
    fn what_went_wrong_is_marked() {
        let bad = Record::Unloaded { violations: 0, leaks: 1 };
        let good = Record::Unloaded { violations: 0, leaks: 0 };
        let line = |record| Line { time: Duration::ZERO, record }.to_string();
        assert!(line(&bad).contains(&format!("{BAD}unloaded")));
        assert!(line(&good).contains(&format!("{GOOD}unloaded")));
    }
}
