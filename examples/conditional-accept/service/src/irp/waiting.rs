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

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use core::{fmt, ptr};

use intrusive_collections::{LinkedList, LinkedListAtomicLink, UnsafeRef, intrusive_adapter};
use wsk::memory::{PoolBox, Ref};
use wsk_sys::nt::{self, DEVICE_OBJECT, IRP, NTSTATUS};
use wsk_sys::{STATUS_CANCELLED, STATUS_DEVICE_BUSY, STATUS_INSUFFICIENT_RESOURCES};

use super::{Inside, Request};
use crate::control::Open;

/// How many of them one handle can leave in each list. There is no limit for all handles together, which some could use up for
/// the others.
const PER_HANDLE: u32 = 8;

/// Whoever has a list of waiting requests, and the lock around it.
pub(crate) trait Waits: Send + Sync + Sized + 'static {
    /// Runs `body` on the list, under its lock.
    fn with_waiting<R: Send>(&self, body: impl FnOnce(&mut Waiting<Self>) -> R + Send) -> R;

    /// How many requests have come to the list and have not been completed yet.
    fn unfinished(&self) -> &AtomicUsize;

    /// Where it is counted how many requests of a handle are in the list; under its lock.
    fn count(open: &Open) -> &AtomicU32;

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
/// - Each call in the list came from [`PoolBox::into_raw`], and is the list's.
/// - Its IRP has the cancel routine of `W` set, and the addresses of its home and of itself in its driver context, or its
///   cancellation has begun; in that case the routine waits for the lock around this list, or is about to.
/// - `len` is how many there are, and the count of each handle how many are its own.
pub(crate) struct Waiting<W: Waits> {
    calls: LinkedList<Links<W>>,
    len: usize,
}

intrusive_adapter!(Links<W> = UnsafeRef<Node<W>>: Node<W> { link => LinkedListAtomicLink } where W: Waits);

/// A request that waits, or has waited.
pub(crate) struct Call<W: Waits>(PoolBox<Node<W>>);

struct Node<W: Waits> {
    link: LinkedListAtomicLink,
    // The order of the fields is the order in which they go.
    /// `None` before there is memory for the call, and when it is being completed.
    request: Option<Request>,
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

/// A call that is not to wait, and the status to complete it with.
pub(crate) struct Refused<W: Waits>(pub(crate) Call<W>, pub(crate) NTSTATUS);

impl<W: Waits> Refused<W> {
    /// Completes it. IRQL: `<= DISPATCH_LEVEL`, without a spin lock.
    pub(crate) fn complete(self) -> NTSTATUS {
        let Self(call, status) = self;
        call.complete(status, 0);
        status
    }
}

impl<W: Waits> Waiting<W> {
    /// An empty list.
    pub(crate) fn new() -> Self {
        Self { calls: LinkedList::new(Links::NEW), len: 0 }
    }

    /// Has a call wait; its dispatch routine returns `STATUS_PENDING`. Called under the lock of its home.
    ///
    /// # Errors
    /// The call, when too many of its owner wait already or it has been cancelled.
    pub(crate) fn park(&mut self, call: Call<W>) -> Result<(), Refused<W>> {
        let count = W::count(&call.0.owner);
        if count.load(Ordering::Relaxed) >= PER_HANDLE {
            return Err(Refused(call, STATUS_DEVICE_BUSY));
        }
        let irp = call.0.irp();
        let home = Ref::as_ptr(&call.0.home.0).cast_mut().cast();
        let context = [home, PoolBox::as_ptr(&call.0).cast(), ptr::null_mut(), ptr::null_mut()];
        // SAFETY: the call owns the IRP, whose driver context is for its owner.
        unsafe { nt::set_irp_driver_context(irp, context) };
        // SAFETY: as above. From here on the routine may be called; it waits for the lock, which the caller holds.
        unsafe { nt::io_set_cancel_routine(irp, Some(cancel::<W>)) };
        // The routine is there before the flag is looked at, as `IoCancelIrp` sets the flag before it takes the routine.
        fence(Ordering::SeqCst);
        // SAFETY: whoever cancels it or not, the IRP is completed under the lock only, so it is alive.
        let cancelled = unsafe { nt::irp_cancel(irp) }.load(Ordering::SeqCst) != 0;
        if cancelled && call.0.disarm() {
            return Err(Refused(call, STATUS_CANCELLED));
        }
        // SAFETY: as above; nobody completes it before the lock is released.
        unsafe { nt::io_mark_irp_pending(irp) };
        count.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the box gives the call up to the list, where it stays in its place.
        self.calls.push_back(unsafe { UnsafeRef::from_raw(PoolBox::into_raw(call.0)) });
        self.len += 1;
        Ok(())
    }

