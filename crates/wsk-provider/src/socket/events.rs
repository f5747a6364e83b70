//! Event callbacks: enabling, disabling, and running calls (contract 4.18).
//!
//! ```text
//!              enable                      disable, none running
//!   Off ─────────────────────► On ─────────────────────────────────► Off
//!                              │ ▲
//!      disable, some running   ▼ │ enable
//!                           Stopping ── last one returns ──► Off (the IRPs of the disabling complete)
//! ```

use std::sync::Arc;

use parking_lot::MutexGuard;
use wsk_sys::nt::NTSTATUS;
use wsk_sys::{
    NPI_WSK_INTERFACE_ID, STATUS_EVENT_PENDING, STATUS_INVALID_PARAMETER, STATUS_NOT_SUPPORTED,
    STATUS_PENDING, STATUS_SUCCESS, WSK_EVENT_ACCEPT, WSK_EVENT_CALLBACK_CONTROL, WSK_EVENT_DISABLE,
    WSK_EVENT_DISCONNECT, WSK_EVENT_RECEIVE, WSK_EVENT_RECEIVE_FROM, WSK_EVENT_SEND_BACKLOG,
};

use super::{Call, Category, Life, Role, Socket, State, extension, handover, role};
use crate::behaviours::{DisableSeveral, ForeignEvents, NullCallback};
use crate::client::same_guid;
use crate::live_config::Timing;
use crate::request::{PinnedMemory, Request};

/// Events with a mask bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    SendBacklog,
    Receive,
    Disconnect,
    ReceiveFrom,
    Accept,
}

impl Event {
    const ALL: [Self; 5] =
        [Self::SendBacklog, Self::Receive, Self::Disconnect, Self::ReceiveFrom, Self::Accept];

    /// Returns its bit in an event mask.
    pub(crate) const fn bit(self) -> u32 {
        match self {
            Self::SendBacklog => WSK_EVENT_SEND_BACKLOG,
            Self::Receive => WSK_EVENT_RECEIVE,
            Self::Disconnect => WSK_EVENT_DISCONNECT,
            Self::ReceiveFrom => WSK_EVENT_RECEIVE_FROM,
            Self::Accept => WSK_EVENT_ACCEPT,
        }
    }

    /// Returns whether it has a sentinel form, which notifies the client of the socket's death.
    const fn has_sentinel(self) -> bool {
        matches!(self, Self::Accept | Self::Receive | Self::ReceiveFrom)
    }

    /// Returns the rule that requires the client to close a socket after this event has notified it of the
    /// death.
    const fn death_rule(self) -> &'static str {
        match self {
            Self::Accept => "ACPT-05",
            Self::ReceiveFrom => "DGR-20",
            _ => "RCVE-02",
        }
    }
}

/// Bits that are valid on a connection.
const CONNECTION_EVENTS: u32 = WSK_EVENT_SEND_BACKLOG | WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT;
/// All bits.
const ALL_EVENTS: u32 = CONNECTION_EVENTS | WSK_EVENT_RECEIVE_FROM | WSK_EVENT_ACCEPT;

/// A callback that can be enabled and disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    /// An event of WSK.
    Own(Event),
    /// The event with this bit of the socket's extension with this index.
    Extension(usize, u32),
}

/// One event of one socket.
#[derive(Debug, Default)]
struct Slot {
    on: bool,
    fixed: bool,
    stopping: bool,
    running: u32,
    waiting: Vec<Request>,
    sentinel_due: bool,
    /// Client memory for calls that are still running after the event was disabled.
    pinned: PinnedMemory,
}

/// The events of one socket.
///
/// # Invariants
/// `running` counts every callback of the socket, those without a mask bit included.
#[derive(Debug, Default)]
pub(crate) struct Events {
    slots: [Slot; 5],
    running: u32,
    /// On a listener: the initial bits of accepted sockets.
    inherited: u32,
    /// An event has been enabled.
    used: bool,
    /// Events of the extensions that the client has registered for, by their bits.
    extensions: Vec<Vec<(u32, Slot)>>,
}

/// The static events of a client.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StaticEvents(pub(crate) u32);

impl Events {
    /// Returns whether the event is enabled, so that calls of it may begin.
    pub(crate) fn is_on(&self, event: Event) -> bool {
        let slot = &self.slots[event as usize];
        slot.on && !slot.stopping
    }

