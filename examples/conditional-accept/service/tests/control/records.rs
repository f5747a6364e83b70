//! Records: followed, waited for, lost and counted; the status derived from them; the policy.

use std::net::SocketAddr;
use std::time::Duration;

use gate_service::Limits;
use gate_service::policy::{Action, Answer, Policy};
use gate_service::record::{AcceptBy, DisconnectKind, Inspection, Problem, RequestId, Setting};
use gate_service::status::{Counters, Phase, Status};
use gate_service::wire::{
    IOCTL_GET_POLICY, IOCTL_NEXT_RECORDS, IOCTL_SET_POLICY, IOCTL_STATUS, TimedRecord, decode_policy,
    decode_records, encode_policy, policy_size,
};
use gate_service::{Control, Record, RecordSink as _, journal};
use wsk_sys::nt::NTSTATUS;
use wsk_sys::{
    STATUS_BUFFER_TOO_SMALL, STATUS_CANCELLED, STATUS_DEVICE_BUSY, STATUS_INSUFFICIENT_RESOURCES,
    STATUS_INVALID_PARAMETER, STATUS_PENDING,
};

use crate::io::{File, control, run};

const HEADER: usize = 16;
const RECORD: usize = 72;
const PLENTY: usize = HEADER + 2000 * RECORD;

fn note(control: &Control, number: u32) {
    control.record(Record::Policy { networks: number });
}

/// Returns the number of missed records, and the records.
pub(crate) fn records(output: Result<Vec<u8>, NTSTATUS>) -> (u64, Vec<TimedRecord>) {
    let output = output.expect("records");
    let (lost, records) = decode_records(&output).expect("well formed");
    (lost, records.map(|record| record.expect("well formed")).collect())
}

/// Does the same for records that [`note`] made.
pub(crate) fn numbers(output: Result<Vec<u8>, NTSTATUS>) -> (u64, Vec<u32>) {
    let (lost, records) = records(output);
    let number = |record: TimedRecord| match record.record {
        Record::Policy { networks } => networks,
        other => panic!("{other:?}"),
    };
    (lost, records.into_iter().map(number).collect())
}

fn status(file: &File) -> Status {
    Status::decode(&file.call(IOCTL_STATUS, &[], 512).expect("a status")).expect("well formed")
}

#[test]
fn records_come_in_order_and_to_everybody() {
    run(|passive| {
        let control = control(Duration::from_secs(1));
        for number in 0..3 {
            note(&control, number);
        }
        // Who comes late sees how it began, and each sees all.
        let files = [File::open(&control), File::open(&control)];
        for file in &files {
            assert_eq!(numbers(file.call(IOCTL_NEXT_RECORDS, &[], PLENTY)), (0, vec![0, 1, 2]));
            let call = file.send(IOCTL_NEXT_RECORDS, &[], PLENTY);
            assert!(call.returned == STATUS_PENDING && !call.has_ended());
            call.cancel();
            assert_eq!(call.wait(), Err(STATUS_CANCELLED));
        }
        let calls: Vec<_> = files.iter().map(|file| file.send(IOCTL_NEXT_RECORDS, &[], PLENTY)).collect();
        note(&control, 3);
        note(&control, 4);
        for (file, call) in files.iter().zip(calls) {
            assert_eq!(numbers(call.wait()), (0, vec![3]));
            assert_eq!(numbers(file.call(IOCTL_NEXT_RECORDS, &[], PLENTY)), (0, vec![4]));
        }
        control.shut_down(passive);
    });
}

#[test]
fn as_many_come_as_there_is_room_for() {
    run(|_| {
        let control = control(Duration::from_secs(1));
        let file = File::open(&control);
        for number in 0..100 {
            note(&control, number);
        }
        assert_eq!(file.call(IOCTL_NEXT_RECORDS, &[], HEADER + RECORD - 1), Err(STATUS_BUFFER_TOO_SMALL));
        let mut expected = 0..100;
        for (room, count) in [(RECORD, 1), (2 * RECORD - 1, 1), (2 * RECORD, 2), (PLENTY, 64), (PLENTY, 32)] {
            let (lost, numbers) = numbers(file.call(IOCTL_NEXT_RECORDS, &[], HEADER + room));
            assert_eq!((lost, &numbers), (0, &expected.by_ref().take(count).collect()), "room {room}");
        }
        assert_eq!(expected.next(), None);
    });
}

