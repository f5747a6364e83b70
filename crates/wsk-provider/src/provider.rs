//! The provider: one instance of WSK. A process can have several.

use std::collections::VecDeque;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use wsk_sys::PWSK_SOCKET;
use wsk_sys::nt::{self, KIRQL};

use crate::address::{AddressTable, DescriptorCache};
use crate::client::AddressLists;
use crate::config::Config;
use crate::data::{Packet, Packets, Show};
use crate::host::{FaultPoint, Host, Report, Severity};
use crate::listen::IdCells;
use crate::live_config::{CallbackIrql, LiveConfig};
use crate::registration::Registrar;
use crate::socket::Socket;
use crate::transport::Transport;
use crate::worker::{CallbackThreads, Completer, Task};

/// Number of closed sockets that are kept, so that a late call on one is recognized and does not access freed
/// memory. Each takes a kilobyte: a larger number would look like a leak of a long-running server until it is
/// reached.
const RETIRED: usize = 1024;

/// One instance of WSK. Clones are handles to the same instance.
#[derive(Clone, Debug)]
pub struct Provider(pub(crate) Arc<Inner>);

/// An open socket, for leak reports.
#[derive(Clone, Debug)]
pub struct OpenSocket {
    /// The socket.
    pub address: usize,
    /// Kind and state of the socket.
    pub description: String,
    /// Rule that the leak breaks.
    pub rule: &'static str,
}

/// State that the parts of one provider share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) live_config: LiveConfig,
    pub(crate) registrar: Registrar,
    pub(crate) addresses: AddressTable,
    pub(crate) descriptors: DescriptorCache,
    pub(crate) id_cells: IdCells,
    pub(crate) address_lists: AddressLists,
    pub(crate) packets: Packets,
    completer: Arc<Completer>,
    callbacks: Arc<CallbackThreads>,
    retired: Mutex<VecDeque<Arc<Socket>>>,
    started: Mutex<bool>,
    stopped: AtomicBool,
}

impl Provider {
    /// Creates a provider over `transport` that has not arrived yet: clients can register, and captures wait.
    pub fn new(config: Config, transport: Arc<dyn Transport>, host: Arc<dyn Host>) -> Self {
        Self(Arc::new(Inner {
            host,
            transport,
            live_config: LiveConfig::new(config),
            registrar: Registrar::default(),
            addresses: AddressTable::default(),
            descriptors: DescriptorCache::default(),
            id_cells: IdCells::default(),
            address_lists: AddressLists::default(),
            packets: Packets::default(),
            completer: Arc::default(),
            callbacks: Arc::default(),
            retired: Mutex::default(),
            started: Mutex::new(false),
            stopped: AtomicBool::new(false),
        }))
    }

    /// Makes the provider available: waiting captures succeed. False if the host has no thread for callbacks:
    /// then the provider stays unavailable, and may arrive later.
    pub fn arrive(&self) -> bool {
        let started = self.0.callbacks.start(&self.0).is_ok();
        if started {
            self.0.registrar.arrive(&self.0);
        }
        started
    }

    /// Donates the calling thread, which is about to wait and holds no lock, to the network until `over`
    /// returns true, for at most `patience`. It may return earlier. The thread completes requests and makes
    /// no callback.
    pub fn donate_thread(&self, patience: Duration, over: &mut dyn FnMut() -> bool) {
        self.0.completer.donate_thread(&self.0, || {
            if !over() {
                self.0.transport.donate_thread(patience, over);
            }
        });
    }

    /// Makes the donated threads check soon whether their wait is over.
    pub fn kick(&self) {
        self.0.transport.kick();
    }

    /// Makes the provider unavailable: every socket dies, and captures fail until it arrives again (REG-28).
    pub fn depart(&self) {
        self.0.registrar.depart(&self.0);
        for socket in self.0.registrar.sockets() {
            Socket::die(&socket);
        }
    }

