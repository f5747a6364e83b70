//! Misaligned structures: the kernel reports every one.

mod common;

use std::ffi::c_void;
use std::ptr;

use common::*;
use nt_user::rule;
use wsk_sys::nt::*;
use wsk_sys::status::*;

/// An IRP in storage of the driver's own has the alignment that Microsoft's headers give it. A compiler that
/// uses other headers puts it at 8 modulo 16. It is used nevertheless, and reported by every function that
/// gets it.
///
/// Catches: IRP-28
#[test]
fn an_irp_between_two_lines_of_pool_is_caught() {
    let kernel = kernel();
    let size = io_size_of_irp(1);
    let irp = {
        let kernel = kernel.clone();
        run(&kernel.clone(), move || {
            let block = allocate(usize::from(size) + MEMORY_ALLOCATION_ALIGNMENT);
            let irp = block.wrapping_byte_add(MEMORY_ALLOCATION_ALIGNMENT / 2).cast::<IRP>();
            // SAFETY: the storage is the test's, and long enough.
            unsafe { IoInitializeIrp(irp, size, 1) };
            Shared::new(irp)
        })
    };
    assert_only(&kernel, "IRP-28");
    run(&kernel, move || {
        // SAFETY: the IRP is the test's.
        unsafe { IoCancelIrp(irp.get()) };
    });
    assert_only(&kernel, "IRP-28");
    run(&kernel, move || {
        // SAFETY: the IRP is the test's.
        unsafe { IoReuseIrp(irp.get(), STATUS_SUCCESS) };
    });
    assert_only(&kernel, "IRP-28");
    run(&kernel, move || {
        set_routine(irp.get(), keep, ptr::null_mut());
        hand_down(irp.get());
        complete(irp.get(), STATUS_SUCCESS, 0);
        free(irp.get().cast::<c_void>().wrapping_byte_sub(MEMORY_ALLOCATION_ALIGNMENT / 2));
    });
    assert_only(&kernel, "IRP-28");
    finish_clean(&kernel);
}

/// The kernel's own allocations are aligned, and so is the start of a pool block.
#[test]
fn irps_of_the_kernel_and_at_the_start_of_pool_are_aligned() {
    let kernel = kernel();
    run(&kernel, || {
        for locations in 1..8 {
            // SAFETY: nothing is required.
            let irp = unsafe { IoAllocateIrp(locations, 0) };
            assert!(irp.addr().is_multiple_of(MEMORY_ALLOCATION_ALIGNMENT));
            free_irp(irp);
            let size = io_size_of_irp(locations);
            let block = allocate(size.into());
            // SAFETY: the storage is the test's.
            unsafe { IoInitializeIrp(block.cast(), size, locations) };
            free(block);
        }
    });
    finish_clean(&kernel);
}

/// Structures that the host could not read at such an address stop the kernel.
#[test]
fn other_structures_off_their_alignment_stop_the_kernel() {
    type Try = fn(*mut u8);
    let attempts: [(&str, Try); 10] = [
        // SAFETY: the kernel looks at the address only, and stops.
        ("KeInitializeDpc", |at| unsafe { KeInitializeDpc(at.cast(), None, ptr::null_mut()) }),
        ("KeInsertQueueDpc", |at| {
            // SAFETY: the kernel looks at the address only, and stops.
            unsafe { KeInsertQueueDpc(at.cast(), ptr::null_mut(), ptr::null_mut()) };
        }),
        // SAFETY: the kernel looks at the address only, and stops.
        ("KeInitializeTimer", |at| unsafe { KeInitializeTimer(at.cast()) }),
        // SAFETY: the kernel looks at the address only, and stops.
        ("KeInitializeEvent", |at| unsafe { KeInitializeEvent(at.cast(), NOTIFICATION_EVENT, 0) }),
        ("KeAcquireSpinLockRaiseToDpc", |at| {
            // SAFETY: the kernel looks at the address only, and stops.
            unsafe { KeAcquireSpinLockRaiseToDpc(at.cast()) };
        }),
        ("ExInitializeRundownProtection", |at| {
            // SAFETY: the kernel looks at the address only, and stops.
            unsafe { ExInitializeRundownProtection(at.cast()) };
        }),
        ("ExAcquireRundownProtection", |at| {
            // SAFETY: the kernel looks at the address only, and stops.
            unsafe { ExAcquireRundownProtection(at.cast()) };
        }),
        // SAFETY: the kernel looks at the address only, and stops.
        ("ExQueueWorkItem", |at| unsafe { ExQueueWorkItem(at.cast(), DELAYED_WORK_QUEUE) }),
        // SAFETY: the kernel looks at the address only, and stops.
        ("MmBuildMdlForNonPagedPool", |at| unsafe { MmBuildMdlForNonPagedPool(at.cast()) }),
        ("MmMapLockedPagesSpecifyCache", |at| {
            // SAFETY: the kernel looks at the address only, and stops.
            unsafe {
                MmMapLockedPagesSpecifyCache(at.cast(), KERNEL_MODE, MM_CACHED, ptr::null_mut(), 0, 0);
            }
        }),
    ];
    for (name, attempt) in attempts {
        let kernel = kernel();
        run_until_stopped(&kernel, rule::ALIGNMENT, move || {
            let block = allocate(128).cast::<u8>();
            attempt(block.wrapping_add(4));
        });
        let stopped = kernel.stopped().expect("it has just been seen");
        assert_eq!(stopped.call, name);
    }
}
