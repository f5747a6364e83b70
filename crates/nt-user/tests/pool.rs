//! Pool, MDLs and faults.

mod common;

use std::ffi::c_void;
use std::ptr;

use common::*;
use nt_user::faults::Point;
use nt_user::pool::{Kind, tag};
use nt_user::{Config, Kernel, rule};
use wsk_sys::nt::*;

fn is_filled(block: *mut c_void, bytes: usize, with: u8) -> bool {
    // SAFETY: the block has the bytes, which pool has filled.
    let bytes = unsafe { std::slice::from_raw_parts(block.cast::<u8>(), bytes) };
    bytes.iter().all(|byte| *byte == with)
}

/// Blocks are counted by tag, filled with a pattern, aligned, and zeroed where that is promised.
#[test]
fn pool_is_counted() {
    let kernel = kernel();
    let outer = kernel.clone();
    run(&kernel, move || {
        let small = allocate(24);
        assert!(is_filled(small, 24, 0xCD), "new memory is not zero by luck");
        let large = allocate(5000);
        assert_eq!((small.addr() % 16, large.addr() % 4096), (0, 0));
        let stats = outer.pool_stats(TAG);
        assert_eq!((stats.blocks, stats.bytes, stats.allocations), (2, 5024, 2));
        free(small);
        free(large);
        let stats = outer.pool_stats(TAG);
        assert_eq!((stats.blocks, stats.bytes, stats.peak_bytes, stats.allocations), (0, 0, 5024, 2));
        // SAFETY: nothing is required.
        let zeroed = unsafe { ExAllocatePool2(POOL_FLAG_NON_PAGED, 100, TAG) };
        assert!(is_filled(zeroed, 100, 0));
        free(zeroed);
        // SAFETY: nothing is required.
        assert!(unsafe { ExAllocatePool2(0, 100, TAG) }.is_null());
        assert_eq!(outer.pool_total().blocks, 0);
    });
    finish_clean(&kernel);
}

/// Blocks and static data are non-paged; the stack, the heap and paged pool are not.
#[test]
fn non_paged_memory_is_known() {
    static CONSTANT: [u8; 64] = [1; 64];
    let kernel = kernel();
    let outer = kernel.clone();
    run(&kernel, move || {
        let block = allocate(100);
        assert!(outer.is_non_paged(block, 100));
        assert!(outer.is_non_paged(block.wrapping_byte_add(99), 1));
        assert!(!outer.is_non_paged(block, 101) || !cfg!(any(target_os = "linux", windows)));
        assert!(outer.is_non_paged(CONSTANT.as_ptr().cast(), 64));
        // SAFETY: nothing is required.
        let paged = unsafe { ExAllocatePoolWithTag(1, 8, TAG) };
        assert!(!outer.is_non_paged(paged, 8) || !cfg!(any(target_os = "linux", windows)));
        if cfg!(any(target_os = "linux", windows)) {
            let stack = [0_u8; 8];
            let heap = Box::new(0_u64);
            assert!(!outer.is_non_paged(stack.as_ptr().cast(), 8));
            assert!(!outer.is_non_paged(ptr::from_ref(&*heap).cast(), 8));
        }
        let other = Kernel::new(Config::default());
        assert!(
            !other.is_non_paged(block, 100) || !cfg!(any(target_os = "linux", windows)),
            "another machine's pool"
        );
        free(paged);
        free(block);
    });
    finish_clean(&kernel);
}

/// Wrong frees are caught, each under its name, and do no harm.
#[test]
fn wrong_frees_are_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let block = allocate(8);
        free(block);
        free(block);
    });
    let twice = kernel.violations();
    assert!(twice[0].detail.starts_with("freed twice"), "{twice:#?}");
    assert_only(&kernel, rule::POOL_FREE);
    let mistakes: [(&str, fn()); 6] = [
        (rule::POOL_FREE, || {
            let block = allocate(8);
            free(block.wrapping_byte_add(4));
            free(block);
        }),
        (rule::POOL_FREE, || free(ptr::null_mut())),
        (rule::POOL_FREE, || {
            let irp = allocate_irp(1);
            free(irp.cast());
            free_irp(irp);
        }),
        (rule::POOL_TAG, || {
            let block = allocate(8);
            // SAFETY: the block is the test's; the tag is the mistake.
            unsafe { ExFreePoolWithTag(block, tag(*b"Else")) };
        }),
        (rule::POOL_TAG, || {
            // SAFETY: nothing is required.
            free(unsafe { ExAllocatePoolWithTag(NON_PAGED_POOL_NX, 8, 0) });
        }),
        (rule::POOL_OVERRUN, || {
            let block = allocate(24);
            // SAFETY: behind a block there is a guard, which this tests.
            unsafe { block.cast::<u8>().wrapping_add(24).write(0) };
            free(block);
        }),
    ];
    for (rule, mistake) in mistakes {
        run(&kernel, mistake);
        assert_only(&kernel, rule);
    }
    finish_clean(&kernel);
}

