//! IRPs: their layout, the completion walk, and reports of misuse.

mod common;

use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use nt_user::irp::State;
use wsk_sys::nt::*;
use wsk_sys::status::*;

/// Observations of a completion routine.
#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    device: AtomicUsize,
    pending: AtomicUsize,
    status: AtomicUsize,
    depth: AtomicUsize,
}

impl Seen {
    fn context(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}

unsafe extern "system" fn look(device: *mut DEVICE_OBJECT, irp: *mut IRP, seen: *mut c_void) -> NTSTATUS {
    // SAFETY: the context is a `Seen` that the test keeps.
    let seen = unsafe { &*seen.cast::<Seen>() };
    seen.calls.fetch_add(1, Ordering::Relaxed);
    seen.device.store(device.addr(), Ordering::Relaxed);
    // SAFETY: the IRP is the routine's for now.
    seen.pending.store(unsafe { irp_pending_returned(irp) }.into(), Ordering::Relaxed);
    // SAFETY: the routine has the IRP until it returns.
    seen.status.store(unsafe { irp_status(irp) } as usize, Ordering::Relaxed);
    seen.depth.store(nt_user::context::current().completions as usize, Ordering::Relaxed);
    STATUS_MORE_PROCESSING_REQUIRED
}

/// An IRP has the layout of wdm.h, and its stack locations follow it.
/// Shows: LAY-24
#[test]
fn an_irp_has_the_layout_of_wdm() {
    assert_eq!((size_of::<IRP>(), size_of::<IO_STACK_LOCATION>()), (0xD0, 0x48));
    assert_eq!((size_of::<MDL>(), size_of::<KEVENT>()), (0x30, 0x18));
    assert_eq!(io_size_of_irp(1), 0x118);
    let offsets = [
        (offset_of!(IRP, MdlAddress), 0x08),
        (offset_of!(IRP, Flags), 0x10),
        (offset_of!(IRP, IoStatus), 0x30),
        (offset_of!(IRP, RequestorMode), 0x40),
        (offset_of!(IRP, PendingReturned), 0x41),
        (offset_of!(IRP, StackCount), 0x42),
        (offset_of!(IRP, CurrentLocation), 0x43),
        (offset_of!(IRP, Cancel), 0x44),
        (offset_of!(IRP, CancelRoutine), 0x68),
        (offset_of!(IRP, Tail), 0x78),
        (offset_of!(IO_STACK_LOCATION, Control), 0x03),
        (offset_of!(IO_STACK_LOCATION, CompletionRoutine), 0x38),
        (offset_of!(IO_STACK_LOCATION, Context), 0x40),
        (offset_of!(MDL, Size), 8),
        (offset_of!(MDL, MdlFlags), 10),
        (offset_of!(MDL, Process), 16),
        (offset_of!(MDL, MappedSystemVa), 24),
        (offset_of!(MDL, StartVa), 32),
        (offset_of!(MDL, ByteCount), 40),
        (offset_of!(MDL, ByteOffset), 44),
    ];
    for (is, should) in offsets {
        assert_eq!(is, should);
    }
    let kernel = kernel();
    run(&kernel, || {
        let irp = allocate_irp(1);
        let bytes = irp.cast::<u8>();
        // SAFETY: the IRP has these bytes.
        let at = |offset: usize| unsafe { bytes.wrapping_add(offset).read() };
        assert_eq!((at(0), at(2), at(3)), (6, 0x18, 0x01), "type and size");
        assert_eq!((at(0x42), at(0x43)), (1, 2), "one location, and none in use");
        // SAFETY: the IRP is the test's.
        let next = unsafe { io_get_next_irp_stack_location(irp) };
        assert_eq!(next.addr() - irp.addr(), size_of::<IRP>());
        free_irp(irp);
    });
    finish_clean(&kernel);
}

/// The routine of the creator of a one-location IRP sees no device, the outcome, and `PendingReturned` as the
/// location was marked; it runs in the completion context.
/// Shows: IRP-25
#[test]
fn the_creator_is_notified_of_the_outcome() {
    let kernel = kernel();
    run(&kernel, || {
        for pending in [false, true] {
            let seen = Seen::default();
            let irp = allocate_irp(1);
            set_routine(irp, look, seen.context());
            assert!(check_submission(irp));
            hand_down(irp);
            if pending {
                // SAFETY: the IRP has been submitted.
                unsafe { io_mark_irp_pending(irp) };
            }
            complete(irp, STATUS_CANCELLED, 0);
            assert_eq!(seen.calls.load(Ordering::Relaxed), 1);
            assert_eq!(seen.device.load(Ordering::Relaxed), 0);
            assert_eq!(seen.pending.load(Ordering::Relaxed), usize::from(pending));
            assert_eq!(seen.status.load(Ordering::Relaxed) as NTSTATUS, STATUS_CANCELLED);
            assert_eq!(seen.depth.load(Ordering::Relaxed), 1);
            assert!(!nt_user::context::in_completion());
            free_irp(irp);
        }
    });
    finish_clean(&kernel);
}

/// In a stack of drivers, a routine that does not keep the IRP continues the walk, and the pending bit is
/// propagated.
#[test]
fn a_walk_climbs_over_routines_that_let_go() {
    let kernel = kernel();
    run(&kernel, || {
        let top = Seen::default();
        let irp = allocate_irp(3);
        set_routine(irp, look, top.context());
        hand_down(irp);
        // The middle driver has no routine, the lower one has one that does as wdm asks.
        hand_down(irp);
        set_routine(irp, pass_on, ptr::null_mut());
        hand_down(irp);
        // SAFETY: the IRP has been submitted.
        unsafe { io_mark_irp_pending(irp) };
        complete(irp, STATUS_SUCCESS, 7);
        assert_eq!(top.calls.load(Ordering::Relaxed), 1);
        assert_eq!(top.pending.load(Ordering::Relaxed), 1, "carried up by routine and walk");
        // SAFETY: the IRP has come back.
        assert_eq!(unsafe { nt_user::irp::state(irp) }, Some(State::Completed));
        free_irp(irp);
    });
    finish_clean(&kernel);
}

/// A routine of a driver in the middle.
unsafe extern "system" fn pass_on(_: *mut DEVICE_OBJECT, irp: *mut IRP, _: *mut c_void) -> NTSTATUS {
    // SAFETY: the IRP is the routine's for now.
    if unsafe { irp_pending_returned(irp) } {
        // SAFETY: the IRP is alive, and its current location is the routine's.
        unsafe { io_mark_irp_pending(irp) };
    }
    STATUS_CONTINUE_COMPLETION
}

/// `STATUS_CONTINUE_COMPLETION`, which is `STATUS_SUCCESS`.
const STATUS_CONTINUE_COMPLETION: NTSTATUS = STATUS_SUCCESS;

/// A driver in the middle may keep the IRP and complete it later, which continues from its location.
#[test]
fn a_kept_irp_is_completed_from_the_middle() {
    let kernel = kernel();
    run(&kernel, || {
        let top = Seen::default();
        let irp = allocate_irp(2);
        set_routine(irp, look, top.context());
        hand_down(irp);
        set_routine(irp, keep, ptr::null_mut());
        hand_down(irp);
        complete(irp, STATUS_SUCCESS, 0);
        assert_eq!(top.calls.load(Ordering::Relaxed), 0);
        // SAFETY: the middle driver has the IRP.
        assert_eq!(unsafe { nt_user::irp::state(irp) }, Some(State::Submitted));
        complete_as_is(irp);
        assert_eq!(top.calls.load(Ordering::Relaxed), 1);
        free_irp(irp);
    });
    finish_clean(&kernel);
}

unsafe extern "system" fn free_it(_: *mut DEVICE_OBJECT, irp: *mut IRP, _: *mut c_void) -> NTSTATUS {
    free_irp(irp);
    STATUS_MORE_PROCESSING_REQUIRED
}

/// A routine may free the IRP that it keeps; it is not accessed afterwards.
#[test]
fn a_routine_may_free_its_irp() {
    let kernel = kernel();
    run(&kernel, || {
        for _ in 0..1000 {
            let irp = allocate_irp(1);
            set_routine(irp, free_it, ptr::null_mut());
            hand_down(irp);
            complete(irp, STATUS_SUCCESS, 0);
        }
    });
    finish_clean(&kernel);
}

/// An IRP in the driver's own storage is initialized, submitted, re-used, initialized again, and abandoned
/// with the storage once it has completed; none of that is a mistake.
#[test]
fn an_embedded_irp_may_be_abandoned_after_completion() {
    let kernel = kernel();
    run(&kernel, || {
        let size = io_size_of_irp(1);
        let block = allocate(64 + usize::from(size));
        let irp = block.wrapping_byte_add(64).cast::<IRP>();
        for _ in 0..3 {
            // SAFETY: the storage is the test's.
            unsafe { IoInitializeIrp(irp, size, 1) };
            for _ in 0..3 {
                set_routine(irp, keep, ptr::null_mut());
                assert!(check_submission(irp));
                hand_down(irp);
                complete(irp, STATUS_SUCCESS, 0);
                // SAFETY: the IRP has come back.
                unsafe { IoReuseIrp(irp, STATUS_SUCCESS) };
            }
        }
        set_routine(irp, keep, ptr::null_mut());
        hand_down(irp);
        complete(irp, STATUS_SUCCESS, 0);
        free(block);
    });
    finish_clean(&kernel);
}

/// The storage of an embedded IRP may serve another purpose once the IRP has completed.
#[test]
fn the_storage_of_a_completed_irp_is_the_drivers() {
    let kernel = kernel();
    run(&kernel, || {
        let size = io_size_of_irp(1);
        let block = allocate(size.into());
        // SAFETY: the storage is the test's.
        unsafe { IoInitializeIrp(block.cast(), size, 1) };
        // SAFETY: the block has this size and is not used.
        unsafe { ptr::write_bytes(block.cast::<u8>(), 0, size.into()) };
        free(block);
    });
    finish_clean(&kernel);
}

/// A pool block with an IRP that a lower driver has must not be freed. It is kept, so that the late
/// completion does no harm.
/// Catches: IRP-16
#[test]
fn freeing_the_storage_of_a_pending_irp_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let size = io_size_of_irp(1);
        let block = allocate(64 + usize::from(size));
        let irp = block.wrapping_byte_add(64).cast::<IRP>();
        // SAFETY: the storage is the test's.
        unsafe { IoInitializeIrp(irp, size, 1) };
        set_routine(irp, keep, ptr::null_mut());
        hand_down(irp);
        free(block);
        complete(irp, STATUS_SUCCESS, 0);
    });
    assert!(location_of(&kernel, "IRP-16").contains("tests/"), "the place is the driver's code");
    assert_only(&kernel, "IRP-16");
    finish_clean(&kernel);
}

