//! The destination of the lines: a file and the kernel debugger.
//!
//! # IRQL
//! `PASSIVE_LEVEL`, in the driver's thread.

use core::ffi::c_int;
use core::mem::size_of;
use core::ptr;

use probe_calls::Output;
use wdk_sys::ntddk::{DbgPrint, ZwClose, ZwCreateFile, ZwWriteFile};
use wdk_sys::{
    FILE_ATTRIBUTE_NORMAL, FILE_NON_DIRECTORY_FILE, FILE_OVERWRITE_IF, FILE_SHARE_READ,
    FILE_SYNCHRONOUS_IO_NONALERT, FILE_WRITE_THROUGH, GENERIC_WRITE, HANDLE, IO_STATUS_BLOCK, NTSTATUS,
    OBJ_CASE_INSENSITIVE, OBJ_KERNEL_HANDLE, OBJECT_ATTRIBUTES, STATUS_SUCCESS, SYNCHRONIZE, UNICODE_STRING,
};

/// `\??\C:\wsk-probe.tsv`, terminated by zero.
static PATH: [u16; 21] = {
    let text = *br"\??\C:\wsk-probe.tsv";
    let mut units = [0; 21];
    let mut index = 0;
    while index < text.len() {
        units[index] = text[index] as u16;
        index += 1;
    }
    units
};

/// The file, or none if it could not be created; then only the debugger gets the lines.
pub(crate) struct File(Option<HANDLE>);

impl File {
    /// Creates the file, replacing an existing one.
    pub(crate) fn create() -> Self {
        let bytes = (size_of_val(&PATH) - size_of::<u16>()) as u16;
        let mut path = UNICODE_STRING {
            Length: bytes,
            MaximumLength: bytes + size_of::<u16>() as u16,
            Buffer: PATH.as_ptr().cast_mut(),
        };
        let mut attributes = OBJECT_ATTRIBUTES {
            Length: size_of::<OBJECT_ATTRIBUTES>() as u32,
            ObjectName: &raw mut path,
            Attributes: OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE,
            ..OBJECT_ATTRIBUTES::default()
        };
        let (mut handle, mut outcome) = (ptr::null_mut(), IO_STATUS_BLOCK::default());
        // SAFETY: the arguments are locals, and the path, which is only read.
        let status = unsafe {
            ZwCreateFile(
                &raw mut handle,
                GENERIC_WRITE | SYNCHRONIZE,
                &raw mut attributes,
                &raw mut outcome,
                ptr::null_mut(),
                FILE_ATTRIBUTE_NORMAL,
                FILE_SHARE_READ,
                FILE_OVERWRITE_IF,
                FILE_SYNCHRONOUS_IO_NONALERT | FILE_NON_DIRECTORY_FILE | FILE_WRITE_THROUGH,
                ptr::null_mut(),
                0,
            )
        };
        if status == STATUS_SUCCESS {
            return Self(Some(handle));
        }
        Self::complain(status);
        Self(None)
    }

    fn write(&mut self, bytes: &[u8]) {
        let Some(handle) = self.0 else { return };
        let mut outcome = IO_STATUS_BLOCK::default();
        let length = u32::try_from(bytes.len()).unwrap_or_default();
        // SAFETY: the handle is open; bytes and block live until the call returns, as the file is
        // synchronous.
        let status = unsafe {
            ZwWriteFile(
                handle,
                ptr::null_mut(),
                None,
                ptr::null_mut(),
                &raw mut outcome,
                bytes.as_ptr().cast_mut().cast(),
                length,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        if status != STATUS_SUCCESS {
            Self::complain(status);
        }
    }

    fn complain(status: NTSTATUS) {
        // SAFETY: the format takes one number.
        unsafe { DbgPrint(c"wsk_probe: the file cannot be written: status 0x%08X\n".as_ptr(), status) };
    }
}

impl Output for File {
    fn line(&mut self, line: &[u8]) {
        let length = c_int::try_from(line.len()).unwrap_or_default();
        // SAFETY: the format takes a counted text, which is valid during the call.
        unsafe { DbgPrint(c"wsk_probe: %.*s\n".as_ptr(), length, line.as_ptr()) };
        self.write(line);
        self.write(b"\r\n");
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            // SAFETY: the handle is open, and closed once.
            unsafe { ZwClose(handle) };
        }
    }
}
