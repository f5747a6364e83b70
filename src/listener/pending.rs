//! Pended requests: the record that a token, an abort and WSK meet at.
//!
//! ```text
//!             decided before the callback returned: the callback returns the decision itself
//!   Asking ───────────────────────────────────────────────────▶ Answered
//!     │ the callback returns WskInspectPend
//!     ▼            token decides, or is dropped           completion routine
//!   Pended ───────────────────────────────────▶ Completing ──────────────────▶ Completed
//!     │ WskAbortEvent, or the listener has closed
//!     ▼
//!   Aborted: the token is inert
//! ```
//!
//! A decision is held back from WSK until the callback's last act (rule ICMP-13): while the record is `Asking` it
//! is only noted, and `WskInspectComplete` is called at most once, from `Pended` (rule ICMP-04). What lies between
//! that last act and WSK seeing the return is the few instructions of the return itself, which no client can see
//! the end of.
//!
//! The table of a listener holds no references. A record is in it from before its callback returns until it
//! leaves `Asking` and `Pended`, and until then its token, which takes it out, keeps it alive.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use atomic_waker::AtomicWaker;
use wsk_sys::nt::{self, NTSTATUS};
use wsk_sys::{
    STATUS_FILE_FORCED_CLOSED, STATUS_MORE_PROCESSING_REQUIRED, STATUS_NOT_SUPPORTED, WSK_INSPECT_ACTION,
    WSK_INSPECT_ID, WSK_PROVIDER_LISTEN_DISPATCH, WskInspectAccept, WskInspectReject,
};

use super::{Ends, InspectId, ListenerRef};
use crate::client::Node;
use crate::memory::Ref;
use crate::operation::{IrpStorage, Outcome, Submission};
use crate::sync::SpinLock;

const ASKING: u8 = 0;
const ANSWERED: u8 = 1;
const PENDED: u8 = 2;
const COMPLETING: u8 = 3;
const COMPLETED: u8 = 4;
const ABORTED: u8 = 5;

/// What became of an attempt to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decided {
    /// The callback will return the decision, or `WskInspectComplete` was called with it.
    Taken,
    /// The request is gone.
    Gone,
}

/// # Invariants
/// - `state` follows the diagram of the module.
/// - `irp` and `raw_id` belong to whoever moved the state to `Completing`, then to WSK until `Completed`.
#[repr(C)]
pub(super) struct Record {
    /// For the reaper, which rejects the request of a token that was dropped; used at most once.
    node: Node,
    irp: IrpStorage,
    /// The ID as WSK wants it, at a fixed address.
    raw_id: UnsafeCell<WSK_INSPECT_ID>,
    listener: ListenerRef,
    id: InspectId,
    ends: Ends,
    accept: AtomicBool,
    state: AtomicU8,
    waker: AtomicWaker,
    links: UnsafeCell<Neighbours>,
}

struct Neighbours {
    previous: Option<NonNull<Record>>,
    next: Option<NonNull<Record>>,
}

// SAFETY: the invariants say who may touch what; `links` is guarded by the lock of the table.
unsafe impl Send for Record {}
// SAFETY: as for `Send`.
unsafe impl Sync for Record {}

impl Record {
    pub(super) fn new(listener: ListenerRef, id: InspectId, ends: Ends) -> Self {
        Self {
            node: Node::new(reject_from_node),
            irp: IrpStorage::new(),
            raw_id: UnsafeCell::new(id.to_raw()),
            listener,
            id,
            ends,
            accept: AtomicBool::new(false),
            state: AtomicU8::new(ASKING),
            waker: AtomicWaker::new(),
            links: UnsafeCell::new(Neighbours { previous: None, next: None }),
        }
    }

    pub(super) fn id(&self) -> InspectId {
        self.id
    }

    pub(super) fn ends(&self) -> Ends {
        self.ends
    }

    pub(super) fn waker(&self) -> &AtomicWaker {
        &self.waker
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.state.load(Ordering::Acquire) == ABORTED
    }

