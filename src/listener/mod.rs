//! Listening: conditional accept, accepting by IRP as a future, accepting by event.
//!
//! ```text
//!  Provider::listener ─▶ ListenerBuilder ──bind──▶ Listener ──accept().await──▶ Connection
//!                         options that must           │  ▲
//!                         precede bind                │  │ WskAcceptEvent ─▶ AcceptHandler ─▶ Connection
//!                                                     │  │
//!     WskInspectEvent ─▶ InspectHandler: accept, reject or pend ─▶ InspectToken ─▶ WskInspectComplete
//!     WskAbortEvent   ─▶ the token becomes inert, AbortHandler
//! ```
//!
//! Where things are: the path of an accept is in `accept`, what WSK calls is in `events`, the inspection in
//! `inspect`, `pending` and `token`.

mod accept;
mod builder;
mod events;
mod handlers;
mod inspect;
mod pending;
mod stage;
mod token;
mod tree;

use core::cell::UnsafeCell;
use core::fmt;
use core::future::Future;
use core::net::SocketAddr;

use bitflags::bitflags;
use wsk_sys::WSK_SOCKET;

pub use crate::socket::CloseReason;
pub use accept::Accept;
pub use builder::ListenerBuilder;
pub use events::Incoming;
pub use handlers::{
    AbortHandler, AcceptHandler, Acceptance, Condition, Conditional, Endpoints, InspectHandler,
    NoAcceptEvent, OnAccept, Unconditional,
};
pub use inspect::{Decision, InspectId, Inspection};
use pending::Pending;
pub use token::{InspectComplete, InspectToken, Verdict};

use crate::address;
use crate::client::{Pause, SecurityDescriptor};
use crate::connection::{ConnectionEvents, NoEvents};
use crate::error::{Error, Operation, Result};
use crate::memory::Ref;
use crate::socket::{
    Closed, Core, CoreRef, Disabled, Socket, SocketRef, WaitClosed, disable_event, disable_event_and_wait,
    enable_events, probe,
};
use crate::sync::SpinLock;

bitflags! {
    /// The events of a listening socket (`SO_WSK_EVENT_CALLBACK`).
    ///
    /// The `INHERIT` ones are not events of the listener: they are switched on for every connection that comes by
    /// the accept event, not for those of [`Listener::accept`], and cannot be switched off again on the listener.
    /// Inspect and abort are not here: they follow conditional accept alone.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ListenerEvents: u32 {
        /// Connections come to the [`AcceptHandler`].
        const ACCEPT = wsk_sys::WSK_EVENT_ACCEPT;
        /// Accepted connections start with their receive event on.
        const INHERIT_RECEIVE = wsk_sys::WSK_EVENT_RECEIVE;
        /// Accepted connections start with their disconnect event on.
        const INHERIT_DISCONNECT = wsk_sys::WSK_EVENT_DISCONNECT;
        /// Accepted connections start with their send backlog event on.
        const INHERIT_SEND_BACKLOG = wsk_sys::WSK_EVENT_SEND_BACKLOG;
    }
}

/// The part of a listener that does not depend on its handlers.
#[repr(C)]
pub(crate) struct ListenerCommon {
    socket: Socket,
    pending: Pending,
    /// Kept until the socket has closed, because WSK may use it until then (rule LIFE-12).
    security: SpinLock<Option<SecurityDescriptor>>,
}

/// # Invariants
/// - Its address is the socket context of the listening socket; WSK holds a reference from `attach` until the close
///   has completed.
/// - `handlers` is there until the close has completed, and used by callbacks, all of which are over then (rule CLOSE-08), and
///   by holders of rundown protection, without whom the close has not begun; by nobody else. So a core that tokens or accepts keep alive holds nothing of the user's, such as those tokens.
#[repr(C)]
pub(crate) struct ListenerCore<I, A> {
    common: ListenerCommon,
    handlers: UnsafeCell<Option<(I, A)>>,
}

// SAFETY: the handlers are `Sync`, and by the invariant nobody has a reference on them when they are taken out.
unsafe impl<I: Condition, A: Acceptance> Sync for ListenerCore<I, A> {}

impl<I: Condition, A: Acceptance> ListenerCore<I, A> {
    fn new(common: ListenerCommon, condition: I, acceptance: A) -> Self {
        Self { common, handlers: UnsafeCell::new(Some((condition, acceptance))) }
    }

