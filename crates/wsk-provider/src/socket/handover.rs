//! Handover of an accepted socket by a running `WskAcceptEvent` (contract 4.8).

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::Ordering;

use wsk_sys::WSK_CLIENT_CONNECTION_DISPATCH;

use super::{Call, Socket, State};

/// Outputs of a running `WskAcceptEvent`.
///
/// # Invariants
/// Both point to local variables of the thread that runs the callback, which clears the handover before they
/// are dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handover {
    /// `AcceptSocketContext`.
    pub(crate) context: *mut *mut c_void,
    /// `AcceptSocketDispatch`.
    pub(crate) dispatch: *mut *const WSK_CLIENT_CONNECTION_DISPATCH,
}

impl Socket {
    /// Begins the handover of this socket by `WskAcceptEvent`.
    pub(crate) fn begin_handover(&self, handover: Handover) {
        self.lock().handover = Some(handover);
        self.handed_over.store(true, Ordering::Relaxed);
    }
}

impl State {
    /// Records that the client uses the socket.
    pub(super) fn note_use(&mut self, call: &'static str) {
        if self.handover.is_some() {
            self.used.get_or_insert(call);
        }
    }

    /// Ends the handover; returns the call by which the client has used the socket meanwhile.
    pub(crate) fn end_handover(&mut self, socket: &Socket) -> Option<&'static str> {
        socket.handed_over.store(false, Ordering::Relaxed);
        self.handover = None;
        self.used.take()
    }
}

/// Value of the outputs of `WskAcceptEvent` before the client writes them.
static UNWRITTEN: u64 = u64::from_ne_bytes(*b"unwritte");

impl Handover {
    /// Value of an unwritten output.
    pub(crate) fn unwritten() -> *mut c_void {
        ptr::from_ref(&UNWRITTEN).cast_mut().cast()
    }

    /// Returns the current outputs; `None` for one that is not written yet.
    pub(crate) fn read(self) -> (Option<*mut c_void>, Option<*const WSK_CLIENT_CONNECTION_DISPATCH>) {
        // SAFETY: by the invariant the variable is alive; the client may write it meanwhile, hence volatile.
        let context = unsafe { self.context.read_volatile() };
        // SAFETY: by the invariant the variable is alive; the client may write it meanwhile, hence volatile.
        let dispatch = unsafe { self.dispatch.read_volatile() };
        (
            (context != Self::unwritten()).then_some(context),
            (dispatch.cast_mut().cast() != Self::unwritten()).then_some(dispatch),
        )
    }
}

/// Sets context and table from the current outputs, inside the `WskAcceptEvent` that hands this socket over.
pub(super) fn adopt(call: &Call, state: &mut State) {
    let Some(handover) = state.handover else { return };
    state.note_use(call.name);
    let (context, dispatch) = handover.read();
    if context.is_none() || dispatch.is_none() {
        call.provider().violation(
            "ACPT-11",
            call.name,
            "enabled events inside WskAcceptEvent before it had written both outputs",
        );
    }
    if let Some(context) = context {
        state.context.0 = context;
    }
    if let Some(dispatch) = dispatch {
        state.tables.connection = dispatch;
    }
}
