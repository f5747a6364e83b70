//! Data buffers: non-paged memory that comes with its memory descriptor list.

mod slice;

use core::fmt;
use core::ops::{Deref, DerefMut, Range};
use core::ptr::NonNull;

use wsk_sys::{WSK_BUF, nt};

use crate::error::{Error, Operation, Result, Status};
use crate::memory::{OutOfMemory, allocate, free};

pub use slice::Slice;

/// Memory that can be sent: a [`Buffer`], a [`Slice`] of one, or a [`RetainedPiece`](crate::RetainedPiece).
/// Sealed.
///
/// A request takes it by value and gives it back with its result, because WSK has the memory in between.
pub trait IoBuf: Describe {
    /// Returns the number of bytes.
    fn len(&self) -> usize;

    /// Returns whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Memory that describes itself to WSK.
///
/// # Safety
/// The memory behind the descriptor is as long as [`IoBuf::len`] says, locked, and neither freed nor written
/// until the value is dropped, wherever that moves.
pub unsafe trait Describe: Send + 'static {
    #[doc(hidden)]
    fn describe(&self) -> Result<WSK_BUF>;

    /// Drops the memory of a request whose future is gone, where no WSK function may be called: possibly
    /// inside the completion routine.
    #[doc(hidden)]
    fn orphaned(self)
    where
        Self: Sized,
    {
    }
}

// SAFETY: the buffer owns the memory and its MDL, and gives write access to its exclusive owner only, which a
// request is.
unsafe impl Describe for Buffer {
    fn describe(&self) -> Result<WSK_BUF> {
        self.wsk_buf_for_send(0..self.len())
    }
}

impl IoBuf for Buffer {
    fn len(&self) -> usize {
        Self::len(self)
    }
}

/// Owned bytes in non-paged memory, ready for WSK.
///
/// The memory and the MDL that describes it are made once. A request takes the buffer by value and gives it
/// back with its result, so that no byte of it can be touched, freed or moved while WSK has it (rule
/// LIFE-09).
///
/// # Invariants
/// - `data` points to `capacity` initialised bytes of non-paged pool, which this value owns.
/// - `mdl` describes exactly those bytes and belongs to this value.
/// - `len <= capacity`, and `capacity > 0`.
pub struct Buffer {
    data: NonNull<u8>,
    mdl: NonNull<nt::MDL>,
    len: u32,
    capacity: u32,
}

// SAFETY: the buffer owns plain memory and an MDL, which may be used and freed on any thread.
unsafe impl Send for Buffer {}
// SAFETY: a shared buffer gives read access to bytes only.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// An empty buffer with room for `capacity` bytes (for one, if that is zero). The memory is zeroed.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Out of memory, also for a capacity of 4 GiB and more, which no MDL can describe.
    pub fn try_with_capacity(capacity: usize) -> Result<Self> {
        Self::new(capacity).map_err(|OutOfMemory| Error::out_of_memory(Operation::Buffer))
    }

    fn new(capacity: usize) -> core::result::Result<Self, OutOfMemory> {
        let room = capacity.max(1);
        let capacity = u32::try_from(room).map_err(|_| OutOfMemory)?;
        let data = allocate(room)?;
        // SAFETY: the block is new and has room for so many bytes.
        unsafe { data.write_bytes(0, room) };
        // SAFETY: the range is the block just made; the MDL is neither tied to an IRP nor charged.
        let mdl = unsafe { nt::IoAllocateMdl(data.as_ptr().cast(), capacity, 0, 0, core::ptr::null_mut()) };
        let Some(mdl) = NonNull::new(mdl) else {
            // SAFETY: the block came from `allocate`, and nothing else has it.
            unsafe { free(data) };
            return Err(OutOfMemory);
        };
        // SAFETY: the MDL is new and describes non-paged pool.
        unsafe { nt::MmBuildMdlForNonPagedPool(mdl.as_ptr()) };
        Ok(Self { data, mdl, len: 0, capacity })
    }

    /// A buffer that holds a copy of `bytes` and has room for nothing more.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// As [`Buffer::try_with_capacity`].
    pub fn try_from_slice(bytes: &[u8]) -> Result<Self> {
        let mut buffer = Self::try_with_capacity(bytes.len())?;
        buffer.extend_from_slice(bytes)?;
        Ok(buffer)
    }

    /// The number of bytes in use.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns whether no byte is in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of bytes there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Sets the number of bytes in use; bytes that come into use have the value they last had, at first zero.
    ///
    /// # Errors
    /// `STATUS_INVALID_BUFFER_SIZE` if there is no room; nothing changes then.
    pub fn set_len(&mut self, len: usize) -> Result<()> {
        if len > self.capacity() {
            return Err(out_of_range());
        }
        self.len = len as u32;
        Ok(())
    }

    /// Keeps the first `len` bytes in use, or all if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len().min(len) as u32;
    }

    /// Keeps no byte in use.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends a copy of `bytes`.
    ///
    /// # Errors
    /// `STATUS_INVALID_BUFFER_SIZE` if there is no room for all of them; nothing changes then.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<()> {
        let start = self.len();
        let room = self.all_mut().get_mut(start..).and_then(|free| free.get_mut(..bytes.len()));
        room.ok_or_else(out_of_range)?.copy_from_slice(bytes);
        self.len = (start + bytes.len()) as u32;
        Ok(())
    }

    /// The bytes in use.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len <= capacity` bytes are initialised and owned, and `&self` excludes writers.
        unsafe { core::slice::from_raw_parts(self.data.as_ptr(), self.len()) }
    }

    /// The bytes in use, for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: `len <= capacity` bytes are initialised and owned, and `&mut self` excludes everybody else.
        unsafe { core::slice::from_raw_parts_mut(self.data.as_ptr(), self.len()) }
    }

    /// All bytes there is room for, in use or not. [`Buffer::set_len`] puts them in use.
    pub fn all_mut(&mut self) -> &mut [u8] {
        // SAFETY: `capacity` bytes are initialised and owned, and `&mut self` excludes everybody else.
        unsafe { core::slice::from_raw_parts_mut(self.data.as_ptr(), self.capacity()) }
    }

    /// Describes a part of the bytes in use, for a send.
    ///
    /// # Errors
    /// `STATUS_INVALID_BUFFER_SIZE` if the range goes past them or is reversed, or its start is not inside
    /// the MDL: Windows checks no range (rule SND-08).
    pub(crate) fn wsk_buf_for_send(&self, range: Range<usize>) -> Result<WSK_BUF> {
        let fits = range.start <= range.end && range.end <= self.len() && range.start < self.capacity();
        let offset = u32::try_from(range.start).ok().filter(|_| fits).ok_or_else(out_of_range)?;
        Ok(WSK_BUF { Mdl: self.mdl.as_ptr(), Offset: offset, Length: range.end - range.start })
    }

    /// Describes a part of the room, for a receive. The range is not empty, and goes no further than the
    /// capacity.
    pub(crate) fn wsk_buf_for_receive(&mut self, range: Range<usize>) -> WSK_BUF {
        debug_assert!(range.start < range.end && range.end <= self.capacity());
        WSK_BUF { Mdl: self.mdl.as_ptr(), Offset: range.start as u32, Length: range.len() }
    }
}

fn out_of_range() -> Error {
    Error::new(Operation::Buffer, Status::INVALID_BUFFER_SIZE)
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the MDL belongs to this buffer; requests take buffers by value, so none uses it any more.
        unsafe { nt::IoFreeMdl(self.mdl.as_ptr()) };
        // SAFETY: the block came from `allocate` and belongs to this buffer.
        unsafe { free(self.data) };
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.len)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}
