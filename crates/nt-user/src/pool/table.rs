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

/// New memory, freed memory, and the guard behind a block are filled with these.
const FILL_NEW: u8 = 0xCD;
const FILL_FREED: u8 = 0xDD;
const FILL_GUARD: u8 = 0xFD;
/// Bytes behind every block: more than a stack location, which is what is written behind an IRP whose current location is
/// written to before it has been handed down.
const GUARD: usize = 80;
const _: () = assert!(GUARD >= size_of::<IO_STACK_LOCATION>() && GUARD.is_multiple_of(ALIGNMENT));
/// From this size on a block starts on a page, as it does on Windows.
const PAGE: usize = 4096;
const ALIGNMENT: usize = 16;
/// How many freed blocks and bytes are kept for a while.
const QUARANTINE_BLOCKS: usize = 128;
const QUARANTINE_BYTES: usize = 256 * 1024;

/// A piece of memory that nobody has.
#[derive(Debug)]
pub(super) struct Block {
    address: *mut u8,
    layout: Layout,
    bytes: usize,
    tag: u32,
    kind: Kind,
    number: u64,
    place: Option<String>,
    /// Where IRPs have been initialised, as offsets in order.
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
            place: self.place.clone(),
        }
    }

    fn is_filled(&self, part: Range<usize>, with: u8) -> bool {
        let start = self.address.wrapping_add(part.start);
        // SAFETY: the part lies inside the allocation and has been filled, and the table owns it.
        let part = unsafe { std::slice::from_raw_parts(start, part.len()) };
        // All bytes equal the first one if each equals its neighbour; comparing slices is the fast way to say so.
        part.split_last().is_none_or(|(last, others)| *last == with && *others == part[1..])
    }

    /// What was written behind the block.
    fn overrun(&self) -> Option<String> {
        let guard = self.bytes..self.bytes + GUARD;
        if self.is_filled(guard.clone(), FILL_GUARD) {
            return None;
        }
        let is_written = |offset: &usize| !self.is_filled(*offset..offset + 1, FILL_GUARD);
        let first = guard.clone().find(is_written)?;
        let last = guard.rev().find(is_written)?;
        let (from, bytes) = (first - self.bytes, last - first + 1);
        let place = if from == 0 { "right behind it".to_owned() } else { format!("{from} bytes behind it") };
        Some(format!("someone wrote past the end of {}: {bytes} bytes, {place}", self.describe()))
    }

    fn fill(&self, part: Range<usize>, with: u8) {
        let start = self.address.wrapping_add(part.start);
        // SAFETY: the part lies inside the allocation, and the table owns it.
        unsafe { ptr::write_bytes(start, with, part.len()) };
    }

    /// Gives the memory back to the host.
    fn release(self) {
        // SAFETY: the block was allocated with this layout, and the table owns it.
        unsafe { dealloc(self.address, self.layout) };
    }
}

/// How a removal went.
pub(super) enum Removed {
    /// The block is freed; something may have been wrong with it. Earlier freed blocks turned out to have been written.
    Freed { kind: Kind, complaint: Option<(&'static str, String)>, written: Vec<Leak> },
    /// Nothing is freed.
    Refused { rule: &'static str, detail: String },
}

/// See the module.
///
/// # Invariants
/// `blocks` holds every block that a driver has, under its address. The other collections hold blocks that no driver
/// may use.
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
// SAFETY: as above; a shared table changes no block, except for the noted IRPs, which have a lock.
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

    pub(super) fn insert(&mut self, bytes: usize, tag: u32, kind: Kind, place: Option<String>) -> *mut u8 {
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
        let block = Block { address, layout, bytes, tag, kind, number, place, irps: Mutex::default() };
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
            let detail = format!("{} was freed as if it were a {}", block.describe(), kind.name());
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

    /// Why there is no block at `address`.
    fn explain(&self, address: usize, kind: Kind) -> String {
        let kind = kind.name();
        let at = |block: &&Block| block.range().start == address;
        if let Some(block) = self.quarantine.iter().rev().find(at).or_else(|| self.condemned.iter().find(at))
        {
            return format!("freed twice: {}", block.describe());
        }
        match self.find(address) {
            Some(block) => format!("{address:#X} is no {kind} but the inside of {}", block.describe()),
            None => format!("{address:#X} is no {kind} of this kernel, or no longer"),
        }
    }

    /// Keeps a freed block for a while, or gives it back. Returns the blocks that leave and have been written.
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

    /// Remembers that an IRP is initialised at `address`; false if that is not in pool.
    pub(super) fn note_irp(&self, address: usize, irp_cache: &IrpCache) -> bool {
        let Some(block) = self.find(address) else { return false };
        let offset = address - block.range().start;
        let mut irps = block.irps.lock();
        // Before the table lets go of the block, which needs it to be changed.
        irp_cache.add(address);
        if let Err(place) = irps.binary_search(&offset) {
            irps.insert(place, offset);
        }
        true
    }

    /// Whether nothing was written behind the block that covers `address`, if one does.
    pub(super) fn is_guarded(&self, address: usize) -> bool {
        let whole = |block: &Block| block.is_filled(block.bytes..block.bytes + GUARD, FILL_GUARD);
        self.find(address).is_none_or(whole)
    }

    /// Says what was written behind the block that covers `address`, and takes it away.
    pub(super) fn restore_guard(&mut self, address: usize) -> Option<String> {
        let block = self.find(address)?;
        let overrun = block.overrun()?;
        block.fill(block.bytes..block.bytes + GUARD, FILL_GUARD);
        Some(overrun)
    }

    /// Whether a freed block that is still kept covers `address`.
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

    /// The word at `address`, if it is whole, lies in a block that is not paged, and is aligned. No block goes while the table is
    /// borrowed.
    pub(super) fn word_at(&self, address: usize) -> Option<usize> {
        if !address.is_multiple_of(align_of::<usize>()) || !self.is_non_paged(address, size_of::<usize>()) {
            return None;
        }
        let block = self.find(address)?;
        let word = block.address.wrapping_add(address - block.range().start).cast::<usize>();
        // SAFETY: the word is aligned and lies in a live block, which is all that the table has and was filled when it was made.
        let word = unsafe { AtomicUsize::from_ptr(word) };
        // Its driver may be writing to it.
        Some(word.load(Ordering::Relaxed))
    }

    /// What begins at `address`.
    pub(super) fn kind_at(&self, address: usize) -> Option<Kind> {
        self.blocks.get(&address).map(|block| block.kind)
    }

    /// How many bytes there are from `address` to the end of its block, if it lies in one.
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
        // The kernel is gone, and so is everyone who could use a block of it.
        let blocks = std::mem::take(&mut self.blocks).into_values();
        let blocks = blocks.chain(self.quarantine.drain(..)).chain(self.condemned.drain(..));
        blocks.for_each(Block::release);
    }
}
