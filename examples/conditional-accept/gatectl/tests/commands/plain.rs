//! `status`, `policy` and `watch` against a scripted device.

use std::time::{Duration, Instant};

use gate_protocol::Limits;
use gate_protocol::policy::{Action, Policy};
use gate_protocol::record::{AcceptBy, Inspection, Record, RequestId};
use gate_protocol::wire::{
    IOCTL_ANSWER, IOCTL_GET_POLICY, IOCTL_NEXT_QUESTION, IOCTL_NEXT_RECORDS, IOCTL_SET_POLICY, IOCTL_STATUS,
    StatusBytes, decode_policy, encode_policy, policy_size,
};
use gatectl::device::Device as _;
use proptest::prelude::*;
use zerocopy::IntoBytes as _;

use crate::screen::LIMIT;
use crate::script::{Reply, Running, Script, records, run, status};

const OTHER_VERSION: &str = "use the gatectl that was built with the driver";

fn some_records() -> [Record; 3] {
    let remote = "127.0.0.2:5555".parse().expect("an address");
    let id = RequestId { key: 0x1f, serial: 7 };
    [
        Record::Inspect { id, remote, action: Inspection::Accept, reason: None },
        Record::Accepted { remote, by: AcceptBy::Irp },
        Record::Closed { remote, received: 3, sent: 3 },
    ]
}

fn encoded(policy: &Policy) -> Vec<u8> {
    let mut bytes = vec![0; policy_size(policy)];
    encode_policy(policy, &mut bytes).expect("room");
    bytes
}

#[test]
fn status_shows_what_the_driver_says() {
    let script = Script::new();
    let ran = run(&script, "status", None);
    ran.result.expect("the device answers");
    assert!(
        ran.out.starts_with("phase             listening\naddress           127.0.0.1:7007\n"),
        "{}",
        ran.out
    );
    assert!(ran.out.lines().any(|line| line.split_whitespace().eq(["open", "3"])), "{}", ran.out);
    let json = run(&script, "status --json", None);
    let object: serde_json::Value = serde_json::from_str(&json.out).expect("an object");
    assert_eq!(object["counters"]["open"], 3);
    assert_eq!(object["accept_by"], "event");
}

#[test]
fn every_command_sees_that_the_driver_is_of_another_version() {
    for (reply, said) in [
        (Reply::Bytes(7u32.to_le_bytes().repeat(60)), "protocol version 7"),
        (Reply::Bytes(7u32.to_le_bytes().to_vec()), "protocol version 7"),
        (Reply::Bytes(1u32.to_le_bytes().repeat(44)), "uses protocol version 1, this program version 2"),
        (Reply::Bytes(2u32.to_le_bytes().to_vec()), "4 bytes instead of"),
        (Reply::Bytes(vec![]), "0 bytes instead of"),
        (Reply::Bytes([&2u32.to_le_bytes()[..], &[9; size_of::<StatusBytes>() - 4]].concat()), "field `"),
        (Reply::Code(1), "rejected the request"),
        (Reply::Code(50), "rejected the request"),
        (Reply::Code(122), "invalid length"),
    ] {
        let script = Script::new();
        script.always(IOCTL_STATUS, reply.clone());
        for words in ["status", "policy show", "policy set --default ask", "watch", "ask --verdict accept"] {
            let ran = run(&script, words, None);
            let error = ran.error();
            assert!(error.contains(said) && error.ends_with(OTHER_VERSION), "{words}: {reply:?}: {error}");
            assert_eq!(ran.out, "");
        }
    }
}

#[test]
fn a_driver_that_is_gone_or_full_is_told_so() {
    for (code, said) in [
        (5, "the driver was stopped: to restart it, run sc start conditional_accept"),
        (995, "the driver was stopped: to restart it, run sc start conditional_accept"),
        (1450, "the driver is out of resources: close other gatectl instances and retry"),
        (170, "the driver is out of resources: close other gatectl instances and retry"),
    ] {
        let script = Script::new();
        script.always(IOCTL_GET_POLICY, Reply::Code(code));
        assert_eq!(run(&script, "policy show", None).error(), said);
    }
}

