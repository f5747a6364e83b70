//! Callbacks of a connection: data, the peer's disconnect, the send backlog (contract 4.13, 4.15, 4.12).
//!
//! One thread at a time makes them, so they are serial, and the disconnect follows the data. A thread that
//! finds a callback due while another thread makes callbacks leaves it to that thread.

use std::ptr;
use std::sync::Arc;

use wsk_sys::nt::NTSTATUS;
use wsk_sys::{
    PWSK_DATA_INDICATION, PWSK_SOCKET, STATUS_DATA_NOT_ACCEPTED, STATUS_INVALID_PARAMETER, STATUS_PENDING,
    STATUS_SUCCESS, WSK_FLAG_ABORTIVE, WSK_FLAG_AT_DISPATCH_LEVEL, WSK_FLAG_ENTIRE_MESSAGE,
    WSK_FLAG_RELEASE_ASAP,
};

use super::inbound::{Indicated, ReceiveLatch};
use super::{After, Phase, part};
use crate::behaviours::BytesAccepted;
use crate::behaviours::LateDisconnect;
use crate::data::{Packet, Shape};
use crate::host::FaultPoint;
use crate::socket::{Call, Event, Life, Running, Socket, State};

const RECEIVE: &str = "WskReceiveEvent";
const RECEIVE_EX: &str = "WskReceiveExEvent";
const DISCONNECT: &str = "WskDisconnectEvent";
const SEND_BACKLOG: &str = "WskSendBacklogEvent";

/// Maximum number of consecutive callbacks for one connection, before others are served.
const TURN: u32 = 16;

/// A callback that has begun, with its arguments.
enum Step {
    Data { running: Running, list: PWSK_DATA_INDICATION, bytes: usize, entire: bool },
    Disconnect { running: Running, abortive: bool },
    Backlog { running: Running, ideal: usize },
}

/// Returns whether [`raise`] may have callbacks to make.
pub(super) fn is_due(socket: &Socket, state: &mut State) -> bool {
    miss_disconnect(socket, state);
    let crate::socket::Role::Connection(connection) = &state.role else { return false };
    if state.life != Life::Live {
        return false;
    }
    let ended = connection.inbound.reset_due || connection.inbound.end_is_due();
    let receives = state.events.is_on(Event::Receive) || connection.inbound.ex.is_some();
    (receives && connection.phase == Phase::Connected && connection.inbound.may_have_data())
        || (ended && (connection.delivered || state.events.is_on(Event::Disconnect)))
        || connection.outbound.backlog_due()
}

/// Returns whether [`raise`] may call the client.
pub(super) fn may_call(state: &State) -> bool {
    let crate::socket::Role::Connection(connection) = &state.role else { return false };
    state.events.any_on() || connection.inbound.ex.is_some()
}

/// Makes the callbacks that are due.
pub(super) fn raise(socket: &Arc<Socket>) {
    {
        let mut state = socket.lock();
        let Some(connection) = part(&mut state) else { return };
        if std::mem::replace(&mut connection.raising, true) {
            connection.raise_again = true;
            return;
        }
    }
    let mut calls = 0;
    loop {
        let mut after = After::default();
        let mut state = socket.lock();
        if calls == TURN {
            // Serve others; the transport returns to this connection.
            if let Some(connection) = part(&mut state) {
                connection.raising = false;
                connection.nudge();
            }
            return;
        }
        calls += 1;
        let step = next(socket, &mut state, &mut after);
        if step.is_none() {
            let again = part(&mut state).is_some_and(|connection| {
                connection.raising = std::mem::take(&mut connection.raise_again);
                connection.raising
            });
            drop(state);
            after.run(socket);
            if again {
                continue;
            }
            return;
        }
        drop(state);
        after.run(socket);
        match step {
            Some(Step::Data { running, list, bytes, entire }) => {
                indicate(socket, &running, list, bytes, entire);
            }
            Some(Step::Disconnect { running, abortive }) => indicate_disconnect(socket, &running, abortive),
            Some(Step::Backlog { running, ideal }) => indicate_backlog(socket, &running, ideal),
            None => {}
        }
    }
}