/// An allocated IRP that a driver below still has must not be freed, cancelled or not.
/// Catches: IRP-16
#[test]
fn freeing_a_pending_irp_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let irp = allocate_irp(1);
        set_routine(irp, keep, ptr::null_mut());
        hand_down(irp);
        // SAFETY: the IRP is alive.
        unsafe { IoCancelIrp(irp) };
        free_irp(irp);
        complete(irp, STATUS_CANCELLED, 0);
    });
    assert_only(&kernel, "IRP-16");
    finish_clean(&kernel);
}

/// A driver may keep the highest location of its IRP for itself. The IRP is back when the routine of the
/// location below has kept it, although there is a location above: it may then be sent again, re-used,
/// initialized, and freed.
#[test]
fn an_irp_is_back_with_a_driver_that_keeps_a_location_of_its_own() {
    let kernel = kernel();
    run(&kernel, || {
        for locations in [2, 3, 5] {
            let size = io_size_of_irp(locations);
            let stored = allocate(size.into());
            let mut own = vec![0_u128; usize::from(size).div_ceil(16)];
            // SAFETY: the storage is the test's.
            unsafe { IoInitializeIrp(stored.cast(), size, locations) };
            // SAFETY: the storage has this size and belongs to the test.
            unsafe { IoInitializeIrp(own.as_mut_ptr().cast(), size, locations) };
            let irps = [allocate_irp(locations), stored.cast(), own.as_mut_ptr().cast()];
            for irp in irps {
                // SAFETY: the IRP is the test's and has free locations.
                unsafe { io_set_next_irp_stack_location(irp) };
                for _ in 0..2 {
                    send(irp);
                    // SAFETY: the IRP is back.
                    unsafe { IoReuseIrp(irp, STATUS_SUCCESS) };
                    // SAFETY: the IRP is alive and has a free stack location.
                    unsafe { io_set_next_irp_stack_location(irp) };
                }
                send(irp);
                send(irp);
            }
            free_irp(irps[0]);
            // SAFETY: the IRP is back.
            unsafe { IoInitializeIrp(irps[1], size, locations) };
            free(stored);
            // SAFETY: the storage has this size and belongs to the test.
            unsafe { IoInitializeIrp(irps[2], size, locations) };
        }
    });
    // The storage outside pool is no non-paged memory.
    kernel.take(nt_user::rule::NON_PAGED);
    finish_clean(&kernel);
}

