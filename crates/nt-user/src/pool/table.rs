//! The table of blocks.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use wsk_sys::nt::IO_STACK_LOCATION;

use super::pins::IrpCache;
use super::{Kind, Leak, PoolStats};
use crate::checker::violation::rule;

/// Fill bytes of new memory, freed memory, and the guard behind a block.
const FILL_NEW: u8 = 0xCD;
const FILL_FREED: u8 = 0xDD;
const FILL_GUARD: u8 = 0xFD;
/// Size of the guard behind every block: at least a stack location, which is the overrun of a driver that
/// writes the current location of an IRP before handing it down.
const GUARD: usize = 80;
const _: () = assert!(GUARD >= size_of::<IO_STACK_LOCATION>() && GUARD.is_multiple_of(ALIGNMENT));
/// Blocks of at least this size are page-aligned, as on Windows.
const PAGE: usize = 4096;
const ALIGNMENT: usize = 16;
/// The most freed blocks and bytes in quarantine.
const QUARANTINE_BLOCKS: usize = 128;
const QUARANTINE_BYTES: usize = 256 * 1024;

/// A block of pool memory.
#[derive(Debug)]
pub(super) struct Block {
    address: *mut u8,
    layout: Layout,
    bytes: usize,
    tag: u32,
    kind: Kind,
    number: u64,
    location: Option<String>,
    /// Offsets at which IRPs have been initialized, sorted.
    irps: Mutex<Vec<usize>>,
}

impl Block {
    fn range(&self) -> Range<usize> {
        self.address.addr()..self.address.addr() + self.bytes
    }

    fn describe(&self) -> Leak {
        Leak {
            kind: self.kind,
            tag: self.tag,
            bytes: self.bytes,
            number: self.number,
            location: self.location.clone(),
        }
    }

    fn is_filled(&self, part: Range<usize>, with: u8) -> bool {
        let start = self.address.wrapping_add(part.start);
        // SAFETY: the part lies inside the allocation and has been filled, and the table owns it.
        let part = unsafe { std::slice::from_raw_parts(start, part.len()) };
        // All bytes are equal if each equals its neighbor; comparing slices is the fast way to check that.
        part.split_last().is_none_or(|(last, others)| *last == with && *others == part[1..])
    }

    /// Describes a write past the end of the block.
    fn overrun(&self) -> Option<String> {
        let guard = self.bytes..self.bytes + GUARD;
        if self.is_filled(guard.clone(), FILL_GUARD) {
            return None;
        }
        let is_written = |offset: &usize| !self.is_filled(*offset..offset + 1, FILL_GUARD);
        let first = guard.clone().find(is_written)?;
        let last = guard.rev().find(is_written)?;
        let (from, bytes) = (first - self.bytes, last - first + 1);
        let place =
            if from == 0 { "directly behind it".to_owned() } else { format!("{from} bytes behind it") };
        Some(format!("memory past the end of {} was written: {bytes} bytes, {place}", self.describe()))
    }

    fn fill(&self, part: Range<usize>, with: u8) {
        let start = self.address.wrapping_add(part.start);
        // SAFETY: the part lies inside the allocation, and the table owns it.
        unsafe { ptr::write_bytes(start, with, part.len()) };
    }

    /// Releases the memory to the host.
    fn release(self) {
        // SAFETY: the block was allocated with this layout, and the table owns it.
        unsafe { dealloc(self.address, self.layout) };
    }
}

