//! Receiving by IRP: `WskReceive` as a future that loses no byte.
//!
//! One receive, or one [queue](super::queue) of them, may be under way per connection. When its future is
//! dropped, the receive is cancelled, but data can win the race; then the bytes are kept with the connection,
//! and the next receive gets them first. A new receive waits until an abandoned one has ended, so bytes never
//! overtake each other. One receive can wait so; its turn is kept for it.
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
use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Poll};

use bitflags::bitflags;
use wsk_sys::nt::IRP;
use wsk_sys::{
    STATUS_DEVICE_BUSY, STATUS_END_OF_FILE, STATUS_INVALID_PARAMETER, WSK_BUF, WSK_FLAG_DRAIN,
    WSK_FLAG_WAITALL,
};

use super::kept::Kept;
use super::shared::ConnectionRef;
use super::turn::Admission;
use crate::buffer::{Buffer, Slice};
use crate::error::{Error, Operation, Result};
use crate::memory::{Cache, OutOfMemory};
use crate::operation::{self, Lazy, Op, Outcome, Request, Submission};
use crate::socket::ConnectionTable;

bitflags! {
    /// Options of a receive.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ReceiveFlags: u32 {
        /// Completes when the buffer is full, or no more data will come (`WSK_FLAG_WAITALL`).
        const WAIT_ALL = WSK_FLAG_WAITALL;
    }
}

/// A buffer that bytes can be received into: a [`Buffer`], all of it, or a [`Slice`] of one. Sealed.
///
/// It is filled from its start. A request takes it by value and gives it back with its result.
pub trait ReceiveBuf: Target {
    /// The number of bytes there is room for.
    #[doc(hidden)]
    fn room(&self) -> usize;
}

/// Memory that bytes are received into.
pub trait Target: Send + Unpin + 'static {
    /// The flags that a receive into it may have.
    #[doc(hidden)]
    const FLAGS: u32;
    /// Empties it before it is used.
    #[doc(hidden)]
    fn reset(&mut self);
    /// Appends bytes that an abandoned receive left, as many as go in, and returns their number.
    #[doc(hidden)]
    fn append(&mut self, bytes: &[u8]) -> usize;
    /// The number of bytes in it.
    #[doc(hidden)]
    fn filled(&self) -> usize;
    /// Returns whether no byte more goes in.
    #[doc(hidden)]
    fn is_full(&self) -> bool;
    /// Describes the memory behind what is in it to WSK; the memory stays where it is while the target moves.
    #[doc(hidden)]
    fn describe(&mut self) -> WSK_BUF;
    /// Notes how many bytes WSK wrote.
    #[doc(hidden)]
    fn fill(&mut self, bytes: usize) -> Result<()>;
    /// The bytes to keep for the next receive, if this one's future was dropped.
    #[doc(hidden)]
    fn keep(self) -> Option<Kept>;
    /// The place of the receive among those that are under way.
    #[doc(hidden)]
    fn sequence(&self) -> u64 {
        0
    }
}

impl Target for Buffer {
    const FLAGS: u32 = ReceiveFlags::all().bits();

    fn reset(&mut self) {
        self.clear();
    }

    fn append(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.capacity() - self.len());
        if self.extend_from_slice(&bytes[..count]).is_ok() { count } else { 0 }
    }

    fn filled(&self) -> usize {
        self.len()
    }

    fn is_full(&self) -> bool {
        self.len() == self.capacity()
    }

    fn describe(&mut self) -> WSK_BUF {
        self.wsk_buf_for_receive(self.len()..self.capacity())
    }

    fn fill(&mut self, bytes: usize) -> Result<()> {
        self.set_len(self.len().saturating_add(bytes))
    }

    fn keep(self) -> Option<Kept> {
        Kept::new(self, 0)
    }
}

impl ReceiveBuf for Buffer {
    fn room(&self) -> usize {
        self.capacity()
    }
}

/// A slice that is being filled: the bytes in use of its buffer end where the next byte goes.
impl Target for Slice<Buffer> {
    const FLAGS: u32 = ReceiveFlags::all().bits();

    fn reset(&mut self) {
        // The bytes of the buffer that are in use now are all before the slice; it is filled from its start.
        let start = self.range.start;
        let fits = self.buffer.set_len(start);
        debug_assert!(fits.is_ok(), "a slice is inside its buffer");
    }