    /// The handlers.
    ///
    /// # Safety
    /// The caller is a callback of the listener, and uses them no longer than it runs, or holds rundown protection for so long.
    unsafe fn handlers(&self) -> Option<&(I, A)> {
        // SAFETY: no callback runs, and nobody holds rundown protection, when they are taken out, by the invariant.
        unsafe { &*self.handlers.get() }.as_ref()
    }
}

// SAFETY: `repr(C)`, and the socket is the first field of the first field.
unsafe impl<I: Condition, A: Acceptance> Core for ListenerCore<I, A> {
    fn socket(&self) -> &Socket {
        &self.common.socket
    }

    unsafe fn closing(&self, handle: Option<*mut WSK_SOCKET>) {
        // SAFETY: the caller closes this very socket, and has not done so yet.
        unsafe { self.common.pending.reject_all(handle) };
    }

    unsafe fn dead(&self) {
        // SAFETY: the caller holds rundown protection, so the close has not begun.
        if let Some((condition, acceptance)) = unsafe { self.handlers() } {
            condition.dead();
            acceptance.dead();
        }
    }

    unsafe fn closed(&self) {
        // Neither is dropped under the lock: what handlers do when they are dropped is theirs.
        let security = self.common.security.lock().take();
        // SAFETY: no callback runs or will run, which the caller says; the invariant allows nobody else.
        let handlers = unsafe { (*self.handlers.get()).take() };
        drop((security, handlers));
    }
}

/// A reference on a listener with any handlers.
#[derive(Clone)]
pub(crate) struct ListenerRef(SocketRef);

impl ListenerRef {
    fn new<I: Condition, A: Acceptance>(core: &Ref<ListenerCore<I, A>>) -> Self {
        Self(SocketRef::new(core))
    }

    fn common(&self) -> &ListenerCommon {
        // SAFETY: the reference was made from a `ListenerCore`, which begins with its common part, which begins
        // with the socket that the pointer leads to; the pointer reaches the whole core.
        unsafe { self.0.as_ptr().cast::<ListenerCommon>().as_ref() }
    }

    fn pending(&self) -> &Pending {
        &self.common().pending
    }
}

impl core::ops::Deref for ListenerRef {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.0
    }
}

/// A bound, listening socket. Dropping it closes it in the background; see [`Listener::close`].
///
/// Its handlers, and the security descriptor it was given, are dropped when the close has completed, at up to
/// `DISPATCH_LEVEL`; tokens, accepts and futures of [`Listener::closed`] that are still there keep none of it. So a handler may
/// keep tokens of its own listener.
///
/// Connections that were accepted live on without it.
pub struct Listener<I: Condition = Unconditional, A: Acceptance = NoAcceptEvent> {
    core: CoreRef<ListenerCore<I, A>>,
    local: SocketAddr,
}

impl<I: Condition, A: Acceptance> Listener<I, A> {
    /// The address it is bound to, with the port that was assigned (`WskGetLocalAddress`), in its canonical form
    /// ([`address::canonical`]).
    pub fn local_addr(&self) -> SocketAddr {
        address::canonical(self.local)
    }

    /// As [`Self::local_addr`], as WSK gave it: an IPv4-mapped address stays one.
    pub fn raw_local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Takes the next connection (`WskAccept`), one without event handlers.
    ///
    /// Several accepts may be under way; connections go to the oldest.
    ///
    /// # Cancel safety
    /// May be dropped at any time. A connection that arrives in spite of it is closed, never leaked.
    ///
    /// # Errors
    /// `STATUS_FILE_FORCED_CLOSED` when the listener is dead or closing, `STATUS_CANCELLED` when it was closed,
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn accept(&self) -> Accept<NoEvents> {
        self.accept_with(NoEvents::new())
    }

    /// [`Listener::accept`], with handlers for the connection's events. They are all off until
    /// [`Connection::enable`](crate::connection::Connection::enable)d.
    ///
    /// # Cancel safety
    /// As for [`Listener::accept`].
    ///
    /// # Errors
    /// As for [`Listener::accept`].
    pub fn accept_with<E: ConnectionEvents>(&self, events: E) -> Accept<E> {
        Accept::new(ListenerRef::new(&self.core), events)
    }

