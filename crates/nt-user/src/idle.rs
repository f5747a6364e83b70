//! Work for threads that are about to sleep.
//!
//! On real hardware a device interrupts the thread that a processor runs, and finished requests are completed
//! in the context of that thread. A host does not interrupt its threads: one of them has to poll the devices.
//! If that is always a different thread from the one that waits for the result, the two wake each other for
//! every request. So a driver's thread that is about to sleep may be donated to the poller:
//!
//! ```text
//!   KeWaitForSingleObject ──not signaled──► Idle::serve ──► completion routines, perhaps the signal
//!                                              │  ▲
//!                                              │  └── kicked by another thread that signals the object
//!                                              └── nothing to do ──► sleep
//! ```
//!
//! Only threads that a driver has created are donated, outside of every callback and at PASSIVE_LEVEL.

use std::sync::Weak;
use std::time::Duration;

use wsk_sys::nt::PASSIVE_LEVEL;

use crate::checker::context::{self, CallStack};
use crate::dispatcher::Object;
use crate::kernel::{Inner, Kernel};
use crate::thread::current;

/// Work for threads that are about to sleep.
pub trait Idle: Send + Sync {
    /// Works until `over` returns true or no work is left. May wait for work, for no longer than `patience`,
    /// if [`kick`](Self::kick) can end that wait.
    fn serve(&self, patience: Duration, over: &mut dyn FnMut() -> bool);

    /// Makes the serving threads check `over` soon.
    fn kick(&self);
}

impl Kernel {
    /// Sets the work for threads that are about to sleep. Only the first call has an effect.
    pub fn set_idle(&self, idle: Weak<dyn Idle>) {
        // The first one may be in use, so a second one is ignored.
        drop(self.inner().idle.set(idle));
    }
}

impl Inner {
    /// Donates the calling thread while it waits for `target`; true if the target was signaled meanwhile.
    pub(crate) fn donate(&self, target: Object<'_>, deadline: Option<Duration>) -> bool {
        let Some(idle) = self.idle.get() else { return false };
        if !current::is_drivers()
            || current::irql() != PASSIVE_LEVEL
            || context::current() != CallStack::OUTSIDE
        {
            return false;
        }
        let Some(idle) = idle.upgrade() else { return false };
        if target.begin_donation() {
            return true;
        }
        let now = || self.platform().now();
        let patience = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_sub(now()));
        current::set_donated_to(target.key());
        idle.serve(patience, &mut || {
            target.state() != 0 || deadline.is_some_and(|deadline| now() >= deadline)
        });
        current::set_donated_to(0);
        target.end_donation()
    }

    /// Makes donated threads check their objects: a thread that waits for a signaled object was not asleep.
    pub(crate) fn kick(&self) {
        if let Some(idle) = self.idle.get().and_then(Weak::upgrade) {
            idle.kick();
        }
    }
}
