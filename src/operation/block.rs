//! The operation block and its two owners; the state machine is drawn in the parent module.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::task::Context;

use wsk_sys::nt::{self, NTSTATUS};
use wsk_sys::{
    STATUS_CANCELLED, STATUS_FILE_FORCED_CLOSED, STATUS_INSUFFICIENT_RESOURCES,
    STATUS_MORE_PROCESSING_REQUIRED, STATUS_NOT_SUPPORTED, nt_success,
};

use super::cell::{Abandoned, Cell, End};
use super::irp::IrpStorage;
use crate::error::{Error, Operation, Result, Status};
use crate::memory::{Cache, OutOfMemory, Ref};

/// Outcome of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// WSK completed the IRP with this. `IoStatus` decides; the value the call returned is never used (rule
    /// IRP-12).
    Completed { status: NTSTATUS, information: usize },
    /// The library did not ask WSK. Whatever its status is, it says nothing about the socket.
    Refused(Refusal),
}

/// Reason why WSK is not asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal(NTSTATUS);

impl Refusal {
    /// The socket is closing: its rundown has begun.
    pub(crate) const CLOSING: Self = Self(STATUS_FILE_FORCED_CLOSED);
    /// This WSK does not have the function.
    pub(crate) const NO_FUNCTION: Self = Self(STATUS_NOT_SUPPORTED);
    /// The I/O manager has no memory to keep the image with.
    pub(crate) const OUT_OF_MEMORY: Self = Self(STATUS_INSUFFICIENT_RESOURCES);

    /// Returns whether memory was out, so that the same request may succeed later.
    pub(crate) fn is_out_of_memory(self) -> bool {
        self.0 == STATUS_INSUFFICIENT_RESOURCES
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error.status().raw())
    }
}

impl Outcome {
    /// `Information` when the request succeeded (rule IRP-23), else the error.
    pub(crate) fn result(self, operation: Operation) -> Result<usize> {
        let status = self.status();
        if nt_success(status) { Ok(self.information()) } else { Err(Error::new(operation, status)) }
    }

    /// Returns the status for the user.
    pub(crate) fn status(self) -> NTSTATUS {
        match self {
            Self::Completed { status, .. } | Self::Refused(Refusal(status)) => status,
        }
    }

    /// `Information`, which an error can carry, too (rule RCV-06).
    pub(crate) fn information(self) -> usize {
        match self {
            Self::Completed { information, .. } => information,
            Self::Refused(_) => 0,
        }
    }

    /// The outcome of a request that was cancelled with `status` as the reason. One that has completed in
    /// another way keeps its own status.
    pub(super) fn or_cancelled(self, status: Status) -> Self {
        match self {
            Self::Completed { status: STATUS_CANCELLED, information } => {
                Self::Completed { status: status.raw(), information }
            }
            other => other,
        }
    }

    /// Returns whether WSK has said that the socket is dead and must be closed (rule LSN-07).
    pub(crate) fn socket_is_dead(self) -> bool {
        matches!(self, Self::Completed { status: STATUS_FILE_FORCED_CLOSED, .. })
    }
}

/// Result of an attempt to submit an IRP to WSK.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Submission {
    /// A WSK function was called with it, and completes it.
    Pending,
    /// No WSK function was called.
    Refused(Refusal),
}

/// Memory of one kind of request, and the cleanup of a result whose future was dropped.
///
/// The value lives in the operation block, at a fixed address, from submission to completion.
pub(crate) trait Request: Send + Sized + 'static {
    /// Has the socket that the request is made on closed, if the outcome says that it is dead (rules LSN-07,
    /// LIFE-17). Called in the completion routine, before the future learns of the completion, and also
    /// when it was dropped.
    fn close_if_dead(&self, outcome: Outcome);

    /// Called once, in the completion routine, before the future learns of the completion, and also when it
    /// was dropped. What the result owns is taken over here, because the future may never be polled
    /// again.
    ///
    /// IRQL: up to `DISPATCH_LEVEL`: no WSK call, no allocation.
    fn completed(&mut self, _outcome: Outcome) {}

    /// Called once when the request completed after its future had been dropped. Nothing needs to be done for
    /// many.
    ///
    /// IRQL: up to `DISPATCH_LEVEL`, possibly inside the completion routine: no WSK call, no allocation.
    fn orphaned(self, _outcome: Outcome) {}
}

