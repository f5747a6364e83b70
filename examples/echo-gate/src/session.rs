//! One connection: every byte that comes is sent back, and when the other side has ended, what is owed is sent
//! before this side ends too.
//!
//! ```text
//!   receive ──► send ──► receive … ──► end of the other side ──► disconnect ──► close
//!      │          │
//!      └──────────┴── error: close, which resets what is left
//! ```
//!
//! A session that is dropped, as all are at unload, closes its connection in the background.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;

use wsk::connection::{On, Unset};
use wsk::executor::{Spawner, yield_now};
use wsk::memory::{OutOfMemory, Ref};
use wsk::sync::SpinLock;
use wsk::time::timeout_in;
use wsk::{Buffer, Connection, DisconnectHandler, Handlers, Status};

use crate::gate::Gate;
use crate::record::{AcceptBy, DisconnectKind, Record, RecordSink};

/// How much of a connection is on its way at a time.
const BUFFER: usize = 8 * 1024;

/// After so many rounds in which nothing made it wait, a session lets others run.
const ROUNDS: u32 = 16;

/// How long the other side may take to hear of the end.
const PARTING: Duration = Duration::from_secs(30);

/// The handlers of a connection.
pub(crate) type Events<S> = Handlers<Unset, On<Peer<S>>, Unset>;

/// Hears when the other side ends a connection.
#[derive(Debug)]
pub(crate) struct Peer<S>(Ref<State<S>>);

impl<S: RecordSink> DisconnectHandler for Peer<S> {
    fn disconnected(&self, kind: wsk::DisconnectKind) {
        self.0.ended(match kind {
            wsk::DisconnectKind::Graceful => DisconnectKind::Graceful,
            wsk::DisconnectKind::Abortive => DisconnectKind::Abortive,
        });
    }
}

/// A connection as its handlers and its session see it.
#[derive(Debug)]
pub(crate) struct Connected<S>(Ref<State<S>>);

#[derive(Debug)]
struct State<S> {
    gate: Ref<Gate<S>>,
    /// Known when the connection is there; the memory is there before.
    remote: SpinLock<Option<SocketAddr>>,
    /// How the other side ended it, as far as it is recorded.
    ended: AtomicU8,
}

const GRACEFUL: u8 = 1;
const ABORTIVE: u8 = 2;

impl<S: RecordSink> State<S> {
    /// Records that the other side ended the connection. Both the event and the session can be the first to know:
    /// the event comes only for what happens after it was enabled.
    fn ended(&self, kind: DisconnectKind) {
        let before = match kind {
            DisconnectKind::Graceful => self.ended.fetch_or(GRACEFUL, Ordering::Relaxed),
            DisconnectKind::Abortive => self.ended.fetch_or(ABORTIVE, Ordering::Relaxed) & ABORTIVE,
        };
        let remote = self.remote.with(|remote| *remote);
        if let (0, Some(remote)) = (before, remote) {
            self.gate.sink.record(Record::Disconnect { remote, kind });
        }
    }
}

impl<S: RecordSink> Connected<S> {
    /// Sets up what a connection needs, before there is one.
    pub(crate) fn try_new(gate: &Ref<Gate<S>>) -> Result<Self, OutOfMemory> {
        let state = State { gate: gate.clone(), remote: SpinLock::new(None), ended: AtomicU8::new(0) };
        Ref::try_new_in(state, gate.spawner.cache()).map(Self).map_err(|(error, _)| error)
    }

    /// The handlers for the connection.
    pub(crate) fn events(&self) -> Events<S> {
        Handlers::new().disconnect(Peer(self.0.clone()))
    }

    /// Records that the connection is there.
    pub(crate) fn accepted(&self, remote: SocketAddr, by: AcceptBy) -> Tally<S> {
        self.0.remote.with(|known| *known = Some(remote));
        self.0.gate.sink.record(Record::Accepted { remote, by });
        Tally { gate: self.0.gate.clone(), remote, received: 0, sent: 0 }
    }
}

/// What went through a connection; recorded when it is closed.
#[derive(Debug)]
pub(crate) struct Tally<S: RecordSink> {
    gate: Ref<Gate<S>>,
    remote: SocketAddr,
    received: u64,
    sent: u64,
}

impl<S: RecordSink> Drop for Tally<S> {
    fn drop(&mut self) {
        let Self { remote, received, sent, .. } = *self;
        self.gate.sink.record(Record::Closed { remote, received, sent });
    }
}

/// Serves a connection, if there is memory for a task; if not, the connection is closed.
///
/// IRQL: up to `DISPATCH_LEVEL`.
pub(crate) fn start<S: RecordSink>(
    spawner: &Spawner,
    connection: Connection<Events<S>>,
    connected: Connected<S>,
    tally: Tally<S>,
) {
    // The order of the fields is the order in which a session that is not run, or not run to its end, goes.
    let session = Session { connection, tally, state: connected.0 };
    // An error has dropped the session.
    let _ = spawner.spawn(session.run());
}

struct Session<S: RecordSink> {
    connection: Connection<Events<S>>,
    tally: Tally<S>,
    state: Ref<State<S>>,
}

impl<S: RecordSink> Session<S> {
    async fn run(mut self) {
        let outcome = self.echo().await;
        if let Err(error) = outcome
            && [Status::CONNECTION_RESET, Status::CONNECTION_DISCONNECTED, Status::REMOTE_DISCONNECT]
                .contains(&error.status())
        {
            self.state.ended(DisconnectKind::Abortive);
        }
        let Self { connection, tally, .. } = self;
        connection.close().await;
        drop(tally);
    }

    /// Sends everything back until the other side ends, then ends this side.
    async fn echo(&mut self) -> wsk::Result<()> {
        let mut buffer = Buffer::try_with_capacity(BUFFER)?;
        'talk: loop {
            for _ in 0..ROUNDS {
                let (received, filled) = self.connection.receive(buffer).await;
                let received = received?;
                if received == 0 {
                    break 'talk;
                }
                self.tally.received += received as u64;
                let (sent, emptied) = self.connection.send(filled).await;
                self.tally.sent += sent? as u64;
                buffer = emptied;
            }
            yield_now().await;
        }
        self.state.ended(DisconnectKind::Graceful);
        // A peer that reads nothing could put the end off for ever. Closing resets the connection then.
        let cache = self.tally.gate.spawner.cache();
        timeout_in(PARTING, cache, self.connection.disconnect()).await?
    }
}
