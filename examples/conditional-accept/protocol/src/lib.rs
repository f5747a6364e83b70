//! What the gate and the programs that control it say to each other. The driver, the user-mode example and the control
//! program share it; it depends on neither the kernel nor WSK.
//!
//! | module | what |
//! |---|---|
//! | [`policy`] | who may connect |
//! | [`limits`] | how many, and for how long they may be silent |
//! | [`record`] | what happened |
//! | [`status`] | how the service is doing |
//! | [`wire`] | all of it as the bytes of the control device's requests |
//! | `text` | records as lines for people; with the feature of that name |
#![no_std]

#[cfg(test)]
extern crate std;

pub mod limits;
pub mod policy;
pub mod record;
pub mod status;
#[cfg(feature = "text")]
pub mod text;
pub mod wire;

pub use limits::{Limits, Reason};
pub use policy::{Action, Answer, Net, Policy};
pub use record::{Record, RecordSink};
pub use status::{Counters, Phase, Status};
