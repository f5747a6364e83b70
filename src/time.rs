//! Time: limits, and the futures that wait for them.
//!
//! A [`Sleep`] is a kernel timer with a DPC, in a block of memory that the future owns:
//!
//! ```text
//!            first poll: KeSetTimer             DPC
//!   New ─────────────────────────────▶ Armed ────────▶ Fired ──poll──▶ Ready
//!    ▲                                   │               │
//!    │                                   │ drop          │ drop
//!    │       KeCancelTimer took it back  ▼               ▼
//!    │     freed ◀────────────────────── ┼             Spent ──flush──▶ freed
//!    │       (spent, if it ever fired)   │             ▲   │
//!    │                           too late▼       DPC   │   │ the next sleep
//!    │                                 Left ───────────┘   │
//!    └─────────────────────────────────────────────────────┘
//! ```
//!
//! Dropping a future never waits for the DPC, and the routine of a DPC never frees the DPC that it runs on.
//! That is not enough: a routine that has said its last word has still to return, and what the kernel does
//! with the objects until then is not documented. So the memory of a timer that has ever fired stays a timer,
//! on the list of those that are *spent*, until `KeFlushQueuedDpcs` says that no routine runs any more. Until
//! then it serves further sleeps: that a timer is set, and a DPC queued, while the routine still runs is
//! documented. [`flush_timers`] empties the list.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::fmt;
use core::future::Future;
use core::mem::MaybeUninit;
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};
use core::task::{Context, Poll};
use core::time::Duration;

use atomic_waker::AtomicWaker;
use wsk_sys::nt;

use crate::error::{Error, Operation, Result, Status};
use crate::irql::Passive;
use crate::memory::{Cache, OutOfMemory, Ref};
use crate::sync::SpinLock;

/// The kernel's unit of time.
const UNIT_NANOS: u32 = 100;
const UNITS_PER_SECOND: u64 = 10_000_000;

/// `duration` in units of 100 ns, rounded up.
fn units(duration: Duration) -> i64 {
    // Not by nanoseconds: dividing a number of 128 bits takes more code than all the rest of this file.
    let rest = u64::from(duration.subsec_nanos().div_ceil(UNIT_NANOS));
    let units = duration.as_secs().saturating_mul(UNITS_PER_SECOND).saturating_add(rest);
    i64::try_from(units).unwrap_or(i64::MAX)
}

/// `duration` as the kernel's waits and timers take a relative time: negative, in units of 100 ns; zero
/// polls.
pub(crate) fn relative(duration: Duration) -> i64 {
    -units(duration)
}

/// A moment after which something is too late, on the clock that counts from boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(u64);

impl Deadline {
    /// The moment `duration` from now.
    ///
    /// # IRQL
    /// Any.
    pub(crate) fn after(duration: Duration) -> Self {
        // SAFETY: the function has no preconditions.
        let now = unsafe { nt::KeQueryInterruptTime() };
        Self(now.saturating_add_signed(units(duration)))
    }

    /// Returns the time until then; zero when it has passed.
    ///
    /// # IRQL
    /// Any.
    pub(crate) fn remaining(self) -> Duration {
        // SAFETY: the function has no preconditions.
        let now = unsafe { nt::KeQueryInterruptTime() };
        let units = self.0.saturating_sub(now);
        Duration::new(units / 10_000_000, (units % 10_000_000) as u32 * 100)
    }
}

/// Waits until `duration` from now has passed.
///
/// The timer is made at the first poll, from the pool, unless one is there that has ended. See [`sleep_in`]
/// for one without a pool allocation.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`, also for polling and dropping the future.
///
/// # Cancel safety
/// Dropping the future takes the timer back.
///
/// # Errors
/// Out of memory, as the output of the future.
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { deadline: Deadline::after(duration), cache: None, timer: None, fresh: true }
}

