//! The control device: its creation and deletion, and its dispatch routines.
//!
//! ```text
//!   \\.\ConditionalAccept ──► \DosDevices\ConditionalAccept ──► \Device\ConditionalAccept
//!                                                                │ extension: control
//!   IRP_MJ_CREATE          a handle, kept in FsContext ◄─────────┤
//!   IRP_MJ_DEVICE_CONTROL  Handle::device_control ◄──────────────┤ completed at once, or kept by the control
//!   IRP_MJ_CLEANUP         Handle::cleanup ◄─────────────────────┤
//!   IRP_MJ_CLOSE           the handle is gone
//! ```
//!
//! The dispatch routines take the IRPs apart and leave the rest to [`gate_service::control`]. All of it is
//! code that is not paged: a driver's image is not, unless it asks for it.

use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, Ordering};

use gate_service::{ActiveCall, Control, Handle, Request};
use wdk::nt_success;
use wdk_sys::ntddk::{
    IoCreateDevice, IoCreateSymbolicLink, IoDeleteDevice, IoDeleteSymbolicLink, IofCompleteRequest,
    KeDelayExecutionThread,
};
use wdk_sys::{_IO_STATUS_BLOCK__bindgen_ty_1 as IO_STATUS_BLOCK_STATUS, IO_STATUS_BLOCK};
use wdk_sys::{
    _MODE::KernelMode, DEVICE_OBJECT, DRIVER_OBJECT, FILE_DEVICE_NETWORK, FILE_DEVICE_SECURE_OPEN,
    IO_NO_INCREMENT, IO_STACK_LOCATION, IRP, IRP_MJ_CLEANUP, IRP_MJ_CLOSE, IRP_MJ_CREATE,
    IRP_MJ_DEVICE_CONTROL, LARGE_INTEGER, METHOD_BUFFERED, NTSTATUS, STATUS_DELETE_PENDING,
    STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_DEVICE_REQUEST, STATUS_SUCCESS,
};
use wsk::Passive;

use crate::security;
use crate::text::{counted, wide};

/// The device's name.
static NAME: &[u16] = wide!(r"\Device\ConditionalAccept");
/// Its name for user mode.
static LINK: &[u16] = wide!(r"\DosDevices\ConditionalAccept");

/// The bits of a control code that say how its buffers come.
const METHOD: u32 = 3;

/// Device extension.
struct Extension {
    control: Control,
}

// The I/O manager puts the extension behind the device object, whose size is a multiple of its alignment.
const _: () = assert!(align_of::<Extension>() <= align_of::<DEVICE_OBJECT>());

/// The control device and its link; both are deleted when it is dropped, the link first.
pub(crate) struct ControlDevice {
    _link: Link,
    device: Device,
}

impl ControlDevice {
    /// Makes the device, restricts it to administrators, gives it its link, and has its requests come here.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`, in `DriverEntry`: the device cannot be opened before that returns.
    ///
    /// # Errors
    /// The status of the kernel; `STATUS_OBJECT_NAME_COLLISION` if the driver is loaded under another name
    /// already.
    // A frame of its own is smaller code than a part of the caller's.
    #[inline(never)]
    pub(crate) fn create(
        driver: &mut DRIVER_OBJECT,
        control: Control,
        passive: Passive<'_>,
    ) -> Result<Self, NTSTATUS> {
        let device = Device::create(driver, control, passive)?;
        // SAFETY: the device is alive.
        unsafe { security::restrict(device.0.as_ptr(), passive) }?;
        driver.MajorFunction[IRP_MJ_CREATE as usize] = Some(create);
        driver.MajorFunction[IRP_MJ_DEVICE_CONTROL as usize] = Some(device_control);
        driver.MajorFunction[IRP_MJ_CLEANUP as usize] = Some(cleanup);
        driver.MajorFunction[IRP_MJ_CLOSE as usize] = Some(close);
        Ok(Self { _link: Link::create(passive)?, device })
    }

