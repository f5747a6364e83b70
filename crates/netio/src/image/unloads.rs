//! Notifications of unloaded images, which the machine checks for leaks.

use std::ffi::c_void;
use std::mem::size_of;
use std::ops::Range;
use std::ptr::{self, null_mut};
use std::slice;

use windows_sys::Win32::Foundation::{CloseHandle, HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next,
};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Memory::{MEM_IMAGE, MEMORY_BASIC_INFORMATION, VirtualQuery};
use windows_sys::Win32::System::Threading::{GetCurrentProcessId, OpenThread, THREAD_QUERY_INFORMATION};
use windows_sys::core::s;
use wsk_sys::UNICODE_STRING;

use super::process::machine;

/// `LDR_DLL_NOTIFICATION_REASON_UNLOADED`
const UNLOADED: u32 = 2;
/// `ThreadQuerySetWin32StartAddress`
const START_ADDRESS: i32 = 9;

/// `LDR_DLL_UNLOADED_NOTIFICATION_DATA`
#[repr(C)]
struct Image {
    flags: u32,
    full_name: *const UNICODE_STRING,
    base_name: *const UNICODE_STRING,
    base: *mut c_void,
    size: u32,
}

type Notification = unsafe extern "system" fn(reason: u32, image: *const Image, context: *mut c_void);
type Register = unsafe extern "system" fn(
    flags: u32,
    notification: Notification,
    context: *mut c_void,
    cookie: *mut *mut c_void,
) -> i32;
type QueryThread = unsafe extern "system" fn(
    thread: HANDLE,
    class: i32,
    information: *mut c_void,
    length: u32,
    returned: *mut u32,
) -> i32;

/// A function of `ntdll.dll`.
fn native(name: windows_sys::core::PCSTR) -> Option<unsafe extern "system" fn() -> isize> {
    // SAFETY: the name is a string that ends with a null.
    let ntdll = unsafe { GetModuleHandleA(s!("ntdll.dll")) };
    // SAFETY: the module is loaded and stays so, and the caller's name ends with a null.
    unsafe { GetProcAddress(ntdll, name) }
}

/// Returns true if `address` lies in an image. Does not use the loader, whose lock another thread may hold.
pub(super) fn is_in_image(address: usize) -> bool {
    let mut region = MEMORY_BASIC_INFORMATION::default();
    let size = size_of::<MEMORY_BASIC_INFORMATION>();
    // SAFETY: the region has the size that is passed; any address may be queried.
    let written = unsafe { VirtualQuery(ptr::without_provenance(address), &raw mut region, size) };
    written == size && region.Type == MEM_IMAGE
}

/// Registers for notifications of unloaded images; returns false if that fails.
pub(super) fn watch() -> bool {
    let Some(found) = native(s!("LdrRegisterDllNotification")) else { return false };
    // SAFETY: the loader's function of that name has this type.
    let register = unsafe { std::mem::transmute::<unsafe extern "system" fn() -> isize, Register>(found) };
    let mut cookie = null_mut();
    // SAFETY: this image, with the notification, stays loaded, and the cookie can be written.
    unsafe { register(0, notified, null_mut(), &raw mut cookie) >= 0 }
}

/// # Safety
/// Called by the loader with the description of an image.
unsafe extern "system" fn notified(reason: u32, image: *const Image, _context: *mut c_void) {
    if reason != UNLOADED {
        return;
    }
    // SAFETY: the loader passes a description that is valid during the call.
    let image = unsafe { &*image };
    let range = image.base.addr()..image.base.addr() + image.size as usize;
    // SAFETY: the description, with its strings, is alive during the call.
    let name = unsafe { text(image.base_name) };
    machine().image_unloads(&name, &range, || threads_of(&range));
}

/// # Safety
/// `string` is null or points to a whole string.
unsafe fn text(string: *const UNICODE_STRING) -> String {
    // SAFETY: the caller guarantees null or a whole string.
    let Some(string) = (unsafe { string.as_ref() }).filter(|string| !string.Buffer.is_null()) else {
        return "an image".to_owned();
    };
    // SAFETY: a whole string has this number of units.
    let units = unsafe { slice::from_raw_parts(string.Buffer, usize::from(string.Length) / 2) };
    String::from_utf16_lossy(units)
}

/// The number of threads of this process that began in `image`.
fn threads_of(image: &Range<usize>) -> usize {
    let Some(found) = native(s!("NtQueryInformationThread")) else { return 0 };
    // SAFETY: the function of that name has this type.
    let query = unsafe { std::mem::transmute::<unsafe extern "system" fn() -> isize, QueryThread>(found) };
    // SAFETY: nothing is required.
    let snapshot = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0) };
    if snapshot == INVALID_HANDLE_VALUE {
        return 0;
    }
    // SAFETY: nothing is required.
    let own = unsafe { GetCurrentProcessId() };
    let mut thread = THREADENTRY32 { dwSize: size_of::<THREADENTRY32>() as u32, ..THREADENTRY32::default() };
    let mut count = 0;
    // SAFETY: the snapshot is open, and the entry contains its length.
    let mut more = unsafe { Thread32First(snapshot, &raw mut thread) } != 0;
    while more {
        if thread.th32OwnerProcessID == own && began_in(query, thread.th32ThreadID, image) {
            count += 1;
        }
        // SAFETY: the snapshot is open, and the entry contains its length.
        more = unsafe { Thread32Next(snapshot, &raw mut thread) } != 0;
    }
    // SAFETY: the snapshot is open, and not used any more.
    unsafe { CloseHandle(snapshot) };
    count
}

/// Returns true if a thread began in `image`.
fn began_in(query: QueryThread, thread: u32, image: &Range<usize>) -> bool {
    // SAFETY: nothing is required.
    let handle = unsafe { OpenThread(THREAD_QUERY_INFORMATION, 0, thread) };
    if handle.is_null() {
        return false;
    }
    let mut start = 0_usize;
    let length = size_of::<usize>() as u32;
    // SAFETY: the handle is open, and the result has that length.
    let status = unsafe { query(handle, START_ADDRESS, (&raw mut start).cast(), length, ptr::null_mut()) };
    // SAFETY: the handle is open, and not used any more.
    unsafe { CloseHandle(handle) };
    status >= 0 && image.contains(&start)
}
