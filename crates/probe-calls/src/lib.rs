//! Calls of Winsock Kernel in states that the documentation leaves open: each is made once, and its answer
//! printed.
//!
//! ```text
//!   run(output) ──► each scene, with its own client ──► call ──► completed within 2 s?
//!        ┌───────────────────────────────────────────────────────────┘
//!        ├─ yes ──────────────────────────────────────────────────────────► a line
//!        ├─ no: cancelled and waited for ─────────────────────────────────► a line
//!        └─ refused without its IRP: kept until the client is gone ───────► a line
//! ```
//!
//! The driver `examples/wsk-probe` runs this on Windows and in Wine, and `tests/answers.rs` here runs it on
//! the user-mode kernel; `tests/probe-answers.tsv` of the workspace has what this project's provider answers.
//! On raw bindings alone: nothing of the library `wsk` stands between a call and its answer.
//!
//! # The lines
//! ```text
//! call  rules  returned  completed  status  information  pending_returned  irql  note
//! ```
//! | column | content |
//! |---|---|
//! | `call` | a name of this crate; `scenes` has the list |
//! | `rules` | the rules of `tests/rules.tsv` that the answer bears on |
//! | `returned` | the status that the call returned |
//! | `completed` | `yes`, `cancelled`, `untouched`, `no-irp`, `event` or `not-made`; see below |
//! | `status`, `information`, `pending_returned`, `irql` | as seen by the completion routine |
//! | `note` | further observations; text after a space is a measurement, not part of the answer |
//!
//! A call is `cancelled` if it was pending after two seconds, or on purpose; `untouched` if it was refused
//! and its IRP never completed; `no-irp` if it was made without an IRP. `event` is an observation of a
//! callback. For `not-made` the note has the reason.
//! `information` is `socket` for a socket.
//!
//! A line that starts with `#` is a comment: `# accept.unbound` announces a call, so that after a stop of the
//! machine the last line names the call that caused it. `# end N` marks a complete list of N lines.
//!
//! # Calls that are not made
//! - `WskInspectComplete` with an identifier that no request ever had: a provider may use
//!   `Key` as a pointer. A wrong identifier here is a living request's key with another serial number,
//!   or one that was decided, which a driver can always have: a decision races with an abort.
//! - `WskInspectComplete` from inside of `WskInspectEvent`: whether the transport holds a lock there is
//!   unknown, and a call on the same thread could never end. It is called from another thread while the
//!   callback waits, for five seconds at most.
//! - A connection to a listener whose callback pointers are null, if the provider allows to enable its
//!   events.
//! - Calls on a closed socket, reused IRPs, reserved flags: answers to those are crashes.
//!
//! # Memory
//! All memory that a call may access until its IRP completes is in the block of non-paged pool that has the
//! IRP (module `request`), and the block is freed only after that. This crate does not panic, and uses
//! neither `alloc` nor `core::fmt`.
#![no_std]

#[cfg(feature = "answers")]
pub mod answers;
mod client;
mod line;
mod recorder;
mod report;
mod request;
mod scenes;
mod socket;

// The kernel that tests are linked with.
#[cfg(test)]
use wsk_sim as _;

pub use report::Output;

/// The header line with the columns.
pub const COLUMNS: &str =
    "call\trules\treturned\tcompleted\tstatus\tinformation\tpending_returned\tirql\tnote";

/// Makes every call and writes the lines to `output`. The first ones name the build of the system.
///
/// # IRQL
/// `PASSIVE_LEVEL`, in a thread that may wait: up to a minute.
pub fn run(output: &mut dyn Output, build: u32) {
    let mut report = report::Report::new(output, build);
    for scene in &scenes::SCENES {
        report.scene(scene);
    }
    report.end();
}

/// Every call with its rules, in order.
pub fn calls() -> impl Iterator<Item = (&'static str, &'static str)> {
    scenes::SCENES.iter().flat_map(|scene| scene.calls.iter().copied())
}