/// [`sleep`] with a timer from `cache`.
///
/// # IRQL
/// As for [`sleep`].
///
/// # Cancel safety
/// As for [`sleep`].
///
/// # Errors
/// As for [`sleep`].
pub fn sleep_in(duration: Duration, cache: &Cache) -> Sleep {
    Sleep { deadline: Deadline::after(duration), cache: Some(cache.clone()), timer: None, fresh: true }
}

/// Gives `future` no more time than `duration` from now.
///
/// The future is polled before the clock is looked at, so a result that is there is never thrown away for
/// being late.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`, as far as `future` allows it.
///
/// # Cancel safety
/// That of `future`, which is dropped together with this one. To keep a future whose time is up, give a limit
/// to `&mut future`.
///
/// # Errors
/// `STATUS_IO_TIMEOUT` when the time is up, and out of memory for the timer.
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    Timeout { future, sleep: sleep(duration) }
}

/// [`timeout`] with a timer from `cache`.
///
/// # IRQL
/// As for [`timeout`].
///
/// # Cancel safety
/// As for [`timeout`].
///
/// # Errors
/// As for [`timeout`].
pub fn timeout_in<F: Future>(duration: Duration, cache: &Cache, future: F) -> Timeout<F> {
    Timeout { future, sleep: sleep_in(duration, cache) }
}

/// Waits until no timer that has expired runs code of this driver any more (`KeFlushQueuedDpcs`), and frees
/// the memory of those that have ended.
///
/// [`Executor::stop`](crate::executor::Executor::stop) does it for the timers of its tasks, and
/// [`Client::unload`](crate::Client::unload) for all that have ended by then. A driver that uses [`sleep`]
/// elsewhere drops these futures and calls it before it unloads.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub fn flush_timers(_passive: Passive<'_>) {
    // Once for the routines that have timers of dropped futures to put on the list.
    // SAFETY: `Passive` says that this thread may wait.
    unsafe { nt::KeFlushQueuedDpcs() };
    let mut next = spent().lock().first.take();
    if next.is_none() {
        return;
    }
    // And once for those that have put them there, or have fired the others.
    // SAFETY: `Passive` says that this thread may wait.
    unsafe { nt::KeFlushQueuedDpcs() };
    while let Some(timer) = next {
        // SAFETY: the list owned one reference on each of its timers, and was taken as a whole.
        let timer = unsafe { Ref::from_raw(timer.as_ptr().cast_const()) };
        // SAFETY: timers on the list are this function's, and not read by anybody else now.
        next = unsafe { (*timer.next.get()).take() };
        // Nothing is set. Wine, whose `KeFlushQueuedDpcs` does nothing, waits for the routine here, and frees
        // what it has made of the timer. SAFETY: the timer was initialised when it was first armed.
        unsafe { nt::KeCancelTimer(timer.timer.get()) };
        drop(timer);
    }
}

/// The future of [`sleep`].
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    deadline: Deadline,
    cache: Option<Cache>,
    timer: Option<Ref<Timer>>,
    /// The timer has served no sleep before.
    fresh: bool,
}

/// The DPC has not run.
const ARMED: u8 = 0;
/// The DPC has run.
const FIRED: u8 = 1;
/// The future is gone, and the DPC has not run: it puts the timer on the list of the spent ones.
const LEFT: u8 = 2;

/// # Invariants
/// - The timer and the DPC were initialised before anybody else saw the block, the DPC with the address of
///   the block as its context, and are touched by the kernel's functions only.
/// - The block is freed only if the DPC has never run and never will, or after a `KeFlushQueuedDpcs` since it
///   became spent.
/// - `next` belongs to the list of the spent timers.
struct Timer {
    timer: UnsafeCell<nt::KTIMER>,
    dpc: UnsafeCell<MaybeUninit<nt::KDPC>>,
    waker: AtomicWaker,
    state: AtomicU8,
    next: UnsafeCell<Option<NonNull<Timer>>>,
}

