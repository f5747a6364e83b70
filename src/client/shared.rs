//! The state that a client's handles, its sockets and its reaper thread share.

use core::cell::UnsafeCell;
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Waker;
use core::time::Duration;

use wsk_sys::nt::NTSTATUS;
use wsk_sys::{
    MAKE_WSK_VERSION, STATUS_DEVICE_NOT_READY, STATUS_SUCCESS, WSK_CLIENT_DISPATCH, WSK_CLIENT_NPI,
    WSK_PROVIDER_CHARACTERISTICS, WSK_PROVIDER_NPI, WSK_REGISTRATION, WskCaptureProviderNPI, WskDeregister,
    WskQueryProviderCharacteristics, WskRegister, WskReleaseProviderNPI,
};

use super::list::Sockets;
use super::reaper::{Job, Node};
use super::uses::Uses;
use crate::error::{Error, Operation, Result};
use crate::irql::Passive;
use crate::memory::Cache;
use crate::socket::{Registered, Releases, Socket, Waiter, Waiters};
use crate::sync::{Event, EventKind, Stack};
use crate::time::Deadline;

/// The version of WSK this crate speaks; no other was ever published (rule REG-05).
static CLIENT_DISPATCH: WSK_CLIENT_DISPATCH =
    WSK_CLIENT_DISPATCH { Version: MAKE_WSK_VERSION(1, 0), Reserved: 0, WskClientEvent: None };

/// How many free blocks of each size the client keeps. A block is at most a few KiB, and only sizes that are in
/// use are ever filled.
const CACHE_DEPTH: u32 = 256;

/// How long the reaper waits at a time.
const REAPER_WAIT: Duration = Duration::from_secs(10);

/// How long a pause lasts, and how often sockets that cannot say that they are dead are asked, while somebody waits for that.
const PAUSE: Duration = Duration::from_millis(250);

/// # Invariants
/// - `registration` is registered from `register`'s success until `run_reaper` has deregistered it, which happens
///   once, when there are no captures and no sockets.
/// - Whoever uses it was let in by `uses`.
/// - It never moves: the value lives in a [`Ref`](crate::memory::Ref) (rule LIFE-03).
pub(crate) struct ClientShared {
    registration: UnsafeCell<WSK_REGISTRATION>,
    registered: AtomicBool,
    cache: Cache,
    sockets: Sockets,
    /// Captures, and calls that use the registration.
    uses: Uses,
    jobs: Stack<Job>,
    releases: Releases,
    wake: Event,
    /// Who pauses, and who is to ask a socket whether it is dead: all are woken once a period.
    pauses: Waiters,
}

// SAFETY: the registration block is written by WSK alone, whose functions take it from any thread; the rest is
// `Sync` by itself.
unsafe impl Send for ClientShared {}
// SAFETY: as for `Send`.
unsafe impl Sync for ClientShared {}

impl ClientShared {
    pub(super) fn try_new() -> Result<Self> {
        let out_of_memory = |_| Error::out_of_memory(Operation::Register);
        Ok(Self {
            registration: UnsafeCell::new(WSK_REGISTRATION::zeroed()),
            registered: AtomicBool::new(false),
            cache: Cache::try_new(CACHE_DEPTH).map_err(out_of_memory)?,
            sockets: Sockets::new(),
            uses: Uses::new(),
            jobs: Stack::new(),
            releases: Releases::new(),
            wake: Event::try_new(EventKind::Synchronization).map_err(out_of_memory)?,
            pauses: Waiters::new(),
        })
    }

    /// `WskRegister`. Call once, when the value has come to its final place.
    pub(super) fn register(&self, _passive: Passive<'_>) -> Result<()> {
        let mut npi =
            WSK_CLIENT_NPI { ClientContext: core::ptr::null_mut(), Dispatch: &raw const CLIENT_DISPATCH };
        // SAFETY: the dispatch table is static, the registration block does not move, and the level is passive.
        let status = unsafe { WskRegister(&raw mut npi, self.registration.get()) };
        check(Operation::Register, status)?;
        self.registered.store(true, Ordering::Release);
        Ok(())
    }

    /// `WskDeregister`. Blocks until captures, calls, sockets and IRPs are gone.
    pub(super) fn deregister(&self, _passive: Passive<'_>) {
        if self.registered.swap(false, Ordering::AcqRel) {
            // SAFETY: it was registered, this happens once, and the level is passive (rules REG-02, REG-25).
            unsafe { WskDeregister(self.registration.get()) };
        }
    }

