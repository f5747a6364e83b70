//! `WskCloseSocket` (contract 4.20).
//!
//! The close cancels the waiting requests, ends the transport, and completes when the last pended request has
//! completed and the last callback has returned. If nothing is outstanding it may complete inline, if that is
//! selected; Windows was seen to pend every close.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use parking_lot::MutexGuard;
use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{PWSK_SOCKET, STATUS_FILE_FORCED_CLOSED, STATUS_PENDING, STATUS_SUCCESS, STATUS_UNSUCCESSFUL};

use super::{Call, Ending, Life, Role, Socket, State};
use crate::host::FaultPoint;
use crate::listen;
use crate::live_config::Timing;
use crate::request::{Completions, Request};

const NAME: &str = "WskCloseSocket";

/// Rule that a client breaks if it uses a socket whose close has failed.
pub(super) const CLOSE_FAILED: &str = "CLOSE-11";

/// `WskCloseSocket`.
///
/// # Safety
/// As `PFN_WSK_CLOSE_SOCKET`: the socket is open, and the caller gives up the IRP.
pub(crate) unsafe extern "system" fn wsk_close_socket(socket: PWSK_SOCKET, irp: *mut IRP) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider.
    let call = match unsafe { Call::enter(NAME, socket) } {
        Ok(call) => call,
        Err(status) => return status,
    };
    // SAFETY: the client gives up the IRP.
    match unsafe { Request::take(call.provider(), NAME, "IRP-18", irp) } {
        Ok(request) => close(&call, request),
        Err(status) => status,
    }
}

fn close(call: &Call, mut request: Request) -> NTSTATUS {
    let socket: &Arc<Socket> = call;
    let provider = socket.provider();
    let mut state = socket.lock();
    if matches!(state.life, Life::Closing | Life::Freed) {
        let failed = state.death_notified_by == Some(CLOSE_FAILED);
        drop(state);
        provider.violation(
            if failed { CLOSE_FAILED } else { "CLOSE-12" },
            NAME,
            "the socket was already closed",
        );
        return request.fail(provider, STATUS_FILE_FORCED_CLOSED);
    }
    socket.advise_unheard(&state);
    let others = call.concurrent() - 1;
    let retained = state.retained;
    let mut completions = Completions::default();
    // Their aborts begin while the socket still lives, so that the close waits for them.
    let undecided = listen::take_undecided(socket, &mut state);
    socket.set_life(&mut state, Life::Closing);
    state.closed_by = Some(thread::current().id());
    state.end(Ending::Closed, &mut completions);
    let busy = socket.outstanding.load(Ordering::SeqCst) != 0 || state.events.any_running();
    let timing = provider.live_config.timing(true);
    let pends = busy || timing != Timing::Inline;
    if pends {
        request.mark_closing(socket);
    }
    // A close that may complete inline is not stored: a thread that completes the last request at the same
    // time looks for a stored close, too.
    let inline = if pends {
        state.close = Some(request);
        None
    } else {
        Some(request)
    };
    let useless_table = socket.accepted && !state.tables.connection.is_null() && !state.events.were_used();
    drop(state);
    if useless_table {
        provider.advice(
            "LSN-15",
            NAME,
            "the socket has a dispatch table, but none of its events was ever enabled",
        );
    }
    if !socket.is_head_intact() {
        provider.violation("LIFE-05", NAME, "the client wrote to the WSK_SOCKET structure");
    }
    if others != 0 {
        provider.violation(
            "CLOSE-01",
            NAME,
            &format!("called while {others} other calls on the socket are in progress"),
        );
    }
    if retained != 0 {
        provider.violation(
            "RCVE-19",
            NAME,
            &format!("called while {retained} retained indication lists are not released"),
        );
    }
    completions.run(provider);
    undecided.settle(socket);
    if let Some(request) = inline {
        return Socket::finish_inline(socket, request, timing);
    }
    Socket::finish_close(socket, timing);
    STATUS_PENDING
}

impl Socket {
    /// Advises a client that has set a callback and never enabled it (SOCK-02).
    pub(crate) fn advise_unheard(&self, state: &State) {
        if let Some(event) = state.unheard() {
            let detail =
                format!("data or a connection is waiting for {event}, which is set but was never enabled");
            self.provider().advice("SOCK-02", NAME, &detail);
        }
    }

    /// Completes a close before it returns, or pends it if work is outstanding.
    fn finish_inline(socket: &Arc<Self>, mut request: Request, timing: Timing) -> NTSTATUS {
        let mut state = socket.lock();
        if !state.events.any_running() && socket.outstanding.load(Ordering::SeqCst) == 0 {
            return Self::end_close(socket, state, request, timing);
        }
        request.mark_closing(socket);
        state.close = Some(request);
        drop(state);
        // The outstanding work may have ended before the close was stored.
        Self::finish_close(socket, timing);
        STATUS_PENDING
    }

    /// Completes the close if one was requested and no work is outstanding; returns its status, or that it
    /// pends.
    pub(crate) fn finish_close(socket: &Arc<Self>, timing: Timing) -> NTSTATUS {
        let mut state = socket.lock();
        if state.life != Life::Closing
            || state.events.any_running()
            || socket.outstanding.load(Ordering::SeqCst) != 0
        {
            return STATUS_PENDING;
        }
        let Some(request) = state.close.take() else { return STATUS_PENDING };
        Self::end_close(socket, state, request, timing)
    }

    /// Frees the socket and completes the close.
    fn end_close(
        socket: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        request: Request,
        timing: Timing,
    ) -> NTSTATUS {
        socket.set_life(&mut state, Life::Freed);
        let part = std::mem::replace(&mut state.role, Role::Basic);
        let provider = socket.provider();
        state.unpin_client_memory(provider);
        let status = if provider.injects(FaultPoint::CloseFails) {
            state.death_notified_by = Some(CLOSE_FAILED);
            STATUS_UNSUCCESSFUL
        } else {
            STATUS_SUCCESS
        };
        drop(state);
        part.give_back(provider, NAME);
        if !request.is_pending() {
            request.complete(provider, status, 0);
            socket.client().remove_socket(socket);
            return status;
        }
        // The socket is gone after the completion.
        match timing {
            Timing::Inline | Timing::Nested => request.complete(provider, status, 0),
            Timing::Early => provider.completer().complete_early(provider, request, status, 0),
            Timing::Late => provider.completer().complete_late(provider, request, status, 0),
        }
        STATUS_PENDING
    }
}

impl Socket {
    /// Takes back a socket that the client never got: ends it at once.
    pub(crate) fn discard(socket: &Arc<Self>) {
        let mut completions = Completions::default();
        let mut state = socket.lock();
        socket.set_life(&mut state, Life::Freed);
        socket.discarded.store(true, Ordering::SeqCst);
        state.end(Ending::Closed, &mut completions);
        state.unpin_client_memory(socket.provider());
        let part = std::mem::replace(&mut state.role, Role::Basic);
        drop(state);
        completions.run(socket.provider());
        part.give_back(socket.provider(), NAME);
        if socket.outstanding.load(Ordering::SeqCst) == 0 {
            socket.client().remove_socket(socket);
        }
    }
}
