//! A machine with WSK on it.
//!
//! ```text
//!   builder ──build──► Sim ──run(body)──► body runs on a kernel thread ──► finish ──► Report, clean or panic
//!                       └──enter / thread──► the same by hand, for long runs ──► finish ──► Report
//! ```

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nt_user::faults::Point;
use nt_user::{Entered, Failure, Idle, Joiner, Kernel, Severity, Violation};
use parking_lot::Mutex;
use wsk_provider::transport::Transport;
use wsk_provider::transport::live::{Live, Settings};
use wsk_provider::{Behaviours, Completion, Config, FaultPoint, Level, Provider};

use crate::exports::{self, Attached};
use crate::host::{Choices, SimHost};
use crate::report::Report;

/// The time that the threads of a finished run may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Builder for a [`Sim`].
#[derive(Debug, Default)]
pub struct Builder {
    provider: Config,
    kernel: nt_user::Config,
    network: Settings,
    transport: Option<Arc<dyn Transport>>,
    late: bool,
}

impl Builder {
    /// Sets when requests complete whose outcome is known at once.
    #[must_use]
    pub fn completion(mut self, completion: Completion) -> Self {
        self.provider.completion = completion;
        self
    }

    /// Sets the IRQL of event callbacks.
    #[must_use]
    pub fn callbacks(mut self, level: Level) -> Self {
        self.provider.callbacks = level;
        self
    }

    /// Sets the IRQL of completion routines.
    #[must_use]
    pub fn completions(mut self, level: Level) -> Self {
        self.provider.completions = level;
        self
    }

    /// Selects among behaviors that the contract leaves open.
    #[must_use]
    pub fn behaviours(mut self, select: impl FnOnce(&mut Behaviours)) -> Self {
        select(&mut self.provider.behaviours);
        self
    }

    /// Changes the settings of the provider.
    #[must_use]
    pub fn provider(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.provider);
        self
    }

    /// Changes the settings of the kernel.
    #[must_use]
    pub fn kernel(mut self, change: impl FnOnce(&mut nt_user::Config)) -> Self {
        change(&mut self.kernel);
        self
    }

    /// Changes the settings of the host network.
    #[must_use]
    pub fn network(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.network);
        self
    }

    /// Replaces the host's network.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Defers the provider until [`Provider::arrive`].
    #[must_use]
    pub fn late(mut self) -> Self {
        self.late = true;
        self
    }

    /// Boots the machine.
    ///
    /// # Panics
    /// If the host's network cannot be used.
    pub fn build(self) -> Sim {
        let kernel = Kernel::new(self.kernel);
        let transport =
            self.transport.unwrap_or_else(|| Arc::new(Live::with(self.network).expect("the host's network")));
        let host = Arc::new(SimHost { kernel: kernel.clone(), choices: Choices::default() });
        let provider = Provider::new(self.provider, transport, Arc::clone(&host) as _);
        let attached = kernel.extension(|| Attached(provider.clone()));
        let network: Arc<dyn Idle> = attached;
        kernel.set_idle(Arc::downgrade(&network));
        kernel.explain_hangs(exports::describe_hang);
        wsk_provider::set_provider_lookup(exports::current);
        if !self.late {
            provider.arrive();
        }
        Sim(Arc::new(Inner {
            kernel,
            provider,
            host,
            expected: Mutex::default(),
            advice_counts: AtomicBool::new(false),
            finished: AtomicBool::new(false),
        }))
    }
}

/// A kernel with a WSK provider and a checker. Clones are handles of the same one.
#[derive(Clone, Debug)]
pub struct Sim(Arc<Inner>);

/// A report that a test expects.
#[derive(Clone, Copy, Debug)]
struct Expectation {
    rule: &'static str,
    /// The report must be advice.
    advice: bool,
}

impl Expectation {
    fn covers(self, violation: &Violation) -> bool {
        violation.rule == self.rule && (!self.advice || violation.severity == Severity::Advice)
    }
}

#[derive(Debug)]
struct Inner {
    kernel: Kernel,
    provider: Provider,
    host: Arc<SimHost>,
    expected: Mutex<Vec<Expectation>>,
    advice_counts: AtomicBool,
    finished: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.finished.load(Ordering::Relaxed) {
            self.provider.shut_down();
            let leaks = self.kernel.shutdown(Duration::ZERO);
            drop(leaks);
        }
    }
}

impl Default for Sim {
    fn default() -> Self {
        Self::new()
    }
}

