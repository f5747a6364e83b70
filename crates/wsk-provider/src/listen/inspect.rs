//! Inspections: `WskInspectEvent`, pended requests, and `WskAbortEvent` (contract 4.9, INSP and ABRT areas).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use wsk_sys::{
    PFN_WSK_ABORT_EVENT, PFN_WSK_INSPECT_EVENT, STATUS_SUCCESS, WSK_INSPECT_ACTION, WSK_INSPECT_ID,
};

use super::deliver::{Thread, deliver};
use super::names::{Name, Names, Past};
use super::returning::Asking;
use super::{Established, complete};
use crate::behaviours::{CloseWithPended, IdReuse, PendedEnd, Retransmission};
use crate::host::FaultPoint;
use crate::request::{Completions, Request};
use crate::socket::{Category, Context, Ending, Life, Role, Running, Socket, State};
use crate::transport::{Ready, ReadySink, Waiting};

const INSPECT: &str = "WskInspectEvent";
const ABORT: &str = "WskAbortEvent";

/// Progress of an inspection.
#[derive(Debug)]
pub(super) enum Stage {
    /// `WskInspectEvent` is running; a decision that came too early is kept.
    Inspecting { asking: Arc<Asking>, early: Option<(Request, WSK_INSPECT_ACTION)> },
    /// It has returned `WskInspectPend`.
    Pended,
    /// It is pended, and `WskInspectEvent` is called for it again (INSP-34); a decision that comes meanwhile
    /// is kept until that callback has returned, so that no callback is made for a request that is over.
    AskedAgain { decided: Option<(Request, WSK_INSPECT_ACTION)> },
    /// `WskInspectComplete` has begun to decide it.
    Deciding,
}

/// One request under inspection.
#[derive(Debug)]
struct Entry {
    name: Arc<Name>,
    stage: Stage,
    established: Established,
}

/// The requests of one listener that are under inspection, by their keys.
#[derive(Debug, Default)]
pub(super) struct Inspections {
    live: HashMap<usize, Entry>,
    names: Names,
}

impl Inspections {
    fn add(&mut self, mut established: Established, reuse: IdReuse, asking: &Arc<Asking>) -> Arc<Name> {
        let name = self.names.next(reuse);
        established.inspection = Some(Arc::clone(&name));
        let stage = Stage::Inspecting { asking: Arc::clone(asking), early: None };
        self.live.insert(name.id().Key, Entry { name: Arc::clone(&name), stage, established });
        name
    }

    /// Returns the live request with this identifier.
    pub(super) fn named(&self, id: WSK_INSPECT_ID) -> Option<Arc<Name>> {
        let entry = self.live.get(&id.Key)?;
        (entry.name.id() == id).then(|| Arc::clone(&entry.name))
    }

    fn entry(&mut self, name: &Arc<Name>) -> Option<&mut Entry> {
        self.live.get_mut(&name.id().Key).filter(|entry| Arc::ptr_eq(&entry.name, name))
    }

    /// Returns the stage of a live request.
    pub(super) fn stage(&mut self, name: &Arc<Name>) -> Option<&mut Stage> {
        self.entry(name).map(|entry| &mut entry.stage)
    }

    /// Takes out a live request, and remembers its fate.
    pub(super) fn take(&mut self, name: &Arc<Name>, past: Past) -> Option<(Established, Stage)> {
        self.entry(name)?;
        let entry = self.live.remove(&name.id().Key)?;
        self.names.over(name, past);
        Some((entry.established, entry.stage))
    }

    fn remember(&mut self, id: WSK_INSPECT_ID, past: Past) {
        self.names.remember(id, past);
    }

    /// Returns the fate of a finished request.
    pub(super) fn past(&self, id: WSK_INSPECT_ID) -> Option<Past> {
        self.names.past(id)
    }

    /// Drops every request that is left.
    pub(super) fn end(&mut self, ending: Ending, completions: &mut Completions) {
        for (_, entry) in self.live.drain() {
            if let Stage::Inspecting { early: Some((request, _)), .. }
            | Stage::AskedAgain { decided: Some((request, _)) } = entry.stage
            {
                completions.push(request, ending.status(), 0);
            }
            entry.established.stream.abort();
        }
    }
}

