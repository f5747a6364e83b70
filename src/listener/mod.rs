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
//! Files: the path of an accept is in `accept`, what WSK calls is in `events`, the inspection in
//! `inspect`, `pending` and `token`.

mod accept;
mod builder;
mod events;
mod handlers;
mod inspect;
mod pending;
mod shared;
mod stage;
mod token;
mod tree;

use core::fmt;
use core::future::Future;
use core::net::SocketAddr;

use bitflags::bitflags;

pub use accept::Accept;
pub use builder::ListenerBuilder;
pub use events::Incoming;
pub(crate) use handlers::Endpoints;
pub use handlers::{AbortHandler, AcceptHandler, InspectHandler};
pub use inspect::{Decision, InspectId, Inspection};
use shared::ListenerRef;
pub use token::{InspectComplete, InspectToken, Verdict};

use crate::address;
use crate::client::Pause;
use crate::connection::{ConnectionHandlers, Events, Handlers};
use crate::error::{Error, Operation, Result};
use crate::options::{GetOption, SetOption, kind};
use crate::socket::{
    CloseReason, Closed, Disabled, WaitClosed, disable_event, disable_event_and_wait, enable_events,
    get_option, one_event, probe, set_option,
};

bitflags! {
    /// Events of a listener (`SO_WSK_EVENT_CALLBACK`).
    ///
    /// Inspect and abort are not among them: they follow conditional accept alone.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ListenerEvents: u32 {
        /// Connections come to the [`AcceptHandler`].
        const ACCEPT = wsk_sys::WSK_EVENT_ACCEPT;
    }
}

/// A bound, listening socket. Dropping it closes it in the background; see [`Listener::close`].
///
/// Its handlers, and the security descriptor it was given, are dropped when the close has completed, at up to
/// `DISPATCH_LEVEL`; tokens, accepts and futures of [`Listener::closed`] that are still there keep none of
/// it. So a handler may keep tokens of its own listener.
///
/// Connections that were accepted live on without it.
pub struct Listener {
    core: ListenerRef,
    local: SocketAddr,
}

impl Listener {
    /// The address it is bound to, with the port that was assigned (`WskGetLocalAddress`), in its canonical
    /// form ([`address::canonical`]).
    pub fn local_addr(&self) -> SocketAddr {
        address::canonical(self.local)
    }

