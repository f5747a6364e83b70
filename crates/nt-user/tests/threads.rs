//! System threads, run-down protection, panics, and kernels side by side.

mod common;

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use nt_user::{Config, Context, Failure, Kernel, context, rule};
use wsk_sys::nt::*;
use wsk_sys::status::*;

unsafe extern "system" fn add_seven(counter: *mut c_void) {
    assert_eq!(irql(), PASSIVE_LEVEL);
    // SAFETY: nothing is required.
    assert!(!unsafe { IoGetCurrentProcess() }.is_null());
    // SAFETY: the context is a counter that the test keeps.
    unsafe { &*counter.cast::<AtomicUsize>() }.fetch_add(7, Ordering::SeqCst);
    // SAFETY: nothing is required.
    unsafe { PsTerminateSystemThread(STATUS_SUCCESS) };
}

/// A system thread runs its routine, and its object is signaled when the routine returns.
#[test]
fn a_system_thread_is_waited_for() {
    let kernel = kernel();
    run(&kernel, || {
        let counter = AtomicUsize::new(0);
        for _ in 0..10 {
            join(create_thread(add_seven, counter.as_ptr().cast()));
        }
        assert_eq!(counter.load(Ordering::SeqCst), 70);
    });
    finish_clean(&kernel);
}

/// Handles and references that are not released, and threads that do not end, are leaks.
#[test]
fn threads_leak() {
    unsafe extern "system" fn wait_for_it(event: *mut c_void) {
        wait(event);
    }
    let kernel = kernel();
    let event = run(&kernel, || {
        let event = Event::notification();
        let handle = create_thread(wait_for_it, event.raw().cast());
        reference(handle);
        reference(handle);
        event
    });
    let leaks = kernel.shutdown(Duration::from_millis(20));
    assert_eq!((leaks.handles, leaks.references, leaks.threads.len()), (1, 2, 1), "{leaks}");
    run(&kernel, move || {
        event.set();
    });
    assert_eq!(kernel.shutdown(Duration::from_secs(10)).threads.len(), 0);
}

/// Wrong handles and one dereference too many are caught.
#[test]
fn wrong_handles_are_caught() {
    let kernel = kernel();
    run(&kernel, || {
        assert_eq!(close(ptr::without_provenance_mut(0x40)), STATUS_INVALID_HANDLE);
    });
    assert_only(&kernel, rule::OBJECT);
    run(&kernel, || {
        let counter = AtomicUsize::new(0);
        let handle = create_thread(add_seven, counter.as_ptr().cast());
        let object = reference(handle);
        wait(object);
        dereference(object);
        dereference(object);
        close(handle);
    });
    assert_only(&kernel, rule::OBJECT);
    finish_clean(&kernel);
}

/// Run-down waits for the holders, and refuses protection afterwards.
#[test]
fn rundown_waits_for_the_holders() {
    let kernel = kernel();
    let outer = kernel.clone();
    run(&kernel, move || {
        let acquire = |rundown: *mut EX_RUNDOWN_REF| {
            // SAFETY: the protection is alive.
            unsafe { ExAcquireRundownProtection(rundown) != 0 }
        };
        let release = |rundown: *mut EX_RUNDOWN_REF| {
            // SAFETY: the caller holds protection.
            unsafe { ExReleaseRundownProtection(rundown) };
        };
        let wait = |rundown: *mut EX_RUNDOWN_REF| {
            // SAFETY: the protection is alive.
            unsafe { ExWaitForRundownProtectionRelease(rundown) };
        };
        for _ in 0..2000 {
            let rundown = allocate(size_of::<EX_RUNDOWN_REF>()).cast::<EX_RUNDOWN_REF>();
            // SAFETY: the storage is new.
            unsafe { ExInitializeRundownProtection(rundown) };
            assert!(acquire(rundown) && acquire(rundown));
            release(rundown);
            let shared = Shared::new(rundown);
            let holder = outer.spawn("holder", move || release(shared.get()));
            wait(rundown);
            assert!(!acquire(rundown));
            wait(rundown);
            free(rundown.cast());
            holder.expect("a thread").join().expect("it ends");
        }
    });
    finish_clean(&kernel);
}

/// Protection that is released too often, and a wait for it inside a callback, are caught.
/// Catches: ABRT-13
#[test]
fn wrong_use_of_rundown_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let mut rundown = EX_RUNDOWN_REF { Count: 0 };
        // SAFETY: the protection is alive; the test releases it without holding it.
        unsafe { ExReleaseRundownProtection(&raw mut rundown) };
    });
    assert_only(&kernel, rule::RUNDOWN);
    run(&kernel, || {
        let mut rundown = EX_RUNDOWN_REF { Count: 0 };
        let inside = context::enter(Context::Callback { name: "WskAbortEvent" });
        // SAFETY: the protection is alive.
        unsafe { ExWaitForRundownProtectionRelease(&raw mut rundown) };
        drop(inside);
    });
    assert_only(&kernel, "ABRT-13");
    finish_clean(&kernel);
}

