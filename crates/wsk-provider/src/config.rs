//! Behaviour of a provider: everything that may differ between two Windows machines, or two runs on one.

use std::sync::Arc;
use std::time::Duration;

use crate::behaviours::Behaviours;
use crate::socket::Extension;

/// Time of completion of a request whose outcome is known at once (contract 5.10, N1 and N2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completion {
    /// As Windows was seen to: what makes, binds, connects and closes sockets and what moves data pends, and
    /// completes once the call has returned, or while it does. What only asks or sets something completes
    /// inline.
    #[default]
    Natural,
    /// Before the call returns, by the calling thread, which then returns the outcome.
    Inline,
    /// Before the call returns `STATUS_PENDING`, by the calling thread.
    PendNested,
    /// Before the call returns `STATUS_PENDING`, by another thread.
    PendEarly,
    /// After the call returned `STATUS_PENDING`, by another thread.
    PendLate,
    /// Any of these, drawn for each request from a generator with this seed.
    Random(u64),
}

/// The IRQL of client code that the provider calls (contract 5.10, N3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// `PASSIVE_LEVEL`, unless the thread is higher already.
    #[default]
    Passive,
    /// `DISPATCH_LEVEL`, and the callbacks with a flags argument are told.
    Dispatch,
    /// Either, and callbacks are told only sometimes; drawn from a generator with this seed.
    Random(u64),
}

/// The Windows release whose WSK is shown: what appeared in `wsk.h` when (contract 0.3).
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
    /// Time: how long a late completion stays behind its call.
    pub late_by: Duration,
    /// The IRQL of event callbacks.
    pub callbacks: Level,
    /// The IRQL of completion routines.
    pub completions: Level,
    /// The lowest WSK version served.
    pub lowest_version: u16,
    /// The highest WSK version served.
    pub highest_version: u16,
    /// The Windows release shown.
    pub release: Release,
    /// Number of connections that wait untaken on a listener (LSN-37).
    pub backlog: usize,
    /// Number of datagrams that wait unread on a socket (DGR-32).
    pub datagrams: usize,
    /// The ideal send backlog of a new connection (SND-14).
    pub ideal_send_backlog: usize,
    /// True if the transport shown can do conditional accept (OPT-08).
    pub conditional_accept: bool,
    /// True if the host is told which memory of the client's is in use, so that it sees it freed too early.
    pub watch_memory: bool,
    /// True if the kernel marks in an MDL that it describes locked pages or non-paged pool, so that one
    /// without a mark is the client's mistake (SND-09). Wine's marks none, and there the memory is where the
    /// MDL says.
    pub marked_mdls: bool,
    /// Depth to which completion routines may start calls before it is reported (IRP-14).
    pub completion_depth: u32,
    /// Time: how long a capture without end waits for the provider before that is called unwise (REG-29).
    pub capture_patience: Duration,
    /// Time: how long a decision waits for the return of its inspection callback, of which nobody can tell
    /// whether it is on its way out, before it is put aside until that has returned. Where the host tells
    /// that the callback sleeps for long, or has run for long, the decision is known to be early.
    pub return_patience: Duration,
    /// Time: how long a deregistration waits for the calling thread's own captures before that is called a
    /// deadlock (REG-26).
    pub self_deadlock_after: Duration,
    /// True if the deregistration takes these captures back then, which is a broken rule, and goes on.
    /// Otherwise it goes on waiting: another thread may yet release them. For tests of clients that do not.
    pub breaks_deadlocks: bool,
    /// The extension interfaces that sockets have.
    pub extensions: Vec<Arc<dyn Extension>>,
    /// Choices where the contract leaves the behaviour open.
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
