//! Pool: the memory of drivers. Every block has a tag.
//!
//! ```text
//!   allocate ──► live: in the table, guarded by a pattern behind it, counted by tag
//!                  │ free
//!                  ├─ all is well ──► quarantined, filled with a pattern ──► pattern intact? ──► gone
//!                  └─ an object in it is still in use ──► condemned: kept, to do no harm beyond the report
//! ```
//!
//! IRPs, MDLs and I/O work items are blocks of their own [`Kind`]. Everything here is non-paged unless paged
//! pool was asked for; together with the static data of the image it is all the non-paged memory that a
//! kernel knows.

mod functions;
mod image;
mod pins;
mod table;

use std::ffi::c_void;
use std::fmt;
use std::ops::Range;

use parking_lot::RwLock;
use wsk_sys::nt::APC_LEVEL;

pub use functions::*;
pub(crate) use image::contains as in_image;
use pins::{IrpCache, PendingIrps, Pins};
use table::{Removed, Table};

use crate::checker::context::{self, check_irql};
use crate::checker::violation::rule;
use crate::kernel::{Inner, Kernel};
use crate::thread::current::CurrentKernel;

/// Makes a tag of four characters, the first one in the lowest byte, as C does it.
pub const fn tag(characters: [u8; 4]) -> u32 {
    u32::from_le_bytes(characters)
}

/// The tag of allocated IRPs.
pub const IRP_TAG: u32 = tag(*b"Irp ");
/// The tag of allocated MDLs.
pub const MDL_TAG: u32 = tag(*b"Mdl ");
/// The tag of allocated I/O work items.
pub const WORK_ITEM_TAG: u32 = tag(*b"IoWi");

/// Kind of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A driver's own, non-paged.
    NonPaged,
    /// A driver's own, paged.
    Paged,
    /// An allocated IRP.
    Irp,
    /// An allocated MDL.
    Mdl,
    /// An allocated I/O work item.
    WorkItem,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::NonPaged => "pool block",
            Self::Paged => "paged pool block",
            Self::Irp => "IRP",
            Self::Mdl => "MDL",
            Self::WorkItem => "work item",
        }
    }

    fn is_plain(self) -> bool {
        matches!(self, Self::NonPaged | Self::Paged)
    }
}

/// Statistics of one tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Blocks now.
    pub blocks: usize,
    /// Bytes now.
    pub bytes: usize,
    /// The most bytes there ever were.
    pub peak_bytes: usize,
    /// Allocations ever.
    pub allocations: u64,
}

/// A block that was not freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// The kind of the block.
    pub kind: Kind,
    /// Its tag.
    pub tag: u32,
    /// Its size.
    pub bytes: usize,
    /// Which allocation of its kernel it was, counting from 1.
    pub number: u64,
    /// The location of the allocation, if [`trace_allocations`](crate::Config::trace_allocations) is on.
    pub location: Option<String>,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, tag, bytes, number, location } = self;
        let tag = tag.to_le_bytes();
        write!(f, "{} '{}' of {bytes} bytes, allocation {number}", kind.name(), tag.escape_ascii())?;
        match location {
            Some(location) => write!(f, ", at {location}"),
            None => Ok(()),
        }
    }
}

/// The pool of one kernel.
#[derive(Debug)]
pub(crate) struct Pool {
    trace: bool,
    table: RwLock<Table>,
    pins: Pins,
    pending: PendingIrps,
    irp_cache: IrpCache,
}

impl Pool {
    pub(crate) fn new(poison: bool, trace: bool) -> Self {
        let table = RwLock::new(Table::new(poison));
        Self { trace, table, pins: Pins::new(), pending: PendingIrps::new(), irp_cache: IrpCache::new() }
    }

    /// Allocates a block of `bytes`; returns null if the host has no memory.
    pub(crate) fn allocate(&self, bytes: usize, tag: u32, kind: Kind) -> *mut c_void {
        let location = self.trace.then(crate::checker::location);
        self.table.write().insert(bytes, tag, kind, location).cast()
    }

