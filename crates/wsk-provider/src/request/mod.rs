//! One IRP in the provider's hands.
//!
//! ```text
//!            take                finish / fail
//!   client ───────► Request ──────────────────────► completed
//!                     │  ▲                             ▲
//!       queue.push    │  │ queue.pop: claimed          │ IoCancelIrp: the cancel routine takes it out of
//!   (marks pending,   ▼  │ from the cancel routine     │ the queue and completes it with STATUS_CANCELLED
//!    arms cancel)    queued ───────────────────────────┘
//! ```
//!
//! Whoever swaps the IRP's cancel routine for null owns the completion; that is how a success and a cancellation
//! that meet are told apart. A [`Request`] is completed exactly once because completing consumes it; one that is
//! dropped all the same completes as cancelled, so that no IRP is ever lost.

mod queue;

pub(crate) use queue::RequestQueue;

use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wsk_sys::nt::{self, IRP, NTSTATUS};
use wsk_sys::{STATUS_CANCELLED, STATUS_INVALID_PARAMETER, STATUS_PENDING, nt_success};

use crate::client::Client;
use crate::provider::Inner;
use crate::socket::Socket;
use crate::steering::Timing;

/// Marks an IRP as pended by a provider, in the fourth word of its driver context.
const PENDED_MARK: usize = 0x5753_4B50;

/// What a pended request belongs to, and what it keeps from being torn down.
#[derive(Clone, Debug)]
pub(crate) enum Owner {
    /// A socket.
    Socket(Arc<Socket>),
    /// A client object.
    Client(Arc<Client>),
}

impl Owner {
    /// The provider.
    pub(crate) fn provider(&self) -> &Arc<Inner> {
        match self {
            Self::Socket(socket) => socket.provider(),
            Self::Client(client) => client.provider(),
        }
    }

    fn request_pended(&self) {
        match self {
            Self::Socket(socket) => socket.request_pended(),
            Self::Client(client) => client.request_pended(),
        }
    }

    fn request_done(&self) {
        match self {
            Self::Socket(socket) => Socket::request_done(socket),
            Self::Client(client) => client.request_done(),
        }
    }
}

/// What can own pended requests.
pub(crate) trait Owns {
    /// A counted reference to it.
    fn owner(&self) -> Owner;
    /// The provider.
    fn machine(&self) -> &Arc<Inner>;
}

impl Owns for Arc<Socket> {
    fn owner(&self) -> Owner {
        Owner::Socket(Self::clone(self))
    }
    fn machine(&self) -> &Arc<Inner> {
        self.provider()
    }
}

impl Owns for Arc<Client> {
    fn owner(&self) -> Owner {
        Owner::Client(Self::clone(self))
    }
    fn machine(&self) -> &Arc<Inner> {
        self.provider()
    }
}

/// One IRP that the provider has to complete.
///
/// # Invariants
/// The IRP was handed over by a client, its current stack location is the provider's, it has not been completed,
/// and no cancel routine is armed. `owner` is present exactly when the IRP is marked pending, and then counts it.
#[derive(Debug)]
pub(crate) struct Request {
    irp: NonNull<IRP>,
    owner: Option<Owner>,
}

// SAFETY: an IRP has no thread affinity; the one `Request` for it is its sole owner.
unsafe impl Send for Request {}

impl Request {
    /// Takes over an IRP. Without one, or with one that cannot be used, the client's mistake is reported and the
    /// result is the status to return.
    ///
    /// # Safety
    /// `irp` is null or points to a live IRP that the client hands over.
    pub(crate) unsafe fn take(
        provider: &Inner,
        call: &'static str,
        rule_without: &'static str,
        irp: *mut IRP,
    ) -> Result<Self, NTSTATUS> {
        let Some(irp) = NonNull::new(irp) else {
            provider.violation(rule_without, call, "called without an IRP");
            return Err(STATUS_INVALID_PARAMETER);
        };
        // SAFETY: the caller hands over a live IRP.
        if !unsafe { provider.host.check_irp(irp.as_ptr(), call) } {
            return Err(STATUS_INVALID_PARAMETER);
        }
        // SAFETY: the caller hands over a live IRP.
        let location = unsafe { nt::irp_current_location(irp.as_ptr()) };
        if location <= 1 {
            // SAFETY: as above.
            let count = unsafe { nt::irp_stack_count(irp.as_ptr()) };
            // SAFETY: as above; a pended IRP keeps its driver context, which only the provider writes.
            let context = unsafe { nt::irp_driver_context(irp.as_ptr()) };
            if context[3] as usize == PENDED_MARK {
                provider.violation("IRP-06", call, "the IRP is still pending from another call");
            } else {
                let detail = format!("the IRP has no free stack location ({count} in all)");
                provider.violation("IRP-01", call, &detail);
            }
            return Err(STATUS_INVALID_PARAMETER);
        }
        // SAFETY: the client handed the IRP over and it has a free stack location.
        unsafe { nt::io_set_next_irp_stack_location(irp.as_ptr()) };
        Ok(Self { irp, owner: None })
    }

    /// Completes with `status` and returns it: what a call does that cannot do what it was asked.
    pub(crate) fn fail(self, provider: &Inner, status: NTSTATUS) -> NTSTATUS {
        let pending = self.owner.is_some();
        self.complete(provider, status, 0);
        if pending { STATUS_PENDING } else { status }
    }

    /// Completes with an outcome that is known now; returns what the call returns. Whether that happens inline is
    /// one of the choices of the configuration.
    pub(crate) fn finish(self, owner: &impl Owns, status: NTSTATUS, information: usize) -> NTSTATUS {
        let timing = owner.machine().steering.timing(false);
        self.finish_timed(owner, timing, status, information)
    }

