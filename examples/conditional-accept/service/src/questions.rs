//! Queue of questions: pended connection requests that user-mode programs decide.
//!
//! ```text
//!                 a call takes it                 its handle answers
//!   asked ──────────────────────────► held by H ──────────────────────► answered: accept or reject
//!     │                                  │
//!     │   ┌──────────────────────────────┤ H is closed ───────────────► answered: reject
//!     ▼   ▼                              │
//!     ├─── timed out ────────────────────┴────────────────────────────► answered: reject, and counted
//!     ├─── the client gave up: the asker is dropped ──────────────────► withdrawn
//!     └─── the queue is closed (unload) ───────────────────────────────► answered: reject
//! ```
//!
//! Questions that were asked, and calls that wait for one, form two queues; the oldest of each are matched.
//! The memory of a question belongs to the pended request that asks it, and queueing takes none. A handle
//! holds at most [`MAX_HELD`] questions; then its calls wait until it has answered one, and further questions
//! go to other handles.
//!
//! A question leaves its queue once, under the lock, and is settled there.

mod list;

use core::fmt;
use core::future::poll_fn;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::task::Poll;
use core::time::Duration;

use atomic_waker::AtomicWaker;
use gate_protocol::policy::Answer;
use gate_protocol::record::RequestId;
use gate_protocol::wire::{self, QuestionBytes};
use wsk::memory::{Cache, OutOfMemory, Ref};
use wsk::sync::SpinLock;
use wsk_sys::nt::NTSTATUS;
use wsk_sys::{STATUS_CANCELLED, STATUS_PENDING, STATUS_SUCCESS};
use zerocopy::IntoBytes as _;

use crate::clock::Instant;
use crate::control::Open;
use crate::irp::{CancelSafeQueue, PendingCall, QueueOwner, RejectedCall, Request};
use list::{Link, QuestionList};

/// Limit on the questions that a handle holds. There is no limit for all handles together, which one could
/// use up.
pub const MAX_HELD: u32 = 32;

/// The room that [`QuestionQueue::next`] needs.
pub(crate) const QUESTION_SIZE: usize = size_of::<QuestionBytes>();

/// Queue of questions, matched with the requests of programs that wait for one. Clones share the queue.
#[derive(Clone, Debug)]
pub struct QuestionQueue(Ref<Inner>);

#[derive(Debug)]
struct Inner {
    state: SpinLock<State>,
    unfinished: AtomicUsize,
    next_number: AtomicU64,
    /// Time limit of an answer.
    time: Duration,
}

/// # Invariants
/// `asked` holds exactly the questions whose state is `ASKED`, `held` those whose state is `HELD`; these have
/// a holder, and are counted with it.
#[derive(Debug)]
struct State {
    asked: QuestionList,
    held: QuestionList,
    calls: CancelSafeQueue<Inner>,
    timed_out: u64,
    closed: bool,
}

const ASKED: u8 = 0;
const HELD: u8 = 1;
const ACCEPTED: u8 = 2;
const REJECTED: u8 = 3;

/// # Invariants
/// `state` is written, and `holder` used, under the lock of the board only.
struct Question {
    link: Link,
    number: u64,
    id: RequestId,
    remote: SocketAddr,
    /// Time at which the answer is due.
    due: Instant,
    state: AtomicU8,
    /// The handle that holds it.
    holder: SpinLock<Option<Ref<Open>>>,
    waker: AtomicWaker,
}

impl QueueOwner for Inner {
    fn with_queue<R: Send>(&self, body: impl FnOnce(&mut CancelSafeQueue<Self>) -> R + Send) -> R {
        self.state.with(|state| body(&mut state.calls))
    }

    fn unfinished(&self) -> &AtomicUsize {
        &self.unfinished
    }

    fn count(open: &Open) -> &AtomicU32 {
        &open.shares().questions
    }
}

impl Question {
    /// The answer, once there is one.
    fn answer(&self) -> Option<Answer> {
        match self.state.load(Ordering::Acquire) {
            ACCEPTED => Some(Answer::Accept),
            REJECTED => Some(Answer::Reject),
            _ => None,
        }
    }

    fn is_held_by(&self, owner: &Open) -> bool {
        self.holder.with(|holder| holder.as_ref().is_some_and(|holder| holder.is(owner)))
    }

