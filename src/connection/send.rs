//! Sending by IRP: `WskSend` as a future.
//!
//! What becomes of the stream when a send is lost is drawn in `stream`.

use core::fmt;
use core::future::Future;
use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Poll};

use bitflags::bitflags;
use wsk_sys::nt::IRP;
use wsk_sys::{
    STATUS_CONNECTION_ABORTED, STATUS_INVALID_PARAMETER, STATUS_LOCAL_DISCONNECT, WSK_FLAG_NODELAY,
    nt_success,
};

use super::shared::ConnectionRef;
use crate::buffer::{Buffer, IoBuf};
use crate::error::{Error, Operation, Result};
use crate::memory::Cache;
use crate::operation::{self, Lazy, Op, Outcome, Request, Submission};
use crate::socket::ConnectionTable;

bitflags! {
    /// Options of a send.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SendFlags: u32 {
        /// Sends at once rather than wait for more data (`WSK_FLAG_NODELAY`).
        const NO_DELAY = WSK_FLAG_NODELAY;
    }
}

/// The memory that WSK uses while a send is under way.
struct SendRequest<B> {
    connection: ConnectionRef,
    buffer: B,
    /// Others may be posted behind it.
    posted: bool,
}

impl<B: IoBuf> Request for SendRequest<B> {
    fn close_if_dead(&self, outcome: Outcome) {
        self.connection.close_if_dead(outcome);
    }

    fn completed(&mut self, outcome: Outcome) {
        if self.posted && !nt_success(outcome.status()) {
            self.connection.common().stream.lose_send();
        }
    }

    fn orphaned(self, outcome: Outcome) {
        if !nt_success(outcome.status()) {
            self.connection.common().stream.lose_send();
        }
        self.buffer.orphaned();
    }
}

impl<B: IoBuf> SendRequest<B> {
    /// Calls `WskSend`.
    ///
    /// # Safety
    /// `request` is live, not yet WSK's, and stays where it is until `irp`, which was prepared for it, has
    /// completed.
    unsafe fn submit_irp(
        connection: &ConnectionRef,
        flags: SendFlags,
        irp: *mut IRP,
        request: *mut Self,
    ) -> Submission {
        // SAFETY: the request is live and not yet WSK's.
        let buffer = unsafe { &(*request).buffer };
        // The descriptor is needed only during the call (rule LIFE-08); what it describes lives in the
        // request.
        let mut wsk_buf = match buffer.describe() {
            Ok(wsk_buf) => wsk_buf,
            Err(error) => return Submission::Refused(error.into()),
        };
        let call = |handle, table: &ConnectionTable| {
            let send = table.send()?;
            // SAFETY: the range is inside the buffer (rule SND-08), which the request owns until completion.
            Some(unsafe { send(handle, &raw mut wsk_buf, flags.bits(), irp) })
        };
        // SAFETY: the operation has just prepared the IRP, which `call` submits or leaves alone.
        unsafe { connection.submit(irp, call) }
    }
}

/// A send to come.
///
/// # Invariants
/// `buffer` is there until the operation has started.
struct SendOperation<B> {
    connection: ConnectionRef,
    buffer: Option<B>,
    flags: SendFlags,
    /// This side of the connection was shut down before.
    shut_down: bool,
    /// Others may be posted behind it.
    posted: bool,
    /// A time limit has cancelled it.
    cancelled: bool,
}

impl<B: IoBuf> SendOperation<B> {
    fn new(connection: &ConnectionRef, buffer: B, flags: SendFlags, shut_down: bool, posted: bool) -> Self {
        let (connection, buffer) = (connection.clone(), Some(buffer));
        Self { connection, buffer, flags, shut_down, posted, cancelled: false }
    }

    /// The reason why WSK is not asked, if there is one.
    fn refusal(&self) -> Option<Error> {
        // Bits without a name do not reach WSK, which knows more of them than this crate (rules SND-05,
        // SND-06).
        if !SendFlags::all().contains(self.flags) {
            return Some(Error::new(Operation::Send, STATUS_INVALID_PARAMETER));
        }
        // The answer of WSK is not defined (rules SND-15, SND-16).
        if self.shut_down {
            return Some(Error::new(Operation::Send, STATUS_LOCAL_DISCONNECT));
        }
        self.connection
            .common()
            .stream
            .is_broken()
            .then(|| Error::new(Operation::Send, STATUS_CONNECTION_ABORTED))
    }

    fn submit(&self, buffer: B) -> core::result::Result<Op<SendRequest<B>>, (Result<usize>, B)> {
        let request = SendRequest { connection: self.connection.clone(), buffer, posted: self.posted };
        let op = Op::try_new(self.connection.client().cache(), request)
            .map_err(|(_, request)| (Err(Error::out_of_memory(Operation::Send)), request.buffer))?;
        let call = |irp, request| {
            // SAFETY: `submit` passes the request, and an IRP that was prepared for it.
            let submission = unsafe { SendRequest::submit_irp(&self.connection, self.flags, irp, request) };
            if self.posted && matches!(submission, Submission::Refused(_)) {
                self.connection.common().stream.lose_send();
            }
            submission
        };
        // SAFETY: the operation is new; `submit_irp` passes the IRP and memory of the request alone.
        unsafe { op.submit(call) };
        Ok(op)
    }
}

