//! The memory of the provider that indications show to clients, and what becomes of it afterwards (LIFE-13).
//!
//! ```text
//!   shown to a callback ──SUCCESS, or not accepted──► over: spoiled, kept for a while, known by address
//!         └──PENDING──► shown still ──WskRelease─────────► over
//! ```
//!
//! A client that hands such memory to a transfer, as its MDL or as what an MDL of its own describes, is found
//! out: at the call if the memory is over, and when it is over if a request that pends uses it then.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

/// Byte that memory is filled with when it is over.
pub(crate) const SPOILED: u8 = 0xDD;
/// Number of such ranges that are kept apart, so that they are recognised instead of being somebody else's.
const KEPT: usize = 64;

/// An object whose memory indications show. It keeps its place.
pub(crate) trait Show: Any + Send {
    /// Returns where that memory is.
    fn pieces(&self) -> [Range<usize>; 2];
    /// Makes the data useless.
    fn spoil(&mut self);
}

#[derive(Debug)]
struct Piece {
    end: usize,
    over: bool,
    /// No client has been shown it since it was taken back, and it is known only until no request uses it.
    hidden: bool,
    /// Pending requests that use it.
    uses: usize,
}

/// Register of all such memory.
///
/// # Invariants
/// A piece is listed from before a client is first shown it until the object it belongs to is dropped or
/// taken back, and until no pending request uses it.
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

    /// A pending request uses the memory at `address`. The result, if it was shown, is for
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

    /// The request is about to complete.
    pub(crate) fn end_use(&self, start: usize) {
        let mut pieces = self.pieces.write();
        let Some(piece) = pieces.get_mut(&start) else { return };
        piece.uses = piece.uses.saturating_sub(1);
        if piece.uses == 0 && piece.hidden {
            pieces.remove(&start);
            self.count.store(pieces.len(), Ordering::Release);
        }
    }

    /// The object is shown from here on.
    pub(crate) fn begin(&self, object: &dyn Show) {
        let mut pieces = self.pieces.write();
        for Range { start, end } in object.pieces() {
            // A request may use it still that was made when it was shown before.
            let uses = pieces.get(&start).map_or(0, |piece| piece.uses);
            pieces.insert(start, Piece { end, over: false, hidden: false, uses });
        }
        self.count.store(pieces.len(), Ordering::Release);
    }

    /// The object is no longer shown; true if a pending request uses it all the same.
    pub(super) fn end(&self, object: &mut dyn Show) -> bool {
        object.spoil();
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

    /// The object was taken back as it is, and may be shown again; true if a pending request uses it all the
    /// same.
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

    /// The object is about to be dropped, or to be used for something else.
    pub(super) fn forget(&self, object: &dyn Show) {
        let mut pieces = self.pieces.write();
        for Range { start, .. } in object.pieces() {
            pieces.remove(&start);
        }
        self.count.store(pieces.len(), Ordering::Release);
    }
}

/// Objects that are over, the oldest first, and are kept until nobody can mistake their memory any more.
pub(super) struct Graves<T: ?Sized>(Mutex<VecDeque<Box<T>>>);

impl<T: ?Sized> Default for Graves<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: ?Sized> Graves<T> {
    /// Takes in an object, and returns the oldest one that need not be kept, if there are many.
    pub(super) fn bury(&self, object: Box<T>, is_used: impl Fn(&T) -> bool) -> Option<Box<T>> {
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

    /// Returns the number of the objects that are not as they should be.
    pub(super) fn count(&self, is_wrong: impl Fn(&T) -> bool) -> usize {
        self.0.lock().iter().filter(|object| is_wrong(object)).count()
    }
}
