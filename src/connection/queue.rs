//! A queue of receives: several under way on one connection, whose bytes come out in order.
//!
//! WSK fills receives in the order in which they are posted (rule RCV-16), so the queue waits for the oldest
//! one only. It has the connection's one turn (see [`receive`](super::receive)) from its first bytes on until
//! it is dropped; an abandoned queue ends its turn when the last of its receives has ended. Memory for the
//! bytes that these get in spite of their cancellation is reserved when the queue is made.
//!
//! ```text
//!            next              its turn         no byte is kept any more         0 bytes
//!   Unused ────────▶ Waiting ───────────▶ Kept ──────────────────────────▶ Open ─────────▶ Ended
//!      ▲               │ │                  │                               │                │
//!      └───────────────┘ │ dropped          │ dropped                       │ dropped        │ dropped
//!         it is refused  ▼                  ▼                               ▼                ▼
//!              the claim is given up     the turn is free     the receives are cancelled; the last one
//!                                                             that ends sets the turn free
//! ```
//!
//! Receives are under way in *Open* and *Ended* only. Without one the turn is free at once there, too.

use core::fmt;
use core::future::Future;
use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Poll};

use wsk_sys::{STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_PARAMETER, WSK_BUF};

use super::kept::{Kept, KeptBytes, QueueKept};
use super::receive::{ReceiveRequest, Target, post, take_turn};
use super::shared::ConnectionRef;
use crate::buffer::Buffer;
use crate::error::{Error, Operation, Result};
use crate::memory::{OutOfMemory, PoolBox, PoolVec};
use crate::operation::{Op, Outcome};

/// A buffer of a receive that others may be posted behind.
struct Queued {
    buffer: Buffer,
    sequence: u64,
}

impl Target for Queued {
    const FLAGS: u32 = 0;

    fn reset(&mut self) {
        self.buffer.reset();
    }

    fn append(&mut self, bytes: &[u8]) -> usize {
        self.buffer.append(bytes)
    }

    fn filled(&self) -> usize {
        self.buffer.filled()
    }

    fn is_full(&self) -> bool {
        self.buffer.is_full()
    }

    fn describe(&mut self) -> WSK_BUF {
        Target::describe(&mut self.buffer)
    }

    fn fill(&mut self, bytes: usize) -> Result<()> {
        self.buffer.fill(bytes)
    }

    fn keep(self) -> Option<Kept> {
        self.buffer.keep()
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }
}

type QueuedOp = Op<ReceiveRequest<Queued>>;

/// The receives that are under way.
///
/// # Invariants
/// The `count` slots from `oldest` on, going on at the first one behind the last, have an operation, in the
/// order in which they were submitted; the others have none. All slots are there from the beginning.
struct UnderWay {
    slots: PoolVec<Option<QueuedOp>>,
    oldest: usize,
    count: usize,
}

impl UnderWay {
    fn try_new(depth: usize) -> core::result::Result<Self, OutOfMemory> {
        let mut slots = PoolVec::try_with_capacity(depth)?;
        while slots.push(None).is_ok() {}
        Ok(Self { slots, oldest: 0, count: 0 })
    }

    fn is_full(&self) -> bool {
        self.count == self.slots.len()
    }

    /// Adds a receive that was just submitted; there is a free slot for it.
    fn push(&mut self, op: QueuedOp) {
        let index = self.wrapped(self.oldest + self.count);
        if let Some(slot) = self.slots.get_mut(index) {
            debug_assert!(slot.is_none(), "the slot is free");
            *slot = Some(op);
            self.count += 1;
        }
    }

    /// Takes the oldest receive out if it has ended, or has its task woken then; `None` if none is under way.
    fn poll_oldest(&mut self, context: &Context<'_>) -> Option<Poll<(Outcome, Buffer)>> {
        let slot = self.slots.get_mut(self.oldest)?;
        match slot.take()?.poll(context) {
            Ok((outcome, request)) => {
                self.oldest = self.wrapped(self.oldest + 1);
                self.count -= 1;
                Some(Poll::Ready((outcome, request.target.buffer)))
            }
            Err(op) => {
                *slot = Some(op);
                Some(Poll::Pending)
            }
        }
    }

    /// Cancels and abandons them all.
    fn abandon(&mut self) {
        self.slots.clear();
        self.count = 0;
    }

    fn wrapped(&self, index: usize) -> usize {
        index.checked_sub(self.slots.len()).unwrap_or(index)
    }
}

/// State of a queue; it is drawn in the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was asked of the connection.
    Unused,
    /// An abandoned receive has to end first; the turn after it is the queue's.
    Waiting,
    /// The turn is the queue's, and bytes that an abandoned receive left come first.
    Kept,
    /// Receives are posted.
    Open,
    /// The stream has ended.
    Ended,
}

