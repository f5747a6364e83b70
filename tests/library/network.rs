//! The network part of a driver: started in `DriverEntry`, stopped in `DriverUnload` or on a failure path,
//! with nothing left.

mod stops;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wsk::executor::yield_now;
use wsk::{Buffer, Error, Net, Network, NetworkConfig, Operation, Provider, Report, Result, Stage, Status};
use wsk_sim::nt_user::faults::Point;
use wsk_sim::raw::{End, Peer};
use wsk_sim::{Completion, Sim};

use crate::support::*;

/// A test's network with what it reports. The tests of this file run one after the other, because reports
/// come through a static.
struct Fixture {
    network: &'static Network,
    _alone: std::sync::MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());
static NETWORK: Network = Network::new();
static REPORTS: Mutex<VecDeque<Report>> = Mutex::new(VecDeque::new());
static ADDRESS: Mutex<Option<SocketAddr>> = Mutex::new(None);

const CONFIG: NetworkConfig = NetworkConfig {
    threads: 2,
    capture: BOUND,
    drain: BOUND,
    report: |report| REPORTS.lock().unwrap().push_back(*report),
    interval: Duration::from_secs(5),
};

impl Fixture {
    fn new() -> Self {
        let alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        REPORTS.lock().unwrap().clear();
        *ADDRESS.lock().unwrap() = None;
        Self { network: &NETWORK, _alone: alone }
    }
}

/// The next report, within the time that anything may take.
#[track_caller]
fn reported() -> Report {
    let end = Instant::now() + BOUND;
    loop {
        if let Some(report) = REPORTS.lock().unwrap().pop_front() {
            return report;
        }
        assert!(Instant::now() < end, "nothing was reported");
        std::thread::yield_now();
    }
}

/// Returns the address of the server, as soon as it listens.
#[track_caller]
fn address() -> SocketAddr {
    eventually(|| ADDRESS.lock().unwrap().is_some());
    ADDRESS.lock().unwrap().expect("it listens")
}

/// Echoes to each peer until the network stops.
async fn serve(net: Net) -> Result {
    let listener = net.provider().listener().bind(localhost()).await?;
    *ADDRESS.lock().unwrap() = Some(listener.local_addr());
    while let Some(connection) = net.until_stopping(listener.accept()).await {
        let connection = connection?;
        net.spawn(async move { echo(connection).await.unwrap_or(()) })?;
    }
    Ok(())
}

async fn echo(mut connection: wsk::Connection) -> Result {
    let mut buffer = Buffer::try_with_capacity(64)?;
    loop {
        let (received, filled) = connection.receive(buffer).await;
        if received? == 0 {
            return connection.shutdown().await;
        }
        let (sent, empty) = connection.send(filled).await;
        sent?;
        buffer = empty;
    }
}

/// A network serves, and stops, and can be started again; each time nothing is left.
///
/// Prevents: REG-27, REG-02, CLOSE-13
#[test]
fn a_network_serves_and_stops() {
    for completion in COMPLETIONS {
        let fixture = Fixture::new();
        Sim::builder().completion(completion).build().run(move |sim| {
            for _ in 0..3 {
                *ADDRESS.lock().unwrap() = None;
                fixture.network.start(passive(), CONFIG, serve).unwrap().keep();
                let peer = Peer::connect(address());
                peer.send(b"hello");
                assert_eq!(peer.receive(5), b"hello");
                // The task of this peer ends by itself while the network drains.
                peer.half_close();
                fixture.network.stop(passive());
                assert_eq!(peer.end(), End::Graceful(Vec::new()));
                assert_eq!(sim.provider().clients(), 0);
                // Once more, for nothing.
                fixture.network.stop(passive());
            }
            assert!(REPORTS.lock().unwrap().is_empty());
        });
    }
}

/// `DriverEntry` fails after the network was started: dropping the guard stops it and waits, whatever it was
/// doing.
///
/// Prevents: REG-27, LIFE-19
#[test]
fn a_driver_entry_that_fails_leaves_nothing() {
    for listens in [false, true] {
        let fixture = Fixture::new();
        let loaded = Sim::new().driver(
            move |_| {
                let network = fixture.network.start(passive(), CONFIG, serve).map_err(|_| "not started")?;
                if listens {
                    address();
                }
                // Something else fails.
                let _dropped = network;
                Err::<(), _>("no device")
            },
            |_, ()| unreachable!(),
        );
        assert_eq!(loaded, Err("no device"));
    }
}

/// With a device of the driver, its image stays until the last completion routine has returned, and no
/// longer.
///
/// Prevents: REG-27, LIFE-19
#[test]
fn a_driver_is_loaded_and_unloaded() {
    let fixture = Fixture::new();
    let sim = Sim::new();
    sim.kernel().watch_image(true);
    let network = fixture.network;
    let loaded = sim.driver(
        move |sim| {
            let device = sim.kernel().create_device();
            // SAFETY: the device is this driver's, and is deleted after the network was stopped.
            unsafe { network.start_for(passive(), device, CONFIG, serve) }?.keep();
            Ok::<_, Error>(device as usize)
        },
        move |sim, device| {
            let peer = Peer::connect(address());
            peer.send(b"x");
            assert_eq!(peer.receive(1), b"x");
            peer.half_close();
            network.stop(passive());
            sim.kernel().delete_device(device as *mut _);
        },
    );
    loaded.unwrap();
    drop(fixture);
}

