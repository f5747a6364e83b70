//! Retained data as pieces that can be sent, without a copy.
//!
//! ```text
//!   RetainedData ──into_pieces──▶ RetainedPiece … ──send──▶ a request on another connection
//!                                      │                        │ completes
//!                                      └────────┬───────────────┘
//!                                               ▼ the last piece is dropped
//!                                           WskRelease
//! ```
//!
//! The elements of an indication list have to stay linked as they are, so each piece describes one of them,
//! and all share the list.
//!
//! # Two connections that relay to each other
//!
//! A piece of one connection that is being sent on another keeps the first from closing. If both relay to
//! each other, and neither peer reads any more, each waits for the other. So a connection whose rundown
//! begins while it has pieces is first disconnected abortively, which ends its sends (rule DISC-25), by the
//! reaper, with an IRP that is reserved together with the first pieces. Then the pieces of the other
//! connection are released, that closes, and with its sends the pieces of this one.
//!
//! # Pieces of sends whose future was dropped
//!
//! The piece of a detached or dropped send is dropped in its completion routine, where WSK must not be
//! called. The reaper releases those, from a node in the list itself.

use core::ffi::c_void;
use core::fmt;
use core::ptr::NonNull;

use wsk_sys::nt::NTSTATUS;
use wsk_sys::{WSK_BUF, WSK_DATA_INDICATION, WSK_FLAG_ABORTIVE};

use super::RetainedData;
use super::shared::ConnectionRef;
use crate::buffer::{Describe, IoBuf};
use crate::client::Node;
use crate::error::{Error, Operation, Result};
use crate::memory::{OutOfMemory, Ref};
use crate::operation::{Completion, Outcome, ReservedIrp};
use crate::socket::ConnectionTable;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// One element of retained data; the last one that is dropped gives the data back (`WskRelease`).
///
/// It can be sent on any connection, without a copy. It keeps the connection it came from from closing.
pub struct RetainedPiece {
    buffer: WSK_BUF,
    /// Keeps the memory.
    list: Ref<List>,
}

// SAFETY: the descriptor leads to memory that the list keeps, which may be read from any thread.
unsafe impl Send for RetainedPiece {}
// SAFETY: a shared piece gives its length, and a descriptor of memory that is not written.
unsafe impl Sync for RetainedPiece {}

// SAFETY: the memory is that of the retained list, which the piece keeps until it is dropped.
unsafe impl Describe for RetainedPiece {
    fn describe(&self) -> Result<WSK_BUF> {
        Ok(self.buffer)
    }

    fn orphaned(self) {
        List::drop_later(self.list);
    }
}

impl IoBuf for RetainedPiece {
    fn len(&self) -> usize {
        self.buffer.Length
    }
}

impl fmt::Debug for RetainedPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetainedPiece").field("len", &self.buffer.Length).finish_non_exhaustive()
    }
}

/// The elements of retained data that have bytes, in order; see [`RetainedData::into_pieces`].
pub struct RetainedPieces {
    next: *mut WSK_DATA_INDICATION,
    list: Ref<List>,
}

// SAFETY: the pointer leads into the list, which may be read from any thread until it is released.
unsafe impl Send for RetainedPieces {}

impl Iterator for RetainedPieces {
    type Item = RetainedPiece;

    fn next(&mut self) -> Option<RetainedPiece> {
        loop {
            // SAFETY: the elements are valid as long as the list, which this value keeps.
            let element = unsafe { self.next.as_ref() }?;
            self.next = element.Next;
            // Elements may be empty (rule RCVE-13).
            if element.Buffer.Length > 0 {
                return Some(RetainedPiece { buffer: element.Buffer, list: self.list.clone() });
            }
        }
    }
}

impl fmt::Debug for RetainedPieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetainedPieces").finish_non_exhaustive()
    }
}

/// Retained data that pieces share. The data is released before the abort is given up.
///
/// # Invariants
/// `node` is queued by the one who makes `orphans` more than zero, and the reaper, which runs it, makes that
/// zero again. Each orphan is a reference on the list that the reaper drops.
#[repr(C)]
struct List {
    node: Node,
    orphans: AtomicUsize,
    data: RetainedData,
    _abort: AbortUse,
}

