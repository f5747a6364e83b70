//! The result of a run: each reason to fail, alone, and reasons that do not fail it.

use std::sync::mpsc;

use wsk_sim::raw::*;
use wsk_sim::{Severity, Sim};
use wsk_sys::nt::*;
use wsk_sys::*;

const TAG: u32 = u32::from_le_bytes(*b"Test");

/// Reports something under a rule.
fn report(sim: &Sim, severity: Severity, rule: &'static str) {
    sim.kernel().report(severity, rule, "the test", "on purpose");
}

fn allocate(bytes: usize) -> *mut std::ffi::c_void {
    // SAFETY: nothing is required of the arguments.
    let block = unsafe { ExAllocatePoolWithTag(NON_PAGED_POOL_NX, bytes, TAG) };
    assert!(!block.is_null());
    block
}

/// A system thread that runs a routine without an argument, and its handle.
fn system_thread(routine: KSTART_ROUTINE) -> HANDLE {
    // SAFETY: the routine does not use its argument.
    unsafe { wsk_sim::raw::system_thread(routine, std::ptr::null_mut()) }
}

unsafe extern "system" fn ends_at_once(_: *mut std::ffi::c_void) {}

unsafe extern "system" fn never_ends(_: *mut std::ffi::c_void) {
    loop {
        std::thread::park();
    }
}

fn close(handle: HANDLE) {
    // SAFETY: the handle is open, and is not used any more.
    assert_eq!(unsafe { ZwClose(handle) }, STATUS_SUCCESS);
}

#[test]
fn a_run_without_anything_passes() {
    Sim::new().forbid_advice().run(|_| {});
}

#[test]
#[should_panic(expected = "violation of LSN-01 in the test: on purpose")]
fn a_violation_fails_a_run() {
    Sim::new().run(|sim| report(sim, Severity::Violation, "LSN-01"));
}

#[test]
#[should_panic(expected = "violation of LSN-02")]
fn an_expectation_covers_its_own_rule_only() {
    Sim::new().expect("LSN-01").run(|sim| {
        report(sim, Severity::Violation, "LSN-01");
        report(sim, Severity::Violation, "LSN-02");
    });
}

#[test]
#[should_panic(expected = "LSN-01 was expected but not reported")]
fn a_missing_expectation_fails_a_run() {
    Sim::new().expect("LSN-01").run(|_| {});
}

#[test]
#[should_panic(expected = "LSN-01 was expected but not reported")]
fn another_rule_does_not_meet_an_expectation() {
    Sim::new().expect("LSN-01").expect("LSN-02").run(|sim| report(sim, Severity::Violation, "LSN-02"));
}

/// Reports that were not kept count as unexpected.
#[test]
#[should_panic(expected = "1 more reports that were not kept")]
fn what_is_not_kept_fails_a_run() {
    Sim::new().expect("LSN-01").run(|sim| {
        for _ in 0..1000 {
            report(sim, Severity::Violation, "LSN-01");
        }
        assert_eq!(sim.kernel().omitted_violations(), 0);
        report(sim, Severity::Violation, "LSN-02");
    });
}

/// All kept reports pass, if they are expected.
#[test]
fn as_much_as_is_kept_passes() {
    Sim::new().expect("LSN-01").run(|sim| {
        for _ in 0..1000 {
            report(sim, Severity::Violation, "LSN-01");
        }
    });
}

#[test]
fn advice_alone_passes_and_is_told() {
    let sim = Sim::new();
    let own = sim.clone();
    sim.thread("test", move || report(&own, Severity::Advice, "LSN-01")).join().expect("it does not panic");
    let report = sim.finish();
    report.assert_clean();
    assert_eq!(report.advice.len(), 1);
    assert!(report.to_string().contains("advice of LSN-01"), "{report}");
}

#[test]
#[should_panic(expected = "advice of LSN-01 in the test: on purpose")]
fn forbidden_advice_fails_a_run() {
    Sim::new().forbid_advice().run(|sim| report(sim, Severity::Advice, "LSN-01"));
}

/// Advice does not crowd out a violation.
#[test]
#[should_panic(expected = "violation of LSN-02")]
fn advice_crowds_out_no_violation() {
    Sim::new().run(|sim| {
        for _ in 0..1001 {
            report(sim, Severity::Advice, "LSN-01");
        }
        assert_eq!((sim.kernel().omitted_violations(), sim.kernel().omitted_advice()), (0, 1));
        report(sim, Severity::Violation, "LSN-02");
    });
}

#[test]
fn advice_that_is_not_kept_passes_where_advice_does() {
    Sim::new().run(|sim| {
        for _ in 0..1001 {
            report(sim, Severity::Advice, "LSN-01");
        }
    });
}

#[test]
#[should_panic(expected = "1 more reports that were not kept")]
fn advice_that_is_not_kept_fails_where_advice_is_forbidden() {
    Sim::new().forbid_advice().expect_advice("LSN-01").run(|sim| {
        for _ in 0..1001 {
            report(sim, Severity::Advice, "LSN-01");
        }
    });
}

#[test]
fn expected_advice_passes_where_it_is_forbidden() {
    Sim::new().forbid_advice().expect_advice("LSN-01").run(|sim| report(sim, Severity::Advice, "LSN-01"));
}

