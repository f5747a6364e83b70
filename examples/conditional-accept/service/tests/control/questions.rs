//! Questions: taken, answered, timed out, withdrawn; handles that are closed, and the unload.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use gate_service::Control;
use gate_service::policy::Answer;
use gate_service::record::RequestId;
use gate_service::wire::{AnswerBytes, IOCTL_ANSWER, IOCTL_NEXT_QUESTION, Question, QuestionAnswer};
use wsk::Passive;
use wsk::executor::{Executor, Spawner};
use wsk_sys::nt::NTSTATUS;
use wsk_sys::{STATUS_CANCELLED, STATUS_DEVICE_BUSY, STATUS_NOT_FOUND, STATUS_PENDING};
use zerocopy::IntoBytes as _;

use crate::io::{self, File, PATIENCE, control, run};

/// Long enough never to pass in a test.
const LONG: Duration = Duration::from_mins(10);

pub(crate) const ROOM: usize = 56;

/// Number of threads that poll the askers.
const THREADS: usize = 2;

fn id(serial: u32) -> RequestId {
    RequestId { key: 0xABC, serial }
}

fn remote(serial: u32) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], serial as u16))
}

/// Asks, as the gate does for a pended request.
pub(crate) fn ask(control: &Control, spawner: &Spawner, serial: u32) -> Receiver<Answer> {
    let (sender, receiver) = channel();
    let (questions, cache) = (questions(control), spawner.cache().clone());
    let asker = async move {
        // Nobody listens if the asker is to be dropped.
        let _ = sender.send(questions.ask(id(serial), remote(serial), &cache).await);
    };
    spawner.spawn(asker).expect("memory");
    receiver
}

fn questions(control: &Control) -> gate_service::questions::QuestionQueue {
    match control.settings().expect("an address").asker {
        gate_service::Asker::Programs(questions) => questions,
        other @ gate_service::Asker::Timed { .. } => panic!("{other:?}"),
    }
}

pub(crate) fn answered(receiver: &Receiver<Answer>) -> Answer {
    receiver.recv_timeout(PATIENCE).expect("an answer")
}

pub(crate) fn question(output: Result<Vec<u8>, NTSTATUS>) -> Question {
    Question::decode(&output.expect("a question")).expect("well formed")
}

pub(crate) fn answer(file: &File, number: u64, answer: Answer) -> Result<(), NTSTATUS> {
    let bytes = AnswerBytes::from(QuestionAnswer { number, answer });
    file.call(IOCTL_ANSWER, bytes.as_bytes(), 0).map(|output| assert_eq!(output, []))
}

