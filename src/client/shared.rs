//! The state that a client's handles, its sockets and its reaper thread share.

use core::cell::UnsafeCell;
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use core::task::Waker;
use core::time::Duration;

use wsk_sys::nt::{self, DEVICE_OBJECT, NTSTATUS};
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
use crate::socket::{Releases, Socket};
use crate::sync::{Event, EventKind, Registered, Stack, Waiter, Waiters};
use crate::time::Deadline;

/// The version of WSK this crate speaks; no other was ever published (rule REG-05).
static CLIENT_DISPATCH: WSK_CLIENT_DISPATCH =
    WSK_CLIENT_DISPATCH { Version: MAKE_WSK_VERSION(1, 0), Reserved: 0, WskClientEvent: None };

/// Number of free blocks of each size that the client keeps. A block is at most a few KiB, and only sizes
/// that are in use are ever filled.
const CACHE_DEPTH: u32 = 256;

/// Longest time that the reaper waits at once.
const REAPER_WAIT: Duration = Duration::from_secs(10);

/// Duration of a pause, and the interval at which silent sockets are probed while a future waits for their
/// death.
const PAUSE: Duration = Duration::from_millis(250);

/// # Invariants
/// - `registration` is registered from `register`'s success until `run_reaper` has deregistered it, which
///   happens once, when there are no captures and no sockets.
/// - Its users were let in by `uses`.
/// - `device` is null or a device object of the driver that one reference of this value's is held on. It is
///   used by holders of rundown protection of a socket or of a capture only, and the reference is given back
///   when there are none left.
/// - It never moves: the value lives in a [`Ref`](crate::memory::Ref) (rule LIFE-03).
pub(crate) struct ClientShared {
    registration: UnsafeCell<WSK_REGISTRATION>,
    registered: AtomicBool,
    device: AtomicPtr<DEVICE_OBJECT>,
    cache: Cache,
    sockets: Sockets,
    /// Captures, and calls that use the registration.
    uses: Uses,
    jobs: Stack<Job>,
    releases: Releases,
    wake: Event,
    /// Futures that pause, and those that probe a socket: all are woken once a period.
    pauses: Waiters,
}

// SAFETY: the registration block is written by WSK alone, whose functions take it from any thread; the rest
// is `Sync` by itself.
unsafe impl Send for ClientShared {}
// SAFETY: a shared value gives the address of the registration block, which WSK alone writes.
unsafe impl Sync for ClientShared {}

impl ClientShared {
    pub(super) fn try_new() -> Result<Self> {
        let out_of_memory = |_| Error::out_of_memory(Operation::Register);
        Ok(Self {
            registration: UnsafeCell::new(WSK_REGISTRATION::zeroed()),
            registered: AtomicBool::new(false),
            device: AtomicPtr::new(core::ptr::null_mut()),
            cache: Cache::try_new(CACHE_DEPTH).map_err(out_of_memory)?,
            sockets: Sockets::new(),
            uses: Uses::new(),
            jobs: Stack::new(),
            releases: Releases::new(),
            wake: Event::try_new(EventKind::Synchronization).map_err(out_of_memory)?,
            pauses: Waiters::new(),
        })
    }

    /// Takes the reference on the driver's device. Call at most once, before the value is shared.
    ///
    /// # Safety
    /// `device` is null or a device object of this driver that is there during the call.
    pub(super) unsafe fn hold(&self, device: *mut DEVICE_OBJECT) {
        if !device.is_null() {
            // SAFETY: the caller says that the object is there.
            unsafe { nt::ObfReferenceObject(device.cast()) };
            self.device.store(device, Ordering::Release);
        }
    }

    /// The driver's device, for [`keep_image`](crate::operation::keep_image); null if the client was
    /// registered without one.
    ///
    /// It is there as long as the caller holds rundown protection of a socket or a capture.
    pub(crate) fn device(&self) -> *mut DEVICE_OBJECT {
        self.device.load(Ordering::Acquire)
    }

    /// Gives the reference on the device back.
    ///
    /// # Safety
    /// The client has deregistered or was never registered: no call holds rundown protection of a socket or a
    /// capture.
    pub(super) unsafe fn let_go(&self) {
        let device = self.device.swap(core::ptr::null_mut(), Ordering::AcqRel);
        if !device.is_null() {
            // SAFETY: `hold` took this reference, and the pointer is taken out once.
            unsafe { nt::ObfDereferenceObject(device.cast()) };
        }
    }

