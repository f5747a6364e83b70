//! The common part of all sockets: its handle, its rundown protection, and how it closes.
//!
//! A *core* ([`crate::listener`], [`crate::connection`]) is one allocation that begins with a [`Socket`]. It
//! is shared by the user's handle, by the operations in flight, and by WSK itself, whose callbacks get its
//! address as their socket context. WSK's reference is made when the socket is attached and given back when
//! the close has completed, because after that no callback runs or will run (rules CLOSE-08, CLOSE-17).
//!
//! ```text
//!  new ──attach──▶ open ──shut──▶ shut ──last holder out──▶ closing ──close IRP completes──▶ closed
//!   │                ▲                                          │
//!   │                └ calls acquire and release it            └ IRPs are cancelled, callbacks return
//!   └──dropped without a socket: just memory
//! ```
//!
//! The IRP of the close is part of the socket from the start (rule CLOSE-14). `Drop` never calls WSK: it
//! begins the rundown and leaves the call to the client's reaper thread, so that it may run anywhere, also
//! deep inside a completion routine.

mod close;
mod closed;
mod control;
mod create;
mod open;
mod release;
mod rundown;
mod table;

use core::ffi::c_void;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering};

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{STATUS_NOT_SUPPORTED, WSK_SOCKET};

pub(crate) use close::{Closed, reserve};
pub use closed::CloseReason;
pub(crate) use closed::WaitClosed;
pub use control::Disabled;
pub(crate) use control::{
    ControlCode, control, disable_event, disable_event_and_wait, enable_events, get_option, one_event, probe,
    query_inspect_id, set_option,
};
pub(crate) use create::{Category, SocketParams};
pub(crate) use open::{Opening, StepOperation, local_address};
pub(crate) use release::Releases;
use rundown::{Duty, Rundown};
pub(crate) use table::{BasicTable, ConnectionTable, DatagramTable, ListenTable, ProviderTable, Table};

use crate::client::{ClientShared, Links, Node};
use crate::memory::Ref;
use crate::operation::{Outcome, Refusal, ReservedIrp, Submission, complete_here, keep_image};
use crate::sync::{Signal, Waiters};

/// The common part of every core.
///
/// # Invariants
/// - `handle` is what WSK gave, from `attach` until the close was started; it is used only by holders of
///   `rundown` and by the one starter of the close.
/// - `whole` leads to this very socket and reaches its whole core; it is null before `attach`, which sets it
///   once.
/// - `close_irp` is reserved as soon as the core has its place ([`reserve`]); it belongs to the starter of
///   the close, then to WSK.
#[repr(C)]
pub(crate) struct Socket {
    /// Its place in the reaper's queue, used at most once, when the close is to be started; and then among
    /// the cores to be dropped, when the last reference is gone.
    _node: Node,
    /// Its place in the client's list of live sockets.
    links: Links,
    rundown: Rundown,
    handle: AtomicPtr<WSK_SOCKET>,
    whole: AtomicPtr<Socket>,
    client: Ref<ClientShared>,
    lifetime: &'static Lifetime,
    close_irp: ReservedIrp,
    closed: Signal,
    /// The futures that wait for the rundown to begin.
    waiters: Waiters,
}

/// Functions and data of a type of cores, for when the type is no longer known.
pub(crate) struct Lifetime {
    /// Adds a reference.
    ///
    /// # Safety
    /// The pointer came from [`Ref::as_ptr`] of a live core.
    add: unsafe fn(NonNull<Socket>),
    /// Drops a reference.
    ///
    /// # Safety
    /// As for `add`, and the caller owns a reference.
    release: unsafe fn(NonNull<Socket>),
    /// Drops the last reference, and the core, here.
    ///
    /// # Safety
    /// As for `release`.
    free: unsafe fn(NonNull<Socket>),
    /// Lets the core make its last calls on the WSK socket; no other calls are made.
    ///
    /// # Safety
    /// As for `add`, and as for [`Core::closing`].
    closing: unsafe fn(NonNull<Socket>, Option<*mut WSK_SOCKET>),
    /// Tells the core that WSK has given its socket up.
    ///
    /// # Safety
    /// As for `add`, and as for [`Core::dead`].
    dead: unsafe fn(NonNull<Socket>),
    /// Tells the core that its close has completed.
    ///
    /// # Safety
    /// As for `add`, and as for [`Core::closed`].
    closed: unsafe fn(NonNull<Socket>),
    /// See [`Core::held`].
    held: fn(&SocketRef),
    /// See [`Core::DISPATCH`].
    dispatch: *const c_void,
}

