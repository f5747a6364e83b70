//! Sending by IRP: `WskSend` as a future.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use bitflags::bitflags;
use wsk_sys::nt::IRP;
use wsk_sys::{
    STATUS_INVALID_PARAMETER, STATUS_LOCAL_DISCONNECT, WSK_FLAG_NODELAY, WSK_PROVIDER_CONNECTION_DISPATCH,
};

use super::{Connection, ConnectionEvents, ConnectionRef};
use crate::buffer::Buffer;
use crate::error::{Error, Operation, Result};
use crate::operation::{Op, Outcome, Request, Submission};

bitflags! {
    /// How to send.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SendFlags: u32 {
        /// Sends at once rather than wait for more to send along (`WSK_FLAG_NODELAY`).
        const NO_DELAY = WSK_FLAG_NODELAY;
    }
}

impl<E: ConnectionEvents> Connection<E> {
    /// Sends all of `buffer` (`WskSend`). The result is the number of bytes, always all of them, and the buffer. With
    /// an empty buffer there is nothing to do.
    ///
    /// WSK does not buffer: this resolves when the transport has taken every byte. Several sends may be under way;
    /// they go out in the order of their first polls.
    ///
    /// # Cancel safety
    /// Dropping it asks for cancellation; how much had been sent by then is not known, so the connection is good for
    /// closing only. The buffer is not given back.
    ///
    /// # Errors
    /// `STATUS_LOCAL_DISCONNECT` after a graceful disconnect of this side, `STATUS_CONNECTION_RESET` and the like,
    /// `STATUS_FILE_FORCED_CLOSED`, `STATUS_CANCELLED` when the connection was closed,
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn send(&self, buffer: Buffer) -> Sending {
        self.send_with(buffer, SendFlags::empty())
    }

    /// [`Connection::send`] with flags.
    ///
    /// # Cancel safety
    /// As for [`Connection::send`].
    ///
    /// # Errors
    /// As for [`Connection::send`], and `STATUS_INVALID_PARAMETER` for flags that have no name.
    pub fn send_with(&self, buffer: Buffer, flags: SendFlags) -> Sending {
        Sending { state: State::Start(self.reference(), buffer, flags) }
    }
}

/// What WSK uses while a send is under way.
struct SendRequest {
    connection: ConnectionRef,
    buffer: Buffer,
}

impl Request for SendRequest {
    fn close_if_dead(&self, outcome: Outcome) {
        self.connection.close_if_dead(outcome);
    }
}

impl SendRequest {
    /// Calls `WskSend`.
    ///
    /// # Safety
    /// `request` is live, not yet WSK's, and stays where it is until `irp`, which was prepared for it, has completed.
    unsafe fn submit_irp(
        connection: &ConnectionRef,
        flags: SendFlags,
        irp: *mut IRP,
        request: *mut Self,
    ) -> Submission {
        // SAFETY: the request is live and not yet WSK's.
        let buffer = unsafe { &(*request).buffer };
        // The descriptor is needed only during the call (rule LIFE-08); what it describes lives in the request.
        let mut wsk_buf = match buffer.wsk_buf_for_send(0..buffer.len()) {
            Ok(wsk_buf) => wsk_buf,
            Err(error) => return Submission::Refused(error.into()),
        };
        let call = |handle: *mut wsk_sys::WSK_SOCKET| {
            // SAFETY: rundown protection is held, so the socket is a connection that is not closing.
            let table = unsafe { (*handle).Dispatch }.cast::<WSK_PROVIDER_CONNECTION_DISPATCH>();
            // SAFETY: the table is that of a connection; the member was always there.
            let send = unsafe { (*table).WskSend }?;
            // SAFETY: the range is inside the buffer (rule SND-08), which the request owns until completion.
            Some(unsafe { send(handle, &raw mut wsk_buf, flags.bits(), irp) })
        };
        // SAFETY: the operation has just prepared the IRP, and `call` hands it to WSK or leaves it alone.
        unsafe { connection.submit(irp, call) }
    }
}

/// A send under way; see [`Connection::send`].
#[must_use = "futures do nothing unless polled"]
pub struct Sending {
    state: State,
}

enum State {
    Start(ConnectionRef, Buffer, SendFlags),
    Waiting(Op<SendRequest>),
    Finished,
}

impl Sending {
    fn start(
        connection: &ConnectionRef,
        buffer: Buffer,
        flags: SendFlags,
    ) -> core::result::Result<Op<SendRequest>, (Result<usize>, Buffer)> {
        // Bits without a name do not reach WSK, which knows more of them than this crate (rules SND-05, SND-06).
        if !SendFlags::all().contains(flags) {
            return Err((Err(Error::new(Operation::Send, STATUS_INVALID_PARAMETER)), buffer));
        }
        // Said here rather than asked of WSK, where the answers are not defined (rules SND-07, SND-15, SND-16).
        if buffer.is_empty() {
            return Err((Ok(0), buffer));
        }
        if !connection.common().sends.enter() {
            return Err((Err(Error::new(Operation::Send, STATUS_LOCAL_DISCONNECT)), buffer));
        }
        let submitted = Self::submit(connection, buffer, flags);
        connection.common().sends.leave();
        submitted
    }

    fn submit(
        connection: &ConnectionRef,
        buffer: Buffer,
        flags: SendFlags,
    ) -> core::result::Result<Op<SendRequest>, (Result<usize>, Buffer)> {
        let request = SendRequest { connection: connection.clone(), buffer };
        match Op::try_new(connection.client().cache(), request) {
            Ok(op) => {
                let call = |irp, request| {
                    // SAFETY: `submit` passes the request, and an IRP that was prepared for it.
                    unsafe { SendRequest::submit_irp(connection, flags, irp, request) }
                };
                // SAFETY: the operation is new; `submit_irp` passes the IRP and memory of the request alone.
                unsafe { op.submit(call) };
                Ok(op)
            }
            Err((_, request)) => Err((Err(Error::out_of_memory(Operation::Send)), request.buffer)),
        }
    }
}

impl Future for Sending {
    type Output = (Result<usize>, Buffer);

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let op = match core::mem::replace(&mut self.state, State::Finished) {
            State::Start(connection, buffer, flags) => match Self::start(&connection, buffer, flags) {
                Ok(op) => op,
                Err(ready) => return Poll::Ready(ready),
            },
            State::Waiting(op) => op,
            State::Finished => return Poll::Pending,
        };
        match op.poll(context) {
            Ok((outcome, request)) => Poll::Ready((outcome.result(Operation::Send), request.buffer)),
            Err(op) => {
                self.state = State::Waiting(op);
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").finish_non_exhaustive()
    }
}
