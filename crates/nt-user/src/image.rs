//! The driver's image: the routines that run in it, and the references that keep it loaded.
//!
//! ```text
//!   loaded ──unload_image, after DriverUnload──► kept ──the last reference on a device is released──► gone
//!              │                                                                                       ▲
//!              └── no device is referenced ────────────────────────────────────────────────────────────┘
//! ```
//!
//! A routine of the driver is *inside* the image from its call until it has returned to the kernel. A thread
//! that waits for an effect of the routine does not wait for that return: another processor may be delayed in
//! the routine's last instructions for any time. [`Kernel::watch_image`] can simulate this: a routine that
//! has returned counts as inside until a call waits for it, or [`Kernel::finish_lingering_routines`].
//!
//! | routine | its return is awaited by |
//! |---|---|
//! | completion routine | nothing; a device (`IoSetCompletionRoutineEx`) is dereferenced after it |
//! | routine of a DPC | `KeFlushQueuedDpcs` |
//! | thread | a wait for the thread object |
//! | work item | nothing; its device (`IoQueueWorkItem`) is dereferenced after it |
//! | callback of the provider | the provider, before it completes the close |
//!
//! A routine that is inside when the image is unloaded, or is entered later, is a violation of LIFE-19. All
//! code on the driver's side of the kernel counts as one image.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::mem::size_of;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use wsk_sys::nt::{
    DEVICE_OBJECT, DISPATCH_LEVEL, IO_COMPLETION_ROUTINE, IRP, NTSTATUS, SL_INVOKE_ON_CANCEL,
    SL_INVOKE_ON_ERROR, SL_INVOKE_ON_SUCCESS, io_get_next_irp_stack_location, io_set_completion_routine,
    irp_current_location, set_stack_control,
};
use wsk_sys::status::{STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_PARAMETER, STATUS_SUCCESS};

use crate::checker::context::check_irql;
use crate::checker::violation::rule;
use crate::faults::Point;
use crate::irp;
use crate::kernel::{Inner, Kernel};
use crate::pool;
use crate::thread::current::{self, CurrentKernel};

/// The rule.
const RULE: &str = "LIFE-19";
/// The tag of the contexts of [`IoSetCompletionRoutineEx`].
const TAG: u32 = pool::tag(*b"IoUs");
/// `IO_TYPE_DEVICE`.
const IO_TYPE_DEVICE: i16 = 3;

/// A routine of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routine {
    Completion,
    Dpc,
    /// The thread whose object is at this address.
    Thread(usize),
    WorkItem,
    Callback(&'static str),
}

impl Routine {
    fn name(self) -> &'static str {
        match self {
            Self::Completion => "a completion routine",
            Self::Dpc => "the routine of a DPC",
            Self::Thread(_) => "a thread",
            Self::WorkItem => "the routine of a work item",
            Self::Callback(name) => name,
        }
    }
}

/// A routine that is inside.
#[derive(Debug)]
struct Frame {
    routine: Routine,
    /// The device that is held for it.
    device: Option<usize>,
    /// The routine stays inside after its work is done.
    lingers: bool,
    /// Its work is done.
    returning: bool,
}

/// A device object, which begins with the part that the driver sees.
#[repr(C, align(16))]
struct Device(DEVICE_OBJECT);

/// A device object and the references on it; one of them is its creator's.
struct Held {
    _device: Box<Device>,
    references: isize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Loaded,
    Kept,
    Gone,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// The image is unloaded because `DriverEntry` failed.
    refused: bool,
    devices: BTreeMap<usize, Held>,
    frames: BTreeMap<u64, Frame>,
    last: u64,
}

/// The image of a kernel's driver.
#[derive(Default)]
pub(crate) struct Image {
    /// True if routines are tracked.
    watched: AtomicBool,
    /// True if routines that have returned stay inside.
    lingers: AtomicBool,
    state: Mutex<State>,
}

// SAFETY: devices are plain memory, which the kernel reads under the lock only.
unsafe impl Send for State {}

