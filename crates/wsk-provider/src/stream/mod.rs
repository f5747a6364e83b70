//! Stream sockets without a role (contract 4.11, 5.8).
//!
//! ```text
//!            bind          WskListen ok
//!   Created ─────► Bound ──────────────► a listener    (STRM-05: calls of the other role are refused)
//!                    └── WskConnect ───► a connection
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use wsk_sys::PWSK_SOCKET;
use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{STATUS_INVALID_DEVICE_STATE, STATUS_SUCCESS};

use crate::address::Claim;
use crate::connection::Connection;
use crate::listen::{self, AcceptItem, Listener};
use crate::request::{Completions, RequestQueue};
use crate::socket::{Call, Category, Ending, Role, Socket, State};
use crate::transport::{Reservation, Tune, status_of};

/// State of a stream socket without a role.
///
/// # Invariants
/// `reservation`, `claim` and `local` are all `Some` or all `None`.
#[derive(Debug, Default)]
pub(crate) struct StreamSocket {
    reservation: Option<Box<dyn Reservation>>,
    claim: Option<Claim>,
    local: Option<SocketAddr>,
    /// Accept requests before `WskListen`, if that is allowed (STRM-08).
    accepts: RequestQueue<AcceptItem>,
}

impl StreamSocket {
    /// Creates a stream socket that is not bound.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Records the successful bind.
    pub(crate) fn bound(&mut self, reservation: Box<dyn Reservation>, claim: Claim) -> io::Result<()> {
        self.local = Some(reservation.local_address()?);
        self.reservation = Some(reservation);
        self.claim = Some(claim);
        Ok(())
    }

    /// Returns the local address; `None` before the bind.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Takes the accept requests that wait for `WskListen`.
    pub(crate) fn accepts_mut(&mut self) -> &mut RequestQueue<AcceptItem> {
        &mut self.accepts
    }

    /// Removes the waiting request of `irp`, which is being cancelled.
    pub(crate) fn cancelled(&mut self, irp: *mut IRP) -> usize {
        self.accepts.remove_cancelled(irp);
        0
    }

    /// Ends the work of the socket.
    pub(crate) fn end(&mut self, ending: Ending, completions: &mut Completions) {
        self.accepts.end_all(ending.status(), completions);
        self.reservation = None;
        self.claim = None;
    }

    /// Returns the object for option changes, if there is one.
    pub(crate) fn tune(&self) -> Option<&dyn Tune> {
        self.reservation.as_deref().map(|reservation| reservation as &dyn Tune)
    }
}

/// `WskListen`.
///
/// # Safety
/// As `PFN_WSK_LISTEN`: the socket is open, and the caller gives up the IRP.
pub(crate) unsafe extern "system" fn wsk_listen(socket: PWSK_SOCKET, irp: *mut IRP) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    let (call, request) = match unsafe { Call::begin("WskListen", "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    let outcome = {
        let mut state = call.lock();
        match state.refused() {
            Some(status) => Err(status),
            None => become_listener(&call, &mut state),
        }
    };
    match outcome {
        Ok(Ok(())) => request.finish_pended(&*call, STATUS_SUCCESS, 0),
        Ok(Err(error)) => request.finish_pended(&*call, status_of(&error), 0),
        Err(status) => request.fail(call.provider(), status),
    }
}

/// Gives a bound stream socket the listening role. The outer error is one of the state, the inner one of the
/// network.
fn become_listener(socket: &Arc<Socket>, state: &mut State) -> Result<io::Result<()>, NTSTATUS> {
    let behaviours = socket.provider().live_config.behaviours();
    let Role::Stream(stream) = &mut state.role else { return Err(behaviours.other_role.status()) };
    let (Some(reservation), Some(claim)) = (stream.reservation.take(), stream.claim.take()) else {
        return Err(behaviours.stream_unbound.status());
    };
    stream.local = None;
    let mut listener = Listener::new();
    let listening =
        reservation.listen(listen::sink(socket)).and_then(|port| listener.bound(port, claim)).map(|()| {
            listener.adopt(std::mem::take(&mut stream.accepts));
        });
    if listening.is_ok() {
        state.role = Role::Listen(Box::new(listener));
    }
    Ok(listening)
}

/// Gives a bound stream socket the connection role; a connection socket has it. Ends its waiting accept
/// requests.
pub(crate) fn become_connection(
    socket: &Arc<Socket>,
    state: &mut State,
    completions: &mut Completions,
) -> Result<(), NTSTATUS> {
    let behaviours = socket.provider().live_config.behaviours();
    match &mut state.role {
        Role::Connection(_) => Ok(()),
        Role::Stream(stream) => {
            let (Some(reservation), Some(claim)) = (stream.reservation.take(), stream.claim.take()) else {
                return Err(behaviours.stream_unbound.status());
            };
            stream.accepts.end_all(behaviours.other_role.status(), completions);
            let mut connection = Connection::new(&socket.provider().live_config.config());
            connection.bound(reservation, claim).map_err(|error| status_of(&error))?;
            state.role = Role::Connection(Box::new(connection));
            Ok(())
        }
        _ if socket.category == Category::Stream => Err(behaviours.other_role.status()),
        _ => Err(STATUS_INVALID_DEVICE_STATE),
    }
}