/// Defers the callbacks that are due to a thread outside of the client's calls.
pub(super) fn defer_raise(socket: &Arc<Socket>) {
    let shared = Arc::clone(socket);
    socket.provider().defer(Box::new(move |_| raise(&shared)));
}

/// Opens the latch of the receive event, after a receive that found it shut has completed.
pub(super) fn open(socket: &Arc<Socket>, latch: ReceiveLatch) {
    let mut state = socket.lock();
    if let Some(connection) = part(&mut state) {
        connection.inbound.open(latch);
    }
    let due = is_due(socket, &mut state);
    drop(state);
    if due {
        defer_raise(socket);
    }
}

/// Makes the callbacks that are due after `event` was enabled, on a thread of the provider.
pub(crate) fn switched_on(socket: &Arc<Socket>, _event: Event) {
    raise(socket);
}

/// Begins the next callback.
fn next(socket: &Arc<Socket>, state: &mut State, after: &mut After) -> Option<Step> {
    if state.life != Life::Live {
        return None;
    }
    if let Some(step) = next_data(socket, state, after) {
        return Some(step);
    }
    let disconnects = state.events.is_on(Event::Disconnect);
    let connection = part(state)?;
    let abortive = connection.inbound.reset_due;
    let ended = abortive || connection.inbound.end_is_due();
    if ended && (disconnects || (connection.delivered && misses_disconnects(socket))) {
        // Indicated now, or missed: while the event is disabled a disconnect makes no callback (DISC-02).
        connection.inbound.reset_due = false;
        connection.inbound.end_notified = true;
        if let Some(running) = state.begin(socket, Event::Disconnect) {
            return Some(Step::Disconnect { running, abortive });
        }
    }
    let ideal = part(state)?.outbound.take_backlog()?;
    let running = state.begin(socket, Event::SendBacklog)?;
    Some(Step::Backlog { running, ideal })
}

/// Takes a disconnect that comes while its event is disabled for missed, if the provider is to miss those.
/// That is settled under the lock, before a receive that finds the end completes: its client may enable the
/// event next.
fn miss_disconnect(socket: &Socket, state: &mut State) {
    if state.life != Life::Live || state.events.is_on(Event::Disconnect) || !misses_disconnects(socket) {
        return;
    }
    if let Some(connection) = part(state)
        && connection.delivered
        && (connection.inbound.reset_due || connection.inbound.end_is_due())
    {
        connection.inbound.reset_due = false;
        connection.inbound.end_notified = true;
    }
}

/// Returns whether a disconnect that comes while its event is disabled is never indicated.
fn misses_disconnects(socket: &Socket) -> bool {
    socket.provider().live_config.behaviours().late_disconnect == LateDisconnect::Missed
}

/// Begins an indication of data.
fn next_data(socket: &Arc<Socket>, state: &mut State, after: &mut After) -> Option<Step> {
    let provider = socket.provider();
    let on = state.events.is_on(Event::Receive);
    let connection = part(state)?;
    let ex = connection.inbound.ex.is_some();
    let despite = std::mem::take(&mut connection.inbound.event_first);
    let data = connection.phase == Phase::Connected && connection.inbound.may_have_data();
    if !(on || ex) || !data || (connection.inbound.has_receives() && !despite) {
        if despite {
            connection.pump(socket, after);
        }
        return None;
    }
    let stream = connection.stream.as_deref_mut()?;
    let mut packet = provider.packets.take();
    match connection.inbound.fill_packet(&mut packet, stream) {
        Ok(true) => {}
        Ok(false) => {
            provider.packets.give_back(packet);
            if despite {
                // There is no data for the event: serve the receives that had to wait.
                connection.pump(socket, after);
            }
            return None;
        }
        Err(status) => {
            provider.packets.give_back(packet);
            connection.broken(status, after);
            return None;
        }
    }
    let bytes = packet.bytes().len();
    let shape = match provider.host.choose(FaultPoint::IndicationShape, 5) {
        1 => Shape::Several,
        2 => Shape::Chained,
        3 => Shape::Gaps,
        4 => Shape::Unmapped,
        _ => Shape::Plain,
    };
    let list = packet.list(shape);
    let entire = !connection.inbound.may_have_data();
    connection.inbound.current = Some(Indicated { list, packet, released: false });
    let running = if ex { state.begin_unmasked(socket) } else { state.begin(socket, Event::Receive) };
    let Some(running) = running else {
        unreachable!("the socket lives and the event is on, as was just seen")
    };
    Some(Step::Data { running, list, bytes, entire })
}