impl Image {
    /// Records that a routine of the driver is about to be called, for which `device` has been referenced.
    /// The result is passed to [`leave`](Self::leave).
    pub(crate) fn enter(&self, inner: &Inner, routine: Routine, device: Option<usize>) -> u64 {
        if device.is_none() && !self.watched.load(Ordering::Acquire) {
            return 0;
        }
        let mut state = self.state.lock();
        state.last += 1;
        let number = state.last;
        let lingers = self.lingers.load(Ordering::Acquire) && !matches!(routine, Routine::Callback(_));
        state.frames.insert(number, Frame { routine, device, lingers, returning: false });
        let gone = state.phase == Phase::Gone;
        drop(state);
        if gone {
            let what = routine.name();
            inner.violation(RULE, what, format!("{what} was called after the driver's image was unloaded"));
        }
        number
    }

    /// Records that a routine has returned.
    pub(crate) fn leave(&self, inner: &Inner, number: u64) {
        if number == 0 {
            return;
        }
        let mut state = self.state.lock();
        if let Some(frame) = state.frames.get_mut(&number).filter(|frame| frame.lingers) {
            frame.returning = true;
            return;
        }
        let frame = state.frames.remove(&number);
        drop(state);
        if let Some(device) = frame.and_then(|frame| frame.device) {
            self.dereference(inner, device);
        }
    }

    /// Ends the lingering of the routines that `which` selects, now or when their work is done.
    pub(crate) fn settle(&self, inner: &Inner, which: impl Fn(Routine) -> bool) {
        if !self.watched.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state.lock();
        let mut settles = |_: &u64, frame: &mut Frame| {
            frame.lingers &= !which(frame.routine);
            frame.returning && !frame.lingers
        };
        let returned: Vec<_> = state.frames.extract_if(.., &mut settles).collect();
        drop(state);
        for (_, frame) in returned {
            if let Some(device) = frame.device {
                self.dereference(inner, device);
            }
        }
    }

    /// Takes a reference on a device object; `None` if there is none at this address.
    pub(crate) fn reference(&self, address: usize) -> Option<isize> {
        let mut state = self.state.lock();
        let held = state.devices.get_mut(&address)?;
        held.references += 1;
        Some(held.references)
    }

    /// Releases a reference on a device object; `None` if there is none at this address.
    pub(crate) fn dereference(&self, inner: &Inner, address: usize) -> Option<isize> {
        let mut state = self.state.lock();
        let held = state.devices.get_mut(&address)?;
        held.references -= 1;
        let left = held.references;
        if left == 0 {
            state.devices.remove(&address);
        }
        let goes = state.phase == Phase::Kept && state.devices.is_empty();
        drop(state);
        if goes {
            self.go(inner);
        }
        Some(left)
    }

    /// References on device objects.
    pub(crate) fn references(&self) -> usize {
        self.state.lock().devices.values().map(|held| held.references.unsigned_abs()).sum()
    }

    fn go(&self, inner: &Inner) {
        let mut state = self.state.lock();
        state.phase = Phase::Gone;
        let inside: Vec<_> = state.frames.values().map(|frame| frame.routine).collect();
        let call = if state.refused { "DriverEntry" } else { "DriverUnload" };
        drop(state);
        for routine in inside {
            let what = routine.name();
            let name = match routine {
                Routine::Thread(address) => inner.threads.name(address),
                _ => None,
            };
            let name = name.map(|name| format!(" (`{name}`)")).unwrap_or_default();
            let detail =
                format!("{what}{name} has not returned, and nothing keeps the driver's image loaded");
            inner.violation(RULE, call, detail);
        }
        let queued = [
            (inner.timers.set(), "a timer is set"),
            (inner.dpcs.queued(), "a deferred call is queued"),
            (inner.work.queued(), "a work item is queued"),
        ];
        for (count, what) in queued.into_iter().filter(|(count, _)| *count != 0) {
            let detail = format!("{what} ({count} in all), and nothing keeps the driver's image loaded");
            inner.violation(RULE, call, detail);
        }
    }
}