/// Submits an IRP, and gets it back.
fn send(irp: *mut IRP) {
    let seen = Seen::default();
    set_routine(irp, look, seen.context());
    assert!(check_submission(irp));
    hand_down(irp);
    complete(irp, STATUS_SUCCESS, 0);
    assert_eq!(seen.calls.load(Ordering::Relaxed), 1);
}

/// While the driver below has it, an IRP with locations of its driver's own is pending like any other.
/// Catches: IRP-06, IRP-16
#[test]
fn a_pending_irp_with_more_locations_is_left_alone() {
    type Mistake = fn(*mut IRP);
    let kernel = kernel();
    let uses: [(&str, Mistake); 4] = [
        ("IRP-06", |irp| {
            set_routine(irp, keep, ptr::null_mut());
            assert!(!check_submission(irp));
        }),
        // SAFETY: the IRP is alive; the mistake is the point.
        ("IRP-06", |irp| unsafe { IoReuseIrp(irp, STATUS_SUCCESS) }),
        // SAFETY: the storage has this size and belongs to the test.
        ("IRP-06", |irp| unsafe { IoInitializeIrp(irp, io_size_of_irp(3), 3) }),
        ("IRP-16", free_irp),
    ];
    for (rule, mistake) in uses {
        for own in [false, true] {
            run(&kernel, move || {
                let irp = allocate_irp(3);
                if own {
                    // SAFETY: the IRP is the test's and has free locations.
                    unsafe { io_set_next_irp_stack_location(irp) };
                }
                set_routine(irp, keep, ptr::null_mut());
                assert!(check_submission(irp));
                hand_down(irp);
                mistake(irp);
                complete(irp, STATUS_SUCCESS, 0);
                if rule == "IRP-06" {
                    free_irp(irp);
                }
            });
            assert_only(&kernel, rule);
        }
    }
    finish_clean(&kernel);
}

