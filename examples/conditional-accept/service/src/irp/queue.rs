//! Cancel-safe queue of IRPs.
//!
//! ```text
//!            insert: cancel routine set, IRP marked pending
//!   Request ─────────────────────────────────────────────► CancelSafeQueue
//!                                                           │   │ IoCancelIrp takes the cancel routine
//!            remove_matching: clears the cancel routine     │   ▼
//!   Request ◄───────────────────────────────────────────────┘  cancel routine: waits for the lock, removes
//!                                                              the request, completes it: STATUS_CANCELLED
//! ```
//!
//! The routine's slot in the IRP is the token: it is exchanged atomically, so exactly one of
//! `remove_matching` and `IoCancelIrp` gets it. An IRP whose cancellation has begun stays in the list until
//! its cancel routine, which needs the lock, has come. `Io…Csq…` does the same on Windows; Wine does not have
//! it.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use core::{fmt, ptr};

use intrusive_collections::{LinkedList, LinkedListAtomicLink, UnsafeRef, intrusive_adapter};
use wsk::memory::{PoolBox, Ref};
use wsk_sys::nt::{self, DEVICE_OBJECT, IRP, NTSTATUS};
use wsk_sys::{STATUS_CANCELLED, STATUS_DEVICE_BUSY, STATUS_INSUFFICIENT_RESOURCES};

use super::{ActiveCall, Request};
use crate::control::Open;

/// Limit on the requests of one handle in each queue. There is no limit for all handles together, which one
/// could use up.
const PER_HANDLE: u32 = 8;

/// Owner of a queue and of the lock around it.
pub(crate) trait QueueOwner: Send + Sync + Sized + 'static {
    /// Runs `body` on the queue, under its lock.
    fn with_queue<R: Send>(&self, body: impl FnOnce(&mut CancelSafeQueue<Self>) -> R + Send) -> R;

    /// Number of requests that came to the queue and are not completed yet.
    fn unfinished(&self) -> &AtomicUsize;

    /// Number of requests of a handle in the queue; used under its lock.
    fn count(open: &Open) -> &AtomicU32;

    /// Cancels the calls of the handles that are `wanted`. IRQL: `<= DISPATCH_LEVEL`, without a spin lock.
    fn cancel_calls(&self, wanted: &(dyn Fn(&Open) -> bool + Sync)) {
        while let Some(call) = self.with_queue(|queue| queue.remove_matching(wanted)) {
            call.complete(STATUS_CANCELLED, 0);
        }
    }
}

/// Queue of pended requests, oldest first.
///
/// # Invariants
/// - Each call in the list came from [`PoolBox::into_raw`], and is the list's.
/// - Its IRP has the cancel routine of `W` set, and the addresses of the queue's owner and of itself in its
///   driver context, or its cancellation has begun; in that case the routine waits for the lock around this
///   list, or is about to.
/// - `len` is their number, and the count of each handle the number of its own.
pub(crate) struct CancelSafeQueue<W: QueueOwner> {
    calls: LinkedList<Links<W>>,
    len: usize,
}

intrusive_adapter!(
    Links<W> = UnsafeRef<Node<W>>: Node<W> { link => LinkedListAtomicLink } where W: QueueOwner
);

/// Pended request, in the queue or removed from it.
pub(crate) struct PendingCall<W: QueueOwner>(PoolBox<Node<W>>);

struct Node<W: QueueOwner> {
    link: LinkedListAtomicLink,
    // The order of the fields is the order in which they go.
    /// `None` before there is memory for the call, and when it is being completed.
    request: Option<Request>,
    owner: Ref<Open>,
    /// Keeps the queue alive, and counts the request there.
    queue_owner: CallCount<W>,
}

struct CallCount<W: QueueOwner>(Ref<W>);

impl<W: QueueOwner> CallCount<W> {
    fn new(queue_owner: &Ref<W>) -> Self {
        queue_owner.unfinished().fetch_add(1, Ordering::Relaxed);
        Self(queue_owner.clone())
    }
}

