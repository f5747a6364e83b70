//! Deferred procedure calls.
//!
//! ```text
//!   initialized ──KeInsertQueueDpc──► queued ──a processor takes it──► running (may be queued again)
//!        ▲                              │ KeRemoveQueueDpc                 │
//!        └──────────────────────────────┴──────────────────────────────────┘
//! ```
//!
//! Each "processor" is a thread that runs at DISPATCH_LEVEL; it is started on demand.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::mem::{offset_of, size_of};
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use parking_lot::Mutex;
use wsk_sys::nt::{DISPATCH_LEVEL, KDEFERRED_ROUTINE, KDPC, PASSIVE_LEVEL};

use crate::checker::argument;
use crate::checker::context::{self, Context, check_irql};
use crate::checker::violation::rule;
use crate::dispatcher::{Watchdog, check_may_wait};
use crate::event_count::EventCount;
use crate::image::Routine;
use crate::irql;
use crate::kernel::Inner;
use crate::platform::Platform;
use crate::thread::current::{self, CurrentKernel};

/// A `KDPC` as the kernel lays it out.
#[repr(C)]
struct Dpc {
    kind: u8,
    importance: u8,
    number: u16,
    entry: *mut c_void,
    history: usize,
    routine: Option<KDEFERRED_ROUTINE>,
    context: *mut c_void,
    argument1: *mut c_void,
    argument2: *mut c_void,
    /// Not null while queued.
    queue: AtomicPtr<c_void>,
}

const _: () = assert!(size_of::<Dpc>() == size_of::<KDPC>());
const _: () = assert!(offset_of!(Dpc, routine) == offset_of!(KDPC, DeferredRoutine));
const _: () = assert!(offset_of!(Dpc, queue) == offset_of!(KDPC, DpcData));

/// `DpcObject`, the kind of a DPC.
const DPC_OBJECT: u8 = 19;

/// A queued DPC.
struct Entry {
    dpc: *mut Dpc,
    /// The address of the timer that queued it, or zero.
    timer: usize,
    number: u64,
}

// SAFETY: the driver keeps a queued DPC alive, and only the thread that dequeued the entry accesses it.
unsafe impl Send for Entry {}

/// A call of a deferred routine that has not returned.
#[derive(Clone, Copy)]
struct Running {
    number: u64,
    /// The addresses of the DPC and of the timer that queued it, or zero.
    objects: [usize; 2],
}

#[derive(Default)]
struct State {
    queue: VecDeque<Entry>,
    /// The calls that run now.
    running: Vec<Running>,
    last: u64,
    processors: usize,
}

/// The DPCs of a kernel.
pub(crate) struct DpcQueue {
    processors: usize,
    state: Mutex<State>,
    /// Notified when a DPC was queued, when a call has returned, and when the kernel stops.
    changed: EventCount,
}

impl DpcQueue {
    pub(crate) fn new(processors: usize) -> Self {
        Self { processors: processors.max(1), state: Mutex::default(), changed: EventCount::new() }
    }

    pub(crate) fn wake(&self, platform: &dyn Platform) {
        self.changed.notify(platform);
    }

    pub(crate) fn queued(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Describes an object in `range` that is still in use: a queued DPC, one whose routine has not returned,
    /// or the timer that queued it. The kernel may access them after the routine has freed them; only
    /// [`KeFlushQueuedDpcs`] ends that.
    pub(crate) fn within(&self, range: &Range<usize>) -> Option<&'static str> {
        let state = self.state.lock();
        if state.queue.iter().any(|entry| range.contains(&entry.dpc.addr())) {
            return Some("a deferred call that is queued");
        }
        let needed = |running: &Running| running.objects.iter().any(|address| range.contains(address));
        state.running.iter().any(needed).then_some("a deferred call whose routine has not returned")
    }