    /// Returns whether any event is enabled.
    pub(crate) fn any_on(&self) -> bool {
        self.slots.iter().any(|slot| slot.on)
    }

    /// Returns the number of running calls of the event.
    pub(crate) fn running(&self, event: Event) -> u32 {
        self.slots[event as usize].running
    }

    /// Returns whether any callback of the socket is running.
    pub(crate) fn any_running(&self) -> bool {
        self.running != 0
    }

    /// Returns whether any event was ever enabled.
    pub(crate) fn were_used(&self) -> bool {
        self.used
    }

    /// Returns whether the event is always enabled.
    pub(crate) fn is_static(&self, event: Event) -> bool {
        self.slots[event as usize].fixed
    }

    /// Returns the initial bits of sockets that are accepted by event.
    pub(crate) fn inherited(&self) -> u32 {
        self.inherited
    }

    /// Disables an option-enabled event at the request of its callback (DGR-26).
    pub(crate) fn switch_off(&mut self, event: Event) {
        let slot = &mut self.slots[event as usize];
        if !slot.fixed {
            slot.on = false;
        }
    }

    /// Enables the events of `mask`.
    pub(crate) fn switch_on(&mut self, mask: u32) {
        self.used |= mask != 0;
        for event in Event::ALL {
            if mask & event.bit() != 0 {
                let slot = &mut self.slots[event as usize];
                slot.on = true;
                slot.stopping = false;
            }
        }
    }

    /// Adds an extension with the events of this mask.
    pub(super) fn add_extension(&mut self, mask: u32) {
        let bits = (0..u32::BITS).map(|shift| 1 << shift).filter(|bit| mask & bit != 0);
        self.extensions.push(bits.map(|bit| (bit, Slot::default())).collect());
    }

    /// Enables the events of `mask` of an extension.
    pub(super) fn switch_on_extension(&mut self, index: usize, mask: u32) {
        for (bit, slot) in &mut self.extensions[index] {
            if mask & *bit != 0 {
                slot.on = true;
                slot.stopping = false;
            }
        }
    }

    fn slot(&mut self, switch: Switch) -> &mut Slot {
        match switch {
            Switch::Own(event) => &mut self.slots[event as usize],
            Switch::Extension(index, bit) => {
                let slot = self.extensions[index].iter_mut().find(|(own, _)| *own == bit);
                &mut slot.expect("a bit that was checked").1
            }
        }
    }

    /// Fixes the static events that are valid for the category.
    pub(crate) fn fix(&mut self, category: Category, events: StaticEvents) {
        let mask = events.0 & own_events(category);
        self.switch_on(mask);
        for event in Event::ALL {
            self.slots[event as usize].fixed |= mask & event.bit() != 0;
        }
    }
}

/// Returns the event bits of a category's own callbacks.
const fn own_events(category: Category) -> u32 {
    match category {
        Category::Basic => 0,
        Category::Listen => WSK_EVENT_ACCEPT,
        Category::Connection => CONNECTION_EVENTS,
        Category::Datagram => WSK_EVENT_RECEIVE_FROM,
        Category::Stream => WSK_EVENT_ACCEPT | CONNECTION_EVENTS,
    }
}

/// A callback that has begun. It ends when this is dropped: a disable or close that waits for it continues.
#[derive(Debug)]
pub(crate) struct Running {
    socket: Arc<Socket>,
    event: Option<Switch>,
}

impl Running {
    /// Calls the client; the argument of `body` says whether to set `WSK_FLAG_AT_DISPATCH_LEVEL`.
    pub(crate) fn call<R>(&self, name: &'static str, body: impl FnOnce(bool) -> R) -> R {
        self.socket.provider().in_callback(name, body)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let socket = &self.socket;
        let mut finished = Vec::new();
        let mut sentinel = None;
        let mut state = socket.lock();
        state.events.running -= 1;
        if let Some(switch) = self.event {
            let slot = state.events.slot(switch);
            slot.running -= 1;
            if slot.running == 0 {
                slot.pinned.unpin(socket.provider());
                if slot.stopping {
                    slot.stopping = false;
                    slot.on = false;
                    finished = std::mem::take(&mut slot.waiting);
                }
                if std::mem::take(&mut slot.sentinel_due)
                    && state.life == Life::Dead
                    && let Switch::Own(event) = switch
                {
                    sentinel = Some(state.begin_sentinel(socket, event));
                }
            }
        }
        let closing = state.life == Life::Closing && state.events.running == 0;
        drop(state);
        socket.provider().host.callback_settled();
        for request in finished {
            request.complete(socket.provider(), STATUS_SUCCESS, 0);
        }
        if let Some((event, running)) = sentinel {
            run_sentinel(socket, event, running);
        }
        if closing {
            Socket::finish_close(socket, Timing::Inline);
        }
    }
}

