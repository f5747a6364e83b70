//! IOCTLs of a connection (contract 4.17).

use std::sync::Arc;

use wsk_sys::nt::NTSTATUS;
use wsk_sys::{PFN_WSK_RECEIVE_EX_EVENT, STATUS_INVALID_DEVICE_STATE};

use super::{Connection, Phase, event, part};
use crate::socket::Socket;
use crate::transport::Tune;

impl Connection {
    /// `SIO_WSK_QUERY_IDEAL_SEND_BACKLOG`; `None` if the connection cannot send any more.
    pub(crate) fn ideal_send_backlog(&self) -> Option<usize> {
        (self.phase == Phase::Connected).then(|| self.outbound.ideal())
    }

    /// `SIO_WSK_QUERY_RECEIVE_BACKLOG`; `None` if the connection receives no data any more.
    pub(crate) fn receive_backlog(&self) -> Option<usize> {
        match &self.stream {
            Some(stream) if self.phase == Phase::Connected => Some(self.inbound.backlog(&**stream)),
            _ => None,
        }
    }

    /// `SIO_WSK_SET_TCP_SILENT_MODE`: sends nothing more to the peer, and ignores its data (IOC-13).
    pub(crate) fn set_silent(&mut self) -> Result<(), NTSTATUS> {
        if self.phase != Phase::Connected || self.outbound.is_busy() {
            return Err(STATUS_INVALID_DEVICE_STATE);
        }
        self.inbound.discard();
        self.phase = Phase::Silent;
        Ok(())
    }

    /// `SIO_WSK_SET_RECEIVE_EX_CALLBACK`: indicates all data to `callback`; `None` disables it.
    pub(crate) fn set_receive_ex(&mut self, callback: Option<PFN_WSK_RECEIVE_EX_EVENT>) {
        self.inbound.ex = callback;
        // Data may wait for which no event was enabled.
        self.nudge();
    }

    /// Returns the object for option changes, if there is one.
    pub(crate) fn tune(&self) -> Option<&dyn Tune> {
        match (&self.stream, &self.reservation) {
            (Some(stream), _) => Some(&**stream as &dyn Tune),
            (None, Some(reservation)) => Some(&**reservation as &dyn Tune),
            (None, None) => None,
        }
    }
}

/// Returns the number of bytes that the oldest receive of a connection has so far; `None` if none waits.
pub(crate) fn gathered(socket: &Arc<Socket>) -> Option<usize> {
    part(&mut socket.lock()).and_then(|connection| connection.inbound.gathered())
}

/// Sets the backlog that the transport recommends, and notifies the client if the event is enabled. False if
/// this is no connection.
pub(crate) fn set_ideal_send_backlog(socket: &Arc<Socket>, bytes: usize) -> bool {
    let mut state = socket.lock();
    let Some(connection) = part(&mut state).filter(|connection| connection.phase == Phase::Connected) else {
        return false;
    };
    connection.outbound.set_ideal(bytes);
    let due = event::is_due(socket, &mut state);
    drop(state);
    if due {
        event::defer_raise(socket);
    }
    true
}
