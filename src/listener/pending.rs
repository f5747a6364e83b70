//! Pended requests: the record that a token, an abort, the closing listener and WSK meet at.
//!
//! ```text
//!             token decides, or is dropped: the callback returns that itself
//!   Asking ─────────────────────────────────────────────────────────────────▶ Accepted, Rejected
//!     │ │ the listener closes: the callback returns reject
//!     │ └──────────────────────────────────────────────────▶ Aborted: the token is inert
//!     │ the callback returns WskInspectPend                    ▲ ▲
//!     ▼                                                        │ │ WskAbortEvent, or the listener closes
//!   Pended ────────────────────────────────────────────────────┘ │
//!     │ │ token is dropped                                       │ WskAbortEvent
//!     │ └─────────▶ Dropped ─────────────────────────────────────┘
//!     │ token        │ the reaper comes to it
//!     │ decides      │
//!     ▼◀─────────────┘
//!   Completing
//!     │ completion routine
//!     ▼
//!   Completed
//! ```
//!
//! A decision is held back from WSK until the callback's last act (rule ICMP-13): while the record is
//! `Asking` it is only noted, and `WskInspectComplete` is called at most once, by the thread that moves the
//! record on from `Pended` or `Dropped` (rule ICMP-04). What lies between that last act and WSK seeing the
//! return is the return itself, which no client can see the end of.
//!
//! A request that was pended is always decided, unless it is aborted (rule INSP-18): by the token, by the
//! reaper for a token that was dropped, or, before the listener closes, by the listener. The step to
//! `Completing` is made right before the call, and an abort that comes before it prevents the call. One that
//! comes after it meets the call, which no client can help: WSK lets nothing come of such a decision (rules
//! ABRT-12, ICMP-03).
//!
//! # Requests that WSK inspects again
//!
//! WSK may inspect a request again when the peer repeats itself (rule INSP-34), and may give the ID of a
//! request that is over to another one at once (rule INSP-35). A record is *listed* from the moment its token
//! exists until WSK knows the decision: the callback returns it, or the IRP of `WskInspectComplete`
//! completes. An inspection of a listed ID with the same two addresses is a repetition, and is answered with
//! pend: the request has its token, or its decision. So is the new request of a peer that was rejected and is
//! back from the same port under the same ID before WSK has completed that: nothing tells the two apart, and
//! it waits until WSK drops it.
//!
//! Any other inspection is that of a new request, and the handler is asked. If its ID is listed all the same,
//! the old request is over without a word; its token becomes inert, so that its decision cannot meet the new
//! request.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::NonNull;
use core::task::Context;

use wsk_sys::nt::{self, NTSTATUS};
use wsk_sys::{
    WSK_INSPECT_ACTION, WSK_INSPECT_ID, WSK_SOCKET, WskInspectAccept, WskInspectPend, WskInspectReject,
};

use super::shared::ListenerRef;
use super::stage::{Progress, Stage};
use super::tree::{Branches, Element, Tree};
use super::{Endpoints, InspectId};
use crate::client::Node;
use crate::memory::{OutOfMemory, Ref};
use crate::operation::{Completion, Outcome, ReservedIrp};
use crate::socket::{ListenTable, Table as _};
use crate::sync::SpinLock;

/// Result of an attempt to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decided {
    /// The callback will return the decision, or `WskInspectComplete` was called with it.
    Taken,
    /// The request is gone.
    Gone,
}

/// # Invariants
/// - `progress` follows the diagram of the module.
/// - The table owns a reference while the record is listed, the reaper's queue one while the record is in it,
///   and the IRP one from the call to its completion routine.
/// - `irp` and `raw_id` belong to the thread that moved the record on from `Pended` or `Dropped` to tell WSK,
///   then to WSK until the completion routine.
#[repr(C)]
pub(super) struct Record {
    /// For the reaper, which rejects the request of a token that was dropped; used at most once.
    node: Node,
    irp: ReservedIrp,
    /// The ID as WSK wants it, at a fixed address.
    raw_id: UnsafeCell<WSK_INSPECT_ID>,
    listener: ListenerRef,
    id: InspectId,
    endpoints: Endpoints,
    progress: Progress,
    branches: UnsafeCell<Branches<Record>>,
}

// SAFETY: the invariants say who may touch what; `branches` is guarded by the lock of the table.
unsafe impl Send for Record {}
// SAFETY: by the invariants every field is written by one thread at a time, ordered by `progress` or the lock
// of the table.
unsafe impl Sync for Record {}