    /// Leaves the device to the driver object.
    pub(crate) fn keep(self) {
        core::mem::forget(self);
    }

    /// Takes back what [`keep`](Self::keep) left.
    ///
    /// # Safety
    /// `driver` is the driver object whose device was kept, and the device was not taken back before.
    pub(crate) unsafe fn take(driver: *mut DRIVER_OBJECT) -> Option<Self> {
        // SAFETY: the caller vouches for the driver object; no other thread creates or deletes devices now.
        let device = Device(NonNull::new(unsafe { (*driver).DeviceObject })?);
        Some(Self { _link: Link(()), device })
    }

    /// The device object, for the client whose completion routines keep it.
    pub(crate) fn as_ptr(&self) -> *mut DEVICE_OBJECT {
        self.device.0.as_ptr()
    }

    /// Returns the control of the device.
    pub(crate) fn control(&self) -> &Control {
        &self.device.extension().control
    }
}

/// A device object.
///
/// # Invariants
/// It is a device object of this driver, which this value owns, and its extension holds an [`Extension`].
struct Device(NonNull<DEVICE_OBJECT>);

impl Device {
    fn create(driver: &mut DRIVER_OBJECT, control: Control, _: Passive<'_>) -> Result<Self, NTSTATUS> {
        let mut name = counted(NAME);
        let mut device = null_mut();
        // SAFETY: the level is passive; driver, name and result are valid during the call.
        let status = unsafe {
            IoCreateDevice(
                driver,
                size_of::<Extension>() as u32,
                &raw mut name,
                FILE_DEVICE_NETWORK,
                FILE_DEVICE_SECURE_OPEN,
                0,
                &raw mut device,
            )
        };
        check(status)?;
        let device = NonNull::new(device).ok_or(STATUS_INSUFFICIENT_RESOURCES)?;
        let extension = Extension { control };
        // SAFETY: the device was just created, and no other thread has its address yet.
        let room = unsafe { (*device.as_ptr()).DeviceExtension };
        // SAFETY: the I/O manager made room for an `Extension` there, aligned as asserted above.
        unsafe { room.cast::<Extension>().write(extension) };
        Ok(Self(device))
    }

    fn extension(&self) -> &Extension {
        // SAFETY: the device is alive as long as `&self`.
        unsafe { extension(self.0.as_ptr()) }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Devices are created and dropped at PASSIVE_LEVEL. From here on opening this one fails. An open that
        // was faster is waited for: either `create` sees the flag, or this thread sees the active call.
        DELETING.store(true, Ordering::SeqCst);
        wait_for_dispatch();
        // SAFETY: `Incoming::context` gives none of their pointers any more, and no call is under way with
        // one.
        unsafe { self.extension().control.close_handles() };
        let device = self.0.as_ptr();
        // SAFETY: this value owns the device, so it is alive.
        let extension = unsafe { (*device).DeviceExtension }.cast::<Extension>();
        // SAFETY: the extension holds one, which is not used after this.
        unsafe { extension.drop_in_place() };
        // SAFETY: this value owned the device; no request of it is in this driver's hands.
        unsafe { IoDeleteDevice(device) };
    }
}

/// The device's name for user mode.
struct Link(());

impl Link {
    fn create(_: Passive<'_>) -> Result<Self, NTSTATUS> {
        let (mut link, mut name) = (counted(LINK), counted(NAME));
        // SAFETY: the level is passive, and both strings are valid during the call.
        check(unsafe { IoCreateSymbolicLink(&raw mut link, &raw mut name) })?;
        Ok(Self(()))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut link = counted(LINK);
        // SAFETY: links are made and dropped at PASSIVE_LEVEL; the string is valid during the call.
        let _ = unsafe { IoDeleteSymbolicLink(&raw mut link) };
    }
}

fn check(status: NTSTATUS) -> Result<(), NTSTATUS> {
    if nt_success(status) { Ok(()) } else { Err(status) }
}

