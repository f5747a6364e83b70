//! A kernel: one simulated machine.
//!
//! ```text
//!   new ──► running ──shutdown──► stopping: services finish what is queued and end ──► down, leaks are known
//!              │
//!              └──bug check──► stopped: the offender sleeps for ever, joiners return, shutdown does not wait
//! ```
//!
//! [`Kernel`] is the handle that users clone; when the last one is dropped, the kernel's own threads end.
//! Threads that drivers and hosts start hold one; the kernel's own threads hold only the inside.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::checker::violation::{Severity, Violation};
use crate::checker::{self, Checker};
use crate::dpc::DpcQueue;
use crate::faults::Faults;
use crate::idle::Idle;
use crate::image::Image;
use crate::platform::{Live, Platform};
use crate::pool::{Leak, Pool};
use crate::statics::Words;
use crate::thread::{Owner, Threads, current};
use crate::timer::TimerQueue;
use crate::work::WorkQueue;

/// Kernel configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number of deferred procedure calls that may run at once.
    pub processors: usize,
    /// The number of work items that may run at once.
    pub workers: usize,
    /// The time after which a wait without a timeout counts as a hang; `None` for never.
    pub watchdog: Option<Duration>,
    /// Fills pool with a pattern on allocation and on free, and quarantines freed blocks to detect writes
    /// after free.
    pub poison: bool,
    /// Records where each pool block was allocated; costs microseconds per allocation.
    pub trace_allocations: bool,
    /// The processor time that a callback may spend at DISPATCH_LEVEL before IRQL-05 is advised; `None` for
    /// no limit. Time in which the host does not run the thread does not count.
    pub dispatch_budget: Option<Duration>,
    /// Time, threads and randomness; `None` for real ones.
    pub platform: Option<Arc<dyn Platform>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            processors: 2,
            workers: 64,
            watchdog: Some(Duration::from_secs(30)),
            poison: true,
            trace_allocations: false,
            dispatch_budget: Some(Duration::from_millis(100)),
            platform: None,
        }
    }
}

/// The inside of a kernel.
pub(crate) struct Inner {
    itself: Weak<Inner>,
    /// The handles; dead when the last of them was dropped.
    handles: OnceLock<Weak<Handles>>,
    pub(crate) config: Config,
    platform: Arc<dyn Platform>,
    dispatch_budget: AtomicU64,
    pub(crate) checker: Checker,
    pub(crate) faults: Faults,
    pub(crate) pool: Pool,
    pub(crate) threads: Threads,
    pub(crate) dpcs: DpcQueue,
    pub(crate) timers: TimerQueue,
    pub(crate) work: WorkQueue,
    pub(crate) image: Image,
    pub(crate) idle: OnceLock<Weak<dyn Idle>>,
    /// The function that explains a hang.
    explain_hang: OnceLock<fn(&Kernel) -> String>,
    /// The system-wide cancel spin lock.
    pub(crate) cancel_lock: AtomicUsize,
    extensions: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    stopping: AtomicBool,
    stopped: OnceLock<Violation>,
    /// The target of the pointer that `IoGetCurrentProcess` returns.
    process: u64,
    /// The static data of the driver.
    pub(crate) statics: Words,
}

impl Inner {
    pub(crate) fn arc(&self) -> Arc<Inner> {
        self.itself.upgrade().expect("the caller holds the kernel")
    }

    /// Returns a handle, unless the last one was dropped.
    pub(crate) fn kernel(&self) -> Option<Kernel> {
        self.handles.get().and_then(Weak::upgrade).map(|handles| Kernel { handles })
    }

    pub(crate) fn platform(&self) -> &dyn Platform {
        &*self.platform
    }

    pub(crate) fn process(&self) -> &u64 {
        &self.process
    }

    pub(crate) fn dispatch_budget(&self) -> Option<Duration> {
        match self.dispatch_budget.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }

    /// An explanation of a hang, as the end of a sentence.
    pub(crate) fn hang_explanation(&self) -> String {
        let said =
            self.explain_hang.get().zip(self.kernel()).map(|(explain_hang, kernel)| explain_hang(&kernel));
        said.filter(|said| !said.is_empty()).map(|said| format!(". {said}")).unwrap_or_default()
    }

    /// Returns true if the kernel's own threads must end.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The bug check that stopped the kernel.
    pub(crate) fn stopped(&self) -> Option<&Violation> {
        self.stopped.get()
    }

    #[cold]
    pub(crate) fn report(
        &self,
        severity: Severity,
        rule: &'static str,
        call: &str,
        detail: String,
    ) -> Violation {
        self.checker.report(severity, rule, call.to_owned(), detail)
    }

    /// Reports a broken rule.
    #[cold]
    pub(crate) fn violation(&self, rule: &'static str, call: &str, detail: String) {
        self.report(Severity::Violation, rule, call, detail);
    }

