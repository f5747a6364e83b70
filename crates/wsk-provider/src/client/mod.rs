//! The client object, which is the target of `PWSK_CLIENT`, and the functions of `WSK_PROVIDER_DISPATCH`.

mod connect;
mod control;
mod create;
mod names;

pub(crate) use connect::wsk_socket_connect;
pub(crate) use control::wsk_control_client;
pub(crate) use create::wsk_socket;
pub(crate) use names::{AddressLists, wsk_free_address_info, wsk_get_address_info, wsk_get_name_info};

use std::collections::HashMap;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use wsk_sys::nt::{GUID, IRP, NTSTATUS};
use wsk_sys::{PWSK_CLIENT, STATUS_CANCELLED, STATUS_INVALID_HANDLE, STATUS_INVALID_PARAMETER};

use crate::behaviours::NullClientIrp;
use crate::provider::{Inner, Provider};
use crate::registration::{Flag, Look};
use crate::request::{Completions, Request, RequestQueue};
use crate::socket::{Context, Socket, StaticEvents, check_place};

/// Returns whether two interface identifiers are the same.
pub(crate) fn same_guid(one: &GUID, other: &GUID) -> bool {
    (one.data1, one.data2, one.data3, one.data4) == (other.data1, other.data2, other.data3, other.data4)
}

/// The client object of one registration.
#[derive(Debug)]
pub(crate) struct Client {
    provider: Arc<Inner>,
    progress: Arc<Flag>,
    captures: AtomicUsize,
    calls: AtomicUsize,
    outstanding: AtomicUsize,
    ending: AtomicBool,
    sockets: Mutex<HashMap<usize, Arc<Socket>>>,
    state: Mutex<ClientState>,
}

/// Mutable state of a client object.
#[derive(Debug, Default)]
pub(crate) struct ClientState {
    /// The static events, once set.
    pub(crate) statics: Option<StaticEvents>,
    /// A socket has been created.
    pub(crate) has_made_sockets: bool,
    /// The flags of `WSK_TDI_BEHAVIOR`.
    pub(crate) tdi_behaviour: u32,
    /// The deregistration has begun: requests no longer wait for a change of the transport list.
    pub(crate) ending: bool,
    /// The `WSK_TRANSPORT_LIST_CHANGE` requests that wait.
    pub(crate) changes: RequestQueue<()>,
    /// The name requests that wait for the host.
    pub(crate) names: names::NameRequests,
}

impl Client {
    pub(crate) fn new(provider: &Arc<Inner>, progress: Arc<Flag>) -> Arc<Self> {
        Arc::new(Self {
            provider: Arc::clone(provider),
            progress,
            captures: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            outstanding: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            sockets: Mutex::default(),
            state: Mutex::default(),
        })
    }

    /// The client's pointer.
    pub(crate) fn raw(self: &Arc<Self>) -> PWSK_CLIENT {
        Arc::as_ptr(self).cast_mut().cast()
    }

    /// The provider.
    pub(crate) fn provider(&self) -> &Arc<Inner> {
        &self.provider
    }

