//! A driver's entry and unload routines: each kind of object that must not be left in an unloaded image.

use std::ffi::c_void;
use std::ptr::null_mut;

use wsk_sim::raw::*;
use wsk_sim::{Kernel, Sim};
use wsk_sys::nt::*;
use wsk_sys::*;

const TAG: u32 = u32::from_le_bytes(*b"Test");

/// Storage that is not freed before the kernel is gone.
fn storage<T>() -> *mut T {
    // SAFETY: nothing is required of the arguments.
    let block = unsafe { ExAllocatePoolWithTag(NON_PAGED_POOL_NX, size_of::<T>(), TAG) };
    assert!(!block.is_null());
    block.cast()
}

/// Unloads a driver that leaves something behind.
#[track_caller]
fn unloads(leave: impl FnOnce(&Kernel) + Send + 'static) {
    Sim::new().driver(|_| Ok::<_, ()>(()), |sim, ()| leave(sim.kernel())).expect("it loads");
}

#[test]
fn a_driver_that_leaves_nothing_passes() {
    let sim = Sim::new();
    sim.forbid_advice();
    let loaded = sim.driver(
        |_| Ok::<_, NTSTATUS>((Client::new(), storage::<u64>().expose_provenance())),
        |_, (client, block)| {
            drop(client.listener(&Recorder::new()));
            drop(client);
            let block = std::ptr::with_exposed_provenance_mut(block);
            // SAFETY: the block is the driver's.
            unsafe { ExFreePoolWithTag(block, TAG) };
        },
    );
    assert_eq!(loaded, Ok(()));
}

#[test]
fn what_a_failing_entry_says_is_the_result() {
    let loaded = Sim::new().driver(|_| Err::<(), _>(STATUS_DEVICE_NOT_READY), |_, ()| unreachable!());
    assert_eq!(loaded, Err(STATUS_DEVICE_NOT_READY));
}

/// Catches: REG-27
#[test]
#[should_panic(expected = "violation of REG-27 in DriverUnload: 1 registrations with WSK")]
fn a_registration_is_not_left() {
    unloads(|_| Client::new().forget());
}

/// Catches: REG-27
#[test]
#[should_panic(expected = "violation of REG-27 in DriverEntry: 1 registrations with WSK")]
fn a_registration_is_not_left_by_an_entry_that_fails() {
    let entry = |_: &Sim| {
        Client::new().forget();
        Err::<(), _>(STATUS_DEVICE_NOT_READY)
    };
    Sim::new().driver(entry, |_, ()| unreachable!()).expect_err("it does not load");
}

unsafe extern "system" fn never_ends(_: *mut c_void) {
    loop {
        std::thread::park();
    }
}

unsafe extern "system" fn ends_at_once(_: *mut c_void) {}

/// A system thread that runs a routine without an argument, and its handle.
fn system_thread(routine: KSTART_ROUTINE) -> HANDLE {
    // SAFETY: the routine does not use its argument.
    unsafe { wsk_sim::raw::system_thread(routine, null_mut()) }
}

/// Catches: LIFE-19
#[test]
#[should_panic(
    expected = "violation of LIFE-19 in DriverUnload: a thread (`system-thread-1`) has not returned"
)]
fn a_thread_is_not_left() {
    unloads(|kernel| {
        let _leaked = system_thread(never_ends);
        while kernel.routines_inside() == 0 {
            std::thread::yield_now();
        }
    });
}

/// The thread has ended, but a driver can know that only from a wait.
///
/// Catches: REG-27
#[test]
#[should_panic(expected = "violation of REG-27 in ZwClose: the driver did not wait for its thread")]
fn a_thread_that_has_ended_is_waited_for_all_the_same() {
    unloads(|kernel| {
        let handle = system_thread(ends_at_once);
        while kernel.threads().iter().any(|name| name.starts_with("system-thread")) {
            std::thread::yield_now();
        }
        // SAFETY: the handle is open.
        assert_eq!(unsafe { ZwClose(handle) }, STATUS_SUCCESS);
    });
}

/// Catches: LIFE-19
#[test]
#[should_panic(expected = "violation of LIFE-19 in DriverUnload: a timer is set (1 in all)")]
fn a_timer_is_not_left() {
    unloads(|_| {
        let timer: *mut KTIMER = storage();
        // SAFETY: the storage is new.
        unsafe { KeInitializeTimer(timer) };
        // SAFETY: the timer is initialized; it is due in an hour, after the end of this machine.
        unsafe { KeSetTimer(timer, -36_000_000_000, null_mut()) };
    });
}