/// Calls a sentinel on another thread.
pub(super) fn run_sentinel(socket: &Arc<Socket>, event: Event, running: Running) {
    let shared = Arc::clone(socket);
    let provider = Arc::clone(socket.provider());
    provider.defer(Box::new(move |_| {
        role::sentinel(&shared, event, &running);
        shared.lock().death_notified_by.get_or_insert(event.death_rule());
        drop(running);
    }));
}

impl State {
    /// Begins a call of `event`, if it is enabled and the socket is live.
    pub(crate) fn begin(&mut self, socket: &Arc<Socket>, event: Event) -> Option<Running> {
        self.begin_switched(socket, Switch::Own(event))
    }

    /// Begins a call of an extension's event, if it is enabled and the socket is live.
    pub(super) fn begin_switched(&mut self, socket: &Arc<Socket>, switch: Switch) -> Option<Running> {
        let live = self.life == Life::Live;
        let slot = self.events.slot(switch);
        if !live || !slot.on || slot.stopping {
            return None;
        }
        slot.running += 1;
        self.events.running += 1;
        Some(Running { socket: Arc::clone(socket), event: Some(switch) })
    }

    /// Begins a callback without a mask bit (Inspect, Abort), if the socket is live.
    pub(crate) fn begin_unmasked(&mut self, socket: &Arc<Socket>) -> Option<Running> {
        (self.life == Life::Live).then(|| self.begin_in_any_state(socket))
    }

    /// Begins a callback without a mask bit in any state; a close waits for it, too.
    pub(crate) fn begin_in_any_state(&mut self, socket: &Arc<Socket>) -> Running {
        self.events.running += 1;
        Running { socket: Arc::clone(socket), event: None }
    }

    /// Begins the sentinel of `event`.
    fn begin_sentinel(&mut self, socket: &Arc<Socket>, event: Event) -> (Event, Running) {
        self.events.slots[event as usize].running += 1;
        self.events.running += 1;
        (event, Running { socket: Arc::clone(socket), event: Some(Switch::Own(event)) })
    }

    /// Begins the sentinels of a socket that has died: one for each enabled event that has such a form. The
    /// sentinel of an event whose callback is running follows when that has returned.
    pub(super) fn begin_sentinels(&mut self, socket: &Arc<Socket>) -> Vec<(Event, Running)> {
        let mut begun = Vec::new();
        for event in Event::ALL {
            if !event.has_sentinel() || !self.events.is_on(event) {
                continue;
            }
            if self.events.running(event) != 0 {
                self.events.slots[event as usize].sentinel_due = true;
            } else {
                begun.push(self.begin_sentinel(socket, event));
            }
        }
        begun
    }

    /// Returns whether the client's table has a pointer for the event.
    fn has_callback(&self, event: Event) -> bool {
        match event {
            Event::Accept => {
                !self.tables.listen.is_null() && {
                    // SAFETY: the client keeps its table alive and unchanged as long as the socket
                    // (CLOSE-17).
                    let table = unsafe { &*self.tables.listen };
                    table.WskAcceptEvent.is_some()
                }
            }
            Event::ReceiveFrom => {
                !self.tables.datagram.is_null() && {
                    // SAFETY: the client keeps its table alive and unchanged as long as the socket
                    // (CLOSE-17).
                    let table = unsafe { &*self.tables.datagram };
                    table.WskReceiveFromEvent.is_some()
                }
            }
            Event::Receive | Event::Disconnect | Event::SendBacklog => {
                !self.tables.connection.is_null() && {
                    // SAFETY: the client keeps its table alive and unchanged as long as the socket
                    // (CLOSE-17).
                    let table = unsafe { &*self.tables.connection };
                    match event {
                        Event::Receive => table.WskReceiveEvent.is_some(),
                        Event::Disconnect => table.WskDisconnectEvent.is_some(),
                        _ => table.WskSendBacklogEvent.is_some(),
                    }
                }
            }
        }
    }
}

