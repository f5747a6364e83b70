//! The thread of a network, and the state that it shares with tasks and with `stop`.

use core::pin::Pin;
use core::task::Poll;
use core::time::Duration;

use wsk_sys::nt::DEVICE_OBJECT;

use super::{Net, NetworkConfig, Report, Stage};
use crate::busy::StillBusy;
use crate::client::{Client, Provider};
use crate::error::{Error, Operation, Result, Status};
use crate::executor::{Executor, SpawnError, Thread};
use crate::irql::Passive;
use crate::memory::Ref;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Event, EventKind, Registered, SpinLock, Waiter, Waiters};
use crate::time::Deadline;

/// The least time between two reports of what the end waits for.
const LEAST_INTERVAL: Duration = Duration::from_millis(1);

/// Time between two looks at whether the network stops, while WSK is waited for.
const CAPTURE_SLICE: Duration = Duration::from_millis(200);

/// Device object of the driver, or null.
///
/// # Invariants
/// It is there until the network was stopped.
#[derive(Clone, Copy)]
pub(super) struct Device(*mut DEVICE_OBJECT);

// SAFETY: device objects may be named on any thread.
unsafe impl Send for Device {}
// SAFETY: device objects may be named on any thread.
unsafe impl Sync for Device {}

impl Device {
    pub(super) fn new(device: *mut DEVICE_OBJECT) -> Self {
        Self(device)
    }
}

/// The state of a network.
pub(super) struct Shared {
    config: NetworkConfig,
    device: Device,
    stopping: AtomicBool,
    /// The futures that wait for the network to stop.
    waiters: Waiters,
    /// The number of tasks that are waited for.
    tasks: AtomicUsize,
    /// Set when the network is to stop, and when the last task has ended.
    wake: Event,
    /// Outcome of the start, as soon as there is one.
    outcome: SpinLock<Option<Result>>,
    /// Set when there is an outcome.
    concluded: Event,
}

/// A task that is waited for.
pub(super) struct Task(Ref<Shared>);

impl Task {
    /// Reports the failure of the driver's own function, and ends the task.
    pub(super) fn failed_unless(self, served: Result) {
        match served {
            Ok(()) => self.0.conclude(Ok(())),
            Err(error) => {
                self.0.failed(Stage::Serve, error);
                // The other tasks have nothing to wait for any more.
                self.0.request_stop();
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.0.tasks.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.wake.set();
        }
    }
}

impl Shared {
    pub(super) fn try_new(mut config: NetworkConfig, device: Device) -> Result<Ref<Self>> {
        config.interval = config.interval.max(LEAST_INTERVAL);
        let event =
            |kind| Event::try_new(kind).map_err(|error| Error::from(error).during(Operation::Network));
        let shared = Self {
            config,
            device,
            stopping: AtomicBool::new(false),
            waiters: Waiters::new(),
            tasks: AtomicUsize::new(0),
            wake: event(EventKind::Synchronization)?,
            outcome: SpinLock::new(None),
            concluded: event(EventKind::Notification)?,
        };
        Ref::try_new(shared).map_err(|error| Error::from(error).during(Operation::Network))
    }

    /// Counts a task.
    pub(super) fn task(this: &Ref<Self>) -> Task {
        this.tasks.fetch_add(1, Ordering::Relaxed);
        Task(this.clone())
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn request_stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.waiters.wake_all();
        self.wake.set();
    }

    /// Resolves when the network stops.
    pub(super) async fn stopping(this: Ref<Self>) {
        let waiter = Stopping { shared: this, waiter: Waiter::new() };
        let waiter = core::pin::pin!(waiter);
        let waiter = waiter.into_ref();
        core::future::poll_fn(|context| waiter.poll(context.waker())).await;
    }

    /// Sets the outcome of the start, if there is none yet.
    pub(super) fn conclude(&self, outcome: Result) {
        self.outcome.with(|concluded| _ = concluded.get_or_insert(outcome));
        self.concluded.set();
    }

