//! One session: every byte is sent back, and after the peer has ended its sending, what is owed is sent
//! before this side ends, too.
//!
//! ```text
//!   receive ──► send ──► receive … ──► end of the other side ──► disconnect ──► close
//!      │          │
//!      └──────────┴── error: close, which resets what is left
//! ```
//!
//! A connection that is idle for as long as the policy allows is closed, which resets it: idle clients must
//! not keep others out. What is sent back counts as taken when all of a piece is, which is what arrived in
//! one go, up to 8 KiB. WSK does not report parts of it, so a peer that reads more slowly than that loses the
//! connection, too.
//!
//! A session that is dropped, as all are at unload, closes its connection in the background.

use core::future::poll_fn;
use core::net::SocketAddr;
use core::pin::pin;
use core::sync::atomic::{AtomicU8, Ordering};
use core::task::Poll;
use core::time::Duration;

use wsk::executor::{SpawnError, Spawner, yield_now};
use wsk::memory::{Cache, OutOfMemory, Ref};
use wsk::sync::SpinLock;
use wsk::time::{sleep_in, timeout_in};
use wsk::{Buffer, Connection, DisconnectHandler, Handlers, Status};

use crate::Reason;
use crate::clients::{ClientKind, ClientPermit};
use crate::clock::LastActivity;
use crate::gate::Shared;
use crate::record::{AcceptBy, DisconnectKind, Record, RecordSink};
use crate::rules::Rules;

/// Size of a connection's buffer.
const BUFFER: usize = 8 * 1024;

/// After so many rounds in which nothing made it wait, a session lets others run.
const ROUNDS_PER_TURN: u32 = 16;

/// Limit on the graceful disconnect.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

/// A connection is looked at this often at least: the policy may say something else about silence by then.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The handlers of a connection.
pub(crate) type Events<S> = Handlers<(), DisconnectRecorder<S>>;

/// Hears when the other side ends a connection.
#[derive(Debug)]
pub(crate) struct DisconnectRecorder<S>(Ref<State<S>>);

impl<S: RecordSink> DisconnectHandler for DisconnectRecorder<S> {
    fn disconnected(&self, kind: wsk::DisconnectKind) {
        self.0.ended(match kind {
            wsk::DisconnectKind::Graceful => DisconnectKind::Graceful,
            wsk::DisconnectKind::Abortive => DisconnectKind::Abortive,
        });
    }
}

/// A connection as its handlers and its session see it.
#[derive(Debug)]
pub(crate) struct PreparedSession<S>(Ref<State<S>>);

#[derive(Debug)]
struct State<S> {
    shared: Ref<Shared<S>>,
    /// Known when the connection is there; the memory is there before.
    remote: SpinLock<Option<SocketAddr>>,
    /// Disconnects of the peer that are recorded.
    ended: AtomicU8,
}

const GRACEFUL: u8 = 1;
const ABORTIVE: u8 = 2;

impl<S: RecordSink> State<S> {
    /// Records that the other side ended the connection. Both the event and the session can be the first to
    /// know: the event comes only for what happens after it was enabled.
    fn ended(&self, kind: DisconnectKind) {
        let before = match kind {
            DisconnectKind::Graceful => self.ended.fetch_or(GRACEFUL, Ordering::Relaxed),
            DisconnectKind::Abortive => self.ended.fetch_or(ABORTIVE, Ordering::Relaxed) & ABORTIVE,
        };
        let remote = self.remote.with(|remote| *remote);
        if let (0, Some(remote)) = (before, remote) {
            self.shared.sink.record(Record::Disconnect { remote, kind });
        }
    }
}

impl<S: RecordSink> PreparedSession<S> {
    /// Sets up what a connection needs, before there is one.
    pub(crate) fn try_new(shared: &Ref<Shared<S>>) -> Result<Self, OutOfMemory> {
        let state = State { shared: shared.clone(), remote: SpinLock::new(None), ended: AtomicU8::new(0) };
        Ref::try_new_in(state, shared.spawner.cache()).map(Self).map_err(|(error, _)| error)
    }

    /// The handlers for the connection.
    pub(crate) fn events(&self) -> Events<S> {
        Handlers::new().disconnect(DisconnectRecorder(self.0.clone()))
    }

    /// Records that the connection is there, or why it cannot be served: then it is to be dropped.
    pub(crate) fn accepted(&self, remote: SocketAddr, by: AcceptBy) -> Option<ConnectionStats<S>> {
        let State { shared, remote: known, .. } = &*self.0;
        match shared.policy.admit(remote.ip(), ClientKind::Connected, shared.spawner.cache()) {
            Ok(permit) => {
                known.with(|known| *known = Some(remote));
                shared.sink.record(Record::Accepted { remote, by });
                Some(ConnectionStats {
                    shared: shared.clone(),
                    remote,
                    received: 0,
                    sent: 0,
                    _permit: permit,
                })
            }
            Err(reason) => {
                shared.sink.record(Record::Dropped { remote, reason });
                None
            }
        }
    }
}

