//! Addresses of this network, so that the host can be configured to share one.
//!
//! WSK grants some overlaps (a wildcard beside a specific address, two `SO_REUSEADDR` sockets) that a Unix
//! host refuses. The provider decides by WSK's table; when it has granted one, both host sockets are marked
//! `SO_REUSEPORT` for the length of the `bind` or `listen` call and unmarked after it. So a foreign process
//! that binds the same address still learns that it is in use.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use socket2::{SockAddr, Socket};

/// The two port spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stream,
    Datagram,
}

#[cfg(unix)]
type Raw = std::os::fd::RawFd;
#[cfg(windows)]
type Raw = std::os::windows::io::RawSocket;

/// # Invariants
/// `raw` is open: the entry is removed, under the lock of the table, before its socket is closed.
#[derive(Debug)]
struct Entry {
    kind: Kind,
    port: u16,
    raw: Raw,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    next: u64,
}

/// The addresses in use.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    table: Mutex<Table>,
}

/// One address in use. The owner of the socket drops this before it.
#[derive(Debug)]
pub(super) struct Binding {
    bindings: Arc<Bindings>,
    id: u64,
    shared: bool,
}

impl Bindings {
    /// Binds `socket` to `local`, beside holders of the same port if `share`.
    pub(super) fn bind(
        self: &Arc<Self>,
        kind: Kind,
        socket: &Socket,
        local: SocketAddr,
        share: bool,
    ) -> io::Result<Binding> {
        let mut table = self.table.lock();
        let address = SockAddr::from(local);
        let port = match (share, socket.bind(&address)) {
            (true, Err(error)) if error.kind() == io::ErrorKind::AddrInUse => {
                table.shared(kind, local.port(), socket, || socket.bind(&address))?;
                local.port()
            }
            (_, result) => {
                result?;
                socket.local_addr()?.as_socket().map_or(0, |address| address.port())
            }
        };
        let id = table.next;
        table.next += 1;
        table.entries.insert(id, Entry { kind, port, raw: raw(socket) });
        Ok(Binding { bindings: Arc::clone(self), id, shared: share })
    }
}

impl Binding {
    /// Calls `listen`, which some hosts check for address conflicts once more.
    pub(super) fn listen(&self, socket: &Socket, backlog: i32) -> io::Result<()> {
        if !self.shared {
            return socket.listen(backlog);
        }
        let table = self.bindings.table.lock();
        let Some(entry) = table.entries.get(&self.id) else { return socket.listen(backlog) };
        table.shared(entry.kind, entry.port, socket, || socket.listen(backlog))
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        self.bindings.table.lock().entries.remove(&self.id);
    }
}

impl Table {
    /// Runs `call` while `socket` and every holder of `port` allow sharing.
    fn shared(
        &self,
        kind: Kind,
        port: u16,
        socket: &Socket,
        call: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let holders = || self.entries.values().filter(|entry| entry.kind == kind && entry.port == port);
        allow_sharing(raw(socket), true)?;
        for holder in holders() {
            allow_sharing(holder.raw, true)?;
        }
        let result = call();
        // Unmarking cannot fail on a marked socket; a failure would only leave sharing allowed.
        let _ = allow_sharing(raw(socket), false);
        for holder in holders() {
            let _ = allow_sharing(holder.raw, false);
        }
        result
    }
}

#[cfg(unix)]
fn raw(socket: &Socket) -> Raw {
    use std::os::fd::AsRawFd;
    socket.as_raw_fd()
}

#[cfg(unix)]
fn allow_sharing(raw: Raw, on: bool) -> io::Result<()> {
    // SAFETY: by the invariant of `Entry`, or because the caller holds the socket, the descriptor is open
    // during this call, which does not keep it.
    let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(raw) };
    socket2::SockRef::from(&socket).set_reuse_port(on)
}

#[cfg(windows)]
fn raw(socket: &Socket) -> Raw {
    use std::os::windows::io::AsRawSocket;
    socket.as_raw_socket()
}

#[cfg(windows)]
fn allow_sharing(raw: Raw, on: bool) -> io::Result<()> {
    // SAFETY: by the invariant of `Entry`, or because the caller holds the socket, the handle is open during
    // this call, which does not keep it.
    let socket = unsafe { std::os::windows::io::BorrowedSocket::borrow_raw(raw) };
    socket2::SockRef::from(&socket).set_reuse_address(on)
}
