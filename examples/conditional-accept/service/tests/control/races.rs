//! Races of cancellation, completion, closing and unloading, thousands of times. The kit checks each call: it
//! ends once, not under a lock, and its output stays within bounds.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use gate_service::policy::{Action, Answer, Policy};
use gate_service::wire::{
    IOCTL_NEXT_QUESTION, IOCTL_NEXT_RECORDS, IOCTL_SET_POLICY, IOCTL_STATUS, PolicyHeader, encode_policy,
};
use gate_service::{Record, RecordSink as _};
use wsk::Passive;
use wsk::executor::Executor;
use wsk_sys::{STATUS_CANCELLED, STATUS_DEVICE_BUSY, STATUS_NOT_FOUND};

use crate::io::{Call, File, PATIENCE, control, run, thread};
use crate::questions::{ROOM, answer, answered, ask, question, until_open};
use crate::records::numbers;

const ROUNDS: u32 = 2000;
const LONG: Duration = Duration::from_mins(10);

/// A second thread that does its part of each round together with the test.
struct Rival {
    start: Arc<Barrier>,
    end: Arc<Barrier>,
}

impl Rival {
    /// Lets a second thread do `theirs` `ROUNDS` times, each time together with what the caller does between
    /// `start` and `end`.
    fn new(mut theirs: impl FnMut(u32) + Send + 'static) -> (Self, crate::io::Thread<()>) {
        let (start, end) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let rival = Self { start: Arc::clone(&start), end: Arc::clone(&end) };
        let helper = thread(move || {
            for round in 0..ROUNDS {
                start.wait();
                theirs(round);
                end.wait();
            }
        });
        (rival, helper)
    }

    fn round<R>(&self, ours: impl FnOnce() -> R) -> R {
        self.start.wait();
        let result = ours();
        self.end.wait();
        result
    }
}

/// Takes a little time, another in each round, so that both sides win at times.
fn dawdle(round: u32) {
    for _ in 0..round % 64 * 8 {
        std::hint::spin_loop();
    }
}

#[test]
fn a_record_and_a_cancellation() {
    run(|passive| {
        let control = control(LONG);
        let file = File::open(&control);
        let recorder = control.clone();
        let (rival, helper) = Rival::new(move |round| {
            dawdle(round);
            recorder.record(Record::Policy { networks: round });
        });
        let (mut cancelled, mut fetched) = (0, 0);
        for round in 0..ROUNDS {
            let call = file.send(IOCTL_NEXT_RECORDS, &[], 16 + 72);
            rival.round(|| call.cancel());
            match call.wait() {
                Err(STATUS_CANCELLED) => {
                    cancelled += 1;
                    // The record is not lost with the call.
                    assert_eq!(numbers(file.call(IOCTL_NEXT_RECORDS, &[], 16 + 72)), (0, vec![round]));
                }
                output => {
                    fetched += 1;
                    assert_eq!(numbers(output), (0, vec![round]));
                }
            }
        }
        helper.join();
        assert!(cancelled > 0 && fetched > 0, "{cancelled} cancelled, {fetched} fetched: no race");
        control.shut_down(passive);
    });
}

#[test]
fn a_question_and_a_cancellation() {
    run(|passive| {
        let control = control(LONG);
        let executor = Executor::start(passive, 1).expect("memory");
        let file = File::open(&control);
        let (asking, spawner) = (control.clone(), executor.spawner());
        let (sender, receiver) = std::sync::mpsc::channel();
        let (rival, helper) = Rival::new(move |round| {
            sender.send(ask(&asking, &spawner, round)).expect("a listener");
            // The task asks on the executor's thread.
            until_open(&asking, 1);
        });
        let (mut cancelled, mut taken) = (0, 0);
        for round in 0..ROUNDS {
            let call = file.send(IOCTL_NEXT_QUESTION, &[], ROOM);
            rival.round(|| {
                for _ in 0..round % 32 {
                    std::thread::yield_now();
                }
                call.cancel();
            });
            let output = match call.wait() {
                Err(STATUS_CANCELLED) => {
                    cancelled += 1;
                    file.call(IOCTL_NEXT_QUESTION, &[], ROOM)
                }
                output => {
                    taken += 1;
                    output
                }
            };
            let question = question(output);
            assert_eq!(question.id.serial, round);
            answer(&file, question.number, Answer::Accept).expect("held");
            assert_eq!(answered(&receiver.recv().expect("an asker")), Answer::Accept);
        }
        helper.join();
        assert!(cancelled > 0 && taken > 0, "{cancelled} cancelled, {taken} taken: no race");
        executor.stop(passive, PATIENCE).expect("it ends");
        control.shut_down(passive);
    });
}

/// A handle is closed while its calls are cancelled and completed.
#[test]
fn closing_and_cancelling_and_completing() {
    run(|passive| {
        let control = control(LONG);
        let recorder = control.clone();
        let (rival, helper) = Rival::new(move |round| {
            dawdle(round);
            recorder.record(Record::Policy { networks: round });
        });
        for _ in 0..ROUNDS {
            let file = File::open(&control);
            let drain = |file: &File| loop {
                let call = file.send(IOCTL_NEXT_RECORDS, &[], 16 + 64 * 72);
                if !call.has_ended() {
                    break call;
                }
            };
            let calls = [drain(&file), file.send(IOCTL_NEXT_QUESTION, &[], ROOM), drain(&file)];
            let cancel = thread(calls[0].canceller());
            rival.round(|| file.cleanup());
            cancel.join();
            for call in &calls[1..] {
                if let Err(status) = call.wait() {
                    assert_eq!(status, STATUS_CANCELLED);
                }
            }
        }
        helper.join();
        assert_eq!(control.status().counters.handles, 0);
        control.shut_down(passive);
    });
}

