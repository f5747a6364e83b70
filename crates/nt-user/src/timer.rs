//! Timers.
//!
//! ```text
//!   initialized ──KeSetTimer──► set ──due──► expired: signaled, its DPC is queued
//!        ▲                       │ KeCancelTimer            │ KeSetTimer
//!        └───────────────────────┘                          └──► set
//! ```
//!
//! The `KTIMER` begins with a dispatcher header; all other state is in the queue, so that a timer that is not
//! queued is not accessed and may be freed. One thread expires all timers; it is started when the first timer
//! is set.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::ptr;
use std::time::Duration;

use parking_lot::Mutex;
use wsk_sys::nt::{DISPATCH_LEVEL, KDPC, KTIMER};

use crate::checker::argument;
use crate::checker::context::check_irql;
use crate::checker::violation::rule;
use crate::dispatcher::{Kind, Object, due};
use crate::dpc;
use crate::event_count::EventCount;
use crate::kernel::Inner;
use crate::platform::Platform;
use crate::thread::current::{self, CurrentKernel};

/// A timer that is set, with its due time and DPC.
struct Setting {
    due: Duration,
    number: u64,
    timer: *mut KTIMER,
    dpc: *mut KDPC,
}

// SAFETY: the driver keeps a timer that is set, and its DPC, alive; they are touched under the queue's lock
// only.
unsafe impl Send for Setting {}

#[derive(Default)]
struct State {
    /// By address.
    set: BTreeMap<usize, Setting>,
    /// The same timers ordered by due time: time, number, address.
    order: BTreeSet<(Duration, u64, usize)>,
    last: u64,
    served: bool,
}

impl State {
    fn remove(&mut self, address: usize) -> Option<Setting> {
        let setting = self.set.remove(&address)?;
        self.order.remove(&(setting.due, setting.number, address));
        Some(setting)
    }
}

/// The timers of a kernel.
#[derive(Default)]
pub(crate) struct TimerQueue {
    state: Mutex<State>,
    /// Notified when the first timer to expire has changed, and when the kernel stops.
    changed: EventCount,
}

impl TimerQueue {
    pub(crate) fn wake(&self, platform: &dyn Platform) {
        self.changed.notify(platform);
    }

    /// The number of timers that are set.
    pub(crate) fn set(&self) -> usize {
        self.state.lock().set.len()
    }

    /// A timer that is set and lies in `range`.
    pub(crate) fn within(&self, range: &Range<usize>) -> Option<usize> {
        self.state.lock().set.range(range.clone()).next().map(|(address, _)| *address)
    }

    /// Runs the timer thread: expires the due timers and sleeps until the next one is due.
    fn serve(&self, inner: &Inner) {
        loop {
            let ticket = self.changed.ticket();
            let mut state = self.state.lock();
            if inner.stopping() {
                state.served = false;
                return;
            }
            let next = state.order.first().copied();
            let now = inner.platform().now();
            match next {
                Some((due, _, address)) if due <= now => {
                    if let Some(setting) = state.remove(address) {
                        expire(inner, &setting);
                    }
                }
                next => {
                    drop(state);
                    self.changed.wait(inner.platform(), ticket, next.map(|(due, ..)| due));
                }
            }
        }
    }
}

/// Signals a timer and queues its DPC. The caller holds the lock of the queue, so the driver cannot cancel
/// the timer meanwhile.
fn expire(inner: &Inner, setting: &Setting) {
    if !setting.dpc.is_null() {
        // SAFETY: the driver keeps the DPC of a timer that is set alive.
        unsafe {
            inner.dpcs.insert(inner, setting.dpc, setting.timer.addr(), ptr::null_mut(), ptr::null_mut())
        };
    }
    // SAFETY: the driver keeps a set timer alive until it has been seen signaled.
    if let Some(timer) = unsafe { Object::from_raw(setting.timer.cast()) } {
        timer.signal(inner);
    }
}

/// Returns the timer at `timer`; stops the kernel if there is none.
///
/// # Safety
/// `timer` points to storage of a timer that stays alive while it is used.
unsafe fn object<'a>(kernel: &CurrentKernel, call: &'static str, timer: *mut KTIMER) -> Object<'a> {
    // SAFETY: the caller guarantees storage of a timer that stays alive.
    let object = unsafe { Object::from_raw(timer.cast()) };
    match object.filter(|object| object.kind() == Some(Kind::NotificationTimer)) {
        Some(object) => object,
        None => kernel.bug_check(rule::OBJECT, call, format!("there is no initialized timer at {timer:p}")),
    }
}

/// Initializes a notification timer; see [`wsk_sys::nt::KeInitializeTimer`].
///
/// # Safety
/// `timer` points to storage that is not in use as a timer.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeInitializeTimer(timer: *mut KTIMER) {
    const CALL: &str = "KeInitializeTimer";
    let kernel = current::kernel(CALL);
    argument::check_aligned(&kernel, CALL, "a timer", timer);
    // SAFETY: the caller guarantees the storage.
    if let Some(object) = unsafe { Object::from_raw(timer.cast()) } {
        object.initialize(Kind::NotificationTimer, false);
    }
}

/// Sets a timer; see [`wsk_sys::nt::KeSetTimer`].
///
/// # Safety
/// `timer`, and `dpc` unless it is null, point to initialized objects that live until the timer has expired
/// or was cancelled, and the DPC has run.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeSetTimer(timer: *mut KTIMER, due_time: i64, dpc: *mut KDPC) -> u8 {
    const CALL: &str = "KeSetTimer";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    // SAFETY: the caller guarantees an initialized timer that stays alive until it has expired or was
    // canceled.
    let object = unsafe { object(&kernel, CALL, timer) };
    if !dpc.is_null() {
        dpc::check(&kernel, CALL, dpc);
    }
    let due = due(&kernel, due_time);
    let mut state = kernel.timers.state.lock();
    let former = state.remove(timer.addr());
    object.reset();
    state.last += 1;
    let number = state.last;
    let first = state.order.first().is_none_or(|(first, ..)| due < *first);
    state.order.insert((due, number, timer.addr()));
    state.set.insert(timer.addr(), Setting { due, number, timer, dpc });
    let start = !std::mem::replace(&mut state.served, true);
    drop(state);
    if start && kernel.start_service("timer".to_owned(), |inner| inner.timers.serve(inner)).is_err() {
        kernel.bug_check(rule::HANG, CALL, "the host cannot start the timer thread".to_owned());
    }
    if first {
        kernel.timers.wake(kernel.platform());
    }
    u8::from(former.is_some())
}

/// Takes a timer back; see [`wsk_sys::nt::KeCancelTimer`].
///
/// # Safety
/// `timer` points to an initialized timer.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn KeCancelTimer(timer: *mut KTIMER) -> u8 {
    const CALL: &str = "KeCancelTimer";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    // SAFETY: the caller guarantees an initialized timer that stays alive until it has expired or was
    // canceled.
    unsafe { object(&kernel, CALL, timer) };
    u8::from(kernel.timers.state.lock().remove(timer.addr()).is_some())
}