    /// `WskCaptureProviderNPI`, never for ever (rule REG-29).
    pub(super) fn capture(&self, timeout: Duration, _passive: Passive<'_>) -> Result<WSK_PROVIDER_NPI> {
        // The largest number means an infinite wait; the one before it is seven weeks.
        let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).min(u32::MAX - 1);
        let mut npi = WSK_PROVIDER_NPI { Client: core::ptr::null_mut(), Dispatch: core::ptr::null() };
        let using = self.use_registration(Operation::Capture)?;
        // SAFETY: registered, as the guard says; the level is passive.
        let status = unsafe { WskCaptureProviderNPI(self.registration.get(), milliseconds, &raw mut npi) };
        check(Operation::Capture, status)?;
        // The capture itself counts from here on, until `release`.
        core::mem::forget(using);
        Ok(npi)
    }

    /// Keeps the reaper from deregistering, unless the client stops already.
    fn use_registration(&self, operation: Operation) -> Result<Using<'_>> {
        if self.uses.enter() { Ok(Using(self)) } else { Err(Error::new(operation, STATUS_DEVICE_NOT_READY)) }
    }

    /// `WskReleaseProviderNPI` for one success of [`ClientShared::capture`].
    pub(super) fn release(&self) {
        // SAFETY: the caller gives up one capture, so the client is registered.
        unsafe { WskReleaseProviderNPI(self.registration.get()) };
        self.capture_ended();
    }

    fn capture_ended(&self) {
        if self.uses.leave() {
            self.wake.set();
        }
    }

    /// `WskQueryProviderCharacteristics`: the lowest and highest version.
    pub(super) fn versions(&self) -> Result<WSK_PROVIDER_CHARACTERISTICS> {
        let mut found = WSK_PROVIDER_CHARACTERISTICS { HighestVersion: 0, LowestVersion: 0 };
        // A client whose unloading did not end in time still has a handle, and is deregistered any moment.
        let _using = self.use_registration(Operation::QueryCharacteristics)?;
        // SAFETY: registered, as the guard says.
        let status = unsafe { WskQueryProviderCharacteristics(self.registration.get(), &raw mut found) };
        check(Operation::QueryCharacteristics, status)?;
        Ok(found)
    }

    /// Where blocks of operations and cores come from.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(super) fn open_sockets(&self) -> usize {
        self.sockets.count()
    }

    pub(super) fn open_captures(&self) -> usize {
        self.uses.count()
    }

    /// # Safety
    /// As [`Sockets::insert`].
    pub(crate) unsafe fn enlist(&self, socket: NonNull<Socket>) {
        // SAFETY: forwarded to the caller.
        unsafe { self.sockets.insert(socket) };
    }

    /// # Safety
    /// As [`Sockets::remove`].
    pub(crate) unsafe fn delist(&self, socket: NonNull<Socket>) {
        // SAFETY: forwarded to the caller.
        unsafe { self.sockets.remove(socket) };
    }

    /// The cores that are to be dropped.
    pub(crate) fn releases(&self) -> &Releases {
        &self.releases
    }

    /// Called when a socket has gone, after it was delisted, and when cores were dropped.
    pub(crate) fn socket_closed(&self) {
        self.wake_if_stopping();
    }

    /// Leaves `node` to the reaper.
    ///
    /// # Safety
    /// The invariant of [`Node`] holds for it: queued for the first time, and alive until it was run.
    pub(crate) unsafe fn reap(&self, node: NonNull<Node>) {
        // SAFETY: forwarded to the caller.
        let job = unsafe { Job::new(node) };
        if self.jobs.push(job) {
            self.wake.set();
        }
    }

    /// Has the reaper wake a task in a while, once; needs no memory. A client that stops has no time for that any more.
    ///
    /// # Safety
    /// `waiter` is listed here alone, and [`ClientShared::pause_no_more`] is called before it goes.
    pub(crate) unsafe fn pause(&self, waiter: Pin<&Waiter>, waker: &Waker) -> Registered {
        // SAFETY: forwarded to the caller.
        let registered = unsafe { self.pauses.register(waiter, waker, || self.uses.is_stopping()) };
        if registered == (Registered::New { first: true }) {
            // The reaper waits longer than that.
            self.wake.set();
        }
        registered
    }

    /// Takes [`ClientShared::pause`] back.
    ///
    /// # Safety
    /// `waiter` is listed here alone.
    pub(crate) unsafe fn pause_no_more(&self, waiter: &Waiter) {
        // SAFETY: forwarded to the caller.
        unsafe { self.pauses.remove(waiter) };
    }

    fn wake_if_stopping(&self) {
        if self.uses.is_stopping() {
            self.wake.set();
        }
    }

    /// Has the reaper close everything, deregister and end.
    pub(super) fn stop(&self) {
        self.uses.stop();
        self.wake.set();
    }

    /// How much there is left to wait for before the client is deregistered, other than captures.
    fn unfinished(&self) -> usize {
        self.open_sockets() + usize::from(!self.releases.are_over())
    }

    /// Waits until there is something for the reaper to do, and ends pauses whenever it is time.
    ///
    /// The waits are bounded, so that one that lasts is never mistaken for one that hangs. A bound that has passed is no
    /// reason to look for work: whoever has some wakes the reaper.
    fn wait_for_work(&self, passive: Passive<'_>, pause: &mut Option<Deadline>) {
        loop {
            let woken = self.wake.wait(passive, Some(pause.map_or(REAPER_WAIT, Deadline::remaining)));
            if self.uses.is_stopping() || pause.is_some_and(|end| end.remaining().is_zero()) {
                self.pauses.wake_all();
                *pause = None;
            }
            if pause.is_none() && !self.pauses.is_empty() {
                *pause = Some(Deadline::after(PAUSE));
            }
            if woken {
                return;
            }
        }
    }

    /// The reaper thread.
    pub(super) fn run_reaper(&self, passive: Passive<'_>) {
        // The end of the pauses that are under way.
        let mut pause = None;
        loop {
            self.wait_for_work(passive, &mut pause);
            if self.uses.is_stopping() {
                self.sockets.shut_all();
            }
            for job in self.jobs.take_all() {
                job.run();
            }
            // A capture that makes a socket is given back only when the socket is listed.
            if self.uses.are_over(|| self.unfinished()) {
                self.deregister(passive);
                return;
            }
        }
    }
}

/// A use of the registration; see [`ClientShared::use_registration`].
struct Using<'a>(&'a ClientShared);

impl Drop for Using<'_> {
    fn drop(&mut self) {
        self.0.capture_ended();
    }
}

fn check(operation: Operation, status: NTSTATUS) -> Result<()> {
    if status == STATUS_SUCCESS { Ok(()) } else { Err(Error::new(operation, status)) }
}
