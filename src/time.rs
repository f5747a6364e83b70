//! Time: limits, and the futures that wait for them.
//!
//! A [`Sleep`] is a kernel timer with a DPC, in a block of memory with two owners, the future and the timer:
//!
//! ```text
//!            first poll: KeSetTimer             DPC
//!   New ─────────────────────────────▶ Armed ────────▶ Fired ──poll──▶ Ready
//!                                        │               │
//!                                        │ drop          │ drop
//!                                        ▼               ▼
//!      KeCancelTimer took it back: both references dropped   the future's reference dropped
//!      it was too late: the DPC drops the timer's
//! ```
//!
//! Dropping a future never waits for the DPC: whoever lets go last frees the block.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::fmt;
use core::future::Future;
use core::mem::MaybeUninit;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use wsk_sys::nt;

use crate::error::{Error, Operation, Result, Status};
use crate::irql::Passive;
use crate::memory::{Cache, OutOfMemory, Ref};
use crate::sync::Signal;

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

/// `duration` as the kernel's waits and timers take a relative time: negative, in units of 100 ns; zero polls.
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

    /// What is left until then; zero when it has passed.
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
/// The timer is made at the first poll, from the pool. See [`sleep_in`] for one without a pool allocation.
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
    Sleep { deadline: Deadline::after(duration), cache: None, timer: None }
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
    Sleep { deadline: Deadline::after(duration), cache: Some(cache.clone()), timer: None }
}

/// Gives `future` no more time than `duration` from now.
///
/// The future is polled before the clock is looked at, so a result that is there is never thrown away for being
/// late.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`, as far as `future` allows it.
///
/// # Cancel safety
/// That of `future`, which is dropped together with this one. To keep a future whose time is up, give a limit to
/// `&mut future`.
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

/// Waits until no timer that has expired runs code of this driver any more (`KeFlushQueuedDpcs`).
///
/// [`Executor::stop`](crate::executor::Executor::stop) does it for the timers of its tasks. A driver that uses
/// [`sleep`] elsewhere calls it before it unloads.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub fn flush_timers(_passive: Passive<'_>) {
    // SAFETY: `Passive` says that this thread may wait.
    unsafe { nt::KeFlushQueuedDpcs() };
}

/// The future of [`sleep`].
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    deadline: Deadline,
    cache: Option<Cache>,
    timer: Option<Ref<Timer>>,
}

/// # Invariants
/// The timer and the DPC were initialised before anybody else saw the block, and are touched by the kernel's
/// functions only. While the timer is set or its DPC queued, the DPC's context is a reference on this block.
struct Timer {
    timer: UnsafeCell<nt::KTIMER>,
    dpc: UnsafeCell<MaybeUninit<nt::KDPC>>,
    fired: Signal,
}

// SAFETY: the kernel's functions may be called for a timer and a DPC from any processor; the rest is atomic.
unsafe impl Send for Timer {}
// SAFETY: as for `Send`.
unsafe impl Sync for Timer {}

impl Timer {
    fn try_new(cache: Option<&Cache>) -> core::result::Result<Ref<Self>, OutOfMemory> {
        let make = |()| Self {
            timer: UnsafeCell::new(nt::zeroed_timer()),
            dpc: UnsafeCell::new(MaybeUninit::uninit()),
            fired: Signal::new(),
        };
        Ref::try_make(cache, (), make).map_err(|(error, ())| error)
    }

    /// Sets the timer.
    ///
    /// # Safety
    /// The timer is new.
    unsafe fn arm(this: &Ref<Self>, after: Duration) {
        let context = Ref::into_raw(this.clone());
        // SAFETY: the storage is a timer's, in non-paged memory that does not move, and not in use yet.
        unsafe { nt::KeInitializeTimer(this.timer.get()) };
        // SAFETY: the storage is a DPC's, likewise; the context is a reference that the DPC takes.
        unsafe { nt::KeInitializeDpc(this.dpc.get().cast(), Some(fired), context.cast_mut().cast()) };
        // SAFETY: both were initialised, and the reference just made keeps them until the DPC has run.
        unsafe { nt::KeSetTimer(this.timer.get(), relative(after), this.dpc.get().cast()) };
    }
}

/// The DPC of a [`Sleep`]. IRQL: `DISPATCH_LEVEL`.
///
/// # Safety
/// `context` is the reference on the timer that [`Timer::arm`] made, which nobody has taken back.
unsafe extern "system" fn fired(
    _dpc: *mut nt::KDPC,
    context: *mut c_void,
    _argument1: *mut c_void,
    _argument2: *mut c_void,
) {
    // SAFETY: the timer expired before anybody cancelled it, so its reference is this routine's. The kernel does
    // not touch the timer or the DPC once the routine runs.
    let timer = unsafe { Ref::<Timer>::from_raw(context.cast_const().cast()) };
    timer.fired.give();
}

impl Future for Sleep {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(timer) = &self.timer {
            return if timer.fired.poll(context) { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let remaining = self.deadline.remaining();
        if remaining.is_zero() {
            return Poll::Ready(Ok(()));
        }
        match Timer::try_new(self.cache.as_ref()) {
            Err(OutOfMemory) => Poll::Ready(Err(Error::out_of_memory(Operation::Timer))),
            Ok(timer) => {
                // Nothing has fired yet; the task is registered before anything can.
                let _ = timer.fired.poll(context);
                // SAFETY: the timer is new.
                unsafe { Timer::arm(&timer, remaining) };
                self.timer = Some(timer);
                Poll::Pending
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some(timer) = &self.timer else { return };
        // SAFETY: the timer was initialised when it was armed, and this value's reference keeps it alive.
        let cancelled = unsafe { nt::KeCancelTimer(timer.timer.get()) } != 0;
        // Wine says so of a timer that has expired as well, once its DPC has run; the flag tells the two apart.
        if cancelled && !timer.fired.is_given() {
            // SAFETY: the timer had not expired and never will, so the DPC does not take its reference.
            drop(unsafe { Ref::from_raw(Ref::as_ptr(timer)) });
        }
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
        // SAFETY: `future` is pinned with the whole: it is moved only by `into_inner`, which takes a value that
        // was never pinned, and this type has no `Drop` and no `Unpin` of its own.
        let future = unsafe { Pin::new_unchecked(&mut this.future) };
        if let Poll::Ready(output) = future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut this.sleep).poll(context).map(|slept| {
            slept?;
            Err(Error::new(Operation::Timeout, Status::IO_TIMEOUT))
        })
    }
}
