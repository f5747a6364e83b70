//! The types of the functions of the provider and of the callbacks of the client.
//!
//! Parameters keep the header's order and names. `Flags` parameters that the header reserves are zero. Unless
//! a line says otherwise a function is called at or below `DISPATCH_LEVEL`.

use core::ffi::c_void;

use crate::nt::{GUID, IRP, NTSTATUS, PEPROCESS, PETHREAD, PSECURITY_DESCRIPTOR};
use crate::{
    ADDRESS_FAMILY, PADDRINFOEXW, PCMSGHDR, PSOCKADDR, PUNICODE_STRING, PWSK_BUF, PWSK_BUF_LIST, PWSK_CLIENT,
    PWSK_DATA_INDICATION, PWSK_DATAGRAM_INDICATION, PWSK_INSPECT_ID, PWSK_SOCKET,
    WSK_CLIENT_CONNECTION_DISPATCH, WSK_CONTROL_SOCKET_TYPE, WSK_INSPECT_ACTION,
};

/// A pointer to an IRP.
pub type PIRP = *mut IRP;

// Functions on the client -----------------------------------------------------------------------------------

/// Creates a socket; its address is the `Information` of the completed IRP.
pub type PFN_WSK_SOCKET = unsafe extern "system" fn(
    Client: PWSK_CLIENT,
    AddressFamily: ADDRESS_FAMILY,
    SocketType: u16,
    Protocol: u32,
    Flags: u32,
    SocketContext: *mut c_void,
    Dispatch: *const c_void,
    OwningProcess: PEPROCESS,
    OwningThread: PETHREAD,
    SecurityDescriptor: PSECURITY_DESCRIPTOR,
    Irp: PIRP,
) -> NTSTATUS;
/// Creates a connection socket, binds and connects it in one request.
pub type PFN_WSK_SOCKET_CONNECT = unsafe extern "system" fn(
    Client: PWSK_CLIENT,
    SocketType: u16,
    Protocol: u32,
    LocalAddress: PSOCKADDR,
    RemoteAddress: PSOCKADDR,
    Flags: u32,
    SocketContext: *mut c_void,
    Dispatch: *const WSK_CLIENT_CONNECTION_DISPATCH,
    OwningProcess: PEPROCESS,
    OwningThread: PETHREAD,
    SecurityDescriptor: PSECURITY_DESCRIPTOR,
    Irp: PIRP,
) -> NTSTATUS;
/// Controls the client object. `OutputSizeReturned` is a `SIZE_T`, as in the header.
pub type PFN_WSK_CONTROL_CLIENT = unsafe extern "system" fn(
    Client: PWSK_CLIENT,
    ControlCode: u32,
    InputSize: usize,
    InputBuffer: *mut c_void,
    OutputSize: usize,
    OutputBuffer: *mut c_void,
    OutputSizeReturned: *mut usize,
    Irp: PIRP,
) -> NTSTATUS;
/// Resolves a name (Windows 7). IRQL = PASSIVE.
pub type PFN_WSK_GET_ADDRESS_INFO = unsafe extern "system" fn(
    Client: PWSK_CLIENT,
    NodeName: PUNICODE_STRING,
    ServiceName: PUNICODE_STRING,
    NameSpace: u32,
    Provider: *mut GUID,
    Hints: PADDRINFOEXW,
    Result: *mut PADDRINFOEXW,
    OwningProcess: PEPROCESS,
    OwningThread: PETHREAD,
    Irp: PIRP,
) -> NTSTATUS;
/// Frees the answer of [`PFN_WSK_GET_ADDRESS_INFO`] (Windows 7). IRQL = PASSIVE.
pub type PFN_WSK_FREE_ADDRESS_INFO = unsafe extern "system" fn(Client: PWSK_CLIENT, AddrInfo: PADDRINFOEXW);
/// Resolves an address (Windows 7). IRQL = PASSIVE.
pub type PFN_WSK_GET_NAME_INFO = unsafe extern "system" fn(
    Client: PWSK_CLIENT,
    SockAddr: PSOCKADDR,
    SockAddrLength: u32,
    NodeName: PUNICODE_STRING,
    ServiceName: PUNICODE_STRING,
    Flags: u32,
    OwningProcess: PEPROCESS,
    OwningThread: PETHREAD,
    Irp: PIRP,
) -> NTSTATUS;

// Functions on a socket -------------------------------------------------------------------------------------

