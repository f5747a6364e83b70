//! Buffers: non-paged memory, the MDLs that describe it, and the `WSK_BUF` over them.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use wsk_sys::nt::{self, MDL};
use wsk_sys::{WSK_BUF, WSK_BUF_LIST};

use super::PoolBox;
use super::pool::TAG;

/// A range of a chain of MDLs over non-paged memory. Clones share the memory.
#[derive(Clone)]
pub struct Buffer {
    chain: Arc<Chain>,
    offset: u32,
    length: usize,
}

/// # Invariants
/// Each piece is a pool block of its length, and its MDL describes the whole of it and links to the next
/// piece.
struct Chain {
    pieces: Vec<Piece>,
}

struct Piece {
    block: *mut u8,
    length: usize,
    mdl: *mut MDL,
}

// SAFETY: the memory is owned by the chain, and accessed through raw pointers, in an order that the test
// provides.
unsafe impl Send for Chain {}
// SAFETY: the memory is owned by the chain and accessed through raw pointers, in an order that the test
// provides.
unsafe impl Sync for Chain {}

impl Drop for Chain {
    fn drop(&mut self) {
        for piece in &self.pieces {
            // SAFETY: the MDL came from IoAllocateMdl, by the invariant.
            unsafe { nt::IoFreeMdl(piece.mdl) };
            // SAFETY: the block came from pool with this tag, by the invariant.
            unsafe { nt::ExFreePoolWithTag(piece.block.cast(), TAG) };
        }
    }
}

impl Piece {
    fn new(length: usize) -> Self {
        // SAFETY: non-paged pool may be allocated at any IRQL of a test.
        let block = unsafe { nt::ExAllocatePoolWithTag(nt::NON_PAGED_POOL_NX, length.max(1), TAG) };
        assert!(!block.is_null(), "pool for the test itself");
        // SAFETY: the block is fresh and that long.
        unsafe { block.cast::<u8>().write_bytes(0, length.max(1)) };
        // SAFETY: no IRP is given, so nothing but the new MDL is touched.
        let mdl = unsafe { nt::IoAllocateMdl(block, length as u32, 0, 0, ptr::null_mut()) };
        assert!(!mdl.is_null(), "an MDL for the test itself");
        // SAFETY: the MDL is fresh and describes non-paged pool.
        unsafe { nt::MmBuildMdlForNonPagedPool(mdl) };
        Self { block: block.cast(), length, mdl }
    }
}

impl Buffer {
    /// `length` zero bytes under one MDL.
    pub fn new(length: usize) -> Self {
        Self::chain(&[length])
    }

    /// A copy of `bytes` under one MDL.
    pub fn of(bytes: &[u8]) -> Self {
        let buffer = Self::new(bytes.len());
        buffer.write(bytes);
        buffer
    }

    /// Zero bytes under a chain of MDLs, one for each length.
    pub fn chain(lengths: &[usize]) -> Self {
        let pieces: Vec<Piece> = lengths.iter().map(|length| Piece::new(*length)).collect();
        for pair in pieces.windows(2) {
            // SAFETY: the MDL belongs to this chain, which is not shared yet.
            unsafe { nt::set_mdl_next(pair[0].mdl, pair[1].mdl) };
        }
        Self { length: lengths.iter().sum(), chain: Arc::new(Chain { pieces }), offset: 0 }
    }

