//! Sockets: state and lifecycle that all categories share.
//!
//! ```text
//!            WskSocket, an accept            Provider::kill, depart
//!   (none) ───────────────────────► Live ──────────────────────────► Dead
//!                                     │      every call but close and release: STATUS_FILE_FORCED_CLOSED
//!                                     │ WskCloseSocket                 │
//!                                     └──────────────► Closing ◄───────┘
//!                                                         │ no request outstanding, no callback running
//!                                                         ▼
//!                                                       Freed   (close IRP completed, socket retired)
//! ```
//!
//! Each socket has one lock, over [`State`]. The state of a category is in [`State::role`]. Client code never
//! runs under the lock: callbacks begin under the lock ([`State::begin`]), are called without it, and end
//! under it again when the [`Running`] is dropped; requests are taken out of their queues under the lock and
//! completed without it.

mod bind;
mod call;
mod close;
mod death;
mod events;
mod extension;
mod handover;
mod options;
mod role;

pub(crate) use bind::{Refusal, bind, check_output, wsk_bind, wsk_get_local_address};
pub(crate) use call::{Call, check_place};
pub(crate) use close::wsk_close_socket;
pub(crate) use events::{Event, Running, StaticEvents, control_events};
pub(crate) use extension::register as register_extension;
pub use extension::{Attachment, Extension, ExtensionCall};
pub(crate) use handover::Handover;
pub(crate) use options::Options;
pub(crate) use role::{Ending, Role, switched_on};

use std::ffi::c_void;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread::ThreadId;

use parking_lot::{Mutex, MutexGuard};
use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    PWSK_SOCKET, STATUS_FILE_FORCED_CLOSED, WSK_CLIENT_CONNECTION_DISPATCH, WSK_CLIENT_DATAGRAM_DISPATCH,
    WSK_CLIENT_LISTEN_DISPATCH, WSK_INSPECT_ID, WSK_SOCKET,
};

use crate::address::Family;
use crate::client::Client;
use crate::control::AddressListWatch;
use crate::live_config::Timing;
use crate::provider::{Inner, OpenSocket};
use crate::registration::Look;
use crate::request::{Completions, PinnedMemory, Request};

/// The categories of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Category {
    /// Control operations only.
    Basic,
    /// Listens and accepts.
    Listen,
    /// Connects, or was accepted.
    Connection,
    /// Sends and receives datagrams.
    Datagram,
    /// Becomes a listener or a connection.
    Stream,
}

/// Phase of a socket's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Life {
    /// In use.
    Live = 0x4C49_5645,
    /// The provider can no longer run it.
    Dead = 0x4445_4144,
    /// `WskCloseSocket` was called.
    Closing = 0x434C_4F53,
    /// Closed; only its shell is left.
    Freed = 0x4652_4545,
}

/// The client's callback tables; null where it has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    /// For the listening role.
    pub(crate) listen: *const WSK_CLIENT_LISTEN_DISPATCH,
    /// For the connection role.
    pub(crate) connection: *const WSK_CLIENT_CONNECTION_DISPATCH,
    /// For datagrams.
    pub(crate) datagram: *const WSK_CLIENT_DATAGRAM_DISPATCH,
}

/// Events for which a socket's tables had callbacks when it was created.
#[derive(Clone, Copy, Debug, Default)]
struct Offers {
    accept: bool,
    receive_from: bool,
}

impl Tables {
    /// Returns the events that have callbacks.
    fn offers(&self) -> Offers {
        // SAFETY: null, or the client keeps its table alive and unchanged as long as the socket (CLOSE-17),
        // which begins now.
        let listen = unsafe { self.listen.as_ref() };
        // SAFETY: null, or the client keeps its table alive and unchanged as long as the socket (CLOSE-17),
        // which begins now.
        let datagram = unsafe { self.datagram.as_ref() };
        Offers {
            accept: listen.is_some_and(|table| table.WskAcceptEvent.is_some()),
            receive_from: datagram.is_some_and(|table| table.WskReceiveFromEvent.is_some()),
        }
    }