    /// Reports a fatal violation and stops the kernel. Does not return.
    #[cold]
    pub(crate) fn bug_check(&self, rule: &'static str, call: &str, detail: String) -> ! {
        let violation = self.report(Severity::Violation, rule, call, detail);
        self.stop(violation.clone());
        if current::object().is_some() {
            checker::halt();
        }
        // The kernel did not start this thread and cannot put it to sleep: another thread may wait for it.
        panic!("the kernel stopped: {violation}");
    }

    /// Handles a panic that reached the boundary of the kernel on the calling thread.
    #[cold]
    pub(crate) fn panicked(&self, whom: &str, detail: String, fatal: bool) {
        let violation = self.report(Severity::Violation, "LIFE-18", whom, detail);
        if fatal {
            self.stop(violation);
        } else if let Some(object) = current::object() {
            // SAFETY: the binding of the calling thread holds its object.
            self.thread_ended(unsafe { object.as_ref() });
        }
    }

    fn stop(&self, violation: Violation) {
        // A second bug check is among the violations, but does not replace the first.
        drop(self.stopped.set(violation));
        self.threads.changed().notify(self.platform());
    }

    /// Tells the kernel's own threads to finish and end.
    fn stop_services(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.dpcs.wake(self.platform());
        self.timers.wake(self.platform());
        self.work.wake(self.platform());
    }
}

/// State shared by all handles of a kernel.
struct Handles {
    inner: Arc<Inner>,
}

impl Drop for Handles {
    fn drop(&mut self) {
        self.inner.stop_services();
    }
}

/// One simulated machine. Clones are handles of the same machine.
#[derive(Clone)]
pub struct Kernel {
    handles: Arc<Handles>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("stopped", &self.stopped()).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Boots a kernel.
    pub fn new(config: Config) -> Self {
        checker::install_panic_hook();
        let platform = config.platform.clone().unwrap_or_else(|| Arc::new(Live::new()));
        let budget = config.dispatch_budget.map_or(0, |budget| budget.as_nanos() as u64);
        let inner = Arc::new_cyclic(|itself| Inner {
            itself: Weak::clone(itself),
            handles: OnceLock::new(),
            platform,
            dispatch_budget: AtomicU64::new(budget),
            checker: Checker::default(),
            faults: Faults::default(),
            pool: Pool::new(config.poison, config.trace_allocations),
            threads: Threads::default(),
            dpcs: DpcQueue::new(config.processors),
            timers: TimerQueue::default(),
            work: WorkQueue::new(config.workers),
            image: Image::default(),
            idle: OnceLock::new(),
            explain_hang: OnceLock::new(),
            cancel_lock: AtomicUsize::new(0),
            extensions: Mutex::default(),
            stopping: AtomicBool::new(false),
            stopped: OnceLock::new(),
            process: 0,
            statics: Words::default(),
            config,
        });
        let handles = Arc::new(Handles { inner });
        drop(handles.inner.handles.set(Arc::downgrade(&handles)));
        Self { handles }
    }

    /// The kernel of the calling thread.
    pub fn current() -> Option<Self> {
        current::try_kernel().and_then(|kernel| kernel.kernel())
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.handles.inner
    }

    /// Makes the calling thread one of this kernel until the result is dropped, at PASSIVE_LEVEL.
    pub fn enter(&self) -> Entered {
        Entered { _binding: current::bind(Arc::clone(self.inner()), None), _kernel: self.clone() }
    }

    /// The configuration of this kernel.
    pub fn config(&self) -> &Config {
        &self.inner().config
    }

    /// The platform of this kernel.
    pub fn platform(&self) -> &dyn Platform {
        self.inner().platform()
    }

    /// Changes [`Config::dispatch_budget`].
    pub fn set_dispatch_budget(&self, budget: Option<Duration>) {
        let budget = budget.map_or(0, |budget| budget.as_nanos() as u64);
        self.inner().dispatch_budget.store(budget, Ordering::Relaxed);
    }

    /// Sets the function that explains a hang ([`Config::watchdog`]) in the bug check. Only the first call
    /// has an effect.
    pub fn explain_hangs(&self, explain_hang: fn(&Kernel) -> String) {
        let _ = self.inner().explain_hang.set(explain_hang);
    }

