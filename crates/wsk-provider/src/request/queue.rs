//! Requests that wait inside a socket or client object, and their cancellation.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;

use wsk_sys::STATUS_CANCELLED;
use wsk_sys::nt::{self, DEVICE_OBJECT, IRP};

use super::{Completions, Owner, Owns, Pended, Request};
use crate::client::Client;
use crate::socket::Socket;

/// One waiting request and its item.
#[derive(Debug)]
struct Entry<T> {
    irp: NonNull<IRP>,
    pended: Pended,
    item: T,
}

impl<T> Entry<T> {
    /// Returns the request, for the thread that has claimed it, and its item.
    fn into_request(self) -> (Request, T) {
        (Request::pended(self.irp, self.pended), self.item)
    }
}

/// Requests that wait in order, each of which can be cancelled at any moment.
///
/// # Invariants
/// The queue lives under the lock of the object that owns the requests, and every method is called with that
/// lock held. Each entry's cancel routine is armed, or its cancellation has begun; in that case the cancel
/// routine waits for the lock, takes the entry out, and completes it.
#[derive(Debug)]
pub(crate) struct RequestQueue<T> {
    entries: VecDeque<Entry<T>>,
}

// SAFETY: the entries own their IRPs, which have no thread affinity.
unsafe impl<T: Send> Send for RequestQueue<T> {}

impl<T> Default for RequestQueue<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new() }
    }
}

impl<T> RequestQueue<T> {
    /// Puts a request at the end; its call returns `STATUS_PENDING`.
    pub(crate) fn push(&mut self, request: Request, owner: &impl Owns, item: T) {
        self.insert(request, owner, item, false);
    }

    /// Puts a request back at the front.
    pub(crate) fn push_front(&mut self, request: Request, owner: &impl Owns, item: T) {
        self.insert(request, owner, item, true);
    }

    fn insert(&mut self, mut request: Request, owner: &impl Owns, item: T, front: bool) {
        request.mark_pending(owner);
        let (irp, pended) = request.take_apart();
        let pended = pended.expect("the request was marked pending above");
        // SAFETY: the request owned the IRP; from here its cancel routine may run, and waits for the lock.
        unsafe { nt::io_set_cancel_routine(irp.as_ptr(), Some(cancel_routine)) };
        // SAFETY: the IRP is not completed while the lock is held.
        let cancel = unsafe { nt::irp_cancel(irp.as_ptr()) };
        let cancelled = cancel.load(std::sync::atomic::Ordering::SeqCst) != 0 && claim(irp);
        let entry = Entry { irp, pended, item };
        if front {
            self.entries.push_front(entry);
        } else {
            self.entries.push_back(entry);
        }
        if cancelled {
            // Cancelled before the routine was armed: its work is deferred from here, since it needs the
            // lock.
            let cancelled = Cancelled(irp);
            owner.machine().defer(Box::new(move |_| cancelled.finish()));
        }
    }

    /// Takes the oldest request that is not being cancelled.
    pub(crate) fn pop(&mut self) -> Option<(Request, T)> {
        let position = self.entries.iter().position(|entry| claim(entry.irp))?;
        self.entries.remove(position).map(Entry::into_request)
    }

    /// Takes the request whose item fits, if there is one and it is not being cancelled.
    pub(crate) fn take_where(&mut self, fits: impl Fn(&T) -> bool) -> Option<(Request, T)> {
        let position = self.entries.iter().position(|entry| fits(&entry.item))?;
        if !claim(self.entries[position].irp) {
            return None;
        }
        self.entries.remove(position).map(Entry::into_request)
    }

    /// Takes all requests that are not being cancelled, to end with one status.
    pub(crate) fn end_all(&mut self, status: nt::NTSTATUS, completions: &mut Completions) {
        while let Some((request, _)) = self.pop() {
            completions.push(request, status, 0);
        }
    }

    /// Returns whether no request waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The item of the oldest request; the request stays and may be under cancellation.
    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.entries.front_mut().map(|entry| &mut entry.item)
    }

    /// For the cancel path: takes out the entry of `irp`, whose cancellation has begun.
    pub(crate) fn remove_cancelled(&mut self, irp: *mut IRP) -> Option<T> {
        let position = self.entries.iter().position(|entry| entry.irp.as_ptr() == irp)?;
        self.entries.remove(position).map(|entry| entry.item)
    }
}

/// Takes the completion of a waiting IRP away from its cancel routine; false if that has begun already.
fn claim(irp: NonNull<IRP>) -> bool {
    // SAFETY: a waiting IRP is live until it is completed, which takes the lock the caller holds.
    unsafe { nt::io_set_cancel_routine(irp.as_ptr(), None) }.is_some()
}

/// The cancel routine of every waiting request.
unsafe extern "system" fn cancel_routine(_device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    // SAFETY: the I/O manager stores the IRQL to return to before it calls.
    let irql = unsafe { nt::irp_cancel_irql(irp) };
    // SAFETY: the routine is entered holding the cancel spin lock.
    unsafe { nt::IoReleaseCancelSpinLock(irql) };
    if let Some(irp) = NonNull::new(irp) {
        Cancelled(irp).finish();
    }
}

/// A waiting request whose cancellation has begun.
///
/// # Invariants
/// The IRP is in the queue of its owner, with no cancel routine armed, and this value alone may take it out.
struct Cancelled(NonNull<IRP>);

// SAFETY: an IRP has no thread affinity, and this value is the only one that ends it.
unsafe impl Send for Cancelled {}

impl Cancelled {
    /// Takes the request out of its queue and completes it.
    fn finish(self) {
        let irp = self.0.as_ptr();
        // SAFETY: this routine owns the IRP's completion now, and its driver context was written when it was
        // pended.
        let context = unsafe { nt::irp_driver_context(irp) };
        let owner = if context[1].is_null() {
            let socket = context[0].cast::<Socket>().cast_const();
            // SAFETY: the pended IRP counts a reference to its owner until it is completed.
            unsafe { Arc::increment_strong_count(socket) };
            // SAFETY: the count taken above is passed on.
            Owner::Socket(unsafe { Arc::from_raw(socket) })
        } else {
            let client = context[0].cast::<Client>().cast_const();
            // SAFETY: the pended IRP counts a reference to its owner until it is completed.
            unsafe { Arc::increment_strong_count(client) };
            // SAFETY: the count taken above is passed on.
            Owner::Client(unsafe { Arc::from_raw(client) })
        };
        let information = match &owner {
            Owner::Socket(socket) => socket.lock().cancelled(irp),
            Owner::Client(client) => client.cancelled(irp),
        };
        let provider = Arc::clone(owner.provider());
        let request = Request::pended(self.0, Pended::of(owner));
        request.complete_exactly(&provider, STATUS_CANCELLED, information);
    }
}
