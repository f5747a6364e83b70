//! Any content of the registry: the driver starts, and reports what it could not use.

use core::net::IpAddr;
use std::format;
use std::string::{String, ToString as _};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A list as `reg add` writes it.
fn list(entries: &[&str]) -> Vec<u8> {
    let mut text: String = entries.iter().flat_map(|entry| [entry, "\0"]).collect();
    text.push('\0');
    utf16(&text)
}

/// Parameters from one value on top of the defaults, and the defects of the value.
fn read(setting: Setting, kind: u32, data: &[u8]) -> (Parameters, Vec<(Problem, u32)>) {
    let (mut parameters, mut bad) = (Parameters::default(), Vec::new());
    parameters.set(setting, kind, data, |record| match record {
        Record::BadSetting { setting: named, problem, entry } if named == setting => {
            bad.push((problem, entry));
        }
        other => panic!("{other:?}"),
    });
    (parameters, bad)
}

fn good(setting: Setting, kind: u32, data: &[u8]) -> Parameters {
    let (parameters, bad) = read(setting, kind, data);
    assert_eq!(bad, [], "{setting}");
    parameters
}

fn assert_default(parameters: &Parameters) {
    let default = Parameters::default();
    assert_eq!(format!("{parameters:?}"), format!("{default:?}"));
}

#[test]
fn values_are_taken() {
    for text in ["127.0.0.1:80\0", "127.0.0.1:80", " 127.0.0.1:80 \0", "127.0.0.1:80\0rest"] {
        let listen = good(Setting::Listen, REG_SZ, &utf16(text)).listen.expect(text);
        assert_eq!(listen.to_string(), "127.0.0.1:80", "{text:?}");
    }
    let scoped = good(Setting::Listen, REG_SZ, &utf16("[::1%3]:0\0")).listen;
    assert_eq!(scoped.expect("an address").to_string(), "[::1%3]:0");
    for (word, action) in [("accept", Action::Accept), ("Reject", Action::Reject), ("ASK\0", Action::Ask)] {
        let policy = good(Setting::Default, REG_SZ, &utf16(word)).policy;
        assert_eq!(policy.default_action(), action, "{word:?}");
    }
    assert_eq!(good(Setting::AcceptBy, REG_SZ, &utf16("event\0")).accept_by, AcceptBy::Event);
    for time in [1, 600_000] {
        let data = u32::to_le_bytes(time);
        assert_eq!(good(Setting::VerdictTimeout, REG_DWORD, &data).verdict_timeout, time);
    }
    let limits = |setting, number: u32| good(setting, REG_DWORD, &number.to_le_bytes()).policy.limits();
    for clients in [1, 65_536] {
        assert_eq!(limits(Setting::MaxClients, clients), Limits { clients, ..Limits::DEFAULT });
    }
    for per_source in [0, 1, 65_536] {
        assert_eq!(limits(Setting::MaxPerSource, per_source), Limits { per_source, ..Limits::DEFAULT });
    }
    for idle_timeout in [0, 1, 86_400_000] {
        assert_eq!(limits(Setting::IdleTimeout, idle_timeout), Limits { idle_timeout, ..Limits::DEFAULT });
    }
}

#[test]
fn lists_are_taken_however_they_end() {
    let entries = ["10.0.0.0/8", "::1"];
    let whole = list(&entries);
    for missing in [0, 2, 4] {
        let policy = good(Setting::Ask, REG_MULTI_SZ, &whole[..whole.len() - missing]).policy;
        assert_eq!(policy.rules().len(), 2);
        for remote in ["10.1.2.3", "::1"] {
            let remote: IpAddr = remote.parse().expect("an address");
            assert_eq!(policy.action(remote), Action::Ask);
        }
    }
    for empty in ["", "\0", "\0\0", "\0 10.0.0.0/8\0"] {
        assert_default(&good(Setting::Reject, REG_MULTI_SZ, &utf16(empty)));
    }
}

