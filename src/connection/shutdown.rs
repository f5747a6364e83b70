//! Disconnecting: `WskDisconnect` as a future, graceful or abortive.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use wsk_sys::nt::IRP;
use wsk_sys::{STATUS_CONNECTION_ABORTED, STATUS_INVALID_DEVICE_STATE, WSK_BUF, WSK_FLAG_ABORTIVE};

use super::shared::ConnectionRef;
use super::stream::Stream;
use crate::buffer::Buffer;
use crate::error::{Error, Operation, Result};
use crate::memory::Cache;
use crate::operation::{self, Lazy, Op, Outcome, Request, Submission};
use crate::socket::ConnectionTable;

/// Data that a disconnect sends last: a buffer, or none.
trait Last: Send + Unpin + 'static {
    /// True for a buffer.
    const HAS_BYTES: bool;

    /// Describes the bytes to WSK, if there are any.
    fn describe(&self) -> Result<Option<WSK_BUF>>;
}

impl Last for () {
    const HAS_BYTES: bool = false;

    fn describe(&self) -> Result<Option<WSK_BUF>> {
        Ok(None)
    }
}

impl Last for Buffer {
    const HAS_BYTES: bool = true;

    fn describe(&self) -> Result<Option<WSK_BUF>> {
        if self.is_empty() { Ok(None) } else { self.wsk_buf_for_send(0..self.len()).map(Some) }
    }
}

/// The memory that WSK uses while a disconnect is under way.
struct DisconnectRequest<L> {
    connection: ConnectionRef,
    last: L,
}

impl<L: Last> Request for DisconnectRequest<L> {
    fn close_if_dead(&self, outcome: Outcome) {
        self.connection.close_if_dead(outcome);
    }
}

impl<L: Last> DisconnectRequest<L> {
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
        let mut wsk_buf = match last.describe() {
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
///
/// # Invariants
/// `last` is there until the operation has started.
struct DisconnectOperation<L> {
    connection: ConnectionRef,
    flags: u32,
    last: Option<L>,
}

type Started<L> = core::result::Result<Op<DisconnectRequest<L>>, (Result<()>, L)>;

impl<L: Last> DisconnectOperation<L> {
    fn new(connection: &ConnectionRef, flags: u32, last: L) -> Self {
        Self { connection: connection.clone(), flags, last: Some(last) }
    }

    /// Submits the disconnect; the flag says whether WSK was asked.
    fn submit(&self, last: L) -> (Started<L>, bool) {
        let request = DisconnectRequest { connection: self.connection.clone(), last };
        let op = match Op::try_new(self.connection.client().cache(), request) {
            Ok(op) => op,
            Err((_, request)) => {
                return (Err((Err(Error::out_of_memory(Operation::Disconnect)), request.last)), false);
            }
        };
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
        (Ok(op), asked)
    }
}

impl<L: Last> operation::Operation for DisconnectOperation<L> {
    type Request = DisconnectRequest<L>;
    type Output = (Result<()>, L);

    fn start(&mut self, _context: &Context<'_>) -> Poll<Started<L>> {
        let Some(last) = self.last.take() else { return Poll::Pending };
        Poll::Ready(self.submit(last).0)
    }

    fn finish(&mut self, outcome: Outcome, request: DisconnectRequest<L>) -> (Result<()>, L) {
        (outcome.result(Operation::Disconnect).map(drop), request.last)
    }

    fn refuse(&mut self, error: Error) -> Option<(Result<()>, L)> {
        self.last.take().map(|last| (Err(error), last))
    }

    fn name(&self) -> Operation {
        Operation::Disconnect
    }

    fn cache(&self) -> &Cache {
        self.connection.client().cache()
    }
}

/// The error of an end that would hide the loss of a send.
fn broken() -> Error {
    Error::new(Operation::Disconnect, STATUS_CONNECTION_ABORTED)
}

/// A graceful disconnect to come.
struct ShutdownOperation<'a, L> {
    disconnect: DisconnectOperation<L>,
    /// True if this side was shut down.
    shut_down: &'a mut bool,
}

impl<'a, L: Last> ShutdownOperation<'a, L> {
    fn new(connection: &ConnectionRef, last: L, shut_down: &'a mut bool) -> Self {
        Self { disconnect: DisconnectOperation::new(connection, 0, last), shut_down }
    }