// SAFETY: timers and DPCs belong to no thread; a timer is moved only before it was initialised.
unsafe impl Send for Timer {}
// SAFETY: by the invariants the timer and the DPC are left to the kernel's functions, which any processor may
// call, and `next` to the holder of the list's lock or of the whole list; the rest is atomic.
unsafe impl Sync for Timer {}

/// The timers that are in no sleep, and whose routine may not have returned.
///
/// # Invariants
/// The list owns one reference on each of them, the only one.
struct Spent {
    first: Option<NonNull<Timer>>,
}

// SAFETY: timers may be used and freed on any thread.
unsafe impl Send for Spent {}

const _: () = assert!(size_of::<SpinLock<Spent>>() <= size_of::<[usize; 2]>());
const _: () = assert!(align_of::<SpinLock<Spent>>() <= align_of::<[usize; 2]>());

/// The spent timers of this driver.
fn spent<'a>() -> &'a SpinLock<Spent> {
    // SAFETY: the words live as long as the image, that is longer than its code runs, are used here only, and
    // are large enough. Zero, which they are at first, is a free lock and an empty list.
    unsafe { &*nt::image_words().cast::<SpinLock<Spent>>() }
}

/// Puts a timer on the list of the spent ones.
///
/// # Safety
/// The caller gives up the one reference on the timer, whose pointer came from [`Ref::into_raw`] and reaches
/// its whole block. The timer is not set, and no DPC is to come that has not put its mark on it.
unsafe fn retire(timer: NonNull<Timer>) {
    let mut list = spent().lock();
    // SAFETY: the caller gives a reference up, which keeps the timer alive.
    let next = unsafe { timer.as_ref() }.next.get();
    // SAFETY: the lock that guards `next` is held.
    unsafe { *next = list.first };
    list.first = Some(timer);
}

/// Takes a spent timer to be armed again.
fn reuse() -> Option<Ref<Timer>> {
    let mut list = spent().lock();
    let timer = list.first?;
    // SAFETY: timers on the list are alive.
    let next = unsafe { timer.as_ref() }.next.get();
    // SAFETY: the lock that guards `next` is held.
    list.first = unsafe { (*next).take() };
    // SAFETY: the list owned one reference, and gives it up.
    Some(unsafe { Ref::from_raw(timer.as_ptr().cast_const()) })
}

impl Timer {
    fn try_new(cache: Option<&Cache>) -> core::result::Result<Ref<Self>, OutOfMemory> {
        let make = |()| Self {
            timer: UnsafeCell::new(nt::zeroed_timer()),
            dpc: UnsafeCell::new(MaybeUninit::uninit()),
            waker: AtomicWaker::new(),
            state: AtomicU8::new(ARMED),
            next: UnsafeCell::new(None),
        };
        let timer = Ref::try_make(cache, (), make).map_err(|(error, ())| error)?;
        let context = Ref::as_ptr(&timer);
        // SAFETY: the storage is a timer's, in non-paged memory that does not move, and not in use yet.
        unsafe { nt::KeInitializeTimer(timer.timer.get()) };
        // SAFETY: the storage is a DPC's, in the same memory and not in use yet; the context is the block
        // that it is part of.
        unsafe { nt::KeInitializeDpc(timer.dpc.get().cast(), Some(fired), context.cast_mut().cast()) };
        Ok(timer)
    }

    /// Sets the timer.
    ///
    /// # Safety
    /// The timer is new or was spent, and is the caller's alone, who sees to it that it is freed as its
    /// invariants say.
    unsafe fn arm(&self, after: Duration) {
        self.state.store(ARMED, Ordering::Relaxed);
        // SAFETY: both were initialised by `try_new`, and the caller keeps them until the DPC has run, or
        // never will.
        unsafe { nt::KeSetTimer(self.timer.get(), relative(after), self.dpc.get().cast()) };
    }

    fn has_fired(&self) -> bool {
        self.state.load(Ordering::Acquire) == FIRED
    }
}

