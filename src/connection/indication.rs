//! Received data inside its callback, and data retained beyond it.
//!
//! ```text
//!                     ┌─ accept / accept_first / refuse ─▶ answered, the memory is WSK's again
//!  callback running ──┤
//!                     └─ retain ─▶ RetainedData ──returns STATUS_PENDING──▶ held ──drop──▶ WskRelease
//!                                       │
//!                                       └ dropped before the callback returned: answered as accepted
//! ```
//!
//! While data is retained the socket cannot begin to close, because a close does not release it (rule
//! RCVE-19): the retained data holds rundown protection.
//!
//! WSK may indicate memory that is not mapped yet, and mapping writes the MDL. Inside the callback one thread
//! maps what it reads; data is mapped as a whole before it is retained, so that the threads that share it
//! only read.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use wsk_sys::nt::{self, MDL, NTSTATUS};
use wsk_sys::{
    STATUS_DATA_NOT_ACCEPTED, STATUS_FILE_FORCED_CLOSED, STATUS_PENDING, STATUS_SUCCESS, WSK_BUF,
    WSK_DATA_INDICATION, WSK_FLAG_ENTIRE_MESSAGE, WSK_FLAG_RELEASE_ASAP,
};

use super::shared::ConnectionRef;
use crate::error::{Error, Operation, Result};
use crate::socket::ConnectionTable;

/// Received data, valid inside the callback. It is used up by answering.
pub struct Indication<'a> {
    connection: &'a ConnectionRef,
    data: Data<'a>,
    flags: u32,
}

/// A walk over the memory of an indication list.
///
/// # Invariants
/// The list, its MDLs and the memory they describe are valid for `'a`, or until the release, and nobody
/// writes the memory. The MDLs are mapped, or one thread alone has the value.
#[derive(Clone, Copy)]
struct Data<'a> {
    list: NonNull<WSK_DATA_INDICATION>,
    len: usize,
    _memory: PhantomData<fn(&'a ()) -> &'a ()>,
}

impl<'a> Indication<'a> {
    /// # Safety
    /// `list` is what a running callback of this connection was given, which is not null, with `len` bytes in
    /// it.
    pub(super) unsafe fn new(
        connection: &'a ConnectionRef,
        list: *mut WSK_DATA_INDICATION,
        flags: u32,
        len: usize,
    ) -> Self {
        connection.common().indicated.begin(list);
        // SAFETY: the caller says that it is not null.
        let list = unsafe { NonNull::new_unchecked(list) };
        Self { connection, data: Data { list, len, _memory: PhantomData }, flags }
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.data.len
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.data.len == 0
    }

    /// WSK asks for the memory back soon: copy rather than retain (`WSK_FLAG_RELEASE_ASAP`).
    pub fn release_soon(&self) -> bool {
        self.flags & WSK_FLAG_RELEASE_ASAP != 0
    }

    /// The transport saw the end of a message, for TCP the push bit (`WSK_FLAG_ENTIRE_MESSAGE`).
    pub fn entire_message(&self) -> bool {
        self.flags & WSK_FLAG_ENTIRE_MESSAGE != 0
    }

    /// Calls `each` with the pieces of the data, in order, until it answers `false`.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` when a piece cannot be mapped (rule RCVE-17); the pieces before it
    /// were seen.
    pub fn for_each(&self, each: impl FnMut(&[u8]) -> bool) -> Result<()> {
        self.data.for_each(each)
    }

    /// Copies as much as fits; says how much that was.
    ///
    /// # Errors
    /// As for [`Indication::for_each`].
    pub fn copy_to(&self, target: &mut [u8]) -> Result<usize> {
        self.data.copy_to(target)
    }

