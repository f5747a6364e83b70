//! The callbacks of the current thread, and actions to run when they are over.
//!
//! ```text
//!   entered ──► inside, client code runs ──returned──► the provider acts on the answer ──settled──► over
//! ```
//! A thread that learns of a callback must find it over. Otherwise its next call could run while the callback
//! is in progress, which a driver cannot detect.

use std::cell::RefCell;

use nt_user::context;

type Action = Box<dyn FnOnce()>;

struct ActiveCallback {
    checked: context::Callback,
    actions: Vec<Action>,
}

#[derive(Default)]
struct Callbacks {
    /// One entry for each callback that the thread is inside of.
    active: Vec<ActiveCallback>,
    /// Actions that wait until the provider has settled a callback that has returned.
    returned: Vec<Action>,
}

thread_local! {
    static CALLBACKS: RefCell<Callbacks> = RefCell::default();
}

/// Records that the provider is about to call the client.
pub(crate) fn entered(name: &'static str, at_dispatch: bool) {
    let active = ActiveCallback { checked: context::callback(name, at_dispatch), actions: Vec::new() };
    CALLBACKS.with_borrow_mut(|callbacks| callbacks.active.push(active));
}

/// Records that the client has returned.
pub(crate) fn returned() {
    let Some(active) = CALLBACKS.with_borrow_mut(|callbacks| callbacks.active.pop()) else { return };
    drop(active.checked);
    CALLBACKS.with_borrow_mut(|callbacks| callbacks.returned.extend(active.actions));
}

/// Runs the actions once the provider has acted on the answer.
pub(crate) fn settled() {
    let actions = CALLBACKS.with_borrow_mut(|callbacks| std::mem::take(&mut callbacks.returned));
    for action in actions {
        action();
    }
}

/// Runs `action` when the innermost callback of this thread is over, or now if there is none.
pub(crate) fn when_over(action: impl FnOnce() + 'static) {
    let now = CALLBACKS.with_borrow_mut(|callbacks| match callbacks.active.last_mut() {
        Some(active) => {
            active.actions.push(Box::new(action));
            None
        }
        None => Some(action),
    });
    if let Some(action) = now {
        action();
    }
}
