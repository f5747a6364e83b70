//! `ask` against a scripted device.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use gate_protocol::policy::Answer;
use gate_protocol::record::{Inspection, Record, RequestId};
use gate_protocol::wire::{IOCTL_ANSWER, IOCTL_NEXT_QUESTION, IOCTL_NEXT_RECORDS, Question, QuestionAnswer};
use gatectl::device::Device as _;

use crate::script::{Reply, Running, Script, input, question, records, run, text};

const ACCEPT: Answer = Answer::Accept;
const REJECT: Answer = Answer::Reject;
const HELP: &str = "a accepts, r rejects, q quits; \"a 1f-7\" accepts the request 1f-7 only\n";

/// The question `number`, with so many milliseconds left.
fn asked(number: u64, time_left: u32) -> Question {
    let id = RequestId { key: 0xa, serial: number as u32 };
    Question {
        number,
        id,
        remote: format!("127.0.0.4:{}", 5000 + number).parse().expect("an address"),
        time_left,
    }
}

/// A device that asks these questions and takes every answer.
fn script(numbers: &[u64]) -> Arc<Script> {
    let script = Script::new();
    script.always(IOCTL_ANSWER, Reply::Bytes(vec![]));
    for number in numbers {
        script.reply(IOCTL_NEXT_QUESTION, question(&asked(*number, 30_000)));
    }
    script
}

/// The answers that came.
fn answers(script: &Script) -> Vec<(u64, Answer)> {
    let inputs = script.inputs(IOCTL_ANSWER);
    let answers = inputs.iter().map(|input| QuestionAnswer::decode(input).expect("an answer"));
    answers.map(|answer| (answer.number, answer.answer)).collect()
}

/// Runs `ask` beside the test, with what the test types.
fn typing(script: &Arc<Script>, words: &'static str) -> (Sender<&'static str>, Running) {
    let (keys, input) = input(true);
    (keys, Running::start(script, words, Some(input)))
}

/// Makes these the next records, once `ask` has skipped the old ones.
fn happens(script: &Script, record: Record) {
    script.wait_for(IOCTL_NEXT_RECORDS, 2);
    script.reply(IOCTL_NEXT_RECORDS, records(0, &[record]));
}

#[test]
fn one_verdict_answers_every_question() {
    let script = script(&[1, 2]);
    let ran = run(&script, "ask --verdict reject --count 2", None);
    ran.result.as_ref().expect("both are answered");
    assert_eq!(answers(&script), [(1, REJECT), (2, REJECT)]);
    assert_eq!(
        ran.lines(),
        [
            "answer      127.0.0.4:5001         reject, request a-1",
            "answer      127.0.0.4:5002         reject, request a-2",
        ]
    );
    assert_eq!(script.inputs(IOCTL_NEXT_QUESTION).len(), 2, "no question more is taken from others");
}

#[test]
fn json_has_questions_and_answers() {
    let script = script(&[1]);
    let ran = run(&script, "ask --verdict accept --count 1 --json", None);
    assert_eq!(
        ran.out,
        "{\"event\":\"question\",\"number\":1,\"id\":\"a-1\",\"remote\":\"127.0.0.4:5001\",\
         \"time_left\":30000}\n\
         {\"event\":\"answer\",\"number\":1,\"id\":\"a-1\",\"action\":\"accept\"}\n"
    );
}

#[test]
fn a_pipe_may_answer_in_advance_and_its_end_ends_it() {
    let script = script(&[1, 2]);
    let ran = run(&script, "ask", Some(text("a\n\nwhat\nr\n")));
    ran.result.as_ref().expect("it need not answer all");
    assert_eq!(answers(&script), [(1, ACCEPT), (2, REJECT)]);
    assert_eq!(
        ran.lines(),
        [
            "question    127.0.0.4:5001         request a-1, 30.0 s left: a or r?",
            "answer      127.0.0.4:5001         accept, request a-1",
            "question    127.0.0.4:5002         request a-2, 30.0 s left: a or r?",
            "answer      127.0.0.4:5002         reject, request a-2",
        ]
    );
    assert_eq!(ran.remarks, HELP);
}

#[test]
fn a_pipe_with_too_few_answers_is_told() {
    let ran = run(&script(&[1]), "ask --count 2", Some(text("r\n")));
    assert_eq!(ran.error(), "only 1 of 2 questions were answered before the end of the input");
}

#[test]
fn the_end_that_is_piped_waits_for_no_question() {
    let ran = run(&script(&[]), "ask", Some(text("what\n\nquit\n")));
    ran.result.as_ref().expect("that is how it ends");
    assert_eq!(ran.remarks.lines().count(), 1, "{}", ran.remarks);
}

