//! The service with variations that its front ends do not have: completion order, IRQL of callbacks, and
//! failure of each single allocation.

#[path = "support/client.rs"]
mod client;
#[path = "support/running.rs"]
mod running;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use gate_service::policy::{Action, Answer, Policy};
use gate_service::record::{AcceptBy, Inspection, Record, RecordSink};
use gate_service::{Asker, Limits, Reason, Rules, Settings};
use socket2::SockRef;
use wsk::Passive;
use wsk_sim::{Completion, Level, Sim};

#[cfg(target_os = "linux")]
use crate::client::connect_from_loopback;
use crate::client::{PATIENCE, connect, is_served, served_at_last};
use crate::running::Running;

const BOTH_WAYS: [AcceptBy; 2] = [AcceptBy::Irp, AcceptBy::Event];

/// Keeps all records.
#[derive(Clone, Debug, Default)]
struct Journal(Arc<(Mutex<Vec<Record>>, Condvar)>);

impl RecordSink for Journal {
    fn record(&self, record: Record) {
        self.records().push(record);
        self.0.1.notify_all();
    }
}

impl Journal {
    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.0.0.lock().expect("not poisoned")
    }

    fn count(&self, which: impl Fn(&Record) -> bool) -> usize {
        self.records().iter().filter(|record| which(record)).count()
    }

    /// Waits until there are `count` such records.
    fn wait(&self, count: usize, which: impl Fn(&Record) -> bool) {
        let short = |records: &mut Vec<Record>| records.iter().filter(|record| which(record)).count() < count;
        let (records, waited) =
            self.0.1.wait_timeout_while(self.records(), PATIENCE, short).expect("not poisoned");
        assert!(!waited.timed_out(), "{records:?}");
    }
}

/// Serves on `sim` while `clients` runs, then unloads. The error is that of the start.
fn serve(
    sim: &Sim,
    default: Action,
    accept_by: AcceptBy,
    clients: impl FnOnce(SocketAddr),
) -> (wsk::Result<()>, Journal) {
    serve_within(Limits::DEFAULT, sim, default, accept_by, |to, _| clients(to))
}

/// Does the same within limits; the clients can look at the records.
fn serve_within(
    limits: Limits,
    sim: &Sim,
    default: Action,
    accept_by: AcceptBy,
    clients: impl FnOnce(SocketAddr, &Journal),
) -> (wsk::Result<()>, Journal) {
    let journal = Journal::default();
    let (started, start) = channel();
    let (finish, finished) = channel::<()>();
    let sink = journal.clone();
    let driver = sim.thread("driver", move || drive(limits, default, accept_by, sink, &started, &finished));
    if let Ok(local) = start.recv() {
        clients(local, &journal);
    }
    drop(finish);
    let outcome = match driver.join() {
        Ok(outcome) => outcome,
        Err(failure) => panic!("the driver: {failure:?}\n{}", sim.finish()),
    };
    sim.finish().assert_clean();
    (outcome, journal)
}

fn drive(
    limits: Limits,
    default: Action,
    accept_by: AcceptBy,
    sink: impl RecordSink,
    started: &Sender<SocketAddr>,
    finished: &Receiver<()>,
) -> wsk::Result<()> {
    // SAFETY: the start of a system thread, at PASSIVE_LEVEL, without locks.
    let passive = unsafe { Passive::assume() };
    // Where few are let in, they stay.
    let after = if limits.clients < 1000 { Duration::from_hours(1) } else { Duration::from_millis(1) };
    let mut policy = Policy::new(default);
    policy.set_limits(limits);
    let settings = Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        policy: Rules::try_new(&policy)?,
        asker: Asker::Timed { answer: Answer::Accept, after },
        accept_by,
    };
    let service = Running::start(settings, sink, 2, passive)?;
    // Nobody waits for it if the test has failed.
    let _ = started.send(service.local_addr());
    // The sender is dropped when it is time.
    let _ = finished.recv();
    service.unload(Duration::from_secs(5));
    Ok(())
}