/// Returns the extension of a device.
///
/// # Safety
/// `device` is a device object of this driver, and it is alive for `'a`.
unsafe fn extension<'a>(device: *mut DEVICE_OBJECT) -> &'a Extension {
    // SAFETY: the caller vouches for the device; the field does not change after it was made.
    let extension = unsafe { (*device).DeviceExtension }.cast::<Extension>();
    // SAFETY: `Device::create` put an `Extension` there, which is dropped together with the device.
    unsafe { &*extension }
}

/// True once the device is being deleted: it can no longer be opened.
static DELETING: AtomicBool = AtomicBool::new(false);

/// Waits until no thread is in this driver for a request; see [`ActiveCall`].
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub(crate) fn wait_for_dispatch() {
    while ActiveCall::count() != 0 {
        // A millisecond, in units of 100 ns; negative, so from now on.
        let mut interval = LARGE_INTEGER { QuadPart: -10_000 };
        // SAFETY: callers are at PASSIVE_LEVEL; the interval is valid during the call.
        let _ = unsafe { KeDelayExecutionThread(KernelMode as _, 0, &raw mut interval) };
    }
}

/// An IRP that a dispatch routine was called with.
///
/// # Invariants
/// `irp` is a live IRP, its current stack location is this driver's, and this value alone completes it.
struct Incoming {
    irp: NonNull<IRP>,
    location: NonNull<IO_STACK_LOCATION>,
}

impl Incoming {
    /// Takes over what a dispatch routine was called with.
    ///
    /// # Safety
    /// `irp` is what the I/O manager called a dispatch routine with.
    unsafe fn new(irp: *mut IRP) -> Self {
        // What `IoGetCurrentIrpStackLocation` does.
        // SAFETY: the IRP is alive; only the address of a field is computed.
        let location =
            unsafe { &raw const (*irp).Tail.Overlay.__bindgen_anon_2.__bindgen_anon_1.CurrentStackLocation };
        // SAFETY: in an IRP that is dispatched, that member of the union holds.
        let location = unsafe { location.read() };
        // SAFETY: the I/O manager calls with an IRP.
        let irp = unsafe { NonNull::new_unchecked(irp) };
        // SAFETY: an IRP that is dispatched has a current stack location.
        Self { irp, location: unsafe { NonNull::new_unchecked(location) } }
    }

    /// The `FsContext` of the file object. Requests of user mode come with one; a driver may send one
    /// without.
    fn context(&self) -> Option<*mut *mut c_void> {
        if DELETING.load(Ordering::SeqCst) {
            // What it points to may be gone.
            return None;
        }
        // SAFETY: the location is alive as long as the IRP.
        let file = NonNull::new(unsafe { (*self.location.as_ptr()).FileObject })?;
        // SAFETY: the file object lives as long as the IRP; only the address of its field is computed.
        Some(unsafe { &raw mut (*file.as_ptr()).FsContext })
    }

    /// The handle behind the file object.
    fn handle(&self) -> Option<Handle> {
        // SAFETY: `create` wrote the field, and only `close` does again, after every other request.
        let context = NonNull::new(unsafe { self.context()?.read() })?;
        // SAFETY: what is there came from `Handle::into_context`, and `close` has not taken it back.
        Some(unsafe { Handle::of_context(context.as_ptr()) })
    }

    /// The request as the control takes it; the IRP comes back if it is none of `METHOD_BUFFERED`.
    fn into_request(self) -> Result<Request, Self> {
        // SAFETY: the location is alive as long as the IRP; only the address of a field is computed.
        let parameters = unsafe { &raw const (*self.location.as_ptr()).Parameters.DeviceIoControl };
        // SAFETY: this is called for device control requests, for which that member of the union holds.
        let parameters = unsafe { parameters.read() };
        let code = parameters.IoControlCode;
        if code & METHOD != METHOD_BUFFERED {
            return Err(self);
        }
        // SAFETY: the IRP is alive; only the address of a field is computed.
        let buffer = unsafe { &raw const (*self.irp.as_ptr()).AssociatedIrp.SystemBuffer };
        // SAFETY: with this method, that member of the union holds.
        let buffer = unsafe { buffer.read() };
        let (input, output) = (parameters.InputBufferLength as usize, parameters.OutputBufferLength as usize);
        // SAFETY: this value owned the IRP; with this method the buffer is as long as the longer of both.
        Ok(unsafe { Request::new(self.irp, code, buffer.cast(), input, output) })
    }

