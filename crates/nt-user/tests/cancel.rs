//! Cancellation.

mod common;

use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use wsk_sys::nt::*;
use wsk_sys::status::*;

fn cancel(irp: *mut IRP) -> bool {
    // SAFETY: the IRP is alive.
    unsafe { IoCancelIrp(irp) != 0 }
}

/// Queues a cancelable request, as a lower driver does.
fn pend(irp: *mut IRP, routine: DRIVER_CANCEL) {
    hand_down(irp);
    // SAFETY: the IRP has been submitted.
    unsafe { io_mark_irp_pending(irp) };
    // SAFETY: the IRP is alive and belongs to this driver.
    assert!(unsafe { io_set_cancel_routine(irp, Some(routine)) }.is_none());
}

/// Without a cancel routine there is only the flag.
#[test]
fn cancelling_sets_the_flag() {
    let kernel = kernel();
    run(&kernel, || {
        let irp = allocate_irp(1);
        assert!(!cancel(irp));
        // SAFETY: the IRP is alive.
        assert_eq!(unsafe { irp_cancel(irp) }.load(Ordering::Relaxed), 1);
        assert_eq!(irql(), PASSIVE_LEVEL);
        // SAFETY: the IRP is idle.
        unsafe { IoReuseIrp(irp, STATUS_SUCCESS) };
        // SAFETY: the IRP is alive.
        assert_eq!(unsafe { irp_cancel(irp) }.load(Ordering::Relaxed), 0);
        free_irp(irp);
    });
    finish_clean(&kernel);
}

unsafe extern "system" fn complete_cancelled(device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    assert!(device.is_null());
    assert_eq!(irql(), DISPATCH_LEVEL);
    // SAFETY: the IRP is the routine's.
    let old = unsafe { irp_cancel_irql(irp) };
    // SAFETY: the routine is entered with the cancel lock held.
    unsafe { IoReleaseCancelSpinLock(old) };
    complete(irp, STATUS_CANCELLED, 0);
}

/// The cancel routine is called once, holding the lock, and completes the IRP at the canceller's IRQL.
#[test]
fn the_cancel_routine_completes_the_irp() {
    let kernel = kernel();
    run(&kernel, || {
        let done = Event::notification();
        let irp = allocate_irp(1);
        for _ in 0..2 {
            set_routine(irp, signal, done.raw().cast());
            pend(irp, complete_cancelled);
            assert!(at_dispatch(|| cancel(irp)));
            assert_eq!((irql(), done.wait()), (PASSIVE_LEVEL, STATUS_SUCCESS));
            // SAFETY: the IRP has come back.
            assert_eq!(unsafe { irp_status(irp) }, STATUS_CANCELLED);
            done.clear();
            // SAFETY: the IRP has completed and belongs to the test.
            unsafe { IoReuseIrp(irp, STATUS_SUCCESS) };
        }
        free_irp(irp);
    });
    finish_clean(&kernel);
}

unsafe extern "system" fn keep_the_lock(_: *mut DEVICE_OBJECT, _: *mut IRP) {}

/// A cancel routine that does not release the cancel lock is caught.
#[test]
fn a_cancel_routine_that_keeps_the_lock_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let irp = allocate_irp(1);
        set_routine(irp, keep, ptr::null_mut());
        pend(irp, keep_the_lock);
        cancel(irp);
        complete(irp, STATUS_CANCELLED, 0);
        free_irp(irp);
    });
    assert_eq!(kernel.take(nt_user::rule::IRQL).len(), 1);
    assert_only(&kernel, nt_user::rule::SPIN_LOCK);
}

/// In every race of cancellation and completion, the IRP completes exactly once.
#[test]
fn cancellation_races_completion() {
    const ROUNDS: usize = 20_000;
    static CANCELLED: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "system" fn count(device: *mut DEVICE_OBJECT, irp: *mut IRP) {
        CANCELLED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the kernel calls the routine with an IRP whose cancel lock is held.
        unsafe { complete_cancelled(device, irp) };
    }
    let kernel = kernel();
    let outer = kernel.clone();
    run(&kernel, move || {
        let (requests, below) = std::sync::mpsc::sync_channel::<Shared<IRP>>(1);
        let driver = outer.spawn("below", move || {
            let mut served = 0;
            for irp in below {
                let irp = irp.get();
                // SAFETY: the IRPs are freed when this thread has ended.
                if unsafe { io_set_cancel_routine(irp, None) }.is_some() {
                    served += 1;
                    complete(irp, STATUS_SUCCESS, 0);
                }
            }
            served
        });
        let done = Event::synchronization();
        let irps: Vec<_> = (0..ROUNDS).map(|_| allocate_irp(1)).collect();
        for (round, irp) in irps.iter().copied().enumerate() {
            set_routine(irp, signal, done.raw().cast());
            pend(irp, count);
            requests.send(Shared::new(irp)).expect("the driver listens");
            for _ in 0..round % 64 {
                std::hint::spin_loop();
            }
            cancel(irp);
            assert_eq!(done.wait(), STATUS_SUCCESS);
            assert_eq!(done.poll(), STATUS_TIMEOUT, "completed once");
        }
        drop(requests);
        let served = driver.expect("a thread").join().expect("it ends");
        irps.into_iter().for_each(free_irp);
        assert_eq!(served + CANCELLED.load(Ordering::Relaxed), ROUNDS);
    });
    finish_clean(&kernel);
}
