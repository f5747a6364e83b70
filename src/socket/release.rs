//! Letting go of cores: the last reference on one is dropped by a loop, not by whatever dropped it.
//!
//! Dropping a core drops the user's handlers, which may own anything: also a future of the next socket, whose
//! request is cancelled, completes, and lets go of the next core. Done where it became due, each core of such
//! a chain would be dropped inside the one before it, on a stack of a few pages.
//!
//! ```text
//!   last SocketRef dropped ──▶ list of the client ──▶ it is not being emptied: this thread does
//!                                                           └──▶ another does: it drops this core too
//! ```
//!
//! A core is on the list by the node that its close has used before, so that this takes no memory.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use super::Socket;
use crate::sync::{Link, Linked, SpinLock, Stack};

/// The last reference on a core, which begins with this socket; the pointer reaches all of it.
pub(super) struct Last(NonNull<Socket>);

impl Last {
    /// # Safety
    /// The caller gives up the last reference on the core that begins with `socket`, as a pointer that
    /// reaches all of it.
    pub(super) unsafe fn new(socket: NonNull<Socket>) -> Self {
        Self(socket)
    }
}

// SAFETY: cores are `Send + Sync` by the bound of `Core`.
unsafe impl Send for Last {}

// SAFETY: a socket begins with its node, which begins with its link. The node is queued once for the close,
// which has completed when WSK has given its reference back, or never for a core without a socket; so nobody
// else uses it now. The core stays where it is, because its last reference was given up to the list.
unsafe impl Linked for Last {
    fn into_link(self) -> NonNull<Link> {
        ManuallyDrop::new(self).0.cast()
    }

    unsafe fn from_link(link: NonNull<Link>) -> Self {
        Self(link.cast())
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        // SAFETY: the reference keeps the core alive.
        let free = unsafe { self.0.as_ref() }.lifetime.free;
        // SAFETY: the reference that this value owns is given up here, and it is not used again.
        unsafe { free(self.0) };
    }
}

/// The cores of a client whose last reference is gone, and that are to be dropped.
pub(crate) struct Releases {
    list: Stack<Last>,
    /// True if a thread empties the list. It looks at the list, and others at this, under the lock: either it
    /// sees what they have put there, or they see that nobody does.
    busy: SpinLock<bool>,
}

impl Releases {
    pub(crate) fn new() -> Self {
        Self { list: Stack::new(), busy: SpinLock::new(false) }
    }

    /// Returns whether no core is being dropped or waits for it.
    pub(crate) fn are_over(&self) -> bool {
        !*self.busy.lock() && self.list.is_empty()
    }

    /// Becomes the one that empties the list; `false` if there is one.
    fn begin(&self) -> bool {
        !core::mem::replace(&mut *self.busy.lock(), true)
    }

    /// Ends that; `false` if there is more to do.
    fn end(&self) -> bool {
        let mut busy = self.busy.lock();
        *busy = !self.list.is_empty();
        !*busy
    }
}

/// Has a core dropped, here or by a thread that drops others already.
///
/// IRQL: up to `DISPATCH_LEVEL`.
#[inline(never)]
pub(super) fn release(last: Last) {
    // SAFETY: the reference keeps the core alive.
    let client = unsafe { last.0.as_ref() }.client.clone();
    let releases = client.releases();
    releases.list.push(last);
    if !releases.begin() {
        return;
    }
    loop {
        releases.list.take_all().for_each(drop);
        if releases.end() {
            break;
        }
    }
    client.cores_dropped();
}
