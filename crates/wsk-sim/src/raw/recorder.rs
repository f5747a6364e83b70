//! Callback tables that record their calls, and return the answers that a test has set.
//!
//! An event is in the queue once its callback is *over*: it has returned, and the provider has acted on its
//! answer. A [`Hold`] shows that a callback has been *entered*, and holds the callback there.

use std::cell::UnsafeCell;
use std::collections::{HashMap, VecDeque};
use std::ffi::c_void;
use std::fmt;
use std::ptr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use wsk_sys::nt::{self, KEVENT, NTSTATUS};
use wsk_sys::*;

use super::events::*;
use super::socket::{Category, Shape};
use super::wait::{BOUND, blank_event, wait_for};
use super::{PoolBox, read_address};
use crate::callback::when_over;

/// The tables of a recorder. An entry can be set to `None` before the recorder is made.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// For listening sockets.
    pub listen: WSK_CLIENT_LISTEN_DISPATCH,
    /// For connections.
    pub connection: WSK_CLIENT_CONNECTION_DISPATCH,
    /// For datagram sockets.
    pub datagram: WSK_CLIENT_DATAGRAM_DISPATCH,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            listen: WSK_CLIENT_LISTEN_DISPATCH {
                WskAcceptEvent: Some(accept_event),
                WskInspectEvent: Some(inspect_event),
                WskAbortEvent: Some(abort_event),
            },
            connection: WSK_CLIENT_CONNECTION_DISPATCH {
                WskReceiveEvent: Some(receive_event),
                WskDisconnectEvent: Some(disconnect_event),
                WskSendBacklogEvent: Some(send_backlog_event),
            },
            datagram: WSK_CLIENT_DATAGRAM_DISPATCH { WskReceiveFromEvent: Some(receive_from_event) },
        }
    }
}

/// Waits for the next event of one kind.
macro_rules! take {
    ($recorder:expr, $kind:ident) => {
        match $recorder.next_of(Kind::$kind, BOUND) {
            Some(Event::$kind(event)) => event,
            _ => panic!(concat!("no Wsk", stringify!($kind), "Event within {:?}"), BOUND),
        }
    };
}

type Script<E, A> = Mutex<Arc<dyn Fn(&E) -> A + Send + Sync>>;

fn script<E, A>(answer: impl Fn(&E) -> A + Send + Sync + 'static) -> Script<E, A> {
    let answer: Arc<dyn Fn(&E) -> A + Send + Sync> = Arc::new(answer);
    Mutex::new(answer)
}

#[derive(Default)]
struct Counts {
    entered: u64,
    returned: u64,
}

#[derive(Default)]
struct Log {
    queue: VecDeque<Event>,
    counts: HashMap<Kind, Counts>,
    holds: HashMap<Kind, Arc<HoldInner>>,
    waiters: Vec<WaiterHandle>,
}

impl Log {
    fn take(&mut self, matches: impl Fn(&Event) -> bool) -> Option<Event> {
        let index = self.queue.iter().position(matches)?;
        self.queue.remove(index)
    }
}

/// The event of a thread that waits for the queue.
struct Waiter(PoolBox<UnsafeCell<KEVENT>>);

impl Waiter {
    fn new() -> Self {
        let event = PoolBox::new(UnsafeCell::new(blank_event()));
        // SAFETY: the event is at its final address and not shared yet.
        unsafe { nt::KeInitializeEvent(event.get(), nt::NOTIFICATION_EVENT, 0) };
        Self(event)
    }

    fn event(&self) -> *mut KEVENT {
        self.0.get()
    }
}

/// # Invariants
/// The waiter removes its handle from the log, under the log's lock, before its event is freed.
struct WaiterHandle(*mut KEVENT);

/// The socket context of a recorder, in pool.
///
/// # Invariants
/// The tables stay in place for the life of the context.
struct Context {
    me: Weak<PoolBox<Context>>,
    tables: Tables,
    stream: WSK_CLIENT_STREAM_DISPATCH,
    log: Mutex<Log>,
    on_accept: Script<Accept, AcceptAnswer>,
    on_inspect: Script<Inspect, WSK_INSPECT_ACTION>,
    on_abort: Script<Abort, NTSTATUS>,
    on_receive: Script<Receive, ReceiveAnswer>,
    on_receive_from: Script<ReceiveFrom, NTSTATUS>,
    on_disconnect: Script<Disconnect, NTSTATUS>,
    on_send_backlog: Script<SendBacklog, NTSTATUS>,
}

