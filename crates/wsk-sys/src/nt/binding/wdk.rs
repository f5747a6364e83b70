//! The binding of drivers built with the WDK: types of `wdk-sys`, so a driver's own pointers are ours.
//!
//! Three functions that 32-bit kernels export are inline in the WDK's headers for 64-bit drivers, and not
//! every 64-bit kernel exports them. They are inline here as well.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::MaybeUninit;

use crate::nt::fields::accessors;
use crate::nt::{KIRQL, NTSTATUS};

pub use wdk_sys::{
    DEVICE_OBJECT, GUID, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, KDPC, KEVENT, KTIMER, LIST_ENTRY, MDL,
    PEPROCESS, PETHREAD, UNICODE_STRING, WORK_QUEUE_ITEM,
};

// Nothing here needs it, but what is declared in `imports` does, and the linker takes only what is called.
#[link(name = "netio")]
unsafe extern "system" {}

/// Storage for [`KeInitializeTimer`](crate::nt::KeInitializeTimer).
pub const fn zeroed_timer() -> KTIMER {
    // SAFETY: a timer is made of numbers and pointers, for which zero is a value.
    unsafe { MaybeUninit::<KTIMER>::zeroed().assume_init() }
}

/// Two words of the driver's image, zero when it is loaded: what is shared by all of the driver and belongs
/// to none of its objects.
#[inline]
pub fn image_words() -> *mut [usize; 2] {
    /// The words, which are reached through their address only.
    struct Words(UnsafeCell<[usize; 2]>);
    // SAFETY: nothing here reads or writes the words; the users of their address order that.
    unsafe impl Sync for Words {}
    static WORDS: Words = Words(UnsafeCell::new([0; 2]));
    WORDS.0.get()
}

/// A GUID from its parts, whatever the fields are called.
pub const fn guid(data1: u32, data2: u16, data3: u16, data4: [u8; 8]) -> GUID {
    GUID { Data1: data1, Data2: data2, Data3: data3, Data4: data4 }
}

/// The parts of a GUID.
pub const fn guid_parts(guid: &GUID) -> (u32, u16, u16, [u8; 8]) {
    (guid.Data1, guid.Data2, guid.Data3, guid.Data4)
}

accessors! {
    /// `Irp->IoStatus.Status`.
    irp_status / set_irp_status: IRP => IoStatus.__bindgen_anon_1.Status: NTSTATUS, 0x30 / 0x18;
    /// `Irp->Tail.Overlay.DriverContext`, four words for the owner of the IRP (the provider while it
    /// pends).
    irp_driver_context / set_irp_driver_context:
        IRP => Tail.Overlay.__bindgen_anon_1.__bindgen_anon_1.DriverContext: [*mut c_void; 4], 0x78 / 0x40;
    /// `Irp->Tail.Overlay.CurrentStackLocation`.
    irp_stack_pointer / set_irp_stack_pointer:
        IRP => Tail.Overlay.__bindgen_anon_2.__bindgen_anon_1.CurrentStackLocation: *mut IO_STACK_LOCATION,
        0xB8 / 0x60;
    /// `Irp->Tail.Overlay.ListEntry`, for the owner of the IRP.
    irp_list_entry / set_irp_list_entry:
        IRP => Tail.Overlay.__bindgen_anon_2.ListEntry: LIST_ENTRY, 0xA8 / 0x58;
}

/// The current IRQL of this processor.
///
/// # Safety
/// The code runs in the kernel, which alone may read the register.
#[cfg(target_arch = "x86_64")]
#[inline]
pub unsafe fn KeGetCurrentIrql() -> KIRQL {
    let level: u64;
    // SAFETY: the caller runs in the kernel; reading the task priority changes nothing.
    unsafe { core::arch::asm!("mov {}, cr8", out(reg) level, options(nomem, nostack, preserves_flags)) };
    level as KIRQL
}

#[cfg(target_pointer_width = "64")]
pub use shared_page::*;

