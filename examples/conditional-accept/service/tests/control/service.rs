//! End to end: a client of the host's network, the service, the gate, the question queue, a program that
//! answers, and back.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gate_service::policy::{Action, Answer, Policy};
use gate_service::record::{AcceptBy, DisconnectKind, Inspection};
use gate_service::status::Phase;
use gate_service::wire::{
    IOCTL_NEXT_QUESTION, IOCTL_NEXT_RECORDS, IOCTL_SET_POLICY, encode_policy, policy_size,
};
use gate_service::{Control, Parameters, Record};
use nt_user::Failure;
use wsk::Passive;
use wsk_sim::{Completion, Level, Sim};
use wsk_sys::{STATUS_CANCELLED, STATUS_NOT_FOUND};

use crate::client::{connect, is_served, reset};
use crate::io::{File, PATIENCE};
use crate::questions::{ROOM, answer, question, until_open};
use crate::records::records;
use crate::running::Running;

/// Limit on the wait for the tasks at unload, and again for the sockets.
const UNLOAD: Duration = Duration::from_secs(5);

/// Starts the service of a control.
fn start<'a>(control: &Control, threads: usize, passive: Passive<'a>) -> wsk::Result<Running<'a>> {
    let settings = control.settings().expect("an address");
    Running::start(settings, control.clone(), threads, passive)
}

/// A driver with its service.
pub(crate) struct Driver<'a> {
    control: Control,
    service: Running<'a>,
    passive: Passive<'a>,
}

impl<'a> Driver<'a> {
    pub(crate) fn load(default: Action, verdict_timeout: u32, passive: Passive<'a>) -> Self {
        Self::load_by(AcceptBy::Irp, default, verdict_timeout, passive)
    }

    fn load_by(accept_by: AcceptBy, default: Action, verdict_timeout: u32, passive: Passive<'a>) -> Self {
        let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let policy = Policy::new(default);
        let parameters = Parameters { listen, policy, verdict_timeout, accept_by, ..Parameters::default() };
        let control = Control::try_new(&parameters).expect("memory");
        let service = start(&control, 2, passive).expect("started");
        assert_eq!(
            (control.status().phase, control.status().local),
            (Phase::Listening, service.local_addr())
        );
        Self { control, service, passive }
    }

    /// Returns the control of its device.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Address it listens on.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.service.local_addr()
    }

    fn connect(&self) -> TcpStream {
        connect(self.service.local_addr()).expect("connected")
    }

    pub(crate) fn unload(self) {
        let start = Instant::now();
        self.control.stopping();
        self.service.unload(UNLOAD);
        self.control.shut_down(self.passive);
        assert!(start.elapsed() < UNLOAD);
        assert_eq!(self.control.status().phase, Phase::Stopping);
        assert_eq!(self.control.status().counters.questions, 0);
        assert_eq!(self.control.status().counters.open, 0);
    }
}