// SAFETY: the pointer is one to a static table of functions.
unsafe impl Sync for Lifetime {}

/// A type whose allocation begins with a [`Socket`].
///
/// # Safety
/// The type is `repr(C)` with a [`Socket`] as its first field, which [`Core::socket`] returns and which was
/// made with the [`Lifetime`] of this very type.
pub(crate) unsafe trait Core: Send + Sync + Sized + 'static {
    /// The client's dispatch table for WSK, which is static.
    const DISPATCH: *const c_void;

    /// The common part.
    fn socket(&self) -> &Socket;

    /// Called right before `WskCloseSocket`, when calls are let in no more and none is executing, for what
    /// WSK must be told before the socket goes. There is no handle when the socket is dead: then WSK is told
    /// nothing.
    ///
    /// # Safety
    /// `handle` is the core's socket, and the caller is the one that closes it and has not done so yet.
    unsafe fn closing(&self, _handle: Option<*mut WSK_SOCKET>) {}

    /// Called once when it is learnt that WSK has given the socket up, unless this side closes it already:
    /// possibly in a completion routine, so no WSK call is made.
    ///
    /// # Safety
    /// The caller holds rundown protection for as long as this runs.
    unsafe fn dead(&self) {}

    /// Called when the rundown has begun while protection is held, perhaps several times: no WSK call, no
    /// allocation.
    fn held(_whole: &SocketRef) {}

    /// Called in the completion routine of the close: no WSK call, no allocation.
    ///
    /// # Safety
    /// The close has completed, so that no callback runs or will run, and this is called once.
    unsafe fn closed(&self) {}

    /// Functions and data for cores of this type when it is no longer known.
    const LIFETIME: &'static Lifetime = &Lifetime {
        add: add::<Self>,
        release: release::<Self>,
        free: free::<Self>,
        closing: closing::<Self>,
        dead: dead::<Self>,
        closed: closed::<Self>,
        held: Self::held,
        dispatch: Self::DISPATCH,
    };
}

/// # Safety
/// See [`Lifetime`].
unsafe fn add<C: Core>(socket: NonNull<Socket>) {
    // SAFETY: the caller has a pointer to a live core of type `C`, which begins with the socket.
    let reference = unsafe { Ref::<C>::clone_from_raw(socket.as_ptr().cast_const().cast()) };
    core::mem::forget(reference);
}

/// # Safety
/// See [`Lifetime`].
unsafe fn release<C: Core>(socket: NonNull<Socket>) {
    // SAFETY: the caller gives up a reference on a core of type `C`, which begins with the socket.
    let core = unsafe { Ref::<C>::from_raw(socket.as_ptr().cast_const().cast()) };
    if let Some(last) = Ref::drop_unless_last(core) {
        core::mem::forget(last);
        // SAFETY: the last reference was just given up.
        release::release(unsafe { release::Last::new(socket) });
    }
}

/// # Safety
/// See [`Lifetime`].
unsafe fn free<C: Core>(socket: NonNull<Socket>) {
    // SAFETY: the caller gives up a reference on a core of type `C`, which begins with the socket.
    drop(unsafe { Ref::<C>::from_raw(socket.as_ptr().cast_const().cast()) });
}

/// # Safety
/// See [`Lifetime`].
unsafe fn closing<C: Core>(socket: NonNull<Socket>, handle: Option<*mut WSK_SOCKET>) {
    // SAFETY: the caller has a pointer to a live core of type `C`, which begins with the socket.
    let core = unsafe { socket.cast::<C>().as_ref() };
    // SAFETY: the caller is the one that closes the socket, and has not done so yet.
    unsafe { core.closing(handle) };
}