    /// Marks a socket dead (contract 5.2). False if there is no such socket.
    pub fn kill(&self, socket: PWSK_SOCKET) -> bool {
        let found = self.0.registrar.sockets().into_iter().find(|open| open.raw() == socket);
        found.is_some_and(|socket| {
            Socket::die(&socket);
            true
        })
    }

    /// Sets the send backlog that the transport recommends for a connection (SND-12). False if there is no
    /// such connection.
    pub fn set_ideal_send_backlog(&self, socket: PWSK_SOCKET, bytes: usize) -> bool {
        let found = self.0.registrar.sockets().into_iter().find(|open| open.raw() == socket);
        found.is_some_and(|socket| crate::connection::set_ideal_send_backlog(&socket, bytes))
    }

    /// Returns the number of bytes that the oldest waiting receive of a connection has so far. `None` if none
    /// waits there.
    pub fn gathered(&self, socket: PWSK_SOCKET) -> Option<usize> {
        let found = self.0.registrar.sockets().into_iter().find(|open| open.raw() == socket);
        found.and_then(|socket| crate::connection::gathered(&socket))
    }

    /// Changes the settings; requests in progress keep the former ones.
    pub fn configure(&self, change: impl FnOnce(&mut Config)) {
        self.0.live_config.change(change);
    }

    /// Returns the current settings.
    pub fn config(&self) -> Config {
        self.0.live_config.config()
    }

    /// Returns the number of registered clients.
    pub fn clients(&self) -> usize {
        self.0.registrar.count()
    }

    /// Returns the open sockets.
    pub fn open_sockets(&self) -> Vec<OpenSocket> {
        self.0.registrar.sockets().iter().map(Socket::as_open).collect()
    }

    /// Reports the leaks of clients: registrations, captures, sockets, cached descriptors. For the end of a
    /// run.
    pub fn finish(&self) {
        for socket in self.0.registrar.sockets() {
            socket.advise_unheard(&socket.lock());
        }
        for open in self.open_sockets() {
            let detail = format!("never closed: {}", open.description);
            self.0.violation(open.rule, "WskCloseSocket", &detail);
        }
        let written = self.0.packets.written();
        if written != 0 {
            let detail = format!("{written} data indications were written to after their return to WSK");
            self.0.violation("LIFE-13", "WskReceiveEvent", &detail);
        }
        self.0.registrar.report_leftovers(&self.0);
        self.0.descriptors.report_leftovers(&self.0);
        self.0.address_lists.report_leftovers(&self.0);
    }

    /// Stops the provider's threads. Open sockets die silently. For the end of a run.
    pub fn shut_down(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        if *self.0.started.lock() {
            self.0.transport.stop();
        }
        self.0.callbacks.stop();
        self.0.completer.stop();
        let retired = std::mem::take(&mut *self.0.retired.lock());
        drop(retired);
        self.0.registrar.forget();
    }
}

/// Restores the IRQL when dropped.
#[derive(Debug)]
pub(crate) struct Raised(Option<KIRQL>);

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(former) = self.0 {
            // SAFETY: this thread raised the IRQL from that value.
            unsafe { nt::KeLowerIrql(former) };
        }
    }
}

/// Marks that the thread is inside a client callback.
#[derive(Debug)]
struct InCallback<'a> {
    host: &'a dyn Host,
    token: u64,
}

impl Drop for InCallback<'_> {
    fn drop(&mut self) {
        self.host.leave_callback(self.token);
    }
}

impl Inner {
    /// The completer.
    pub(crate) fn completer(&self) -> &Arc<Completer> {
        &self.completer
    }

    /// Runs `task` on another thread, never on this one.
    pub(crate) fn defer(self: &Arc<Self>, task: Task) {
        self.callbacks.run(self, task);
    }

