//! What the checker reports.

use std::fmt;

/// How bad it is.
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
    /// How bad it is.
    pub severity: Severity,
    /// The name of the rule: one of the contract's, or of [`rule`].
    pub rule: &'static str,
    /// The call that noticed.
    pub call: String,
    /// What happened, in a sentence.
    pub detail: String,
    /// The innermost stack frame outside the kernel, the provider and the test kit.
    pub place: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, rule, call, detail, place } = self;
        let severity = match severity {
            Severity::Violation => "violation",
            Severity::Advice => "advice",
        };
        write!(f, "{severity} of {rule} in {call}: {detail}\n    at {place}")
    }
}

/// Rules of the kernel itself, which the contract of Winsock Kernel takes for granted and does not number.
pub mod rule {
    /// A wait without end lasted longer than [`Config::watchdog`](crate::Config::watchdog).
    pub const HANG: &str = "NT-HANG";
    /// A function was called at an IRQL at which it may not be, or left a wrong one behind.
    pub const IRQL: &str = "NT-IRQL";
    /// A spin lock was taken twice, released by a stranger, or kept across a return.
    pub const SPIN_LOCK: &str = "NT-SPIN-LOCK";
    /// Something that is no object of the expected kind was passed for one.
    pub const OBJECT: &str = "NT-OBJECT";
    /// A structure was passed that does not lie where its alignment allows.
    pub const ALIGNMENT: &str = "NT-ALIGNMENT";
    /// A packet was completed although nobody below had it, or with its cancel routine still set.
    pub const IRP_COMPLETE: &str = "NT-IRP-COMPLETE";
    /// Pool was freed that is not allocated, or as something that it is not.
    pub const POOL_FREE: &str = "NT-POOL-FREE";
    /// Pool was allocated without a tag or freed with another tag.
    pub const POOL_TAG: &str = "NT-POOL-TAG";
    /// Memory past the end of a block was written.
    pub const POOL_OVERRUN: &str = "NT-POOL-OVERRUN";
    /// A freed block was written.
    pub const POOL_AFTER_FREE: &str = "NT-POOL-AFTER-FREE";
    /// A freed block held a timer, deferred call or work item that the kernel still had queued, or a deferred call whose
    /// routine had not returned, or the timer of one.
    pub const POOL_IN_USE: &str = "NT-POOL-IN-USE";
    /// Memory that must be non-paged is not.
    pub const NON_PAGED: &str = "NT-NON-PAGED";
    /// An MDL was mapped that is mapped already, one after the other or by two threads at once.
    pub const MDL_MAPPED: &str = "NT-MDL-MAPPED";
    /// Run-down protection was given back too often.
    pub const RUNDOWN: &str = "NT-RUNDOWN";
    /// A work item was queued twice or freed while queued.
    pub const WORK_ITEM: &str = "NT-WORK-ITEM";
}
