//! Rest of a client's MDL chain that a transfer still has to fill or send.

use std::io::{self, IoSlice, IoSliceMut};
use std::slice;

use wsk_sys::WSK_BUF;
use wsk_sys::nt::{
    MDL, MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED, MDL_SOURCE_IS_NONPAGED_POOL, mdl_byte_count,
    mdl_byte_offset, mdl_flags, mdl_next, mdl_start_va, mm_get_system_address_for_mdl_safe,
};

use crate::provider::Inner;

/// Number of pieces of a chain that are passed to the transport at a time.
const PIECES: usize = 16;

/// Result of one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// The bytes.
    pub(crate) bytes: usize,
    /// The transport moved less than it could: it currently has no more data, or no more room.
    pub(crate) short: bool,
}

/// Fault of a client's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The buffer exceeds its chain, or starts outside its first MDL (SND-08).
    OutOfChain,
    /// An MDL describes neither locked pages nor non-paged pool (SND-09).
    NotLocked,
    /// The memory cannot be mapped now.
    NotMapped,
}

/// Returns whether an MDL is marked as one of locked pages or non-paged pool.
///
/// # Safety
/// The MDL is alive.
unsafe fn is_marked(mdl: *mut MDL) -> bool {
    // SAFETY: the caller guarantees a live MDL.
    let flags = unsafe { mdl_flags(mdl) };
    flags & (MDL_MAPPED_TO_SYSTEM_VA | MDL_PAGES_LOCKED | MDL_SOURCE_IS_NONPAGED_POOL) != 0
}

/// Returns the address of the memory that an MDL describes; null if it cannot be mapped now.
///
/// # Safety
/// The MDL is alive. It is marked, or the kernel marks none.
unsafe fn address(mdl: *mut MDL) -> *mut u8 {
    // SAFETY: the caller guarantees a live MDL.
    if unsafe { is_marked(mdl) } {
        // SAFETY: the MDL describes locked pages or non-paged pool.
        return unsafe { mm_get_system_address_for_mdl_safe(mdl) }.cast();
    }
    // SAFETY: the MDL describes locked pages or non-paged pool.
    let page = unsafe { mdl_start_va(mdl) };
    // SAFETY: the MDL describes locked pages or non-paged pool.
    let offset = unsafe { mdl_byte_offset(mdl) };
    page.cast::<u8>().wrapping_add(offset as usize)
}

/// A range of a client's MDL chain, shortened from the front during the transfer.
///
/// # Invariants
/// From `offset` on, the chain at `mdl` has at least `left` bytes, all of them mapped. The client keeps the
/// chain and the memory valid and unused until the IRP of the transfer completes (LIFE-09); a `Span` is
/// dropped before that.
#[derive(Debug)]
pub(crate) struct Span {
    mdl: *mut MDL,
    offset: usize,
    left: usize,
}

// SAFETY: by the invariant the memory belongs to the transfer, in whichever thread that goes on.
unsafe impl Send for Span {}

impl Span {
    /// An empty span.
    pub(crate) const EMPTY: Self = Self { mdl: std::ptr::null_mut(), offset: 0, left: 0 };

    /// Returns the whole of `buffer`, a parameter of `call`; null means no bytes. Indicated data after its
    /// return is reported (LIFE-13), and used nevertheless, since it is in quarantine.
    ///
    /// # Safety
    /// `buffer` is null or points to a buffer descriptor whose chain the client leaves alone, as the
    /// invariant says, as long as the span is used.
    pub(crate) unsafe fn new(
        provider: &Inner,
        call: &'static str,
        buffer: *const WSK_BUF,
    ) -> Result<Self, Fault> {
        if buffer.is_null() {
            return Ok(Self::EMPTY);
        }
        // SAFETY: the caller guarantees a readable descriptor, wherever it lies.
        let buffer = unsafe { buffer.read_unaligned() };
        let span = Self { mdl: buffer.Mdl, offset: buffer.Offset as usize, left: buffer.Length };
        if buffer.Length == 0 {
            return Ok(Self::EMPTY);
        }
        if buffer.Mdl.is_null() {
            return Err(Fault::OutOfChain);
        }
        // SAFETY: the caller guarantees a live chain.
        if span.offset >= unsafe { mdl_byte_count(buffer.Mdl) } as usize {
            return Err(Fault::OutOfChain);
        }
        let mut missing = span.offset.saturating_add(span.left);
        let mut mdl = span.mdl;
        let mut stale = false;
        while missing > 0 {
            if mdl.is_null() {
                return Err(Fault::OutOfChain);
            }
            // SAFETY: the caller guarantees a live chain.
            if !unsafe { is_marked(mdl) } && provider.live_config.get(|config| config.marked_mdls) {
                return Err(Fault::NotLocked);
            }
            // SAFETY: the MDL is alive, and was just seen to be fit.
            let bytes = unsafe { address(mdl) };
            if bytes.is_null() {
                return Err(Fault::NotMapped);
            }
            stale |= [mdl.addr(), bytes.addr()]
                .into_iter()
                .any(|used| provider.packets.shown().is_over(used) == Some(true));
            // SAFETY: the caller guarantees a live chain.
            missing = missing.saturating_sub(unsafe { mdl_byte_count(mdl) } as usize);
            // SAFETY: the caller guarantees a live chain.
            mdl = unsafe { mdl_next(mdl) };
        }
        if stale {
            let detail = "the buffer is data that a callback was shown, and WSK has it back: the callback \
                          has not kept it, or it was released";
            provider.violation("LIFE-13", call, detail);
        }
        Ok(span)
    }

