//! Malformed requests: each gets the status for its defect, and nothing else happens.

use std::time::Duration;

use gate_service::policy::{Action, Answer, Policy};
use gate_service::wire::{
    AnswerBytes, IOCTL_ANSWER, IOCTL_GET_POLICY, IOCTL_NEXT_QUESTION, IOCTL_NEXT_RECORDS, IOCTL_SET_POLICY,
    IOCTL_STATUS, QuestionAnswer, StatusBytes, encode_policy, policy_size,
};
use nt_user::{Config, Kernel};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use wsk_sys::nt::NTSTATUS;
use wsk_sys::{
    STATUS_BUFFER_TOO_SMALL, STATUS_CANCELLED, STATUS_INVALID_BUFFER_SIZE, STATUS_INVALID_DEVICE_REQUEST,
    STATUS_INVALID_PARAMETER, STATUS_NOT_FOUND, STATUS_SUCCESS, STATUS_UNSUCCESSFUL,
};
use zerocopy::IntoBytes as _;

use crate::io::{Call, File, PATIENCE, control, run};
use crate::questions::ROOM;

const CODES: [u32; 6] =
    [IOCTL_STATUS, IOCTL_GET_POLICY, IOCTL_SET_POLICY, IOCTL_NEXT_RECORDS, IOCTL_NEXT_QUESTION, IOCTL_ANSWER];

/// Issues a request that is cancelled if it waits; the harness looks at the buffer, and that it ends once.
fn status_of(file: &File, code: u32, input: &[u8], room: usize) -> NTSTATUS {
    let call = file.send(code, input, room);
    call.cancel();
    call.wait().err().unwrap_or(STATUS_SUCCESS)
}

fn encoded(policy: &Policy) -> Vec<u8> {
    let mut bytes = vec![0; policy_size(policy)];
    encode_policy(policy, &mut bytes).expect("it fits");
    bytes
}

#[test]
fn every_length_of_input_and_output() {
    run(|passive| {
        let control = control(Duration::from_mins(1));
        let file = File::open(&control);
        let mut policy = Policy::new(Action::Ask);
        policy.add("10.0.0.0/8".parse().expect("a network"), Action::Reject).expect("room");
        let policy = encoded(&policy);
        let answer = AnswerBytes::from(QuestionAnswer { number: 7, answer: Answer::Accept });
        for length in 0..=2048_usize {
            for room in [0, length, 2048] {
                // Bytes that would be right if the length were.
                let of = |bytes: &[u8]| {
                    bytes.iter().copied().chain(std::iter::repeat(0)).take(length).collect::<Vec<_>>()
                };
                for code in [IOCTL_STATUS, IOCTL_GET_POLICY, IOCTL_NEXT_RECORDS, IOCTL_NEXT_QUESTION] {
                    let expected = match (length, code) {
                        (1.., _) => STATUS_INVALID_BUFFER_SIZE,
                        (_, _) if room == 0 => STATUS_BUFFER_TOO_SMALL,
                        (_, IOCTL_STATUS | IOCTL_GET_POLICY) => STATUS_SUCCESS,
                        _ => STATUS_CANCELLED,
                    };
                    assert_eq!(
                        status_of(&file, code, &of(&[]), room),
                        expected,
                        "{code:#X}, {length}, {room}"
                    );
                }
                let expected =
                    if length == policy.len() { STATUS_SUCCESS } else { STATUS_INVALID_BUFFER_SIZE };
                assert_eq!(
                    status_of(&file, IOCTL_SET_POLICY, &of(&policy), room),
                    expected,
                    "policy of {length}"
                );
                let expected = if length == 16 { STATUS_NOT_FOUND } else { STATUS_INVALID_BUFFER_SIZE };
                assert_eq!(
                    status_of(&file, IOCTL_ANSWER, &of(answer.as_bytes()), room),
                    expected,
                    "answer of {length}"
                );
            }
        }
        control.shut_down(passive);
    });
}

#[test]
fn every_room_for_output() {
    run(|passive| {
        let control = control(Duration::from_mins(1));
        let (watcher, file) = (File::open(&control), File::open(&control));
        for room in 0..=2048_usize {
            let expected = |least| if room < least { STATUS_BUFFER_TOO_SMALL } else { STATUS_SUCCESS };
            assert_eq!(
                status_of(&file, IOCTL_STATUS, &[], room),
                expected(size_of::<StatusBytes>()),
                "{room}"
            );
            assert_eq!(status_of(&file, IOCTL_GET_POLICY, &[], room), expected(20), "{room}");
            let waits = |least| if room < least { STATUS_BUFFER_TOO_SMALL } else { STATUS_CANCELLED };
            assert_eq!(status_of(&file, IOCTL_NEXT_QUESTION, &[], room), waits(ROOM), "{room}");
            assert_eq!(status_of(&watcher, IOCTL_NEXT_RECORDS, &[], room), waits(16 + 72), "{room}");
        }
        control.shut_down(passive);
    });
}