/// Runs a driver with `default` as its policy, until `body` returns.
fn drive(default: Action, verdict_timeout: u32, body: impl FnOnce(&Driver<'_>) + Send + 'static) {
    let sim = Sim::new();
    on(&sim, move |passive| {
        let driver = Driver::load(default, verdict_timeout, passive);
        body(&driver);
        driver.unload();
    });
}

/// Runs `body` on a thread of `sim`, which must be clean afterwards.
pub(crate) fn on(sim: &Sim, body: impl FnOnce(Passive<'_>) + Send + 'static) {
    let thread = sim.thread("driver", || {
        // SAFETY: the start of a system thread, at PASSIVE_LEVEL, without locks.
        body(unsafe { Passive::assume() });
    });
    match thread.join() {
        Ok(()) => sim.finish().assert_clean(),
        Err(Failure::Panicked(payload)) => std::panic::resume_unwind(payload),
        Err(failure) => panic!("{failure:?}\n{}", sim.finish()),
    }
}

/// Waits for a record that fits; those that come before are thrown away.
fn until_recorded(file: &File, fits: impl Fn(&Record) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, records) = records(file.call(IOCTL_NEXT_RECORDS, &[], 16 + 72));
        if records.iter().any(|timed| fits(&timed.record)) {
            return;
        }
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_program_decides_who_is_served() {
    let cases =
        [(Answer::Accept, AcceptBy::Irp), (Answer::Reject, AcceptBy::Irp), (Answer::Accept, AcceptBy::Event)];
    for (expected, accept_by) in cases {
        for level in [Level::Passive, Level::Dispatch] {
            let sim =
                Sim::builder().callbacks(level).completions(level).completion(Completion::Random(3)).build();
            on(&sim, move |passive| {
                let driver = Driver::load_by(accept_by, Action::Ask, 600_000, passive);
                let (program, watcher) = (File::open(&driver.control), File::open(&driver.control));
                let call = program.send(IOCTL_NEXT_QUESTION, &[], ROOM);
                let client = driver.connect();
                let remote = client.local_addr().expect("an address");
                let question = question(call.wait());
                assert_eq!(question.remote, remote);
                assert_eq!(driver.control.status().counters.questions, 1);
                answer(&program, question.number, expected).expect("held");
                assert_eq!(is_served(&client), expected == Answer::Accept);
                drop(client);
                let id = question.id;
                until_recorded(&watcher, |record| {
                    *record == Record::Inspect { id, remote, action: Inspection::Pend, reason: None }
                });
                until_recorded(&watcher, |record| *record == Record::Verdict { id, action: expected });
                if expected == Answer::Accept {
                    until_recorded(&watcher, |record| *record == Record::Accepted { remote, by: accept_by });
                    until_recorded(&watcher, |record| {
                        *record == Record::Disconnect { remote, kind: DisconnectKind::Graceful }
                    });
                    until_recorded(&watcher, |record| {
                        *record == Record::Closed { remote, received: 4, sent: 4 }
                    });
                }
                let counters = driver.control.status().counters;
                assert_eq!((counters.pended, counters.questions, counters.open), (1, 0, 0));
                assert_eq!(counters.answered_accept, u64::from(expected == Answer::Accept));
                assert_eq!(counters.answered_reject, u64::from(expected == Answer::Reject));
                drop((program, watcher));
                driver.unload();
            });
        }
    }
}

#[test]
fn nobody_answers_in_time() {
    drive(Action::Ask, 100, |driver| {
        let start = Instant::now();
        let client = driver.connect();
        assert!(!is_served(&client));
        assert!(start.elapsed() >= Duration::from_millis(100));
        let counters = driver.control.status().counters;
        assert_eq!((counters.pended, counters.timed_out, counters.answered_reject), (1, 1, 1));
    });
}

#[test]
fn a_program_that_dies_rejects_what_it_held() {
    drive(Action::Ask, 600_000, |driver| {
        let (dies, lives) = (File::open(&driver.control), File::open(&driver.control));
        let (first, second) =
            (dies.send(IOCTL_NEXT_QUESTION, &[], ROOM), dies.send(IOCTL_NEXT_QUESTION, &[], ROOM));
        let held = driver.connect();
        assert_eq!(question(first.wait()).remote, held.local_addr().expect("an address"));
        drop(dies);
        assert_eq!(second.wait(), Err(STATUS_CANCELLED));
        assert!(!is_served(&held));
        let other = driver.connect();
        let question = question(lives.call(IOCTL_NEXT_QUESTION, &[], ROOM));
        assert_eq!(question.remote, other.local_addr().expect("an address"));
        answer(&lives, question.number, Answer::Accept).expect("held");
        assert!(is_served(&other));
        assert_eq!(driver.control.status().counters.timed_out, 0);
    });
}

#[test]
fn a_client_that_gives_up_takes_its_question_along() {
    drive(Action::Ask, 600_000, |driver| {
        let (program, watcher) = (File::open(&driver.control), File::open(&driver.control));
        let (first, second) = (driver.connect(), driver.connect());
        until_open(&driver.control, 2);
        let held = question(program.call(IOCTL_NEXT_QUESTION, &[], ROOM));
        let (stays, goes) = if held.remote == first.local_addr().expect("an address") {
            (second, first)
        } else {
            (first, second)
        };
        reset(goes);
        until_recorded(&watcher, |record| *record == Record::Abort { id: held.id });
        until_open(&driver.control, 1);
        assert_eq!(answer(&program, held.number, Answer::Accept), Err(STATUS_NOT_FOUND));
        let other = question(program.call(IOCTL_NEXT_QUESTION, &[], ROOM));
        assert_eq!(other.remote, stays.local_addr().expect("an address"));
        answer(&program, other.number, Answer::Accept).expect("held");
        assert!(is_served(&stays));
        let counters = driver.control.status().counters;
        assert_eq!((counters.aborted, counters.answered_accept, counters.answered_reject), (1, 1, 0));
    });
}

/// The policy flips all the time while clients come and go; each of them is served whole or refused.
#[test]
fn the_policy_is_replaced_under_traffic() {
    drive(Action::Accept, 600_000, |driver| {
        let file = File::open(&driver.control);
        let set = |default| {
            let mut policy = Policy::new(default);
            policy.add("10.0.0.0/8".parse().expect("a network"), Action::Ask).expect("room");
            let mut bytes = vec![0; policy_size(&policy)];
            encode_policy(&policy, &mut bytes).expect("it fits");
            file.call(IOCTL_SET_POLICY, &bytes, 0).expect("it is one");
        };
        let to = driver.service.local_addr();
        let over = AtomicBool::new(false);
        let outcomes = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut yes, mut no) = (0, 0);
                        while !over.load(Ordering::Relaxed) {
                            // The host may say no before it is asked for more.
                            if connect(to).is_ok_and(|stream| is_served(&stream)) {
                                yes += 1;
                            } else {
                                no += 1;
                            }
                        }
                        (yes, no)
                    })
                })
                .collect();
            for round in 0..200 {
                set(if round % 2 == 0 { Action::Reject } else { Action::Accept });
                std::thread::sleep(Duration::from_millis(2));
            }
            over.store(true, Ordering::Relaxed);
            clients.into_iter().map(|client| client.join().expect("no panic")).collect::<Vec<_>>()
        });
        let (yes, no) = outcomes.iter().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        assert!(yes > 0 && no > 0, "{yes} served, {no} refused");
        let counters = driver.control.status().counters;
        assert_eq!((counters.accepted, counters.rejected), (yes, no));
        for (default, expected) in [(Action::Reject, false), (Action::Accept, true)] {
            set(default);
            assert_eq!(connect(to).is_ok_and(|stream| is_served(&stream)), expected);
        }
    });
}

