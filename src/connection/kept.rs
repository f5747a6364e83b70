//! Bytes that arrived for receives whose futures were dropped, in the order of the stream.
//!
//! They are stored by completion routines, which allocate nothing: bytes of a receive stay in its buffer, and
//! a [queue](super::ReceiveQueue) brings a list for those of its receives along.

use super::receive::Target;
use crate::buffer::Buffer;
use crate::memory::{OutOfMemory, PoolBox, PoolVec};

/// Bytes that arrived for one receive whose future was dropped: those of `buffer` from `start` on.
#[derive(Debug)]
pub struct Kept {
    buffer: Buffer,
    start: u32,
}

impl Kept {
    /// The bytes of `buffer` from `start` on; `None` if there are none.
    pub(crate) fn new(buffer: Buffer, start: usize) -> Option<Self> {
        (buffer.len() > start).then(|| Self { buffer, start: start as u32 })
    }
}

/// The bytes that are still to be handed out.
fn rest(buffer: &Buffer, start: u32) -> &[u8] {
    buffer.get(start as usize..).unwrap_or_default()
}

/// All that is kept for the next receive of a connection.
///
/// # Invariants
/// It is changed by the holder of the turn, or, while the turn is abandoned, by the ends of the receives that
/// WSK still has. A receive that was submitted has taken all that was kept before.
#[derive(Default)]
pub(super) enum KeptBytes {
    #[default]
    Nothing,
    /// Bytes of one abandoned receive. A [`Kept`] that lies side by side with the variant's number.
    Receive { buffer: Buffer, start: u32 },
    /// Bytes of an abandoned queue.
    Queue(PoolBox<QueueKept>),
}

// Every idle connection has one.
const _: () = assert!(size_of::<KeptBytes>() <= size_of::<Buffer>() + 8);

/// Bytes of an abandoned queue, and the number of its receives that have not ended.
pub(super) struct QueueKept {
    /// In the order in which the receives were posted, which is that of the stream (rule RCV-16).
    pieces: PoolVec<Numbered>,
    pending: usize,
}

/// Bytes of one receive of a queue.
struct Numbered {
    sequence: u64,
    kept: Kept,
}

impl QueueKept {
    /// Reserves memory for what so many receives can leave.
    pub(super) fn reserve(depth: usize) -> Result<PoolBox<Self>, OutOfMemory> {
        PoolBox::try_new(Self { pieces: PoolVec::try_with_capacity(depth)?, pending: 0 })
    }

    /// So many receives, for all of which it has room, will end.
    pub(super) fn expect(&mut self, pending: usize) {
        debug_assert!(pending <= self.pieces.capacity());
        self.pending = pending;
    }

    /// One of them has ended, in whatever order they do.
    fn add(&mut self, sequence: u64, kept: Kept) {
        let fits = self.pieces.push(Numbered { sequence, kept }).is_ok();
        debug_assert!(fits, "there is room for every receive");
        // It moves to the front of those that were posted after it.
        let pieces = &mut *self.pieces;
        for index in (1..pieces.len()).rev() {
            let (before, after) = (pieces.get(index - 1), pieces.get(index));
            if before.map(|piece| piece.sequence) <= after.map(|piece| piece.sequence) {
                break;
            }
            pieces.swap(index - 1, index);
        }
    }
}

impl KeptBytes {
    /// An abandoned receive has ended, perhaps with bytes. Returns whether it was the last one.
    pub(super) fn add(&mut self, sequence: u64, kept: Option<Kept>) -> bool {
        match self {
            Self::Queue(queue) => {
                if let Some(kept) = kept {
                    queue.add(sequence, kept);
                }
                queue.pending -= 1;
                queue.pending == 0
            }
            Self::Nothing | Self::Receive { .. } => {
                debug_assert!(matches!(self, Self::Nothing), "a receive takes all that was kept before");
                if let Some(Kept { buffer, start }) = kept {
                    *self = Self::Receive { buffer, start };
                }
                true
            }
        }
    }

    /// Takes everything out if there are no bytes, for its memory to be freed outside of the lock.
    pub(super) fn take_empty(&mut self) -> Option<Self> {
        self.is_empty().then(|| core::mem::take(self))
    }

    /// Returns whether no byte is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.parts().all(<[u8]>::is_empty)
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let (one, many) = match self {
            Self::Nothing => (None, None),
            Self::Receive { buffer, start } => (Some(rest(buffer, *start)), None),
            Self::Queue(queue) => (None, Some(&*queue.pieces)),
        };
        let many = many.unwrap_or_default().iter().map(|piece| rest(&piece.kept.buffer, piece.kept.start));
        one.into_iter().chain(many)
    }

    /// Appends the first bytes to `target`, as many as go in, and returns their number. They are kept until
    /// [`KeptBytes::skip`].
    pub(super) fn copy_to<T: Target>(&self, target: &mut T) -> usize {
        self.parts().map(|part| target.append(part)).sum()
    }

    /// Forgets the first bytes.
    pub(super) fn skip(&mut self, mut count: usize) {
        let mut skip = |buffer: &Buffer, start: &mut u32| {
            let skipped = count.min(rest(buffer, *start).len());
            *start += skipped as u32;
            count -= skipped;
        };
        match self {
            Self::Nothing => {}
            Self::Receive { buffer, start } => skip(buffer, start),
            Self::Queue(queue) => {
                for Numbered { kept, .. } in queue.pieces.iter_mut() {
                    skip(&kept.buffer, &mut kept.start);
                }
            }
        }
    }
}
