//! Work that is left to the reaper: one system thread per client that does, at `PASSIVE_LEVEL`, work that may
//! not be done where it became due: starting closes, rejecting pended requests that were not answered, and
//! deregistering.
//!
//! Work is queued by linking a [`Node`] that is part of the object concerned, so queueing cannot fail,
//! allocates nothing, and may happen anywhere up to `DISPATCH_LEVEL`, inside completion routines too.

use core::ptr::NonNull;

use crate::sync::{Link, Linked};

/// Something the reaper can be asked to do.
///
/// # Invariants
/// A node is not queued again before `run` was called on it, and the object it is part of stays alive until
/// then.
#[repr(C)]
pub(crate) struct Node {
    link: Link,
    run: unsafe fn(NonNull<Node>),
}

impl Node {
    /// A node for which the reaper will call `run`.
    pub(crate) fn new(run: unsafe fn(NonNull<Node>)) -> Self {
        Self { link: Link::new(), run }
    }
}

/// A node in the queue.
pub(super) struct Job(NonNull<Node>);

// SAFETY: a job is run by the reaper, on another thread than the one that queued it; the objects that carry
// nodes are `Send + Sync`.
unsafe impl Send for Job {}

impl Job {
    /// # Safety
    /// The invariant of [`Node`] holds: it is not in the queue, and alive until it was run.
    pub(super) unsafe fn new(node: NonNull<Node>) -> Self {
        Self(node)
    }

    pub(super) fn run(self) {
        // SAFETY: by the invariant of `Node` the object is alive until it was run.
        let run = unsafe { self.0.as_ref() }.run;
        // SAFETY: the node was queued for exactly this, and is not looked at afterwards.
        unsafe { run(self.0) };
    }
}

// SAFETY: the link is the first field of a `repr(C)` node that by its invariant stays alive until it was run.
unsafe impl Linked for Job {
    fn into_link(self) -> NonNull<Link> {
        self.0.cast()
    }

    unsafe fn from_link(link: NonNull<Link>) -> Self {
        Self(link.cast())
    }
}