/// A panic of a spawned closure is passed to the joiner.
#[test]
fn a_panic_goes_to_the_joiner() {
    let kernel = kernel();
    let joiner = kernel.spawn("panics", || panic!("as it happens")).expect("a thread");
    match joiner.join() {
        Err(Failure::Panicked(payload)) => assert_eq!(payload.downcast_ref(), Some(&"as it happens")),
        other => panic!("{other:?}"),
    }
    finish_clean(&kernel);
}

/// A panic of a thread that is not joined is a violation.
/// Catches: LIFE-18
#[test]
fn a_panic_of_an_unjoined_thread_is_caught() {
    let kernel = kernel();
    drop(kernel.spawn("panics", || panic!("as it happens")).expect("a thread"));
    assert!(kernel.shutdown(Duration::from_secs(10)).is_clean());
    let found = kernel.take("LIFE-18");
    assert_eq!(found.len(), 1);
    assert!(found[0].detail.contains("as it happens"), "{}", found[0]);
}

unsafe extern "system" fn panic_in_a_thread(_: *mut c_void) {
    panic!("out of the start routine");
}

/// A panic that leaves the start routine of a system thread ends that thread; the process and the kernel go
/// on.
/// Catches: LIFE-18
#[test]
fn a_panic_in_a_system_thread_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        assert_eq!(join(create_thread(panic_in_a_thread, ptr::null_mut())), STATUS_SUCCESS);
    });
    let found = kernel.violations();
    assert!(found[0].detail.contains("out of the start routine"), "{found:#?}");
    assert_only(&kernel, "LIFE-18");
    finish_clean(&kernel);
}

unsafe extern "system" fn panic_in_a_routine(_: *mut DEVICE_OBJECT, _: *mut IRP, _: *mut c_void) -> NTSTATUS {
    panic!("out of the routine");
}

/// A panic that leaves a completion routine stops the kernel, because the thread that completed the IRP
/// cannot go on.
/// Catches: LIFE-18
#[test]
fn a_panic_in_a_completion_routine_stops_the_kernel() {
    run_until_stopped(&kernel(), "LIFE-18", || {
        let irp = allocate_irp(1);
        set_routine(irp, panic_in_a_routine, ptr::null_mut());
        hand_down(irp);
        complete(irp, STATUS_SUCCESS, 0);
    });
}

/// Kernels are independent: each has its own objects, violations, extensions and pool.
#[test]
fn kernels_are_separate() {
    let kernels = [kernel(), kernel()];
    for (number, kernel) in kernels.iter().enumerate() {
        let extension = kernel.extension(|| AtomicUsize::new(number));
        assert_eq!(extension.load(Ordering::Relaxed), number);
        assert!(Arc::ptr_eq(&extension, &kernel.extension(|| AtomicUsize::new(99))));
    }
    let entered = kernels[0].enter();
    let block = allocate(8);
    {
        let entered = kernels[1].enter();
        assert_eq!(irql(), PASSIVE_LEVEL);
        free(block);
        drop(entered);
    }
    assert_only(&kernels[1], rule::POOL_FREE);
    free(block);
    drop(entered);
    assert!(Kernel::current().is_none());
    kernels.iter().for_each(finish_clean);
}

/// A kernel without handles ends its own threads.
#[test]
fn the_threads_of_a_forgotten_kernel_end() {
    unsafe extern "system" fn nothing(_: *mut KDPC, _: *mut c_void, _: *mut c_void, _: *mut c_void) {}
    /// Reports that its kernel, of which it is an extension, is gone.
    struct Gone(std::sync::mpsc::Sender<()>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.send(()).expect("the test listens");
        }
    }
    let (sender, gone) = std::sync::mpsc::channel();
    let kernel = kernel();
    kernel.extension(|| Gone(sender));
    run(&kernel, || {
        let dpc = allocate(size_of::<KDPC>()).cast();
        // SAFETY: the storage is new.
        unsafe { KeInitializeDpc(dpc, Some(nothing), ptr::null_mut()) };
        // SAFETY: the DPC is flushed before it is freed.
        unsafe { KeInsertQueueDpc(dpc, ptr::null_mut(), ptr::null_mut()) };
        // SAFETY: nothing is required.
        unsafe { KeFlushQueuedDpcs() };
        free(dpc.cast());
    });
    drop(kernel);
    gone.recv_timeout(Duration::from_secs(20)).expect("the kernel is gone");
}

/// Threads that a kernel starts belong to it.
#[test]
fn threads_inherit_their_kernel() {
    unsafe extern "system" fn inherit(_: *mut c_void) {
        Kernel::current().expect("a kernel").report(
            nt_user::Severity::Violation,
            "TEST-01",
            "inherit",
            "from a system thread",
        );
    }
    let kernel = Kernel::new(Config::default());
    run(&kernel, || {
        join(create_thread(inherit, ptr::null_mut()));
    });
    assert_only(&kernel, "TEST-01");
    finish_clean(&kernel);
}
