//! Receiving and sending by IRP: `WskReceiveFrom` and `WskSendTo` as futures.

use core::fmt;
use core::future::Future;
use core::mem::size_of;
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};

use wsk_sys::nt::IRP;
use wsk_sys::{MSG_TRUNC, STATUS_BUFFER_OVERFLOW, STATUS_INVALID_ADDRESS};

use super::shared::DatagramRef;
use crate::address::{self, SockAddr};
use crate::buffer::{Buffer, IoBuf};
use crate::error::{Error, Operation, Result};
use crate::memory::Cache;
use crate::operation::{self, Lazy, Op, Outcome, Request, Submission};
use crate::socket::DatagramTable;

/// A received datagram; its bytes are in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The number of bytes that were received.
    pub len: usize,
    /// The address of its sender, in canonical form.
    pub from: SocketAddr,
    /// True if the datagram was longer than the buffer; the rest of it is lost.
    pub truncated: bool,
}

/// Room for control messages. WSK reports flags only together with it (rule DGR-14).
type ControlMessages = [usize; 8];

/// The memory that WSK reads and writes while a receive is under way.
struct ReceiveFromRequest {
    socket: DatagramRef,
    buffer: Buffer,
    from: SockAddr,
    control: ControlMessages,
    control_length: u32,
    flags: u32,
}

impl Request for ReceiveFromRequest {
    fn close_if_dead(&self, outcome: Outcome) {
        self.socket.close_if_dead(outcome);
    }
}

impl ReceiveFromRequest {
    /// Calls `WskReceiveFrom`.
    ///
    /// # Safety
    /// `request` is live, not yet WSK's, and stays where it is until `irp`, which was prepared for it, has
    /// completed.
    unsafe fn submit_irp(socket: &DatagramRef, irp: *mut IRP, request: *mut Self) -> Submission {
        // SAFETY: the request is live and not yet WSK's.
        let buffer = unsafe { &mut (*request).buffer };
        // The descriptor is needed only during the call (rule LIFE-08); what it describes lives until
        // completion.
        let mut wsk_buf = buffer.wsk_buf_for_receive(0..buffer.capacity());
        // SAFETY: the request is live; only the address of a field is computed.
        let from = unsafe { &raw mut (*request).from }.cast();
        // SAFETY: the request is live; only the address of a field is computed.
        let control = unsafe { &raw mut (*request).control }.cast();
        // SAFETY: the request is live; only the address of a field is computed.
        let control_length = unsafe { &raw mut (*request).control_length };
        // SAFETY: the request is live; only the address of a field is computed.
        let flags = unsafe { &raw mut (*request).flags };
        let call = |handle, table: &DatagramTable| {
            let receive = table.receive_from()?;
            // SAFETY: flags are zero; the range is the whole buffer, and all the memory is the request's,
            // until the IRP has completed; 128 bytes are enough for an address of every family (rule
            // LIFE-07).
            Some(unsafe { receive(handle, &raw mut wsk_buf, 0, from, control_length, control, flags, irp) })
        };
        // SAFETY: the operation has just prepared the IRP, which `call` submits or leaves alone.
        unsafe { socket.submit(irp, call) }
    }

    /// Turns the outcome into the datagram.
    fn received(&mut self, outcome: Outcome) -> Result<Datagram> {
        // A datagram that was cut may be a success or a failure (rule DGR-13).
        let overflow = outcome.status() == STATUS_BUFFER_OVERFLOW;
        if !overflow {
            outcome.result(Operation::ReceiveFrom)?;
        }
        self.buffer.set_len(outcome.information())?;
        let from = self.from.require(Operation::ReceiveFrom)?;
        let truncated = overflow || self.flags & MSG_TRUNC != 0;
        Ok(Datagram { len: self.buffer.len(), from: address::canonical(from), truncated })
    }
}

struct ReceiveFromOperation {
    socket: DatagramRef,
    /// Taken by the first poll.
    buffer: Option<Buffer>,
}

impl operation::Operation for ReceiveFromOperation {
    type Request = ReceiveFromRequest;
    type Output = (Result<Datagram>, Buffer);

    fn start(
        &mut self,
        _context: &Context<'_>,
    ) -> Poll<core::result::Result<Op<ReceiveFromRequest>, (Result<Datagram>, Buffer)>> {
        let Some(mut buffer) = self.buffer.take() else { return Poll::Pending };
        buffer.clear();
        let request = ReceiveFromRequest {
            socket: self.socket.clone(),
            buffer,
            from: SockAddr::unspecified(),
            control: [0; 8],
            control_length: size_of::<ControlMessages>() as u32,
            flags: 0,
        };
        let op = match Op::try_new(self.socket.client().cache(), request) {
            Ok(op) => op,
            Err((_, request)) => {
                return Poll::Ready(Err((Err(Error::out_of_memory(Operation::ReceiveFrom)), request.buffer)));
            }
        };
        let call = |irp, request| {
            // SAFETY: `submit` passes the request, and an IRP that was prepared for it.
            unsafe { ReceiveFromRequest::submit_irp(&self.socket, irp, request) }
        };
        // SAFETY: the operation is new; `submit_irp` passes the IRP and memory of the request alone.
        unsafe { op.submit(call) };
        Poll::Ready(Ok(op))
    }

    fn finish(&mut self, outcome: Outcome, mut request: ReceiveFromRequest) -> (Result<Datagram>, Buffer) {
        (request.received(outcome), request.buffer)
    }

    fn refuse(&mut self, error: Error) -> Option<(Result<Datagram>, Buffer)> {
        let mut buffer = self.buffer.take()?;
        buffer.clear();
        Some((Err(error), buffer))
    }

