//! Configuration of a provider: everything that may differ between two Windows machines, or two runs on one.

use std::sync::Arc;
use std::time::Duration;

use crate::behaviours::Behaviours;
use crate::socket::Extension;

/// Time of completion of a request whose outcome is known at once (contract 5.10, N1 and N2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completion {
    /// As seen on Windows: calls that create, bind, connect and close sockets or transfer data pend, and
    /// complete during or after the return of the call. Calls that only query or set values complete inline.
    #[default]
    Natural,
    /// Before the call returns the final status, on the calling thread.
    Inline,
    /// Before the call returns `STATUS_PENDING`, on the calling thread.
    PendNested,
    /// Before the call returns `STATUS_PENDING`, on another thread.
    PendEarly,
    /// After the call has returned `STATUS_PENDING`, on another thread.
    PendLate,
    /// Any of these, drawn for each request from a generator with this seed.
    Random(u64),
}

/// IRQL of client code that the provider calls (contract 5.10, N3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// `PASSIVE_LEVEL`, unless the thread is already above it.
    #[default]
    Passive,
    /// `DISPATCH_LEVEL`; callbacks with a `Flags` argument get `WSK_FLAG_AT_DISPATCH_LEVEL`.
    Dispatch,
    /// Either, with the flag only sometimes; drawn from a generator with this seed.
    Random(u64),
}

/// Windows release of the provider; selects the functions and codes of its `wsk.h` (contract 0.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// Vista: the base.
    Vista,
    /// Windows 7: name resolution.
    Windows7,
    /// Windows 8: `WskSendMessages`, silent mode.
    Windows8,
    /// 1703: stream sockets, `WskConnectEx`.
    Redstone2,
    /// 1709: `WSK_FLAG_OOB`.
    Redstone3,
    /// 1803 and later: the Ex transfers.
    #[default]
    Redstone4,
}

/// The settings of a provider.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time of completion of requests whose outcome is known at once.
    pub completion: Completion,
    /// Delay of a late completion.
    pub late_by: Duration,
    /// The IRQL of event callbacks.
    pub callbacks: Level,
    /// The IRQL of completion routines.
    pub completions: Level,
    /// The lowest WSK version served.
    pub lowest_version: u16,
    /// The highest WSK version served.
    pub highest_version: u16,
    /// The Windows release.
    pub release: Release,
    /// Maximum number of connections that wait on a listener (LSN-37).
    pub backlog: usize,
    /// Maximum number of datagrams that wait on a socket (DGR-32).
    pub datagrams: usize,
    /// The ideal send backlog of a new connection (SND-14).
    pub ideal_send_backlog: usize,
    /// True if the transport supports conditional accept (OPT-08).
    pub conditional_accept: bool,
    /// True if client memory in use is pinned with the host, which then detects that it is freed too early.
    pub watch_memory: bool,
    /// True if the kernel marks MDLs of locked pages or non-paged pool, so that an unmarked one is a
    /// violation (SND-09). Wine's kernel marks none; there the memory is at the address in the MDL.
    pub marked_mdls: bool,
    /// Maximum depth of nested completion routines in which calls are not reported (IRP-14).
    pub completion_depth: u32,
    /// Time after which a capture that waits without a timeout is reported as advice (REG-29).
    pub capture_patience: Duration,
    /// Maximum time that a decision waits for the return of its inspection callback, if it is unknown whether
    /// the callback is about to return; after that the decision is kept until the return. If the host reports
    /// that the callback sleeps or runs for long, the decision is known to be early.
    pub return_patience: Duration,
    /// Time after which a deregistration that waits for captures of the calling thread is reported as a
    /// deadlock (REG-26).
    pub self_deadlock_after: Duration,
    /// True if the deregistration then reports a violation, releases these captures and continues. Otherwise
    /// it continues to wait: another thread may still release them. For tests of clients that do not.
    pub breaks_deadlocks: bool,
    /// Extension interfaces of sockets.
    pub extensions: Vec<Arc<dyn Extension>>,
    /// Selected behaviors where the contract leaves a choice.
    pub behaviours: Behaviours,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            completion: Completion::Natural,
            late_by: Duration::from_micros(200),
            callbacks: Level::Passive,
            completions: Level::Passive,
            lowest_version: 0x0100,
            highest_version: 0x0100,
            release: Release::Redstone4,
            backlog: 128,
            datagrams: 256,
            ideal_send_backlog: 64 * 1024,
            conditional_accept: true,
            watch_memory: true,
            marked_mdls: true,
            completion_depth: 1,
            capture_patience: Duration::from_secs(5),
            return_patience: Duration::from_secs(10),
            self_deadlock_after: Duration::from_millis(500),
            breaks_deadlocks: false,
            extensions: Vec::new(),
            behaviours: Behaviours::default(),
        }
    }
}