/// The page of times that a 64-bit kernel maps at one address for every driver (`KUSER_SHARED_DATA`).
#[cfg(target_pointer_width = "64")]
mod shared_page {
    /// `KI_USER_SHARED_DATA`.
    const PAGE: usize = 0xFFFF_F780_0000_0000;
    /// `KUSER_SHARED_DATA.InterruptTime`.
    const INTERRUPT_TIME: usize = PAGE + 0x08;
    /// `KUSER_SHARED_DATA.SystemTime`.
    const SYSTEM_TIME: usize = PAGE + 0x14;

    /// Time since boot in 100 ns units. Any IRQL.
    ///
    /// # Safety
    /// The code runs in the kernel.
    #[inline]
    pub unsafe fn KeQueryInterruptTime() -> u64 {
        // SAFETY: the caller runs in the kernel, and a time lies there.
        unsafe { read_time(INTERRUPT_TIME) }
    }

    /// System time in 100 ns units since 1601. Any IRQL.
    ///
    /// # Safety
    /// The code runs in the kernel and `time` points to a number that may be written.
    #[inline]
    pub unsafe fn KeQuerySystemTime(time: *mut i64) {
        // SAFETY: the caller runs in the kernel, and a time lies there.
        let now = unsafe { read_time(SYSTEM_TIME) };
        // SAFETY: the caller guarantees that the number may be written.
        unsafe { time.write(now.cast_signed()) };
    }

    /// Reads a `KSYSTEM_TIME`: low word, high word, and the high word once more.
    ///
    /// # Safety
    /// The code runs in the kernel and `address` is that of a time in the page.
    unsafe fn read_time(address: usize) -> u64 {
        loop {
            // SAFETY: the three words lie in the page.
            let high = unsafe { read_word(address + 4) };
            // SAFETY: as before.
            let low = unsafe { read_word(address) };
            // The kernel writes the second high word before the others: if both agree, the low one belongs to
            // them.
            // SAFETY: as before.
            if unsafe { read_word(address + 8) } == high {
                return u64::from(high) << 32 | u64::from(low);
            }
            core::hint::spin_loop();
        }
    }

    /// Reads a word of the page, not before the reads above it.
    ///
    /// A plain `mov` of its own: a kernel that emulates the page for drivers in user mode (Wine) does not
    /// know the instructions that read and compute at once, which a compiler may make of a volatile read.
    ///
    /// # Safety
    /// The code runs in the kernel and the aligned word at `address` lies in the page.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    unsafe fn read_word(address: usize) -> u32 {
        let word: u32;
        // SAFETY: the caller runs in the kernel, where the page is mapped; nothing but a register is written.
        unsafe {
            core::arch::asm!(
                "mov {:e}, [{}]",
                out(reg) word,
                in(reg) address,
                options(nostack, preserves_flags)
            );
        }
        word
    }

    /// Reads a word of the page, not before the reads above it.
    ///
    /// # Safety
    /// The code runs in the kernel and the aligned word at `address` lies in the page.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    unsafe fn read_word(address: usize) -> u32 {
        use core::sync::atomic::{AtomicU32, Ordering};
        // SAFETY: the caller runs in the kernel, where the page is mapped; the kernel alone writes it, by
        // words.
        unsafe { AtomicU32::from_ptr(core::ptr::with_exposed_provenance_mut(address)) }
            .load(Ordering::Acquire)
    }
}

unsafe extern "system" {
    /// The current IRQL of this processor.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn KeGetCurrentIrql() -> KIRQL;
    /// Time since boot in 100 ns units. Any IRQL.
    #[cfg(not(target_pointer_width = "64"))]
    pub fn KeQueryInterruptTime() -> u64;
    /// System time in 100 ns units since 1601. Any IRQL.
    #[cfg(not(target_pointer_width = "64"))]
    pub fn KeQuerySystemTime(time: *mut i64);
}
