//! Reports of deferred calls and work items that never ran.

mod common;

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use nt_user::{Config, Kernel};
use wsk_sys::nt::*;

/// A latch that blocks a processor or a worker.
struct Turnstile {
    open: AtomicBool,
    entered: AtomicUsize,
}

impl Turnstile {
    const fn new() -> Self {
        Self { open: AtomicBool::new(false), entered: AtomicUsize::new(0) }
    }

    fn pass(&self) {
        self.entered.fetch_add(1, Ordering::SeqCst);
        while !self.open.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }

    fn wait_entered(&self) {
        while self.entered.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
    }

    /// Opens the latch, so that the kernel can shut down.
    fn open(&self, kernel: &Kernel, calls: usize) {
        self.open.store(true, Ordering::SeqCst);
        let left = kernel.shutdown(Duration::from_secs(20));
        assert!(left.threads.is_empty(), "{left}");
        assert_eq!((left.dpcs, left.work_items), (0, 0));
        assert_eq!(self.entered.load(Ordering::SeqCst), calls, "what was queued has run");
    }
}

/// A kernel of one processor and one worker.
fn small() -> Kernel {
    Kernel::new(Config { processors: 1, workers: 1, ..Config::default() })
}

#[test]
fn a_call_that_is_still_queued_is_left_behind() {
    static TURNSTILE: Turnstile = Turnstile::new();
    unsafe extern "system" fn deferred(_: *mut KDPC, _: *mut c_void, _: *mut c_void, _: *mut c_void) {
        TURNSTILE.pass();
    }
    let kernel = small();
    run(&kernel, || {
        for _ in 0..3 {
            let dpc: *mut KDPC = allocate(size_of::<KDPC>()).cast();
            // SAFETY: the storage is new.
            unsafe { KeInitializeDpc(dpc, Some(deferred), ptr::null_mut()) };
            // SAFETY: the DPC is initialized, and not freed.
            assert_ne!(unsafe { KeInsertQueueDpc(dpc, ptr::null_mut(), ptr::null_mut()) }, 0);
        }
        TURNSTILE.wait_entered();
    });
    let left = kernel.shutdown(Duration::ZERO);
    assert_eq!((left.dpcs, left.work_items, left.timers), (2, 0, 0));
    assert!(!left.is_clean());
    assert!(left.to_string().contains("2 deferred calls queued"), "{left}");
    TURNSTILE.open(&kernel, 3);
}

#[test]
fn a_work_item_that_is_still_queued_is_left_behind() {
    static TURNSTILE: Turnstile = Turnstile::new();
    unsafe extern "system" fn worked(_: *mut DEVICE_OBJECT, _: *mut c_void) {
        TURNSTILE.pass();
    }
    let kernel = small();
    run(&kernel, || {
        for _ in 0..3 {
            // SAFETY: the device is only passed on.
            let item = unsafe { IoAllocateWorkItem(ptr::null_mut()) };
            // SAFETY: the item was just allocated, and not freed.
            unsafe { IoQueueWorkItem(item, Some(worked), DELAYED_WORK_QUEUE, ptr::null_mut()) };
        }
        TURNSTILE.wait_entered();
    });
    let left = kernel.shutdown(Duration::ZERO);
    assert_eq!((left.dpcs, left.work_items, left.timers), (0, 2, 0));
    assert!(left.to_string().contains("2 work items queued"), "{left}");
    TURNSTILE.open(&kernel, 3);
}

#[test]
fn a_timer_that_is_set_is_left_behind() {
    let kernel = small();
    run(&kernel, || {
        let timer: *mut KTIMER = allocate(size_of::<KTIMER>()).cast();
        // SAFETY: the storage is new.
        unsafe { KeInitializeTimer(timer) };
        // SAFETY: the timer is initialized, and not freed.
        unsafe { KeSetTimer(timer, relative(Duration::from_hours(1)), ptr::null_mut()) };
    });
    let left = kernel.shutdown(Duration::from_secs(20));
    assert_eq!((left.timers, left.threads.len()), (1, 0));
    assert!(left.to_string().contains("1 timers set"), "{left}");
}
