//! Event callbacks of a connection.
//!
//! As on a listener: each callback turns pointers into values, calls one handler, and turns the answer back;
//! the core it gets as context is alive, because WSK holds a reference until its close has completed.

use core::ffi::c_void;

use wsk_sys::nt::NTSTATUS;
use wsk_sys::{STATUS_SUCCESS, WSK_DATA_INDICATION, WSK_FLAG_ABORTIVE};

use super::Indication;
use super::handlers::{BacklogSlot, DisconnectKind, DisconnectSlot, Handlers, ReceiveSlot};
use super::shared::{ConnectionCore, ConnectionRef};
use crate::memory::Ref;
use crate::socket::Core;

/// `WskReceiveEvent`. Called serially for one connection (rule RCVE-03).
///
/// # Safety
/// Called by WSK, with the connection's context and pointers that are valid during the call.
pub(super) unsafe extern "system" fn receive_event<R: ReceiveSlot, D: DisconnectSlot, B: BacklogSlot>(
    context: *mut c_void,
    flags: u32,
    list: *mut WSK_DATA_INDICATION,
    indicated: usize,
    accepted: *mut usize,
) -> NTSTATUS {
    // SAFETY: the context is the core that the connection was accepted with, and WSK holds a reference on it
    // until the close has completed, before which this returns.
    let core =
        unsafe { Ref::<ConnectionCore<Handlers<R, D, B>>>::clone_from_raw(context.cast_const().cast()) };
    if list.is_null() {
        // The connection is dead (rules RCVE-01, RCVE-02).
        core.socket().close_dead();
        return STATUS_SUCCESS;
    }
    let connection = ConnectionRef::of(&core);
    // SAFETY: the list is not null, is valid during the call, and is what this callback of the connection was
    // given.
    let indication = unsafe { Indication::new(&connection, list, flags, indicated) };
    let answer = core.handlers.receive.receive(indication);
    let (status, bytes) = answer.finish(&connection, list, indicated);
    if let Some(bytes) = bytes {
        // SAFETY: WSK gives a valid place for the number, during the call.
        unsafe { accepted.write(bytes) };
    }
    status
}

/// `WskDisconnectEvent`.
///
/// # Safety
/// Called by WSK, with the connection's context.
pub(super) unsafe extern "system" fn disconnect_event<R: ReceiveSlot, D: DisconnectSlot, B: BacklogSlot>(
    context: *mut c_void,
    flags: u32,
) -> NTSTATUS {
    // SAFETY: the context is the core that the connection was accepted with, and WSK holds a reference on it
    // until the close has completed, before which this returns.
    let core = unsafe { &*context.cast_const().cast::<ConnectionCore<Handlers<R, D, B>>>() };
    // Several flags may be set together (rule DISC-07).
    let kind =
        if flags & WSK_FLAG_ABORTIVE == 0 { DisconnectKind::Graceful } else { DisconnectKind::Abortive };
    core.handlers.disconnect.disconnected(kind);
    STATUS_SUCCESS
}

/// `WskSendBacklogEvent`.
///
/// # Safety
/// Called by WSK, with the connection's context.
pub(super) unsafe extern "system" fn send_backlog_event<R: ReceiveSlot, D: DisconnectSlot, B: BacklogSlot>(
    context: *mut c_void,
    ideal: usize,
) -> NTSTATUS {
    // SAFETY: the context is the core that the connection was accepted with, and WSK holds a reference on it
    // until the close has completed, before which this returns.
    let core = unsafe { &*context.cast_const().cast::<ConnectionCore<Handlers<R, D, B>>>() };
    core.handlers.send_backlog.ideal_backlog(ideal);
    STATUS_SUCCESS
}