/// Sends `bytes`, ends, and returns what comes until the other side ends.
fn echo(to: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    echo_on(&connect(to)?, bytes)
}

/// Does the same on an existing connection.
fn echo_on(mut stream: &TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    Ok(back)
}

/// Connects and goes away with a reset.
fn give_up(to: SocketAddr) {
    if let Ok(stream) = connect(to) {
        // The service may have reset it first.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

/// A flood gets no more memory than the limits allow, neither for connections nor for pended requests.
#[test]
fn who_comes_when_it_is_full_is_rejected() {
    const CLIENTS: usize = 5;
    const MORE: usize = 20;
    let limits = Limits { clients: CLIENTS as u32, ..Limits::DEFAULT };
    for accept_by in BOTH_WAYS {
        // Half of them are for clients that are served, whatever happens.
        for (default, ends, max_clients) in
            [(Action::Accept, "served", CLIENTS), (Action::Ask, "asked about", CLIENTS.div_ceil(2))]
        {
            let sim = Sim::builder().build();
            let (outcome, journal) = serve_within(limits, &sim, default, accept_by, |to, _| {
                // Who was let in stays, and so does who is asked about, as nobody answers in an hour.
                let mut clients = Vec::new();
                for number in 0..max_clients + MORE {
                    let mut client = connect(to).expect("connected");
                    // One that is accepted is a task before the next one comes; one that is asked about hears
                    // nothing.
                    let heard = client.write_all(b"x").and_then(|()| match default {
                        Action::Ask if number < max_clients => Ok(()),
                        _ => client.read_exact(&mut [0]),
                    });
                    assert_eq!(
                        heard.is_ok(),
                        number < max_clients,
                        "{number} {ends}, {accept_by:?}: {heard:?}"
                    );
                    clients.push(client);
                }
            });
            outcome.expect("started");
            let let_in = journal.count(|record| {
                matches!(record, Record::Inspect { action: Inspection::Accept | Inspection::Pend, .. })
            });
            let rejected = journal.count(|record| {
                matches!(
                    record,
                    Record::Inspect { action: Inspection::Reject, reason: Some(Reason::Full), .. }
                )
            });
            assert_eq!((let_in, rejected), (max_clients, MORE), "{ends}, {accept_by:?}: {journal:?}");
        }
    }
}

/// A source that takes all of its share keeps no other source out, and gets a place back for each that it
/// gives up.
#[cfg(target_os = "linux")]
#[test]
fn one_source_leaves_room_for_the_others() {
    const SHARE: usize = 3;
    let limits = Limits { per_source: SHARE as u32, ..Limits::DEFAULT };
    for accept_by in BOTH_WAYS {
        let sim = Sim::builder().build();
        let (outcome, journal) = serve_within(limits, &sim, Action::Accept, accept_by, |to, _| {
            let mut greedy: Vec<_> =
                (0..SHARE).map(|_| connect_from_loopback(2, to).expect("connected")).collect();
            assert!(greedy.iter().all(is_served), "{accept_by:?}");
            for _ in 0..10 {
                assert!(
                    !connect_from_loopback(2, to).is_ok_and(|client| is_served(&client)),
                    "{accept_by:?}"
                );
            }
            let other = connect_from_loopback(3, to).expect("connected");
            assert!(is_served(&other), "{accept_by:?}");
            // One goes, the service notices, and there is room for one.
            let mut one = greedy.pop().expect("there are some");
            one.shutdown(Shutdown::Write).expect("an open socket");
            assert_eq!(one.read(&mut [0]).expect("the other end"), 0);
            served_at_last(|| connect_from_loopback(2, to));
        });
        outcome.expect("started");
        let refused = journal.count(|record| {
            matches!(record, Record::Inspect { action: Inspection::Reject, reason: Some(Reason::Source), .. })
        });
        assert!(refused >= 10, "{accept_by:?}: {journal:?}");
    }
}

fn is_pended(record: &Record) -> bool {
    matches!(record, Record::Inspect { action: Inspection::Pend, .. })
}

/// Undecided requests count for their source as connections do.
#[cfg(target_os = "linux")]
#[test]
fn pended_requests_of_one_source_leave_room_for_the_others() {
    const SHARE: usize = 3;
    // Few clients, as nobody answers them then.
    let limits = Limits { clients: 100, per_source: SHARE as u32, ..Limits::DEFAULT };
    for accept_by in BOTH_WAYS {
        let sim = Sim::builder().build();
        let (outcome, journal) = serve_within(limits, &sim, Action::Ask, accept_by, |to, journal| {
            let pended: Vec<_> =
                (0..SHARE).map(|_| connect_from_loopback(2, to).expect("connected")).collect();
            for _ in 0..10 {
                assert!(
                    !connect_from_loopback(2, to).is_ok_and(|client| is_served(&client)),
                    "{accept_by:?}"
                );
            }
            let other = connect_from_loopback(3, to).expect("connected");
            // One that goes before it is seen is no request.
            journal.wait(SHARE + 1, is_pended);
            drop((pended, other));
        });
        outcome.expect("started");
        let asked = journal.count(is_pended);
        assert_eq!(asked, SHARE + 1, "{accept_by:?}: {journal:?}");
    }
}

/// Requests that are inspected before any of their connections is delivered are all let in, as there is room
/// for each: the limit holds at delivery.
#[test]
fn a_crowd_that_comes_at_once_gets_no_more_than_its_share() {
    const SHARE: usize = 3;
    const CROWD: usize = 60;
    let limits = Limits { per_source: SHARE as u32, ..Limits::DEFAULT };
    for accept_by in BOTH_WAYS {
        let sim = Sim::builder().build();
        let (outcome, journal) = serve_within(limits, &sim, Action::Accept, accept_by, |to, _| {
            std::thread::scope(|scope| {
                let crowd: Vec<_> = (0..CROWD).map(|_| scope.spawn(move || connect(to))).collect();
                let crowd: Vec<_> = crowd.into_iter().filter_map(|one| one.join().ok()?.ok()).collect();
                // All are there until all have tried.
                let served = crowd.iter().filter(|client| is_served(client)).count();
                assert!((1..=SHARE).contains(&served), "{accept_by:?}: {served}");
            });
        });
        outcome.expect("started");
        let (mut open, mut peak) = (0_usize, 0);
        for record in &*journal.records() {
            match record {
                Record::Accepted { .. } => open += 1,
                Record::Closed { .. } => open -= 1,
                _ => {}
            }
            peak = peak.max(open);
        }
        assert!((1..=SHARE).contains(&peak), "{accept_by:?}: {peak} at once: {journal:?}");
    }
}

/// Clients that say nothing, and clients that take nothing, lose their connections; one that talks keeps its
/// own.
#[test]
fn silent_clients_lose_their_places() {
    const SILENT: usize = 4;
    // More than a loaded machine lets the one that talks wait.
    let limits = Limits { clients: SILENT as u32 + 2, idle_timeout: 5000, ..Limits::DEFAULT };
    for accept_by in BOTH_WAYS {
        let sim = Sim::builder().build();
        let (outcome, journal) = serve_within(limits, &sim, Action::Accept, accept_by, |to, _| {
            let mut talker = connect(to).expect("connected");
            let silent: Vec<_> = (0..SILENT).map(|_| connect(to).expect("connected")).collect();
            // One that never reads what it is owed, until nothing more goes in.
            let stuck = connect(to).expect("connected");
            stuck.set_nonblocking(true).expect("an open socket");
            std::thread::scope(|scope| {
                let ends: Vec<_> = silent
                    .iter()
                    .map(|mut client| scope.spawn(move || matches!(client.read(&mut [0]), Ok(0) | Err(_))))
                    .collect();
                let bytes = vec![0; 1 << 16];
                let mut gone = false;
                while !gone || ends.iter().any(|end| !end.is_finished()) {
                    talker.write_all(b"ping").expect("served");
                    talker.read_exact(&mut [0; 4]).expect("served");
                    let written = (&stuck).write(&bytes);
                    gone |= written.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock);
                }
                assert!(ends.into_iter().all(|end| end.join().expect("no panic")), "{accept_by:?}");
            });
            // Their places are free.
            let next: Vec<_> = (0..SILENT).map(|_| served_at_last(|| connect(to))).collect();
            drop(next);
        });
        outcome.expect("started");
        let dropped = journal.count(|record| matches!(record, Record::Dropped { reason: Reason::Idle, .. }));
        assert_eq!(dropped, SILENT + 1, "{accept_by:?}: {journal:?}");
        let (accepted, closed) = (
            journal.count(|record| matches!(record, Record::Accepted { .. })),
            journal.count(|record| matches!(record, Record::Closed { .. })),
        );
        assert_eq!(accepted, closed, "{accept_by:?}: {journal:?}");
    }
}

/// Holds every abort until it is told to let go, and notes how many there were at a time.
#[derive(Clone, Debug, Default)]
struct Holding(Arc<(Mutex<Held>, Condvar)>);

#[derive(Debug, Default)]
struct Held {
    pended: usize,
    inside: usize,
    peak: usize,
    seen: usize,
    let_go: bool,
}

impl RecordSink for Holding {
    fn record(&self, record: Record) {
        let (held, changed) = &*self.0;
        let mut held = held.lock().expect("not poisoned");
        match record {
            Record::Abort { .. } => {}
            Record::Inspect { .. } => {
                held.pended += 1;
                return changed.notify_all();
            }
            _ => return,
        }
        held.inside += 1;
        held.seen += 1;
        held.peak = held.peak.max(held.inside);
        changed.notify_all();
        held = changed.wait_while(held, |held| !held.let_go).expect("not poisoned");
        held.inside -= 1;
    }
}

/// However many pended clients give up while the client holds its callbacks open, there are no more than so
/// many threads for these; the others wait.
#[test]
fn a_storm_of_callbacks_has_a_bounded_number_of_threads() {
    const CLIENTS: usize = 120;
    const THREADS: usize = 64;
    let sim = Sim::builder().build();
    let sink = Holding::default();
    let (started, start) = channel();
    let (finish, finished) = channel::<()>();
    let driver = sim.thread("driver", {
        let sink = sink.clone();
        // Few clients, as nobody answers them then.
        let limits = Limits { clients: 500, per_source: Limits::NONE, ..Limits::DEFAULT };
        move || drive(limits, Action::Ask, AcceptBy::Event, sink, &started, &finished)
    });
    let to = start.recv().expect("started");
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(to).expect("connected")).collect();
    let (held, changed) = &*sink.0;
    let wait = |limit, enough: fn(&Held) -> bool| {
        let held = held.lock().expect("not poisoned");
        changed.wait_timeout_while(held, limit, |held| !enough(held)).expect("not poisoned").1.timed_out()
    };
    assert!(!wait(PATIENCE, |held| held.pended == CLIENTS), "{sink:?}");
    for client in clients {
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("an open socket");
    }
    assert!(!wait(PATIENCE, |held| held.seen >= THREADS - 2), "{sink:?}");
    // If more were let in, they would come about now; all that a slow machine does is not to see them.
    wait(Duration::from_millis(500), |held| held.seen > THREADS + 20);
    held.lock().expect("not poisoned").let_go = true;
    changed.notify_all();
    assert!(!wait(PATIENCE, |held| held.seen == CLIENTS), "{sink:?}");
    drop(finish);
    driver.join().unwrap_or_else(|failure| panic!("{failure:?}")).expect("started");
    sim.finish().assert_clean();
    // One of them looks after the others.
    let peak = held.lock().expect("not poisoned").peak;
    assert!((THREADS - 2..=THREADS).contains(&peak), "{sink:?}");
}

