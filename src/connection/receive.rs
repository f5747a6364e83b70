//! Receiving by IRP: `WskReceive` as a future that loses no byte.
//!
//! One receive may be under way per connection. When its future is dropped, the receive is cancelled, but data
//! can win the race; then the bytes are kept with the connection, and the next receive gets them first. A new
//! receive waits until an abandoned one has ended, so bytes never overtake each other. One receive can wait so; its
//! turn is kept for it.
//!
//! ```text
//!          poll                 completes
//!   Free ────────▶ Busy ─────────────────────────▶ Free, the future gets the bytes
//!    ▲              │  ▲
//!    │      dropped │  └─────────────────────────┐ completes: the turn is that of the receive that waits
//!    │              ▼              poll          │
//!    └────────── Abandoned ───────────────────▶ Claimed
//!     completes        ▲                         │
//!                      └─────────────────────────┘ the receive that waits is dropped
//! ```

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use bitflags::bitflags;
use wsk_sys::nt::IRP;
use wsk_sys::{
    STATUS_DEVICE_BUSY, STATUS_INVALID_PARAMETER, WSK_BUF, WSK_FLAG_DRAIN, WSK_FLAG_WAITALL,
    WSK_PROVIDER_CONNECTION_DISPATCH, WSK_SOCKET,
};

use super::turn::Admission;
use super::{Connection, ConnectionEvents, ConnectionRef};
use crate::buffer::Buffer;
use crate::error::{Error, Operation, Result};
use crate::operation::{Op, Outcome, Request, Submission};

bitflags! {
    /// How to receive.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ReceiveFlags: u32 {
        /// Completes when the buffer is full, or no more data will come (`WSK_FLAG_WAITALL`).
        const WAIT_ALL = WSK_FLAG_WAITALL;
    }
}

/// Bytes that arrived for nobody.
pub(crate) struct Kept {
    buffer: Buffer,
    /// How many of them were handed out already.
    taken: usize,
}

impl<E: ConnectionEvents> Connection<E> {
    /// Receives into `buffer` as soon as there is anything (`WskReceive`). The result is the number of bytes and the
    /// buffer, whose length is that number; 0 means that the peer has ended its side.
    ///
    /// # Cancel safety
    /// May be dropped at any time. Bytes that arrive in spite of it are the first that the next receive gets; the
    /// buffer is not given back.
    ///
    /// # Errors
    /// `STATUS_DEVICE_BUSY` when another receive is under way, `STATUS_CONNECTION_RESET` and the like,
    /// `STATUS_FILE_FORCED_CLOSED`, `STATUS_CANCELLED` when the connection was closed,
    /// `STATUS_INSUFFICIENT_RESOURCES`. Bytes that came before an error are in the buffer.
    ///
    /// # Mixing with the receive event
    /// Bytes that a dropped receive left precede whatever the [`ReceiveHandler`](super::ReceiveHandler) is told later.
    /// A receive that they satisfy posts nothing, so it does not make up for data the handler did not take.
    pub fn receive(&self, buffer: Buffer) -> Receive {
        self.receive_with(buffer, ReceiveFlags::empty())
    }

    /// [`Connection::receive`] that waits until the buffer is full; fewer bytes mean that the peer has ended its side.
    ///
    /// # Cancel safety
    /// As for [`Connection::receive`].
    ///
    /// # Errors
    /// As for [`Connection::receive`].
    pub fn receive_all(&self, buffer: Buffer) -> Receive {
        self.receive_with(buffer, ReceiveFlags::WAIT_ALL)
    }

    /// [`Connection::receive`] with flags.
    ///
    /// # Cancel safety
    /// As for [`Connection::receive`].
    ///
    /// # Errors
    /// As for [`Connection::receive`], and `STATUS_INVALID_PARAMETER` for flags that have no name.
    pub fn receive_with(&self, buffer: Buffer, flags: ReceiveFlags) -> Receive {
        // Bits without a name do not reach WSK: among them are those of a drain (rules RCV-08, RCV-09).
        Receive(if ReceiveFlags::all().contains(flags) {
            Receiving::new(self.reference(), buffer, flags.bits())
        } else {
            Receiving { state: State::Refused(buffer) }
        })
    }

    /// Discards whatever comes until the peer has ended its side or the connection is gone (`WSK_FLAG_DRAIN`), for
    /// whoever has disconnected and waits for the peer to do the same.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// # Errors
    /// As for [`Connection::receive`].
    pub fn drain(&self) -> Drain {
        Drain(Receiving::new(self.reference(), Discard, WSK_FLAG_DRAIN))
    }
}

