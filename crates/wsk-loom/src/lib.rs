//! The protocols between threads of `wsk`, run by loom in every order that the memory model allows.
//!
//! The modules that are included by path are the files that the driver ships. They make no kernel call, and
//! take their atomics, waker slots, locks and events from `crate::sync`, which here is loom's (module
//! `sync`). The models beside them are threads that use a protocol as the library does, around memory that
//! loom watches: two accesses without an order fail, and so does a task that is not woken.
//!
//! `cargo xtask loom` runs them. Without `--cfg loom` this crate is empty.
//!
//! | word | file | writers |
//! |---|---|---|
//! | operation cell | `operation/cell.rs` | future, completion routine |
//! | receive turn | `connection/turn.rs` | receive futures, completion routine |
//! | sends | `connection/sends.rs` | send and disconnect futures |
//! | indicated data | `connection/indicated.rs` | callback, retained data |
//! | rundown | `socket/rundown.rs` | callers, handle, completion routine, unload |
//! | stage of a pended request | `listener/stage.rs` | callback, token, abort, listener's close, completion |
//! | uses of the registration | `client/uses.rs` | handles, `unload`, reaper |
//! | signal: a socket closed, a timer fired | `sync/signal.rs` | completion routine or DPC, future |
//! | reaper's queue | `sync/stack.rs` | all threads, reaper |
//! | reference count | `memory/count.rs`, `memory/shared.rs` | owners |
//! | task, run queue, sleepers | `executor/task.rs`, `executor/queue.rs` | wakers, spawners, threads |
#![cfg_attr(
    loom,
    allow(dead_code, reason = "a file is included whole, and its models use what more than one thread does")
)]
#![cfg_attr(loom, allow(unused_imports, reason = "as above"))]
#![cfg_attr(
    loom,
    allow(unreachable_pub, reason = "what the library shows its users is of this crate alone here")
)]

#[cfg(all(loom, test))]
mod client;
#[cfg(all(loom, test))]
mod connection;
#[cfg(all(loom, test))]
mod executor;
#[cfg(all(loom, test))]
mod listener;
#[cfg(all(loom, test))]
mod memory;
#[cfg(all(loom, test))]
mod operation;
#[cfg(all(loom, test))]
mod shims;
#[cfg(all(loom, test))]
mod socket;
#[cfg(all(loom, test))]
mod sync;

/// IRQLs are not modeled: all threads of loom may wait.
#[cfg(all(loom, test))]
mod irql {
    pub(crate) use crate::shims::Passive;
}
