//! Invalid pointer arguments: every function of the kernel reports them, and none dereferences them.

mod common;

use std::ffi::c_void;
use std::ptr::{self, null_mut};

use common::*;
use nt_user::{Kernel, rule};
use wsk_sys::nt::*;
use wsk_sys::status::*;

unsafe extern "system" fn idle(_: *mut c_void) {}

unsafe extern "system" fn work(_: *mut DEVICE_OBJECT, _: *mut c_void) {}

unsafe extern "system" fn deferred(_: *mut KDPC, _: *mut c_void, _: *mut c_void, _: *mut c_void) {}

/// Runs `call` with an invalid argument: the kernel reports it, and stops or continues.
fn names(name: &str, at: usize, rules: &[&str], call: impl FnOnce() + Send + 'static) {
    let kernel = kernel();
    let ended = kernel.spawn("test", call).expect("a thread").join();
    drop(ended);
    let [said] = &kernel.violations()[..] else {
        panic!("{name} with {at:#x}: one report, but {:#?}", kernel.violations())
    };
    assert!(rules.contains(&said.rule) && said.call == name, "{name} with {at:#x}: {said}");
}

type Call = fn(*mut c_void);

/// A call with the argument that is tried.
macro_rules! call {
    (|$at:ident| $call:expr) => {
        |$at: *mut c_void| {
            // SAFETY: the pointer is invalid on purpose; the kernel must not dereference it.
            let _ = unsafe { $call };
        }
    };
}

