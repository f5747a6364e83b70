//! IRQL and spin locks.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use nt_user::{Kernel, Severity, context, rule};
use wsk_sys::nt::*;

/// A spin lock where the tests can share it.
#[derive(Default)]
struct Lock(AtomicUsize);

impl Lock {
    fn raise(&self) -> KIRQL {
        // SAFETY: the lock is alive.
        unsafe { KeAcquireSpinLockRaiseToDpc(self.0.as_ptr()) }
    }

    fn lower(&self, irql: KIRQL) {
        // SAFETY: the lock is alive.
        unsafe { KeReleaseSpinLock(self.0.as_ptr(), irql) };
    }

    fn acquire(&self) {
        // SAFETY: the lock is alive.
        unsafe { KeAcquireSpinLockAtDpcLevel(self.0.as_ptr()) };
    }

    fn release(&self) {
        // SAFETY: the lock is alive.
        unsafe { KeReleaseSpinLockFromDpcLevel(self.0.as_ptr()) };
    }
}

fn raise(irql: KIRQL) -> KIRQL {
    // SAFETY: nothing is required.
    unsafe { KfRaiseIrql(irql) }
}

fn lower(irql: KIRQL) {
    // SAFETY: nothing is required.
    unsafe { KeLowerIrql(irql) };
}

/// Runs `mistake`, which must break `rule` once and no other.
fn catches(kernel: &Kernel, rule: &str, mistake: impl FnOnce() + Send + 'static) {
    run(kernel, mistake);
    assert_eq!(kernel.violations().len(), 1, "{:#?}", kernel.violations());
    assert_only(kernel, rule);
}

/// Every thread has its own IRQL, which spin locks and the raising functions change.
#[test]
fn the_irql_belongs_to_the_thread() {
    let kernel = kernel();
    let outer = kernel.clone();
    run(&kernel, move || {
        assert_eq!(irql(), PASSIVE_LEVEL);
        assert_eq!(raise(APC_LEVEL), PASSIVE_LEVEL);
        assert_eq!(raise(DISPATCH_LEVEL), APC_LEVEL);
        assert_eq!(run(&outer, irql), PASSIVE_LEVEL);
        let lock = Lock::default();
        let old = lock.raise();
        assert_eq!((old, irql()), (DISPATCH_LEVEL, DISPATCH_LEVEL));
        lock.lower(old);
        lock.acquire();
        lock.release();
        lower(PASSIVE_LEVEL);
        let old = lock.raise();
        assert_eq!((old, irql()), (PASSIVE_LEVEL, DISPATCH_LEVEL));
        lock.lower(old);
        assert_eq!(irql(), PASSIVE_LEVEL);
    });
    finish_clean(&kernel);
}

/// Raising downwards, lowering upwards, and lowering with a lock held are caught.
#[test]
fn raising_and_lowering_the_wrong_way_is_caught() {
    let kernel = kernel();
    catches(&kernel, rule::IRQL, || {
        raise(DISPATCH_LEVEL);
        raise(PASSIVE_LEVEL);
    });
    catches(&kernel, rule::IRQL, || {
        lower(DISPATCH_LEVEL);
        lower(PASSIVE_LEVEL);
    });
    catches(&kernel, rule::IRQL, || {
        let lock = Lock::default();
        let old = lock.raise();
        lower(PASSIVE_LEVEL);
        raise(DISPATCH_LEVEL);
        lock.lower(old);
    });
    finish_clean(&kernel);
}

/// A routine or thread that leaves another IRQL or a held lock behind is caught, and the state is restored.
#[test]
fn what_a_routine_leaves_behind_is_caught() {
    let kernel = kernel();
    catches(&kernel, rule::IRQL, || {
        raise(DISPATCH_LEVEL);
    });
    catches(&kernel, rule::IRQL, || {
        let inside = context::callback("WskReceiveEvent", false);
        raise(DISPATCH_LEVEL);
        drop(inside);
        assert_eq!(irql(), PASSIVE_LEVEL);
    });
    catches(&kernel, rule::SPIN_LOCK, || {
        let lock = Lock::default();
        let inside = context::callback("WskReceiveEvent", true);
        assert_eq!(irql(), DISPATCH_LEVEL);
        lock.acquire();
        drop(inside);
        assert_eq!(irql(), PASSIVE_LEVEL);
    });
    finish_clean(&kernel);
}