    /// The outcome of `WskInspectComplete`, once there is one.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        if self.state.load(Ordering::Acquire) != COMPLETED {
            return None;
        }
        let irp = self.irp.as_ptr();
        // SAFETY: a completed IRP is not written any more.
        let status = unsafe { nt::irp_status(irp) };
        Some(Outcome { status, information: 0 })
    }

    /// Whether the decision went out as the callback's own answer.
    pub(super) fn was_answered(&self) -> bool {
        self.state.load(Ordering::Acquire) == ANSWERED
    }

    /// The callback's last act: `None` to return pend, else the decision that was made meanwhile.
    pub(super) fn callback_returns(&self) -> Option<bool> {
        match self.state.compare_exchange(ASKING, PENDED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => None,
            // Only a decision leaves `Asking` otherwise.
            Err(_) => Some(self.accept.load(Ordering::Acquire)),
        }
    }

    /// Decides the request.
    ///
    /// IRQL: up to `DISPATCH_LEVEL`, but not in a completion routine, because it may call WSK.
    pub(super) fn decide(record: &Ref<Self>, accept: bool) -> Decided {
        record.accept.store(accept, Ordering::Release);
        let decided = match record.state.compare_exchange(ASKING, ANSWERED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Decided::Taken,
            Err(PENDED) => {
                match record.state.compare_exchange(PENDED, COMPLETING, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => {
                        record.listener.pending().remove(record);
                        Self::complete(record, if accept { WskInspectAccept } else { WskInspectReject });
                        return Decided::Taken;
                    }
                    Err(_) => Decided::Gone,
                }
            }
            Err(_) => Decided::Gone,
        };
        record.listener.pending().remove(record);
        decided
    }

    /// Calls `WskInspectComplete`.
    fn complete(record: &Ref<Self>, action: WSK_INSPECT_ACTION) {
        let irps_reference = Ref::into_raw(record.clone());
        // SAFETY: the state was moved to `Completing` once, so nobody else uses the storage; the reference keeps
        // the record where it is until the completion routine takes it back.
        let irp = unsafe { record.irp.prepare(completed, irps_reference.cast_mut().cast()) };
        let submission = record.listener.submit(|handle| {
            // SAFETY: the gate is held, so the socket is a listener that is not closing.
            let table = unsafe { (*handle).Dispatch }.cast::<WSK_PROVIDER_LISTEN_DISPATCH>();
            // SAFETY: the table is that of a listening socket; the member was always there.
            let inspect_complete = unsafe { (*table).WskInspectComplete }?;
            // SAFETY: the ID is the record's own copy (rule INSP-20), the action is accept or reject (rule ICMP-10),
            // and the IRP was prepared above.
            Some(unsafe { inspect_complete(handle, record.raw_id.get(), action, irp) })
        });
        if let Submission::Refused(status) = submission {
            debug_assert!(status == STATUS_FILE_FORCED_CLOSED || status == STATUS_NOT_SUPPORTED);
            // The listener is closing: the request goes with it.
            record.state.store(ABORTED, Ordering::Release);
            record.waker.wake();
            // SAFETY: nobody was given the IRP, so no completion routine will take this reference back.
            drop(unsafe { Ref::from_raw(irps_reference) });
        }
    }

    /// The token is dropped: the request is rejected, by the reaper if WSK has to be told.
    pub(super) fn abandon(record: &Ref<Self>) {
        if record.state.compare_exchange(ASKING, ANSWERED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            // `accept` is false from the start: the callback returns reject.
            record.listener.pending().remove(record);
        } else if record.state.load(Ordering::Acquire) == PENDED {
            let queued = Ref::into_raw(record.clone()).cast_mut();
            // SAFETY: a counted reference is never null.
            let node = unsafe { NonNull::new_unchecked(queued.cast::<Node>()) };
            // SAFETY: there is one token and it is dropped once, so the node is queued once; the reference leaked
            // above keeps the record until it was run. The node is its first field.
            unsafe { record.listener.client().reap(node) };
        } else {
            record.listener.pending().remove(record);
        }
    }

    /// WSK dropped the request. `Asking` cannot be seen here: an abort comes after the callback's return.
    fn abort(&self) {
        if self.state.compare_exchange(PENDED, ABORTED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.waker.wake();
        }
    }
}

/// # Safety
/// `node` is that of a record whose reference was leaked to the reaper's queue.
unsafe fn reject_from_node(node: NonNull<Node>) {
    // SAFETY: the node is the first field of the record, and the queue owned this reference.
    let record = unsafe { Ref::<Record>::from_raw(node.as_ptr().cast_const().cast()) };
    let _ = Record::decide(&record, false);
}