/// A recorder: tables, the context behind them, and a queue of events. Clones are handles to the same
/// recorder.
///
/// By default it accepts every inspected request, takes every socket and consumes all data.
#[derive(Clone)]
pub struct Recorder(Arc<PoolBox<Context>>);

// SAFETY: the context synchronizes itself, and its pointers are to its own tables and to waiters' events.
unsafe impl Send for Recorder {}
// SAFETY: the context synchronizes itself, and its pointers are to its own tables and to waiters' events.
unsafe impl Sync for Recorder {}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recorder").field(&self.0.as_ptr()).finish()
    }
}

impl Recorder {
    /// A recorder of every event.
    pub fn new() -> Self {
        Self::with_tables(|_| {})
    }

    /// A recorder whose tables were changed first.
    pub fn with_tables(change: impl FnOnce(&mut Tables)) -> Self {
        let mut tables = Tables::default();
        change(&mut tables);
        Self(Arc::new_cyclic(|me| {
            let mut context = PoolBox::new(Context {
                me: Weak::clone(me),
                tables,
                stream: WSK_CLIENT_STREAM_DISPATCH { Listen: ptr::null(), Connect: ptr::null() },
                log: Mutex::default(),
                on_accept: script(AcceptAnswer::usual),
                on_inspect: script(|_| WskInspectAccept),
                on_abort: script(|_| STATUS_SUCCESS),
                on_receive: script(|_| ReceiveAnswer::all()),
                on_receive_from: script(|_| STATUS_SUCCESS),
                on_disconnect: script(|_| STATUS_SUCCESS),
                on_send_backlog: script(|_| STATUS_SUCCESS),
            });
            context.stream.Listen = &raw const context.tables.listen;
            context.stream.Connect = &raw const context.tables.connection;
            context
        }))
    }

    /// The socket context.
    pub fn context(&self) -> *mut c_void {
        self.0.as_ptr().cast()
    }

    /// The table for a category; null for basic sockets.
    pub fn table(&self, category: Category) -> *const c_void {
        match category {
            Category::Basic => ptr::null(),
            Category::Listen => (&raw const self.0.tables.listen).cast(),
            Category::Connection => self.connection_table().cast(),
            Category::Datagram => (&raw const self.0.tables.datagram).cast(),
            Category::Stream => (&raw const self.0.stream).cast(),
        }
    }

    /// The table for connections.
    pub fn connection_table(&self) -> *const WSK_CLIENT_CONNECTION_DISPATCH {
        &raw const self.0.tables.connection
    }

    // Answers -----------------------------------------------------------------------------------------------

    /// Answers `WskAcceptEvent` from now on.
    pub fn on_accept(&self, answer: impl Fn(&Accept) -> AcceptAnswer + Send + Sync + 'static) -> &Self {
        *self.0.on_accept.lock() = Arc::new(answer);
        self
    }

    /// Answers `WskInspectEvent` from now on.
    pub fn on_inspect(
        &self,
        answer: impl Fn(&Inspect) -> WSK_INSPECT_ACTION + Send + Sync + 'static,
    ) -> &Self {
        *self.0.on_inspect.lock() = Arc::new(answer);
        self
    }

    /// Answers every `WskInspectEvent` with `action` from now on.
    pub fn inspecting(&self, action: WSK_INSPECT_ACTION) -> &Self {
        self.on_inspect(move |_| action)
    }

    /// Answers `WskAbortEvent` from now on.
    pub fn on_abort(&self, answer: impl Fn(&Abort) -> NTSTATUS + Send + Sync + 'static) -> &Self {
        *self.0.on_abort.lock() = Arc::new(answer);
        self
    }

    /// Answers `WskReceiveEvent` from now on.
    pub fn on_receive(&self, answer: impl Fn(&Receive) -> ReceiveAnswer + Send + Sync + 'static) -> &Self {
        *self.0.on_receive.lock() = Arc::new(answer);
        self
    }

    /// Answers `WskReceiveFromEvent` from now on.
    pub fn on_receive_from(
        &self,
        answer: impl Fn(&ReceiveFrom) -> NTSTATUS + Send + Sync + 'static,
    ) -> &Self {
        *self.0.on_receive_from.lock() = Arc::new(answer);
        self
    }

    /// Answers `WskDisconnectEvent` from now on.
    pub fn on_disconnect(&self, answer: impl Fn(&Disconnect) -> NTSTATUS + Send + Sync + 'static) -> &Self {
        *self.0.on_disconnect.lock() = Arc::new(answer);
        self
    }

    /// Answers `WskSendBacklogEvent` from now on.
    pub fn on_send_backlog(
        &self,
        answer: impl Fn(&SendBacklog) -> NTSTATUS + Send + Sync + 'static,
    ) -> &Self {
        *self.0.on_send_backlog.lock() = Arc::new(answer);
        self
    }

