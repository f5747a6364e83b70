//! Means of synchronization between threads at different levels: spin locks, events, and a queue that is
//! pushed to without a lock.
//!
//! Wakers are kept in [`AtomicWaker`](atomic_waker::AtomicWaker)s, which need neither memory nor a lock. Each
//! word that more than one thread writes is a small file without kernel calls, next to what uses it, and
//! `cargo xtask loom` runs those files in every order that the memory model allows.

pub(crate) mod atomic;
mod event;
mod lock;
mod signal;
mod stack;
mod state;
#[cfg(test)]
mod state_table;
mod waiters;

pub use event::{Event, EventKind};
pub(crate) use event::{EventCell, wait_for_object};
pub(crate) use lock::SpinGuard;
pub use lock::SpinLock;
pub(crate) use signal::Signal;
pub(crate) use stack::{Link, Linked, Stack};
pub(crate) use state::{AtomicState, State, states};
#[cfg(test)]
pub(crate) use state_table::table;
pub(crate) use waiters::{Registered, Waiter, Waiters};