/// A pinned block must not be freed until it is unpinned; it is kept, so that its users do no harm.
#[test]
fn freeing_what_someone_holds_is_caught() {
    let kernel = kernel();
    let outer = kernel.clone();
    run(&kernel, move || {
        let hold = |block: *mut c_void| outer.pin(block.wrapping_byte_add(8), "TEST-02", "a pending receive");
        let block = allocate(64);
        let first = hold(block);
        let second = hold(block);
        outer.unpin(first);
        outer.unpin(second);
        free(block);
        let block = allocate(64);
        let held = hold(block);
        free(block);
        // SAFETY: the block is kept for the holder.
        unsafe { block.cast::<u8>().write(1) };
        outer.unpin(held);
    });
    assert_only(&kernel, "TEST-02");
    finish_clean(&kernel);
}

/// Paged pool must not be used in callbacks and completion routines, at any IRQL.
/// Catches: IRQL-14
#[test]
fn paged_pool_in_a_callback_is_caught() {
    // SAFETY: nothing is required.
    let paged = || unsafe { ExAllocatePoolWithTag(1, 8, TAG) };
    let kernel = kernel();
    run(&kernel, move || {
        let inside = nt_user::context::callback("WskReceiveEvent", false);
        let block = paged();
        drop(inside);
        free(block);
    });
    assert_only(&kernel, "IRQL-14");
    run(&kernel, move || {
        let block = paged();
        let inside = nt_user::context::enter(nt_user::Context::Completion);
        free(block);
        drop(inside);
    });
    assert_only(&kernel, "IRQL-14");
    finish_clean(&kernel);
}

/// A write to a freed block is detected when the block leaves the quarantine, at the latest at the end.
#[test]
fn a_write_after_the_free_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let block = allocate(24);
        free(block);
        // SAFETY: freed blocks are kept for a while, which this tests.
        unsafe { block.cast::<u8>().write(7) };
    });
    let leaks = kernel.shutdown(std::time::Duration::from_secs(1));
    assert!(leaks.is_clean());
    assert_eq!(kernel.take(rule::POOL_AFTER_FREE).len(), 1);
    assert!(kernel.violations().is_empty());
}

/// A leak report names tag, size and, on demand, the place.
#[test]
fn a_leak_is_reported_with_its_place() {
    let kernel = Kernel::new(Config { trace_allocations: true, ..Config::default() });
    run(&kernel, || {
        allocate(40);
    });
    let leaks = finish(&kernel);
    assert!(!leaks.is_clean());
    let text = leaks.to_string();
    assert!(text.contains("pool block 'Test' of 40 bytes, allocation 1, at "), "{text}");
    assert!(text.contains("tests/"), "{text}");
}

/// An MDL describes its memory, and maps to it.
#[test]
fn an_mdl_describes_its_memory() {
    let kernel = kernel();
    run(&kernel, || {
        let block = allocate(10_000);
        let start = block.wrapping_byte_add(5000);
        let mdl = mdl(start, 4000);
        // SAFETY: the MDL is the test's.
        let va = unsafe { mdl_start_va(mdl) };
        // SAFETY: the MDL is alive.
        let offset = unsafe { mdl_byte_offset(mdl) };
        assert_eq!((va.addr() % 4096, va.addr() + offset as usize), (0, start.addr()));
        // SAFETY: the MDL is alive.
        assert_eq!(unsafe { mdl_byte_count(mdl) }, 4000);
        // SAFETY: the MDL is alive; the range covers parts of two pages.
        assert_eq!(unsafe { mdl_size(mdl) }, 0x30 + 2 * 8);
        // SAFETY: the MDL is alive and describes non-paged pool.
        unsafe { MmBuildMdlForNonPagedPool(mdl) };
        // SAFETY: the MDL is alive.
        assert_eq!(unsafe { mm_get_system_address_for_mdl_safe(mdl) }, start);
        free_mdl(mdl);
        // Locked pages, as another driver would hand them down, are mapped on demand.
        let mdl = self::mdl(start, 100);
        // SAFETY: the MDL is the test's.
        unsafe { set_mdl_flags(mdl, MDL_PAGES_LOCKED) };
        // SAFETY: the MDL is alive.
        assert_eq!(unsafe { mm_get_system_address_for_mdl_safe(mdl) }, start);
        // SAFETY: the MDL is alive.
        assert_ne!(unsafe { mdl_flags(mdl) } & MDL_MAPPED_TO_SYSTEM_VA, 0);
        free_mdl(mdl);
        free(block);
    });
    finish_clean(&kernel);
}