    // Events ------------------------------------------------------------------------------------------------

    /// The next `WskAcceptEvent`; events of other kinds stay in the queue.
    #[track_caller]
    pub fn accept(&self) -> Accept {
        let mut event = take!(self, Accept);
        if let Some(socket) = &event.socket {
            match event.context.take() {
                Some(GivenRecorder::Same) => socket.keep(self.clone()),
                Some(GivenRecorder::Other(recorder)) => socket.keep(recorder),
                None => {}
            }
        }
        event
    }

    /// The next `WskInspectEvent`; events of other kinds stay in the queue.
    #[track_caller]
    pub fn inspect(&self) -> Inspect {
        take!(self, Inspect)
    }

    /// The next `WskAbortEvent`; events of other kinds stay in the queue.
    #[track_caller]
    pub fn abort(&self) -> Abort {
        take!(self, Abort)
    }

    /// The next `WskReceiveEvent`; events of other kinds stay in the queue.
    #[track_caller]
    pub fn receive(&self) -> Receive {
        take!(self, Receive)
    }

    /// The next `WskReceiveFromEvent`; events of other kinds stay in the queue.
    #[track_caller]
    pub fn receive_from(&self) -> ReceiveFrom {
        take!(self, ReceiveFrom)
    }

    /// The next `WskDisconnectEvent`; events of other kinds stay in the queue.
    #[track_caller]
    pub fn disconnect(&self) -> Disconnect {
        take!(self, Disconnect)
    }

    /// The next `WskSendBacklogEvent`; events of other kinds stay in the queue.
    #[track_caller]
    pub fn send_backlog(&self) -> SendBacklog {
        take!(self, SendBacklog)
    }

    /// Receives by event until `length` bytes have come.
    #[track_caller]
    pub fn receive_bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            bytes.extend(self.receive().bytes());
        }
        bytes
    }

    /// The next event of any kind.
    #[track_caller]
    pub fn next(&self) -> Event {
        self.next_matching(BOUND, |_| true).unwrap_or_else(|| panic!("no event within {BOUND:?}"))
    }

    /// The next event of a kind, if it comes in time.
    pub fn next_of(&self, kind: Kind, bound: Duration) -> Option<Event> {
        self.next_matching(bound, |event| event.kind() == kind)
    }

    fn next_matching(&self, bound: Duration, matches: impl Fn(&Event) -> bool) -> Option<Event> {
        let waiter = Waiter::new();
        loop {
            {
                let mut log = self.0.log.lock();
                if let Some(found) = log.take(&matches) {
                    return Some(found);
                }
                // SAFETY: the event was initialized with the waiter.
                unsafe { nt::KeClearEvent(waiter.event()) };
                log.waiters.push(WaiterHandle(waiter.event()));
            }
            // SAFETY: the event lives in the waiter.
            let woken = unsafe { wait_for(waiter.event(), bound) };
            let mut log = self.0.log.lock();
            log.waiters.retain(|handle| handle.0 != waiter.event());
            if !woken {
                return log.take(&matches);
            }
        }
    }

    /// Takes everything out of the queue.
    pub fn drain(&self) -> Vec<Event> {
        self.0.log.lock().queue.drain(..).collect()
    }

    /// The number of callbacks of a kind that have been entered.
    pub fn entered(&self, kind: Kind) -> u64 {
        self.0.log.lock().counts.get(&kind).map_or(0, |counts| counts.entered)
    }

    /// The number of callbacks of a kind that are over.
    pub fn returned(&self, kind: Kind) -> u64 {
        self.0.log.lock().counts.get(&kind).map_or(0, |counts| counts.returned)
    }

    /// Holds callbacks of a kind open, before they answer, until the result is opened or dropped.
    pub fn hold(&self, kind: Kind) -> Hold {
        let hold = Arc::new(HoldInner::default());
        self.0.log.lock().holds.insert(kind, Arc::clone(&hold));
        Hold { recorder: self.clone(), kind, hold }
    }
}

#[derive(Debug, Default)]
struct HoldInner {
    state: Mutex<HoldState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct HoldState {
    inside: usize,
    passed: usize,
    open: bool,
}

impl HoldInner {
    fn pass(&self) {
        let mut state = self.state.lock();
        state.inside += 1;
        self.changed.notify_all();
        while !state.open {
            self.changed.wait(&mut state);
        }
        state.inside -= 1;
        state.passed += 1;
    }
}

/// Holds the callbacks of one kind open until it is opened or dropped.
#[derive(Debug)]
pub struct Hold {
    recorder: Recorder,
    kind: Kind,
    hold: Arc<HoldInner>,
}

impl Hold {
    /// Waits until a callback is held.
    #[track_caller]
    pub fn wait_entered(&self) {
        self.wait_inside(1);
    }

