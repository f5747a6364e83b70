//! Encoding and decoding round trips, and input that must be rejected without harm.

use core::net::SocketAddr;
use core::time::Duration;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use zerocopy::IntoBytes as _;

use super::*;
use crate::limits::{Limits, Reason};
use crate::policy::{Net, Policy};
use crate::record::{DisconnectKind, Inspection, Problem, Record, RequestId, Setting};
use crate::status::{Counters, Phase, Status};

fn addresses() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16, u32, u32)>().prop_map(|(ip, port, flow, scope)| {
            SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope).into()
        }),
    ]
}

fn ids() -> impl Strategy<Value = RequestId> {
    any::<(u64, u32)>().prop_map(|(key, serial)| RequestId { key, serial })
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![Just(Answer::Accept), Just(Answer::Reject)]
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![Just(Action::Accept), Just(Action::Reject), Just(Action::Ask)]
}

fn ways() -> impl Strategy<Value = AcceptBy> {
    prop_oneof![Just(AcceptBy::Irp), Just(AcceptBy::Event)]
}

fn reasons() -> impl Strategy<Value = Reason> {
    prop_oneof![
        Just(Reason::Policy),
        Just(Reason::Full),
        Just(Reason::Source),
        Just(Reason::Memory),
        Just(Reason::Idle)
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (Limits::CLIENTS, Limits::PER_SOURCE, Limits::IDLE_TIMEOUT)
        .prop_map(|(clients, per_source, idle_timeout)| Limits { clients, per_source, idle_timeout })
}

fn records() -> impl Strategy<Value = Record> {
    let inspections = prop_oneof![Just(Inspection::Accept), Just(Inspection::Reject), Just(Inspection::Pend)];
    let kinds = prop_oneof![Just(DisconnectKind::Graceful), Just(DisconnectKind::Abortive)];
    let settings = proptest::sample::select(&Setting::ALL[..]);
    let problems = proptest::sample::select(&Problem::ALL[..]);
    prop_oneof![
        addresses().prop_map(|local| Record::Loaded { local }),
        (ids(), addresses(), inspections, proptest::option::of(reasons()))
            .prop_map(|(id, remote, action, reason)| Record::Inspect { id, remote, action, reason }),
        (addresses(), reasons()).prop_map(|(remote, reason)| Record::Dropped { remote, reason }),
        (ids(), answers()).prop_map(|(id, action)| Record::Verdict { id, action }),
        ids().prop_map(|id| Record::Abort { id }),
        (addresses(), ways()).prop_map(|(remote, by)| Record::Accepted { remote, by }),
        (addresses(), kinds).prop_map(|(remote, kind)| Record::Disconnect { remote, kind }),
        (addresses(), any::<(u64, u64)>()).prop_map(|(remote, (received, sent))| Record::Closed {
            remote,
            received,
            sent
        }),
        any::<(u64, u64)>().prop_map(|(violations, leaks)| Record::Unloaded { violations, leaks }),
        any::<u32>().prop_map(|networks| Record::Policy { networks }),
        (settings, problems, any::<u32>()).prop_map(|(setting, problem, entry)| Record::BadSetting {
            setting,
            problem,
            entry
        }),
        any::<u32>().prop_map(|status| Record::Failed { status }),
        addresses().prop_map(|local| Record::Died { local }),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    let nets = proptest::collection::vec((addresses(), any::<u8>(), actions()), 0..Policy::CAPACITY + 3);
    (actions(), nets, limits()).prop_map(|(default, nets, limits)| {
        let mut policy = Policy::new(default);
        policy.set_limits(limits);
        for (address, bits, action) in nets {
            // A prefix that is too long, a contradiction and a full list leave the policy as it is.
            if let Some(net) = Net::new(address.ip(), bits) {
                let _ = policy.add(net, action);
            }
        }
        policy
    })
}

fn encoded(policy: &Policy) -> Vec<u8> {
    let mut bytes = vec![0xAA; policy_size(policy)];
    assert_eq!(encode_policy(policy, &mut bytes), Some(bytes.len()));
    bytes
}

/// Input of any length with any bytes, some of it nearly valid.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..2048);
    let nearly =
        (policies(), any::<proptest::sample::Index>(), any::<u8>()).prop_map(|(policy, at, value)| {
            let mut bytes = encoded(&policy);
            let at = at.index(bytes.len());
            bytes[at] = value;
            bytes
        });
    prop_oneof![bytes, nearly]
}

proptest! {
    #[test]
    fn records_go_round(record in records(), units in any::<u64>()) {
        let time = Duration::new(units / 10_000_000, (units % 10_000_000) as u32 * 100);
        let timed = TimedRecord { time, record };
        let bytes = RecordBytes::from(&timed);
        prop_assert_eq!(TimedRecord::decode(bytes.as_bytes()), Ok(timed));
    }

    #[test]
    fn policies_go_round(policy in policies()) {
        let bytes = encoded(&policy);
        let decoded = decode_policy(&bytes).expect("what was encoded");
        prop_assert_eq!(decoded.rules(), policy.rules());
        prop_assert_eq!(decoded.default_action(), policy.default_action());
        prop_assert_eq!(decoded.limits(), policy.limits());
        let mut small = vec![0; bytes.len() - 1];
        prop_assert_eq!(encode_policy(&policy, &mut small), None);
    }

    #[test]
    fn questions_and_answers_go_round(
        number in any::<u64>(), id in ids(), remote in addresses(),
        time_left in any::<u32>(), answer in answers()
    ) {
        let question = Question { number, id, remote, time_left };
        prop_assert_eq!(Question::decode(QuestionBytes::from(&question).as_bytes()), Ok(question));
        let answer = QuestionAnswer { number, answer };
        prop_assert_eq!(QuestionAnswer::decode(AnswerBytes::from(answer).as_bytes()), Ok(answer));
    }

    #[test]
    fn the_status_goes_round(
        local in addresses(), numbers in any::<[u64; Counters::COUNT]>(),
        accept_by in ways(), limits in limits()
    ) {
        let counters = Counters::from_values(numbers);
        let (error, verdict_timeout) = (numbers[0] as u32, numbers[1] as u32);
        for phase in [Phase::Starting, Phase::Listening, Phase::Failed, Phase::Stopping] {
            let status = Status { phase, error, local, accept_by, verdict_timeout, limits, counters };
            prop_assert_eq!(Status::decode(StatusBytes::from(&status).as_bytes()), Ok(status));
        }
    }

    /// Decoding never panics, and what it takes is exactly what encoding gives.
    #[test]
    fn noise_is_refused_or_understood(bytes in noise()) {
        if let Ok(policy) = decode_policy(&bytes) {
            prop_assert!(encoded(&policy).len() <= bytes.len());
        }
        let _ = QuestionAnswer::decode(&bytes);
        let _ = Question::decode(&bytes);
        let _ = Status::decode(&bytes);
        let _ = TimedRecord::decode(&bytes);
        if let Ok((_, records)) = decode_records(&bytes) {
            let room = bytes.len() - size_of::<RecordsHeader>();
            prop_assert_eq!(records.count(), room / size_of::<RecordBytes>());
        }
    }
}

#[test]
fn sizes_are_as_documented() {
    let sizes = [
        (size_of::<AddressBytes>(), 28),
        (size_of::<PolicyHeader>(), 20),
        (size_of::<NetBytes>(), 20),
        (size_of::<QuestionBytes>(), 56),
        (size_of::<AnswerBytes>(), 16),
        (size_of::<RecordsHeader>(), 16),
        (size_of::<RecordBytes>(), 72),
        (size_of::<StatusBytes>(), 56 + 8 * Counters::COUNT),
    ];
    for (found, documented) in sizes {
        assert_eq!(found, documented);
    }
}

#[test]
fn every_wrong_length_is_refused() {
    type Refusal = fn(&[u8]) -> Option<Malformed>;
    let fixed: [(usize, Refusal); 4] = [
        (size_of::<AnswerBytes>(), |bytes| QuestionAnswer::decode(bytes).err()),
        (size_of::<QuestionBytes>(), |bytes| Question::decode(bytes).err()),
        (size_of::<StatusBytes>(), |bytes| Status::decode(bytes).err()),
        (size_of::<RecordBytes>(), |bytes| TimedRecord::decode(bytes).err()),
    ];
    let bytes = [1; 512];
    for (expected, decode) in fixed {
        for found in (0..bytes.len()).filter(|found| *found != expected) {
            assert_eq!(decode(&bytes[..found]), Some(Malformed::Length { expected, found }));
        }
    }
    let mut policy = Policy::new(Action::Accept);
    policy.add("10.0.0.0/8".parse().expect("a network"), Action::Reject).expect("room");
    let mut bytes = encoded(&policy);
    bytes.resize(512, 0);
    for found in (0..bytes.len()).filter(|found| *found != policy_size(&policy)) {
        assert!(matches!(decode_policy(&bytes[..found]), Err(Malformed::Length { .. })), "{found}");
    }
}

/// Policies and status of another version are rejected.
#[test]
fn other_versions_are_told_apart() {
    // A policy of version 1: the default, and how many networks follow.
    for (default, count) in [(1, 0_u16), (2, 0), (3, 64)] {
        let mut old = vec![0; 4 + usize::from(count) * size_of::<NetBytes>()];
        old[0] = default;
        old[2..4].copy_from_slice(&count.to_le_bytes());
        let refused = decode_policy(&old).expect_err("another version");
        // Of "reject everyone" the first four bytes are those of version 2.
        let short = Malformed::Length { expected: size_of::<PolicyHeader>(), found: old.len() };
        assert!(matches!(refused, Malformed::Version(_)) || refused == short, "{refused:?}");
    }
    // As version 1 reads one of this version: no networks, and yet more bytes than its header has.
    let bytes = encoded(&Policy::new(Action::Accept));
    assert_eq!(u16::from_le_bytes([bytes[2], bytes[3]]), 0);
    assert!(bytes.len() > 4);
    let mut next = bytes;
    next[0] += 1;
    assert_eq!(decode_policy(&next).err(), Some(Malformed::Version(3)));
    let mut status = [0; size_of::<StatusBytes>()];
    status[0] = 1;
    assert_eq!(Status::decode(&status), Err(Malformed::Version(1)));
}

#[test]
fn limits_out_of_range_are_refused() {
    let good = encoded(&Policy::new(Action::Accept));
    for (at, name) in [(8, "clients"), (12, "per_source"), (16, "idle_timeout")] {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode_policy(&bytes).err(), Some(Malformed::Field(name)));
    }
    let mut bytes = good;
    bytes[8..12].fill(0);
    assert_eq!(decode_policy(&bytes).err(), Some(Malformed::Field("clients")));
}