/// The completion routine of `WskInspectComplete`.
///
/// # Safety
/// `context` is the record reference that [`Record::complete`] made; the I/O manager calls this once.
unsafe extern "system" fn completed(
    _device: *mut nt::DEVICE_OBJECT,
    _irp: *mut nt::IRP,
    context: *mut c_void,
) -> NTSTATUS {
    // SAFETY: `complete` leaked exactly this reference.
    let record = unsafe { Ref::<Record>::from_raw(context.cast_const().cast()) };
    record.state.store(COMPLETED, Ordering::Release);
    if let Some(outcome) = record.outcome() {
        record.listener.note(outcome);
    }
    record.waker.wake();
    STATUS_MORE_PROCESSING_REQUIRED
}

/// How many lists the table spreads its records over.
const BUCKETS: usize = 32;

/// The records of a listener that an abort may name.
pub(super) struct Pending {
    buckets: SpinLock<[Option<NonNull<Record>>; BUCKETS]>,
}

// SAFETY: the records are `Send + Sync`, and the lists are guarded by the lock.
unsafe impl Send for Pending {}
// SAFETY: as for `Send`.
unsafe impl Sync for Pending {}

fn bucket(id: InspectId) -> usize {
    // Keys are addresses or small numbers; serial numbers count up.
    ((id.key() >> 4) ^ id.key() ^ id.serial() as usize) % BUCKETS
}

impl Pending {
    pub(super) const fn new() -> Self {
        Self { buckets: SpinLock::new([None; BUCKETS]) }
    }

    pub(super) fn insert(&self, record: &Ref<Record>) {
        // SAFETY: a counted reference is never null.
        let own = unsafe { NonNull::new_unchecked(Ref::as_ptr(record).cast_mut()) };
        let mut buckets = self.buckets.lock();
        let head = &mut buckets[bucket(record.id)];
        // SAFETY: the lock is held, and the record is not listed.
        unsafe { *record.links.get() = Neighbours { previous: None, next: *head } };
        if let Some(next) = *head {
            // SAFETY: a listed record is alive.
            let next = unsafe { next.as_ref() };
            // SAFETY: the lock is held.
            unsafe { (*next.links.get()).previous = Some(own) };
        }
        *head = Some(own);
    }

    /// Takes a record out, if it is still there.
    fn remove(&self, record: &Record) {
        let mut buckets = self.buckets.lock();
        let head = &mut buckets[bucket(record.id)];
        // SAFETY: the lock is held.
        let links = unsafe { &mut *record.links.get() };
        let (previous, next) = (links.previous.take(), links.next.take());
        match previous {
            Some(previous) => {
                // SAFETY: a listed record is alive.
                let previous = unsafe { previous.as_ref() };
                // SAFETY: the lock is held.
                unsafe { (*previous.links.get()).next = next };
            }
            None if head.is_some_and(|first| core::ptr::eq(first.as_ptr(), record)) => *head = next,
            None => return,
        }
        if let Some(next) = next {
            // SAFETY: a listed record is alive.
            let next = unsafe { next.as_ref() };
            // SAFETY: the lock is held.
            unsafe { (*next.links.get()).previous = previous };
        }
    }

    /// Makes the token of an aborted request inert.
    pub(super) fn abort(&self, id: InspectId) {
        let found = {
            let buckets = self.buckets.lock();
            let mut at = buckets[bucket(id)];
            loop {
                let Some(candidate) = at else { break None };
                // SAFETY: a listed record is alive.
                let record = unsafe { candidate.as_ref() };
                if record.id == id {
                    // SAFETY: the pointer came from `Ref::as_ptr`, and its token keeps the record alive while listed.
                    break Some(unsafe { Ref::clone_from_raw(candidate.as_ptr().cast_const()) });
                }
                // SAFETY: the lock is held.
                at = unsafe { (*record.links.get()).next };
            }
        };
        if let Some(record) = found {
            self.remove(&record);
            record.abort();
        }
    }

    /// The listener has closed: nothing that is pended will be decided.
    pub(super) fn abort_all(&self) {
        for index in 0..BUCKETS {
            loop {
                // SAFETY: as in `abort`.
                let first = self.buckets.lock()[index]
                    .map(|first| unsafe { Ref::<Record>::clone_from_raw(first.as_ptr().cast_const()) });
                let Some(record) = first else { break };
                self.remove(&record);
                record.abort();
            }
        }
    }
}