    /// As [`Self::local_addr`], as WSK gave it: an IPv4-mapped address stays one.
    pub fn raw_local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Accepts the next connection (`WskAccept`), one without event handlers.
    ///
    /// Several accepts may be under way; connections go to the oldest.
    ///
    /// # Cancel safety
    /// May be dropped at any time. A connection that arrives in spite of it is closed, never leaked.
    ///
    /// # Errors
    /// `STATUS_FILE_FORCED_CLOSED` when the listener is dead or closing, `STATUS_CANCELLED` when it was
    /// closed, `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn accept(&self) -> Accept {
        self.accept_with(Handlers::new())
    }

    /// Accepts the next connection, with handlers for its events. They are all off until
    /// [enabled](crate::Control::enable).
    ///
    /// # Cancel safety
    /// May be dropped at any time. A connection that arrives in spite of it is closed, never leaked.
    ///
    /// # Errors
    /// The same as those of [`Listener::accept`].
    pub fn accept_with<H: ConnectionHandlers>(&self, handlers: H) -> Accept {
        Accept::new(self.core.clone(), handlers)
    }

    /// Switches events on (`SO_WSK_EVENT_CALLBACK`); they may come before this returns. All are off at first.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` for an event that the listener has no handler for.
    pub fn enable(&self, events: ListenerEvents) -> Result<()> {
        if !self.core.common().accepts_by_event || !ListenerEvents::all().contains(events) {
            return Err(Error::new(Operation::EventCallbacks, wsk_sys::STATUS_INVALID_PARAMETER));
        }
        self.switch_on(events.bits())
    }

    /// Has every connection that comes by the accept event start with these events on. It stays so: WSK
    /// cannot take it back. Connections of [`Listener::accept`] are not concerned.
    ///
    /// Called before the accept event is [enabled](Listener::enable), it holds for all of them.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` for an event that these connections have no handler for.
    pub fn inherit(&self, events: Events) -> Result<()> {
        if !self.core.common().inheritable.contains(events) {
            return Err(Error::new(Operation::EventCallbacks, wsk_sys::STATUS_INVALID_PARAMETER));
        }
        self.switch_on(events.bits())
    }

    fn switch_on(&self, mask: u32) -> Result<()> {
        if mask == 0 {
            return Err(Error::new(Operation::EventCallbacks, wsk_sys::STATUS_INVALID_PARAMETER));
        }
        enable_events(self.core.socket(), mask)
    }

    /// Switches one event off, without waiting for calls in progress.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`; allowed inside the accept handler.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` unless `event` is exactly one event (rule EVT-28), and any error of WSK.
    pub fn disable(&self, event: ListenerEvents) -> Result<Disabled> {
        disable_event(self.core.socket(), one_event(event.bits(), ListenerEvents::all().bits())?)
    }

    /// Switches one event off and waits until no call of its handler is in progress.
    ///
    /// # Cancel safety
    /// The event is off, or goes off, also when this is dropped; only the waiting ends.
    ///
    /// # Errors
    /// The same as those of [`Listener::disable`].
    pub fn disable_and_wait(&self, event: ListenerEvents) -> impl Future<Output = Result<()>> + Send + use<> {
        let socket = self.core.socket().clone();
        let event = one_event(event.bits(), ListenerEvents::all().bits());
        async move { disable_event_and_wait(socket, event?).await }
    }

    /// Sets an option (`WskControlSocket`).
    ///
    /// # Cancel safety
    /// Once polled, the option is set, or goes to be set, also when this is dropped.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, and any error of WSK.
    pub fn set<O: SetOption<kind::Listener>>(
        &self,
        option: O,
    ) -> impl Future<Output = Result<()>> + Send + use<O> {
        set_option(self.core.socket().clone(), O::LEVEL, O::NAME, option.to_raw())
    }

    /// Reads an option (`WskControlSocket`).
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, and any error of WSK.
    ///
    /// ```
    /// # use wsk::options::KeepAlive;
    /// # async fn example(listener: wsk::Listener) -> wsk::Result<()> {
    /// let KeepAlive(probed) = listener.get().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get<O: GetOption<kind::Listener>>(&self) -> impl Future<Output = Result<O>> + Send + use<O> {
        let read = get_option(self.core.socket().clone(), O::LEVEL, O::NAME);
        async move { read.await.map(O::from_raw) }
    }

    /// Closes the socket (`WskCloseSocket`) and waits until no callback of it runs or will run. Accepts that
    /// are under way end with `STATUS_CANCELLED`; pended requests are rejected, and their tokens become
    /// inert.
    ///
    /// # Cancel safety
    /// The close goes on when this is dropped.
    pub fn close(self) -> impl Future<Output = ()> + Send + use<> {
        Closed::new(self.core.socket().clone())
    }

    /// Returns whether the listener can still be used, as far as is known; one that lost its transport closes
    /// itself. See [`Listener::closed`].
    pub fn is_open(&self) -> bool {
        self.core.is_open()
    }

    /// Waits up to a quarter of a second before accepting again after an error that
    /// [passes](Error::is_transient): all that pause go on together, so one that joins others waits for less.
    /// It needs no memory, which may be what was out. When the client unloads it ends at once. A listener
    /// that has died meanwhile is known to be dead afterwards, so a loop that has no memory to accept with
    /// ends, too.
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
    pub fn pause(&self) -> impl Future<Output = ()> + Send + use<> {
        let listener = self.core.clone();
        async move {
            Pause::new(listener.client().clone()).await;
            // A conditional listener is always told of its death (rule INSP-07).
            if !listener.common().conditional {
                probe(listener.socket());
            }
        }
    }

    /// Waits until the listener is closed, and says why: WSK has given it up, or this side closes it.
    ///
    /// Any number of tasks may wait, beside accepts that are under way. It resolves as soon as the death is
    /// known: at once if the listener is conditional, its accept event is on, or an accept is under way,
    /// because WSK says so to those; else WSK says nothing by itself, and the listener is asked several times
    /// a second, with a call that needs no memory (`SIO_WSK_QUERY_INSPECT_ID`). The future outlives the
    /// listener, whose memory it keeps.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`, also for polling and dropping the future; not in completion routines.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    ///
    /// ```
    /// # use wsk::CloseReason;
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
    pub fn closed(&self) -> impl Future<Output = CloseReason> + Send + use<> {
        // A conditional listener is always told of its death (rule INSP-07).
        WaitClosed::new(self.core.socket().clone(), !self.core.common().conditional)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.core.close_later();
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("local", &self.local).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::stage::Stage;
    use crate::sync::table;

    #[test]
    fn the_transitions_of_a_pended_request() {
        assert_eq!(
            table::<Stage>(),
            "Asking -> [Accepted, Rejected, Pended, Aborted, Repeated]\n\
             Accepted -> []\n\
             Rejected -> []\n\
             Pended -> [Dropped, Completing, Aborted]\n\
             Dropped -> [Completing, Aborted]\n\
             Completing -> [Completed]\n\
             Completed -> []\n\
             Aborted -> []\n\
             Repeated -> []"
        );
    }
}