/// Byte counts of a connection; recorded when it is closed.
#[derive(Debug)]
pub(crate) struct ConnectionStats<S: RecordSink> {
    shared: Ref<Shared<S>>,
    remote: SocketAddr,
    received: u64,
    sent: u64,
    _permit: ClientPermit,
}

impl<S: RecordSink> Drop for ConnectionStats<S> {
    fn drop(&mut self) {
        let Self { remote, received, sent, .. } = *self;
        self.shared.sink.record(Record::Closed { remote, received, sent });
    }
}

/// Serves a connection, if there is memory for a task; if not, the connection is closed.
///
/// IRQL: up to `DISPATCH_LEVEL`.
pub(crate) fn start<S: RecordSink>(
    spawner: &Spawner,
    connection: Connection,
    prepared: PreparedSession<S>,
    stats: ConnectionStats<S>,
) {
    // The order of the fields is the order in which a session that is not run, or not run to its end, goes.
    let session = Session { connection, stats, state: prepared.0 };
    let (state, remote) = (session.state.clone(), session.stats.remote);
    // An error has dropped the session.
    if spawner.spawn(session.run()) == Err(SpawnError::OutOfMemory) {
        state.shared.sink.record(Record::Dropped { remote, reason: Reason::Memory });
    }
}

struct Session<S: RecordSink> {
    connection: Connection,
    stats: ConnectionStats<S>,
    state: Ref<State<S>>,
}

impl<S: RecordSink> Session<S> {
    async fn run(mut self) {
        let outcome = self.serve().await;
        let Self { connection, stats, state } = self;
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.is_out_of_memory() => {
                state.shared.sink.record(Record::Dropped { remote: stats.remote, reason: Reason::Memory });
            }
            Ok(Err(error)) => {
                if [Status::CONNECTION_RESET, Status::CONNECTION_DISCONNECTED, Status::REMOTE_DISCONNECT]
                    .contains(&error.status())
                {
                    state.ended(DisconnectKind::Abortive);
                }
            }
            Err(reason) => state.shared.sink.record(Record::Dropped { remote: stats.remote, reason }),
        }
        connection.close().await;
        drop(stats);
    }

    /// Serves until the peer ends, or until it is idle for too long or no timer is available, which is an
    /// error.
    async fn serve(&mut self) -> Result<wsk::Result<()>, Reason> {
        let (state, last) = (self.state.clone(), LastActivity::now());
        let Shared { policy, spawner, .. } = &*state.shared;
        let mut idle = pin!(wait_until_idle(policy, spawner.cache(), &last));
        let mut echo = pin!(self.echo(&last));
        poll_fn(|context| match echo.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(Ok(outcome)),
            Poll::Pending => idle.as_mut().poll(context).map(Err),
        })
        .await
    }

    /// Sends everything back until the other side ends, then ends this side.
    async fn echo(&mut self, last: &LastActivity) -> wsk::Result<()> {
        let mut buffer = Buffer::try_with_capacity(BUFFER)?;
        'talk: loop {
            for _ in 0..ROUNDS_PER_TURN {
                let (received, filled) = self.connection.receive(buffer).await;
                let received = received?;
                last.touch();
                if received == 0 {
                    break 'talk;
                }
                self.stats.received += received as u64;
                let (sent, emptied) = self.connection.send(filled).await;
                self.stats.sent += sent? as u64;
                last.touch();
                buffer = emptied;
            }
            yield_now().await;
        }
        self.state.ended(DisconnectKind::Graceful);
        // A peer that reads nothing could put the end off for ever. Closing resets the connection then.
        let cache = self.stats.shared.spawner.cache();
        timeout_in(SHUTDOWN_LIMIT, cache, self.connection.shutdown()).await?
    }
}

/// Waits until nothing has happened since `last` for as long as the policy allows. One timer does, however
/// much is said meanwhile.
///
/// Without memory for a timer the connection ends, if idle time is limited. If not, the limit is checked
/// again when the session has something else to do.
async fn wait_until_idle(policy: &Rules, cache: &Cache, last: &LastActivity) -> Reason {
    loop {
        let limit = policy.idle_timeout();
        let wait = match limit.map(|limit| limit.saturating_sub(last.elapsed())) {
            Some(Duration::ZERO) => return Reason::Idle,
            Some(wait) => wait.min(IDLE_CHECK_INTERVAL),
            None => IDLE_CHECK_INTERVAL,
        };
        if sleep_in(wait, cache).await.is_err() {
            if limit.is_some() {
                return Reason::Memory;
            }
            next_poll().await;
        }
    }
}

/// Waits until the task is polled again, for whatever reason.
async fn next_poll() {
    let mut is_next = false;
    poll_fn(|_| if core::mem::replace(&mut is_next, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

#[cfg(test)]
mod tests;