impl<W: QueueOwner> Drop for CallCount<W> {
    fn drop(&mut self) {
        self.0.unfinished().fetch_sub(1, Ordering::Release);
    }
}

/// Call that was not queued, and the status to complete it with.
pub(crate) struct RejectedCall<W: QueueOwner>(pub(crate) PendingCall<W>, pub(crate) NTSTATUS);

impl<W: QueueOwner> RejectedCall<W> {
    /// Completes it. IRQL: `<= DISPATCH_LEVEL`, without a spin lock.
    pub(crate) fn complete(self) -> NTSTATUS {
        let Self(call, status) = self;
        call.complete(status, 0);
        status
    }
}

impl<W: QueueOwner> CancelSafeQueue<W> {
    /// Creates an empty queue.
    pub(crate) fn new() -> Self {
        Self { calls: LinkedList::new(Links::NEW), len: 0 }
    }

    /// Queues a call; its dispatch routine returns `STATUS_PENDING`. Called under the lock of the queue.
    ///
    /// # Errors
    /// The call, if too many of its handle are queued or it has been cancelled.
    pub(crate) fn insert(&mut self, call: PendingCall<W>) -> Result<(), RejectedCall<W>> {
        let count = W::count(&call.0.owner);
        if count.load(Ordering::Relaxed) >= PER_HANDLE {
            return Err(RejectedCall(call, STATUS_DEVICE_BUSY));
        }
        let irp = call.0.irp();
        let queue_owner = Ref::as_ptr(&call.0.queue_owner.0).cast_mut().cast();
        let context = [queue_owner, PoolBox::as_ptr(&call.0).cast(), ptr::null_mut(), ptr::null_mut()];
        // SAFETY: the call owns the IRP, whose driver context is for its owner.
        unsafe { nt::set_irp_driver_context(irp, context) };
        // SAFETY: the call owns the IRP. From here on the routine may be called; it waits for the lock, which
        // the caller holds.
        unsafe { nt::io_set_cancel_routine(irp, Some(cancel::<W>)) };
        // The routine is there before the flag is looked at, as `IoCancelIrp` sets the flag before it takes
        // the routine.
        fence(Ordering::SeqCst);
        // SAFETY: the IRP is completed under the lock only, which the caller holds, so it is alive.
        let cancelled = unsafe { nt::irp_cancel(irp) }.load(Ordering::SeqCst) != 0;
        if cancelled && call.0.clear_cancel_routine() {
            return Err(RejectedCall(call, STATUS_CANCELLED));
        }
        // SAFETY: the call owns the IRP, which is completed under the lock only, and the caller holds the
        // lock.
        unsafe { nt::io_mark_irp_pending(irp) };
        count.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the box gives the call up to the list, where it stays in its place.
        self.calls.push_back(unsafe { UnsafeRef::from_raw(PoolBox::into_raw(call.0)) });
        self.len += 1;
        Ok(())
    }

    /// Removes the oldest call whose handle is `wanted` and that is not being cancelled.
    // One copy of this for each queue, whatever is wanted.
    #[inline(never)]
    pub(crate) fn remove_matching(&mut self, wanted: &dyn Fn(&Open) -> bool) -> Option<PendingCall<W>> {
        let mut cursor = self.calls.front_mut();
        while let Some(call) = cursor.get() {
            if wanted(&call.owner) && call.clear_cancel_routine() {
                let removed = cursor.remove();
                return removed.map(|call| self.unlinked(call));
            }
            cursor.move_next();
        }
        None
    }

    /// Returns the number of queued calls.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Removes a call, for its cancel routine.
    ///
    /// # Safety
    /// The call is in this list.
    unsafe fn remove(&mut self, call: *const Node<W>) -> Option<PendingCall<W>> {
        // SAFETY: the caller says that it is in this list.
        let removed = unsafe { self.calls.cursor_mut_from_ptr(call) }.remove();
        removed.map(|call| self.unlinked(call))
    }

