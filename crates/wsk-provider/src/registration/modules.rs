//! Registration with the Network Module Registrar (NMR), for clients that do not use `WskRegister`.
//!
//! ```text
//!   NmrRegisterClient
//!         │
//!         ▼      provider there
//!     registered ──────────────► ClientAttachProvider ──NmrClientAttachProvider──► bound
//!         ▲                           │                                              │
//!         │                           └─ not attached: registered, not asked again   │
//!         │ provider comes back                                                      │
//!         │                                 NmrDeregisterClient, or the provider goes│
//!         │                                                                          ▼
//!         └── detached, ◄─ClientCleanupBindingContext─ ended ◄─SUCCESS── ClientDetachProvider, once
//!             sockets closed                             ▲                           │ PENDING
//!                 │ deregistering                        └─NmrClientDetachProviderComplete
//!                 ▼
//!             gone: NmrWaitForClientDeregisterComplete returns
//! ```
//!
//! Each binding has its own client object, like a registration of `WskRegister`.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use parking_lot::Mutex;
use wsk_sys::nt::{GUID, HANDLE, NTSTATUS};
use wsk_sys::{
    NPI_CLIENT_CHARACTERISTICS, NPI_MODULEID, NPI_MODULEID_TYPE, NPI_MODULEID_VALUE,
    NPI_REGISTRATION_INSTANCE, NPI_WSK_INTERFACE_ID, STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_HANDLE,
    STATUS_INVALID_PARAMETER, STATUS_NOINTERFACE, STATUS_PENDING, STATUS_SUCCESS, WSK_CLIENT_DISPATCH,
    WSK_PROVIDER_CHARACTERISTICS,
};

use super::{Flag, Look, check_passive};
use crate::client::{Client, same_guid};
use crate::dispatch;
use crate::provider::{Inner, Provider};
use crate::request::PinnedMemory;

const DETACH: &str = "ClientDetachProvider";

/// A module that is registered as a client of WSK.
#[derive(Debug)]
pub(super) struct Module {
    callbacks: NPI_CLIENT_CHARACTERISTICS,
    context: usize,
    /// The module is a client of WSK. No other interface has a provider here, so other modules are only
    /// registered.
    wants_wsk: bool,
    state: Mutex<ModuleState>,
    /// Set when a binding has gone.
    progress: Flag,
}

// SAFETY: the pointers among the characteristics are the client's, which keeps what they point to until it
// has deregistered; the registrar may call it from any thread.
unsafe impl Send for Module {}
// SAFETY: the pointers among the characteristics are the client's, which keeps what they point to until it
// has deregistered; the registrar may call it from any thread; what changes is behind a lock.
unsafe impl Sync for Module {}

#[derive(Debug, Default)]
struct ModuleState {
    binding: Option<Arc<Binding>>,
    ending: bool,
}

/// A module and the provider, from the attach on.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) client: Arc<Client>,
    state: Mutex<BindingState>,
    progress: Arc<Flag>,
}

#[derive(Debug, Default)]
struct BindingState {
    attached: bool,
    context: usize,
    detaching: bool,
    detached: bool,
    pinned: PinnedMemory,
}

/// All modules of one provider.
#[derive(Debug, Default)]
pub(super) struct Modules(Mutex<Vec<Arc<Module>>>);

impl Modules {
    fn all(&self) -> Vec<Arc<Module>> {
        self.0.lock().clone()
    }

    fn find(&self, handle: HANDLE) -> Option<Arc<Module>> {
        self.0.lock().iter().find(|module| ptr::addr_eq(Arc::as_ptr(module), handle)).cloned()
    }

    /// Returns the number of modules with callbacks in `image`.
    pub(super) fn count_in(&self, image: &Range<usize>, look: &mut Look) -> usize {
        let attach =
            |module: &Module| module.callbacks.ClientAttachProvider.map_or(0, |attach| attach as usize);
        let Some(modules) = look.lock(&self.0) else { return 0 };
        modules.iter().filter(|module| image.contains(&attach(module))).count()
    }

    /// Returns the client objects of the bindings whose locks are available.
    pub(super) fn look_at_clients(&self, look: &mut Look) -> Vec<Arc<Client>> {
        let modules = look.lock(&self.0).map(|modules| modules.clone()).unwrap_or_default();
        let binding = |module: &Arc<Module>| look.lock(&module.state)?.binding.clone();
        modules.iter().filter_map(binding).map(|binding| Arc::clone(&binding.client)).collect()
    }

    fn bindings(&self) -> Vec<Arc<Binding>> {
        self.all().iter().filter_map(|module| module.state.lock().binding.clone()).collect()
    }

    fn find_binding(&self, handle: HANDLE) -> Option<Arc<Binding>> {
        self.bindings().into_iter().find(|binding| ptr::addr_eq(Arc::as_ptr(binding), handle))
    }

    /// The client objects of the bindings.
    pub(super) fn clients(&self) -> Vec<Arc<Client>> {
        self.bindings().iter().map(|binding| Arc::clone(&binding.client)).collect()
    }

