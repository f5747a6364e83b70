//! Work items: routines that run on a worker thread at PASSIVE_LEVEL.
//!
//! ```text
//!   idle ──ExQueueWorkItem, IoQueueWorkItem──► queued ──a worker takes it──► idle; the routine may free it
//! ```
//!
//! Workers are started when all others are busy, so that items that wait for one another do not starve.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::mem::{offset_of, size_of};
use std::ops::Range;
use std::ptr;

use parking_lot::Mutex;
use wsk_sys::nt::{
    DEVICE_OBJECT, DISPATCH_LEVEL, IO_WORKITEM_ROUTINE, PASSIVE_LEVEL, PIO_WORKITEM, WORK_QUEUE_ITEM,
    WORKER_THREAD_ROUTINE,
};

use crate::checker::argument;
use crate::checker::context::{self, Context, check_irql};
use crate::checker::violation::rule;
use crate::event_count::EventCount;
use crate::faults::Point;
use crate::image::Routine;
use crate::irql;
use crate::kernel::Inner;
use crate::platform::Platform;
use crate::pool::{self, Kind};
use crate::thread::current::{self, CurrentKernel};

/// A `WORK_QUEUE_ITEM` as the kernel lays it out.
#[repr(C)]
struct Item {
    list: [usize; 2],
    routine: Option<WORKER_THREAD_ROUTINE>,
    parameter: *mut c_void,
}

const _: () = assert!(size_of::<Item>() == size_of::<WORK_QUEUE_ITEM>());
const _: () = assert!(offset_of!(Item, routine) == offset_of!(WORK_QUEUE_ITEM, WorkerRoutine));

/// The structure behind the pointer that [`IoAllocateWorkItem`] returns.
#[repr(C)]
struct IoItem {
    device: *mut DEVICE_OBJECT,
}

/// The routine and arguments of a queued work item.
#[derive(Clone, Copy)]
enum Call {
    Ex(WORKER_THREAD_ROUTINE, *mut c_void),
    Io(IO_WORKITEM_ROUTINE, *mut DEVICE_OBJECT, *mut c_void),
}

struct Entry {
    item: usize,
    call: Call,
}

// SAFETY: the pointers are passed to the driver's own routine on another thread and are not dereferenced
// here.
unsafe impl Send for Entry {}

#[derive(Default)]
struct State {
    queue: VecDeque<Entry>,
    workers: usize,
    busy: usize,
}

/// The work items of a kernel.
pub(crate) struct WorkQueue {
    max_workers: usize,
    state: Mutex<State>,
    /// Notified when an item was queued, and when the kernel stops.
    changed: EventCount,
}

impl WorkQueue {
    pub(crate) fn new(max_workers: usize) -> Self {
        Self { max_workers: max_workers.max(1), state: Mutex::default(), changed: EventCount::new() }
    }

    pub(crate) fn wake(&self, platform: &dyn Platform) {
        self.changed.notify(platform);
    }