/// # Invariants
/// - `cell` follows the diagram of the parent module; only the future leaves `Idle`, only the completion
///   routine enters `Done`.
/// - `request` and the IRP belong to the future in `Idle`, `Refused` and `Done`, to WSK otherwise.
struct Block<R> {
    head: Head,
    request: UnsafeCell<Option<R>>,
}

/// The part that does not depend on the kind of request, so that there is one copy of its code.
struct Head {
    irp: IrpStorage,
    cell: Cell,
}

// SAFETY: the invariants of the block say which one thread may touch `request` in each state, and the state
// is changed with release and read with acquire ordering; `R` itself may move between threads.
unsafe impl<R: Send> Send for Block<R> {}
// SAFETY: a shared block gives access to `request` only to the one thread that the invariants name.
unsafe impl<R: Send> Sync for Block<R> {}

/// The future's reference on an operation block.
///
/// Dropping it is always allowed, in any state, at up to `DISPATCH_LEVEL`.
pub(crate) struct Op<R: Request> {
    block: Ref<Block<R>>,
    /// True if dropping it cancels the request.
    cancels: bool,
}

impl<R: Request> Op<R> {
    /// Takes a block from `cache` (no pool allocation in steady state) and puts `request` in it.
    ///
    /// On failure `request` comes back.
    pub(crate) fn try_new(cache: &Cache, request: R) -> core::result::Result<Self, (OutOfMemory, R)> {
        let make = |request| Block { head: Head::new(), request: UnsafeCell::new(Some(request)) };
        Ref::try_make(Some(cache), request, make).map(|block| Self { block, cancels: true })
    }

    /// Hands the IRP to WSK: `call` gets the prepared IRP and the address of the request's memory, and makes
    /// the one WSK call, or refuses, which then is the outcome. A call to [`Op::poll`] follows, which
    /// sees whether it has completed already, and sees to it that the task is woken otherwise.
    ///
    /// # Safety
    /// - The operation is idle.
    /// - Unless it refuses, `call` passes the IRP to exactly one WSK function, which completes it exactly
    ///   once, and passes no memory that can go away before that other than what is needed only during the
    ///   call.
    pub(crate) unsafe fn submit(&self, call: impl FnOnce(*mut nt::IRP, *mut R) -> Submission) {
        // SAFETY: the state is idle, so the request belongs to this thread.
        let slot = unsafe { &mut *self.block.request.get() };
        let Some(request) = slot.as_mut() else { return };
        let request: *mut R = request;
        self.block.head.cell.submit();
        let irps_reference = Ref::into_raw(self.block.clone());
        // SAFETY: the operation was idle; the reference just made keeps the block where it is until the
        // completion routine takes it back.
        let irp = unsafe { self.block.head.irp.prepare(completed::<R>, irps_reference.cast_mut().cast()) };
        // From here on the IRP and the request belong to WSK; the completion routine may have run by the time
        // `call` returns.
        if let Submission::Refused(Refusal(status)) = call(irp, request) {
            // Kept in the IRP, so that it needs no place of its own; the cell says whose word it is.
            // SAFETY: the IRP was not submitted.
            unsafe { nt::set_irp_status(irp, status) };
            self.block.head.cell.refuse();
            // SAFETY: the reference made above; no completion routine will take it back.
            drop(unsafe { Ref::from_raw(irps_reference) });
        }
    }

    /// The outcome and the request, once the completion routine has run; else the operation comes back, and
    /// the task will be woken.
    pub(crate) fn poll(self, context: &Context<'_>) -> core::result::Result<(Outcome, R), Self> {
        let Some(outcome) = self.block.head.poll(context) else { return Err(self) };
        // SAFETY: the state is done, so the request belongs to the future, which this value is.
        let request = unsafe { (*self.block.request.get()).take() };
        match request {
            Some(request) => Ok((outcome, request)),
            // SAFETY: the request is there from `try_new` until the block is done, and then only this
            // function, which uses the operation up, and a completion routine that finds the operation
            // abandoned take it.
            None => unsafe { core::hint::unreachable_unchecked() },
        }
    }