/// Where received bytes go.
trait Target: Send + Unpin + 'static {
    /// Empties it before it is used.
    fn reset(&mut self);
    /// Takes what an abandoned receive left, as far as it goes in.
    fn take_kept(&mut self, kept: &mut Kept);
    /// How many bytes are in it.
    fn len(&self) -> usize;
    /// Whether no byte more goes in.
    fn is_full(&self) -> bool;
    /// Describes the memory behind what is in it to WSK; the memory stays where it is while the target moves.
    fn describe(&mut self) -> WSK_BUF;
    /// Notes how many bytes WSK wrote.
    fn filled(&mut self, bytes: usize) -> Result<()>;
    /// What to keep of bytes that nobody waits for.
    fn keep(self) -> Option<Kept>;
}

impl Target for Buffer {
    fn reset(&mut self) {
        self.clear();
    }

    fn take_kept(&mut self, kept: &mut Kept) {
        let rest = &kept.buffer[kept.taken..];
        let count = rest.len().min(self.capacity() - Buffer::len(self));
        if self.extend_from_slice(&rest[..count]).is_ok() {
            kept.taken += count;
        }
    }

    fn len(&self) -> usize {
        Buffer::len(self)
    }

    fn is_full(&self) -> bool {
        Buffer::len(self) == self.capacity()
    }

    fn describe(&mut self) -> WSK_BUF {
        self.wsk_buf_for_receive()
    }

    fn filled(&mut self, bytes: usize) -> Result<()> {
        self.set_len(Buffer::len(self).saturating_add(bytes))
    }

    fn keep(self) -> Option<Kept> {
        (!self.is_empty()).then_some(Kept { buffer: self, taken: 0 })
    }
}

/// Bytes go nowhere.
struct Discard;

impl Target for Discard {
    fn reset(&mut self) {}

    fn take_kept(&mut self, kept: &mut Kept) {
        kept.taken = kept.buffer.len();
    }

    fn len(&self) -> usize {
        0
    }

    fn is_full(&self) -> bool {
        false
    }

    fn describe(&mut self) -> WSK_BUF {
        WSK_BUF { Mdl: core::ptr::null_mut(), Offset: 0, Length: 0 }
    }

    fn filled(&mut self, _bytes: usize) -> Result<()> {
        Ok(())
    }

    fn keep(self) -> Option<Kept> {
        None
    }
}

/// What WSK uses while a receive is under way.
struct ReceiveRequest<T> {
    connection: ConnectionRef,
    target: T,
}

impl<T: Target> Request for ReceiveRequest<T> {
    fn close_if_dead(&self, outcome: Outcome) {
        self.connection.close_if_dead(outcome);
    }

    fn orphaned(mut self, outcome: Outcome) {
        let common = self.connection.common();
        // An error can carry bytes too: a cancelled receive of everything (rule RCV-06).
        if self.target.filled(outcome.information()).is_ok()
            && let Some(kept) = self.target.keep()
        {
            *common.kept.lock() = Some(kept);
        }
        // The bytes are kept by now.
        common.turn.end_abandoned();
    }
}

impl<T: Target> ReceiveRequest<T> {
    /// Calls `WskReceive`.
    ///
    /// # Safety
    /// `request` is live, not yet WSK's, and stays where it is until `irp`, which was prepared for it, has completed.
    unsafe fn submit_irp(
        connection: &ConnectionRef,
        flags: u32,
        irp: *mut IRP,
        request: *mut Self,
    ) -> Submission {
        // The descriptor is needed only during the call (rule LIFE-08); what it describes lives until completion.
        // SAFETY: the request is live and not yet WSK's.
        let mut wsk_buf = unsafe { &mut *request }.target.describe();
        let call = |handle: *mut WSK_SOCKET| {
            // SAFETY: rundown protection is held, so the socket is a connection that is not closing.
            let table = unsafe { (*handle).Dispatch }.cast::<WSK_PROVIDER_CONNECTION_DISPATCH>();
            // SAFETY: the table is that of a connection; the member was always there.
            let receive = unsafe { (*table).WskReceive }?;
            // SAFETY: the range is inside the buffer (rule SND-08), which the request owns until completion.
            Some(unsafe { receive(handle, &raw mut wsk_buf, flags, irp) })
        };
        // SAFETY: the operation has just prepared the IRP, and `call` hands it to WSK or leaves it alone.
        unsafe { connection.submit(irp, call) }
    }
}

/// A receive under way, into any target.
struct Receiving<T: Target> {
    state: State<T>,
}

enum State<T: Target> {
    Start(ConnectionRef, T, u32),
    /// Its flags have no name.
    Refused(T),
    /// An abandoned receive is in the way, and the turn after it is this one's.
    Claiming(ConnectionRef, T, u32),
    Waiting(ConnectionRef, Op<ReceiveRequest<T>>),
    Finished,
}

/// Hands out bytes that an abandoned receive left.
fn take_kept<T: Target>(connection: &ConnectionRef, target: &mut T) {
    let mut slot = connection.common().kept.lock();
    let Some(kept) = slot.as_mut() else { return };
    target.take_kept(kept);
    let emptied = if kept.taken == kept.buffer.len() { slot.take() } else { None };
    drop(slot);
    // Its memory is freed outside of the lock.
    drop(emptied);
}

