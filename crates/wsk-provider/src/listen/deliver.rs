//! Handing an established connection to the client (contract 5.5, ACPT area).

use std::sync::Arc;

use wsk_sys::nt::NTSTATUS;
use wsk_sys::{
    STATUS_INSUFFICIENT_RESOURCES, STATUS_REQUEST_NOT_ACCEPTED, STATUS_SUCCESS, WSK_FLAG_AT_DISPATCH_LEVEL,
    WSK_INSPECT_ID,
};

use super::accept::AcceptItem;
use super::{Established, inspect};
use crate::behaviours::{InheritedEvents, StaticOnAccept};
use crate::connection::{self, Connection};
use crate::host::FaultPoint;
use crate::request::Request;
use crate::socket::{
    Category, Context, Event, Handover, Life, Role, Running, Socket, SocketParams, State, StaticEvents,
    Tables, switched_on,
};

const EVENT: &str = "WskAcceptEvent";

/// Kind of the calling thread. It decides where a callback is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thread {
    /// A thread of the provider: callbacks are made on it.
    Provider,
    /// A thread of the client, inside a call: callbacks are deferred to another thread.
    Client,
}

/// Recipient of an established connection.
enum Taker {
    Request(Request, AcceptItem),
    Event(Running),
    Queue,
    None,
}

/// Selects the recipient of a connection that has just been established.
fn taker(socket: &Arc<Socket>, state: &mut State) -> Taker {
    let provider = socket.provider();
    let event_first = provider.injects(FaultPoint::EventDespiteIrp);
    if event_first && let Some(running) = state.begin(socket, Event::Accept) {
        return Taker::Event(running);
    }
    let Role::Listen(listener) = &mut state.role else { return Taker::None };
    if let Some((request, item)) = listener.accepts.pop() {
        return Taker::Request(request, item);
    }
    if let Some(running) = state.begin(socket, Event::Accept) {
        return Taker::Event(running);
    }
    let depth = provider.live_config.get(|config| config.backlog);
    match &state.role {
        Role::Listen(listener) if state.refused().is_none() && listener.backlog.len() < depth => Taker::Queue,
        _ => Taker::None,
    }
}

/// Hands a connection to its recipient.
pub(super) fn deliver(socket: &Arc<Socket>, established: Established, thread: Thread) {
    let mut state = socket.lock();
    match taker(socket, &mut state) {
        Taker::Request(request, item) => {
            drop(state);
            by_request(socket, request, item, established);
        }
        Taker::Event(running) => {
            drop(state);
            match thread {
                Thread::Provider => by_event(socket, &running, established),
                Thread::Client => {
                    let shared = Arc::clone(socket);
                    socket.provider().defer(Box::new(move |_| by_event(&shared, &running, established)));
                }
            }
        }
        Taker::Queue => {
            if let Role::Listen(listener) = &mut state.role {
                listener.backlog.push_back(established);
            }
        }
        Taker::None => {
            drop(state);
            let inspection = established.inspection;
            established.stream.abort();
            if let Some(name) = inspection {
                match thread {
                    Thread::Provider => inspect::abort_now(socket, &name),
                    Thread::Client => inspect::defer_abort(socket, name),
                }
            }
        }
    }
}

/// Delivers the waiting connections while the event is enabled.
pub(crate) fn pump(socket: &Arc<Socket>) {
    loop {
        let mut state = socket.lock();
        let waiting = matches!(&state.role, Role::Listen(listener) if listener.has_waiting());
        if !waiting {
            return;
        }
        let Some(running) = state.begin(socket, Event::Accept) else { return };
        let Role::Listen(listener) = &mut state.role else { return };
        let Some(established) = listener.backlog.pop_front() else { return };
        drop(state);
        by_event(socket, &running, established);
    }
}

/// Creates the socket of a connection.
fn accepted_socket(
    listener: &Arc<Socket>,
    context: Context,
    tables: Tables,
    stream: Box<dyn crate::transport::Stream>,
    inspection: Option<WSK_INSPECT_ID>,
) -> Arc<Socket> {
    let (options, claim) = {
        let state = listener.lock();
        let claim = match &state.role {
            Role::Listen(part) => part.claim_of_connections(),
            _ => None,
        };
        (state.options.inherited(), claim)
    };
    let provider = listener.provider();
    Socket::create(
        listener.client(),
        SocketParams {
            category: Category::Connection,
            family: listener.family,
            socket_type: listener.socket_type,
            protocol: listener.protocol,
            accepted: true,
            context,
            tables,
            options,
            inspection,
            role: Role::Connection(Box::new(Connection::accepted(
                stream,
                claim,
                &provider.live_config.config(),
            ))),
        },
    )
}

