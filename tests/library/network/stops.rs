//! Stops: how long they take, what they wait for and report, and stops and starts at the same time.

use super::*;

/// Tasks that do not end when the network stops are dropped after the time they have; those of the plain
/// spawner at once.
#[test]
fn tasks_that_stay_are_dropped() {
    let fixture = Fixture::new();
    Sim::new().run(move |_| {
        static DROPPED: AtomicBool = AtomicBool::new(false);
        struct Sets;
        impl Drop for Sets {
            fn drop(&mut self) {
                DROPPED.store(true, Ordering::SeqCst);
            }
        }
        let stays = |net: Net| async move {
            let sets = Sets;
            net.spawner().spawn(std::future::pending())?;
            net.ready();
            net.stopping().await;
            assert!(net.is_stopping());
            std::future::pending::<()>().await;
            drop(sets);
            Ok(())
        };
        let config = NetworkConfig { drain: Duration::from_millis(30), ..CONFIG };
        let started = fixture.network.start(passive(), config, stays).unwrap();
        started.wait_ready(BOUND).unwrap();
        let begun = Instant::now();
        drop(started);
        assert!(DROPPED.load(Ordering::SeqCst));
        assert!(begun.elapsed() >= Duration::from_millis(30), "it had its time");
    });
}

/// A provider that is kept in a static keeps the network from stopping; the report names it, and stopping
/// goes on.
///
/// Prevents: REG-21, REG-27
#[test]
fn a_provider_that_is_kept_is_named() {
    static KEPT: Mutex<Option<Provider>> = Mutex::new(None);
    let fixture = Fixture::new();
    Sim::new().run(move |sim| {
        let keeps = |net: Net| async move {
            *KEPT.lock().unwrap() = Some(net.provider().clone());
            Ok(())
        };
        let started = fixture.network.start(passive(), CONFIG, keeps).unwrap();
        eventually(|| KEPT.lock().unwrap().is_some());
        let helper = sim.thread("helper", || {
            let report = reported();
            assert_eq!((report.stage(), report.error()), (Stage::Unload, None));
            assert_eq!(report.to_string(), "the network is stopping; it waits for: captures of WSK (1)");
            drop(KEPT.lock().unwrap().take());
        });
        drop(started);
        helper.join().unwrap();
    });
}

/// A stop with a limit returns in time, what is left is reported at the interval, and the end can be waited
/// for again.
///
/// Prevents: REG-21, REG-27
#[test]
fn a_stop_with_a_limit_returns_in_time() {
    static KEPT: Mutex<Option<Provider>> = Mutex::new(None);
    let fixture = Fixture::new();
    let network = fixture.network;
    Sim::new().run(move |_| {
        assert!(network.stop_within(passive(), Duration::ZERO), "nothing was started");
        let keeps = |net: Net| async move {
            *KEPT.lock().unwrap() = Some(net.provider().clone());
            net.ready();
            Ok(())
        };
        let config = NetworkConfig { interval: Duration::from_millis(10), ..CONFIG };
        let started = network.start(passive(), config, keeps).unwrap();
        started.wait_ready(BOUND).unwrap();
        started.keep();
        assert!(!network.stop_within(passive(), Duration::from_millis(30)));
        for _ in 0..2 {
            let report = reported();
            assert_eq!((report.stage(), report.error()), (Stage::Unload, None));
        }
        drop(KEPT.lock().unwrap().take());
        assert!(network.stop_within(passive(), BOUND));
        network.start(passive(), CONFIG, serve).unwrap().keep();
        network.stop(passive());
    });
    drop(fixture);
}

/// Several threads stop a network at the same time, and each returns when nothing is left.
#[test]
fn several_threads_stop_a_network() {
    for completion in [Completion::Natural, Completion::PendLate, Completion::Random(3)] {
        let fixture = Fixture::new();
        let network = fixture.network;
        Sim::builder().completion(completion).build().run(move |sim| {
            for listens in [false, true, false, true] {
                *ADDRESS.lock().unwrap() = None;
                network.start(passive(), CONFIG, serve).unwrap().keep();
                if listens {
                    address();
                }
                let stops: Vec<_> = (0..3)
                    .map(|_| {
                        let sim_inside = sim.clone();
                        sim.thread("stops", move || {
                            network.stop(passive());
                            assert_eq!(sim_inside.provider().clients(), 0);
                        })
                    })
                    .collect();
                for stop in stops {
                    stop.join().unwrap();
                }
            }
        });
        drop(fixture);
    }
}

