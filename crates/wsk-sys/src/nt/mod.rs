//! The executive subset: the few types and functions of the NT kernel that a WSK client or provider needs.
//!
//! Everything above this module reaches the kernel through these names only. The functions are plain `extern
//! "system"` symbols: in a driver `ntoskrnl.exe` supplies them, on a host the crate `nt-user` does, so the
//! code that is tested is the code that ships.
//!
//! The *types* come from generated bindings. A driver that is built with the WDK turns the feature `wdk` on
//! and gets those of `wdk-sys`: its own IRPs and strings fit. Everything else, hosts first, gets those of
//! `windows-sys`, for which nothing need be installed. `binding` is the one module that differs: it lists the
//! types and spells the few field paths that the two name differently.
//!
//! ```text
//!            feature wdk, on Windows                     otherwise
//!      binding/wdk.rs   (wdk-sys)        |      binding/windows_sys.rs  (windows-sys)
//!                       └──────── fields · functions · inline ───────┘
//! ```
//!
//! The set is kept to what works on every Windows since 8 and in Wine.

#[cfg_attr(all(windows, feature = "wdk"), path = "binding/wdk.rs")]
#[cfg_attr(not(all(windows, feature = "wdk")), path = "binding/windows_sys.rs")]
mod binding;
mod fields;
mod functions;
mod inline;

pub use binding::*;
pub use fields::*;
pub use functions::*;
pub use inline::*;

use core::ffi::c_void;

/// The outcome of a kernel call; see [`crate::status`].
pub type NTSTATUS = i32;
/// An interrupt request level.
pub type KIRQL = u8;
/// A spin lock: one pointer-sized word, zero when free.
pub type KSPIN_LOCK = usize;
/// A kernel handle.
pub type HANDLE = *mut c_void;
/// A security descriptor, opaque.
pub type PSECURITY_DESCRIPTOR = *mut c_void;

/// A completion routine of an IRP.
///
/// IRQL: up to `DISPATCH_LEVEL`, in any thread.
pub type IO_COMPLETION_ROUTINE =
    unsafe extern "system" fn(device: *mut DEVICE_OBJECT, irp: *mut IRP, context: *mut c_void) -> NTSTATUS;
/// A cancel routine of an IRP; it is entered holding the cancel spin lock and must release it.
pub type DRIVER_CANCEL = unsafe extern "system" fn(device: *mut DEVICE_OBJECT, irp: *mut IRP);
/// The routine of a deferred procedure call; it runs at `DISPATCH_LEVEL`.
pub type KDEFERRED_ROUTINE = unsafe extern "system" fn(
    dpc: *mut KDPC,
    context: *mut c_void,
    argument1: *mut c_void,
    argument2: *mut c_void,
);
/// The start routine of a system thread.
pub type KSTART_ROUTINE = unsafe extern "system" fn(context: *mut c_void);
/// The routine of an `ExQueueWorkItem` work item; it runs at `PASSIVE_LEVEL`.
pub type WORKER_THREAD_ROUTINE = unsafe extern "system" fn(parameter: *mut c_void);
/// The routine of an `IoQueueWorkItem` work item; it runs at `PASSIVE_LEVEL`.
pub type IO_WORKITEM_ROUTINE = unsafe extern "system" fn(device: *mut DEVICE_OBJECT, context: *mut c_void);
/// An `IoAllocateWorkItem` work item, opaque.
pub type PIO_WORKITEM = *mut c_void;

/// Attributes of a new object (`OBJECT_ATTRIBUTES`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OBJECT_ATTRIBUTES {
    /// The size of this structure.
    pub Length: u32,
    /// The directory that the name is relative to, or null.
    pub RootDirectory: HANDLE,
    /// The name, or null.
    pub ObjectName: *mut c_void,
    /// `OBJ_…` flags.
    pub Attributes: u32,
    /// A security descriptor, or null.
    pub SecurityDescriptor: PSECURITY_DESCRIPTOR,
    /// Impersonation, or null.
    pub SecurityQualityOfService: *mut c_void,
}

impl OBJECT_ATTRIBUTES {
    /// An object without a name whose handle belongs to the kernel, not to the process that happens to be
    /// current.
    pub const fn kernel_handle() -> Self {
        Self {
            Length: size_of::<Self>() as u32,
            RootDirectory: core::ptr::null_mut(),
            ObjectName: core::ptr::null_mut(),
            Attributes: OBJ_KERNEL_HANDLE,
            SecurityDescriptor: core::ptr::null_mut(),
            SecurityQualityOfService: core::ptr::null_mut(),
        }
    }
}

/// `OBJ_KERNEL_HANDLE`: the handle is good in the system process, and user mode cannot reach it.
pub const OBJ_KERNEL_HANDLE: u32 = 0x200;

