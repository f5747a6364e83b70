//! The embedder of the provider: the user-mode kernel, its checker, and the choices of a test.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use nt_user::{Kernel, context};
use parking_lot::Mutex;
use wsk_provider::{CallSite, FaultPoint, Host, Pin, Report, Severity};
use wsk_sys::nt::IRP;

use crate::callback;

/// Chooses one of a number of alternatives; 0 is the natural one.
type Chooser = Box<dyn FnMut(u32) -> u32 + Send>;

/// The choices of a test; all others are natural.
#[derive(Default)]
pub(crate) struct Choices {
    any: AtomicBool,
    choosers: Mutex<HashMap<FaultPoint, Chooser>>,
}

impl fmt::Debug for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.choosers.lock().keys()).finish()
    }
}

impl Choices {
    pub(crate) fn set(&self, knob: FaultPoint, chooser: Option<Chooser>) {
        let mut choosers = self.choosers.lock();
        match chooser {
            Some(chooser) => drop(choosers.insert(knob, chooser)),
            None => drop(choosers.remove(&knob)),
        }
        self.any.store(!choosers.is_empty(), Ordering::Release);
    }

    fn choose(&self, knob: FaultPoint, alternatives: u32) -> u32 {
        if !self.any.load(Ordering::Acquire) {
            return 0;
        }
        let mut choosers = self.choosers.lock();
        choosers.get_mut(&knob).map_or(0, |chooser| chooser(alternatives)).min(alternatives.saturating_sub(1))
    }
}

/// [`Host`] over a [`Kernel`].
#[derive(Debug)]
pub(crate) struct SimHost {
    pub(crate) kernel: Kernel,
    pub(crate) choices: Choices,
}

impl Host for SimHost {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.kernel.spawn(name, body).map(drop)
    }

    fn report(&self, report: Report) {
        let severity = match report.severity {
            Severity::Violation => nt_user::Severity::Violation,
            Severity::Advice => nt_user::Severity::Advice,
        };
        self.kernel.report(severity, report.rule, report.call, report.detail);
    }

    fn choose(&self, knob: FaultPoint, alternatives: u32) -> u32 {
        self.choices.choose(knob, alternatives)
    }

    fn enter_callback(&self, name: &'static str, at_dispatch: bool) -> u64 {
        callback::entered(name, at_dispatch);
        0
    }

    fn leave_callback(&self, _token: u64) {
        callback::returned();
    }

    fn callback_settled(&self) {
        callback::settled();
    }

    unsafe fn check_irp(&self, irp: *mut IRP, call: &'static str) -> bool {
        // SAFETY: the caller guarantees readable storage of the size of an IRP.
        let fit = unsafe { nt_user::irp::submitted(irp, call) };
        if fit {
            // SAFETY: the checks have found an IRP, and the client has just passed it to the provider.
            unsafe { nt_user::irp::handed_down(irp) };
        }
        fit
    }

    fn call_site(&self) -> CallSite {
        let nest = context::current();
        CallSite { callback: nest.callback, completion_depth: nest.completions }
    }

    fn holds_spin_lock(&self) -> bool {
        context::holds_spin_lock()
    }

    fn pin(&self, address: *const u8, rule: &'static str, what: &'static str) -> Option<Pin> {
        let pinned = self.kernel.pin(address.cast(), rule, what);
        Some(Pin(pinned.address, pinned.number))
    }

    fn unpin(&self, Pin(address, number): Pin) {
        self.kernel.unpin(nt_user::pool::PinnedMemory { address, number });
    }

    fn is_freed(&self, address: *const u8) -> bool {
        self.kernel.is_freed(address.cast())
    }

    fn room(&self, address: *const u8) -> Option<usize> {
        self.kernel.room(address.cast())
    }

    fn word_at(&self, address: *const u8) -> Option<usize> {
        self.kernel.word_at(address.cast())
    }

    fn is_non_paged(&self, address: *const u8, length: usize) -> bool {
        self.kernel.is_non_paged(address.cast(), length)
    }
}