/// A driver in the middle that keeps an IRP has it; the drivers above do not.
/// Catches: IRP-16
#[test]
fn an_irp_that_is_kept_in_the_middle_is_not_back_at_the_top() {
    let kernel = kernel();
    run(&kernel, || {
        let irp = allocate_irp(2);
        set_routine(irp, keep, ptr::null_mut());
        hand_down(irp);
        set_routine(irp, keep, ptr::null_mut());
        hand_down(irp);
        complete(irp, STATUS_SUCCESS, 0);
        free_irp(irp);
    });
    assert_only(&kernel, "IRP-16");
    finish_clean(&kernel);
}

/// The storage of an IRP belongs to the driver again when the IRP has returned. Its contents are not taken
/// for an IRP, and not read: they may be uninitialized.
#[test]
fn a_former_irp_is_not_read() {
    let kernel = kernel();
    run(&kernel, || {
        let size = io_size_of_irp(1);
        let block = allocate(size.into());
        let irp = block.cast::<IRP>();
        let mut copy = vec![0_u8; size.into()];
        for _ in 0..2 {
            // SAFETY: the storage is the test's.
            unsafe { IoInitializeIrp(irp, size, 1) };
            set_routine(irp, keep, ptr::null_mut());
            assert!(check_submission(irp));
            hand_down(irp);
            // SAFETY: both are of that size.
            unsafe { ptr::copy_nonoverlapping(block.cast(), copy.as_mut_ptr(), size.into()) };
            complete(irp, STATUS_SUCCESS, 0);
            // SAFETY: the IRP is back, and its storage of that size.
            unsafe { ptr::copy_nonoverlapping(copy.as_ptr(), block.cast(), size.into()) };
        }
        free(block);
    });
    finish_clean(&kernel);
}

