//! Data of transfers: buffers of the client, and indicated buffers of the provider.

mod packet;
mod shown;
mod span;

pub(crate) use packet::{Packet, Packets, Shape, describe};
pub(crate) use shown::{POISON, Show};
pub(crate) use span::{Fault, Span};