    /// `WskRegister`.
    ///
    /// # Safety
    /// Once, when the value has come to its final place, where it stays until it has deregistered.
    pub(super) unsafe fn register(&self, _passive: Passive<'_>) -> Result<()> {
        let mut npi =
            WSK_CLIENT_NPI { ClientContext: core::ptr::null_mut(), Dispatch: &raw const CLIENT_DISPATCH };
        // SAFETY: the dispatch table is static, the caller says that the registration block does not move
        // (rule LIFE-03), and the level is passive.
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
    ///
    /// # Safety
    /// The caller gives up such a capture, and makes no call through it any more.
    pub(super) unsafe fn release(&self) {
        // SAFETY: the caller gives up one capture, so the client is registered (rule REG-11).
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

    /// Cache for blocks of operations and cores.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Sockets whose close has not completed.
    pub(super) fn open_sockets(&self) -> usize {
        self.sockets.count()
    }

    /// Sockets of whose close anything still runs: the last of it is [`ClientShared::socket_closed`]. Cores
    /// that are being dropped, which may be what is left of sockets that have closed, count as one at least.
    pub(super) fn unfinished_sockets(&self) -> usize {
        // A core is on the list of releases before its socket is finished, so it is looked at second.
        let sockets = self.sockets.unfinished();
        sockets.max(usize::from(!self.releases.are_over()))
    }

    pub(super) fn open_captures(&self) -> usize {
        self.uses.count()
    }

    /// # Safety
    /// The socket is not listed, and is alive and in place until it is delisted.
    pub(crate) unsafe fn enlist(&self, socket: NonNull<Socket>) {
        // SAFETY: the caller says that the socket is not listed, and stays alive until it is delisted.
        unsafe { self.sockets.insert(socket) };
    }

    /// # Safety
    /// The socket is listed, and the caller delists it once.
    pub(crate) unsafe fn delist(&self, socket: NonNull<Socket>) {
        // SAFETY: the caller says that the socket is listed.
        unsafe { self.sockets.remove(socket) };
    }

    /// The cores that are to be dropped.
    pub(crate) fn releases(&self) -> &Releases {
        &self.releases
    }

    /// Called when cores were dropped.
    pub(crate) fn cores_dropped(&self) {
        self.wake_if_stopping();
    }

    /// Called last of all when a socket has gone, after it was delisted.
    ///
    /// # Safety
    /// Once for each socket that was delisted.
    pub(crate) unsafe fn socket_closed(&self) {
        // SAFETY: the caller says so: once for each.
        unsafe { self.sockets.finish() };
        self.wake_if_stopping();
    }

    /// Leaves `node` to the reaper.
    ///
    /// # Safety
    /// The invariant of [`Node`] holds for it: queued for the first time, and alive until it was run.
    pub(crate) unsafe fn reap(&self, node: NonNull<Node>) {
        // SAFETY: the caller says that the node is queued for the first time, and alive until it was run.
        let job = unsafe { Job::new(node) };
        if self.jobs.push(job) {
            self.wake.set();
        }
    }

    /// Has the reaper wake a task in a while, once; needs no memory. A client that stops has no time for that
    /// any more.
    ///
    /// # Safety
    /// `waiter` is listed here alone, and [`ClientShared::pause_no_more`] is called before it goes.
    pub(crate) unsafe fn pause(&self, waiter: Pin<&Waiter>, waker: &Waker) -> Registered {
        // SAFETY: the caller lists the waiter here alone, and takes it out before it goes.
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
        // SAFETY: the caller lists the waiter here alone.
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

    /// Waits until there is something for the reaper to do, and ends pauses whenever it is time.
    ///
    /// The waits are bounded, so that one that lasts is never mistaken for one that hangs. A bound that has
    /// passed is no reason to look for work: a thread that has some wakes the reaper.
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
            if self.uses.are_over(|| self.unfinished_sockets()) {
                self.deregister(passive);
                return;
            }
        }
    }
}

impl Drop for ClientShared {
    fn drop(&mut self) {
        // A client that was not unloaded, or not registered after all.
        // SAFETY: the client has no handle any more, and the reaper is its owner until it has deregistered.
        unsafe { self.let_go() };
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