    /// Queues a DPC, for the timer at an address if that is not zero; false if it is queued already.
    ///
    /// # Safety
    /// `dpc` points to an initialized DPC that lives until it has run or was removed.
    pub(crate) unsafe fn insert(
        &self,
        inner: &Inner,
        dpc: *mut KDPC,
        timer: usize,
        argument1: *mut c_void,
        argument2: *mut c_void,
    ) -> bool {
        let dpc = dpc.cast::<Dpc>();
        let mut state = self.state.lock();
        // SAFETY: the caller guarantees a live initialized DPC; the word is atomic.
        let queue = unsafe { &(*dpc).queue };
        if !queue.load(Ordering::Relaxed).is_null() {
            return false;
        }
        queue.store(ptr::from_ref(self).cast_mut().cast(), Ordering::Relaxed);
        // SAFETY: a DPC that is not queued has no other users.
        unsafe { (*dpc).argument1 = argument1 };
        // SAFETY: a DPC that is not queued has no other users.
        unsafe { (*dpc).argument2 = argument2 };
        state.last += 1;
        let number = state.last;
        state.queue.push_back(Entry { dpc, timer, number });
        let more =
            state.processors < self.processors && state.running.len() + state.queue.len() > state.processors;
        let processor = state.processors;
        state.processors += usize::from(more);
        drop(state);
        if more && inner.start_service(format!("dpc-{processor}"), |inner| inner.dpcs.serve(inner)).is_err() {
            self.state.lock().processors -= 1;
            if processor == 0 {
                inner.bug_check(
                    rule::HANG,
                    "KeInsertQueueDpc",
                    "the host cannot start a processor thread".to_owned(),
                );
            }
        }
        self.changed.notify(inner.platform());
        true
    }

    /// Takes a DPC out of the queue; false if it was not there.
    fn remove(&self, dpc: *mut KDPC) -> bool {
        let dpc = dpc.cast::<Dpc>();
        let mut state = self.state.lock();
        let Some(place) = state.queue.iter().position(|entry| entry.dpc == dpc) else { return false };
        state.queue.remove(place);
        // SAFETY: the driver keeps a queued DPC alive; the word is atomic.
        unsafe { (*dpc).queue.store(ptr::null_mut(), Ordering::Relaxed) };
        drop(state);
        true
    }

    /// Runs deferred calls on a processor thread.
    fn serve(&self, inner: &Inner) {
        loop {
            let ticket = self.changed.ticket();
            let mut state = self.state.lock();
            let Some(Entry { dpc, timer, number }) = state.queue.pop_front() else {
                if inner.stopping() {
                    state.processors -= 1;
                    return;
                }
                drop(state);
                self.changed.wait(inner.platform(), ticket, None);
                continue;
            };
            state.running.push(Running { number, objects: [dpc.addr(), timer] });
            // SAFETY: the driver keeps a queued DPC alive, and this thread has just taken it.
            let taken = unsafe { &*dpc };
            let &Dpc { routine, context, argument1, argument2, .. } = taken;
            // From here on the driver may queue it again.
            taken.queue.store(ptr::null_mut(), Ordering::Relaxed);
            drop(state);
            if let Some(routine) = routine {
                let entered = context::enter(Context::Dpc);
                current::set_irql(DISPATCH_LEVEL);
                let number = inner.image.enter(inner, Routine::Dpc, None);
                // SAFETY: the driver initialized the DPC with this routine and context.
                unsafe { routine(dpc.cast(), context, argument1, argument2) };
                inner.image.leave(inner, number);
                irql::check_return("the deferred routine", DISPATCH_LEVEL, 0);
                current::set_irql(PASSIVE_LEVEL);
                drop(entered);
            }
            self.state.lock().running.retain(|running| running.number != number);
            self.changed.notify(inner.platform());
        }
    }