    /// Reports a failure.
    pub(super) fn failed(&self, stage: Stage, error: Error) {
        self.conclude(Err(error));
        (self.config.report)(&Report { stage, error: Some(error), left: [(0, ""); 2] });
    }

    /// Reports what the end waits for.
    fn waits<T>(&self, stage: Stage, busy: &StillBusy<T>) {
        let left = busy.left.map(|left| (left.count, left.kind));
        (self.config.report)(&Report { stage, error: None, left });
    }

    /// Body of the thread: runs until nothing of the network is left.
    pub(super) fn run(
        this: &Ref<Self>,
        passive: Passive<'_>,
        serve: &mut dyn FnMut(Net) -> core::result::Result<(), SpawnError>,
    ) {
        // SAFETY: the device is there until the network was stopped, by its invariant.
        let client = match unsafe { Client::register_for(passive, this.device.0) } {
            Ok(client) => client,
            Err(error) => return this.failed(Stage::Register, error),
        };
        match this.capture(passive, &client) {
            Ok(Some(provider)) => Self::run_tasks(this, passive, provider, serve),
            Ok(None) => {}
            Err(error) => this.failed(Stage::Capture, error),
        }
        // Unless it has come to more.
        this.conclude(Err(Error::new(Operation::Network, Status::CANCELLED)));
        this.unload(passive, client);
    }

