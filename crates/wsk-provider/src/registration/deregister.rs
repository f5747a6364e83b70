//! `WskDeregister` and its waits (REG-18 to REG-26).

use std::time::Instant;

use wsk_sys::WSK_REGISTRATION;

use super::{Capture, DEREGISTERED, Registration, check_passive};
use crate::provider::{Inner, Provider};

const CALL: &str = "WskDeregister";

/// Calls and requests that a deregistration still waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leftovers {
    captures: usize,
    calls: usize,
    sockets: usize,
    requests: usize,
}

impl Leftovers {
    fn of(registration: &Registration) -> Self {
        let captures = registration.state.lock().captures.len();
        let (calls, sockets, requests) = registration.client.usage();
        Self { captures, calls, sockets, requests }
    }

    fn none(self) -> bool {
        self == Self { captures: 0, calls: 0, sockets: 0, requests: 0 }
    }
}

impl Provider {
    /// `WskDeregister`.
    ///
    /// # Safety
    /// `block` is null or points to a `WSK_REGISTRATION` that stays valid until this call has returned.
    pub unsafe fn deregister(&self, block: *mut WSK_REGISTRATION) {
        let provider = &self.0;
        let site = provider.host.call_site();
        let mut may_wait = check_passive(provider, CALL);
        if let Some(callback) = site.callback {
            provider.violation("REG-25", CALL, &format!("called inside {callback}, for which it would wait"));
            may_wait = false;
        } else if site.completion_depth != 0 {
            provider.violation("REG-25", CALL, "called inside a completion routine, for which it would wait");
            may_wait = false;
        } else if !may_wait {
            provider.violation("REG-25", CALL, "called above PASSIVE_LEVEL");
        }
        // SAFETY: the caller guarantees that `block` is null or points to a `WSK_REGISTRATION`.
        let Ok(registration) = (unsafe { provider.registration(block, CALL) }) else { return };
        {
            let mut state = registration.state.lock();
            if state.ending {
                drop(state);
                provider.violation(
                    "REG-02",
                    CALL,
                    "the registration is already being deregistered by another call",
                );
                return;
            }
            state.ending = true;
        }
        registration.look_again.set();
        registration.client.end(provider);
        report_dead_sockets(provider, &registration);
        wait_for_the_rest(provider, &registration, may_wait);
        provider.registrar.remove(&registration);
        // SAFETY: the caller keeps the block until this call has returned.
        let state = unsafe { &raw mut (*block).ReservedRegistrationState };
        // SAFETY: the caller keeps the block until this call has returned.
        unsafe { state.write_volatile(DEREGISTERED) };
        registration.pinned.lock().unpin(provider);
    }
}

/// Reports sockets of whose death the client was notified and that it has not begun to close.
fn report_dead_sockets(provider: &Inner, registration: &Registration) {
    for socket in registration.client.sockets() {
        let Some(rule) = socket.death_rule_if_left_open() else { continue };
        provider.violation(
            rule,
            CALL,
            "the client was notified that a socket is dead, and has not closed it",
        );
    }
}

fn wait_for_the_rest(provider: &Inner, registration: &Registration, may_wait: bool) {
    let (patience, breaks) =
        provider.live_config.get(|config| (config.self_deadlock_after, config.breaks_deadlocks));
    let start = Instant::now();
    let mut reported = false;
    loop {
        registration.progress.clear();
        let left = Leftovers::of(registration);
        if left.none() {
            return;
        }
        if !may_wait {
            // The violation was reported; a wait here would never end.
            registration.state.lock().captures.clear();
            registration.client.set_captures(0);
            return;
        }
        let own = registration.state.lock().captures.iter().any(Capture::is_own);
        if !own || reported {
            registration.progress.wait(None);
            continue;
        }
        let rest = patience.saturating_sub(start.elapsed());
        if !rest.is_zero() {
            registration.progress.wait(Some(rest));
            continue;
        }
        let detail =
            format!("the calling thread holds a captured NPI, and no other thread releases it: {left:?}");
        if !breaks {
            // Another thread may still release it, and may use it until then (REG-18).
            provider.advice("REG-26", CALL, &detail);
            reported = true;
            continue;
        }
        provider.violation("REG-26", CALL, &detail);
        registration.state.lock().captures.retain(|capture| !capture.is_own());
        registration.client.set_captures(registration.state.lock().captures.len());
    }
}