impl Kernel {
    /// Tracks the routines in the driver's image from now on. With `lingering`, routines that are entered
    /// from now on count as inside after their return until a call waits for them, as if their processor were
    /// delayed in their last instructions.
    pub fn watch_image(&self, lingering: bool) {
        self.inner().image.watched.store(true, Ordering::Release);
        self.inner().image.lingers.store(lingering, Ordering::Release);
    }

    /// Ends the lingering of all routines; see [`watch_image`](Self::watch_image).
    pub fn finish_lingering_routines(&self) {
        self.inner().image.settle(self.inner(), |_| true);
    }

    /// The number of [tracked](Self::watch_image) routines of the driver that have not returned.
    pub fn routines_inside(&self) -> usize {
        self.inner().image.state.lock().frames.len()
    }

    /// The number of routines that have done their work and linger; see [`watch_image`](Self::watch_image).
    pub fn routines_lingering(&self) -> usize {
        let state = self.inner().image.state.lock();
        state.frames.values().filter(|frame| frame.returning).count()
    }

    /// Unloads the image after `DriverUnload` has returned, or, if a device object of the driver is
    /// referenced, with the last reference. A routine that is inside at that time, is queued or set to be
    /// called, or enters later, breaks LIFE-19.
    pub fn unload_image(&self) {
        self.end_image(false);
    }

    /// Unloads the image after `DriverEntry` has failed, as [`unload_image`](Self::unload_image) does;
    /// `DriverUnload` is not called.
    pub fn fail_driver_entry(&self) {
        self.end_image(true);
    }

    fn end_image(&self, refused: bool) {
        let image = &self.inner().image;
        let mut state = image.state.lock();
        state.phase = Phase::Kept;
        state.refused = refused;
        let kept = !state.devices.is_empty();
        drop(state);
        if !kept {
            image.go(self.inner());
        }
    }

    /// Returns true if routines are [tracked](Self::watch_image).
    pub fn image_is_watched(&self) -> bool {
        self.inner().image.watched.load(Ordering::Acquire)
    }

    /// Returns true if the driver's image has been unloaded.
    pub fn image_is_unloaded(&self) -> bool {
        self.inner().image.state.lock().phase == Phase::Gone
    }

    /// Creates a device object of the driver, with one reference, which
    /// [`delete_device`](Self::delete_device) releases.
    pub fn create_device(&self) -> *mut DEVICE_OBJECT {
        let mut object = DEVICE_OBJECT { Type: IO_TYPE_DEVICE, ..DEVICE_OBJECT::default() };
        object.Size = size_of::<DEVICE_OBJECT>() as u16;
        let mut device = Box::new(Device(object));
        let pointer = &raw mut device.0;
        let held = Held { _device: device, references: 1 };
        self.inner().image.state.lock().devices.insert(pointer.addr(), held);
        pointer
    }

    /// Deletes a device object: it is freed with its last reference.
    pub fn delete_device(&self, device: *mut DEVICE_OBJECT) {
        if self.inner().image.dereference(self.inner(), device.addr()).is_none() {
            let detail = format!("there is no device object at {device:p}");
            self.inner().violation(rule::OBJECT, "IoDeleteDevice", detail);
        }
    }

    /// The number of references on a device object; 0 if it was freed.
    pub fn device_references(&self, device: *mut DEVICE_OBJECT) -> isize {
        self.inner().image.state.lock().devices.get(&device.addr()).map_or(0, |held| held.references)
    }
}

/// The context of a completion routine that was set with [`IoSetCompletionRoutineEx`].
struct Context {
    routine: IO_COMPLETION_ROUTINE,
    context: *mut c_void,
    device: usize,
}

/// Returns true for the completion routine that tracks itself.
pub(crate) fn keeps_account(routine: IO_COMPLETION_ROUTINE) -> bool {
    std::ptr::fn_addr_eq(routine, unload_safe as IO_COMPLETION_ROUTINE)
}

