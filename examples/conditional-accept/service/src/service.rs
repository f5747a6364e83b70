//! The service as a whole: started when the driver is loaded, and ended when it is unloaded.
//!
//! ```text
//!   start: register ─► capture ─► executor ─► listener ─► accepts in flight, or the accept event on ─┐
//!                                                ▲                                                   │
//!                                                └── bind again, at longer and longer intervals ◄────┘
//!                                                                     WSK abandons it: recorded
//!   unload: tasks dropped (sessions close, askers reject) ─► listener closed ─► released, deregistered
//! ```

use core::fmt;
use core::marker::PhantomData;
use core::net::SocketAddr;
use core::time::Duration;

use wsk::executor::Executor;
use wsk::memory::Ref;
use wsk::sync::{Event, EventKind, SpinLock};
use wsk::{
    Client, CloseReason, Error, Events, Listener, ListenerEvents, Operation, Passive, Provider, Result,
    Status,
};

use crate::gate::{Gate, Shared};
use crate::policy::Answer;
use crate::questions::QuestionQueue;
use crate::record::{AcceptBy, Record, RecordSink};
use crate::rules::Rules;
use crate::session::{self, PreparedSession};

/// Limit on the wait for WSK at start.
const CAPTURE_LIMIT: Duration = Duration::from_secs(5);

/// After so long it is said what an end still waits for.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Limit on the creation of the listener.
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
    /// Number of executor threads.
    pub threads: usize,
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

/// The running service.
#[derive(Debug)]
pub struct Service<S: RecordSink> {
    local: SocketAddr,
    /// The executor, until `unload` has stopped it.
    executor: Option<Executor>,
    client: Option<Client>,
    /// Its tasks have the sink.
    _sink: PhantomData<fn() -> S>,
}

impl<S: RecordSink> Service<S> {
    /// Starts the service and records that it listens. Waits at most five seconds for WSK, and for the
    /// listener.
    ///
    /// If it fails, it undoes everything before it returns, and reports to `left` every five seconds what
    /// that waits for.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Those of registering, capturing and binding; nothing is left behind then.
    pub fn start(
        settings: Settings,
        sink: S,
        left: impl Fn(&StillBusy),
        passive: Passive<'_>,
    ) -> Result<Self> {
        Self::start_with(Client::register(passive)?, settings, sink, left, passive)
    }

    /// Does the same with a client. Its registration decides what keeps the driver's image: a driver that can
    /// be unloaded passes one of [`Client::register_for`]. The client is unloaded with the service, or if the
    /// service does not start.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(
        client: Client,
        settings: Settings,
        sink: S,
        left: impl Fn(&StillBusy),
        passive: Passive<'_>,
    ) -> Result<Self> {
        let mut service =
            Self { local: settings.listen, executor: None, client: Some(client), _sink: PhantomData };
        match service.open(settings, sink, passive) {
            Ok(()) => Ok(service),
            Err(error) => {
                service.end(left, passive);
                Err(error)
            }
        }
    }

    /// Unloads the service without a time limit; reports to `left` every five seconds what it waits for.
    ///
    /// It does not give up: unloading a driver that WSK can still call would crash the system.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    pub fn end(mut self, left: impl Fn(&StillBusy), passive: Passive<'_>) {
        while let Err(still_up) = self.unload(REPORT_INTERVAL, passive) {
            left(&still_up);
        }
    }

    fn open(&mut self, settings: Settings, sink: S, passive: Passive<'_>) -> Result<()> {
        let Some(client) = &self.client else { return Ok(()) };
        let provider = client.capture(passive, CAPTURE_LIMIT)?;
        let executor = self.executor.insert(Executor::start(passive, settings.threads)?);
        let Settings { listen, policy, asker, accept_by, .. } = settings;
        let shared = Shared { policy, asker, sink, spawner: executor.spawner() };
        let shared = Ref::try_new(shared)?;
        let started = Started::try_new()?;
        executor.spawner().spawn(run_listener(provider, shared, listen, accept_by, started.clone()))?;
        started.event.wait(passive, Some(BIND_LIMIT));
        let outcome = started.outcome.with(Option::take);
        self.local = outcome.unwrap_or(Err(Error::new(Operation::Bind, Status::IO_TIMEOUT)))?;
        Ok(())
    }

    /// Returns the address of the listener, with the assigned port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Ends the service: clients are disconnected, requests dropped, and nothing of it is left. Each of the
    /// two waits, for the tasks and for WSK, ends after `limit`.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// [`StillBusy`] when the time was not enough. It can be called again, and a driver must not be unloaded
    /// before it has succeeded.
    pub fn unload(&mut self, limit: Duration, passive: Passive<'_>) -> core::result::Result<(), StillBusy> {
        if let Some(executor) = self.executor.take()
            && let Err(error) = executor.stop(passive, limit)
        {
            let tasks = error.tasks().max(error.threads());
            self.executor = Some(error.into_inner());
            return Err(StillBusy { tasks, sockets: 0, providers: 0 });
        }
        // The tasks had the listener. It closes in the background, which `unload` waits for.
        if let Some(client) = self.client.take()
            && let Err(held) = client.unload(passive, limit)
        {
            let (sockets, providers) = (held.sockets(), held.providers());
            self.client = Some(held.into_inner());
            return Err(StillBusy { tasks: 0, sockets, providers });
        }
        Ok(())
    }
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