    /// Takes the oldest call whose owner is `wanted`, unless it is being cancelled.
    // Of each list there is one copy of this, whatever is wanted.
    #[inline(never)]
    pub(crate) fn claim(&mut self, wanted: &dyn Fn(&Open) -> bool) -> Option<Call<W>> {
        let mut cursor = self.calls.front_mut();
        while let Some(call) = cursor.get() {
            if wanted(&call.owner) && call.disarm() {
                let removed = cursor.remove();
                return removed.map(|call| self.out(call));
            }
            cursor.move_next();
        }
        None
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes a call out, for its cancel routine.
    ///
    /// # Safety
    /// The call is in this list.
    unsafe fn take(&mut self, call: *const Node<W>) -> Option<Call<W>> {
        // SAFETY: the caller says that it is in this list.
        let removed = unsafe { self.calls.cursor_mut_from_ptr(call) }.remove();
        removed.map(|call| self.out(call))
    }

    /// A call that is no longer in the list.
    fn out(&mut self, call: UnsafeRef<Node<W>>) -> Call<W> {
        self.len -= 1;
        W::count(&call.owner).fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the list owned the call, by its invariant, and has just given it up.
        Call(unsafe { PoolBox::from_raw(UnsafeRef::into_raw(call)) })
    }
}

impl<W: Waits> Node<W> {
    /// The IRP, as long as the call has its request.
    fn irp(&self) -> *mut IRP {
        self.request.as_ref().map_or(ptr::null_mut(), |request| request.irp.as_ptr())
    }

    /// Takes the cancel routine back; false if the request is being cancelled.
    fn disarm(&self) -> bool {
        self.request.as_ref().is_some_and(Request::disarm)
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
    /// A request of `owner`, which is to wait at `home`.
    ///
    /// # Errors
    /// What the dispatch routine returns, if there was no memory; the request is completed with it then.
    pub(crate) fn try_new(home: &Ref<W>, owner: &Ref<Open>, request: Request) -> Result<Self, NTSTATUS> {
        let node = Node {
            link: LinkedListAtomicLink::new(),
            request: None,
            owner: owner.clone(),
            home: Counted::new(home),
        };
        match PoolBox::try_new(node) {
            Ok(mut node) => {
                node.request = Some(request);
                Ok(Self(node))
            }
            Err(_) => Err(request.complete(STATUS_INSUFFICIENT_RESOURCES, 0)),
        }
    }

    /// What the request's buffer has room for, to be filled in.
    pub(crate) fn output(&mut self) -> &mut [u8] {
        self.0.request.as_mut().map(Request::output).unwrap_or_default()
    }

    /// Whose it is.
    pub(crate) fn owner(&self) -> &Ref<Open> {
        &self.0.owner
    }

    /// Completes the request. IRQL: `<= DISPATCH_LEVEL`, without a spin lock.
    pub(crate) fn complete(mut self, status: NTSTATUS, information: usize) {
        if let Some(request) = self.0.request.take() {
            request.complete(status, information);
        }
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
    let [home, call, ..] = unsafe { nt::irp_driver_context(irp) };
    // SAFETY: the IRP's call is in the list, or is being put there under the lock, until it is taken out below, and keeps the list's
    // home.
    let home = unsafe { Ref::<W>::clone_from_raw(home.cast_const().cast()) };
    // SAFETY: the cancel spin lock is held, and was taken at this level.
    unsafe { nt::IoReleaseCancelSpinLock(irql) };
    let call = call.expose_provenance();
    // SAFETY: whoever cancels a call has taken its routine, so nobody else takes it out; and the lock is held, under which it was put
    // in: it is in the list.
    let take = |waiting: &mut Waiting<W>| unsafe { waiting.take(ptr::with_exposed_provenance(call)) };
    if let Some(call) = home.with_waiting(take) {
        call.complete(STATUS_CANCELLED, 0);
    }
}

impl<W: Waits> fmt::Debug for Waiting<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.calls.iter().filter_map(|call| call.request.as_ref())).finish()
    }
}