/// The completion routine of an IRP that a device is held for; the driver's own runs inside of it.
///
/// # Safety
/// `context` is that of [`IoSetCompletionRoutineEx`], once.
unsafe extern "system" fn unload_safe(
    device: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    context: *mut c_void,
) -> NTSTATUS {
    const CALL: &str = "IofCompleteRequest";
    let kernel = current::kernel(CALL);
    // SAFETY: the caller guarantees that the context is that of `IoSetCompletionRoutineEx`.
    let kept = unsafe { context.cast::<Context>().read() };
    let number = kernel.image.enter(&kernel, Routine::Completion, Some(kept.device));
    // SAFETY: the driver set the routine and its context for this IRP, which the routine may free.
    let status = unsafe { (kept.routine)(device, irp, kept.context) };
    pool::free(&kernel, CALL, context, pool::Kind::NonPaged, TAG);
    kernel.image.leave(&kernel, number);
    status
}

/// Sets a completion routine and holds a device until it has returned; see
/// [`wsk_sys::nt::IoSetCompletionRoutineEx`].
///
/// # Safety
/// `irp` points to an IRP that the caller owns and that has a free stack location; `routine` may be called
/// with `context` until the IRP has completed.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn IoSetCompletionRoutineEx(
    device: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    routine: Option<IO_COMPLETION_ROUTINE>,
    context: *mut c_void,
    invoke_on_success: u8,
    invoke_on_error: u8,
    invoke_on_cancel: u8,
) -> NTSTATUS {
    const CALL: &str = "IoSetCompletionRoutineEx";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    // SAFETY: the caller guarantees that `irp` points to an IRP.
    unsafe { irp::check(&kernel, irp, CALL) };
    let Some(routine) = routine else { return STATUS_INVALID_PARAMETER };
    // SAFETY: there is an IRP.
    if unsafe { irp_current_location(irp) } <= 1 {
        kernel.violation("IRP-01", CALL, format!("the IRP at {irp:p} has no free stack location"));
        return STATUS_INVALID_PARAMETER;
    }
    if kernel.faults.fails(Point::Pool, size_of::<Context>(), TAG) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    let kept = kernel.pool.allocate(size_of::<Context>(), TAG, pool::Kind::NonPaged);
    if kept.is_null() {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if kernel.image.reference(device.addr()).is_none() {
        kernel.bug_check(
            rule::OBJECT,
            CALL,
            format!("there is no device object at {device:p}, or it has been freed"),
        );
    }
    // SAFETY: the block is new, aligned and large enough.
    unsafe { kept.cast::<Context>().write(Context { routine, context, device: device.addr() }) };
    // SAFETY: the caller owns the IRP, which has a free stack location.
    unsafe { io_set_completion_routine(irp, unload_safe, kept) };
    let when = |invoke: u8, bit: u8| if invoke == 0 { 0 } else { bit };
    let control = when(invoke_on_success, SL_INVOKE_ON_SUCCESS)
        | when(invoke_on_error, SL_INVOKE_ON_ERROR)
        | when(invoke_on_cancel, SL_INVOKE_ON_CANCEL);
    // SAFETY: the caller owns the IRP, which has a free stack location.
    let location = unsafe { io_get_next_irp_stack_location(irp) };
    // SAFETY: the next location belongs to the IRP that the caller owns.
    unsafe { set_stack_control(location, control) };
    STATUS_SUCCESS
}

/// Takes a reference on a thread or device object; see [`wsk_sys::nt::ObfReferenceObject`]. Returns the
/// number of references.
///
/// # Safety
/// `object` points to an object that exists.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ObfReferenceObject(object: *mut c_void) -> isize {
    const CALL: &str = "ObfReferenceObject";
    let kernel = current::kernel(CALL);
    check_irql(&kernel, CALL, DISPATCH_LEVEL);
    let count = kernel.image.reference(object.addr()).or_else(|| kernel.threads.reference(object.addr()));
    count.unwrap_or_else(|| {
        kernel.violation(rule::OBJECT, CALL, format!("there is no object at {object:p} that is referenced"));
        0
    })
}

/// Releases a reference on a device object; `None` if `object` is not one.
pub(crate) fn dereference(kernel: &CurrentKernel, object: *mut c_void) -> Option<isize> {
    kernel.image.dereference(kernel, object.addr())
}
