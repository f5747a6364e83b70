//! In whose call a thread is: the driver's own, a callback of the provider, a completion routine.
//!
//! Contexts nest, since a callback may start a request that completes inline. Each thread keeps a summary of its nest;
//! entering changes the summary and dropping the guard restores the former one:
//!
//! ```text
//!   Thread ──enter(Callback)──► Callback ──enter(Completion)──► Completion, callback known, depth 1
//!     ▲            guard dropped │   ▲            guard dropped │
//!     └──────────────────────────┘   └──────────────────────────┘
//! ```

use std::marker::PhantomData;
use std::time::Duration;

use wsk_sys::nt::{DISPATCH_LEVEL, KIRQL};

use super::violation::{Severity, rule};
use crate::image::Routine;
use crate::irql;
use crate::thread::this;

/// Whose call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// The thread's own code.
    Thread,
    /// A callback of the provider.
    Callback {
        /// The name of the callback in the contract, such as `WskInspectEvent`.
        name: &'static str,
    },
    /// A completion routine of an IRP.
    Completion,
    /// A cancel routine of an IRP.
    Cancel,
    /// A deferred procedure call.
    Dpc,
    /// A work item.
    WorkItem,
    /// The unload routine of a driver.
    Unload,
}

/// What encloses the point where the calling thread is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nest {
    /// The innermost context.
    pub innermost: Context,
    /// The name of the innermost callback, if there is one around.
    pub callback: Option<&'static str>,
    /// How many callbacks there are around.
    pub callbacks: u32,
    /// How many completion routines there are around.
    pub completions: u32,
    /// In the innermost context the mapping of an MDL has failed.
    pub unmapped: bool,
}

impl Nest {
    pub(crate) const OUTSIDE: Self =
        Self { innermost: Context::Thread, callback: None, callbacks: 0, completions: 0, unmapped: false };

    /// The rule that a wait breaks here, if it breaks one.
    pub(crate) fn rule_against_waiting(&self) -> Option<&'static str> {
        match self.innermost {
            Context::Completion => Some("IRP-13"),
            Context::Callback { name } => Some(match name {
                "WskInspectEvent" => "INSP-24",
                "WskAbortEvent" => "ABRT-13",
                "WskDisconnectEvent" => "DISC-14",
                "WskAcceptEvent" | "WskReceiveEvent" | "WskReceiveFromEvent" | "WskSendBacklogEvent" => {
                    "EVT-56"
                }
                _ => "IRQL-13",
            }),
            Context::Thread | Context::Cancel | Context::Dpc | Context::WorkItem | Context::Unload => None,
        }
    }
}

impl Nest {
    /// The rule that code breaks here which takes a lower IRQL for granted than it has.
    fn rule_against_assuming(&self) -> &'static str {
        match self.innermost {
            Context::Callback { name: "WskDisconnectEvent" } => "DISC-06",
            Context::Callback { name: "WskAcceptEvent" | "WskReceiveEvent" | "WskReceiveFromEvent" } => {
                "IRQL-15"
            }
            _ => rule::IRQL,
        }
    }
}

/// What encloses the point where the calling thread is now.
pub fn current() -> Nest {
    this::nest()
}

/// Whether the calling thread is inside a completion routine.
pub fn in_completion() -> bool {
    current().completions != 0
}

/// Whether the calling thread is inside a callback.
pub fn in_callback() -> bool {
    current().callbacks != 0
}

/// Whether the calling thread holds a spin lock.
pub fn holds_spin_lock() -> bool {
    this::locks() != 0
}

/// Takes note that the thread could not map an MDL.
pub(crate) fn mapping_failed() {
    this::set_nest(Nest { unmapped: true, ..current() });
}

/// Leaves a context when dropped.
///
/// # Invariants
/// It is dropped on the thread that made it, after every guard that was made later.
#[derive(Debug)]
pub struct Guard {
    former: Nest,
    _thread: PhantomData<*const ()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        this::set_nest(self.former);
    }
}

/// Enters a context on the calling thread.
pub fn enter(context: Context) -> Guard {
    let former = current();
    let mut nest = Nest { innermost: context, unmapped: false, ..former };
    match context {
        Context::Callback { name } => {
            nest.callback = Some(name);
            nest.callbacks += 1;
        }
        Context::Completion => nest.completions += 1,
        Context::Thread | Context::Cancel | Context::Dpc | Context::WorkItem | Context::Unload => {}
    }
    this::set_nest(nest);
    Guard { former, _thread: PhantomData }
}

/// A callback in progress; see [`callback`].
///
/// # Invariants
/// As for [`Guard`].
#[derive(Debug)]
pub struct Callback {
    name: &'static str,
    irql: KIRQL,
    restore: KIRQL,
    locks: u32,
    since: Option<Duration>,
    number: u64,
    _context: Guard,
}

/// Enters a callback of the provider: the context of that name, at DISPATCH_LEVEL if asked, else at the IRQL of the
/// caller. When the result is dropped, the IRQL returns to what it was, and what the callback did to it is checked.
pub fn callback(name: &'static str, at_dispatch: bool) -> Callback {
    let here = this::here(name);
    let restore = this::irql();
    let irql = if at_dispatch { restore.max(DISPATCH_LEVEL) } else { restore };
    this::set_irql(irql);
    let since = (irql >= DISPATCH_LEVEL && here.dispatch_budget().is_some())
        .then(|| here.platform().processor_time());
    let number = here.image.enter(&here, Routine::Callback(name), None);
    let guard = enter(Context::Callback { name });
    Callback { name, irql, restore, locks: this::locks(), since, number, _context: guard }
}

impl Drop for Callback {
    fn drop(&mut self) {
        irql::check_return(self.name, self.irql, self.locks);
        this::set_irql(self.restore);
        if self.number != 0 {
            let here = this::here(self.name);
            here.image.leave(&here, self.number);
        }
        let Some(since) = self.since else { return };
        let here = this::here(self.name);
        let Some(budget) = here.dispatch_budget() else { return };
        let spent = here.platform().processor_time().saturating_sub(since);
        if spent > budget {
            let detail =
                format!("the callback ran for {spent:?} at DISPATCH_LEVEL; the budget is {budget:?}");
            here.report(Severity::Advice, "IRQL-05", self.name, detail);
        }
    }
}

/// The rule to name when the calling thread must not wait where it is, and the words for it.
pub(crate) fn objection_to_waiting() -> Option<(&'static str, String)> {
    let nest = current();
    if let Some(rule) = nest.rule_against_waiting() {
        let whom = match nest.innermost {
            Context::Callback { name } => name,
            _ => "a completion routine",
        };
        return Some((rule, format!("{whom} waited")));
    }
    let irql = this::irql();
    (irql >= DISPATCH_LEVEL).then(|| ("IRQL-13", format!("a thread waited at {}", irql::name(irql))))
}

/// [`rule::IRQL`] for functions that may not be called above an IRQL.
pub(crate) fn at_most(here: &this::Here, call: &'static str, most: KIRQL) {
    let irql = this::irql();
    if irql > most {
        let detail = format!("called at {}, which is above {}", irql::name(irql), irql::name(most));
        here.violation(current().rule_against_assuming(), call, detail);
    }
}
