//! Disconnecting: `WskDisconnect` as a future, graceful or abortive.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use wsk_sys::nt::IRP;
use wsk_sys::{STATUS_INVALID_DEVICE_STATE, WSK_FLAG_ABORTIVE, WSK_PROVIDER_CONNECTION_DISPATCH};

use super::{Connection, ConnectionEvents, ConnectionRef};
use crate::buffer::Buffer;
use crate::error::{Error, Operation, Result};
use crate::operation::{Op, Outcome, Request, Submission};

impl<E: ConnectionEvents> Connection<E> {
    /// Ends this side gracefully (`WskDisconnect`): what was sent is transmitted, then the end of the stream. Nothing
    /// can be sent any more from the first poll on; receiving goes on until the peer ends its side.
    ///
    /// It resolves when the transport has finished, which a peer that is stuck can put off for ever: bound it with a
    /// time limit, and [abort](Connection::abort) or close when that runs out, which ends it.
    ///
    /// # Cancel safety
    /// Dropping it asks for cancellation, which comes too late more often than not. Nothing can be sent all the same.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` for a second one, `STATUS_CONNECTION_RESET` and the like,
    /// `STATUS_FILE_FORCED_CLOSED`, `STATUS_CANCELLED`, `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn disconnect(&self) -> Disconnect {
        Disconnect { state: State::Start(self.reference(), None) }
    }

    /// [`Connection::disconnect`] that sends `last` before the end.
    ///
    /// # Cancel safety
    /// As for [`Connection::disconnect`].
    ///
    /// # Errors
    /// As for [`Connection::disconnect`].
    pub fn disconnect_after(&self, last: Buffer) -> Disconnect {
        let last = Some(last).filter(|last| !last.is_empty());
        Disconnect { state: State::Start(self.reference(), last) }
    }

    /// Ends both sides at once (`WskDisconnect` with `WSK_FLAG_ABORTIVE`): the peer sees a reset, and whatever is
    /// under way fails.
    ///
    /// # Cancel safety
    /// Once polled, it takes effect also when dropped.
    ///
    /// # Errors
    /// As for [`Connection::disconnect`].
    pub fn abort(&self) -> Disconnect {
        Disconnect { state: State::Abort(self.reference()) }
    }
}

/// What WSK uses while a disconnect is under way.
struct DisconnectRequest {
    connection: ConnectionRef,
    last: Option<Buffer>,
}

impl Request for DisconnectRequest {
    fn close_if_dead(&self, outcome: Outcome) {
        self.connection.close_if_dead(outcome);
    }
}

impl DisconnectRequest {
    /// Calls `WskDisconnect`.
    ///
    /// # Safety
    /// `request` is live, not yet WSK's, and stays where it is until `irp`, which was prepared for it, has completed.
    unsafe fn submit_irp(
        connection: &ConnectionRef,
        flags: u32,
        irp: *mut IRP,
        request: *mut Self,
    ) -> Submission {
        // SAFETY: the request is live and not yet WSK's.
        let last = unsafe { &(*request).last };
        let described = last.as_ref().map(|buffer| buffer.wsk_buf_for_send(0..buffer.len())).transpose();
        let mut wsk_buf = match described {
            Ok(described) => described,
            Err(error) => return Submission::Refused(error.into()),
        };
        // None for an abortive one, which has no last buffer (rule DISC-23).
        let wsk_buf = wsk_buf.as_mut().map_or(core::ptr::null_mut(), core::ptr::from_mut);
        let call = |handle: *mut wsk_sys::WSK_SOCKET| {
            // SAFETY: rundown protection is held, so the socket is a connection that is not closing.
            let table = unsafe { (*handle).Dispatch }.cast::<WSK_PROVIDER_CONNECTION_DISPATCH>();
            // SAFETY: the table is that of a connection; the member was always there.
            let disconnect = unsafe { (*table).WskDisconnect }?;
            // SAFETY: the descriptor is null, or its range is inside the buffer that the request owns until completion.
            Some(unsafe { disconnect(handle, wsk_buf, flags, irp) })
        };
        // SAFETY: the operation has just prepared the IRP, and `call` hands it to WSK or leaves it alone.
        let submission = unsafe { connection.submit(irp, call) };
        if let Submission::Refused(_) = submission
            && flags != WSK_FLAG_ABORTIVE
        {
            // WSK has not heard of it, so sends may go on, and so may another disconnect.
            connection.common().sends.go_on();
        }
        submission
    }
}

/// A disconnect under way; see [`Connection::disconnect`].
#[must_use = "futures do nothing unless polled"]
pub struct Disconnect {
    state: State,
}

enum State {
    Start(ConnectionRef, Option<Buffer>),
    /// Sends are on their way in; they are let pass.
    Behind(ConnectionRef, Op<DisconnectRequest>),
    Abort(ConnectionRef),
    Waiting(Op<DisconnectRequest>),
    Finished,
}

impl Disconnect {
    fn prepare(connection: &ConnectionRef, last: Option<Buffer>) -> Result<Op<DisconnectRequest>> {
        let request = DisconnectRequest { connection: connection.clone(), last };
        Op::try_new(connection.client().cache(), request)
            .map_err(|_| Error::out_of_memory(Operation::Disconnect))
    }

    fn submit(connection: &ConnectionRef, op: &Op<DisconnectRequest>, flags: u32) {
        let call = |irp, request| {
            // SAFETY: `submit` passes the request, and an IRP that was prepared for it.
            unsafe { DisconnectRequest::submit_irp(connection, flags, irp, request) }
        };
        // SAFETY: the operation is new; `submit_irp` passes the IRP and memory of the request alone.
        unsafe { op.submit(call) };
    }

    /// Submits when no send is on its way in.
    fn follow(
        &mut self,
        connection: ConnectionRef,
        op: Op<DisconnectRequest>,
        context: &Context<'_>,
    ) -> Poll<Result<()>> {
        if !connection.common().sends.have_ended(context) {
            self.state = State::Behind(connection, op);
            return Poll::Pending;
        }
        Self::submit(&connection, &op, 0);
        self.wait(op, context)
    }

    fn wait(&mut self, op: Op<DisconnectRequest>, context: &Context<'_>) -> Poll<Result<()>> {
        match op.poll(context) {
            Ok((outcome, _)) => Poll::Ready(outcome.result(Operation::Disconnect).map(drop)),
            Err(op) => {
                self.state = State::Waiting(op);
                Poll::Pending
            }
        }
    }
}

impl Future for Disconnect {
    type Output = Result<()>;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        match core::mem::replace(&mut self.state, State::Finished) {
            State::Start(connection, last) => {
                let op = Self::prepare(&connection, last)?;
                if !connection.common().sends.end() {
                    // What WSK answers to a second one is not defined (rule DISC-28).
                    return Poll::Ready(Err(Error::new(Operation::Disconnect, STATUS_INVALID_DEVICE_STATE)));
                }
                self.follow(connection, op, context)
            }
            State::Behind(connection, op) => self.follow(connection, op, context),
            State::Abort(connection) => {
                let op = Self::prepare(&connection, None)?;
                Self::submit(&connection, &op, WSK_FLAG_ABORTIVE);
                self.wait(op, context)
            }
            State::Waiting(op) => self.wait(op, context),
            State::Finished => Poll::Pending,
        }
    }
}

impl Drop for Disconnect {
    fn drop(&mut self) {
        if let State::Behind(connection, _) = &self.state {
            connection.common().sends.go_on();
        }
    }
}

impl fmt::Debug for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disconnect").finish_non_exhaustive()
    }
}