/// The callbacks of a conditional listener.
struct Callbacks {
    context: Context,
    inspect: Option<PFN_WSK_INSPECT_EVENT>,
    abort: Option<PFN_WSK_ABORT_EVENT>,
}

fn callbacks(state: &State) -> Callbacks {
    // SAFETY: the client keeps its table alive as long as the socket (CLOSE-17).
    let table = unsafe { state.tables.listen.as_ref() };
    Callbacks {
        context: state.context,
        inspect: table.and_then(|table| table.WskInspectEvent),
        abort: table.and_then(|table| table.WskAbortEvent),
    }
}

/// Calls `WskInspectEvent` for a new request, on a thread of the provider.
pub(super) fn inspect(socket: &Arc<Socket>, established: Established) {
    let provider = socket.provider();
    let mut state = socket.lock();
    // Must be first: a closed listener has no table any more, and its driver may be unloaded.
    let Some(running) = state.begin_unmasked(socket) else {
        drop(state);
        return established.stream.abort();
    };
    let Callbacks { context, inspect, abort } = callbacks(&state);
    let (Some(inspect), Some(_)) = (inspect, abort) else {
        drop(state);
        drop(running);
        provider.violation(
            "INSP-30",
            INSPECT,
            "conditional accept is enabled, but WskInspectEvent or WskAbortEvent is null",
        );
        return established.stream.abort();
    };
    let Role::Listen(listener) = &mut state.role else { return };
    let (local, remote) = (established.local, established.remote);
    let asking = Arc::new(Asking::here());
    let name = listener.inspections.add(established, provider.live_config.behaviours().id_reuse, &asking);
    drop(state);
    let action = ask(socket, &running, inspect, context, name.id(), (local, remote), &asking);
    let repeats =
        action == WSK_INSPECT_ACTION::WskInspectPend && provider.injects(FaultPoint::Retransmission);
    let pended = repeats.then(|| Arc::clone(&name));
    settle(socket, name, action);
    drop(running);
    if let Some(name) = pended {
        ask_again(socket, &name);
    }
}

/// Handles a retransmission by the peer. If that is selected, `WskInspectEvent` is called again with the same
/// identifier while the request is still pended (INSP-34).
fn ask_again(socket: &Arc<Socket>, name: &Arc<Name>) {
    if socket.provider().live_config.behaviours().retransmission == Retransmission::Ignored {
        return;
    }
    let mut state = socket.lock();
    let Role::Listen(listener) = &mut state.role else { return };
    let Some(entry) = listener.inspections.entry(name) else { return };
    if !matches!(entry.stage, Stage::Pended) {
        return;
    }
    let (local, remote) = (entry.established.local, entry.established.remote);
    let Some(running) = state.begin_unmasked(socket) else { return };
    let Callbacks { context, inspect: Some(inspect), .. } = callbacks(&state) else {
        // Must be before `running` is dropped, which takes the lock.
        return drop(state);
    };
    let Role::Listen(listener) = &mut state.role else { return };
    if let Some(stage) = listener.inspections.stage(name) {
        *stage = Stage::AskedAgain { decided: None };
    }
    drop(state);
    let action = ask(socket, &running, inspect, context, name.id(), (local, remote), &Asking::here());
    if action == WSK_INSPECT_ACTION::WskInspectPend {
        let mut state = socket.lock();
        let Role::Listen(listener) = &mut state.role else { return };
        let Some(stage) = listener.inspections.stage(name) else { return };
        let former = std::mem::replace(stage, Stage::Pended);
        if let Stage::AskedAgain { decided: Some((request, action)) } = former {
            drop(state);
            complete::decide_kept(socket, request, Arc::clone(name), action);
        }
    } else {
        settle(socket, Arc::clone(name), action);
    }
    drop(running);
    // Reports of the connection were ignored meanwhile.
    look_at_pended(socket, name);
}