#[test]
#[should_panic(expected = "LSN-01 was expected but not reported")]
fn missing_advice_fails_a_run() {
    Sim::new().expect_advice("LSN-01").run(|_| {});
}

#[test]
#[should_panic(expected = "violation of LSN-01")]
fn a_violation_is_no_advice() {
    Sim::new().expect_advice("LSN-01").run(|sim| report(sim, Severity::Violation, "LSN-01"));
}

#[test]
#[should_panic(expected = "the body says so")]
fn a_panic_fails_a_run() {
    Sim::new().run(|_| panic!("the body says so"));
}

#[test]
#[should_panic(expected = "pool block 'Test' of 24 bytes")]
fn a_block_of_pool_fails_a_run() {
    Sim::new().run(|_| {
        allocate(24);
    });
}

#[test]
#[should_panic(expected = "IRP 'Irp ' of")]
fn an_irp_fails_a_run() {
    Sim::new().run(|_| {
        // SAFETY: nothing is required of the arguments.
        assert!(!unsafe { IoAllocateIrp(1, 0) }.is_null());
    });
}

#[test]
#[should_panic(expected = "MDL 'Mdl ' of")]
fn an_mdl_fails_a_run() {
    Sim::new().run(|_| {
        let block = allocate(24);
        // SAFETY: the MDL is never used.
        let mdl = unsafe { IoAllocateMdl(block, 24, 0, 0, std::ptr::null_mut()) };
        assert!(!mdl.is_null());
        // SAFETY: the block is this test's.
        unsafe { ExFreePoolWithTag(block, TAG) };
    });
}

#[test]
#[should_panic(expected = "work item 'IoWi' of")]
fn an_io_work_item_fails_a_run() {
    Sim::new().run(|_| {
        // SAFETY: the item is never queued.
        assert!(!unsafe { IoAllocateWorkItem(std::ptr::null_mut()) }.is_null());
    });
}

#[test]
#[should_panic(expected = "WskCloseSocket")]
fn a_socket_fails_a_run() {
    Sim::new().run(|_| {
        let client = Client::new();
        client.listener(&Recorder::new()).forget();
        client.forget();
    });
}

#[test]
#[should_panic(expected = "has not ended")]
fn a_thread_fails_a_run() {
    Sim::new().run(|_| close(system_thread(never_ends)));
}

#[test]
#[should_panic(expected = "1 open handles")]
fn a_handle_fails_a_run() {
    Sim::new().run(|_| {
        system_thread(ends_at_once);
    });
}

#[test]
#[should_panic(expected = "1 references held")]
fn a_reference_fails_a_run() {
    Sim::new().run(|_| {
        let handle = system_thread(ends_at_once);
        let mut object = std::ptr::null_mut();
        let none = std::ptr::null_mut();
        // SAFETY: the pointer can be written.
        let status = unsafe { ObReferenceObjectByHandle(handle, 0, none, 0, &raw mut object, none) };
        assert_eq!(status, STATUS_SUCCESS);
        close(handle);
    });
}

#[test]
#[should_panic(expected = "1 timers set")]
fn a_timer_fails_a_run() {
    static TIMER: Static<KTIMER> = Static::new();
    Sim::new().run(|_| {
        // SAFETY: the storage is static, and only this test uses it.
        unsafe { KeInitializeTimer(TIMER.get()) };
        // SAFETY: the timer is initialized; it is due in an hour, after the end of this machine.
        unsafe { KeSetTimer(TIMER.get(), -36_000_000_000, std::ptr::null_mut()) };
    });
}

/// Memory for an object of the kernel that outlives the machine.
struct Static<T>(std::cell::UnsafeCell<std::mem::MaybeUninit<T>>);

// SAFETY: one test uses each, and the kernel's functions may be called on any thread.
unsafe impl<T> Sync for Static<T> {}

impl<T> Static<T> {
    const fn new() -> Self {
        Self(std::cell::UnsafeCell::new(std::mem::MaybeUninit::uninit()))
    }

    fn get(&self) -> *mut T {
        self.0.get().cast()
    }
}

/// A machine that has stopped as expected is not checked for leaks; one that has stopped otherwise fails.
#[test]
fn a_stop_that_was_expected_passes() {
    Sim::new().expect("LSN-01").run(|sim| {
        allocate(24);
        sim.kernel().bug_check("LSN-01", "the test", "on purpose");
    });
}

#[test]
#[should_panic(expected = "the kernel stopped: violation of LSN-01")]
fn a_stop_fails_a_run() {
    Sim::new().run(|sim| sim.kernel().bug_check("LSN-01", "the test", "on purpose"));
}

/// Reports of a thread of the body count as the body's own.
#[test]
#[should_panic(expected = "violation of LSN-01")]
fn a_violation_of_another_thread_fails_a_run() {
    Sim::new().run(|sim| {
        let (sender, receiver) = mpsc::channel();
        let own = sim.clone();
        let other = sim.thread("other", move || {
            report(&own, Severity::Violation, "LSN-01");
            sender.send(()).expect("the test waits");
        });
        receiver.recv().expect("it was reported");
        other.join().expect("it does not panic");
    });
}
