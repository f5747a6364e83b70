//! A request: an IRP, its completion routine, and its outcome.
//!
//! ```text
//!   new() ──(hook, …)──► configured ──submit──► submitted ──routine──► completed ──reuse──► configured
//!                                                    └──cancel──┘
//! ```
//! A request keeps its parameters alive. Dropping it while it is pending cancels it and waits: raw calls may
//! break any rule of WSK, but not the memory of this kit.

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::Mutex;
use wsk_sys::nt::{self, DEVICE_OBJECT, IRP, KEVENT, KIRQL, NTSTATUS};
use wsk_sys::{
    PIRP, STATUS_MORE_PROCESSING_REQUIRED, STATUS_PENDING, STATUS_SUCCESS, nt_success, status_name,
};

use super::socket::{Shape, Socket};
use super::wait::{BOUND, blank_event, wait_for};
use super::{CAddress, PoolBox};

/// The outcome of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The status that the call returned.
    pub returned: NTSTATUS,
    /// `Irp->IoStatus.Status`.
    pub status: NTSTATUS,
    /// `Irp->IoStatus.Information`.
    pub information: usize,
    /// `Irp->PendingReturned`, as the completion routine saw it.
    pub pending_returned: bool,
    /// The completion routine ran before the call returned.
    pub before_return: bool,
    /// The completion routine ran on the thread that made the call.
    pub same_thread: bool,
    /// The IRQL of the completion routine.
    pub irql: KIRQL,
    /// The completion routine was given a null device object.
    pub device_is_null: bool,
    /// The number of times that the completion routine has run.
    pub runs: u32,
}

/// A status with its name.
pub fn status_text(status: NTSTATUS) -> String {
    status_name(status).map_or_else(|| format!("{status:#010x}"), str::to_owned)
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done")
            .field("returned", &format_args!("{}", status_text(self.returned)))
            .field("status", &format_args!("{}", status_text(self.status)))
            .field("information", &format_args!("{:#x}", self.information))
            .field("pending_returned", &self.pending_returned)
            .field("before_return", &self.before_return)
            .field("same_thread", &self.same_thread)
            .field("irql", &self.irql)
            .field("runs", &self.runs)
            .finish_non_exhaustive()
    }
}

impl Done {
    /// Returns true if the request completed before the call returned, and the call returned the outcome.
    pub fn inline(&self) -> bool {
        self.returned != STATUS_PENDING
    }
}

/// State that the completion routine has recorded.
#[derive(Clone, Copy, Debug)]
struct Completed {
    status: NTSTATUS,
    information: usize,
    pending_returned: bool,
    before_return: bool,
    same_thread: bool,
    irql: KIRQL,
    device_is_null: bool,
}

type Hook = Box<dyn FnOnce(NTSTATUS, usize) + Send>;

struct State {
    submitter: Option<ThreadId>,
    returned: Option<NTSTATUS>,
    completed: Option<Completed>,
    runs: u32,
    answer: NTSTATUS,
    hook: Option<Hook>,
}

/// The context of the completion routine, in pool.
///
/// # Invariants
/// `refs` counts the request and, from submission to the end of the completion routine, the IRP.
struct Slot {
    refs: AtomicUsize,
    event: UnsafeCell<KEVENT>,
    state: Mutex<State>,
}

// SAFETY: the event is used through the kernel's functions only, which synchronize; the rest synchronizes
// itself.
unsafe impl Sync for Slot {}
// SAFETY: nothing in the slot belongs to a thread, and the kernel's functions synchronize the event.
unsafe impl Send for Slot {}

impl Slot {
    fn new() -> NonNull<Self> {
        let state = State {
            submitter: None,
            returned: None,
            completed: None,
            runs: 0,
            answer: STATUS_MORE_PROCESSING_REQUIRED,
            hook: None,
        };
        let slot = PoolBox::new(Self {
            refs: AtomicUsize::new(1),
            event: UnsafeCell::new(blank_event()),
            state: Mutex::new(state),
        });
        // SAFETY: the event is at its final address and not shared yet.
        unsafe { nt::KeInitializeEvent(slot.event.get(), nt::NOTIFICATION_EVENT, 0) };
        NonNull::new(slot.into_raw()).expect("a box is not null")
    }