/// Sets or reads an option, or runs an I/O control code. `OutputSizeReturned` is a `SIZE_T`.
pub type PFN_WSK_CONTROL_SOCKET = unsafe extern "system" fn(
    Socket: PWSK_SOCKET,
    RequestType: WSK_CONTROL_SOCKET_TYPE,
    ControlCode: u32,
    Level: u32,
    InputSize: usize,
    InputBuffer: *mut c_void,
    OutputSize: usize,
    OutputBuffer: *mut c_void,
    OutputSizeReturned: *mut usize,
    Irp: PIRP,
) -> NTSTATUS;
/// Closes a socket; it completes after every other request and callback of the socket.
pub type PFN_WSK_CLOSE_SOCKET = unsafe extern "system" fn(Socket: PWSK_SOCKET, Irp: PIRP) -> NTSTATUS;
/// Binds a socket to a local address; a listening socket listens from then on.
pub type PFN_WSK_BIND = unsafe extern "system" fn(
    Socket: PWSK_SOCKET,
    LocalAddress: PSOCKADDR,
    Flags: u32,
    Irp: PIRP,
) -> NTSTATUS;
/// Connects a bound socket.
pub type PFN_WSK_CONNECT = unsafe extern "system" fn(
    Socket: PWSK_SOCKET,
    RemoteAddress: PSOCKADDR,
    Flags: u32,
    Irp: PIRP,
) -> NTSTATUS;
/// Connects a bound socket, with first data (Windows 10 1703).
pub type PFN_WSK_CONNECT_EX = unsafe extern "system" fn(
    Socket: PWSK_SOCKET,
    RemoteAddress: PSOCKADDR,
    Buffer: PWSK_BUF,
    Flags: u32,
    Irp: PIRP,
) -> NTSTATUS;
/// Makes a bound stream socket listen (Windows 10 1703).
pub type PFN_WSK_LISTEN = unsafe extern "system" fn(ListenSocket: PWSK_SOCKET, Irp: PIRP) -> NTSTATUS;
/// Takes the next connection; its socket is the `Information` of the completed IRP.
pub type PFN_WSK_ACCEPT = unsafe extern "system" fn(
    ListenSocket: PWSK_SOCKET,
    Flags: u32,
    AcceptSocketContext: *mut c_void,
    AcceptSocketDispatch: *const WSK_CLIENT_CONNECTION_DISPATCH,
    LocalAddress: PSOCKADDR,
    RemoteAddress: PSOCKADDR,
    Irp: PIRP,
) -> NTSTATUS;
/// Decides about a pended connection request.
pub type PFN_WSK_INSPECT_COMPLETE = unsafe extern "system" fn(
    ListenSocket: PWSK_SOCKET,
    InspectID: PWSK_INSPECT_ID,
    Action: WSK_INSPECT_ACTION,
    Irp: PIRP,
) -> NTSTATUS;
/// Reads the local address of a bound socket.
pub type PFN_WSK_GET_LOCAL_ADDRESS =
    unsafe extern "system" fn(Socket: PWSK_SOCKET, LocalAddress: PSOCKADDR, Irp: PIRP) -> NTSTATUS;
/// Reads the remote address of a connected socket.
pub type PFN_WSK_GET_REMOTE_ADDRESS =
    unsafe extern "system" fn(Socket: PWSK_SOCKET, RemoteAddress: PSOCKADDR, Irp: PIRP) -> NTSTATUS;
/// Sends stream data.
pub type PFN_WSK_SEND =
    unsafe extern "system" fn(Socket: PWSK_SOCKET, Buffer: PWSK_BUF, Flags: u32, Irp: PIRP) -> NTSTATUS;
/// Sends stream data with control information (Windows 10 1803).
pub type PFN_WSK_SEND_EX = unsafe extern "system" fn(
    Socket: PWSK_SOCKET,
    Buffer: PWSK_BUF,
    Flags: u32,
    ControlInfoLength: u32,
    ControlInfo: PCMSGHDR,
    Irp: PIRP,
) -> NTSTATUS;
/// Receives stream data.
pub type PFN_WSK_RECEIVE =
    unsafe extern "system" fn(Socket: PWSK_SOCKET, Buffer: PWSK_BUF, Flags: u32, Irp: PIRP) -> NTSTATUS;
/// Receives stream data with control information (Windows 10 1803).
pub type PFN_WSK_RECEIVE_EX = unsafe extern "system" fn(
    Socket: PWSK_SOCKET,
    Buffer: PWSK_BUF,
    Flags: u32,
    ControlInfoLength: *mut u32,
    ControlInfo: PCMSGHDR,
    ControlFlags: *mut u32,
    Irp: PIRP,
) -> NTSTATUS;
/// Disconnects, gracefully or by a reset.
pub type PFN_WSK_DISCONNECT =
    unsafe extern "system" fn(Socket: PWSK_SOCKET, Buffer: PWSK_BUF, Flags: u32, Irp: PIRP) -> NTSTATUS;
/// Releases retained stream data.
pub type PFN_WSK_RELEASE_DATA_INDICATION_LIST =
    unsafe extern "system" fn(Socket: PWSK_SOCKET, DataIndication: PWSK_DATA_INDICATION) -> NTSTATUS;
