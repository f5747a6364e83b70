//! `WskAccept` (LSN area).

use std::ffi::c_void;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    PSOCKADDR, PWSK_SOCKET, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_PARAMETER, STATUS_PENDING,
    WSK_CLIENT_CONNECTION_DISPATCH,
};

use super::{Established, deliver};
use crate::address;
use crate::behaviours::AcceptBeforeListen;
use crate::client::{check_context, check_table};
use crate::request::{Purpose, Request};
use crate::socket::{Call, Category, Context, Role, Socket};

const NAME: &str = "WskAccept";

/// Outputs of a waiting `WskAccept`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AcceptItem {
    pub(super) context: Context,
    pub(super) dispatch: *const WSK_CLIENT_CONNECTION_DISPATCH,
    local: PSOCKADDR,
    remote: PSOCKADDR,
}

// SAFETY: the pointers are the client's, valid from any thread until the request completes (LSN-20).
unsafe impl Send for AcceptItem {}

impl AcceptItem {
    /// Writes the addresses of the accepted connection. Reports a buffer that was freed meanwhile.
    pub(super) fn write_addresses(&self, listener: &Socket, established: &Established) {
        for (buffer, address) in [(self.local, established.local), (self.remote, established.remote)] {
            if buffer.is_null() {
                continue;
            }
            let provider = listener.provider();
            if !provider.is_non_paged(buffer.cast_const(), listener.family.size()) {
                provider.violation("LSN-20", NAME, "an address buffer was freed before the accept completed");
                continue;
            }
            // SAFETY: the client keeps the buffer, of its family's size, until the request completes.
            unsafe { address::write(buffer, address, listener.family) };
        }
    }
}

/// `WskAccept`.
///
/// # Safety
/// As `PFN_WSK_ACCEPT`: the socket is open, the outputs stay valid until the request completes, and the
/// caller gives up the IRP.
pub(crate) unsafe extern "system" fn wsk_accept(
    socket: PWSK_SOCKET,
    flags: u32,
    context: *mut c_void,
    dispatch: *const WSK_CLIENT_CONNECTION_DISPATCH,
    local: PSOCKADDR,
    remote: PSOCKADDR,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    let (call, mut request) = match unsafe { Call::begin(NAME, "LSN-10", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    let provider = call.provider();
    if flags != 0 {
        provider.violation("LSN-09", NAME, &format!("the reserved Flags are {flags:#x}"));
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    }
    if !context.is_null() && dispatch.is_null() {
        provider.advice(
            "LSN-13",
            NAME,
            "AcceptSocketContext is set, but there is no dispatch table for callbacks",
        );
    }
    check_context(provider, "LSN-12", NAME, context.cast::<u8>().cast_const());
    check_table(provider, "LSN-14", NAME, dispatch);
    let [local, remote] = [local, remote].map(|buffer| usable(&call, buffer));
    request.makes(Category::Connection);
    request.needs(local, Purpose::AcceptAddress);
    request.needs(remote, Purpose::AcceptAddress);
    accept(&call, request, AcceptItem { context: Context(context), dispatch, local, remote })
}

/// Checks that an address buffer is non-paged and large enough (LSN-18, LSN-19). An invalid one is not
/// written.
fn usable(call: &Call, buffer: PSOCKADDR) -> PSOCKADDR {
    let provider = call.provider();
    if buffer.is_null() || provider.is_non_paged(buffer.cast_const(), call.family.size()) {
        return buffer;
    }
    if provider.is_non_paged(buffer.cast_const(), 1) {
        let detail = format!("an address buffer is smaller than {} bytes", call.family.size());
        provider.violation("LSN-19", NAME, &detail);
    } else {
        provider.violation("LSN-18", NAME, "an address buffer is not in non-paged memory");
    }
    std::ptr::null_mut()
}

fn accept(call: &Call, request: Request, item: AcceptItem) -> NTSTATUS {
    let provider = call.provider();
    let mut state = call.lock();
    if let Some(status) = state.refused() {
        drop(state);
        return request.fail(provider, status);
    }
    let behaviours = provider.live_config.behaviours();
    let refusal = match &mut state.role {
        Role::Listen(listener) if listener.local.is_none() => behaviours.accept_unbound.status(),
        Role::Listen(listener) => {
            listener.asked = true;
            let Some(established) = listener.backlog.pop_front() else {
                listener.accepts.push(request, &**call, item);
                return STATUS_PENDING;
            };
            drop(state);
            // The documentation requires this: a waiting connection is returned inline (LSN-03, ruling 8).
            return deliver::by_request(call, request, item, established);
        }
        Role::Stream(stream) if stream.local_address().is_none() => behaviours.accept_unbound.status(),
        Role::Stream(stream) if behaviours.accept_before_listen == AcceptBeforeListen::Queued => {
            stream.accepts_mut().push(request, &**call, item);
            return STATUS_PENDING;
        }
        Role::Stream(_) => wsk_sys::STATUS_INVALID_DEVICE_STATE,
        Role::Connection(_) => behaviours.other_role.status(),
        Role::Basic | Role::Datagram(_) => STATUS_INVALID_DEVICE_REQUEST,
    };
    drop(state);
    request.fail(provider, refusal)
}
