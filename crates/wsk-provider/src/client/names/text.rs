//! `UNICODE_STRING`s.

use std::ptr;

use wsk_sys::PUNICODE_STRING;

use crate::client::ClientCall;

/// A name that a client passed; empty if there is none.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// Reads a string. Reports one that is not null-terminated (NAME-02).
    ///
    /// # Safety
    /// `string` is null or points to a whole string.
    pub(super) unsafe fn read(call: &ClientCall, string: PUNICODE_STRING) -> Self {
        if string.is_null() {
            return Self::default();
        }
        // SAFETY: the caller guarantees the structure.
        let string = unsafe { string.read() };
        let length = usize::from(string.Length) / 2;
        if string.Buffer.is_null() || length == 0 {
            return Self::default();
        }
        if !call.provider().is_whole(call.name, string.Buffer, length * 2, "NAME-02") {
            return Self::default();
        }
        let units: Vec<u16> = (0..length)
            .map(|index| {
                // SAFETY: the buffer has as many units as the length says.
                unsafe { string.Buffer.wrapping_add(index).read_unaligned() }
            })
            .collect();
        let room = call.provider().host.room(string.Buffer.cast_const().cast()).unwrap_or(usize::MAX) / 2;
        let terminated = room.min(usize::from(string.MaximumLength) / 2) > length && {
            // SAFETY: the buffer has more units than the length says.
            let last = unsafe { string.Buffer.wrapping_add(length).read_unaligned() };
            last == 0
        };
        if !terminated {
            call.provider().violation("NAME-02", call.name, "a name is not null-terminated");
        }
        Self(String::from_utf16_lossy(&units))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_string(self) -> Option<String> {
        (!self.0.is_empty()).then_some(self.0)
    }
}

/// Writes `text` and a terminating null; false if there is no room for both.
///
/// # Safety
/// `string` points to a string whose buffer has room for what its maximal length says.
pub(super) unsafe fn write(string: PUNICODE_STRING, text: &str) -> bool {
    let units: Vec<u16> = text.encode_utf16().chain([0]).collect();
    // SAFETY: the caller guarantees the structure.
    let mut value = unsafe { string.read() };
    if value.Buffer.is_null() || usize::from(value.MaximumLength) < units.len() * 2 {
        return false;
    }
    // SAFETY: the room was checked.
    unsafe { ptr::copy_nonoverlapping(units.as_ptr(), value.Buffer, units.len()) };
    value.Length = ((units.len() - 1) * 2) as u16;
    // SAFETY: the caller guarantees the structure.
    unsafe { string.write(value) };
    true
}
