//! Deferred procedure calls, timers and work items.

mod common;

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::*;
use nt_user::{Context, context, rule};
use wsk_sys::nt::*;
use wsk_sys::status::*;

/// The log of the routines.
struct Log {
    /// Calls that have begun.
    begun: AtomicUsize,
    calls: AtomicUsize,
    irql: AtomicUsize,
    arguments: AtomicUsize,
    context: std::sync::Mutex<Option<Context>>,
    ran: Event,
    /// The first call waits for this, unless it is signaled.
    latch: Event,
}

impl Log {
    fn new() -> Self {
        let log = Self {
            begun: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            irql: AtomicUsize::new(0),
            arguments: AtomicUsize::new(0),
            context: std::sync::Mutex::new(None),
            ran: Event::synchronization(),
            latch: Event::notification(),
        };
        log.latch.set();
        log
    }

    fn pointer(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }

    fn note(&self, arguments: usize) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        while self.latch.poll() != STATUS_SUCCESS {
            std::thread::yield_now();
        }
        self.irql.store(irql().into(), Ordering::SeqCst);
        self.arguments.store(arguments, Ordering::SeqCst);
        *self.context.lock().expect("no panic") = Some(context::current().innermost);
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.ran.set();
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn seen(&self) -> (KIRQL, Option<Context>) {
        (self.irql.load(Ordering::SeqCst) as KIRQL, *self.context.lock().expect("no panic"))
    }
}

unsafe extern "system" fn deferred(_: *mut KDPC, log: *mut c_void, first: *mut c_void, second: *mut c_void) {
    // SAFETY: the context is a log that the test keeps.
    unsafe { &*log.cast::<Log>() }.note(first.addr() * 10 + second.addr());
}

unsafe extern "system" fn worked(log: *mut c_void) {
    // SAFETY: the parameter is a log that the test keeps.
    unsafe { &*log.cast::<Log>() }.note(0);
}

unsafe extern "system" fn io_worked(device: *mut DEVICE_OBJECT, log: *mut c_void) {
    // SAFETY: the context is a log that the test keeps.
    unsafe { &*log.cast::<Log>() }.note(device.addr());
}

/// Frees objects, each in its own pool block.
fn free_all<T>(objects: impl IntoIterator<Item = *mut T>) {
    for object in objects {
        free(object.cast());
    }
}

/// A block of pool with one object in it.
fn object<T>() -> *mut T {
    allocate(size_of::<T>()).cast()
}

fn dpc(log: &Log) -> *mut KDPC {
    let dpc = object::<KDPC>();
    // SAFETY: the storage is new.
    unsafe { KeInitializeDpc(dpc, Some(deferred), log.pointer()) };
    dpc
}

fn queue(dpc: *mut KDPC, first: usize, second: usize) -> bool {
    // SAFETY: the DPC is initialized, and the tests wait until it has run.
    unsafe {
        KeInsertQueueDpc(dpc, ptr::without_provenance_mut(first), ptr::without_provenance_mut(second)) != 0
    }
}

/// Two DPCs that run until the latch of the log opens, and are queued again behind themselves.
fn keep_processors_busy(log: &Log) -> [*mut KDPC; 2] {
    let busy = [dpc(log), dpc(log)];
    for dpc in busy {
        assert!(queue(dpc, 0, 0));
    }
    // A running one can be queued again, which shows that both run.
    for dpc in busy {
        while !queue(dpc, 0, 0) {
            std::thread::yield_now();
        }
    }
    busy
}

fn flush() {
    // SAFETY: nothing is required.
    unsafe { KeFlushQueuedDpcs() };
}

fn timer() -> *mut KTIMER {
    let timer = object::<KTIMER>();
    // SAFETY: the storage is new.
    unsafe { KeInitializeTimer(timer) };
    timer
}

fn set_timer(timer: *mut KTIMER, time: Duration, dpc: *mut KDPC) -> bool {
    // SAFETY: timer and DPC are initialized, and the tests wait for them.
    unsafe { KeSetTimer(timer, relative(time), dpc) != 0 }
}

fn cancel_timer(timer: *mut KTIMER) -> bool {
    // SAFETY: the timer is initialized.
    unsafe { KeCancelTimer(timer) != 0 }
}

fn queue_item(item: *mut WORK_QUEUE_ITEM) {
    // SAFETY: the item is initialized, and the tests wait until it has run.
    unsafe { ExQueueWorkItem(item, DELAYED_WORK_QUEUE) };
}

/// A DPC runs at DISPATCH_LEVEL with its arguments, once per insertion; flushing waits for it.
#[test]
fn a_dpc_runs_at_dispatch() {
    let kernel = kernel();
    run(&kernel, || {
        let log = Log::new();
        let dpc = dpc(&log);
        assert!(queue(dpc, 4, 2));
        flush();
        assert_eq!(log.calls(), 1);
        assert_eq!(log.arguments.load(Ordering::SeqCst), 42);
        assert_eq!(log.seen(), (DISPATCH_LEVEL, Some(Context::Dpc)));
        for _ in 0..1000 {
            queue(dpc, 0, 0);
            flush();
        }
        assert_eq!(log.calls(), 1001);
        free(dpc.cast());
    });
    finish_clean(&kernel);
}