/// Programs leave calls and cancel some of them while the driver is unloaded.
#[test]
fn unloading_and_calling() {
    run(|passive| {
        for round in 0..200 {
            let control = control(LONG);
            let start = Arc::new(Barrier::new(3));
            let programs: Vec<_> = [IOCTL_NEXT_RECORDS, IOCTL_NEXT_QUESTION]
                .into_iter()
                .map(|code| {
                    let (control, start) = (control.clone(), Arc::clone(&start));
                    thread(move || {
                        let file = File::open(&control);
                        let mut calls: Vec<Call> = Vec::new();
                        start.wait();
                        // Until it is told that the driver is going.
                        while calls.len() < 100_000 {
                            let call = file.send(code, &[], 200);
                            calls.iter().rev().take(3).for_each(Call::cancel);
                            match call.returned {
                                STATUS_CANCELLED => break,
                                STATUS_DEVICE_BUSY => calls.clear(),
                                _ => calls.push(call),
                            }
                        }
                        calls.iter().for_each(Call::cancel);
                    })
                })
                .collect();
            start.wait();
            dawdle(round);
            control.shut_down(passive);
            for program in programs {
                program.join();
            }
            control.shut_down(passive);
        }
    });
}

/// Another processor is in the midst of a cancellation: the unload waits for it.
#[test]
fn unloading_waits_for_completions() {
    run(|_| {
        for code in [IOCTL_NEXT_RECORDS, IOCTL_NEXT_QUESTION] {
            let control = control(LONG);
            let file = File::open(&control);
            let call = file.send(code, &[], 200);
            call.hold_up(true);
            let canceller = thread(call.canceller());
            // It comes first, or the unload ends the call itself and waits there.
            std::thread::sleep(Duration::from_millis(30));
            // SAFETY: a thread of the kernel starts at PASSIVE_LEVEL, and this one stays there.
            let unload = thread(move || control.shut_down(unsafe { Passive::assume() }));
            std::thread::sleep(Duration::from_millis(30));
            assert!(!unload.is_finished() && !call.has_ended());
            call.hold_up(false);
            unload.join();
            assert!(call.has_ended());
            canceller.join();
        }
    });
}

/// All operations at the same time.
#[test]
fn a_busy_day() {
    run(|passive| {
        let control = control(Duration::from_millis(5));
        let executor = Executor::start(passive, 2).expect("memory");
        let over = Arc::new(AtomicBool::new(false));
        let (given, expired) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let mut helpers = Vec::new();
        for seed in 0..2_u32 {
            let (control, over, given, expired) =
                (control.clone(), Arc::clone(&over), Arc::clone(&given), Arc::clone(&expired));
            helpers.push(thread(move || {
                let mut file = File::open(&control);
                let mut turn = seed;
                while !over.load(Ordering::Relaxed) {
                    turn = turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let call = file.send(IOCTL_NEXT_QUESTION, &[], ROOM);
                    if turn >> 28 == 0 {
                        // The program dies with a call and perhaps a question.
                        file = File::open(&control);
                        drop(call);
                        continue;
                    }
                    if turn >> 27 & 1 == 0 {
                        call.cancel();
                    } else {
                        std::thread::sleep(Duration::from_micros(u64::from(turn >> 20 & 1023)));
                        call.cancel();
                    }
                    if let Ok(output) = call.wait() {
                        let question = question(Ok(output));
                        match answer(&file, question.number, Answer::Accept) {
                            Ok(()) => _ = given.fetch_add(1, Ordering::Relaxed),
                            Err(STATUS_NOT_FOUND) => _ = expired.fetch_add(1, Ordering::Relaxed),
                            Err(status) => panic!("{status:#X}"),
                        }
                    }
                }
            }));
        }
        let (watcher, watched) = (control.clone(), Arc::clone(&over));
        helpers.push(thread(move || {
            let (file, mut seen) = (File::open(&watcher), 0);
            let mut policy = [0; size_of::<PolicyHeader>()];
            encode_policy(&Policy::new(Action::Ask), &mut policy).expect("it fits");
            for made in 1.. {
                file.call(IOCTL_SET_POLICY, &policy, 0).expect("it is one");
                file.call(IOCTL_STATUS, &[], 500).expect("a status");
                let call = file.send(IOCTL_NEXT_RECORDS, &[], 16 + 10 * 72);
                call.cancel();
                let (lost, numbers) = numbers(call.wait());
                seen += numbers.len();
                assert_eq!((lost, seen), (0, made), "each is there at once");
                if watched.load(Ordering::Relaxed) {
                    break;
                }
            }
        }));
        let spawner = executor.spawner();
        let mut accepted = 0;
        for round in 0..300 {
            let asked: Vec<_> = (0..10).map(|serial| ask(&control, &spawner, round * 10 + serial)).collect();
            accepted += asked.iter().filter(|asked| answered(asked) == Answer::Accept).count();
        }
        over.store(true, Ordering::Relaxed);
        for helper in helpers {
            helper.join();
        }
        let counters = control.status().counters;
        assert_eq!((counters.questions, counters.handles), (0, 0));
        assert_eq!(accepted as u32, given.load(Ordering::Relaxed), "an answer that was taken counts");
        assert!(accepted > 0, "{counters:?}");
        executor.stop(passive, PATIENCE).expect("it ends");
        control.shut_down(passive);
    });
}