    /// Returns another span of the same range.
    pub(crate) fn again(&self) -> Self {
        Self { ..*self }
    }

    /// Returns the number of bytes left.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Returns the next piece of contiguous memory, and the span behind it.
    fn piece(&self) -> Option<(*mut u8, usize, Self)> {
        let Self { mut mdl, mut offset, left } = *self;
        if left == 0 {
            return None;
        }
        loop {
            // SAFETY: by the invariant the chain has a further MDL while bytes are left.
            let count = unsafe { mdl_byte_count(mdl) } as usize;
            // SAFETY: by the invariant the chain has a further MDL while bytes are left.
            let next = unsafe { mdl_next(mdl) };
            if offset >= count {
                offset -= count;
                mdl = next;
                continue;
            }
            // SAFETY: the MDL is alive and mapped by the invariant.
            let start = unsafe { address(mdl) };
            let length = left.min(count - offset);
            let rest = Self { mdl, offset: offset + length, left: left - length };
            // SAFETY: `offset` is inside the `count` bytes that the MDL describes.
            return Some((unsafe { start.add(offset) }, length, rest));
        }
    }

    /// Skips the next `bytes` bytes.
    pub(crate) fn advance(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.left, "a transport moved more than it was given");
        self.offset += bytes;
        self.left -= bytes;
        // Keep the walk short: start from the MDL in use.
        while self.left > 0 {
            // SAFETY: by the invariant the chain has a further MDL while bytes are left.
            let count = unsafe { mdl_byte_count(self.mdl) } as usize;
            if self.offset < count {
                break;
            }
            self.offset -= count;
            // SAFETY: by the invariant the chain has a further MDL while bytes are left.
            self.mdl = unsafe { mdl_next(self.mdl) };
        }
    }

    /// Lets `transfer` fill the span from the front, and skips the filled bytes.
    pub(crate) fn fill_with(
        &mut self,
        transfer: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<Moved> {
        let mut pieces: [IoSliceMut<'_>; PIECES] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut used = 0;
        let mut at = self.again();
        while used < PIECES
            && let Some((start, length, rest)) = at.piece()
        {
            // SAFETY: by the invariant the range is mapped and no other thread uses it; pieces do not overlap
            // unless the client's own MDLs do, which would be the client's own bytes mixed up.
            pieces[used] = IoSliceMut::new(unsafe { slice::from_raw_parts_mut(start, length) });
            used += 1;
            at = rest;
        }
        let room = self.left - at.left;
        let bytes = transfer(&mut pieces[..used])?;
        self.advance(bytes);
        Ok(Moved { bytes, short: bytes < room })
    }

    /// Lets `transfer` take bytes from the front, and skips them.
    pub(crate) fn drain_with(
        &mut self,
        transfer: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<Moved> {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let mut used = 0;
        let mut at = self.again();
        while used < PIECES
            && let Some((start, length, rest)) = at.piece()
        {
            // SAFETY: by the invariant the range is mapped and the client does not write to it meanwhile.
            pieces[used] = IoSlice::new(unsafe { slice::from_raw_parts(start, length) });
            used += 1;
            at = rest;
        }
        let room = self.left - at.left;
        let bytes = transfer(&pieces[..used])?;
        self.advance(bytes);
        Ok(Moved { bytes, short: bytes < room })
    }

    /// Copies as much of `bytes` as fits, and returns the number of bytes copied.
    pub(crate) fn fill(&mut self, bytes: &[u8]) -> usize {
        let mut copied = 0;
        while copied < bytes.len()
            && let Some((start, length, _)) = self.piece()
        {
            let length = length.min(bytes.len() - copied);
            // SAFETY: by the invariant the range is mapped and no other thread uses it; `bytes` is the
            // provider's own.
            unsafe { start.copy_from_nonoverlapping(bytes[copied..].as_ptr(), length) };
            copied += length;
            self.advance(length);
        }
        copied
    }

    /// Appends up to `bytes` next bytes to `to`.
    pub(crate) fn drain(&mut self, mut bytes: usize, to: &mut Vec<u8>) {
        while bytes > 0
            && let Some((start, length, _)) = self.piece()
        {
            let length = length.min(bytes);
            // SAFETY: by the invariant the range is mapped and the client does not write to it meanwhile.
            to.extend_from_slice(unsafe { slice::from_raw_parts(start, length) });
            self.advance(length);
            bytes -= length;
        }
    }
}
