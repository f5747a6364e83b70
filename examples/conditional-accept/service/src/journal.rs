//! The journal: the last records, kept for the programs that follow them, and the status derived from them.
//!
//! ```text
//!                         ┌───────────────── ring ─────────────────┐
//!   RecordSink::record ──►│ … │ 41 │ 42 │ 43 │ 44 │ 45 │ 46 │ (47) │──► the oldest is overwritten
//!            │            └──────────▲─────────────────▲───────────┘
//!            ▼                  handle 1's cursor   handle 2's: nothing new, its calls wait
//!         Status
//! ```
//!
//! Each handle has a cursor. It begins at the oldest record that is kept, so that a program that comes late
//! sees how the service started. A cursor that the ring overtakes is moved on, and the missed records are
//! counted. A new record completes the calls that wait for it. While such a program fetches its output,
//! further records gather, and its next call takes them together.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use gate_protocol::Reason;
use gate_protocol::policy::Answer;
use gate_protocol::record::{DisconnectKind, Inspection, Record};
use gate_protocol::status::{Counters, Phase, Status};
use gate_protocol::wire::{RecordBytes, RecordsHeader, TimedRecord};
use wsk::memory::{OutOfMemory, PoolVec, Ref};
use wsk::sync::SpinLock;
use wsk_sys::nt::NTSTATUS;
use wsk_sys::{STATUS_CANCELLED, STATUS_PENDING, STATUS_SUCCESS};
use zerocopy::IntoBytes as _;
use zerocopy::little_endian::{U32, U64};

use crate::clock::Instant;
use crate::control::Open;
use crate::irp::{CancelSafeQueue, PendingCall, QueueOwner, RejectedCall, Request};

/// Number of records that are kept.
pub const RECORDS: usize = 1024;

/// Number of records in one answer: they are copied under the lock.
const MAX_BATCH: usize = 64;

/// The least room that [`Journal::next`] needs: for one record.
pub(crate) const MIN_OUTPUT: usize = size_of::<RecordsHeader>() + size_of::<RecordBytes>();

/// Position of a handle in the journal; used under its lock.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// The number of the record to be fetched next; [`Cursor::UNSET`] before the first fetch.
    next: AtomicU64,
    /// Number of records that were overwritten before they were fetched.
    lost: AtomicU64,
}

impl Cursor {
    const UNSET: u64 = u64::MAX;

    pub(crate) const fn new() -> Self {
        Self { next: AtomicU64::new(Self::UNSET), lost: AtomicU64::new(0) }
    }

    fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    fn move_to(&self, next: u64) {
        self.next.store(next, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(crate) struct Journal {
    state: SpinLock<State>,
    unfinished: AtomicUsize,
    start: Instant,
}

/// # Invariants
/// Record number `n` is at `n % RECORDS` of `records`, for the last `records.len()` numbers before `next`.
/// Closed, it is empty.
#[derive(Debug)]
struct State {
    records: PoolVec<TimedRecord>,
    next: u64,
    status: Status,
    calls: CancelSafeQueue<Journal>,
    closed: bool,
}

impl QueueOwner for Journal {
    fn with_queue<R: Send>(&self, body: impl FnOnce(&mut CancelSafeQueue<Self>) -> R + Send) -> R {
        self.state.with(|state| body(&mut state.calls))
    }

    fn unfinished(&self) -> &AtomicUsize {
        &self.unfinished
    }

    fn count(open: &Open) -> &AtomicU32 {
        &open.shares().records
    }
}

impl Journal {
    /// An empty journal. Its time begins now.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub(crate) fn try_new(status: Status) -> Result<Ref<Self>, OutOfMemory> {
        let records = PoolVec::try_with_capacity(RECORDS)?;
        let state = State { records, next: 0, status, calls: CancelSafeQueue::new(), closed: false };
        Ref::try_new(Self {
            state: SpinLock::new(state),
            unfinished: AtomicUsize::new(0),
            start: Instant::now(),
        })
    }

    /// Takes a record, and completes calls that wait for one. IRQL: `<= DISPATCH_LEVEL`.
    pub(crate) fn record(&self, record: Record) {
        // The time is taken under the lock, so that it never goes back from one record to the next.
        self.state.with(|state| state.add(TimedRecord { time: Instant::now().since(self.start), record }));
        self.hand_out();
    }

    /// Completes the calls that have something to fetch: those that waited when this began, at the most. One
    /// that comes later has a call of this of its own, and nobody can keep this one busy.
    /// IRQL: `<= DISPATCH_LEVEL`.
    fn hand_out(&self) {
        let waited = self.state.with(|state| state.calls.len());
        for _ in 0..waited {
            let Some((call, size)) = self.state.with(State::ready) else { return };
            call.complete(STATUS_SUCCESS, size);
        }
    }

    /// Pends a request until there are records that `owner` has not seen; its buffer holds at least
    /// [`MIN_OUTPUT`] bytes. Returns the status for the dispatch routine. IRQL: `<= DISPATCH_LEVEL`.
    pub(crate) fn next(this: &Ref<Self>, owner: &Ref<Open>, request: Request) -> NTSTATUS {
        let call = match PendingCall::try_new(this, owner, request) {
            Ok(call) => call,
            Err(status) => return status,
        };
        let inserted = this.state.with(|state| {
            if state.closed || owner.is_closed() {
                return Err(RejectedCall(call, STATUS_CANCELLED));
            }
            let cursor = owner.cursor();
            if cursor.next() == Cursor::UNSET {
                cursor.move_to(state.oldest());
            }
            state.calls.insert(call)
        });
        match inserted {
            Ok(()) => {
                this.hand_out();
                STATUS_PENDING
            }
            Err(refused) => refused.complete(),
        }
    }

    /// Ends the calls of a handle that is closed. IRQL: `<= DISPATCH_LEVEL`.
    pub(crate) fn forget(&self, owner: &Ref<Open>) {
        self.cancel_calls(&|other| other.is(owner));
    }

    /// Ends all calls and takes no more. IRQL: `<= DISPATCH_LEVEL`.
    pub(crate) fn close(&self) {
        self.state.with(|state| state.closed = true);
        self.cancel_calls(&|_| true);
    }

    /// Returns the status derived from the records. IRQL: `<= DISPATCH_LEVEL`.
    pub(crate) fn status(&self) -> Status {
        self.state.with(|state| state.status)
    }

    /// Returns the number of calls that are not completed.
    pub(crate) fn unfinished_calls(&self) -> usize {
        self.unfinished.load(Ordering::Acquire)
    }

    /// The driver is being unloaded. IRQL: `<= DISPATCH_LEVEL`.
    pub(crate) fn stopping(&self) {
        self.state.with(|state| state.status.phase = Phase::Stopping);
    }
}

impl State {
    // A frame of its own is smaller code than a part of the caller's.
    #[inline(never)]
    fn add(&mut self, record: TimedRecord) {
        apply(&mut self.status, &record.record);
        if let Err(record) = self.records.push(record) {
            // The ring is full: the oldest makes room.
            let at = (self.next % RECORDS as u64) as usize;
            if let Some(slot) = self.records.get_mut(at) {
                *slot = record;
            }
        }
        self.next += 1;
    }

    /// The number of the oldest record that is still there.
    fn oldest(&self) -> u64 {
        self.next - self.records.len() as u64
    }

    /// Takes a call that has something to fetch, filled in, and how much that is.
    fn ready(&mut self) -> Option<(PendingCall<Journal>, usize)> {
        let next = self.next;
        let mut call = self.calls.remove_matching(&|owner| owner.cursor().next() < next)?;
        let owner = call.owner().clone();
        let size = self.fetch(owner.cursor(), call.output());
        Some((call, size))
    }

    /// Copies the records at `cursor` to `output`, as many as fit, and moves the cursor behind them. Returns
    /// their size.
    // A frame of its own is smaller code than a part of the caller's.
    #[inline(never)]
    fn fetch(&mut self, cursor: &Cursor, output: &mut [u8]) -> usize {
        let missed = self.oldest().saturating_sub(cursor.next());
        let lost = cursor.lost.fetch_add(missed, Ordering::Relaxed) + missed;
        self.status.counters.records_lost += missed;
        let from = cursor.next() + missed;
        let Some((header, room)) = output.split_at_mut_checked(size_of::<RecordsHeader>()) else { return 0 };
        let mut count = 0;
        for (number, slot) in
            (from..self.next).zip(room.chunks_exact_mut(size_of::<RecordBytes>())).take(MAX_BATCH)
        {
            let at = (number % RECORDS as u64) as usize;
            let Some(record) = self.records.get(at) else { break };
            slot.copy_from_slice(RecordBytes::from(record).as_bytes());
            count += 1;
        }
        cursor.move_to(from + u64::from(count));
        let bytes = RecordsHeader { lost: U64::new(lost), count: U32::new(count), reserved: U32::ZERO };
        header.copy_from_slice(bytes.as_bytes());
        size_of::<RecordsHeader>() + count as usize * size_of::<RecordBytes>()
    }
}

/// The one place where records become numbers.
fn apply(status: &mut Status, record: &Record) {
    let counters: &mut Counters = &mut status.counters;
    match *record {
        Record::Loaded { local } => {
            status.local = local;
            if status.phase == Phase::Starting {
                status.phase = Phase::Listening;
            }
        }
        Record::Died { .. } => {
            if status.phase == Phase::Listening {
                status.phase = Phase::Starting;
            }
        }
        Record::Failed { status: error } => {
            status.error = error;
            status.phase = Phase::Failed;
        }
        Record::Inspect { action: Inspection::Accept, .. } => counters.accepted += 1,
        Record::Inspect { action: Inspection::Reject, reason, .. } => {
            counters.rejected += 1;
            blame(counters, reason);
        }
        Record::Inspect { action: Inspection::Pend, .. } => counters.pended += 1,
        Record::Verdict { action: Answer::Accept, .. } => counters.answered_accept += 1,
        Record::Verdict { action: Answer::Reject, .. } => counters.answered_reject += 1,
        Record::Abort { .. } => counters.aborted += 1,
        Record::Accepted { .. } => {
            counters.connections += 1;
            counters.open += 1;
        }
        Record::Disconnect { kind: DisconnectKind::Graceful, .. } => counters.graceful += 1,
        Record::Disconnect { kind: DisconnectKind::Abortive, .. } => counters.abortive += 1,
        Record::Closed { received, sent, .. } => {
            counters.open = counters.open.saturating_sub(1);
            counters.received = counters.received.saturating_add(received);
            counters.sent = counters.sent.saturating_add(sent);
        }
        Record::Dropped { reason, .. } => blame(counters, Some(reason)),
        Record::Policy { .. } | Record::BadSetting { .. } | Record::Unloaded { .. } => {}
    }
}

/// Counts a client that was refused, or lost its connection.
fn blame(counters: &mut Counters, reason: Option<Reason>) {
    match reason {
        Some(Reason::Full) => counters.refused_full += 1,
        Some(Reason::Source) => counters.refused_source += 1,
        Some(Reason::Memory) => counters.refused_memory += 1,
        Some(Reason::Idle) => counters.dropped_idle += 1,
        Some(Reason::Policy) | None => {}
    }
}