/// Loaded and unloaded a hundred times, with everything that can be open.
#[test]
fn a_hundred_unloads_with_open_handles() {
    let sim = Sim::new();
    on(&sim, |passive| {
        for round in 0..100 {
            let driver = Driver::load(Action::Ask, 600_000, passive);
            let control = driver.control.clone();
            let (program, watcher) = (File::open(&control), File::open(&control));
            // One connection that is open, one question that is held, and one that nobody has taken.
            let open = driver.connect();
            let first = question(program.call(IOCTL_NEXT_QUESTION, &[], ROOM));
            answer(&program, first.number, Answer::Accept).expect("held");
            assert!(is_served(&open));
            let held = driver.connect();
            question(program.call(IOCTL_NEXT_QUESTION, &[], ROOM));
            let mut waits = (round % 2 == 0).then(|| {
                let waits = driver.connect();
                until_open(&control, 2);
                waits
            });
            let calls =
                if waits.is_some() { vec![] } else { vec![program.send(IOCTL_NEXT_QUESTION, &[], ROOM)] };
            let record = loop {
                let record = watcher.send(IOCTL_NEXT_RECORDS, &[], 16 + 64 * 72);
                if !record.has_ended() {
                    break record;
                }
            };
            driver.unload();
            for call in calls {
                assert_eq!(call.wait(), Err(STATUS_CANCELLED));
            }
            // What happened last, or that it is over.
            if let Err(status) = record.wait() {
                assert_eq!(status, STATUS_CANCELLED);
            }
            assert!(!is_served(&held));
            assert!(waits.as_mut().is_none_or(|stream| !is_served(stream)));
            assert_eq!(control.status().counters.handles, 2);
        }
    });
}

/// The port is in use: the start fails, the device goes on, and says so.
#[test]
fn a_service_that_cannot_start_leaves_the_device() {
    let sim = Sim::new();
    on(&sim, |passive| {
        let driver = Driver::load(Action::Accept, 1000, passive);
        let parameters = Parameters { listen: Some(driver.service.local_addr()), ..Parameters::default() };
        let control = Control::try_new(&parameters).expect("memory");
        let error = start(&control, 1, passive).err().expect("in use");
        gate_service::RecordSink::record(&control, Record::Failed { status: 0xC000_020A });
        assert!(error.to_string().contains("0xC000020A"), "{error}");
        let file = File::open(&control);
        until_recorded(&file, |record| *record == Record::Failed { status: 0xC000_020A });
        assert_eq!((control.status().phase, control.status().error), (Phase::Failed, 0xC000_020A));
        control.shut_down(passive);
        driver.unload();
    });
}