    /// Waits until that many callbacks are held at once.
    #[track_caller]
    pub fn wait_inside(&self, count: usize) {
        let mut state = self.hold.state.lock();
        let result = self.hold.changed.wait_while_for(&mut state, |state| state.inside < count, BOUND);
        assert!(!result.timed_out(), "{:?} was not entered {count} times within {BOUND:?}", self.kind);
    }

    /// Waits up to `bound` until `count` callbacks are held at once; returns true if they are.
    pub fn reaches(&self, count: usize, bound: Duration) -> bool {
        let mut state = self.hold.state.lock();
        !self.hold.changed.wait_while_for(&mut state, |state| state.inside < count, bound).timed_out()
    }

    /// The number of callbacks that are held.
    pub fn inside(&self) -> usize {
        self.hold.state.lock().inside
    }

    /// Releases the held callbacks, and lets later ones pass.
    pub fn open(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut log = self.recorder.0.log.lock();
        if log.holds.get(&self.kind).is_some_and(|hold| Arc::ptr_eq(hold, &self.hold)) {
            log.holds.remove(&self.kind);
        }
        drop(log);
        self.hold.state.lock().open = true;
        self.hold.changed.notify_all();
    }
}

// The callbacks ---------------------------------------------------------------------------------------------

impl Recorder {
    /// Enters a callback: counts it, and waits there if it is held.
    ///
    /// # Safety
    /// `context` is that of a recorder that lives as long as the calling socket.
    unsafe fn enter(context: *mut c_void, kind: Kind) -> (Self, At) {
        // SAFETY: the caller passes the socket context, which is alive during its callbacks.
        let me = unsafe { &(*context.cast::<Context>()).me };
        let recorder = Self(me.upgrade().expect("a recorder outlives its sockets"));
        let hold = {
            let mut log = recorder.0.log.lock();
            log.counts.entry(kind).or_default().entered += 1;
            log.holds.get(&kind).map(Arc::clone)
        };
        let at = At::here();
        if let Some(hold) = hold {
            hold.pass();
        }
        (recorder, at)
    }

