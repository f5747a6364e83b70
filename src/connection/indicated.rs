//! The indication whose callback is running, and whether its data is still retained.

use crate::sync::atomic::{AtomicPtr, Ordering};

/// The indication list of the receive callback that is running, if its data was not given back yet.
///
/// The callback's return and the drop of retained data both [end](Indicated::end) it; whichever is second
/// tells WSK: the callback by what it returns, the retained data by `WskRelease`.
pub(super) struct Indicated<T>(AtomicPtr<T>);

impl<T> Indicated<T> {
    pub(super) fn new() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    /// The callback for `list` runs. Callbacks of a connection are serial (rule RCVE-03).
    pub(super) fn begin(&self, list: *mut T) {
        self.0.store(list, Ordering::Release);
    }

    /// Ends it for `list`. `true` for the first of the two.
    pub(super) fn end(&self, list: *mut T) -> bool {
        self.0.compare_exchange(list, core::ptr::null_mut(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
