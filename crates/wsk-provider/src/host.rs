//! Services that the provider needs from its host: threads, a place to report client bugs, and choices.
//!
//! `wsk-sim` implements [`Host`] over the user-mode kernel and its checker. The default methods answer as a
//! plain host would: nothing is injected, nothing is suspected.

use std::fmt::Debug;
use std::io;

use wsk_sys::nt::IRP;

/// Severity of a [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The client broke a rule of the contract.
    Violation,
    /// Legal, but the documentation advises against it.
    Advice,
}

/// Something the client or the host did, seen from the provider's side of the interface.
#[derive(Clone, Debug)]
pub struct Report {
    /// The rule, as numbered in the contract's rule list; `-` if it is the host that fails, not the client.
    pub rule: &'static str,
    /// Severity of the report.
    pub severity: Severity,
    /// The WSK function or callback concerned.
    pub call: &'static str,
    /// Description of what was seen.
    pub detail: String,
}

/// A place where the contract leaves the provider a choice (contract 5.10). Alternative 0 is always the
/// natural one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultPoint {
    /// N4: 1 = call the event although an IRP is queued.
    EventDespiteIrp,
    /// N6: 1 = drop the request right after the inspection answered accept, before delivery.
    DropAfterAccept,
    /// N6: 1 = drop the request right after the inspection answered pend.
    DropAfterPend,
    /// 1 = the peer sends its request again while it is pended (INSP-34).
    Retransmission,
    /// 1 = the peer sends its request again while `WskInspectComplete` runs (INSP-34).
    RetransmissionDuringComplete,
    /// N6: 1 = the request is dropped while `WskInspectComplete` runs.
    DropDuringComplete,
    /// N5: 1 = the socket dies at the start of this call.
    DieInCall,
    /// N9: how an indication list is cut: 0 = one element, 1 = several elements, 2 = MDL chains and offsets,
    /// 3 = with zero-length elements, 4 = an MDL that is not mapped yet.
    IndicationShape,
    /// N10: 1 = leave control messages out, 2 = indicate an empty datagram with a null MDL.
    DatagramShape,
    /// N11: 1 = a cancelled WAITALL receive reports the bytes it had got.
    CancelledWaitAll,
    /// N12: 1 = indicate datagrams on a second thread at the same time.
    ConcurrentReceiveFrom,
    /// N16: 1 = an allocation for a new object fails.
    AllocationFails,
    /// 1 = a close ends with a failure; the socket is gone all the same.
    CloseFails,
    /// 1 = a small or zero `WSK_FLAG_RELEASE_ASAP` hint is given.
    ReleaseAsap,
    /// The result of `WskInspectComplete` for an aborted request, where the behaviour says "either".
    AbortedCompletion,
    /// True if a closing listener raises aborts, where the behaviour says "either".
    AbortAtClose,
    /// The status of transfers after a reset, where the behaviour says "either".
    ResetStatus,
    /// 1 = an ioctl without an IRP cannot be done inline now (IRP-20).
    NotInline,
}

/// Location of the calling thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallSite {
    /// The innermost client callback the thread is inside of.
    pub callback: Option<&'static str>,
    /// Number of IRP completion routines that the thread is inside of.
    pub completion_depth: u32,
}

/// The client's memory that a [`Host`] watches, in the host's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub usize, pub u64);

/// The embedder of a provider.
pub trait Host: Send + Sync + Debug + 'static {
    /// Runs `body` on a new thread that belongs to the same kernel as the provider.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()>;

    /// Takes note of something the client did.
    fn report(&self, report: Report);

    /// Chooses one of `alternatives` ways to go on, 0 being the natural one.
    fn choose(&self, point: FaultPoint, alternatives: u32) -> u32 {
        let _ = (point, alternatives);
        0
    }

    /// Marks that the thread enters the client callback `name`; the result is given back to
    /// [`leave_callback`]. The provider has raised the IRQL already when `at_dispatch` is set.
    ///
    /// [`leave_callback`]: Self::leave_callback
    fn enter_callback(&self, name: &'static str, at_dispatch: bool) -> u64 {
        let _ = (name, at_dispatch);
        0
    }

    /// Marks that the callback entered with this token has returned.
    fn leave_callback(&self, token: u64) {
        let _ = token;
    }

    /// The provider has acted on the answer of the callback that this thread left last: to everyone else it
    /// is over. Nothing that waits for its end, such as a disabling or a close, has been completed yet.
    fn callback_settled(&self) {}

    /// Looks at an IRP that a client hands to `call`, before anything is done with it, and reports what is
    /// wrong with it (IRP-01, IRP-02, IRP-06). False if it must be left alone; else the provider looks at the
    /// rest, and takes it.
    ///
    /// # Safety
    /// `irp` points to readable storage of the size of an IRP.
    unsafe fn check_irp(&self, irp: *mut IRP, call: &'static str) -> bool {
        let _ = (irp, call);
        true
    }

    /// Returns where the calling thread is.
    fn call_site(&self) -> CallSite {
        CallSite::default()
    }

    /// Returns whether the calling thread holds a spin lock, so that it must not wait for what may need it.
    fn holds_spin_lock(&self) -> bool {
        false
    }

    /// Returns whether the range is non-paged memory: pool, or a static of the image.
    fn is_non_paged(&self, address: *const u8, length: usize) -> bool {
        let _ = (address, length);
        true
    }

    /// The word at `address`, which a client has left there and which may be anything; `None` if there is
    /// none in the client's non-paged memory, or the host does not know. That memory must not go while it is
    /// looked at.
    fn word_at(&self, address: *const u8) -> Option<usize> {
        let _ = address;
        None
    }

    /// The client's memory at `address` is needed for `what`, and the client breaks `rule` when it frees it
    /// before the result is given back to [`unpin`](Self::unpin). `None` if the host does not watch that
    /// memory.
    fn pin(&self, address: *const u8, rule: &'static str, what: &'static str) -> Option<Pin> {
        let _ = (address, rule, what);
        None
    }

    /// The memory is needed no longer.
    fn unpin(&self, pin: Pin) {
        let _ = pin;
    }

    /// Returns whether `address` lies in memory that the client has freed.
    fn is_freed(&self, address: *const u8) -> bool {
        let _ = address;
        false
    }

    /// Returns the number of bytes that the client has at `address`, as far as the host knows.
    fn room(&self, address: *const u8) -> Option<usize> {
        let _ = address;
        None
    }

    /// Returns whether the range will keep its place and its contents: a static of the image, or pool.
    fn is_constant(&self, address: *const u8, length: usize) -> bool {
        self.is_non_paged(address, length)
    }
}
