//! The bytes of transfers: the client's buffers, and the provider's own that are indicated to callbacks.

mod packet;
mod shown;
mod span;

pub(crate) use packet::{Packet, Packets, Shape, describe};
pub(crate) use shown::{POISON, Show};
pub(crate) use span::{Fault, Span};