/// A queued DPC is not queued again, and can be removed; a running one can be queued.
#[test]
fn a_dpc_is_queued_once() {
    let kernel = kernel();
    run(&kernel, || {
        let log = Log::new();
        log.latch.clear();
        let busy = keep_processors_busy(&log);
        let third = dpc(&log);
        assert!(queue(third, 0, 0));
        assert!(!queue(third, 0, 0));
        // SAFETY: the DPC is initialized.
        assert_eq!(unsafe { KeRemoveQueueDpc(third) }, 1);
        // SAFETY: the DPC is initialized and alive.
        assert_eq!(unsafe { KeRemoveQueueDpc(third) }, 0);
        log.latch.set();
        flush();
        assert_eq!(log.calls(), 4);
        for dpc in busy.into_iter().chain([third]) {
            free(dpc.cast());
        }
    });
    finish_clean(&kernel);
}

/// A timer is signaled when it is due and stays so; its DPC runs; canceling it in time prevents both.
#[test]
fn a_timer_expires() {
    let kernel = kernel();
    run(&kernel, || {
        let log = Log::new();
        let dpc = dpc(&log);
        let timer = timer();
        let began = Instant::now();
        assert!(!set_timer(timer, Duration::from_millis(20), dpc));
        assert_eq!(wait_for(timer.cast(), 0), STATUS_TIMEOUT);
        assert_eq!(wait(timer.cast()), STATUS_SUCCESS);
        assert!(began.elapsed() >= Duration::from_millis(20));
        assert_eq!(log.ran.wait(), STATUS_SUCCESS);
        assert_eq!(wait_for(timer.cast(), 0), STATUS_SUCCESS, "a notification timer stays signaled");
        assert!(!cancel_timer(timer));
        assert!(!set_timer(timer, Duration::from_hours(1), dpc));
        assert!(set_timer(timer, Duration::from_hours(1), ptr::null_mut()), "it was set");
        assert_eq!(wait_for(timer.cast(), 0), STATUS_TIMEOUT, "setting clears it");
        assert!(cancel_timer(timer));
        assert!(!cancel_timer(timer));
        assert!(!set_timer(timer, Duration::ZERO, ptr::null_mut()));
        assert_eq!(wait(timer.cast()), STATUS_SUCCESS);
        flush();
        assert_eq!(log.calls(), 1);
        free(timer.cast());
        free(dpc.cast());
    });
    finish_clean(&kernel);
}

/// Timers expire in the order in which they are due, whatever the order in which they were set.
#[test]
fn timers_expire_in_order() {
    let kernel = kernel();
    run(&kernel, || {
        let timers: Vec<_> = (0..8).map(|_| timer()).collect();
        // Due at moments counted from one start, and late enough that all of them are set before the first
        // expires.
        let start = Instant::now();
        for (place, timer) in timers.iter().enumerate().rev() {
            let due = Duration::from_millis(300 + 5 * place as u64);
            set_timer(*timer, due.saturating_sub(start.elapsed()), ptr::null_mut());
        }
        for timer in timers.iter().rev() {
            assert_eq!(wait((*timer).cast()), STATUS_SUCCESS);
            assert!(
                timers
                    .iter()
                    .take_while(|other| *other != timer)
                    .all(|other| { wait_for((*other).cast(), 0) == STATUS_SUCCESS })
            );
        }
        free_all(timers);
    });
    finish_clean(&kernel);
}

/// Freeing a timer that is set, or a DPC or work item that is queued, is caught; the storage stays until
/// then.
#[test]
fn freeing_what_is_queued_is_caught() {
    let kernel = kernel();
    run(&kernel, || {
        let timer = timer();
        set_timer(timer, Duration::from_hours(1), ptr::null_mut());
        free(timer.cast());
        cancel_timer(timer);
    });
    assert_only(&kernel, rule::POOL_IN_USE);
    run(&kernel, || {
        let log = Log::new();
        log.latch.clear();
        let busy = keep_processors_busy(&log);
        let third = dpc(&log);
        queue(third, 0, 0);
        free(third.cast());
        log.latch.set();
        flush();
        free_all(busy);
    });
    assert_only(&kernel, rule::POOL_IN_USE);
    finish_clean(&kernel);
}

/// The kernel uses a DPC until its routine has returned: freeing the DPC, or the timer that queued it, before
/// that is caught, also if the routine itself frees them.
#[test]
fn freeing_what_a_routine_runs_on_is_caught() {
    unsafe extern "system" fn frees(dpc: *mut KDPC, _: *mut c_void, _: *mut c_void, _: *mut c_void) {
        free(dpc.cast());
    }
    let kernel = kernel();
    run(&kernel, || {
        let log = Log::new();
        log.latch.clear();
        let (timer, dpc) = (timer(), dpc(&log));
        set_timer(timer, Duration::ZERO, dpc);
        while log.begun.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        free(timer.cast());
        free(dpc.cast());
        log.latch.set();
        flush();
    });
    assert_only(&kernel, rule::POOL_IN_USE);
    run(&kernel, || {
        let dpc = object::<KDPC>();
        // SAFETY: the storage is new.
        unsafe { KeInitializeDpc(dpc, Some(frees), ptr::null_mut()) };
        queue(dpc, 0, 0);
        flush();
    });
    assert_only(&kernel, rule::POOL_IN_USE);
    finish_clean(&kernel);
}