/// The outcome of a removal.
pub(super) enum Removed {
    /// The block is freed. `complaint` is a defect of the free; `written` are earlier freed blocks that were
    /// written.
    Freed { kind: Kind, complaint: Option<(&'static str, String)>, written: Vec<Leak> },
    /// Nothing is freed.
    Refused { rule: &'static str, detail: String },
}

/// The table of blocks.
///
/// # Invariants
/// `blocks` holds every allocated block, by address. The other collections hold blocks that drivers must not
/// use.
#[derive(Debug)]
pub(super) struct Table {
    poison: bool,
    blocks: BTreeMap<usize, Block>,
    tags: BTreeMap<u32, PoolStats>,
    allocations: u64,
    quarantine: VecDeque<Block>,
    quarantined_bytes: usize,
    condemned: Vec<Block>,
}

// SAFETY: the pointers in the blocks are the table's own memory, reached through the table only.
unsafe impl Send for Table {}
// SAFETY: a shared table changes no block, except for the recorded IRPs, which have a lock.
unsafe impl Sync for Table {}

impl Table {
    pub(super) fn new(poison: bool) -> Self {
        Self {
            poison,
            blocks: BTreeMap::new(),
            tags: BTreeMap::new(),
            allocations: 0,
            quarantine: VecDeque::new(),
            quarantined_bytes: 0,
            condemned: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, bytes: usize, tag: u32, kind: Kind, location: Option<String>) -> *mut u8 {
        let alignment = if bytes >= PAGE { PAGE } else { ALIGNMENT };
        let size = bytes.checked_add(GUARD);
        let Some(layout) = size.and_then(|size| Layout::from_size_align(size, alignment).ok()) else {
            return ptr::null_mut();
        };
        // SAFETY: the layout is not empty, because of the guard.
        let address = unsafe { alloc(layout) };
        if address.is_null() {
            return address;
        }
        self.allocations += 1;
        let number = self.allocations;
        let block = Block { address, layout, bytes, tag, kind, number, location, irps: Mutex::default() };
        if self.poison {
            block.fill(0..bytes, FILL_NEW);
        }
        block.fill(bytes..bytes + GUARD, FILL_GUARD);
        let stats = self.tags.entry(tag).or_default();
        stats.blocks += 1;
        stats.bytes += bytes;
        stats.peak_bytes = stats.peak_bytes.max(stats.bytes);
        stats.allocations += 1;
        self.blocks.insert(address.addr(), block);
        address
    }

    pub(super) fn remove(
        &mut self,
        address: usize,
        kind: Kind,
        tag: u32,
        irp_cache: &IrpCache,
        in_use: impl FnOnce(Range<usize>) -> Option<(&'static str, String)>,
    ) -> Removed {
        let Some(block) = self.blocks.get(&address) else {
            return Removed::Refused { rule: rule::POOL_FREE, detail: self.explain(address, kind) };
        };
        if block.kind != kind && !(block.kind.is_plain() && kind.is_plain()) {
            let detail = format!("{} was freed by the function for {}s", block.describe(), kind.name());
            return Removed::Refused { rule: rule::POOL_FREE, detail };
        }
        let Some(block) = self.blocks.remove(&address) else {
            unreachable!("the block was there, and the table is borrowed exclusively");
        };
        let irps = block.irps.lock();
        irps.iter().for_each(|offset| irp_cache.remove(address + offset));
        drop(irps);
        let stats = self.tags.entry(block.tag).or_default();
        stats.blocks -= 1;
        stats.bytes -= block.bytes;
        let kind = block.kind;
        if let Some((rule, why)) = in_use(block.range()) {
            let detail = format!("{} was freed, but {why}", block.describe());
            self.condemned.push(block);
            return Removed::Freed { kind, complaint: Some((rule, detail)), written: Vec::new() };
        }
        let complaint = if let Some(overrun) = block.overrun() {
            Some((rule::POOL_OVERRUN, overrun))
        } else if tag != 0 && tag != block.tag {
            let tag = tag.to_le_bytes();
            let detail = format!("{} was freed with the tag '{}'", block.describe(), tag.escape_ascii());
            Some((rule::POOL_TAG, detail))
        } else {
            None
        };
        Removed::Freed { kind, complaint, written: self.discard(block) }
    }

    /// Describes why there is no block at `address`.
    fn explain(&self, address: usize, kind: Kind) -> String {
        let kind = kind.name();
        let at = |block: &&Block| block.range().start == address;
        if let Some(block) = self.quarantine.iter().rev().find(at).or_else(|| self.condemned.iter().find(at))
        {
            return format!("freed twice: {}", block.describe());
        }
        match self.find(address) {
            Some(block) => format!(
                "{address:#X} is not the start of an allocated {kind} but lies inside {}",
                block.describe()
            ),
            None => format!("{address:#X} is not an allocated {kind} of this kernel"),
        }
    }

    /// Quarantines a freed block, or releases it. Returns the blocks that leave the quarantine and have been
    /// written.
    fn discard(&mut self, block: Block) -> Vec<Leak> {
        if !self.poison {
            block.release();
            return Vec::new();
        }
        let bytes = block.bytes;
        block.fill(0..bytes, FILL_FREED);
        self.quarantine.push_back(block);
        self.quarantined_bytes += bytes;
        let mut written = Vec::new();
        while self.quarantine.len() > QUARANTINE_BLOCKS || self.quarantined_bytes > QUARANTINE_BYTES {
            written.extend(self.evict());
        }
        written
    }

    fn evict(&mut self) -> Option<Leak> {
        let block = self.quarantine.pop_front()?;
        self.quarantined_bytes -= block.bytes;
        let written = (!block.is_filled(0..block.bytes, FILL_FREED)).then(|| block.describe());
        block.release();
        written
    }

    pub(super) fn settle(&mut self) -> Vec<Leak> {
        let mut written = Vec::new();
        while !self.quarantine.is_empty() {
            written.extend(self.evict());
        }
        written
    }

    /// The block that covers `address`.
    fn find(&self, address: usize) -> Option<&Block> {
        let (_, block) = self.blocks.range(..=address).next_back()?;
        (address < block.range().end.max(block.range().start + 1)).then_some(block)
    }

    /// Records that an IRP is initialized at `address`; returns false if that is not in pool.
    pub(super) fn note_irp(&self, address: usize, irp_cache: &IrpCache) -> bool {
        let Some(block) = self.find(address) else { return false };
        let offset = address - block.range().start;
        let mut irps = block.irps.lock();
        // Before the block can be removed, which needs exclusive access to the table.
        irp_cache.add(address);
        if let Err(place) = irps.binary_search(&offset) {
            irps.insert(place, offset);
        }
        true
    }

    /// Returns true unless memory behind the block that covers `address` was written.
    pub(super) fn is_guarded(&self, address: usize) -> bool {
        let whole = |block: &Block| block.is_filled(block.bytes..block.bytes + GUARD, FILL_GUARD);
        self.find(address).is_none_or(whole)
    }

    /// Describes a write past the end of the block that covers `address`, and restores the guard.
    pub(super) fn restore_guard(&mut self, address: usize) -> Option<String> {
        let block = self.find(address)?;
        let overrun = block.overrun()?;
        block.fill(block.bytes..block.bytes + GUARD, FILL_GUARD);
        Some(overrun)
    }

    /// Returns true if a freed block that is still kept covers `address`.
    pub(super) fn is_freed(&self, address: usize) -> bool {
        let mut freed = self.quarantine.iter().chain(&self.condemned);
        self.find(address).is_none() && freed.any(|block| block.range().contains(&address))
    }

    pub(super) fn is_non_paged(&self, address: usize, bytes: usize) -> bool {
        self.find(address).is_some_and(|block| {
            block.kind != Kind::Paged
                && address.checked_add(bytes).is_some_and(|end| end <= block.range().end)
        })
    }

    /// Reads the word at `address`, if it is aligned and lies in a non-paged block. No block is removed while
    /// the table is borrowed.
    pub(super) fn word_at(&self, address: usize) -> Option<usize> {
        if !address.is_multiple_of(align_of::<usize>()) || !self.is_non_paged(address, size_of::<usize>()) {
            return None;
        }
        let block = self.find(address)?;
        let word = block.address.wrapping_add(address - block.range().start).cast::<usize>();
        // SAFETY: the word is aligned and lies in a live block, which was filled when it was allocated.
        let word = unsafe { AtomicUsize::from_ptr(word) };
        // Its driver may be writing to it.
        Some(word.load(Ordering::Relaxed))
    }

    /// The kind of the block that begins at `address`.
    pub(super) fn kind_at(&self, address: usize) -> Option<Kind> {
        self.blocks.get(&address).map(|block| block.kind)
    }

    /// The number of bytes from `address` to the end of its block, if it lies in one.
    pub(super) fn room(&self, address: usize) -> Option<usize> {
        self.find(address).map(|block| block.range().end - address)
    }

    pub(super) fn stats(&self, tag: u32) -> PoolStats {
        self.tags.get(&tag).copied().unwrap_or_default()
    }

    pub(super) fn total(&self) -> PoolStats {
        self.tags.values().fold(PoolStats::default(), |sum, stats| PoolStats {
            blocks: sum.blocks + stats.blocks,
            bytes: sum.bytes + stats.bytes,
            peak_bytes: sum.peak_bytes + stats.peak_bytes,
            allocations: sum.allocations + stats.allocations,
        })
    }

    pub(super) fn leaks(&self) -> Vec<Leak> {
        let mut leaks: Vec<_> = self.blocks.values().map(Block::describe).collect();
        leaks.sort_by_key(|leak| leak.number);
        leaks
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // The kernel is gone, and with it all users of its blocks.
        let blocks = std::mem::take(&mut self.blocks).into_values();
        let blocks = blocks.chain(self.quarantine.drain(..)).chain(self.condemned.drain(..));
        blocks.for_each(Block::release);
    }
}