#[test]
fn set_replaces_the_policy_and_shows_what_is_in_force_then() {
    let script = Script::new();
    script.always(IOCTL_SET_POLICY, Reply::Bytes(vec![]));
    let mut in_force = Policy::new(Action::Reject);
    in_force.add("127.0.0.0/8".parse().expect("a network"), Action::Ask).expect("room");
    in_force.set_limits(Limits { clients: 7, per_source: 3, idle_timeout: Limits::NONE });
    script.always(IOCTL_GET_POLICY, Reply::Bytes(encoded(&in_force)));

    let ran =
        run(&script, "policy set --accept ::1 --ask 10.0.0.0/8 --default reject --max-per-source 2", None);
    ran.result.expect("the device takes it");
    assert_eq!(
        ran.out,
        "127.0.0.0/8  ask\nall others   reject\n\n\
         max clients     7\nmax per source  3\nidle time-out   none\n"
    );
    let [sent] = &script.inputs(IOCTL_SET_POLICY)[..] else { panic!("one request") };
    let sent = decode_policy(sent).expect("a policy");
    assert_eq!(sent.default_action(), Action::Reject);
    assert_eq!(sent.rules().len(), 2);
    // What is not said of the limits stays as it was in force.
    assert_eq!(sent.limits(), Limits { clients: 7, per_source: 2, idle_timeout: Limits::NONE });
    assert_eq!(sent.action("10.1.2.3".parse().expect("an address")), Action::Ask);
    let ran = run(&script, "policy show --json", None);
    assert_eq!(
        ran.out,
        "{\"default\":\"reject\",\"accept\":[],\"reject\":[],\"ask\":[\"127.0.0.0/8\"],\
         \"max_clients\":7,\"max_per_source\":3,\"idle_timeout\":0}\n"
    );
}

#[test]
fn a_policy_that_is_refused_is_not_shown_as_if_it_were_in_force() {
    let script = Script::new();
    script.always(IOCTL_SET_POLICY, Reply::Code(87));
    script.always(IOCTL_GET_POLICY, Reply::Bytes(encoded(&Policy::new(Action::Accept))));
    let ran = run(&script, "policy set --default ask", None);
    assert!(ran.error().contains("invalid parameter"), "{}", ran.error());
    assert_eq!((ran.out.as_str(), script.inputs(IOCTL_GET_POLICY).len()), ("", 1));
}

#[test]
fn watch_prints_as_many_records_as_were_asked_for() {
    let script = Script::new();
    script.reply(IOCTL_NEXT_RECORDS, records(0, &some_records()[..1]));
    script.reply(IOCTL_NEXT_RECORDS, records(0, &some_records()));
    let ran = run(&script, "watch --count 3", None);
    ran.result.as_ref().expect("enough came");
    assert_eq!(
        ran.out,
        "    1.500  inspect     127.0.0.2:5555         accept, request 1f-7\n    \
             1.500  inspect     127.0.0.2:5555         accept, request 1f-7\n    \
             1.501  accepted    127.0.0.2:5555         by irp\n"
    );
}

