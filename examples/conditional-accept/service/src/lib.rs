//! An echo service with a gate in front: the part of the conditional-accept sample that does not depend on
//! its environment. The user-mode program and the driver are front ends: they fill in [`Settings`], provide a
//! [`RecordSink`], start a [`Network`](wsk::Network) with [`serve`] at load and stop it at unload.
//!
//! ```text
//!   front ── Settings, RecordSink ──► service ─┬─ gate      inspect, ask, abort; connections by the event
//!     ▲                                        ├─ session   one connection
//!     └───────────── Record ───────────────────┼─ rules     the policy in force
//!                                              └─ clients   limits on their number
//! ```
//!
//! The driver's front end does more, because user-mode programs control it. The parts that need no driver are
//! here, too, and tested in user mode:
//!
//! ```text
//!   registry ──► parameters ──► control ─┬─ journal     the last records, and the status derived from them
//!   IOCTLs ──► irp::Request ──────┘      ├─ questions   pended requests, put to programs as questions
//!                                        └─ rules       the policy in force
//! ```
#![no_std]

#[cfg(test)]
extern crate std;
// Unit tests link the library, whose kernel and provider are these then: linkers of Windows want them even
// for what no test here reaches.
#[cfg(test)]
use wsk_sim as _;

mod clients;
mod clock;
pub mod control;
mod gate;
pub mod irp;
pub mod journal;
pub mod parameters;
pub mod questions;
mod rules;
mod service;
mod session;

pub use control::{Control, Handle};
pub use gate_protocol::record::{Record, RecordSink};
pub use gate_protocol::{Limits, Reason, policy, record, status, wire};
pub use irp::{ActiveCall, Request};
pub use parameters::Parameters;
pub use rules::Rules;
pub use service::{Asker, Settings, config, serve};