/// Several receives under way on one connection, whose bytes come out in order. Made by
/// [`ReceiveHalf::queue`](super::ReceiveHalf::queue).
///
/// While it lives, no other receive can be started; methods of [`Control`](super::Control) can be called on a
/// [control](super::ReceiveHalf::control) that was made before. A queue that is forgotten
/// ([`core::mem::forget`]) leaves the connection busy for good.
///
/// # IRQL
/// May be dropped at up to `DISPATCH_LEVEL`.
///
/// # Cancel safety
/// May be dropped at any time, also with receives under way, which are cancelled. Bytes that they got in
/// spite of it, or that were not taken with [`next`](ReceiveQueue::next), are the first that the next receive
/// or queue of the connection gets. That one waits until all of them have ended.
///
/// ```
/// # use wsk::{ReceiveHalf, Result};
/// async fn count(receive: &mut ReceiveHalf) -> Result<usize> {
///     let mut total = 0;
///     let mut queue = receive.queue(4, 4096)?;
///     while let Some(buffer) = queue.next().await? {
///         total += buffer.len();
///         queue.put_back(buffer);
///     }
///     Ok(total)
/// }
/// ```
///
/// # Invariants
/// - The turn is the queue's in all stages but `Unused` and `Waiting`.
/// - Receives are under way in `Open` and `Ended` only, where nothing is kept with the connection.
/// - The idle buffers and the receives under way are together no more than `depth`, for which `idle`,
///   `under_way` and `reserved` all have room.
#[must_use = "a queue receives nothing unless `next` is called"]
pub struct ReceiveQueue<'a> {
    connection: ConnectionRef,
    stage: Stage,
    /// Buffers that are to be posted.
    idle: PoolVec<Buffer>,
    under_way: UnderWay,
    /// The number of receives posted so far.
    sequence: u64,
    /// The error that came together with the bytes handed out last.
    failed: Option<Error>,
    /// Memory for what the receives under way leave when the queue is dropped.
    reserved: Option<PoolBox<QueueKept>>,
    _half: PhantomData<&'a mut ()>,
}

impl<'a> ReceiveQueue<'a> {
    pub(super) fn try_new(connection: &ConnectionRef, depth: usize, size: usize) -> Result<Self> {
        if depth == 0 || size == 0 {
            return Err(Error::new(Operation::Receive, STATUS_INVALID_PARAMETER));
        }
        let reserve = || {
            Ok((PoolVec::try_with_capacity(depth)?, UnderWay::try_new(depth)?, QueueKept::reserve(depth)?))
        };
        let (mut idle, under_way, reserved) =
            reserve().map_err(|OutOfMemory| Error::out_of_memory(Operation::Receive))?;
        while idle.len() < depth {
            let fits = idle.push(Buffer::try_with_capacity(size)?).is_ok();
            debug_assert!(fits, "there is room for `depth` buffers");
        }
        Ok(Self {
            connection: connection.clone(),
            stage: Stage::Unused,
            idle,
            under_way,
            sequence: 0,
            failed: None,
            reserved: Some(reserved),
            _half: PhantomData,
        })
    }

    /// Receives the next bytes of the stream: posts every buffer that the queue has (`WskReceive`), and waits
    /// for the oldest receive. The output is its buffer, whose length is the number of bytes and never 0, or
    /// `None` when the peer has ended its side, then again and again.
    ///
    /// [Put the buffer back](ReceiveQueue::put_back) when its bytes were used: the queue has no other ones.
    ///
    /// # IRQL
    /// May be polled at up to `DISPATCH_LEVEL`; not in completion routines.
    ///
    /// # Cancel safety
    /// May be dropped at any time: the receives go on, and the next call waits for the same one. So a time
    /// limit may just drop it.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` when no receive is under way and the queue has no buffer, because all
    /// were taken and none put back; the errors of [`ReceiveHalf::receive`](super::ReceiveHalf::receive).
    /// Bytes that came before an error are handed out before it is reported. The buffer of a receive that
    /// failed stays with the queue, and the next call posts it again.
    #[expect(clippy::should_implement_trait, reason = "an iterator does not wait")]
    pub fn next(&mut self) -> ReceiveNext<'_, 'a> {
        ReceiveNext { queue: self }
    }

    /// Gives a buffer to the queue: one that [`next`](ReceiveQueue::next) has handed out, or any other one.
    /// It is posted at once if the queue receives already, else by the next call of `next`.
    ///
    /// A buffer beyond the depth of the queue is freed.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`; not in completion routines.
    pub fn put_back(&mut self, buffer: Buffer) {
        if self.idle.len() + self.under_way.count < self.idle.capacity() {
            drop(self.idle.push(buffer));
        }
        if self.stage == Stage::Open {
            // Without memory for it, the next call tries again, and reports it if nothing is under way.
            let _ = self.post_idle();
        }
    }