    /// Settles a question that was just taken out of its line. Its holder, which has one less now, is not let
    /// go of here, under the lock, but with the question.
    fn settle(&self, answer: Answer) {
        self.holder.with(|holder| {
            if let Some(holder) = holder {
                holder.shares().held.fetch_sub(1, Ordering::Relaxed);
            }
        });
        let state = match answer {
            Answer::Accept => ACCEPTED,
            Answer::Reject => REJECTED,
        };
        self.state.store(state, Ordering::Release);
    }
}

impl QuestionQueue {
    /// Creates an empty queue. Answers may take `time`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub(crate) fn try_new(time: Duration) -> Result<Self, OutOfMemory> {
        let state = State {
            asked: QuestionList::new(),
            held: QuestionList::new(),
            calls: CancelSafeQueue::new(),
            timed_out: 0,
            closed: false,
        };
        let (unfinished, next_number) = (AtomicUsize::new(0), AtomicU64::new(1));
        Ref::try_new(Inner { state: SpinLock::new(state), unfinished, next_number, time }).map(Self)
    }

    /// Asks about a request, and waits for the answer: that of a program, or reject when none comes in time,
    /// or memory is out.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`, also for polling and dropping the future.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the question.
    pub async fn ask(&self, id: RequestId, remote: SocketAddr, cache: &Cache) -> Answer {
        let Inner { state, next_number, time, .. } = &*self.0;
        let question = Question {
            link: Link::new(),
            number: next_number.fetch_add(1, Ordering::Relaxed),
            id,
            remote,
            due: Instant::now().after(*time),
            state: AtomicU8::new(ASKED),
            holder: SpinLock::new(None),
            waker: AtomicWaker::new(),
        };
        // Without memory to ask with, the answer is no.
        let Ok(question) = Ref::try_new_in(question, cache) else { return Answer::Reject };
        let taken = state.with(|state| {
            if !state.closed {
                state.asked.push(question.clone());
            }
            !state.closed
        });
        if !taken {
            return Answer::Reject;
        }
        let asked = PendingQuestion { queue: self, question: &question };
        self.dispatch();
        let answered = poll_fn(|context| {
            question.waker.register(context.waker());
            question.answer().map_or(Poll::Pending, Poll::Ready)
        });
        match wsk::time::timeout_in(*time, cache, answered).await {
            Ok(answer) => answer,
            Err(error) => asked.give_up(error.is_timeout()),
        }
    }

    /// Matches questions with waiting calls. IRQL: `<= DISPATCH_LEVEL`.
    fn dispatch(&self) {
        while let Some((call, size)) = self.0.state.with(State::match_oldest) {
            call.complete(STATUS_SUCCESS, size);
        }
    }

    /// Pends a request of `owner` until there is a question; its buffer holds [`QUESTION_SIZE`] bytes.
    /// Returns the status for the dispatch routine. IRQL: `<= DISPATCH_LEVEL`.
    pub(crate) fn next(&self, owner: &Ref<Open>, request: Request) -> NTSTATUS {
        let call = match PendingCall::try_new(&self.0, owner, request) {
            Ok(call) => call,
            Err(status) => return status,
        };
        let inserted = self.0.state.with(|state| {
            if state.closed || owner.is_closed() {
                return Err(RejectedCall(call, STATUS_CANCELLED));
            }
            state.calls.insert(call)
        });
        match inserted {
            Ok(()) => {
                self.dispatch();
                STATUS_PENDING
            }
            Err(refused) => refused.complete(),
        }
    }

    /// Answers a question; false if `owner` holds none with this number, or its time is up, and it is
    /// rejected. IRQL: `<= DISPATCH_LEVEL`.
    pub(crate) fn answer(&self, owner: &Open, number: u64, answer: Answer) -> bool {
        let settled = self.0.state.with(|state| {
            let found = state.held.remove_where(|it| it.number == number && it.is_held_by(owner))?;
            // The asker has its timer, and may be long in noticing it when there is much to do.
            let in_time = Instant::now() < found.due;
            found.settle(if in_time { answer } else { Answer::Reject });
            state.timed_out += u64::from(!in_time);
            Some((found, in_time))
        });
        let Some((question, in_time)) = settled else { return false };
        question.waker.wake();
        self.dispatch();
        in_time
    }

    /// Rejects what a handle that is closed holds, and ends its calls. IRQL: `<= DISPATCH_LEVEL`.
    pub(crate) fn forget(&self, owner: &Ref<Open>) {
        self.0.cancel_calls(&|other| other.is(owner));
        self.reject_all(|state| state.held.remove_where(|it| it.is_held_by(owner)));
        self.dispatch();
    }

    /// Rejects all questions, ends all calls, and takes no more of either. IRQL: `<= DISPATCH_LEVEL`.
    pub(crate) fn close(&self) {
        self.0.state.with(|state| state.closed = true);
        self.reject_all(|state| state.held.pop().or_else(|| state.asked.pop()));
        self.0.cancel_calls(&|_| true);
    }

    /// Rejects the questions that `next` takes out of their lines, one by one.
    fn reject_all(&self, next: impl Fn(&mut State) -> Option<Ref<Question>> + Send + Sync) {
        let reject = |state: &mut State| {
            let question = next(state)?;
            question.settle(Answer::Reject);
            Some(question)
        };
        while let Some(question) = self.0.state.with(reject) {
            question.waker.wake();
        }
    }

    /// Returns the number of open questions and of those that were not answered in time.
    /// IRQL: `<= DISPATCH_LEVEL`.
    pub(crate) fn counts(&self) -> (u64, u64) {
        self.0.state.with(|state| ((state.asked.len() + state.held.len()) as u64, state.timed_out))
    }

    /// Returns the number of calls that are not completed.
    pub(crate) fn unfinished(&self) -> usize {
        self.0.unfinished.load(Ordering::Acquire)
    }
}