    fn name(&self) -> Operation {
        Operation::ReceiveFrom
    }

    fn cache(&self) -> &Cache {
        self.socket.client().cache()
    }
}

/// Future of [`DatagramSocket::receive_from`](super::DatagramSocket::receive_from).
#[must_use = "futures do nothing unless polled"]
pub struct ReceiveFrom(Lazy<ReceiveFromOperation>);

impl ReceiveFrom {
    pub(super) fn new(socket: &DatagramRef, buffer: Buffer) -> Self {
        Self(Lazy::new(ReceiveFromOperation { socket: socket.clone(), buffer: Some(buffer) }))
    }
}

impl Future for ReceiveFrom {
    type Output = (Result<Datagram>, Buffer);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

operation::limited! {
    [] ReceiveFrom, 0,
}

impl fmt::Debug for ReceiveFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveFrom").finish_non_exhaustive()
    }
}

/// The memory that WSK reads while a send is under way.
struct SendToRequest<B> {
    socket: DatagramRef,
    buffer: B,
    to: SockAddr,
}

impl<B: IoBuf> Request for SendToRequest<B> {
    fn close_if_dead(&self, outcome: Outcome) {
        self.socket.close_if_dead(outcome);
    }

    fn orphaned(self, _outcome: Outcome) {
        self.buffer.orphaned();
    }
}

impl<B: IoBuf> SendToRequest<B> {
    /// Calls `WskSendTo`.
    ///
    /// # Safety
    /// `request` is live, not yet WSK's, and stays where it is until `irp`, which was prepared for it, has
    /// completed.
    unsafe fn submit_irp(socket: &DatagramRef, irp: *mut IRP, request: *mut Self) -> Submission {
        // SAFETY: the request is live and not yet WSK's.
        let buffer = unsafe { &(*request).buffer };
        // The descriptor is needed only during the call (rule LIFE-08); what it describes lives in the
        // request.
        let mut wsk_buf = match buffer.describe() {
            Ok(wsk_buf) => wsk_buf,
            Err(error) => return Submission::Refused(error.into()),
        };
        // SAFETY: the request is live; only the address of a field is computed.
        let to = unsafe { &raw mut (*request).to }.cast();
        let call = |handle, table: &DatagramTable| {
            let send = table.send_to()?;
            // SAFETY: flags are zero; the range is inside the buffer, which the request owns until
            // completion, like the address; there are no control messages (rule DGR-07).
            Some(unsafe { send(handle, &raw mut wsk_buf, 0, to, 0, core::ptr::null_mut(), irp) })
        };
        // SAFETY: the operation has just prepared the IRP, which `call` submits or leaves alone.
        unsafe { socket.submit(irp, call) }
    }
}

struct SendToOperation<B> {
    socket: DatagramRef,
    /// Taken by the first poll.
    buffer: Option<B>,
    to: Option<SocketAddr>,
}

impl<B: IoBuf> operation::Operation for SendToOperation<B> {
    type Request = SendToRequest<B>;
    type Output = (Result<usize>, B);

    fn start(
        &mut self,
        _context: &Context<'_>,
    ) -> Poll<core::result::Result<Op<SendToRequest<B>>, (Result<usize>, B)>> {
        let Some(buffer) = self.buffer.take() else { return Poll::Pending };
        let Some(to) = self.to else {
            return Poll::Ready(Err((Err(Error::new(Operation::SendTo, STATUS_INVALID_ADDRESS)), buffer)));
        };
        let request = SendToRequest { socket: self.socket.clone(), buffer, to: SockAddr::from(to) };
        let op = match Op::try_new(self.socket.client().cache(), request) {
            Ok(op) => op,
            Err((_, request)) => {
                return Poll::Ready(Err((Err(Error::out_of_memory(Operation::SendTo)), request.buffer)));
            }
        };
        let call = |irp, request| {
            // SAFETY: `submit` passes the request, and an IRP that was prepared for it.
            unsafe { SendToRequest::submit_irp(&self.socket, irp, request) }
        };
        // SAFETY: the operation is new; `submit_irp` passes the IRP and memory of the request alone.
        unsafe { op.submit(call) };
        Poll::Ready(Ok(op))
    }

    fn finish(&mut self, outcome: Outcome, request: SendToRequest<B>) -> (Result<usize>, B) {
        (outcome.result(Operation::SendTo), request.buffer)
    }

    fn refuse(&mut self, error: Error) -> Option<(Result<usize>, B)> {
        self.buffer.take().map(|buffer| (Err(error), buffer))
    }

    fn name(&self) -> Operation {
        Operation::SendTo
    }

    fn cache(&self) -> &Cache {
        self.socket.client().cache()
    }
}

/// Future of [`DatagramSocket::send_to`](super::DatagramSocket::send_to).
#[must_use = "futures do nothing unless polled"]
pub struct SendTo<B: IoBuf = Buffer>(Lazy<SendToOperation<B>>);

impl<B: IoBuf> SendTo<B> {
    pub(super) fn new(socket: &DatagramRef, buffer: B, to: Option<SocketAddr>) -> Self {
        Self(Lazy::new(SendToOperation { socket: socket.clone(), buffer: Some(buffer), to }))
    }
}

impl<B: IoBuf> Future for SendTo<B> {
    type Output = (Result<usize>, B);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

operation::limited! {
    [B: IoBuf] SendTo<B>, 0,
}

impl<B: IoBuf> fmt::Debug for SendTo<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendTo").finish_non_exhaustive()
    }
}