    /// Switches events on (`SO_WSK_EVENT_CALLBACK`); those that are on stay on. They may come before this returns.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` for an event that the listener has no handler for.
    pub fn enable(&self, events: ListenerEvents) -> Result<()> {
        let inherited = <A::Events as ConnectionEvents>::HANDLED;
        let handled = if A::HANDLED { ListenerEvents::ACCEPT.bits() | inherited.bits() } else { 0 };
        if events.is_empty() || events.bits() & !handled != 0 {
            return Err(Error::new(Operation::EventCallbacks, wsk_sys::STATUS_INVALID_PARAMETER));
        }
        enable_events(&SocketRef::new(&self.core), events.bits())
    }

    /// Switches the accept event off, without waiting for calls in progress.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`; allowed inside the accept handler.
    ///
    /// # Errors
    /// Whatever WSK answers.
    pub fn disable_accept(&self) -> Result<Disabled> {
        disable_event(&SocketRef::new(&self.core), wsk_sys::WSK_EVENT_ACCEPT)
    }

    /// Switches the accept event off and waits until no call of its handler is in progress.
    ///
    /// # Cancel safety
    /// The event is off, or goes off, also when this is dropped; only the waiting ends.
    ///
    /// # Errors
    /// Whatever WSK answers.
    pub fn disable_accept_and_wait(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        disable_event_and_wait(SocketRef::new(&self.core), wsk_sys::WSK_EVENT_ACCEPT)
    }

    /// Closes the socket (`WskCloseSocket`) and waits until no callback of it runs or will run. Accepts that are
    /// under way end with `STATUS_CANCELLED`; pended requests are rejected, and their tokens become inert.
    ///
    /// # Cancel safety
    /// The close goes on when this is dropped.
    pub fn close(self) -> impl Future<Output = ()> + Send + 'static {
        Closed::new(SocketRef::new(&self.core))
    }

    /// Whether the listener can still be used, as far as is known; one that lost its transport closes itself. See
    /// [`Listener::closed`].
    pub fn is_open(&self) -> bool {
        self.core.socket().is_open()
    }

    /// Waits up to a quarter of a second before accepting again after an error that [passes](Error::is_transient): all that pause
    /// go on together, so one that joins others waits for less. It needs no memory, which may be what was out. When the client
    /// unloads it ends at once. A listener that has died meanwhile is known to be dead afterwards, so a loop that has no memory to
    /// accept with ends, too.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future; not in completion routines.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// ```
    /// # use wsk::executor::Spawner;
    /// # async fn serve(connection: wsk::Connection) {}
    /// async fn accept(listener: wsk::Listener, spawner: Spawner) -> wsk::Result<()> {
    ///     loop {
    ///         match listener.accept().await {
    ///             // Without memory for a task the connection is dropped, which resets it.
    ///             Ok(connection) => drop(spawner.spawn(serve(connection))),
    ///             Err(error) if error.is_transient() => listener.pause().await,
    ///             Err(error) => return Err(error),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn pause(&self) -> impl Future<Output = ()> + Send + 'static {
        let socket = SocketRef::new(&self.core);
        async move {
            Pause::new(socket.client().clone()).await;
            if !I::INSPECTS {
                probe(&socket);
            }
        }
    }

    /// Waits until the listener is closed, and says why: WSK has given it up, or this side closes it.
    ///
    /// Any number of tasks may wait, beside accepts that are under way. It resolves as soon as the death is known: at once if the
    /// listener is conditional, its accept event is on, or an accept is under way, because WSK says so to those; else WSK says
    /// nothing by itself, and the listener is asked several times a second, with a call that needs no memory
    /// (`SIO_WSK_QUERY_INSPECT_ID`). The future outlives the listener, whose memory it keeps.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future; not in completion routines.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// ```
    /// # use wsk::listener::CloseReason;
    /// # async fn serve(provider: wsk::Provider) -> wsk::Result<()> {
    /// loop {
    ///     let listener = provider.listener().bind(([0, 0, 0, 0], 7007).into()).await?;
    ///     // Accept in other tasks, or by event, until the listener is gone.
    ///     if listener.closed().await != CloseReason::Dead {
    ///         return Ok(());
    ///     }
    /// }
    /// # }
    /// ```
    pub fn closed(&self) -> impl Future<Output = CloseReason> + Send + 'static {
        WaitClosed::<I::Probing>::new(SocketRef::new(&self.core))
    }
}

impl<I: Condition, A: Acceptance> Drop for Listener<I, A> {
    fn drop(&mut self) {
        self.core.socket().close_later();
    }
}

impl<I: Condition, A: Acceptance> fmt::Debug for Listener<I, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("local", &self.local).finish_non_exhaustive()
    }
}