    /// Releases one reference.
    ///
    /// # Safety
    /// The caller owns a reference to `slot` and does not use it afterwards.
    unsafe fn release(slot: NonNull<Self>) {
        // SAFETY: the caller owns a reference, so the slot is alive.
        if unsafe { slot.as_ref() }.refs.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            // SAFETY: the slot came from `into_raw`, and that was the last reference.
            drop(unsafe { PoolBox::from_raw(slot.as_ptr()) });
        }
    }
}

unsafe extern "system" fn completion_routine(
    device: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    context: *mut std::ffi::c_void,
) -> NTSTATUS {
    let slot = NonNull::new(context.cast::<Slot>()).expect("the context of this kit's routine");
    // SAFETY: the IRP owns a reference to the slot from submission on.
    let shared = unsafe { slot.as_ref() };
    // SAFETY: a completion routine owns the IRP.
    let status = unsafe { nt::irp_status(irp) };
    // SAFETY: the completion routine has the IRP until it returns.
    let information = unsafe { nt::irp_information(irp) };
    // SAFETY: the completion routine has the IRP until it returns.
    let pending_returned = unsafe { nt::irp_pending_returned(irp) };
    // SAFETY: reading the IRQL has no precondition.
    let irql = unsafe { nt::KeGetCurrentIrql() };
    let (hook, answer) = {
        let mut state = shared.state.lock();
        state.runs += 1;
        (state.hook.take(), state.answer)
    };
    if let Some(hook) = hook {
        hook(status, information);
    }
    let first = {
        let mut state = shared.state.lock();
        let completed = Completed {
            status,
            information,
            pending_returned,
            before_return: state.returned.is_none(),
            same_thread: state.submitter == Some(std::thread::current().id()),
            irql,
            device_is_null: device.is_null(),
        };
        let first = state.completed.is_none();
        state.completed.get_or_insert(completed);
        first
    };
    // SAFETY: the event was initialized with the slot, which this reference keeps.
    unsafe { nt::KeSetEvent(shared.event.get(), nt::IO_NO_INCREMENT, 0) };
    if first {
        // SAFETY: this is the IRP's reference, and the routine ends here.
        unsafe { Slot::release(slot) };
    }
    answer
}

/// A request with its IRP.
///
/// # Invariants
/// `irp` is null or an IRP that this request allocated and has not freed. `slot` holds one reference of the
/// request.
#[must_use = "a dropped request is canceled and waited for"]
pub struct Request {
    irp: PIRP,
    slot: NonNull<Slot>,
    name: &'static str,
    returned: Option<NTSTATUS>,
    routine: bool,
    invoke: u8,
    keep: Vec<Box<dyn Any + Send>>,
    shape: Option<Shape>,
    addresses: Option<(CAddress, CAddress)>,
}

// SAFETY: the IRP belongs to the request or to the kernel, never to a thread.
unsafe impl Send for Request {}

const INVOKE_ALWAYS: u8 = nt::SL_INVOKE_ON_SUCCESS | nt::SL_INVOKE_ON_ERROR | nt::SL_INVOKE_ON_CANCEL;

impl Default for Request {
    fn default() -> Self {
        Self::new()
    }
}

impl Request {
    /// A request with an IRP of one stack location.
    pub fn new() -> Self {
        Self::with_stack(1)
    }

    /// A request whose IRP has that many stack locations; WSK needs one.
    pub fn with_stack(locations: i8) -> Self {
        // SAFETY: an IRP may be allocated at any IRQL of a test.
        let irp = unsafe { nt::IoAllocateIrp(locations, 0) };
        assert!(!irp.is_null(), "an IRP for the test itself");
        Self::over(irp)
    }

    /// A request without an IRP: null is passed to the call, which must not pend.
    pub fn null() -> Self {
        Self::over(ptr::null_mut())
    }

    fn over(irp: PIRP) -> Self {
        Self {
            irp,
            slot: Slot::new(),
            name: "nothing",
            returned: None,
            routine: true,
            invoke: INVOKE_ALWAYS,
            keep: Vec::new(),
            shape: None,
            addresses: None,
        }
    }

    fn shared(&self) -> &Slot {
        // SAFETY: the request owns a reference to the slot.
        unsafe { self.slot.as_ref() }
    }

    /// Makes the completion routine return `status` instead of `STATUS_MORE_PROCESSING_REQUIRED`.
    pub fn returning(self, status: NTSTATUS) -> Self {
        self.shared().state.lock().answer = status;
        self
    }