#[test]
fn a_piped_answer_that_is_too_late_is_told() {
    let script = script(&[1]);
    script.reply(IOCTL_ANSWER, Reply::Code(1168));
    let ran = run(&script, "ask", Some(text("a\n")));
    ran.result.as_ref().expect("the input ends");
    assert_eq!(
        ran.lines()[1..],
        ["lapsed      127.0.0.4:5001         withdrawn before it was answered, request a-1"]
    );
}

#[test]
fn an_answer_by_name_is_for_no_other_question() {
    let script = script(&[1]);
    let ran = run(&script, "ask", Some(text("a A-7\nr a-1\n")));
    assert_eq!(answers(&script), [(1, REJECT)]);
    assert_eq!(ran.remarks, "no pending question for request a-7\n");
}

#[test]
fn a_person_is_shown_each_question_and_types_the_answer() {
    let script = script(&[1, 2]);
    let (keys, ask) = typing(&script, "ask");
    ask.out.wait_for("request a-1, 30.0 s left");
    keys.send("accept").expect("it reads");
    ask.out.wait_for("request a-2, 30.0 s left");
    keys.send("r").expect("it reads");
    ask.out.wait_for("reject, request a-2");
    keys.send("r").expect("it reads");
    keys.send("q").expect("it reads");
    let ran = ask.end();
    ran.result.as_ref().expect("quit is no failure");
    assert_eq!(answers(&script), [(1, ACCEPT), (2, REJECT)]);
    assert_eq!(ran.remarks, format!("{HELP}no pending question\n"));
}

#[test]
fn a_question_that_is_given_up_is_told_at_once() {
    let script = script(&[1]);
    let (keys, ask) = typing(&script, "ask");
    ask.out.wait_for("request a-1");
    happens(&script, Record::Abort { id: asked(1, 0).id });
    ask.out.wait_for("lapsed");
    keys.send("a").expect("it reads");
    drop(keys);
    let ran = ask.end();
    assert_eq!(ran.lines()[1..], ["lapsed      127.0.0.4:5001         withdrawn by the client, request a-1"]);
    assert_eq!(ran.remarks, format!("{HELP}too late: the question was withdrawn\n"));
    assert_eq!(answers(&script), []);
}

#[test]
fn what_was_typed_for_a_lapsed_question_answers_no_other() {
    let script = script(&[1]);
    let (keys, ask) = typing(&script, "ask --count 1");
    ask.out.wait_for("request a-1");
    script.reply(IOCTL_NEXT_QUESTION, question(&asked(2, 30_000)));
    happens(&script, Record::Abort { id: asked(1, 0).id });
    ask.out.wait_for("request a-2");
    keys.send("a").expect("it reads");
    ask.remarks.wait_for("for request a-2");
    assert_eq!(answers(&script), []);
    std::thread::sleep(Duration::from_secs(1));
    keys.send("r").expect("it reads");
    let ran = ask.end();
    ran.result.as_ref().expect("one is answered");
    assert_eq!(answers(&script), [(2, REJECT)]);
    assert_eq!(
        ran.remarks,
        format!("{HELP}that may have been for the previous question: answer again for request a-2\n")
    );
}

#[test]
fn a_name_is_never_meant_for_the_question_before() {
    let script = script(&[1]);
    let (keys, ask) = typing(&script, "ask --count 1");
    ask.out.wait_for("request a-1");
    script.reply(IOCTL_NEXT_QUESTION, question(&asked(2, 30_000)));
    happens(&script, Record::Abort { id: asked(1, 0).id });
    ask.out.wait_for("request a-2");
    keys.send("a a-2").expect("it reads");
    ask.end().result.expect("one is answered");
    assert_eq!(answers(&script), [(2, ACCEPT)]);
}

#[test]
fn a_question_whose_time_is_up_is_told_by_the_record_or_without_it() {
    let script = script(&[]);
    script.reply(IOCTL_NEXT_QUESTION, question(&asked(1, 100)));
    script.reply(IOCTL_NEXT_QUESTION, question(&asked(2, 30_000)));
    let (keys, ask) = typing(&script, "ask --json");
    ask.out.wait_for("\"number\":2");
    happens(&script, Record::Verdict { id: asked(2, 0).id, action: REJECT });
    script.wait_for(IOCTL_NEXT_QUESTION, 3);
    drop(keys);
    let ran = ask.end();
    let lapses: Vec<_> = ran.out.lines().filter(|line| line.contains("lapsed")).collect();
    assert_eq!(
        lapses,
        [
            r#"{"event":"lapsed","number":1,"id":"a-1","reason":"timed-out"}"#,
            r#"{"event":"lapsed","number":2,"id":"a-2","reason":"timed-out"}"#,
        ]
    );
}