/// The memory manager does not check if an MDL is mapped: a driver that maps one twice, or on two threads at
/// once, loses a mapping.
#[test]
fn an_mdl_is_mapped_once() {
    let kernel = kernel();
    run(&kernel, || {
        let block = allocate(64);
        let mdl = mdl(block, 64);
        // SAFETY: the MDL is the test's; a host's memory stays where it is.
        unsafe { set_mdl_flags(mdl, MDL_PAGES_LOCKED) };
        let map = || {
            let (mode, caching) = (KERNEL_MODE, MM_CACHED);
            // SAFETY: the MDL is alive and marked as locked.
            unsafe { MmMapLockedPagesSpecifyCache(mdl, mode, caching, ptr::null_mut(), 0, 16) }
        };
        assert_eq!(map(), block);
        let reported = Kernel::current().expect("a thread of the kernel").violations();
        assert!(reported.is_empty(), "{reported:?}");
        assert_eq!(map(), block);
        free_mdl(mdl);
        free(block);
    });
    assert_only(&kernel, rule::MDL_MAPPED);
}

/// MDLs may be chained to an IRP.
#[test]
fn mdls_are_attached_to_an_irp() {
    let kernel = kernel();
    run(&kernel, || {
        let irp = allocate_irp(1);
        let block = allocate(64);
        let attach = |secondary| {
            // SAFETY: the IRP is the test's.
            unsafe { IoAllocateMdl(block, 64, secondary, 0, irp) }
        };
        let chain = [attach(0), attach(1), attach(1)];
        // SAFETY: the IRP is the test's.
        assert_eq!(unsafe { (*irp).MdlAddress }, chain[0]);
        for pair in chain.windows(2) {
            // SAFETY: the MDLs are the test's.
            assert_eq!(unsafe { mdl_next(pair[0]) }, pair[1]);
        }
        chain.into_iter().for_each(free_mdl);
        free(block);
        free_irp(irp);
    });
    finish_clean(&kernel);
}

/// An MDL over memory that is not non-paged pool, and a mapping of pages that are not locked, are caught.
#[test]
fn an_mdl_over_the_wrong_memory_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        // SAFETY: nothing is required.
        let paged = unsafe { ExAllocatePoolWithTag(1, 64, TAG) };
        let mdl = mdl(paged, 64);
        // SAFETY: the MDL is the test's; its memory is the mistake.
        unsafe { MmBuildMdlForNonPagedPool(mdl) };
        free_mdl(mdl);
        free(paged);
    });
    // On other systems every memory may be static data, as far as the kernel knows.
    if cfg!(target_os = "linux") {
        assert_only(&kernel, rule::NON_PAGED);
    }
    run(&kernel, || {
        let block = allocate(8);
        let mdl = mdl(block, 8);
        // SAFETY: the MDL is the test's; its state is the mistake.
        assert!(unsafe { mm_get_system_address_for_mdl_safe(mdl) }.is_null());
        free_mdl(mdl);
        free(block);
    });
    assert_only(&kernel, rule::NON_PAGED);
    finish_clean(&kernel);
}

unsafe extern "system" fn idle(_: *mut c_void) {}