    /// Submits the IRP without a completion routine. The end of the request is not observed, and if the call
    /// pends, the IRP is never freed.
    pub fn without_routine(mut self) -> Self {
        self.routine = false;
        self
    }

    /// Sets the completion routine for these `SL_INVOKE_ON_…` cases only.
    pub fn invoked_on(mut self, flags: u8) -> Self {
        self.invoke = flags;
        self
    }

    /// Runs `hook` with status and information inside the completion routine.
    pub fn hook(self, hook: impl FnOnce(NTSTATUS, usize) + Send + 'static) -> Self {
        self.shared().state.lock().hook = Some(Box::new(hook));
        self
    }

    /// Keeps `object` alive until the request is dropped.
    pub fn keep(mut self, object: impl Any + Send) -> Self {
        self.keep.push(Box::new(object));
        self
    }

    pub(crate) fn yielding(mut self, shape: Shape) -> Self {
        self.shape = Some(shape);
        self
    }

    pub(crate) fn with_addresses(mut self, local: CAddress, remote: CAddress) -> Self {
        self.addresses = Some((local, remote));
        self
    }

    /// The IRP.
    pub fn irp(&self) -> PIRP {
        self.irp
    }

    /// Makes the call. `name` is for messages.
    ///
    /// # Panics
    /// If the request was already submitted and not [reused](Self::reuse).
    pub fn submit(mut self, name: &'static str, call: impl FnOnce(PIRP) -> NTSTATUS) -> Self {
        assert!(self.returned.is_none(), "{} was submitted already", self.name);
        self.name = name;
        if !self.irp.is_null() && self.routine {
            self.shared().refs.fetch_add(1, Ordering::Relaxed);
            self.shared().state.lock().submitter = Some(std::thread::current().id());
            // SAFETY: the request owns the IRP, which has a free location unless the test checks that.
            let next = unsafe { nt::io_get_next_irp_stack_location(self.irp) };
            // SAFETY: the IRP is the request's own and has a free location; the slot outlives the routine by
            // its reference.
            unsafe { nt::io_set_completion_routine(self.irp, completion_routine, self.slot.as_ptr().cast()) };
            // SAFETY: the location belongs to the IRP.
            unsafe { nt::set_stack_control(next, self.invoke) };
        }
        let returned = call(self.irp);
        self.returned = Some(returned);
        self.shared().state.lock().returned = Some(returned);
        self
    }

    /// The status that the call returned.
    ///
    /// # Panics
    /// Before submission.
    pub fn returned(&self) -> NTSTATUS {
        self.returned.expect("the request was not submitted")
    }

    /// The outcome of the request, if it has ended.
    pub fn poll(&self) -> Option<Done> {
        let state = self.shared().state.lock();
        let completed = state.completed?;
        Some(Done {
            returned: state.returned?,
            status: completed.status,
            information: completed.information,
            pending_returned: completed.pending_returned,
            before_return: completed.before_return,
            same_thread: completed.same_thread,
            irql: completed.irql,
            device_is_null: completed.device_is_null,
            runs: state.runs,
        })
    }

    /// Returns true if the completion routine has run.
    pub fn is_completed(&self) -> bool {
        self.shared().state.lock().completed.is_some()
    }

    /// Waits for the end of the request and checks the invariants of every request: the routine ran before a
    /// call returned a status other than pending, and `PendingReturned` agrees with that.
    ///
    /// # Panics
    /// If it takes longer than [`BOUND`].
    #[track_caller]
    pub fn wait(&self) -> Done {
        let Some(done) = self.wait_up_to(BOUND) else {
            panic!(
                "{} is still pending after {BOUND:?}; it returned {}",
                self.name,
                status_text(self.returned())
            );
        };
        let pended = done.returned == STATUS_PENDING;
        assert_eq!(done.pending_returned, pended, "PendingReturned of {}: {done:?}", self.name);
        assert!(pended || done.before_return, "{} completed after it had answered: {done:?}", self.name);
        done
    }

    /// Waits up to `bound` for the end of the request. A request without an IRP has ended with its call.
    pub fn wait_up_to(&self, bound: Duration) -> Option<Done> {
        if self.irp.is_null() {
            let returned = self.returned();
            return Some(Done {
                returned,
                status: returned,
                information: 0,
                pending_returned: false,
                before_return: true,
                same_thread: true,
                irql: nt::PASSIVE_LEVEL,
                device_is_null: true,
                runs: 0,
            });
        }
        // SAFETY: the event lives in the slot, which the request keeps.
        unsafe { wait_for(self.shared().event.get(), bound) };
        self.poll()
    }

