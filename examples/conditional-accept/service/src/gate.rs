//! The gate: the inspect, abort and accept events of the listener.
//!
//! ```text
//!              ┌─ accept ─────────────────────────────► delivery
//!   inspect ───┼─ reject
//!              └─ ask ──► pended ──── the asker ────► answer ──► delivery, or nothing
//!                           │
//!                           └── given up: abort; the asker is dropped
//! ```
//!
//! The limits in `clients` can reject what the policy accepts or asks about. Conditional accept turns off the
//! transport's own limits, so a flood must not take all of the gate's memory or all of its permits. A request
//! that was accepted at once is in no limit until its connection is delivered: the gate holds nothing for it,
//! but the transport does. On Windows it is a half-open connection then, and a flood of forged requests to a
//! gate that accepts by default costs the transport's memory.
//!
//! All of this runs at up to `DISPATCH_LEVEL`: it looks things up, records, and starts tasks.

use wsk::executor::{SpawnError, Spawner};
use wsk::memory::Ref;
use wsk::{
    AbortHandler, AcceptHandler, Decision, Incoming, InspectHandler, InspectId, InspectToken, Inspection,
    Verdict,
};

use crate::Reason;
use crate::clients::{ClientKind, ClientPermit};
use crate::policy::{Action, Answer};
use crate::record::{AcceptBy, Inspection as Seen, Record, RecordSink, RequestId};
use crate::rules::Rules;
use crate::service::Asker;
use crate::session::{self, Events, PreparedSession};

/// State shared by the gate, the asker and the sessions.
#[derive(Debug)]
pub(crate) struct Shared<S> {
    pub(crate) policy: Rules,
    pub(crate) asker: Asker,
    pub(crate) sink: S,
    pub(crate) spawner: Spawner,
}

/// The gate as a handler: the sessions it starts share it.
#[derive(Debug)]
pub(crate) struct Gate<S>(pub(crate) Ref<Shared<S>>);

impl<S> Clone for Gate<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: RecordSink> Gate<S> {
    fn seen(&self, request: &Inspection<'_>, action: Seen, reason: Option<Reason>) {
        let (id, remote) = (name(request.id()), request.peer_addr());
        self.0.sink.record(Record::Inspect { id, remote, action, reason });
    }

    fn reject<'a>(&self, request: Inspection<'a>, reason: Reason) -> Decision<'a> {
        self.seen(&request, Seen::Reject, Some(reason));
        request.reject()
    }

    /// Pends a request and asks about it.
    fn ask<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        let Self(shared) = self;
        let remote = request.peer_addr();
        let permit = match shared.policy.admit(remote.ip(), ClientKind::Pended, shared.spawner.cache()) {
            Ok(permit) => permit,
            Err(reason) => return self.reject(request, reason),
        };
        match request.pend() {
            Ok((decision, token)) => {
                let id = name(token.id());
                shared.sink.record(Record::Inspect { id, remote, action: Seen::Pend, reason: None });
                // An asker that cannot be started is dropped here, and its token with it: that rejects. None
                // is at unload.
                if shared.spawner.spawn(ask(shared.clone(), token, permit)) == Err(SpawnError::OutOfMemory) {
                    shared.sink.record(Record::Dropped { remote, reason: Reason::Memory });
                }
                decision
            }
            // Without memory to ask with, the answer is no.
            Err((_, request)) => self.reject(request, Reason::Memory),
        }
    }
}

impl<S: RecordSink> InspectHandler for Gate<S> {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        match self.0.policy.look(request.peer_addr().ip()) {
            Ok(Action::Accept) => {
                self.seen(&request, Seen::Accept, None);
                request.accept()
            }
            Ok(Action::Ask) => self.ask(request),
            Ok(Action::Reject) => self.reject(request, Reason::Policy),
            Err(reason) => self.reject(request, reason),
        }
    }
}

impl<S: RecordSink> AbortHandler for Gate<S> {
    fn abort(&self, id: InspectId) {
        self.0.sink.record(Record::Abort { id: name(id) });
    }
}

impl<S: RecordSink> AcceptHandler for Gate<S> {
    type Handlers = Events<S>;

    fn accept(&self, incoming: Incoming<'_, Events<S>>) {
        // What cannot be had refuses the connection: it is not taken.
        let remote = incoming.peer_addr();
        let Ok(prepared) = PreparedSession::try_new(&self.0) else {
            return self.0.sink.record(Record::Dropped { remote, reason: Reason::Memory });
        };
        // Recorded first, because the connection's events may come before it is in our hands.
        let Some(stats) = prepared.accepted(remote, AcceptBy::Event) else { return };
        match incoming.accept(prepared.events()) {
            Ok(connection) => session::start(&self.0.spawner, connection, prepared, stats),
            // Nothing but memory can be missing.
            Err(_) => self.0.sink.record(Record::Dropped { remote, reason: Reason::Memory }),
        }
    }
}

/// The asker: gets an answer, and decides. An abort drops it, and the question with it.
async fn ask<S: RecordSink>(shared: Ref<Shared<S>>, token: InspectToken, permit: ClientPermit) {
    let (id, remote) = (name(token.id()), token.peer_addr());
    let verdict = async {
        let cache = shared.spawner.cache();
        let action = match &shared.asker {
            Asker::Timed { answer, after } => match wsk::time::sleep_in(*after, cache).await {
                Ok(()) => *answer,
                Err(_) => Answer::Reject,
            },
            Asker::Programs(questions) => questions.ask(id, remote, cache).await,
        };
        shared.sink.record(Record::Verdict { id, action });
        // Before the connection comes, which takes one of its own.
        drop(permit);
        match action {
            Answer::Accept => Verdict::Accept,
            Answer::Reject => Verdict::Reject,
        }
    };
    // An error says that the client gave up meanwhile, which the abort has recorded.
    let _ = token.decide_with(verdict).await;
}

/// A request as records name it.
fn name(id: InspectId) -> RequestId {
    RequestId { key: id.key() as u64, serial: id.serial() }
}
