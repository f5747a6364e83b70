//! Bits of [`WSK_EVENT_CALLBACK_CONTROL::EventMask`](crate::WSK_EVENT_CALLBACK_CONTROL::EventMask).
//!
//! Inspect and Abort have no bit: `SO_CONDITIONAL_ACCEPT` alone governs them.

/// `WskSendBacklogEvent` of a connection, or of the connections a listener will hand out.
pub const WSK_EVENT_SEND_BACKLOG: u32 = 0x0000_0010;
/// `WskReceiveEvent` of a connection, or of the connections a listener will hand out.
pub const WSK_EVENT_RECEIVE: u32 = 0x0000_0040;
/// `WskDisconnectEvent` of a connection, or of the connections a listener will hand out.
pub const WSK_EVENT_DISCONNECT: u32 = 0x0000_0080;
/// `WskReceiveFromEvent` of a datagram socket.
pub const WSK_EVENT_RECEIVE_FROM: u32 = 0x0000_0100;
/// `WskAcceptEvent` of a listening socket.
pub const WSK_EVENT_ACCEPT: u32 = 0x0000_0200;
/// Turns the one event it is combined with off instead of on.
pub const WSK_EVENT_DISABLE: u32 = 0x8000_0000;