    /// Accounts for a call that was just unlinked.
    fn unlinked(&mut self, call: UnsafeRef<Node<W>>) -> PendingCall<W> {
        self.len -= 1;
        W::count(&call.owner).fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the list owned the call, by its invariant, and has just given it up.
        PendingCall(unsafe { PoolBox::from_raw(UnsafeRef::into_raw(call)) })
    }
}

impl<W: QueueOwner> Node<W> {
    /// Returns the IRP, or null once the request was taken.
    fn irp(&self) -> *mut IRP {
        self.request.as_ref().map_or(ptr::null_mut(), |request| request.irp.as_ptr())
    }

    /// Clears the cancel routine. Returns false if the request is being cancelled.
    fn clear_cancel_routine(&self) -> bool {
        self.request.as_ref().is_some_and(Request::clear_cancel_routine)
    }
}

impl Request {
    /// Clears the cancel routine. Returns false if the request is being cancelled.
    fn clear_cancel_routine(&self) -> bool {
        // SAFETY: a request keeps its IRP alive; the slot is only ever exchanged atomically.
        unsafe { nt::io_set_cancel_routine(self.irp.as_ptr(), None) }.is_some()
    }
}

impl<W: QueueOwner> PendingCall<W> {
    /// Prepares a request of the handle `owner` for the queue of `queue_owner`.
    ///
    /// # Errors
    /// The status for the dispatch routine to return if memory is out; the request was completed with it.
    pub(crate) fn try_new(
        queue_owner: &Ref<W>,
        owner: &Ref<Open>,
        request: Request,
    ) -> Result<Self, NTSTATUS> {
        let node = Node {
            link: LinkedListAtomicLink::new(),
            request: None,
            owner: owner.clone(),
            queue_owner: CallCount::new(queue_owner),
        };
        match PoolBox::try_new(node) {
            Ok(mut node) => {
                node.request = Some(request);
                Ok(Self(node))
            }
            Err(_) => Err(request.complete(STATUS_INSUFFICIENT_RESOURCES, 0)),
        }
    }

    /// Returns the output buffer of the request.
    pub(crate) fn output(&mut self) -> &mut [u8] {
        self.0.request.as_mut().map(Request::output).unwrap_or_default()
    }

    /// Returns the handle that made the call.
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
/// It is called by `IoCancelIrp` with the cancel spin lock held, for an IRP that [`CancelSafeQueue::insert`]
/// set it for.
unsafe extern "system" fn cancel<W: QueueOwner>(_device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    // Declared first, so that it goes last: after what this routine has a share in.
    let _active = ActiveCall::enter();
    // SAFETY: the call to this routine makes this thread the owner of the IRP's cancellation.
    let irql = unsafe { nt::irp_cancel_irql(irp) };
    // SAFETY: `insert` wrote it before it set the routine.
    let [queue_owner, call, ..] = unsafe { nt::irp_driver_context(irp) };
    // SAFETY: the IRP's call is in the list, or is being put there under the lock, until it is taken out
    // below, and keeps the list's home.
    let queue_owner = unsafe { Ref::<W>::clone_from_raw(queue_owner.cast_const().cast()) };
    // SAFETY: the cancel spin lock is held, and was taken at this level.
    unsafe { nt::IoReleaseCancelSpinLock(irql) };
    let call = call.expose_provenance();
    // SAFETY: the cancelling thread has taken the routine, so no other thread removes the call; and the lock
    // is held, under which it was inserted: it is in the list.
    let remove = |queue: &mut CancelSafeQueue<W>| unsafe { queue.remove(ptr::with_exposed_provenance(call)) };
    if let Some(call) = queue_owner.with_queue(remove) {
        call.complete(STATUS_CANCELLED, 0);
    }
}

impl<W: QueueOwner> fmt::Debug for CancelSafeQueue<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.calls.iter().filter_map(|call| call.request.as_ref())).finish()
    }
}