    /// Waits until every DPC that is queued now has run.
    fn flush(&self, kernel: &CurrentKernel) -> bool {
        let last = self.state.lock().last;
        let watchdog = Watchdog::new(kernel);
        self.changed.wait_until(kernel.platform(), watchdog.deadline(), || {
            let state = self.state.lock();
            let queued = state.queue.front().is_some_and(|entry| entry.number <= last);
            !queued && state.running.iter().all(|running| running.number > last)
        })
    }
}

/// Stops the kernel unless there is an initialized DPC at `dpc`.
pub(crate) fn check(kernel: &CurrentKernel, call: &'static str, dpc: *mut KDPC) {
    argument::check_aligned(kernel, call, "a DPC", dpc.cast::<Dpc>());
    let kind = dpc.cast::<u8>();
    // SAFETY: by the contract of the callers, the storage is a DPC's; the first byte is its kind.
    if unsafe { kind.read() } != DPC_OBJECT {
        kernel.bug_check(rule::OBJECT, call, format!("there is no initialized DPC at {dpc:p}"));
    }
}

/// Initializes a DPC; see [`wsk_sys::nt::KeInitializeDpc`].
///
/// # Safety
/// `dpc` points to storage that is not in use as a DPC. `routine` may be called with `context` once it is
/// queued.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeInitializeDpc(
    dpc: *mut KDPC,
    routine: Option<KDEFERRED_ROUTINE>,
    context: *mut c_void,
) {
    const CALL: &str = "KeInitializeDpc";
    let kernel = current::kernel(CALL);
    argument::check_aligned(&kernel, CALL, "a DPC", dpc.cast::<Dpc>());
    if routine.is_none() {
        kernel.violation(rule::OBJECT, CALL, format!("the DPC at {dpc:p} has no routine"));
    }
    let initial = Dpc {
        kind: DPC_OBJECT,
        importance: 1,
        number: 0,
        entry: ptr::null_mut(),
        history: 0,
        routine,
        context,
        argument1: ptr::null_mut(),
        argument2: ptr::null_mut(),
        queue: AtomicPtr::new(ptr::null_mut()),
    };
    // SAFETY: the caller guarantees the storage.
    unsafe { dpc.cast::<Dpc>().write(initial) };
}

/// Queues a DPC; see [`wsk_sys::nt::KeInsertQueueDpc`].
///
/// # Safety
/// `dpc` points to an initialized DPC that lives until it has run or was removed.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeInsertQueueDpc(
    dpc: *mut KDPC,
    argument1: *mut c_void,
    argument2: *mut c_void,
) -> u8 {
    const CALL: &str = "KeInsertQueueDpc";
    let kernel = current::kernel(CALL);
    check(&kernel, CALL, dpc);
    // SAFETY: the caller guarantees an initialized DPC that lives until it has run or was removed.
    u8::from(unsafe { kernel.dpcs.insert(&kernel, dpc, 0, argument1, argument2) })
}

/// Takes a DPC out of its queue; see [`wsk_sys::nt::KeRemoveQueueDpc`].
///
/// # Safety
/// `dpc` points to an initialized DPC.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeRemoveQueueDpc(dpc: *mut KDPC) -> u8 {
    const CALL: &str = "KeRemoveQueueDpc";
    let kernel = current::kernel(CALL);
    check(&kernel, CALL, dpc);
    u8::from(kernel.dpcs.remove(dpc))
}

/// Waits until the queued DPCs have run; see [`wsk_sys::nt::KeFlushQueuedDpcs`].
///
/// # Safety
/// None beyond being called on a thread of a kernel; the signature is the kernel's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeFlushQueuedDpcs() {
    const CALL: &str = "KeFlushQueuedDpcs";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, PASSIVE_LEVEL);
    check_may_wait(&kernel, CALL);
    if !kernel.dpcs.flush(&kernel) {
        Watchdog::fire(&kernel, CALL, "a deferred call");
    }
    kernel.image.settle(&kernel, |routine| routine == Routine::Dpc);
}
