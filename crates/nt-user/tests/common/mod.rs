//! Driver-like helpers for the tests: a small safe interface to the raw calls.
#![allow(dead_code, reason = "each test uses some of them")]

use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

use nt_user::{Config, Failure, Kernel, LeakReport};
use wsk_sys::nt::*;
use wsk_sys::status::*;

/// The tag of the tests' pool.
pub(crate) const TAG: u32 = nt_user::pool::tag(*b"Test");

/// A kernel with a short watchdog.
pub(crate) fn kernel() -> Kernel {
    Kernel::new(Config { watchdog: Some(Duration::from_secs(20)), ..Config::default() })
}

/// Runs `body` on a thread of the kernel and passes its panic on.
pub(crate) fn run<R: Send + 'static>(kernel: &Kernel, body: impl FnOnce() -> R + Send + 'static) -> R {
    match kernel.spawn("test", body).expect("a thread").join() {
        Ok(result) => result,
        Err(Failure::Panicked(payload)) => std::panic::resume_unwind(payload),
        Err(Failure::Stopped(violation)) => panic!("the kernel stopped: {violation}"),
    }
}

/// Runs `body` on a thread of the kernel and expects it to be stopped by a violation of `rule`.
pub(crate) fn run_until_stopped(kernel: &Kernel, rule: &str, body: impl FnOnce() + Send + 'static) {
    match kernel.spawn("test", body).expect("a thread").join() {
        Err(Failure::Stopped(violation)) => assert_eq!(violation.rule, rule, "{violation}"),
        other => panic!("the kernel did not stop: {other:?}"),
    }
    assert_only(kernel, rule);
}

/// Shuts the kernel down and returns its report; nothing may have been reported.
pub(crate) fn finish(kernel: &Kernel) -> LeakReport {
    let leaks = kernel.shutdown(Duration::from_secs(10));
    let violations = kernel.violations();
    assert!(violations.is_empty(), "{violations:#?}");
    leaks
}

/// Shuts the kernel down; expects no reports and no leaks.
pub(crate) fn finish_clean(kernel: &Kernel) {
    let leaks = finish(kernel);
    assert!(leaks.is_clean(), "{leaks}");
}

/// Expects violations of `rule`, in the code of the tests, and no other reports.
pub(crate) fn assert_only(kernel: &Kernel, rule: &str) {
    let found = kernel.take(rule);
    assert!(!found.is_empty(), "{rule} was not reported, but {:#?}", kernel.violations());
    for violation in &found {
        assert!(
            violation.location.contains("tests/") || violation.location.contains("thread `"),
            "{violation}"
        );
    }
    let others = kernel.violations();
    assert!(others.is_empty(), "besides {rule}: {others:#?}");
}

/// Returns the location of a violation of `rule`.
pub(crate) fn location_of(kernel: &Kernel, rule: &str) -> String {
    let violations = kernel.violations();
    let found = violations.iter().find(|violation| violation.rule == rule);
    found.unwrap_or_else(|| panic!("no {rule} in {violations:#?}")).location.clone()
}

/// A raw pointer that is shared with other threads.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(*mut T);

// SAFETY: the tests share objects that the kernel functions allow to be shared.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: the tests share objects that the kernel functions allow to be shared.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Makes a pointer shareable.
    pub(crate) fn new(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// The pointer.
    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}

/// A relative timeout.
pub(crate) fn relative(time: Duration) -> i64 {
    -((time.as_nanos() / 100) as i64)
}

/// Allocates pool.
pub(crate) fn allocate(bytes: usize) -> *mut c_void {
    // SAFETY: nothing is required of the arguments.
    let block = unsafe { ExAllocatePoolWithTag(NON_PAGED_POOL_NX, bytes, TAG) };
    assert!(!block.is_null());
    block
}

/// Frees pool.
pub(crate) fn free(block: *mut c_void) {
    // SAFETY: the tests free blocks of theirs, or mean to be caught.
    unsafe { ExFreePoolWithTag(block, TAG) };
}

/// An event in pool.
pub(crate) struct Event(*mut KEVENT);

// SAFETY: events are made to be shared.
unsafe impl Send for Event {}
// SAFETY: events are made to be shared.
unsafe impl Sync for Event {}