#[test]
fn an_answer_that_is_too_late_is_no_answer() {
    let script = script(&[1]);
    script.reply(IOCTL_ANSWER, Reply::Code(1168));
    script.reply(IOCTL_ANSWER, Reply::Code(1168));
    let ask = Running::start(&script, "ask --verdict accept --count 1", None);
    // The first has a record that says why, the second has not.
    script.wait_for(IOCTL_ANSWER, 1);
    happens(&script, Record::Abort { id: asked(1, 0).id });
    script.reply(IOCTL_NEXT_QUESTION, question(&asked(2, 30_000)));
    script.reply(IOCTL_NEXT_QUESTION, question(&asked(3, 30_000)));
    let ran = ask.end();
    ran.result.as_ref().expect("one is answered");
    let [first, second, third] = ran.lines()[..] else { panic!("three lines: {}", ran.out) };
    // On a machine under load the record may come after the wait for it.
    assert!(first.starts_with("lapsed      127.0.0.4:5001         withdrawn"), "{first}");
    assert_eq!(second, "lapsed      127.0.0.4:5002         withdrawn before it was answered, request a-2");
    assert_eq!(third, "answer      127.0.0.4:5003         accept, request a-3");
}

#[test]
fn a_question_that_lapsed_on_its_way_is_not_asked() {
    let script = script(&[]);
    let ask = Running::start(&script, "ask --verdict accept --count 1 --json", None);
    happens(&script, Record::Abort { id: asked(1, 0).id });
    // The next fetch comes after these records were passed on.
    script.wait_for(IOCTL_NEXT_RECORDS, 3);
    script.reply(IOCTL_NEXT_QUESTION, question(&asked(1, 30_000)));
    script.reply(IOCTL_NEXT_QUESTION, question(&asked(2, 30_000)));
    let ran = ask.end();
    assert!(ran.out.contains(r#""number":1,"id":"a-1","reason":"given-up""#), "{}", ran.out);
    assert_eq!(answers(&script), [(2, ACCEPT)]);
}

#[test]
fn what_was_before_is_no_lapse() {
    let script = script(&[]);
    for _ in 0..3 {
        script.reply(IOCTL_NEXT_RECORDS, records(0, &[Record::Abort { id: asked(1, 0).id }]));
    }
    let ask = Running::start(&script, "ask --verdict accept --count 1", None);
    script.wait_for(IOCTL_NEXT_RECORDS, 5);
    script.reply(IOCTL_NEXT_QUESTION, question(&asked(1, 30_000)));
    ask.end().result.expect("it is answered");
    assert_eq!(answers(&script), [(1, ACCEPT)]);
}

#[test]
fn the_record_of_an_own_answer_is_no_lapse() {
    let script = script(&[1]);
    let ask = Running::start(&script, "ask --verdict reject --count 2", None);
    ask.out.wait_for("request a-1");
    happens(&script, Record::Verdict { id: asked(1, 0).id, action: REJECT });
    script.wait_for(IOCTL_NEXT_RECORDS, 3);
    // The same name again: keys and numbers of requests are the driver's to use again.
    script.reply(IOCTL_NEXT_QUESTION, question(&asked(1, 30_000)));
    ask.end().result.expect("both are answered");
    assert_eq!(answers(&script), [(1, REJECT), (1, REJECT)]);
}

#[test]
fn questions_without_end_do_not_keep_it_from_ending() {
    let script = script(&[]);
    script.always(IOCTL_NEXT_QUESTION, question(&asked(1, 30_000)));
    run(&script, "ask --verdict accept --seconds 1", None).result.expect("the time is up");
    let again = self::script(&[]);
    again.always(IOCTL_NEXT_QUESTION, question(&asked(1, 30_000)));
    let ask = Running::start(&again, "ask --verdict accept", None);
    ask.out.wait_for("accept");
    again.stop();
    ask.end().result.expect("that is how it ends");
}

#[test]
fn what_is_held_at_the_end_is_told() {
    let (keys, input) = input(false);
    let ran = run(&script(&[1]), "ask --seconds 1 --count 1", Some(input));
    assert_eq!(ran.error(), "only 0 of 1 questions were answered before the time limit");
    assert_eq!(
        ran.lines()[1],
        "lapsed      127.0.0.4:5001         left unanswered, so rejected, request a-1"
    );
    drop(keys);
}

#[test]
fn what_is_held_when_it_is_interrupted_is_told() {
    let script = script(&[1]);
    let (keys, ask) = typing(&script, "ask --json");
    ask.out.wait_for("\"number\":1");
    script.stop();
    let ran = ask.end();
    ran.result.as_ref().expect("Ctrl-C is how it ends");
    assert!(ran.out.ends_with("\"reason\":\"left\"}\n"), "{}", ran.out);
    drop(keys);
}

#[test]
fn the_driver_may_end_or_speak_in_tongues() {
    for (reply, said) in [
        (Reply::Code(995), "the driver was stopped: to restart it, run sc start conditional_accept"),
        (Reply::Bytes(vec![1; 55]), "cannot decode the question from the driver (55 bytes instead of 56)"),
        (Reply::Bytes(vec![1; 56]), "cannot decode the question from the driver (field `family`"),
    ] {
        let script = script(&[1]);
        script.reply(IOCTL_NEXT_QUESTION, reply);
        let ran = run(&script, "ask --verdict accept", None);
        assert_eq!(answers(&script), [(1, ACCEPT)]);
        assert!(ran.error().starts_with(said), "{}", ran.error());
    }
    let script = script(&[]);
    script.reply(IOCTL_NEXT_RECORDS, Reply::Bytes(vec![0; 3]));
    let error = run(&script, "ask --verdict accept", None).error();
    assert!(error.starts_with("cannot decode the records"), "{error}");
}

/// The question `number` of a request whose identifier is that of question 1.
fn namesake(number: u64) -> Question {
    Question { id: asked(1, 0).id, ..asked(number, 30_000) }
}

/// The record of a request that was pended.
fn pended(question: &Question) -> Record {
    Record::Inspect { id: question.id, remote: question.remote, action: Inspection::Pend, reason: None }
}

/// Identifiers are used again: what became of the one that had it before is not said of the one that has it
/// now.
#[test]
fn the_lapse_of_a_namesake_is_no_lapse() {
    for past in [false, true] {
        let script = script(&[]);
        let (first, second) = (namesake(1), namesake(2));
        if past {
            // It was pended before the program came.
            script.reply(IOCTL_NEXT_RECORDS, records(0, &[pended(&first)]));
        }
        let ask = Running::start(&script, "ask --verdict accept --count 1", None);
        let skipped = 2 + usize::from(past);
        script.wait_for(IOCTL_NEXT_RECORDS, skipped);
        let before = [pended(&first), Record::Abort { id: first.id }];
        script.reply(IOCTL_NEXT_RECORDS, records(0, &before[usize::from(past)..]));
        script.wait_for(IOCTL_NEXT_RECORDS, skipped + 1);
        script.reply(IOCTL_NEXT_QUESTION, question(&second));
        let ran = ask.end();
        ran.result.as_ref().expect("it is answered");
        assert_eq!(answers(&script), [(2, ACCEPT)]);
    }
}

/// The record of an answer may come when a namesake is held already.
#[test]
fn the_record_of_an_answer_ends_no_namesake() {
    let script = script(&[]);
    let (first, second) = (namesake(1), namesake(2));
    let (keys, ask) = typing(&script, "ask --count 2");
    happens(&script, pended(&first));
    script.wait_for(IOCTL_NEXT_RECORDS, 3);
    script.reply(IOCTL_NEXT_QUESTION, question(&first));
    ask.out.wait_for("5001");
    keys.send("r").expect("it reads");
    script.reply(IOCTL_NEXT_QUESTION, question(&second));
    ask.out.wait_for("5002");
    script.reply(IOCTL_NEXT_RECORDS, records(0, &[Record::Verdict { id: first.id, action: REJECT }]));
    script.wait_for(IOCTL_NEXT_RECORDS, 4);
    keys.send("a").expect("it reads");
    let ran = ask.end();
    ran.result.as_ref().expect("both are answered");
    assert_eq!(answers(&script), [(1, REJECT), (2, ACCEPT)]);
    assert!(!ran.out.contains("lapsed"), "{}", ran.out);
}

/// An answer by name that was meant for the question before does not let its namesake in; the number tells
/// them apart.
#[test]
fn an_answer_by_name_is_not_for_a_namesake() {
    let script = script(&[1]);
    let (keys, ask) = typing(&script, "ask --count 1");
    ask.out.wait_for("5001");
    script.reply(IOCTL_NEXT_QUESTION, question(&namesake(2)));
    happens(&script, Record::Abort { id: asked(1, 0).id });
    ask.out.wait_for("5002");
    keys.send("a a-1").expect("it reads");
    ask.remarks.wait_for("by number, 2");
    assert_eq!(answers(&script), []);
    keys.send("r 2").expect("it reads");
    ask.end().result.expect("one is answered");
    assert_eq!(answers(&script), [(2, REJECT)]);
}
