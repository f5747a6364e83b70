//! A driver's network part: everything between `DriverEntry` and `DriverUnload` that every driver with
//! sockets needs.
//!
//! ```text
//!   start ──▶ a system thread: register ─▶ capture (bounded) ─▶ executor ─▶ serve(net)
//!                                 │               │                │          │
//!                                 └───────────────┴────────────────┘          ├── returns
//!                                        fails: reported                      │
//!                                              │                              ├── stop: `stopping` resolves,
//!                                              │                              │ tasks have up to `drain`
//!                                              ▼                              ▼
//!                    tasks are dropped, sockets close, the client deregisters: for as long as that takes,
//!                    reported every `interval`
//!                                              │
//!                                              ▼
//!   stop returns ◀── the thread object is signaled: the thread has left the driver's code
//! ```
//!
//! When `serve` fails, that is reported, and the network stops as if it were asked to. A [`Started`] that is
//! dropped, on a failure path of `DriverEntry`, stops the network and waits, too.
//!
//! `DriverEntry` never waits for WSK, which may start after the driver: the thread does.

mod report;
mod shared;

use core::fmt;
use core::future::Future;
use core::task::Poll;
use core::time::Duration;

pub use report::{Report, Stage};
use shared::{Device, Running, Shared};

use wsk_sys::nt::DEVICE_OBJECT;

use crate::client::Provider;
use crate::error::{Error, Operation, Result, Status};
use crate::executor::{SpawnError, Spawner};
use crate::irql::Passive;
use crate::memory::Ref;
use crate::sync::SpinLock;

/// Configuration of a [`Network`].
#[derive(Clone, Copy, Debug)]
pub struct NetworkConfig {
    /// The number of threads that run tasks; at least one is started.
    pub threads: usize,
    /// The longest time to wait for WSK to be there.
    pub capture: Duration,
    /// The longest time that tasks have to end by themselves when the network stops; then they are dropped.
    pub drain: Duration,
    /// Called with each failure, and every few seconds while the end of the network is waited for: at
    /// `PASSIVE_LEVEL`, on a thread of the network or of its executor. Calls may overlap.
    pub report: fn(&Report),
    /// The time between two reports of what the end of the network waits for; at least a millisecond.
    pub interval: Duration,
}

impl NetworkConfig {
    /// Two threads, a minute for WSK to be there, five seconds for tasks to end, and no reports,
    /// which would come every five seconds.
    pub const DEFAULT: Self = Self {
        threads: 2,
        capture: Duration::from_mins(1),
        drain: Duration::from_secs(5),
        report: |_| {},
        interval: Duration::from_secs(5),
    };
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The network part of a driver, in a static.
///
/// Starting it registers with WSK, captures it, starts an executor and runs an asynchronous function on that.
/// Stopping it, or any failure, undoes all of that and waits for it, so that the driver's image may go.
///
/// ```
/// use wsk::{Network, NetworkConfig, Net, Passive, Result};
/// # type Device = *mut wsk_sys::nt::DEVICE_OBJECT;
///
/// static NETWORK: Network = Network::new();
///
/// /// The part of `DriverEntry` that comes when there is a device.
/// ///
/// /// # Safety
/// /// `device` is one of this driver, which is deleted after this has failed, or after `unload`.
/// unsafe fn entry(passive: Passive<'_>, device: Device, link: impl FnOnce() -> Result) -> Result {
///     // SAFETY: the device is there until the network was stopped.
///     let network = unsafe { NETWORK.start_for(passive, device, NetworkConfig::DEFAULT, serve) }?;
///     // On failure `network` is dropped, which stops the network and waits for it.
///     link()?;
///     network.keep();
///     Ok(())
/// }
///
/// /// The part of `DriverUnload` that comes before the device is deleted.
/// fn unload(passive: Passive<'_>) {
///     NETWORK.stop(passive);
/// }
///
/// async fn serve(net: Net) -> Result {
///     let listener = net.provider().listener().bind(([0, 0, 0, 0], 7007).into()).await?;
///     // Accept connections until the network stops.
///     net.stopping().await;
///     drop(listener);
///     Ok(())
/// }
/// ```
///
/// # Where to stop
/// In a WDM driver in `DriverUnload`. In a KMDF driver in the cleanup callback of the `WDFDRIVER`, because
/// `EvtDriverUnload` is not called after a `DriverEntry` that has failed.
pub struct Network {
    running: SpinLock<Option<Running>>,
}

impl Network {
    /// Creates a network that is not started.
    pub const fn new() -> Self {
        Self { running: SpinLock::new(None) }
    }

