//! What is to happen when the current callback has returned to the provider.

use std::cell::RefCell;

type Later = Box<dyn FnOnce()>;

thread_local! {
    /// One entry for each callback the thread is inside of.
    static CALLBACKS: RefCell<Vec<Vec<Later>>> = const { RefCell::new(Vec::new()) };
}

/// The provider is about to call the client.
pub(crate) fn entered() {
    CALLBACKS.with_borrow_mut(|callbacks| callbacks.push(Vec::new()));
}

/// The client has returned.
pub(crate) fn returned() {
    let later = CALLBACKS.with_borrow_mut(Vec::pop);
    for action in later.into_iter().flatten() {
        action();
    }
}

/// Runs `action` when the innermost callback of this thread has returned, or now if there is none.
pub(crate) fn on_return(action: impl FnOnce() + 'static) {
    let now = CALLBACKS.with_borrow_mut(|callbacks| match callbacks.last_mut() {
        Some(later) => {
            later.push(Box::new(action));
            None
        }
        None => Some(action),
    });
    if let Some(action) = now {
        action();
    }
}