    /// Takes all of the data. The memory goes back to WSK.
    pub fn accept(self) -> Taken<'a> {
        Taken { answer: Answer::All, _callback: PhantomData }
    }

    /// Takes the first `bytes`; the rest stays with WSK, is the first to be received later, and no data is
    /// indicated until a [receive](super::Connection::receive) was posted and has completed.
    pub fn accept_first(self, bytes: usize) -> Taken<'a> {
        let answer = if bytes >= self.data.len { Answer::All } else { Answer::First(bytes) };
        Taken { answer, _callback: PhantomData }
    }

    /// Takes nothing; as [`Indication::accept_first`] with zero.
    pub fn refuse(self) -> Taken<'a> {
        Taken { answer: Answer::None, _callback: PhantomData }
    }

    /// Keeps the memory beyond the callback, without a copy.
    ///
    /// This is dear: the memory is the network adapter's, and holding even one piece of it can make the
    /// adapter drop packets. Copy unless it is given back at once.
    ///
    /// # Errors
    /// `STATUS_FILE_FORCED_CLOSED` if the connection is closing, and `STATUS_INSUFFICIENT_RESOURCES` if the
    /// memory cannot be mapped (rule RCVE-17); the indication comes back.
    pub fn retain(self) -> core::result::Result<(Taken<'a>, RetainedData), (Error, Self)> {
        if let Err(error) = self.data.for_each(|_| true) {
            return Err((error, self));
        }
        match self.connection.acquire() {
            Some(permit) => {
                permit.keep();
                let data = Data { list: self.data.list, len: self.data.len, _memory: PhantomData };
                let retained = RetainedData { connection: self.connection.clone(), data };
                Ok((Taken { answer: Answer::Retained, _callback: PhantomData }, retained))
            }
            None => Err((Error::new(Operation::Receive, STATUS_FILE_FORCED_CLOSED), self)),
        }
    }
}

impl fmt::Debug for Indication<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Indication").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The answer to one [`Indication`]; it can only be had by answering.
#[must_use = "the handler returns it"]
pub struct Taken<'a> {
    answer: Answer,
    /// Ties the answer to its own callback: the lifetime is invariant and every call has its own.
    _callback: PhantomData<fn(&'a ()) -> &'a ()>,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    All,
    First(usize),
    None,
    Retained,
}

impl Taken<'_> {
    /// Returns the callback's status, and the value for `BytesAccepted`, for an indication of `bytes` bytes.
    pub(super) fn finish(
        self,
        connection: &ConnectionRef,
        list: *mut WSK_DATA_INDICATION,
        bytes: usize,
    ) -> (NTSTATUS, Option<usize>) {
        let still_held = connection.common().indicated.end(list);
        match self.answer {
            Answer::First(first) => (STATUS_SUCCESS, Some(first)),
            Answer::None => (STATUS_DATA_NOT_ACCEPTED, None),
            Answer::Retained if still_held => (STATUS_PENDING, None),
            // Data that was retained and let go again before the callback returned was all accepted. The
            // number is written, because what is there when the callback begins is not defined (rule
            // RCVE-16).
            Answer::All | Answer::Retained => (STATUS_SUCCESS, Some(bytes)),
        }
    }
}

impl fmt::Debug for Taken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.answer.fmt(f)
    }
}

/// Received data kept beyond its callback; dropping it gives it back (`WskRelease`).
///
/// # Invariants
/// - It holds rundown protection of the connection, so the socket does not begin to close before it was
///   released.
/// - Every MDL of its list that describes any of its bytes is mapped: [`Indication::retain`] has walked them
///   all.
pub struct RetainedData {
    connection: ConnectionRef,
    data: Data<'static>,
}

// SAFETY: the list and its memory stay valid until the release, and may be read and released from any thread.
unsafe impl Send for RetainedData {}
// SAFETY: `&RetainedData` walks the list and reads its memory. By the second invariant every MDL on the way
// is mapped, so asking for its address reads two fields of it and calls nothing that would write them.
unsafe impl Sync for RetainedData {}

impl RetainedData {
    pub(super) fn connection(&self) -> &ConnectionRef {
        &self.connection
    }

    pub(super) fn list(&self) -> *mut WSK_DATA_INDICATION {
        self.data.list.as_ptr()
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.data.len
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.data.len == 0
    }

