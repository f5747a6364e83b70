//! Functions beyond the end of an older system's tables, which report the call (LAY-15).

use wsk_sys::nt::{GUID, IRP, NTSTATUS, PEPROCESS, PETHREAD};
use wsk_sys::{
    PADDRINFOEXW, PCMSGHDR, PSOCKADDR, PUNICODE_STRING, PWSK_BUF, PWSK_BUF_LIST, PWSK_CLIENT, PWSK_SOCKET,
    STATUS_NOT_IMPLEMENTED,
};

use crate::client::ClientCall;
use crate::socket::Call;

const DETAIL: &str = "the function is not in the dispatch table of this Windows release: check Version";

/// Reports a call of a client function, and fails it.
///
/// # Safety
/// `client` is null or was returned by a provider of this crate; `irp` is null or passed by the client, which
/// gives up its ownership.
unsafe fn report_client(name: &'static str, client: PWSK_CLIENT, irp: *mut IRP) -> NTSTATUS {
    // SAFETY: the caller guarantees that `client` is null or was returned by a provider of this crate, and
    // gives up the ownership of `irp`.
    match unsafe { ClientCall::begin(name, client, irp) } {
        Ok((call, request)) => {
            call.provider().violation("LAY-15", name, DETAIL);
            request.fail(call.provider(), STATUS_NOT_IMPLEMENTED)
        }
        Err(status) => status,
    }
}

/// # Safety
/// `client` is null or was returned by a provider of this crate; `irp` is null or passed by the client, which
/// gives up its ownership.
#[allow(clippy::too_many_arguments)]
pub(super) unsafe extern "system" fn get_address_info(
    client: PWSK_CLIENT,
    _node: PUNICODE_STRING,
    _service: PUNICODE_STRING,
    _name_space: u32,
    _name_provider: *mut GUID,
    _hints: PADDRINFOEXW,
    _result: *mut PADDRINFOEXW,
    _process: PEPROCESS,
    _thread: PETHREAD,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the caller guarantees that `client` is null or was returned by a provider of this crate, and
    // gives up the ownership of `irp`.
    unsafe { report_client("WskGetAddressInfo", client, irp) }
}

/// # Safety
/// `client` is null or was returned by a provider of this crate.
pub(super) unsafe extern "system" fn free_address_info(client: PWSK_CLIENT, _list: PADDRINFOEXW) {
    // SAFETY: the caller guarantees that `client` is null or was returned by a provider of this crate.
    if let Ok(call) = unsafe { ClientCall::enter("WskFreeAddressInfo", client) } {
        call.provider().violation("LAY-15", call.name, DETAIL);
    }
}

/// # Safety
/// `client` is null or was returned by a provider of this crate; `irp` is null or passed by the client, which
/// gives up its ownership.
#[allow(clippy::too_many_arguments)]
pub(super) unsafe extern "system" fn get_name_info(
    client: PWSK_CLIENT,
    _address: PSOCKADDR,
    _length: u32,
    _node: PUNICODE_STRING,
    _service: PUNICODE_STRING,
    _flags: u32,
    _process: PEPROCESS,
    _thread: PETHREAD,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the caller guarantees that `client` is null or was returned by a provider of this crate, and
    // gives up the ownership of `irp`.
    unsafe { report_client("WskGetNameInfo", client, irp) }
}

/// Reports a call of a socket function, and fails it.
///
/// # Safety
/// `socket` was returned by a provider of this crate; `irp` is null or passed by the client, which gives up
/// its ownership.
unsafe fn report(name: &'static str, socket: PWSK_SOCKET, irp: *mut IRP) -> NTSTATUS {
    // SAFETY: the caller guarantees that `socket` was returned by a provider of this crate, and gives up the
    // ownership of `irp`.
    match unsafe { Call::begin(name, "IRP-18", socket, irp) } {
        Ok((call, request)) => {
            call.provider().violation("LAY-15", name, DETAIL);
            request.fail(call.provider(), STATUS_NOT_IMPLEMENTED)
        }
        Err(status) => status,
    }
}

/// # Safety
/// `socket` was returned by a provider of this crate; `irp` is null or passed by the client, which gives up
/// its ownership.
pub(super) unsafe extern "system" fn connect_ex(
    socket: PWSK_SOCKET,
    _remote: PSOCKADDR,
    _buffer: PWSK_BUF,
    _flags: u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the caller guarantees that `socket` was returned by a provider of this crate, and gives up the
    // ownership of `irp`.
    unsafe { report("WskConnectEx", socket, irp) }
}

/// # Safety
/// `socket` was returned by a provider of this crate; `irp` is null or passed by the client, which gives up
/// its ownership.
pub(super) unsafe extern "system" fn send_ex(
    socket: PWSK_SOCKET,
    _buffer: PWSK_BUF,
    _flags: u32,
    _control_length: u32,
    _control: PCMSGHDR,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the caller guarantees that `socket` was returned by a provider of this crate, and gives up the
    // ownership of `irp`.
    unsafe { report("WskSendEx", socket, irp) }
}

/// # Safety
/// `socket` was returned by a provider of this crate; `irp` is null or passed by the client, which gives up
/// its ownership.
pub(super) unsafe extern "system" fn receive_ex(
    socket: PWSK_SOCKET,
    _buffer: PWSK_BUF,
    _flags: u32,
    _control_length: *mut u32,
    _control: PCMSGHDR,
    _control_flags: *mut u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the caller guarantees that `socket` was returned by a provider of this crate, and gives up the
    // ownership of `irp`.
    unsafe { report("WskReceiveEx", socket, irp) }
}

/// # Safety
/// `socket` was returned by a provider of this crate; `irp` is null or passed by the client, which gives up
/// its ownership.
pub(super) unsafe extern "system" fn send_messages(
    socket: PWSK_SOCKET,
    _list: PWSK_BUF_LIST,
    _flags: u32,
    _remote: PSOCKADDR,
    _control_length: u32,
    _control: PCMSGHDR,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the caller guarantees that `socket` was returned by a provider of this crate, and gives up the
    // ownership of `irp`.
    unsafe { report("WskSendMessages", socket, irp) }
}
