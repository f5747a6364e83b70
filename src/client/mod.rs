//! Registration with WSK, and leaving it again.
//!
//! ```text
//!  Client::register ──▶ registered ──capture (bounded)──▶ Provider ──▶ listeners, connections
//!                           │                                │
//!                           │ unload (bounded)               │ drop: WskReleaseProviderNPI
//!                           ▼                                │
//!                      stopping: every socket is closed, new ones are refused
//!                           │ no captures and no sockets left
//!                           ▼
//!                      WskDeregister, the reaper thread ends, `unload` returns
//!                           │ completion routines that run in this moment return to the I/O manager
//!                           ▼
//!                      with `register_for`: the image may go
//! ```
//!
//! Duties of a driver before its image is unloaded:
//!
//! | registered with | before `DriverUnload` returns | and then |
//! |---|---|---|
//! | [`Client::register_for`] | [`Client::unload`] has succeeded | the I/O manager keeps the image |
//! | [`Client::register`] | there is no `DriverUnload`, or something else keeps the image | |
//!
//! `WskDeregister` returns when captures, calls, sockets and requests are gone. That a request is gone does
//! not mean that its completion routine has returned: another processor may still be in the routine's last
//! instructions, and no code of the image can wait for those, because what gives the status back to the I/O
//! manager is one of them. The I/O manager can (`IoSetCompletionRoutineEx`): it holds a device object of the
//! driver until the routine has returned, and a driver's image stays as long as any of its device objects.
//!
//! Closing, releasing and deregistering are the business of one system thread per client, the *reaper*, so
//! that handles may be dropped anywhere and nothing here ever blocks a caller but [`Client::unload`], whose
//! wait is bounded and says who still holds it up.

mod list;
mod pause;
mod provider;
mod reaper;
mod shared;
mod uses;

use core::fmt;
use core::time::Duration;

pub(crate) use list::Links;
pub use pause::Pause;
pub use provider::{Provider, SecurityDescriptor};
pub(crate) use reaper::Node;
pub(crate) use shared::ClientShared;

use wsk_sys::nt::DEVICE_OBJECT;

use crate::busy::{Left, StillBusy};
use crate::error::{Error, Operation, Result};
use crate::executor::Thread;
use crate::irql::Passive;
use crate::memory::Ref;

/// A registration with WSK (`WskRegister`).
///
/// Dropping it without [`Client::unload`] closes everything in the background, and there is no telling when
/// that has ended; a driver must not let its image be unloaded before, so it calls `unload`. `wsk-sim`
/// reports such a drop as a violation of REG-27: the driver has given up the reaper thread without having
/// waited for it.
pub struct Client {
    shared: Ref<ClientShared>,
    reaper: Thread,
}

impl Client {
    /// Registers with WSK, for a driver whose image stays: one without a `DriverUnload`, or one that keeps
    /// its image by other means until the machine goes down. A driver that can be unloaded uses
    /// [`Client::register_for`].
    ///
    /// Does not wait for WSK to be there; [`Client::capture`] does.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, or the status of `PsCreateSystemThread`; nothing stays registered
    /// then.
    pub fn register(passive: Passive<'_>) -> Result<Self> {
        // SAFETY: there is no device.
        unsafe { Self::register_for(passive, core::ptr::null_mut()) }
    }

    /// Registers with WSK, for a driver that can be unloaded: the I/O manager holds `device`, and with it the
    /// driver's image, until each completion routine of this client has returned
    /// (`IoSetCompletionRoutineEx`).
    ///
    /// The client takes a reference of its own on the device, which [`Client::unload`] gives back, and the
    /// I/O manager takes one for each request under way. `IoDeleteDevice` may be called at any time, as
    /// `DriverUnload` does: the object stays as long as it is referenced. Each request takes a few words of
    /// pool from the I/O manager, so it can fail with `STATUS_INSUFFICIENT_RESOURCES` where one of
    /// [`Client::register`] would not; closing and deciding cannot.
    ///
    /// ```no_run
    /// # use core::time::Duration;
    /// # use wsk::{Client, Passive};
    /// # use wsk_sys::nt::DEVICE_OBJECT;
    /// # struct State { client: Client }
    /// /// In `DriverEntry`, when `IoCreateDevice` has made the driver's device.
    /// fn load(device: *mut DEVICE_OBJECT, passive: Passive<'_>) -> wsk::Result<State> {
    ///     // SAFETY: the device is this driver's, and was just made.
    ///     Ok(State { client: unsafe { Client::register_for(passive, device) }? })
    /// }
    ///
    /// /// In `DriverUnload`, before `IoDeleteDevice`.
    /// fn unload(state: State, passive: Passive<'_>) {
    ///     let mut client = state.client;
    ///     while let Err(still_busy) = client.unload(passive, Duration::from_secs(5)) {
    ///         client = still_busy.into_inner();
    ///     }
    /// }
    /// ```
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// As [`Client::register`].
    ///
    /// # Safety
    /// `device` is a device object of the driver that this code is part of, and it is there during the call.
    /// Null means [`Client::register`].
    pub unsafe fn register_for(passive: Passive<'_>, device: *mut DEVICE_OBJECT) -> Result<Self> {
        let shared =
            Ref::try_new(ClientShared::try_new()?).map_err(|_| Error::out_of_memory(Operation::Register))?;
        // SAFETY: the caller vouches for the device; the value is not shared yet.
        unsafe { shared.hold(device) };
        // SAFETY: a `Ref` never moves its value, and the reaper made below keeps it until it has
        // deregistered, as does this function if there is no reaper.
        unsafe { shared.register(passive) }?;
        let reapers = shared.clone();
        match Thread::spawn(passive, move |passive| reapers.run_reaper(passive)) {
            Ok(reaper) => Ok(Self { shared, reaper }),
            Err(error) => {
                // There is no reaper; should there be one after all, it ends.
                shared.stop();
                shared.deregister(passive);
                Err(error)
            }
        }
    }

