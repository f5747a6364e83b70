//! The provider of the image, while there is somebody to serve.
//!
//! ```text
//!   loaded ──first registration──► running ──last one gone──► stopping ──► as loaded
//!                                     ▲   │
//!                                     └───┘ registrations come and go
//! ```
//! Nothing starts when the image is loaded, for then the loader's lock is held and no thread can be waited for. Threads,
//! sockets and handles are those of one run, so a driver that is started a hundred times leaves what it found.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use wsk_provider::{Provider, Report, Severity};

use crate::journal::Journal;

/// How long the loader is kept waiting for whoever has just begun or ended a registration.
const A_MOMENT: Duration = Duration::from_millis(200);

/// Makes the provider of one run.
type Make = Box<dyn Fn() -> io::Result<Provider> + Send + Sync>;

/// The provider, whenever it is needed.
pub struct Machine {
    journal: Arc<Journal>,
    patience: Duration,
    make: Make,
    state: Mutex<State>,
    /// Addresses in the images of those who have registered.
    clients: Mutex<BTreeSet<usize>>,
}

/// What there is of it.
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
    /// A machine whose runs begin with `make`. The journal tells of a deregistration that lasts longer than `patience`.
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

    /// Does `call`, which may register a client; the provider is started if need be.
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
                return Err(io::Error::other("no thread can be had for callbacks"));
            }
            state.runs += 1;
            self.journal.line(&format!("start {}", state.runs));
            state.provider.insert(provider).clone()
        };
        state.calls += 1;
        drop(state);
        Ok(self.finish(provider, call))
    }

    /// Does `call`, which may end a registration. `None` if there is none, because nothing runs.
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

    /// Does `call`, and ends the run if nobody is left.
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

    /// Does `wait`, which waits for what clients of `provider` have left to do. If that lasts, the journal says what is
    /// waited for in `call`.
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
            // Without a thread for it, the wait is only silent.
            let _ = std::thread::Builder::new().name("wsk wait".to_owned()).spawn_scoped(scope, watch);
            let result = wait();
            *over.0.lock() = true;
            over.1.notify_all();
            result
        })
    }
}

impl Machine {
    /// A client registers that has something at `address`. It is kept until the image goes in which that lies: also when the
    /// client has deregistered, because its threads may be left. What lies in no image would be kept for ever, and names none.
    pub fn client_at(&self, address: usize, in_image: impl FnOnce(usize) -> bool) {
        if in_image(address) {
            self.clients.lock().insert(address);
        }
    }

    /// The image `name` is being unloaded. If it is a client's, the journal says what it has left behind (REG-27, LIFE-19):
    /// registrations and sockets with the provider, and `threads`, which counts those that began in it and have not ended.
    ///
    /// The loader holds its lock. Whoever holds one of the machine's or of the provider's meanwhile may wait for that, so this
    /// waits for each of them only so long: what is behind a lock that is not given back is not told.
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
        let provider = self.state.try_lock_for(A_MOMENT).and_then(|state| state.provider.clone());
        if let Some(left) = provider.and_then(|provider| provider.left_in(image)) {
            report("REG-27", format!("{name} goes, and has left with WSK: {left}"));
        }
        let threads = threads();
        if threads != 0 {
            let detail = format!("{name} goes, and {threads} threads that began in it have not ended");
            report("LIFE-19", detail);
        }
    }
}

fn waiting(call: &str, provider: &Provider) -> String {
    let awaited = provider.awaited();
    let what = if awaited.is_empty() { "for what has just been given back" } else { &awaited };
    format!("waiting {call}: {what}")
}