#[test]
fn every_completion_and_level() {
    let completions = [
        Completion::Natural,
        Completion::Inline,
        Completion::PendNested,
        Completion::PendEarly,
        Completion::PendLate,
        Completion::Random(7),
    ];
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    for completion in completions {
        for level in [Level::Passive, Level::Dispatch, Level::Random(11)] {
            for accept_by in BOTH_WAYS {
                let sim = Sim::builder().completion(completion).callbacks(level).completions(level).build();
                let (outcome, journal) = serve(&sim, Action::Ask, accept_by, |to| {
                    std::thread::scope(|scope| {
                        for _ in 0..3 {
                            scope.spawn(|| assert!(echo(to, &bytes).expect("echoed") == bytes));
                            scope.spawn(|| give_up(to));
                        }
                    });
                });
                outcome.expect("started");
                let case = format!("{completion:?}, {level:?}, {accept_by:?}: {journal:?}");
                let accepted = journal.count(|record| matches!(record, Record::Accepted { .. }));
                assert!(accepted >= 3, "{case}");
                let closed = journal.count(|record| matches!(record, Record::Closed { .. }));
                assert_eq!(closed, accepted, "{case}");
                let whole = bytes.len() as u64;
                let served = journal.count(|record| match record {
                    Record::Closed { received, sent, .. } => (*received, *sent) == (whole, whole),
                    _ => false,
                });
                assert_eq!(served, 3, "{case}");
            }
        }
    }
}

