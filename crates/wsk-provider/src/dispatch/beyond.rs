//! What lies behind the end of an older system's tables: functions that report who read so far (LAY-15).

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{PCMSGHDR, PSOCKADDR, PWSK_BUF, PWSK_BUF_LIST, PWSK_SOCKET, STATUS_NOT_IMPLEMENTED};

use crate::socket::Call;

/// Reports the read, and fails the call.
///
/// # Safety
/// As [`Call::begin`].
unsafe fn report(name: &'static str, socket: PWSK_SOCKET, irp: *mut IRP) -> NTSTATUS {
    // SAFETY: forwarded to the caller.
    match unsafe { Call::begin(name, "IRP-18", socket, irp) } {
        Ok((call, request)) => {
            call.provider().violation(
                "LAY-15",
                name,
                "the table of this Windows release ends before this member",
            );
            request.fail(call.provider(), STATUS_NOT_IMPLEMENTED)
        }
        Err(status) => status,
    }
}

/// # Safety
/// As `PFN_WSK_CONNECT_EX`.
pub(super) unsafe extern "system" fn connect_ex(
    socket: PWSK_SOCKET,
    _remote: PSOCKADDR,
    _buffer: PWSK_BUF,
    _flags: u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: forwarded to the caller.
    unsafe { report("WskConnectEx", socket, irp) }
}

/// # Safety
/// As `PFN_WSK_SEND_EX`.
pub(super) unsafe extern "system" fn send_ex(
    socket: PWSK_SOCKET,
    _buffer: PWSK_BUF,
    _flags: u32,
    _control_length: u32,
    _control: PCMSGHDR,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: forwarded to the caller.
    unsafe { report("WskSendEx", socket, irp) }
}

/// # Safety
/// As `PFN_WSK_RECEIVE_EX`.
pub(super) unsafe extern "system" fn receive_ex(
    socket: PWSK_SOCKET,
    _buffer: PWSK_BUF,
    _flags: u32,
    _control_length: *mut u32,
    _control: PCMSGHDR,
    _control_flags: *mut u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: forwarded to the caller.
    unsafe { report("WskReceiveEx", socket, irp) }
}

/// # Safety
/// As `PFN_WSK_SEND_MESSAGES`.
pub(super) unsafe extern "system" fn send_messages(
    socket: PWSK_SOCKET,
    _list: PWSK_BUF_LIST,
    _flags: u32,
    _remote: PSOCKADDR,
    _control_length: u32,
    _control: PCMSGHDR,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: forwarded to the caller.
    unsafe { report("WskSendMessages", socket, irp) }
}