/// `SO_WSK_EVENT_CALLBACK`, enabling or disabling; `request` is `None` without an IRP.
pub(crate) fn control_events(
    call: &Call,
    request: Option<Request>,
    control: WSK_EVENT_CALLBACK_CONTROL,
) -> NTSTATUS {
    let mask = control.EventMask;
    let disables = mask & WSK_EVENT_DISABLE != 0;
    let outcome = match check_interface(call, control) {
        Err(status) => Err(status),
        Ok(None) if disables => return disable(call, request, mask),
        Ok(None) => enable(call, request.is_some(), mask),
        Ok(Some(index)) if disables => return extension::disable(call, request, index, mask),
        Ok(Some(index)) => extension::enable(call, request.is_some(), index, mask),
    };
    let status = outcome.err().unwrap_or(STATUS_SUCCESS);
    match request {
        None => status,
        Some(request) if status == STATUS_SUCCESS => request.finish(&**call, status, 0),
        Some(request) => request.fail(call.provider(), status),
    }
}

/// Interface whose events are selected: WSK itself, or the extension of the socket with this index.
fn check_interface(call: &Call, control: WSK_EVENT_CALLBACK_CONTROL) -> Result<Option<usize>, NTSTATUS> {
    let provider = call.provider();
    if control.NpiId.is_null() {
        provider.violation("EVT-23", call.name, "NpiId is null");
        return Err(STATUS_INVALID_PARAMETER);
    }
    // SAFETY: NpiId points to a GUID that is readable during the call (EVT-24).
    let interface = unsafe { control.NpiId.read_unaligned() };
    let mask = control.EventMask & !WSK_EVENT_DISABLE;
    if same_guid(&interface, &NPI_WSK_INTERFACE_ID) {
        if mask & !ALL_EVENTS & extension::events_of(call) != 0 {
            provider.violation(
                "EVT-25",
                call.name,
                "NpiId is not that of the extension whose events are selected",
            );
        }
        return Ok(None);
    }
    if let Some(index) = extension::find(call, &interface) {
        return Ok(Some(index));
    }
    if provider.host.is_freed(control.NpiId.cast()) {
        provider.violation("EVT-24", call.name, "NpiId points to freed memory");
        return Err(STATUS_INVALID_PARAMETER);
    }
    let rule = if mask & ALL_EVENTS != 0 { "EVT-23" } else { "EVT-25" };
    provider.violation(rule, call.name, "NpiId names an interface that has no events on this socket");
    Err(STATUS_NOT_SUPPORTED)
}

/// Returns the events of `mask` that the socket can have, and those of them that are for inheritance only.
fn valid_events(call: &Call, state: &State, mask: u32) -> Result<(u32, u32), NTSTATUS> {
    let behaviours = call.provider().live_config.behaviours();
    let (own, inherit) = match (call.category, &state.role) {
        (Category::Basic, _) => return Err(behaviours.events_on_basic.status()),
        (_, Role::Listen(_)) => (WSK_EVENT_ACCEPT, CONNECTION_EVENTS),
        (_, Role::Connection(_)) => (CONNECTION_EVENTS, 0),
        (category, _) => (own_events(category), 0),
    };
    if mask & !(own | inherit) != 0 && behaviours.foreign_events == ForeignEvents::Refused {
        return Err(STATUS_INVALID_PARAMETER);
    }
    Ok((mask & own, mask & inherit))
}

fn too_early(call: &Call) -> NTSTATUS {
    let rule = match call.category {
        Category::Connection => "EVT-08",
        _ => "EVT-07",
    };
    call.provider().violation(
        rule,
        call.name,
        "events are enabled or disabled before the socket is bound or connected",
    );
    call.provider().live_config.behaviours().events_too_early.status()
}

/// Checks the arguments of an enabling call.
pub(super) fn check_enabling(call: &Call, with_irp: bool) {
    if with_irp {
        call.provider().advice("EVT-10", call.name, "events are enabled with an IRP: pass a null IRP");
    }
}