/// The DPC of a [`Sleep`]. IRQL: `DISPATCH_LEVEL`.
///
/// # Safety
/// `context` is the timer that the DPC is part of, as [`Timer::try_new`] says.
unsafe extern "system" fn fired(
    _dpc: *mut nt::KDPC,
    context: *mut c_void,
    _argument1: *mut c_void,
    _argument2: *mut c_void,
) {
    // SAFETY: the context is the address of the block, which is not null.
    let block = unsafe { NonNull::new_unchecked(context.cast::<Timer>()) };
    // SAFETY: the block is not freed before this routine has returned.
    let timer = unsafe { block.as_ref() };
    if timer.state.swap(FIRED, Ordering::AcqRel) == LEFT {
        // SAFETY: the future left its reference to this routine, which has put its mark on the timer.
        unsafe { retire(block) };
    } else {
        // The timer may be spent by now, and serve another sleep, whose task then is woken for nothing.
        timer.waker.wake();
    }
}

impl Future for Sleep {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(timer) = &self.timer {
            timer.waker.register(context.waker());
            // Looked at after registering: the DPC stores first and wakes then.
            return if timer.has_fired() { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let remaining = self.deadline.remaining();
        if remaining.is_zero() {
            return Poll::Ready(Ok(()));
        }
        let reused = reuse();
        self.fresh = reused.is_none();
        match reused.map_or_else(|| Timer::try_new(self.cache.as_ref()), Ok) {
            Err(OutOfMemory) => Poll::Ready(Err(Error::out_of_memory(Operation::Timer))),
            Ok(timer) => {
                timer.waker.register(context.waker());
                // SAFETY: the timer is new or was spent; `drop` keeps its invariants.
                unsafe { timer.arm(remaining) };
                self.timer = Some(timer);
                Poll::Pending
            }
        }
    }
}

impl Sleep {
    /// Polls a sleep that ends something: why that is over. The same for all futures, so that there is one
    /// copy of it.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        let over = |()| Error::new(Operation::Timeout, Status::IO_TIMEOUT);
        Pin::new(self).poll(context).map(|slept| slept.map_or_else(|error| error, over))
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some(timer) = self.timer.take() else { return };
        // A task that waits for nothing any more goes now, not when the timer is used again.
        drop(timer.waker.take());
        // What has fired is not set. Asking would have Wine wait for the routine, which may be what drops
        // this.
        if !timer.has_fired() {
            // SAFETY: the timer was initialised by `try_new`.
            let cancelled = unsafe { nt::KeCancelTimer(timer.timer.get()) } != 0;
            let left = timer.state.compare_exchange(ARMED, LEFT, Ordering::AcqRel, Ordering::Acquire);
            // Wine says of a timer that has fired, too, that it was taken back: the state knows better.
            if left.is_ok() && cancelled && self.fresh {
                // The DPC has never run, and never will: the memory goes with `timer`.
                return;
            }
            if left.is_ok() && !cancelled {
                // The timer has expired, and the DPC is on its way: the timer is left to it.
                let _: *const Timer = Ref::into_raw(timer);
                return;
            }
        }
        // SAFETY: the address of a block is not null.
        let timer = unsafe { NonNull::new_unchecked(Ref::into_raw(timer).cast_mut()) };
        // SAFETY: the reference was this value's. The timer is not set: it has fired, or was taken back.
        unsafe { retire(timer) };
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("remaining", &self.deadline.remaining()).finish_non_exhaustive()
    }
}

/// The future of [`timeout`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Timeout<F> {
    /// Pinned with the whole.
    future: F,
    sleep: Sleep,
}

impl<F> Timeout<F> {
    /// The future without its limit.
    pub fn into_inner(self) -> F {
        self.future
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: nothing is moved out of the reference, and `future` is only handed on pinned.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: `future` is pinned with the whole: it is moved only by `into_inner`, which takes a value
        // that was never pinned, and this type has no `Drop` and no `Unpin` of its own.
        let future = unsafe { Pin::new_unchecked(&mut this.future) };
        if let Poll::Ready(output) = future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        this.sleep.poll_over(context).map(Err)
    }
}