    /// Takes the lock of the mutable state.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ClientState> {
        self.state.lock()
    }

    pub(crate) fn set_captures(&self, captures: usize) {
        self.captures.store(captures, Ordering::SeqCst);
    }

    /// Returns the number of captures.
    pub(crate) fn captures(&self) -> usize {
        self.captures.load(Ordering::SeqCst)
    }

    /// The open sockets.
    pub(crate) fn sockets(&self) -> Vec<Arc<Socket>> {
        self.sockets.lock().values().cloned().collect()
    }

    /// Returns the open sockets, if the lock is available.
    pub(crate) fn look_at_sockets(&self, look: &mut Look) -> Option<Vec<Arc<Socket>>> {
        look.lock(&self.sockets).map(|sockets| sockets.values().cloned().collect())
    }

    /// Returns the numbers of calls in progress and of outstanding requests.
    pub(crate) fn under_way(&self) -> (usize, usize) {
        (self.calls.load(Ordering::SeqCst), self.outstanding.load(Ordering::SeqCst))
    }

    pub(crate) fn add_socket(&self, socket: &Arc<Socket>) {
        self.sockets.lock().insert(Arc::as_ptr(socket) as usize, Arc::clone(socket));
    }

    /// Removes a socket from the client; its shell is kept for a while, to recognize late calls.
    pub(crate) fn remove_socket(&self, socket: &Arc<Socket>) {
        let removed = self.sockets.lock().remove(&(Arc::as_ptr(socket) as usize));
        if let Some(shell) = removed {
            self.provider.retire(shell);
        }
        self.signal_progress();
    }

    pub(crate) fn request_pended(&self) {
        self.outstanding.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn request_done(&self) {
        self.outstanding.fetch_sub(1, Ordering::SeqCst);
        self.signal_progress();
    }

    /// Removes a waiting request that is being cancelled.
    pub(crate) fn cancelled(&self, irp: *mut IRP) -> usize {
        let mut state = self.lock();
        if state.changes.remove_cancelled(irp).is_none() {
            state.names.0.remove_cancelled(irp);
        }
        0
    }

    fn signal_progress(&self) {
        if self.ending.load(Ordering::SeqCst) {
            self.progress.set();
        }
    }

    /// Begins the deregistration: ends the requests that wait for the transport list (REG-22).
    pub(crate) fn end(&self, provider: &Inner) {
        self.ending.store(true, Ordering::SeqCst);
        let mut completions = Completions::default();
        let mut state = self.lock();
        state.ending = true;
        state.changes.end_all(STATUS_CANCELLED, &mut completions);
        drop(state);
        completions.run(provider);
    }

    /// Returns the numbers of calls in progress, of open sockets, and of outstanding requests.
    pub(crate) fn usage(&self) -> (usize, usize, usize) {
        let (calls, requests) = self.under_way();
        (calls, self.sockets.lock().len(), requests)
    }
}

/// Lookup of the provider for calls that do not identify one.
static FALLBACK: OnceLock<fn() -> Option<Provider>> = OnceLock::new();

/// Sets the lookup of the calling thread's provider, for calls with a null client. Only the first call has an
/// effect.
pub fn set_provider_lookup(lookup: fn() -> Option<Provider>) {
    let _ = FALLBACK.set(lookup);
}

/// Returns the provider of the calling thread, for calls that do not identify one.
pub(crate) fn current_provider() -> Option<Arc<Inner>> {
    FALLBACK.get().and_then(|lookup| lookup()).map(|provider| provider.0)
}

/// A call in progress on a client object; it counts for REG-19.
#[derive(Debug)]
pub(crate) struct ClientCall {
    client: Arc<Client>,
    /// The function called.
    pub(crate) name: &'static str,
}

impl ClientCall {
    /// Begins a call that needs an IRP. On failure the IRP has been processed, and the result is the status
    /// to return. Without client and IRP the missing IRP decides (SOCK-12).
    ///
    /// # Safety
    /// `client` is null or was given out by a provider of this crate; `irp` is null or an IRP that the client
    /// gives up.
    pub(crate) unsafe fn begin(
        name: &'static str,
        client: PWSK_CLIENT,
        irp: *mut IRP,
    ) -> Result<(Self, Request), NTSTATUS> {
        if client.is_null() && irp.is_null() {
            return Err(STATUS_INVALID_PARAMETER);
        }
        // SAFETY: the caller guarantees that `client` is null or was given out by a provider of this crate;
        // `irp` is null or an IRP that the client gives up.
        match unsafe { Self::enter(name, client) } {
            Ok(call) => {
                // SAFETY: the caller guarantees that `client` is null or was given out by a provider of this
                // crate; `irp` is null or an IRP that the client gives up.
                let request = unsafe { Request::take(call.provider(), name, "IRP-18", irp) }?;
                Ok((call, request))
            }
            Err(status) => {
                // SAFETY: the caller guarantees that `client` is null or was given out by a provider of this
                // crate; `irp` is null or an IRP that the client gives up.
                unsafe { complete_without_client(name, irp) };
                Err(status)
            }
        }
    }

