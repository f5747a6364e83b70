//! Timers: their memory outlives the routine of their DPC, whoever lets go of it, and is given back by a
//! flush.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use wsk::memory::{Cache, TAG};
use wsk::time::{Sleep, flush_timers, sleep, sleep_in};
use wsk_sim::Sim;

use crate::support::*;

const LONG: Duration = Duration::from_hours(1);
/// Not over at the first poll, and over soon.
const SHORT: Duration = Duration::from_micros(200);

fn blocks(sim: &Sim) -> usize {
    sim.kernel().pool_stats(TAG).blocks
}

fn allocations(sim: &Sim) -> u64 {
    sim.kernel().pool_stats(TAG).allocations
}

/// Polls a sleep so that it is armed; a host that is slow enough for it to be over makes another one.
fn armed(waker: &Waker, make: impl Fn() -> Sleep) -> Pin<Box<Sleep>> {
    loop {
        let mut sleep = Box::pin(make());
        if sleep.as_mut().poll(&mut Context::from_waker(waker)).is_pending() {
            return sleep;
        }
    }
}

/// Ends the sleep inside the DPC.
struct DropsIt(Mutex<Option<Pin<Box<Sleep>>>>, AtomicBool);

impl Wake for DropsIt {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
        self.1.store(true, Ordering::SeqCst);
    }
}

/// A sleep that its own waker drops, inside the DPC, is not freed there.
///
/// Prevents: LIFE-03, IRQL-05
#[test]
fn a_timer_is_not_freed_inside_its_own_routine() {
    Sim::new().run(|sim| {
        for cached in [false, true] {
            let cache = Cache::try_new(4).unwrap();
            let make = || if cached { sleep_in(SHORT, &cache) } else { sleep(SHORT) };
            let waker = Arc::new(DropsIt(Mutex::new(None), AtomicBool::new(false)));
            {
                // The lock is held until the sleep is where the waker finds it.
                let mut slot = waker.0.lock().unwrap();
                *slot = Some(armed(&Waker::from(Arc::clone(&waker)), make));
            }
            eventually(|| waker.1.load(Ordering::SeqCst));
            drop(cache);
            flush_timers(passive());
            assert_eq!(blocks(sim), 0);
        }
    });
}

/// Keeps the DPC in its routine until it is told to go on.
#[derive(Debug)]
struct Stays {
    entered: Barrier,
    leave: Barrier,
}

impl Wake for Stays {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.entered.wait();
        self.leave.wait();
    }
}

/// A sleep is dropped, and its memory used again, on another processor, while the routine of its DPC is still
/// running; none of it is freed before that has returned.
///
/// Prevents: LIFE-03
#[test]
fn a_timer_outlives_a_routine_that_has_not_returned() {
    Sim::new().run(|sim| {
        for again in [false, true] {
            let waker = Arc::new(Stays { entered: Barrier::new(2), leave: Barrier::new(2) });
            let sleep = armed(&Waker::from(Arc::clone(&waker)), || wsk::time::sleep(SHORT));
            waker.entered.wait();
            // It has fired; the routine is in the waker.
            at_dispatch(|| drop(sleep));
            if again {
                // Another timer, perhaps in the same memory, that is taken back in time, and one that is not.
                drop(armed(Waker::noop(), || wsk::time::sleep(LONG)));
                let wakes = Arc::new(Wakes::default());
                let mut second = armed(&Waker::from(Arc::clone(&wakes)), || wsk::time::sleep(SHORT));
                eventually(|| wakes.count() > 0);
                assert_eq!(ready(&mut second), Ok(()));
            }
            waker.leave.wait();
            flush_timers(passive());
            assert_eq!(blocks(sim), 0);
        }
    });
}

/// Sleeps that end one after the other use the same memory, without a flush in between.
///
/// Prevents: LIFE-03
#[test]
fn timers_that_have_ended_are_used_again() {
    Sim::new().run(|sim| {
        let round = || {
            let wakes = Arc::new(Wakes::default());
            let mut sleep = armed(&Waker::from(Arc::clone(&wakes)), || wsk::time::sleep(SHORT));
            eventually(|| wakes.count() > 0);
            assert_eq!(ready(&mut sleep), Ok(()));
        };
        round();
        let before = allocations(sim);
        for _ in 0..100 {
            round();
        }
        // The sleep that `armed` gave up, being late, may be in the way of the next.
        assert!(allocations(sim) - before <= 2, "{}", allocations(sim) - before);
        flush_timers(passive());
        assert_eq!(blocks(sim), 0);
    });
}

/// Timers of two machines in one process have nothing to do with each other.
#[test]
fn timers_stay_on_their_machine() {
    let machines = [Sim::new(), Sim::new()];
    for sim in &machines {
        sim.thread("sleeper", || {
            wait(sleep(SHORT)).unwrap();
        })
        .join()
        .unwrap();
    }
    for sim in machines {
        sim.run(|sim| {
            flush_timers(passive());
            assert_eq!(blocks(sim), 0);
        });
    }
}

/// Armed, fired and left timers are dropped everywhere at once; a flush and the unloading of a client give
/// all back.
///
/// Prevents: LIFE-03
#[test]
fn timers_are_given_back_however_they_end() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let sleepers: Vec<_> = (0..4)
            .map(|number| {
                sim.thread("sleeper", move || {
                    for step in 0..300_u64 {
                        let time = Duration::from_micros((step * 7 + number * 3) % 90);
                        let mut sleep = Box::pin(sleep(time));
                        let polled = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                        for _ in 0..step % 13 * 40 {
                            std::hint::spin_loop();
                        }
                        if step % 3 == 0 && polled == Poll::Pending {
                            wait(sleep.as_mut()).unwrap();
                        }
                        at_dispatch(|| drop(sleep));
                    }
                })
            })
            .collect();
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
        driver.unload();
        assert_eq!(blocks(sim), 0);
    });
}