    /// The one `T` of this kernel, made by `make` when it is asked for first.
    ///
    /// It is kept until [`shutdown`](Self::shutdown). `make` must not ask for another extension.
    pub fn extension<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut extensions = self.inner().extensions.lock();
        let extension = extensions.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(make()));
        match Arc::clone(extension).downcast() {
            Ok(extension) => extension,
            Err(_) => unreachable!("the entry of {} has its type", type_name::<T>()),
        }
    }

    /// The one `T` of this kernel, if it has been made.
    pub fn find_extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let extensions = self.inner().extensions.lock();
        extensions.get(&TypeId::of::<T>()).and_then(|extension| Arc::clone(extension).downcast().ok())
    }

    /// Reports that a rule was broken, or advises.
    pub fn report(&self, severity: Severity, rule: &'static str, call: &str, detail: impl Into<String>) {
        self.inner().report(severity, rule, call, detail.into());
    }

    /// The reports that have not been taken.
    pub fn violations(&self) -> Vec<Violation> {
        self.inner().checker.violations()
    }

    /// The number of violations beyond those that a kernel keeps.
    pub fn omitted_violations(&self) -> usize {
        self.inner().checker.omitted(Severity::Violation).load(Ordering::Relaxed)
    }

    /// The amount of advice beyond what a kernel keeps.
    pub fn omitted_advice(&self) -> usize {
        self.inner().checker.omitted(Severity::Advice).load(Ordering::Relaxed)
    }

    /// Removes and returns the reports that name `rule`.
    pub fn take(&self, rule: &str) -> Vec<Violation> {
        self.inner().checker.take(rule)
    }

    /// Stops the kernel by a bug check that names `rule`. Does not return.
    ///
    /// # Panics
    /// If the kernel did not start the calling thread.
    pub fn bug_check(&self, rule: &'static str, call: &str, detail: impl Into<String>) -> ! {
        self.inner().bug_check(rule, call, detail.into())
    }

    /// The bug check that stopped this kernel.
    pub fn stopped(&self) -> Option<Violation> {
        self.inner().stopped().cloned()
    }

    /// Faults to inject into this kernel.
    pub fn faults(&self) -> &Faults {
        &self.inner().faults
    }

    /// A random number of the platform.
    pub fn random(&self) -> u64 {
        self.platform().random()
    }

    /// Waits up to `timeout` for the threads of drivers and hosts, ends the kernel's own, and reports what is
    /// left.
    ///
    /// Call this on a host thread, after everything that uses the kernel has been started.
    pub fn shutdown(&self, timeout: Duration) -> LeakReport {
        let inner = self.inner();
        let deadline = inner.platform().now() + timeout;
        let ended = |owner: fn(Owner) -> bool| {
            inner.threads.changed().wait_until(inner.platform(), Some(deadline), || {
                inner.threads.names(owner).is_empty() || inner.stopped().is_some()
            });
            inner.threads.names(owner)
        };
        let mut threads = ended(|owner| owner != Owner::Kernel);
        // Extensions may own threads; dropping them outside the lock lets them use the kernel.
        let extensions = std::mem::take(&mut *inner.extensions.lock());
        drop(extensions);
        inner.stop_services();
        threads.extend(ended(|owner| owner == Owner::Kernel));
        let (handles, references) = inner.threads.held();
        inner.pool.settle(inner);
        LeakReport {
            threads,
            handles,
            references: references + inner.image.references(),
            timers: inner.timers.set(),
            dpcs: inner.dpcs.queued(),
            work_items: inner.work.queued(),
            blocks: inner.pool.leaks(),
            stopped: inner.stopped().cloned(),
        }
    }
}

/// A thread's membership of a kernel; dropping it restores the previous membership.
///
/// # Invariants
/// It is dropped on the thread that made it, outside every kernel function.
pub struct Entered {
    _binding: current::Binding,
    _kernel: Kernel,
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered").finish_non_exhaustive()
    }
}

/// Resources that were left when a kernel shut down.
#[derive(Clone, Debug)]
#[must_use]
pub struct LeakReport {
    /// Threads that had not ended.
    pub threads: Vec<String>,
    /// Handles that were not closed.
    pub handles: usize,
    /// References on objects that were not given back.
    pub references: usize,
    /// Timers that were set.
    pub timers: usize,
    /// Deferred calls that were queued.
    pub dpcs: usize,
    /// Work items that were queued.
    pub work_items: usize,
    /// Pool blocks, IRPs, MDLs and work items that were not freed.
    pub blocks: Vec<Leak>,
    /// The bug check that stopped the kernel. The leaks of a stopped kernel mean little, as nothing could be
    /// freed.
    pub stopped: Option<Violation>,
}

impl LeakReport {
    /// The number of resources left.
    pub fn count(&self) -> usize {
        let Self { threads, handles, references, timers, dpcs, work_items, blocks, stopped: _ } = self;
        threads.len() + handles + references + timers + dpcs + work_items + blocks.len()
    }

    /// Returns true if nothing is left and the kernel was not stopped.
    pub fn is_clean(&self) -> bool {
        self.count() == 0 && self.stopped.is_none()
    }
}

impl fmt::Display for LeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(violation) = &self.stopped {
            writeln!(f, "the kernel stopped: {violation}")?;
        }
        for thread in &self.threads {
            writeln!(f, "thread `{thread}` has not ended")?;
        }
        let counts = [
            (self.handles, "open handles"),
            (self.references, "references held"),
            (self.timers, "timers set"),
            (self.dpcs, "deferred calls queued"),
            (self.work_items, "work items queued"),
        ];
        for (count, what) in counts {
            if count != 0 {
                writeln!(f, "{count} {what}")?;
            }
        }
        for block in &self.blocks {
            writeln!(f, "{block}")?;
        }
        Ok(())
    }
}