    /// Begins a call whose IRP is optional.
    ///
    /// # Safety
    /// `client` is null or was given out by a provider of this crate.
    pub(crate) unsafe fn enter(name: &'static str, client: PWSK_CLIENT) -> Result<Self, NTSTATUS> {
        if client.is_null() {
            return Err(STATUS_INVALID_HANDLE);
        }
        let shell = client.cast::<Client>().cast_const();
        // SAFETY: the pointer was given out by this crate, which keeps client objects after their
        // deregistration.
        unsafe { Arc::increment_strong_count(shell) };
        // SAFETY: the count taken above is passed on.
        let client = unsafe { Arc::from_raw(shell) };
        client.calls.fetch_add(1, Ordering::SeqCst);
        let call = Self { client, name };
        if call.captures.load(Ordering::SeqCst) == 0 {
            call.provider.violation("REG-12", name, "called after the last captured NPI was released");
            return Err(STATUS_INVALID_HANDLE);
        }
        check_place(&call.provider, name);
        Ok(call)
    }
}

/// Completes the IRP of a call with an invalid client, if the configuration says so (SOCK-13).
///
/// # Safety
/// `irp` is null or an IRP that the client gives up.
unsafe fn complete_without_client(name: &'static str, irp: *mut IRP) {
    let Some(provider) = current_provider() else { return };
    let provider = &*provider;
    if irp.is_null() || provider.live_config.behaviours().null_client_irp == NullClientIrp::Untouched {
        return;
    }
    // SAFETY: the caller guarantees that `irp` is null or an IRP that the client gives up.
    if let Ok(request) = unsafe { Request::take(provider, name, "IRP-18", irp) } {
        request.fail(provider, STATUS_INVALID_HANDLE);
    }
}

impl Deref for ClientCall {
    type Target = Arc<Client>;
    fn deref(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for ClientCall {
    fn drop(&mut self) {
        self.client.calls.fetch_sub(1, Ordering::SeqCst);
        self.client.signal_progress();
    }
}

/// Checks a context for callbacks: if it is a pointer, it points to non-paged memory. Small numbers are no
/// pointers. This is only advice, since the provider never dereferences it.
pub(crate) fn check_context(provider: &Inner, rule: &'static str, call: &'static str, context: *const u8) {
    if !Context(context.cast_mut().cast()).stays(provider) {
        provider.advice(rule, call, "the context does not point to non-paged memory");
    }
}

/// Checks that a client table is in constant memory.
pub(crate) fn check_table<T>(provider: &Inner, rule: &'static str, call: &'static str, table: *const T) {
    if !ptr::eq(table, ptr::null()) && !provider.host.is_constant(table.cast(), size_of::<T>()) {
        provider.violation(rule, call, "the dispatch table is not in constant memory");
    }
}

/// Checks a table that has only callbacks, each of which is null or a function.
pub(crate) fn check_callbacks<T>(provider: &Inner, rule: &'static str, call: &'static str, table: *const T) {
    if ptr::eq(table, ptr::null()) {
        return;
    }
    if !provider.host.is_constant(table.cast(), size_of::<T>()) {
        provider.violation(rule, call, "the dispatch table is not in constant memory");
        return;
    }
    let members = table.cast::<usize>();
    for index in 0..size_of::<T>() / size_of::<usize>() {
        // SAFETY: the memory was just found to be there; what is no table may lie unaligned.
        let member = unsafe { members.wrapping_add(index).read_unaligned() };
        if member != 0 && !provider.host.is_constant(ptr::without_provenance(member), 1) {
            provider.violation(rule, call, "a member of the dispatch table does not point to code");
            return;
        }
    }
}
