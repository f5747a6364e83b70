//! Control messages (`CMSGHDR`) and their arithmetic.
//!
//! ```text
//!  |<------------- CMSG_SPACE(n) ------------->|
//!  |<---------- CMSG_LEN(n) -------->|         |
//!  +-----------+-----+---------------+---------+-----------+--
//!  | CMSGHDR   | pad | n data bytes  | padding | CMSGHDR   | ...
//!  +-----------+-----+---------------+---------+-----------+--
//!  ^ aligned         ^ CMSG_DATA               ^ next header
//! ```
//! Headers are aligned as `CMSGHDR`, data to the largest natural alignment: both 8 bytes on 64-bit targets
//! and 4 bytes on 32-bit ones.

use core::mem::{align_of, size_of};

/// The header of a control message.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CMSGHDR {
    /// The length of header and data in bytes, [`CMSG_LEN`] of the data.
    pub cmsg_len: usize,
    /// The protocol level.
    pub cmsg_level: i32,
    /// The type within the level.
    pub cmsg_type: i32,
}
/// The name `CMSGHDR` has in the Winsock headers.
pub type WSACMSGHDR = CMSGHDR;
/// A pointer to a control message.
pub type PCMSGHDR = *mut CMSGHDR;

/// The largest natural alignment of the platform (`MAX_NATURAL_ALIGNMENT`).
pub const MAX_NATURAL_ALIGNMENT: usize = size_of::<usize>();

/// Rounds up to the alignment of headers; `None` when the number overflows.
const fn align_header(length: usize) -> Option<usize> {
    align_up(length, align_of::<CMSGHDR>())
}

const fn align_up(length: usize, alignment: usize) -> Option<usize> {
    match length.checked_add(alignment - 1) {
        Some(sum) => Some(sum & !(alignment - 1)),
        None => None,
    }
}

/// The offset of the data of a control message from its header.
pub const CMSG_DATA_OFFSET: usize =
    (size_of::<CMSGHDR>() + MAX_NATURAL_ALIGNMENT - 1) & !(MAX_NATURAL_ALIGNMENT - 1);

/// `cmsg_len` of a message with `data_length` bytes of data.
///
/// # Panics
/// If the sum overflows, which a length in a buffer cannot make it do.
pub const fn CMSG_LEN(data_length: usize) -> usize {
    CMSG_DATA_OFFSET + data_length
}

/// The bytes that a message with `data_length` bytes of data takes in a control buffer.
///
/// # Panics
/// If the sum overflows, which a length in a buffer cannot make it do.
pub const fn CMSG_SPACE(data_length: usize) -> usize {
    match align_header(data_length) {
        Some(length) => match align_up(CMSG_DATA_OFFSET + length, MAX_NATURAL_ALIGNMENT) {
            Some(space) => space,
            None => panic!("control message length overflows"),
        },
        None => panic!("control message length overflows"),
    }
}

/// The address of the data of a control message.
///
/// # Safety
/// `message` lies in a control buffer that holds the whole message.
pub const unsafe fn CMSG_DATA(message: *const CMSGHDR) -> *mut u8 {
    // SAFETY: the caller guarantees that header and data lie in one buffer.
    unsafe { message.cast::<u8>().add(CMSG_DATA_OFFSET).cast_mut() }
}

/// One message of a control buffer, as [`ControlMessages`] yields it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlMessage<'a> {
    /// The protocol level.
    pub level: i32,
    /// The type within the level.
    pub kind: i32,
    /// The data.
    pub data: &'a [u8],
}

/// Walks the messages of a control buffer and stops at the first that does not fit whole.
#[derive(Clone, Debug)]
pub struct ControlMessages<'a> {
    rest: &'a [u8],
}

impl<'a> ControlMessages<'a> {
    /// The messages of a buffer that starts with a header.
    pub const fn new(control: &'a [u8]) -> Self {
        Self { rest: control }
    }
}

/// Reads a header from the start of a buffer, whatever the alignment of the buffer is.
fn read_header(buffer: &[u8]) -> Option<CMSGHDR> {
    const WORD: usize = size_of::<usize>();
    let header = buffer.get(..size_of::<CMSGHDR>())?;
    Some(CMSGHDR {
        cmsg_len: usize::from_ne_bytes(header[..WORD].try_into().ok()?),
        cmsg_level: i32::from_ne_bytes(header[WORD..WORD + 4].try_into().ok()?),
        cmsg_type: i32::from_ne_bytes(header[WORD + 4..WORD + 8].try_into().ok()?),
    })
}

impl<'a> Iterator for ControlMessages<'a> {
    type Item = ControlMessage<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let header = read_header(self.rest)?;
        let data = self.rest.get(CMSG_DATA_OFFSET..header.cmsg_len);
        let next = align_header(header.cmsg_len).and_then(|step| self.rest.get(step..));
        self.rest = next.unwrap_or(&[]);
        let Some(data) = data else {
            self.rest = &[];
            return None;
        };
        Some(ControlMessage { level: header.cmsg_level, kind: header.cmsg_type, data })
    }
}

/// Writes one message to the start of a buffer and returns the bytes it takes; `None` when it does not fit.
///
/// Padding bytes are zeroed.
pub fn write_control_message(buffer: &mut [u8], level: i32, kind: i32, data: &[u8]) -> Option<usize> {
    const WORD: usize = size_of::<usize>();
    let space = align_header(data.len())?.checked_add(CMSG_DATA_OFFSET)?;
    let message = buffer.get_mut(..space)?;
    message.fill(0);
    message[..WORD].copy_from_slice(&CMSG_LEN(data.len()).to_ne_bytes());
    message[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
    message[WORD + 4..WORD + 8].copy_from_slice(&kind.to_ne_bytes());
    message[CMSG_DATA_OFFSET..CMSG_DATA_OFFSET + data.len()].copy_from_slice(data);
    Some(space)
}
