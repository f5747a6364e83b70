//! The tables of functions a provider offers.
//!
//! Tables only ever grew at their end. The members marked with a system are missing on older ones, where the
//! table is *shorter than the type here*: never copy a table, never make a reference to a whole one, and
//! reach those members through [`tail`].

use crate::*;

/// Functions on the client object.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_PROVIDER_DISPATCH {
    /// The version of the provider; the minor number may be higher than the client's.
    pub Version: u16,
    /// Zero.
    pub Reserved: u16,
    /// Creates a socket.
    pub WskSocket: Option<PFN_WSK_SOCKET>,
    /// Creates, binds and connects a socket.
    pub WskSocketConnect: Option<PFN_WSK_SOCKET_CONNECT>,
    /// Controls the client object.
    pub WskControlClient: Option<PFN_WSK_CONTROL_CLIENT>,
    /// Resolves a name (Windows 7).
    pub WskGetAddressInfo: Option<PFN_WSK_GET_ADDRESS_INFO>,
    /// Frees resolved addresses (Windows 7).
    pub WskFreeAddressInfo: Option<PFN_WSK_FREE_ADDRESS_INFO>,
    /// Resolves an address (Windows 7).
    pub WskGetNameInfo: Option<PFN_WSK_GET_NAME_INFO>,
}
/// A pointer to the functions on the client object.
pub type PWSK_PROVIDER_DISPATCH = *const WSK_PROVIDER_DISPATCH;

/// Functions every socket has.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_PROVIDER_BASIC_DISPATCH {
    /// Options and I/O control codes.
    pub WskControlSocket: Option<PFN_WSK_CONTROL_SOCKET>,
    /// Closes the socket.
    pub WskCloseSocket: Option<PFN_WSK_CLOSE_SOCKET>,
}
/// A pointer to the functions every socket has.
pub type PWSK_PROVIDER_BASIC_DISPATCH = *const WSK_PROVIDER_BASIC_DISPATCH;

/// Functions of a listening socket.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_PROVIDER_LISTEN_DISPATCH {
    /// The functions of every socket.
    pub Basic: WSK_PROVIDER_BASIC_DISPATCH,
    /// Binds, and starts to listen.
    pub WskBind: Option<PFN_WSK_BIND>,
    /// Takes the next connection.
    pub WskAccept: Option<PFN_WSK_ACCEPT>,
    /// Decides about a pended connection request.
    pub WskInspectComplete: Option<PFN_WSK_INSPECT_COMPLETE>,
    /// Reads the local address.
    pub WskGetLocalAddress: Option<PFN_WSK_GET_LOCAL_ADDRESS>,
}
/// A pointer to the functions of a listening socket.
pub type PWSK_PROVIDER_LISTEN_DISPATCH = *const WSK_PROVIDER_LISTEN_DISPATCH;

/// Functions of a datagram socket.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_PROVIDER_DATAGRAM_DISPATCH {
    /// The functions of every socket.
    pub Basic: WSK_PROVIDER_BASIC_DISPATCH,
    /// Binds.
    pub WskBind: Option<PFN_WSK_BIND>,
    /// Sends a datagram.
    pub WskSendTo: Option<PFN_WSK_SEND_TO>,
    /// Receives a datagram.
    pub WskReceiveFrom: Option<PFN_WSK_RECEIVE_FROM>,
    /// Releases retained datagrams.
    pub WskRelease: Option<PFN_WSK_RELEASE_DATAGRAM_INDICATION_LIST>,
    /// Reads the local address.
    pub WskGetLocalAddress: Option<PFN_WSK_GET_LOCAL_ADDRESS>,
    /// Sends a list of datagrams (Windows 8).
    pub WskSendMessages: Option<PFN_WSK_SEND_MESSAGES>,
}
/// A pointer to the functions of a datagram socket.
pub type PWSK_PROVIDER_DATAGRAM_DISPATCH = *const WSK_PROVIDER_DATAGRAM_DISPATCH;

/// Functions of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_PROVIDER_CONNECTION_DISPATCH {
    /// The functions of every socket.
    pub Basic: WSK_PROVIDER_BASIC_DISPATCH,
    /// Binds.
    pub WskBind: Option<PFN_WSK_BIND>,
    /// Connects.
    pub WskConnect: Option<PFN_WSK_CONNECT>,
    /// Reads the local address.
    pub WskGetLocalAddress: Option<PFN_WSK_GET_LOCAL_ADDRESS>,
    /// Reads the remote address.
    pub WskGetRemoteAddress: Option<PFN_WSK_GET_REMOTE_ADDRESS>,
    /// Sends data.
    pub WskSend: Option<PFN_WSK_SEND>,
    /// Receives data.
    pub WskReceive: Option<PFN_WSK_RECEIVE>,
    /// Disconnects.
    pub WskDisconnect: Option<PFN_WSK_DISCONNECT>,
    /// Releases retained data.
    pub WskRelease: Option<PFN_WSK_RELEASE_DATA_INDICATION_LIST>,
    /// Connects, with first data (Windows 10 1703).
    pub WskConnectEx: Option<PFN_WSK_CONNECT_EX>,
    /// Sends data with control information (Windows 10 1803).
    pub WskSendEx: Option<PFN_WSK_SEND_EX>,
    /// Receives data with control information (Windows 10 1803).
    pub WskReceiveEx: Option<PFN_WSK_RECEIVE_EX>,
}
/// A pointer to the functions of a connection.
pub type PWSK_PROVIDER_CONNECTION_DISPATCH = *const WSK_PROVIDER_CONNECTION_DISPATCH;

/// Functions of a stream socket (Windows 10 1703). There is no `WskInspectComplete` among them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_PROVIDER_STREAM_DISPATCH {
    /// The functions of every socket.
    pub Basic: WSK_PROVIDER_BASIC_DISPATCH,
    /// Binds.
    pub WskBind: Option<PFN_WSK_BIND>,
    /// Takes the next connection.
    pub WskAccept: Option<PFN_WSK_ACCEPT>,
    /// Connects.
    pub WskConnect: Option<PFN_WSK_CONNECT>,
    /// Starts to listen.
    pub WskListen: Option<PFN_WSK_LISTEN>,
    /// Sends data.
    pub WskSend: Option<PFN_WSK_SEND>,
    /// Receives data.
    pub WskReceive: Option<PFN_WSK_RECEIVE>,
    /// Disconnects.
    pub WskDisconnect: Option<PFN_WSK_DISCONNECT>,
    /// Releases retained data.
    pub WskRelease: Option<PFN_WSK_RELEASE_DATA_INDICATION_LIST>,
    /// Reads the local address.
    pub WskGetLocalAddress: Option<PFN_WSK_GET_LOCAL_ADDRESS>,
    /// Reads the remote address.
    pub WskGetRemoteAddress: Option<PFN_WSK_GET_REMOTE_ADDRESS>,
    /// Connects, with first data.
    pub WskConnectEx: Option<PFN_WSK_CONNECT_EX>,
    /// Sends data with control information (Windows 10 1803).
    pub WskSendEx: Option<PFN_WSK_SEND_EX>,
    /// Receives data with control information (Windows 10 1803).
    pub WskReceiveEx: Option<PFN_WSK_RECEIVE_EX>,
}
/// A pointer to the functions of a stream socket.
pub type PWSK_PROVIDER_STREAM_DISPATCH = *const WSK_PROVIDER_STREAM_DISPATCH;