    /// Waits up to `limit` for WSK and captures its functions (`WskCaptureProviderNPI`).
    ///
    /// In `DriverEntry` use a zero limit, or call it from a thread: WSK may start after the driver, and a
    /// start routine that waits for it can hang the boot.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_DEVICE_NOT_READY` when WSK did not come within `limit`, `STATUS_NOINTERFACE` when it does not
    /// speak version 1.0 (see [`Client::provider_versions`]).
    pub fn capture(&self, passive: Passive<'_>, limit: Duration) -> Result<Provider> {
        Provider::capture(&self.shared, limit, passive)
    }

    /// The lowest and highest WSK version the provider speaks, as (major, minor) pairs
    /// (`WskQueryProviderCharacteristics`). Known after a capture that succeeded or said
    /// `STATUS_NOINTERFACE`.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_DEVICE_NOT_READY` while there is no provider, and once the client is being unloaded.
    pub fn provider_versions(&self) -> Result<((u8, u8), (u8, u8))> {
        let found = self.shared.versions()?;
        let pair = |version| (wsk_sys::WSK_MAJOR_VERSION(version), wsk_sys::WSK_MINOR_VERSION(version));
        Ok((pair(found.LowestVersion), pair(found.HighestVersion)))
    }

    /// Returns the number of open sockets.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    pub fn open_sockets(&self) -> usize {
        self.shared.open_sockets()
    }

    /// Closes every socket, waits for the callbacks, deregisters, and ends the reaper thread; waits up to
    /// `limit` for all that.
    ///
    /// After success WSK calls nothing of this client any more, every request has completed, and the reaper
    /// thread has ended. All that may still be running is the end of a completion routine, on its way back to
    /// the I/O manager. With [`Client::register_for`] the image stays until that has returned: `DriverUnload`
    /// may return. With [`Client::register`] nothing keeps the image, so it must not go.
    ///
    /// Handles that still exist do no harm: their operations fail. But [`Provider`]s must be dropped, and
    /// retained receive indications released, before it can end.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// [`StillBusy`] when the time was not enough. It gives the client back, so that the wait can go on: a
    /// driver must not unload before it has succeeded.
    pub fn unload(self, passive: Passive<'_>, limit: Duration) -> core::result::Result<(), StillBusy<Self>> {
        self.shared.stop();
        if self.reaper.wait(passive, Some(limit)) {
            crate::time::flush_timers(passive);
            // Should it be the last reference, the image stays all the same: this runs inside of a routine of
            // the driver, which the kernel called and keeps the image for. SAFETY: the reaper has ended,
            // which it does when it has deregistered.
            unsafe { self.shared.let_go() };
            return Ok(());
        }
        let (sockets, providers) = (self.shared.unfinished_sockets(), self.shared.open_captures());
        // With neither, what is left is the registration itself: WSK is ending it, or the reaper is about to
        // ask.
        let rest = if sockets == 0 && providers == 0 {
            Left { count: 1, kind: "registration with WSK" }
        } else {
            Left { count: providers, kind: "captures of WSK" }
        };
        let sockets = Left { count: sockets, kind: "sockets that are closing" };
        Err(StillBusy { inner: self, left: [sockets, rest] })
    }
}

impl StillBusy<Client> {
    /// Returns the number of sockets whose close has not completed, or whose completion is not over yet.
    pub fn sockets(&self) -> usize {
        self.left[0].count
    }

    /// Returns the number of what else holds the registration: [`Provider`]s (and what has one: sockets that
    /// are being made, cached security descriptors) that were not dropped. When neither those nor sockets are
    /// left, it is the registration itself, which counts until WSK has ended it and the reaper thread has
    /// gone. So the two are never both zero.
    pub fn providers(&self) -> usize {
        self.left[1].count
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("open_sockets", &self.open_sockets()).finish_non_exhaustive()
    }
}
