//! Socket categories, operation flags and indication flags.
//!
//! The same number means different things in different places: `0x2` is `NODELAY` on a send, `WAITALL` on a
//! receive and `RELEASE_ASAP` in a receive indication.

/// Category of `WskSocket`: a basic socket, which has control functions only.
pub const WSK_FLAG_BASIC_SOCKET: u32 = 0x0000_0000;
/// Category of `WskSocket`: a listening socket.
pub const WSK_FLAG_LISTEN_SOCKET: u32 = 0x0000_0001;
/// Category of `WskSocket`: a connection-oriented socket.
pub const WSK_FLAG_CONNECTION_SOCKET: u32 = 0x0000_0002;
/// Category of `WskSocket`: a datagram socket.
pub const WSK_FLAG_DATAGRAM_SOCKET: u32 = 0x0000_0004;
/// Category of `WskSocket`: a stream socket, which listens or connects later (Windows 10 1703).
pub const WSK_FLAG_STREAM_SOCKET: u32 = 0x0000_0008;

/// `WskDisconnect` and `WskDisconnectEvent`: a reset instead of a graceful close.
pub const WSK_FLAG_ABORTIVE: u32 = 0x0000_0001;
/// `WskSend` and `WskSendEx`: out-of-band data (headers since Windows 10 1709).
pub const WSK_FLAG_OOB: u32 = 0x0000_0001;
/// `WskSend`: do not delay the data.
pub const WSK_FLAG_NODELAY: u32 = 0x0000_0002;
/// `WskReceive`: complete only when the buffer is full or the stream has ended.
pub const WSK_FLAG_WAITALL: u32 = 0x0000_0002;
/// `WskReceive`: discard data until the connection ends.
pub const WSK_FLAG_DRAIN: u32 = 0x0000_0004;
/// `WskReceiveEvent`: the data indication should be released as soon as possible.
pub const WSK_FLAG_RELEASE_ASAP: u32 = 0x0000_0002;
/// `WskReceiveEvent`: the sender marked the end of a message (TCP: PSH).
pub const WSK_FLAG_ENTIRE_MESSAGE: u32 = 0x0000_0004;
/// Callbacks: the IRQL is certainly `DISPATCH_LEVEL`. Clear means that the IRQL is unknown.
pub const WSK_FLAG_AT_DISPATCH_LEVEL: u32 = 0x0000_0008;

/// `WskReceiveFrom`: the datagram was longer than the buffer.
pub const MSG_TRUNC: u32 = 0x0100;
/// `WskReceiveFrom`: the control information was longer than its buffer.
pub const MSG_CTRUNC: u32 = 0x0200;
/// `WskReceiveFrom` and `WskReceiveFromEvent`: received as a link-layer broadcast.
pub const MSG_BCAST: u32 = 0x0400;
/// `WskReceiveFrom` and `WskReceiveFromEvent`: received as a multicast.
pub const MSG_MCAST: u32 = 0x0800;
/// From the error queue; `ws2def.h` defines it, WSK does not use it.
pub const MSG_ERRQUEUE: u32 = 0x1000;