/// # Safety
/// See [`Lifetime`].
unsafe fn dead<C: Core>(socket: NonNull<Socket>) {
    // SAFETY: the caller has a pointer to a live core of type `C`, which begins with the socket.
    let core = unsafe { socket.cast::<C>().as_ref() };
    // SAFETY: the caller holds rundown protection.
    unsafe { core.dead() };
}

/// # Safety
/// See [`Lifetime`].
unsafe fn closed<C: Core>(socket: NonNull<Socket>) {
    // SAFETY: the caller has a pointer to a live core of type `C`, which begins with the socket.
    let core = unsafe { socket.cast::<C>().as_ref() };
    // SAFETY: the caller says that the close has completed, once.
    unsafe { core.closed() };
}

/// A reference on a core of any type.
pub(crate) struct SocketRef(NonNull<Socket>);

// SAFETY: cores are `Send + Sync` by the bound of `Core`, and the reference is counted atomically.
unsafe impl Send for SocketRef {}
// SAFETY: a shared reference gives access to a core, and cores are `Sync` by the bound of `Core`.
unsafe impl Sync for SocketRef {}

impl SocketRef {
    pub(crate) fn new<C: Core>(core: &Ref<C>) -> Self {
        Self::from(core.clone())
    }

    /// A further reference on the core that begins with `socket`.
    ///
    /// # Safety
    /// The caller keeps a reference on the core alive during the call, and the pointer reaches all of it.
    pub(crate) unsafe fn share(socket: NonNull<Socket>) -> Self {
        // The reference that the caller knows of stays with its owner.
        Self::clone(&ManuallyDrop::new(Self(socket)))
    }

    /// The socket, as a pointer that reaches the whole core.
    pub(crate) fn as_ptr(&self) -> NonNull<Socket> {
        self.0
    }
}

impl<C: Core> From<Ref<C>> for SocketRef {
    fn from(core: Ref<C>) -> Self {
        let raw = Ref::into_raw(core);
        // SAFETY: a counted reference is never null.
        Self(unsafe { NonNull::new_unchecked(raw.cast_mut().cast()) })
    }
}

impl core::ops::Deref for SocketRef {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        // SAFETY: this value owns a reference on the core that begins with the socket.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for SocketRef {
    #[inline(never)]
    fn clone(&self) -> Self {
        // SAFETY: this value owns a reference, so the core is alive.
        unsafe { (self.lifetime.add)(self.0) };
        Self(self.0)
    }
}

impl Drop for SocketRef {
    #[inline(never)]
    fn drop(&mut self) {
        let release = self.lifetime.release;
        // SAFETY: the reference that this value owns is given up here, and it is not used again.
        unsafe { release(self.0) };
    }
}

/// Permission to call functions of a socket; while it lives the socket cannot begin to close.
pub(crate) struct Permit<'a> {
    socket: &'a Socket,
}

impl Permit<'_> {
    /// The socket, for one WSK call.
    pub(crate) fn handle(&self) -> *mut WSK_SOCKET {
        self.socket.handle()
    }

    /// The socket's dispatch table, not to be kept longer than the permit.
    ///
    /// # Safety
    /// `T` is the table of the socket's category, or the basic one.
    pub(crate) unsafe fn table<T: Table>(&self) -> T {
        // SAFETY: rundown protection is held, so the socket is not closed.
        let table = unsafe { (*self.handle()).Dispatch };
        // SAFETY: the caller vouches for the category, and the permit keeps the socket.
        unsafe { T::new(table.cast()) }
    }

    /// Keeps rundown protection beyond this value; give it back with [`Socket::release`].
    pub(crate) fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.socket.release();
    }
}

impl Socket {
    /// A socket that WSK has not made yet.
    pub(crate) fn new<C: Core>(client: Ref<ClientShared>) -> Self {
        Self::with_lifetime(client, C::LIFETIME)
    }

