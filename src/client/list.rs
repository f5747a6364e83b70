//! The client's list of live sockets, so that unloading can close what is still open and say how much that is.

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use crate::socket::Socket;
use crate::sync::SpinLock;

/// A socket's place in the list.
///
/// # Invariants
/// Read and written only while the lock of the list is held.
pub(crate) struct Links {
    previous: UnsafeCell<Option<NonNull<Socket>>>,
    next: UnsafeCell<Option<NonNull<Socket>>>,
}

// SAFETY: by the invariant all access happens under one lock.
unsafe impl Send for Links {}
// SAFETY: as for `Send`.
unsafe impl Sync for Links {}

impl Links {
    pub(crate) const fn new() -> Self {
        Self { previous: UnsafeCell::new(None), next: UnsafeCell::new(None) }
    }
}

/// # Safety
/// The socket is alive for `'a`. A listed one is until it is taken out, which takes the lock.
unsafe fn links<'a>(socket: NonNull<Socket>) -> &'a Links {
    // SAFETY: forwarded to the caller.
    unsafe { socket.as_ref() }.links()
}

/// All sockets of a client that have not completed their close.
pub(super) struct Sockets {
    list: SpinLock<List>,
}

/// # Invariants
/// - A socket in the list is alive: WSK's reference is given back only after it was taken out, which takes the lock.
/// - `count` sockets are listed; `unfinished` are, or were and their close is not over yet.
struct List {
    first: Option<NonNull<Socket>>,
    count: usize,
    unfinished: usize,
    shutting: bool,
}

// SAFETY: the pointers lead to sockets, which are `Send + Sync`.
unsafe impl Send for List {}

impl Sockets {
    pub(super) fn new() -> Self {
        Self { list: SpinLock::new(List { first: None, count: 0, unfinished: 0, shutting: false }) }
    }

    /// Adds a socket. When everything is shutting already, the socket is told so.
    ///
    /// # Safety
    /// `socket` is not listed, and stays alive until it was removed.
    pub(super) unsafe fn insert(&self, socket: NonNull<Socket>) {
        let mut list = self.list.lock();
        // SAFETY: the caller keeps the socket alive.
        let own = unsafe { links(socket) };
        // SAFETY: the lock is held.
        unsafe { *own.next.get() = list.first };
        if let Some(next) = list.first {
            // SAFETY: a listed socket is alive while the lock is held.
            let next = unsafe { links(next) };
            // SAFETY: the lock is held.
            unsafe { *next.previous.get() = Some(socket) };
        }
        list.first = Some(socket);
        list.count += 1;
        list.unfinished += 1;
        if list.shutting {
            // The socket is not attached yet, so this is noted and takes effect then.
            // SAFETY: the caller keeps the socket alive.
            let _ = unsafe { socket.as_ref() }.shut();
        }
    }

    /// Removes a socket. It counts as unfinished until [`Sockets::finish`].
    ///
    /// # Safety
    /// `socket` is listed.
    pub(super) unsafe fn remove(&self, socket: NonNull<Socket>) {
        let mut list = self.list.lock();
        // SAFETY: a listed socket is alive while the lock is held.
        let own = unsafe { links(socket) };
        // SAFETY: the lock is held.
        let previous = unsafe { (*own.previous.get()).take() };
        // SAFETY: the lock is held.
        let next = unsafe { (*own.next.get()).take() };
        match previous {
            Some(previous) => {
                // SAFETY: a listed socket is alive while the lock is held.
                let previous = unsafe { links(previous) };
                // SAFETY: the lock is held.
                unsafe { *previous.next.get() = next };
            }
            None => list.first = next,
        }
        if let Some(next) = next {
            // SAFETY: a listed socket is alive while the lock is held.
            let next = unsafe { links(next) };
            // SAFETY: the lock is held.
            unsafe { *next.previous.get() = previous };
        }
        list.count -= 1;
    }

    /// The close of a socket that was removed is over.
    ///
    /// # Safety
    /// Once for each socket that was removed.
    pub(super) unsafe fn finish(&self) {
        self.list.lock().unfinished -= 1;
    }

    pub(super) fn unfinished(&self) -> usize {
        self.list.lock().unfinished
    }

    pub(super) fn count(&self) -> usize {
        self.list.lock().count
    }

    /// Asks every socket to close, now and in future. Only the first call has anything to do.
    pub(super) fn shut_all(&self) {
        let mut list = self.list.lock();
        if core::mem::replace(&mut list.shutting, true) {
            return;
        }
        let mut at = list.first;
        while let Some(socket) = at {
            // SAFETY: a listed socket is alive.
            unsafe { socket.as_ref() }.close_later();
            // SAFETY: as above: taking it out takes the lock.
            let own = unsafe { links(socket) };
            // SAFETY: the lock is held.
            at = unsafe { *own.next.get() };
        }
    }
}