    /// A part of the buffer. `offset` must lie in the first MDL, as `WSK_BUF` requires.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        let offset = self.offset + offset as u32;
        assert!(offset as usize <= self.chain.pieces[0].length, "the offset leaves the first MDL");
        self.unchecked_slice(offset, length)
    }

    /// A part of the buffer that is not checked, so that misuse can be tested.
    #[must_use]
    pub fn unchecked_slice(&self, offset: u32, length: usize) -> Self {
        Self { chain: Arc::clone(&self.chain), offset, length }
    }

    /// The length of the range in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns true if the range is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The first MDL.
    pub fn mdl(&self) -> *mut MDL {
        self.chain.pieces[0].mdl
    }

    /// The address of the first byte.
    pub fn address(&self) -> *mut std::ffi::c_void {
        self.chain.pieces[0].block.wrapping_add(self.offset as usize).cast()
    }

    /// The descriptor of the range.
    pub fn wsk_buf(&self) -> WSK_BUF {
        WSK_BUF { Mdl: self.mdl(), Offset: self.offset, Length: self.length }
    }

    /// The addresses of the bytes of the range, piece by piece.
    fn spans(&self) -> impl Iterator<Item = (*mut u8, usize)> + '_ {
        let (mut skip, mut rest) = (self.offset as usize, self.length);
        self.chain.pieces.iter().map(move |piece| {
            let from = skip.min(piece.length);
            let length = rest.min(piece.length - from);
            skip -= from;
            rest -= length;
            (piece.block.wrapping_add(from), length)
        })
    }

    /// Writes to the start of the range.
    ///
    /// # Panics
    /// If the range is shorter than `bytes`.
    pub fn write(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.length, "the buffer is too short");
        let mut rest = bytes;
        for (address, length) in self.spans() {
            let (now, later) = rest.split_at(length.min(rest.len()));
            // SAFETY: the span lies inside a block of the chain.
            unsafe { address.copy_from_nonoverlapping(now.as_ptr(), now.len()) };
            rest = later;
        }
    }

    /// The bytes of the range.
    pub fn read(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length);
        for (address, length) in self.spans() {
            let start = bytes.len();
            bytes.resize(start + length, 0);
            // SAFETY: the span lies inside a block of the chain.
            unsafe { address.copy_to_nonoverlapping(bytes[start..].as_mut_ptr(), length) };
        }
        bytes
    }

    /// The first `length` bytes of the range.
    pub fn read_first(&self, length: usize) -> Vec<u8> {
        let mut bytes = self.read();
        bytes.truncate(length);
        bytes
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("pieces", &self.chain.pieces.len())
            .field("offset", &self.offset)
            .field("length", &self.length)
            .finish()
    }
}

/// A list of buffers for `WskSendMessages`.
#[derive(Debug)]
pub struct BufferList {
    buffers: Vec<Buffer>,
    nodes: Vec<PoolBox<WSK_BUF_LIST>>,
}

// SAFETY: the list owns its nodes, which are never changed.
unsafe impl Send for BufferList {}

impl BufferList {
    /// A list of these buffers.
    pub fn new(buffers: &[Buffer]) -> Self {
        let mut nodes: Vec<PoolBox<WSK_BUF_LIST>> = buffers
            .iter()
            .map(|buffer| PoolBox::new(WSK_BUF_LIST { Next: ptr::null_mut(), Buffer: buffer.wsk_buf() }))
            .collect();
        for index in 1..nodes.len() {
            let next = nodes[index].as_ptr();
            nodes[index - 1].Next = next;
        }
        Self { buffers: buffers.to_vec(), nodes }
    }

    /// The head of the list; null when it is empty.
    pub fn head(&self) -> *mut WSK_BUF_LIST {
        self.nodes.first().map_or(ptr::null_mut(), PoolBox::as_ptr)
    }

    /// The sum of the lengths.
    pub fn total(&self) -> usize {
        self.buffers.iter().map(Buffer::len).sum()
    }
}

/// Copies the memory that a `WSK_BUF` describes.
///
/// # Safety
/// The MDL chain is alive, mapped, and at least as long as the descriptor.
pub unsafe fn gather(buffer: &WSK_BUF) -> Vec<u8> {
    let (mut mdl, mut skip, mut rest) = (buffer.Mdl, buffer.Offset as usize, buffer.Length);
    let mut bytes = Vec::with_capacity(rest);
    while rest != 0 && !mdl.is_null() {
        // SAFETY: the caller guarantees a live chain of MDLs.
        let length = unsafe { nt::mdl_byte_count(mdl) } as usize;
        // SAFETY: the caller guarantees a live chain of MDLs.
        let mapped = unsafe { nt::mm_get_system_address_for_mdl_safe(mdl) };
        assert!(!mapped.is_null(), "an indicated MDL could not be mapped");
        let from = skip.min(length);
        let now = rest.min(length - from);
        let start = bytes.len();
        bytes.resize(start + now, 0);
        let source = mapped.cast::<u8>().wrapping_add(from);
        // SAFETY: the caller guarantees the mapping; the range lies inside this MDL.
        unsafe { source.copy_to_nonoverlapping(bytes[start..].as_mut_ptr(), now) };
        skip -= from;
        rest -= now;
        // SAFETY: the caller guarantees a live chain of MDLs.
        mdl = unsafe { nt::mdl_next(mdl) };
    }
    bytes
}