impl Record {
    /// A record that is not shared yet, with the IRP of its decision reserved, so that deciding cannot fail.
    ///
    /// Called inside a callback of the listener, whose close waits for that; so the client has its device
    /// meanwhile.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    #[inline(never)]
    pub(super) fn try_new(
        listener: &ListenerRef,
        id: InspectId,
        endpoints: Endpoints,
    ) -> core::result::Result<Ref<Self>, OutOfMemory> {
        let make = |()| Self {
            node: Node::new(reject_from_node),
            irp: ReservedIrp::new(),
            raw_id: UnsafeCell::new(id.to_raw()),
            listener: listener.clone(),
            id,
            endpoints,
            progress: Progress::new(),
            branches: UnsafeCell::new([None; 2]),
        };
        let client = listener.client();
        let record = Ref::try_make(Some(client.cache()), (), make).map_err(|(error, ())| error)?;
        let context = Ref::as_ptr(&record).cast_mut().cast();
        // SAFETY: the record is new and never moves, so the IRP is not in use; `completed` takes the record's
        // address for a reference only when the IRP was handed out, and then `complete` has made that
        // reference.
        unsafe { record.irp.reserve::<Self>(client.device(), context) }?;
        Ok(record)
    }

    pub(super) fn id(&self) -> InspectId {
        self.id
    }

    pub(super) fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    /// The stage, with the task registered before it is looked at.
    pub(super) fn watch(&self, context: &Context<'_>) -> Stage {
        self.progress.watch(context)
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.progress.stage().is_gone()
    }

    /// The outcome of `WskInspectComplete`; only once the stage was seen to be `Completed`.
    pub(super) fn outcome(&self) -> Outcome {
        self.irp_outcome()
    }

    fn irp_outcome(&self) -> Outcome {
        // SAFETY: a completed IRP is not written any more.
        let status = unsafe { nt::irp_status(self.irp.as_ptr()) };
        Outcome::Completed { status, information: 0 }
    }

    /// The callback's last act: what it returns.
    pub(super) fn callback_returns(&self) -> WSK_INSPECT_ACTION {
        let decided = match self.step(Stage::Asking, Stage::Pended) {
            // The record of a repetition has nothing to say.
            Ok(()) | Err(Stage::Repeated) => return WskInspectPend,
            Err(stage) => stage,
        };
        // What the callback returns is the end of the identifier, or the beginning of a connection.
        self.unlist();
        if decided == Stage::Accepted { WskInspectAccept } else { WskInspectReject }
    }

    fn step(&self, from: Stage, to: Stage) -> Result<(), Stage> {
        self.progress.step(from, to)
    }

    /// Takes the record out of the table, if it is there.
    fn unlist(&self) {
        self.listener.pending().remove(self);
    }

    /// Decides the request.
    ///
    /// IRQL: up to `DISPATCH_LEVEL`, but not in a completion routine, because it may call WSK.
    pub(super) fn decide(record: &Ref<Self>, accept: bool) -> Decided {
        if record.step(Stage::Asking, if accept { Stage::Accepted } else { Stage::Rejected }).is_ok() {
            return Decided::Taken;
        }
        // When the rundown has begun, closing the listener rejects what is pended.
        let Some(permit) = record.listener.acquire() else { return Decided::Gone };
        let action = if accept { WskInspectAccept } else { WskInspectReject };
        // SAFETY: rundown protection is held; `record` keeps the listener during the call, also when the
        // request completes.
        unsafe { Self::complete(record, permit.handle(), action, Stage::Pended, Stage::Completing) }
    }

    /// Moves the record on and calls `WskInspectComplete`, unless the request has gone meanwhile.
    ///
    /// # Safety
    /// `handle` is the record's listener, and the caller holds its rundown protection, or is the one that
    /// closes it.
    unsafe fn complete(
        record: &Ref<Self>,
        handle: *mut WSK_SOCKET,
        action: WSK_INSPECT_ACTION,
        from: Stage,
        to: Stage,
    ) -> Decided {
        // SAFETY: the caller keeps the socket from closing.
        let table = unsafe { (*handle).Dispatch };
        // SAFETY: the socket is a listener, which is not closed before this returns.
        let table = unsafe { ListenTable::new(table.cast()) };
        let Some(inspect_complete) = table.inspect_complete() else {
            // There is no way to answer, so the request is dropped.
            let _ = record.step(from, Stage::Aborted);
            record.unlist();
            return Decided::Gone;
        };
        // As late as can be: an abort that comes before this prevents the call.
        if record.step(from, to).is_err() {
            return Decided::Gone;
        }
        // The address of the record is what the IRP was reserved with.
        let _ = Ref::into_raw(record.clone());
        // SAFETY: it was reserved when the request was pended, and the record was moved on just now, which
        // happens once; the reference just made keeps the record where it is until the completion routine
        // takes it back.
        let irp = unsafe { record.irp.take() };
        // SAFETY: the ID is the record's own copy (rule INSP-20), the action is accept or reject (rule
        // ICMP-10), and the IRP was prepared above. The status is that of the IRP (rule IRP-12).
        let _ = unsafe { inspect_complete(handle, record.raw_id.get(), action, irp) };
        Decided::Taken
    }