    #[inline(never)]
    fn with_lifetime(client: Ref<ClientShared>, lifetime: &'static Lifetime) -> Self {
        Self {
            _node: Node::new(close::start_from_node),
            links: Links::new(),
            rundown: Rundown::new(),
            handle: AtomicPtr::new(core::ptr::null_mut()),
            whole: AtomicPtr::new(core::ptr::null_mut()),
            client,
            lifetime,
            close_irp: ReservedIrp::new(),
            closed: Signal::new(),
            waiters: Waiters::new(),
        }
    }

    pub(crate) fn client(&self) -> &Ref<ClientShared> {
        &self.client
    }

    /// The client's dispatch table for WSK; see [`Core::DISPATCH`].
    pub(crate) fn dispatch(&self) -> *const c_void {
        self.lifetime.dispatch
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// The WSK socket, for a holder of rundown protection.
    pub(crate) fn handle(&self) -> *mut WSK_SOCKET {
        self.handle.load(Ordering::Acquire)
    }

    /// Acquires rundown protection for one call, unless the socket is closing.
    pub(crate) fn acquire(&self) -> Option<Permit<'_>> {
        // Made only when rundown protection was acquired: dropping it releases that.
        self.rundown.acquire().then(|| Permit { socket: self })
    }

    /// Makes one WSK call through the socket's table, which submits `irp`, under rundown protection.
    ///
    /// # Safety
    /// - An operation has just prepared the IRP. `call` submits it to WSK, or returns `None` and leaves it
    ///   alone.
    /// - `T` is the table of this socket's category, or the basic one.
    pub(crate) unsafe fn submit<T: Table>(
        &self,
        irp: *mut IRP,
        call: impl FnOnce(*mut WSK_SOCKET, &T) -> Option<NTSTATUS>,
    ) -> Submission {
        // SAFETY: the caller has prepared the IRP.
        let permit = match unsafe { self.admit(irp) } {
            Ok(permit) => permit,
            Err(refusal) => return Submission::Refused(refusal),
        };
        // SAFETY: the caller vouches for the type of the table.
        let table = unsafe { permit.table() };
        if call(permit.handle(), &table).is_none() {
            // This WSK does not have the function. The I/O manager may hold memory for the IRP, so that is
            // completed. SAFETY: the IRP was prepared, and WSK was not given it.
            unsafe { complete_here(irp, STATUS_NOT_SUPPORTED) };
        }
        Submission::Pending
    }

