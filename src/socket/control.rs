//! Control operations (`WskControlSocket`): options, ioctls, and switching event callbacks.

use core::ffi::c_void;
use core::mem::size_of;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    NPI_WSK_INTERFACE_ID, PFN_WSK_CONTROL_SOCKET, SO_WSK_EVENT_CALLBACK, SOL_SOCKET, STATUS_EVENT_PENDING,
    STATUS_FILE_FORCED_CLOSED, STATUS_NOT_SUPPORTED, STATUS_SUCCESS, WSK_CONTROL_SOCKET_TYPE,
    WSK_EVENT_CALLBACK_CONTROL, WSK_EVENT_DISABLE, WSK_PROVIDER_BASIC_DISPATCH, WSK_SOCKET, WskSetOption,
};

use super::SocketRef;
use crate::error::{Error, Operation, Result};
use crate::operation::{Op, Outcome, Request, Submission};

/// The output of a control operation; it lives in the operation block.
pub(crate) type ControlBuffer = [usize; 2];

/// What a control operation is about.
#[derive(Clone, Copy)]
pub(crate) struct Control {
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

// SAFETY: a plain number.
unsafe impl Input for usize {}

/// A switch for event callbacks whose GUID is the static one of WSK.
#[repr(transparent)]
struct EventSwitch(WSK_EVENT_CALLBACK_CONTROL);

// SAFETY: the GUID it points to is static.
unsafe impl Send for EventSwitch {}
// SAFETY: as for `Send` (rule EVT-24).
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
    fn orphaned(self, outcome: Outcome) {
        self.socket.note(outcome);
    }
}

/// The socket's `WskControlSocket`.
///
/// # Safety
/// `handle` is a socket that is not closing.
unsafe fn control_function(handle: *mut WSK_SOCKET) -> Option<PFN_WSK_CONTROL_SOCKET> {
    // SAFETY: the caller vouches for the socket.
    let table = unsafe { (*handle).Dispatch }.cast::<WSK_PROVIDER_BASIC_DISPATCH>();
    // SAFETY: every provider table begins with the basic table (rule LAY-14).
    unsafe { (*table).WskControlSocket }
}

/// Runs one control operation with an IRP; gives the output and how much of it was written.
pub(crate) async fn control<I: Input>(
    socket: SocketRef,
    what: Control,
    input: I,
) -> Result<(ControlBuffer, usize)> {
    debug_assert!(what.input <= size_of::<I>() && what.output <= size_of::<ControlBuffer>());
    let request = ControlRequest { input, output: [0; 2], socket: socket.clone() };
    let op =
        Op::try_new(socket.client().cache(), request).map_err(|_| Error::out_of_memory(what.operation))?;
    // SAFETY: the operation is new, and `hand_over` passes the IRP and the request's memory alone.
    let run = unsafe { op.run(|irp, request| hand_over(&socket, what, irp, request)) };
    let (outcome, request) = run.await;
    socket.note(outcome);
    outcome.result(what.operation).map(|written| (request.output, written))
}

fn hand_over<I>(
    socket: &SocketRef,
    what: Control,
    irp: *mut IRP,
    request: *mut ControlRequest<I>,
) -> Submission {
    // SAFETY: the request is live; only the address of a field is computed.
    let input = unsafe { &raw mut (*request).input }.cast::<c_void>();
    // SAFETY: the request is live; only the address of a field is computed.
    let output = unsafe { &raw mut (*request).output }.cast::<c_void>();
    socket.submit(|handle| {
        // SAFETY: the gate is held, so the socket is not closing.
        let function = unsafe { control_function(handle) }?;
        // SAFETY: both buffers are part of the request, which lives until the IRP has completed (rule LIFE-11).
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
    })
}

/// Runs one control operation without an IRP, which completes inline (rule IRP-19).
pub(crate) fn control_inline(
    socket: &SocketRef,
    what: Control,
    input: *mut c_void,
    output: *mut c_void,
    written: *mut usize,
) -> NTSTATUS {
    let Some(permit) = socket.call() else { return STATUS_FILE_FORCED_CLOSED };
    // SAFETY: the permit keeps the socket from closing.
    let Some(function) = (unsafe { control_function(permit.handle()) }) else { return STATUS_NOT_SUPPORTED };
    // SAFETY: the buffers are the caller's, of the sizes named, and used only during the call.
    unsafe {
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
    }
}

const EVENT_CALLBACK: Control = Control {
    operation: Operation::EventCallbacks,
    request: WskSetOption,
    code: SO_WSK_EVENT_CALLBACK,
    level: SOL_SOCKET,
    input: size_of::<WSK_EVENT_CALLBACK_CONTROL>(),
    output: 0,
};

/// What became of a request to switch an event callback off without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the callback may still be running"]
pub enum Disabled {
    /// It is off: no call was in progress, and none will follow.
    Now,
    /// Calls are in progress (`STATUS_EVENT_PENDING`); it is off when they have returned, which nobody announces.
    WhenCallbacksReturn,
}

/// Switches events on. Inline, and without an IRP (rules EVT-10, EVT-12); events may arrive before this returns.
pub(crate) fn enable_events(socket: &SocketRef, mask: u32) -> Result<()> {
    match switch_events(socket, mask) {
        STATUS_SUCCESS => Ok(()),
        status => Err(Error::new(Operation::EventCallbacks, status)),
    }
}

/// Switches one event off, without waiting (rules EVT-15, EVT-18, EVT-28).
pub(crate) fn disable_event(socket: &SocketRef, event: u32) -> Result<Disabled> {
    // Both answers satisfy `NT_SUCCESS`, so they are told apart by value (rule EVT-21).
    match switch_events(socket, event | WSK_EVENT_DISABLE) {
        STATUS_SUCCESS => Ok(Disabled::Now),
        STATUS_EVENT_PENDING => Ok(Disabled::WhenCallbacksReturn),
        status => Err(Error::new(Operation::EventCallbacks, status)),
    }
}

fn switch_events(socket: &SocketRef, mask: u32) -> NTSTATUS {
    let mut switch = EventSwitch::new(mask);
    let status = control_inline(
        socket,
        EVENT_CALLBACK,
        (&raw mut switch).cast(),
        core::ptr::null_mut(),
        core::ptr::null_mut(),
    );
    socket.note(Outcome { status, information: 0 });
    status
}

/// Switches one event off and waits until no call of its callback is in progress (rule EVT-17).
pub(crate) async fn disable_event_and_wait(socket: SocketRef, event: u32) -> Result<()> {
    control(socket, EVENT_CALLBACK, EventSwitch::new(event | WSK_EVENT_DISABLE)).await.map(drop)
}
