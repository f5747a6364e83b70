//! Executive functions that Wine's kernel lacks, or that track the state of the thread.

use std::io;
use std::sync::OnceLock;

use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::core::s;
use wsk_sys::nt::{IRP, KIRQL};

use super::unload_safe;
use crate::thread::{self, Completing};

type CompleteRequest = unsafe extern "system" fn(irp: *mut IRP, priority_boost: i8);

/// The kernel's own `IofCompleteRequest`.
static COMPLETE_REQUEST: OnceLock<CompleteRequest> = OnceLock::new();

/// Finds the kernel's functions behind the ones here, and replaces the kernel's stub. Returns a line for the
/// journal about that.
pub(super) fn prepare() -> io::Result<Option<String>> {
    if COMPLETE_REQUEST.get().is_some() {
        return Ok(None);
    }
    // SAFETY: the name is a string that ends with a null.
    let kernel = unsafe { GetModuleHandleA(s!("ntoskrnl.exe")) };
    if kernel.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the module is loaded and stays so, and the name is a string that ends with a null.
    let found = unsafe { GetProcAddress(kernel, s!("IofCompleteRequest")) };
    let found = found.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel's function of that name has this type.
    let function =
        unsafe { std::mem::transmute::<unsafe extern "system" fn() -> isize, CompleteRequest>(found) };
    COMPLETE_REQUEST.get_or_init(|| function);
    // SAFETY: the module is the kernel's, and the caller has the machine's lock: no client is registered, so
    // none has IRPs.
    Ok(unsafe { unload_safe::stand_in(kernel) })
}

/// Completes an IRP, and counts the thread as inside a completion routine meanwhile.
#[unsafe(no_mangle)]
unsafe extern "system" fn IofCompleteRequest(irp: *mut IRP, priority_boost: i8) {
    let completing = Completing::begin();
    if let Some(complete) = COMPLETE_REQUEST.get() {
        // SAFETY: the caller has the IRP, as the kernel's function requires.
        unsafe { complete(irp, priority_boost) };
    }
    drop(completing);
}

/// The IRQL of the thread.
#[unsafe(no_mangle)]
extern "system" fn KeGetCurrentIrql() -> KIRQL {
    thread::irql()
}

/// Raises the IRQL of the thread.
#[unsafe(no_mangle)]
extern "system" fn KfRaiseIrql(irql: KIRQL) -> KIRQL {
    thread::set_irql(irql)
}

/// Lowers the IRQL of the thread.
#[unsafe(no_mangle)]
extern "system" fn KeLowerIrql(irql: KIRQL) {
    thread::set_irql(irql);
}
