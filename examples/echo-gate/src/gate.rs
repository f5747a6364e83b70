//! The gate: what WSK asks and tells about connection requests, and connections that come by the event.
//!
//! ```text
//!              ┌─ accept ─────────────────────────────► delivery
//!   inspect ───┼─ reject
//!              └─ ask ──► pended ──── the asker ────► answer ──► delivery, or nothing
//!                           │
//!                           └── given up: abort; the asker is dropped
//! ```
//!
//! All of this runs at up to `DISPATCH_LEVEL`: it looks things up, records, and starts tasks.

use wsk::executor::Spawner;
use wsk::memory::Ref;
use wsk::{
    AbortHandler, AcceptHandler, Decision, Incoming, InspectHandler, InspectId, InspectToken, Inspection,
    Verdict,
};

use crate::policy::{Action, Answer};
use crate::record::{AcceptBy, Inspection as Seen, Record, RecordSink, RequestId};
use crate::rules::Rules;
use crate::service::Asker;
use crate::session::{self, Connected, Events};

/// What the gate, the asker and the sessions share.
#[derive(Debug)]
pub(crate) struct Gate<S> {
    pub(crate) policy: Rules,
    pub(crate) asker: Asker,
    pub(crate) sink: S,
    pub(crate) spawner: Spawner,
    /// How many tasks there may be when a request is let in or pended.
    pub(crate) most: usize,
}

/// The gate as a handler: the sessions it starts share it.
#[derive(Debug)]
pub(crate) struct Door<S>(pub(crate) Ref<Gate<S>>);

impl<S> Clone for Door<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: RecordSink> Door<S> {
    fn seen(&self, request: &Inspection<'_>, action: Seen) {
        let (id, remote) = (name(request.id()), request.remote_addr());
        self.0.sink.record(Record::Inspect { id, remote, action });
    }
}

impl<S: RecordSink> InspectHandler for Door<S> {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        // Conditional accept comes without the transport's own limits, so whoever floods the gate must not have all the memory.
        let full = self.0.spawner.unfinished() >= self.0.most;
        let action = if full { Action::Reject } else { self.0.policy.action(request.remote_addr().ip()) };
        match action {
            Action::Accept => {
                self.seen(&request, Seen::Accept);
                request.accept()
            }
            Action::Reject => {
                self.seen(&request, Seen::Reject);
                request.reject()
            }
            Action::Ask => match request.pend() {
                Ok((decision, token)) => {
                    let (id, remote) = (name(token.id()), token.remote_addr());
                    self.0.sink.record(Record::Inspect { id, remote, action: Seen::Pend });
                    // An asker that cannot be started is dropped here, and its token with it: that rejects.
                    let _ = self.0.spawner.spawn(ask(self.0.clone(), token));
                    decision
                }
                // Without memory to ask with, the answer is no.
                Err((_, request)) => {
                    self.seen(&request, Seen::Reject);
                    request.reject()
                }
            },
        }
    }
}

impl<S: RecordSink> AbortHandler for Door<S> {
    fn abort(&self, id: InspectId) {
        self.0.sink.record(Record::Abort { id: name(id) });
    }
}

impl<S: RecordSink> AcceptHandler for Door<S> {
    type Events = Events<S>;

    fn accept(&self, incoming: Incoming<'_, Events<S>>) {
        // Memory that cannot be had refuses the connection: it is not taken.
        let Ok(connected) = Connected::try_new(&self.0) else { return };
        // Recorded first, because the connection's events may come before it is in our hands.
        let tally = connected.accepted(incoming.remote_addr(), AcceptBy::Event);
        if let Ok(connection) = incoming.accept(connected.events()) {
            session::start(&self.0.spawner, connection, connected, tally);
        }
    }
}

/// The asker: gets an answer, and decides. An abort drops it, and the question with it.
async fn ask<S: RecordSink>(gate: Ref<Gate<S>>, token: InspectToken) {
    let (id, remote) = (name(token.id()), token.remote_addr());
    let verdict = async {
        let cache = gate.spawner.cache();
        let action = match &gate.asker {
            Asker::Timed { answer, after } => match wsk::time::sleep_in(*after, cache).await {
                Ok(()) => *answer,
                Err(_) => Answer::Reject,
            },
            Asker::Desk(desk) => desk.ask(id, remote, cache).await,
        };
        gate.sink.record(Record::Verdict { id, action });
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
