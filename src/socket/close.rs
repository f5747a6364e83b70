//! Closing: one IRP that is always there, started by exactly one caller, never abandoned.

use core::ffi::c_void;
use core::future::Future;
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll};

use wsk_sys::WSK_PROVIDER_BASIC_DISPATCH;
use wsk_sys::nt::NTSTATUS;

use super::{Duty, Socket, SocketRef};
use crate::client::Node;
use crate::memory::OutOfMemory;
use crate::operation::Completion;

/// Resolves when a socket's close has completed.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Closed {
    socket: SocketRef,
}

impl Closed {
    /// Shuts the socket and waits for its close; the call is made right here if no call holds rundown
    /// protection.
    pub(crate) fn new(socket: SocketRef) -> Self {
        if socket.shut() == Duty::StartClose {
            // SAFETY: the duty was told right here, and `socket` is a reference on the core.
            unsafe { start(socket.as_ptr()) };
        }
        Self { socket }
    }
}

impl Future for Closed {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let socket = &*self.socket;
        // A core that never got a socket has nothing to wait for.
        if !socket.rundown.is_attached() || socket.closed.poll(context) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// The reaper's way in.
///
/// # Safety
/// `node` is the node of a live [`Socket`] whose rundown answered [`Duty::StartClose`], as a pointer to the
/// whole core.
pub(super) unsafe fn start_from_node(node: NonNull<Node>) {
    // SAFETY: the node is the first field of the socket; the rest is the caller's promise.
    unsafe { start(node.cast::<Socket>()) };
}

/// Makes the IRP of the close ready, so that closing cannot fail (rule CLOSE-14).
///
/// Called once for a core, before it gets its socket, while the caller has a capture or rundown protection of
/// another socket, which keeps the client's device.
///
/// # Errors
/// [`OutOfMemory`]; the core cannot be used then.
#[inline(never)]
pub(crate) fn reserve(core: &SocketRef) -> Result<(), OutOfMemory> {
    let context = core.as_ptr().as_ptr().cast();
    // SAFETY: the core has no socket, so the IRP, which is part of it, is not used; the context is the core
    // itself, and the caller keeps the device.
    unsafe { core.close_irp.reserve::<Close>(core.client.device(), context) }
}

/// Calls `WskCloseSocket`.
///
/// No reference to the socket lives during the call: WSK's own, which is the last one perhaps, goes when the
/// close completes, and that may be before the call returns.
///
/// # Safety
/// The rundown of the socket answered [`Duty::StartClose`] to the caller, so this is called once per socket.
/// The pointer reaches the whole core.
unsafe fn start(socket: NonNull<Socket>) {
    // SAFETY: WSK's reference keeps the socket alive until its close has completed.
    let handle = unsafe { socket.as_ref() }.handle.load(Ordering::Acquire);
    // SAFETY: WSK's reference keeps the socket alive until its close has completed.
    let closing = unsafe { socket.as_ref() }.lifetime.closing;
    // SAFETY: WSK's reference keeps the socket alive until its close has completed.
    let lives = !unsafe { socket.as_ref() }.is_dead();
    // SAFETY: the caller was told to start the close, and has not done so yet.
    unsafe { closing(socket, lives.then_some(handle)) };
    // SAFETY: WSK's reference keeps the socket alive until its close has completed.
    let reserved = unsafe { &socket.as_ref().close_irp };
    // SAFETY: the core was made with it reserved, and the duty to close is told once.
    let irp = unsafe { reserved.take() };
    // SAFETY: the handle is the one WSK gave and no rundown protection is held, so it is valid until this
    // very call.
    let table = unsafe { (*handle).Dispatch }.cast::<WSK_PROVIDER_BASIC_DISPATCH>();
    // SAFETY: every provider table begins with the basic table (rule LAY-14).
    let close = unsafe { (*table).WskCloseSocket };
    if let Some(close) = close {
        // SAFETY: no call executes in the socket, nothing is retained, and this is the only close (rules
        // CLOSE-01, CLOSE-12). The status is that of the IRP (rule IRP-12).
        let _ = unsafe { close(handle, irp) };
    }
}

/// Completion of the close. No callback of the socket runs or will run (rule CLOSE-08).
struct Close;

impl Completion for Close {
    unsafe fn completed(context: *mut c_void, _status: NTSTATUS) {
        // SAFETY: `reserve` passed a socket, which is never null, as a pointer to its whole core.
        let whole = unsafe { NonNull::new_unchecked(context.cast::<Socket>()) };
        // SAFETY: WSK's reference, given back below, keeps the socket alive.
        let socket = unsafe { whole.as_ref() };
        // A close cannot fail, and a client that is told otherwise can only treat the socket as gone (rule
        // CLOSE-11). SAFETY: the socket entered the list in `attach` and leaves it here, once.
        unsafe { socket.client.delist(whole) };
        let client = socket.client.clone();
        let lifetime = socket.lifetime;
        // SAFETY: WSK's reference keeps the core alive; its close has just completed, which happens once.
        unsafe { (lifetime.closed)(whole) };
        socket.closed.give();
        // SAFETY: this is the reference that `attach` made for WSK.
        unsafe { (lifetime.release)(whole) };
        // Last of all: until here the client counts the socket, so that it cannot say that nothing is left.
        // SAFETY: the socket was delisted above, once.
        unsafe { client.socket_closed() };
    }
}