    /// As [`Indication::for_each`].
    ///
    /// # Errors
    /// As for [`Indication::for_each`].
    pub fn for_each(&self, each: impl FnMut(&[u8]) -> bool) -> Result<()> {
        self.data.for_each(each)
    }

    /// As [`Indication::copy_to`].
    ///
    /// # Errors
    /// As for [`Indication::for_each`].
    pub fn copy_to(&self, target: &mut [u8]) -> Result<usize> {
        self.data.copy_to(target)
    }
}

impl Drop for RetainedData {
    fn drop(&mut self) {
        let list = self.data.list.as_ptr();
        let in_callback = self.connection.common().indicated.end(list);
        // SAFETY: `retain` has kept this protection, and this is the value's only drop.
        let permit = unsafe { self.connection.resume() };
        // SAFETY: the socket is a connection.
        let table = unsafe { permit.table::<ConnectionTable>() };
        if let Some(release) = table.release().filter(|_| !in_callback) {
            // SAFETY: the list came from this socket, was retained, and is released once (rule RCVE-20).
            let _ = unsafe { release(permit.handle(), list) };
        }
        drop(permit);
    }
}

impl fmt::Debug for RetainedData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetainedData").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Data<'_> {
    fn for_each(&self, mut each: impl FnMut(&[u8]) -> bool) -> Result<()> {
        let mut element = self.list.as_ptr();
        while let Some(current) = NonNull::new(element) {
            // SAFETY: the elements of a list are valid as long as the list: during the callback, or until the
            // release.
            let indication = unsafe { current.as_ref() };
            // SAFETY: the buffer describes memory that is valid as long as the list. It is mapped if the list
            // is retained; otherwise it is an `Indication`'s, which is not `Sync`, so that only the thread of
            // the callback uses it.
            if !unsafe { for_each_piece(&indication.Buffer, &mut each) }? {
                return Ok(());
            }
            element = indication.Next;
        }
        Ok(())
    }

    fn copy_to(&self, target: &mut [u8]) -> Result<usize> {
        let mut copied = 0;
        self.for_each(|piece| {
            let room = &mut target[copied..];
            let count = piece.len().min(room.len());
            room[..count].copy_from_slice(&piece[..count]);
            copied += count;
            copied < target.len()
        })?;
        Ok(copied)
    }
}

/// Walks an MDL chain: the offset applies to the first MDL only (rule RCVE-12).
///
/// Maps the MDLs that it comes to and are not mapped, which writes them.
///
/// # Safety
/// `buffer` describes valid, locked memory that nobody writes meanwhile. While an MDL of it that holds some
/// of its bytes is not mapped, no other thread uses the buffer.
unsafe fn for_each_piece(buffer: &WSK_BUF, each: &mut impl FnMut(&[u8]) -> bool) -> Result<bool> {
    let mut mdl: *mut MDL = buffer.Mdl;
    let mut offset = buffer.Offset as usize;
    let mut left = buffer.Length;
    while left > 0 && !mdl.is_null() {
        // SAFETY: the caller says that the MDLs of the chain are valid.
        let count = unsafe { nt::mdl_byte_count(mdl) } as usize;
        let piece = count.saturating_sub(offset).min(left);
        if piece > 0 {
            // SAFETY: the caller says that the memory is locked, and that no other thread uses an MDL that is
            // to be mapped.
            let address = unsafe { nt::mm_get_system_address_for_mdl_safe(mdl) }.cast::<u8>().cast_const();
            if address.is_null() {
                return Err(Error::out_of_memory(Operation::Receive));
            }
            // SAFETY: `offset` is less than the byte count of the MDL.
            let start = unsafe { address.add(offset) };
            // SAFETY: the MDL describes `piece` readable bytes from there.
            let bytes = unsafe { core::slice::from_raw_parts(start, piece) };
            if !each(bytes) {
                return Ok(false);
            }
        }
        left -= piece;
        offset = offset.saturating_sub(count);
        // SAFETY: the caller says that the MDLs of the chain are valid.
        mdl = unsafe { nt::mdl_next(mdl) };
    }
    Ok(true)
}
