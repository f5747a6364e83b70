//! `IoSetCompletionRoutineEx` for a kernel that exports only a stub of it.
//!
//! Wine 8 exports the function as a stub: calling it ends the process. This image is loaded before any driver
//! that uses WSK, because such a driver imports from it. When the first client registers, which is before it
//! has an IRP, the stub, if it is one ([`stub`](crate::stub)), is overwritten with a jump to the function
//! here.
//!
//! ```text
//!   driver ──import──► ntoskrnl.exe!IoSetCompletionRoutineEx ──jmp──► set: a device reference, a context
//!   IofCompleteRequest ──► completed ──► the driver's routine
//!                             └─ the device is dereferenced and the context freed after it has returned
//! ```

use std::ffi::{CStr, c_void};
use std::mem::size_of;
use std::ptr;

use windows_sys::Win32::Foundation::HMODULE;
use windows_sys::Win32::System::LibraryLoader::GetProcAddress;
use windows_sys::Win32::System::Memory::{PAGE_EXECUTE_READWRITE, VirtualProtect};
use wsk_sys::nt::{self, DEVICE_OBJECT, IO_COMPLETION_ROUTINE, IRP, NTSTATUS};
use wsk_sys::status::{STATUS_INSUFFICIENT_RESOURCES, STATUS_SUCCESS};

use crate::stub::{self, LENGTH};

const NAME: &CStr = c"IoSetCompletionRoutineEx";
/// The tag of the contexts.
const TAG: u32 = u32::from_le_bytes(*b"IoUs");

/// Replaces the function if `kernel` has only a stub of it. Returns a line for the journal if it did.
///
/// # Safety
/// `kernel` is `ntoskrnl.exe`, which is loaded and stays so, and no other thread calls the function
/// meanwhile.
pub(super) unsafe fn stand_in(kernel: HMODULE) -> Option<String> {
    // SAFETY: the caller guarantees the module, and the name ends with a null.
    let found = unsafe { GetProcAddress(kernel, NAME.as_ptr().cast()) }?;
    let code = found as *const () as *mut u8;
    // SAFETY: the function lies in the module's code, which is longer than a stub.
    if !unsafe { is_stub(code) } {
        return None;
    }
    let name = NAME.to_string_lossy();
    let jump = stub::jump_to(set as *const () as u64);
    let mut former = 0;
    // SAFETY: the pages belong to the loaded module; only their protection changes.
    if unsafe { VirtualProtect(code.cast(), jump.len(), PAGE_EXECUTE_READWRITE, &raw mut former) } == 0 {
        let error = std::io::Error::last_os_error();
        return Some(format!("error {name}: the stub of this kernel cannot be replaced: {error}"));
    }
    // SAFETY: the stub is longer than the jump, its pages are writable now, and no thread runs it.
    unsafe { ptr::copy_nonoverlapping(jump.as_ptr(), code, jump.len()) };
    // SAFETY: the pages belong to the loaded module; only their protection changes.
    unsafe { VirtualProtect(code.cast(), jump.len(), former, &raw mut former) };
    Some(format!("replaced: {name}, of which this kernel has a stub"))
}

/// # Safety
/// There are as many readable bytes at `code` as a stub has.
unsafe fn is_stub(code: *const u8) -> bool {
    // SAFETY: the caller guarantees as many readable bytes as a stub has.
    let bytes = unsafe { code.cast::<[u8; LENGTH]>().read() };
    let Some(offset) = stub::name_of_stub(&bytes) else { return false };
    let name = code.wrapping_offset(offset);
    NAME.to_bytes_with_nul().iter().enumerate().all(|(index, byte)| {
        // SAFETY: a stub's name is a string of the same module, and nothing behind a difference is read.
        unsafe { name.wrapping_add(index).read() == *byte }
    })
}

/// The context of the completion routine of one IRP.
struct Context {
    routine: IO_COMPLETION_ROUTINE,
    context: *mut c_void,
    device: *mut DEVICE_OBJECT,
}

/// See [`wsk_sys::nt::IoSetCompletionRoutineEx`].
///
/// # Safety
/// `device` is a device object, and the caller owns `irp`, which has a free stack location. `context` is
/// valid for `routine` until that has run.
unsafe extern "system" fn set(
    device: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    routine: IO_COMPLETION_ROUTINE,
    context: *mut c_void,
    invoke_on_success: u8,
    invoke_on_error: u8,
    invoke_on_cancel: u8,
) -> NTSTATUS {
    // SAFETY: nothing is required of the arguments.
    let kept = unsafe { nt::ExAllocatePoolWithTag(nt::NON_PAGED_POOL_NX, size_of::<Context>(), TAG) };
    if kept.is_null() {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    // SAFETY: the block is new, aligned and large enough.
    unsafe { kept.cast::<Context>().write(Context { routine, context, device }) };
    // SAFETY: the caller guarantees the device.
    unsafe { nt::ObfReferenceObject(device.cast()) };
    // SAFETY: the caller has the IRP, and it has a free location; the context is there until the routine has
    // run.
    unsafe { nt::io_set_completion_routine(irp, completed, kept) };
    let when = |invoke: u8, bit: u8| if invoke == 0 { 0 } else { bit };
    let control = when(invoke_on_success, nt::SL_INVOKE_ON_SUCCESS)
        | when(invoke_on_error, nt::SL_INVOKE_ON_ERROR)
        | when(invoke_on_cancel, nt::SL_INVOKE_ON_CANCEL);
    // SAFETY: the caller has the IRP, and it has a free location.
    let location = unsafe { nt::io_get_next_irp_stack_location(irp) };
    // SAFETY: the location is the caller's.
    unsafe { nt::set_stack_control(location, control) };
    STATUS_SUCCESS
}

/// The completion routine around the driver's.
///
/// # Safety
/// `context` is that of [`set`], once.
unsafe extern "system" fn completed(
    device: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    context: *mut c_void,
) -> NTSTATUS {
    // SAFETY: the caller guarantees that the context is that of `set`.
    let kept = unsafe { context.cast::<Context>().read() };
    // SAFETY: the driver set the routine and its context for this IRP, which the routine may free.
    let status = unsafe { (kept.routine)(device, irp, kept.context) };
    // SAFETY: `set` took the reference.
    unsafe { nt::ObfDereferenceObject(kept.device.cast()) };
    // SAFETY: `set` allocated the block, which is not used any more.
    unsafe { nt::ExFreePoolWithTag(context, TAG) };
    status
}
