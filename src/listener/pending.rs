//! Pended requests: the record that a token, an abort, the closing listener and WSK meet at.
//!
//! ```text
//!             token decides, or is dropped: the callback returns that itself
//!   Asking ─────────────────────────────────────────────────────────────────▶ Accepted, Rejected
//!     │ │ the listener closes: the callback returns reject
//!     │ └──────────────────────────────────────────────────▶ Aborted: the token is inert
//!     │ the callback returns WskInspectPend                    ▲
//!     ▼                                                        │ WskAbortEvent, or the listener closes (which rejects)
//!   Pended ────────────────────────────────────────────────────┤
//!     │ token decides, or is dropped                           │ the listener is closing: no call is let in
//!     ▼                                                        │
//!   Completing ────────────────────────────────────────────────┘
//!     │ completion routine
//!     ▼
//!   Completed
//! ```
//!
//! A decision is held back from WSK until the callback's last act (rule ICMP-13): while the record is `Asking` it
//! is only noted, and `WskInspectComplete` is called at most once, by whoever moves the record out of `Pended`
//! (rule ICMP-04). What lies between that last act and WSK seeing the return is the return itself, which no client
//! can see the end of.
//!
//! A request that was pended is always decided, unless it is aborted (rule INSP-18): by the token, by the reaper for a
//! token that was dropped, or, before the listener closes, by the listener.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::NonNull;
use core::task::Context;

use wsk_sys::nt::{self, NTSTATUS};
use wsk_sys::{
    STATUS_MORE_PROCESSING_REQUIRED, WSK_INSPECT_ACTION, WSK_INSPECT_ID, WSK_PROVIDER_LISTEN_DISPATCH,
    WSK_SOCKET, WskInspectAccept, WskInspectReject,
};

use super::stage::{Progress, Stage};
use super::{Ends, InspectId, ListenerRef};
use crate::client::Node;
use crate::memory::Ref;
use crate::operation::{IrpStorage, Outcome};
use crate::sync::SpinLock;

/// What became of an attempt to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decided {
    /// The callback will return the decision, or `WskInspectComplete` was called with it.
    Taken,
    /// The request is gone.
    Gone,
}

