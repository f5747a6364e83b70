//! Registration: from `WskRegister` to `WskDeregister` (contract 4.5).
//!
//! ```text
//!                   ┌────────────────────WskReleaseProviderNPI───────────────────┐
//!                   ▼                                                            │
//!   WskRegister ──► Registered ──WskCaptureProviderNPI──► captured (counted) ────┘
//!                       │
//!                       └──WskDeregister──► Ending ──captures, calls, sockets, requests have ended──► gone
//!                                           (captures fail)
//! ```
//!
//! The embedder exports the five functions of `netio.sys` and passes each call to its provider here. All
//! waits use kernel events, so that they are visible to the kernel.

mod awaited;
mod capture;
mod client_event;
mod deregister;
mod look;
mod modules;
mod wait;

pub(crate) use look::Look;
pub(crate) use wait::Flag;

use std::collections::VecDeque;
use std::ptr;
use std::sync::Arc;
use std::thread::{self, ThreadId};

use parking_lot::Mutex;
use wsk_sys::nt::{self, NTSTATUS};
use wsk_sys::{
    PFN_WSK_CLIENT_EVENT, STATUS_DEVICE_NOT_READY, STATUS_INVALID_PARAMETER, STATUS_SUCCESS, WSK_CLIENT_NPI,
    WSK_PROVIDER_CHARACTERISTICS, WSK_REGISTRATION,
};

use self::modules::Modules;
use crate::client::Client;
use crate::provider::{Inner, Provider};
use crate::request::PinnedMemory;
use crate::socket::Socket;

/// `ReservedRegistrationState` of a live registration.
const REGISTERED: u64 = 0x5753_4B52_4547_0001;
/// `ReservedRegistrationState` after a `WskRegister` that failed.
const REFUSED: u64 = 0x5753_4B52_4547_0002;
/// `ReservedRegistrationState` after `WskDeregister`.
const DEREGISTERED: u64 = 0x5753_4B52_4547_00FF;

/// Number of client objects of former registrations that are kept, so that a late call on one is recognized
/// and does not access freed memory.
const RETIRED: usize = 256;

/// One registration.
#[derive(Debug)]
pub(crate) struct Registration {
    block: usize,
    /// The client's dispatch table.
    dispatch: usize,
    version: u16,
    /// The client's dispatch table and the registration block, pinned until the deregistration returns.
    pinned: Mutex<PinnedMemory>,
    /// Arguments of `WskRegister`: `WskClientEvent` and its context.
    event: Option<PFN_WSK_CLIENT_EVENT>,
    context: usize,
    client: Arc<Client>,
    state: Mutex<RegistrationState>,
    /// Set when a waiting capture may check again.
    look_again: Flag,
    /// Set when a condition of the deregistration has changed.
    progress: Arc<Flag>,
}

/// One captured NPI.
#[derive(Debug)]
struct Capture {
    thread: ThreadId,
    /// Name of the thread.
    name: String,
}

impl Capture {
    /// Creates a capture of the calling thread.
    fn here() -> Self {
        let thread = thread::current();
        Self { thread: thread.id(), name: thread.name().unwrap_or("without a name").to_owned() }
    }

    /// Returns whether the calling thread made it.
    fn is_own(&self) -> bool {
        self.thread == thread::current().id()
    }
}

#[derive(Debug, Default)]
struct RegistrationState {
    ending: bool,
    /// The last capture has failed, or has not succeeded yet.
    refused: bool,
    captures: Vec<Capture>,
}

/// All registrations of one provider, and whether the provider is present.
#[derive(Debug, Default)]
pub(crate) struct Registrar {
    state: Mutex<RegistrarState>,
    modules: Modules,
}

#[derive(Debug, Default)]
struct RegistrarState {
    arrived: bool,
    registrations: Vec<Arc<Registration>>,
    /// The client objects of the last registrations that have ended.
    retired: VecDeque<Arc<Client>>,
}

impl RegistrarState {
    /// Keeps a client object, and returns one that has been kept for long enough.
    fn retire(&mut self, client: &Arc<Client>) -> Option<Arc<Client>> {
        let oldest = if self.retired.len() >= RETIRED { self.retired.pop_front() } else { None };
        self.retired.push_back(Arc::clone(client));
        oldest
    }
}

impl Registrar {
    pub(crate) fn arrive(&self, provider: &Arc<Inner>) {
        let mut state = self.state.lock();
        state.arrived = true;
        let registrations = state.registrations.clone();
        drop(state);
        for registration in registrations {
            registration.look_again.set();
        }
        self.modules.attach_all(provider);
    }

    pub(crate) fn depart(&self, provider: &Arc<Inner>) {
        let mut state = self.state.lock();
        state.arrived = false;
        let registrations = state.registrations.clone();
        drop(state);
        for registration in registrations {
            if !registration.state.lock().ending {
                registration.look_again.clear();
            }
        }
        self.modules.detach_all(provider);
    }

