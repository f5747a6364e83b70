//! Wake-ups that must not be missed: a clock that stands still, so that no wait is saved by its deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wsk::Client;
use wsk_sim::nt_user::platform::{Live, Parked, Platform};
use wsk_sim::{Completion, Sim};

use crate::support::*;

/// Time for which the reaper waits when nobody wakes it.
const REAPER_WAIT: Duration = Duration::from_secs(10);

/// Real threads, and a clock that stands still. Waits with a deadline end all the same, after as much of real
/// time, but those of the reaper, which end when it is woken and not otherwise.
#[derive(Debug, Default)]
struct Still {
    live: Live,
    /// The longest wait there was, in milliseconds.
    longest: AtomicU64,
}

impl Platform for Still {
    fn base(&self) -> &dyn Platform {
        &self.live
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn park(
        &self,
        key: usize,
        validate: &mut dyn FnMut() -> bool,
        timed_out: &mut dyn FnMut(),
        deadline: Option<Duration>,
    ) -> Parked {
        if let Some(deadline) = deadline {
            self.longest.fetch_max(deadline.as_millis() as u64, Ordering::SeqCst);
        }
        let deadline = deadline.filter(|deadline| *deadline != REAPER_WAIT);
        self.live.park(key, validate, timed_out, deadline.map(|deadline| self.live.now() + deadline))
    }
}

fn still(completion: Completion) -> Sim {
    Sim::builder()
        .completion(completion)
        .kernel(|kernel| kernel.platform = Some(Arc::new(Still::default())))
        .build()
}

/// Ends a client in the background, and waits for the reaper to wait for what is left: one turn after it was
/// told.
fn begin_to_unload(client: Client) -> Client {
    client.unload(passive(), Duration::from_millis(30)).expect_err("something is left").into_inner()
}

/// The last capture that is released wakes the reaper.
#[test]
fn the_last_capture_wakes_the_reaper() {
    for completion in COMPLETIONS {
        still(completion).run(|sim| {
            let Driver { client, provider } = Driver::start();
            let other = provider.clone();
            drop(provider);
            let client = begin_to_unload(client);
            drop(other);
            // Nobody tells it again: unloading once more would.
            eventually(|| !sim.kernel().threads().iter().any(|name| name.starts_with("system-thread")));
            client.unload(passive(), BOUND).expect("the reaper was woken");
        });
    }
}

/// So does a capture that was waited for in vain while the client was being unloaded.
#[test]
fn the_last_capture_that_fails_wakes_the_reaper() {
    let sim =
        Sim::builder().late().kernel(|kernel| kernel.platform = Some(Arc::new(Still::default()))).build();
    sim.run(|sim| {
        let client = Arc::new(Client::register(passive()).unwrap());
        let captures = Arc::clone(&client);
        let capture =
            sim.thread("capture", move || captures.capture(passive(), Duration::from_millis(100)).map(drop));
        assert!(capture.join().expect("it ends").is_err());
        let client = Arc::into_inner(client).expect("the thread has ended");
        client.unload(passive(), BOUND).expect("the reaper was woken");
    });
}

/// The last socket that has closed wakes the reaper, whoever asked for the close.
#[test]
fn the_last_close_wakes_the_reaper() {
    for completion in COMPLETIONS {
        still(completion).run(|_| {
            let Driver { client, provider } = Driver::start();
            let listener = wait(provider.listener().bind(localhost())).unwrap();
            let (connection, _peer) = connected(&listener);
            drop(provider);
            client.unload(passive(), BOUND).expect("the reaper was woken");
            drop((listener, connection));
        });
    }
}

/// However long a capture may wait, it is never told to wait without end (rule REG-29).
///
/// Prevents: REG-29
#[test]
fn a_capture_for_ever_is_bounded_all_the_same() {
    let platform = Arc::new(Still::default());
    let its = Arc::clone(&platform);
    let sim = Sim::builder().late().kernel(move |kernel| kernel.platform = Some(its)).build();
    sim.forbid_advice().run(move |sim| {
        let client = Arc::new(Client::register(passive()).unwrap());
        let captures = Arc::clone(&client);
        let capture = sim.thread("capture", move || captures.capture(passive(), Duration::MAX).map(drop));
        eventually(|| platform.longest.load(Ordering::SeqCst) > 40 * 24 * 60 * 60 * 1000);
        sim.provider().arrive();
        capture.join().expect("it ends").expect("the provider has come");
        let client = Arc::into_inner(client).expect("the thread has ended");
        client.unload(passive(), BOUND).unwrap();
        assert!(sim.violations_of("REG-29").is_empty());
    });
}
