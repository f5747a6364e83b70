//! One call of the client on a socket: from the entry point until it returns.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use wsk_sys::nt::{self, IRP, NTSTATUS};
use wsk_sys::{PWSK_SOCKET, STATUS_FILE_FORCED_CLOSED, STATUS_INVALID_HANDLE};

use super::close::CLOSE_FAILED;
use super::{Life, Socket};
use crate::client::current_provider;
use crate::dispatch::decoy;
use crate::host::FaultPoint;
use crate::provider::Inner;
use crate::request::Request;

/// Calls that only query. They are valid on a connection before it is refused.
const ASKS: [&str; 3] = ["WskControlSocket", "WskGetLocalAddress", "WskGetRemoteAddress"];

/// A call in progress. It keeps the socket's memory alive and counts for CLOSE-01.
#[derive(Debug)]
pub(crate) struct Call {
    socket: Arc<Socket>,
    /// The function called.
    pub(crate) name: &'static str,
}

impl Call {
    /// Begins a call that needs an IRP. On failure the IRP, if any, has been completed, and the result is the
    /// status to return.
    ///
    /// # Safety
    /// `socket` was given out by a provider of this crate; `irp` is null or an IRP that the client gives up.
    pub(crate) unsafe fn begin(
        name: &'static str,
        rule_without: &'static str,
        socket: PWSK_SOCKET,
        irp: *mut IRP,
    ) -> Result<(Self, Request), NTSTATUS> {
        // SAFETY: the caller guarantees that `socket` was given out by a provider of this crate; `irp` is
        // null or an IRP that the client gives up.
        let call = unsafe { Self::enter(name, socket) }?;
        // SAFETY: the caller guarantees that `socket` was given out by a provider of this crate; `irp` is
        // null or an IRP that the client gives up.
        let request = unsafe { Request::take(call.provider(), name, rule_without, irp) }?;
        match call.check() {
            None => Ok((call, request)),
            Some(status) => Err(request.fail(call.provider(), status)),
        }
    }

    /// Begins a call whose IRP is optional or absent; the caller has to call [`check`](Self::check).
    ///
    /// # Safety
    /// `socket` was given out by a provider of this crate.
    pub(crate) unsafe fn enter(name: &'static str, socket: PWSK_SOCKET) -> Result<Self, NTSTATUS> {
        if socket.is_null() || decoy::is_one(socket) {
            report_no_socket(name, socket);
            return Err(STATUS_INVALID_HANDLE);
        }
        let shell = socket.cast::<Socket>().cast_const();
        // SAFETY: the pointer was given out by this crate, and the shells of closed sockets are kept for a
        // while.
        unsafe { Arc::increment_strong_count(shell) };
        // SAFETY: the count taken above is passed on.
        let socket = unsafe { Arc::from_raw(shell) };
        socket.calls.fetch_add(1, Ordering::SeqCst);
        let call = Self { socket, name };
        check_place(call.provider(), name);
        if call.socket.handed_over.load(Ordering::Relaxed) && !ASKS.contains(&name) {
            call.socket.lock().note_use(name);
        }
        Ok(call)
    }

    /// Returns the status if the socket is dead, closing or closed. Reports the client if it was notified
    /// before.
    pub(crate) fn check(&self) -> Option<NTSTATUS> {
        let provider = self.provider();
        let life = self.socket.life();
        let dies_now = life == Life::Live as u32;
        if dies_now {
            if !provider.injects(FaultPoint::DieInCall) {
                return None;
            }
            Socket::die(&self.socket);
        }
        if dies_now || life == Life::Dead as u32 {
            let mut state = self.socket.lock();
            // This call precedes every later notification of the death. A call or an indication notifies one
            // thread; other threads may already be on their way into a call, so each is notified by its own
            // first call. A completion routine does not know what the thread that runs it was notified of.
            let thread = thread::current().id();
            let acts_for_itself = provider.host.call_site().completion_depth == 0;
            let knows = acts_for_itself && state.notified_threads.contains(&thread);
            let notified_by = state.death_notified_by.filter(|_| !dies_now && knows);
            state.death_notified_by.get_or_insert(if self.name == "WskAccept" {
                "LSN-07"
            } else {
                "LIFE-17"
            });
            if acts_for_itself && !knows {
                state.notified_threads.push(thread);
            }
            drop(state);
            if let Some(rule) = notified_by {
                provider.violation(
                    rule,
                    self.name,
                    "called on a dead socket: the only valid call is WskCloseSocket",
                );
            }
        } else if self.socket.lock().death_notified_by == Some("ACPT-09") {
            provider.violation("ACPT-09", self.name, "called on a socket that WskAcceptEvent did not accept");
        } else if self.socket.lock().death_notified_by == Some(CLOSE_FAILED) {
            provider.violation(
                CLOSE_FAILED,
                self.name,
                "called on a socket whose close has failed: the handle is invalid",
            );
        } else {
            let how = if life == Life::Closing as u32 { "that is being closed" } else { "that was closed" };
            provider.violation("CLOSE-13", self.name, &format!("called on a socket {how}"));
        }
        Some(STATUS_FILE_FORCED_CLOSED)
    }

    /// Returns the number of calls on the socket that are in progress, this one included.
    pub(crate) fn concurrent(&self) -> usize {
        self.socket.calls.load(Ordering::SeqCst)
    }
}

impl Deref for Call {
    type Target = Arc<Socket>;
    fn deref(&self) -> &Arc<Socket> {
        &self.socket
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.socket.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Reports a call whose socket pointer is invalid.
#[cold]
fn report_no_socket(name: &'static str, socket: PWSK_SOCKET) {
    let Some(provider) = current_provider() else { return };
    if !socket.is_null() {
        let detail = "the socket pointer was read from Information before the IRP had completed";
        provider.violation("IRP-12", name, detail);
    } else if provider.host.call_site().callback.is_some() {
        provider.violation(
            "EVT-49",
            name,
            "a callback uses a socket pointer that the client has not stored yet",
        );
    } else {
        provider.violation(
            "IRP-23",
            name,
            "Socket is null, like Information of a failed IRP: check its status first",
        );
    }
}

/// Checks the IRQL and the depth of nested completion routines of a call.
pub(crate) fn check_place(provider: &Inner, name: &'static str) {
    // SAFETY: reading the IRQL has no precondition.
    if unsafe { nt::KeGetCurrentIrql() } > nt::DISPATCH_LEVEL {
        let rule = if name == "WskAccept" { "IRQL-04" } else { "IRQL-12" };
        provider.violation(rule, name, "called above DISPATCH_LEVEL");
    }
    let depth = provider.host.call_site().completion_depth;
    if depth != 0 && depth > provider.live_config.get(|config| config.completion_depth) {
        provider.advice(
            "IRP-14",
            name,
            &format!("called at a depth of {depth} nested completion routines: use a work item"),
        );
    }
}
