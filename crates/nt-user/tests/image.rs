//! The driver's image: the routines in it, the references that keep it, and reports of an early unload.

mod common;

use std::ffi::c_void;
use std::ptr;

use common::*;
use nt_user::Kernel;
use nt_user::faults::Point;
use wsk_sys::nt::*;
use wsk_sys::status::*;

/// A routine that frees its IRP.
unsafe extern "system" fn free_it(_: *mut DEVICE_OBJECT, irp: *mut IRP, _: *mut c_void) -> NTSTATUS {
    free_irp(irp);
    STATUS_MORE_PROCESSING_REQUIRED
}

/// Sets a routine for which a device is referenced.
fn set_for(device: *mut DEVICE_OBJECT, irp: *mut IRP, routine: IO_COMPLETION_ROUTINE) -> NTSTATUS {
    // SAFETY: IRP and device are the test's, and the routine leaves its context alone.
    unsafe { IoSetCompletionRoutineEx(device, irp, Some(routine), ptr::null_mut(), 1, 1, 1) }
}

/// Hands an IRP down and completes it.
fn pass(irp: *mut IRP, status: NTSTATUS) {
    hand_down(irp);
    complete(irp, status, 0);
}

fn references(kernel: &Kernel, device: Shared<DEVICE_OBJECT>) -> isize {
    kernel.device_references(device.get())
}

#[test]
fn a_device_is_held_until_its_routine_has_returned() {
    let kernel = kernel();
    let device = Shared::new(kernel.create_device());
    assert!(device.get().addr().is_multiple_of(MEMORY_ALLOCATION_ALIGNMENT));
    let inside = kernel.clone();
    run(&kernel, move || {
        for (status, routine) in [
            (STATUS_SUCCESS, keep as IO_COMPLETION_ROUTINE),
            (STATUS_CANCELLED, keep),
            (STATUS_SUCCESS, free_it),
        ] {
            let irp = allocate_irp(1);
            assert_eq!(set_for(device.get(), irp, routine), STATUS_SUCCESS);
            assert_eq!(references(&inside, device), 2);
            pass(irp, status);
            assert_eq!(references(&inside, device), 1, "given back, with what was allocated");
            if !std::ptr::fn_addr_eq(routine, free_it as IO_COMPLETION_ROUTINE) {
                free_irp(irp);
            }
        }
    });
    kernel.delete_device(device.get());
    assert_eq!(references(&kernel, device), 0);
    finish_clean(&kernel);
}

#[test]
fn setting_the_routine_takes_memory_and_may_fail() {
    let kernel = kernel();
    let device = Shared::new(kernel.create_device());
    let inside = kernel.clone();
    run(&kernel, move || {
        let irp = allocate_irp(1);
        inside.faults().fail_all(Point::Pool);
        assert_eq!(set_for(device.get(), irp, keep), STATUS_INSUFFICIENT_RESOURCES);
        assert_eq!(inside.faults().injected(), 1);
        inside.faults().clear();
        assert_eq!(references(&inside, device), 1);
        // SAFETY: the IRP has a free location.
        let next = unsafe { io_get_next_irp_stack_location(irp) };
        // SAFETY: the location is the test's.
        assert!(unsafe { stack_completion_routine(next) }.is_none());
        free_irp(irp);
    });
    kernel.delete_device(device.get());
    finish_clean(&kernel);
}

/// An IRP with such a routine that is never completed leaks memory and a reference on the device.
#[test]
fn an_irp_that_is_not_completed_keeps_the_device() {
    let kernel = kernel();
    let device = Shared::new(kernel.create_device());
    run(&kernel, move || {
        let irp = allocate_irp(1);
        assert_eq!(set_for(device.get(), irp, keep), STATUS_SUCCESS);
        free_irp(irp);
    });
    kernel.delete_device(device.get());
    let leaks = finish(&kernel);
    assert_eq!((leaks.references, leaks.blocks.len()), (1, 1), "{leaks}");
}