#[test]
fn every_problem_is_named_and_opens_nothing() {
    let high = 0xD800_u16.to_le_bytes();
    let word = utf16("accept\0");
    let cases: &[(Setting, u32, &[u8], Problem)] = &[
        (Setting::Listen, REG_MULTI_SZ, &utf16("127.0.0.1:80\0\0"), Problem::WrongType),
        (Setting::Listen, REG_SZ, &utf16(""), Problem::NotAnAddress),
        (Setting::Listen, REG_SZ, &utf16("127.0.0.1\0"), Problem::NotAnAddress),
        (Setting::Listen, REG_SZ, &utf16("localhost:80\0"), Problem::NotAnAddress),
        (Setting::Listen, REG_SZ, &utf16(&"1".repeat(129)), Problem::TooLong),
        (Setting::Listen, REG_SZ, &utf16("127.0.0.1:8\u{FF10}\0"), Problem::NotText),
        (Setting::Listen, REG_SZ, &utf16("127.0.0.1:80\0")[1..], Problem::NotText),
        (Setting::Listen, REG_SZ, &high, Problem::NotText),
        (Setting::Accept, REG_SZ, &utf16("10.0.0.0/8\0"), Problem::WrongType),
        (Setting::Accept, REG_MULTI_SZ, &[0x31], Problem::NotText),
        (Setting::Default, REG_SZ, &utf16("maybe\0"), Problem::UnknownWord),
        (Setting::Default, REG_DWORD, &word, Problem::WrongType),
        (Setting::Default, REG_SZ, &word[..word.len() - 1], Problem::NotText),
        (Setting::AcceptBy, REG_SZ, &utf16("ask\0"), Problem::UnknownWord),
        (Setting::VerdictTimeout, REG_SZ, &utf16("50"), Problem::WrongType),
        (Setting::VerdictTimeout, REG_DWORD, &[1, 0, 0], Problem::WrongType),
        (Setting::VerdictTimeout, REG_DWORD, &[1, 0, 0, 0, 0], Problem::WrongType),
        (Setting::VerdictTimeout, REG_DWORD, &[0; 4], Problem::OutOfRange),
        (Setting::VerdictTimeout, REG_DWORD, &u32::to_le_bytes(600_001), Problem::OutOfRange),
        (Setting::MaxClients, REG_DWORD, &[0; 4], Problem::OutOfRange),
        (Setting::MaxClients, REG_DWORD, &u32::to_le_bytes(65_537), Problem::OutOfRange),
        (Setting::MaxPerSource, REG_SZ, &utf16("5"), Problem::WrongType),
        (Setting::MaxPerSource, REG_DWORD, &[255; 4], Problem::OutOfRange),
        (Setting::IdleTimeout, REG_DWORD, &u32::to_le_bytes(86_400_001), Problem::OutOfRange),
    ];
    for (setting, kind, data, problem) in cases {
        let (parameters, bad) = read(*setting, *kind, data);
        assert_eq!(bad, [(*problem, 0)], "{setting}: {data:?}");
        let mut expected = Parameters::default();
        match setting {
            Setting::Listen => expected.listen = None,
            Setting::VerdictTimeout
            | Setting::AcceptBy
            | Setting::MaxClients
            | Setting::MaxPerSource
            | Setting::IdleTimeout => {}
            _ => {
                expected.strict = true;
                expected.policy.set_default(Action::Reject);
            }
        }
        assert_eq!(format!("{parameters:?}"), format!("{expected:?}"));
    }
}

#[test]
fn bad_entries_are_left_out_and_the_others_taken() {
    let mut data = list(&["10.0.0.0/8", "nonsense", &"1".repeat(300), "10.0.0.0/33", "11.0.0.0/8"]);
    // The second entry gets half a character in its midst.
    data[2 * (11 + 3)..2 * (11 + 4)].copy_from_slice(&0xDC00_u16.to_le_bytes());
    let (parameters, bad) = read(Setting::Reject, REG_MULTI_SZ, &data);
    assert_eq!(bad, [(Problem::NotText, 2), (Problem::TooLong, 3), (Problem::NotANetwork, 4)]);
    assert_eq!(parameters.policy.rules().len(), 2);
}