    fn append(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.range.len() - self.filled());
        if self.buffer.extend_from_slice(&bytes[..count]).is_ok() { count } else { 0 }
    }

    fn filled(&self) -> usize {
        self.buffer.len().saturating_sub(self.range.start)
    }

    fn is_full(&self) -> bool {
        self.filled() == self.range.len()
    }

    fn describe(&mut self) -> WSK_BUF {
        self.buffer.wsk_buf_for_receive(self.buffer.len()..self.range.end)
    }

    fn fill(&mut self, bytes: usize) -> Result<()> {
        self.buffer.set_len(self.buffer.len().saturating_add(bytes))
    }

    fn keep(self) -> Option<Kept> {
        Kept::new(self.buffer, self.range.start)
    }
}

impl ReceiveBuf for Slice<Buffer> {
    fn room(&self) -> usize {
        self.range.len()
    }
}

/// A target that keeps nothing.
struct Discard;

impl Target for Discard {
    const FLAGS: u32 = WSK_FLAG_DRAIN;

    fn reset(&mut self) {}

    fn append(&mut self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn filled(&self) -> usize {
        0
    }

    fn is_full(&self) -> bool {
        false
    }

    fn describe(&mut self) -> WSK_BUF {
        WSK_BUF { Mdl: core::ptr::null_mut(), Offset: 0, Length: 0 }
    }

    fn fill(&mut self, _bytes: usize) -> Result<()> {
        Ok(())
    }

    fn keep(self) -> Option<Kept> {
        None
    }
}

/// The memory that WSK uses while a receive is under way.
pub(super) struct ReceiveRequest<T> {
    connection: ConnectionRef,
    pub(super) target: T,
}

impl<T: Target> Request for ReceiveRequest<T> {
    fn close_if_dead(&self, outcome: Outcome) {
        self.connection.close_if_dead(outcome);
    }

    fn orphaned(mut self, outcome: Outcome) {
        let common = self.connection.common();
        // An error can carry bytes too: a cancelled receive of everything (rule RCV-06).
        let fits = self.target.fill(outcome.information()).is_ok();
        let sequence = self.target.sequence();
        let kept = if fits { self.target.keep() } else { None };
        let mut state = common.state.lock();
        let last = state.kept.add(sequence, kept);
        let empty = if last { state.kept.take_empty() } else { None };
        drop(state);
        // Its memory is freed outside of the lock.
        drop(empty);
        // The bytes are kept by now.
        if last {
            common.turn.end_abandoned();
        }
    }
}

impl<T: Target> ReceiveRequest<T> {
    /// Calls `WskReceive`.
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
        // The descriptor is needed only during the call (rule LIFE-08); what it describes lives until
        // completion. SAFETY: the request is live and not yet WSK's.
        let mut wsk_buf = unsafe { &mut *request }.target.describe();
        let call = |handle, table: &ConnectionTable| {
            let receive = table.receive()?;
            // SAFETY: the range is inside the buffer (rule SND-08), which the request owns until completion.
            Some(unsafe { receive(handle, &raw mut wsk_buf, flags, irp) })
        };
        // SAFETY: the operation has just prepared the IRP, which `call` submits or leaves alone.
        unsafe { connection.submit(irp, call) }
    }
}

/// Submits a receive into the room of `target`, which comes back if there is no memory for the operation. The
/// turn is the caller's.
pub(super) fn post<T: Target>(
    connection: &ConnectionRef,
    target: T,
    flags: u32,
) -> core::result::Result<(Op<ReceiveRequest<T>>, Submission), T> {
    let request = ReceiveRequest { connection: connection.clone(), target };
    let op =
        Op::try_new(connection.client().cache(), request).map_err(|(OutOfMemory, request)| request.target)?;
    let mut made = Submission::Pending;
    let call = |irp, request| {
        // SAFETY: `submit` passes the request, and an IRP that was prepared for it.
        made = unsafe { ReceiveRequest::submit_irp(connection, flags, irp, request) };
        made
    };
    // SAFETY: the operation is new; `submit_irp` passes the IRP and memory of the request alone.
    unsafe { op.submit(call) };
    Ok((op, made))
}

