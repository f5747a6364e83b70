//! System threads, handles and references.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wsk_sys::nt::{HANDLE, KSTART_ROUTINE, NTSTATUS, PASSIVE_LEVEL, PEPROCESS};
use wsk_sys::status::{
    STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_HANDLE, STATUS_INVALID_PARAMETER, STATUS_SUCCESS,
};

use super::{Owner, ThreadObject, current};
use crate::checker::argument;
use crate::checker::context::check_irql;
use crate::checker::violation::rule;
use crate::faults::Point;
use crate::image::{self, Routine};

/// A pointer argument that is sent to another thread.
struct SendPtr(*mut c_void);

// SAFETY: the driver gave the pointer to be passed to its own routine on the new thread; this crate never
// follows it.
unsafe impl Send for SendPtr {}

/// Creates a system thread; see [`wsk_sys::nt::PsCreateSystemThread`].
///
/// # Safety
/// `thread` can be written. `start_routine` may be called with `start_context` on another thread.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn PsCreateSystemThread(
    thread: *mut HANDLE,
    _desired_access: u32,
    _object_attributes: *mut c_void,
    _process: HANDLE,
    _client_id: *mut c_void,
    start_routine: Option<KSTART_ROUTINE>,
    start_context: *mut c_void,
) -> NTSTATUS {
    const CALL: &str = "PsCreateSystemThread";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, PASSIVE_LEVEL);
    argument::check_aligned(&kernel, CALL, "storage for a handle", thread);
    let Some(start_routine) = start_routine else { return STATUS_INVALID_PARAMETER };
    if kernel.faults.fails(Point::Thread, 0, 0) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    let object = ThreadObject::new(kernel.next_thread_name("system-thread"), Owner::Driver);
    let context = SendPtr(start_context);
    let routine = Routine::Thread(object.address());
    let started = kernel.start_thread(kernel.kernel(), Arc::clone(&object), move || {
        let SendPtr(context) = { context };
        let kernel = current::kernel(CALL);
        let number = kernel.image.enter(&kernel, routine, None);
        // SAFETY: the caller of `PsCreateSystemThread` guarantees that the routine may be called with this
        // context.
        unsafe { start_routine(context) };
        kernel.image.leave(&kernel, number);
    });
    if started.is_err() {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    let mut table = kernel.threads.table.lock();
    // Handles are multiples of four, as they are on Windows.
    table.last_handle += 4;
    let handle = table.last_handle;
    table.handles.insert(handle, object);
    drop(table);
    // SAFETY: the caller guarantees a place for the handle.
    unsafe { thread.write(std::ptr::without_provenance_mut(handle)) };
    STATUS_SUCCESS
}

/// Sets the exit status of the calling system thread, which ends when its start routine returns; see
/// [`wsk_sys::nt::PsTerminateSystemThread`].
///
/// # Safety
/// None beyond being called on a thread of a kernel; the signature is the kernel's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn PsTerminateSystemThread(exit_status: NTSTATUS) -> NTSTATUS {
    const CALL: &str = "PsTerminateSystemThread";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, PASSIVE_LEVEL);
    let Some(object) = current::object() else { return STATUS_INVALID_PARAMETER };
    // SAFETY: the binding of the calling thread holds its object.
    let object = unsafe { object.as_ref() };
    if object.owner != Owner::Driver {
        return STATUS_INVALID_PARAMETER;
    }
    object.status.store(exit_status, Ordering::Relaxed);
    STATUS_SUCCESS
}

/// Takes a reference on the thread behind a handle; see [`wsk_sys::nt::ObReferenceObjectByHandle`].
///
/// # Safety
/// `object` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ObReferenceObjectByHandle(
    handle: HANDLE,
    _desired_access: u32,
    _object_type: *mut c_void,
    _access_mode: i8,
    object: *mut *mut c_void,
    _handle_information: *mut c_void,
) -> NTSTATUS {
    const CALL: &str = "ObReferenceObjectByHandle";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, PASSIVE_LEVEL);
    argument::check_aligned(&kernel, CALL, "storage for a pointer", object);
    let mut table = kernel.threads.table.lock();
    let Some(thread) = table.handles.get(&handle.addr()).map(Arc::clone) else {
        drop(table);
        kernel.violation(rule::OBJECT, CALL, format!("{handle:p} is not an open handle"));
        return STATUS_INVALID_HANDLE;
    };
    let pointer = Arc::as_ptr(&thread).cast_mut().cast::<c_void>();
    table.referenced.entry(pointer.addr()).or_insert((thread, 0)).1 += 1;
    drop(table);
    // SAFETY: the caller guarantees a place for the pointer.
    unsafe { object.write(pointer) };
    STATUS_SUCCESS
}

/// Gives back a reference; see [`wsk_sys::nt::ObfDereferenceObject`]. Returns how many remain.
///
/// # Safety
/// `object` came from [`ObReferenceObjectByHandle`] or was given to
/// [`ObfReferenceObject`](crate::image::ObfReferenceObject), and that reference is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ObfDereferenceObject(object: *mut c_void) -> isize {
    const CALL: &str = "ObfDereferenceObject";
    let kernel = current::kernel(CALL);
    if let Some(left) = image::dereference(&kernel, object) {
        return left;
    }
    let mut table = kernel.threads.table.lock();
    let Some((_, count)) = table.referenced.get_mut(&object.addr()) else {
        drop(table);
        kernel.violation(rule::OBJECT, CALL, format!("no reference on {object:p} is held"));
        return 0;
    };
    *count -= 1;
    let left = *count;
    let last = if left == 0 { table.referenced.remove(&object.addr()) } else { None };
    let given_up = last.filter(|(thread, _)| !table.holds(thread));
    drop(table);
    if let Some((thread, _)) = given_up {
        kernel.check_seen(&thread, CALL);
    }
    left
}

/// Closes a handle; see [`wsk_sys::nt::ZwClose`].
///
/// # Safety
/// None beyond being called on a thread of a kernel; the signature is the kernel's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZwClose(handle: HANDLE) -> NTSTATUS {
    const CALL: &str = "ZwClose";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, PASSIVE_LEVEL);
    let mut table = kernel.threads.table.lock();
    let Some(thread) = table.handles.remove(&handle.addr()) else {
        drop(table);
        kernel.violation(rule::OBJECT, CALL, format!("{handle:p} is not an open handle"));
        return STATUS_INVALID_HANDLE;
    };
    let held = table.holds(&thread);
    drop(table);
    if !held {
        kernel.check_seen(&thread, CALL);
    }
    STATUS_SUCCESS
}

/// The process of the calling thread; a kernel has one. See [`wsk_sys::nt::IoGetCurrentProcess`].
///
/// # Safety
/// None beyond being called on a thread of a kernel; the signature is the kernel's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoGetCurrentProcess() -> PEPROCESS {
    let kernel = current::kernel("IoGetCurrentProcess");
    NonNull::from(kernel.process()).as_ptr().cast()
}
