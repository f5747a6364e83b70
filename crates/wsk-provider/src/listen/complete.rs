//! `WskInspectComplete` (ICMP area).

use std::sync::Arc;
use std::thread;

use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::{
    PWSK_INSPECT_ID, PWSK_SOCKET, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_DEVICE_STATE,
    STATUS_INVALID_PARAMETER, STATUS_NOT_FOUND, STATUS_PENDING, STATUS_SUCCESS, WSK_INSPECT_ACTION,
    WSK_INSPECT_ID, WskInspectAccept, WskInspectReject,
};

use super::cells::Origin;
use super::deliver::Thread;
use super::inspect::{self, Stage};
use super::names::{Name, Past};
use super::returning::{Asking, Returns};
use crate::behaviours::{CompleteAborted, CompleteEarly, IdReuse};
use crate::host::FaultPoint;
use crate::request::Request;
use crate::socket::{Call, Role, Socket};

const NAME: &str = "WskInspectComplete";

/// `WskInspectComplete`.
///
/// # Safety
/// As `PFN_WSK_INSPECT_COMPLETE`: the socket is open, the identifier is readable, and the caller gives up the
/// IRP.
pub(crate) unsafe extern "system" fn wsk_inspect_complete(
    socket: PWSK_SOCKET,
    id: PWSK_INSPECT_ID,
    action: WSK_INSPECT_ACTION,
    irp: *mut IRP,
) -> NTSTATUS {
    // SAFETY: the client passes a socket of this provider and gives up the IRP.
    let (call, request) = match unsafe { Call::begin(NAME, "IRP-18", socket, irp) } {
        Ok(begun) => begun,
        Err(status) => return status,
    };
    let provider = call.provider();
    let behaviours = provider.live_config.behaviours();
    if id.is_null() {
        provider.violation("INSP-20", NAME, "InspectID is null");
        return request.fail(provider, STATUS_INVALID_PARAMETER);
    }
    // SAFETY: the client passes a readable identifier; it may lie unaligned.
    let contents = unsafe { id.read_unaligned() };
    match provider.id_cells.origin(id, contents) {
        Origin::Own => {}
        Origin::StaleCopy => {
            provider.violation(
                "INSP-19",
                NAME,
                "the identifier was copied after WskInspectEvent had returned",
            );
        }
        Origin::Borrowed => {
            provider.violation(
                "INSP-20",
                NAME,
                "InspectID points to provider memory: pass a copy made inside WskInspectEvent",
            );
        }
    }
    if action != WskInspectAccept && action != WskInspectReject {
        provider.violation(
            "ICMP-10",
            NAME,
            &format!("Action {} is neither WskInspectAccept nor WskInspectReject", action.0),
        );
        return request.fail(provider, behaviours.complete_action.status());
    }
    complete(&call, request, contents, action)
}

/// Effect of a decision in the state of the request.
enum Outcome {
    Fail(NTSTATUS),
    Decide(Arc<Name>),
    Over(Past),
    TooEarly(Arc<Name>),
    AskedAgain(Arc<Name>),
    Unknown,
}

fn outcome(socket: &Socket, id: WSK_INSPECT_ID) -> Outcome {
    let mut state = socket.lock();
    if let Some(status) = state.refused() {
        return Outcome::Fail(status);
    }
    match &mut state.role {
        Role::Listen(listener) if listener.local.is_none() => {
            Outcome::Fail(socket.provider().live_config.behaviours().complete_unbound.status())
        }
        Role::Listen(listener) => {
            let inspections = &mut listener.inspections;
            let over = |past: Option<Past>| past.map_or(Outcome::Unknown, Outcome::Over);
            let Some(name) = inspections.named(id) else { return over(inspections.past(id)) };
            match inspections.stage(&name) {
                Some(stage @ Stage::Pended) => {
                    *stage = Stage::Deciding;
                    Outcome::Decide(name)
                }
                Some(Stage::Inspecting { .. }) => Outcome::TooEarly(name),
                Some(Stage::AskedAgain { decided: None }) => Outcome::AskedAgain(name),
                Some(Stage::AskedAgain { .. } | Stage::Deciding) => Outcome::Over(Past::Decided),
                None => Outcome::Unknown,
            }
        }
        _ => Outcome::Fail(STATUS_INVALID_DEVICE_REQUEST),
    }
}

