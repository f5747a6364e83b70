//! Reserved addresses and connections of the host.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use socket2::{SockAddr, SockRef, Socket};

use super::bindings::Binding;
use super::listener::{BACKLOG, LiveListener};
use super::reactor::{REARMS, Reactor, Registration, StreamPermit};
use super::{on, tune};
use crate::transport::{ListenSink, Listener, ReadySink, Reservation, Stream, Waiting};

/// A bound host socket that neither listens nor connects yet.
#[derive(Debug)]
pub(super) struct Reserved {
    /// Declared before the socket: see [`Binding`].
    binding: Binding,
    socket: Socket,
    reactor: Arc<Reactor>,
}

impl Reserved {
    pub(super) fn new(binding: Binding, socket: Socket, reactor: Arc<Reactor>) -> Self {
        Self { binding, socket, reactor }
    }

    fn with<R>(&self, call: impl FnOnce(&SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        on(&self.socket, call)
    }
}

tune!(Reserved, with);

impl Reservation for Reserved {
    fn listen(self: Box<Self>, sink: Arc<dyn ListenSink>) -> io::Result<Box<dyn Listener>> {
        if cfg!(unix) {
            // Inherited by the accepted sockets, whose remains would otherwise prevent another bind of the
            // port. Not set before an ephemeral port was chosen: hosts choose from fewer ports then.
            self.socket.set_reuse_address(true)?;
        }
        self.binding.listen(&self.socket, BACKLOG)?;
        let Self { binding, socket, reactor } = *self;
        let socket = TcpListener::from_std(socket.into());
        Ok(Box::new(LiveListener::new(binding, socket, &reactor, sink)?))
    }

    fn connect(self: Box<Self>, remote: SocketAddr, sink: Arc<dyn ReadySink>) -> io::Result<Box<dyn Stream>> {
        if let Err(error) = self.socket.connect(&SockAddr::from(remote))
            && !in_progress(&error)
        {
            return Err(error);
        }
        let Self { binding, socket, reactor } = *self;
        let mut stream = LiveStream::new(TcpStream::from_std(socket.into()), remote, reactor);
        stream.binding = Some(binding);
        stream.attach(sink)?;
        Ok(Box::new(stream))
    }
}

fn in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        error.raw_os_error() == Some(libc::EINPROGRESS)
    }
    #[cfg(windows)]
    {
        error.kind() == ErrorKind::WouldBlock
    }
}

/// A connection of the host.
///
/// Transfers bypass `mio`, which would respond to one that would block with a request for all events of the
/// registration: on Windows that cancels the request that waits for data. [`LiveStream::exhausted`] requests
/// the needed events.
///
/// # Invariants
/// Fields are dropped in the order of declaration: the registration and the binding before the socket is
/// closed, the permit of the stream after it.
#[derive(Debug)]
pub(super) struct LiveStream {
    registration: Option<Registration>,
    binding: Option<Binding>,
    socket: TcpStream,
    reset_on_drop: bool,
    /// The host has no room for data that the owner wants to write.
    blocked: bool,
    /// The sending direction was ended.
    shut: bool,
    remote: SocketAddr,
    reactor: Arc<Reactor>,
    _permit: StreamPermit,
}

impl LiveStream {
    pub(super) fn new(socket: TcpStream, remote: SocketAddr, reactor: Arc<Reactor>) -> Self {
        let permit = StreamPermit::new(Arc::clone(&reactor));
        Self {
            registration: None,
            binding: None,
            socket,
            reset_on_drop: true,
            blocked: false,
            shut: false,
            remote,
            reactor,
            _permit: permit,
        }
    }

    fn with<R>(&self, call: impl FnOnce(&SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        on(&self.socket, call)
    }

    /// Returns whether the end of the stream that was read is real. Wine's server polls sockets itself, and
    /// after it has consumed a reset a read finds an end. In that case even an empty send fails.
    fn end(&self) -> io::Result<()> {
        if !cfg!(windows) || self.shut {
            return Ok(());
        }
        match self.with(|socket| socket.send(&[])) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(ErrorKind::ConnectionReset.into()),
            _ => Ok(()),
        }
    }

    /// Requests the report that the owner waits for after a short transfer: for data, or after a write for
    /// room. Needed only on hosts that do not report by themselves.
    fn exhausted(&mut self, wrote: bool) {
        self.blocked |= wrote;
        if let Some(registration) = &self.registration {
            // A failure is retried when the reactor polls.
            let _ = registration.rearm(&mut self.socket, self.blocked);
        }
    }
}