/// Simulates a retransmission during `WskInspectComplete`: calls `WskInspectEvent` and waits for its return.
/// The caller is inside a call of the client.
pub(super) fn ask_during_complete(socket: &Arc<Socket>, name: &Arc<Name>) {
    let provider = socket.provider();
    if provider.live_config.behaviours().retransmission == Retransmission::Ignored
        || !provider.injects(FaultPoint::RetransmissionDuringComplete)
    {
        return;
    }
    // The callback may need a lock of the caller, and other such callers may occupy all callback threads.
    if provider.host.holds_spin_lock() || provider.host.call_site().callback.is_some() {
        return;
    }
    let mut state = socket.lock();
    let Role::Listen(listener) = &mut state.role else { return };
    let Some(entry) = listener.inspections.entry(name) else { return };
    let (local, remote) = (entry.established.local, entry.established.remote);
    let Some(running) = state.begin_unmasked(socket) else { return };
    drop(state);
    let (shared, asked) = (Arc::clone(socket), Arc::clone(name));
    let (sender, receiver) = std::sync::mpsc::channel();
    provider.defer(Box::new(move |_| {
        let Callbacks { context, inspect, .. } = callbacks(&shared.lock());
        if let Some(inspect) = inspect {
            // A return value other than pend would be a second decision; the one in progress counts.
            let _ = ask(&shared, &running, inspect, context, asked.id(), (local, remote), &Asking::here());
        }
        drop((running, asked));
        let _ = sender.send(());
    }));
    // It fails if no thread is available; then the callback is not made.
    let _ = receiver.recv();
}

fn ask(
    socket: &Arc<Socket>,
    running: &Running,
    inspect: PFN_WSK_INSPECT_EVENT,
    context: Context,
    id: WSK_INSPECT_ID,
    (local, remote): (SocketAddr, SocketAddr),
    asking: &Asking,
) -> WSK_INSPECT_ACTION {
    let mut cell = socket.provider().id_cells.issue(id, local, remote, socket.family);
    running.call(INSPECT, |_| {
        // SAFETY: the client's callback gets what its type asks for, alive until it returns.
        let action = unsafe { inspect(context.0, cell.local(), cell.remote(), cell.id()) };
        asking.returned();
        action
    })
}

/// Applies the return value of `WskInspectEvent`.
fn settle(socket: &Arc<Socket>, name: Arc<Name>, action: WSK_INSPECT_ACTION) {
    let provider = socket.provider();
    match action {
        WSK_INSPECT_ACTION::WskInspectAccept => {
            accept(socket, name, FaultPoint::DropAfterAccept, Thread::Provider);
        }
        WSK_INSPECT_ACTION::WskInspectPend if socket.category == Category::Stream => {
            provider.violation(
                "STRM-11",
                INSPECT,
                "returned WskInspectPend on a stream socket, which has no WskInspectComplete",
            );
            reject(socket, name);
        }
        WSK_INSPECT_ACTION::WskInspectPend => pend(socket, name),
        WSK_INSPECT_ACTION::WskInspectReject => reject(socket, name),
        other => {
            provider.violation(
                "INSP-10",
                INSPECT,
                &format!("returned {}, which is no WSK_INSPECT_ACTION", other.0),
            );
            reject(socket, name);
        }
    }
}

/// Accepts the request: it is delivered, unless it was dropped meanwhile.
pub(super) fn accept(socket: &Arc<Socket>, name: Arc<Name>, point: FaultPoint, thread: Thread) {
    let injected = socket.provider().injects(point);
    let mut state = socket.lock();
    let Role::Listen(listener) = &mut state.role else { return };
    let Some((established, stage)) = listener.inspections.take(&name, Past::Decided) else { return };
    drop(state);
    refuse_early(socket, stage);
    // A peer that has only finished sending has not given up: the connection is delivered, with its end.
    let dropped = established.stream.peek().is_err();
    if !dropped && !injected {
        return deliver(socket, established, thread);
    }
    established.stream.abort();
    match thread {
        Thread::Provider => abort_now(socket, &name),
        Thread::Client => defer_abort(socket, name),
    }
}

/// Rejects the request.
pub(super) fn reject(socket: &Arc<Socket>, name: Arc<Name>) {
    let mut state = socket.lock();
    let Role::Listen(listener) = &mut state.role else { return };
    let Some((established, stage)) = listener.inspections.take(&name, Past::Decided) else { return };
    drop(state);
    refuse_early(socket, stage);
    let Established { stream, inspection, .. } = established;
    // From here on another request may get the identifier, for instance the peer's next one.
    drop((inspection, name));
    stream.abort();
}