    /// Starts the transport.
    pub(crate) fn network(&self) -> std::io::Result<&Arc<dyn Transport>> {
        let mut started = self.started.lock();
        if !*started {
            if self.stopped.load(Ordering::SeqCst) {
                return Err(std::io::ErrorKind::NotConnected.into());
            }
            let host = Arc::clone(&self.host);
            // Any error means a lack of resources; some hosts report one that suggests a retry.
            let spawn = move |name: &str, job| {
                host.spawn(name, job).map_err(|_| std::io::ErrorKind::OutOfMemory.into())
            };
            let host = Arc::clone(&self.host);
            let complain = move |detail: &str| {
                let (rule, severity, call) = ("-", Severity::Advice, "the network of the host");
                host.report(Report { rule, severity, call, detail: detail.to_owned() });
            };
            self.transport.start(Arc::new(spawn), Arc::new(complain))?;
            *started = true;
        }
        Ok(&self.transport)
    }

    /// Reports a broken rule.
    pub(crate) fn violation(&self, rule: &'static str, call: &'static str, detail: &str) {
        self.host.report(Report { rule, severity: Severity::Violation, call, detail: detail.to_owned() });
    }

    /// Reports a call that is legal but discouraged.
    pub(crate) fn advice(&self, rule: &'static str, call: &'static str, detail: &str) {
        self.host.report(Report { rule, severity: Severity::Advice, call, detail: detail.to_owned() });
    }

    /// Returns whether the fault `point` is injected this time.
    pub(crate) fn injects(&self, point: FaultPoint) -> bool {
        self.host.choose(point, 2) == 1
    }

    /// Raises the IRQL, if the thread is below it.
    pub(crate) fn raise(raise: CallbackIrql) -> Raised {
        if !raise.to_dispatch {
            return Raised(None);
        }
        // SAFETY: reading the IRQL has no precondition.
        let current = unsafe { nt::KeGetCurrentIrql() };
        if current >= nt::DISPATCH_LEVEL {
            return Raised(None);
        }
        // SAFETY: the current IRQL is lower, and the guard goes back to it on this thread.
        Raised(Some(unsafe { nt::KfRaiseIrql(nt::DISPATCH_LEVEL) }))
    }

    /// Runs client code as the callback `name`; its argument says whether to set
    /// `WSK_FLAG_AT_DISPATCH_LEVEL`.
    pub(crate) fn in_callback<R>(&self, name: &'static str, body: impl FnOnce(bool) -> R) -> R {
        let level = self.live_config.callback_level();
        let raised = Self::raise(level);
        let at_dispatch = level.to_dispatch;
        let token = self.host.enter_callback(name, at_dispatch);
        let inside = InCallback { host: &*self.host, token };
        let result = body(at_dispatch && level.with_flag);
        drop(inside);
        drop(raised);
        result
    }

    /// Takes back the data of an indication.
    pub(crate) fn take_back(&self, call: &'static str, packet: Box<Packet>) {
        let used = self.packets.give_back(packet);
        self.check_unused(call, used);
    }

    /// Takes back a datagram of an indication.
    pub(crate) fn quarantine(&self, call: &'static str, datagram: Box<dyn Show>) {
        let used = self.packets.quarantine(datagram);
        self.check_unused(call, used);
    }

    /// Reports a pending request that uses data which was returned to WSK (LIFE-13).
    pub(crate) fn check_unused(&self, call: &'static str, used: bool) {
        if used {
            self.violation(
                "LIFE-13",
                call,
                "indicated data was returned to WSK while a pending request of the client uses it",
            );
        }
    }

    /// Keeps a closed socket for a while.
    pub(crate) fn retire(&self, socket: Arc<Socket>) {
        if self.stopped.load(Ordering::SeqCst) {
            return;
        }
        let mut retired = self.retired.lock();
        let oldest = if retired.len() >= RETIRED { retired.pop_front() } else { None };
        retired.push_back(socket);
        drop(retired);
        drop(oldest);
    }

    /// Returns whether `address` is non-paged memory or null.
    pub(crate) fn is_non_paged<T>(&self, address: *const T, length: usize) -> bool {
        ptr::eq(address, ptr::null()) || self.host.is_non_paged(address.cast(), length)
    }
}
