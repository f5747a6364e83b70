//! A driver that makes the calls of [`probe_calls`] once, and records the answers of this system.
//!
//! ```text
//!   DriverEntry ──► a system thread ──► probe_calls::run ──► C:\wsk-probe.tsv, a line for each call
//!                        ▲                              └──► the kernel debugger, the same lines
//!   DriverUnload ────────┘ waits until it has ended
//! ```
//!
//! Every line is on the disk before the next call is made, so that after a stop of the machine the file names
//! the last call. See `docs/first-windows-run.md`.
//!
//! | module | content |
//! |---|---|
//! | `entry` | loading and unloading, the thread |
//! | `file` | the destination of the lines |
#![no_std]

mod entry;
mod file;

// The panic handler: a bug check. Nothing here panics.
use wdk_panic as _;