    /// Asks for the cancellation of the request, if WSK has it. The operation completes as ever.
    pub(crate) fn cancel(&self) {
        self.block.head.cancel();
    }

    /// Drops the operation without cancelling its request.
    pub(crate) fn detach(mut self) {
        self.cancels = false;
    }
}

impl<R: Request> Drop for Op<R> {
    fn drop(&mut self) {
        if let Some(outcome) = self.block.head.abandon(self.cancels) {
            // SAFETY: the state is done, so the request belongs to the future, which this value is.
            if let Some(request) = unsafe { (*self.block.request.get()).take() } {
                request.orphaned(outcome);
            }
        }
    }
}

impl Head {
    fn new() -> Self {
        Self { irp: IrpStorage::new(), cell: Cell::new() }
    }

    /// Returns the outcome of the request if it has ended; otherwise the task will be woken.
    fn poll(&self, context: &Context<'_>) -> Option<Outcome> {
        self.cell.poll(context).map(|end| self.outcome(end))
    }

    /// The future goes. If WSK has the IRP, it is cancelled on request, and the request is the completion
    /// routine's from now on; if the request has ended, it is the caller's, with this outcome.
    fn abandon(&self, cancel: bool) -> Option<Outcome> {
        match self.cell.abandon() {
            Abandoned::Idle => None,
            Abandoned::Submitted => {
                if cancel {
                    // SAFETY: the operation was submitted, and the future's reference is still there.
                    unsafe { self.cancel_irp() };
                }
                None
            }
            Abandoned::Ended(end) => Some(self.outcome(end)),
        }
    }

    /// Cancels the IRP if WSK has it.
    fn cancel(&self) {
        if self.cell.is_submitted() {
            // SAFETY: the operation was submitted, and the caller has a reference on its block.
            unsafe { self.cancel_irp() };
        }
    }

    /// Cancels the IRP. It may complete before or meanwhile: cancelling a completed IRP does nothing (rules
    /// R14, IRP-16).
    ///
    /// # Safety
    /// WSK was given the IRP, and the caller keeps the block alive.
    unsafe fn cancel_irp(&self) {
        // SAFETY: the IRP was initialised by `submit` and lives in the block, which the caller keeps.
        unsafe { nt::IoCancelIrp(self.irp.as_ptr()) };
    }

    /// Reads how the request ended. Call only when it has, or from the completion routine.
    fn outcome(&self, end: End) -> Outcome {
        let irp = self.irp.as_ptr();
        // SAFETY: an IRP that was completed, or never submitted, is not written any more, and it lives in
        // this block.
        let status = unsafe { nt::irp_status(irp) };
        if end == End::Refused {
            return Outcome::Refused(Refusal(status));
        }
        // SAFETY: WSK completed the IRP, which is not written any more and lives in this block.
        let information = unsafe { nt::irp_information(irp) };
        Outcome::Completed { status, information }
    }
}

/// The completion routine of every operation.
///
/// # Safety
/// `context` is the block reference that [`Op::submit`] made for this IRP; the I/O manager calls this once.
unsafe extern "system" fn completed<R: Request>(
    _device: *mut nt::DEVICE_OBJECT,
    _irp: *mut nt::IRP,
    context: *mut c_void,
) -> NTSTATUS {
    // SAFETY: `submit` leaked exactly this reference, and the routine runs once per submission.
    let block = unsafe { Ref::<Block<R>>::from_raw(context.cast_const().cast()) };
    let outcome = block.head.outcome(End::Completed);
    // SAFETY: until the state is done the request belongs to WSK, which has just given it back to this
    // routine.
    if let Some(request) = unsafe { (*block.request.get()).as_mut() } {
        request.close_if_dead(outcome);
        request.completed(outcome);
    }
    if block.head.cell.complete() {
        // SAFETY: the future has walked away, so the request belongs to this routine alone.
        if let Some(request) = unsafe { (*block.request.get()).take() } {
            request.orphaned(outcome);
        }
    }
    // The block owns the IRP, so the I/O manager must not look at it again (rule IRP-03).
    STATUS_MORE_PROCESSING_REQUIRED
}