    /// Starts the network, for a driver whose image stays: one without a `DriverUnload`, or one that keeps
    /// its image by other means. A driver that can be unloaded uses [`Network::start_for`].
    ///
    /// Returns when there is a thread, and does not wait for WSK. Failures after that are reported
    /// ([`NetworkConfig::report`]), and leave a network that is to be stopped all the same.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the network is started already and was not stopped; out of memory, or
    /// the status of `PsCreateSystemThread`.
    pub fn start<'a, F, S>(
        &'static self,
        passive: Passive<'a>,
        config: NetworkConfig,
        serve: F,
    ) -> Result<Started<'a>>
    where
        F: FnOnce(Net) -> S + Send + 'static,
        S: Future<Output = Result> + Send + 'static,
    {
        // SAFETY: there is no device.
        unsafe { self.start_for(passive, core::ptr::null_mut(), config, serve) }
    }

    /// Starts the network, for a driver that can be unloaded: the I/O manager holds `device`, and with it the
    /// driver's image, until each completion routine has returned. See
    /// [`Client::register_for`](crate::Client::register_for).
    ///
    /// Otherwise the same as [`Network::start`].
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// The same as those of [`Network::start`].
    ///
    /// # Safety
    /// `device` is a device object of the driver that this code is part of, and it is there until the network
    /// was stopped. Null means [`Network::start`].
    pub unsafe fn start_for<'a, F, S>(
        &'static self,
        passive: Passive<'a>,
        device: *mut DEVICE_OBJECT,
        config: NetworkConfig,
        serve: F,
    ) -> Result<Started<'a>>
    where
        F: FnOnce(Net) -> S + Send + 'static,
        S: Future<Output = Result> + Send + 'static,
    {
        let shared = Shared::try_new(config, Device::new(device))?;
        let own = shared.clone();
        let body = move |passive: Passive<'_>| {
            let mut serve = Some(serve);
            Shared::run(&own, passive, &mut |net| match serve.take() {
                Some(serve) => {
                    let (spawner, task) = (net.spawner.clone(), Shared::task(&net.shared));
                    let served = serve(net);
                    // One future around the driver's, because each is a copy of it on the stack.
                    spawner.spawn(async move { task.failed_unless(served.await) })
                }
                None => Ok(()),
            });
        };
        let running = self.launch(passive, shared, body)?;
        Ok(Started { network: self, running: Some(running), passive })
    }

    /// Starts the thread, which does nothing before it is let go.
    fn launch<B>(&'static self, passive: Passive<'_>, shared: Ref<Shared>, body: B) -> Result<Running>
    where
        B: FnOnce(Passive<'_>) + Send + 'static,
    {
        let running = Running::spawn(passive, shared, body)?;
        let admitted = {
            let mut slot = self.running.lock();
            let free = slot.is_none();
            if free {
                *slot = Some(running.clone());
            }
            free
        };
        running.release(admitted);
        if admitted {
            return Ok(running);
        }
        // The thread ends at once, without having done anything.
        running.wait(passive, None);
        Err(Error::new(Operation::Network, Status::INVALID_DEVICE_STATE))
    }

    /// Stops the network and waits until nothing of it is left, for as long as that takes: [`Net::stopping`]
    /// resolves, tasks have [`NetworkConfig::drain`] to end by themselves and are dropped then, sockets are
    /// closed, the client deregisters, and the threads end. Every few seconds it is reported what is waited
    /// for.
    ///
    /// A [`Provider`] that is kept outside of tasks, in a static for instance, never lets this return; the
    /// report names it.
    ///
    /// It may be called at any time, several times, and on several threads. Afterwards the network can be
    /// started again.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`, outside of callbacks, completion routines, and reports and tasks of this network.
    pub fn stop(&self, passive: Passive<'_>) {
        let running = self.running.lock().clone();
        if let Some(running) = running {
            self.end(passive, &running, None);
        }
    }

    /// Does the same as [`Network::stop`], but waits no longer than `limit`, and returns whether nothing of
    /// the network is left. If something is, the end goes on, is reported as before
    /// ([`NetworkConfig::interval`]), and can be waited for again. Until then a start fails.
    ///
    /// After `false` a driver must neither delete its device nor return from `DriverUnload`, which cannot
    /// fail: there, call [`Network::stop`]. This is for a network that is switched off while the driver
    /// stays.
    ///
    /// ```
    /// # use core::time::Duration;
    /// # use wsk::{Network, Passive};
    /// static NETWORK: Network = Network::new();
    ///
    /// /// A device control request that switches the network off; returns whether it is.
    /// fn switch_off(passive: Passive<'_>) -> bool {
    ///     NETWORK.stop_within(passive, Duration::from_secs(10))
    /// }
    /// ```
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`, outside of callbacks, completion routines, and reports and tasks of this network.
    #[must_use = "a driver must not unload before the network has ended"]
    pub fn stop_within(&self, passive: Passive<'_>, limit: Duration) -> bool {
        let running = self.running.lock().clone();
        running.is_none_or(|running| self.end(passive, &running, Some(limit)))
    }

    /// Stops what was started, and returns whether that has ended within `limit`.
    fn end(&self, passive: Passive<'_>, running: &Running, limit: Option<Duration>) -> bool {
        running.request_stop();
        let over = running.wait(passive, limit);
        if over {
            let ended = self.running.lock().take_if(|current| current.is_same(running));
            // Freed outside of the lock.
            drop(ended);
        }
        over
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

/// A network that was started. Dropping it stops what this start has started and waits for that, as
/// [`Network::stop`] does, which is what a failure path of `DriverEntry` needs: `DriverUnload` is not called
/// after one. A later start of the same network is left alone.
///
/// It has the right to wait, so its `Drop` may, which no other in this crate does.
#[must_use = "dropping it stops the network; `keep` leaves it running"]
pub struct Started<'a> {
    network: &'static Network,
    /// None if it is kept.
    running: Option<Running>,
    passive: Passive<'a>,
}

impl Started<'_> {
    /// Waits up to `limit` until the driver's function has called [`Net::ready`] or has returned, for a
    /// driver that does not start without its network.
    ///
    /// `DriverEntry` of a driver that starts at boot must not: WSK may start after it.
    ///
    /// ```
    /// # use core::time::Duration;
    /// # use wsk::{Net, Network, NetworkConfig, Passive, Result};
    /// # static NETWORK: Network = Network::new();
    /// fn entry(passive: Passive<'_>) -> Result {
    ///     let started = NETWORK.start(passive, NetworkConfig::DEFAULT, serve)?;
    ///     // If the address is in use, this says so, and the network is stopped.
    ///     started.wait_ready(Duration::from_secs(5))?;
    ///     started.keep();
    ///     Ok(())
    /// }
    ///
    /// async fn serve(net: Net) -> Result {
    ///     let listener = net.provider().listener().bind(([0, 0, 0, 0], 7007).into()).await?;
    ///     net.ready();
    ///     net.stopping().await;
    ///     drop(listener);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// The failure that the network ends with, which is also reported; `STATUS_IO_TIMEOUT` if `limit` was not
    /// enough, and `STATUS_CANCELLED` if the network stopped first.
    pub fn wait_ready(&self, limit: Duration) -> Result {
        match &self.running {
            Some(running) => running.wait_ready(self.passive, limit),
            None => Ok(()),
        }
    }

    /// Leaves the network running, until [`Network::stop`].
    pub fn keep(mut self) {
        self.running = None;
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.network.end(self.passive, &running, None);
        }
    }
}