/// # Invariants
/// - `progress` follows the diagram of the module.
/// - One reference is the *callback's*: the answer that is on its way to WSK has it while the record is `Asking`, the
///   state itself while it is `Pended`. Whoever moves the record out of `Pended` takes it.
/// - `irp` and `raw_id` belong to whoever moved the record out of `Pended`, then to WSK until the completion routine.
/// - A record that is listed is `Asking` or `Pended`, or whoever moved it on holds a reference and is about to take it
///   out. So a listed record is alive.
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
    progress: Progress,
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
            progress: Progress::new(),
            links: UnsafeCell::new(Neighbours { previous: None, next: None }),
        }
    }

    pub(super) fn id(&self) -> InspectId {
        self.id
    }

    pub(super) fn ends(&self) -> Ends {
        self.ends
    }

    /// The stage, with the task registered before it is looked at.
    pub(super) fn watch(&self, context: &Context<'_>) -> Stage {
        self.progress.watch(context)
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.progress.stage() == Stage::Aborted
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

    /// The callback's last act: `None` to return pend, else whether to accept.
    ///
    /// `record` is the callback's reference.
    pub(super) fn callback_returns(record: Ref<Self>) -> Option<bool> {
        let record = Ref::into_raw(record);
        // SAFETY: the callback's reference keeps the record alive; when the exchange succeeds it is the state's, and
        // the record is not touched here any more.
        let decided = unsafe { &(*record).progress }.step(Stage::Asking, Stage::Pended).err()?;
        // SAFETY: the record was not pended, so the reference is still this function's.
        drop(unsafe { Ref::from_raw(record) });
        Some(decided == Stage::Accepted)
    }

    fn step(&self, from: Stage, to: Stage) -> Result<(), Stage> {
        self.progress.step(from, to)
    }

    /// Moves a pended record on; gives the callback's reference to whoever succeeds.
    ///
    /// # Safety
    /// The pointer came from [`Ref::as_ptr`], and the caller has a reference, or the record is listed and the table
    /// locked.
    unsafe fn leave_pended(record: NonNull<Self>, to: Stage) -> Option<Ref<Self>> {
        // SAFETY: the caller says that the record is alive.
        unsafe { record.as_ref() }.step(Stage::Pended, to).ok()?;
        // SAFETY: `callback_returns` leaked this reference when it made the record pended; whoever moves the record on,
        // once, takes it back.
        Some(unsafe { Ref::from_raw(record.as_ptr()) })
    }

    /// Decides the request.
    ///
    /// IRQL: up to `DISPATCH_LEVEL`, but not in a completion routine, because it may call WSK.
    pub(super) fn decide(record: &Ref<Self>, accept: bool) -> Decided {
        if record.step(Stage::Asking, if accept { Stage::Accepted } else { Stage::Rejected }).is_ok() {
            record.listener.pending().remove(record);
            return Decided::Taken;
        }
        // When the gate is shut, closing the listener rejects what is pended.
        let Some(permit) = record.listener.call() else { return Decided::Gone };
        // SAFETY: `record` is a reference.
        let Some(pended) = (unsafe { Self::leave_pended(pointer(record), Stage::Completing) }) else {
            return Decided::Gone;
        };
        record.listener.pending().decided(record);
        let action = if accept { WskInspectAccept } else { WskInspectReject };
        // SAFETY: the gate is held, and `record` keeps the listener during the call, also when the request completes.
        unsafe { Self::complete(pended, permit.handle(), action) };
        Decided::Taken
    }

    /// Calls `WskInspectComplete`.
    ///
    /// # Safety
    /// - `pended` is the reference of whoever moved the record out of `Pended`; it becomes the IRP's.
    /// - `handle` is the record's listener, and the caller holds its gate, or is the one that closes it.
    unsafe fn complete(pended: Ref<Self>, handle: *mut WSK_SOCKET, action: WSK_INSPECT_ACTION) {
        // SAFETY: the caller keeps the socket from closing.
        let table = unsafe { (*handle).Dispatch }.cast::<WSK_PROVIDER_LISTEN_DISPATCH>();
        // SAFETY: the table is that of a listening socket; the member was always there.
        let Some(inspect_complete) = (unsafe { (*table).WskInspectComplete }) else {
            // Nobody can be told, so nothing becomes of the request.
            let _ = pended.step(Stage::Completing, Stage::Aborted);
            return pended.progress.wake();
        };
        let record = Ref::into_raw(pended);
        // SAFETY: the reference just given up keeps the record alive.
        let storage = unsafe { &(*record).irp };
        // SAFETY: the record was moved out of `Pended` once, so nobody else uses the storage; the reference keeps the
        // record where it is until the completion routine takes it back.
        let irp = unsafe { storage.prepare(completed, record.cast_mut().cast()) };
        // SAFETY: the record is alive; only the address of its own copy of the ID is taken.
        let id = unsafe { (*record).raw_id.get() };
        // SAFETY: the ID is the record's own copy (rule INSP-20), the action is accept or reject (rule ICMP-10), and
        // the IRP was prepared above. The status is that of the IRP (rule IRP-12).
        let _ = unsafe { inspect_complete(handle, id, action, irp) };
    }

    /// The token is dropped: the request is rejected, by the reaper if WSK has to be told.
    pub(super) fn abandon(record: &Ref<Self>) {
        if record.step(Stage::Asking, Stage::Rejected).is_ok() {
            return record.listener.pending().remove(record);
        }
        // The gate is held until the reaper has made the call, so that the reaper is still there to make it. When it
        // is shut, closing the listener rejects what is pended.
        let Some(permit) = record.listener.call() else { return };
        // SAFETY: `record` is a reference.
        let Some(pended) = (unsafe { Self::leave_pended(pointer(record), Stage::Completing) }) else {
            return;
        };
        record.listener.pending().decided(record);
        permit.keep();
        let queued = pointer(&pended);
        core::mem::forget(pended);
        // SAFETY: a record is moved out of `Pended` once, so the node is queued once; the reference just leaked keeps
        // the record until it was run. The node is its first field.
        unsafe { record.listener.client().reap(queued.cast::<Node>()) };
    }
}

fn pointer(record: &Ref<Record>) -> NonNull<Record> {
    // SAFETY: a counted reference is never null.
    unsafe { NonNull::new_unchecked(Ref::as_ptr(record).cast_mut()) }
}

/// # Safety
/// `node` is that of a record that [`Record::abandon`] left to the reaper, with a reference and the listener's gate.
unsafe fn reject_from_node(node: NonNull<Node>) {
    // SAFETY: the node is the first field of the record, and the queue owned this reference.
    let record = unsafe { Ref::<Record>::from_raw(node.as_ptr().cast_const().cast()) };
    let listener = record.listener.clone();
    if !listener.is_dead() {
        // SAFETY: the record was moved out of `Pended` before it was queued, with this reference; the gate is held.
        unsafe { Record::complete(record, listener.handle(), WskInspectReject) };
    }
    listener.leave();
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
    record.listener.note(record.irp_outcome());
    // A token whose listener closes stays inert.
    let _ = record.step(Stage::Completing, Stage::Completed);
    record.progress.wake();
    STATUS_MORE_PROCESSING_REQUIRED
}

/// How many lists the table spreads its records over.
const BUCKETS: usize = 32;
/// How many decided requests are remembered. WSK may be about to ask again about a request that is just being decided
/// (rule INSP-34); its serial number tells it from a later one in the same place.
const REMEMBERED: usize = 16;

/// The records of a listener that an abort may name.
pub(super) struct Pending {
    table: SpinLock<Table>,
}

