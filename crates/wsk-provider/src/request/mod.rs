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
//! The thread that swaps the IRP's cancel routine for null owns the completion; this settles the race between
//! a success and a cancellation. A [`Request`] is completed exactly once because completing consumes it; one
//! that is dropped completes as cancelled, so that no IRP is lost.

mod fields;
mod pinned;
mod queue;

pub(crate) use pinned::{PinnedMemory, Purpose};
pub(crate) use queue::RequestQueue;

use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use wsk_sys::nt::{self, IRP, MEMORY_ALLOCATION_ALIGNMENT, NTSTATUS, PSECURITY_DESCRIPTOR};
use wsk_sys::{
    STATUS_CANCELLED, STATUS_INVALID_PARAMETER, STATUS_PENDING, WSK_BUF, WSK_BUF_LIST, nt_success,
};

use self::pinned::PinList;
use crate::client::Client;
use crate::dispatch::decoy;
use crate::live_config::Timing;
use crate::provider::Inner;
use crate::socket::{Category, Socket};

/// Marks an IRP as pended by a provider, in the fourth word of its driver context.
const PENDED_MARK: usize = 0x5753_4B50;

/// Owner of a pended request, which the request keeps from being torn down.
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

    fn request_done(&self, closes: bool) {
        match self {
            Self::Socket(socket) if closes => Socket::close_done(socket),
            Self::Socket(socket) => Socket::request_done(socket),
            Self::Client(client) => client.request_done(),
        }
    }
}

/// Owner of pended requests.
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

/// Part of a request that exists once it is marked pending.
///
/// # Invariants
/// The owner counts the request, unless it closes the owner. `pinned` is unpinned before the IRP completes.
#[derive(Debug)]
struct Pended {
    owner: Owner,
    pinned: PinnedMemory,
    /// It is the owner's close: once it has completed, and not before, the owner is gone.
    closes: bool,
}

impl Pended {
    /// Only the owner: the queue entry that had the pinned memory is gone.
    fn of(owner: Owner) -> Self {
        Self { owner, pinned: PinnedMemory::default(), closes: false }
    }

    fn unpin(&mut self) {
        self.pinned.unpin(self.owner.provider());
    }
}

impl Drop for Pended {
    fn drop(&mut self) {
        self.unpin();
    }
}

/// One IRP that the provider has to complete.
///
/// # Invariants
/// The IRP was submitted by a client, its current stack location is the provider's, it has not been
/// completed, and no cancel routine is armed. `pended` is present exactly when the IRP is marked pending.
/// From then on until it completes its status is `STATUS_PENDING`.
#[derive(Debug)]
pub(crate) struct Request {
    irp: NonNull<IRP>,
    pin_list: PinList,
    /// Value of `Information` while the request is pending.
    decoy: usize,
    pended: Option<Pended>,
}

// SAFETY: an IRP has no thread affinity; the one `Request` for it is its sole owner.
unsafe impl Send for Request {}

