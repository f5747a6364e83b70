//! List of the handles that file objects hold, so that none is lost if they are closed without a cleanup.
//!
//! On Windows each file object ends with `IRP_MJ_CLOSE`, and no driver is unloaded before. Wine unloads a
//! driver whose device is open, and its file objects end without: what they held is taken here then.
#![expect(clippy::expl_impl_clone_on_copy, reason = "the adapter is written by a macro")]

use core::fmt;

use intrusive_collections::{LinkedList, LinkedListAtomicLink, UnsafeRef, intrusive_adapter};
use wsk::memory::Ref;
use wsk::sync::SpinLock;

use super::Open;

pub(super) type Link = LinkedListAtomicLink;

intrusive_adapter!(Links = UnsafeRef<Open>: Open { link => LinkedListAtomicLink });

/// # Invariants
/// Each handle in the list came from [`Ref::into_raw`], and the list owns that count. Each handle keeps the
/// control that has the list alive, so the list is empty when it is dropped.
pub(super) struct Files(SpinLock<LinkedList<Links>>);

impl Files {
    pub(super) fn new() -> Self {
        Self(SpinLock::new(LinkedList::new(Links::NEW)))
    }

    /// Adds a handle that is in no list, and returns its address.
    pub(super) fn add(&self, open: Ref<Open>) -> *const Open {
        let open = Ref::into_raw(open);
        // SAFETY: a `Ref` never moves its value, and the count given up here is the list's.
        let entry = unsafe { UnsafeRef::from_raw(open) };
        self.0.with(|list| list.push_back(entry));
        open
    }

    /// Removes a handle.
    ///
    /// # Safety
    /// The handle was added, and not removed since.
    pub(super) unsafe fn remove(&self, open: &Ref<Open>) {
        let removed = self.0.with(|list| {
            // SAFETY: the caller says that the handle is in the list; the pointer reaches its whole block.
            unsafe { list.cursor_mut_from_ptr(Ref::as_ptr(open)) }.remove()
        });
        drop(removed.map(out));
    }

    /// Gives any handle back.
    pub(super) fn pop(&self) -> Option<Ref<Open>> {
        self.0.with(|list| list.pop_front().map(out))
    }
}

/// A handle that is no longer in the list, with the list's count.
fn out(open: UnsafeRef<Open>) -> Ref<Open> {
    // SAFETY: the list owned this count, by its invariant, and has just given it up.
    unsafe { Ref::from_raw(UnsafeRef::into_raw(open)) }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Files")
    }
}
