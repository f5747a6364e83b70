//! Loading and unloading.
//!
//! The thread is the driver's only one. Its object is referenced until `DriverUnload` has waited for it; by
//! then the thread has left this image.
//!
//! Completion routines of the raw interface set an event as their last act, and then return: for some
//! instructions they are still in this image. Stop the driver when the file has its last line, `# end`; by
//! then a deregistration and writes to the disk have passed since the last of them.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use wdk_sys::ntddk::RtlGetVersion;
use wdk_sys::{DRIVER_OBJECT, NTSTATUS, OSVERSIONINFOW, PCUNICODE_STRING, STATUS_SUCCESS};
use wsk_sys::nt;

use crate::file::File;

/// The thread's object, while the driver is loaded.
static THREAD: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// The entry routine of the driver.
///
/// # Safety
/// Only the I/O manager calls it.
// SAFETY: the linker's settings name this symbol as the entry; nothing else has the name.
#[unsafe(export_name = "DriverEntry")]
unsafe extern "system" fn driver_entry(driver: &mut DRIVER_OBJECT, _path: PCUNICODE_STRING) -> NTSTATUS {
    let mut attributes = nt::OBJECT_ATTRIBUTES::kernel_handle();
    let (mut handle, null) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: drivers are loaded at PASSIVE_LEVEL; the thread's routine needs no context.
    let status = unsafe {
        nt::PsCreateSystemThread(
            &raw mut handle,
            nt::THREAD_ALL_ACCESS,
            (&raw mut attributes).cast(),
            null,
            null,
            Some(thread),
            null,
        )
    };
    if status != STATUS_SUCCESS {
        return status;
    }
    let mut object = ptr::null_mut();
    // SAFETY: the handle is this function's own and that of a thread.
    let status = unsafe {
        nt::ObReferenceObjectByHandle(
            handle,
            nt::THREAD_ALL_ACCESS,
            null,
            nt::KERNEL_MODE,
            &raw mut object,
            null,
        )
    };
    if status == STATUS_SUCCESS {
        THREAD.store(object, Ordering::Release);
        driver.DriverUnload = Some(driver_unload);
    }
    // Without the object the thread could not be waited for, so the driver stays loaded: it has no unload
    // routine.
    // SAFETY: the handle is this function's own, and closed once.
    unsafe { nt::ZwClose(handle) };
    STATUS_SUCCESS
}

/// The unload routine of the driver.
///
/// # Safety
/// Only the I/O manager calls it, after [`driver_entry`] has succeeded.
unsafe extern "C" fn driver_unload(_driver: *mut DRIVER_OBJECT) {
    let thread = THREAD.swap(ptr::null_mut(), Ordering::AcqRel);
    if thread.is_null() {
        return;
    }
    // SAFETY: the object is referenced, and this is PASSIVE_LEVEL.
    unsafe { nt::KeWaitForSingleObject(thread, nt::EXECUTIVE, nt::KERNEL_MODE, 0, ptr::null_mut()) };
    // SAFETY: the reference is released once.
    unsafe { nt::ObfDereferenceObject(thread) };
}

/// The routine of the thread.
unsafe extern "system" fn thread(_context: *mut c_void) {
    let mut file = File::create();
    probe_calls::run(&mut file, build());
}

/// The build of this Windows, zero if unknown.
fn build() -> u32 {
    let mut version = OSVERSIONINFOW {
        dwOSVersionInfoSize: size_of::<OSVERSIONINFOW>() as u32,
        ..OSVERSIONINFOW::default()
    };
    // SAFETY: the structure is a local and contains its size.
    if unsafe { RtlGetVersion(&raw mut version) } == STATUS_SUCCESS { version.dwBuildNumber } else { 0 }
}