    /// Returns whether the provider is present.
    pub(crate) fn has_arrived(&self) -> bool {
        self.state.lock().arrived
    }

    fn registrations(&self) -> Vec<Arc<Registration>> {
        self.state.lock().registrations.clone()
    }

    /// Returns the registrations and the client objects of modules whose locks are available.
    fn look(&self, look: &mut Look) -> (Vec<Arc<Registration>>, Vec<Arc<Client>>) {
        let registrations = look.lock(&self.state).map(|state| state.registrations.clone());
        (registrations.unwrap_or_default(), self.modules.look_at_clients(look))
    }

    /// The client objects of all registrations.
    pub(crate) fn clients(&self) -> Vec<Arc<Client>> {
        let state = self.state.lock();
        let clients = state.registrations.iter().map(|registration| Arc::clone(&registration.client));
        clients.chain(self.modules.clients()).collect()
    }

    /// Returns the number of registered clients of both kinds.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().registrations.len() + self.modules.count()
    }

    /// The open sockets of all clients.
    pub(crate) fn sockets(&self) -> Vec<Arc<Socket>> {
        self.clients().iter().flat_map(|client| client.sockets()).collect()
    }

    /// Reports leaked registrations and captures.
    pub(crate) fn report_leftovers(&self, provider: &Inner) {
        let registrations = self.state.lock().registrations.clone();
        for registration in registrations {
            let captures = registration.state.lock().captures.len();
            if captures != 0 {
                let detail = format!("{captures} captures of the provider NPI were never released");
                provider.violation("REG-11", "WskReleaseProviderNPI", &detail);
            }
            let detail = format!("registration {:#x} was never deregistered", registration.block);
            provider.violation("REG-02", "WskDeregister", &detail);
        }
        self.modules.report_leftovers(provider);
    }

    fn remove(&self, registration: &Arc<Registration>) {
        let mut state = self.state.lock();
        state.registrations.retain(|other| !Arc::ptr_eq(other, registration));
        let oldest = state.retire(&registration.client);
        drop(state);
        drop(oldest);
    }

    /// Keeps a client object that is no longer registered for a while.
    fn retire(&self, client: &Arc<Client>) {
        let oldest = self.state.lock().retire(client);
        drop(oldest);
    }

    /// Drops the kept client objects.
    pub(crate) fn forget(&self) {
        let retired = std::mem::take(&mut self.state.lock().retired);
        drop(retired);
    }

    fn find(&self, block: usize) -> Option<Arc<Registration>> {
        self.state.lock().registrations.iter().find(|registration| registration.block == block).cloned()
    }
}

/// Reads the state word of a registration block.
///
/// # Safety
/// `block` points to a `WSK_REGISTRATION`.
unsafe fn block_state(block: *mut WSK_REGISTRATION) -> u64 {
    // SAFETY: the caller guarantees the block; only an address is computed.
    let state = unsafe { &raw const (*block).ReservedRegistrationState };
    // SAFETY: the caller guarantees the block.
    unsafe { state.read_volatile() }
}

/// Fills a registration block.
///
/// # Safety
/// `block` points to a `WSK_REGISTRATION` that no registration uses.
unsafe fn write_block(block: *mut WSK_REGISTRATION, state: u64, context: *const Registration) {
    let value = WSK_REGISTRATION {
        ReservedRegistrationState: state,
        ReservedRegistrationContext: context.cast_mut().cast(),
        ReservedRegistrationLock: 0,
    };
    // SAFETY: the caller guarantees that `block` points to a `WSK_REGISTRATION` that no registration uses.
    unsafe { block.write(value) };
}

