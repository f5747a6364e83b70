//! Control operations (`WskControlSocket`): options, ioctls, and switching event callbacks.

use core::ffi::c_void;
use core::mem::size_of;
use core::task::{Context, Poll};

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    NPI_WSK_INTERFACE_ID, PFN_WSK_CONTROL_SOCKET, SIO_WSK_QUERY_INSPECT_ID, SO_WSK_EVENT_CALLBACK,
    SOL_SOCKET, STATUS_EVENT_PENDING, STATUS_SUCCESS, WSK_CONTROL_SOCKET_TYPE, WSK_EVENT_CALLBACK_CONTROL,
    WSK_EVENT_DISABLE, WSK_INSPECT_ID, WSK_SOCKET, WskGetOption, WskIoctl, WskSetOption,
};

use super::{BasicTable, SocketRef};
use crate::error::{Error, Operation, Result};
use crate::memory::Cache;
use crate::operation::{self, Lazy, Op, Outcome, Refusal, Request, Submission};

/// The output of a control operation; it lives in the operation block.
pub(crate) type ControlBuffer = [usize; 2];

/// A control operation: its code, and the sizes of its buffers.
#[derive(Clone, Copy)]
pub(crate) struct ControlCode {
    pub(crate) operation: Operation,
    pub(crate) request: WSK_CONTROL_SOCKET_TYPE,
    pub(crate) code: u32,
    pub(crate) level: u32,
    /// Bytes of input.
    pub(crate) input: usize,
    /// Bytes of output.
    pub(crate) output: usize,
}

/// An input that may be handed to WSK from the operation block.
///
/// # Safety
/// The type may be read by any thread, pointers in it included, until the operation has completed.
pub(crate) unsafe trait Input: 'static {}

// SAFETY: a number may be read by any thread.
unsafe impl Input for usize {}

/// A switch for event callbacks whose GUID is the static one of WSK.
#[repr(transparent)]
struct EventSwitch(WSK_EVENT_CALLBACK_CONTROL);

// SAFETY: the GUID it points to is static.
unsafe impl Send for EventSwitch {}
// SAFETY: the GUID it points to is static (rule EVT-24).
unsafe impl Input for EventSwitch {}

impl EventSwitch {
    fn new(mask: u32) -> Self {
        Self(WSK_EVENT_CALLBACK_CONTROL { NpiId: &raw const NPI_WSK_INTERFACE_ID, EventMask: mask })
    }
}

struct ControlRequest<I> {
    input: I,
    output: ControlBuffer,
    /// Keeps the socket's memory while the operation is under way.
    socket: SocketRef,
}

// SAFETY: by the promise of `Input`.
unsafe impl<I: Input> Send for ControlRequest<I> {}

impl<I: Input> Request for ControlRequest<I> {
    fn close_if_dead(&self, outcome: Outcome) {
        self.socket.close_if_dead(outcome);
    }
}

/// A control operation to come; its output is what WSK has written, and how much of it.
///
/// # Invariants
/// `input` is there until the operation has started.
struct ControlOperation<I> {
    socket: SocketRef,
    what: ControlCode,
    input: Option<I>,
}

impl<I: Input> operation::Operation for ControlOperation<I> {
    type Request = ControlRequest<I>;
    type Output = Result<(ControlBuffer, usize)>;

    fn start(
        &mut self,
        _context: &Context<'_>,
    ) -> Poll<core::result::Result<Op<ControlRequest<I>>, Self::Output>> {
        let Some(input) = self.input.take() else { return Poll::Pending };
        let request = ControlRequest { input, output: [0; 2], socket: self.socket.clone() };
        let Ok(op) = Op::try_new(self.cache(), request) else {
            return Poll::Ready(Err(Err(Error::out_of_memory(self.what.operation))));
        };
        let call = |irp, request| {
            // SAFETY: `submit` passes the request, whose sizes cover those of `what`, and an IRP that was
            // prepared for it.
            unsafe { submit_irp(&self.socket, self.what, irp, request) }
        };
        // SAFETY: the operation is new, and `submit_irp` passes the IRP and the request's memory alone.
        unsafe { op.submit(call) };
        Poll::Ready(Ok(op))
    }

    fn finish(&mut self, outcome: Outcome, request: ControlRequest<I>) -> Self::Output {
        outcome.result(self.what.operation).map(|written| (request.output, written))
    }

    fn refuse(&mut self, error: Error) -> Option<Self::Output> {
        self.input.take().map(|_| Err(error))
    }

