//! The call stack of a thread: the driver's own code, callbacks of the provider, completion routines.
//!
//! Contexts nest, because a callback may start a request that completes inline. Each thread keeps a summary
//! of its stack; entering a context changes the summary, and dropping the guard restores the previous one:
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
use crate::thread::current;

/// The kind of call that a thread is in.
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

/// The call stack of the calling thread, as far as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallStack {
    /// The innermost context.
    pub innermost: Context,
    /// The name of the innermost callback, if the thread is in one.
    pub callback: Option<&'static str>,
    /// The number of callbacks on the stack.
    pub callbacks: u32,
    /// The number of completion routines on the stack.
    pub completions: u32,
    /// True if the mapping of an MDL has failed in the innermost context.
    pub unmapped: bool,
}

impl CallStack {
    pub(crate) const OUTSIDE: Self =
        Self { innermost: Context::Thread, callback: None, callbacks: 0, completions: 0, unmapped: false };

    /// Returns the rule that a wait would break here.
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

impl CallStack {
    /// Returns the rule that a call breaks here if it requires a lower IRQL.
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

/// The call stack of the calling thread, as far as the kernel knows it.
pub fn current() -> CallStack {
    current::call_stack()
}

/// Returns true inside a completion routine.
pub fn in_completion() -> bool {
    current().completions != 0
}

/// Returns true inside a callback.
pub fn in_callback() -> bool {
    current().callbacks != 0
}

/// Returns true if the calling thread holds a spin lock.
pub fn holds_spin_lock() -> bool {
    current::locks() != 0
}

/// Records that the thread could not map an MDL.
pub(crate) fn mapping_failed() {
    current::set_call_stack(CallStack { unmapped: true, ..current() });
}

/// Leaves a context when dropped.
///
/// # Invariants
/// It is dropped on the thread that made it, after every guard that was made later.
#[derive(Debug)]
pub struct Guard {
    former: CallStack,
    _thread: PhantomData<*const ()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        current::set_call_stack(self.former);
    }
}

/// Enters a context on the calling thread.
pub fn enter(context: Context) -> Guard {
    let former = current();
    let mut calls = CallStack { innermost: context, unmapped: false, ..former };
    match context {
        Context::Callback { name } => {
            calls.callback = Some(name);
            calls.callbacks += 1;
        }
        Context::Completion => calls.completions += 1,
        Context::Thread | Context::Cancel | Context::Dpc | Context::WorkItem | Context::Unload => {}
    }
    current::set_call_stack(calls);
    Guard { former, _thread: PhantomData }
}

/// A callback in progress; see [`callback`].
///
/// # Invariants
/// It is dropped on the thread that made it, after every guard that was made later.
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

/// Enters the callback `name` of the provider: at DISPATCH_LEVEL if `at_dispatch`, else at the IRQL of the
/// caller. Dropping the result checks the IRQL and restores the previous one.
pub fn callback(name: &'static str, at_dispatch: bool) -> Callback {
    let kernel = current::kernel(name);
    let restore = current::irql();
    let irql = if at_dispatch { restore.max(DISPATCH_LEVEL) } else { restore };
    current::set_irql(irql);
    let since = (irql >= DISPATCH_LEVEL && kernel.dispatch_budget().is_some())
        .then(|| kernel.platform().processor_time());
    let number = kernel.image.enter(&kernel, Routine::Callback(name), None);
    let guard = enter(Context::Callback { name });
    Callback { name, irql, restore, locks: current::locks(), since, number, _context: guard }
}

impl Drop for Callback {
    fn drop(&mut self) {
        irql::check_return(self.name, self.irql, self.locks);
        current::set_irql(self.restore);
        if self.number != 0 {
            let kernel = current::kernel(self.name);
            kernel.image.leave(&kernel, self.number);
        }
        let Some(since) = self.since else { return };
        let kernel = current::kernel(self.name);
        let Some(budget) = kernel.dispatch_budget() else { return };
        let spent = kernel.platform().processor_time().saturating_sub(since);
        if spent > budget {
            let detail =
                format!("the callback ran for {spent:?} at DISPATCH_LEVEL; the budget is {budget:?}");
            kernel.report(Severity::Advice, "IRQL-05", self.name, detail);
        }
    }
}

/// Returns the rule that a wait of the calling thread breaks, and a description.
pub(crate) fn wait_violation() -> Option<(&'static str, String)> {
    let calls = current();
    if let Some(rule) = calls.rule_against_waiting() {
        let whom = match calls.innermost {
            Context::Callback { name } => name,
            _ => "a completion routine",
        };
        return Some((rule, format!("{whom} waited")));
    }
    let irql = current::irql();
    (irql >= DISPATCH_LEVEL).then(|| ("IRQL-13", format!("a thread waited at {}", irql::name(irql))))
}

/// Reports a call above the IRQL that the function allows.
pub(crate) fn check_irql(kernel: &current::CurrentKernel, call: &'static str, max: KIRQL) {
    let irql = current::irql();
    if irql > max {
        let detail = format!("called at {}, which is above {}", irql::name(irql), irql::name(max));
        kernel.violation(current().rule_against_assuming(), call, detail);
    }
}