/// Each function with each pointer that it takes and may not be null.
const CALLS: [(&str, Call); 41] = [
    ("IoCancelIrp", call!(|at| IoCancelIrp(at.cast()))),
    ("IoAcquireCancelSpinLock", call!(|at| IoAcquireCancelSpinLock(at.cast()))),
    ("KeInitializeEvent", call!(|at| KeInitializeEvent(at.cast(), NOTIFICATION_EVENT, 0))),
    ("KeSetEvent", call!(|at| KeSetEvent(at.cast(), 0, 0))),
    ("KeClearEvent", call!(|at| KeClearEvent(at.cast()))),
    ("KeResetEvent", call!(|at| KeResetEvent(at.cast()))),
    ("KeReadStateEvent", call!(|at| KeReadStateEvent(at.cast()))),
    ("KeWaitForSingleObject", call!(|at| KeWaitForSingleObject(at, 0, 0, 0, null_mut()))),
    ("KeDelayExecutionThread", call!(|at| KeDelayExecutionThread(0, 0, at.cast()))),
    ("KeInitializeDpc", call!(|at| KeInitializeDpc(at.cast(), Some(deferred), null_mut()))),
    ("KeInsertQueueDpc", call!(|at| KeInsertQueueDpc(at.cast(), null_mut(), null_mut()))),
    ("KeRemoveQueueDpc", call!(|at| KeRemoveQueueDpc(at.cast()))),
    (
        "IoSetCompletionRoutineEx",
        call!(|at| IoSetCompletionRoutineEx(null_mut(), at.cast(), Some(keep), null_mut(), 1, 1, 1)),
    ),
    ("ObfReferenceObject", call!(|at| ObfReferenceObject(at))),
    ("ObfDereferenceObject", call!(|at| ObfDereferenceObject(at))),
    ("IoFreeIrp", call!(|at| IoFreeIrp(at.cast()))),
    ("IoInitializeIrp", call!(|at| IoInitializeIrp(at.cast(), io_size_of_irp(1), 1))),
    ("IoReuseIrp", call!(|at| IoReuseIrp(at.cast(), STATUS_SUCCESS))),
    ("IofCompleteRequest", call!(|at| IofCompleteRequest(at.cast(), 0))),
    ("IoFreeMdl", call!(|at| IoFreeMdl(at.cast()))),
    ("MmBuildMdlForNonPagedPool", call!(|at| MmBuildMdlForNonPagedPool(at.cast()))),
    (
        "MmMapLockedPagesSpecifyCache",
        call!(|at| MmMapLockedPagesSpecifyCache(at.cast(), KERNEL_MODE, MM_CACHED, null_mut(), 0, 0)),
    ),
    ("ExFreePoolWithTag", call!(|at| ExFreePoolWithTag(at, TAG))),
    ("ExInitializeRundownProtection", call!(|at| ExInitializeRundownProtection(at.cast()))),
    ("ExAcquireRundownProtection", call!(|at| ExAcquireRundownProtection(at.cast()))),
    ("ExReleaseRundownProtection", call!(|at| ExReleaseRundownProtection(at.cast()))),
    ("ExWaitForRundownProtectionRelease", call!(|at| ExWaitForRundownProtectionRelease(at.cast()))),
    ("KeAcquireSpinLockRaiseToDpc", call!(|at| KeAcquireSpinLockRaiseToDpc(at.cast()))),
    ("KeReleaseSpinLock", call!(|at| KeReleaseSpinLock(at.cast(), PASSIVE_LEVEL))),
    (
        "PsCreateSystemThread",
        call!(|at| PsCreateSystemThread(
            at.cast(),
            0,
            null_mut(),
            null_mut(),
            null_mut(),
            Some(idle),
            null_mut()
        )),
    ),
    ("ZwClose", call!(|at| ZwClose(at))),
    ("KeQuerySystemTime", call!(|at| KeQuerySystemTime(at.cast()))),
    ("KeInitializeTimer", call!(|at| KeInitializeTimer(at.cast()))),
    ("KeSetTimer", call!(|at| KeSetTimer(at.cast(), -1, null_mut()))),
    ("KeCancelTimer", call!(|at| KeCancelTimer(at.cast()))),
    ("ExQueueWorkItem", call!(|at| ExQueueWorkItem(at.cast(), DELAYED_WORK_QUEUE))),
    ("IoQueueWorkItem", call!(|at| IoQueueWorkItem(at, Some(work), DELAYED_WORK_QUEUE, null_mut()))),
    ("IoFreeWorkItem", call!(|at| IoFreeWorkItem(at))),
    // What may be null, and not anything else.
    ("KeWaitForSingleObject", |at| {
        let event = Event::notification();
        // SAFETY: the event is initialized; the kernel is not to follow the pointer.
        unsafe { KeWaitForSingleObject(event.raw().cast(), 0, 0, 0, or_odd(at).cast()) };
    }),
    ("KeSetTimer", |at| {
        let timer = allocate(size_of::<KTIMER>()).cast();
        // SAFETY: the storage is new.
        unsafe { KeInitializeTimer(timer) };
        // SAFETY: the timer is initialized; the kernel is not to follow the pointer.
        unsafe { KeSetTimer(timer, relative(std::time::Duration::from_hours(1)), or_odd(at).cast()) };
    }),
    ("IoAllocateMdl", |at| {
        // SAFETY: the kernel is not to follow the pointer.
        unsafe { IoAllocateMdl(null_mut(), 8, 0, 0, or_odd(at).cast()) };
    }),
];

/// A pointer in the null page, for arguments that may be null.
fn or_odd(at: *mut c_void) -> *mut c_void {
    if at.is_null() { ptr::without_provenance_mut(0x20) } else { at }
}

#[test]
fn a_pointer_to_nothing_is_named_by_every_function() {
    for at in [0_usize, 0x20, 0xFFF0] {
        for (name, call) in CALLS {
            let rules = [rule::OBJECT, rule::ALIGNMENT, rule::POOL_FREE, rule::IRP_COMPLETE, rule::WORK_ITEM];
            names(name, at, &rules, move || call(ptr::without_provenance_mut(at)));
        }
    }
}

#[test]
fn a_place_for_the_object_of_a_handle_is_needed() {
    let take = || {
        let mut handle = null_mut();
        let (none, routine) = (null_mut(), Some(idle as KSTART_ROUTINE));
        // SAFETY: the handle has a place, and the routine does nothing.
        let status =
            unsafe { PsCreateSystemThread(&raw mut handle, 0, none, none, none, routine, null_mut()) };
        assert_eq!(status, STATUS_SUCCESS);
        // SAFETY: the kernel is not to follow the pointer.
        unsafe { ObReferenceObjectByHandle(handle, 0, null_mut(), 0, null_mut(), null_mut()) };
    };
    names("ObReferenceObjectByHandle", 0, &[rule::OBJECT], take);
}

