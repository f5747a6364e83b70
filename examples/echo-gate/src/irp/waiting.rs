//! Requests that wait, each of which can be cancelled at any moment.
//!
//! ```text
//!            park: cancel routine set, IRP marked pending
//!   Request ─────────────────────────────────────────────► Waiting
//!                                                           │   │ IoCancelIrp takes the cancel routine
//!               claim: takes the cancel routine back        │   ▼
//!   Request ◄───────────────────────────────────────────────┘  cancel routine: waits for the lock, takes the
//!                                                              request out, completes it with STATUS_CANCELLED
//! ```
//!
//! The routine's slot in the IRP is the token: it is exchanged atomically, so exactly one of `claim` and `IoCancelIrp` gets
//! it. An IRP whose cancellation has begun stays in the list until its cancel routine, which needs the lock, has come.
//! `Io…Csq…` does the same on Windows; Wine does not have it.

use core::sync::atomic::{AtomicUsize, Ordering, fence};
use core::{fmt, ptr};

use wsk::memory::{OutOfMemory, PoolVec, Ref};
use wsk_sys::nt::{self, DEVICE_OBJECT, IRP, NTSTATUS};
use wsk_sys::{STATUS_CANCELLED, STATUS_DEVICE_BUSY};

use super::{Inside, Request};
use crate::control::Open;

/// How many of them one handle can leave there.
const PER_HANDLE: usize = 8;

/// Whoever has a list of waiting requests, and the lock around it.
pub(crate) trait Waits: Send + Sync + Sized + 'static {
    /// Runs `body` on the list, under its lock.
    fn with_waiting<R: Send>(&self, body: impl FnOnce(&mut Waiting<Self>) -> R + Send) -> R;

    /// How many requests have come to the list and have not been completed yet.
    fn unfinished(&self) -> &AtomicUsize;

    /// Ends the calls of the owners that are `wanted`. IRQL: `<= DISPATCH_LEVEL`, without a spin lock.
    fn cancel_calls(&self, wanted: &(dyn Fn(&Open) -> bool + Sync)) {
        while let Some(call) = self.with_waiting(|waiting| waiting.claim(wanted)) {
            call.complete(STATUS_CANCELLED, 0);
        }
    }
}

/// Requests that wait, the oldest first.
///
/// # Invariants
/// Each call's IRP has the cancel routine of `W` set and the address of its home in its driver context, or its
/// cancellation has begun; in that case the routine waits for the lock around this list, or is about to.
pub(crate) struct Waiting<W: Waits> {
    calls: PoolVec<Call<W>>,
}

/// A request that waits, or has waited.
pub(crate) struct Call<W: Waits> {
    // The order of the fields is the order in which they go.
    request: Request,
    owner: Ref<Open>,
    /// Keeps the list, and counts the request there.
    home: Counted<W>,
}

struct Counted<W: Waits>(Ref<W>);

impl<W: Waits> Counted<W> {
    fn new(home: &Ref<W>) -> Self {
        home.unfinished().fetch_add(1, Ordering::Relaxed);
        Self(home.clone())
    }
}

impl<W: Waits> Drop for Counted<W> {
    fn drop(&mut self) {
        self.0.unfinished().fetch_sub(1, Ordering::Release);
    }
}

/// A request that was not taken, and the status to complete it with.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Request, pub(crate) NTSTATUS);

impl Refused {
    /// Completes it. IRQL: `<= DISPATCH_LEVEL`, without a spin lock.
    pub(crate) fn complete(self) -> NTSTATUS {
        self.0.complete(self.1, 0)
    }
}

impl<W: Waits> Waiting<W> {
    /// How many requests can wait in one list.
    pub(crate) const CAPACITY: usize = 128;

    /// An empty list with all the room it will have.
    pub(crate) fn try_new() -> Result<Self, OutOfMemory> {
        Ok(Self { calls: PoolVec::try_with_capacity(Self::CAPACITY)? })
    }