    /// Returns true if `address`, where an IRP is initialized, is in pool.
    pub(crate) fn has_irp(&self, address: usize) -> bool {
        self.irp_cache.contains(address) || self.table.read().note_irp(address, &self.irp_cache)
    }

    /// Records that the driver at location `from` of the IRP at `address` has passed it to a lower driver.
    pub(crate) fn mark_irp_pending(&self, address: usize, from: i8) {
        self.pending.add(address, from);
    }

    /// Records that the completion of the IRP at `address` has reached the driver at location `to`.
    pub(crate) fn mark_irp_returned(&self, address: usize, to: i8) {
        self.pending.remove(address, to);
    }

    /// Returns true if a lower driver has the IRP at `address`.
    pub(crate) fn is_irp_pending(&self, address: usize) -> bool {
        self.pending.contains(address)
    }

    /// Reports a write past the end of the block of the IRP at `address`, and restores the guard.
    pub(crate) fn check_behind_irp(&self, inner: &Inner, call: &str, address: usize) {
        let intact = self.table.read().is_guarded(address);
        if !intact && let Some(detail) = self.table.write().restore_guard(address) {
            inner.violation(rule::POOL_OVERRUN, call, detail);
        }
    }

    /// Returns true if a block of `kind` begins at `address`.
    pub(crate) fn is(&self, address: usize, kind: Kind) -> bool {
        self.table.read().kind_at(address) == Some(kind)
    }

    /// Returns true if `address` lies in a block that was freed recently.
    pub(crate) fn is_freed(&self, address: usize) -> bool {
        self.table.read().is_freed(address)
    }

    pub(crate) fn is_non_paged(&self, address: usize, bytes: usize) -> bool {
        self.table.read().is_non_paged(address, bytes) || in_image(address, bytes)
    }

    pub(crate) fn stats(&self, tag: u32) -> PoolStats {
        self.table.read().stats(tag)
    }

    pub(crate) fn total(&self) -> PoolStats {
        self.table.read().total()
    }

    pub(crate) fn leaks(&self) -> Vec<Leak> {
        self.table.read().leaks()
    }

    /// Releases the quarantined blocks, and reports those that were written after their free.
    pub(crate) fn settle(&self, inner: &Inner) {
        let written = self.table.write().settle();
        report_written(inner, "Kernel::shutdown", &written);
    }
}

fn report_written(inner: &Inner, call: &str, written: &[Leak]) {
    for block in written {
        inner.violation(
            rule::POOL_AFTER_FREE,
            call,
            format!("a block was written after it was freed: {block}"),
        );
    }
}

/// Frees a block. A wrong block, kind or tag is reported; a block that is still in use is kept.
pub(crate) fn free(kernel: &CurrentKernel, call: &'static str, block: *mut c_void, kind: Kind, tag: u32) {
    let address = block.addr();
    let in_use = |range: Range<usize>| {
        if let Some(irp) = kernel.pool.pending.within(&range) {
            let offset = irp - range.start;
            let what = format!("it holds an IRP, at offset {offset}, that a lower driver still has");
            return Some(("IRP-16", what));
        }
        if let Some((rule, what)) = kernel.pool.pins.within(&range) {
            return Some((rule, format!("it is still needed for {what}")));
        }
        let user = kernel.timers.within(&range).map(|_| "a timer that is set");
        let user = user.or_else(|| kernel.dpcs.within(&range));
        let user = user.or_else(|| kernel.work.within(&range).map(|_| "a work item that is queued"));
        user.map(|what| (rule::POOL_IN_USE, format!("it holds {what}")))
    };
    let removed = kernel.table().write().remove(address, kind, tag, &kernel.pool.irp_cache, in_use);
    match removed {
        Removed::Freed { kind, complaint, written } => {
            if kind == Kind::Paged {
                check_paged(kernel, call);
            }
            if let Some((rule, detail)) = complaint {
                kernel.violation(rule, call, detail);
            }
            report_written(kernel, call, &written);
        }
        Removed::Refused { rule, detail } => kernel.violation(rule, call, detail),
    }
}