impl Sim {
    /// A machine with the default settings: natural completions, PASSIVE_LEVEL, the host's network.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Returns a builder for a machine.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.0.kernel
    }

    /// The provider.
    pub fn provider(&self) -> &Provider {
        &self.0.provider
    }

    /// Makes the provider choose `alternative` whenever it has this choice; 0 is the natural one.
    pub fn choose(&self, knob: FaultPoint, alternative: u32) {
        self.choose_by(knob, move |_| alternative);
    }

    /// Makes the provider choose `alternative` the next time it has this choice, and later the natural one.
    pub fn choose_once(&self, knob: FaultPoint, alternative: u32) {
        let mut next = alternative;
        self.choose_by(knob, move |_| std::mem::take(&mut next));
    }

    /// Calls `chooser` with the number of alternatives whenever the provider has this choice.
    pub fn choose_by(&self, knob: FaultPoint, chooser: impl FnMut(u32) -> u32 + Send + 'static) {
        self.0.host.choices.set(knob, Some(Box::new(chooser)));
    }

    /// Makes the provider choose the natural alternative again.
    pub fn choose_naturally(&self, knob: FaultPoint) {
        self.0.host.choices.set(knob, None);
    }

    /// Expects a violation of `rule` or advice under it: the run fails without one.
    pub fn expect(&self, rule: &'static str) -> &Self {
        self.0.expected.lock().push(Expectation { rule, advice: false });
        self
    }

    /// Expects advice under `rule`: the run fails without it, or if the rule is reported as broken.
    pub fn expect_advice(&self, rule: &'static str) -> &Self {
        self.0.expected.lock().push(Expectation { rule, advice: true });
        self
    }

    /// Makes unexpected advice fail the run. By default [`run`](Self::run) prints it and passes.
    pub fn forbid_advice(&self) -> &Self {
        self.0.advice_counts.store(true, Ordering::Relaxed);
        self
    }

    /// The reports so far under `rule`.
    pub fn violations_of(&self, rule: &str) -> Vec<Violation> {
        self.kernel().violations().into_iter().filter(|violation| violation.rule == rule).collect()
    }

    /// Makes the calling thread a thread of the machine until the result is dropped.
    pub fn enter(&self) -> Entered {
        self.kernel().enter()
    }

    /// Runs `body` on a new thread of the machine.
    ///
    /// # Panics
    /// If the host cannot start a thread.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Joiner<T> {
        self.kernel().spawn(name, body).expect("a thread of the host")
    }

    /// Runs `body` on a new thread of the machine, finishes, and checks the report.
    ///
    /// # Panics
    /// If `body` panics, or if the report is not clean.
    #[track_caller]
    pub fn run(&self, body: impl FnOnce(&Sim) + Send + 'static) {
        self.run_for("run", body);
    }

    /// Runs `body` like [`run`](Self::run) and returns its result; `None` if the kernel has stopped as
    /// expected.
    ///
    /// # Panics
    /// As `run`.
    #[track_caller]
    pub(crate) fn run_for<R: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce(&Sim) -> R + Send + 'static,
    ) -> Option<R> {
        let sim = self.clone();
        let joiner = self.thread(name, move || body(&sim));
        match joiner.join() {
            Ok(result) => {
                let report = self.finish();
                report.assert_clean();
                report.print_advice();
                Some(result)
            }
            Err(Failure::Panicked(payload)) => {
                // The reports often explain the panic; the rest of the machine is in an unknown state.
                for violation in self.kernel().violations() {
                    eprintln!("{violation}");
                }
                resume_unwind(payload);
            }
            Err(Failure::Stopped(stop)) => {
                let report = self.finish();
                assert!(report.is_clean(), "the kernel stopped: {stop}\n{report}");
                None
            }
        }
    }

    /// Reports CLOSE-14: if the allocation of an IRP failed, a socket may be open because it could not be
    /// closed.
    fn report_unclosable(&self) {
        let open = self.provider().open_sockets().len();
        if open != 0 && self.kernel().faults().has_refused(Point::Irp) {
            let detail = format!("IoAllocateIrp has failed, and {open} sockets are still open");
            self.kernel().report(Severity::Violation, "CLOSE-14", "WskCloseSocket", detail);
        }
    }

    /// Shuts the machine down and reports broken rules and leaks. Call this on a host thread, after
    /// everything that uses the machine has been started.
    ///
    /// # Panics
    /// If the machine was already finished.
    pub fn finish(&self) -> Report {
        let finished = self.0.finished.swap(true, Ordering::Relaxed);
        assert!(!finished, "the machine was already finished");
        if self.kernel().stopped().is_none() {
            let entered = self.enter();
            self.report_unclosable();
            self.provider().finish();
            drop(entered);
        }
        self.provider().shut_down();
        let leaks = self.kernel().shutdown(SHUTDOWN_TIMEOUT);
        let expectations = self.0.expected.lock();
        let (mut violations, mut expected, mut advice) = (Vec::new(), Vec::new(), Vec::new());
        for violation in self.kernel().violations() {
            if expectations.iter().any(|expectation| expectation.covers(&violation)) {
                expected.push(violation);
            } else if violation.severity == Severity::Violation {
                violations.push(violation);
            } else {
                advice.push(violation);
            }
        }
        let missing = expectations
            .iter()
            .filter(|expectation| !expected.iter().any(|violation| expectation.covers(violation)))
            .map(|expectation| expectation.rule)
            .collect();
        let advice_counts = self.0.advice_counts.load(Ordering::Relaxed);
        let omitted_advice = if advice_counts { self.kernel().omitted_advice() } else { 0 };
        let omitted = self.kernel().omitted_violations() + omitted_advice;
        Report { violations, expected, advice, advice_counts, missing, omitted, leaks }
    }
}
