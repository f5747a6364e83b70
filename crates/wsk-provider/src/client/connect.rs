//! `WskSocketConnect`: create, bind and connect in one request (SOCK-17 to SOCK-19).

use std::ffi::c_void;

use wsk_sys::nt::{IRP, NTSTATUS, PEPROCESS, PETHREAD, PSECURITY_DESCRIPTOR};
use wsk_sys::{
    IPPROTO_TCP, PSOCKADDR, PWSK_CLIENT, SOCK_STREAM, STATUS_INVALID_PARAMETER,
    WSK_CLIENT_CONNECTION_DISPATCH,
};

use super::create::{Wish, check_descriptor};
use super::{ClientCall, check_context, check_table};
use crate::connection;
use crate::request::Purpose;
use crate::socket::{Category, Context, Refusal, Socket, Tables, bind};

/// `WskSocketConnect`.
///
/// # Safety
/// As `PFN_WSK_SOCKET_CONNECT`: the client is captured, the addresses are whole, and the caller gives up the
/// IRP.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe extern "system" fn wsk_socket_connect(
    client: PWSK_CLIENT,
    socket_type: u16,
    protocol: u32,
    local: PSOCKADDR,
    remote: PSOCKADDR,
    flags: u32,
    context: *mut c_void,
    dispatch: *const WSK_CLIENT_CONNECTION_DISPATCH,
    _owning_process: PEPROCESS,
    _owning_thread: PETHREAD,
    descriptor: PSECURITY_DESCRIPTOR,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes its own handle and gives up the IRP.
    let (call, mut request) = match unsafe { ClientCall::begin("WskSocketConnect", client, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    let provider = call.provider();
    if flags != 0 {
        provider.violation("IRP-26", call.name, &format!("the reserved Flags are {flags:#x}"));
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    }
    if socket_type != SOCK_STREAM || protocol != IPPROTO_TCP {
        return request.fail(provider, provider.live_config.behaviours().no_such_pair.status());
    }
    request.needs(local, Purpose::AddressIn);
    request.needs(remote, Purpose::AddressIn);
    // SAFETY: the client passes a whole address.
    let Some(family) = (unsafe { provider.family_of(call.name, local) }) else {
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    };
    // SAFETY: the client passes a whole address.
    let local = unsafe { provider.read_address(call.name, local, family) };
    // SAFETY: the client passes a whole address.
    let remote = unsafe { provider.read_address(call.name, remote, family) };
    let (Some(local), Some(remote)) = (local, remote) else {
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    };
    check_table(provider, "SOCK-03", call.name, dispatch);
    check_context(provider, "SOCK-06", call.name, context.cast::<u8>().cast_const());
    let wish = Wish {
        category: Category::Connection,
        family,
        socket_type,
        protocol,
        context: Context(context),
        tables: Tables { connection: dispatch, ..Tables::default() },
        descriptor,
    };
    request.makes(Category::Connection);
    request.needs_descriptor(descriptor);
    let made = check_descriptor(provider, call.name, descriptor).and_then(|()| wish.grant(&call));
    let socket = match made {
        Ok(socket) => socket,
        Err(status) => return request.fail(provider, status),
    };
    let bound = bind(&socket, &mut socket.lock(), local);
    if let Err(Refusal::State(status) | Refusal::Outcome(status)) = bound {
        Socket::discard(&socket);
        return request.finish_pended(&*call, status, 0);
    }
    let information = socket.raw() as usize;
    connection::start_connect(&socket, remote, request, information, Socket::discard)
}
