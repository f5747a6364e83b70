//! Values of the driver's `Parameters` key, read into a buffer that bounds them.

use core::ptr::null_mut;

use wdk::nt_success;
use wdk_sys::ntddk::{ZwClose, ZwOpenKey, ZwQueryValueKey};
use wdk_sys::{
    _KEY_VALUE_INFORMATION_CLASS::KeyValuePartialInformation, HANDLE, KEY_QUERY_VALUE, NTSTATUS,
    OBJ_CASE_INSENSITIVE, OBJ_KERNEL_HANDLE, OBJECT_ATTRIBUTES, STATUS_BUFFER_OVERFLOW,
    STATUS_BUFFER_TOO_SMALL, STATUS_OBJECT_NAME_NOT_FOUND, UNICODE_STRING,
};
use wsk::Passive;
use wsk::memory::{OutOfMemory, PoolVec};

use crate::text::{ascii, counted, wide};

/// The longest name of a value.
const NAME: usize = 32;

/// A key that is open for reading values.
///
/// # Invariants
/// `handle` is a kernel handle of a registry key; this value closes it.
pub(crate) struct Key {
    handle: HANDLE,
}

impl Key {
    /// Opens `Parameters` below the driver's own key; `None` if there is no such key.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// The status of the kernel.
    ///
    /// # Safety
    /// `path` is the registry path that `DriverEntry` was given.
    pub(crate) unsafe fn parameters(
        path: *const UNICODE_STRING,
        passive: Passive<'_>,
    ) -> Result<Option<Self>, NTSTATUS> {
        // SAFETY: the caller says that the path is valid; a handle of null means that it is absolute.
        let Some(service) = (unsafe { Self::open(null_mut(), path, passive) })? else { return Ok(None) };
        let name = counted(wide!("Parameters"));
        // SAFETY: the string is valid during the call, and the handle is a key's.
        unsafe { Self::open(service.handle, &raw const name, passive) }
    }

    /// Opens a key.
    ///
    /// # Safety
    /// `name` points to a valid string, `parent` is the handle of a key or null.
    unsafe fn open(
        parent: HANDLE,
        name: *const UNICODE_STRING,
        _passive: Passive<'_>,
    ) -> Result<Option<Self>, NTSTATUS> {
        let mut attributes = OBJECT_ATTRIBUTES {
            Length: size_of::<OBJECT_ATTRIBUTES>() as u32,
            RootDirectory: parent,
            ObjectName: name.cast_mut(),
            Attributes: OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE,
            SecurityDescriptor: null_mut(),
            SecurityQualityOfService: null_mut(),
        };
        let mut handle = null_mut();
        // SAFETY: the level is passive, and all that is pointed to is valid during the call.
        let status = unsafe { ZwOpenKey(&raw mut handle, KEY_QUERY_VALUE, &raw mut attributes) };
        match status {
            STATUS_OBJECT_NAME_NOT_FOUND => Ok(None),
            _ if nt_success(status) => Ok(Some(Self { handle })),
            _ => Err(status),
        }
    }

    /// Reads a value.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    pub(crate) fn value<'a>(&self, name: &str, buffer: &'a mut Buffer, _: Passive<'_>) -> Value<'a> {
        let mut units = [0; NAME];
        let mut name = ascii(name, &mut units);
        let room = buffer.bytes.len() as u32;
        let mut length = 0;
        // SAFETY: the level is passive, the handle is a key's, the buffer has `room` bytes and the alignment
        // that KEY_VALUE_PARTIAL_INFORMATION needs.
        let status = unsafe {
            ZwQueryValueKey(
                self.handle,
                &raw mut name,
                KeyValuePartialInformation,
                buffer.bytes.as_mut_ptr().cast(),
                room,
                &raw mut length,
            )
        };
        match status {
            STATUS_OBJECT_NAME_NOT_FOUND => Value::Missing,
            STATUS_BUFFER_OVERFLOW | STATUS_BUFFER_TOO_SMALL => Value::TooLong,
            _ if nt_success(status) => buffer.value(),
            _ => Value::Unreadable,
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: this value owns the handle, and is made at PASSIVE_LEVEL and dropped by the code that made
        // it.
        let _ = unsafe { ZwClose(self.handle) };
    }
}

/// A value, or why there is none.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    /// There is no value of that name.
    Missing,
    /// A value.
    Found {
        /// `REG_…`.
        kind: u32,
        /// Its data.
        data: &'a [u8],
    },
    /// The value is larger than the buffer.
    TooLong,
    /// The registry gave an error.
    Unreadable,
}

/// Room for one value and what the registry says about it.
pub(crate) struct Buffer {
    /// In the pool, whose alignment is more than the structure there needs.
    bytes: PoolVec<u8>,
}

/// `TitleIndex`, `Type` and `DataLength` of `KEY_VALUE_PARTIAL_INFORMATION`; then comes the data.
const HEADER: usize = 3 * size_of::<u32>();

impl Buffer {
    /// Room for a value of so many bytes.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub(crate) fn try_new(length: usize) -> Result<Self, OutOfMemory> {
        let mut bytes = PoolVec::try_with_capacity(HEADER + length)?;
        while bytes.push(0).is_ok() {}
        Ok(Self { bytes })
    }

    /// The value that was read.
    fn value(&self) -> Value<'_> {
        let number = |at: usize| {
            let bytes = self.bytes.get(at..)?.first_chunk()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        let found = || {
            let (kind, length) = (number(4)?, number(8)?);
            let data = self.bytes.get(HEADER..)?.get(..length as usize)?;
            Some(Value::Found { kind, data })
        };
        found().unwrap_or(Value::Unreadable)
    }
}
