//! One asynchronous WSK request: a block of non-paged memory with two owners.
//!
//! WSK completes a request by completing an IRP, at any moment: before the call that started it has returned,
//! much later on another processor, or after the future that asked for it was dropped. So everything the
//! request may touch lives in one *operation block*: the IRP, its stack location, the addresses, buffers and
//! control data, and the result. The block is owned by the future and by the IRP, each with one reference;
//! the last owner frees it. Neither ever waits for the other.
//!
//! ```text
//!              submit                    completion routine
//!   Idle ───────────────▶ Submitted ──────────────────────────▶ Done ──▶ the future takes the result
//!    │                        │                                   │
//!    │ drop                   │ drop: IoCancelIrp, walk away      │ drop: `Request::orphaned`
//!    ▼                        ▼                                   ▼
//!  freed                  Abandoned ──completion routine──▶ `Request::orphaned`, freed
//! ```
//!
//! A request that the library does not make, because the socket is closing for instance, goes from
//! *Submitted* to *Refused*, which for the future is as *Done*. What it is told then is never taken for WSK's
//! word on the socket.
//!
//! *Orphaned* cleans up a result whose future was dropped: an accepted socket is closed, received bytes are
//! kept for the next receive. A result that the client must know of even when the future is never
//! looked at again, a new socket, is taken over before that, by `Request::completed` in the completion
//! routine.
//!
//! The completion routine runs at up to `DISPATCH_LEVEL` in any thread. It makes no WSK call, allocates
//! nothing, and wakes the task; the waker only schedules.

mod block;
mod cell;
mod irp;
mod lazy;
mod within;

pub(crate) use block::{Op, Outcome, Refusal, Request, Submission};
pub(crate) use irp::{Completion, ReservedIrp, complete_here, keep_image};
pub(crate) use lazy::{Lazy, Operation};
pub(crate) use within::{Limit, limited};
pub use within::{Limited, Within};

#[cfg(test)]
mod tests {
    use super::cell::Phase;
    use crate::sync::table;

    #[test]
    fn the_transitions_of_an_operation() {
        assert_eq!(
            table::<Phase>(),
            "Idle -> [Submitted]\n\
             Submitted -> [Refused, Abandoned, Done]\n\
             Refused -> []\n\
             Abandoned -> [Done]\n\
             Done -> []"
        );
    }
}
