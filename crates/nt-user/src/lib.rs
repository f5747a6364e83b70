//! The executive subset of the NT kernel, in user mode.
//!
//! Everything that [`wsk_sys::nt`] declares is defined here as an `extern "system"` symbol, so that code that
//! was written for a driver links and runs on a host: IRPs with their stack locations and cancellation, MDLs,
//! events, timers and waits, spin locks and IRQL, deferred procedure calls, work items, system threads,
//! run-down protection, pool.
//!
//! A [`Kernel`] is one simulated machine. Any number of them live in one process, and nothing is shared
//! between them: a thread belongs to the kernel it has [entered](Kernel::enter), and the threads that a
//! kernel starts belong to it.
//!
//! ```text
//!              enter                       nt function
//!   host thread ────► thread of a Kernel ─────────────► objects of that Kernel
//!                          │ spawn, PsCreateSystemThread, KeInsertQueueDpc, KeSetTimer, ExQueueWorkItem
//!                          ▼
//!                     thread of the same Kernel
//! ```
//!
//! A misuse is, where possible, not undefined behavior but a [`Violation`] that the kernel collects: it names
//! the broken rule, the call that detected it and the location in the driver's code. A fatal misuse is a [bug
//! check](Kernel::stopped): the kernel stops, the offending thread is suspended, and the process lives on so
//! that a test can report what happened.
//!
//! On request the kernel also tracks the [image] of the driver and the references that keep it loaded.
//!
//! Time, threads and randomness come from one narrow [`platform`] interface.

#![allow(non_snake_case)]

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("nt-user lays objects out as 64-bit Windows does and runs on 64-bit little-endian hosts only");

pub mod cancel;
pub mod checker;
pub mod dispatcher;
pub mod dpc;
mod event_count;
mod exports;
pub mod faults;
pub mod idle;
pub mod image;
pub mod irp;
pub mod irql;
pub mod kernel;
pub mod mdl;
pub mod platform;
pub mod pool;
pub mod rundown;
pub mod spinlock;
pub mod statics;
pub mod thread;
pub mod time;
pub mod timer;
pub mod work;

pub use checker::context::{self, Context};
pub use checker::violation::{Severity, Violation, rule};
pub use idle::Idle;
pub use kernel::{Config, Entered, Kernel, LeakReport};
pub use thread::{Failure, Joiner};
