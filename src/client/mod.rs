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
//! ```
//!
//! Closing, releasing and deregistering are the business of one system thread per client, the *reaper*, so that
//! handles may be dropped anywhere and nothing here ever blocks a caller but [`Client::unload`], whose wait is
//! bounded and says who still holds it up.

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
pub(crate) use provider::Recipe;
pub use provider::{Provider, SecurityDescriptor};
pub(crate) use reaper::Node;
pub(crate) use shared::ClientShared;

use crate::error::{Error, Operation, Result};
use crate::executor::Thread;
use crate::irql::Passive;
use crate::memory::Ref;

/// A registration with WSK (`WskRegister`).
///
/// Dropping it without [`Client::unload`] closes everything in the background; a driver must not let its image
/// be unloaded before that has ended, so it calls `unload`.
pub struct Client {
    shared: Ref<ClientShared>,
    reaper: Thread,
}

impl Client {
    /// Registers with WSK. Does not wait for WSK to be there; [`Client::capture`] does.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// When memory is out or a thread cannot be made; nothing stays registered then.
    pub fn register(passive: Passive<'_>) -> Result<Self> {
        let shared =
            Ref::try_new(ClientShared::try_new()?).map_err(|_| Error::out_of_memory(Operation::Register))?;
        shared.register(passive)?;
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

    /// Waits up to `timeout` for WSK and captures its functions (`WskCaptureProviderNPI`).
    ///
    /// In `DriverEntry` use a zero timeout, or call it from a thread: WSK may start after the driver, and a start
    /// routine that waits for it can hang the boot.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_DEVICE_NOT_READY` when WSK did not come within `timeout`, `STATUS_NOINTERFACE` when it does not
    /// speak version 1.0 (see [`Client::provider_versions`]).
    pub fn capture(&self, timeout: Duration, passive: Passive<'_>) -> Result<Provider> {
        Provider::capture(&self.shared, timeout, passive)
    }

    /// The lowest and highest WSK version the provider speaks, as (major, minor) pairs
    /// (`WskQueryProviderCharacteristics`). Known after a capture that succeeded or said `STATUS_NOINTERFACE`.
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

    /// How many sockets are open.
    ///
    /// # IRQL
    /// Up to `DISPATCH_LEVEL`.
    pub fn open_sockets(&self) -> usize {
        self.shared.open_sockets()
    }

    /// Closes every socket, waits for the callbacks, deregisters, and ends the reaper thread; waits up to `timeout`
    /// for all that. After success no code of this crate runs for this client any more.
    ///
    /// Handles that still exist do no harm: their operations fail. But [`Provider`]s must be dropped, and retained
    /// receive indications released, before it can end.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// [`StillHeld`] when the time was not enough. It gives the client back, so that the wait can go on: a driver
    /// must not unload before it has succeeded.
    pub fn unload(self, timeout: Duration, passive: Passive<'_>) -> core::result::Result<(), StillHeld> {
        self.shared.stop();
        if self.reaper.wait(passive, Some(timeout)) {
            crate::time::flush_timers(passive);
            return Ok(());
        }
        Err(StillHeld {
            sockets: self.shared.open_sockets() + usize::from(!self.shared.releases().are_over()),
            providers: self.shared.open_captures(),
            client: self,
        })
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

/// Why [`Client::unload`] has not ended yet.
#[derive(Debug)]
pub struct StillHeld {
    /// The client, to go on waiting with.
    pub client: Client,
    /// Sockets whose close has not completed.
    pub sockets: usize,
    /// [`Provider`]s (and listeners and connections being made) that were not dropped.
    pub providers: usize,
}

impl fmt::Display for StillHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the WSK client cannot deregister yet: {} socket(s) still closing, {} provider handle(s) not dropped",
            self.sockets, self.providers
        )
    }
}

impl core::error::Error for StillHeld {}