/// A lingering routine is inside the image. A device keeps the image loaded; without one it is unloaded too
/// early.
///
/// Catches: LIFE-19
#[test]
fn an_image_that_goes_too_early_is_caught() {
    for held in [false, true] {
        let kernel = kernel();
        kernel.watch_image(true);
        let device = Shared::new(kernel.create_device());
        run(&kernel, move || {
            let irp = allocate_irp(1);
            if held {
                assert_eq!(set_for(device.get(), irp, keep), STATUS_SUCCESS);
            } else {
                set_routine(irp, keep, ptr::null_mut());
            }
            pass(irp, STATUS_SUCCESS);
            free_irp(irp);
        });
        assert_eq!(kernel.routines_inside(), 1);
        assert_eq!(kernel.routines_lingering(), 1);
        kernel.delete_device(device.get());
        kernel.unload_image();
        assert_eq!(kernel.image_is_unloaded(), !held);
        assert_eq!(kernel.take("LIFE-19").len(), usize::from(!held));
        kernel.finish_lingering_routines();
        assert!(kernel.image_is_unloaded());
        assert_eq!(kernel.routines_inside(), 0);
        finish_clean(&kernel);
    }
}

unsafe extern "system" fn deferred(_: *mut KDPC, _: *mut c_void, _: *mut c_void, _: *mut c_void) {}

/// A flush of DPCs, and a wait for a thread, wait for the return of their routines.
#[test]
fn who_waits_for_a_routine_has_it_outside() {
    let kernel = kernel();
    kernel.watch_image(true);
    let inside = kernel.clone();
    run(&kernel, move || {
        let dpc = allocate(size_of::<KDPC>()).cast::<KDPC>();
        // SAFETY: the storage is the test's.
        unsafe { KeInitializeDpc(dpc, Some(deferred), ptr::null_mut()) };
        // SAFETY: the DPC is initialized and lives until it has run.
        unsafe { KeInsertQueueDpc(dpc, ptr::null_mut(), ptr::null_mut()) };
        // SAFETY: the level is passive.
        unsafe { KeFlushQueuedDpcs() };
        assert_eq!(inside.routines_inside(), 0);
        free(dpc.cast());
    });
    kernel.unload_image();
    finish_clean(&kernel);
}

/// A DPC that is not flushed, and a completion routine, which cannot be waited for, are caught.
///
/// Catches: LIFE-19
#[test]
fn a_routine_that_is_entered_when_the_image_has_gone_is_caught() {
    let kernel = kernel();
    kernel.watch_image(false);
    kernel.unload_image();
    run(&kernel, || {
        let irp = allocate_irp(1);
        set_routine(irp, keep, ptr::null_mut());
        pass(irp, STATUS_SUCCESS);
        free_irp(irp);
    });
    assert_eq!(kernel.take("LIFE-19").len(), 1);
    run(&kernel, || {
        let dpc = allocate(size_of::<KDPC>()).cast::<KDPC>();
        // SAFETY: the storage is the test's.
        unsafe { KeInitializeDpc(dpc, Some(deferred), ptr::null_mut()) };
        // SAFETY: the DPC is initialized and lives until it has run.
        unsafe { KeInsertQueueDpc(dpc, ptr::null_mut(), ptr::null_mut()) };
        // SAFETY: the level is passive.
        unsafe { KeFlushQueuedDpcs() };
        free(dpc.cast());
    });
    assert_eq!(kernel.take("LIFE-19").len(), 1);
    finish_clean(&kernel);
}

/// References on objects that do not exist are not counted.
#[test]
fn only_objects_are_referenced() {
    let kernel = kernel();
    run(&kernel, || {
        let block = allocate(8);
        // SAFETY: the address is only looked up.
        assert_eq!(unsafe { ObfReferenceObject(block) }, 0);
        free(block);
    });
    assert_only(&kernel, nt_user::rule::OBJECT);
    let device = Shared::new(kernel.create_device());
    kernel.delete_device(device.get());
    run_until_stopped(&kernel, nt_user::rule::OBJECT, move || {
        set_for(device.get(), allocate_irp(1), keep);
    });
}
