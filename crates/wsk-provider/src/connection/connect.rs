//! `WskConnect`, `WskConnectEx`, and the connecting half of `WskSocketConnect` (contract 4.10).

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::MutexGuard;
use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    PSOCKADDR, PWSK_BUF, PWSK_SOCKET, STATUS_BUFFER_OVERFLOW, STATUS_INVALID_DEVICE_STATE,
    STATUS_INVALID_PARAMETER, STATUS_PENDING, STATUS_SUCCESS,
};

use super::outbound::Outgoing;
use super::{After, Connection, Phase, part, refuse_buffer, sink};
use crate::address;
use crate::behaviours::FailedConnect;
use crate::data::Span;
use crate::live_config::Timing;
use crate::request::{Completions, Purpose, Request};
use crate::socket::{Call, Socket, State, check_output};
use crate::stream;
use crate::transport::status_of;

/// Maximum number of bytes that `WskConnectEx` sends.
const LARGEST_FIRST_DATA: usize = 65_535;

/// A connect that waits for its outcome.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Data that is sent first.
    first: Span,
    /// `Information` of the request on success: nothing, or the new socket of `WskSocketConnect`.
    information: usize,
    /// Disposal of the socket on failure, if the client does not have it.
    pub(super) discard: Option<fn(&Arc<Socket>)>,
}