/// Outcome of the first attempt to listen.
#[derive(Clone)]
struct Started {
    outcome: Ref<SpinLock<Option<Result<SocketAddr>>>>,
    event: Event,
}

impl Started {
    fn try_new() -> Result<Self> {
        let outcome = Ref::try_new(SpinLock::new(None))?;
        Ok(Self { outcome, event: Event::try_new(EventKind::Notification)? })
    }

    fn report(&self, outcome: Result<SocketAddr>) {
        self.outcome.with(|told| *told = Some(outcome));
        self.event.set();
    }
}

/// Listens and serves; when WSK has given the listener up, which is recorded, on another one at the same
/// address. Ends when the first attempt to listen fails.
///
/// It has the capture, which ends with it, and the tasks of the executor end before the client is unloaded.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice, and moves them when it is polled first"
)]
fn run_listener<S: RecordSink>(
    provider: Provider,
    shared: Ref<Shared<S>>,
    mut local: SocketAddr,
    accept_by: AcceptBy,
    started: Started,
) -> impl Future<Output = ()> + Send {
    async move {
        let mut pauses = 0;
        loop {
            match bind(&provider, &shared, local).await {
                Ok(listener) => {
                    local = listener.local_addr();
                    shared.sink.record(Record::Loaded { local });
                    if pauses == 0 {
                        started.report(Ok(local));
                    }
                    start_accepting(&shared, &listener, accept_by).await;
                    if listener.closed().await != CloseReason::Dead {
                        return;
                    }
                    shared.sink.record(Record::Died { local });
                    pauses = 1;
                }
                Err(error) if pauses == 0 => return started.report(Err(error)),
                Err(_) => {
                    // The cause may pass: another socket that has taken the address may be closed.
                    for _ in 0..pauses {
                        provider.pause().await;
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

/// Resources that [`Service::unload`] was still waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StillBusy {
    /// Tasks that had not ended, or the threads that had run them.
    pub tasks: usize,
    /// Sockets that had not closed.
    pub sockets: usize,
    /// Captures of WSK that were not released, or the registration, which ends last. One of the three is
    /// never zero.
    pub providers: usize,
}

impl fmt::Display for StillBusy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tasks, sockets, providers } = self;
        write!(
            f,
            "the service did not stop in time: {tasks} tasks, {sockets} sockets and {providers} captures \
             remain"
        )
    }
}

impl core::error::Error for StillBusy {}
