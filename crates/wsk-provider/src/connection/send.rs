//! `WskSend` and `WskSendEx` (contract 4.12).

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    PCMSGHDR, PWSK_BUF, PWSK_SOCKET, STATUS_NOT_SUPPORTED, STATUS_PENDING, STATUS_SUCCESS, WSK_FLAG_NODELAY,
    WSK_FLAG_OOB, nt_success,
};

use super::outbound::Outgoing;
use super::{After, Connection, event, no_connection, part, refuse_buffer};
use crate::config::Release;
use crate::data::Span;
use crate::provider::{Inner, Provider};
use crate::request::{Purpose, Request};
use crate::socket::Call;

/// `WskSend`.
///
/// # Safety
/// As `PFN_WSK_SEND`: the socket is open, the buffer is valid until the IRP completes, and the caller gives
/// up the IRP.
pub(crate) unsafe extern "system" fn wsk_send(
    socket: PWSK_SOCKET,
    buffer: PWSK_BUF,
    flags: u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    match unsafe { Call::begin("WskSend", "IRP-18", socket, irp) } {
        // SAFETY: the client leaves the buffer alone until the IRP completes.
        Ok((call, request)) => unsafe { send(&call, request, buffer, flags) },
        Err(status) => status,
    }
}

/// `WskSendEx`. TCP has no control information for sends, so it is ignored.
///
/// # Safety
/// As `PFN_WSK_SEND_EX`: the socket is open, the buffer is valid until the IRP completes, and the caller
/// gives up the IRP.
pub(crate) unsafe extern "system" fn wsk_send_ex(
    socket: PWSK_SOCKET,
    buffer: PWSK_BUF,
    flags: u32,
    control_length: u32,
    control: PCMSGHDR,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    match unsafe { Call::begin("WskSendEx", "IRP-18", socket, irp) } {
        Ok((call, mut request)) => {
            if control_length != 0 {
                request.needs(control, Purpose::ControlMessages);
            }
            call.provider().advice(
                "SND-20",
                call.name,
                "the function is documented as reserved for system use",
            );
            // SAFETY: the client leaves the buffer alone until the IRP completes.
            unsafe { send(&call, request, buffer, flags) }
        }
        Err(status) => status,
    }
}

/// # Safety
/// The client leaves the buffer alone until the request completes.
unsafe fn send(call: &Call, mut request: Request, buffer: PWSK_BUF, flags: u32) -> NTSTATUS {
    let provider = call.provider();
    let known = if provider.live_config.has(Release::Redstone3) {
        WSK_FLAG_NODELAY | WSK_FLAG_OOB
    } else {
        WSK_FLAG_NODELAY
    };
    if flags & !known != 0 {
        return request.fail(provider, STATUS_NOT_SUPPORTED);
    }
    // SAFETY: the caller guarantees that the client leaves the buffer alone until the request completes.
    unsafe { request.needs_buffer(buffer) };
    // SAFETY: the caller guarantees that the client leaves the buffer alone until the request completes.
    let mut span = match unsafe { Span::new(provider, call.name, buffer) } {
        Ok(span) => span,
        Err(fault) => {
            let status = refuse_buffer(provider, call.name, fault);
            return request.fail(provider, status);
        }
    };
    let size = span.left();
    let undelayed = flags & WSK_FLAG_NODELAY != 0;
    let mut after = After::default();
    let mut state = call.lock();
    let refused = state.refused().or_else(|| match part(&mut state) {
        None => Some(no_connection(&state, provider)),
        Some(connection) => connection.refusal_to_send(call, size),
    });
    if let Some(status) = refused {
        drop(state);
        return request.fail(provider, status);
    }
    let Some(connection) = part(&mut state) else { unreachable!("checked above, under the same lock") };
    connection.undelayed += u64::from(undelayed);
    let written = match connection.stream.as_deref_mut() {
        Some(stream) => connection.outbound.write_now(&mut span, stream),
        None => Ok(()),
    };
    let queued = written.is_ok() && span.left() > 0;
    let outcome = if queued {
        connection.outbound.push(request, call, Outgoing { span, information: size });
        None
    } else {
        if let Err(status) = written {
            connection.broken(status, &mut after);
        }
        Some((request, written.err().unwrap_or(STATUS_SUCCESS)))
    };
    let due = event::is_due(call, &mut state);
    drop(state);
    after.run(call);
    if due {
        event::defer_raise(call);
    }
    match outcome {
        None => STATUS_PENDING,
        Some((request, status)) if nt_success(status) => request.finish_pended(&**call, status, size),
        Some((request, status)) => request.fail(provider, status),
    }
}

impl Provider {
    /// Returns the number of sends with `WSK_FLAG_NODELAY`, which has no other visible effect here; `None` if
    /// this is no connection.
    pub fn undelayed_sends(&self, socket: PWSK_SOCKET) -> Option<u64> {
        let found = self.0.registrar.sockets().into_iter().find(|open| open.raw() == socket)?;
        part(&mut found.lock()).map(|connection| connection.undelayed)
    }
}

impl Connection {
    /// Returns the status if data cannot be sent now.
    fn refusal_to_send(&self, call: &Call, size: usize) -> Option<NTSTATUS> {
        let provider: &Inner = call.provider();
        if let Some(status) = self.refusal(provider) {
            return Some(status);
        }
        if self.outbound.is_closed() {
            let behaviours = provider.live_config.behaviours();
            if self.inbound.peer_has_ended() {
                return Some(behaviours.send_fully_closed.status());
            }
            provider.violation("SND-15", call.name, "sent after the client's own graceful disconnect");
            return Some(behaviours.send_after_disconnect.status());
        }
        (size == 0)
            .then(|| provider.live_config.behaviours().empty_send.status())
            .filter(|status| !nt_success(*status))
    }
}