    /// Returns the number of modules that are registered.
    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Offers the provider, which has arrived, to every module.
    pub(super) fn attach_all(&self, provider: &Arc<Inner>) {
        for module in self.all() {
            attach(provider, &module);
        }
    }

    /// Detaches every module from the provider, which departs.
    pub(super) fn detach_all(&self, provider: &Arc<Inner>) {
        for module in self.all() {
            detach(provider, &module);
        }
    }

    /// Reports the modules that were never deregistered.
    pub(super) fn report_leftovers(&self, provider: &Inner) {
        for module in self.all() {
            let detail = format!("the NMR client {:p} was never deregistered", Arc::as_ptr(&module));
            provider.violation("REG-02", "NmrDeregisterClient", &detail);
        }
    }
}

/// Identity of the provider as a module.
static MODULE: NPI_MODULEID = NPI_MODULEID {
    Length: size_of::<NPI_MODULEID>() as u16,
    Type: NPI_MODULEID_TYPE::MIT_GUID,
    Value: NPI_MODULEID_VALUE { Guid: GUID { data1: 0x5753_4B00, data2: 0, data3: 0, data4: *b"provider" } },
};

/// Offers the provider to a module that is not bound.
fn attach(provider: &Arc<Inner>, module: &Arc<Module>) {
    let Some(callback) = module.callbacks.ClientAttachProvider.filter(|_| module.wants_wsk) else { return };
    let progress = Arc::new(Flag::new());
    let binding = Arc::new(Binding {
        client: Client::new(provider, Arc::clone(&progress)),
        state: Mutex::default(),
        progress,
    });
    {
        let mut state = module.state.lock();
        if state.ending || state.binding.is_some() {
            return;
        }
        state.binding = Some(Arc::clone(&binding));
    }
    let (LowestVersion, HighestVersion) =
        provider.live_config.get(|config| (config.lowest_version, config.highest_version));
    let versions = WSK_PROVIDER_CHARACTERISTICS { HighestVersion, LowestVersion };
    let mut instance = NPI_REGISTRATION_INSTANCE {
        Version: 0,
        Size: size_of::<NPI_REGISTRATION_INSTANCE>() as u16,
        NpiId: &raw const NPI_WSK_INTERFACE_ID,
        ModuleId: &raw const MODULE,
        Number: 0,
        NpiSpecificCharacteristics: (&raw const versions).cast(),
    };
    let handle = Arc::as_ptr(&binding).cast_mut().cast();
    // SAFETY: the client's callback gets its context, and an instance that lives until it returns.
    let status = unsafe { callback(handle, module.context as *mut c_void, &raw mut instance) };
    if status != STATUS_SUCCESS || !binding.state.lock().attached {
        provider.registrar.retire(&binding.client);
        module.state.lock().binding = None;
    }
}

/// Detaches a module from the provider; false if it is not bound.
fn detach(provider: &Arc<Inner>, module: &Arc<Module>) -> bool {
    let Some(binding) = module.state.lock().binding.clone() else { return false };
    let context = {
        let mut state = binding.state.lock();
        if std::mem::replace(&mut state.detaching, true) {
            return true;
        }
        state.context as *mut c_void
    };
    let (own, shared) = (Arc::clone(module), Arc::clone(&binding));
    provider.defer(Box::new(move |provider| clean_up(provider, &own, &shared)));
    let Some(callback) = module.callbacks.ClientDetachProvider else {
        provider.violation("REG-31", DETACH, "the client has no ClientDetachProvider callback");
        binding.detached();
        return true;
    };
    // SAFETY: the client's callback gets the context that it attached with.
    let status = unsafe { callback(context) };
    if status == STATUS_SUCCESS {
        binding.detached();
    } else if status != STATUS_PENDING {
        provider.violation("REG-31", DETACH, &format!("returned {status:#010x}"));
        binding.detached();
    }
    true
}

/// Waits until a binding is no longer in use, and ends it.
fn clean_up(provider: &Arc<Inner>, module: &Arc<Module>, binding: &Arc<Binding>) {
    binding.client.end(provider);
    loop {
        binding.progress.clear();
        if binding.state.lock().detached && binding.client.usage() == (0, 0, 0) {
            break;
        }
        binding.progress.wait(None);
    }
    let context = {
        let mut state = binding.state.lock();
        state.pinned.unpin(provider);
        state.context as *mut c_void
    };
    if let Some(callback) = module.callbacks.ClientCleanupBindingContext {
        // SAFETY: the client's callback gets the context that it attached with, for the last time.
        unsafe { callback(context) };
    }
    // Once the binding is gone the run may end, which drops all retired objects.
    provider.registrar.retire(&binding.client);
    module.state.lock().binding = None;
    module.progress.set();
    if provider.registrar.has_arrived() {
        attach(provider, module);
    }
}

impl Binding {
    /// Records that the client makes no further client-level call.
    fn detached(&self) {
        self.state.lock().detached = true;
        self.client.set_captures(0);
        self.progress.set();
    }
}