    /// The addresses of the tables; zero where there is none.
    fn addresses(&self) -> [usize; 3] {
        [self.listen.addr(), self.connection.addr(), self.datagram.addr()]
    }

    /// Returns whether there is any table.
    fn any(&self) -> bool {
        !(self.listen.is_null() && self.connection.is_null() && self.datagram.is_null())
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self { listen: ptr::null(), connection: ptr::null(), datagram: ptr::null() }
    }
}

/// A client pointer that the provider passes back and never dereferences.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context(pub(crate) *mut c_void);

impl Context {
    /// Returns whether it points to non-paged memory, or is no pointer. Small numbers are no pointers.
    pub(crate) fn stays(self, provider: &Inner) -> bool {
        self.0 as usize <= 0xFFFF || provider.is_non_paged(self.0.cast_const(), 1)
    }
}

/// A socket, the target of a `PWSK_SOCKET`.
///
/// # Invariants
/// The first field is the public head, whose `Dispatch` names the table of the category. The client's pointer
/// counts one reference, held by its [`Client`] until the close has completed. `mark` mirrors `State::life`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Socket {
    head: WSK_SOCKET,
    /// Address of the table that the head was given.
    table: usize,
    mark: AtomicU32,
    /// Number of client calls in progress.
    calls: AtomicUsize,
    /// Number of pended requests whose completion routine has not returned.
    outstanding: AtomicUsize,
    /// The `WskAcceptEvent` that hands this socket over is running.
    handed_over: AtomicBool,
    /// The socket was [discarded](Self::discard): it is not closed, and is freed with its last request.
    discarded: AtomicBool,
    provider: Arc<Inner>,
    client: Arc<Client>,
    pub(crate) category: Category,
    pub(crate) family: Family,
    pub(crate) socket_type: u16,
    pub(crate) protocol: u32,
    /// The socket came from a listener.
    pub(crate) accepted: bool,
    state: Mutex<State>,
}

// SAFETY: the raw pointers inside are the client's, which WSK uses from any thread by contract (EVT-55); all
// mutable state is behind the lock or atomic.
unsafe impl Send for Socket {}
// SAFETY: the raw pointers inside are the client's, which WSK uses from any thread by contract (EVT-55); all
// mutable state is behind the lock or atomic.
unsafe impl Sync for Socket {}

/// Mutable state of a socket.
#[derive(Debug)]
pub(crate) struct State {
    /// Phase of the socket's life.
    pub(crate) life: Life,
    /// Rule by which the client has to close the dead socket, once it has been notified of the death.
    pub(crate) death_notified_by: Option<&'static str>,
    /// Threads that were notified of the death by a call of their own. Calls of other threads may have been
    /// in progress then.
    notified_threads: Vec<ThreadId>,
    /// `SocketContext`.
    pub(crate) context: Context,
    /// The client's callback tables.
    pub(crate) tables: Tables,
    offers: Offers,
    /// The event callbacks.
    pub(crate) events: events::Events,
    /// The extensions that the client has registered for, in the order of their events.
    extensions: Vec<Arc<Attachment>>,
    /// The socket options.
    pub(crate) options: Options,
    /// Number of indication lists that the client retains; it releases them before it closes (RCVE-19).
    pub(crate) retained: usize,
    /// The `SIO_ADDRESS_LIST_CHANGE` requests that wait.
    pub(crate) address_watch: AddressListWatch,
    /// Rule that a leak of the socket breaks.
    pub(crate) leak_rule: &'static str,
    /// The inspection this connection went through.
    pub(crate) inspection: Option<WSK_INSPECT_ID>,
    /// The outputs of the `WskAcceptEvent` that is handing this socket over right now.
    pub(crate) handover: Option<Handover>,
    /// Call by which the client has used the socket during the handover.
    used: Option<&'static str>,
    /// Tables and context, pinned until the close has completed.
    pinned: PinnedMemory,
    /// The request of `WskCloseSocket`.
    close: Option<Request>,
    /// The thread that called it.
    pub(crate) closed_by: Option<ThreadId>,
    /// Part that depends on the category.
    pub(crate) role: Role,
}

