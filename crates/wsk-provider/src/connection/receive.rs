//! `WskReceive` and `WskReceiveEx` (contract 4.13).

use std::ptr;
use std::sync::Arc;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    PCMSGHDR, PWSK_BUF, PWSK_SOCKET, STATUS_INVALID_PARAMETER, STATUS_NOT_SUPPORTED, STATUS_PENDING,
    STATUS_SUCCESS, WSK_FLAG_DRAIN, WSK_FLAG_WAITALL, nt_success,
};

use super::inbound::{Incoming, Served, Want};
use super::{After, event, no_connection, part, refuse_buffer};
use crate::data::Span;
use crate::host::FaultPoint;
use crate::request::{Purpose, Request};
use crate::socket::Call;

/// Number of receives that find only the end of the stream, from which on the client is assumed to ignore the
/// end.
const READS_AT_END: u32 = 64;

/// `WskReceive`.
///
/// # Safety
/// As `PFN_WSK_RECEIVE`: the socket is open, the buffer is the provider's until the IRP completes, and the
/// caller gives up the IRP.
pub(crate) unsafe extern "system" fn wsk_receive(
    socket: PWSK_SOCKET,
    buffer: PWSK_BUF,
    flags: u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    match unsafe { Call::begin("WskReceive", "IRP-18", socket, irp) } {
        // SAFETY: the client leaves the buffer alone until the IRP completes.
        Ok((call, request)) => unsafe { receive(&call, request, buffer, flags) },
        Err(status) => status,
    }
}

/// `WskReceiveEx`. TCP data comes without control information, so its length is always 0.
///
/// # Safety
/// As `PFN_WSK_RECEIVE_EX`: the socket is open, buffer and control outputs are the provider's until the IRP
/// completes, and the caller gives up the IRP.
pub(crate) unsafe extern "system" fn wsk_receive_ex(
    socket: PWSK_SOCKET,
    buffer: PWSK_BUF,
    flags: u32,
    control_length: *mut u32,
    control: PCMSGHDR,
    control_flags: *mut u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    let (call, mut request) = match unsafe { Call::begin("WskReceiveEx", "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    call.provider().advice("SND-20", call.name, "the function is documented as reserved for system use");
    if !control_flags.is_null() {
        call.provider().violation("RCV-22", call.name, "the reserved ControlFlags is not null");
        return request.fail(call.provider(), STATUS_INVALID_PARAMETER);
    }
    request.needs(control_length, Purpose::ControlMessages);
    if !control_length.is_null() {
        // SAFETY: the client passes a variable that says how long its buffer is.
        if unsafe { control_length.read_unaligned() } != 0 {
            request.needs(control, Purpose::ControlMessages);
        }
        // SAFETY: the client keeps the variable for the provider until the IRP completes (LIFE-10).
        unsafe { ptr::write_unaligned(control_length, 0) };
    }
    // SAFETY: the client leaves the buffer alone until the IRP completes.
    unsafe { receive(&call, request, buffer, flags) }
}

/// Returns the condition of completion for the flags and the size of the buffer.
fn want(call: &Call, flags: u32, size: usize) -> Result<Want, NTSTATUS> {
    let provider = call.provider();
    if flags & !(WSK_FLAG_WAITALL | WSK_FLAG_DRAIN) != 0 {
        return Err(STATUS_NOT_SUPPORTED);
    }
    if flags == WSK_FLAG_WAITALL | WSK_FLAG_DRAIN {
        provider.violation("RCV-09", call.name, "WSK_FLAG_WAITALL is combined with WSK_FLAG_DRAIN");
        return Err(provider.live_config.behaviours().wait_all_and_drain.status());
    }
    if flags & WSK_FLAG_DRAIN != 0 {
        if size != 0 {
            provider.violation("RCV-08", call.name, "WSK_FLAG_DRAIN is used with a buffer that is not empty");
            return Err(STATUS_INVALID_PARAMETER);
        }
        return Ok(Want::Drain);
    }
    if flags & WSK_FLAG_WAITALL != 0 {
        return Ok(Want::All { tells_when_cancelled: provider.injects(FaultPoint::CancelledWaitAll) });
    }
    Ok(Want::Some)
}

/// # Safety
/// The client leaves the buffer alone until the request completes.
unsafe fn receive(call: &Call, mut request: Request, buffer: PWSK_BUF, flags: u32) -> NTSTATUS {
    let provider = call.provider();
    // SAFETY: the caller guarantees that the client leaves the buffer alone until the request completes.
    unsafe { request.needs_buffer(buffer) };
    // SAFETY: the caller guarantees that the client leaves the buffer alone until the request completes.
    let span = match unsafe { Span::new(provider, call.name, buffer) } {
        Ok(span) => span,
        Err(fault) => {
            let status = refuse_buffer(provider, call.name, fault);
            return request.fail(provider, status);
        }
    };
    let size = span.left();
    let want = match want(call, flags, size) {
        Ok(want) => want,
        Err(status) => return request.fail(provider, status),
    };
    let mut incoming = Incoming::new(span, want);
    let mut after = After::default();
    let mut state = call.lock();
    let refused = state.refused().or_else(|| match part(&mut state) {
        None => Some(no_connection(&state, provider)),
        Some(connection) => connection.refusal(provider),
    });
    if let Some(status) = refused {
        drop(state);
        return request.fail(provider, status);
    }
    let Some(connection) = part(&mut state) else { unreachable!("checked above, under the same lock") };
    let served = match connection.stream.as_deref_mut() {
        Some(stream) if connection.inbound.is_free() => connection.inbound.serve(&mut incoming, stream),
        _ => Ok(Served::Waits),
    };
    if let (Ok(Served::Done(_)), Some(stream)) = (&served, connection.stream.as_deref()) {
        // The end may follow the data that was just read, and the disconnect event waits for it. The receive
        // has its data; a later failure of the connection is for the next receive.
        let _ = connection.inbound.look_for_end(stream);
    }
    let outcome = match served {
        Ok(Served::Waits) => {
            connection.inbound.push(request, call, incoming);
            None
        }
        Ok(Served::Done(bytes)) => {
            let reads_on = bytes == 0 && size > 0 && connection.inbound.end_read() == READS_AT_END;
            if reads_on {
                provider.violation(
                    "RCV-14",
                    call.name,
                    "received again after the end of the stream was reported",
                );
            }
            Some((request, STATUS_SUCCESS, bytes))
        }
        Err(status) => {
            connection.broken(status, &mut after);
            Some((request, status, 0))
        }
    };
    let latch = connection.inbound.latch();
    let due = event::is_due(call, &mut state);
    drop(state);
    after.run(call);
    let Some((request, status, bytes)) = outcome else { return STATUS_PENDING };
    let answer = match latch {
        _ if !nt_success(status) => request.fail(provider, status),
        None => request.finish_pended(&**call, status, bytes),
        Some(latch) => {
            let socket = Arc::clone(call);
            request.finish_pended_then(&**call, status, bytes, move || event::open(&socket, latch))
        }
    };
    if due {
        event::defer_raise(call);
    }
    answer
}