/// Run-down protection (`EX_RUNDOWN_REF`): one pointer-sized word.
#[repr(C)]
#[derive(Debug)]
pub struct EX_RUNDOWN_REF {
    /// The count and flags, read and written by the `Ex…RundownProtection` functions alone.
    pub Count: usize,
}

/// `MEMORY_ALLOCATION_ALIGNMENT`: what pool blocks are aligned to, and what Microsoft's headers declare IRPs,
/// device objects and the entries of sequenced lists with. 16 on 64-bit systems, 8 on 32-bit ones.
///
/// Other headers, and the types made of them, may not: mingw-w64's and those of `windows-sys` align an IRP as
/// its fields need. A driver that keeps an IRP in its own storage needs this alignment there.
pub const MEMORY_ALLOCATION_ALIGNMENT: usize = 2 * size_of::<usize>();

// The other structures are aligned as their widest field needs, in Microsoft's headers too. A binding crate
// that says less of one would have the kernel touch it across two of its words; one that says more is as
// good.
const _: () = assert!(align_of::<IRP>() >= align_of::<usize>());
const _: () = assert!(align_of::<IRP>() <= MEMORY_ALLOCATION_ALIGNMENT);
const _: () = assert!(size_of::<IRP>().is_multiple_of(MEMORY_ALLOCATION_ALIGNMENT));
const _: () = assert!(align_of::<IO_STACK_LOCATION>() >= align_of::<usize>());
const _: () = assert!(align_of::<KDPC>() >= align_of::<usize>());
const _: () = assert!(align_of::<KEVENT>() >= align_of::<usize>());
const _: () = assert!(align_of::<MDL>() >= align_of::<usize>());
const _: () = assert!(align_of::<WORK_QUEUE_ITEM>() >= align_of::<usize>());
const _: () = assert!(align_of::<LIST_ENTRY>() >= align_of::<usize>());
const _: () = assert!(align_of::<EX_RUNDOWN_REF>() >= align_of::<usize>());
// The due time is a number of 64 bits, aligned to 8 on every Windows.
const _: () = assert!(align_of::<KTIMER>() >= 8);

/// Ordinary thread code.
pub const PASSIVE_LEVEL: KIRQL = 0;
/// Asynchronous procedure calls are held off.
pub const APC_LEVEL: KIRQL = 1;
/// The dispatcher is held off: nothing may wait and nothing may touch paged memory.
pub const DISPATCH_LEVEL: KIRQL = 2;

/// `NonPagedPoolNx`, a `POOL_TYPE` of Windows 8 and later.
pub const NON_PAGED_POOL_NX: i32 = 512;
/// `POOL_FLAG_NON_PAGED` of `ExAllocatePool2`.
pub const POOL_FLAG_NON_PAGED: u64 = 0x40;
/// `IO_NO_INCREMENT`: no priority boost.
pub const IO_NO_INCREMENT: i32 = 0;
/// `EVENT_TYPE::NotificationEvent`: stays signaled until it is cleared.
pub const NOTIFICATION_EVENT: i32 = 0;
/// `EVENT_TYPE::SynchronizationEvent`: releases one waiter and clears itself.
pub const SYNCHRONIZATION_EVENT: i32 = 1;
/// `KernelMode`.
pub const KERNEL_MODE: i8 = 0;
/// `KWAIT_REASON::Executive`.
pub const EXECUTIVE: i32 = 0;
/// `MM_PAGE_PRIORITY::NormalPagePriority | MdlMappingNoExecute`.
pub const NORMAL_PAGE_PRIORITY_NX: u32 = 16 | 0x4000_0000;
/// `MEMORY_CACHING_TYPE::MmCached`.
pub const MM_CACHED: i32 = 1;
/// `WORK_QUEUE_TYPE::DelayedWorkQueue`.
pub const DELAYED_WORK_QUEUE: i32 = 1;
/// `THREAD_ALL_ACCESS`.
pub const THREAD_ALL_ACCESS: u32 = 0x001F_FFFF;

/// `MDL_MAPPED_TO_SYSTEM_VA`.
pub const MDL_MAPPED_TO_SYSTEM_VA: i16 = 0x0001;
/// `MDL_PAGES_LOCKED`.
pub const MDL_PAGES_LOCKED: i16 = 0x0002;
/// `MDL_SOURCE_IS_NONPAGED_POOL`.
pub const MDL_SOURCE_IS_NONPAGED_POOL: i16 = 0x0004;

/// `SL_PENDING_RETURNED` of `IO_STACK_LOCATION.Control`.
pub const SL_PENDING_RETURNED: u8 = 0x01;
/// `SL_INVOKE_ON_CANCEL`.
pub const SL_INVOKE_ON_CANCEL: u8 = 0x20;
/// `SL_INVOKE_ON_SUCCESS`.
pub const SL_INVOKE_ON_SUCCESS: u8 = 0x40;
/// `SL_INVOKE_ON_ERROR`.
pub const SL_INVOKE_ON_ERROR: u8 = 0x80;