/// A start during a stop is refused, also after a stop whose time was up, and nothing of it runs; afterwards
/// the network starts again.
///
/// Prevents: REG-27
#[test]
fn a_start_during_a_stop_is_refused() {
    static RELEASED: AtomicBool = AtomicBool::new(false);
    static STOPPING: AtomicBool = AtomicBool::new(false);
    let fixture = Fixture::new();
    let network = fixture.network;
    Sim::new().run(move |sim| {
        let lingers = |net: Net| async move {
            net.ready();
            net.stopping().await;
            STOPPING.store(true, Ordering::SeqCst);
            while !RELEASED.load(Ordering::SeqCst) {
                yield_now().await;
            }
            Ok(())
        };
        let started = network.start(passive(), CONFIG, lingers).unwrap();
        started.wait_ready(BOUND).unwrap();
        started.keep();
        let stop = sim.thread("stops", move || network.stop(passive()));
        eventually(|| STOPPING.load(Ordering::SeqCst));
        assert!(!network.stop_within(passive(), Duration::from_millis(1)));
        let error = network.start(passive(), CONFIG, serve).unwrap_err();
        assert_eq!((error.operation(), error.status()), (Operation::Network, Status::INVALID_DEVICE_STATE));
        assert!(ADDRESS.lock().unwrap().is_none(), "the refused start has served");
        RELEASED.store(true, Ordering::SeqCst);
        stop.join().unwrap();
        assert_eq!(sim.provider().clients(), 0);
        network.start(passive(), CONFIG, serve).unwrap().keep();
        drop(Peer::connect(address()));
        network.stop(passive());
        assert!(REPORTS.lock().unwrap().is_empty());
    });
    drop(fixture);
}

/// While tasks drain, it is reported at the interval how many are left, and no longer than they are.
#[test]
fn what_drains_is_reported() {
    static RELEASED: AtomicBool = AtomicBool::new(false);
    let fixture = Fixture::new();
    let network = fixture.network;
    Sim::new().run(move |sim| {
        let lingers = |net: Net| async move {
            for _ in 0..2 {
                net.spawn(async {
                    while !RELEASED.load(Ordering::SeqCst) {
                        yield_now().await;
                    }
                })?;
            }
            net.ready();
            net.stopping().await;
            Ok(())
        };
        let config = NetworkConfig { interval: Duration::from_millis(20), ..CONFIG };
        let started = network.start(passive(), config, lingers).unwrap();
        started.wait_ready(BOUND).unwrap();
        assert!(REPORTS.lock().unwrap().is_empty(), "it is not stopping");
        let helper = sim.thread("helper", || {
            for _ in 0..3 {
                let report = reported();
                assert_eq!((report.stage(), report.error()), (Stage::StopTasks, None));
                assert_eq!(report.left().collect::<Vec<_>>(), [(2, "tasks")]);
                assert_eq!(report.to_string(), "the network is stopping; it waits for: tasks (2)");
            }
            RELEASED.store(true, Ordering::SeqCst);
        });
        drop(started);
        helper.join().unwrap();
        REPORTS.lock().unwrap().clear();
        std::thread::sleep(Duration::from_millis(60));
        assert!(REPORTS.lock().unwrap().is_empty(), "nothing is reported when it has ended");
    });
    drop(fixture);
}

