//! `WskReceiveFromEvent` and `WskRelease` (contract 4.13).
//!
//! Unlike the event of a stream, this one may run on several threads at once for one socket.

use std::ptr::null_mut;
use std::sync::Arc;

use wsk_sys::nt::NTSTATUS;
use wsk_sys::{
    PWSK_DATAGRAM_INDICATION, PWSK_SOCKET, STATUS_DATA_NOT_ACCEPTED, STATUS_INVALID_PARAMETER,
    STATUS_PENDING, STATUS_SUCCESS, WSK_FLAG_AT_DISPATCH_LEVEL,
};

use super::message::Message;
use super::part;
use crate::data::Packets;
use crate::host::FaultPoint;
use crate::socket::{Call, Event, Life, Running, Socket, State};

const EVENT: &str = "WskReceiveFromEvent";
/// Maximum number of datagrams in one list.
const LIST: usize = 16;

/// Messages of one indication, first to last, and their flags.
struct Indication {
    nodes: Vec<usize>,
    flags: u32,
}

/// Indicates the waiting datagrams while the event is enabled.
pub(super) fn raise(socket: &Arc<Socket>) {
    let provider = socket.provider();
    loop {
        let mut state = socket.lock();
        let Some((running, first)) = begin(socket, &mut state) else { return };
        let second = if provider.injects(FaultPoint::ConcurrentReceiveFrom) {
            begin(socket, &mut state)
        } else {
            None
        };
        drop(state);
        if let Some((running, indication)) = second {
            let shared = Arc::clone(socket);
            provider.defer(Box::new(move |_| indicate(&shared, running, &indication)));
        }
        indicate(socket, running, &first);
    }
}

/// Delivers buffered datagrams after `WskReceiveFromEvent` was enabled, on a thread of the provider.
pub(crate) fn switched_on(socket: &Arc<Socket>) {
    raise(socket);
}

/// Begins an indication of waiting datagrams with the same flags (DGR-22).
fn begin(socket: &Arc<Socket>, state: &mut State) -> Option<(Running, Indication)> {
    let provider = socket.provider();
    let datagram = part(state)?;
    let flags = datagram.messages.front()?.flags;
    if !datagram.receives.is_empty() && !provider.injects(FaultPoint::EventDespiteIrp) {
        return None;
    }
    let running = state.begin(socket, Event::ReceiveFrom)?;
    let datagram = part(state)?;
    let chained = provider.host.choose(FaultPoint::IndicationShape, 4) == 2;
    let shape = provider.host.choose(FaultPoint::DatagramShape, 3);
    let (with_control, bare) = (shape != 1, shape == 2);
    let mut nodes: Vec<usize> = Vec::new();
    while nodes.len() < LIST
        && datagram.messages.front().is_some_and(|message| message.flags == flags)
        && let Some(mut message) = datagram.messages.pop_front()
    {
        if bare && nodes.is_empty() {
            // A provider without memory for the data still indicates the arrival.
            let mut empty = Message::empty(message.from, socket.family);
            let node = empty.empty_element();
            datagram.push_indicated(&provider.packets, node, empty, &mut nodes);
        }
        let node = message.element(chained, with_control);
        datagram.push_indicated(&provider.packets, node, message, &mut nodes);
    }
    Some((running, Indication { nodes, flags }))
}

impl super::Datagram {
    /// Appends a message to the list that is indicated.
    fn push_indicated(
        &mut self,
        packets: &Packets,
        node: PWSK_DATAGRAM_INDICATION,
        message: Box<Message>,
        nodes: &mut Vec<usize>,
    ) {
        if let Some(last) = nodes.last().and_then(|last| self.indicated.get_mut(last)) {
            last.link(node);
        }
        nodes.push(node as usize);
        packets.show(&*message);
        self.indicated.insert(node as usize, message);
    }
}

