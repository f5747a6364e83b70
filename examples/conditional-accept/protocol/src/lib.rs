//! Policies, records and the status of the gate, and their encoding on its control device. The driver, the
//! user-mode front and the control program share this crate; it depends on neither the kernel nor WSK.
//!
//! | module | content |
//! |---|---|
//! | [`policy`] | actions by address and network |
//! | [`limits`] | limits on the number of clients and on idle time |
//! | [`record`] | records of events |
//! | [`status`] | state and counters of the service |
//! | [`wire`] | encoding of all of these in requests of the control device |
//! | `text` | records as lines of text; with the feature of that name |
//! | `cli` | command-line options of a policy; with the feature of that name |
#![no_std]

#[cfg(any(test, feature = "cli"))]
extern crate std;

#[cfg(feature = "cli")]
pub mod cli;
pub mod limits;
pub mod policy;
pub mod record;
pub mod status;
#[cfg(feature = "text")]
pub mod text;
pub mod wire;

pub use limits::{Limits, Reason};
pub use policy::{Action, Answer, Net, Policy, PolicyError};
pub use record::{Record, RecordSink};
pub use status::{Counters, Phase, Status};