/// Allocates one thing of each kind, giving up when one fails, and frees what it got. True if it got all.
fn scenario() -> bool {
    // SAFETY: nothing is required.
    let block = unsafe { ExAllocatePoolWithTag(NON_PAGED_POOL_NX, 64, TAG) };
    if block.is_null() {
        return false;
    }
    // SAFETY: nothing is required.
    let irp = unsafe { IoAllocateIrp(1, 0) };
    let mdl = if irp.is_null() { ptr::null_mut() } else { mdl(block, 64) };
    let mut all = false;
    if !mdl.is_null() {
        // SAFETY: the MDL is the test's.
        unsafe { set_mdl_flags(mdl, MDL_PAGES_LOCKED) };
        // SAFETY: the MDL is alive.
        let mapped = unsafe { mm_get_system_address_for_mdl_safe(mdl) };
        if !mapped.is_null() {
            // SAFETY: nothing is required.
            let item = unsafe { IoAllocateWorkItem(ptr::null_mut()) };
            if !item.is_null() {
                let mut handle = ptr::null_mut();
                // SAFETY: the handle has a place, and the routine does nothing.
                let status = unsafe {
                    PsCreateSystemThread(
                        &raw mut handle,
                        THREAD_ALL_ACCESS,
                        ptr::null_mut(),
                        ptr::null_mut(),
                        ptr::null_mut(),
                        Some(idle),
                        ptr::null_mut(),
                    )
                };
                all = status == 0;
                if all {
                    join(handle);
                }
                // SAFETY: the item is not queued.
                unsafe { IoFreeWorkItem(item) };
            }
        }
        free_mdl(mdl);
    }
    if !irp.is_null() {
        free_irp(irp);
    }
    free(block);
    all
}

/// Every allocation can be made to fail, one after the other, and a driver that copes leaks nothing.
#[test]
fn every_allocation_can_fail() {
    let kernel = kernel();
    let outer = kernel.clone();
    run(&kernel, move || {
        let faults = outer.faults();
        faults.clear();
        assert!(scenario());
        let attempts = faults.attempts();
        assert_eq!(attempts, 6, "block, IRP, MDL, mapping, work item, thread");
        let mut failed = 0;
        loop {
            faults.fail_nth(failed + 1);
            let all = scenario();
            assert_eq!(faults.injected(), u64::from(!all));
            if all {
                break;
            }
            failed += 1;
        }
        assert_eq!(failed, attempts);
        for point in [Point::Pool, Point::Irp, Point::Mdl, Point::Mapping, Point::Thread, Point::WorkItem] {
            faults.fail_all(point);
            assert!(!scenario(), "{point:?}");
        }
        faults.fail_from(3);
        assert!(!scenario());
        faults.fail_if(|attempt| attempt.tag == TAG && attempt.bytes == 64);
        assert!(!scenario());
        faults.clear();
        assert!(scenario());
    });
    finish_clean(&kernel);
}

/// Work items are blocks of their own kind.
#[test]
fn a_work_item_that_is_not_freed_is_a_leak() {
    let kernel = kernel();
    run(&kernel, || {
        // SAFETY: nothing is required.
        unsafe { IoAllocateWorkItem(ptr::null_mut()) };
    });
    let leaks = finish(&kernel);
    assert_eq!(leaks.blocks.iter().map(|leak| leak.kind).collect::<Vec<_>>(), [Kind::WorkItem]);
}

/// Words of live blocks are returned, and nothing else is read: no freed blocks, no words that reach past
/// their block, no memory outside pool.
#[test]
fn a_word_of_a_live_block_is_told() {
    static HEAD: usize = 10;
    let kernel = kernel();
    let own = kernel.clone();
    run(&kernel, move || {
        let block = allocate(24).cast::<usize>();
        for (index, value) in [7, 8, 9].into_iter().enumerate() {
            // SAFETY: the block has three words.
            unsafe { block.wrapping_add(index).write(value) };
        }
        let at = |bytes: usize| own.word_at(block.wrapping_byte_add(bytes).cast());
        assert_eq!([at(0), at(8), at(16)], [Some(7), Some(8), Some(9)]);
        assert_eq!([at(4), at(20), at(24)], [None; 3], "misaligned, or not whole");
        let mut foreign = 7_usize;
        assert_eq!(own.word_at((&raw mut foreign).cast()), None);
        assert_eq!(own.word_at(ptr::null()), None);
        assert_eq!(own.word_at((&raw const HEAD).cast()), Some(10), "static data does not go");
        free(block.cast());
        assert_eq!(at(0), None);
    });
    finish_clean(&kernel);
}