    fn stream(&self) -> &Stream {
        &self.disconnect.connection.common().stream
    }

    /// The reason why WSK is not asked, if there is one.
    fn refusal(&self) -> Option<Error> {
        if *self.shut_down {
            // The answer of WSK to a second one is not defined (rule DISC-28).
            return Some(Error::new(Operation::Disconnect, STATUS_INVALID_DEVICE_STATE));
        }
        // The peer must not take what it has got for all of the stream.
        let ended = self.stream().begin_end();
        (!ended).then(broken)
    }
}

impl<L: Last> operation::Operation for ShutdownOperation<'_, L> {
    type Request = DisconnectRequest<L>;
    type Output = (Result<()>, L);

    fn start(&mut self, _context: &Context<'_>) -> Poll<Started<L>> {
        let Some(last) = self.disconnect.last.take() else { return Poll::Pending };
        if let Some(error) = self.refusal() {
            return Poll::Ready(Err((Err(error), last)));
        }
        let (started, asked) = self.disconnect.submit(last);
        if !asked {
            self.stream().take_end_back();
        }
        // Of one that WSK was not asked for nothing is left: sends may go on, and so may another disconnect.
        *self.shut_down = asked;
        Poll::Ready(started)
    }

    fn finish(&mut self, outcome: Outcome, request: DisconnectRequest<L>) -> (Result<()>, L) {
        let (ended, last) = self.disconnect.finish(outcome, request);
        (if self.stream().is_broken() { ended.and(Err(broken())) } else { ended }, last)
    }

    /// The end of the stream goes out in spite of a cancellation, perhaps. So a disconnect with a last buffer
    /// goes on, because the peer could not tell that some of that is missing.
    fn dropped(&mut self, _submitted: bool) -> bool {
        !L::HAS_BYTES
    }

    fn refuse(&mut self, error: Error) -> Option<(Result<()>, L)> {
        self.disconnect.refuse(error)
    }

    fn name(&self) -> Operation {
        Operation::Disconnect
    }

    fn cache(&self) -> &Cache {
        self.disconnect.cache()
    }
}

/// Future of [`Connection::shutdown`](super::Connection::shutdown).
#[must_use = "futures do nothing unless polled"]
pub struct Shutdown<'a>(Lazy<ShutdownOperation<'a, ()>>);

impl<'a> Shutdown<'a> {
    pub(super) fn new(connection: &ConnectionRef, shut_down: &'a mut bool) -> Self {
        Self(Lazy::new(ShutdownOperation::new(connection, (), shut_down)))
    }
}

impl Future for Shutdown<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll(context).map(|(result, ())| result)
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

/// Future of [`Connection::shutdown_after`](super::Connection::shutdown_after).
#[must_use = "futures do nothing unless polled"]
pub struct ShutdownAfter<'a>(Lazy<ShutdownOperation<'a, Buffer>>);

impl<'a> ShutdownAfter<'a> {
    pub(super) fn new(connection: &ConnectionRef, last: Buffer, shut_down: &'a mut bool) -> Self {
        Self(Lazy::new(ShutdownOperation::new(connection, last, shut_down)))
    }
}

impl Future for ShutdownAfter<'_> {
    type Output = (Result<()>, Buffer);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl fmt::Debug for ShutdownAfter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownAfter").finish_non_exhaustive()
    }
}

/// Future of [`Control::abort`](super::Control::abort).
#[must_use = "futures do nothing unless polled"]
pub struct Abort(Lazy<DisconnectOperation<()>>);

impl Abort {
    pub(super) fn new(connection: &ConnectionRef) -> Self {
        Self(Lazy::new(DisconnectOperation::new(connection, WSK_FLAG_ABORTIVE, ())))
    }
}

impl Future for Abort {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll(context).map(|(result, ())| result)
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
