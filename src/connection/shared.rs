//! The shared state of a connection, of which only this module knows the handlers' types.

use core::ffi::c_void;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{WSK_CLIENT_CONNECTION_DISPATCH, WSK_DATA_INDICATION, WSK_SOCKET};

use super::Events;
use super::handlers::ConnectionHandlers;
use super::indicated::Indicated;
use super::kept::KeptBytes;
use super::pieces::{self, AbortBlock};
use super::stream::Stream;
use super::turn::Turn;
use crate::client::ClientShared;
use crate::listener::Endpoints;
use crate::memory::{OutOfMemory, Ref};
use crate::operation::Submission;
use crate::socket::{ConnectionTable, Core, Socket, SocketRef};
use crate::sync::SpinLock;
use crate::sync::atomic::{AtomicU32, Ordering};

/// The part of a connection that does not depend on its handlers.
#[repr(C)]
pub(super) struct ConnectionCommon {
    socket: Socket,
    /// The number of handles that keep the connection open.
    owners: AtomicU32,
    /// Says whether sends may go on.
    pub(super) stream: Stream,
    /// The holder of the one receive, or queue of them; see `receive`.
    pub(super) turn: Turn,
    pub(super) state: SpinLock<State>,
    /// The indication whose callback is running; see `indication`.
    pub(super) indicated: Indicated<WSK_DATA_INDICATION>,
}

/// State that changes under the lock.
pub(super) struct State {
    /// Known as soon as there is a handle.
    pub(super) endpoints: Endpoints,
    /// Bytes that arrived for receives whose futures were dropped.
    pub(super) kept: KeptBytes,
    /// The abort of a connection that has pieces of retained data.
    pub(super) abort: Option<Ref<AbortBlock>>,
}

/// # Invariants
/// Its address is the socket context of the connection, when it has handlers; WSK holds a reference from
/// `attach` until the close has completed.
#[repr(C)]
pub(super) struct ConnectionCore<H> {
    common: ConnectionCommon,
    pub(super) handlers: H,
}

// SAFETY: `repr(C)`, and the socket is the first field of the first field; `ConnectionRef::try_new` makes it
// with the `Lifetime` of this type.
unsafe impl<H: ConnectionHandlers> Core for ConnectionCore<H> {
    const DISPATCH: *const c_void = core::ptr::from_ref(H::DISPATCH).cast();

    fn socket(&self) -> &Socket {
        &self.common.socket
    }

    unsafe fn dead(&self) {
        self.handlers.dead();
    }

    fn held(whole: &SocketRef) {
        pieces::start(&ConnectionRef(whole.clone()));
    }
}

/// A reference on a connection with any handlers.
///
/// # Invariants
/// It refers to a [`ConnectionCore`].
#[derive(Clone)]
pub(crate) struct ConnectionRef(SocketRef);

impl ConnectionRef {
    /// A connection that has no socket yet, and whose close is not [reserved](crate::socket::reserve).
    ///
    /// # Errors
    /// [`OutOfMemory`]; the handlers are dropped then.
    pub(crate) fn try_new<H: ConnectionHandlers>(
        client: &Ref<ClientShared>,
        handlers: H,
    ) -> Result<Self, OutOfMemory> {
        let make = |handlers| {
            let socket = Socket::new::<ConnectionCore<H>>(client.clone());
            ConnectionCore { common: ConnectionCommon::new(socket), handlers }
        };
        let core = Ref::try_make(Some(client.cache()), handlers, make).map_err(|(error, _)| error)?;
        // INVARIANT: the core was just made.
        Ok(Self(core.into()))
    }

    /// A reference on the core that a callback of a connection gets as its context.
    pub(super) fn of<H: ConnectionHandlers>(core: &Ref<ConnectionCore<H>>) -> Self {
        Self(SocketRef::new(core))
    }

    /// The reference, as one on a socket of any kind.
    pub(crate) fn socket(&self) -> &SocketRef {
        &self.0
    }

    pub(super) fn common(&self) -> &ConnectionCommon {
        // SAFETY: by the invariant the pointer leads to a `ConnectionCore`, all of which it reaches, and
        // which begins with its common part.
        unsafe { self.0.as_ptr().cast::<ConnectionCommon>().as_ref() }
    }

    /// Counts a handle that keeps the connection open.
    pub(super) fn own(&self) {
        self.common().owners.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends that; the last one closes the connection.
    pub(super) fn disown(&self) {
        if self.common().owners.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.close_later();
        }
    }

    /// Returns whether both are of one connection.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.as_ptr() == other.0.as_ptr()
    }

    /// The connection's context and table for WSK: null for both when no event will ever be enabled (rules
    /// LSN-13, LSN-15).
    pub(crate) fn context_and_dispatch(&self) -> (*mut c_void, *const WSK_CLIENT_CONNECTION_DISPATCH) {
        if self.handled().is_empty() {
            (core::ptr::null_mut(), core::ptr::null())
        } else {
            (self.0.as_ptr().as_ptr().cast(), self.dispatch())
        }
    }

    /// The connection's table for WSK.
    fn dispatch(&self) -> &'static WSK_CLIENT_CONNECTION_DISPATCH {
        // SAFETY: by the invariant it is that of a `ConnectionCore`: a static table of this type.
        unsafe { &*self.0.dispatch().cast() }
    }

    /// The events that have a handler.
    pub(super) fn handled(&self) -> Events {
        let table = self.dispatch();
        let mut handled = Events::empty();
        handled.set(Events::RECEIVE, table.WskReceiveEvent.is_some());
        handled.set(Events::DISCONNECT, table.WskDisconnectEvent.is_some());
        handled.set(Events::SEND_BACKLOG, table.WskSendBacklogEvent.is_some());
        handled
    }

    /// Makes one WSK call that submits `irp`.
    ///
    /// # Safety
    /// An operation has just prepared the IRP. `call` submits it to WSK, or returns `None` and leaves it
    /// alone.
    pub(crate) unsafe fn submit(
        &self,
        irp: *mut IRP,
        call: impl FnOnce(*mut WSK_SOCKET, &ConnectionTable) -> Option<NTSTATUS>,
    ) -> Submission {
        // SAFETY: the socket is a connection by the invariant; the rest is the caller's promise about the
        // IRP.
        unsafe { self.0.submit(irp, call) }
    }
}

impl core::ops::Deref for ConnectionRef {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.0
    }
}

impl ConnectionCommon {
    // The same for all handlers, so that there is one copy of it.
    #[inline(never)]
    fn new(socket: Socket) -> Self {
        Self {
            socket,
            owners: AtomicU32::new(0),
            stream: Stream::new(),
            turn: Turn::new(),
            state: SpinLock::new(State {
                endpoints: Endpoints::UNSPECIFIED,
                kept: KeptBytes::Nothing,
                abort: None,
            }),
            indicated: Indicated::new(),
        }
    }

    /// Takes out the bytes that abandoned receives left. The turn is the caller's, so that none are added
    /// before [`ConnectionCommon::put_kept_back`].
    pub(super) fn take_kept(&self) -> KeptBytes {
        core::mem::take(&mut self.state.lock().kept)
    }

    /// Keeps the bytes that are left when the first `used` ones are gone.
    #[inline(never)]
    pub(super) fn put_kept_back(&self, mut kept: KeptBytes, used: usize) {
        kept.skip(used);
        if !kept.is_empty() {
            let former = core::mem::replace(&mut self.state.lock().kept, kept);
            debug_assert!(matches!(former, KeptBytes::Nothing));
        }
    }
}
