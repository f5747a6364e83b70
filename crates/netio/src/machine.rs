//! The provider of the image, which runs while clients are registered.
//!
//! ```text
//!   loaded ──first registration──► running ──last one ends──► stopping ──► as loaded
//!                                     ▲   │
//!                                     └───┘ registrations come and go
//! ```
//! Nothing starts when the image is loaded, for then the loader's lock is held and no thread can be waited
//! for. Threads, sockets and handles are those of one run, so a driver that is started a hundred times leaks
//! nothing.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use wsk_provider::{Provider, Report, Severity};

use crate::journal::Journal;

/// The longest time for which an unload waits for a registration or deregistration in progress.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);

/// Makes the provider of one run.
type Make = Box<dyn Fn() -> io::Result<Provider> + Send + Sync>;

/// The provider, started on demand.
pub struct Machine {
    journal: Arc<Journal>,
    patience: Duration,
    make: Make,
    state: Mutex<State>,
    /// Addresses in the images of clients.
    clients: Mutex<BTreeSet<usize>>,
}

/// State of the machine.
///
/// # Invariants
/// There is a provider while `calls` is not 0 or something is registered with it.
#[derive(Debug, Default)]
struct State {
    provider: Option<Provider>,
    /// Calls under way that register or deregister.
    calls: usize,
    runs: u64,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine whose runs begin with `make`. A deregistration that lasts longer than `patience` is reported
    /// in the journal.
    pub fn new(
        journal: Arc<Journal>,
        patience: Duration,
        make: impl Fn() -> io::Result<Provider> + Send + Sync + 'static,
    ) -> Self {
        Self { journal, patience, make: Box::new(make), state: Mutex::default(), clients: Mutex::default() }
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Makes `call`, which may register a client; starts the provider if necessary.
    ///
    /// # Errors
    /// The network cannot be used.
    pub fn register<R>(&self, call: impl FnOnce(&Provider) -> R) -> io::Result<R> {
        let mut state = self.state.lock();
        let provider = if let Some(provider) = &state.provider {
            provider.clone()
        } else {
            let provider = (self.make)()?;
            if !provider.arrive() {
                return Err(io::Error::other("no thread for callbacks can be started"));
            }
            state.runs += 1;
            self.journal.line(&format!("start {}", state.runs));
            state.provider.insert(provider).clone()
        };
        state.calls += 1;
        drop(state);
        Ok(self.finish(provider, call))
    }

    /// Makes `call`, which may end a registration. Returns `None` if the provider does not run.
    pub fn deregister<R>(&self, call: impl FnOnce(&Provider) -> R) -> Option<R> {
        let mut state = self.state.lock();
        let provider = state.provider.clone()?;
        state.calls += 1;
        drop(state);
        Some(self.finish(provider, call))
    }

    /// The provider, if it runs, for calls that neither register nor deregister.
    pub fn running(&self) -> Option<Provider> {
        self.state.lock().provider.clone()
    }

    /// Makes `call`, and ends the run if no client is left.
    fn finish<R>(&self, provider: Provider, call: impl FnOnce(&Provider) -> R) -> R {
        let result = call(&provider);
        drop(provider);
        let mut state = self.state.lock();
        state.calls -= 1;
        let idle = state.calls == 0;
        let ended = state.provider.take_if(|provider| idle && provider.clients() == 0);
        let run = state.runs;
        drop(state);
        if let Some(provider) = ended {
            provider.finish();
            provider.shut_down();
            drop(provider);
            self.journal.line(&format!("stop {run}: {}", self.journal.counts()));
        }
        result
    }

    /// Runs `wait`, which waits for clients of `provider`. If that lasts long, the journal reports what
    /// `call` waits for.
    pub fn watch<R>(&self, call: &str, provider: &Provider, wait: impl FnOnce() -> R) -> R {
        let over = (Mutex::new(false), Condvar::new());
        std::thread::scope(|scope| {
            let watch = || {
                let mut is_over = over.0.lock();
                while !*is_over {
                    if over.1.wait_for(&mut is_over, self.patience).timed_out() && !*is_over {
                        self.journal.line(&waiting(call, provider));
                    }
                }
            };
            // Without a thread, the wait is only not reported.
            let _ = std::thread::Builder::new().name("wsk wait".to_owned()).spawn_scoped(scope, watch);
            let result = wait();
            *over.0.lock() = true;
            over.1.notify_all();
            result
        })
    }
}

impl Machine {
    /// Records a client by `address`, until the image that contains it is unloaded: also after
    /// deregistration, because threads of the client may be left. An address outside of images identifies
    /// none, and is not recorded.
    pub fn client_at(&self, address: usize, in_image: impl FnOnce(usize) -> bool) {
        if in_image(address) {
            self.clients.lock().insert(address);
        }
    }

    /// Checks the image `name`, which is being unloaded. If it is a client's, leaks are reported in the
    /// journal (REG-27, LIFE-19): registrations and sockets, and `threads`, the number of threads that began
    /// in it and have not ended.
    ///
    /// The loader holds its lock during the call. A thread with a lock of the machine or the provider may
    /// wait for the loader, so this waits for those locks only briefly, and skips a check whose lock is not
    /// released.
    pub fn image_unloads(&self, name: &str, image: &Range<usize>, threads: impl FnOnce() -> usize) {
        const CALL: &str = "DriverUnload";
        let mut clients = self.clients.lock();
        let known = clients.len();
        clients.retain(|address| !image.contains(address));
        let is_client = clients.len() != known;
        drop(clients);
        if !is_client {
            return;
        }
        let report = |rule, detail| {
            self.journal.report(&Report { rule, severity: Severity::Violation, call: CALL, detail });
        };
        let provider = self.state.try_lock_for(LOCK_TIMEOUT).and_then(|state| state.provider.clone());
        if let Some(left) = provider.and_then(|provider| provider.left_in(image)) {
            report("REG-27", format!("{name} is unloaded with objects left at WSK: {left}"));
        }
        let threads = threads();
        if threads != 0 {
            let detail = format!("{name} is unloaded, and {threads} threads that began in it have not ended");
            report("LIFE-19", detail);
        }
    }
}

fn waiting(call: &str, provider: &Provider) -> String {
    let awaited = provider.awaited();
    let what = if awaited.is_empty() { "for objects that were just released" } else { &awaited };
    format!("waiting {call}: {what}")
}