impl Event {
    fn new(kind: i32) -> Self {
        let event = allocate(size_of::<KEVENT>()).cast();
        // SAFETY: the storage is new.
        unsafe { KeInitializeEvent(event, kind, 0) };
        Self(event)
    }

    pub(crate) fn notification() -> Self {
        Self::new(NOTIFICATION_EVENT)
    }

    pub(crate) fn synchronization() -> Self {
        Self::new(SYNCHRONIZATION_EVENT)
    }

    pub(crate) fn raw(&self) -> *mut KEVENT {
        self.0
    }

    pub(crate) fn set(&self) -> i32 {
        set(self.0)
    }

    pub(crate) fn clear(&self) {
        // SAFETY: the event is alive.
        unsafe { KeClearEvent(self.0) };
    }

    pub(crate) fn reset(&self) -> i32 {
        // SAFETY: the event is alive.
        unsafe { KeResetEvent(self.0) }
    }

    pub(crate) fn state(&self) -> i32 {
        // SAFETY: the event is alive.
        unsafe { KeReadStateEvent(self.0) }
    }

    pub(crate) fn wait(&self) -> NTSTATUS {
        wait(self.0.cast())
    }

    pub(crate) fn poll(&self) -> NTSTATUS {
        wait_for(self.0.cast(), 0)
    }

    pub(crate) fn wait_for(&self, time: Duration) -> NTSTATUS {
        wait_for(self.0.cast(), relative(time))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        free(self.0.cast());
    }
}

/// Signals an event.
pub(crate) fn set(event: *mut KEVENT) -> i32 {
    // SAFETY: the tests pass events that live until they are signaled.
    unsafe { KeSetEvent(event, IO_NO_INCREMENT, 0) }
}

/// Waits without end.
pub(crate) fn wait(object: *mut c_void) -> NTSTATUS {
    // SAFETY: the tests pass dispatcher objects.
    unsafe { KeWaitForSingleObject(object, EXECUTIVE, KERNEL_MODE, 0, ptr::null_mut()) }
}

/// Waits with a timeout.
pub(crate) fn wait_for(object: *mut c_void, mut timeout: i64) -> NTSTATUS {
    // SAFETY: the tests pass dispatcher objects; the timeout is on the stack.
    unsafe { KeWaitForSingleObject(object, EXECUTIVE, KERNEL_MODE, 0, &raw mut timeout) }
}

/// The current IRQL.
pub(crate) fn irql() -> KIRQL {
    // SAFETY: nothing is required.
    unsafe { KeGetCurrentIrql() }
}

/// Runs `body` at DISPATCH_LEVEL.
pub(crate) fn at_dispatch<R>(body: impl FnOnce() -> R) -> R {
    // SAFETY: nothing is required.
    let old = unsafe { KfRaiseIrql(DISPATCH_LEVEL) };
    let result = body();
    // SAFETY: the level is the one before.
    unsafe { KeLowerIrql(old) };
    result
}

/// Allocates an IRP.
pub(crate) fn allocate_irp(locations: i8) -> *mut IRP {
    // SAFETY: nothing is required.
    let irp = unsafe { IoAllocateIrp(locations, 0) };
    assert!(!irp.is_null());
    irp
}

/// Frees an allocated IRP.
pub(crate) fn free_irp(irp: *mut IRP) {
    // SAFETY: the tests free IRPs of theirs, or mean to be caught.
    unsafe { IoFreeIrp(irp) };
}

/// Sets the completion routine for all outcomes.
pub(crate) fn set_routine(irp: *mut IRP, routine: IO_COMPLETION_ROUTINE, context: *mut c_void) {
    // SAFETY: the IRP is the test's and has a free location.
    unsafe { io_set_completion_routine(irp, routine, context) };
}

/// Hands the IRP down, as a driver below does when it takes it.
pub(crate) fn hand_down(irp: *mut IRP) {
    // SAFETY: the IRP is the test's and has a free location.
    unsafe { nt_user::irp::handed_down(irp) };
    // SAFETY: the IRP is alive and has a free stack location.
    unsafe { io_set_next_irp_stack_location(irp) };
}

