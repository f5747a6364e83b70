//! The callbacks that the current thread is inside of, and what is to happen when they have returned.

use std::cell::RefCell;

use nt_user::context;

type Later = Box<dyn FnOnce()>;

struct Inside {
    checked: context::Callback,
    later: Vec<Later>,
}

thread_local! {
    /// One entry for each callback the thread is inside of.
    static CALLBACKS: RefCell<Vec<Inside>> = const { RefCell::new(Vec::new()) };
}

/// The provider is about to call the client.
pub(crate) fn entered(name: &'static str, at_dispatch: bool) {
    let inside = Inside { checked: context::callback(name, at_dispatch), later: Vec::new() };
    CALLBACKS.with_borrow_mut(|callbacks| callbacks.push(inside));
}

/// The client has returned, and the provider has taken note of its answer.
pub(crate) fn returned() {
    let Some(inside) = CALLBACKS.with_borrow_mut(Vec::pop) else { return };
    drop(inside.checked);
    for action in inside.later {
        action();
    }
}

/// Runs `action` when the innermost callback of this thread has returned, or now if there is none.
pub(crate) fn on_return(action: impl FnOnce() + 'static) {
    let now = CALLBACKS.with_borrow_mut(|callbacks| match callbacks.last_mut() {
        Some(inside) => {
            inside.later.push(Box::new(action));
            None
        }
        None => Some(action),
    });
    if let Some(action) = now {
        action();
    }
}