#[test]
fn what_is_lost_is_counted() {
    run(|_| {
        let control = control(Duration::from_secs(1));
        let (slow, slower, late) = (File::open(&control), File::open(&control), File::open(&control));
        let kept = journal::RECORDS as u32;
        note(&control, 0);
        for file in [&slow, &slower] {
            assert_eq!(numbers(file.call(IOCTL_NEXT_RECORDS, &[], PLENTY)), (0, vec![0]));
        }
        // As many as are kept, so nothing is lost; then three more than that.
        for number in 1..=kept {
            note(&control, number);
        }
        let (lost, first) = numbers(slower.call(IOCTL_NEXT_RECORDS, &[], HEADER + RECORD));
        assert_eq!((lost, first), (0, vec![1]));
        for number in kept + 1..=kept + 3 {
            note(&control, number);
        }
        // Record 4 is the oldest: `slow` has not seen 1 to 3, `slower` only missed 2 and 3.
        let fetch = |file: &File| numbers(file.call(IOCTL_NEXT_RECORDS, &[], HEADER + RECORD));
        assert_eq!(fetch(&slow), (3, vec![4]));
        assert_eq!(fetch(&slower), (2, vec![4]));
        assert_eq!(fetch(&slow), (3, vec![5]), "the sum does not change");
        // What was gone before the first call was never owed.
        assert_eq!(fetch(&late), (0, vec![4]));
        assert_eq!(status(&late).counters.records_lost, 5);
        for number in 0..10 * kept {
            note(&control, number);
        }
        let (lost, first) = fetch(&slow);
        // Up to kept + 3 were made before, of which it saw 0, 4 and 5; then all but the last `kept`.
        assert_eq!(
            (u64::from(lost == 3 + u64::from(kept - 2) + 9 * u64::from(kept)), first[0]),
            (1, 9 * kept),
            "{lost}"
        );
    });
}

#[test]
fn several_calls_of_one_handle_are_served_in_turn() {
    run(|passive| {
        let control = control(Duration::from_secs(1));
        let file = File::open(&control);
        let calls: Vec<_> = (0..8).map(|_| file.send(IOCTL_NEXT_RECORDS, &[], PLENTY)).collect();
        assert_eq!(file.call(IOCTL_NEXT_RECORDS, &[], PLENTY), Err(STATUS_DEVICE_BUSY));
        for (number, call) in calls.iter().enumerate().take(5) {
            note(&control, number as u32);
            assert_eq!(numbers(call.wait()), (0, vec![number as u32]));
        }
        assert!(calls[5..].iter().all(|call| !call.has_ended()));
        file.cleanup();
        assert!(calls[5..7].iter().all(|call| call.wait() == Err(STATUS_CANCELLED)));
        assert_eq!(file.call(IOCTL_NEXT_RECORDS, &[], PLENTY), Err(STATUS_CANCELLED));
        let other = File::open(&control);
        assert_eq!(numbers(other.call(IOCTL_NEXT_RECORDS, &[], PLENTY)).1.len(), 5);
        let waits = other.send(IOCTL_NEXT_RECORDS, &[], PLENTY);
        control.shut_down(passive);
        assert_eq!(waits.wait(), Err(STATUS_CANCELLED));
        note(&control, 9);
        assert_eq!(other.call(IOCTL_NEXT_RECORDS, &[], PLENTY), Err(STATUS_CANCELLED));
    });
}

#[test]
fn time_goes_on_and_every_record_gets_through() {
    run(|_| {
        let control = control(Duration::from_secs(1));
        let file = File::open(&control);
        let all = every_record();
        for record in &all {
            std::thread::sleep(Duration::from_millis(1));
            control.record(*record);
        }
        let (_, timed) = records(file.call(IOCTL_NEXT_RECORDS, &[], PLENTY));
        assert_eq!(timed.iter().map(|timed| timed.record).collect::<Vec<_>>(), all);
        // The kernel's time has its own grain, so the sum is looked at.
        assert!(timed.is_sorted_by_key(|timed| timed.time));
        assert!(timed[all.len() - 1].time >= timed[0].time + Duration::from_millis(10), "{timed:?}");
        assert!(timed.iter().all(|timed| timed.time < Duration::from_secs(10)), "{timed:?}");
    });
}

fn address() -> SocketAddr {
    "[2001:db8::1]:7".parse().expect("an address")
}

fn every_record() -> Vec<Record> {
    let (remote, id) = (address(), RequestId { key: u64::MAX, serial: 7 });
    let inspect = |action| Record::Inspect { id, remote, action, reason: None };
    vec![
        inspect(Inspection::Accept),
        inspect(Inspection::Reject),
        inspect(Inspection::Reject),
        inspect(Inspection::Pend),
        Record::Verdict { id, action: Answer::Accept },
        Record::Verdict { id, action: Answer::Reject },
        Record::Verdict { id, action: Answer::Reject },
        Record::Abort { id },
        Record::Accepted { remote, by: AcceptBy::Irp },
        Record::Accepted { remote, by: AcceptBy::Event },
        Record::Accepted { remote, by: AcceptBy::Event },
        Record::Disconnect { remote, kind: DisconnectKind::Graceful },
        Record::Disconnect { remote, kind: DisconnectKind::Abortive },
        Record::Closed { remote, received: 5, sent: 3 },
        Record::Policy { networks: 2 },
        Record::BadSetting { setting: Setting::Ask, problem: Problem::NotText, entry: 3 },
        Record::Unloaded { violations: 0, leaks: 0 },
    ]
}

