//! Reports of the checker.

use std::fmt;

/// The severity of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// A rule of the contract was broken; a test fails.
    Violation,
    /// Legal, but unwise.
    Advice,
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The severity of the report.
    pub severity: Severity,
    /// The name of the rule: one of the contract's, or of [`rule`].
    pub rule: &'static str,
    /// The call that detected it.
    pub call: String,
    /// A description of the misuse, as a sentence.
    pub detail: String,
    /// The innermost stack frame outside the kernel, the provider and the test kit.
    pub location: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, rule, call, detail, location } = self;
        let severity = match severity {
            Severity::Violation => "violation",
            Severity::Advice => "advice",
        };
        write!(f, "{severity} of {rule} in {call}: {detail}\n    at {location}")
    }
}

/// Rules of the kernel itself, which the contract of Winsock Kernel takes for granted and does not number.
pub mod rule {
    /// A wait without end lasted longer than [`Config::watchdog`](crate::Config::watchdog).
    pub const HANG: &str = "NT-HANG";
    /// A function was called at an IRQL that it does not allow, or a routine returned at a different IRQL.
    pub const IRQL: &str = "NT-IRQL";
    /// A spin lock was acquired twice, released by another thread, or kept across a return.
    pub const SPIN_LOCK: &str = "NT-SPIN-LOCK";
    /// A pointer was passed that is not an object of the expected kind.
    pub const OBJECT: &str = "NT-OBJECT";
    /// A structure was passed that is not aligned.
    pub const ALIGNMENT: &str = "NT-ALIGNMENT";
    /// An IRP was completed although no lower driver had it, or with its cancel routine still set.
    pub const IRP_COMPLETE: &str = "NT-IRP-COMPLETE";
    /// Memory was freed that is not an allocated block, or as a block of another kind.
    pub const POOL_FREE: &str = "NT-POOL-FREE";
    /// Pool was allocated without a tag or freed with another tag.
    pub const POOL_TAG: &str = "NT-POOL-TAG";
    /// Memory past the end of a block was written.
    pub const POOL_OVERRUN: &str = "NT-POOL-OVERRUN";
    /// A freed block was written.
    pub const POOL_AFTER_FREE: &str = "NT-POOL-AFTER-FREE";
    /// A freed block held a queued timer, deferred call or work item, a deferred call whose routine had not
    /// returned, or the timer of one.
    pub const POOL_IN_USE: &str = "NT-POOL-IN-USE";
    /// Memory is not non-paged although it must be.
    pub const NON_PAGED: &str = "NT-NON-PAGED";
    /// An MDL was mapped that is already mapped, in sequence or by two threads at once.
    pub const MDL_MAPPED: &str = "NT-MDL-MAPPED";
    /// Run-down protection was released more often than it was acquired.
    pub const RUNDOWN: &str = "NT-RUNDOWN";
    /// A work item was queued twice or freed while queued.
    pub const WORK_ITEM: &str = "NT-WORK-ITEM";
}