/// Sends a datagram.
pub type PFN_WSK_SEND_TO = unsafe extern "system" fn(
    Socket: PWSK_SOCKET,
    Buffer: PWSK_BUF,
    Flags: u32,
    RemoteAddress: PSOCKADDR,
    ControlInfoLength: u32,
    ControlInfo: PCMSGHDR,
    Irp: PIRP,
) -> NTSTATUS;
/// Sends a list of datagrams (Windows 8).
pub type PFN_WSK_SEND_MESSAGES = unsafe extern "system" fn(
    Socket: PWSK_SOCKET,
    BufferList: PWSK_BUF_LIST,
    Flags: u32,
    RemoteAddress: PSOCKADDR,
    ControlInfoLength: u32,
    ControlInfo: PCMSGHDR,
    Irp: PIRP,
) -> NTSTATUS;
/// Receives a datagram.
pub type PFN_WSK_RECEIVE_FROM = unsafe extern "system" fn(
    Socket: PWSK_SOCKET,
    Buffer: PWSK_BUF,
    Flags: u32,
    RemoteAddress: PSOCKADDR,
    ControlLength: *mut u32,
    ControlInfo: PCMSGHDR,
    ControlFlags: *mut u32,
    Irp: PIRP,
) -> NTSTATUS;
/// Releases retained datagrams.
pub type PFN_WSK_RELEASE_DATAGRAM_INDICATION_LIST =
    unsafe extern "system" fn(Socket: PWSK_SOCKET, DatagramIndication: PWSK_DATAGRAM_INDICATION) -> NTSTATUS;

// Callbacks of the client -----------------------------------------------------------------------------------

/// An event of the client object; none is defined.
pub type PFN_WSK_CLIENT_EVENT = unsafe extern "system" fn(
    ClientContext: *mut c_void,
    EventType: u32,
    Information: *mut c_void,
    InformationLength: usize,
) -> NTSTATUS;
/// A connection was established; a null `AcceptSocket` reports that the listener is dead.
pub type PFN_WSK_ACCEPT_EVENT = unsafe extern "system" fn(
    SocketContext: *mut c_void,
    Flags: u32,
    LocalAddress: PSOCKADDR,
    RemoteAddress: PSOCKADDR,
    AcceptSocket: PWSK_SOCKET,
    AcceptSocketContext: *mut *mut c_void,
    AcceptSocketDispatch: *mut *const WSK_CLIENT_CONNECTION_DISPATCH,
) -> NTSTATUS;
/// A connection request arrived; a null `InspectID` reports that the listener is dead.
pub type PFN_WSK_INSPECT_EVENT = unsafe extern "system" fn(
    SocketContext: *mut c_void,
    LocalAddress: PSOCKADDR,
    RemoteAddress: PSOCKADDR,
    InspectID: PWSK_INSPECT_ID,
) -> WSK_INSPECT_ACTION;
/// An inspected connection request was aborted.
pub type PFN_WSK_ABORT_EVENT =
    unsafe extern "system" fn(SocketContext: *mut c_void, InspectID: PWSK_INSPECT_ID) -> NTSTATUS;
/// Datagrams arrived; a null list reports that the socket is dead.
pub type PFN_WSK_RECEIVE_FROM_EVENT = unsafe extern "system" fn(
    SocketContext: *mut c_void,
    Flags: u32,
    DataIndication: PWSK_DATAGRAM_INDICATION,
) -> NTSTATUS;
/// Stream data arrived; a null list reports that the socket is dead.
pub type PFN_WSK_RECEIVE_EVENT = unsafe extern "system" fn(
    SocketContext: *mut c_void,
    Flags: u32,
    DataIndication: PWSK_DATA_INDICATION,
    BytesIndicated: usize,
    BytesAccepted: *mut usize,
) -> NTSTATUS;
/// Stream data with control information arrived (Windows 10 1803).
pub type PFN_WSK_RECEIVE_EX_EVENT = unsafe extern "system" fn(
    SocketContext: *mut c_void,
    Flags: u32,
    DataIndication: PWSK_DATA_INDICATION,
    ControlInfo: PCMSGHDR,
    ControlInfoLength: u32,
    BytesIndicated: usize,
    BytesAccepted: *mut usize,
) -> NTSTATUS;
/// The peer disconnected; [`WSK_FLAG_ABORTIVE`](crate::WSK_FLAG_ABORTIVE) marks a reset.
pub type PFN_WSK_DISCONNECT_EVENT =
    unsafe extern "system" fn(SocketContext: *mut c_void, Flags: u32) -> NTSTATUS;
/// The ideal amount of outstanding send data changed.
pub type PFN_WSK_SEND_BACKLOG_EVENT =
    unsafe extern "system" fn(SocketContext: *mut c_void, IdealBacklogSize: usize) -> NTSTATUS;