    /// Waits for WSK; `None` if the network stops first.
    fn capture(&self, passive: Passive<'_>, client: &Client) -> Result<Option<Provider>> {
        let deadline = Deadline::after(self.config.capture);
        loop {
            let left = deadline.remaining();
            match client.capture(passive, left.min(CAPTURE_SLICE)) {
                // One that stops has nothing to serve.
                Ok(provider) => return Ok((!self.is_stopping()).then_some(provider)),
                Err(_) if self.is_stopping() => return Ok(None),
                // Only that WSK is not there yet passes.
                Err(error) if error.status() != Status::DEVICE_NOT_READY || left <= CAPTURE_SLICE => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
    }

    /// Runs the driver's tasks until they have ended or the network stops.
    fn run_tasks(
        this: &Ref<Self>,
        passive: Passive<'_>,
        provider: Provider,
        serve: &mut dyn FnMut(Net) -> core::result::Result<(), SpawnError>,
    ) {
        let executor = match Executor::start(passive, this.config.threads) {
            Ok(executor) => executor,
            Err(error) => return this.failed(Stage::Start, error),
        };
        let net = Net { provider, spawner: executor.spawner(), shared: this.clone() };
        match serve(net) {
            Ok(()) => this.wait(passive),
            Err(error) => this.failed(Stage::Start, error.into()),
        }
        this.stop_executor(passive, executor);
    }

    /// Waits for the last task, or for the network to stop and then for the time that tasks have.
    fn wait(&self, passive: Passive<'_>) {
        let tasks_left = || self.tasks.load(Ordering::Acquire) > 0;
        while tasks_left() && !self.is_stopping() {
            self.wake.wait(passive, None);
        }
        // The network stops also when it has ended by itself, and whatever is started now is to know.
        self.request_stop();
        let (deadline, interval) = (Deadline::after(self.config.drain), self.config.interval);
        while tasks_left() {
            let left = deadline.remaining();
            if left.is_zero() {
                break;
            }
            if !self.wake.wait(passive, Some(left.min(interval))) && left > interval {
                // None, if the last has just ended.
                let tasks = self.tasks.load(Ordering::Acquire);
                let left = [(tasks, "tasks"), (0, "")];
                if tasks > 0 {
                    (self.config.report)(&Report { stage: Stage::StopTasks, error: None, left });
                }
            }
        }
    }

    fn stop_executor(&self, passive: Passive<'_>, mut executor: Executor) {
        // Tasks that the network has not waited for are told as well.
        self.request_stop();
        while let Err(busy) = executor.stop(passive, self.config.interval) {
            self.waits(Stage::StopTasks, &busy);
            executor = busy.into_inner();
        }
    }

    fn unload(&self, passive: Passive<'_>, mut client: Client) {
        while let Err(busy) = client.unload(passive, self.config.interval) {
            self.waits(Stage::Unload, &busy);
            client = busy.into_inner();
        }
    }
}

/// A future that waits for the network to stop.
struct Stopping {
    shared: Ref<Shared>,
    waiter: Waiter,
}

impl Stopping {
    fn poll(self: Pin<&Self>, waker: &core::task::Waker) -> Poll<()> {
        let this = self.get_ref();
        // SAFETY: the waiter is pinned with the whole and never moved out of it.
        let waiter = unsafe { Pin::new_unchecked(&this.waiter) };
        // SAFETY: it is in this list alone, and `drop` takes it out.
        match unsafe { this.shared.waiters.register(waiter, waker, || this.shared.is_stopping()) } {
            Registered::Over => Poll::Ready(()),
            Registered::New { .. } | Registered::Again => Poll::Pending,
        }
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        // SAFETY: `poll` lists it there alone.
        unsafe { self.shared.waiters.remove(&self.waiter) };
    }
}

/// The thread of a network.
#[derive(Clone)]
pub(super) struct Running(Ref<Parts>);

struct Parts {
    thread: Thread,
    latch: Ref<Latch>,
    shared: Ref<Shared>,
}

/// Latch that holds the thread back at its start.
struct Latch {
    event: Event,
    admitted: AtomicBool,
}

impl Running {
    /// Starts the thread, which waits to be [released](Running::release).
    pub(super) fn spawn<B>(passive: Passive<'_>, shared: Ref<Shared>, body: B) -> Result<Self>
    where
        B: FnOnce(Passive<'_>) + Send + 'static,
    {
        let out_of_memory = |error| Error::from(error).during(Operation::Network);
        let event = Event::try_new(EventKind::Notification).map_err(out_of_memory)?;
        let latch = Latch { event, admitted: AtomicBool::new(false) };
        let latch = Ref::try_new(latch).map_err(out_of_memory)?;
        let own = latch.clone();
        let thread = Thread::spawn(passive, move |passive| {
            own.event.wait(passive, None);
            if own.admitted.load(Ordering::Acquire) {
                body(passive);
            }
        })
        // Should there be a thread after all, it ends.
        .inspect_err(|_| latch.event.set())?;
        let parts = Parts { thread, latch, shared };
        Ref::try_make(None, parts, |parts| parts).map(Self).map_err(|(error, parts)| {
            // The thread ends at once, without having done anything.
            parts.latch.event.set();
            parts.thread.wait(passive, None);
            out_of_memory(error)
        })
    }

    /// Lets the thread go: to do its work, or to end.
    pub(super) fn release(&self, admitted: bool) {
        self.0.latch.admitted.store(admitted, Ordering::Release);
        self.0.latch.event.set();
    }

    pub(super) fn request_stop(&self) {
        self.0.shared.request_stop();
    }

    /// Waits until the thread has left the driver's code; returns whether it has within `limit`.
    pub(super) fn wait(&self, passive: Passive<'_>, limit: Option<Duration>) -> bool {
        self.0.thread.wait(passive, limit)
    }

    /// Waits for the outcome of the start.
    pub(super) fn wait_ready(&self, passive: Passive<'_>, limit: Duration) -> Result {
        let shared = &self.0.shared;
        shared.concluded.wait(passive, Some(limit));
        let outcome = shared.outcome.with(|concluded| *concluded);
        outcome.unwrap_or(Err(Error::new(Operation::Network, Status::IO_TIMEOUT)))
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Ref::ptr_eq(&self.0, &other.0)
    }
}
