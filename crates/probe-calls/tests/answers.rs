//! The calls, made on the user-mode kernel: its provider gives the answers of `tests/probe-answers.tsv`.
//!
//! The calls break rules on purpose; the reports of the checker are part of the expectation.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use probe_calls::answers::{Answers, Expected};
use probe_calls::{Output, calls, run};
use wsk_sim::wsk_provider::Alternatives;
use wsk_sim::{Behaviours, Builder, Completion, Level, Sim};

const EXPECTED: &str = include_str!("../../../tests/probe-answers.tsv");

/// The rules that the checker reports for these calls.
const BROKEN: [&str; 15] = [
    "BIND-12", "DISC-23", "EVT-07", "EVT-08", "EVT-28", "EVT-34", "EVT-42", "ICMP-04", "ICMP-09", "ICMP-10",
    "ICMP-12", "INSP-30", "RCV-09", "SND-15", "SOCK-07",
];

#[derive(Default)]
struct Lines(String);

impl Output for Lines {
    fn line(&mut self, line: &[u8]) {
        self.0.push_str(std::str::from_utf8(line).expect("lines are text"));
        self.0.push('\n');
    }
}

/// Makes the calls on such a machine; returns the lines and the rules that were broken.
fn probe(machine: Builder) -> (String, BTreeSet<&'static str>) {
    // A held callback is known by what the processor runs of it in the seconds for which it is held: one at a
    // time.
    static HELD: Mutex<()> = Mutex::new(());
    let _alone = HELD.lock();
    let sim = machine.build();
    let lines = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&lines);
    let body = move || {
        let mut lines = Lines::default();
        run(&mut lines, 0);
        *kept.lock().expect("nobody panics") = lines.0;
    };
    assert!(sim.thread("probe", body).join().is_ok(), "the probe does not panic");
    let report = sim.finish();
    assert!(report.leaks.is_clean(), "{report}");
    let lines = lines.lock().expect("nobody panics").clone();
    (lines, report.violations.iter().map(|violation| violation.rule).collect())
}

#[test]
fn the_provider_answers_as_recorded() {
    let (lines, broken) = probe(Sim::builder());
    let found = Answers::parse(&lines).expect("well formed");
    let expected = Expected::parse(EXPECTED).expect("well formed");
    assert_eq!(expected.differences(&found), Vec::<String>::new(), "\n{lines}");
    assert_eq!(broken, BTreeSet::from(BROKEN));
}

#[test]
fn the_answers_are_the_same_at_any_time_and_level() {
    let late = Sim::builder()
        .completion(Completion::PendLate)
        .callbacks(Level::Dispatch)
        .completions(Level::Dispatch);
    let (lines, broken) = probe(late);
    let found = Answers::parse(&lines).expect("well formed");
    let expected = Expected::parse(EXPECTED).expect("well formed");
    assert_eq!(expected.differences(&found), Vec::<String>::new(), "\n{lines}");
    assert_eq!(broken, BTreeSet::from(BROKEN));
}

/// A system with the other allowed answer everywhere: each of its answers differs from the provider's
/// default.
#[test]
fn other_answers_are_seen() {
    let machine = Sim::builder().behaviours(other);
    let (lines, _) = probe(machine);
    let found = Answers::parse(&lines).expect("well formed");
    let expected = Expected::parse(EXPECTED).expect("well formed");
    let differences = expected.differences(&found);
    for (call, answer) in [
        ("socket.two-categories", "STATUS_SUCCESS+socket"),
        ("socket.no-protocol", "STATUS_PROTOCOL_UNREACHABLE"),
        ("socket.null-client", "STATUS_INVALID_HANDLE"),
        ("bind.second", "STATUS_INVALID_PARAMETER"),
        ("conditional.null-inspect", "STATUS_SUCCESS"),
        ("conditional.stream", "STATUS_SUCCESS"),
        ("connect.after-failed", "STATUS_SUCCESS"),
        ("send.empty", "STATUS_INVALID_PARAMETER"),
        ("send.after-disconnect", "STATUS_LOCAL_DISCONNECT"),
        ("disconnect.second", "STATUS_SUCCESS"),
        ("disconnect.abortive-buffer", "STATUS_SUCCESS"),
        ("event.bytes-accepted", "zero"),
        ("stream.accept-before-listen", "STATUS_CANCELLED+cancelled"),
        ("datagram.truncated", "STATUS_BUFFER_OVERFLOW+8+MSG_TRUNC"),
        ("events.null-callback", "STATUS_SUCCESS"),
        ("events.disable-two", "STATUS_SUCCESS"),
        ("static.second", "STATUS_SUCCESS"),
        ("static.accepted", "on"),
        ("static.after-socket", "STATUS_SUCCESS"),
        ("inspect.unknown", "STATUS_SUCCESS"),
        ("inspect.early", "STATUS_SUCCESS"),
    ] {
        let reported =
            differences.iter().any(|line| line.starts_with(&format!("{call}: {answer} instead of ")));
        assert!(reported, "{call}: {answer}\n{}\n{lines}", differences.join("\n"));
    }
    // Nothing is left out for it.
    assert!(found.rows.iter().all(|row| row.answer.is_ok()), "{lines}");
}

/// The last alternative of every rule.
fn other(behaviours: &mut Behaviours) {
    fn last<T: Alternatives>(choice: &mut T) {
        *choice = *T::ALL.last().expect("there are alternatives");
    }
    last(&mut behaviours.category_bits);
    last(&mut behaviours.no_such_pair);
    last(&mut behaviours.null_client_irp);
    last(&mut behaviours.second_bind);
    last(&mut behaviours.missing_inspection);
    last(&mut behaviours.conditional_stream);
    last(&mut behaviours.failed_connect);
    last(&mut behaviours.empty_send);
    last(&mut behaviours.send_after_disconnect);
    last(&mut behaviours.second_disconnect);
    last(&mut behaviours.abortive_buffer);
    last(&mut behaviours.bytes_accepted);
    last(&mut behaviours.accept_before_listen);
    last(&mut behaviours.truncated);
    last(&mut behaviours.null_callback);
    last(&mut behaviours.disable_several);
    last(&mut behaviours.second_static);
    last(&mut behaviours.static_on_accept);
    last(&mut behaviours.late_static);
    last(&mut behaviours.complete_unknown);
    last(&mut behaviours.complete_early);
}

#[test]
fn every_call_has_a_line_and_a_scene_has_no_more_than_its_bits() {
    let names: Vec<&str> = calls().map(|(call, _)| call).collect();
    let expected = Expected::parse(EXPECTED).expect("well formed");
    let recorded: Vec<&str> = expected.rows().map(|(row, _)| &*row.call).collect();
    assert_eq!(names, recorded);
}
