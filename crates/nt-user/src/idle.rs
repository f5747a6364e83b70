//! What a processor does that has nothing to run.
//!
//! On a machine, a device interrupts whichever thread a processor runs, and what the device has finished is completed
//! there and then, in the context of that thread. A host interrupts nobody: some thread has to ask its devices. If that
//! is always another thread than the one that waits for the answer, the two wake each other for every request. So a
//! driver's thread that is about to sleep may ask itself:
//!
//! ```text
//!   KeWaitForSingleObject ──not signalled──► lent: Idle::serve ──► completion routines, perhaps the signal
//!                                              │  ▲
//!                                              │  └── kicked by another thread that signals the object
//!                                              └── nothing to do ──► sleep
//! ```
//!
//! Only threads that a driver has created do this, outside of every callback and at PASSIVE_LEVEL.

use std::sync::Weak;
use std::time::Duration;

use wsk_sys::nt::PASSIVE_LEVEL;

use crate::checker::context::{self, CallStack};
use crate::dispatcher::Object;
use crate::kernel::{Inner, Kernel};
use crate::thread::current;

/// Something to do for threads that are about to sleep.
pub trait Idle: Send + Sync {
    /// Does it until `over` says that the thread is to go on, or there is nothing to do. It may wait for something to do,
    /// for no longer than `patience`, if [`kick`](Self::kick) can end that.
    fn serve(&self, patience: Duration, over: &mut dyn FnMut() -> bool);

    /// Has the threads that serve ask soon whether it is over.
    fn kick(&self);
}

impl Kernel {
    /// Gives threads that are about to sleep something to do. Only the first call has an effect.
    pub fn set_idle(&self, idle: Weak<dyn Idle>) {
        // A second one would find the first in use.
        drop(self.inner().idle.set(idle));
    }
}

impl Inner {
    /// Lends the calling thread, which waits for `target`; true if that was signalled meanwhile.
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

    /// Someone who waits for a signalled object was not asleep: if it is lent, it must look.
    pub(crate) fn kick(&self) {
        if let Some(idle) = self.idle.get().and_then(Weak::upgrade) {
            idle.kick();
        }
    }
}
