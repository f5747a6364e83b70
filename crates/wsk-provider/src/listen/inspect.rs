//! Inspections: `WskInspectEvent`, what pends, and `WskAbortEvent` (contract 4.9, INSP and ABRT areas).

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use wsk_sys::{
    PFN_WSK_ABORT_EVENT, PFN_WSK_INSPECT_EVENT, STATUS_SUCCESS, WSK_INSPECT_ACTION, WSK_INSPECT_ID,
};

use super::deliver::{Thread, deliver};
use super::returning::Asking;
use super::{Established, complete};
use crate::behaviours::{CloseWithPended, Retransmission};
use crate::host::Knob;
use crate::request::{Completions, Request};
use crate::socket::{Category, Context, Ending, Life, Part, Running, Socket, State};
use crate::transport::{Ready, ReadySink, Waiting};

const INSPECT: &str = "WskInspectEvent";
const ABORT: &str = "WskAbortEvent";

/// How many requests that are over are remembered.
const REMEMBERED: usize = 256;

/// How far an inspection is.
#[derive(Debug)]
pub(super) enum Stage {
    /// `WskInspectEvent` is running; a decision that came too early is kept.
    Inspecting { asking: Arc<Asking>, early: Option<(Request, WSK_INSPECT_ACTION)> },
    /// It has answered pend.
    Pended,
    /// `WskInspectComplete` has begun to decide it.
    Deciding,
}

/// What became of a request that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// It was decided.
    Decided,
    /// It was dropped; `told` once the abort callback has returned.
    Aborted { told: bool },
}

/// One request under inspection.
#[derive(Debug)]
struct Entry {
    serial: u32,
    stage: Stage,
    established: Established,
}

/// The requests of one listener that are under inspection.
///
/// # Invariants
/// Keys are unique among the live entries and are used again; serial numbers are not, until they wrap.
#[derive(Debug, Default)]
pub(super) struct Inspections {
    serial: u32,
    live: HashMap<usize, Entry>,
    past: VecDeque<(WSK_INSPECT_ID, Past)>,
}

/// The step between two keys; they look like the addresses they are on Windows.
const KEY_STEP: usize = 0x40;

impl Inspections {
    fn add(&mut self, mut established: Established, asking: &Arc<Asking>) -> WSK_INSPECT_ID {
        let mut key = KEY_STEP;
        while self.live.contains_key(&key) {
            key += KEY_STEP;
        }
        self.serial = self.serial.wrapping_add(1);
        let id = WSK_INSPECT_ID { Key: key, SerialNumber: self.serial };
        established.inspection = Some(id);
        let stage = Stage::Inspecting { asking: Arc::clone(asking), early: None };
        self.live.insert(key, Entry { serial: self.serial, stage, established });
        id
    }

    /// How far the live request of that identifier is.
    pub(super) fn stage(&mut self, id: WSK_INSPECT_ID) -> Option<&mut Stage> {
        let entry = self.live.get_mut(&id.Key)?;
        (entry.serial == id.SerialNumber).then_some(&mut entry.stage)
    }

    /// Takes a live request out; what became of it is remembered.
    pub(super) fn take(&mut self, id: WSK_INSPECT_ID, past: Past) -> Option<(Established, Stage)> {
        self.stage(id)?;
        let entry = self.live.remove(&id.Key)?;
        self.remember(id, past);
        Some((entry.established, entry.stage))
    }

    fn remember(&mut self, id: WSK_INSPECT_ID, past: Past) {
        if let Some(known) = self.past.iter_mut().rev().find(|(known, _)| *known == id) {
            known.1 = past;
            return;
        }
        if self.past.len() >= REMEMBERED {
            self.past.pop_front();
        }
        self.past.push_back((id, past));
    }

    /// What became of a request that is over.
    pub(super) fn past(&self, id: WSK_INSPECT_ID) -> Option<Past> {
        self.past.iter().rev().find(|(known, _)| *known == id).map(|(_, past)| *past)
    }