/// Calls the receive callback and applies its result.
fn indicate(socket: &Arc<Socket>, running: &Running, list: PWSK_DATA_INDICATION, bytes: usize, entire: bool) {
    let provider = socket.provider();
    let mut accepted = match provider.live_config.get(|config| config.behaviours.bytes_accepted) {
        BytesAccepted::Indicated => bytes,
        BytesAccepted::Zero => 0,
    };
    let mut flags = 0;
    if entire {
        flags |= WSK_FLAG_ENTIRE_MESSAGE;
    }
    if provider.injects(FaultPoint::ReleaseAsap) {
        flags |= WSK_FLAG_RELEASE_ASAP;
    }
    let status = call_receive(socket, running, flags, list, bytes, &mut accepted);
    let mut after = After::default();
    let mut state = socket.lock();
    let Some(connection) = part(&mut state) else { return };
    let Some(Indicated { packet, released, .. }) = connection.inbound.current.take() else { return };
    let kept: Option<Box<Packet>> = match status {
        STATUS_PENDING if released => Some(packet),
        STATUS_PENDING => {
            connection.inbound.retain(Indicated { list, packet, released });
            None
        }
        STATUS_SUCCESS => {
            if accepted < bytes {
                connection.inbound.not_taken(&packet.bytes()[accepted..]);
            }
            Some(packet)
        }
        _ => {
            connection.inbound.not_taken(packet.bytes());
            Some(packet)
        }
    };
    let mut unreleasable = false;
    if kept.is_none() {
        state.retained += 1;
        unreleasable = matches!(state.life, Life::Closing | Life::Freed);
    }
    // Receives that were posted during the callback had to wait for the data that it leaves.
    if let Some(connection) = part(&mut state) {
        connection.pump(socket, &mut after);
    }
    drop(state);
    if let Some(packet) = kept {
        provider.take_back(RECEIVE, packet);
    }
    after.run(socket);
    if unreleasable {
        provider.violation(
            "RCVE-19",
            RECEIVE,
            "retained a list after it had closed the socket: the list cannot be released",
        );
    }
    if released && status != STATUS_PENDING {
        provider.violation(
            "RCVE-20",
            RECEIVE,
            "returned another status than STATUS_PENDING for a list that it had released",
        );
    }
    if status == STATUS_SUCCESS && accepted > bytes {
        provider.violation("RCVE-05", RECEIVE, &format!("accepted {accepted} of {bytes} bytes"));
    }
    if !matches!(status, STATUS_SUCCESS | STATUS_PENDING | STATUS_DATA_NOT_ACCEPTED) {
        provider.violation(
            "RCVE-10",
            RECEIVE,
            &format!("returned {status:#x}, which is treated as STATUS_DATA_NOT_ACCEPTED"),
        );
    }
}

/// Calls the receive callback; a null `list` makes it the sentinel.
fn call_receive(
    socket: &Arc<Socket>,
    running: &Running,
    flags: u32,
    list: PWSK_DATA_INDICATION,
    bytes: usize,
    accepted: &mut usize,
) -> NTSTATUS {
    let mut state = socket.lock();
    let (context, table) = (state.context.0, state.tables.connection);
    let ex = part(&mut state).and_then(|connection| connection.inbound.ex);
    drop(state);
    let at = |with_flag| if with_flag { flags | WSK_FLAG_AT_DISPATCH_LEVEL } else { flags };
    if let Some(callback) = ex {
        return running.call(RECEIVE_EX, |with_flag| {
            // SAFETY: the client gave the callback for this socket; the list and the count live during the
            // call.
            unsafe { callback(context, at(with_flag), list, ptr::null_mut(), 0, bytes, accepted) }
        });
    }
    // SAFETY: the client keeps its table alive and unchanged as long as the socket (CLOSE-17).
    let callback = unsafe { table.as_ref() }.and_then(|table| table.WskReceiveEvent);
    let Some(callback) = callback else {
        socket.provider().violation("EVT-34", RECEIVE, "the event is enabled, but its callback is null");
        *accepted = bytes;
        return STATUS_SUCCESS;
    };
    running.call(RECEIVE, |with_flag| {
        // SAFETY: the table's entry is for this socket; the list and the count live during the call.
        unsafe { callback(context, at(with_flag), list, bytes, accepted) }
    })
}

