//! The shared state of a listener, of which only this module and `events` know the handlers' types.

use core::cell::UnsafeCell;
use core::ffi::c_void;

use wsk_sys::WSK_SOCKET;
use wsk_sys::nt::{IRP, NTSTATUS};

use super::handlers::{AbortSlot, AcceptSlot, InspectSlot};
use super::pending::Pending;
use crate::client::{ClientShared, SecurityDescriptor};
use crate::connection::{ConnectionHandlers, Events};
use crate::memory::{OutOfMemory, Ref};
use crate::operation::Submission;
use crate::socket::{Core, ListenTable, Socket, SocketRef};
use crate::sync::SpinLock;

/// The part of a listener that does not depend on its handlers.
#[repr(C)]
pub(super) struct ListenerCommon {
    socket: Socket,
    pub(super) pending: Pending,
    /// True if requests are inspected.
    pub(super) conditional: bool,
    /// True if there is a handler for the accept event.
    pub(super) accepts_by_event: bool,
    /// The events for which connections that come by the accept event have handlers.
    pub(super) inheritable: Events,
    /// Kept until the socket has closed, because WSK may use it until then (rule LIFE-12).
    security: SpinLock<Option<SecurityDescriptor>>,
}

/// The handlers of a listener.
pub(super) struct ListenerHandlers<I, B, A> {
    pub(super) inspect: I,
    pub(super) abort: B,
    pub(super) accept: A,
}

/// # Invariants
/// - Its address is the socket context of the listening socket; WSK holds a reference from `attach` until the
///   close has completed.
/// - `handlers` is there until the close has completed. It is used by callbacks, all of which are over then
///   (rule CLOSE-08), and by holders of rundown protection, without whom the close has not begun; by no
///   others. So a core that tokens or accepts keep alive holds nothing of the user's, such as those tokens.
#[repr(C)]
pub(super) struct ListenerCore<I, B, A> {
    common: ListenerCommon,
    handlers: UnsafeCell<Option<ListenerHandlers<I, B, A>>>,
}

// SAFETY: the handlers are `Sync`, and by the invariant no reference on them is left when they are taken out.
unsafe impl<I: InspectSlot, B: AbortSlot, A: AcceptSlot> Sync for ListenerCore<I, B, A> {}

impl<I: InspectSlot, B: AbortSlot, A: AcceptSlot> ListenerCore<I, B, A> {
    pub(super) fn common(&self) -> &ListenerCommon {
        &self.common
    }

    /// The handlers.
    ///
    /// # Safety
    /// The caller is a callback of the listener, and uses them no longer than it runs, or holds rundown
    /// protection for so long.
    pub(super) unsafe fn handlers(&self) -> Option<&ListenerHandlers<I, B, A>> {
        // SAFETY: by the invariant they are taken out when no callback runs and no rundown protection is
        // held.
        unsafe { &*self.handlers.get() }.as_ref()
    }
}

// SAFETY: `repr(C)`, and the socket is the first field of the first field; `ListenerRef::try_new` makes it
// with the `Lifetime` of this type.
unsafe impl<I: InspectSlot, B: AbortSlot, A: AcceptSlot> Core for ListenerCore<I, B, A> {
    const DISPATCH: *const c_void = core::ptr::from_ref(Self::TABLE).cast();

    fn socket(&self) -> &Socket {
        &self.common.socket
    }

    unsafe fn closing(&self, handle: Option<*mut WSK_SOCKET>) {
        // SAFETY: the caller closes this very socket, and has not done so yet.
        unsafe { self.common.pending.reject_all(handle) };
    }

    unsafe fn dead(&self) {
        // SAFETY: the caller holds rundown protection, so the close has not begun.
        if let Some(handlers) = unsafe { self.handlers() } {
            handlers.inspect.dead();
            handlers.accept.dead();
        }
    }

    unsafe fn closed(&self) {
        // Neither is dropped under the lock: what handlers do when they are dropped is theirs.
        let security = self.common.security.lock().take();
        // SAFETY: no callback runs or will run, which the caller says; the invariant allows no others.
        let handlers = unsafe { (*self.handlers.get()).take() };
        drop((security, handlers));
    }
}

/// A reference on a listener with any handlers.
///
/// # Invariants
/// It refers to a [`ListenerCore`].
#[derive(Clone)]
pub(super) struct ListenerRef(SocketRef);

impl ListenerRef {
    /// A listener that has no socket yet, and whose close is not [reserved](crate::socket::reserve).
    ///
    /// # Errors
    /// [`OutOfMemory`]; the handlers are dropped then.
    pub(super) fn try_new<I: InspectSlot, B: AbortSlot, A: AcceptSlot>(
        client: &Ref<ClientShared>,
        handlers: ListenerHandlers<I, B, A>,
        security: Option<SecurityDescriptor>,
    ) -> Result<Self, OutOfMemory> {
        let make = |(handlers, security)| ListenerCore {
            common: ListenerCommon {
                socket: Socket::new::<ListenerCore<I, B, A>>(client.clone()),
                pending: Pending::new(),
                conditional: I::SET,
                accepts_by_event: A::SET,
                inheritable: <A::Handlers as ConnectionHandlers>::HANDLED,
                security: SpinLock::new(security),
            },
            handlers: UnsafeCell::new(Some(handlers)),
        };
        let core = Ref::try_make(None, (handlers, security), make).map_err(|(error, _)| error)?;
        // INVARIANT: the core was just made.
        Ok(Self(core.into()))
    }

    /// A reference on the core that a callback of a listener gets as its context.
    pub(super) fn of<I: InspectSlot, B: AbortSlot, A: AcceptSlot>(core: &Ref<ListenerCore<I, B, A>>) -> Self {
        Self(SocketRef::new(core))
    }

    /// The reference, as one on a socket of any kind.
    pub(super) fn socket(&self) -> &SocketRef {
        &self.0
    }

    pub(super) fn common(&self) -> &ListenerCommon {
        // SAFETY: by the invariant the pointer leads to a `ListenerCore`, all of which it reaches, and which
        // begins with its common part.
        unsafe { self.0.as_ptr().cast::<ListenerCommon>().as_ref() }
    }

    pub(super) fn pending(&self) -> &Pending {
        &self.common().pending
    }

    /// Makes one WSK call that submits `irp`.
    ///
    /// # Safety
    /// An operation has just prepared the IRP. `call` submits it to WSK, or returns `None` and leaves it
    /// alone.
    pub(super) unsafe fn submit(
        &self,
        irp: *mut IRP,
        call: impl FnOnce(*mut WSK_SOCKET, &ListenTable) -> Option<NTSTATUS>,
    ) -> Submission {
        // SAFETY: the socket is a listener by the invariant; the rest is the caller's promise about the IRP.
        unsafe { self.0.submit(irp, call) }
    }
}

impl core::ops::Deref for ListenerRef {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.0
    }
}