#[test]
fn the_status_adds_up() {
    run(|_| {
        let control = control(Duration::from_millis(1234));
        let file = File::open(&control);
        let at_first = Status {
            phase: Phase::Starting,
            error: 0,
            local: "0.0.0.0:7007".parse().expect("an address"),
            accept_by: AcceptBy::Irp,
            limits: Limits::DEFAULT,
            verdict_timeout: 1234,
            counters: Counters { handles: 1, ..Counters::default() },
        };
        assert_eq!(status(&file), at_first);
        for record in every_record() {
            control.record(record);
        }
        control.record(Record::Loaded { local: address() });
        let counters = Counters {
            accepted: 1,
            rejected: 2,
            pended: 1,
            answered_accept: 1,
            answered_reject: 2,
            aborted: 1,
            connections: 3,
            open: 2,
            graceful: 1,
            abortive: 1,
            received: 5,
            sent: 3,
            handles: 1,
            ..Counters::default()
        };
        let listening = Status { phase: Phase::Listening, local: address(), counters, ..at_first };
        assert_eq!(status(&file), listening);
        control.stopping();
        assert_eq!(status(&file).phase, Phase::Stopping);
        control.record(Record::Failed { status: 0xC000_0001 });
        assert_eq!((status(&file).phase, status(&file).error), (Phase::Failed, 0xC000_0001));
    });
}

#[test]
fn the_policy_is_shown_and_replaced() {
    run(|_| {
        let control = control(Duration::from_secs(1));
        let file = File::open(&control);
        let shown = |file: &File| {
            decode_policy(&file.call(IOCTL_GET_POLICY, &[], 4096).expect("a policy")).expect("one")
        };
        assert_eq!((shown(&file).default_action(), shown(&file).rules().len()), (Action::Accept, 0));
        let mut policy = Policy::new(Action::Ask);
        for net in 0..Policy::CAPACITY as u8 {
            policy.add(std::net::IpAddr::from([10, 0, 0, net]).into(), Action::Reject).expect("room");
        }
        let mut bytes = vec![0; policy_size(&policy)];
        encode_policy(&policy, &mut bytes).expect("it fits");
        assert_eq!(file.call(IOCTL_SET_POLICY, &bytes, 0), Ok(vec![]));
        assert_eq!((shown(&file).default_action(), shown(&file).rules()), (Action::Ask, policy.rules()));
        assert_eq!(file.call(IOCTL_GET_POLICY, &[], bytes.len()), Ok(bytes.clone()));
        assert_eq!(file.call(IOCTL_GET_POLICY, &[], bytes.len() - 1), Err(STATUS_BUFFER_TOO_SMALL));
        // It is the one that the service asks, and it is recorded.
        let rules = control.settings().expect("an address").policy;
        assert_eq!(rules.action([10, 0, 0, 1].into()), Action::Reject);
        assert_eq!(rules.action([11, 0, 0, 1].into()), Action::Ask);
        assert_eq!(numbers(file.call(IOCTL_NEXT_RECORDS, &[], PLENTY)), (0, vec![Policy::CAPACITY as u32]));
        // What cannot be taken leaves it as it is.
        bytes[4] = 1;
        let kernel = nt_user::Kernel::current().expect("a kernel");
        kernel.faults().fail_if(|attempt| attempt.tag == wsk::memory::TAG);
        assert_eq!(file.call(IOCTL_SET_POLICY, &bytes, 0), Err(STATUS_INSUFFICIENT_RESOURCES));
        kernel.faults().clear();
        bytes[4] = 9;
        assert_eq!(file.call(IOCTL_SET_POLICY, &bytes, 0), Err(STATUS_INVALID_PARAMETER));
        // As a program of the version before sends it.
        bytes[4] = 1;
        bytes[0] = 1;
        assert_eq!(file.call(IOCTL_SET_POLICY, &bytes, 0), Err(STATUS_INVALID_PARAMETER));
        assert_eq!(shown(&file).default_action(), Action::Ask);
        // Limits are part of it, and of the status.
        let limits = Limits { clients: 7, per_source: 0, idle_timeout: 1000 };
        policy.set_limits(limits);
        encode_policy(&policy, &mut bytes).expect("it fits");
        assert_eq!(file.call(IOCTL_SET_POLICY, &bytes, 0), Ok(vec![]));
        assert_eq!((shown(&file).limits(), status(&file).limits), (limits, limits));
    });
}