    /// The token is dropped: the request is rejected, by the reaper if WSK has to be told.
    pub(super) fn abandon(record: &Ref<Self>) {
        if record.step(Stage::Asking, Stage::Rejected).is_ok() {
            return;
        }
        // The gate is held until the reaper has made the call, so that the reaper is still there to make it.
        // When it is shut, closing the listener rejects what is pended.
        let Some(permit) = record.listener.acquire() else { return };
        // The record stays listed, so that an abort that is faster than the reaper prevents the call.
        if record.step(Stage::Pended, Stage::Dropped).is_err() {
            return;
        }
        permit.keep();
        let queued = Ref::into_raw(record.clone());
        // SAFETY: a counted reference is never null.
        let node = unsafe { NonNull::new_unchecked(queued.cast_mut().cast::<Node>()) };
        // SAFETY: a record becomes `Dropped` once, so the node is queued once; the reference just leaked
        // keeps the record until it was run. The node is its first field.
        unsafe { record.listener.client().reap(node) };
    }
}

/// # Safety
/// `node` is that of a record that [`Record::abandon`] left to the reaper, with a reference and rundown
/// protection of the listener.
unsafe fn reject_from_node(node: NonNull<Node>) {
    // SAFETY: the node is the first field of the record, and the queue owned this reference.
    let record = unsafe { Ref::<Record>::from_raw(node.as_ptr().cast_const().cast()) };
    // The requests of a dead listener are gone; closing it takes the record out.
    if !record.listener.is_dead() {
        let handle = record.listener.handle();
        // SAFETY: `abandon` has kept rundown protection.
        let _ =
            unsafe { Record::complete(&record, handle, WskInspectReject, Stage::Dropped, Stage::Completing) };
    }
    record.listener.release();
}

/// Completion of `WskInspectComplete`.
impl Completion for Record {
    unsafe fn completed(context: *mut c_void, _status: NTSTATUS) {
        // SAFETY: `complete` leaked exactly this reference.
        let record = unsafe { Ref::<Self>::from_raw(context.cast_const().cast()) };
        record.listener.close_if_dead(record.irp_outcome());
        // The identifier may be another request's by now, and a task that is woken may make one.
        record.unlist();
        // A token whose listener closes stays inert.
        let _ = record.step(Stage::Completing, Stage::Completed);
        record.progress.wake();
    }
}

// SAFETY: the branches are those of this record, and used for nothing else.
unsafe impl Element for Record {
    type Key = InspectId;

    fn key(&self) -> InspectId {
        self.id
    }

    fn word(id: InspectId) -> u64 {
        id.key() as u64 ^ u64::from(id.serial()).rotate_left(32)
    }

    fn branches(&self) -> &UnsafeCell<Branches<Self>> {
        &self.branches
    }
}

/// The records of a listener that an abort may name.
pub(super) struct Pending {
    table: SpinLock<Table>,
}

/// # Invariants
/// The table owns a reference of each record in `records`, so a listed record is alive.
struct Table {
    records: Tree<Record>,
    /// The listener closes: nothing is pended any more.
    shut: bool,
}

// SAFETY: the records are `Send + Sync`, and the tree is guarded by the lock.
unsafe impl Send for Table {}

impl Table {
    /// Takes a record out, if it is there; the reference is the table's.
    fn unlist(&mut self, record: &Record) -> Option<Ref<Record>> {
        let removed = self.records.remove(record)?;
        // SAFETY: `insert` leaked this reference, and the record was listed once.
        Some(unsafe { Ref::from_raw(removed.as_ptr()) })
    }