/// A timer that is set at the end is a leak.
#[test]
fn a_timer_that_is_set_is_a_leak() {
    let kernel = kernel();
    run(&kernel, || {
        set_timer(timer(), Duration::from_hours(1), ptr::null_mut());
    });
    let leaks = finish(&kernel);
    assert_eq!((leaks.timers, leaks.blocks.len()), (1, 1), "{leaks}");
}

/// Work items run at PASSIVE_LEVEL, where waiting is allowed, and may be freed by their routine.
#[test]
fn a_work_item_runs_at_passive() {
    let kernel = kernel();
    run(&kernel, || {
        let log = Log::new();
        let item = object::<WORK_QUEUE_ITEM>();
        init_work_item(item, worked, log.pointer());
        for call in 1..=100 {
            at_dispatch(|| queue_item(item));
            assert_eq!(log.ran.wait(), STATUS_SUCCESS);
            assert_eq!(log.calls(), call);
        }
        assert_eq!(log.seen(), (PASSIVE_LEVEL, Some(Context::WorkItem)));
        free(item.cast());
        // SAFETY: the device is only passed on.
        let item = unsafe { IoAllocateWorkItem(ptr::without_provenance_mut(0xD0)) };
        // SAFETY: the item is freed when it has run.
        unsafe { IoQueueWorkItem(item, Some(io_worked), DELAYED_WORK_QUEUE, log.pointer()) };
        assert_eq!(log.ran.wait(), STATUS_SUCCESS);
        assert_eq!(log.arguments.load(Ordering::SeqCst), 0xD0);
        // SAFETY: the item has run.
        unsafe { IoFreeWorkItem(item) };
    });
    finish_clean(&kernel);
}

/// Initializes a work item, as the macro `ExInitializeWorkItem` does.
fn init_work_item(item: *mut WORK_QUEUE_ITEM, routine: WORKER_THREAD_ROUTINE, parameter: *mut c_void) {
    let words = item.cast::<*mut c_void>();
    let values = [ptr::null_mut(), ptr::null_mut(), routine as *mut c_void, parameter];
    // SAFETY: the item is these four words.
    unsafe { ptr::copy_nonoverlapping(values.as_ptr(), words, values.len()) };
}

/// Items that wait for later items do not starve them.
#[test]
fn work_items_may_wait_for_one_another() {
    const ITEMS: usize = 16;
    struct Chain {
        turn: Event,
        next: *const Chain,
    }
    static FINISHED: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "system" fn link(chain: *mut c_void) {
        // SAFETY: the parameter is a link that the test keeps.
        let chain = unsafe { &*chain.cast::<Chain>() };
        chain.turn.wait();
        if !chain.next.is_null() {
            // SAFETY: the chains outlive their DPCs.
            unsafe { &*chain.next }.turn.set();
        }
        FINISHED.fetch_add(1, Ordering::SeqCst);
    }
    let kernel = kernel();
    run(&kernel, || {
        let mut chain: Vec<Box<Chain>> = Vec::new();
        let items: Vec<_> = (0..ITEMS)
            .map(|_| {
                let next = chain.last().map_or(ptr::null(), |next| ptr::from_ref(&**next));
                chain.push(Box::new(Chain { turn: Event::notification(), next }));
                let item = object::<WORK_QUEUE_ITEM>();
                let parameter = ptr::from_ref(&**chain.last().expect("just pushed")).cast_mut().cast();
                init_work_item(item, link, parameter);
                queue_item(item);
                item
            })
            .collect();
        chain.last().expect("there are links").turn.set();
        while FINISHED.load(Ordering::SeqCst) != ITEMS {
            std::thread::yield_now();
        }
        free_all(items);
    });
    finish_clean(&kernel);
}

/// A work item that is queued twice is caught and runs once.
#[test]
fn queueing_a_work_item_twice_is_caught() {
    // One worker, which the first item keeps busy.
    let kernel = nt_user::Kernel::new(nt_user::Config { workers: 1, ..Default::default() });
    run(&kernel, || {
        let log = Log::new();
        log.latch.clear();
        let items = [object::<WORK_QUEUE_ITEM>(), object::<WORK_QUEUE_ITEM>()];
        for item in items {
            init_work_item(item, worked, log.pointer());
            queue_item(item);
        }
        queue_item(items[1]);
        log.latch.set();
        while log.calls() != 2 {
            log.ran.wait();
        }
        free_all(items);
    });
    assert_only(&kernel, rule::WORK_ITEM);
    finish_clean(&kernel);
}