/// `WskConnect`.
///
/// # Safety
/// As `PFN_WSK_CONNECT`: the socket is open, the address is whole, and the caller gives up the IRP.
pub(crate) unsafe extern "system" fn wsk_connect(
    socket: PWSK_SOCKET,
    remote: PSOCKADDR,
    flags: u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    let (call, mut request) = match unsafe { Call::begin("WskConnect", "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    request.needs(remote, Purpose::AddressIn);
    // SAFETY: the client passes a whole address.
    let remote = unsafe { call.provider().read_address(call.name, remote, call.family) };
    request_connect(&call, request, remote, flags, Span::EMPTY)
}

/// `WskConnectEx`.
///
/// # Safety
/// As `PFN_WSK_CONNECT_EX`: the socket is open, the address is whole, the buffer is null or valid until the
/// IRP completes, and the caller gives up the IRP.
pub(crate) unsafe extern "system" fn wsk_connect_ex(
    socket: PWSK_SOCKET,
    remote: PSOCKADDR,
    buffer: PWSK_BUF,
    flags: u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    let (call, mut request) = match unsafe { Call::begin("WskConnectEx", "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    request.needs(remote, Purpose::AddressIn);
    // SAFETY: the client passes a whole address.
    let remote = unsafe { call.provider().read_address(call.name, remote, call.family) };
    // SAFETY: the client leaves the buffer alone until the IRP completes.
    unsafe { request.needs_buffer(buffer) };
    // SAFETY: the client leaves the buffer alone until the IRP completes.
    let first = match unsafe { Span::new(call.provider(), call.name, buffer) } {
        Ok(first) => first,
        Err(fault) => {
            let status = refuse_buffer(call.provider(), call.name, fault);
            return request.fail(call.provider(), status);
        }
    };
    if first.left() > LARGEST_FIRST_DATA {
        return request.fail(call.provider(), STATUS_BUFFER_OVERFLOW);
    }
    request_connect(&call, request, remote, flags, first)
}

fn request_connect(
    call: &Call,
    request: Request,
    remote: Option<SocketAddr>,
    flags: u32,
    first: Span,
) -> NTSTATUS {
    let provider = call.provider();
    if flags != 0 {
        provider.violation("IRP-26", call.name, &format!("the reserved Flags are {flags:#x}"));
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    }
    let Some(remote) = remote else { return request.fail(provider, STATUS_INVALID_PARAMETER) };
    let mut state = call.lock();
    if let Some(status) = state.refused() {
        drop(state);
        return request.fail(provider, status);
    }
    let mut completions = Completions::default();
    if let Err(status) = stream::become_connection(call, &mut state, &mut completions) {
        drop(state);
        completions.run(provider);
        return request.fail(provider, status);
    }
    if let Some(status) =
        part(&mut state).map_or(Some(STATUS_INVALID_DEVICE_STATE), |c| c.refusal_to_connect(call))
    {
        drop(state);
        completions.run(provider);
        return request.fail(provider, status);
    }
    let status = attempt(call, state, request, remote, Attempt { first, information: 0, discard: None });
    completions.run(provider);
    status
}

/// Connects a bound socket that the client does not have yet. On success the request reports `information`; a
/// socket that cannot be connected is given to `discard` before the request completes.
pub(crate) fn start_connect(
    socket: &Arc<Socket>,
    remote: SocketAddr,
    request: Request,
    information: usize,
    discard: fn(&Arc<Socket>),
) -> NTSTATUS {
    let goal = Attempt { first: Span::EMPTY, information, discard: Some(discard) };
    attempt(socket, socket.lock(), request, remote, goal)
}

/// Starts an attempt on a bound connection.
fn attempt(
    socket: &Arc<Socket>,
    mut state: MutexGuard<'_, State>,
    mut request: Request,
    remote: SocketAddr,
    attempt: Attempt,
) -> NTSTATUS {
    let options = state.options.clone();
    let Some(connection) = part(&mut state) else {
        drop(state);
        return request.fail(socket.provider(), STATUS_INVALID_DEVICE_STATE);
    };
    let Some(reservation) = connection.reservation.take() else {
        drop(state);
        return request.fail(socket.provider(), STATUS_INVALID_DEVICE_STATE);
    };
    connection.remote = Some(remote);
    connection.retry = Some(options.for_bind(connection.claim.as_ref().is_some_and(|claim| claim.shared)));
    let sink = Arc::clone(connection.sink.insert(sink(socket)));
    match reservation.connect(remote, sink) {
        Ok(stream) => {
            connection.stream = Some(stream);
            connection.phase = Phase::Connecting;
            connection.attempts.push(request, socket, attempt);
            drop(state);
            STATUS_PENDING
        }
        Err(error) => {
            connection.phase = Phase::Failed;
            connection.after_failure(socket);
            drop(state);
            let timing = socket.provider().live_config.timing(true);
            if let Some(discard) = attempt.discard {
                // The socket is dropped with its last request, which must be this one (REG-21).
                if timing != Timing::Inline {
                    request.mark_pending(socket);
                }
                discard(socket);
            }
            request.finish_timed(socket, timing, status_of(&error), 0)
        }
    }
}

impl Connection {
    /// Returns the status if this connection cannot be connected now.
    fn refusal_to_connect(&mut self, socket: &Arc<Socket>) -> Option<NTSTATUS> {
        let behaviours = || socket.provider().live_config.behaviours();
        match self.phase {
            Phase::Bound => None,
            Phase::Created | Phase::Failed => Some(STATUS_INVALID_DEVICE_STATE),
            Phase::Connecting => Some(behaviours().connect_while_connecting.status()),
            Phase::Connected | Phase::Reset | Phase::Silent => Some(behaviours().connect_connected.status()),
        }
    }

    /// Checks the attempt in progress; true if it has succeeded, so that data may be transferred.
    pub(super) fn is_through(&mut self, socket: &Arc<Socket>, after: &mut After) -> bool {
        let Some(stream) = &self.stream else { return false };
        match stream.connected() {
            Ok(false) => false,
            Ok(true) => {
                self.phase = Phase::Connected;
                self.inbound.begin();
                // No request: it is being cancelled, and the cancellation drops the connection.
                if let Some((request, attempt)) = self.attempts.pop() {
                    self.connected(request, attempt, socket, after);
                }
                true
            }
            Err(error) => {
                self.phase = Phase::Failed;
                // Now, and not after the lock is released: a host may not bind the address again before.
                self.stream = None;
                if let Some((request, attempt)) = self.attempts.pop() {
                    after.completions.push(request, status_of(&error), 0);
                    after.discard = attempt.discard;
                }
                self.after_failure(socket);
                false
            }
        }
    }

    /// The attempt is being cancelled, under the lock: objects are dropped on another thread.
    pub(super) fn give_up(&mut self, attempt: &Attempt) {
        self.phase = Phase::Failed;
        // A peer that has not answered gets no message; one that has is reset.
        self.stream = None;
        if let Some(discard) = attempt.discard
            && let Some(socket) = self.sink.as_ref().and_then(|sink| sink.0.upgrade())
        {
            let provider = Arc::clone(socket.provider());
            provider.defer(Box::new(move |_| discard(&socket)));
        }
    }

    fn connected(&mut self, request: Request, attempt: Attempt, socket: &Arc<Socket>, after: &mut After) {
        if attempt.first.left() == 0 {
            after.completions.push(request, STATUS_SUCCESS, attempt.information);
        } else {
            let outgoing = Outgoing { span: attempt.first, information: attempt.information };
            self.outbound.push(request, socket, outgoing);
        }
    }

    /// Allows another attempt with the same address after a failed one, if that is selected (CONN-04).
    fn after_failure(&mut self, socket: &Arc<Socket>) {
        let provider = socket.provider();
        if provider.live_config.behaviours().failed_connect != FailedConnect::Retry {
            return;
        }
        let (Some(local), Some(options)) = (self.local, &self.retry) else { return };
        if let Ok(network) = provider.network()
            && let Ok(reservation) = network.reserve(local, options)
        {
            self.reservation = Some(reservation);
            self.phase = Phase::Bound;
        }
    }
}

/// `WskGetRemoteAddress`.
///
/// # Safety
/// As `PFN_WSK_GET_REMOTE_ADDRESS`: the socket is open, the output has room for its family's SOCKADDR, and
/// the caller gives up the IRP.
pub(crate) unsafe extern "system" fn wsk_get_remote_address(
    socket: PWSK_SOCKET,
    remote: PSOCKADDR,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    let (call, mut request) = match unsafe { Call::begin("WskGetRemoteAddress", "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    let provider = call.provider();
    if !check_output(&call, remote) {
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    }
    request.needs(remote, Purpose::AddressOut);
    let known = part(&mut call.lock()).filter(|connection| connection.is_connected()).and_then(|c| c.remote);
    let Some(address) = known else { return request.fail(provider, STATUS_INVALID_DEVICE_STATE) };
    // SAFETY: the client's buffer has room for an address of the socket's family.
    unsafe { address::write(remote, address, call.family) };
    request.finish(&*call, STATUS_SUCCESS, 0)
}