#[test]
fn a_policy_in_doubt_rejects_whatever_comes_before_or_after() {
    for order in [[0, 1], [1, 0]] {
        let mut parameters = Parameters::default();
        for step in order {
            match step {
                0 => parameters.set(Setting::Reject, REG_MULTI_SZ, &list(&["10.0.0.0/8", "?"]), |_| {}),
                _ => parameters.set(Setting::Default, REG_SZ, &utf16("accept"), |bad| panic!("{bad:?}")),
            }
        }
        assert!(parameters.strict);
        assert_eq!(parameters.policy.default_action(), Action::Reject);
        assert_eq!(parameters.policy.rules().len(), 1);
    }
}

#[test]
fn a_network_keeps_its_first_action() {
    let (mut parameters, mut bad) = (Parameters::default(), Vec::new());
    parameters.set(Setting::Accept, REG_MULTI_SZ, &list(&["10.0.0.0/8"]), |record| bad.push(record));
    parameters
        .set(Setting::Ask, REG_MULTI_SZ, &list(&["11.0.0.0/8", "10.0.0.0/8"]), |record| bad.push(record));
    let (setting, problem) = (Setting::Ask, Problem::Contradiction);
    assert_eq!(bad, [Record::BadSetting { setting, problem, entry: 2 }]);
    assert_eq!(parameters.policy.action(IpAddr::from([10, 0, 0, 1])), Action::Accept);
}

#[test]
fn long_lists_are_cut_once() {
    let nets: Vec<_> = (0..10_000).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
    let nets: Vec<_> = nets.iter().map(String::as_str).collect();
    let (parameters, bad) = read(Setting::Ask, REG_MULTI_SZ, &list(&nets));
    assert_eq!(bad, [(Problem::TooLong, 65)]);
    assert_eq!(parameters.policy.rules().len(), Policy::CAPACITY);
    let (_, bad) = read(Setting::Ask, REG_MULTI_SZ, &list(&vec!["?"; 10_000]));
    assert_eq!(bad.len(), Policy::CAPACITY + 1);
}

/// Bytes that are anything, and bytes that are nearly right.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just("10.0.0.0/8".to_string()),
        Just("127.0.0.1:80".to_string()),
        Just("accept".to_string()),
        Just("\0".to_string()),
        any::<String>(),
    ];
    let texts = proptest::collection::vec(pieces, 0..80).prop_map(|pieces| utf16(&pieces.concat()));
    let cut = (texts, any::<proptest::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, value)| {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = value;
            bytes.truncate(at + usize::from(value));
        }
        bytes
    });
    prop_oneof![proptest::collection::vec(any::<u8>(), 0..600), cut]
}

proptest! {
    #[test]
    fn any_bytes_give_parameters(
        values in proptest::collection::vec(
            (0..Setting::ALL.len(), prop_oneof![0..12_u32, any::<u32>()], values()),
            0..8
        )
    ) {
        let mut parameters = Parameters::default();
        for (setting, kind, data) in values {
            let setting = Setting::ALL[setting];
            let mut doubted = parameters.clone();
            doubted.doubt(setting);
            let (mut whole, mut count) = (false, 0);
            parameters.set(setting, kind, &data, |record| {
                count += 1;
                whole |= matches!(record, Record::BadSetting { entry: 0, .. });
            });
            prop_assert!(count <= Policy::CAPACITY + 1);
            // A value that is refused as a whole does nothing but that.
            if whole {
                prop_assert_eq!(count, 1);
                prop_assert_eq!(format!("{parameters:?}"), format!("{doubted:?}"));
            }
        }
        prop_assert!(VERDICT_TIMEOUT.contains(&parameters.verdict_timeout));
        prop_assert_eq!(parameters.policy.limits().out_of_range(), None);
    }
}