/// Checks the use of paged pool: not above APC_LEVEL, and not in callbacks and completion routines, whose
/// IRQL is unknown.
fn check_paged(kernel: &CurrentKernel, call: &'static str) {
    check_irql(kernel, call, APC_LEVEL);
    if context::in_callback() || context::in_completion() {
        kernel.violation("IRQL-14", call, "a callback or completion routine used paged pool".to_owned());
    }
}

/// Memory that must not be freed; see [`Kernel::pin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedMemory {
    /// The address of the memory.
    pub address: usize,
    /// The number of the pin in its kernel.
    pub number: u64,
}

impl Inner {
    fn table(&self) -> &RwLock<Table> {
        &self.pool.table
    }
}

impl Kernel {
    /// The statistics of `tag`; see [`tag`].
    pub fn pool_stats(&self, tag: u32) -> PoolStats {
        self.inner().pool.stats(tag)
    }

    /// The statistics of all tags; the peak is the sum of the tags' peaks.
    pub fn pool_total(&self) -> PoolStats {
        self.inner().pool.total()
    }

    /// The blocks that are allocated now.
    pub fn live_blocks(&self) -> Vec<Leak> {
        self.inner().pool.leaks()
    }

    /// Pins the memory at `address`: if it is in a pool block of this kernel, freeing that block breaks
    /// `rule`, and the report names `what`.
    ///
    /// A provider with a pending request uses this for the pointers that it keeps into the driver's memory.
    pub fn pin(&self, address: *const c_void, rule: &'static str, what: &'static str) -> PinnedMemory {
        let address = address.addr();
        PinnedMemory { address, number: self.inner().pool.pins.begin(address, rule, what) }
    }

    /// Ends a [`pin`](Self::pin).
    pub fn unpin(&self, pinned: PinnedMemory) {
        self.inner().pool.pins.end(pinned.address, pinned.number);
    }

    /// Returns true if `address` lies in a block that was freed recently. Without
    /// [poisoning](crate::Config::poison), freed blocks are forgotten at once.
    pub fn is_freed(&self, address: *const c_void) -> bool {
        self.inner().pool.is_freed(address.addr())
    }

    /// The number of bytes from `address` to the end of its pool block. `None` if it is not in one, such as
    /// the stack and static data.
    pub fn room(&self, address: *const c_void) -> Option<usize> {
        self.inner().pool.table.read().room(address.addr())
    }

    /// Reads the word at `address`, if that is aligned and non-paged: static data, or in a pool block of this
    /// kernel, which cannot be freed meanwhile. For an address from a driver that may be anything.
    ///
    /// If the operating system does not report static data, only pool is read.
    pub fn word_at(&self, address: *const c_void) -> Option<usize> {
        let at = address.addr();
        if let Some(word) = self.inner().pool.table.read().word_at(at) {
            return Some(word);
        }
        let reported = cfg!(any(target_os = "linux", windows));
        if !reported || !at.is_multiple_of(align_of::<usize>()) || !in_image(at, size_of::<usize>()) {
            return None;
        }
        // SAFETY: the word is aligned and lies in an image, which stays loaded; the read is volatile, as
        // others may write it.
        Some(unsafe { address.cast::<usize>().read_volatile() })
    }

    /// Returns true if `bytes` at `address` are non-paged memory: a block of this kernel, or static data.
    ///
    /// If the operating system does not report static data, all memory outside pool counts as static data.
    pub fn is_non_paged(&self, address: *const c_void, bytes: usize) -> bool {
        self.inner().pool.is_non_paged(address.addr(), bytes)
    }
}
