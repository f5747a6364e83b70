//! Uses of drivers' memory: pinned addresses, IRPs that a lower driver has, and addresses of IRPs.
//!
//! Every request looks them up, so they are separate from the [table](super::table) of blocks, which only
//! allocations change:
//!
//! ```text
//!   pin(address)          ──► the list of the address's page, one lock for some pages
//!   free(block)           ──► the lists of the block's pages: anything inside?
//!   handed down(IRP)      ──► likewise
//!   initialized(address)  ──► a slot for the address: seen before? else ask the table
//! ```

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

const PAGE: usize = 4096;
/// Parts of the pins, and slots for IRPs; powers of two.
const PARTS: usize = 256;
const SLOTS: usize = 4096;

/// Hashes a number to one of `count` slots.
const fn spread(number: usize, count: usize) -> usize {
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (usize::BITS - count.trailing_zeros())) & (count - 1)
}

/// A pinned address.
#[derive(Clone, Copy, Debug)]
struct Pin {
    address: usize,
    number: u64,
    rule: &'static str,
    what: &'static str,
}

/// The addresses that must not be freed.
#[derive(Debug)]
pub(super) struct Pins {
    begun: AtomicU64,
    /// Each part has the pins of some pages, in no order.
    parts: Vec<Mutex<Vec<Pin>>>,
}

impl Pins {
    pub(super) fn new() -> Self {
        Self { begun: AtomicU64::new(0), parts: (0..PARTS).map(|_| Mutex::default()).collect() }
    }

    fn part(&self, page: usize) -> &Mutex<Vec<Pin>> {
        &self.parts[spread(page, PARTS)]
    }

    /// Pins `address`; returns the number that [`end`](Self::end) takes.
    pub(super) fn begin(&self, address: usize, rule: &'static str, what: &'static str) -> u64 {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        self.part(address / PAGE).lock().push(Pin { address, number, rule, what });
        number
    }

    pub(super) fn end(&self, address: usize, number: u64) {
        let pins = &mut *self.part(address / PAGE).lock();
        // The latest pins are likely to end first.
        if let Some(place) = pins.iter().rposition(|pin| pin.number == number) {
            pins.swap_remove(place);
        }
    }

    /// Returns the rule and the description of the latest pin in `range`.
    pub(super) fn within(&self, range: &Range<usize>) -> Option<(&'static str, &'static str)> {
        let pages = range.start / PAGE..range.end.div_ceil(PAGE).max(range.start / PAGE + 1);
        let last = |part: &Mutex<Vec<Pin>>| {
            let pins = part.lock();
            pins.iter().filter(|pin| range.contains(&pin.address)).max_by_key(|pin| pin.number).copied()
        };
        let found = if pages.len() < PARTS {
            pages.filter_map(|page| last(self.part(page))).max_by_key(|pin| pin.number)
        } else {
            self.parts.iter().filter_map(last).max_by_key(|pin| pin.number)
        };
        found.map(|pin| (pin.rule, pin.what))
    }
}

/// The IRPs that lower drivers have.
///
/// This is not read from the storage of an IRP, which belongs to the driver again once the IRP has returned
/// and may hold anything. Its stack locations do not tell either, as its driver may keep some of them for
/// itself.
///
/// # Invariants
/// There is at most one [`PendingIrp`] for an address.
#[derive(Debug)]
pub(super) struct PendingIrps(Vec<Mutex<Vec<PendingIrp>>>);

/// An IRP that a lower driver has.
#[derive(Clone, Copy, Debug)]
struct PendingIrp {
    irp: usize,
    /// The current location of the highest driver that has handed it down; the IRP has returned when it
    /// reaches this location.
    from: i8,
}

impl PendingIrps {
    pub(super) fn new() -> Self {
        Self((0..PARTS).map(|_| Mutex::default()).collect())
    }

    fn part(&self, page: usize) -> &Mutex<Vec<PendingIrp>> {
        &self.0[spread(page, PARTS)]
    }

    /// Records that the IRP is handed down from location `from`.
    pub(super) fn add(&self, irp: usize, from: i8) {
        let mut part = self.part(irp / PAGE).lock();
        match part.iter_mut().find(|pending| pending.irp == irp) {
            Some(pending) => pending.from = pending.from.max(from),
            None => part.push(PendingIrp { irp, from }),
        }
    }

    /// Records that the IRP has returned to location `to`.
    pub(super) fn remove(&self, irp: usize, to: i8) {
        let mut part = self.part(irp / PAGE).lock();
        if let Some(place) = part.iter().rposition(|pending| pending.irp == irp && to >= pending.from) {
            part.swap_remove(place);
        }
    }

    pub(super) fn contains(&self, irp: usize) -> bool {
        self.part(irp / PAGE).lock().iter().any(|pending| pending.irp == irp)
    }

    /// An IRP that begins in `range`.
    pub(super) fn within(&self, range: &Range<usize>) -> Option<usize> {
        let mut pages = range.start / PAGE..range.end.div_ceil(PAGE).max(range.start / PAGE + 1);
        let first = |part: &Mutex<Vec<PendingIrp>>| {
            part.lock().iter().map(|pending| pending.irp).find(|irp| range.contains(irp))
        };
        if pages.len() < PARTS {
            pages.find_map(|page| first(self.part(page)))
        } else {
            self.0.iter().find_map(first)
        }
    }
}

/// A cache of the addresses where the table knows an IRP.
///
/// # Invariants
/// A slot holds zero or the address of an IRP that is recorded with a block in the table. It is cleared
/// before the block leaves the table.
#[derive(Debug)]
pub(super) struct IrpCache(Vec<AtomicUsize>);

impl IrpCache {
    pub(super) fn new() -> Self {
        Self((0..SLOTS).map(|_| AtomicUsize::new(0)).collect())
    }

    fn slot(&self, address: usize) -> &AtomicUsize {
        &self.0[spread(address / 16, SLOTS)]
    }

    pub(super) fn contains(&self, address: usize) -> bool {
        self.slot(address).load(Ordering::Acquire) == address
    }

    pub(super) fn add(&self, address: usize) {
        self.slot(address).store(address, Ordering::Release);
    }

    pub(super) fn remove(&self, address: usize) {
        // Another address in the slot stays; this one cannot come back, because its block is being removed.
        let _ = self.slot(address).compare_exchange(address, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}