    pub(crate) fn queued(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// A queued item that lies in `range`.
    pub(crate) fn within(&self, range: &Range<usize>) -> Option<usize> {
        self.state.lock().queue.iter().map(|entry| entry.item).find(|item| range.contains(item))
    }

    fn insert(&self, kernel: &CurrentKernel, name: &'static str, item: usize, call: Call) {
        let mut state = self.state.lock();
        if state.queue.iter().any(|entry| entry.item == item) {
            drop(state);
            kernel.violation(rule::WORK_ITEM, name, format!("the work item at {item:#X} is already queued"));
            return;
        }
        state.queue.push_back(Entry { item, call });
        let more = state.workers < self.max_workers && state.busy + state.queue.len() > state.workers;
        let worker = state.workers;
        state.workers += usize::from(more);
        drop(state);
        if more && kernel.start_service(format!("worker-{worker}"), |inner| inner.work.serve(inner)).is_err()
        {
            self.state.lock().workers -= 1;
            if worker == 0 {
                kernel.bug_check(rule::HANG, name, "the host cannot start a worker thread".to_owned());
            }
        }
        self.changed.notify(kernel.platform());
    }

    /// Runs work items on a worker thread.
    fn serve(&self, inner: &Inner) {
        loop {
            let ticket = self.changed.ticket();
            let mut state = self.state.lock();
            let Some(Entry { call, .. }) = state.queue.pop_front() else {
                if inner.stopping() {
                    state.workers -= 1;
                    return;
                }
                drop(state);
                self.changed.wait(inner.platform(), ticket, None);
                continue;
            };
            state.busy += 1;
            drop(state);
            let entered = context::enter(Context::WorkItem);
            // The I/O manager holds the device of its work items until they have returned.
            let device = match call {
                Call::Io(_, device, _) => inner.image.reference(device.addr()).map(|_| device.addr()),
                Call::Ex(..) => None,
            };
            let number = inner.image.enter(inner, Routine::WorkItem, device);
            match call {
                // SAFETY: the driver queued the routine to be called with this argument.
                Call::Ex(routine, parameter) => unsafe { routine(parameter) },
                // SAFETY: the driver queued the routine to be called with this device and context.
                Call::Io(routine, device, context) => unsafe { routine(device, context) },
            }
            inner.image.leave(inner, number);
            irql::check_return("the work item", PASSIVE_LEVEL, 0);
            drop(entered);
            self.state.lock().busy -= 1;
        }
    }
}

/// Queues a work item of the driver's storage; see [`wsk_sys::nt::ExQueueWorkItem`].
///
/// # Safety
/// `item` points to an initialized work item that lives until its routine is called, which may be on another
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ExQueueWorkItem(item: *mut WORK_QUEUE_ITEM, _queue: i32) {
    const CALL: &str = "ExQueueWorkItem";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    let fields = item.cast::<Item>();
    argument::check_aligned(&kernel, CALL, "a work item", fields);
    // SAFETY: the caller passes an initialized work item that is alive.
    let routine = unsafe { (*fields).routine };
    // SAFETY: the caller passes an initialized work item that is alive.
    let parameter = unsafe { (*fields).parameter };
    let Some(routine) = routine else {
        kernel.bug_check(rule::WORK_ITEM, CALL, format!("the work item at {item:p} has no routine"));
    };
    kernel.work.insert(&kernel, CALL, item.addr(), Call::Ex(routine, parameter));
}

/// Allocates a work item; see [`wsk_sys::nt::IoAllocateWorkItem`].
///
/// # Safety
/// `device` lives as long as the work item.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoAllocateWorkItem(device: *mut DEVICE_OBJECT) -> PIO_WORKITEM {
    const CALL: &str = "IoAllocateWorkItem";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    if kernel.faults.fails(Point::WorkItem, size_of::<IoItem>(), pool::WORK_ITEM_TAG) {
        return ptr::null_mut();
    }
    let item = kernel.pool.allocate(size_of::<IoItem>(), pool::WORK_ITEM_TAG, Kind::WorkItem);
    if !item.is_null() {
        // SAFETY: the block is new and has the size.
        unsafe { item.cast::<IoItem>().write(IoItem { device }) };
    }
    item
}

/// Queues a work item; see [`wsk_sys::nt::IoQueueWorkItem`].
///
/// # Safety
/// `item` came from [`IoAllocateWorkItem`] and lives until its routine is called. `routine` may be called
/// with `context` on another thread.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoQueueWorkItem(
    item: PIO_WORKITEM,
    routine: Option<IO_WORKITEM_ROUTINE>,
    _queue: i32,
    context: *mut c_void,
) {
    const CALL: &str = "IoQueueWorkItem";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    let Some(routine) = routine else {
        kernel.bug_check(
            rule::WORK_ITEM,
            CALL,
            format!("the work item at {item:p} is queued without a routine"),
        );
    };
    if !kernel.pool.is(item.addr(), Kind::WorkItem) {
        kernel.bug_check(rule::OBJECT, CALL, format!("there is no allocated work item at {item:p}"));
    }
    // SAFETY: the pool knows `item` as an allocated work item, and the caller keeps it alive.
    let device = unsafe { (*item.cast::<IoItem>()).device };
    kernel.work.insert(&kernel, CALL, item.addr(), Call::Io(routine, device, context));
}

/// Frees a work item; see [`wsk_sys::nt::IoFreeWorkItem`].
///
/// # Safety
/// `item` came from [`IoAllocateWorkItem`], is not queued, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoFreeWorkItem(item: PIO_WORKITEM) {
    const CALL: &str = "IoFreeWorkItem";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    pool::free(&kernel, CALL, item, Kind::WorkItem, pool::WORK_ITEM_TAG);
}