/// Memory that is refused once, at each place in turn: the start fails with an error, or a client is refused,
/// and whatever was not refused works. Who was taken and lost its connection for it is recorded with the
/// reason.
#[test]
fn each_allocation_fails_once() {
    for accept_by in BOTH_WAYS {
        for default in [Action::Accept, Action::Ask] {
            for nth in 1.. {
                let sim = Sim::new();
                sim.kernel().faults().fail_nth(nth);
                let mut unserved = Vec::new();
                let (outcome, journal) = serve(&sim, default, accept_by, |to| {
                    for _ in 0..3 {
                        let stream = connect(to).expect("the host has room");
                        if !echo_on(&stream, b"ping").is_ok_and(|back| back == b"ping") {
                            unserved.push(stream.local_addr().expect("an open socket"));
                        }
                    }
                    assert!(unserved.len() <= 1, "allocation {nth}: one fault, {unserved:?} not served");
                    give_up(to);
                });
                for client in unserved {
                    let taken = journal.count(
                        |record| matches!(record, Record::Accepted { remote, .. } if *remote == client),
                    );
                    let lost = journal.count(|record| {
                        *record == Record::Dropped { remote: client, reason: Reason::Memory }
                    });
                    assert!(lost >= taken, "allocation {nth}: {client}: {journal:?}");
                }
                if let Err(error) = outcome {
                    assert!(error.to_string().contains("memory"), "allocation {nth}: {error}");
                }
                let refused =
                    |record: &Record| matches!(record, Record::Inspect { action: Inspection::Reject, .. });
                assert!(journal.count(refused) <= 1, "allocation {nth}: {journal:?}");
                if sim.kernel().faults().injected() == 0 {
                    break;
                }
            }
        }
    }
}

/// Memory that is gone from some place on and never comes back: clients may be refused, and the unload, which
/// needs none, is as clean as ever.
#[test]
fn memory_runs_out_for_good() {
    for accept_by in BOTH_WAYS {
        for nth in 1.. {
            let sim = Sim::new();
            sim.kernel().faults().fail_from(nth);
            let (_, _) = serve(&sim, Action::Ask, accept_by, |to| {
                let stream = connect(to);
                if let Ok(mut stream) = stream {
                    // Nobody may be left to answer.
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(30)));
                    let _ = stream.write_all(b"ping");
                    let _ = stream.read(&mut [0; 4]);
                }
            });
            if sim.kernel().faults().injected() == 0 {
                break;
            }
        }
    }
}