    fn name(&self) -> Operation {
        self.what.operation
    }

    fn cache(&self) -> &Cache {
        self.socket.client().cache()
    }
}

/// Runs one control operation with an IRP; gives the output and how much of it was written.
pub(crate) async fn control<I: Input>(
    socket: SocketRef,
    what: ControlCode,
    input: I,
) -> Result<(ControlBuffer, usize)> {
    debug_assert!(what.input <= size_of::<I>() && what.output <= size_of::<ControlBuffer>());
    Lazy::new(ControlOperation { socket, what, input: Some(input) }).await
}

/// Calls `WskControlSocket` with an IRP.
///
/// # Safety
/// `request` is live, not yet WSK's, and stays where it is until `irp`, which was prepared for it, has
/// completed. The sizes that `what` names are no larger than its buffers.
unsafe fn submit_irp<I>(
    socket: &SocketRef,
    what: ControlCode,
    irp: *mut IRP,
    request: *mut ControlRequest<I>,
) -> Submission {
    // SAFETY: the request is live; only the address of a field is computed.
    let input = unsafe { &raw mut (*request).input }.cast::<c_void>();
    // SAFETY: the request is live; only the address of a field is computed.
    let output = unsafe { &raw mut (*request).output }.cast::<c_void>();
    let call = |handle: *mut WSK_SOCKET, table: &BasicTable| {
        // SAFETY: both buffers are part of the request, which lives until the IRP has completed (rule
        // LIFE-11).
        unsafe { control_with_irp(handle, table.control_socket(), what, input, output, irp) }
    };
    // SAFETY: the operation has just prepared the IRP, which `call` submits or leaves alone; every table
    // begins with the basic one (rule LAY-14).
    unsafe { socket.submit(irp, call) }
}

/// Calls `WskControlSocket` with an IRP; `None` if this WSK does not have it.
///
/// # Safety
/// `handle` is a socket that is not closing, and `function` is its function. `irp` was prepared, and the
/// buffers, of the sizes that `what` names, are live until it has completed.
pub(crate) unsafe fn control_with_irp(
    handle: *mut WSK_SOCKET,
    function: Option<PFN_WSK_CONTROL_SOCKET>,
    what: ControlCode,
    input: *mut c_void,
    output: *mut c_void,
    irp: *mut IRP,
) -> Option<NTSTATUS> {
    let function = function?;
    // SAFETY: the caller vouches for the buffers and the IRP.
    Some(unsafe {
        function(
            handle,
            what.request,
            what.code,
            what.level,
            what.input,
            if what.input == 0 { core::ptr::null_mut() } else { input },
            what.output,
            if what.output == 0 { core::ptr::null_mut() } else { output },
            core::ptr::null_mut(),
            irp,
        )
    })
}

/// Runs one control operation without an IRP, which completes inline (rule IRP-19). A socket that WSK says is
/// dead is closed.
///
/// # Safety
/// `input` and `output` are valid for as many bytes as `what` names, or null where that is none; `written` is
/// valid or null; and `input` is what WSK takes for this operation.
pub(crate) unsafe fn control_inline(
    socket: &SocketRef,
    what: ControlCode,
    input: *mut c_void,
    output: *mut c_void,
    written: *mut usize,
) -> Outcome {
    let Some(permit) = socket.acquire() else { return Outcome::Refused(Refusal::CLOSING) };
    // SAFETY: every table begins with the basic one (rule LAY-14).
    let table = unsafe { permit.table::<BasicTable>() };
    let Some(function) = table.control_socket() else { return Outcome::Refused(Refusal::NO_FUNCTION) };
    // SAFETY: the buffers are the caller's, of the sizes named, and used only during the call.
    let status = unsafe {
        function(
            permit.handle(),
            what.request,
            what.code,
            what.level,
            what.input,
            input,
            what.output,
            output,
            written,
            core::ptr::null_mut(),
        )
    };
    drop(permit);
    // Without an IRP the return tells.
    let outcome = Outcome::Completed { status, information: 0 };
    socket.close_if_dead(outcome);
    outcome
}

/// Sets an option of 32 bits.
pub(crate) async fn set_option(socket: SocketRef, level: u32, name: u32, value: u32) -> Result<()> {
    let what = ControlCode {
        operation: Operation::SetOption,
        request: WskSetOption,
        code: name,
        level,
        input: size_of::<u32>(),
        output: 0,
    };
    control(socket, what, value as usize).await.map(drop)
}