    /// Has a request of `owner` wait; its dispatch routine returns `STATUS_PENDING`. Called under the lock of `home`.
    ///
    /// # Errors
    /// The request, when too many wait already or it has been cancelled.
    pub(crate) fn park(&mut self, home: &Ref<W>, request: Request, owner: &Ref<Open>) -> Result<(), Refused> {
        let of_owner = self.calls.iter().filter(|call| Ref::ptr_eq(&call.owner, owner)).count();
        if self.calls.len() == Self::CAPACITY || of_owner >= PER_HANDLE {
            return Err(Refused(request, STATUS_DEVICE_BUSY));
        }
        let irp = request.irp.as_ptr();
        let context =
            [Ref::as_ptr(home).cast_mut().cast(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut()];
        // SAFETY: the request owns the IRP, whose driver context is for its owner.
        unsafe { nt::set_irp_driver_context(irp, context) };
        // SAFETY: as above. From here on the routine may be called; it waits for the lock, which the caller holds.
        unsafe { nt::io_set_cancel_routine(irp, Some(cancel::<W>)) };
        // The routine is there before the flag is looked at, as `IoCancelIrp` sets the flag before it takes the routine.
        fence(Ordering::SeqCst);
        // SAFETY: whoever cancels it or not, the IRP is completed under the lock only, so it is alive.
        let cancelled = unsafe { nt::irp_cancel(irp) }.load(Ordering::SeqCst) != 0;
        if cancelled && request.disarm() {
            return Err(Refused(request, STATUS_CANCELLED));
        }
        // SAFETY: as above; nobody completes it before the lock is released.
        unsafe { nt::io_mark_irp_pending(irp) };
        let call = Call { request, owner: owner.clone(), home: Counted::new(home) };
        // There is room, as was checked above; a call that were dropped here would complete.
        drop(self.calls.push(call));
        Ok(())
    }

    /// Takes the oldest call whose owner is `wanted`, unless it is being cancelled.
    // Of each list there is one copy of this, whatever is wanted.
    #[inline(never)]
    pub(crate) fn claim(&mut self, wanted: &dyn Fn(&Open) -> bool) -> Option<Call<W>> {
        let at = self.calls.iter().position(|call| wanted(&call.owner) && call.request.disarm())?;
        self.calls.remove(at)
    }

    /// Whether anybody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Takes the call whose IRP is at `address`, for its cancel routine.
    fn cancelled(&mut self, address: usize) -> Option<Call<W>> {
        let at = self.calls.iter().position(|call| call.request.irp.addr().get() == address)?;
        self.calls.remove(at)
    }
}

impl Request {
    /// Takes the cancel routine back; false if the request is being cancelled.
    fn disarm(&self) -> bool {
        // SAFETY: a request keeps its IRP alive; the slot is only ever exchanged atomically.
        unsafe { nt::io_set_cancel_routine(self.irp.as_ptr(), None) }.is_some()
    }
}

impl<W: Waits> Call<W> {
    /// What the request's buffer has room for, to be filled in.
    pub(crate) fn output(&mut self) -> &mut [u8] {
        self.request.output()
    }

    /// Whose it is.
    pub(crate) fn owner(&self) -> &Ref<Open> {
        &self.owner
    }

    /// Completes the request. IRQL: `<= DISPATCH_LEVEL`, without a spin lock.
    pub(crate) fn complete(self, status: NTSTATUS, information: usize) {
        let Self { request, owner, home } = self;
        request.complete(status, information);
        drop(owner);
        drop(home);
    }
}

/// The cancel routine of a waiting request.
///
/// # Safety
/// It is called by `IoCancelIrp` with the cancel spin lock held, for an IRP that [`Waiting::park`] set it for.
unsafe extern "system" fn cancel<W: Waits>(_device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    // Declared first, so that it goes last: after what this routine has a share in.
    let _inside = Inside::enter();
    // SAFETY: the call to this routine makes this thread the owner of the IRP's cancellation.
    let irql = unsafe { nt::irp_cancel_irql(irp) };
    // SAFETY: `park` wrote it before it set the routine.
    let [home, ..] = unsafe { nt::irp_driver_context(irp) };
    // SAFETY: the IRP's call is in the list until it is taken out below, and keeps the list's home.
    let home = unsafe { Ref::<W>::clone_from_raw(home.cast_const().cast()) };
    // SAFETY: the cancel spin lock is held, and was taken at this level.
    unsafe { nt::IoReleaseCancelSpinLock(irql) };
    let address = irp.addr();
    if let Some(call) = home.with_waiting(|waiting| waiting.cancelled(address)) {
        call.complete(STATUS_CANCELLED, 0);
    }
}

impl<W: Waits> fmt::Debug for Waiting<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.calls.iter().map(|call| &call.request)).finish()
    }
}