    /// Leaves a callback: the event is in the queue once the callback is over.
    fn leave(self, event: Event) {
        when_over(move || {
            let mut log = self.0.log.lock();
            log.counts.entry(event.kind()).or_default().returned += 1;
            log.queue.push_back(event);
            for waiter in &log.waiters {
                // SAFETY: the event is alive while its handle is in the log.
                unsafe { nt::KeSetEvent(waiter.0, nt::IO_NO_INCREMENT, 0) };
            }
        });
    }
}

unsafe extern "system" fn accept_event(
    context: *mut c_void,
    flags: u32,
    local: PSOCKADDR,
    remote: PSOCKADDR,
    socket: PWSK_SOCKET,
    socket_context: *mut *mut c_void,
    socket_dispatch: *mut *const WSK_CLIENT_CONNECTION_DISPATCH,
) -> NTSTATUS {
    // SAFETY: the context is that of the recorder that the listener was given.
    let (recorder, at) = unsafe { Recorder::enter(context, Kind::Accept) };
    let pointers = CallbackPointers { id: ptr::null_mut(), local, remote };
    // SAFETY: addresses are valid during the callback.
    let local = unsafe { read_address(local) };
    // SAFETY: the provider passes an address that is valid during the callback.
    let remote = unsafe { read_address(remote) };
    let socket = (!socket.is_null()).then(|| Shape::connection(None).socket(socket as usize));
    let outputs = Outputs::new(socket_context, socket_dispatch);
    let mut event = Accept { at, flags, pointers, local, remote, socket, outputs, context: None };
    let answer = Arc::clone(&*recorder.0.on_accept.lock());
    let answer = answer(&event);
    if answer.write && event.socket.is_some() {
        event.outputs.set(answer.recorder.as_ref());
    }
    event.outputs.close();
    if answer.status == STATUS_SUCCESS {
        event.context = answer.recorder.map(|given| {
            // An own socket in the queue must not keep its own recorder alive.
            if Arc::ptr_eq(&given.0, &recorder.0) { GivenRecorder::Same } else { GivenRecorder::Other(given) }
        });
    } else if let Some(refused) = event.socket.take() {
        refused.forget();
    }
    recorder.leave(Event::Accept(event));
    answer.status
}

unsafe extern "system" fn inspect_event(
    context: *mut c_void,
    local: PSOCKADDR,
    remote: PSOCKADDR,
    id: PWSK_INSPECT_ID,
) -> WSK_INSPECT_ACTION {
    // SAFETY: the context is that of the recorder that the listener was given.
    let (recorder, at) = unsafe { Recorder::enter(context, Kind::Inspect) };
    let pointers = CallbackPointers { id, local, remote };
    // The addresses of the sentinel may be invalid.
    let (local, remote) = if id.is_null() { (ptr::null_mut(), ptr::null_mut()) } else { (local, remote) };
    // SAFETY: addresses are valid during the callback.
    let local = unsafe { read_address(local) };
    // SAFETY: the provider passes an address that is valid during the callback.
    let remote = unsafe { read_address(remote) };
    // SAFETY: InspectID is null or valid during the callback.
    let id = unsafe { id.as_ref() }.copied();
    let event = Inspect { at, pointers, local, remote, id };
    let answer = Arc::clone(&*recorder.0.on_inspect.lock());
    let answer = answer(&event);
    recorder.leave(Event::Inspect(event));
    answer
}

unsafe extern "system" fn abort_event(context: *mut c_void, id: PWSK_INSPECT_ID) -> NTSTATUS {
    // SAFETY: the context is that of the recorder that the listener was given.
    let (recorder, at) = unsafe { Recorder::enter(context, Kind::Abort) };
    let pointers = CallbackPointers { id, local: ptr::null_mut(), remote: ptr::null_mut() };
    // SAFETY: the identifier is valid during the callback.
    let id = unsafe { id.as_ref() }.copied();
    let event = Abort { at, pointers, id };
    let answer = Arc::clone(&*recorder.0.on_abort.lock());
    let answer = answer(&event);
    recorder.leave(Event::Abort(event));
    answer
}

unsafe extern "system" fn receive_event(
    context: *mut c_void,
    flags: u32,
    list: PWSK_DATA_INDICATION,
    indicated: usize,
    accepted: *mut usize,
) -> NTSTATUS {
    // SAFETY: the context is that of the recorder that the socket was given.
    let (recorder, at) = unsafe { Recorder::enter(context, Kind::Receive) };
    // SAFETY: the list is null or valid during the callback.
    let elements = unsafe { read_data(list) };
    // SAFETY: the output is valid during the callback.
    let preset = unsafe { accepted.as_ref() }.copied();
    let mut event =
        Receive { at, flags, list: ListHandle(list.cast()), elements, indicated, preset, accepted: None };
    let answer = Arc::clone(&*recorder.0.on_receive.lock());
    let answer = answer(&event);
    if let Some(count) = answer.accepted {
        // SAFETY: the output is valid during the callback.
        unsafe { accepted.write(count) };
    }
    event.accepted = answer.accepted;
    recorder.leave(Event::Receive(event));
    answer.status
}

unsafe extern "system" fn receive_from_event(
    context: *mut c_void,
    flags: u32,
    list: PWSK_DATAGRAM_INDICATION,
) -> NTSTATUS {
    // SAFETY: the context is that of the recorder that the socket was given.
    let (recorder, at) = unsafe { Recorder::enter(context, Kind::ReceiveFrom) };
    // SAFETY: the list is null or valid during the callback.
    let datagrams = unsafe { read_datagrams(list) };
    let event = ReceiveFrom { at, flags, list: ListHandle(list.cast()), datagrams };
    let answer = Arc::clone(&*recorder.0.on_receive_from.lock());
    let answer = answer(&event);
    recorder.leave(Event::ReceiveFrom(event));
    answer
}

unsafe extern "system" fn disconnect_event(context: *mut c_void, flags: u32) -> NTSTATUS {
    // SAFETY: the context is that of the recorder that the socket was given.
    let (recorder, at) = unsafe { Recorder::enter(context, Kind::Disconnect) };
    let event = Disconnect { at, flags };
    let answer = Arc::clone(&*recorder.0.on_disconnect.lock());
    let answer = answer(&event);
    recorder.leave(Event::Disconnect(event));
    answer
}

unsafe extern "system" fn send_backlog_event(context: *mut c_void, size: usize) -> NTSTATUS {
    // SAFETY: the context is that of the recorder that the socket was given.
    let (recorder, at) = unsafe { Recorder::enter(context, Kind::SendBacklog) };
    let event = SendBacklog { at, size };
    let answer = Arc::clone(&*recorder.0.on_send_backlog.lock());
    let answer = answer(&event);
    recorder.leave(Event::SendBacklog(event));
    answer
}
