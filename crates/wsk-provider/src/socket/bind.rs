//! `WskBind` and `WskGetLocalAddress`, for all categories.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    PSOCKADDR, PWSK_SOCKET, SOCK_STREAM, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_DEVICE_STATE,
    STATUS_INVALID_PARAMETER, STATUS_NOT_IMPLEMENTED, STATUS_SUCCESS,
};

use super::{Call, Category, Role, Socket, State};
use crate::address::{self, Claim};
use crate::datagram;
use crate::listen;
use crate::request::Purpose;
use crate::transport::{Transport, status_of};

/// `WskBind`.
///
/// # Safety
/// As `PFN_WSK_BIND`: the socket is open, the address is whole, and the caller gives up the IRP.
pub(crate) unsafe extern "system" fn wsk_bind(
    socket: PWSK_SOCKET,
    local: PSOCKADDR,
    flags: u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    let (call, mut request) = match unsafe { Call::begin("WskBind", "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    let provider = call.provider();
    if flags != 0 {
        provider.violation("IRP-26", call.name, &format!("the reserved Flags are {flags:#x}"));
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    }
    request.needs(local, Purpose::AddressIn);
    // SAFETY: the client passes a whole address.
    let Some(local) = (unsafe { provider.read_address(call.name, local, call.family) }) else {
        provider.violation("BIND-12", call.name, "the address family is not that of the socket");
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    };
    let result = {
        let mut state = call.lock();
        match state.refused() {
            Some(status) => Err(Refusal::State(status)),
            None => bind(&call, &mut state, local),
        }
    };
    match result {
        Ok(()) => request.finish_pended(&*call, STATUS_SUCCESS, 0),
        Err(Refusal::State(status)) => request.fail(provider, status),
        Err(Refusal::Outcome(status)) => request.finish_pended(&*call, status, 0),
    }
}

/// Reason why a bind fails.
pub(crate) enum Refusal {
    /// The call is invalid in this state: fails inline.
    State(NTSTATUS),
    /// The host or the address table refused the bind.
    Outcome(NTSTATUS),
}

/// Binds a socket whose lock is held.
pub(crate) fn bind(socket: &Arc<Socket>, state: &mut State, local: SocketAddr) -> Result<(), Refusal> {
    let behaviours = socket.provider().live_config.behaviours();
    let bound = match &state.role {
        Role::Basic => return Err(Refusal::State(STATUS_INVALID_DEVICE_REQUEST)),
        Role::Connection(connection) if connection.is_connected() => {
            return Err(Refusal::State(behaviours.bind_connected.status()));
        }
        part => part.local_address().is_some() || part.is_past_bind(),
    };
    if bound {
        return Err(Refusal::State(behaviours.second_bind.status()));
    }
    if socket.category == Category::Listen && socket.socket_type != SOCK_STREAM {
        return Err(Refusal::Outcome(STATUS_NOT_IMPLEMENTED));
    }
    let provider = socket.provider();
    let network = provider.network().map_err(|error| Refusal::Outcome(status_of(&error)))?;
    let options = &state.options;
    let rights = provider.descriptors.rights(options.descriptor).unwrap_or_default();
    let claim = provider
        .addresses
        .claim(socket.protocol, local, options.v6_only, options.sharing, rights)
        .map_err(Refusal::Outcome)?;
    take_address(socket, state, &**network, local, claim).map_err(|error| Refusal::Outcome(status_of(&error)))
}

fn take_address(
    socket: &Arc<Socket>,
    state: &mut State,
    network: &dyn Transport,
    local: SocketAddr,
    claim: Claim,
) -> io::Result<()> {
    let options = state.options.for_bind(claim.shared);
    match &mut state.role {
        Role::Basic => {}
        Role::Listen(listener) => {
            let port = network.listen(local, &options, listen::sink(socket))?;
            claim.settle(port.local_address()?);
            listener.bound(port, claim)?;
        }
        Role::Connection(connection) => {
            let reservation = network.reserve(local, &options)?;
            claim.settle(reservation.local_address()?);
            connection.bound(reservation, claim)?;
        }
        Role::Datagram(datagram) => {
            let port = network.datagram(local, &options, datagram::sink(socket))?;
            claim.settle(port.local_address()?);
            datagram.bound(port, claim)?;
        }
        Role::Stream(stream) => {
            let reservation = network.reserve(local, &options)?;
            claim.settle(reservation.local_address()?);
            stream.bound(reservation, claim)?;
        }
    }
    Ok(())
}

/// `WskGetLocalAddress`.
///
/// # Safety
/// As `PFN_WSK_GET_LOCAL_ADDRESS`: the socket is open, the output has room for its family's SOCKADDR, and the
/// caller gives up the IRP.
pub(crate) unsafe extern "system" fn wsk_get_local_address(
    socket: PWSK_SOCKET,
    local: PSOCKADDR,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    let (call, mut request) = match unsafe { Call::begin("WskGetLocalAddress", "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    let provider = call.provider();
    if !check_output(&call, local) {
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    }
    request.needs(local, Purpose::AddressOut);
    let known = call.lock().role.local_address();
    let Some(address) = known else { return request.fail(provider, STATUS_INVALID_DEVICE_STATE) };
    // SAFETY: the client's buffer has room for an address of the socket's family.
    unsafe { address::write(local, address, call.family) };
    request.finish(&*call, STATUS_SUCCESS, 0)
}

/// Checks a SOCKADDR buffer that is written later; false if there is none.
pub(crate) fn check_output(call: &Call, buffer: PSOCKADDR) -> bool {
    if buffer.is_null() {
        return false;
    }
    let provider = call.provider();
    if !provider.is_non_paged(buffer.cast_const(), call.family.size()) {
        provider.violation(
            "LIFE-07",
            call.name,
            "an address buffer is too small, or not in non-paged memory",
        );
    }
    true
}