#[test]
fn watch_prints_the_objects_of_the_example() {
    let script = Script::new();
    script.reply(IOCTL_NEXT_RECORDS, records(0, &some_records()));
    let ran = run(&script, "watch --json --count 3", None);
    let lines: Vec<_> =
        some_records().iter().map(|record| serde_json::to_string(record).expect("an object")).collect();
    assert_eq!(ran.out.lines().collect::<Vec<_>>(), lines);
    assert_eq!(lines[0], r#"{"event":"inspect","id":"1f-7","remote":"127.0.0.2:5555","action":"accept"}"#);
}

#[test]
fn lost_records_are_said_where_they_were_lost() {
    let script = Script::new();
    for lost in [0, 12, 12, 15] {
        script.reply(IOCTL_NEXT_RECORDS, records(lost, &some_records()[2..]));
    }
    let json = run(&script, "watch --json --count 4", None);
    let events: Vec<serde_json::Value> =
        json.out.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let events: Vec<_> =
        events.iter().map(|object| (object["event"].as_str(), object["records"].as_u64())).collect();
    let (closed, lost) = ((Some("closed"), None), |records| (Some("lost"), Some(records)));
    assert_eq!(events, [closed, lost(12), closed, closed, lost(3), closed]);

    script.reply(IOCTL_NEXT_RECORDS, records(2, &some_records()[2..]));
    let text = run(&script, "watch --count 1", None);
    assert_eq!(text.lines()[0], "lost                               2 records were not fetched in time");
}

#[test]
fn a_record_of_another_version_is_left_out_and_told() {
    let script = Script::new();
    let Reply::Bytes(mut bytes) = records(0, &some_records()) else { panic!("bytes") };
    bytes[16 + 72 + 8] = 99;
    script.reply(IOCTL_NEXT_RECORDS, Reply::Bytes(bytes.clone()));
    let ran = run(&script, "watch --count 2 --json", None);
    ran.result.as_ref().expect("two can be read");
    assert_eq!(ran.out.lines().count(), 2);
    assert_eq!(ran.remarks, "cannot decode a record: field `kind` has an invalid value\n");
    // A header that promises more than there is, and half a header.
    bytes[8] = 4;
    for broken in [bytes.clone(), bytes[..9].to_vec(), vec![]] {
        script.reply(IOCTL_NEXT_RECORDS, Reply::Bytes(broken));
        let error = run(&script, "watch", None).error();
        assert!(error.starts_with("cannot decode the records from the driver ("), "{error}");
        assert!(error.ends_with(OTHER_VERSION), "{error}");
    }
}

#[test]
fn watch_ends_with_its_time() {
    let script = Script::new();
    script.reply(IOCTL_NEXT_RECORDS, records(0, &some_records()[..1]));
    let start = Instant::now();
    let ran = run(&script, "watch --seconds 1", None);
    ran.result.as_ref().expect("the time is up");
    assert_eq!(ran.lines().len(), 1);
    assert!((Duration::from_secs(1)..LIMIT).contains(&start.elapsed()));
    let ran = run(&script, "watch --seconds 0 --count 2", None);
    assert_eq!(ran.error(), "only 0 of 2 records came before the time limit");
}

#[test]
fn watch_ends_with_ctrl_c() {
    let script = Script::new();
    script.reply(IOCTL_NEXT_RECORDS, records(0, &some_records()[..1]));
    let watch = Running::start(&script, "watch", None);
    let counted = Running::start(&script, "watch --count 2", None);
    script.wait_for(IOCTL_NEXT_RECORDS, 3);
    script.stop();
    let (plain, counted) = (watch.end(), counted.end());
    plain.result.as_ref().expect("that is how it ends");
    // There was one record for both.
    let found = 1 - plain.lines().len();
    assert_eq!(counted.error(), format!("only {found} of 2 records came before the interruption"));
}

#[test]
fn records_without_end_do_not_keep_it_from_ending() {
    let script = Script::new();
    script.always(IOCTL_NEXT_RECORDS, records(0, &some_records()));
    run(&script, "watch --seconds 1", None).result.expect("the time is up");
    let watch = Running::start(&script, "watch", None);
    watch.out.wait_for("closed");
    script.stop();
    watch.end().result.expect("that is how it ends");
}

#[test]
fn watch_ends_with_the_driver() {
    let script = Script::new();
    let unloaded = Record::Unloaded { violations: 0, leaks: 0 };
    for code in [995, 5, 303, 433] {
        script.reply(IOCTL_NEXT_RECORDS, records(0, &[unloaded]));
        script.reply(IOCTL_NEXT_RECORDS, Reply::Code(code));
        run(&script, "watch", None).result.expect("the last record has come");
        script.reply(IOCTL_NEXT_RECORDS, Reply::Code(code));
        let error = run(&script, "watch", None).error();
        assert_eq!(error, "the driver was stopped: to restart it, run sc start conditional_accept");
    }
}

#[test]
fn output_that_nobody_takes_ends_it() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let script = Script::new();
    script.reply(IOCTL_NEXT_RECORDS, records(0, &some_records()));
    let device: std::sync::Arc<dyn gatectl::device::Device> = script;
    let options: gatectl::cli::Options =
        clap::Parser::try_parse_from(["gatectl", "watch"]).expect("well formed");
    let error = gatectl::run(&options.command, &device, &mut Closed, &mut Vec::new(), || unreachable!())
        .expect_err("nobody takes it");
    assert!(error.is_closed_pipe(), "{error}");
}

/// Bytes of any kind, and some that are nearly right.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let Reply::Bytes(some_records) = records(0, &some_records()) else { unreachable!() };
    let policy = [&[3, 0, 2, 0][..], &[4, 8, 1, 0, 10], &[0; 15], &[6, 64, 2, 0], &[1; 16]].concat();
    let status = StatusBytes::from(&status()).as_bytes().to_vec();
    let mut question = vec![1; 56];
    question[24] = 4;
    let right = vec![status, some_records, policy, question];
    let nearly =
        (proptest::sample::select(right), any::<proptest::sample::Index>(), any::<u8>(), any::<bool>());
    let nearly = nearly.prop_map(|(mut bytes, at, value, cut)| {
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes.truncate(if cut { at } else { bytes.len() });
        bytes
    });
    prop_oneof![proptest::collection::vec(any::<u8>(), 0..250), nearly]
}

proptest! {
    #[test]
    fn whatever_a_driver_sends_is_shown_or_refused_in_a_line(bytes in noise()) {
        for (words, code) in [
            ("status", IOCTL_STATUS),
            ("policy show", IOCTL_GET_POLICY),
            ("watch --json", IOCTL_NEXT_RECORDS),
            ("ask --verdict accept", IOCTL_NEXT_QUESTION),
        ] {
            let script = Script::new();
            script.always(IOCTL_ANSWER, Reply::Bytes(vec![]));
            script.reply(code, Reply::Bytes(bytes.clone()));
            script.reply(code, Reply::Code(995));
            if let Err(error) = run(&script, words, None).result {
                prop_assert!(!error.to_string().contains('\n'), "{words}: {error}");
            }
        }
    }
}