    /// The request of a listed record is over: its token becomes inert, unless it has decided already.
    fn end(&mut self, listed: NonNull<Record>) -> Option<Ref<Record>> {
        // SAFETY: a listed record is alive.
        let record = unsafe { listed.as_ref() };
        let _ = record
            .step(Stage::Asking, Stage::Aborted)
            .or_else(|_| record.step(Stage::Pended, Stage::Aborted))
            .or_else(|_| record.step(Stage::Dropped, Stage::Aborted));
        self.unlist(record)
    }

    /// Returns whether this ID may have a record of its own: `Err` if it has one for the same two ends. One
    /// for others is ended, and returned.
    fn admit(&mut self, id: InspectId, endpoints: &Endpoints) -> Result<Option<Ref<Record>>, ()> {
        let Some(listed) = self.records.find(id) else { return Ok(None) };
        // SAFETY: a listed record is alive.
        if unsafe { listed.as_ref() }.endpoints == *endpoints { Err(()) } else { Ok(self.end(listed)) }
    }
}

impl Pending {
    pub(super) const fn new() -> Self {
        Self { table: SpinLock::new(Table { records: Tree::new(), shut: false }) }
    }

    /// Lists a new record. When the listener closes already its request is rejected, and the token will be
    /// inert; so it will if two inspections of one request met, and the other one has pended it.
    pub(super) fn insert(&self, record: &Ref<Record>) {
        let mut table = self.table.lock();
        let admitted = if table.shut { Ok(None) } else { table.admit(record.id, &record.endpoints) };
        let shut = table.shut;
        if let (Ok(_), false) = (&admitted, shut) {
            let own = Ref::into_raw(record.clone());
            // SAFETY: a counted reference is never null.
            let own = unsafe { NonNull::new_unchecked(own.cast_mut()) };
            // SAFETY: the record is new, so it is in no tree, and the reference just leaked keeps it where it
            // is.
            unsafe { table.records.insert(own) };
        } else {
            // The token has not been handed out yet, so nobody else moves the record.
            let _ = record.step(Stage::Asking, if shut { Stage::Aborted } else { Stage::Repeated });
        }
        drop(table);
        wake(admitted.unwrap_or(None));
    }

    /// Returns whether an inspection is that of a new request. If not, the peer has repeated itself (rule
    /// INSP-34).
    pub(super) fn is_new(&self, id: InspectId, endpoints: &Endpoints) -> bool {
        let admitted = self.table.lock().admit(id, endpoints);
        let new = admitted.is_ok();
        wake(admitted.unwrap_or(None));
        new
    }

    fn remove(&self, record: &Record) {
        let listed = self.table.lock().unlist(record);
        // Not under the lock.
        drop(listed);
    }

    /// Makes the token of an aborted request inert.
    pub(super) fn abort(&self, id: InspectId) {
        let mut table = self.table.lock();
        let ended = match table.records.find(id) {
            Some(listed) => table.end(listed),
            None => None,
        };
        drop(table);
        wake(ended);
    }

    /// The listener is about to close: rejects whatever is pended, and makes the tokens inert. Without a
    /// handle, the listener is dead, and its requests are gone already.
    ///
    /// # Safety
    /// `handle` is the listener, and the caller is the one that closes it and has not done so yet.
    pub(super) unsafe fn reject_all(&self, handle: Option<*mut WSK_SOCKET>) {
        self.table.lock().shut = true;
        while let Some(record) = self.any() {
            // Those that are asked about are rejected by their callbacks. Others that are not pended are
            // decided.
            if record.step(Stage::Asking, Stage::Aborted).is_err() {
                if let Some(handle) = handle {
                    // The record stays listed during the call, like any other.
                    // SAFETY: the handle is the listener, and the caller is the one that closes it.
                    let _ = unsafe {
                        Record::complete(&record, handle, WskInspectReject, Stage::Pended, Stage::Aborted)
                    };
                } else {
                    let _ = record.step(Stage::Pended, Stage::Aborted);
                }
            }
            record.unlist();
            record.progress.wake();
        }
    }

    /// A listed record.
    fn any(&self) -> Option<Ref<Record>> {
        let table = self.table.lock();
        let record = table.records.any()?;
        // SAFETY: the pointer came from `Ref::into_raw`, and a listed record is alive.
        Some(unsafe { Ref::clone_from_raw(record.as_ptr()) })
    }
}

/// Wakes the task that has the token of a request that is over. The lock is not held.
fn wake(ended: Option<Ref<Record>>) {
    if let Some(record) = ended {
        record.progress.wake();
    }
}
