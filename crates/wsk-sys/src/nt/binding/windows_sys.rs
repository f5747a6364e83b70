//! The binding of hosts, and of Windows programs that are no WDK driver: types of `windows-sys`, every
//! function a symbol that another crate defines (`nt-user` on hosts).

use core::ffi::c_void;

use crate::nt::fields::accessors;
use crate::nt::{KIRQL, NTSTATUS};

pub use windows_sys::Wdk::Foundation::{
    DEVICE_OBJECT, IO_STACK_LOCATION, IRP, KDPC, KEVENT, MDL, WORK_QUEUE_ITEM,
};
pub use windows_sys::Win32::System::IO::IO_STATUS_BLOCK;
pub use windows_sys::Win32::System::Kernel::LIST_ENTRY;
pub use windows_sys::core::GUID;

/// A process object, opaque.
pub type PEPROCESS = *mut c_void;
/// A thread object, opaque.
pub type PETHREAD = *mut c_void;

/// A kernel timer (`KTIMER`): opaque storage of the size and alignment that 64-bit Windows gives it, which
/// is enough for every target.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct KTIMER {
    words: [u64; 8],
}

/// Storage for [`KeInitializeTimer`](crate::nt::KeInitializeTimer).
pub const fn zeroed_timer() -> KTIMER {
    KTIMER { words: [0; 8] }
}

/// A counted UTF-16 string; the lengths are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct UNICODE_STRING {
    /// Bytes in use, without a terminator.
    pub Length: u16,
    /// Bytes available.
    pub MaximumLength: u16,
    /// The characters.
    pub Buffer: *mut u16,
}

/// A GUID from its parts, whatever the fields are called.
pub const fn guid(data1: u32, data2: u16, data3: u16, data4: [u8; 8]) -> GUID {
    GUID { data1, data2, data3, data4 }
}

/// The parts of a GUID.
pub const fn guid_parts(guid: &GUID) -> (u32, u16, u16, [u8; 8]) {
    (guid.data1, guid.data2, guid.data3, guid.data4)
}

/// Two words of the driver's image, zero when it is loaded: what is shared by all of the driver and belongs
/// to none of its objects. A process may have several kernels, each of which has loaded an image of its own.
#[inline]
pub fn image_words() -> *mut [usize; 2] {
    // SAFETY: the function has no preconditions beyond those of all others: the thread belongs to a kernel.
    unsafe { NtUserImageWords() }
}

accessors! {
    /// `Irp->IoStatus.Status`.
    irp_status / set_irp_status: IRP => IoStatus.Anonymous.Status: NTSTATUS, 0x30 / 0x18;
    /// `Irp->Tail.Overlay.DriverContext`, four words for the owner of the IRP (the provider while it
    /// pends).
    irp_driver_context / set_irp_driver_context:
        IRP => Tail.Overlay.Anonymous1.Anonymous.DriverContext: [*mut c_void; 4], 0x78 / 0x40;
    /// `Irp->Tail.Overlay.CurrentStackLocation`.
    irp_stack_pointer / set_irp_stack_pointer:
        IRP => Tail.Overlay.Anonymous2.Anonymous.CurrentStackLocation: *mut IO_STACK_LOCATION, 0xB8 / 0x60;
    /// `Irp->Tail.Overlay.ListEntry`, for the owner of the IRP.
    irp_list_entry / set_irp_list_entry: IRP => Tail.Overlay.Anonymous2.ListEntry: LIST_ENTRY, 0xA8 / 0x58;
}

unsafe extern "system" {
    /// The current IRQL of this processor.
    pub fn KeGetCurrentIrql() -> KIRQL;
    /// Time since boot in 100 ns units. Any IRQL.
    pub fn KeQueryInterruptTime() -> u64;
    /// System time in 100 ns units since 1601. Any IRQL.
    pub fn KeQuerySystemTime(time: *mut i64);
    /// The words of [`image_words`] that belong to the calling thread's kernel, no function of a real one.
    pub fn NtUserImageWords() -> *mut [usize; 2];
}
