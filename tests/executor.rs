//! The executor, `block_on` and the timers of the library.

#[path = "support/harness.rs"]
mod harness;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use wsk::Passive;
use wsk::Status;
use wsk::executor::{Executor, SpawnError, Thread, block_on, block_on_timeout, yield_now};
use wsk::memory::Cache;
use wsk::time::{sleep, sleep_in, timeout, timeout_in};

const LONG: Duration = Duration::from_secs(20);

/// Sends a waker out of a task and tells who polled and dropped it.
#[derive(Clone, Default)]
struct Probe(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    waker: Option<Waker>,
    polls: usize,
    dropped_by: Option<ThreadId>,
    ready: bool,
}

impl Probe {
    fn future(&self) -> ProbeFuture {
        ProbeFuture(self.clone())
    }

    fn wait_for_polls(&self, polls: usize) {
        harness::eventually(|| self.0.lock().unwrap().polls >= polls);
    }

    fn waker(&self) -> Waker {
        self.0.lock().unwrap().waker.clone().expect("the future was polled")
    }
}

struct ProbeFuture(Probe);

impl Future for ProbeFuture {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut seen = self.0.0.lock().unwrap();
        seen.polls += 1;
        seen.waker = Some(context.waker().clone());
        if seen.ready { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for ProbeFuture {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().dropped_by = Some(std::thread::current().id());
    }
}

/// A queue between tasks: the simplest thing that loses wake-ups if an executor does.
#[derive(Default)]
struct Channel {
    state: Mutex<(VecDeque<u64>, Option<Waker>)>,
}

impl Channel {
    fn send(&self, value: u64) {
        let mut state = self.state.lock().unwrap();
        state.0.push_back(value);
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    async fn receive(&self) -> u64 {
        poll_fn(|context| {
            let mut state = self.state.lock().unwrap();
            if let Some(value) = state.0.pop_front() {
                return Poll::Ready(value);
            }
            state.1 = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

fn with_executor(threads: usize, body: impl FnOnce(Passive<'_>, &Executor) + Send + 'static) {
    harness::run(move |passive| {
        let executor = Executor::start(passive, threads).unwrap();
        body(passive, &executor);
        executor.stop(passive, LONG).unwrap();
    });
}

#[test]
fn tasks_run_to_their_end_on_every_number_of_threads() {
    for threads in [0, 1, 2, 5] {
        with_executor(threads, |passive, executor| {
            let done = Arc::new(Channel::default());
            for number in 0..100 {
                let done = done.clone();
                let task = async move {
                    yield_now().await;
                    done.send(number);
                };
                executor.spawner().spawn(task).unwrap();
            }
            let sum = async {
                let mut sum = 0;
                for _ in 0..100 {
                    sum += done.receive().await;
                }
                sum
            };
            assert_eq!(block_on(passive, sum).unwrap(), 4950);
        });
    }
}

/// A waker called at `DISPATCH_LEVEL`, as a completion routine does, polls nothing: the poll comes later, on
/// a thread of the executor, at `PASSIVE_LEVEL`.
///
/// Prevents: IRP-13, IRP-14, IRQL-13
#[test]
fn wakers_only_schedule() {
    with_executor(1, |_, executor| {
        let here = std::thread::current().id();
        let probe = Probe::default();
        let task = {
            let probe = probe.clone();
            async move {
                let mut future = pin!(probe.future());
                poll_fn(|context| {
                    assert_ne!(std::thread::current().id(), here);
                    assert_eq!(harness::irql(), 0);
                    future.as_mut().poll(context)
                })
                .await;
            }
        };
        executor.spawner().spawn(task).unwrap();
        probe.wait_for_polls(1);
        let waker = probe.waker();
        probe.0.lock().unwrap().ready = true;
        harness::at_dispatch(|| {
            waker.wake_by_ref();
            waker.wake();
        });
        harness::eventually(|| probe.0.lock().unwrap().dropped_by.is_some());
    });
}

#[test]
fn wakes_during_a_poll_are_answered_by_another_poll() {
    with_executor(2, |passive, executor| {
        let polls = Arc::new(AtomicUsize::new(0));
        let finished = Arc::new(Channel::default());
        let task = {
            let (polls, finished) = (polls.clone(), finished.clone());
            async move {
                poll_fn(|context| {
                    if polls.fetch_add(1, Ordering::Relaxed) == 1_000 {
                        return Poll::Ready(());
                    }
                    let waker = context.waker().clone();
                    waker.wake_by_ref();
                    context.waker().wake_by_ref();
                    Poll::Pending
                })
                .await;
                finished.send(1);
            }
        };
        executor.spawner().spawn(task).unwrap();
        block_on(passive, finished.receive()).unwrap();
        assert_eq!(polls.load(Ordering::Relaxed), 1_001);
    });
}

#[test]
fn stopping_drops_waiting_futures_on_the_threads_of_the_executor() {
    harness::run(|passive| {
        let executor = Executor::start(passive, 2).unwrap();
        let spawner = executor.spawner();
        let probes: Vec<_> = (0..50).map(|_| Probe::default()).collect();
        for probe in &probes {
            spawner.spawn(probe.future()).unwrap();
        }
        for probe in &probes {
            probe.wait_for_polls(1);
        }
        assert_eq!(spawner.unfinished(), 50);
        let wakers: Vec<_> = probes.iter().map(Probe::waker).collect();
        executor.stop(passive, LONG).unwrap();
        for probe in &probes {
            let seen = probe.0.lock().unwrap();
            assert_eq!(seen.polls, 1);
            assert!(seen.dropped_by.is_some_and(|thread| thread != std::thread::current().id()));
        }
        assert_eq!(spawner.unfinished(), 0);
        // Wakers outlive the executor and do nothing, also when they are the last to hold the task's memory.
        harness::at_dispatch(|| wakers.into_iter().for_each(Waker::wake));
        // New tasks are refused, and their futures dropped by whoever brought them.
        let late = Probe::default();
        assert_eq!(spawner.spawn(late.future()), Err(SpawnError::Stopped));
        assert_eq!(late.0.lock().unwrap().dropped_by, Some(std::thread::current().id()));
    });
}

#[test]
fn a_stop_that_takes_too_long_tells_what_is_left_and_can_be_repeated() {
    harness::run(|passive| {
        let executor = Executor::start(passive, 2).unwrap();
        let (entered, release) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let task = {
            let (entered, release) = (entered.clone(), release.clone());
            async move {
                entered.store(true, Ordering::Release);
                while !release.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
            }
        };
        executor.spawner().spawn(task).unwrap();
        executor.spawner().spawn(std::future::pending()).unwrap();
        harness::eventually(|| entered.load(Ordering::Acquire));
        let error = executor.stop(passive, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.tasks(), 1);
        assert!(
            error
                .to_string()
                .contains("still in use: unfinished tasks (1), threads that have not ended (2);"),
            "{error}"
        );
        release.store(true, Ordering::Release);
        error.into_inner().stop(passive, LONG).unwrap();
    });
}

#[test]
fn an_executor_that_cannot_start_all_its_threads_leaves_none() {
    harness::run(|passive| {
        harness::failing_if(harness::thread_number(3), || {
            let error = Executor::start(passive, 4).unwrap_err();
            assert_eq!(error.status(), Status::INSUFFICIENT_RESOURCES);
        });
    });
}

#[test]
fn tasks_and_timers_in_steady_state_allocate_nothing() {
    const ROUNDS: u64 = 20;
    with_executor(2, |passive, executor| {
        let spawner = executor.spawner();
        let done = Arc::new(Channel::default());
        let round = |tasks: u64| {
            for number in 0..tasks {
                let (done, cache) = (done.clone(), spawner.cache().clone());
                let task = async move {
                    sleep_in(Duration::from_micros(200), &cache).await.unwrap();
                    done.send(number);
                };
                spawner.spawn(task).unwrap();
            }
            let all = async {
                for _ in 0..tasks {
                    done.receive().await;
                }
            };
            block_on(passive, all).unwrap();
            harness::eventually(|| spawner.unfinished() == 0);
        };
        // Twice as many as later: what has just finished may still be on its way back to the cache.
        round(40);
        let before = harness::pool_allocations();
        for _ in 0..ROUNDS {
            round(20);
        }
        // `block_on` takes an event each time; tasks and timers take nothing.
        assert_eq!(harness::pool_allocations() - before, ROUNDS);
    });
}

#[test]
fn running_out_of_memory_refuses_a_task_and_a_timer() {
    with_executor(1, |passive, executor| {
        let spawner = executor.spawner();
        harness::without_memory(|| {
            assert_eq!(spawner.spawn(std::future::pending()), Err(SpawnError::OutOfMemory));
            assert!(block_on(passive, async {}).unwrap_err().is_out_of_memory());
            let mut context = Context::from_waker(Waker::noop());
            let Poll::Ready(Err(error)) = pin!(sleep(LONG)).poll(&mut context) else {
                panic!("there is memory")
            };
            assert!(error.is_out_of_memory());
        });
    });
}

#[test]
fn sleeps_last_and_can_be_dropped_at_any_moment() {
    with_executor(1, |passive, executor| {
        let start = Instant::now();
        block_on(passive, sleep(Duration::from_millis(20))).unwrap().unwrap();
        assert!(start.elapsed() >= Duration::from_millis(18), "{:?}", start.elapsed());
        assert!(block_on(passive, sleep(Duration::ZERO)).unwrap().is_ok());

        // Never polled, armed, and about to fire while it is dropped.
        drop(sleep(LONG));
        let mut context = Context::from_waker(Waker::noop());
        for step in 0..200 {
            let mut sleep = pin!(sleep_in(Duration::from_micros(step), executor.spawner().cache()));
            let _ = sleep.as_mut().poll(&mut context);
            std::thread::sleep(Duration::from_micros(step / 2));
        }
        wsk::time::flush_timers(passive);
    });
}

#[test]
fn a_limit_ends_what_takes_too_long_and_nothing_else() {
    with_executor(1, |passive, executor| {
        let cache = executor.spawner().cache().clone();
        let late = timeout(Duration::from_millis(5), std::future::pending::<()>());
        assert!(block_on(passive, late).unwrap().unwrap_err().is_timeout());
        // A result that is there counts, even if the time is up.
        let ready = timeout_in(Duration::ZERO, &cache, async { 7 });
        assert_eq!(block_on(passive, ready).unwrap().unwrap(), 7);
        // The future can be kept: what it would have received is not lost.
        let channel = Channel::default();
        let kept = async {
            let mut receive = pin!(channel.receive());
            assert!(timeout_in(Duration::from_millis(5), &cache, &mut receive).await.is_err());
            channel.send(42);
            receive.await
        };
        assert_eq!(block_on(passive, kept).unwrap(), 42);
    });
}

/// A future is polled when it was woken, and not because the time is up: a wake-up that is missing shows.
#[test]
fn a_result_that_nobody_has_woken_for_is_not_found_at_the_limit() {
    harness::run(|passive| {
        for limit in [Duration::ZERO, Duration::from_millis(10)] {
            let mut polls = 0;
            let silent = poll_fn(|_| {
                polls += 1;
                if polls == 1 { Poll::Pending } else { Poll::Ready(()) }
            });
            assert!(block_on_timeout(passive, limit, silent).unwrap_err().is_timeout());
            assert_eq!(polls, 1);
        }
        // One that wakes itself is polled until the time is up, and no longer.
        let restless = poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(block_on_timeout(passive, Duration::from_millis(10), restless).unwrap_err().is_timeout());
        assert!(block_on_timeout(passive, Duration::ZERO, yield_now()).unwrap_err().is_timeout());
        block_on_timeout(passive, LONG, yield_now()).unwrap();
    });
}

#[test]
fn block_on_waits_no_longer_than_its_limit() {
    harness::run(|passive| {
        let error =
            block_on_timeout(passive, Duration::from_millis(10), std::future::pending::<()>()).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(block_on_timeout(passive, Duration::ZERO, async { 3 }).unwrap(), 3);
        let probe = Probe::default();
        let waker = {
            let mut future = pin!(probe.future());
            let first = poll_fn(|context| {
                let _ = future.as_mut().poll(context);
                Poll::Ready(())
            });
            block_on(passive, first).unwrap();
            probe.waker()
        };
        // The waker outlives the wait it was for.
        drop(probe);
        harness::thread(move || harness::at_dispatch(|| waker.wake())).join();
    });
}

#[test]
fn tasks_may_start_tasks_and_outlive_their_spawner() {
    with_executor(2, |passive, executor| {
        let done = Arc::new(Channel::default());
        let (spawner, inner) = (executor.spawner(), done.clone());
        let task = async move {
            for number in 0..10 {
                let done = inner.clone();
                spawner.spawn(async move { done.send(number) }).unwrap();
            }
        };
        executor.spawner().spawn(task).unwrap();
        for _ in 0..10 {
            block_on(passive, done.receive()).unwrap();
        }
    });
}

#[test]
fn a_thread_that_was_waited_for_has_left() {
    harness::run(|passive| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let event = wsk::sync::Event::try_new(wsk::sync::EventKind::Notification).unwrap();
        let thread = {
            let (seen, event) = (seen.clone(), event.clone());
            // The thread gets a proof of its own that it may wait.
            Thread::spawn(passive, move |passive| {
                seen.lock().unwrap().push(event.wait(passive, None));
            })
            .unwrap()
        };
        assert!(!thread.wait(passive, Some(Duration::from_millis(5))));
        event.set();
        assert!(thread.wait(passive, None));
        assert_eq!(Arc::strong_count(&seen), 1);
        assert_eq!(*seen.lock().unwrap(), [true]);
    });
}

/// Many tasks pass tokens around rings while threads outside wake them for no reason, and some are stopped
/// half way.
#[test]
fn no_wake_up_is_lost_under_load() {
    const RINGS: usize = 8;
    const TASKS: usize = 6;
    const LAPS: u64 = 200;
    for threads in [1, 2, 4] {
        with_executor(threads, |passive, executor| {
            let spawner = executor.spawner();
            let finished = Arc::new(Channel::default());
            let stop = Arc::new(AtomicBool::new(false));
            let noise: Arc<Mutex<Vec<Waker>>> = Arc::default();
            for _ in 0..RINGS {
                let ring: Vec<_> = (0..TASKS).map(|_| Arc::new(Channel::default())).collect();
                for place in 0..TASKS {
                    let (from, to) = (ring[place].clone(), ring[(place + 1) % TASKS].clone());
                    let (finished, noise) = (finished.clone(), noise.clone());
                    let task = async move {
                        poll_fn(|context| {
                            noise.lock().unwrap().push(context.waker().clone());
                            Poll::Ready(())
                        })
                        .await;
                        loop {
                            let token = from.receive().await;
                            if token == 0 {
                                finished.send(1);
                                continue;
                            }
                            if token % 7 == 0 {
                                yield_now().await;
                            }
                            to.send(token - 1);
                        }
                    };
                    spawner.spawn(task).unwrap();
                }
                ring[0].send(LAPS * TASKS as u64);
            }
            let hecklers: Vec<_> = (0..2)
                .map(|_| {
                    let (stop, noise) = (stop.clone(), noise.clone());
                    harness::thread(move || {
                        while !stop.load(Ordering::Relaxed) {
                            let wakers = noise.lock().unwrap().clone();
                            harness::at_dispatch(|| wakers.iter().for_each(Waker::wake_by_ref));
                        }
                    })
                })
                .collect();
            for _ in 0..RINGS {
                assert_eq!(block_on_timeout(passive, LONG, finished.receive()).unwrap(), 1);
            }
            stop.store(true, Ordering::Relaxed);
            harness::join_all(hecklers);
            assert_eq!(spawner.unfinished(), RINGS * TASKS);
        });
    }
}

/// Executors are stopped while tasks are being started, woken and finished from outside.
#[test]
fn stopping_races_with_everything() {
    harness::run(|passive| {
        let cache = Cache::try_new(64).unwrap();
        for _ in 0..30 {
            let executor = Executor::start_in(passive, 2, &cache).unwrap();
            let (started, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let spawners: Vec<_> = (0..2)
                .map(|_| {
                    let (spawner, started, dropped) = (executor.spawner(), started.clone(), dropped.clone());
                    harness::thread(move || {
                        let channel = Arc::new(Channel::default());
                        loop {
                            let guard = OnDrop(dropped.clone());
                            let (mine, timers) = (channel.clone(), spawner.cache().clone());
                            let task = async move {
                                let _guard = guard;
                                let _ = timeout_in(Duration::from_micros(300), &timers, mine.receive()).await;
                            };
                            started.fetch_add(1, Ordering::Relaxed);
                            match spawner.spawn(task) {
                                Ok(()) => channel.send(1),
                                Err(error) => return assert_eq!(error, SpawnError::Stopped),
                            }
                        }
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_micros(500));
            executor.stop(passive, LONG).unwrap();
            harness::join_all(spawners);
            assert_eq!(started.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed));
        }
    });
}

struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