/// Writes a word where the first location below an IRP's would be, at an offset. So does a driver that fills
/// the current location of an IRP which has not been submitted.
fn write_behind(irp: *mut IRP, offset: usize) {
    let word = irp.wrapping_byte_add(usize::from(io_size_of_irp(1)) + offset).cast::<u64>();
    // SAFETY: the kernel keeps room for a location behind each block, to see what is written there.
    unsafe { word.write(7) };
}

/// Returns an allocated IRP, and one in the driver's storage.
fn irps() -> [*mut IRP; 2] {
    let size = io_size_of_irp(1);
    let stored = allocate(size.into()).cast::<IRP>();
    // SAFETY: the storage is the test's.
    unsafe { IoInitializeIrp(stored, size, 1) };
    [allocate_irp(1), stored]
}

/// A write past the end of an IRP is reported once, by the first check after it: at the next submission, at
/// the completion, or when the IRP is freed.
#[test]
fn words_behind_an_irp_are_caught() {
    for offset in [0, 0x38, 0x40] {
        let kernel = kernel();
        let inside = kernel.clone();
        run(&kernel, move || {
            let named = |call: &str| {
                let said = inside.take(nt_user::rule::POOL_OVERRUN);
                let [said] = &said[..] else { panic!("{call}: {said:?}") };
                assert_eq!(said.call, call);
                assert!(said.detail.contains("8 bytes"), "{said}");
            };
            let irps = irps();
            for irp in irps {
                set_routine(irp, keep, ptr::null_mut());
                write_behind(irp, offset);
                assert!(check_submission(irp));
                named("WskTest");
                hand_down(irp);
                write_behind(irp, offset);
                complete(irp, STATUS_SUCCESS, 0);
                named("IofCompleteRequest");
                write_behind(irp, offset);
            }
            free_irp(irps[0]);
            named("IoFreeIrp");
            free(irps[1].cast());
            named("ExFreePoolWithTag");
        });
        finish_clean(&kernel);
    }
}

/// An IRP without a free stack location cannot be submitted.
/// Catches: IRP-01
#[test]
fn an_irp_without_a_location_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let size = io_size_of_irp(0);
        let block = allocate(size.into());
        // SAFETY: the storage is the test's.
        unsafe { IoInitializeIrp(block.cast(), size, 0) };
        assert!(!check_submission(block.cast()));
        free(block);
    });
    assert_only(&kernel, "IRP-01");
    run(&kernel, || {
        // SAFETY: nothing is required.
        assert!(unsafe { IoAllocateIrp(0, 0) }.is_null());
    });
    assert_only(&kernel, "IRP-01");
    finish_clean(&kernel);
}

/// The creator of an IRP needs a routine, for every outcome.
/// Catches: IRP-02
#[test]
fn an_irp_without_a_routine_for_all_outcomes_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let irp = allocate_irp(1);
        check_submission(irp);
        free_irp(irp);
    });
    assert_only(&kernel, "IRP-02");
    run(&kernel, || {
        let irp = allocate_irp(1);
        set_routine(irp, keep, ptr::null_mut());
        // SAFETY: the IRP is the test's.
        let next = unsafe { io_get_next_irp_stack_location(irp) };
        // SAFETY: the location is the IRP's.
        unsafe { set_stack_control(next, SL_INVOKE_ON_SUCCESS | SL_INVOKE_ON_CANCEL) };
        check_submission(irp);
        free_irp(irp);
    });
    assert_only(&kernel, "IRP-02");
    finish_clean(&kernel);
}

/// If the routine is not set for the outcome, the creator does not get the IRP back.
/// Catches: IRP-02
#[test]
fn a_completion_without_a_routine_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let irp = allocate_irp(1);
        set_routine(irp, keep, ptr::null_mut());
        // SAFETY: the IRP is the test's.
        let next = unsafe { io_get_next_irp_stack_location(irp) };
        // SAFETY: the location is the IRP's.
        unsafe { set_stack_control(next, SL_INVOKE_ON_SUCCESS) };
        hand_down(irp);
        complete(irp, STATUS_CANCELLED, 0);
        free_irp(irp);
    });
    assert_only(&kernel, "IRP-02");
    finish_clean(&kernel);
}