fn enable(call: &Call, with_irp: bool, mask: u32) -> Result<(), NTSTATUS> {
    let provider = call.provider();
    check_enabling(call, with_irp);
    let mut state = call.lock();
    if let Some(status) = state.refused() {
        return Err(status);
    }
    let (own, inherit) = valid_events(call, &state, mask)?;
    if !state.role.allows_events() {
        drop(state);
        return Err(too_early(call));
    }
    handover::adopt(call, &mut state);
    let behaviours = provider.live_config.behaviours();
    for event in Event::ALL {
        if own & event.bit() == 0 || state.has_callback(event) {
            continue;
        }
        drop(state);
        provider.violation("EVT-34", call.name, &format!("{event:?} is enabled, but its callback is null"));
        if behaviours.null_callback == NullCallback::Refused {
            return Err(STATUS_INVALID_PARAMETER);
        }
        state = call.lock();
    }
    state.events.inherited |= inherit;
    state.events.switch_on(own);
    let waiting: Vec<Event> = Event::ALL
        .into_iter()
        .filter(|event| own & event.bit() != 0 && state.role.has_waiting(*event))
        .collect();
    drop(state);
    for event in waiting {
        let socket = Arc::clone(call);
        provider.defer(Box::new(move |_| role::switched_on(&socket, event)));
    }
    Ok(())
}

/// Returns the events that a disabling call selects, which must be exactly one.
pub(super) fn events_to_disable(call: &Call, mask: u32) -> Result<u32, NTSTATUS> {
    let provider = call.provider();
    let mask = mask & !WSK_EVENT_DISABLE;
    if mask.count_ones() != 1 {
        provider.violation(
            "EVT-28",
            call.name,
            "EventMask of a disabling call does not have exactly one event",
        );
        if mask == 0 || provider.live_config.behaviours().disable_several == DisableSeveral::Refused {
            return Err(STATUS_INVALID_PARAMETER);
        }
    }
    Ok(mask)
}

fn disable(call: &Call, request: Option<Request>, mask: u32) -> NTSTATUS {
    let provider = call.provider();
    let behaviours = provider.live_config.behaviours();
    let refuse = |request: Option<Request>, status| match request {
        None => status,
        Some(request) => request.fail(provider, status),
    };
    let mask = match events_to_disable(call, mask) {
        Ok(mask) => mask,
        Err(status) => return refuse(request, status),
    };
    let state = call.lock();
    if let Some(status) = state.refused() {
        drop(state);
        return refuse(request, status);
    }
    let own = match valid_events(call, &state, mask) {
        Ok((_, inherit)) if inherit != 0 => Err(behaviours.disable_inherited.status()),
        Ok((own, _))
            if Event::ALL.iter().any(|event| own & event.bit() != 0 && state.events.is_static(*event)) =>
        {
            Err(STATUS_INVALID_PARAMETER)
        }
        Ok((own, _)) => Ok(own),
        Err(status) => Err(status),
    };
    let own = match own {
        Ok(own) => own,
        Err(status) => {
            drop(state);
            return refuse(request, status);
        }
    };
    if !state.role.allows_events() {
        drop(state);
        let status = too_early(call);
        return refuse(request, status);
    }
    let events = Event::ALL.into_iter().filter(|event| own & event.bit() != 0).map(Switch::Own);
    stop(call, state, request, events)
}

/// Disables the events. The result depends on their running calls.
pub(super) fn stop(
    call: &Call,
    mut state: MutexGuard<'_, State>,
    request: Option<Request>,
    events: impl Iterator<Item = Switch>,
) -> NTSTATUS {
    let running = events.filter(|event| state.events.stop(*event)).last();
    match (running, request) {
        (None, None) => STATUS_SUCCESS,
        (None, Some(request)) => {
            drop(state);
            // The documentation requires this: with no call in progress the result is inline (EVT-16, ruling
            // 8).
            request.complete(call.provider(), STATUS_SUCCESS, 0);
            STATUS_SUCCESS
        }
        (Some(event), None) => {
            keep_context(call, &mut state, event);
            STATUS_EVENT_PENDING
        }
        (Some(event), Some(mut request)) => {
            keep_context(call, &mut state, event);
            request.mark_pending(&**call);
            state.events.slot(event).waiting.push(request);
            STATUS_PENDING
        }
    }
}

/// Pins the context for calls that are still running after their event was disabled (EVT-21).
fn keep_context(call: &Call, state: &mut State, event: Switch) {
    let provider = call.provider();
    if provider.live_config.watches_memory() {
        let context = state.context.0.cast_const();
        let pinned = &mut state.events.slot(event).pinned;
        pinned.add(&*provider.host, context, "EVT-21", "a callback that is disabled and still running");
    }
}

impl Events {
    /// Begins to disable the event; true if calls of it are still running.
    fn stop(&mut self, event: Switch) -> bool {
        let slot = self.slot(event);
        if slot.running == 0 {
            slot.on = false;
            return false;
        }
        slot.stopping = true;
        true
    }
}
