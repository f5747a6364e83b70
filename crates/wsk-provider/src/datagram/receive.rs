//! `WskReceiveFrom` (contract 4.13).

use std::ptr;
use std::sync::Arc;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    MSG_CTRUNC, MSG_TRUNC, PCMSGHDR, PSOCKADDR, PWSK_BUF, PWSK_SOCKET, STATUS_INVALID_PARAMETER,
    STATUS_PENDING, STATUS_SUCCESS,
};

use super::message::Message;
use super::part;
use crate::address;
use crate::connection::refuse_buffer;
use crate::data::Span;
use crate::request::Purpose;
use crate::socket::{Call, Socket, check_output};

/// A receive that waits, with its outputs.
#[derive(Debug)]
pub(super) struct ReceiveFrom {
    span: Span,
    remote: PSOCKADDR,
    control_length: *mut u32,
    /// Control buffer, with its length at the time of the call.
    control: *mut u8,
    room: u32,
    control_flags: *mut u32,
}

// SAFETY: the pointers are the client's, valid from any thread until the request completes (LIFE-07,
// LIFE-10).
unsafe impl Send for ReceiveFrom {}

impl ReceiveFrom {
    /// Delivers a datagram, and returns the results of the request.
    pub(super) fn take(mut self, message: &Message, socket: &Arc<Socket>) -> (NTSTATUS, usize) {
        let copied = self.span.fill(message.bytes());
        let truncated = copied < message.bytes().len();
        if !self.remote.is_null() {
            // SAFETY: the client keeps the buffer, of its family's size, until the request completes.
            unsafe { address::write(self.remote, message.from, socket.family) };
        }
        // Without ControlLength the other two are ignored (DGR-14).
        if !self.control_length.is_null() {
            let length = message.control.length();
            let fits = length <= self.room as usize && (length == 0 || !self.control.is_null());
            let copied = if fits { length } else { 0 };
            if copied != 0 {
                let bytes = message.control.bytes();
                // SAFETY: the client keeps the buffer, which has room for them, until the request completes.
                unsafe { self.control.copy_from(bytes.as_ptr(), copied) };
            }
            // SAFETY: the client keeps the variable until the request completes.
            unsafe { ptr::write_unaligned(self.control_length, copied as u32) };
            if !self.control_flags.is_null() {
                let cut = if truncated { MSG_TRUNC } else { 0 } | if fits { 0 } else { MSG_CTRUNC };
                let flags = message.flags | cut;
                // SAFETY: the client keeps the variable until the request completes.
                unsafe { ptr::write_unaligned(self.control_flags, flags) };
            }
        }
        let status = if truncated {
            socket.provider().live_config.behaviours().truncated.status()
        } else {
            STATUS_SUCCESS
        };
        (status, copied)
    }
}

/// `WskReceiveFrom`.
///
/// # Safety
/// As `PFN_WSK_RECEIVE_FROM`: the socket is open, buffer and outputs are the provider's until the IRP
/// completes, and the caller gives up the IRP.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe extern "system" fn wsk_receive_from(
    socket: PWSK_SOCKET,
    buffer: PWSK_BUF,
    flags: u32,
    remote: PSOCKADDR,
    control_length: *mut u32,
    control: PCMSGHDR,
    control_flags: *mut u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    let (call, mut request) = match unsafe { Call::begin("WskReceiveFrom", "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    let provider = call.provider();
    if flags != 0 {
        provider.violation("IRP-26", call.name, &format!("the reserved Flags are {flags:#x}"));
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    }
    // SAFETY: the client leaves the buffer alone until the IRP completes.
    let span = match unsafe { Span::new(provider, call.name, buffer) } {
        Ok(span) => span,
        Err(fault) => {
            let status = refuse_buffer(provider, call.name, fault);
            return request.fail(provider, status);
        }
    };
    check_output(&call, remote);
    // SAFETY: the client leaves the buffer alone until the IRP completes.
    unsafe { request.needs_buffer(buffer) };
    request.needs(remote, Purpose::AddressOut);
    let mut room = 0;
    if !control_length.is_null() {
        request.needs(control_length, Purpose::ControlMessages);
        // SAFETY: the client passes a variable that says how long its buffer is.
        room = unsafe { control_length.read_unaligned() };
        if room != 0 {
            request.needs(control, Purpose::ControlMessages);
        }
        request.needs(control_flags, Purpose::ControlMessages);
    }
    let receive = ReceiveFrom { span, remote, control_length, control: control.cast(), room, control_flags };
    let mut state = call.lock();
    let refused = state.refused();
    let unbound = provider.live_config.behaviours().datagram_unbound.status();
    let Some(datagram) = part(&mut state).filter(|datagram| refused.is_none() && datagram.port.is_some())
    else {
        drop(state);
        return request.fail(provider, refused.unwrap_or(unbound));
    };
    datagram.asked = true;
    let waiting = if datagram.receives.is_empty() { datagram.messages.pop_front() } else { None };
    let Some(message) = waiting else {
        datagram.receives.push(request, &*call, receive);
        return STATUS_PENDING;
    };
    drop(state);
    let (status, bytes) = receive.take(&message, &call);
    // A truncated datagram is received, too, whatever the status: the count says how much of it.
    request.finish_exactly(&*call, provider.live_config.timing(true), status, bytes)
}
