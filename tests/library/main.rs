//! The library over the simulated WSK, against peers of the host: what safe code cannot break.
//!
//! `tests/rules.tsv` numbers the rules; a test names the ones that safe code cannot break in the situation it
//! makes. Every test ends with the checker: no rule broken, nothing left behind.

#[path = "../support/harness.rs"]
mod harness;
mod support;

mod abort;
mod absent;
mod accept;
mod accept_event;
mod accept_loop;
mod attack_wakers;
mod chains;
mod connect;
mod datagram;
mod death;
mod dropped;
mod dying;
mod events;
mod flags;
mod image;
mod indication;
mod inspect;
mod late_disconnect;
mod leftover;
mod mapped;
mod memory;
mod network;
mod options;
mod panics;
mod queue;
mod receive;
mod refused;
mod registration;
mod relay;
mod retained;
mod reuse;
mod send;
mod still_clock;
mod timers;
mod tree;
mod turns;
mod wakes;
mod whole;
mod within;
