//! Disconnecting: `WskDisconnect` as a future, graceful or abortive.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use wsk_sys::nt::IRP;
use wsk_sys::{STATUS_CONNECTION_ABORTED, STATUS_INVALID_DEVICE_STATE, WSK_FLAG_ABORTIVE};

use super::shared::ConnectionRef;
use crate::buffer::Buffer;
use crate::error::{Error, Operation, Result};
use crate::memory::Cache;
use crate::operation::{self, Lazy, Op, Outcome, Request, Submission};
use crate::socket::ConnectionTable;

/// The memory that WSK uses while a disconnect is under way.
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
    /// `request` is live, not yet WSK's, and stays where it is until `irp`, which was prepared for it, has
    /// completed.
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
        let call = |handle, table: &ConnectionTable| {
            let disconnect = table.disconnect()?;
            // SAFETY: the descriptor is null, or its range is inside the buffer that the request owns until
            // completion.
            Some(unsafe { disconnect(handle, wsk_buf, flags, irp) })
        };
        // SAFETY: the operation has just prepared the IRP, which `call` submits or leaves alone.
        unsafe { connection.submit(irp, call) }
    }
}

/// A disconnect to come.
struct DisconnectOperation {
    connection: ConnectionRef,
    flags: u32,
    last: Option<Buffer>,
}

impl DisconnectOperation {
    /// Submits the disconnect; the flag says whether WSK was asked.
    fn submit(&mut self) -> Result<(Op<DisconnectRequest>, bool)> {
        let request = DisconnectRequest { connection: self.connection.clone(), last: self.last.take() };
        let op = Op::try_new(self.connection.client().cache(), request)
            .map_err(|_| Error::out_of_memory(Operation::Disconnect))?;
        let mut asked = false;
        let call = |irp, request| {
            // SAFETY: `submit` passes the request, and an IRP that was prepared for it.
            let submission =
                unsafe { DisconnectRequest::submit_irp(&self.connection, self.flags, irp, request) };
            asked = matches!(submission, Submission::Pending);
            submission
        };
        // SAFETY: the operation is new; `submit_irp` passes the IRP and memory of the request alone.
        unsafe { op.submit(call) };
        Ok((op, asked))
    }
}

/// A graceful disconnect to come.
struct ShutdownOperation<'a> {
    disconnect: DisconnectOperation,
    /// True if this side was shut down.
    shut_down: &'a mut bool,
}

impl operation::Operation for ShutdownOperation<'_> {
    type Request = DisconnectRequest;
    type Output = Result<()>;

    fn start(
        &mut self,
        _context: &Context<'_>,
    ) -> Poll<core::result::Result<Op<DisconnectRequest>, Result<()>>> {
        if *self.shut_down {
            // The answer of WSK to a second one is not defined (rule DISC-28).
            return Poll::Ready(Err(Err(Error::new(Operation::Disconnect, STATUS_INVALID_DEVICE_STATE))));
        }
        if self.disconnect.connection.is_stream_broken() {
            // The peer must not take what it has got for all of the stream.
            return Poll::Ready(Err(Err(Error::new(Operation::Disconnect, STATUS_CONNECTION_ABORTED))));
        }
        Poll::Ready(match self.disconnect.submit() {
            Ok((op, asked)) => {
                // Of one that WSK was not asked for nothing is left: sends may go on, and so may another
                // disconnect.
                *self.shut_down = asked;
                Ok(op)
            }
            Err(error) => Err(Err(error)),
        })
    }

    fn finish(&mut self, outcome: Outcome, _request: DisconnectRequest) -> Result<()> {
        outcome.result(Operation::Disconnect).map(drop)
    }

    fn refuse(&mut self, error: Error) -> Option<Result<()>> {
        Some(Err(error))
    }

    fn name(&self) -> Operation {
        Operation::Disconnect
    }

    fn cache(&self) -> &Cache {
        self.disconnect.connection.client().cache()
    }
}

/// Future of [`Connection::shutdown`](super::Connection::shutdown).
#[must_use = "futures do nothing unless polled"]
pub struct Shutdown<'a>(Lazy<ShutdownOperation<'a>>);

impl<'a> Shutdown<'a> {
    pub(super) fn new(connection: &ConnectionRef, last: Option<Buffer>, shut_down: &'a mut bool) -> Self {
        let last = last.filter(|last| !last.is_empty());
        let disconnect = DisconnectOperation { connection: connection.clone(), flags: 0, last };
        Self(Lazy::new(ShutdownOperation { disconnect, shut_down }))
    }
}

impl Future for Shutdown<'_> {
    type Output = Result<()>;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll(context)
    }
}

operation::limited! {
    [] Shutdown<'_>, 0,
    ///
    /// A disconnect whose time is up may have sent the end of the stream or not, and nothing can be sent any
    /// more: [abort](super::Control::abort) or close the connection then.
}

impl fmt::Debug for Shutdown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").finish_non_exhaustive()
    }
}

impl operation::Operation for DisconnectOperation {
    type Request = DisconnectRequest;
    type Output = Result<()>;

    fn start(
        &mut self,
        _context: &Context<'_>,
    ) -> Poll<core::result::Result<Op<DisconnectRequest>, Result<()>>> {
        Poll::Ready(self.submit().map(|(op, _)| op).map_err(Err))
    }

    fn finish(&mut self, outcome: Outcome, _request: DisconnectRequest) -> Result<()> {
        outcome.result(Operation::Disconnect).map(drop)
    }

    fn refuse(&mut self, error: Error) -> Option<Result<()>> {
        Some(Err(error))
    }

    fn name(&self) -> Operation {
        Operation::Disconnect
    }

    fn cache(&self) -> &Cache {
        self.connection.client().cache()
    }
}

/// Future of [`Control::abort`](super::Control::abort).
#[must_use = "futures do nothing unless polled"]
pub struct Abort(Lazy<DisconnectOperation>);

impl Abort {
    pub(super) fn new(connection: &ConnectionRef) -> Self {
        let flags = WSK_FLAG_ABORTIVE;
        Self(Lazy::new(DisconnectOperation { connection: connection.clone(), flags, last: None }))
    }
}

impl Future for Abort {
    type Output = Result<()>;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll(context)
    }
}

operation::limited! {
    [] Abort, 0,
}

impl fmt::Debug for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Abort").finish_non_exhaustive()
    }
}