struct Table {
    buckets: [Option<NonNull<Record>>; BUCKETS],
    /// The requests decided last, a ring.
    decided: [Option<InspectId>; REMEMBERED],
    next: usize,
    /// The listener closes: nothing is pended any more.
    shut: bool,
}

// SAFETY: the records are `Send + Sync`, and the lists are guarded by the lock.
unsafe impl Send for Table {}

fn bucket(id: InspectId) -> usize {
    // Keys are addresses or small numbers; serial numbers count up.
    ((id.key() >> 4) ^ id.key() ^ id.serial() as usize) % BUCKETS
}

impl Table {
    /// Takes a record out, if it is still there.
    fn unlink(&mut self, record: &Record) {
        let head = &mut self.buckets[bucket(record.id)];
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

    fn find(&self, id: InspectId) -> Option<NonNull<Record>> {
        let mut at = self.buckets[bucket(id)];
        while let Some(candidate) = at {
            // SAFETY: a listed record is alive.
            let record = unsafe { candidate.as_ref() };
            if record.id == id {
                break;
            }
            // SAFETY: the lock is held.
            at = unsafe { (*record.links.get()).next };
        }
        at
    }
}

impl Pending {
    pub(super) const fn new() -> Self {
        let (buckets, decided) = ([None; BUCKETS], [None; REMEMBERED]);
        Self { table: SpinLock::new(Table { buckets, decided, next: 0, shut: false }) }
    }

    /// Lists a new record. When the listener closes already its request is rejected, and the token will be inert.
    pub(super) fn insert(&self, record: &Ref<Record>) {
        let own = pointer(record);
        let mut table = self.table.lock();
        if table.shut {
            // The token has not been handed out yet, so nobody else moves the record.
            let _ = record.step(Stage::Asking, Stage::Aborted);
            return;
        }
        let head = &mut table.buckets[bucket(record.id)];
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

    /// Whether the request is, or was just, under inspection: WSK may ask again when the peer does (rule INSP-34).
    pub(super) fn knows(&self, id: InspectId) -> bool {
        let table = self.table.lock();
        table.decided.contains(&Some(id))
            || table.find(id).is_some_and(|found| {
                // SAFETY: a listed record is alive.
                let record = unsafe { found.as_ref() };
                // One that is being decided is listed until the decision is noted, so it is known all the way.
                record.progress.stage() != Stage::Aborted
            })
    }

    fn remove(&self, record: &Record) {
        self.table.lock().unlink(record);
    }

    /// Takes out a record that WSK is to be told the decision of.
    fn decided(&self, record: &Record) {
        let mut table = self.table.lock();
        table.unlink(record);
        let next = table.next;
        table.decided[next] = Some(record.id);
        table.next = (next + 1) % REMEMBERED;
    }

    /// Makes the token of an aborted request inert. `Asking` cannot be seen here: an abort comes after the callback's
    /// return.
    pub(super) fn abort(&self, id: InspectId) {
        let mut table = self.table.lock();
        let Some(found) = table.find(id) else { return };
        // SAFETY: the record is listed, and the table locked.
        let aborted = unsafe { Record::leave_pended(found, Stage::Aborted) };
        if let Some(record) = &aborted {
            table.unlink(record);
        }
        drop(table);
        if let Some(record) = aborted {
            record.progress.wake();
        }
    }

    /// The listener is about to close: rejects whatever is pended, and makes the tokens inert. Without a handle, the
    /// listener is dead, and its requests are gone already.
    ///
    /// # Safety
    /// `handle` is the listener, and the caller is the one that closes it and has not done so yet.
    pub(super) unsafe fn reject_all(&self, handle: Option<*mut WSK_SOCKET>) {
        self.table.lock().shut = true;
        for index in 0..BUCKETS {
            while let Some((record, pended)) = self.end_first(index) {
                record.progress.wake();
                if let (Some(pended), Some(handle)) = (pended, handle) {
                    // SAFETY: the record was just moved out of `Pended`; the rest is the caller's promise.
                    unsafe { Record::complete(pended, handle, WskInspectReject) };
                }
            }
        }
    }

    /// Takes the first record of a bucket out and ends it. The second reference is the callback's, if it was pended.
    fn end_first(&self, index: usize) -> Option<(Ref<Record>, Option<Ref<Record>>)> {
        let mut table = self.table.lock();
        let first = table.buckets[index]?;
        // SAFETY: the pointer came from `Ref::as_ptr`, and a listed record is alive.
        let record = unsafe { Ref::clone_from_raw(first.as_ptr().cast_const()) };
        table.unlink(&record);
        // If neither succeeds, it was decided at this moment, and whoever did finds it taken out.
        let pended = match record.step(Stage::Asking, Stage::Aborted) {
            Ok(()) => None,
            // SAFETY: `record` is a reference.
            Err(_) => unsafe { Record::leave_pended(first, Stage::Aborted) },
        };
        Some((record, pended))
    }
}