/// A task that is not dropped in time, because its poll does not return, is reported until it is.
///
/// Prevents: REG-27
#[test]
fn a_task_that_blocks_is_reported_after_the_drain() {
    static RELEASED: AtomicBool = AtomicBool::new(false);
    let fixture = Fixture::new();
    let network = fixture.network;
    Sim::new().run(move |sim| {
        let blocks = |net: Net| async move {
            net.ready();
            while !RELEASED.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            Ok(())
        };
        let config = NetworkConfig { drain: Duration::ZERO, interval: Duration::from_millis(20), ..CONFIG };
        let started = network.start(passive(), config, blocks).unwrap();
        started.wait_ready(BOUND).unwrap();
        started.keep();
        let helper = sim.thread("helper", || {
            for _ in 0..2 {
                let report = reported();
                assert_eq!((report.stage(), report.error()), (Stage::StopTasks, None));
                let left: Vec<_> = report.left().collect();
                assert!(left.contains(&(1, "unfinished tasks")), "{report}");
            }
            RELEASED.store(true, Ordering::SeqCst);
        });
        network.stop(passive());
        helper.join().unwrap();
        assert_eq!(sim.provider().clients(), 0);
    });
    drop(fixture);
}

/// Threads start and stop one network at the same time, in each way to do that: what has started serves until
/// it is stopped, each stop leaves nothing of what it has found, and at the end there is nothing.
///
/// Prevents: REG-02, REG-27, CLOSE-13
#[test]
fn several_threads_start_and_stop_a_network() {
    static SERVED: AtomicUsize = AtomicUsize::new(0);
    static LIVE: AtomicUsize = AtomicUsize::new(0);
    /// Counts the functions that run.
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            LIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }
    async fn serve_alone(net: Net) -> Result {
        assert_eq!(LIVE.fetch_add(1, Ordering::SeqCst), 0, "two networks run");
        let _counted = Counted;
        let listener = net.provider().listener().bind(localhost()).await?;
        SERVED.fetch_add(1, Ordering::SeqCst);
        net.ready();
        net.stopping().await;
        drop(listener);
        Ok(())
    }
    let fixture = Fixture::new();
    let network = fixture.network;
    for completion in [Completion::Natural, Completion::PendLate, Completion::Random(7)] {
        Sim::builder().completion(completion).build().run(move |sim| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    sim.thread("starts and stops", move || {
                        for round in 0..12 {
                            match network.start(passive(), CONFIG, serve_alone) {
                                // Another thread may stop it at any moment.
                                Ok(started) => match (thread + round) % 4 {
                                    0 => started.keep(),
                                    1 => drop(started),
                                    _ => match started.wait_ready(BOUND) {
                                        Ok(()) => started.keep(),
                                        Err(error) => assert_eq!(error.status(), Status::CANCELLED),
                                    },
                                },
                                Err(error) => assert_eq!(error.status(), Status::INVALID_DEVICE_STATE),
                            }
                            match round % 3 {
                                0 => network.stop(passive()),
                                1 => _ = network.stop_within(passive(), Duration::ZERO),
                                _ => std::thread::yield_now(),
                            }
                        }
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            network.stop(passive());
            // Each start may have been stopped before it came to serve; one that is not comes to it.
            let before = SERVED.load(Ordering::SeqCst);
            let started = network.start(passive(), CONFIG, serve_alone).unwrap();
            started.wait_ready(BOUND).unwrap();
            drop(started);
            assert_eq!(SERVED.load(Ordering::SeqCst), before + 1);
            assert_eq!((LIVE.load(Ordering::SeqCst), sim.provider().clients()), (0, 0));
            assert!(REPORTS.lock().unwrap().is_empty());
        });
    }
    drop(fixture);
}

/// A network that is stopped before it has WSK does not serve.
///
/// Prevents: REG-27
#[test]
fn a_network_that_stops_at_once_does_not_serve() {
    static CALLED: AtomicBool = AtomicBool::new(false);
    let fixture = Fixture::new();
    let network = fixture.network;
    Sim::builder().late().build().run(move |sim| {
        let called = |_: Net| async {
            CALLED.store(true, Ordering::SeqCst);
            Ok(())
        };
        let started = network.start(passive(), CONFIG, called).unwrap();
        assert!(!network.stop_within(passive(), Duration::ZERO));
        sim.provider().arrive();
        assert_eq!(started.wait_ready(BOUND).unwrap_err().status(), Status::CANCELLED);
        drop(started);
        assert!(!CALLED.load(Ordering::SeqCst), "it has served");
    });
    drop(fixture);
}