impl State {
    /// Matches the oldest question with the oldest call. Returns the call with its output, and the size of
    /// that.
    // A frame of its own is smaller code than a part of the caller's.
    #[inline(never)]
    fn match_oldest(&mut self) -> Option<(PendingCall<Inner>, usize)> {
        if self.asked.is_empty() {
            return None;
        }
        let has_room = |owner: &Open| owner.shares().held.load(Ordering::Relaxed) < MAX_HELD;
        let mut call = self.calls.remove_matching(&has_room)?;
        let question = self.asked.pop()?;
        question.state.store(HELD, Ordering::Relaxed);
        let owner = call.owner().clone();
        owner.shares().held.fetch_add(1, Ordering::Relaxed);
        question.holder.with(|holder| *holder = Some(owner));
        let left = question.due.since(Instant::now()).as_millis();
        let bytes = QuestionBytes::from(&wire::Question {
            number: question.number,
            id: question.id,
            remote: question.remote,
            time_left: u32::try_from(left).unwrap_or(u32::MAX),
        });
        self.held.push(question);
        let size = match call.output().get_mut(..QUESTION_SIZE) {
            Some(output) => {
                output.copy_from_slice(bytes.as_bytes());
                QUESTION_SIZE
            }
            None => 0,
        };
        Some((call, size))
    }

    /// Takes a question out of the line it is in; false if it is settled.
    fn remove(&mut self, question: &Ref<Question>) -> bool {
        let list = match question.state.load(Ordering::Relaxed) {
            ASKED => &mut self.asked,
            HELD => &mut self.held,
            _ => return false,
        };
        // SAFETY: the state of a question says in which line it is, if any.
        unsafe { list.remove(question) }
    }
}

/// A question that was asked, on the asker's side.
struct PendingQuestion<'a> {
    queue: &'a QuestionQueue,
    question: &'a Ref<Question>,
}

impl PendingQuestion<'_> {
    /// Stops waiting. Returns reject, unless an answer has just arrived.
    fn give_up(&self, timed_out: bool) -> Answer {
        self.queue.0.state.with(|state| {
            if state.remove(self.question) {
                self.question.settle(Answer::Reject);
                state.timed_out += u64::from(timed_out);
            }
        });
        self.queue.dispatch();
        self.question.answer().unwrap_or(Answer::Reject)
    }
}

impl Drop for PendingQuestion<'_> {
    fn drop(&mut self) {
        let withdrawn = self.queue.0.state.with(|state| {
            let open = state.remove(self.question);
            if open {
                self.question.settle(Answer::Reject);
            }
            open
        });
        // The line may be short enough now for the next one.
        if withdrawn {
            self.queue.dispatch();
        }
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "question {} about {}", self.number, self.remote)
    }
}
