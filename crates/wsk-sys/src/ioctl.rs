//! I/O control codes of `WskControlSocket`, and how they are built.

/// The code has no parameters.
pub const IOC_VOID: u32 = 0x2000_0000;
/// The code has an output buffer.
pub const IOC_OUT: u32 = 0x4000_0000;
/// The code has an input buffer.
pub const IOC_IN: u32 = 0x8000_0000;
/// The code has an input and an output buffer.
pub const IOC_INOUT: u32 = IOC_IN | IOC_OUT;
/// Code space of Berkeley sockets.
pub const IOC_UNIX: u32 = 0x0000_0000;
/// Code space of Winsock 2.
pub const IOC_WS2: u32 = 0x0800_0000;
/// Code space of an address family.
pub const IOC_PROTOCOL: u32 = 0x1000_0000;
/// Code space of a vendor.
pub const IOC_VENDOR: u32 = 0x1800_0000;
/// Code space of WSK.
pub const IOC_WSK: u32 = IOC_WS2 | 0x0700_0000;

/// A code without parameters (`_WSAIO`).
pub const fn _WSAIO(space: u32, number: u32) -> u32 {
    IOC_VOID | space | number
}

/// A code with an output buffer (`_WSAIOR`).
pub const fn _WSAIOR(space: u32, number: u32) -> u32 {
    IOC_OUT | space | number
}

/// A code with an input buffer (`_WSAIOW`).
pub const fn _WSAIOW(space: u32, number: u32) -> u32 {
    IOC_IN | space | number
}

/// A code with both buffers (`_WSAIORW`).
pub const fn _WSAIORW(space: u32, number: u32) -> u32 {
    IOC_INOUT | space | number
}

/// Fixes destination and source filter of a datagram socket.
pub const SIO_WSK_SET_REMOTE_ADDRESS: u32 = _WSAIOW(IOC_WSK, 1);
/// Registers for a socket extension.
pub const SIO_WSK_REGISTER_EXTENSION: u32 = _WSAIORW(IOC_WSK, 2);
/// Reads the ideal amount of outstanding send data.
pub const SIO_WSK_QUERY_IDEAL_SEND_BACKLOG: u32 = _WSAIOR(IOC_WSK, 3);
/// Reads the amount of buffered receive data.
pub const SIO_WSK_QUERY_RECEIVE_BACKLOG: u32 = _WSAIOR(IOC_WSK, 4);
/// Reads the inspection id of a conditionally accepted connection.
pub const SIO_WSK_QUERY_INSPECT_ID: u32 = _WSAIOR(IOC_WSK, 5);
/// Fixes the destination of a datagram socket.
pub const SIO_WSK_SET_SENDTO_ADDRESS: u32 = _WSAIOW(IOC_WSK, 6);
/// Puts a TCP connection into silence (Windows 8).
pub const SIO_WSK_SET_TCP_SILENT_MODE: u32 = _WSAIO(IOC_WSK, 7);
/// Sets the extended receive callback (Windows 10 1803).
pub const SIO_WSK_SET_RECEIVE_EX_CALLBACK: u32 = _WSAIOW(IOC_WSK, 8);
/// Lists the local addresses.
pub const SIO_ADDRESS_LIST_QUERY: u32 = _WSAIOR(IOC_WS2, 22);
/// Completes when the local addresses change.
pub const SIO_ADDRESS_LIST_CHANGE: u32 = _WSAIO(IOC_WS2, 23);
/// Sorts a list of addresses.
pub const SIO_ADDRESS_LIST_SORT: u32 = _WSAIORW(IOC_WS2, 25);
/// Sets how idle connections are probed.
pub const SIO_KEEPALIVE_VALS: u32 = _WSAIOW(IOC_VENDOR, 4);
/// Reads how received data is spread over the processors.
pub const SIO_QUERY_RSS_SCALABILITY_INFO: u32 = _WSAIOR(IOC_VENDOR, 210);
/// Turns the loopback fast path on.
pub const SIO_LOOPBACK_FAST_PATH: u32 = _WSAIOW(IOC_VENDOR, 16);
/// Reads the redirect records of a redirected connection.
pub const SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS: u32 = _WSAIOW(IOC_VENDOR, 220);
/// Reads the redirect context of a redirected connection.
pub const SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT: u32 = _WSAIOW(IOC_VENDOR, 221);
/// Sets the redirect records of a proxied connection.
pub const SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS: u32 = _WSAIOW(IOC_VENDOR, 222);
