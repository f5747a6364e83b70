//! An echo service with a gate in front: the part of the conditional-accept sample that does not depend on where
//! it runs. The user-mode example and the sample driver are fronts to it: they fill in [`Settings`], give a
//! [`RecordSink`], start a [`Service`] when they are loaded and unload it when they are unloaded.
//!
//! ```text
//!   front ── Settings, RecordSink ──► service ─┬─ gate      inspect, ask, abort; connections by the event
//!     ▲                                        ├─ session   one connection
//!     └───────────── Record ───────────────────┴─ policy    who may connect
//! ```
#![no_std]

#[cfg(test)]
extern crate std;

mod gate;
pub mod policy;
pub mod record;
mod service;
mod session;

pub use record::{Record, RecordSink};
pub use service::{Service, Settings, StillUp};