/// Parameters of a new socket.
#[derive(Debug)]
pub(crate) struct SocketParams {
    pub(crate) category: Category,
    pub(crate) family: Family,
    pub(crate) socket_type: u16,
    pub(crate) protocol: u32,
    pub(crate) accepted: bool,
    pub(crate) context: Context,
    pub(crate) tables: Tables,
    pub(crate) options: Options,
    pub(crate) inspection: Option<WSK_INSPECT_ID>,
    pub(crate) role: Role,
}

impl Socket {
    /// Creates a socket and registers it with its client.
    pub(crate) fn create(client: &Arc<Client>, plan: SocketParams) -> Arc<Self> {
        let provider = Arc::clone(client.provider());
        let table = crate::dispatch::table_of(plan.category, &provider.live_config);
        let socket = Arc::new(Self {
            head: WSK_SOCKET { Dispatch: table },
            table: table as usize,
            mark: AtomicU32::new(Life::Live as u32),
            calls: AtomicUsize::new(0),
            outstanding: AtomicUsize::new(0),
            handed_over: AtomicBool::new(false),
            discarded: AtomicBool::new(false),
            provider,
            client: Arc::clone(client),
            category: plan.category,
            family: plan.family,
            socket_type: plan.socket_type,
            protocol: plan.protocol,
            accepted: plan.accepted,
            state: Mutex::new(State {
                life: Life::Live,
                death_notified_by: None,
                notified_threads: Vec::new(),
                context: plan.context,
                tables: plan.tables,
                offers: plan.tables.offers(),
                events: events::Events::default(),
                extensions: Vec::new(),
                options: plan.options,
                retained: 0,
                leak_rule: if plan.accepted { "LSN-34" } else { "REG-27" },
                address_watch: AddressListWatch::default(),
                inspection: plan.inspection,
                handover: None,
                used: None,
                pinned: PinnedMemory::default(),
                close: None,
                closed_by: None,
                role: plan.role,
            }),
        });
        socket.lock().pin_client_memory(&socket.provider);
        client.add_socket(&socket);
        socket
    }

    /// The client's pointer.
    pub(crate) fn raw(self: &Arc<Self>) -> PWSK_SOCKET {
        Arc::as_ptr(self).cast_mut().cast()
    }

    /// Returns whether the head is unchanged: it is read-only for the client (LIFE-05).
    fn is_head_intact(&self) -> bool {
        // SAFETY: the field is there as long as the socket; a client may have written it, hence volatile.
        let seen = unsafe { (&raw const self.head.Dispatch).read_volatile() };
        seen as usize == self.table
    }

    /// The provider.
    pub(crate) fn provider(&self) -> &Arc<Inner> {
        &self.provider
    }

    /// The client whose socket it is.
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Takes the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Returns the current phase; it may change at any time unless the lock is held.
    pub(crate) fn life(&self) -> u32 {
        self.mark.load(Ordering::Acquire)
    }