impl Provider {
    /// `NmrRegisterClient`. The only provider is that of WSK.
    ///
    /// # Safety
    /// `characteristics` is null or points to valid characteristics, which stay valid until the
    /// deregistration is complete, and `handle` is null or points to memory for the handle.
    pub unsafe fn register_module(
        &self,
        characteristics: *const NPI_CLIENT_CHARACTERISTICS,
        context: *mut c_void,
        handle: *mut HANDLE,
    ) -> NTSTATUS {
        let provider = &self.0;
        check_passive(provider, "NmrRegisterClient");
        if characteristics.is_null() || handle.is_null() {
            return STATUS_INVALID_PARAMETER;
        }
        // SAFETY: the caller passes whole characteristics.
        let callbacks = unsafe { characteristics.read() };
        // SAFETY: the interface identifier is null or readable.
        let interface = unsafe { callbacks.ClientRegistrationInstance.NpiId.as_ref() };
        let Some(interface) = interface else { return STATUS_INVALID_PARAMETER };
        let module = Arc::new(Module {
            callbacks,
            context: context as usize,
            wants_wsk: same_guid(interface, &NPI_WSK_INTERFACE_ID),
            state: Mutex::default(),
            progress: Flag::new(),
        });
        provider.registrar.modules.0.lock().push(Arc::clone(&module));
        // SAFETY: the caller passes a variable to fill.
        unsafe { handle.write(Arc::as_ptr(&module).cast_mut().cast()) };
        if provider.registrar.has_arrived() {
            attach(provider, &module);
        }
        STATUS_SUCCESS
    }

    /// `NmrClientAttachProvider`, from within the attach callback.
    ///
    /// # Safety
    /// The caller is in its attach callback for `binding`; the dispatch table stays valid until the detach is
    /// complete, and the outputs point to memory for the results.
    pub unsafe fn attach_module(
        &self,
        binding: HANDLE,
        context: *mut c_void,
        dispatch: *const c_void,
        client_out: *mut *mut c_void,
        dispatch_out: *mut *const c_void,
    ) -> NTSTATUS {
        let provider = &self.0;
        check_passive(provider, "NmrClientAttachProvider");
        let Some(binding) = provider.registrar.modules.find_binding(binding) else {
            return STATUS_INVALID_HANDLE;
        };
        let dispatch = dispatch.cast::<WSK_CLIENT_DISPATCH>();
        if dispatch.is_null() || client_out.is_null() || dispatch_out.is_null() {
            return STATUS_INVALID_PARAMETER;
        }
        // SAFETY: the caller passes its dispatch table.
        let version = unsafe { (*dispatch).Version };
        let serves = provider
            .live_config
            .get(|config| (config.lowest_version..=config.highest_version).contains(&version));
        if !serves {
            return STATUS_NOINTERFACE;
        }
        let mut state = binding.state.lock();
        if state.attached {
            return STATUS_INVALID_DEVICE_STATE;
        }
        state.attached = true;
        state.context = context as usize;
        state.pinned.add(
            &*provider.host,
            dispatch,
            "LIFE-01",
            "the client dispatch table of an attached module",
        );
        drop(state);
        binding.client.set_captures(1);
        // SAFETY: the caller passes variables to fill.
        unsafe { client_out.write(binding.client.raw().cast()) };
        // SAFETY: the caller passes variables to fill.
        unsafe { dispatch_out.write(dispatch::client_table(&provider.live_config).cast()) };
        STATUS_SUCCESS
    }

    /// `NmrClientDetachProviderComplete`.
    pub fn module_detached(&self, binding: HANDLE) {
        let provider = &self.0;
        let found = provider.registrar.modules.find_binding(binding);
        match found.filter(|binding| binding.state.lock().detaching) {
            Some(binding) => binding.detached(),
            None => provider.violation(
                "REG-31",
                "NmrClientDetachProviderComplete",
                "no detach is pending for this binding",
            ),
        }
    }

    /// `NmrDeregisterClient`.
    pub fn deregister_module(&self, handle: HANDLE) -> NTSTATUS {
        let provider = &self.0;
        check_passive(provider, "NmrDeregisterClient");
        let Some(module) = provider.registrar.modules.find(handle) else { return STATUS_INVALID_HANDLE };
        if std::mem::replace(&mut module.state.lock().ending, true) {
            provider.violation("REG-02", "NmrDeregisterClient", "the NMR client was already deregistered");
            return STATUS_INVALID_DEVICE_STATE;
        }
        if detach(provider, &module) {
            return STATUS_PENDING;
        }
        provider.registrar.modules.0.lock().retain(|other| !Arc::ptr_eq(other, &module));
        STATUS_SUCCESS
    }

    /// `NmrWaitForClientDeregisterComplete`.
    pub fn await_module(&self, handle: HANDLE) -> NTSTATUS {
        let provider = &self.0;
        check_passive(provider, "NmrWaitForClientDeregisterComplete");
        let Some(module) = provider.registrar.modules.find(handle) else { return STATUS_INVALID_HANDLE };
        loop {
            module.progress.clear();
            if module.state.lock().binding.is_none() {
                break;
            }
            module.progress.wait(None);
        }
        provider.registrar.modules.0.lock().retain(|other| !Arc::ptr_eq(other, &module));
        STATUS_SUCCESS
    }
}