    fn poll_next(&mut self, context: &Context<'_>) -> Poll<Result<Option<Buffer>>> {
        if matches!(self.stage, Stage::Unused | Stage::Waiting) {
            let Poll::Ready(turn) = self.take_turn(context) else { return Poll::Pending };
            turn?;
        }
        if self.stage == Stage::Kept
            && let Some(kept) = self.next_kept()
        {
            return Poll::Ready(kept.map(Some));
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.stage == Stage::Ended {
            return Poll::Ready(Ok(None));
        }
        let posted = self.post_idle();
        match self.under_way.poll_oldest(context) {
            Some(Poll::Ready((outcome, buffer))) => Poll::Ready(self.finish(outcome, buffer)),
            Some(Poll::Pending) => Poll::Pending,
            None => Poll::Ready(Err(posted.err().unwrap_or_else(all_out))),
        }
    }

    /// Waits for the turn; `Err` says why it cannot be had.
    fn take_turn(&mut self, context: &Context<'_>) -> Poll<Result<()>> {
        let mut claimed = self.stage == Stage::Waiting;
        let turn = take_turn(&self.connection, &mut claimed, context);
        self.stage = match turn {
            Poll::Pending => Stage::Waiting,
            Poll::Ready(Ok(())) => Stage::Kept,
            Poll::Ready(Err(_)) => Stage::Unused,
        };
        turn
    }

    /// The next bytes that an abandoned receive left; `None` if there are none any more.
    fn next_kept(&mut self) -> Option<Result<Buffer>> {
        let common = self.connection.common();
        let mut kept = common.take_kept();
        if kept.is_empty() {
            self.stage = Stage::Open;
            return None;
        }
        let Some(mut buffer) = self.idle.pop() else {
            common.put_kept_back(kept, 0);
            return Some(Err(all_out()));
        };
        buffer.clear();
        let copied = kept.copy_to(&mut buffer);
        kept.skip(copied);
        if kept.is_empty() {
            self.stage = Stage::Open;
            // As in `put_back`.
            let _ = self.post_idle();
        } else {
            common.put_kept_back(kept, 0);
        }
        Some(Ok(buffer))
    }

    /// Posts all idle buffers, as far as there is memory.
    fn post_idle(&mut self) -> Result<()> {
        while !self.under_way.is_full()
            && let Some(mut buffer) = self.idle.pop()
        {
            buffer.clear();
            match post(&self.connection, Queued { buffer, sequence: self.sequence }, Queued::FLAGS) {
                Ok((op, _)) => self.under_way.push(op),
                Err(queued) => {
                    drop(self.idle.push(queued.buffer));
                    return Err(Error::out_of_memory(Operation::Receive));
                }
            }
            self.sequence += 1;
        }
        Ok(())
    }

    /// Turns the outcome of the oldest receive into the output.
    fn finish(&mut self, outcome: Outcome, mut buffer: Buffer) -> Result<Option<Buffer>> {
        let fits = buffer.fill(outcome.information());
        let received = outcome.result(Operation::Receive).and(fits);
        if !buffer.is_empty() {
            // An error can carry bytes, too (rule RCV-06).
            self.failed = received.err();
            return Ok(Some(buffer));
        }
        drop(self.idle.push(buffer));
        received?;
        // No bytes are the end of the stream (rule RCV-14).
        self.stage = Stage::Ended;
        Ok(None)
    }
}

fn all_out() -> Error {
    Error::new(Operation::Receive, STATUS_INVALID_DEVICE_STATE)
}

impl Drop for ReceiveQueue<'_> {
    fn drop(&mut self) {
        let common = self.connection.common();
        match self.stage {
            Stage::Unused => return,
            Stage::Waiting => return common.turn.give_up_claim(),
            Stage::Kept | Stage::Open | Stage::Ended => {}
        }
        let pending = self.under_way.count;
        let Some(mut reserved) = self.reserved.take().filter(|_| pending > 0) else {
            return common.turn.give();
        };
        reserved.expect(self.sequence - pending as u64, pending);
        let former = core::mem::replace(&mut common.state.lock().kept, KeptBytes::Queue(reserved));
        debug_assert!(matches!(former, KeptBytes::Nothing), "receives are posted when nothing is kept");
        // Said before the cancellations, the last of whose completions sets it free.
        common.turn.abandon();
        self.under_way.abandon();
    }
}

impl fmt::Debug for ReceiveQueue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveQueue")
            .field("stage", &self.stage)
            .field("idle", &self.idle.len())
            .field("under_way", &self.under_way.count)
            .finish_non_exhaustive()
    }
}

/// Future of [`ReceiveQueue::next`].
#[must_use = "futures do nothing unless polled"]
pub struct ReceiveNext<'q, 'a> {
    queue: &'q mut ReceiveQueue<'a>,
}

impl Future for ReceiveNext<'_, '_> {
    type Output = Result<Option<Buffer>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.queue.poll_next(context)
    }
}

impl fmt::Debug for ReceiveNext<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveNext").finish_non_exhaustive()
    }
}