/// Fails a decision that was made before the callback returned something else than `WskInspectPend`.
fn refuse_early(socket: &Arc<Socket>, stage: Stage) {
    let early = matches!(stage, Stage::Inspecting { .. });
    if let Stage::Inspecting { early: Some((request, _)), .. }
    | Stage::AskedAgain { decided: Some((request, _)) } = stage
    {
        if early {
            let detail = "decided a request for which WskInspectComplete was already called";
            socket.provider().violation("ICMP-13", INSPECT, detail);
        }
        let status = socket.provider().live_config.behaviours().complete_unknown.status();
        request.complete(socket.provider(), status, 0);
    }
}

/// Pends the request, and watches its connection.
fn pend(socket: &Arc<Socket>, name: Arc<Name>) {
    let mut state = socket.lock();
    // This thread has made the callback, so the listener was closed inside it.
    if state.closed_by == Some(std::thread::current().id()) {
        drop(state);
        let detail = "pended a request after it had closed the listener: it cannot be completed";
        return socket.provider().violation("INSP-18", INSPECT, detail);
    }
    let Role::Listen(listener) = &mut state.role else { return };
    let Some(stage) = listener.inspections.stage(&name) else { return };
    let Stage::Inspecting { early, .. } = stage else { return };
    let early = early.take();
    *stage = Stage::Pended;
    if let Some((request, action)) = early {
        drop(state);
        return complete::decide_kept(socket, request, name, action);
    }
    let Some(entry) = listener.inspections.entry(&name) else { return };
    let watch = Arc::new(Watch { socket: Arc::downgrade(socket), name: Arc::downgrade(&name) });
    let watched = entry.established.stream.attach(watch);
    drop(state);
    if watched.is_err() || socket.provider().injects(FaultPoint::DropAfterPend) {
        drop_pended(socket, &name);
    }
}

/// Drops a pended request and calls `WskAbortEvent`.
fn drop_pended(socket: &Arc<Socket>, name: &Arc<Name>) {
    let mut state = socket.lock();
    let Role::Listen(listener) = &mut state.role else { return };
    if !matches!(listener.inspections.stage(name), Some(Stage::Pended)) {
        return;
    }
    let Some((established, _)) = listener.inspections.take(name, Past::Aborted { notified: false }) else {
        return;
    };
    drop(state);
    established.stream.abort();
    abort_now(socket, name);
}

/// Calls `WskAbortEvent` on the calling thread, which is the provider's.
pub(super) fn abort_now(socket: &Arc<Socket>, name: &Arc<Name>) {
    let mut state = socket.lock();
    let Role::Listen(listener) = &mut state.role else { return };
    listener.inspections.remember(name.id(), Past::Aborted { notified: false });
    let Some(running) = state.begin_unmasked(socket) else { return };
    drop(state);
    call_abort(socket, &running, name.id());
}

/// Defers a call of `WskAbortEvent` to another thread.
pub(super) fn defer_abort(socket: &Arc<Socket>, name: Arc<Name>) {
    let mut state = socket.lock();
    let Role::Listen(listener) = &mut state.role else { return };
    listener.inspections.remember(name.id(), Past::Aborted { notified: false });
    let Some(running) = state.begin_unmasked(socket) else { return };
    drop(state);
    let shared = Arc::clone(socket);
    socket.provider().defer(Box::new(move |_| {
        call_abort(&shared, &running, name.id());
        drop((running, name));
    }));
}

fn call_abort(socket: &Arc<Socket>, running: &Running, id: WSK_INSPECT_ID) {
    let provider = socket.provider();
    let Callbacks { context, abort, .. } = callbacks(&socket.lock());
    let Some(abort) = abort else { return };
    let mut cell = provider.id_cells.issue_id(id, socket.family);
    let status = running.call(ABORT, |_| {
        // SAFETY: the client's callback gets what its type asks for, alive until it returns.
        unsafe { abort(context.0, cell.id()) }
    });
    drop(cell);
    if status != STATUS_SUCCESS {
        provider.violation("ABRT-10", ABORT, &format!("returned {status:#010x}"));
    }
    if let Role::Listen(listener) = &mut socket.lock().role {
        listener.inspections.remember(id, Past::Aborted { notified: true });
    }
}