/// A network that runs is not started a second time, also when it has ended by itself; it is stopped first.
#[test]
fn a_network_is_started_once() {
    let fixture = Fixture::new();
    Sim::new().run(move |sim| {
        let started = fixture.network.start(passive(), CONFIG, |_| async { Ok(()) }).unwrap();
        // It has ended, and given everything back.
        eventually(|| sim.provider().clients() == 0);
        let error = fixture.network.start(passive(), CONFIG, serve).unwrap_err();
        assert_eq!((error.operation(), error.status()), (Operation::Network, Status::INVALID_DEVICE_STATE));
        assert!(ADDRESS.lock().unwrap().is_none());
        drop(started);
        drop(fixture.network.start(passive(), CONFIG, serve).unwrap());
    });
}

/// The guard of one start stops what that has started, and nothing that was started later.
#[test]
fn an_old_start_leaves_a_later_one_alone() {
    let fixture = Fixture::new();
    Sim::new().run(move |_| {
        let old = fixture.network.start(passive(), CONFIG, serve).unwrap();
        address();
        fixture.network.stop(passive());
        *ADDRESS.lock().unwrap() = None;
        fixture.network.start(passive(), CONFIG, serve).unwrap().keep();
        let address = address();
        drop(old);
        let peer = Peer::connect(address);
        peer.send(b"still there");
        assert_eq!(peer.receive(11), b"still there");
        drop(peer);
        fixture.network.stop(passive());
    });
}

/// A failure of the driver's function stops the network for the other tasks, too.
#[test]
fn a_failure_stops_the_other_tasks() {
    let fixture = Fixture::new();
    let network = fixture.network;
    Sim::new().run(move |sim| {
        let (tell, told) = channel();
        let fails = move |net: Net| async move {
            let own = net.clone();
            net.spawn(async move {
                own.stopping().await;
                // An operation that never ends is over, too.
                tell.say(own.until_stopping(std::future::pending::<()>()).await);
            })?;
            Err(wsk::Error::new(Operation::Bind, Status::ADDRESS_ALREADY_EXISTS))
        };
        let started = network.start(passive(), CONFIG, fails).unwrap();
        assert_eq!(reported().stage(), Stage::Serve);
        assert_eq!(told.next(), None);
        eventually(|| sim.provider().clients() == 0);
        drop(started);
    });
    drop(fixture);
}

/// A failure is reported, with its stage, in one line; the network ends, and is to be stopped all the same.
#[test]
fn failures_are_reported() {
    let fixture = Fixture::new();
    let network = fixture.network;
    Sim::new().run(move |sim| {
        let fails = |net: Net| async move {
            net.provider().listener().bind("192.0.2.1:0".parse().unwrap()).await.map(drop)
        };
        let started = network.start(passive(), CONFIG, fails).unwrap();
        let report = reported();
        assert_eq!((report.stage(), report.left().count()), (Stage::Serve, 0));
        assert_eq!(report.error().unwrap().operation(), Operation::Bind);
        let line = report.to_string();
        assert!(line.ends_with("; the network ends") && !line.contains('\n'), "{line}");
        eventually(|| sim.provider().clients() == 0);
        drop(started);
    });
    let late = Sim::builder().late().build();
    late.run(move |_| {
        let config = NetworkConfig { capture: Duration::from_millis(30), ..CONFIG };
        let started = network.start(passive(), config, serve).unwrap();
        let report = reported();
        assert_eq!(report.stage(), Stage::Capture);
        assert_eq!(report.error().unwrap().status(), Status::DEVICE_NOT_READY);
        assert!(report.to_string().ends_with("; the network ends"), "{report}");
        drop(started);
    });
    drop(fixture);
}

/// A network that waits for WSK is stopped at once, and one that waited gets it when it comes.
///
/// Prevents: REG-29
#[test]
fn a_network_waits_for_wsk_and_can_be_stopped_meanwhile() {
    let fixture = Fixture::new();
    Sim::builder().late().build().run(move |sim| {
        let begun = Instant::now();
        let long = NetworkConfig { capture: Duration::from_hours(1), ..CONFIG };
        fixture.network.start(passive(), long, serve).unwrap().keep();
        fixture.network.stop(passive());
        assert!(begun.elapsed() < BOUND);
        fixture.network.start(passive(), long, serve).unwrap().keep();
        sim.provider().arrive();
        drop(Peer::connect(address()));
        fixture.network.stop(passive());
        assert!(REPORTS.lock().unwrap().is_empty());
    });
}

