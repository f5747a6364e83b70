//! What threads of different levels share: spin locks, events, and a queue that is pushed to without a lock.
//!
//! Wakers are kept in [`AtomicWaker`](atomic_waker::AtomicWaker)s, which need neither memory nor a lock.

mod event;
mod lock;
mod stack;

pub use event::{Event, EventKind};
pub(crate) use event::{EventCell, wait_for_object};
pub(crate) use lock::SpinGuard;
pub use lock::SpinLock;
pub(crate) use stack::{Link, Linked, Stack};