/// Functions for PASSIVE_LEVEL, and for DISPATCH_LEVEL, check the IRQL.
#[test]
fn calls_at_a_wrong_level_are_caught() {
    let kernel = kernel();
    catches(&kernel, rule::IRQL, || {
        raise(DISPATCH_LEVEL + 1);
        let block = allocate(8);
        lower(PASSIVE_LEVEL);
        free(block);
    });
    catches(&kernel, rule::IRQL, || {
        let lock = Lock::default();
        lock.acquire();
        raise(DISPATCH_LEVEL);
        lock.release();
        lower(PASSIVE_LEVEL);
    });
    catches(&kernel, rule::IRQL, || {
        at_dispatch(|| {
            // SAFETY: an invalid handle is refused.
            unsafe { ExAllocatePoolWithTag(1, 8, TAG) };
        });
    });
    let leaks = finish(&kernel);
    assert_eq!(leaks.count(), 1, "the paged block");
}

/// Functions for DISPATCH_LEVEL at most check the IRQL, each under its own name.
#[test]
fn calls_above_dispatch_are_caught_in_each_function() {
    let kernel = kernel();
    let above = |call: &'static str, mistake: fn(*mut IRP, *mut KEVENT)| {
        run(&kernel, move || {
            // SAFETY: nothing is required.
            let irp = unsafe { IoAllocateIrp(1, 0) };
            let event = Event::notification();
            raise(DISPATCH_LEVEL + 1);
            mistake(irp, event.raw());
            lower(PASSIVE_LEVEL);
            // SAFETY: the IRP was just allocated, and the mistakes leave it so.
            unsafe { IoFreeIrp(irp) };
        });
        let found = kernel.take(rule::IRQL);
        assert!(!found.is_empty() && found.iter().all(|found| found.call == call), "{call}: {found:#?}");
    };
    above("IoAllocateIrp", |_, _| {
        // SAFETY: nothing is required.
        let irp = unsafe { IoAllocateIrp(1, 0) };
        lower(PASSIVE_LEVEL);
        // SAFETY: the IRP was just allocated.
        unsafe { IoFreeIrp(irp) };
    });
    // SAFETY: the IRP is not in use.
    above("IoReuseIrp", |irp, _| unsafe { IoReuseIrp(irp, 0) });
    above("IoFreeIrp", |_, _| {
        lower(PASSIVE_LEVEL);
        // SAFETY: nothing is required.
        let irp = unsafe { IoAllocateIrp(1, 0) };
        raise(DISPATCH_LEVEL + 1);
        // SAFETY: the IRP was just allocated.
        unsafe { IoFreeIrp(irp) };
    });
    above("KeSetEvent", |_, event| {
        // SAFETY: the event is initialized.
        unsafe { KeSetEvent(event, 0, 0) };
    });
    // SAFETY: the event is initialized and outlives the call.
    above("KeClearEvent", |_, event| unsafe { KeClearEvent(event) });
    above("KeResetEvent", |_, event| {
        // SAFETY: the event is initialized and outlives the call.
        unsafe { KeResetEvent(event) };
    });
    above("KeReadStateEvent", |_, event| {
        // SAFETY: the event is initialized and outlives the call.
        unsafe { KeReadStateEvent(event) };
    });
    assert!(kernel.violations().is_empty());
    // The IRP was not submitted either, which is not tested here.
    // SAFETY: the kernel recognizes an IRP that was not submitted.
    above("IofCompleteRequest", |irp, _| unsafe { IofCompleteRequest(irp, 0) });
    assert_only(&kernel, rule::IRP_COMPLETE);
    finish_clean(&kernel);
}

/// An event that is set to be waited for at once is for APC_LEVEL at most.
#[test]
fn setting_an_event_to_wait_at_dispatch_is_caught() {
    let kernel = kernel();
    catches(&kernel, rule::IRQL, || {
        let event = Event::notification();
        at_dispatch(|| {
            // SAFETY: the event is initialized.
            unsafe { KeSetEvent(event.raw(), 0, 1) };
        });
    });
    finish_clean(&kernel);
}