/// Completes an accept request with the connection; returns the status it completed with.
pub(super) fn by_request(
    listener: &Arc<Socket>,
    request: Request,
    item: AcceptItem,
    established: Established,
) -> NTSTATUS {
    let provider = listener.provider();
    if provider.injects(FaultPoint::AllocationFails) {
        established.stream.abort();
        request.complete(provider, STATUS_INSUFFICIENT_RESOURCES, 0);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    item.write_addresses(listener, &established);
    let tables = Tables { connection: item.dispatch, ..Tables::default() };
    let id = established.inspection.map(|name| name.id());
    let socket = accepted_socket(listener, item.context, tables, established.stream, id);
    if provider.live_config.behaviours().static_on_accept == StaticOnAccept::On {
        let statics = statics_of(listener);
        socket.lock().events.fix(Category::Connection, statics);
    }
    if request.is_cancelled() {
        socket.lock().leak_rule = "LSN-31";
    }
    connection::attach(&socket);
    request.complete(provider, STATUS_SUCCESS, socket.raw() as usize);
    connection::delivered(&socket);
    STATUS_SUCCESS
}

fn statics_of(listener: &Arc<Socket>) -> StaticEvents {
    listener.client().lock().statics.unwrap_or_default()
}

/// Calls `WskAcceptEvent` with the connection.
fn by_event(listener: &Arc<Socket>, running: &Running, established: Established) {
    let provider = listener.provider();
    let (context, callback) = {
        let state = listener.lock();
        // SAFETY: the client keeps its table alive as long as the socket (CLOSE-17).
        let table = unsafe { state.tables.listen.as_ref() };
        (state.context, table.and_then(|table| table.WskAcceptEvent))
    };
    let Some(callback) = callback else {
        provider.violation("EVT-34", EVENT, "the event is enabled, but its callback is null");
        return established.stream.abort();
    };
    if provider.injects(FaultPoint::AllocationFails) {
        return established.stream.abort();
    }
    let Established { stream, local, remote, inspection } = established;
    let id = inspection.map(|name| name.id());
    let socket = accepted_socket(listener, Context(std::ptr::null_mut()), Tables::default(), stream, id);
    let mut context_out = Handover::unwritten();
    let mut dispatch_out = Handover::unwritten().cast_const().cast();
    let handover = Handover { context: &raw mut context_out, dispatch: &raw mut dispatch_out };
    socket.begin_handover(handover);
    connection::attach(&socket);
    if provider.live_config.behaviours().inherited_events == InheritedEvents::OnceOutputsWritten {
        let (accepted, listener) = (Arc::clone(&socket), Arc::clone(listener));
        provider.defer(Box::new(move |_| inherit_early(&listener, &accepted)));
    }
    let mut cell = provider.id_cells.issue_addresses(local, remote, listener.family);
    let status = running.call(EVENT, |with_flag| {
        let flags = if with_flag { WSK_FLAG_AT_DISPATCH_LEVEL } else { 0 };
        // SAFETY: the client's callback gets what its type asks for, alive until it returns.
        unsafe {
            callback(
                context.0,
                flags,
                cell.local(),
                cell.remote(),
                socket.raw(),
                handover.context,
                handover.dispatch,
            )
        }
    });
    drop(cell);
    if status == STATUS_SUCCESS {
        adopt(listener, &socket, handover);
        return;
    }
    if status != STATUS_REQUEST_NOT_ACCEPTED {
        provider.violation("ACPT-10", EVENT, &format!("returned {status:#010x}"));
    }
    refuse(&socket);
}

/// Handles a refusal by the client: the provider closes the connection.
fn refuse(socket: &Arc<Socket>) {
    let mut state = socket.lock();
    let used = state.end_handover(socket);
    let closed = state.life == Life::Closing || state.life == Life::Freed;
    if !closed {
        state.death_notified_by = Some("ACPT-09");
    }
    drop(state);
    if let Some(call) = used {
        let detail = format!("did not accept a connection on which it had called {call}");
        socket.provider().violation("ACPT-09", EVENT, &detail);
    }
    // If the client has closed the socket itself, the close ends it.
    if !closed {
        Socket::discard(socket);
    }
}

/// Handles acceptance by the client: sets context and table, and enables the inherited and static events.
fn adopt(listener: &Arc<Socket>, socket: &Arc<Socket>, handover: Handover) {
    let (context, dispatch) = handover.read();
    for (written, what) in
        [(context.is_some(), "*AcceptSocketContext"), (dispatch.is_some(), "*AcceptSocketDispatch")]
    {
        if !written {
            let detail = format!("returned STATUS_SUCCESS without writing {what}");
            listener.provider().violation("ACPT-07", EVENT, &detail);
        }
    }
    let (context, dispatch) = (context.unwrap_or(std::ptr::null_mut()), dispatch.unwrap_or(std::ptr::null()));
    let mut state = socket.lock();
    let _ = state.end_handover(socket);
    state.leak_rule = "ACPT-06";
    // Values that events used while the callback was still running must have been final.
    let (used_context, used_table) = (state.context.0, state.tables.connection);
    let changed = (!used_context.is_null() && used_context != context)
        || (!used_table.is_null() && !std::ptr::eq(used_table, dispatch));
    state.context = Context(context);
    state.tables.connection = dispatch;
    // The client may already have closed it.
    if state.life != Life::Freed {
        state.pin_client_memory(listener.provider());
    }
    drop(state);
    if changed {
        let detail = "changed an output after an event had used it";
        listener.provider().violation("ACPT-16", EVENT, detail);
    }
    inherit(listener, socket);
    connection::delivered(socket);
}

/// Enables the initial events of a socket that was accepted by event (ACPT-14, EVT-37).
fn inherit(listener: &Arc<Socket>, socket: &Arc<Socket>) {
    let inherited = listener.lock().events.inherited();
    let statics = statics_of(listener);
    let mut state = socket.lock();
    if state.tables.connection.is_null() {
        return;
    }
    state.events.switch_on(inherited);
    state.events.fix(Category::Connection, statics);
    let waiting: Vec<Event> = [Event::Receive, Event::Disconnect, Event::SendBacklog]
        .into_iter()
        .filter(|event| state.events.is_on(*event) && state.role.has_waiting(*event))
        .collect();
    drop(state);
    for event in waiting {
        switched_on(socket, event);
    }
}

/// Enables the inherited events as soon as both outputs are written, while the callback is still running: the
/// early order of ACPT-15.
fn inherit_early(listener: &Arc<Socket>, socket: &Arc<Socket>) {
    loop {
        let mut state = socket.lock();
        // The callback's thread clears the handover, under this lock, before its outputs are dropped.
        let Some(handover) = state.handover else { return };
        if let (Some(context), Some(dispatch)) = handover.read() {
            state.context = Context(context);
            state.tables.connection = dispatch;
            drop(state);
            return inherit(listener, socket);
        }
        drop(state);
        std::thread::yield_now();
    }
}

/// Notifies a client that its listening socket is dead (ACPT-04).
pub(crate) fn accept_sentinel(listener: &Arc<Socket>, running: &Running) {
    let (context, callback) = {
        let state = listener.lock();
        // SAFETY: the client keeps its table alive as long as the socket (CLOSE-17).
        let table = unsafe { state.tables.listen.as_ref() };
        (state.context, table.and_then(|table| table.WskAcceptEvent))
    };
    let Some(callback) = callback else { return };
    let mut context_out = std::ptr::null_mut();
    let mut dispatch_out = std::ptr::null();
    let mut cell = listener.provider().id_cells.issue_nothing(listener.family);
    let status = running.call(EVENT, |with_flag| {
        let flags = if with_flag { WSK_FLAG_AT_DISPATCH_LEVEL } else { 0 };
        // SAFETY: the client's callback gets what its type asks for, alive until it returns; the socket is
        // null.
        unsafe {
            callback(
                context.0,
                flags,
                cell.local(),
                cell.remote(),
                std::ptr::null_mut(),
                &raw mut context_out,
                &raw mut dispatch_out,
            )
        }
    });
    if status != STATUS_REQUEST_NOT_ACCEPTED {
        let detail = format!("returned {status:#010x} for a null AcceptSocket");
        listener.provider().violation("ACPT-05", EVENT, &detail);
    }
}
