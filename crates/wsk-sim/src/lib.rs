//! Test kit for WSK drivers: the provider on a user-mode kernel, with a checker of every rule.
//!
//! A [`Sim`] is one machine: a kernel of `nt-user`, a provider of `wsk-provider` over the host's network, and
//! a checker that knows the rules of the contract. The crate defines the five symbols that `netio.sys`
//! exports, so a driver links against it unchanged and finds the provider of the machine that its thread
//! belongs to.
//!
//! ```text
//!   test ──► Sim::run ──► driver ──► wsk-sys symbols ─┬─ Wsk… ──► this crate ──► wsk-provider ──► network
//!                │                                    └─ Ke…, Io…, Ex… ──► nt-user
//!                └──► afterwards: broken rules, leaked memory, IRPs, sockets, threads
//! ```
//!
//! [`Sim::driver`] runs a driver's entry and unload routines, and checks what is left when its image is
//! unloaded.
//!
//! [`for_each_mode`] and [`for_each_choice`] run a test on many machines.
//!
//! Tests of the provider itself, and of the checker, use the [`raw`] kit.

#![allow(non_snake_case)]

mod callback;
mod driver;
#[allow(unreachable_pub, reason = "the symbols are reached by name")]
mod exports;
mod host;
mod modes;
pub mod raw;
mod report;
mod sim;

pub use modes::{COMPLETIONS, for_each_choice, for_each_mode, for_each_mode_with};
pub use nt_user::{self, Kernel, Severity, Violation};
pub use report::Report;
pub use sim::{Builder, Sim};
pub use wsk_provider::{self, Behaviours, Completion, Config, FaultPoint, Level, Provider, Release};