fn indicate(socket: &Arc<Socket>, running: Running, indication: &Indication) {
    let provider = socket.provider();
    let list = indication.nodes.first().map_or(null_mut(), |node| *node as PWSK_DATAGRAM_INDICATION);
    let status = call(socket, &running, indication.flags, list);
    let mut state = socket.lock();
    let fixed = state.events.is_static(Event::ReceiveFrom);
    let mut retained = 0;
    let mut missing = false;
    let mut used = false;
    let mut done = Vec::new();
    if let Some(datagram) = part(&mut state) {
        if status == STATUS_PENDING {
            // Messages that were already released are not in the map any more.
            for node in &indication.nodes {
                if let Some(message) = datagram.indicated.get_mut(node) {
                    message.retained = true;
                    retained += 1;
                }
            }
        } else {
            for node in &indication.nodes {
                match datagram.indicated.remove(node) {
                    Some(message) => done.push(message),
                    None => missing = true,
                }
            }
            if status != STATUS_SUCCESS && !fixed {
                // The event is disabled, and the datagrams it did not accept wait for the next receiver.
                for message in done.drain(..).rev() {
                    used |= provider.packets.hide(&*message);
                    datagram.messages.push_front(message);
                }
            }
        }
    }
    state.retained += retained;
    let unreleasable = retained != 0 && matches!(state.life, Life::Closing | Life::Freed);
    if status != STATUS_SUCCESS && status != STATUS_PENDING {
        state.events.switch_off(Event::ReceiveFrom);
    }
    drop(state);
    provider.check_unused(EVENT, used);
    for message in done {
        provider.quarantine(EVENT, message);
    }
    if unreleasable {
        provider.violation(
            "RCVE-19",
            EVENT,
            "retained a list after it had closed the socket: the list cannot be released",
        );
    }
    if missing {
        provider.violation(
            "RCVE-20",
            EVENT,
            "returned another status than STATUS_PENDING for a list that it had released",
        );
    }
    if !matches!(status, STATUS_SUCCESS | STATUS_PENDING | STATUS_DATA_NOT_ACCEPTED) {
        provider.violation(
            "DGR-28",
            EVENT,
            &format!("returned {status:#010x}, which is treated as STATUS_DATA_NOT_ACCEPTED"),
        );
    }
    drop(running);
}

fn call(socket: &Arc<Socket>, running: &Running, flags: u32, list: PWSK_DATAGRAM_INDICATION) -> NTSTATUS {
    let (context, table) = {
        let state = socket.lock();
        (state.context.0, state.tables.datagram)
    };
    // SAFETY: the client keeps its table alive and unchanged as long as the socket (CLOSE-17).
    let callback = unsafe { table.as_ref() }.and_then(|table| table.WskReceiveFromEvent);
    let Some(callback) = callback else {
        socket.provider().violation("EVT-34", EVENT, "the event is enabled, but its callback is null");
        return STATUS_SUCCESS;
    };
    running.call(EVENT, |with_flag| {
        let at = if with_flag { WSK_FLAG_AT_DISPATCH_LEVEL } else { 0 };
        // SAFETY: the table's entry is for this socket; the list lives until the client has given it back.
        unsafe { callback(context, flags | at, list) }
    })
}

/// Notifies the client that the socket is dead.
pub(crate) fn sentinel(socket: &Arc<Socket>, running: &Running) {
    call(socket, running, 0, null_mut());
}

/// `WskRelease` of a datagram socket, for a whole list or parts of it (DGR-25).
///
/// # Safety
/// As `PFN_WSK_RELEASE_DATAGRAM_INDICATION_LIST`: the socket is open, and the list's links are intact.
pub(crate) unsafe extern "system" fn wsk_release(
    socket: PWSK_SOCKET,
    mut list: PWSK_DATAGRAM_INDICATION,
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
    let mut released = Vec::new();
    let mut foreign = list.is_null();
    let mut state = call.lock();
    while !list.is_null() {
        let Some(message) = part(&mut state).and_then(|datagram| datagram.indicated.remove(&(list as usize)))
        else {
            foreign = true;
            break;
        };
        // SAFETY: the element belongs to the message, which is still there; the client has made its link.
        list = unsafe { (*list).Next };
        if message.retained {
            state.retained -= 1;
        }
        released.push(message);
    }
    drop(state);
    for message in released {
        call.provider().quarantine(call.name, message);
    }
    if foreign {
        call.provider().violation(
            "RCVE-20",
            call.name,
            "a list element is not one that the client retained from this socket",
        );
        return STATUS_INVALID_PARAMETER;
    }
    STATUS_SUCCESS
}
