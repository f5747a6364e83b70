//! Events and waits.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::*;
use nt_user::{Config, Context, Kernel, context};
use wsk_sys::nt::*;
use wsk_sys::status::*;

/// A notification event releases every waiter and stays signaled until it is cleared.
#[test]
fn a_notification_event_releases_all() {
    let kernel = kernel();
    let outer = kernel.clone();
    run(&kernel, move || {
        let event = Arc::new(Event::notification());
        let started = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let (event, started) = (Arc::clone(&event), Arc::clone(&started));
                outer.spawn("waiter", move || {
                    started.fetch_add(1, Ordering::SeqCst);
                    event.wait()
                })
            })
            .collect();
        while started.load(Ordering::SeqCst) != 4 {
            std::thread::yield_now();
        }
        assert_eq!(event.set(), 0);
        for waiter in waiters {
            assert_eq!(waiter.expect("a thread").join().expect("it ends"), STATUS_SUCCESS);
        }
        assert_eq!((event.state(), event.poll(), event.set()), (1, STATUS_SUCCESS, 1));
        event.clear();
        assert_eq!((event.state(), event.poll(), event.reset()), (0, STATUS_TIMEOUT, 0));
        event.set();
        assert_eq!((event.reset(), event.reset()), (1, 0));
    });
    finish_clean(&kernel);
}

/// A synchronization event releases one wait per signal, and stores at most one signal without waiters.
#[test]
fn a_synchronization_event_releases_one() {
    let kernel = kernel();
    run(&kernel, || {
        let event = Event::synchronization();
        event.set();
        event.set();
        assert_eq!((event.wait(), event.poll()), (STATUS_SUCCESS, STATUS_TIMEOUT));
    });
    finish_clean(&kernel);
}

/// Each signal of a synchronization event with waiters goes to one of them: as many signals as waiters
/// release all, however fast they come.
#[test]
fn signals_are_handed_to_waiters() {
    const WAITERS: usize = 4;
    let kernel = kernel();
    let outer = kernel.clone();
    run(&kernel, move || {
        for _ in 0..200 {
            let event = Arc::new(Event::synchronization());
            let waiters: Vec<_> = (0..WAITERS)
                .map(|_| {
                    let event = Arc::clone(&event);
                    outer.spawn("waiter", move || event.wait()).expect("a thread")
                })
                .collect();
            // The number of sleepers is in the header, next to the type.
            let sleepers = || {
                // SAFETY: the event is alive, and the sleepers change these bytes atomically.
                unsafe {
                    (*event.raw().cast::<std::sync::atomic::AtomicU64>()).load(Ordering::SeqCst) >> 16
                        & 0xFFFF
                }
            };
            while sleepers() != WAITERS as u64 {
                std::thread::yield_now();
            }
            for _ in 0..WAITERS {
                event.set();
            }
            for waiter in waiters {
                assert_eq!(waiter.join().expect("it ends"), STATUS_SUCCESS);
            }
            assert_eq!(event.poll(), STATUS_TIMEOUT, "every signal was used");
        }
    });
    finish_clean(&kernel);
}

/// A timeout ends a wait, not much before its time; absolute system times work too.
#[test]
fn a_wait_ends_with_its_timeout() {
    let kernel = kernel();
    run(&kernel, || {
        let event = Event::notification();
        let began = Instant::now();
        assert_eq!(event.wait_for(Duration::from_millis(20)), STATUS_TIMEOUT);
        assert!(began.elapsed() >= Duration::from_millis(20));
        let mut now = 0;
        // SAFETY: the place is on the stack.
        unsafe { KeQuerySystemTime(&raw mut now) };
        assert_eq!(wait_for(event.raw().cast(), now + 200_000), STATUS_TIMEOUT);
        assert!(began.elapsed() >= Duration::from_millis(40));
        assert_eq!(wait_for(event.raw().cast(), 1), STATUS_TIMEOUT, "a time long ago");
        let mut interval = relative(Duration::from_millis(10));
        let began = Instant::now();
        // SAFETY: the interval is on the stack.
        unsafe { KeDelayExecutionThread(KERNEL_MODE, 0, &raw mut interval) };
        assert!(began.elapsed() >= Duration::from_millis(10));
    });
    finish_clean(&kernel);
}

/// A waiter may free the event as soon as its wait is over, whatever the signaler is still doing.
#[test]
fn a_waiter_may_free_the_event_at_once() {
    let kernel = kernel();
    let outer = kernel.clone();
    run(&kernel, move || {
        let (events, signals) = std::sync::mpsc::sync_channel::<Shared<KEVENT>>(1);
        let signaler = outer.spawn("signaler", move || {
            for event in signals {
                set(event.get());
            }
        });
        for round in 0..20_000 {
            let event = if round % 2 == 0 { Event::notification() } else { Event::synchronization() };
            events.send(Shared::new(event.raw())).expect("the signaler listens");
            assert_eq!(event.wait(), STATUS_SUCCESS);
        }
        drop(events);
        signaler.expect("a thread").join().expect("it ends");
    });
    finish_clean(&kernel);
}

