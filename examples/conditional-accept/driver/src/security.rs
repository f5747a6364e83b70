//! Security descriptor of the control device: access for the system and administrators only.
//!
//! By default a device gets a descriptor that lets everyone open it. Usually `IoCreateDeviceSecure` sets
//! another one, but it is not a kernel export: it comes from `wdmsec.lib`, which `wdk-sys` does not bind. So
//! this module does the same: it opens the device object and replaces its access list. That happens in
//! `DriverEntry`, and the I/O manager does not allow the device to be opened before that has returned.

use core::ptr::null_mut;

use wdk::nt_success;
use wdk_sys::ntddk::{ObOpenObjectByPointer, ZwClose, ZwSetSecurityObject};
use wdk_sys::{
    _MODE::KernelMode, DACL_SECURITY_INFORMATION, DEVICE_OBJECT, NTSTATUS, OBJ_KERNEL_HANDLE, WRITE_DAC,
};
use wsk::Passive;

/// Replaces the device's access list.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
///
/// # Errors
/// The status of the kernel; the device must not be used then.
///
/// # Safety
/// `device` is a device object that stays alive meanwhile.
pub(crate) unsafe fn restrict(device: *mut DEVICE_OBJECT, _: Passive<'_>) -> Result<(), NTSTATUS> {
    let mut handle = null_mut();
    // SAFETY: the caller vouches for the object. Kernel mode needs neither an access state nor an object
    // type.
    let status = unsafe {
        ObOpenObjectByPointer(
            device.cast(),
            OBJ_KERNEL_HANDLE,
            null_mut(),
            WRITE_DAC,
            null_mut(),
            KernelMode as _,
            &raw mut handle,
        )
    };
    check(status)?;
    // SAFETY: the handle was just made; the descriptor is a valid self-relative one, which is only read.
    let status = unsafe {
        ZwSetSecurityObject(handle, DACL_SECURITY_INFORMATION, (&raw const ADMINISTRATORS).cast_mut().cast())
    };
    // SAFETY: the handle was made above and is not used any more.
    let _ = unsafe { ZwClose(handle) };
    check(status)
}

fn check(status: NTSTATUS) -> Result<(), NTSTATUS> {
    if nt_success(status) { Ok(()) } else { Err(status) }
}

/// `D:P(A;;FA;;;SY)(A;;FA;;;BA)` as a self-relative descriptor.
static ADMINISTRATORS: Descriptor = Descriptor {
    revision: 1,
    reserved: 0,
    control: SE_SELF_RELATIVE | SE_DACL_PRESENT | SE_DACL_PROTECTED,
    owner: 0,
    group: 0,
    system_list: 0,
    access_list: core::mem::offset_of!(Descriptor, list) as u32,
    list: List {
        revision: ACL_REVISION,
        reserved: 0,
        size: size_of::<List>() as u16,
        count: 2,
        reserved_too: 0,
        // NT AUTHORITY\SYSTEM, S-1-5-18
        system: Entry::full_access([18]),
        // BUILTIN\Administrators, S-1-5-32-544
        administrators: Entry::full_access([32, 544]),
    },
};

const SE_DACL_PRESENT: u16 = 0x0004;
const SE_DACL_PROTECTED: u16 = 0x1000;
const SE_SELF_RELATIVE: u16 = 0x8000;
const ACL_REVISION: u8 = 2;
const ACCESS_ALLOWED: u8 = 0;
const FILE_ALL_ACCESS: u32 = 0x001F_01FF;
const SID_REVISION: u8 = 1;
const NT_AUTHORITY: [u8; 6] = [0, 0, 0, 0, 0, 5];

/// `SECURITY_DESCRIPTOR_RELATIVE` and what follows it.
#[repr(C)]
struct Descriptor {
    revision: u8,
    reserved: u8,
    control: u16,
    owner: u32,
    group: u32,
    system_list: u32,
    access_list: u32,
    list: List,
}

/// `ACL` and its entries.
#[repr(C)]
struct List {
    revision: u8,
    reserved: u8,
    size: u16,
    count: u16,
    reserved_too: u16,
    system: Entry<1>,
    administrators: Entry<2>,
}

/// `ACCESS_ALLOWED_ACE`; from `sid_revision` on it is a `SID`.
#[repr(C)]
struct Entry<const N: usize> {
    kind: u8,
    flags: u8,
    size: u16,
    mask: u32,
    sid_revision: u8,
    sid_count: u8,
    sid_authority: [u8; 6],
    sid: [u32; N],
}

impl<const N: usize> Entry<N> {
    const fn full_access(sid: [u32; N]) -> Self {
        Self {
            kind: ACCESS_ALLOWED,
            flags: 0,
            size: size_of::<Self>() as u16,
            mask: FILE_ALL_ACCESS,
            sid_revision: SID_REVISION,
            sid_count: N as u8,
            sid_authority: NT_AUTHORITY,
            sid,
        }
    }
}

// What the structures of ntifs.h come to.
const _: () = assert!(core::mem::offset_of!(Descriptor, list) == 20);
const _: () = assert!(core::mem::offset_of!(List, system) == 8);
const _: () = assert!(size_of::<Entry<1>>() == 20 && size_of::<Entry<2>>() == 24);
const _: () = assert!(size_of::<Descriptor>() == 72);
