//! `WskDisconnect` (contract 4.15).

use std::sync::Arc;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    PWSK_BUF, PWSK_SOCKET, STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_PARAMETER, STATUS_NOT_SUPPORTED,
    STATUS_PENDING, STATUS_SUCCESS, WSK_FLAG_ABORTIVE,
};

use super::{After, event, no_connection, part, refuse_buffer};
use crate::behaviours::AbortiveBuffer;
use crate::data::Span;
use crate::request::Request;
use crate::socket::{Call, Socket};

/// `WskDisconnect`.
///
/// # Safety
/// As `PFN_WSK_DISCONNECT`: the socket is open, the buffer is null or valid until the IRP completes, and the
/// caller gives up the IRP.
pub(crate) unsafe extern "system" fn wsk_disconnect(
    socket: PWSK_SOCKET,
    buffer: PWSK_BUF,
    flags: u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    let (call, mut request) = match unsafe { Call::begin("WskDisconnect", "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    let provider = call.provider();
    if flags & !WSK_FLAG_ABORTIVE != 0 {
        return request.fail(provider, STATUS_NOT_SUPPORTED);
    }
    if flags & WSK_FLAG_ABORTIVE != 0 {
        // SAFETY: the client passes null or a descriptor, wherever it lies.
        let bytes = (!buffer.is_null()).then(|| unsafe { buffer.read_unaligned() }.Length);
        if bytes == Some(0) {
            provider.advice(
                "DISC-23",
                call.name,
                "an abortive disconnect with an empty buffer: pass a null buffer",
            );
        } else if bytes.is_some() {
            provider.violation(
                "DISC-23",
                call.name,
                "an abortive disconnect with a buffer: pass a null buffer",
            );
            if provider.live_config.behaviours().abortive_buffer == AbortiveBuffer::Refused {
                return request.fail(provider, STATUS_INVALID_PARAMETER);
            }
        }
        return abort(&call, request);
    }
    // SAFETY: the client leaves the buffer alone until the IRP completes.
    unsafe { request.needs_buffer(buffer) };
    // SAFETY: the client leaves the buffer alone until the IRP completes.
    match unsafe { Span::new(provider, call.name, buffer) } {
        Ok(last) => close(&call, request, last),
        Err(fault) => {
            let status = refuse_buffer(provider, call.name, fault);
            request.fail(provider, status)
        }
    }
}

fn abort(socket: &Arc<Socket>, request: Request) -> NTSTATUS {
    let provider = socket.provider();
    let mut after = After::default();
    let mut state = socket.lock();
    let refused = state.refused().or_else(|| match part(&mut state) {
        None => Some(no_connection(&state, provider)),
        Some(connection) => {
            let refusal = connection.refusal(provider);
            if refusal.is_none() {
                connection.abort(&mut after);
            }
            refusal
        }
    });
    if let Some(status) = refused {
        drop(state);
        return request.fail(provider, status);
    }
    state.leak_rule = "DISC-29";
    drop(state);
    after.run(socket);
    request.finish_pended(socket, STATUS_SUCCESS, 0)
}

fn close(socket: &Arc<Socket>, request: Request, last: Span) -> NTSTATUS {
    let provider = socket.provider();
    let mut after = After::default();
    let mut state = socket.lock();
    let refused = state.refused().or_else(|| match part(&mut state) {
        None => Some(no_connection(&state, provider)),
        Some(connection) => connection.refusal(provider).or_else(|| {
            let again = connection.outbound.is_closed();
            again.then(|| provider.live_config.behaviours().second_disconnect.status())
        }),
    });
    match (refused, part(&mut state)) {
        (None, Some(connection)) => {
            connection.outbound.close(request, socket, last);
            connection.pump(socket, &mut after);
            state.leak_rule = "DISC-29";
            let due = event::is_due(socket, &mut state);
            drop(state);
            after.run(socket);
            if due {
                event::defer_raise(socket);
            }
            STATUS_PENDING
        }
        (Some(STATUS_SUCCESS), _) => {
            drop(state);
            request.finish_pended(socket, STATUS_SUCCESS, 0)
        }
        (refused, _) => {
            drop(state);
            request.fail(provider, refused.unwrap_or(STATUS_INVALID_DEVICE_STATE))
        }
    }
}