fn indicate_disconnect(socket: &Arc<Socket>, running: &Running, abortive: bool) {
    let (context, table) = {
        let state = socket.lock();
        (state.context.0, state.tables.connection)
    };
    // SAFETY: the client keeps its table alive and unchanged as long as the socket (CLOSE-17).
    let callback = unsafe { table.as_ref() }.and_then(|table| table.WskDisconnectEvent);
    let Some(callback) = callback else {
        socket.provider().violation("EVT-34", DISCONNECT, "the event is enabled, but its callback is null");
        return;
    };
    let status = running.call(DISCONNECT, |with_flag| {
        let at = if with_flag { WSK_FLAG_AT_DISPATCH_LEVEL } else { 0 };
        // SAFETY: the table's entry is for this socket.
        unsafe { callback(context, at | if abortive { WSK_FLAG_ABORTIVE } else { 0 }) }
    });
    if status != STATUS_SUCCESS {
        socket.provider().violation("DISC-08", DISCONNECT, &format!("returned {status:#x}"));
    }
}

fn indicate_backlog(socket: &Arc<Socket>, running: &Running, ideal: usize) {
    let (context, table) = {
        let state = socket.lock();
        (state.context.0, state.tables.connection)
    };
    // SAFETY: the client keeps its table alive and unchanged as long as the socket (CLOSE-17).
    let callback = unsafe { table.as_ref() }.and_then(|table| table.WskSendBacklogEvent);
    let Some(callback) = callback else {
        socket.provider().violation("EVT-34", SEND_BACKLOG, "the event is enabled, but its callback is null");
        return;
    };
    running.call(SEND_BACKLOG, |_| {
        // SAFETY: the table's entry is for this socket.
        unsafe { callback(context, ideal) }
    });
}

/// Notifies the client through the receive callback that the socket is dead.
pub(crate) fn sentinel(socket: &Arc<Socket>, running: &Running) {
    let status = call_receive(socket, running, 0, ptr::null_mut(), 0, &mut 0);
    if status != STATUS_SUCCESS {
        socket.provider().violation("RCVE-02", RECEIVE, &format!("returned {status:#x} to the sentinel"));
    }
}

/// `WskRelease` of a connection.
///
/// # Safety
/// As `PFN_WSK_RELEASE_DATA_INDICATION_LIST`: the socket is open.
pub(crate) unsafe extern "system" fn wsk_release(
    socket: PWSK_SOCKET,
    list: PWSK_DATA_INDICATION,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider.
    let call = match unsafe { Call::enter("WskRelease", socket) } {
        Ok(call) => call,
        Err(status) => return status,
    };
    // A dead socket accepts releases, so that it can be closed (LIFE-15).
    if call.life() != Life::Live as u32
        && call.life() != Life::Dead as u32
        && let Some(status) = call.check()
    {
        return status;
    }
    let provider = call.provider();
    let mut state = call.lock();
    let mut during = false;
    let packet = part(&mut state).and_then(|connection| match &mut connection.inbound.current {
        Some(current) if current.list == list && !current.released => {
            // The list is released before its callback has returned.
            current.released = true;
            during = true;
            None
        }
        _ => connection.inbound.take_retained(list),
    });
    if packet.is_some() {
        state.retained -= 1;
    }
    let inside = part(&mut state).is_some_and(|connection| connection.inbound.is_inside(list));
    drop(state);
    match packet {
        Some(packet) => {
            provider.take_back(call.name, packet);
            STATUS_SUCCESS
        }
        None if during => STATUS_SUCCESS,
        None if inside || list.is_null() => {
            provider.violation("RCVE-18", call.name, "the list was changed: release it as it was indicated");
            STATUS_INVALID_PARAMETER
        }
        None => {
            provider.violation(
                "RCVE-20",
                call.name,
                "the list is not one that the client retained from this socket",
            );
            STATUS_INVALID_PARAMETER
        }
    }
}