/// A start can be waited for: until the driver's function is ready or has returned, or the network has ended
/// without it; each failure is the error.
#[test]
fn a_start_is_waited_for() {
    let fixture = Fixture::new();
    let network = fixture.network;
    Sim::new().run(move |_| {
        let stays = |net: Net| async move {
            net.ready();
            net.stopping().await;
            Err(Error::new(Operation::Bind, Status::ADDRESS_ALREADY_EXISTS))
        };
        let started = network.start(passive(), CONFIG, stays).unwrap();
        started.wait_ready(BOUND).unwrap();
        network.stop(passive());
        started.wait_ready(BOUND).expect("the first outcome counts");
        let returns = network.start(passive(), CONFIG, |_| async { Ok(()) }).unwrap();
        returns.wait_ready(BOUND).unwrap();
        drop(returns);
        let fails = |net: Net| async move {
            net.provider().listener().bind("192.0.2.1:0".parse().unwrap()).await.map(drop)
        };
        let fails = network.start(passive(), CONFIG, fails).unwrap();
        assert_eq!(fails.wait_ready(BOUND).unwrap_err().operation(), Operation::Bind);
        drop(fails);
    });
    Sim::builder().late().build().run(move |_| {
        let started = network.start(passive(), CONFIG, serve).unwrap();
        let error = started.wait_ready(Duration::from_millis(30)).unwrap_err();
        assert_eq!((error.operation(), error.status()), (Operation::Network, Status::IO_TIMEOUT));
        network.stop(passive());
        assert_eq!(started.wait_ready(BOUND).unwrap_err().status(), Status::CANCELLED);
    });
    drop(fixture);
}

/// Every allocation of a start, a service and a stop fails once: the start says so, or a report does, and
/// nothing is left.
///
/// Prevents: CLOSE-14, REG-02, REG-27
#[test]
fn memory_may_run_out_at_every_allocation_of_a_network() {
    let fixture = Fixture::new();
    let network = fixture.network;
    for all_that_follow in [false, true] {
        for attempt in 1.. {
            REPORTS.lock().unwrap().clear();
            *ADDRESS.lock().unwrap() = None;
            let (say, said) = channel();
            Sim::new().run(move |sim| {
                if all_that_follow {
                    sim.kernel().faults().fail_from(attempt);
                } else {
                    sim.kernel().faults().fail_nth(attempt);
                }
                let outcome = network.start(passive(), CONFIG, serve);
                if let Ok(started) = outcome {
                    // It listens, or it has said why not.
                    eventually(|| ADDRESS.lock().unwrap().is_some() || !REPORTS.lock().unwrap().is_empty());
                    drop(started);
                } else if let Err(error) = outcome {
                    assert!(error.is_out_of_memory(), "{error}");
                }
                say.say(sim.kernel().faults().injected());
                sim.kernel().faults().clear();
            });
            for report in REPORTS.lock().unwrap().drain(..) {
                assert!(report.error().is_none_or(|error| error.is_out_of_memory()), "{report}");
            }
            if said.next() == 0 {
                assert!(attempt > 10, "it asks for memory");
                break;
            }
        }
    }
    drop(fixture);
}

/// Each system thread of a start fails once: the report names the stage, a wait for the start has the same
/// error, the driver's function does not run, and nothing is left.
///
/// Prevents: REG-02, REG-27
#[test]
fn a_thread_that_cannot_be_had_is_reported_with_its_stage() {
    let fixture = Fixture::new();
    let network = fixture.network;
    // The first thread is the network's own, the second the client's; then come those that run tasks.
    for (thread, stage) in [(2, Stage::Register), (3, Stage::Start), (4, Stage::Start)] {
        Sim::new().run(move |sim| {
            let mut threads = 0;
            sim.kernel().faults().fail_if(move |attempt| {
                threads += usize::from(attempt.point == Point::Thread);
                attempt.point == Point::Thread && threads == thread
            });
            let started = network.start(passive(), CONFIG, serve).unwrap();
            let error = started.wait_ready(BOUND).unwrap_err();
            let report = reported();
            assert_eq!((report.stage(), report.error()), (stage, Some(error)), "thread {thread}");
            assert_eq!(report.left().count(), 0);
            assert!(report.to_string().ends_with("; the network ends"), "{report}");
            eventually(|| sim.provider().clients() == 0);
            drop(started);
            assert!(ADDRESS.lock().unwrap().is_none(), "it has served");
            assert!(REPORTS.lock().unwrap().is_empty());
            // The network is as good as new.
            sim.kernel().faults().clear();
            drop(network.start(passive(), CONFIG, serve).unwrap());
        });
        REPORTS.lock().unwrap().clear();
        *ADDRESS.lock().unwrap() = None;
    }
    Sim::new().run(move |sim| {
        sim.kernel().faults().fail_all(Point::Thread);
        let error = network.start(passive(), CONFIG, serve).unwrap_err();
        assert_eq!(error.operation(), Operation::Thread);
        assert!(network.stop_within(passive(), Duration::ZERO), "nothing was started");
        assert!(REPORTS.lock().unwrap().is_empty());
    });
    drop(fixture);
}