    /// Waits and expects success.
    #[track_caller]
    pub fn ok(&self) -> Done {
        let done = self.wait();
        assert!(done.status == STATUS_SUCCESS, "{} failed: {done:?}", self.name);
        done
    }

    /// Waits and expects this status.
    #[track_caller]
    pub fn fails(&self, status: NTSTATUS) -> Done {
        let done = self.wait();
        assert!(done.status == status, "{} did not end with {}: {done:?}", self.name, status_text(status));
        done
    }

    /// Expects that the call has returned `STATUS_PENDING` and is not complete.
    #[track_caller]
    pub fn pends(self) -> Self {
        assert_eq!(status_text(self.returned()), "STATUS_PENDING", "{}", self.name);
        assert!(!self.is_completed(), "{} has completed: {:?}", self.name, self.poll());
        self
    }

    /// Cancels the request (`IoCancelIrp`); returns true if a cancel routine was called.
    pub fn cancel(&self) -> bool {
        // SAFETY: the request owns the IRP until it is dropped, so it is alive even if it has completed.
        unsafe { nt::IoCancelIrp(self.irp) != 0 }
    }

    /// Waits, expects success, and returns the new socket.
    #[track_caller]
    pub fn socket(mut self) -> Socket {
        let done = self.ok();
        let shape = self.shape.take().expect("this call makes no socket");
        shape.socket(done.information)
    }

    /// The local and the remote address that the call has written.
    pub fn addresses(&self) -> Option<(std::net::SocketAddr, std::net::SocketAddr)> {
        let (local, remote) = self.addresses.as_ref()?;
        Some((local.get()?, remote.get()?))
    }

    /// Makes a completed request ready for another call (`IoReuseIrp`).
    pub fn reuse(mut self) -> Self {
        // SAFETY: the request owns the IRP; the kernel recognizes one that is still pending.
        unsafe { nt::IoReuseIrp(self.irp, STATUS_SUCCESS) };
        self.release_unused_reference();
        let former = std::mem::replace(&mut self.slot, Slot::new());
        // SAFETY: this is the request's reference to its former slot.
        unsafe { Slot::release(former) };
        self.returned = None;
        self.shape = None;
        self.keep.clear();
        self.addresses = None;
        self
    }

    /// Releases the reference of the completion routine after a call that failed without completing the IRP.
    fn release_unused_reference(&self) {
        let refused = self.returned.is_some_and(|returned| returned != STATUS_PENDING);
        if refused && self.routine && !self.irp.is_null() && !self.is_completed() {
            // SAFETY: this is the IRP's reference; the routine, which has not run, will not run any more.
            unsafe { Slot::release(self.slot) };
        }
    }

    /// Abandons the IRP: it is neither waited for nor freed, and its memory stays allocated.
    pub fn abandon(mut self) {
        self.leave();
    }

    fn leave(&mut self) {
        self.irp = ptr::null_mut();
        self.keep.drain(..).for_each(std::mem::forget);
        std::mem::forget(self.addresses.take());
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // Without a routine for every case its end may not be observed; then there is nothing to wait for.
        let seen = self.routine && self.invoke == INVOKE_ALWAYS;
        let pending = seen && self.returned == Some(STATUS_PENDING) && !self.irp.is_null();
        if pending && !self.is_completed() {
            if std::thread::panicking() {
                // The test has already failed; a leak is better than a hang.
                self.leave();
                return;
            }
            self.cancel();
            assert!(
                self.wait_up_to(BOUND).is_some(),
                "{} did not complete after its cancellation",
                self.name
            );
        }
        if let (Some(shape), Some(done)) = (self.shape.take(), self.poll())
            && nt_success(done.status)
            && !std::thread::panicking()
        {
            drop(shape.socket(done.information));
        }
        self.release_unused_reference();
        let returned_to_us = self.is_completed() || self.returned != Some(STATUS_PENDING);
        if !self.irp.is_null() && returned_to_us {
            // SAFETY: the request owns the IRP, by the invariant, and it is not pending.
            unsafe { nt::IoFreeIrp(self.irp) };
        }
        // SAFETY: this is the request's reference.
        unsafe { Slot::release(self.slot) };
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("name", &self.name)
            .field("returned", &self.returned.map(status_text))
            .field("done", &self.poll())
            .finish_non_exhaustive()
    }
}