    pub(crate) fn request_pended(&self) {
        self.outstanding.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn request_done(self: &Arc<Self>) {
        if self.outstanding.fetch_sub(1, Ordering::SeqCst) != 1 {
            return;
        }
        // The socket may be `Freed` by now: then the close still has to complete, and drops the socket.
        if self.life() == Life::Closing as u32 {
            Self::finish_close(self, Timing::Inline);
        } else if self.discarded.load(Ordering::SeqCst) {
            self.client.remove_socket(self);
        }
    }

    /// Removes the socket; the IRP of the close has completed.
    pub(crate) fn close_done(self: &Arc<Self>) {
        self.client.remove_socket(self);
    }

    fn set_life(&self, state: &mut State, life: Life) {
        state.life = life;
        self.mark.store(life as u32, Ordering::SeqCst);
    }

    /// Returns whether a table of the socket is in `image`, as far as the lock is available.
    pub(crate) fn is_called_in(&self, image: &Range<usize>, look: &mut Look) -> bool {
        let Some(state) = look.lock(&self.state) else { return false };
        state.tables.addresses().iter().any(|table| image.contains(table))
    }

    /// Describes the socket for a caller that must not wait for its lock.
    pub(crate) fn look_at(self: &Arc<Self>, look: &mut Look) -> String {
        match look.lock(&self.state) {
            Some(state) => self.describe(&state).description,
            None => format!("{:?} socket {:p} (busy: its lock is held)", self.category, self.raw()),
        }
    }

    /// Describes the socket for a leak report.
    pub(crate) fn as_open(self: &Arc<Self>) -> OpenSocket {
        self.describe(&self.lock())
    }

    fn describe(self: &Arc<Self>, state: &State) -> OpenSocket {
        let rule = match state.death_notified_by {
            Some(rule) => rule,
            None => state.leak_rule,
        };
        OpenSocket {
            address: self.raw() as usize,
            description: format!(
                "{:?} socket {:p} ({:?}, {:?}{}{}{}{})",
                self.category,
                self.raw(),
                self.family,
                state.life,
                if self.accepted { ", accepted" } else { "" },
                match self.outstanding.load(Ordering::SeqCst) {
                    0 => String::new(),
                    1 => ", 1 pending request".to_owned(),
                    requests => format!(", {requests} pending requests"),
                },
                match state.retained {
                    0 => String::new(),
                    retained => format!(", {retained} retained indications"),
                },
                match state.unheard() {
                    None => String::new(),
                    Some(event) => format!(", with input for {event}, which was never enabled"),
                }
            ),
            rule,
        }
    }
}

impl State {
    /// Returns the callback that the client has set and never enabled, if input waits for it that is not
    /// requested otherwise (SOCK-02).
    pub(crate) fn unheard(&self) -> Option<&'static str> {
        if self.events.were_used() {
            return None;
        }
        match &self.role {
            Role::Listen(listener) if listener.is_ignored() && self.offers.accept => Some("WskAcceptEvent"),
            Role::Datagram(datagram) if datagram.is_ignored() && self.offers.receive_from => {
                Some("WskReceiveFromEvent")
            }
            _ => None,
        }
    }

    /// Pins tables and context until the close has completed (CLOSE-17). Without a table there are no
    /// callbacks, and the context is only a number.
    pub(crate) fn pin_client_memory(&mut self, provider: &Inner) {
        let Tables { listen, connection, datagram } = self.tables;
        if !self.tables.any() || !provider.live_config.watches_memory() {
            return;
        }
        let (host, pinned) = (&*provider.host, &mut self.pinned);
        for table in [listen.cast::<u8>(), connection.cast(), datagram.cast()] {
            pinned.add(host, table, "CLOSE-17", "the table of a socket whose close has not completed");
        }
        let context = self.context.0.cast_const();
        pinned.add(host, context, "CLOSE-17", "the context of a socket whose close has not completed");
    }

    /// Unpins tables and context; the close is about to complete, and the client may free them.
    fn unpin_client_memory(&mut self, provider: &Inner) {
        self.pinned.unpin(provider);
    }

    /// Returns the status if calls on this socket fail; checked again under the lock by each call.
    pub(crate) fn refused(&self) -> Option<NTSTATUS> {
        (self.life != Life::Live).then_some(STATUS_FILE_FORCED_CLOSED)
    }

    /// Removes a waiting request that is being cancelled, and returns the number of bytes transferred.
    pub(crate) fn cancelled(&mut self, irp: *mut IRP) -> usize {
        if self.address_watch.0.remove_cancelled(irp).is_some() {
            return 0;
        }
        self.role.cancelled(irp)
    }

    /// Ends every waiting request.
    fn end(&mut self, ending: Ending, completions: &mut Completions) {
        self.address_watch.0.end_all(ending.status(), completions);
        self.role.end(ending, completions);
    }
}

impl Socket {
    /// Returns the rule that a dead socket breaks if it stays open after its client was notified.
    pub(crate) fn death_rule_if_left_open(&self) -> Option<&'static str> {
        let state = self.lock();
        if state.life == Life::Dead { state.death_notified_by } else { None }
    }
}