/// The routine of the creator must keep the IRP.
/// Catches: IRP-03
#[test]
fn a_creator_that_lets_its_irp_go_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let irp = allocate_irp(1);
        set_routine(irp, let_go, ptr::null_mut());
        hand_down(irp);
        complete(irp, STATUS_SUCCESS, 0);
        free_irp(irp);
    });
    assert_only(&kernel, "IRP-03");
    finish_clean(&kernel);
}

/// An IRP whose only location its creator has used up is not one that is pending.
/// Catches: IRP-01
#[test]
fn an_irp_that_was_moved_before_it_is_submitted_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let irp = allocate_irp(1);
        set_routine(irp, keep, ptr::null_mut());
        // SAFETY: the IRP is the test's and has a free location.
        unsafe { io_set_next_irp_stack_location(irp) };
        assert!(!check_submission(irp));
        // SAFETY: the IRP is the test's.
        unsafe { IoInitializeIrp(irp, io_size_of_irp(1), 1) };
        free_irp(irp);
    });
    assert_only(&kernel, "IRP-01");
    finish_clean(&kernel);
}

/// The current location of an IRP must be consistent.
/// Catches: IRP-05
#[test]
fn an_irp_whose_stack_location_was_changed_is_caught() {
    let kernel = kernel();
    let changes: [fn(*mut IRP); 3] = [
        // SAFETY: the IRP is the test's, as below.
        |irp| unsafe { set_irp_current_location(irp, 3) },
        // SAFETY: see above.
        |irp| unsafe { set_irp_current_location(irp, 1) },
        // SAFETY: see above.
        |irp| {
            // SAFETY: see above.
            let pointer = unsafe { irp_stack_pointer(irp) };
            // SAFETY: see above.
            unsafe { set_irp_stack_pointer(irp, pointer.wrapping_sub(1)) };
        },
    ];
    for change in changes {
        run(&kernel, move || {
            let irp = allocate_irp(1);
            set_routine(irp, keep, ptr::null_mut());
            change(irp);
            assert!(!check_submission(irp));
            // SAFETY: the IRP is the test's.
            unsafe { IoInitializeIrp(irp, io_size_of_irp(1), 1) };
            free_irp(irp);
        });
        assert_only(&kernel, "IRP-05");
    }
    finish_clean(&kernel);
}

/// A pending IRP must not be submitted, re-used or initialized again.
/// Catches: IRP-06
#[test]
fn using_a_pending_irp_again_is_caught() {
    let kernel = kernel();
    let uses: [fn(*mut IRP); 3] = [
        |irp| assert!(!check_submission(irp)),
        // SAFETY: the IRP is alive; the mistake is the point.
        |irp| unsafe { IoReuseIrp(irp, STATUS_SUCCESS) },
        // SAFETY: the storage has this size and belongs to the test.
        |irp| unsafe { IoInitializeIrp(irp, io_size_of_irp(1), 1) },
    ];
    for again in uses {
        run(&kernel, move || {
            let size = io_size_of_irp(1);
            let block = allocate(size.into());
            let irp = block.cast::<IRP>();
            // SAFETY: the storage is the test's.
            unsafe { IoInitializeIrp(irp, size, 1) };
            set_routine(irp, keep, ptr::null_mut());
            hand_down(irp);
            again(irp);
            // SAFETY: the IRP is alive.
            assert_eq!(unsafe { nt_user::irp::state(irp) }, Some(State::Submitted), "it is as it was");
            complete(irp, STATUS_SUCCESS, 0);
            free(block);
        });
        assert_only(&kernel, "IRP-06");
    }
    finish_clean(&kernel);
}