/// Waits for the turn; `Err` says why it cannot be had. `claimed` is false at first, and says from call to
/// call that an abandoned receive is in the way, and the turn after it is the caller's.
pub(super) fn take_turn(
    connection: &ConnectionRef,
    claimed: &mut bool,
    context: &Context<'_>,
) -> Poll<Result<()>> {
    let turn = &connection.common().turn;
    if !*claimed {
        match turn.take() {
            Admission::Mine => return Poll::Ready(Ok(())),
            Admission::Claimed => *claimed = true,
            Admission::Busy => {
                return Poll::Ready(Err(Error::new(Operation::Receive, STATUS_DEVICE_BUSY)));
            }
        }
    }
    if !turn.has_come(context) {
        return Poll::Pending;
    }
    *claimed = false;
    Poll::Ready(Ok(()))
}

/// A receive to come, into any target.
///
/// # Invariants
/// `target` is there until the operation has started. From then on the turn is this operation's until
/// `finish`.
struct ReceiveOperation<T> {
    connection: ConnectionRef,
    target: Option<T>,
    flags: u32,
    /// An abandoned receive is in the way, and the turn after it is this one's.
    claimed: bool,
}

type Started<T> = core::result::Result<Op<ReceiveRequest<T>>, (Result<usize>, T)>;

impl<T: Target> ReceiveOperation<T> {
    fn new(connection: &ConnectionRef, target: T, flags: u32) -> Self {
        Self { connection: connection.clone(), target: Some(target), flags, claimed: false }
    }

    /// Waits for the turn; `Err` says why it cannot be had.
    fn take_turn(&mut self, context: &Context<'_>) -> Poll<Result<()>> {
        // Bits without a name do not reach WSK: among them are those of a drain (rules RCV-08, RCV-09).
        if self.flags & !T::FLAGS != 0 {
            return Poll::Ready(Err(Error::new(Operation::Receive, STATUS_INVALID_PARAMETER)));
        }
        take_turn(&self.connection, &mut self.claimed, context)
    }

    /// Submits the receive, unless kept bytes satisfy it. The turn is the caller's.
    fn submit(&self, mut target: T) -> Started<T> {
        let common = self.connection.common();
        target.reset();
        let mut kept = common.take_kept();
        let copied = kept.copy_to(&mut target);
        // A receive that waits for all goes on behind what was kept.
        let satisfied = target.is_full() || (target.filled() > 0 && self.flags & WSK_FLAG_WAITALL == 0);
        // Bytes stay kept when memory was out, because the next attempt may succeed; see `finish`.
        let (used, started) = if satisfied {
            (copied, Err((Ok(target.filled()), target)))
        } else {
            match post(&self.connection, target, self.flags) {
                Ok((op, Submission::Refused(reason))) if reason.is_out_of_memory() => (0, Ok(op)),
                Ok((op, _)) => (copied, Ok(op)),
                Err(mut target) => {
                    target.reset();
                    (0, Err((Err(Error::out_of_memory(Operation::Receive)), target)))
                }
            }
        };
        common.put_kept_back(kept, used);
        if started.is_err() {
            common.turn.give();
        }
        started
    }
}

impl<T: Target> operation::Operation for ReceiveOperation<T> {
    type Request = ReceiveRequest<T>;
    type Output = (Result<usize>, T);

    fn start(&mut self, context: &Context<'_>) -> Poll<Started<T>> {
        let Poll::Ready(turn) = self.take_turn(context) else { return Poll::Pending };
        let Some(target) = self.target.take() else { return Poll::Pending };
        Poll::Ready(match turn {
            Ok(()) => self.submit(target),
            Err(error) => Err((Err(error), target)),
        })
    }

    fn finish(&mut self, outcome: Outcome, request: ReceiveRequest<T>) -> (Result<usize>, T) {
        let mut target = request.target;
        if let Outcome::Refused(reason) = outcome
            && reason.is_out_of_memory()
        {
            // The bytes that were kept are so still.
            target.reset();
        }
        let fits = target.fill(outcome.information());
        self.connection.common().turn.give();
        let received = outcome.result(Operation::Receive).and(fits).map(|()| target.filled());
        (received, target)
    }

    fn dropped(&mut self, submitted: bool) -> bool {
        let turn = &self.connection.common().turn;
        if submitted {
            // Said before the cancellation, whose completion sets it free.
            turn.abandon();
        } else if self.claimed {
            turn.give_up_claim();
        }
        true
    }