impl List {
    /// Drops a piece's reference where the data cannot be released, because that calls WSK: the reaper does
    /// it.
    ///
    /// IRQL: up to `DISPATCH_LEVEL`; makes no WSK call and allocates nothing.
    fn drop_later(list: Ref<Self>) {
        let raw = Ref::into_raw(list);
        // SAFETY: the reference just leaked keeps the list until the reaper drops it.
        let list = unsafe { &*raw };
        // Once this orphan is counted the reaper may drop its reference, if others have queued the node. So
        // the client is kept by a reference of its own.
        let client = list.data.connection().client().clone();
        if list.orphans.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        // SAFETY: a counted reference is never null.
        let node = unsafe { NonNull::new_unchecked(raw.cast_mut().cast::<Node>()) };
        // SAFETY: the node is the first field. It is not queued: `orphans` was zero, so the reaper has run it
        // if it ever was. The orphan's reference keeps the list until the reaper has run it.
        unsafe { client.reap(node) };
    }
}

/// Drops the references of orphaned pieces.
///
/// # Safety
/// `node` is that of a list that [`List::drop_later`] has left to the reaper.
unsafe fn drop_orphans(node: NonNull<Node>) {
    let raw: *const List = node.as_ptr().cast_const().cast();
    // SAFETY: at least one orphan's reference keeps the list.
    let orphans = unsafe { &*raw }.orphans.swap(0, Ordering::AcqRel);
    for _ in 0..orphans {
        // SAFETY: each orphan has leaked a reference.
        drop(unsafe { Ref::from_raw(raw) });
    }
}

impl RetainedData {
    /// Turns the data into pieces, each of which can be sent, without a copy. The data is given back when the
    /// last piece is dropped.
    ///
    /// A connection that is closed or dropped while pieces are left is reset at once, so that connections
    /// which relay to each other can close.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`; allowed inside the receive handler.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`; the data comes back.
    ///
    /// ```
    /// # use wsk::{Result, RetainedData, SendHalf};
    /// /// Sends what another connection has received.
    /// async fn relay(data: RetainedData, to: &mut SendHalf) -> Result<()> {
    ///     let pieces = data.into_pieces().map_err(|(error, _)| error)?;
    ///     for piece in pieces {
    ///         let (sent, _) = to.send(piece).await;
    ///         sent?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn into_pieces(self) -> core::result::Result<RetainedPieces, (Error, Self)> {
        let out_of_memory = || Error::out_of_memory(Operation::Receive);
        let connection = self.connection().clone();
        let Ok(abort) = AbortUse::try_new(&connection) else { return Err((out_of_memory(), self)) };
        let next = self.list();
        let make = |(data, abort)| List {
            node: Node::new(drop_orphans),
            orphans: AtomicUsize::new(0),
            data,
            _abort: abort,
        };
        let list = Ref::try_make(Some(connection.client().cache()), (self, abort), make)
            .map_err(|(_, (data, _))| (out_of_memory(), data))?;
        // The rundown may have begun before there was an abort to be made.
        if !connection.is_open() {
            start(&connection);
        }
        Ok(RetainedPieces { next, list })
    }
}

/// The abortive disconnect of a connection that has pieces, ready to be made.
///
/// # Invariants
/// `node` is queued once at most, by the one that takes the block out of the state of the connection and gets
/// the protection for an abort, which the reaper then has.
#[repr(C)]
pub(super) struct AbortBlock {
    node: Node,
    irp: ReservedIrp,
    connection: ConnectionRef,
    /// The lists of pieces that need it. Changed under the lock of the connection's state.
    lists: AtomicUsize,
}

/// A list's use of the connection's abort.
struct AbortUse(Ref<AbortBlock>);

impl AbortUse {
    /// Uses the abort that is there, or makes one ready.
    ///
    /// Called with retained data of the connection, which keeps its client's device.
    fn try_new(connection: &ConnectionRef) -> core::result::Result<Self, OutOfMemory> {
        let state = &connection.common().state;
        if let Some(block) = state.lock().abort.as_ref() {
            return Ok(Self::add(block));
        }
        let fresh = AbortBlock::try_new(connection)?;
        let mut state = state.lock();
        // Another one may have been faster.
        let uses = Self::add(state.abort.get_or_insert_with(|| fresh.clone()));
        drop(state);
        drop(fresh);
        Ok(uses)
    }

