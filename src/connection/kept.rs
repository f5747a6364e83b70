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
    /// The bytes of each receive, in the order in which they were posted, which is that of the stream (rule
    /// RCV-16).
    pieces: PoolVec<Option<Kept>>,
    /// The sequence number of the receive that the first one is of.
    first: u64,
    pending: usize,
}

impl QueueKept {
    /// Reserves memory for what so many receives can leave.
    pub(super) fn reserve(depth: usize) -> Result<PoolBox<Self>, OutOfMemory> {
        let mut pieces = PoolVec::try_with_capacity(depth)?;
        while pieces.push(None).is_ok() {}
        PoolBox::try_new(Self { pieces, first: 0, pending: 0 })
    }

    /// So many receives, for all of which there is room, will end; the first one has this sequence number.
    pub(super) fn expect(&mut self, first: u64, pending: usize) {
        debug_assert!(pending <= self.pieces.len());
        (self.first, self.pending) = (first, pending);
    }

    /// One of them has ended, in whatever order they do.
    fn add(&mut self, sequence: u64, kept: Option<Kept>) {
        let piece = self.pieces.get_mut(sequence.wrapping_sub(self.first) as usize);
        debug_assert!(piece.is_some(), "there is room for every receive");
        if let Some(piece) = piece {
            *piece = kept;
        }
        self.pending -= 1;
    }
}

impl KeptBytes {
    /// An abandoned receive has ended, perhaps with bytes. Returns whether it was the last one.
    pub(super) fn add(&mut self, sequence: u64, kept: Option<Kept>) -> bool {
        match self {
            Self::Queue(queue) => {
                queue.add(sequence, kept);
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
    pub(super) fn is_empty(&mut self) -> bool {
        let mut empty = true;
        self.visit(&mut |part| {
            empty &= part.is_empty();
            0
        });
        empty
    }

    /// Appends the first bytes to `target`, as many as go in, and returns their number. They are kept until
    /// [`KeptBytes::skip`].
    pub(super) fn copy_to<T: Target>(&mut self, target: &mut T) -> usize {
        let mut copied = 0;
        self.visit(&mut |part| {
            copied += target.append(part);
            0
        });
        copied
    }

    /// Forgets the first bytes.
    pub(super) fn skip(&mut self, mut count: usize) {
        self.visit(&mut |part| {
            let skipped = count.min(part.len());
            count -= skipped;
            skipped
        });
    }

    /// Visits the parts in their order, and forgets as many bytes of each as the visitor returns.
    // One loop for all visitors: less code than one in each of them.
    #[inline(never)]
    fn visit(&mut self, visitor: &mut dyn FnMut(&[u8]) -> usize) {
        let mut visit = |buffer: &Buffer, start: &mut u32| *start += visitor(rest(buffer, *start)) as u32;
        match self {
            Self::Nothing => {}
            Self::Receive { buffer, start } => visit(buffer, start),
            Self::Queue(queue) => {
                for kept in queue.pieces.iter_mut().flatten() {
                    visit(&kept.buffer, &mut kept.start);
                }
            }
        }
    }
}