impl fmt::Debug for Started<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

/// The running network, for the driver's tasks. Clones are handles on the same one.
///
/// It keeps the capture, so it must not be kept outside of tasks; nor must its [spawner](Net::spawner).
#[derive(Clone)]
pub struct Net {
    provider: Provider,
    spawner: Spawner,
    shared: Ref<Shared>,
}

impl Net {
    /// Returns WSK's functions.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// Starts a task that the network waits for when it stops, for up to [`NetworkConfig::drain`].
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`. The future is polled and dropped at `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// [`SpawnError`]; the future is dropped then, by this call.
    pub fn spawn<F>(&self, future: F) -> core::result::Result<(), SpawnError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = Shared::task(&self.shared);
        self.spawner.spawn(async move {
            // Counted until the task has ended or was dropped, polled or not.
            let _task = task;
            future.await;
        })
    }

    /// Returns what starts tasks that the network does not wait for: when it stops, they are dropped.
    pub fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// Reports to [`Started::wait_ready`] that the driver's function is ready. Only the first call counts.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    pub fn ready(&self) {
        self.shared.conclude(Ok(()));
    }

    /// Resolves when the network stops: on request, or because the driver's function has failed.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        Shared::stopping(self.shared.clone())
    }

    /// Runs a future until the network stops: `None` if it stops first. The future is dropped then.
    ///
    /// The stop comes first, so that a loop ends also when its next result is always there already.
    ///
    /// # Cancel safety
    /// That of `future`.
    ///
    /// ```
    /// # use wsk::{Listener, Net, Result};
    /// # async fn serve(net: Net, listener: Listener) -> Result<()> {
    /// while let Some(accepted) = net.until_stopping(listener.accept()).await {
    ///     match accepted {
    ///         Ok(connection) => drop(connection),
    ///         Err(error) if error.is_transient() => listener.pause().await,
    ///         Err(error) => return Err(error),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn until_stopping<F: Future>(&self, future: F) -> impl Future<Output = Option<F::Output>> + use<F> {
        let stopping = self.stopping();
        async move {
            let (mut stopping, mut future) = (core::pin::pin!(stopping), core::pin::pin!(future));
            core::future::poll_fn(|context| match stopping.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => future.as_mut().poll(context).map(Some),
            })
            .await
        }
    }

    /// Returns whether the network stops.
    pub fn is_stopping(&self) -> bool {
        self.shared.is_stopping()
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("stopping", &self.is_stopping()).finish_non_exhaustive()
    }
}