impl Provider {
    /// `WskRegister`.
    ///
    /// # Safety
    /// `npi` is null or points to a valid NPI. Its dispatch table stays valid, and `block`, which is null or
    /// points to a `WSK_REGISTRATION`, does not move, until the deregistration has returned.
    pub unsafe fn register(&self, npi: *mut WSK_CLIENT_NPI, block: *mut WSK_REGISTRATION) -> NTSTATUS {
        const CALL: &str = "WskRegister";
        let provider = &self.0;
        check_passive(provider, CALL);
        if block.is_null() {
            return STATUS_INVALID_PARAMETER;
        }
        // SAFETY: the caller passes a whole structure, needed during this call only (LIFE-02), or null.
        let npi = unsafe { npi.as_ref() }.filter(|npi| !npi.Dispatch.is_null());
        let Some(npi) = npi else {
            if provider.registrar.find(block as usize).is_none() {
                // SAFETY: the caller passes a block for this provider to fill.
                unsafe { write_block(block, REFUSED, ptr::null()) };
            }
            return STATUS_INVALID_PARAMETER;
        };
        // SAFETY: the client keeps its dispatch table alive until the deregistration has returned (LIFE-01).
        let dispatch = unsafe { npi.Dispatch.read() };
        if dispatch.Reserved != 0 {
            provider.violation("REG-05", CALL, "WSK_CLIENT_DISPATCH.Reserved is not 0");
        }
        if dispatch.Version != 0x0100 {
            let detail = format!("Version {:#06x} is no published WSK version", dispatch.Version);
            provider.advice("REG-05", CALL, &detail);
        }
        if !provider.is_non_paged(npi.Dispatch, size_of_val(&dispatch)) {
            provider.violation(
                "LIFE-01",
                CALL,
                "the client dispatch table is not in constant or non-paged memory",
            );
        }
        if !provider.is_non_paged(block, size_of::<WSK_REGISTRATION>()) {
            provider.violation("LIFE-03", CALL, "the registration block is not in non-paged memory");
        }
        if provider.registrar.find(block as usize).is_some() {
            provider.violation("REG-01", CALL, "the registration block is in use by another registration");
            return STATUS_INVALID_PARAMETER;
        }
        let mut pinned = PinnedMemory::default();
        if provider.live_config.watches_memory() {
            let host = &*provider.host;
            pinned.add(host, npi.Dispatch, "LIFE-01", "the client dispatch table of a registration");
            pinned.add(host, block, "LIFE-03", "the block of a registration");
        }
        let progress = Arc::new(Flag::new());
        let registration = Arc::new(Registration {
            block: block as usize,
            dispatch: npi.Dispatch.addr(),
            version: dispatch.Version,
            pinned: Mutex::new(pinned),
            event: dispatch.WskClientEvent,
            context: npi.ClientContext as usize,
            client: Client::new(provider, Arc::clone(&progress)),
            state: Mutex::default(),
            look_again: Flag::new(),
            progress,
        });
        let mut registrar = provider.registrar.state.lock();
        if registrar.arrived {
            registration.look_again.set();
        }
        registrar.registrations.push(Arc::clone(&registration));
        drop(registrar);
        // SAFETY: the caller passes a block for this provider to fill.
        unsafe { write_block(block, REGISTERED, Arc::as_ptr(&registration)) };
        STATUS_SUCCESS
    }

    /// `WskQueryProviderCharacteristics`.
    ///
    /// # Safety
    /// `block` is null or points to a `WSK_REGISTRATION`; `out` is null or points to memory for the result.
    pub unsafe fn query_characteristics(
        &self,
        block: *mut WSK_REGISTRATION,
        out: *mut WSK_PROVIDER_CHARACTERISTICS,
    ) -> NTSTATUS {
        let provider = &self.0;
        // SAFETY: the caller guarantees that `block` is null or points to a `WSK_REGISTRATION`.
        if unsafe { provider.registration(block, "WskQueryProviderCharacteristics") }.is_err()
            || out.is_null()
        {
            return STATUS_INVALID_PARAMETER;
        }
        if !provider.registrar.has_arrived() {
            return STATUS_DEVICE_NOT_READY;
        }
        let (LowestVersion, HighestVersion) =
            provider.live_config.get(|config| (config.lowest_version, config.highest_version));
        // SAFETY: the caller passes a structure to fill.
        unsafe { out.write(WSK_PROVIDER_CHARACTERISTICS { HighestVersion, LowestVersion }) };
        STATUS_SUCCESS
    }
}

impl Inner {
    /// The registration behind a block. A block that was moved or that holds none is reported.
    ///
    /// # Safety
    /// `block` is null or points to a `WSK_REGISTRATION`.
    unsafe fn registration(
        &self,
        block: *mut WSK_REGISTRATION,
        call: &'static str,
    ) -> Result<Arc<Registration>, NTSTATUS> {
        if block.is_null() {
            return Err(STATUS_INVALID_PARAMETER);
        }
        if let Some(registration) = self.registrar.find(block as usize) {
            return Ok(registration);
        }
        // SAFETY: the caller guarantees that `block` is null or points to a `WSK_REGISTRATION`.
        match unsafe { block_state(block) } {
            REGISTERED => {
                self.violation(
                    "LIFE-03",
                    call,
                    "the registration block is not at the address passed to WskRegister",
                );
            }
            DEREGISTERED if call == "WskDeregister" => {
                self.violation("REG-02", call, "the registration was already deregistered");
            }
            DEREGISTERED => {}
            REFUSED => self.violation("REG-10", call, "WskRegister failed for this block: do not use it"),
            _ => self.violation("REG-02", call, "the block has no registration: call WskRegister first"),
        }
        Err(STATUS_DEVICE_NOT_READY)
    }
}

/// Checks that the call is at `PASSIVE_LEVEL`, as for `WskRegister` and `WskDeregister` (IRQL-06).
fn check_passive(provider: &Inner, call: &'static str) -> bool {
    // SAFETY: reading the IRQL has no precondition.
    let passive = unsafe { nt::KeGetCurrentIrql() } == nt::PASSIVE_LEVEL;
    if !passive {
        provider.violation("IRQL-06", call, "called above PASSIVE_LEVEL");
    }
    passive
}
