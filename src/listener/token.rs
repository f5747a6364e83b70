//! The right to decide a pended request, once.

use core::fmt;
use core::future::Future;
use core::net::SocketAddr;
use core::pin::{Pin, pin};
use core::task::{Context, Poll};

use wsk_sys::STATUS_REQUEST_ABORTED;

use super::InspectId;
use super::pending::{Decided, Record};
use super::stage::Stage;
use crate::address;
use crate::error::{Error, Operation, Result};
use crate::memory::Ref;

/// A pended connection request (`WskInspectPend`), to be decided once (`WskInspectComplete`), from any
/// thread.
///
/// It owns everything that deciding needs, so that deciding cannot fail for want of memory. Dropped undecided
/// it rejects. If the request is aborted, or the listener closes, it becomes inert: nothing it does has an
/// effect, and it says so. It never decides another request, also if that has the same ID by now.
///
/// A gate may keep the tokens of its own listener; they keep nothing of a listener that has closed but
/// memory.
#[must_use = "a dropped token rejects the request"]
pub struct InspectToken {
    record: Ref<Record>,
    decided: bool,
}

/// Decision on a pended request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let the connection be established.
    Accept,
    /// Drop the request.
    Reject,
}

impl InspectToken {
    pub(super) fn new(record: Ref<Record>) -> Self {
        Self { record, decided: false }
    }

    /// The request's ID.
    pub fn id(&self) -> InspectId {
        self.record.id()
    }

    /// The address the request came to; an IPv4 one also where the socket is an IPv6 one
    /// ([`address::canonical`]).
    pub fn local_addr(&self) -> SocketAddr {
        address::canonical(self.record.endpoints().local)
    }

    /// As [`Self::local_addr`], as WSK gave it: an IPv4-mapped address stays one.
    pub fn raw_local_addr(&self) -> SocketAddr {
        self.record.endpoints().local
    }

    /// The address the request came from; an IPv4 one also where the socket is an IPv6 one
    /// ([`address::canonical`]).
    pub fn peer_addr(&self) -> SocketAddr {
        address::canonical(self.record.endpoints().peer)
    }

    /// As [`Self::peer_addr`], as WSK gave it: an IPv4-mapped address stays one.
    pub fn raw_peer_addr(&self) -> SocketAddr {
        self.record.endpoints().peer
    }

    /// Returns whether the request is gone.
    pub fn is_aborted(&self) -> bool {
        self.record.is_aborted()
    }

    /// Decides the request, at once; the result is only how WSK took it, and need not be waited for.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`; not in a completion routine.
    pub fn decide(mut self, verdict: Verdict) -> InspectComplete {
        self.decided = true;
        let decided = Record::decide(&self.record, verdict == Verdict::Accept);
        InspectComplete { record: self.record.clone(), decided }
    }

    /// [`InspectToken::decide`] with accept.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`; not in a completion routine.
    pub fn accept(self) -> InspectComplete {
        self.decide(Verdict::Accept)
    }

    /// [`InspectToken::decide`] with reject.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`; not in a completion routine.
    pub fn reject(self) -> InspectComplete {
        self.decide(Verdict::Reject)
    }

    /// Resolves when the request is gone; pending for ever if that never happens, so use it in a selection.
    ///
    /// # Cancel safety
    /// May be dropped and made again at any time.
    pub fn aborted(&mut self) -> impl Future<Output = ()> + Send + '_ {
        core::future::poll_fn(|context| {
            if self.record.watch(context).is_gone() { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Runs `inspection` and decides what it says; an abort drops it unfinished.
    ///
    /// # Cancel safety
    /// Dropping this drops `inspection` and rejects the request.
    ///
    /// # Errors
    /// `STATUS_REQUEST_ABORTED` when the request went away first, or what WSK answered to the decision.
    pub async fn decide_with(mut self, inspection: impl Future<Output = Verdict>) -> Result<()> {
        let mut inspection = pin!(inspection);
        let verdict = {
            let mut aborted = pin!(self.aborted());
            core::future::poll_fn(|context| {
                if aborted.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                inspection.as_mut().poll(context).map(Some)
            })
            .await
        };
        match verdict {
            Some(verdict) => self.decide(verdict).await,
            None => Err(Error::new(Operation::InspectComplete, STATUS_REQUEST_ABORTED)),
        }
    }
}

impl Drop for InspectToken {
    fn drop(&mut self) {
        if !self.decided {
            Record::abandon(&self.record);
        }
    }
}

impl fmt::Debug for InspectToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InspectToken").field("id", &self.id()).field("aborted", &self.is_aborted()).finish()
    }
}

/// Resolves when WSK has taken a decision.
///
/// # Cancel safety
/// The decision was made; dropping this only forgets to ask how it went.
pub struct InspectComplete {
    record: Ref<Record>,
    decided: Decided,
}

impl Future for InspectComplete {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let gone = || Poll::Ready(Err(Error::new(Operation::InspectComplete, STATUS_REQUEST_ABORTED)));
        if self.decided == Decided::Gone {
            return gone();
        }
        match self.record.watch(context) {
            Stage::Accepted | Stage::Rejected => Poll::Ready(Ok(())),
            Stage::Aborted | Stage::Repeated => gone(),
            Stage::Completed => {
                Poll::Ready(self.record.outcome().result(Operation::InspectComplete).map(drop))
            }
            Stage::Asking | Stage::Pended | Stage::Dropped | Stage::Completing => Poll::Pending,
        }
    }
}

impl fmt::Debug for InspectComplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InspectComplete").field("id", &self.record.id()).finish_non_exhaustive()
    }
}
