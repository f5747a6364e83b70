//! State of the calling thread: its IRQL, and the client code that it is in.
//!
//! Wine's kernel keeps no IRQL. This one is raised by the provider around client code; what a driver does to
//! its own IRQL through the kernel is not seen here.

use std::cell::RefCell;

use wsk_provider::CallSite;
use wsk_sys::nt::{KIRQL, PASSIVE_LEVEL};

#[derive(Debug)]
struct Thread {
    irql: KIRQL,
    /// The client callbacks, the innermost last.
    callbacks: Vec<&'static str>,
    /// The number of completion routines that the thread is in.
    completions: u32,
}

thread_local! {
    static THREAD: RefCell<Thread> =
        const { RefCell::new(Thread { irql: PASSIVE_LEVEL, callbacks: Vec::new(), completions: 0 }) };
}

/// Reads the state of the thread; `ended` if the thread is ending and has none.
fn with<R>(read: impl FnOnce(&mut Thread) -> R, ended: R) -> R {
    THREAD.try_with(|thread| read(&mut thread.borrow_mut())).unwrap_or(ended)
}

/// The IRQL of the thread.
pub fn irql() -> KIRQL {
    with(|thread| thread.irql, PASSIVE_LEVEL)
}

/// Sets the IRQL of the thread; returns the previous one.
pub fn set_irql(irql: KIRQL) -> KIRQL {
    with(|thread| std::mem::replace(&mut thread.irql, irql), PASSIVE_LEVEL)
}

/// Returns the client code that the thread is in.
pub fn call_site() -> CallSite {
    let here = |thread: &mut Thread| CallSite {
        callback: thread.callbacks.last().copied(),
        completion_depth: thread.completions,
    };
    with(here, CallSite::default())
}

/// Records that the thread enters the client callback `name`.
pub fn enter_callback(name: &'static str) {
    with(|thread| thread.callbacks.push(name), ());
}

/// Records that the thread leaves the innermost callback.
pub fn leave_callback() {
    with(
        |thread| {
            thread.callbacks.pop();
        },
        (),
    );
}

/// A guard for the time in which the thread completes an IRP.
#[derive(Debug)]
pub struct Completing(());

impl Completing {
    /// Enters the completion.
    pub fn begin() -> Self {
        with(|thread| thread.completions += 1, ());
        Self(())
    }
}

impl Drop for Completing {
    fn drop(&mut self) {
        with(|thread| thread.completions = thread.completions.saturating_sub(1), ());
    }
}

#[cfg(test)]
mod tests {
    use wsk_sys::nt::DISPATCH_LEVEL;

    use super::*;

    #[test]
    fn the_irql_belongs_to_the_thread() {
        assert_eq!(set_irql(DISPATCH_LEVEL), PASSIVE_LEVEL);
        assert_eq!(irql(), DISPATCH_LEVEL);
        let other = std::thread::spawn(irql).join().expect("the thread ends");
        assert_eq!(other, PASSIVE_LEVEL);
        assert_eq!(set_irql(PASSIVE_LEVEL), DISPATCH_LEVEL);
        assert_eq!(irql(), PASSIVE_LEVEL);
    }

    #[test]
    fn the_innermost_callback_is_told() {
        enter_callback("WskInspectEvent");
        let completing = Completing::begin();
        enter_callback("WskAbortEvent");
        assert_eq!(call_site(), CallSite { callback: Some("WskAbortEvent"), completion_depth: 1 });
        leave_callback();
        drop(completing);
        assert_eq!(call_site(), CallSite { callback: Some("WskInspectEvent"), completion_depth: 0 });
        leave_callback();
        leave_callback();
        assert_eq!(call_site(), CallSite::default());
    }
}