impl<T: Target> Receiving<T> {
    fn new(connection: ConnectionRef, target: T, flags: u32) -> Self {
        Self { state: State::Start(connection, target, flags) }
    }

    /// Submits the receive, unless it is finished at once.
    fn start(
        connection: &ConnectionRef,
        mut target: T,
        flags: u32,
    ) -> core::result::Result<Op<ReceiveRequest<T>>, (Result<usize>, T)> {
        target.reset();
        take_kept(connection, &mut target);
        // A receive that waits for all goes on behind what was kept.
        if target.is_full() || (target.len() > 0 && flags & WSK_FLAG_WAITALL == 0) {
            connection.common().turn.give();
            return Err((Ok(target.len()), target));
        }
        let request = ReceiveRequest { connection: connection.clone(), target };
        match Op::try_new(connection.client().cache(), request) {
            Ok(op) => {
                let call = |irp, request| {
                    // SAFETY: `submit` passes the request, and an IRP that was prepared for it.
                    unsafe { ReceiveRequest::submit_irp(connection, flags, irp, request) }
                };
                // SAFETY: the operation is new; `submit_irp` passes the IRP and memory of the request alone.
                unsafe { op.submit(call) };
                Ok(op)
            }
            Err((_, request)) => {
                connection.common().turn.give();
                Err((Err(Error::out_of_memory(Operation::Receive)), request.target))
            }
        }
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<(Result<usize>, T)> {
        let (connection, target, flags) = match core::mem::replace(&mut self.state, State::Finished) {
            State::Start(connection, target, flags) => match connection.common().turn.take() {
                Admission::Mine => (connection, target, flags),
                Admission::Claimed => return self.claim(connection, target, flags, context),
                Admission::Busy => {
                    return Poll::Ready((Err(Error::new(Operation::Receive, STATUS_DEVICE_BUSY)), target));
                }
            },
            State::Claiming(connection, target, flags) => {
                return self.claim(connection, target, flags, context);
            }
            State::Waiting(connection, op) => return self.wait(connection, op, context),
            State::Refused(target) => {
                return Poll::Ready((Err(Error::new(Operation::Receive, STATUS_INVALID_PARAMETER)), target));
            }
            State::Finished => return Poll::Pending,
        };
        self.go(connection, target, flags, context)
    }

    fn claim(
        &mut self,
        connection: ConnectionRef,
        target: T,
        flags: u32,
        context: &Context<'_>,
    ) -> Poll<(Result<usize>, T)> {
        if connection.common().turn.has_come(context) {
            return self.go(connection, target, flags, context);
        }
        self.state = State::Claiming(connection, target, flags);
        Poll::Pending
    }

    fn go(
        &mut self,
        connection: ConnectionRef,
        target: T,
        flags: u32,
        context: &Context<'_>,
    ) -> Poll<(Result<usize>, T)> {
        match Self::start(&connection, target, flags) {
            Ok(op) => self.wait(connection, op, context),
            Err(ready) => Poll::Ready(ready),
        }
    }

    fn wait(
        &mut self,
        connection: ConnectionRef,
        op: Op<ReceiveRequest<T>>,
        context: &Context<'_>,
    ) -> Poll<(Result<usize>, T)> {
        match op.poll(context) {
            Ok((outcome, request)) => {
                let mut target = request.target;
                let fits = target.filled(outcome.information());
                connection.common().turn.give();
                let received = outcome.result(Operation::Receive).and(fits).map(|()| target.len());
                Poll::Ready((received, target))
            }
            Err(op) => {
                self.state = State::Waiting(connection, op);
                Poll::Pending
            }
        }
    }
}

impl<T: Target> Drop for Receiving<T> {
    fn drop(&mut self) {
        match core::mem::replace(&mut self.state, State::Finished) {
            State::Waiting(connection, op) => {
                // Said before the cancellation, whose completion sets it free.
                connection.common().turn.abandon();
                drop(op);
            }
            State::Claiming(connection, ..) => connection.common().turn.give_up_claim(),
            State::Start(..) | State::Refused(_) | State::Finished => {}
        }
    }
}

/// A receive under way; see [`Connection::receive`].
#[must_use = "futures do nothing unless polled"]
pub struct Receive(Receiving<Buffer>);

impl Future for Receive {
    type Output = (Result<usize>, Buffer);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

impl fmt::Debug for Receive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receive").finish_non_exhaustive()
    }
}

/// Discards what comes; see [`Connection::drain`].
#[must_use = "futures do nothing unless polled"]
pub struct Drain(Receiving<Discard>);

impl Future for Drain {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll(context).map(|(result, _)| result.map(drop))
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").finish_non_exhaustive()
    }
}