/// A freed MDL is recognized.
#[test]
fn an_mdl_that_was_freed_is_named() {
    let build = || {
        let block = allocate(64);
        let mdl = mdl(block, 64);
        free_mdl(mdl);
        // SAFETY: it is invalid on purpose; the kernel must not use it.
        unsafe { MmBuildMdlForNonPagedPool(mdl) };
    };
    names("MmBuildMdlForNonPagedPool", 0, &[rule::OBJECT], build);
}

/// A DPC without a routine would call address zero.
#[test]
fn a_dpc_without_a_routine_is_named() {
    let initialize = || {
        let dpc = allocate(size_of::<KDPC>());
        // SAFETY: the storage is new.
        unsafe { KeInitializeDpc(dpc.cast(), None, null_mut()) };
        free(dpc);
    };
    names("KeInitializeDpc", 0, &[rule::OBJECT], initialize);
}

/// An IRP without a free location cannot take a routine.
#[test]
fn a_routine_for_an_irp_without_a_free_location_is_named() {
    let kernel = kernel();
    let device = kernel.create_device().expose_provenance();
    let own = kernel.clone();
    run(&kernel, move || {
        let irp = allocate_irp(1);
        hand_down(irp);
        let device = ptr::with_exposed_provenance_mut(device);
        // SAFETY: the device is there.
        let status = unsafe { IoSetCompletionRoutineEx(device, irp, Some(keep), null_mut(), 1, 1, 1) };
        assert_eq!(status, STATUS_INVALID_PARAMETER);
        assert_only(&own, "IRP-01");
        // SAFETY: the IRP has one location, which a driver below has.
        unsafe { set_irp_current_location(irp, 2) };
        complete_nothing(irp);
        own.delete_device(device);
    });
}

/// Frees an IRP that is only marked as pending.
fn complete_nothing(irp: *mut IRP) {
    // SAFETY: the IRP is the test's, whatever it looks like.
    unsafe { IoFreeIrp(irp) };
}

/// Windows describes nearly 4 GiB with one MDL.
#[test]
fn an_mdl_describes_nearly_four_gigabytes() {
    let kernel: Kernel = kernel();
    run(&kernel, || {
        const MIB: u32 = 1024 * 1024;
        for bytes in [16 * MIB - 4096, 16 * MIB, 16 * MIB + 1, 64 * MIB, u32::MAX - 4095] {
            // SAFETY: the MDL is not used for anything.
            let mdl = unsafe { IoAllocateMdl(null_mut(), bytes, 0, 0, null_mut()) };
            assert!(!mdl.is_null(), "{bytes}");
            // SAFETY: the MDL is the test's.
            assert_eq!(unsafe { mdl_byte_count(mdl) }, bytes);
            free_mdl(mdl);
        }
        // SAFETY: nothing is required.
        assert!(unsafe { IoAllocateMdl(null_mut(), u32::MAX - 4094, 0, 0, null_mut()) }.is_null());
    });
    finish_clean(&kernel);
}

/// More than 16 MiB are mapped like less.
#[test]
fn a_large_mdl_is_built_and_mapped() {
    let kernel = kernel();
    run(&kernel, || {
        let bytes = 20 * 1024 * 1024;
        let block = allocate(bytes);
        // SAFETY: the block has that size.
        let mdl = unsafe { IoAllocateMdl(block, bytes as u32, 0, 0, null_mut()) };
        // SAFETY: the MDL describes the block.
        unsafe { MmBuildMdlForNonPagedPool(mdl) };
        // SAFETY: the MDL is built.
        assert_eq!(unsafe { mm_get_system_address_for_mdl_safe(mdl) }, block);
        free_mdl(mdl);
        free(block);
    });
    finish_clean(&kernel);
}
