//! A part of a buffer.

use core::fmt;
use core::ops::Range;

use wsk_sys::nt::{self, MDL};
use wsk_sys::{STATUS_INVALID_BUFFER_SIZE, WSK_BUF};

use super::{Buffer, Describe, IoBuf};
use crate::error::{Error, Operation, Result};

/// A part of a buffer, to be sent or received into. The buffer comes back with [`Slice::into_inner`].
///
/// ```
/// # use wsk::{Buffer, Connection, Result};
/// /// Receives a record whose first two bytes say how many bytes follow.
/// async fn receive(connection: &mut Connection) -> Result<Buffer> {
///     let buffer = Buffer::try_with_capacity(2 + 0xFFFF)?;
///     let (received, head) = connection.receive_exact(buffer.slice(0..2)?).await;
///     received?;
///     let buffer = head.into_inner();
///     let length = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
///     let (received, body) = connection.receive_exact(buffer.slice(2..2 + length)?).await;
///     received.map(|()| body.into_inner())
/// }
/// ```
pub struct Slice<B> {
    pub(crate) buffer: B,
    pub(crate) range: Range<usize>,
}

impl<B> Slice<B> {
    /// Returns the buffer.
    pub fn into_inner(self) -> B {
        self.buffer
    }

    /// Returns the range of the buffer.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

impl Buffer {
    /// Takes a part of the buffer: bytes in use to be sent, or room to be received into.
    ///
    /// # Errors
    /// `STATUS_INVALID_BUFFER_SIZE` if the range goes past the capacity or is reversed; the buffer is freed
    /// then.
    pub fn slice(self, range: Range<usize>) -> Result<Slice<Self>> {
        if range.start <= range.end && range.end <= self.capacity() {
            Ok(Slice { buffer: self, range })
        } else {
            Err(out_of_range())
        }
    }
}

fn out_of_range() -> Error {
    Error::new(Operation::Buffer, STATUS_INVALID_BUFFER_SIZE)
}

impl<B: IoBuf> Slice<B> {
    /// Takes a part of anything that can be sent.
    ///
    /// # Errors
    /// `STATUS_INVALID_BUFFER_SIZE` if the range goes past the end or is reversed; the buffer is dropped
    /// then.
    pub fn of(buffer: B, range: Range<usize>) -> Result<Self> {
        if range.start <= range.end && range.end <= buffer.len() {
            Ok(Self { buffer, range })
        } else {
            Err(out_of_range())
        }
    }
}

// SAFETY: it describes a part of what the buffer describes, in memory of the buffer.
unsafe impl<B: IoBuf> Describe for Slice<B> {
    fn describe(&self) -> Result<WSK_BUF> {
        // The bytes in use may be fewer by now.
        if self.range.end > self.buffer.len() {
            return Err(out_of_range());
        }
        let whole = self.buffer.describe()?;
        // SAFETY: the descriptor was just made by the buffer, whose MDLs are valid as long as it.
        Ok(unsafe { part(whole, self.range.clone()) })
    }

    fn orphaned(self) {
        self.buffer.orphaned();
    }
}

impl<B: IoBuf> IoBuf for Slice<B> {
    fn len(&self) -> usize {
        self.range.len()
    }
}

/// Describes a part of what `whole` describes, which contains `range`. MDLs before its start are skipped,
/// because an offset must lie in the first one.
///
/// # Safety
/// The MDLs of `whole` are valid during the call.
unsafe fn part(whole: WSK_BUF, range: Range<usize>) -> WSK_BUF {
    let mut mdl: *mut MDL = whole.Mdl;
    let mut offset = whole.Offset as usize + range.start;
    while !mdl.is_null() {
        // SAFETY: the caller says that the MDLs are valid.
        let count = unsafe { nt::mdl_byte_count(mdl) } as usize;
        if offset < count {
            break;
        }
        // SAFETY: the caller says that the MDLs are valid.
        let next = unsafe { nt::mdl_next(mdl) };
        // An empty part at the very end stays in the last MDL.
        if next.is_null() {
            break;
        }
        offset -= count;
        mdl = next;
    }
    WSK_BUF { Mdl: mdl, Offset: offset as u32, Length: range.len() }
}

impl<B: fmt::Debug> fmt::Debug for Slice<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slice").field("buffer", &self.buffer).field("range", &self.range).finish()
    }
}