fn complete(call: &Call, request: Request, id: WSK_INSPECT_ID, action: WSK_INSPECT_ACTION) -> NTSTATUS {
    let provider = call.provider();
    let behaviours = provider.live_config.behaviours();
    match outcome(call, id) {
        Outcome::Fail(status) => request.fail(provider, status),
        Outcome::Decide(name) => {
            inspect::ask_during_complete(call, &name);
            if behaviours.id_reuse == IdReuse::AtOnce {
                // The peer may reconnect, under the same identifier, before the client is notified of the
                // completion.
                decide(call, name, action);
                return request.finish(&**call, STATUS_SUCCESS, 0);
            }
            let status = request.finish(&**call, STATUS_SUCCESS, 0);
            decide(call, name, action);
            status
        }
        Outcome::TooEarly(name) => match returns_meanwhile(call, &name) {
            Returns::Yes => complete(call, request, id, action),
            Returns::No => too_early(call, request, &name, action),
            Returns::Unknown => {
                // It is unknown whether the client breaks the rule: report advice, not a violation.
                provider.advice(
                    "ICMP-12",
                    NAME,
                    "called before WskInspectEvent has returned: the decision is delayed until then",
                );
                keep(call, request, &name, action)
            }
        },
        Outcome::AskedAgain(name) => keep(call, request, &name, action),
        // A forgotten request is no violation: a call that races with an abort may be delayed for as long as
        // the caller's thread does not run.
        Outcome::Over(past @ (Past::Aborted { .. } | Past::Forgotten)) => {
            if past == (Past::Aborted { notified: true }) {
                provider.advice("ABRT-11", NAME, "the request was aborted, and WskAbortEvent had returned");
            }
            let status = match behaviours.complete_aborted {
                CompleteAborted::NotFound => STATUS_NOT_FOUND,
                CompleteAborted::Either if provider.injects(FaultPoint::AbortedCompletion) => {
                    STATUS_NOT_FOUND
                }
                CompleteAborted::Success | CompleteAborted::Either => STATUS_SUCCESS,
            };
            request.finish(&**call, status, 0)
        }
        Outcome::Over(Past::Decided) => {
            provider.violation("ICMP-04", NAME, "the request was already completed");
            request.finish(&**call, behaviours.complete_unknown.status(), 0)
        }
        Outcome::Unknown => {
            provider.violation("ICMP-09", NAME, "InspectID does not identify a pended request");
            request.finish(&**call, behaviours.complete_unknown.status(), 0)
        }
    }
}

/// Decides a pended request. Callbacks are deferred, since the calling thread is the client's.
fn decide(socket: &Arc<Socket>, name: Arc<Name>, action: WSK_INSPECT_ACTION) {
    if action == WskInspectAccept {
        return inspect::accept(socket, name, FaultPoint::DropDuringComplete, Thread::Client);
    }
    let races = socket.provider().injects(FaultPoint::DropDuringComplete);
    // A name that the client will see again stays in use until then.
    let aborted = races.then(|| Arc::clone(&name));
    inspect::reject(socket, name);
    if let Some(name) = aborted {
        // The drop raced with the rejection while the call was running (ICMP-03).
        inspect::defer_abort(socket, name);
    }
}

/// Returns whether the callback returns without further work of the client. After the last instruction of the
/// client the provider still has to process the return value, which a client cannot observe. So the call
/// counts as early only if the callback certainly has more to do. If it has returned, its answer is processed
/// now.
fn returns_meanwhile(call: &Call, name: &Arc<Name>) -> Returns {
    let provider = call.provider();
    let reported = provider.live_config.behaviours().complete_early == CompleteEarly::Reported;
    if !reported {
        return Returns::No;
    }
    let Some(asking) = asking(call, name) else { return Returns::Yes };
    let returns = asking.returns(provider.live_config.get(|config| config.return_patience));
    // Only the provider has work left then.
    while returns == Returns::Yes && self::asking(call, name).is_some() {
        thread::yield_now();
    }
    returns
}

/// Returns the callback whose return value has not been processed yet.
fn asking(call: &Call, name: &Arc<Name>) -> Option<Arc<Asking>> {
    let mut state = call.lock();
    let Role::Listen(listener) = &mut state.role else { return None };
    match listener.inspections.stage(name) {
        Some(Stage::Inspecting { asking, .. }) => Some(Arc::clone(asking)),
        _ => None,
    }
}

/// Handles a decision before the callback has returned (ICMP-12).
fn too_early(call: &Call, request: Request, name: &Arc<Name>, action: WSK_INSPECT_ACTION) -> NTSTATUS {
    let provider = call.provider();
    if provider.live_config.behaviours().complete_early == CompleteEarly::Reported {
        provider.violation("ICMP-12", NAME, "called before WskInspectEvent has returned");
        return request.fail(provider, STATUS_INVALID_DEVICE_STATE);
    }
    keep(call, request, name, action)
}

/// Keeps a decision until the running callback has returned.
fn keep(call: &Call, mut request: Request, name: &Arc<Name>, action: WSK_INSPECT_ACTION) -> NTSTATUS {
    let provider = call.provider();
    let mut state = call.lock();
    let Role::Listen(listener) = &mut state.role else {
        drop(state);
        return request.fail(provider, STATUS_INVALID_DEVICE_REQUEST);
    };
    match listener.inspections.stage(name) {
        Some(Stage::Inspecting { early: kept, .. } | Stage::AskedAgain { decided: kept })
            if kept.is_none() =>
        {
            request.mark_pending(&**call);
            *kept = Some((request, action));
            STATUS_PENDING
        }
        _ => {
            drop(state);
            complete(call, request, name.id(), action)
        }
    }
}

/// Applies a decision that was made before the callback returned `WskInspectPend`.
pub(super) fn decide_kept(
    socket: &Arc<Socket>,
    request: Request,
    name: Arc<Name>,
    action: WSK_INSPECT_ACTION,
) {
    request.complete(socket.provider(), STATUS_SUCCESS, 0);
    if action == WskInspectAccept {
        inspect::accept(socket, name, FaultPoint::DropDuringComplete, Thread::Provider);
    } else {
        inspect::reject(socket, name);
    }
}
