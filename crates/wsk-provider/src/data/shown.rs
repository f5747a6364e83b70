//! Provider memory that indications show to clients, and its quarantine afterwards (LIFE-13).
//!
//! ```text
//!   shown to a callback ──SUCCESS, or not accepted──► over: poisoned, quarantined, known by address
//!         └──PENDING──► retained ────WskRelease─────────► over
//! ```
//!
//! A client that passes such memory to a transfer, as its MDL or through an MDL of its own, is detected: at
//! the call if the memory is over, and at the end of the indication if a pending request uses it then.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

/// Byte that fills memory once it is over.
pub(crate) const POISON: u8 = 0xDD;
/// Number of objects that stay in quarantine, so that their memory is recognized instead of being reused.
const KEPT: usize = 64;

/// An object whose memory indications show. Its address is stable.
pub(crate) trait Show: Any + Send {
    /// Returns the ranges of that memory.
    fn pieces(&self) -> [Range<usize>; 2];
    /// Overwrites the data.
    fn poison(&mut self);
}

#[derive(Debug)]
struct Piece {
    end: usize,
    over: bool,
    /// No client was shown it since it was taken back; it stays registered only until no request uses it.
    hidden: bool,
    /// Pending requests that use it.
    uses: usize,
}

/// Register of all such memory.
///
/// # Invariants
/// A piece is listed from before it is first shown until its object is dropped or taken back, and no pending
/// request uses it.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    count: AtomicUsize,
    pieces: RwLock<BTreeMap<usize, Piece>>,
}

impl Shown {
    /// Returns whether an indication has shown `address`, and if so, whether that is over.
    pub(crate) fn is_over(&self, address: usize) -> Option<bool> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let pieces = self.pieces.read();
        let (_, piece) = pieces.range(..=address).next_back()?;
        (address < piece.end).then_some(piece.over)
    }

    /// Records that a pending request uses the memory at `address`. If that was shown, the result is for
    /// [`end_use`](Self::end_use).
    pub(crate) fn begin_use(&self, address: usize) -> Option<usize> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut pieces = self.pieces.write();
        let (start, piece) = pieces.range_mut(..=address).next_back()?;
        if address >= piece.end {
            return None;
        }
        piece.uses += 1;
        Some(*start)
    }

    /// Ends the use by a request that is about to complete.
    pub(crate) fn end_use(&self, start: usize) {
        let mut pieces = self.pieces.write();
        let Some(piece) = pieces.get_mut(&start) else { return };
        piece.uses = piece.uses.saturating_sub(1);
        if piece.uses == 0 && piece.hidden {
            pieces.remove(&start);
            self.count.store(pieces.len(), Ordering::Release);
        }
    }

    /// Registers the object as shown.
    pub(crate) fn begin(&self, object: &dyn Show) {
        let mut pieces = self.pieces.write();
        for Range { start, end } in object.pieces() {
            // A request from an earlier indication of the object may still use it.
            let uses = pieces.get(&start).map_or(0, |piece| piece.uses);
            pieces.insert(start, Piece { end, over: false, hidden: false, uses });
        }
        self.count.store(pieces.len(), Ordering::Release);
    }

    /// Ends the indication of the object; true if a pending request still uses it.
    pub(super) fn end(&self, object: &mut dyn Show) -> bool {
        object.poison();
        let mut pieces = self.pieces.write();
        let mut used = false;
        for Range { start, .. } in object.pieces() {
            if let Some(piece) = pieces.get_mut(&start) {
                piece.over = true;
                used |= piece.uses > 0;
            }
        }
        used
    }

    /// Takes back the object unchanged, to be shown again; true if a pending request still uses it.
    pub(super) fn hide(&self, object: &dyn Show) -> bool {
        let mut pieces = self.pieces.write();
        let mut used = false;
        for Range { start, .. } in object.pieces() {
            let Some(piece) = pieces.get_mut(&start) else { continue };
            if piece.uses == 0 {
                pieces.remove(&start);
            } else {
                (piece.over, piece.hidden) = (true, true);
                used = true;
            }
        }
        self.count.store(pieces.len(), Ordering::Release);
        used
    }

    /// Returns whether a pending request uses the object.
    pub(super) fn is_used(&self, object: &dyn Show) -> bool {
        let pieces = self.pieces.read();
        object.pieces().iter().any(|piece| pieces.get(&piece.start).is_some_and(|piece| piece.uses > 0))
    }

    /// Unregisters an object that is about to be dropped or reused.
    pub(super) fn forget(&self, object: &dyn Show) {
        let mut pieces = self.pieces.write();
        for Range { start, .. } in object.pieces() {
            pieces.remove(&start);
        }
        self.count.store(pieces.len(), Ordering::Release);
    }
}

/// Objects whose indication is over, the oldest first. Their memory is kept, so that a late use is
/// recognized.
pub(super) struct Quarantine<T: ?Sized>(Mutex<VecDeque<Box<T>>>);

impl<T: ?Sized> Default for Quarantine<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: ?Sized> Quarantine<T> {
    /// Adds an object, and returns the oldest one that need not be kept, if there are too many.
    pub(super) fn quarantine(&self, object: Box<T>, is_used: impl Fn(&T) -> bool) -> Option<Box<T>> {
        let mut kept = self.0.lock();
        kept.push_back(object);
        Self::oldest(&mut kept, KEPT, is_used)
    }

    /// Takes out the oldest object that has been kept for long enough.
    pub(super) fn reuse(&self, is_used: impl Fn(&T) -> bool) -> Option<Box<T>> {
        Self::oldest(&mut self.0.lock(), KEPT / 2, is_used)
    }

    fn oldest(kept: &mut VecDeque<Box<T>>, fewest: usize, is_used: impl Fn(&T) -> bool) -> Option<Box<T>> {
        if kept.len() <= fewest {
            return None;
        }
        let place = kept.iter().position(|object| !is_used(object))?;
        kept.remove(place)
    }

    /// Returns the number of objects for which `is_wrong` is true.
    pub(super) fn count(&self, is_wrong: impl Fn(&T) -> bool) -> usize {
        self.0.lock().iter().filter(|object| is_wrong(object)).count()
    }
}