    /// Acquires rundown protection with a prepared IRP. The same for all calls, so that there is one copy of
    /// it.
    ///
    /// # Safety
    /// The IRP was prepared and is not submitted yet.
    #[inline(never)]
    unsafe fn admit(&self, irp: *mut IRP) -> Result<Permit<'_>, Refusal> {
        let permit = self.acquire().ok_or(Refusal::CLOSING)?;
        // SAFETY: the caller says that the IRP was prepared; rundown protection keeps the client from letting
        // its device go.
        unsafe { keep_image(irp, self.client.device()) }.map_err(|_| Refusal::OUT_OF_MEMORY)?;
        Ok(permit)
    }

    /// Releases rundown protection after [`Permit::keep`]. The last one out starts a close that was asked
    /// for.
    pub(crate) fn release(&self) {
        if self.rundown.release() == Duty::StartClose {
            self.start_close_later();
        }
    }

    /// Acquires rundown protection for an abort, when the rundown has begun but other protection is held
    /// still. Granted once.
    pub(crate) fn acquire_for_abort(&self) -> Option<Permit<'_>> {
        self.rundown.acquire_for_abort().then(|| Permit { socket: self })
    }

    /// Takes rundown protection over that [`Permit::keep`] has kept.
    ///
    /// # Safety
    /// It was kept for this socket, and is given back once: by the permit that this returns, or by
    /// [`Socket::release`].
    pub(crate) unsafe fn resume(&self) -> Permit<'_> {
        Permit { socket: self }
    }

    /// Returns whether calls can still be made.
    pub(crate) fn is_open(&self) -> bool {
        self.rundown.is_open()
    }

    /// The socket, as a pointer that reaches the whole core; only once it was attached.
    fn whole(&self) -> NonNull<Self> {
        // Null would mean that there is no core around the socket; then the socket itself is all there is.
        NonNull::new(self.whole.load(Ordering::Acquire)).unwrap_or(NonNull::from(self))
    }

    pub(crate) fn shut(&self) -> Duty {
        let duty = self.rundown.begin();
        self.waiters.wake_all();
        if duty == Duty::None
            && let Some(whole) = NonNull::new(self.whole.load(Ordering::Acquire))
        {
            // SAFETY: the caller has a reference on the core, which the pointer reaches all of.
            let whole = unsafe { SocketRef::share(whole) };
            (self.lifetime.held)(&whole);
        }
        duty
    }

    /// Has the reaper start the close; called after [`Duty::StartClose`].
    fn start_close_later(&self) {
        // SAFETY: the duty is told once, so the node is queued once, and WSK's reference keeps the socket
        // alive until the close that the reaper is to start has completed. The node is the socket's first
        // field. The client outlives the call, though the close may complete during it: the caller has a
        // reference on the core, or is the reaper.
        unsafe { self.client.reap(self.whole().cast()) };
    }

    /// Asks for the close, from anywhere: the call itself is made by the client's reaper thread.
    ///
    /// IRQL: up to `DISPATCH_LEVEL`; allowed in completion routines and callbacks.
    pub(crate) fn close_later(&self) {
        if self.shut() == Duty::StartClose {
            self.start_close_later();
        }
    }

    /// Closes the socket because WSK has said that it is dead (rules INSP-08, ACPT-05, RCVE-02), and tells
    /// the handlers. The caller has a reference on the core, or is called by WSK, which keeps its own until
    /// the callback has returned.
    pub(crate) fn close_dead(&self) {
        // It is no news while this side closes the socket. Otherwise rundown protection is held until the
        // handlers have been told: the close, which takes them away, does not begin before.
        let permit = self.rundown.die().then(|| Permit { socket: self });
        self.close_later();
        if permit.is_some() {
            // SAFETY: the caller keeps the core alive, and the permit lives.
            unsafe { (self.lifetime.dead)(self.whole()) };
        }
    }

    /// Returns whether WSK has said that the socket is dead.
    pub(crate) fn is_dead(&self) -> bool {
        self.rundown.is_dead()
    }

    /// Closes the socket if the outcome says that it is dead (rules LSN-07, LIFE-14).
    pub(crate) fn close_if_dead(&self, outcome: Outcome) {
        if outcome.socket_is_dead() {
            self.close_dead();
        }
    }
}

/// Gives a core its socket. WSK gets a reference on the core, which it holds until the close has completed.
///
/// # Safety
/// `handle` is a socket that WSK has just made for this core, which it has as its context where it has one.
/// The core was given no socket before.
pub(crate) unsafe fn attach(core: &SocketRef, handle: *mut WSK_SOCKET) {
    // SAFETY: the caller vouches that this is the core's one socket.
    unsafe { enlist(core, handle) };
    if core.rundown.attach() == Duty::StartClose {
        core.start_close_later();
    }
}

/// [`attach`], with rundown protection held for the caller, so that the close does not start before it
/// [releases](Socket::release) it.
///
/// # Safety
/// The same as for [`attach`].
pub(crate) unsafe fn attach_and_enter(core: &SocketRef, handle: *mut WSK_SOCKET) {
    // SAFETY: the caller vouches that this is the core's one socket.
    unsafe { enlist(core, handle) };
    core.rundown.attach_and_acquire();
}

/// # Safety
/// The same as for [`attach`].
unsafe fn enlist(core: &SocketRef, handle: *mut WSK_SOCKET) {
    core.handle.store(handle, Ordering::Release);
    // WSK's reference; the completion routine of the close releases it.
    let whole = ManuallyDrop::new(core.clone()).as_ptr();
    core.whole.store(whole.as_ptr(), Ordering::Release);
    // SAFETY: the reference leaked above keeps the core where it is until the close has completed, which is
    // when the socket leaves the list.
    unsafe { core.client.enlist(whole) };
}
