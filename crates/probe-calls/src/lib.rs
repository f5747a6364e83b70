//! Calls of Winsock Kernel in states that the documentation leaves open: each is made once, and its answer printed.
//!
//! ```text
//!   run(output) ──► each scene, with a client of its own ──► call ──► completed within 2 s? ─┬─ yes ──────────────► a line
//!                                                                                            ├─ no: cancelled, and ► a line
//!                                                                                            │  waited for
//!                                                                                            └─ refused without its IRP:
//!                                                                                               kept until the client is gone ► a line
//! ```
//!
//! The driver `examples/wsk-probe` runs this on Windows and in Wine, and `tests/answers.rs` here runs it on the user-mode
//! kernel; `tests/probe-answers.tsv` of the workspace has what this project's provider answers. On raw bindings alone:
//! nothing of the library `wsk` stands between a call and its answer.
//!
//! # The lines
//! ```text
//! call  rules  returned  completed  status  information  pending_returned  irql  note
//! ```
//! | column | what |
//! |---|---|
//! | `call` | a name of this crate; `scenes` has the list |
//! | `rules` | the rules of `tests/rules.tsv` that the answer bears on |
//! | `returned` | what the call returned |
//! | `completed` | `yes`; `cancelled`: pending after two seconds, or on purpose; `untouched`: refused, and the IRP never completed; `no-irp`: none was given; `event`: an observation of a callback; `not-made`: the note says why |
//! | `status`, `information`, `pending_returned`, `irql` | what the completion routine saw; `information` is `socket` for a socket |
//! | `note` | what else there is to see; what follows a space in it is a measurement, not an answer |
//!
//! A line that starts with `#` is a comment: `# accept.unbound` says that this call is about to be made, so that the last
//! line names the call that stopped the machine, if one did. `# end N` says that the list is whole and has N lines.
//!
//! # What is not called
//! - `WskInspectComplete` with an identifier that no request ever had: nothing says that a provider does not follow
//!   `Key` as a pointer. A wrong identifier here is a living request's key with another serial number, or one that was
//!   decided, which a driver can always have: a decision races with an abort.
//! - `WskInspectComplete` from inside of `WskInspectEvent`: whether the transport holds a lock there is unknown, and a call
//!   on the same thread could never end. It is called from another thread while the callback waits, for five seconds at most.
//! - A connection to a listener whose callback pointers are null, should enabling that have been allowed.
//! - Calls on a closed socket, reused IRPs, reserved flags: answers to those are crashes.
//!
//! # Memory
//! All that a call may touch until its IRP completes lies in the block of non-paged pool that has the IRP
//! (module `request`), and the block is freed only after that. Nothing here panics, allocates by `alloc`, or formats by `core::fmt`.
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

/// The columns, as the first line that is no comment names them.
pub const COLUMNS: &str =
    "call\trules\treturned\tcompleted\tstatus\tinformation\tpending_returned\tirql\tnote";

/// Makes every call and hands the lines to `output`, the first of which tell the build of the system.
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