/// A completed IRP goes through `IoReuseIrp` before it is submitted again.
/// Catches: IRP-06
#[test]
fn submitting_again_without_reuse_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let irp = allocate_irp(1);
        set_routine(irp, keep, ptr::null_mut());
        assert!(check_submission(irp));
        hand_down(irp);
        complete(irp, STATUS_SUCCESS, 0);
        set_routine(irp, keep, ptr::null_mut());
        check_submission(irp);
        free_irp(irp);
    });
    assert_only(&kernel, "IRP-06");
    finish_clean(&kernel);
}

/// Completing an IRP twice, or one that was never submitted, is caught and does nothing.
#[test]
fn completing_an_irp_that_is_not_pending_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let seen = Seen::default();
        let irp = allocate_irp(1);
        set_routine(irp, look, seen.context());
        hand_down(irp);
        complete(irp, STATUS_SUCCESS, 0);
        complete_as_is(irp);
        assert_eq!(seen.calls.load(Ordering::Relaxed), 1);
        free_irp(irp);
    });
    assert_only(&kernel, nt_user::rule::IRP_COMPLETE);
    finish_clean(&kernel);
}

unsafe extern "system" fn never_called(_: *mut DEVICE_OBJECT, _: *mut IRP) {}

/// A driver removes its cancel routine, and sets the outcome, before it completes an IRP.
#[test]
fn completing_too_early_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let irp = allocate_irp(1);
        set_routine(irp, keep, ptr::null_mut());
        hand_down(irp);
        // SAFETY: the IRP has been submitted.
        unsafe { io_set_cancel_routine(irp, Some(never_called)) };
        complete(irp, STATUS_SUCCESS, 0);
        free_irp(irp);
    });
    assert_only(&kernel, nt_user::rule::IRP_COMPLETE);
    run(&kernel, || {
        let irp = allocate_irp(1);
        set_routine(irp, keep, ptr::null_mut());
        hand_down(irp);
        complete(irp, STATUS_PENDING, 0);
        free_irp(irp);
    });
    assert_only(&kernel, nt_user::rule::IRP_COMPLETE);
    finish_clean(&kernel);
}

/// A pointer that is not an IRP stops the kernel, as it would stop a machine.
#[test]
fn a_pointer_to_no_irp_stops_the_kernel() {
    let kernel = kernel();
    run_until_stopped(&kernel, nt_user::rule::OBJECT, || {
        let block = allocate(io_size_of_irp(1).into());
        complete_as_is(block.cast());
    });
}

/// An IRP that is not freed is a leak.
#[test]
fn an_irp_that_is_not_freed_is_a_leak() {
    let kernel = kernel();
    run(&kernel, || {
        allocate_irp(1);
    });
    let leaks = finish(&kernel);
    assert_eq!(leaks.blocks.len(), 1);
    assert_eq!(leaks.blocks[0].kind, nt_user::pool::Kind::Irp);
    assert!(leaks.to_string().contains("IRP 'Irp ' of 280 bytes"), "{leaks}");
}

/// Many IRPs, each submitted by one thread and completed by another, exactly once.
#[test]
fn irps_complete_across_threads() {
    const ROUNDS: usize = 20_000;
    let kernel = kernel();
    let inner = kernel.clone();
    run(&kernel, move || {
        let (requests, below) = std::sync::mpsc::sync_channel::<Shared<IRP>>(64);
        let driver = inner.spawn("below", move || {
            for irp in below {
                complete(irp.get(), STATUS_SUCCESS, 1);
            }
        });
        let done = Arc::new(Event::synchronization());
        let irp = allocate_irp(1);
        for _ in 0..ROUNDS {
            // SAFETY: the IRP is idle or completed.
            unsafe { IoReuseIrp(irp, STATUS_SUCCESS) };
            set_routine(irp, signal, done.raw().cast());
            assert!(check_submission(irp));
            hand_down(irp);
            // SAFETY: the IRP has been submitted.
            unsafe { io_mark_irp_pending(irp) };
            requests.send(Shared::new(irp)).expect("the driver listens");
            assert_eq!(done.wait(), STATUS_SUCCESS);
            // SAFETY: the IRP has come back.
            assert_eq!(unsafe { irp_information(irp) }, 1);
        }
        free_irp(irp);
        drop(requests);
        driver.expect("a thread").join().expect("it ends");
    });
    finish_clean(&kernel);
}