/// Completes the IRP, as the driver below does.
pub(crate) fn complete(irp: *mut IRP, status: NTSTATUS, information: usize) {
    // SAFETY: the driver below has the IRP.
    unsafe { set_irp_status(irp, status) };
    // SAFETY: the IRP is alive and has been submitted to this driver.
    unsafe { set_irp_information(irp, information) };
    // SAFETY: the IRP is alive and has been submitted to this driver.
    unsafe { IofCompleteRequest(irp, 0) };
}

/// Completes the IRP without setting its outcome.
pub(crate) fn complete_as_is(irp: *mut IRP) {
    // SAFETY: the tests complete IRPs that a driver below has, or mean to be caught.
    unsafe { IofCompleteRequest(irp, 0) };
}

/// Returns true if the IRP may be passed to `WskTest`.
pub(crate) fn check_submission(irp: *mut IRP) -> bool {
    // SAFETY: the IRP is alive.
    unsafe { nt_user::irp::submitted(irp, "WskTest") }
}

/// A routine that keeps the IRP and signals the event that is its context.
pub(crate) unsafe extern "system" fn signal(
    _: *mut DEVICE_OBJECT,
    _: *mut IRP,
    event: *mut c_void,
) -> NTSTATUS {
    set(event.cast());
    STATUS_MORE_PROCESSING_REQUIRED
}

/// A routine that keeps the IRP.
pub(crate) unsafe extern "system" fn keep(_: *mut DEVICE_OBJECT, _: *mut IRP, _: *mut c_void) -> NTSTATUS {
    STATUS_MORE_PROCESSING_REQUIRED
}

/// A routine that continues the completion of the IRP.
pub(crate) unsafe extern "system" fn let_go(_: *mut DEVICE_OBJECT, _: *mut IRP, _: *mut c_void) -> NTSTATUS {
    STATUS_SUCCESS
}

/// Takes a reference on the thread behind a handle.
pub(crate) fn reference(handle: HANDLE) -> *mut c_void {
    let mut object = ptr::null_mut();
    // SAFETY: the object has a place.
    let status = unsafe {
        ObReferenceObjectByHandle(
            handle,
            THREAD_ALL_ACCESS,
            ptr::null_mut(),
            0,
            &raw mut object,
            ptr::null_mut(),
        )
    };
    assert_eq!(status, STATUS_SUCCESS);
    object
}

/// Closes a handle.
pub(crate) fn close(handle: HANDLE) -> NTSTATUS {
    // SAFETY: nothing is required.
    unsafe { ZwClose(handle) }
}

/// Releases a reference.
pub(crate) fn dereference(object: *mut c_void) -> isize {
    // SAFETY: the tests do not use the object any more.
    unsafe { ObfDereferenceObject(object) }
}

/// Creates a system thread and returns its handle.
pub(crate) fn create_thread(routine: KSTART_ROUTINE, context: *mut c_void) -> HANDLE {
    let mut handle = ptr::null_mut();
    // SAFETY: the handle has a place; the tests keep the context until the thread has ended.
    let status = unsafe {
        PsCreateSystemThread(
            &raw mut handle,
            THREAD_ALL_ACCESS,
            ptr::null_mut(),
            ptr::null_mut(),
            ptr::null_mut(),
            Some(routine),
            context,
        )
    };
    assert_eq!(status, STATUS_SUCCESS);
    handle
}

/// Waits for the thread behind a handle, and closes the handle.
pub(crate) fn join(handle: HANDLE) -> NTSTATUS {
    let object = reference(handle);
    assert_eq!(close(handle), STATUS_SUCCESS);
    let status = wait(object);
    assert_eq!(dereference(object), 0);
    status
}

/// Frees an MDL.
pub(crate) fn mdl(address: *mut c_void, bytes: u32) -> *mut MDL {
    // SAFETY: no IRP is given.
    unsafe { IoAllocateMdl(address, bytes, 0, 0, ptr::null_mut()) }
}

/// Frees an MDL.
pub(crate) fn free_mdl(mdl: *mut MDL) {
    // SAFETY: the MDL is the test's.
    unsafe { IoFreeMdl(mdl) };
}
