//! The service as a whole: what runs on a driver's [`Network`](wsk::Network).
//!
//! ```text
//!   serve: listener ─► ready ─► accepts in flight, or the accept event on ─┐
//!             ▲                                                            │
//!             └── bind again, at longer and longer intervals ◄─────────────┘
//!                                              WSK abandons it: recorded
//!   the network stops: tasks dropped (sessions close, askers reject) ─► listener closed
//! ```

use core::net::SocketAddr;
use core::time::Duration;

use wsk::memory::Ref;
use wsk::time::timeout;
use wsk::{CloseReason, Events, Listener, ListenerEvents, Net, NetworkConfig, Provider, Report, Result};

use crate::gate::{Gate, Shared};
use crate::policy::Answer;
use crate::questions::QuestionQueue;
use crate::record::{AcceptBy, Record, RecordSink};
use crate::rules::Rules;
use crate::session::{self, PreparedSession};

/// Limit on the wait for WSK at start.
const CAPTURE_LIMIT: Duration = Duration::from_secs(5);

/// Limit on an attempt to listen.
const BIND_LIMIT: Duration = Duration::from_secs(5);

/// Number of accept requests in flight.
const ACCEPTS_IN_FLIGHT: usize = 32;

/// The most pauses between two attempts to listen again; each is a quarter of a second.
const MAX_PAUSES: u32 = 32;

/// Settings of the service.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to listen on; port 0 requests a free port.
    pub listen: SocketAddr,
    /// Policy for connection requests, and limits on clients.
    pub policy: Rules,
    /// Source of answers for pended requests.
    pub asker: Asker,
    /// Accept path.
    pub accept_by: AcceptBy,
}

/// Source of answers for pended requests.
#[derive(Clone, Debug)]
pub enum Asker {
    /// A timer: every request gets the same answer.
    Timed {
        /// The answer.
        answer: Answer,
        /// Time until the answer.
        after: Duration,
    },
    /// User-mode programs, through the control device; reject if none does in time.
    Programs(QuestionQueue),
}

/// Returns the configuration of the network that the service runs on: WSK has five seconds to be there, and
/// tasks are dropped when the network stops, which disconnects clients and rejects requests.
pub const fn config(threads: usize, report: fn(&Report)) -> NetworkConfig {
    NetworkConfig { threads, capture: CAPTURE_LIMIT, drain: Duration::ZERO, report, ..NetworkConfig::DEFAULT }
}

/// Makes the listener.
async fn bind<S: RecordSink>(
    provider: &Provider,
    shared: &Ref<Shared<S>>,
    local: SocketAddr,
) -> Result<Ref<Listener>> {
    let gate = Gate(shared.clone());
    let builder = provider.listener().inspect(gate.clone()).on_abort(gate.clone()).on_accept(gate);
    let listener = builder.bind(local).await?;
    Ok(Ref::try_new(listener)?)
}

/// Listens, reports that it is ready, and serves; when WSK has given the listener up, which is recorded, on
/// another one at the same address.
///
/// # Errors
/// Out of memory, or that of the first attempt to listen, which has five seconds.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice, and moves them when it is polled first"
)]
pub fn serve<S: RecordSink>(net: Net, settings: Settings, sink: S) -> impl Future<Output = Result> + Send {
    async move {
        let Settings { listen: mut local, policy, asker, accept_by } = settings;
        let shared = Ref::try_new(Shared { policy, asker, sink, spawner: net.spawner().clone() })?;
        let mut pauses = 0;
        loop {
            let bound = timeout(BIND_LIMIT, bind(net.provider(), &shared, local)).await;
            match bound.and_then(|bound| bound) {
                Ok(listener) => {
                    local = listener.local_addr();
                    shared.sink.record(Record::Loaded { local });
                    net.ready();
                    start_accepting(&shared, &listener, accept_by).await;
                    if listener.closed().await != CloseReason::Dead {
                        return Ok(());
                    }
                    shared.sink.record(Record::Died { local });
                    pauses = 1;
                }
                Err(error) if pauses == 0 => return Err(error),
                Err(_) => {
                    // The cause may pass: another socket that has taken the address may be closed.
                    for _ in 0..pauses {
                        net.provider().pause().await;
                    }
                    pauses = (pauses * 2).min(MAX_PAUSES);
                }
            }
        }
    }
}

/// Starts to accept connections, as soon as memory allows.
async fn start_accepting<S: RecordSink>(
    shared: &Ref<Shared<S>>,
    listener: &Ref<Listener>,
    accept_by: AcceptBy,
) {
    let mut left = if accept_by == AcceptBy::Irp { ACCEPTS_IN_FLIGHT } else { 1 };
    while left > 0 && listener.is_open() {
        let begun = match accept_by {
            AcceptBy::Event => {
                listener.inherit(Events::DISCONNECT).is_ok()
                    && listener.enable(ListenerEvents::ACCEPT).is_ok()
            }
            AcceptBy::Irp => shared.spawner.spawn(accept(shared.clone(), listener.clone())).is_ok(),
        };
        if begun {
            left -= 1;
        } else {
            listener.pause().await;
        }
    }
}

/// Takes one connection after the other, until the listener is closed.
async fn accept<S: RecordSink>(shared: Ref<Shared<S>>, listener: Ref<Listener>) {
    while listener.is_open() {
        if let Ok(prepared) = PreparedSession::try_new(&shared)
            && let Ok(connection) = listener.accept_with(prepared.events()).await
        {
            // A connection over the limits is dropped here, which resets it.
            let Some(stats) = prepared.accepted(connection.peer_addr(), AcceptBy::Irp) else { continue };
            // If it fails, the session notices the end by itself.
            let _ = connection.enable(Events::DISCONNECT);
            session::start(&shared.spawner, connection, prepared, stats);
        } else if listener.is_open() {
            // Memory is out, or a client was gone before its turn came.
            listener.pause().await;
        }
    }
}