    /// Completes the IRP; returns what the dispatch routine returns.
    fn complete(self, status: NTSTATUS) -> NTSTATUS {
        let irp = self.irp.as_ptr();
        let outcome =
            IO_STATUS_BLOCK { __bindgen_anon_1: IO_STATUS_BLOCK_STATUS { Status: status }, Information: 0 };
        // SAFETY: this value owns the IRP.
        unsafe { (*irp).IoStatus = outcome };
        // SAFETY: this value owned the IRP and is consumed, so nothing uses the IRP after this.
        unsafe { IofCompleteRequest(irp, IO_NO_INCREMENT as i8) };
        status
    }
}

/// Opens a handle of the device.
///
/// # Safety
/// Only the I/O manager calls it.
unsafe extern "C" fn create(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let _active = ActiveCall::enter();
    // SAFETY: the I/O manager called.
    let incoming = unsafe { Incoming::new(irp) };
    if DELETING.load(Ordering::SeqCst) {
        return incoming.complete(STATUS_DELETE_PENDING);
    }
    let Some(context) = incoming.context() else { return incoming.complete(STATUS_INVALID_DEVICE_REQUEST) };
    // SAFETY: the device is this driver's; its extension goes when `DELETING` was set and no thread is
    // inside.
    let control = unsafe { &extension(device).control };
    match control.open() {
        Ok(handle) => {
            // SAFETY: the file object is new, and its contexts belong to this driver.
            unsafe { context.write(handle.into_context()) };
            incoming.complete(STATUS_SUCCESS)
        }
        Err(status) => incoming.complete(status),
    }
}

/// A program asks for something.
///
/// # Safety
/// Only the I/O manager calls it.
unsafe extern "C" fn device_control(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let _active = ActiveCall::enter();
    // SAFETY: the I/O manager called.
    let incoming = unsafe { Incoming::new(irp) };
    let Some(handle) = incoming.handle() else { return incoming.complete(STATUS_INVALID_DEVICE_REQUEST) };
    match incoming.into_request() {
        Ok(request) => handle.device_control(request),
        Err(incoming) => incoming.complete(STATUS_INVALID_DEVICE_REQUEST),
    }
}

/// The last handle of a file object is closed.
///
/// # Safety
/// Only the I/O manager calls it.
unsafe extern "C" fn cleanup(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let _active = ActiveCall::enter();
    // SAFETY: the I/O manager called.
    let incoming = unsafe { Incoming::new(irp) };
    if let Some(handle) = incoming.handle() {
        handle.cleanup();
    }
    incoming.complete(STATUS_SUCCESS)
}

/// A file object goes: no more requests come for it.
///
/// # Safety
/// Only the I/O manager calls it.
unsafe extern "C" fn close(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let _active = ActiveCall::enter();
    // SAFETY: the I/O manager called.
    let incoming = unsafe { Incoming::new(irp) };
    let Some(context) = incoming.context() else { return incoming.complete(STATUS_SUCCESS) };
    // SAFETY: no other request for this file object is pending, so no other thread uses the field.
    if let Some(context) = NonNull::new(unsafe { context.replace(null_mut()) }) {
        // SAFETY: what was there came from `Handle::into_context`, and is there no more. If no IRP_MJ_CLEANUP
        // came (Wine sends none), this cleans up.
        unsafe { Handle::close(context.as_ptr()) };
    }
    incoming.complete(STATUS_SUCCESS)
}
