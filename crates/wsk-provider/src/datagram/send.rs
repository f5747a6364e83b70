//! `WskSendTo` and `WskSendMessages` (contract 4.14).

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    PCMSGHDR, PSOCKADDR, PWSK_BUF, PWSK_BUF_LIST, PWSK_SOCKET, STATUS_INVALID_PARAMETER, STATUS_PENDING,
    STATUS_SUCCESS,
};

use super::{Datagram, part};
use crate::connection::refuse_buffer;
use crate::data::{Fault, Span};
use crate::provider::Inner;
use crate::request::{Completions, Purpose, Request};
use crate::socket::{Call, Socket};
use crate::transport::status_of;

/// Datagrams of one request that wait until the host takes them.
#[derive(Debug)]
pub(super) struct Outgoing {
    datagrams: VecDeque<Vec<u8>>,
    to: SocketAddr,
    sent: usize,
}

/// `WskSendTo`.
///
/// # Safety
/// As `PFN_WSK_SEND_TO`: the socket is open, buffer and address are valid until the IRP completes, and the
/// caller gives up the IRP.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe extern "system" fn wsk_send_to(
    socket: PWSK_SOCKET,
    buffer: PWSK_BUF,
    flags: u32,
    remote: PSOCKADDR,
    control_length: u32,
    control: PCMSGHDR,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    let (call, mut request) = match unsafe { Call::begin("WskSendTo", "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    // SAFETY: the client leaves the buffer alone until the IRP completes.
    unsafe { request.needs_buffer(buffer) };
    // SAFETY: the client leaves the buffer alone until the IRP completes.
    let datagrams =
        unsafe { Span::new(call.provider(), call.name, buffer) }.map(|span| VecDeque::from([bytes_of(span)]));
    request.needs(remote, Purpose::AddressIn);
    if control_length != 0 {
        request.needs(control, Purpose::ControlMessages);
    }
    // SAFETY: the client passes a whole address.
    let to = unsafe { destination(&call, remote) };
    send(&call, request, flags, to, control_length, control, datagrams)
}

/// `WskSendMessages`.
///
/// # Safety
/// As `PFN_WSK_SEND_MESSAGES`: the socket is open, list and address are valid until the IRP completes, and
/// the caller gives up the IRP.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe extern "system" fn wsk_send_messages(
    socket: PWSK_SOCKET,
    list: PWSK_BUF_LIST,
    flags: u32,
    remote: PSOCKADDR,
    control_length: u32,
    control: PCMSGHDR,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    let (call, mut request) = match unsafe { Call::begin("WskSendMessages", "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    // SAFETY: the client leaves the list and its buffers alone until the IRP completes.
    unsafe { request.needs_list(list) };
    // SAFETY: the client leaves the list and its buffers alone until the IRP completes.
    let datagrams = unsafe { datagrams_of(call.provider(), call.name, list) };
    request.needs(remote, Purpose::AddressIn);
    if control_length != 0 {
        request.needs(control, Purpose::ControlMessages);
    }
    // SAFETY: the client passes a whole address.
    let to = unsafe { destination(&call, remote) };
    send(&call, request, flags, to, control_length, control, datagrams)
}

fn bytes_of(mut span: Span) -> Vec<u8> {
    let mut bytes = Vec::new();
    span.drain(span.left(), &mut bytes);
    bytes
}

/// Collects the datagrams of a list: each element is one (DGR-08).
///
/// # Safety
/// The client leaves the list and its buffers alone.
unsafe fn datagrams_of(
    provider: &Inner,
    call: &'static str,
    mut list: PWSK_BUF_LIST,
) -> Result<VecDeque<Vec<u8>>, Fault> {
    let mut datagrams = VecDeque::new();
    while !list.is_null() {
        // SAFETY: the caller guarantees a live list, wherever its nodes lie.
        let node = unsafe { list.read_unaligned() };
        // SAFETY: the buffer is the node's; the caller leaves it alone.
        datagrams.push_back(bytes_of(unsafe { Span::new(provider, call, &raw const node.Buffer) }?));
        list = node.Next;
    }
    Ok(datagrams)
}

/// Reads the destination: `None` for none, an error if it is not an address of the socket's family.
///
/// # Safety
/// `remote` is null or points to a whole address.
unsafe fn destination(call: &Call, remote: PSOCKADDR) -> Result<Option<SocketAddr>, NTSTATUS> {
    if remote.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller guarantees that `remote` is null or points to a whole address.
    let address = unsafe { call.provider().read_address(call.name, remote, call.family) };
    address.map(Some).ok_or(STATUS_INVALID_PARAMETER)
}

fn send(
    call: &Call,
    request: Request,
    flags: u32,
    to: Result<Option<SocketAddr>, NTSTATUS>,
    control_length: u32,
    control: PCMSGHDR,
    datagrams: Result<VecDeque<Vec<u8>>, Fault>,
) -> NTSTATUS {
    let provider = call.provider();
    if flags != 0 {
        provider.violation("IRP-26", call.name, &format!("the reserved Flags are {flags:#x}"));
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    }
    match (control_length, control.is_null()) {
        (0, false) => provider.advice("DGR-07", call.name, "ControlInfo is set, but ControlInfoLength is 0"),
        (0, true) | (_, false) => {}
        (_, true) => {
            provider.violation("DGR-07", call.name, "ControlInfoLength is set, but ControlInfo is null");
            return request.fail(provider, STATUS_INVALID_PARAMETER);
        }
    }
    let datagrams = match datagrams {
        Ok(datagrams) => datagrams,
        Err(fault) => {
            let status = refuse_buffer(provider, call.name, fault);
            return request.fail(provider, status);
        }
    };
    let behaviours = provider.live_config.behaviours();
    let mut state = call.lock();
    let refused = state.refused();
    let Some(datagram) = part(&mut state).filter(|datagram| refused.is_none() && datagram.port.is_some())
    else {
        drop(state);
        return request.fail(provider, refused.unwrap_or(behaviours.datagram_unbound.status()));
    };
    let to = to.and_then(|given| {
        given.or(datagram.remote).or(datagram.send_to).ok_or(behaviours.no_destination.status())
    });
    let mut outgoing = match to {
        Ok(to) => Outgoing { datagrams, to, sent: 0 },
        Err(status) => {
            drop(state);
            return request.fail(provider, status);
        }
    };
    let written = if datagram.sends.is_empty() {
        datagram.write(&mut outgoing)
    } else {
        Ok(outgoing.datagrams.is_empty())
    };
    if written == Ok(false) {
        datagram.sends.push(request, &**call, outgoing);
        return STATUS_PENDING;
    }
    drop(state);
    match written {
        Ok(_) => request.finish_pended(&**call, STATUS_SUCCESS, outgoing.sent),
        Err(status) => request.finish_pended(&**call, status, 0),
    }
}

impl Datagram {
    /// Sends as much as the host takes now; true if that was all.
    fn write(&mut self, outgoing: &mut Outgoing) -> Result<bool, NTSTATUS> {
        let Some(port) = self.port.as_deref() else { return Ok(false) };
        while let Some(datagram) = outgoing.datagrams.front() {
            if !self.writable {
                return Ok(false);
            }
            match port.try_send(datagram, outgoing.to) {
                Ok(bytes) => {
                    outgoing.sent += bytes;
                    outgoing.datagrams.pop_front();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(status_of(&error)),
            }
        }
        Ok(true)
    }

    /// Sends the waiting datagrams.
    pub(super) fn pump_sends(&mut self, socket: &Arc<Socket>, completions: &mut Completions) {
        while self.writable
            && let Some((request, mut outgoing)) = self.sends.pop()
        {
            match self.write(&mut outgoing) {
                Ok(true) => completions.push(request, STATUS_SUCCESS, outgoing.sent),
                Ok(false) => self.sends.push_front(request, socket, outgoing),
                Err(status) => completions.push(request, status, 0),
            }
        }
    }
}