    fn refuse(&mut self, error: Error) -> Option<(Result<usize>, T)> {
        let mut target = self.target.take()?;
        // The bytes in it are those that came: none.
        target.reset();
        if core::mem::take(&mut self.claimed) {
            self.connection.common().turn.give_up_claim();
        }
        Some((Err(error), target))
    }

    fn name(&self) -> Operation {
        Operation::Receive
    }

    fn cache(&self) -> &Cache {
        self.connection.client().cache()
    }
}

/// Future of [`Connection::receive`](super::Connection::receive).
#[must_use = "futures do nothing unless polled"]
pub struct Receive<'a, B: ReceiveBuf = Buffer> {
    receive: Lazy<ReceiveOperation<B>>,
    _half: PhantomData<&'a mut ()>,
}

impl<B: ReceiveBuf> Receive<'_, B> {
    pub(super) fn new(connection: &ConnectionRef, buffer: B, flags: ReceiveFlags) -> Self {
        let operation = ReceiveOperation::new(connection, buffer, flags.bits());
        Self { receive: Lazy::new(operation), _half: PhantomData }
    }
}

impl<B: ReceiveBuf> Future for Receive<'_, B> {
    type Output = (Result<usize>, B);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receive).poll(context)
    }
}

operation::limited! {
    [B: ReceiveBuf] Receive<'_, B>, receive,
    ///
    /// ```
    /// # use core::time::Duration;
    /// # use wsk::{Buffer, Connection, Result};
    /// # async fn example(connection: &mut Connection, buffer: Buffer) -> Result<Buffer> {
    /// let (received, buffer) = connection.receive(buffer).within(Duration::from_secs(5)).await;
    /// match received {
    ///     // Nothing came; the buffer is there for another attempt. (Of a receive that waits for all,
    ///     // the bytes that came are in it.)
    ///     Err(error) if error.is_timeout() => Ok(buffer),
    ///     other => other.map(|_| buffer),
    /// }
    /// # }
    /// ```
}

impl<B: ReceiveBuf> fmt::Debug for Receive<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receive").finish_non_exhaustive()
    }
}

/// Future of [`Connection::receive_exact`](super::Connection::receive_exact).
#[must_use = "futures do nothing unless polled"]
pub struct ReceiveExact<'a, B: ReceiveBuf = Buffer>(Receive<'a, B>);

impl<B: ReceiveBuf> ReceiveExact<'_, B> {
    pub(super) fn new(connection: &ConnectionRef, buffer: B) -> Self {
        Self(Receive::new(connection, buffer, ReceiveFlags::WAIT_ALL))
    }
}

impl<B: ReceiveBuf> Future for ReceiveExact<'_, B> {
    type Output = (Result<()>, B);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready((received, buffer)) = Pin::new(&mut self.0).poll(context) else {
            return Poll::Pending;
        };
        let complete = |count| {
            if count == buffer.room() {
                Ok(())
            } else {
                Err(Error::new(Operation::Receive, STATUS_END_OF_FILE))
            }
        };
        Poll::Ready((received.and_then(complete), buffer))
    }
}

operation::limited! {
    [B: ReceiveBuf] ReceiveExact<'_, B>, 0.receive,
    /// The bytes that came are in it.
}

impl<B: ReceiveBuf> fmt::Debug for ReceiveExact<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveExact").finish_non_exhaustive()
    }
}

/// Future of [`Connection::drain`](super::Connection::drain).
#[must_use = "futures do nothing unless polled"]
pub struct Drain<'a> {
    drain: Lazy<ReceiveOperation<Discard>>,
    _half: PhantomData<&'a mut ()>,
}

impl Drain<'_> {
    pub(super) fn new(connection: &ConnectionRef) -> Self {
        let operation = ReceiveOperation::new(connection, Discard, WSK_FLAG_DRAIN);
        Self { drain: Lazy::new(operation), _half: PhantomData }
    }
}

impl Future for Drain<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.drain).poll(context).map(|(result, _)| result.map(drop))
    }
}

operation::limited! {
    [] Drain<'_>, drain,
}

impl fmt::Debug for Drain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").finish_non_exhaustive()
    }
}
