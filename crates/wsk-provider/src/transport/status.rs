//! Status codes of failed network calls (contract 4.10, 4.12, 4.13 and 5.9).

use std::io::{self, ErrorKind};

use wsk_sys::nt::NTSTATUS;
use wsk_sys::status;

/// Returns the status of a request for an error of the network.
pub fn status_of(error: &io::Error) -> NTSTATUS {
    match error.kind() {
        ErrorKind::ConnectionRefused => status::STATUS_CONNECTION_REFUSED,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => status::STATUS_CONNECTION_RESET,
        ErrorKind::ConnectionAborted => status::STATUS_CONNECTION_ABORTED,
        ErrorKind::NotConnected => status::STATUS_INVALID_CONNECTION,
        ErrorKind::TimedOut => status::STATUS_IO_TIMEOUT,
        ErrorKind::HostUnreachable => status::STATUS_HOST_UNREACHABLE,
        ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => status::STATUS_NETWORK_UNREACHABLE,
        ErrorKind::PermissionDenied => status::STATUS_ACCESS_DENIED,
        ErrorKind::AddrInUse => status::STATUS_ADDRESS_ALREADY_EXISTS,
        ErrorKind::AddrNotAvailable => status::STATUS_INVALID_ADDRESS_COMPONENT,
        ErrorKind::InvalidInput => status::STATUS_INVALID_PARAMETER,
        ErrorKind::OutOfMemory => status::STATUS_INSUFFICIENT_RESOURCES,
        ErrorKind::Unsupported => status::STATUS_NOT_SUPPORTED,
        ErrorKind::WouldBlock => status::STATUS_DEVICE_NOT_READY,
        _ => other_status(error),
    }
}

/// Returns the status of host errors without an [`ErrorKind`].
#[cfg(unix)]
fn other_status(error: &io::Error) -> NTSTATUS {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS) => status::STATUS_INSUFFICIENT_RESOURCES,
        // The scope of an address is no interface.
        Some(libc::ENODEV | libc::ENXIO) => status::STATUS_INVALID_ADDRESS_COMPONENT,
        Some(libc::EHOSTDOWN) => status::STATUS_HOST_UNREACHABLE,
        Some(libc::EMSGSIZE) => status::STATUS_INVALID_BUFFER_SIZE,
        Some(libc::EISCONN) => status::STATUS_CONNECTION_ACTIVE,
        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => status::STATUS_NOT_SUPPORTED,
        _ => status::STATUS_UNSUCCESSFUL,
    }
}

/// Returns the status of host errors without an [`ErrorKind`].
#[cfg(windows)]
fn other_status(error: &io::Error) -> NTSTATUS {
    match error.raw_os_error() {
        // WSAEMFILE and WSAENOBUFS.
        Some(10_024 | 10_055) => status::STATUS_INSUFFICIENT_RESOURCES,
        // WSAEHOSTDOWN.
        Some(10_064) => status::STATUS_HOST_UNREACHABLE,
        // WSAEMSGSIZE.
        Some(10_040) => status::STATUS_INVALID_BUFFER_SIZE,
        // WSAEISCONN.
        Some(10_056) => status::STATUS_CONNECTION_ACTIVE,
        // WSAEPROTONOSUPPORT and WSAEAFNOSUPPORT.
        Some(10_043 | 10_047) => status::STATUS_NOT_SUPPORTED,
        _ => status::STATUS_UNSUCCESSFUL,
    }
}