impl Drop for LiveStream {
    fn drop(&mut self) {
        if self.reset_on_drop {
            // On failure the connection is already gone and there is nothing left to reset.
            let _ = self.with(|socket| socket.set_linger(Some(Duration::ZERO)));
        }
    }
}

tune!(LiveStream, with);

impl Stream for LiveStream {
    fn attach(&mut self, sink: Arc<dyn ReadySink>) -> io::Result<()> {
        if let Some(registration) = &self.registration {
            return registration.retarget(&mut self.socket, sink);
        }
        self.registration = Some(self.reactor.register_sink(&mut self.socket, sink)?);
        Ok(())
    }

    fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected || in_progress(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn try_read(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let room = buffers.iter().map(|buffer| buffer.len()).sum();
        let read = retry(|| {
            self.with(|socket| {
                // A read changes only the contents of the socket.
                let mut socket: &Socket = socket;
                match &mut *buffers {
                    [buffer] => socket.read(buffer),
                    buffers => socket.read_vectored(buffers),
                }
            })
        });
        match read {
            // No data follows the end.
            Ok(0) if room > 0 => self.end().map(|()| 0),
            _ => {
                if REARMS && is_short(&read, room) {
                    self.exhausted(false);
                }
                read
            }
        }
    }

    fn try_write(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let room = buffers.iter().map(|buffer| buffer.len()).sum();
        let written = retry(|| self.with(|socket| write(socket, buffers)));
        if REARMS {
            self.blocked = false;
            if is_short(&written, room) {
                self.exhausted(true);
            }
        }
        written
    }

    fn peek(&self) -> io::Result<Waiting> {
        match retry(|| self.socket.peek(&mut [0])) {
            Ok(0) => self.end().map(|()| Waiting::End),
            Ok(_) => Ok(Waiting::Data),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Waiting::Nothing),
            Err(error) => Err(error),
        }
    }

    fn unread(&self) -> io::Result<usize> {
        unread(&self.socket)
    }

    fn shut_write(&mut self) -> io::Result<()> {
        self.shut = true;
        self.socket.shutdown(std::net::Shutdown::Write)
    }

    fn drained(&self) -> io::Result<Option<bool>> {
        drained(&self.socket)
    }

    fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    fn close(mut self: Box<Self>) {
        self.reset_on_drop = false;
    }

    fn abort(self: Box<Self>) {
        drop(self);
    }
}

/// Returns whether a transfer was short, so that no more data can be moved now.
fn is_short(moved: &io::Result<usize>, most: usize) -> bool {
    match moved {
        Ok(bytes) => *bytes < most,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Repeats a call that a signal interrupted.
fn retry<R>(mut call: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Sends without the signal that some hosts raise for a peer that is gone.
fn write(socket: &SockRef<'_>, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let flags = libc::MSG_NOSIGNAL;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let flags = 0;
    match buffers {
        [buffer] => socket.send_with_flags(buffer, flags),
        buffers => socket.send_vectored_with_flags(buffers, flags),
    }
}

#[cfg(unix)]
fn query(socket: &TcpStream, request: libc::Ioctl) -> io::Result<usize> {
    use std::os::fd::AsRawFd;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and each request this file passes writes one `int`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(bytes).unwrap_or(0)) }
}

#[cfg(unix)]
fn unread(socket: &TcpStream) -> io::Result<usize> {
    query(socket, libc::FIONREAD)
}

#[cfg(windows)]
fn unread(socket: &TcpStream) -> io::Result<usize> {
    use std::os::windows::io::AsRawSocket;
    use windows_sys::Win32::Networking::WinSock::{FIONREAD, ioctlsocket};
    let mut bytes = 0;
    let socket = usize::try_from(socket.as_raw_socket()).map_err(io::Error::other)?;
    // SAFETY: the socket is open, and this request writes one number.
    let result = unsafe { ioctlsocket(socket, FIONREAD, &raw mut bytes) };
    if result != 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

/// Returns the number of unacknowledged bytes. Linux counts the end, too, and wakes its waiters when that is
/// acknowledged.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn drained(socket: &TcpStream) -> io::Result<Option<bool>> {
    Ok(Some(query(socket, libc::TIOCOUTQ)? == 0))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is that of the hosts with this feature")]
fn drained(_socket: &TcpStream) -> io::Result<Option<bool>> {
    Ok(None)
}