impl<B: IoBuf> operation::Operation for SendOperation<B> {
    type Request = SendRequest<B>;
    type Output = (Result<usize>, B);

    fn start(
        &mut self,
        _context: &Context<'_>,
    ) -> Poll<core::result::Result<Op<SendRequest<B>>, (Result<usize>, B)>> {
        let Some(buffer) = self.buffer.take() else { return Poll::Pending };
        let started = match self.refusal() {
            Some(error) => Err((Err(error), buffer)),
            // There is nothing to ask of WSK, whose answer is not defined (rule SND-07).
            None if buffer.is_empty() => Err((Ok(0), buffer)),
            None => self.submit(buffer),
        };
        if self.posted && matches!(started, Err((Err(_), _))) {
            self.connection.common().stream.lose_send();
        }
        Poll::Ready(started)
    }

    fn finish(&mut self, outcome: Outcome, request: SendRequest<B>) -> (Result<usize>, B) {
        // How much of it has gone out is not known.
        if self.cancelled && !nt_success(outcome.status()) {
            self.connection.common().stream.lose_send();
        }
        (outcome.result(Operation::Send), request.buffer)
    }

    fn dropped(&mut self, submitted: bool) -> bool {
        // How much of it goes out will not be known.
        submitted && self.connection.common().stream.cancel_send()
    }

    fn refuse(&mut self, error: Error) -> Option<(Result<usize>, B)> {
        self.buffer.take().map(|buffer| (Err(error), buffer))
    }

    fn expired(&mut self) -> bool {
        self.cancelled = true;
        // Others may go out behind a posted one, and the end may be asked for, before this is known to have
        // failed.
        !self.posted || self.connection.common().stream.cancel_send()
    }

    fn name(&self) -> Operation {
        Operation::Send
    }

    fn cache(&self) -> &Cache {
        self.connection.client().cache()
    }
}

/// Future of [`Connection::send`](super::Connection::send).
#[must_use = "futures do nothing unless polled"]
pub struct Sending<'a, B: IoBuf = Buffer> {
    send: Lazy<SendOperation<B>>,
    _half: PhantomData<&'a mut ()>,
}

impl<B: IoBuf> Sending<'_, B> {
    pub(super) fn new(connection: &ConnectionRef, buffer: B, flags: SendFlags, shut_down: bool) -> Self {
        let operation = SendOperation::new(connection, buffer, flags, shut_down, false);
        Self { send: Lazy::new(operation), _half: PhantomData }
    }
}

impl<B: IoBuf> Future for Sending<'_, B> {
    type Output = (Result<usize>, B);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.send).poll(context)
    }
}

operation::limited! {
    [B: IoBuf] Sending<'_, B>, send,
    ///
    /// How much of a cancelled send has gone out is not known, so the connection can only be closed then:
    /// later sends and shutdowns fail with `STATUS_CONNECTION_ABORTED`.
}

impl<B: IoBuf> fmt::Debug for Sending<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").finish_non_exhaustive()
    }
}

/// Future of [`SendHalf::post`](super::SendHalf::post): a send that WSK has already.
#[must_use = "dropping it cancels the send; `detach` lets it go on"]
pub struct Posted<B: IoBuf = Buffer> {
    send: Lazy<SendOperation<B>>,
}

impl<B: IoBuf> Posted<B> {
    pub(super) fn new(connection: &ConnectionRef, buffer: B, flags: SendFlags, shut_down: bool) -> Self {
        let operation = SendOperation::new(connection, buffer, flags, shut_down, true);
        Self { send: Lazy::submitted(operation) }
    }

    /// Lets the send go on without its future. Its buffer is freed when it has ended.
    ///
    /// If it fails, or has failed already, the stream would have a hole: every later send and shutdown of the
    /// connection fails with `STATUS_CONNECTION_ABORTED`, and the peer sees a reset when it is closed.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    pub fn detach(self) {
        self.send.detach();
    }
}

impl<B: IoBuf> Future for Posted<B> {
    type Output = (Result<usize>, B);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.send).poll(context)
    }
}

operation::limited! {
    [B: IoBuf] Posted<B>, send,
    ///
    /// How much of a cancelled send has gone out is not known, so the connection can only be closed then:
    /// later sends and shutdowns fail with `STATUS_CONNECTION_ABORTED`. The send is submitted already, so it
    /// is cancelled, too, if there is no memory for the timer, with the error of a send.
    ///
    /// Once the [shutdown](super::SendHalf::shutdown) of the connection was submitted, which goes out behind
    /// it, the send is not cancelled any more, because the peer could not tell that it is missing. Then give
    /// the shutdown a limit, and [abort](super::Control::abort) the connection, which ends both.
}

impl<B: IoBuf> fmt::Debug for Posted<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posted").finish_non_exhaustive()
    }
}
