//! A listening host socket.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::TcpListener;
use parking_lot::Mutex;
use socket2::SockRef;

use super::bindings::Binding;
use super::reactor::{Reactor, Registration};
use super::stream::LiveStream;
use super::{on, tune};
use crate::transport::{ListenSink, Listener};

/// Backlog of the host. WSK specifies none; ten thousand clients that connect at once must not lose their
/// SYNs to a short one, and the host reduces a value that it does not allow.
pub(super) const BACKLOG: i32 = 65_535;
/// Number of streams that are accepted at a time, before other sockets are served.
const BATCH: usize = 256;

/// Progress of an [`Acceptor`].
pub(super) enum Progress {
    /// No stream waits, or delivery is disabled.
    Done,
    /// More may wait.
    More,
    /// The maximum number of streams is reached, or the host is out of descriptors or memory: retry when
    /// streams have ended.
    Starved,
}

/// The part of a listener that the reactor calls.
///
/// # Invariants
/// The socket is `None` once the listener is gone; it is closed under the lock, so that the address is free
/// when the listener's owner has dropped it.
pub(super) struct Acceptor {
    socket: Mutex<Option<TcpListener>>,
    accepting: AtomicBool,
    sink: Arc<dyn ListenSink>,
    reactor: Arc<Reactor>,
}

impl Acceptor {
    /// Accepts the waiting streams.
    pub(super) fn accept(&self) -> Progress {
        for _ in 0..BATCH {
            if !self.accepting.load(Ordering::Acquire) {
                return Progress::Done;
            }
            let accepted = match &*self.socket.lock() {
                Some(_) if self.reactor.is_full() => return Progress::Starved,
                Some(socket) => socket.accept(),
                None => return Progress::Done,
            };
            match accepted {
                Ok((socket, remote)) => {
                    // Hosts differ in the options that an accepted socket inherits; a failure only leaves
                    // Nagle's algorithm enabled.
                    if !cfg!(target_os = "linux") {
                        let _ = socket.set_nodelay(true);
                    }
                    let stream = LiveStream::new(socket, remote, Arc::clone(&self.reactor));
                    self.sink.incoming(Box::new(stream));
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Progress::Done,
                    _ if starved(&error) => return Progress::Starved,
                    _ if broken(&error) => {
                        self.sink.failed(error);
                        return Progress::Done;
                    }
                    // The error of one connection that ended before it was accepted; the next one may
                    // succeed.
                    _ => {}
                },
            }
        }
        Progress::More
    }
}

#[cfg(unix)]
fn starved(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(unix)]
fn broken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP))
}

#[cfg(windows)]
fn starved(error: &io::Error) -> bool {
    // WSAEMFILE and WSAENOBUFS.
    matches!(error.raw_os_error(), Some(10_024 | 10_055))
}

#[cfg(windows)]
fn broken(error: &io::Error) -> bool {
    // WSAEINVAL, WSAENOTSOCK and WSAEOPNOTSUPP.
    matches!(error.raw_os_error(), Some(10_022 | 10_038 | 10_045))
}

/// A [`Listener`] of the host.
pub(super) struct LiveListener {
    acceptor: Arc<Acceptor>,
    /// Declared before the socket is closed by `Drop`: see [`Binding`].
    binding: Option<Binding>,
    registration: Option<Registration>,
}

impl fmt::Debug for LiveListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveListener").field("socket", &self.acceptor.socket).finish_non_exhaustive()
    }
}

impl LiveListener {
    pub(super) fn new(
        binding: Binding,
        socket: TcpListener,
        reactor: &Arc<Reactor>,
        sink: Arc<dyn ListenSink>,
    ) -> io::Result<Self> {
        let acceptor = Arc::new(Acceptor {
            socket: Mutex::new(None),
            accepting: AtomicBool::new(true),
            sink,
            reactor: Arc::clone(reactor),
        });
        let mut listener = Self { acceptor, binding: Some(binding), registration: None };
        // The reactor may call the acceptor as soon as it is registered, and needs the socket then.
        let mut slot = listener.acceptor.socket.lock();
        let socket = slot.insert(socket);
        let registration = reactor.register_listener(socket, Arc::clone(&listener.acceptor))?;
        drop(slot);
        listener.registration = Some(registration);
        Ok(listener)
    }

    fn with<R>(&self, call: impl FnOnce(&SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        match &*self.acceptor.socket.lock() {
            Some(socket) => on(socket, call),
            None => Err(ErrorKind::NotConnected.into()),
        }
    }
}

impl Drop for LiveListener {
    fn drop(&mut self) {
        self.registration = None;
        self.binding = None;
        let socket = self.acceptor.socket.lock().take();
        drop(socket);
    }
}

tune!(LiveListener, with);

impl Listener for LiveListener {
    fn set_accepting(&self, on: bool) {
        if !self.acceptor.accepting.swap(on, Ordering::AcqRel) && on {
            self.acceptor.reactor.look_again(Arc::clone(&self.acceptor));
        }
    }
}
