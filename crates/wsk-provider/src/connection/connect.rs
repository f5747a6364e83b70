//! `WskConnect`, `WskConnectEx`, and the connecting half of `WskSocketConnect` (contract 4.10).

use std::net::SocketAddr;
use std::sync::Arc;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    PSOCKADDR, PWSK_BUF, PWSK_SOCKET, STATUS_BUFFER_OVERFLOW, STATUS_INVALID_DEVICE_STATE,
    STATUS_INVALID_PARAMETER, STATUS_SUCCESS,
};

use super::outbound::Outgoing;
use super::{After, Connection, Phase, part, refuse_buffer, sink};
use crate::address;
use crate::behaviours::FailedConnect;
use crate::data::Span;
use crate::request::Request;
use crate::socket::{Call, Part, Socket, State, check_output};
use crate::stream;
use crate::transport::{ReadySink, status_of};

/// The most that `WskConnectEx` takes along.
const LARGEST_FIRST_DATA: usize = 65_535;

/// A connect that waits for its outcome.
#[derive(Debug)]
pub(super) struct Attempt {
    /// What goes out first.
    first: Span,
    /// What the request reports on success: nothing, or the new socket of `WskSocketConnect`.
    information: usize,
}

/// `WskConnect`.
///
/// # Safety
/// As `PFN_WSK_CONNECT`: the socket is open, the address is whole, and the IRP is handed over.
pub(crate) unsafe extern "system" fn wsk_connect(
    socket: PWSK_SOCKET,
    remote: PSOCKADDR,
    flags: u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and hands the IRP over.
    let (call, request) = match unsafe { Call::begin("WskConnect", "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    // SAFETY: the client passes a whole address.
    let remote = unsafe { address::read(remote, call.family) };
    request_connect(&call, request, remote, flags, Span::EMPTY)
}

/// `WskConnectEx`.
///
/// # Safety
/// As `PFN_WSK_CONNECT_EX`: the socket is open, the address is whole, the buffer is null or valid until the IRP
/// completes, and the IRP is handed over.
pub(crate) unsafe extern "system" fn wsk_connect_ex(
    socket: PWSK_SOCKET,
    remote: PSOCKADDR,
    buffer: PWSK_BUF,
    flags: u32,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and hands the IRP over.
    let (call, request) = match unsafe { Call::begin("WskConnectEx", "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    // SAFETY: the client passes a whole address.
    let remote = unsafe { address::read(remote, call.family) };
    // SAFETY: the client leaves the buffer alone until the IRP completes.
    let first = match unsafe { Span::new(buffer) } {
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
    if matches!(state.part, Part::Stream(_) | Part::Listen(_))
        && let Err(status) = stream::become_connection(call, &mut state)
    {
        drop(state);
        return request.fail(provider, status);
    }
    if let Some(status) = part(&mut state).map_or(Some(STATUS_INVALID_DEVICE_STATE), |c| c.refusal_to_connect(call)) {
        drop(state);
        return request.fail(provider, status);
    }
    attempt(call, state, request, remote, Attempt { first, information: 0 })
}

/// Connects a bound socket that the client does not have yet: on success the request reports it.
pub(crate) fn connect(socket: &Arc<Socket>, request: Request, remote: SocketAddr) -> NTSTATUS {
    let attempt_to = Attempt { first: Span::EMPTY, information: socket.raw() as usize };
    attempt(socket, socket.lock(), request, remote, attempt_to)
}

/// Starts an attempt on a bound connection.
fn attempt(
    socket: &Arc<Socket>,
    mut state: parking_lot::MutexGuard<'_, State>,
    request: Request,
    remote: SocketAddr,
    attempt: Attempt,
) -> NTSTATUS {
    let Some(connection) = part(&mut state) else {
        drop(state);
        return request.fail(socket.provider(), STATUS_INVALID_DEVICE_STATE);
    };
    let Some(reservation) = connection.reservation.take() else {
        drop(state);
        return request.fail(socket.provider(), STATUS_INVALID_DEVICE_STATE);
    };
    connection.remote = Some(remote);
    let sink = Arc::clone(connection.sink.insert(sink(socket)));
    match reservation.connect(remote, sink as Arc<dyn ReadySink>) {
        Ok(stream) => {
            connection.stream = Some(stream);
            connection.phase = Phase::Connecting;
            connection.attempts.push(request, socket, attempt);
            drop(state);
            wsk_sys::STATUS_PENDING
        }
        Err(error) => {
            connection.phase = Phase::Failed;
            connection.after_failure(socket);
            drop(state);
            let status = status_of(&error);
            end_failed(socket, attempt.information);
            request.finish_pended(socket, status, 0)
        }
    }
}

impl Connection {
    /// Why this connection cannot be connected now.
    fn refusal_to_connect(&mut self, socket: &Arc<Socket>) -> Option<NTSTATUS> {
        let behaviours = || socket.provider().steering.behaviours();
        match self.phase {
            Phase::Bound => None,
            Phase::Created | Phase::Failed => Some(STATUS_INVALID_DEVICE_STATE),
            Phase::Connecting => Some(behaviours().connect_while_connecting.status()),
            Phase::Connected | Phase::Reset | Phase::Silent => Some(behaviours().connect_connected.status()),
        }
    }

    /// Whether the attempt has ended: well, and then data may move, or not.
    pub(super) fn attempt_ended(&mut self, socket: &Arc<Socket>, after: &mut After) -> bool {
        let Some(stream) = &self.stream else { return false };
        match stream.connected() {
            Ok(false) => false,
            Ok(true) => {
                self.phase = Phase::Connected;
                self.inbound.begin();
                if let Some((request, attempt)) = self.attempts.pop() {
                    self.connected(request, attempt, socket, after);
                } else {
                    // The request is being cancelled and the connection won: it stays, and the client closes it.
                }
                true
            }
            Err(error) => {
                let status = status_of(&error);
                self.phase = Phase::Failed;
                after.stream = self.stream.take();
                self.after_failure(socket);
                if let Some((request, attempt)) = self.attempts.pop() {
                    after.completions.push(request, status, 0);
                    after.failed_socket = attempt.information != 0;
                }
                false
            }
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

    /// After a failed attempt some systems let the client try again (CONN-04): with the address it had.
    fn after_failure(&mut self, socket: &Arc<Socket>) {
        let provider = socket.provider();
        if provider.steering.behaviours().failed_connect != FailedConnect::Retry {
            return;
        }
        let Some(local) = self.local else { return };
        // The attempt's own hold on the address has to go first.
        self.stream = None;
        let options = self.options.for_bind(self.claim.as_ref().is_some_and(|claim| claim.shared));
        if let Ok(network) = provider.network()
            && let Ok(reservation) = network.reserve(local, &options)
        {
            self.reservation = Some(reservation);
            self.phase = Phase::Bound;
        }
    }
}
