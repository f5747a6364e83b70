//! The client's list of live sockets, so that unloading can close what is still open and say how much that
//! is.

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use crate::socket::{Socket, SocketRef};
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
// SAFETY: by the invariant all access happens under one lock.
unsafe impl Sync for Links {}

impl Links {
    pub(crate) const fn new() -> Self {
        Self { previous: UnsafeCell::new(None), next: UnsafeCell::new(None) }
    }
}

/// # Safety
/// The socket is alive for `'a`. A listed one is until it is taken out, which takes the lock.
unsafe fn links<'a>(socket: NonNull<Socket>) -> &'a Links {
    // SAFETY: the caller says that the socket is alive.
    unsafe { socket.as_ref() }.links()
}

/// All sockets of a client that have not completed their close.
pub(super) struct Sockets {
    list: SpinLock<List>,
}

/// # Invariants
/// - A socket in the list is alive: WSK's reference is given back only after it was taken out, which takes
///   the lock.
/// - `count` sockets are listed; `unfinished` are, or were and their close is not over yet.
/// - `to_shut` is listed, and so are those behind it that are yet to be told of the end.
struct List {
    first: Option<NonNull<Socket>>,
    to_shut: Option<NonNull<Socket>>,
    count: usize,
    unfinished: usize,
    shutting: bool,
}

// SAFETY: the pointers lead to sockets, which are `Send + Sync`.
unsafe impl Send for List {}

impl Sockets {
    pub(super) fn new() -> Self {
        let list = List { first: None, to_shut: None, count: 0, unfinished: 0, shutting: false };
        Self { list: SpinLock::new(list) }
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
        let shutting = list.shutting;
        drop(list);
        if shutting {
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
        if list.to_shut == Some(socket) {
            list.to_shut = next;
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
        list.to_shut = list.first;
        drop(list);
        // Not under the lock, and one after the other: tasks that wait for a socket to be shut are woken, by
        // code of the user's.
        while let Some(socket) = self.next_to_shut() {
            socket.close_later();
        }
    }

    fn next_to_shut(&self) -> Option<SocketRef> {
        let mut list = self.list.lock();
        let socket = list.to_shut?;
        // SAFETY: a listed socket is alive while the lock is held.
        let own = unsafe { links(socket) };
        // SAFETY: the lock is held.
        list.to_shut = unsafe { *own.next.get() };
        // SAFETY: WSK has a reference as long as the socket is listed, and `enlist` passed a pointer that
        // reaches the whole core.
        Some(unsafe { SocketRef::share(socket) })
    }
}