/// Reads an option of up to 32 bits.
pub(crate) async fn get_option(socket: SocketRef, level: u32, name: u32) -> Result<u32> {
    let what = ControlCode {
        operation: Operation::GetOption,
        request: WskGetOption,
        code: name,
        level,
        input: 0,
        output: size_of::<u32>(),
    };
    // A shorter answer leaves the rest as it was: zero.
    control(socket, what, 0).await.map(|(output, _)| output[0] as u32)
}

const EVENT_CALLBACK: ControlCode = ControlCode {
    operation: Operation::EventCallbacks,
    request: WskSetOption,
    code: SO_WSK_EVENT_CALLBACK,
    level: SOL_SOCKET,
    input: size_of::<WSK_EVENT_CALLBACK_CONTROL>(),
    output: 0,
};

/// Result of switching an event callback off without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the callback may still be running"]
pub enum Disabled {
    /// It is off: no call was in progress, and none will follow.
    Now,
    /// Calls are in progress (`STATUS_EVENT_PENDING`); it is off when they have returned, which nobody
    /// announces.
    WhenCallbacksReturn,
}

/// The bit of `event` if it is exactly one of the events `all` (rule EVT-28).
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` otherwise.
pub(crate) fn one_event(event: u32, all: u32) -> Result<u32> {
    if event.is_power_of_two() && event & !all == 0 {
        Ok(event)
    } else {
        Err(Error::new(Operation::EventCallbacks, wsk_sys::STATUS_INVALID_PARAMETER))
    }
}

/// Switches events on. Inline, and without an IRP (rules EVT-10, EVT-12); events may arrive before this
/// returns.
pub(crate) fn enable_events(socket: &SocketRef, mask: u32) -> Result<()> {
    match switch_events(socket, mask).status() {
        STATUS_SUCCESS => Ok(()),
        status => Err(Error::new(Operation::EventCallbacks, status)),
    }
}

/// Switches one event off, without waiting (rules EVT-15, EVT-18, EVT-28).
pub(crate) fn disable_event(socket: &SocketRef, event: u32) -> Result<Disabled> {
    // Both answers satisfy `NT_SUCCESS`, so they are told apart by value (rule EVT-21).
    match switch_events(socket, event | WSK_EVENT_DISABLE).status() {
        STATUS_SUCCESS => Ok(Disabled::Now),
        STATUS_EVENT_PENDING => Ok(Disabled::WhenCallbacksReturn),
        status => Err(Error::new(Operation::EventCallbacks, status)),
    }
}

fn switch_events(socket: &SocketRef, mask: u32) -> Outcome {
    let mut switch = EventSwitch::new(mask);
    let input = (&raw mut switch).cast();
    // SAFETY: the input is a switch, which has the size that is named, and there is no output.
    unsafe { control_inline(socket, EVENT_CALLBACK, input, core::ptr::null_mut(), core::ptr::null_mut()) }
}

/// Asks for the inspection the socket went through (`SIO_WSK_QUERY_INSPECT_ID`). Inline, and without an IRP
/// (rule IOC-11).
pub(crate) fn query_inspect_id(socket: &SocketRef) -> (Outcome, WSK_INSPECT_ID) {
    let mut id = WSK_INSPECT_ID { Key: 0, SerialNumber: 0 };
    // `SIZE_T`, not `ULONG` (rule LAY-40).
    let mut written = 0_usize;
    let what = ControlCode {
        operation: Operation::QueryInspectId,
        request: WskIoctl,
        code: SIO_WSK_QUERY_INSPECT_ID,
        level: 0,
        input: 0,
        output: size_of::<WSK_INSPECT_ID>(),
    };
    let output = (&raw mut id).cast();
    // SAFETY: there is no input; the output is an ID, which has the size that is named, and both outlive the
    // call.
    let outcome = unsafe { control_inline(socket, what, core::ptr::null_mut(), output, &raw mut written) };
    (outcome, id)
}

/// Closes the socket if it is dead: WSK has an answer for sockets of every kind (rule IOC-10), and another
/// one for dead ones (rule LIFE-14).
///
/// IRQL: up to `DISPATCH_LEVEL`, but not in a completion routine.
pub(crate) fn probe(socket: &SocketRef) {
    let _ = query_inspect_id(socket);
}

/// Switches one event off and waits until no call of its callback is in progress (rule EVT-17).
pub(crate) async fn disable_event_and_wait(socket: SocketRef, event: u32) -> Result<()> {
    control(socket, EVENT_CALLBACK, EventSwitch::new(event | WSK_EVENT_DISABLE)).await.map(drop)
}