/// A lock that blocks the only processor or the only worker.
static HELD: std::sync::Mutex<()> = std::sync::Mutex::new(());

unsafe extern "system" fn deferred(_: *mut KDPC, _: *mut c_void, _: *mut c_void, _: *mut c_void) {
    drop(HELD.lock());
}

/// A call that runs, and one behind it.
///
/// Catches: LIFE-19
#[test]
fn deferred_calls_are_not_left() {
    let sim = Sim::builder().kernel(|kernel| kernel.processors = 1).build();
    sim.expect("LIFE-19");
    let machine = sim.clone();
    let unload = move |sim: &Sim, ()| {
        let held = HELD.lock().expect("no thread panics with the lock");
        let dpcs: [*mut KDPC; 2] = [storage(), storage()];
        for dpc in dpcs {
            // SAFETY: the storage is new.
            unsafe { KeInitializeDpc(dpc, Some(deferred), null_mut()) };
            // SAFETY: the DPC is initialized, and is freed when it has run.
            assert_ne!(unsafe { KeInsertQueueDpc(dpc, null_mut(), null_mut()) }, 0);
        }
        while sim.kernel().routines_inside() == 0 {
            std::thread::yield_now();
        }
        sim.kernel().unload_image();
        drop(held);
        // SAFETY: the level is passive.
        unsafe { KeFlushQueuedDpcs() };
        for dpc in dpcs {
            // SAFETY: the call is over.
            unsafe { ExFreePoolWithTag(dpc.cast(), TAG) };
        }
    };
    sim.driver(|_| Ok::<_, ()>(()), unload).expect("it loads");
    let said: Vec<_> = machine.violations_of("LIFE-19").into_iter().map(|said| said.detail).collect();
    assert!(said.iter().any(|said| said.contains("the routine of a DPC has not returned")), "{said:?}");
    assert!(said.iter().any(|said| said.contains("a deferred call is queued (1 in all)")), "{said:?}");
    assert!(
        said.iter().any(|said| said.contains("was called after the driver's image was unloaded")),
        "{said:?}"
    );
}

unsafe extern "system" fn work(_: *mut DEVICE_OBJECT, passed: *mut c_void) {
    // SAFETY: the context is the barrier of the test, which is static.
    let barrier = unsafe { &*passed.cast::<std::sync::Barrier>() };
    barrier.wait();
}

/// A work item that runs, and one behind it.
///
/// Catches: LIFE-19
#[test]
fn work_items_are_not_left() {
    static BARRIER: std::sync::Barrier = std::sync::Barrier::new(2);
    let sim = Sim::builder().kernel(|kernel| kernel.workers = 1).build();
    sim.expect("LIFE-19");
    let machine = sim.clone();
    let unload = move |sim: &Sim, ()| {
        let barrier = (&raw const BARRIER).cast_mut().cast();
        let items: [_; 2] = std::array::from_fn(|_| {
            // SAFETY: there is no device, which is only passed on.
            let item = unsafe { IoAllocateWorkItem(null_mut()) };
            // SAFETY: the item is new, and is freed when it has run.
            unsafe { IoQueueWorkItem(item, Some(work), DELAYED_WORK_QUEUE, barrier) };
            item
        });
        while sim.kernel().routines_inside() == 0 {
            std::thread::yield_now();
        }
        sim.kernel().unload_image();
        for item in items {
            BARRIER.wait();
            while sim.kernel().routines_inside() > 1 {
                std::thread::yield_now();
            }
            // SAFETY: its routine was called, after which the kernel does not look at it.
            unsafe { IoFreeWorkItem(item) };
        }
        while sim.kernel().routines_inside() > 0 {
            std::thread::yield_now();
        }
    };
    sim.driver(|_| Ok::<_, ()>(()), unload).expect("it loads");
    let said: Vec<_> = machine.violations_of("LIFE-19").into_iter().map(|said| said.detail).collect();
    assert!(said.iter().any(|said| said.contains("the routine of a work item has not returned")), "{said:?}");
    assert!(said.iter().any(|said| said.contains("a work item is queued (1 in all)")), "{said:?}");
}
