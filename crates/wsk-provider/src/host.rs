//! The embedder interface: threads, reports of client bugs, and choices.
//!
//! `wsk-sim` implements [`Host`] over the user-mode kernel and its checker. The default methods are those of
//! a plain host: no faults are injected, and nothing is checked.

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

/// A finding about the client or the host.
#[derive(Clone, Debug)]
pub struct Report {
    /// Number of the rule in the contract's rule list; `-` for a failure of the host.
    pub rule: &'static str,
    /// Severity of the report.
    pub severity: Severity,
    /// The WSK function or callback concerned.
    pub call: &'static str,
    /// Description of the finding.
    pub detail: String,
}

/// A point at which the contract leaves the provider a choice (contract 5.10). Alternative 0 is always the
/// default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultPoint {
    /// N4: 1 = call the event although an IRP is queued.
    EventDespiteIrp,
    /// N6: 1 = drop the request right after the inspection has returned accept, before delivery.
    DropAfterAccept,
    /// N6: 1 = drop the request right after the inspection has returned pend.
    DropAfterPend,
    /// 1 = the peer sends its request again while it is pended (INSP-34).
    Retransmission,
    /// 1 = the peer sends its request again while `WskInspectComplete` runs (INSP-34).
    RetransmissionDuringComplete,
    /// N6: 1 = the request is dropped while `WskInspectComplete` runs.
    DropDuringComplete,
    /// N5: 1 = the socket dies at the start of this call.
    DieInCall,
    /// N9: shape of an indication list: 0 = one element, 1 = several elements, 2 = MDL chains and offsets,
    /// 3 = with zero-length elements, 4 = an MDL that is not mapped yet.
    IndicationShape,
    /// N10: 1 = leave control messages out, 2 = indicate an empty datagram with a null MDL.
    DatagramShape,
    /// N11: 1 = a cancelled WAITALL receive reports the bytes received so far.
    CancelledWaitAll,
    /// N12: 1 = indicate datagrams on a second thread at the same time.
    ConcurrentReceiveFrom,
    /// N16: 1 = an allocation for a new object fails.
    AllocationFails,
    /// 1 = a close fails; the socket is gone nevertheless.
    CloseFails,
    /// 1 = a small or zero `WSK_FLAG_RELEASE_ASAP` hint is given.
    ReleaseAsap,
    /// Result of `WskInspectComplete` for an aborted request, if the behavior is "either".
    AbortedCompletion,
    /// 1 = a closing listener calls `WskAbortEvent`, if the behavior is "either".
    AbortAtClose,
    /// Status of transfers after a reset, if the behavior is "either".
    ResetStatus,
    /// 1 = an IOCTL without an IRP cannot complete inline (IRP-20).
    NotInline,
}

/// Call context of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallSite {
    /// The innermost client callback that is running on the thread.
    pub callback: Option<&'static str>,
    /// Number of nested IRP completion routines on the thread.
    pub completion_depth: u32,
}

/// Handle of client memory that a [`Host`] watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub usize, pub u64);

/// The embedder of a provider.
pub trait Host: Send + Sync + Debug + 'static {
    /// Runs `body` on a new thread that belongs to the same kernel as the provider.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()>;

    /// Records a finding.
    fn report(&self, report: Report);

    /// Chooses a number below `alternatives`; 0 is the default.
    fn choose(&self, point: FaultPoint, alternatives: u32) -> u32 {
        let _ = (point, alternatives);
        0
    }

    /// Marks that the thread enters the client callback `name`; the result is for [`leave_callback`]. If
    /// `at_dispatch` is set, the provider has already raised the IRQL.
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

    /// Marks that the provider has processed the result of the last callback of this thread. Operations that
    /// wait for its end, such as a disable or a close, have not completed yet.
    fn callback_settled(&self) {}

    /// Checks an IRP that a client passes to `call`, before any use, and reports violations (IRP-01, IRP-02,
    /// IRP-06). False if it must not be used; otherwise the provider makes further checks and takes it.
    ///
    /// # Safety
    /// `irp` points to readable storage of the size of an IRP.
    unsafe fn check_irp(&self, irp: *mut IRP, call: &'static str) -> bool {
        let _ = (irp, call);
        true
    }

    /// Returns the call context of the calling thread.
    fn call_site(&self) -> CallSite {
        CallSite::default()
    }

    /// Returns whether the calling thread holds a spin lock, so that it must not wait for other threads.
    fn holds_spin_lock(&self) -> bool {
        false
    }

    /// Returns whether the range is non-paged memory: pool, or a static of the image.
    fn is_non_paged(&self, address: *const u8, length: usize) -> bool {
        let _ = (address, length);
        true
    }

    /// Reads the word at `address` in client memory, with any contents; `None` if the address is not in
    /// non-paged memory of the client, or the host does not know. The memory must not be freed during the
    /// read.
    fn word_at(&self, address: *const u8) -> Option<usize> {
        let _ = address;
        None
    }

    /// Pins the client memory at `address` for `what`: the client breaks `rule` if it frees it before
    /// [`unpin`](Self::unpin). `None` if the host does not watch that memory.
    fn pin(&self, address: *const u8, rule: &'static str, what: &'static str) -> Option<Pin> {
        let _ = (address, rule, what);
        None
    }

    /// Ends the pin.
    fn unpin(&self, pin: Pin) {
        let _ = pin;
    }

    /// Returns whether `address` is in memory that the client has freed.
    fn is_freed(&self, address: *const u8) -> bool {
        let _ = address;
        false
    }

    /// Returns the number of bytes of client memory at `address`; `None` if unknown.
    fn room(&self, address: *const u8) -> Option<usize> {
        let _ = address;
        None
    }

    /// Returns whether the range stays valid: a static of the image, or pool.
    fn is_constant(&self, address: *const u8, length: usize) -> bool {
        self.is_non_paged(address, length)
    }
}