impl Request {
    /// Takes ownership of an IRP. If it is null or unusable, reports the violation and returns the status for
    /// the call to return.
    ///
    /// # Safety
    /// `irp` is null or points to a live IRP that the client gives up.
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
        if !irp.addr().get().is_multiple_of(MEMORY_ALLOCATION_ALIGNMENT) {
            let detail = format!("the IRP at {irp:p} is not aligned to {MEMORY_ALLOCATION_ALIGNMENT} bytes");
            provider.violation("IRP-28", call, &detail);
            if !irp.is_aligned() {
                return Err(STATUS_INVALID_PARAMETER);
            }
        }
        // SAFETY: the caller passes a live IRP and gives it up.
        if !unsafe { provider.host.check_irp(irp.as_ptr(), call) } {
            return Err(STATUS_INVALID_PARAMETER);
        }
        // SAFETY: the caller passes a live IRP and gives it up.
        let location = unsafe { nt::irp_current_location(irp.as_ptr()) };
        if location <= 1 {
            // SAFETY: the caller passes a live IRP and gives it up.
            let count = unsafe { nt::irp_stack_count(irp.as_ptr()) };
            // SAFETY: the caller passes a live IRP and gives it up; a pended IRP keeps its driver context,
            // which only the provider writes.
            let context = unsafe { nt::irp_driver_context(irp.as_ptr()) };
            if context[3] as usize == PENDED_MARK {
                provider.violation("IRP-06", call, "the IRP is still pending in another call");
            } else {
                let detail = format!("the IRP has no free stack location ({count} in all)");
                provider.violation("IRP-01", call, &detail);
            }
            return Err(STATUS_INVALID_PARAMETER);
        }
        // SAFETY: the client gave up the IRP and it has a free stack location.
        unsafe { fields::check(provider, call, irp.as_ptr()) };
        // SAFETY: the client gave up the IRP and it has a free stack location.
        unsafe { nt::io_set_next_irp_stack_location(irp.as_ptr()) };
        Ok(Self { irp, pin_list: PinList::default(), decoy: 0, pended: None })
    }

    /// A request that was marked pending before.
    fn pended(irp: NonNull<IRP>, pended: Pended) -> Self {
        Self { irp, pin_list: PinList::default(), decoy: 0, pended: Some(pended) }
    }

    /// Records that the outcome is a socket of `category`.
    pub(crate) fn makes(&mut self, category: Category) {
        self.decoy = decoy::of(category);
    }

    /// Records that a cached security descriptor is used until the IRP completes.
    pub(crate) fn needs_descriptor(&mut self, descriptor: PSECURITY_DESCRIPTOR) {
        self.pin_list.add_descriptor(descriptor);
    }

    /// Records that the memory at `address`, if any, is needed until the IRP completes.
    pub(crate) fn needs<T>(&mut self, address: *const T, purpose: Purpose) {
        self.pin_list.add(address, purpose);
    }

    /// Records that the chain of a buffer is needed until the IRP completes.
    ///
    /// # Safety
    /// `buffer` is null or points to a descriptor; its chain stays until the IRP completes.
    pub(crate) unsafe fn needs_buffer(&mut self, buffer: *const WSK_BUF) {
        // SAFETY: the caller guarantees that `buffer` is null or points to a descriptor; its chain stays
        // until the IRP completes.
        unsafe { self.pin_list.add_buffer(buffer) };
    }

    /// Records that a list and its buffers are needed until the IRP completes.
    ///
    /// # Safety
    /// `list` is null or points to a list that stays, with its buffers, until the IRP completes.
    pub(crate) unsafe fn needs_list(&mut self, list: *const WSK_BUF_LIST) {
        // SAFETY: the caller guarantees that `list` is null or points to a list that stays, with its buffers,
        // until the IRP completes.
        unsafe { self.pin_list.add_list(list) };
    }

    /// Fails the call: completes with `status` and returns it.
    pub(crate) fn fail(self, provider: &Inner, status: NTSTATUS) -> NTSTATUS {
        let pending = self.pended.is_some();
        self.complete(provider, status, 0);
        if pending { STATUS_PENDING } else { status }
    }

    /// Completes with an outcome that is known now, and returns the status for the call to return. The
    /// configuration decides whether the completion is inline.
    pub(crate) fn finish(self, owner: &impl Owns, status: NTSTATUS, information: usize) -> NTSTATUS {
        let timing = owner.machine().live_config.timing(false);
        self.finish_timed(owner, timing, status, information)
    }

    /// Like [`finish_pended`](Self::finish_pended); `then` runs when the request has completed.
    pub(crate) fn finish_pended_then(
        mut self,
        owner: &impl Owns,
        status: NTSTATUS,
        information: usize,
        then: impl FnOnce() + Send + 'static,
    ) -> NTSTATUS {
        let provider = owner.machine();
        let timing = provider.live_config.timing(true);
        match timing {
            Timing::Inline | Timing::Nested => {
                let answer = self.finish_timed(owner, timing, status, information);
                then();
                answer
            }
            Timing::Early | Timing::Late => {
                self.mark_pending(owner);
                let completer = provider.completer();
                completer.complete_then(
                    provider,
                    self,
                    status,
                    information,
                    timing == Timing::Late,
                    Box::new(then),
                );
                STATUS_PENDING
            }
        }
    }

    /// Like [`finish`](Self::finish), for the calls that Windows was seen to complete later.
    pub(crate) fn finish_pended(self, owner: &impl Owns, status: NTSTATUS, information: usize) -> NTSTATUS {
        let timing = owner.machine().live_config.timing(true);
        self.finish_timed(owner, timing, status, information)
    }

    /// Completes at the given time. A failed request reports no information (IRP-22).
    pub(crate) fn finish_timed(
        self,
        owner: &impl Owns,
        timing: Timing,
        status: NTSTATUS,
        information: usize,
    ) -> NTSTATUS {
        let information = if nt_success(status) { information } else { 0 };
        self.finish_exactly(owner, timing, status, information)
    }

    /// Completes at the given time with exactly these results.
    pub(crate) fn finish_exactly(
        mut self,
        owner: &impl Owns,
        timing: Timing,
        status: NTSTATUS,
        information: usize,
    ) -> NTSTATUS {
        let provider = owner.machine();
        if timing == Timing::Inline {
            self.complete_exactly(provider, status, information);
            return status;
        }
        self.mark_pending(owner);
        match timing {
            Timing::Inline | Timing::Nested => self.complete_exactly(provider, status, information),
            Timing::Early => provider.completer().complete_early(provider, self, status, information),
            Timing::Late => provider.completer().complete_late(provider, self, status, information),
        }
        STATUS_PENDING
    }

    /// Marks the IRP pending: its call returns `STATUS_PENDING` in any case.
    pub(crate) fn mark_pending(&mut self, owner: &impl Owns) {
        if self.pended.is_none() {
            let owner = owner.owner();
            owner.request_pended();
            self.pend(owner, false);
        }
    }

    /// Marks the IRP of `socket`'s close pending. The socket counts what must end before that, hence not
    /// this.
    pub(crate) fn mark_closing(&mut self, socket: &Arc<Socket>) {
        self.pend(socket.owner(), true);
    }

    fn pend(&mut self, owner: Owner, closes: bool) {
        // SAFETY: the request owns the IRP, which has been submitted.
        unsafe { nt::io_mark_irp_pending(self.irp.as_ptr()) };
        let (pointer, kind) = match &owner {
            Owner::Socket(socket) => (Arc::as_ptr(socket).cast_mut().cast(), 0),
            Owner::Client(client) => (Arc::as_ptr(client).cast_mut().cast(), 1),
        };
        let context = [pointer, kind as *mut _, std::ptr::null_mut(), PENDED_MARK as *mut _];
        // SAFETY: the request owns the IRP, and the driver context is for the driver that does.
        unsafe { nt::set_irp_driver_context(self.irp.as_ptr(), context) };
        let mut pinned = mem::take(&mut self.pin_list).pin(owner.provider());
        self.show_pending(owner.provider(), &mut pinned);
        self.pended = Some(Pended { owner, pinned, closes });
    }

    /// Gives the IRP the fields of a pending one, and pins the context of its completion routine (IRP-10,
    /// IRP-12).
    fn show_pending(&self, provider: &Inner, pinned: &mut PinnedMemory) {
        let irp = self.irp.as_ptr();
        // SAFETY: the request owns the IRP.
        unsafe { nt::set_irp_status(irp, STATUS_PENDING) };
        // SAFETY: the request owns the IRP.
        unsafe { nt::set_irp_information(irp, self.decoy) };
        if provider.live_config.watches_memory() {
            // SAFETY: the request owns the IRP.
            let location = unsafe { nt::irp_stack_pointer(irp) };
            // SAFETY: the request owns the IRP; the current location is the provider's.
            let context = unsafe { nt::stack_context(location) };
            pinned.add(&*provider.host, context, "IRP-10", "the completion routine of a pending request");
        }
    }

    /// IRP-10: only the provider writes to a pending IRP.
    fn check_untouched(&self, provider: &Inner) {
        // SAFETY: the request owns the IRP.
        let status = unsafe { nt::irp_status(self.irp.as_ptr()) };
        if status != STATUS_PENDING {
            let detail = format!("the client wrote the status {status:#010x} to a pending IRP");
            provider.violation("IRP-10", "IofCompleteRequest", &detail);
        }
    }

    /// Returns whether the call that brought the IRP returns, or has returned, `STATUS_PENDING`.
    pub(crate) fn is_pending(&self) -> bool {
        self.pended.is_some()
    }

    /// Returns whether the client has asked to cancel the IRP.
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
    pub(crate) fn complete_exactly(self, provider: &Inner, status: NTSTATUS, information: usize) {
        if self.is_pending() {
            self.check_untouched(provider);
        }
        let (irp, mut pended) = self.take_apart();
        let irp = irp.as_ptr();
        // SAFETY: the request owned the IRP; no other owner reads it before it is completed below.
        unsafe { nt::set_irp_status(irp, status) };
        // SAFETY: the request owned the IRP; no other owner reads it before it is completed below.
        unsafe { nt::set_irp_information(irp, information) };
        if let Some(pended) = &mut pended {
            pended.unpin();
            // SAFETY: the request owned the IRP; no other owner reads it before it is completed below.
            unsafe { nt::set_irp_driver_context(irp, [std::ptr::null_mut(); 4]) };
        }
        let raised = Inner::raise(provider.live_config.completion_level());
        // SAFETY: the request owned the IRP and gives it up here, once.
        unsafe { nt::IofCompleteRequest(irp, nt::IO_NO_INCREMENT as i8) };
        drop(raised);
        if let Some(pended) = pended {
            pended.owner.request_done(pended.closes);
        }
    }

    /// Returns the IRP and its pended part; the caller completes it.
    fn take_apart(mut self) -> (NonNull<IRP>, Option<Pended>) {
        let (irp, pended) = (self.irp, self.pended.take());
        drop(mem::take(&mut self.pin_list));
        mem::forget(self);
        (irp, pended)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let irp = self.irp;
        match self.pended.take() {
            Some(pended) => {
                let provider = Arc::clone(pended.owner.provider());
                Self::pended(irp, pended).complete(&provider, STATUS_CANCELLED, 0);
            }
            None => unreachable!("a request was dropped inside its call"),
        }
    }
}

/// Results of requests, collected under a lock and completed after it.
#[derive(Debug, Default)]
pub(crate) struct Completions(SmallVec<[(Request, NTSTATUS, usize); 1]>);

impl Completions {
    /// Records that `request` ends with these results.
    pub(crate) fn push(&mut self, request: Request, status: NTSTATUS, information: usize) {
        self.0.push((request, status, information));
    }

    /// Returns whether there is nothing to complete.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Completes them all. No lock of the provider may be held.
    pub(crate) fn run(mut self, provider: &Inner) {
        for (request, status, information) in self.0.drain(..) {
            request.complete_exactly(provider, status, information);
        }
    }
}