#[test]
fn values_that_stand_for_nothing() {
    run(|_| {
        let control = control(Duration::from_mins(1));
        let file = File::open(&control);
        let mut policy = Policy::new(Action::Accept);
        policy.add("10.0.0.0/8".parse().expect("a network"), Action::Reject).expect("room");
        let policy = encoded(&policy);
        // The version, the default action, a limit; then family, prefix and action of the first network.
        for (at, value) in [(0, 1), (0, 3), (4, 0), (4, 4), (11, 255), (20, 5), (21, 33), (22, 0), (22, 255)]
        {
            let mut bytes = policy.clone();
            bytes[at] = value;
            assert_eq!(status_of(&file, IOCTL_SET_POLICY, &bytes, 0), STATUS_INVALID_PARAMETER, "{at}");
        }
        for value in [0, 3, 255] {
            let mut bytes = [0; 16];
            bytes[8] = value;
            assert_eq!(status_of(&file, IOCTL_ANSWER, &bytes, 0), STATUS_INVALID_PARAMETER);
        }
        for code in [0, IOCTL_STATUS | 3, IOCTL_STATUS - 4, IOCTL_ANSWER + 4, IOCTL_STATUS & 0xFFFF, u32::MAX]
        {
            assert_eq!(status_of(&file, code, &[], 0), STATUS_INVALID_DEVICE_REQUEST, "{code:#X}");
            assert_eq!(status_of(&file, code, &[1; 300], 300), STATUS_INVALID_DEVICE_REQUEST, "{code:#X}");
        }
        assert_eq!(control.status().counters.handles, 1);
        assert_eq!(
            control.settings().expect("an address").policy.action([10, 1, 1, 1].into()),
            Action::Accept
        );
    });
}

/// Whatever happens to a request, the I/O manager gets it back.
#[test]
fn a_request_that_is_dropped_fails() {
    run(|_| {
        let call = Call::issue(IOCTL_STATUS, &[], 500, false, |request| {
            assert_eq!((request.code(), request.input(), request.room()), (IOCTL_STATUS, &[][..], 500));
            drop(request);
            STATUS_UNSUCCESSFUL
        });
        assert_eq!(call.wait(), Err(STATUS_UNSUCCESSFUL));
    });
}

/// Requests that are anything, and requests that are nearly right.
fn requests() -> impl Strategy<Value = (u32, Vec<u8>, usize)> {
    let mut policy = Policy::new(Action::Ask);
    policy.add("10.0.0.0/8".parse().expect("a network"), Action::Reject).expect("room");
    policy.add("2001:db8::/32".parse().expect("a network"), Action::Accept).expect("room");
    let policy = encoded(&policy);
    let answer = AnswerBytes::from(QuestionAnswer { number: 1, answer: Answer::Accept }).as_bytes().to_vec();
    let nearly = (
        prop_oneof![Just(policy), Just(answer)],
        any::<proptest::sample::Index>(),
        any::<u8>(),
        prop_oneof![4 => Just(usize::MAX), 1 => 0..64_usize],
    )
        .prop_map(|(mut bytes, at, value, length)| {
            let at = at.index(bytes.len());
            bytes[at] = value;
            bytes.truncate(length);
            bytes
        });
    let input = prop_oneof![
        2 => Just(Vec::new()),
        3 => nearly,
        2 => proptest::collection::vec(any::<u8>(), 0..2048),
    ];
    let code = prop_oneof![8 => proptest::sample::select(&CODES[..]), 1 => any::<u32>()];
    (code, input, prop_oneof![1 => 0..128_usize, 1 => 0..2048_usize])
}

/// Noise at the dispatcher: no panic, no request lost, no byte written beyond what goes back, and the device
/// lives on.
#[test]
fn noise_is_refused_or_understood() {
    let kernel = Kernel::new(Config::default());
    {
        let _entered = kernel.enter();
        let control = control(Duration::from_mins(1));
        let file = File::open(&control);
        let mut runner = TestRunner::new(ProptestConfig { cases: 4096, ..ProptestConfig::default() });
        let outcome = runner.run(&requests(), |(code, input, room)| {
            let status = status_of(&file, code, &input, room);
            prop_assert!(
                CODES.contains(&code) != (status == STATUS_INVALID_DEVICE_REQUEST),
                "{:#X}: {:#X}",
                code,
                status
            );
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{error}");
        }
        let status = file.call(IOCTL_STATUS, &[], size_of::<StatusBytes>()).expect("it still answers");
        gate_service::status::Status::decode(&status).expect("well formed");
    }
    let left = kernel.shutdown(PATIENCE);
    assert!(kernel.violations().is_empty() && left.is_clean(), "{:?}\n{left}", kernel.violations());
}