/// Notifies a client that its conditional listener is dead (INSP-07); false if it has no callback for that.
pub(crate) fn inspect_sentinel(socket: &Arc<Socket>, running: &Running) -> bool {
    let Callbacks { context, inspect, .. } = callbacks(&socket.lock());
    let Some(inspect) = inspect else { return false };
    let mut cell = socket.provider().id_cells.issue_nothing(socket.family);
    running.call(INSPECT, |_| {
        // SAFETY: the client's callback gets what its type asks for, alive until it returns; the identifier
        // is null.
        unsafe { inspect(context.0, cell.local(), cell.remote(), std::ptr::null_mut()) }
    });
    true
}

/// Drops a pended request whose connection has ended.
fn look_at_pended(socket: &Arc<Socket>, name: &Arc<Name>) {
    let mut state = socket.lock();
    let Role::Listen(listener) = &mut state.role else { return };
    let Some(entry) = listener.inspections.entry(name) else { return };
    let dropped = matches!(entry.stage, Stage::Pended)
        && match entry.established.stream.peek() {
            Ok(Waiting::End) => socket.provider().live_config.behaviours().pended_end == PendedEnd::GivesUp,
            Ok(Waiting::Data | Waiting::Nothing) => false,
            Err(_) => true,
        };
    drop(state);
    if dropped {
        drop_pended(socket, name);
    }
}

/// Watches the connection of a pended request.
struct Watch {
    socket: Weak<Socket>,
    name: Weak<Name>,
}

impl ReadySink for Watch {
    fn ready(&self, ready: Ready) {
        let (Some(socket), Some(name)) = (self.socket.upgrade(), self.name.upgrade()) else { return };
        // A reset behind unread data counts. An end behind data does not: a peer that has finished sending
        // still waits for an answer.
        if ready.failed || ready.reset {
            drop_pended(&socket, &name);
        } else {
            look_at_pended(&socket, &name);
        }
    }
}

/// Pended requests of a listener that is being closed.
#[derive(Debug, Default)]
pub(crate) struct Undecided(Vec<(Arc<Name>, Option<Running>)>);

/// Takes the pended requests out of a socket that is about to close. Their aborts have begun, so that the
/// close waits for them.
pub(crate) fn take_undecided(socket: &Arc<Socket>, state: &mut State) -> Undecided {
    let provider = socket.provider();
    let Role::Listen(listener) = &mut state.role else { return Undecided::default() };
    if state.life != Life::Live {
        return Undecided::default();
    }
    let inspections = &mut listener.inspections;
    let pended: Vec<Arc<Name>> = inspections
        .live
        .values()
        .filter(|entry| matches!(entry.stage, Stage::Pended | Stage::AskedAgain { decided: None }))
        .map(|entry| Arc::clone(&entry.name))
        .collect();
    for name in &pended {
        if let Some((established, _)) = inspections.take(name, Past::Aborted { notified: false }) {
            established.stream.abort();
        }
    }
    let behaviour = provider.live_config.behaviours().close_with_pended;
    let begun = pended.into_iter().map(|name| {
        let aborts = match behaviour {
            CloseWithPended::Aborted => true,
            CloseWithPended::Silent => false,
            CloseWithPended::Either => provider.injects(FaultPoint::AbortAtClose),
        };
        (name, aborts.then(|| state.begin_in_any_state(socket)))
    });
    Undecided(begun.collect())
}

impl Undecided {
    /// Reports the undecided requests and makes the abort callbacks. The socket's lock is not held.
    pub(crate) fn settle(self, socket: &Arc<Socket>) {
        for (name, running) in self.0 {
            let id = name.id();
            let detail =
                format!("closed before the pended request {:#x}/{} was completed", id.Key, id.SerialNumber);
            socket.provider().violation("INSP-18", "WskCloseSocket", &detail);
            let Some(running) = running else { continue };
            let shared = Arc::clone(socket);
            socket.provider().defer(Box::new(move |_| {
                call_abort(&shared, &running, id);
                drop((running, name));
            }));
        }
    }
}