    /// Drops every request that is left.
    pub(super) fn end(&mut self, ending: Ending, completions: &mut Completions) {
        for (_, entry) in self.live.drain() {
            if let Stage::Inspecting { early: Some((request, _)), .. } = entry.stage {
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

/// Asks the client about a new request, on a thread of the provider's.
pub(super) fn inspect(socket: &Arc<Socket>, established: Established) {
    let provider = socket.provider();
    let mut state = socket.lock();
    // First: a listener that has closed has no table any more, and its driver may be gone.
    let Some(running) = state.begin_unmasked(socket) else {
        drop(state);
        return established.stream.abort();
    };
    let Callbacks { context, inspect, abort } = callbacks(&state);
    let (Some(inspect), Some(_)) = (inspect, abort) else {
        drop(state);
        drop(running);
        provider.violation("INSP-30", INSPECT, "conditional accept is on and a callback of it is null");
        return established.stream.abort();
    };
    let Part::Listen(listener) = &mut state.part else { return };
    let (local, remote) = (established.local, established.remote);
    let asking = Arc::new(Asking::here());
    let id = listener.inspections.add(established, &asking);
    drop(state);
    let action = ask(socket, &running, inspect, context, id, (local, remote), &asking);
    settle(socket, id, action);
    drop(running);
    if action == WSK_INSPECT_ACTION::WskInspectPend && provider.injects(Knob::Retransmission) {
        retransmitted(socket, inspect, context, id, local, remote);
    }
}

/// The peer has sent its request again. Where that is selected the client is asked again, under the same identifier,
/// while the request is still pended (INSP-34).
fn retransmitted(
    socket: &Arc<Socket>,
    inspect: PFN_WSK_INSPECT_EVENT,
    context: Context,
    id: WSK_INSPECT_ID,
    local: SocketAddr,
    remote: SocketAddr,
) {
    if socket.provider().steering.behaviours().retransmission == Retransmission::Ignored {
        return;
    }
    let mut state = socket.lock();
    let Part::Listen(listener) = &mut state.part else { return };
    if !matches!(listener.inspections.stage(id), Some(Stage::Pended)) {
        return;
    }
    let Some(running) = state.begin_unmasked(socket) else { return };
    drop(state);
    let action = ask(socket, &running, inspect, context, id, (local, remote), &Asking::here());
    settle(socket, id, action);
    drop(running);
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
    let mut lent = socket.provider().id_cells.lend(id, local, remote, socket.family);
    running.call(INSPECT, |_| {
        // SAFETY: the client's callback gets what its type asks for, alive until it returns.
        let action = unsafe { inspect(context.0, lent.local(), lent.remote(), lent.id()) };
        asking.returned();
        action
    })
}

/// Acts on what `WskInspectEvent` has answered.
fn settle(socket: &Arc<Socket>, id: WSK_INSPECT_ID, action: WSK_INSPECT_ACTION) {
    let provider = socket.provider();
    match action {
        WSK_INSPECT_ACTION::WskInspectAccept => accept(socket, id, Knob::DropAfterAccept, Thread::Own),
        WSK_INSPECT_ACTION::WskInspectPend if socket.category == Category::Stream => {
            provider.violation(
                "STRM-11",
                INSPECT,
                "answered pend on a stream socket, which cannot complete it",
            );
            reject(socket, id);
        }
        WSK_INSPECT_ACTION::WskInspectPend => pend(socket, id),
        WSK_INSPECT_ACTION::WskInspectReject => reject(socket, id),
        other => {
            provider.violation("INSP-10", INSPECT, &format!("answered {}, which is no action", other.0));
            reject(socket, id);
        }
    }
}

/// Lets the establishment go on: the request is delivered, unless it was dropped meanwhile.
pub(super) fn accept(socket: &Arc<Socket>, id: WSK_INSPECT_ID, knob: Knob, thread: Thread) {
    let injected = socket.provider().injects(knob);
    let mut state = socket.lock();
    let Part::Listen(listener) = &mut state.part else { return };
    let Some((established, stage)) = listener.inspections.take(id, Past::Decided) else { return };
    drop(state);
    refuse_early(socket, stage);
    let dropped = matches!(established.stream.peek(), Ok(Waiting::End) | Err(_));
    if !dropped && !injected {
        return deliver(socket, established, thread);
    }
    established.stream.abort();
    match thread {
        Thread::Own => abort_now(socket, id),
        Thread::Elsewhere => abort_elsewhere(socket, id),
    }
}

/// Refuses the request.
pub(super) fn reject(socket: &Arc<Socket>, id: WSK_INSPECT_ID) {
    let mut state = socket.lock();
    let Part::Listen(listener) = &mut state.part else { return };
    let Some((established, stage)) = listener.inspections.take(id, Past::Decided) else { return };
    drop(state);
    refuse_early(socket, stage);
    established.stream.abort();
}

/// A decision that came before the callback had answered something else than pend is void.
fn refuse_early(socket: &Arc<Socket>, stage: Stage) {
    if let Stage::Inspecting { early: Some((request, _)), .. } = stage {
        let status = socket.provider().steering.behaviours().complete_unknown.status();
        request.complete(socket.provider(), status, 0);
    }
}

/// Leaves the request open, and watches for its end.
fn pend(socket: &Arc<Socket>, id: WSK_INSPECT_ID) {
    let mut state = socket.lock();
    let Part::Listen(listener) = &mut state.part else { return };
    let Some(stage) = listener.inspections.stage(id) else { return };
    // A request that was pended before is being looked at again, or is decided meanwhile (INSP-34).
    let Stage::Inspecting { early, .. } = stage else { return };
    let early = early.take();
    *stage = Stage::Pended;
    if let Some((request, action)) = early {
        drop(state);
        return complete::decide_early(socket, request, id, action);
    }
    let Some(entry) = listener.inspections.live.get_mut(&id.Key) else { return };
    let watch = Arc::new(Watch { socket: Arc::downgrade(socket), id });
    let watched = entry.established.stream.attach(watch);
    drop(state);
    if watched.is_err() || socket.provider().injects(Knob::DropAfterPend) {
        drop_pended(socket, id);
    }
}

/// A pended request has been dropped.
fn drop_pended(socket: &Arc<Socket>, id: WSK_INSPECT_ID) {
    let mut state = socket.lock();
    let Part::Listen(listener) = &mut state.part else { return };
    if !matches!(listener.inspections.stage(id), Some(Stage::Pended)) {
        return;
    }
    let Some((established, _)) = listener.inspections.take(id, Past::Aborted { told: false }) else { return };
    drop(state);
    established.stream.abort();
    abort_now(socket, id);
}

/// Calls `WskAbortEvent`, on a thread of the provider's.
pub(super) fn abort_now(socket: &Arc<Socket>, id: WSK_INSPECT_ID) {
    let mut state = socket.lock();
    let Part::Listen(listener) = &mut state.part else { return };
    listener.inspections.remember(id, Past::Aborted { told: false });
    let Some(running) = state.begin_unmasked(socket) else { return };
    drop(state);
    call_abort(socket, &running, id);
}

/// Calls `WskAbortEvent` on another thread.
pub(super) fn abort_elsewhere(socket: &Arc<Socket>, id: WSK_INSPECT_ID) {
    let mut state = socket.lock();
    let Part::Listen(listener) = &mut state.part else { return };
    listener.inspections.remember(id, Past::Aborted { told: false });
    let Some(running) = state.begin_unmasked(socket) else { return };
    drop(state);
    let shared = Arc::clone(socket);
    socket.provider().elsewhere(Box::new(move |_| {
        call_abort(&shared, &running, id);
        drop(running);
    }));
}

fn call_abort(socket: &Arc<Socket>, running: &Running, id: WSK_INSPECT_ID) {
    let provider = socket.provider();
    let Callbacks { context, abort, .. } = callbacks(&socket.lock());
    let Some(abort) = abort else { return };
    let mut lent = provider.id_cells.lend_id(id, socket.family);
    let status = running.call(ABORT, |_| {
        // SAFETY: the client's callback gets what its type asks for, alive until it returns.
        unsafe { abort(context.0, lent.id()) }
    });
    drop(lent);
    if status != STATUS_SUCCESS {
        provider.violation("ABRT-10", ABORT, &format!("returned {status:#010x}"));
    }
    if let Part::Listen(listener) = &mut socket.lock().part {
        listener.inspections.remember(id, Past::Aborted { told: true });
    }
}

/// Tells a client that its conditional listener is dead (INSP-07); false if it has no callback for that.
pub(crate) fn inspect_sentinel(socket: &Arc<Socket>, running: &Running) -> bool {
    let Callbacks { context, inspect, .. } = callbacks(&socket.lock());
    let Some(inspect) = inspect else { return false };
    let mut lent = socket.provider().id_cells.lend_nothing(socket.family);
    running.call(INSPECT, |_| {
        // SAFETY: the client's callback gets what its type asks for, alive until it returns; the identifier is null.
        unsafe { inspect(context.0, lent.local(), lent.remote(), std::ptr::null_mut()) }
    });
    true
}

/// Watches the connection of a pended request.
struct Watch {
    socket: Weak<Socket>,
    id: WSK_INSPECT_ID,
}

impl ReadySink for Watch {
    fn ready(&self, ready: Ready) {
        let Some(socket) = self.socket.upgrade() else { return };
        // A reset may be hidden behind data; an end there is not, for who has only said all is still to be answered.
        let dropped = ready.failed || ready.reset || {
            let mut state = socket.lock();
            let Part::Listen(listener) = &mut state.part else { return };
            if !matches!(listener.inspections.stage(self.id), Some(Stage::Pended)) {
                return;
            }
            let Some(entry) = listener.inspections.live.get(&self.id.Key) else { return };
            matches!(entry.established.stream.peek(), Ok(Waiting::End) | Err(_))
        };
        if dropped {
            drop_pended(&socket, self.id);
        }
    }
}

/// The pended requests of a listener that is being closed.
#[derive(Debug, Default)]
pub(crate) struct Undecided(Vec<(WSK_INSPECT_ID, Option<Running>)>);

/// Takes the pended requests out of a socket that is about to close; the aborts to come have begun, so that the close
/// waits for them.
pub(crate) fn take_undecided(socket: &Arc<Socket>, state: &mut State) -> Undecided {
    let provider = socket.provider();
    let Part::Listen(listener) = &mut state.part else { return Undecided::default() };
    if state.life != Life::Live {
        return Undecided::default();
    }
    let inspections = &mut listener.inspections;
    let pended: Vec<WSK_INSPECT_ID> = inspections
        .live
        .iter()
        .filter(|(_, entry)| matches!(entry.stage, Stage::Pended))
        .map(|(key, entry)| WSK_INSPECT_ID { Key: *key, SerialNumber: entry.serial })
        .collect();
    for id in &pended {
        if let Some((established, _)) = inspections.take(*id, Past::Aborted { told: false }) {
            established.stream.abort();
        }
    }
    let behaviour = provider.steering.behaviours().close_with_pended;
    let begun = pended.into_iter().map(|id| {
        let aborts = match behaviour {
            CloseWithPended::Aborted => true,
            CloseWithPended::Silent => false,
            CloseWithPended::Either => provider.injects(Knob::AbortAtClose),
        };
        (id, aborts.then(|| state.begin_in_any_state(socket)))
    });
    Undecided(begun.collect())
}

impl Undecided {
    /// Reports the requests nobody has decided, and tells the aborts. The socket's lock is not held.
    pub(crate) fn settle(self, socket: &Arc<Socket>) {
        for (id, running) in self.0 {
            let detail = format!("closed while request {:#x}/{} was undecided", id.Key, id.SerialNumber);
            socket.provider().violation("INSP-18", "WskCloseSocket", &detail);
            let Some(running) = running else { continue };
            let shared = Arc::clone(socket);
            socket.provider().elsewhere(Box::new(move |_| {
                call_abort(&shared, &running, id);
                drop(running);
            }));
        }
    }
}