/// A wait at DISPATCH_LEVEL is caught; a poll is not, nor is a wait at PASSIVE_LEVEL.
/// Catches: IRQL-13
#[test]
fn waiting_at_dispatch_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let event = Event::notification();
        event.wait_for(Duration::from_micros(1));
        at_dispatch(|| event.poll());
    });
    assert!(kernel.violations().is_empty());
    run(&kernel, || {
        let event = Event::notification();
        at_dispatch(|| event.wait_for(Duration::from_micros(1)));
    });
    assert_only(&kernel, "IRQL-13");
    run(&kernel, || {
        let event = Event::notification();
        event.set();
        at_dispatch(|| event.wait());
    });
    assert_only(&kernel, "IRQL-13");
    finish_clean(&kernel);
}

unsafe extern "system" fn wait_inside(
    _: *mut DEVICE_OBJECT,
    _: *mut IRP,
    event: *mut std::ffi::c_void,
) -> NTSTATUS {
    wait_for(event, relative(Duration::from_micros(1)));
    STATUS_MORE_PROCESSING_REQUIRED
}

/// A completion routine that waits is caught, at PASSIVE_LEVEL too.
/// Catches: IRP-13
#[test]
fn waiting_in_a_completion_routine_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let event = Event::notification();
        let irp = allocate_irp(1);
        set_routine(irp, wait_inside, event.raw().cast());
        hand_down(irp);
        complete(irp, STATUS_SUCCESS, 0);
        free_irp(irp);
    });
    assert_only(&kernel, "IRP-13");
    finish_clean(&kernel);
}

/// A callback that waits is caught under the rule of that callback, at PASSIVE_LEVEL too; the thread's own
/// code may wait.
/// Catches: INSP-24, ABRT-13, DISC-14, EVT-56
#[test]
fn waiting_in_a_callback_is_caught() {
    let kernel = kernel();
    let rules = [
        ("WskInspectEvent", "INSP-24"),
        ("WskAbortEvent", "ABRT-13"),
        ("WskDisconnectEvent", "DISC-14"),
        ("WskAcceptEvent", "EVT-56"),
        ("WskReceiveEvent", "EVT-56"),
        ("WskReceiveFromEvent", "EVT-56"),
        ("WskSendBacklogEvent", "EVT-56"),
    ];
    for (name, rule) in rules {
        run(&kernel, move || {
            let event = Event::notification();
            let inside = context::callback(name, false);
            assert_eq!(context::current().callback, Some(name));
            event.wait_for(Duration::from_micros(1));
            drop(inside);
            event.wait_for(Duration::from_micros(1));
        });
        let found = kernel.violations();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_only(&kernel, rule);
    }
    finish_clean(&kernel);
}

/// Contexts nest: a completion inside a callback is a completion, a callback inside that is a callback.
#[test]
fn contexts_nest() {
    let kernel = kernel();
    run(&kernel, || {
        let callback = context::enter(Context::Callback { name: "WskReceiveEvent" });
        let completion = context::enter(Context::Completion);
        let nest = context::current();
        assert_eq!((nest.innermost, nest.callback), (Context::Completion, Some("WskReceiveEvent")));
        assert_eq!((nest.callbacks, nest.completions), (1, 1));
        let inner = context::enter(Context::Completion);
        assert_eq!(context::current().completions, 2);
        drop(inner);
        drop(completion);
        assert!(context::in_callback() && !context::in_completion());
        drop(callback);
        assert!(!context::in_callback());
    });
    finish_clean(&kernel);
}

/// A hang stops its kernel and no other, and the report names the waiting code.
#[test]
fn a_hang_stops_the_kernel() {
    let kernel = Kernel::new(Config { watchdog: Some(Duration::from_millis(50)), ..Config::default() });
    let other = common::kernel();
    run_until_stopped(&kernel, nt_user::rule::HANG, || {
        let event = Event::notification();
        event.wait();
    });
    assert!(kernel.shutdown(Duration::from_secs(10)).stopped.is_some());
    run(&other, || drop(Event::notification()));
    finish_clean(&other);
}

/// A pointer that is not a dispatcher object stops the kernel.
#[test]
fn waiting_for_nothing_stops_the_kernel() {
    run_until_stopped(&kernel(), nt_user::rule::OBJECT, || {
        let mut event: KEVENT = KEVENT::default();
        wait((&raw mut event).cast());
    });
}