    /// Like [`finish`](Self::finish); `then` runs when the request has completed.
    pub(crate) fn finish_then(
        mut self,
        owner: &impl Owns,
        status: NTSTATUS,
        information: usize,
        then: impl FnOnce() + Send + 'static,
    ) -> NTSTATUS {
        let provider = owner.machine();
        let timing = provider.steering.timing(false);
        match timing {
            Timing::Inline | Timing::Nested => {
                let answer = self.finish_timed(owner, timing, status, information);
                then();
                answer
            }
            Timing::Early | Timing::Late => {
                self.mark_pending(owner);
                let completer = provider.completer();
                completer.complete_then(provider, self, status, information, timing == Timing::Late, Box::new(then));
                STATUS_PENDING
            }
        }
    }

    /// Like [`finish`](Self::finish), for the calls that Windows completes later as a rule.
    pub(crate) fn finish_pended(self, owner: &impl Owns, status: NTSTATUS, information: usize) -> NTSTATUS {
        let timing = owner.machine().steering.timing(true);
        self.finish_timed(owner, timing, status, information)
    }

    /// Completes at the given time.
    pub(crate) fn finish_timed(
        mut self,
        owner: &impl Owns,
        timing: Timing,
        status: NTSTATUS,
        information: usize,
    ) -> NTSTATUS {
        let provider = owner.machine();
        if timing == Timing::Inline {
            self.complete(provider, status, information);
            return status;
        }
        self.mark_pending(owner);
        match timing {
            Timing::Inline | Timing::Nested => self.complete(provider, status, information),
            Timing::Early => provider.completer().complete_early(provider, self, status, information),
            Timing::Late => provider.completer().complete_late(provider, self, status, information),
        }
        STATUS_PENDING
    }

    /// Marks the IRP pending: the call that brought it returns `STATUS_PENDING` whatever comes.
    pub(crate) fn mark_pending(&mut self, owner: &impl Owns) {
        if self.owner.is_some() {
            return;
        }
        // SAFETY: the request owns the IRP, which has been handed down.
        unsafe { nt::io_mark_irp_pending(self.irp.as_ptr()) };
        let owner = owner.owner();
        owner.request_pended();
        let (pointer, kind) = match &owner {
            Owner::Socket(socket) => (Arc::as_ptr(socket).cast_mut().cast(), 0),
            Owner::Client(client) => (Arc::as_ptr(client).cast_mut().cast(), 1),
        };
        let context = [pointer, kind as *mut _, std::ptr::null_mut(), PENDED_MARK as *mut _];
        // SAFETY: the request owns the IRP, and the driver context is for the driver that does.
        unsafe { nt::set_irp_driver_context(self.irp.as_ptr(), context) };
        self.owner = Some(owner);
    }

    /// Whether the call that brought the IRP returns, or has returned, `STATUS_PENDING`.
    pub(crate) fn is_pending(&self) -> bool {
        self.owner.is_some()
    }

    /// Whether the client has asked to cancel the IRP.
    pub(crate) fn is_cancelled(&self) -> bool {
        // SAFETY: the request owns the IRP, which is not completed while it does.
        unsafe { nt::irp_cancel(self.irp.as_ptr()) }.load(Ordering::SeqCst) != 0
    }

    /// Completes the IRP. A failed request reports no information (IRP-22).
    pub(crate) fn complete(self, provider: &Inner, status: NTSTATUS, information: usize) {
        let information = if nt_success(status) { information } else { 0 };
        self.complete_exactly(provider, status, information);
    }

    /// Completes the IRP with exactly these results; for the failures that do report information.
    pub(crate) fn complete_exactly(mut self, provider: &Inner, status: NTSTATUS, information: usize) {
        let owner = self.owner.take();
        let irp = self.irp.as_ptr();
        mem::forget(self);
        // SAFETY: the request owned the IRP; nobody else reads it before it is completed below.
        unsafe { nt::set_irp_status(irp, status) };
        // SAFETY: as above.
        unsafe { nt::set_irp_information(irp, information) };
        if owner.is_some() {
            // SAFETY: as above.
            unsafe { nt::set_irp_driver_context(irp, [std::ptr::null_mut(); 4]) };
        }
        let raised = Inner::raise(provider.steering.completion_level());
        // SAFETY: the request owned the IRP and gives it up here, once.
        unsafe { nt::IofCompleteRequest(irp, nt::IO_NO_INCREMENT as i8) };
        drop(raised);
        if let Some(owner) = owner {
            owner.request_done();
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let irp = self.irp;
        match self.owner.take() {
            Some(owner) => {
                let provider = Arc::clone(owner.provider());
                Self { irp, owner: Some(owner) }.complete(&provider, STATUS_CANCELLED, 0);
            }
            None => unreachable!("a request was dropped inside its call"),
        }
    }
}

/// Results of requests, collected under a lock and completed after it.
#[derive(Debug, Default)]
pub(crate) struct Completions(smallvec::SmallVec<[(Request, NTSTATUS, usize); 2]>);

impl Completions {
    /// Notes that `request` ends with these results.
    pub(crate) fn push(&mut self, request: Request, status: NTSTATUS, information: usize) {
        self.0.push((request, status, information));
    }

    /// Completes them all. No lock of the provider may be held.
    pub(crate) fn run(self, provider: &Inner) {
        for (request, status, information) in self.0 {
            request.complete_exactly(provider, status, information);
        }
    }
}