/// A long callback at DISPATCH_LEVEL gets advice; a short one, or one at PASSIVE_LEVEL, does not.
/// Catches: IRQL-05
#[test]
fn a_long_stay_at_dispatch_is_noticed() {
    let kernel = kernel();
    kernel.set_dispatch_budget(Some(Duration::from_millis(2)));
    let stay = |at_dispatch: bool, time: Duration| {
        let platform = kernel.clone();
        run(&kernel, move || {
            let inside = context::callback("WskReceiveEvent", at_dispatch);
            let until = platform.platform().processor_time() + time;
            while platform.platform().processor_time() < until {
                std::hint::spin_loop();
            }
            drop(inside);
        });
    };
    stay(false, Duration::from_millis(3));
    assert!(kernel.violations().is_empty());
    stay(true, Duration::from_millis(3));
    assert!(kernel.violations().iter().all(|found| found.severity == Severity::Advice));
    assert_only(&kernel, "IRQL-05");
    kernel.set_dispatch_budget(None);
    stay(true, Duration::from_millis(3));
    finish_clean(&kernel);
}

/// By default, a callback that spins at DISPATCH_LEVEL gets advice. One that only waits for its processor
/// does not.
/// Catches: IRQL-05
#[test]
fn a_callback_that_spins_at_dispatch_is_noticed_by_default() {
    let kernel = kernel();
    let machine = kernel.clone();
    run(&kernel, move || {
        let inside = context::callback("WskReceiveEvent", true);
        // As on a busy host.
        std::thread::sleep(Duration::from_millis(300));
        drop(inside);
        if cfg!(unix) {
            assert!(machine.violations().is_empty(), "{:?}", machine.violations());
        }
        machine.take("IRQL-05");
        let inside = context::callback("WskReceiveEvent", true);
        let until = machine.platform().processor_time() + Duration::from_millis(200);
        while machine.platform().processor_time() < until {
            std::hint::spin_loop();
        }
        drop(inside);
    });
    assert_only(&kernel, "IRQL-05");
    finish_clean(&kernel);
}

/// A spin lock excludes other threads.
#[test]
fn a_spin_lock_excludes() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 20_000;
    let kernel = kernel();
    let lock = Arc::new(Lock::default());
    let counter = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (lock, counter) = (Arc::clone(&lock), Arc::clone(&counter));
            kernel.spawn("counter", move || {
                for _ in 0..ROUNDS {
                    let old = lock.raise();
                    // Two steps, so that only the lock makes them one.
                    let value = counter.load(Ordering::Relaxed);
                    counter.store(value + 1, Ordering::Relaxed);
                    lock.lower(old);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.expect("a thread").join().expect("it ends");
    }
    assert_eq!(counter.load(Ordering::Relaxed), THREADS * ROUNDS);
    finish_clean(&kernel);
}

/// Taking a spin lock twice would hang a processor: the kernel stops.
#[test]
fn taking_a_spin_lock_twice_stops_the_kernel() {
    run_until_stopped(&kernel(), rule::SPIN_LOCK, || {
        let lock = Lock::default();
        lock.raise();
        lock.acquire();
    });
}

/// Releasing a lock that is free, or another thread's, is caught.
#[test]
fn releasing_a_strange_lock_is_caught() {
    let kernel = kernel();
    catches(&kernel, rule::SPIN_LOCK, || at_dispatch(|| Lock::default().release()));
    let outer = kernel.clone();
    catches(&kernel, rule::SPIN_LOCK, move || {
        let lock = Arc::new(Lock::default());
        let old = lock.raise();
        let strange = Arc::clone(&lock);
        run(&outer, move || at_dispatch(|| strange.release()));
        lock.lower(old);
    });
    finish_clean(&kernel);
}

/// A lock that is never released is a hang, not a busy test machine.
#[test]
fn a_lock_that_is_never_released_stops_the_kernel() {
    let kernel =
        Kernel::new(nt_user::Config { watchdog: Some(Duration::from_millis(50)), ..Default::default() });
    let outer = kernel.clone();
    run_until_stopped(&kernel, rule::HANG, move || {
        let lock = Arc::new(Lock::default());
        let old = lock.raise();
        let other = Arc::clone(&lock);
        drop(outer.spawn("other", move || other.raise()).expect("a thread").join());
        lock.lower(old);
    });
}