    /// Called with the lock held.
    fn add(block: &Ref<AbortBlock>) -> Self {
        block.lists.fetch_add(1, Ordering::Relaxed);
        Self(block.clone())
    }
}

impl Drop for AbortUse {
    fn drop(&mut self) {
        let mut state = self.0.connection.common().state.lock();
        let is_last = self.0.lists.fetch_sub(1, Ordering::Relaxed) == 1;
        // It is not there if the abort was started.
        let unused = state.abort.take_if(|block| is_last && Ref::ptr_eq(block, &self.0));
        drop(state);
        // Freed outside of the lock.
        drop(unused);
    }
}

impl AbortBlock {
    fn try_new(connection: &ConnectionRef) -> core::result::Result<Ref<Self>, OutOfMemory> {
        let client = connection.client();
        let make = |connection| Self {
            node: Node::new(abort),
            irp: ReservedIrp::new(),
            connection,
            lists: AtomicUsize::new(0),
        };
        let block =
            Ref::try_make(Some(client.cache()), connection.clone(), make).map_err(|(error, _)| error)?;
        let context = Ref::as_ptr(&block).cast_mut().cast();
        // SAFETY: the block is new and never moves, so the IRP is not used; `completed` takes the address for
        // a reference only when the IRP was handed out, and then `abort` has made that reference. The caller
        // keeps the device.
        unsafe { block.irp.reserve::<Self>(client.device(), context) }?;
        Ok(block)
    }
}

/// Has a connection whose rundown has begun disconnected abortively, if pieces keep it from closing.
///
/// IRQL: up to `DISPATCH_LEVEL`; makes no WSK call and allocates nothing.
pub(super) fn start(connection: &ConnectionRef) {
    let Some(block) = connection.common().state.lock().abort.take() else { return };
    let Some(permit) = connection.acquire_for_abort() else { return };
    permit.keep();
    let raw = Ref::into_raw(block);
    // SAFETY: a counted reference is never null.
    let node = unsafe { NonNull::new_unchecked(raw.cast_mut().cast::<Node>()) };
    // SAFETY: the protection for an abort is given once, so the node, which is the first field, is queued
    // once; the reference just leaked keeps the block until it was run.
    unsafe { connection.client().reap(node) };
}

/// Calls `WskDisconnect`.
///
/// # Safety
/// `node` is that of a block that [`start`] left to the reaper, with a reference and rundown protection.
unsafe fn abort(node: NonNull<Node>) {
    // SAFETY: the node is the first field of the block, and the queue owned this reference.
    let block = unsafe { Ref::<AbortBlock>::from_raw(node.as_ptr().cast_const().cast()) };
    let connection = block.connection.clone();
    // SAFETY: `start` has kept this protection for the reaper, which runs the node once.
    let permit = unsafe { connection.resume() };
    // SAFETY: the socket is a connection.
    let table = unsafe { permit.table::<ConnectionTable>() };
    let Some(disconnect) = table.disconnect() else { return };
    // SAFETY: it was reserved when the block was made, and the node is run once.
    let irp = unsafe { block.irp.take() };
    // The completion routine takes it back.
    let _ = Ref::into_raw(block);
    // SAFETY: an abortive disconnect has no buffer (rule DISC-23), and the IRP was reserved. The status is
    // that of the IRP (rule IRP-12).
    let _ = unsafe { disconnect(permit.handle(), core::ptr::null_mut(), WSK_FLAG_ABORTIVE, irp) };
    drop(permit);
}

impl Completion for AbortBlock {
    unsafe fn completed(context: *mut c_void, status: NTSTATUS) {
        // SAFETY: `abort` leaked exactly this reference.
        let block = unsafe { Ref::<Self>::from_raw(context.cast_const().cast()) };
        block.connection.close_if_dead(Outcome::Completed { status, information: 0 });
    }
}
