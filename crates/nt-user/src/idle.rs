//! What a processor does that has nothing to run.
//!
//! On a machine, a device interrupts whichever thread a processor runs, and what the device has finished is completed
//! there and then, in the context of that thread. A host interrupts nobody: some thread has to ask its devices. If that
//! is always another thread than the one that waits for the answer, the two wake each other for every request. So a
//! driver's thread that is about to sleep may ask itself:
//!
//! ```text
//!   KeWaitForSingleObject ──not signalled──► Idle::serve ──► completion routines, perhaps the signal
//!                                               │
//!                                               └── nothing to do ──► sleep
//! ```
//!
//! Only threads that a driver has created do this, outside of every callback and at PASSIVE_LEVEL.

use std::sync::Weak;
use std::time::Duration;

use wsk_sys::nt::PASSIVE_LEVEL;

use crate::checker::context::{self, Nest};
use crate::kernel::{Inner, Kernel};
use crate::thread::this;

/// Something to do for a thread that is about to sleep.
pub trait Idle: Send + Sync {
    /// Does it until `over` says that the thread is to go on, or there is nothing to do any more.
    fn serve(&self, over: &mut dyn FnMut() -> bool);
}

impl Kernel {
    /// Gives threads that are about to sleep something to do. Only the first call has an effect.
    pub fn set_idle(&self, idle: Weak<dyn Idle>) {
        // A second one would find the first in use.
        drop(self.inner().idle.set(idle));
    }
}

impl Inner {
    /// Lets the calling thread, which waits, be of use; true if `satisfied` said meanwhile that the wait is over.
    pub(crate) fn idle(&self, deadline: Option<Duration>, mut satisfied: impl FnMut() -> bool) -> bool {
        let Some(idle) = self.idle.get() else { return false };
        if !this::is_drivers() || this::irql() != PASSIVE_LEVEL || context::current() != Nest::OUTSIDE {
            return false;
        }
        let Some(idle) = idle.upgrade() else { return false };
        let mut done = false;
        idle.serve(&mut || {
            done = satisfied();
            done || deadline.is_some_and(|deadline| self.seam().now() >= deadline)
        });
        done
    }
}