#[test]
fn contradictions_and_too_many_networks_are_refused() {
    let mut policy = Policy::new(Action::Accept);
    policy.add("10.0.0.1".parse().expect("an address"), Action::Reject).expect("room");
    policy.add("10.0.0.2".parse().expect("an address"), Action::Ask).expect("room");
    let mut bytes = encoded(&policy);
    let last = bytes.len() - 13;
    bytes[last] = bytes[last - size_of::<NetBytes>()];
    assert_eq!(decode_policy(&bytes).err(), Some(Malformed::Field("action")));
    let many = Policy::CAPACITY as u16 + 1;
    let mut bytes = vec![0; size_of::<PolicyHeader>() + usize::from(many) * 20];
    bytes[0] = PROTOCOL_VERSION as u8;
    bytes[4] = 1;
    bytes[6..8].copy_from_slice(&many.to_le_bytes());
    assert_eq!(decode_policy(&bytes).err(), Some(Malformed::Field("count")));
}

#[test]
fn control_codes_are_distinct_and_buffered() {
    let codes = [
        IOCTL_STATUS,
        IOCTL_GET_POLICY,
        IOCTL_SET_POLICY,
        IOCTL_NEXT_RECORDS,
        IOCTL_NEXT_QUESTION,
        IOCTL_ANSWER,
    ];
    for (at, code) in codes.iter().enumerate() {
        assert_eq!(code & 3, METHOD_BUFFERED);
        assert_ne!(code >> 14 & 3, 0, "every request needs access rights");
        assert!(!codes[..at].contains(code));
    }
    assert_eq!(IOCTL_STATUS, 0x0012_6000);
}
