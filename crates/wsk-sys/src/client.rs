//! The tables of callbacks a client provides. A null entry is an event the client does not handle.

use crate::*;

/// Callbacks of the client object.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_CLIENT_DISPATCH {
    /// The version of WSK the client asks for, [`MAKE_WSK_VERSION`]`(1, 0)`.
    pub Version: u16,
    /// Zero.
    pub Reserved: u16,
    /// Events of the client object.
    pub WskClientEvent: Option<PFN_WSK_CLIENT_EVENT>,
}
/// A pointer to the callbacks of a client object.
pub type PWSK_CLIENT_DISPATCH = *const WSK_CLIENT_DISPATCH;

/// Callbacks of a listening socket.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_CLIENT_LISTEN_DISPATCH {
    /// A connection was established.
    pub WskAcceptEvent: Option<PFN_WSK_ACCEPT_EVENT>,
    /// A connection request arrived (conditional accept).
    pub WskInspectEvent: Option<PFN_WSK_INSPECT_EVENT>,
    /// An inspected connection request was aborted (conditional accept).
    pub WskAbortEvent: Option<PFN_WSK_ABORT_EVENT>,
}
/// A pointer to the callbacks of a listening socket.
pub type PWSK_CLIENT_LISTEN_DISPATCH = *const WSK_CLIENT_LISTEN_DISPATCH;

/// Callbacks of a datagram socket.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_CLIENT_DATAGRAM_DISPATCH {
    /// Datagrams arrived.
    pub WskReceiveFromEvent: Option<PFN_WSK_RECEIVE_FROM_EVENT>,
}
/// A pointer to the callbacks of a datagram socket.
pub type PWSK_CLIENT_DATAGRAM_DISPATCH = *const WSK_CLIENT_DATAGRAM_DISPATCH;

/// Callbacks of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_CLIENT_CONNECTION_DISPATCH {
    /// Data arrived.
    pub WskReceiveEvent: Option<PFN_WSK_RECEIVE_EVENT>,
    /// The peer disconnected.
    pub WskDisconnectEvent: Option<PFN_WSK_DISCONNECT_EVENT>,
    /// The ideal send backlog changed.
    pub WskSendBacklogEvent: Option<PFN_WSK_SEND_BACKLOG_EVENT>,
}
/// A pointer to the callbacks of a connection.
pub type PWSK_CLIENT_CONNECTION_DISPATCH = *const WSK_CLIENT_CONNECTION_DISPATCH;

/// Callbacks of a stream socket (Windows 10 1703): the tables for both of its possible roles.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_CLIENT_STREAM_DISPATCH {
    /// For a socket that listens, or null.
    pub Listen: PWSK_CLIENT_LISTEN_DISPATCH,
    /// For a socket that connects, or null.
    pub Connect: PWSK_CLIENT_CONNECTION_DISPATCH,
}
/// A pointer to the callbacks of a stream socket.
pub type PWSK_CLIENT_STREAM_DISPATCH = *const WSK_CLIENT_STREAM_DISPATCH;

// SAFETY: two addresses, which a shared reference can only copy; dereferencing them is unsafe. A table must
// be `Sync` to be a static, as WSK requires.
unsafe impl Sync for WSK_CLIENT_STREAM_DISPATCH {}
// SAFETY: two addresses, which may be copied on any thread.
unsafe impl Send for WSK_CLIENT_STREAM_DISPATCH {}