/// Waits until so many questions are open.
pub(crate) fn until_open(control: &Control, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    while control.status().counters.questions != count {
        assert!(Instant::now() < deadline, "{:?}", control.status().counters);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `body` with a control and an executor, and unloads both.
fn with_desk(time: Duration, body: impl FnOnce(&Control, &Spawner, Passive<'_>) + Send + 'static) {
    run(move |passive| {
        let control = control(time);
        let executor = Executor::start(passive, THREADS).expect("memory");
        body(&control, &executor.spawner(), passive);
        control.stopping();
        executor.stop(passive, PATIENCE).expect("askers end");
        control.shut_down(passive);
        assert_eq!(control.status().counters.questions, 0);
    });
}

#[test]
fn a_question_is_taken_and_answered() {
    with_desk(LONG, |control, spawner, _| {
        let file = File::open(control);
        for expected in [Answer::Accept, Answer::Reject] {
            for call_first in [false, true] {
                let call = call_first.then(|| file.send(IOCTL_NEXT_QUESTION, &[], ROOM));
                assert!(
                    call.as_ref().is_none_or(|call| call.returned == STATUS_PENDING && !call.has_ended())
                );
                let asked = ask(control, spawner, 7);
                until_open(control, 1);
                let call = call.unwrap_or_else(|| file.send(IOCTL_NEXT_QUESTION, &[], ROOM));
                let question = question(call.wait());
                assert_eq!((question.id, question.remote), (id(7), remote(7)));
                assert!(question.time_left <= 600_000 && question.time_left > 500_000, "{question:?}");
                assert!(asked.try_recv().is_err(), "answered by nobody");
                answer(&file, question.number, expected).expect("it is open");
                assert_eq!(answered(&asked), expected);
                assert_eq!(
                    answer(&file, question.number, expected),
                    Err(STATUS_NOT_FOUND),
                    "answered already"
                );
            }
        }
        assert_eq!(control.status().counters.timed_out, 0);
    });
}

#[test]
fn questions_come_in_order_with_numbers_of_their_own() {
    with_desk(LONG, |control, spawner, _| {
        let (first, second) = (File::open(control), File::open(control));
        let mut asked = Vec::new();
        for serial in 1..=20 {
            asked.push(ask(control, spawner, serial));
            until_open(control, serial.into());
        }
        let mut numbers = Vec::new();
        for serial in 1..=20 {
            let file = if serial % 2 == 0 { &first } else { &second };
            let question = question(file.call(IOCTL_NEXT_QUESTION, &[], ROOM + 9));
            assert_eq!(question.id.serial, serial);
            numbers.push(question.number);
        }
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        // Whoever holds a question answers it, and nobody else.
        assert_eq!(answer(&first, numbers[0], Answer::Accept), Err(STATUS_NOT_FOUND));
        assert_eq!(answer(&second, 0, Answer::Accept), Err(STATUS_NOT_FOUND));
        for (at, number) in numbers.iter().enumerate().rev() {
            answer(if at % 2 == 1 { &first } else { &second }, *number, Answer::Accept).expect("held");
        }
        assert!(asked.iter().all(|asked| answered(asked) == Answer::Accept));
    });
}

/// The asker may notice late that its time is up, when there is much to do; what counts is when the answer
/// comes.
#[test]
fn an_answer_after_the_time_out_is_none() {
    const TIME: Duration = Duration::from_millis(60);
    with_desk(TIME, |control, spawner, _| {
        let file = File::open(control);
        let start = Instant::now();
        let asked = ask(control, spawner, 1);
        let taken = question(file.call(IOCTL_NEXT_QUESTION, &[], ROOM));
        // No thread of the executor polls anything meanwhile.
        let (busy, started) = channel();
        let releases: Vec<_> = (0..THREADS)
            .map(|_| {
                let (release, released) = channel::<()>();
                let busy = busy.clone();
                let blocks = async move {
                    busy.send(()).expect("the test listens");
                    // The sender is dropped when it is time.
                    let _ = released.recv();
                };
                spawner.spawn(blocks).expect("memory");
                started.recv_timeout(PATIENCE).expect("a thread that is free");
                release
            })
            .collect();
        while start.elapsed() < TIME + Duration::from_millis(20) {
            std::thread::yield_now();
        }
        assert_eq!(answer(&file, taken.number, Answer::Accept), Err(STATUS_NOT_FOUND));
        drop(releases);
        assert_eq!(answered(&asked), Answer::Reject);
        assert_eq!((control.status().counters.timed_out, control.status().counters.questions), (1, 0));
    });
}

#[test]
fn no_answer_in_time_is_reject() {
    with_desk(Duration::from_millis(60), |control, spawner, _| {
        let file = File::open(control);
        let start = Instant::now();
        let call = file.send(IOCTL_NEXT_QUESTION, &[], ROOM);
        let held = ask(control, spawner, 1);
        let taken = question(call.wait());
        assert!(taken.time_left <= 60, "{taken:?}");
        let never_taken = ask(control, spawner, 2);
        assert_eq!((answered(&held), answered(&never_taken)), (Answer::Reject, Answer::Reject));
        assert!(start.elapsed() >= Duration::from_millis(60));
        assert_eq!(answer(&file, taken.number, Answer::Accept), Err(STATUS_NOT_FOUND));
        assert_eq!(control.status().counters.timed_out, 2);
        assert_eq!(control.status().counters.questions, 0);
        // What was not answered in time is not given out any more.
        let call = file.send(IOCTL_NEXT_QUESTION, &[], ROOM);
        assert!(!call.has_ended());
        call.cancel();
        assert_eq!(call.wait(), Err(STATUS_CANCELLED));
    });
}

#[test]
fn a_question_of_a_client_that_gave_up_is_withdrawn() {
    with_desk(LONG, |control, spawner, passive| {
        let file = File::open(control);
        let given_up = Executor::start(passive, 1).expect("memory");
        let asked = [ask(control, &given_up.spawner(), 1), ask(control, &given_up.spawner(), 2)];
        until_open(control, 2);
        let held = question(file.call(IOCTL_NEXT_QUESTION, &[], ROOM));
        // The executor drops the askers, as an abort does.
        given_up.stop(passive, PATIENCE).expect("they end");
        assert_eq!(control.status().counters.questions, 0);
        assert_eq!(answer(&file, held.number, Answer::Accept), Err(STATUS_NOT_FOUND));
        assert!(asked.iter().all(|asked| asked.recv().is_err()));
        let next = ask(control, spawner, 3);
        let question = question(file.call(IOCTL_NEXT_QUESTION, &[], ROOM));
        assert_eq!(question.id.serial, 3);
        answer(&file, question.number, Answer::Accept).expect("held");
        assert_eq!(answered(&next), Answer::Accept);
    });
}

#[test]
fn a_handle_that_is_closed_rejects_what_it_holds_and_nothing_else() {
    with_desk(LONG, |control, spawner, _| {
        let (dies, lives) = (File::open(control), File::open(control));
        let asked: Vec<_> = (1..=4)
            .map(|serial| {
                let asked = ask(control, spawner, serial);
                until_open(control, serial.into());
                asked
            })
            .collect();
        let of_dying = [(); 2].map(|()| question(dies.call(IOCTL_NEXT_QUESTION, &[], ROOM)).number);
        let of_living = question(lives.call(IOCTL_NEXT_QUESTION, &[], ROOM)).number;
        assert_eq!(control.status().counters.handles, 2);
        dies.cleanup();
        assert_eq!(control.status().counters.handles, 1);
        assert_eq!((answered(&asked[0]), answered(&asked[1])), (Answer::Reject, Answer::Reject));
        assert_eq!(control.status().counters.questions, 2);
        // The one that nobody had taken is still there for the other, and the closed one gets nothing any
        // more.
        assert_eq!(dies.call(IOCTL_NEXT_QUESTION, &[], ROOM), Err(STATUS_CANCELLED));
        assert_eq!(answer(&dies, of_dying[0], Answer::Accept), Err(STATUS_NOT_FOUND));
        answer(&lives, of_living, Answer::Accept).expect("held");
        assert_eq!(answered(&asked[2]), Answer::Accept);
        assert_eq!(question(lives.call(IOCTL_NEXT_QUESTION, &[], ROOM)).id.serial, 4);
        drop(lives);
        assert_eq!(answered(&asked[3]), Answer::Reject);
    });
}

#[test]
fn calls_of_a_closed_handle_end() {
    with_desk(LONG, |control, spawner, _| {
        let (dies, lives) = (File::open(control), File::open(control));
        let calls = [(); 3].map(|()| dies.send(IOCTL_NEXT_QUESTION, &[], ROOM));
        let other = lives.send(IOCTL_NEXT_QUESTION, &[], ROOM);
        drop(dies);
        assert!(calls.iter().all(|call| call.wait() == Err(STATUS_CANCELLED)));
        let _asked = ask(control, spawner, 1);
        assert_eq!(question(other.wait()).id.serial, 1);
    });
}

#[test]
fn a_handle_leaves_eight_calls_and_no_more() {
    with_desk(LONG, |control, spawner, _| {
        let (greedy, other) = (File::open(control), File::open(control));
        let mut calls: Vec<_> = (0..8).map(|_| greedy.send(IOCTL_NEXT_QUESTION, &[], ROOM)).collect();
        assert_eq!(greedy.call(IOCTL_NEXT_QUESTION, &[], ROOM), Err(STATUS_DEVICE_BUSY));
        let its = other.send(IOCTL_NEXT_QUESTION, &[], ROOM);
        calls[3].cancel();
        assert_eq!(calls.remove(3).wait(), Err(STATUS_CANCELLED));
        calls.push(greedy.send(IOCTL_NEXT_QUESTION, &[], ROOM));
        // They are served in the order in which they came.
        let _asked: Vec<_> = (1..=9)
            .map(|serial| {
                let asked = ask(control, spawner, serial);
                until_open(control, serial.into());
                asked
            })
            .collect();
        for (at, call) in calls[..7].iter().chain([&its, &calls[7]]).enumerate() {
            assert_eq!(question(call.wait()).id.serial as usize, at + 1);
        }
    });
}

#[test]
fn a_call_that_was_cancelled_before_it_came_ends_at_once() {
    with_desk(LONG, |control, _, _| {
        let file = File::open(control);
        let call = file.send_cancelled(IOCTL_NEXT_QUESTION, ROOM);
        assert_eq!((call.returned, call.wait()), (STATUS_CANCELLED, Err(STATUS_CANCELLED)));
    });
}

/// More questions than a handle may hold: its calls wait until some are answered.
#[test]
fn a_handle_that_holds_its_share_waits_until_it_has_answered() {
    with_desk(LONG, |control, spawner, passive| {
        let file = File::open(control);
        let count = gate_service::questions::MAX_HELD + 2;
        let askers = Executor::start(passive, 1).expect("memory");
        let mut asked: Vec<_> = (1..=count).map(|serial| ask(control, spawner, serial)).collect();
        until_open(control, count.into());
        let mut held: Vec<_> = (0..gate_service::questions::MAX_HELD)
            .map(|_| question(file.call(IOCTL_NEXT_QUESTION, &[], ROOM)).number)
            .collect();
        let (next, after) =
            (file.send(IOCTL_NEXT_QUESTION, &[], ROOM), file.send(IOCTL_NEXT_QUESTION, &[], ROOM));
        assert!(!next.has_ended());
        answer(&file, held.swap_remove(17), Answer::Accept).expect("held");
        held.push(question(next.wait()).number);
        assert!(!after.has_ended());
        answer(&file, held.swap_remove(0), Answer::Accept).expect("held");
        held.push(question(after.wait()).number);
        for number in held {
            answer(&file, number, Answer::Accept).expect("held");
        }
        assert!(asked.drain(..).all(|asked| answered(&asked) == Answer::Accept));
        askers.stop(passive, PATIENCE).expect("nothing to do");
    });
}

/// A handle that answers none of its questions keeps questions from no other handle.
#[test]
fn a_handle_holds_no_more_than_its_share() {
    with_desk(LONG, |control, spawner, _| {
        let (greedy, other) = (File::open(control), File::open(control));
        let count = gate_service::questions::MAX_HELD + 1;
        let asked: Vec<_> = (1..=count).map(|serial| ask(control, spawner, serial)).collect();
        until_open(control, count.into());
        for _ in 0..gate_service::questions::MAX_HELD {
            question(greedy.call(IOCTL_NEXT_QUESTION, &[], ROOM));
        }
        let waits = greedy.send(IOCTL_NEXT_QUESTION, &[], ROOM);
        let last = question(other.call(IOCTL_NEXT_QUESTION, &[], ROOM));
        assert!(!waits.has_ended());
        answer(&other, last.number, Answer::Accept).expect("held");
        drop(greedy);
        let answers: Vec<_> = asked.iter().map(answered).collect();
        assert_eq!(answers.iter().filter(|answer| **answer == Answer::Accept).count(), 1);
    });
}

#[test]
fn unload_ends_calls_and_questions() {
    run(|passive| {
        let control = control(LONG);
        let executor = Executor::start(passive, THREADS).expect("memory");
        let (file, other) = (File::open(&control), File::open(&control));
        let asked = [ask(&control, &executor.spawner(), 1), ask(&control, &executor.spawner(), 2)];
        until_open(&control, 2);
        let held = question(file.call(IOCTL_NEXT_QUESTION, &[], ROOM));
        let _also_held = question(other.call(IOCTL_NEXT_QUESTION, &[], ROOM));
        let calls = [(); 4].map(|()| file.send(IOCTL_NEXT_QUESTION, &[], ROOM));
        // Even if the askers are still there, everybody is told.
        control.shut_down(passive);
        assert!(asked.iter().all(|asked| answered(asked) == Answer::Reject));
        assert!(calls.iter().all(|call| call.has_ended() && call.wait() == Err(STATUS_CANCELLED)));
        assert_eq!(answer(&file, held.number, Answer::Accept), Err(STATUS_NOT_FOUND));
        assert_eq!(file.call(IOCTL_NEXT_QUESTION, &[], ROOM), Err(STATUS_CANCELLED));
        assert_eq!(answered(&ask(&control, &executor.spawner(), 3)), Answer::Reject);
        assert_eq!(control.status().counters.questions, 0);
        control.shut_down(passive);
        executor.stop(passive, PATIENCE).expect("askers end");
    });
}

/// Memory that is refused at each place in turn: the answer is no, or an error, and nothing is left.
#[test]
fn memory_that_runs_out_is_reject() {
    for nth in 1.. {
        let (sender, receiver) = channel();
        run(move |passive| {
            let executor = Executor::start(passive, 1).expect("memory");
            let spawner = executor.spawner();
            let kernel = nt_user::Kernel::current().expect("a kernel");
            kernel.faults().fail_nth(nth);
            if let Ok(control) = gate_service::Control::try_new(&gate_service::Parameters::default()) {
                if let Ok(handle) = control.open() {
                    handle.cleanup();
                }
                let (sender, receiver) = channel();
                let (questions, cache) = (questions(&control), spawner.cache().clone());
                let asker = async move {
                    let _ = sender.send(questions.ask(id(1), remote(1), &cache).await);
                };
                if spawner.spawn(asker).is_ok() {
                    let is_open = || control.status().counters.questions != 0;
                    let answer = loop {
                        match receiver.recv_timeout(Duration::from_millis(1)) {
                            Err(RecvTimeoutError::Timeout) if !is_open() => {}
                            answer => break answer.ok(),
                        }
                    };
                    control.shut_down(passive);
                    assert_eq!(answer.unwrap_or_else(|| answered(&receiver)), Answer::Reject);
                    // Nobody was late: the time is five seconds.
                    assert_eq!(control.status().counters.timed_out, 0);
                }
                control.shut_down(passive);
            }
            sender.send(kernel.faults().injected()).expect("a listener");
            kernel.faults().clear();
            executor.stop(passive, io::PATIENCE).expect("it ends");
        });
        if receiver.recv().expect("a number") == 0 {
            assert!(nth > 5, "so many places at least");
            break;
        }
    }
}
