//! An echo service with a gate in front, in user mode: the front to [`echo_gate`] for people and scripts.
//!
//! ```text
//!   cli ──► Settings ──► echo_gate::Service, on a thread of the simulated kernel
//!   log ◄── Record ◄───────────┘            unloaded by Ctrl-C, SIGTERM or --seconds
//! ```
//!
//! `cargo run --release --example conditional_accept -- --help` lists the options.

mod cli;
mod log;
fn main() {
    let _ = cli::Options::from_command_line();
    let _ = log::Printer::start(cli::Format::Text, || ());
}
