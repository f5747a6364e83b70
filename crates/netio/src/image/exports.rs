//! The exports of `netio.sys` for WSK and for clients of the Network Module Registrar.

use std::ffi::c_void;

use wsk_provider::{Provider, Report, Severity};
use wsk_sys::nt::{HANDLE, NTSTATUS};
use wsk_sys::{
    NPI_CLIENT_CHARACTERISTICS, STATUS_DEVICE_NOT_READY, STATUS_INSUFFICIENT_RESOURCES,
    STATUS_INVALID_HANDLE, WSK_CLIENT_NPI, WSK_PROVIDER_CHARACTERISTICS, WSK_PROVIDER_NPI, WSK_REGISTRATION,
    status::STATUS_NOT_SUPPORTED,
};

use super::process::machine;
use super::unloads::is_in_image;

/// Reports a call that names a registration while no client is registered.
fn unregistered(rule: &'static str, call: &'static str) {
    let detail = "no client is registered".to_owned();
    machine().journal().report(&Report { rule, severity: Severity::Violation, call, detail });
}

/// Makes a call that registers a client.
fn registering(call: &str, register: impl FnOnce(&Provider) -> NTSTATUS) -> NTSTATUS {
    machine().register(register).unwrap_or_else(|error| {
        machine().journal().line(&format!("error {call}: the network cannot be used: {error}"));
        STATUS_INSUFFICIENT_RESOURCES
    })
}

/// Makes a call that ends a registration, and writes the remaining clients and sockets to the journal.
fn deregistering<R>(call: &str, deregister: impl FnOnce(&Provider) -> R) -> Option<R> {
    let machine = machine();
    machine.deregister(|provider| {
        let result = machine.watch(call, provider, || deregister(provider));
        let (clients, sockets) = (provider.clients(), provider.open_sockets().len());
        let counts = machine.journal().counts();
        machine.journal().line(&format!("deregistered: clients={clients} sockets={sockets} {counts}"));
        result
    })
}

/// See [`wsk_sys::WskRegister`].
///
/// # Safety
/// `npi` is null or points to a valid NPI. Its dispatch table stays valid, and `registration`, which is null
/// or points to a `WSK_REGISTRATION`, does not move, until the deregistration has returned.
#[unsafe(no_mangle)]
unsafe extern "system" fn WskRegister(
    npi: *mut WSK_CLIENT_NPI,
    registration: *mut WSK_REGISTRATION,
) -> NTSTATUS {
    // SAFETY: the caller passes null or a valid NPI.
    if let Some(npi) = unsafe { npi.as_ref() } {
        machine().client_at(npi.Dispatch.addr(), is_in_image);
    }
    registering("WskRegister", |provider| {
        // SAFETY: the caller keeps the contract of `WskRegister` for both pointers.
        unsafe { provider.register(npi, registration) }
    })
}

/// See [`wsk_sys::WskCaptureProviderNPI`].
///
/// # Safety
/// `registration` is null or points to a `WSK_REGISTRATION`; `npi` is null or points to memory for the NPI.
#[unsafe(no_mangle)]
unsafe extern "system" fn WskCaptureProviderNPI(
    registration: *mut WSK_REGISTRATION,
    timeout: u32,
    npi: *mut WSK_PROVIDER_NPI,
) -> NTSTATUS {
    let Some(provider) = machine().running() else {
        unregistered("REG-02", "WskCaptureProviderNPI");
        return STATUS_DEVICE_NOT_READY;
    };
    // SAFETY: the caller keeps the contract of `WskCaptureProviderNPI` for both pointers.
    unsafe { provider.capture(registration, timeout, npi) }
}

/// See [`wsk_sys::WskReleaseProviderNPI`].
///
/// # Safety
/// `registration` is null or points to a `WSK_REGISTRATION`.
#[unsafe(no_mangle)]
unsafe extern "system" fn WskReleaseProviderNPI(registration: *mut WSK_REGISTRATION) {
    let Some(provider) = machine().running() else { return unregistered("REG-02", "WskReleaseProviderNPI") };
    // SAFETY: the caller guarantees that the pointer is null or points to a `WSK_REGISTRATION`.
    unsafe { provider.release(registration) };
}

/// See [`wsk_sys::WskQueryProviderCharacteristics`].
///
/// # Safety
/// `registration` is null or points to a `WSK_REGISTRATION`; `characteristics` is null or points to memory
/// for the result.
#[unsafe(no_mangle)]
unsafe extern "system" fn WskQueryProviderCharacteristics(
    registration: *mut WSK_REGISTRATION,
    characteristics: *mut WSK_PROVIDER_CHARACTERISTICS,
) -> NTSTATUS {
    let Some(provider) = machine().running() else {
        unregistered("REG-02", "WskQueryProviderCharacteristics");
        return STATUS_DEVICE_NOT_READY;
    };
    // SAFETY: the caller keeps the contract of `WskQueryProviderCharacteristics` for both pointers.
    unsafe { provider.query_characteristics(registration, characteristics) }
}

/// See [`wsk_sys::WskDeregister`].
///
/// # Safety
/// `registration` is null or points to a `WSK_REGISTRATION` that stays valid until this call has returned.
#[unsafe(no_mangle)]
unsafe extern "system" fn WskDeregister(registration: *mut WSK_REGISTRATION) {
    const CALL: &str = "WskDeregister";
    let done = deregistering(CALL, |provider| {
        // SAFETY: the caller has registered `registration`.
        unsafe { provider.deregister(registration) };
    });
    if done.is_none() {
        unregistered("REG-02", CALL);
    }
}

/// See [`wsk_sys::NmrRegisterClient`].
///
/// # Safety
/// `characteristics` is null or points to valid characteristics, which stay valid until the deregistration is
/// complete; `handle` is null or points to memory for the handle.
#[unsafe(no_mangle)]
unsafe extern "system" fn NmrRegisterClient(
    characteristics: *const NPI_CLIENT_CHARACTERISTICS,
    context: *mut c_void,
    handle: *mut HANDLE,
) -> NTSTATUS {
    // SAFETY: the caller passes null or valid characteristics.
    let attach = unsafe { characteristics.as_ref() }.and_then(|client| client.ClientAttachProvider);
    if let Some(attach) = attach {
        machine().client_at(attach as usize, is_in_image);
    }
    registering("NmrRegisterClient", |provider| {
        // SAFETY: the caller keeps the contract of `NmrRegisterClient`: the characteristics live until
        // deregistration.
        unsafe { provider.register_module(characteristics, context, handle) }
    })
}

/// See [`wsk_sys::NmrClientAttachProvider`].
///
/// # Safety
/// The caller is in its attach callback for `binding`; `dispatch` stays valid until the detach is complete,
/// and the outputs point to memory for the results.
#[unsafe(no_mangle)]
unsafe extern "system" fn NmrClientAttachProvider(
    binding: HANDLE,
    context: *mut c_void,
    dispatch: *const c_void,
    provider_context: *mut *mut c_void,
    provider_dispatch: *mut *const c_void,
) -> NTSTATUS {
    let Some(provider) = machine().running() else { return STATUS_INVALID_HANDLE };
    // SAFETY: the caller is in its attach callback for `binding`, and the results can be written.
    unsafe { provider.attach_module(binding, context, dispatch, provider_context, provider_dispatch) }
}

/// See [`wsk_sys::NmrClientDetachProviderComplete`].
///
/// # Safety
/// Nothing is required of `binding`, which is only looked up.
#[unsafe(no_mangle)]
unsafe extern "system" fn NmrClientDetachProviderComplete(binding: HANDLE) {
    if let Some(provider) = machine().running() {
        provider.module_detached(binding);
    }
}

/// See [`wsk_sys::NmrDeregisterClient`].
///
/// # Safety
/// Nothing is required of `handle`, which is only looked up.
#[unsafe(no_mangle)]
unsafe extern "system" fn NmrDeregisterClient(handle: HANDLE) -> NTSTATUS {
    deregistering("NmrDeregisterClient", |provider| provider.deregister_module(handle))
        .unwrap_or(STATUS_INVALID_HANDLE)
}

/// See [`wsk_sys::NmrWaitForClientDeregisterComplete`].
///
/// # Safety
/// Nothing is required of `handle`, which is only looked up.
#[unsafe(no_mangle)]
unsafe extern "system" fn NmrWaitForClientDeregisterComplete(handle: HANDLE) -> NTSTATUS {
    deregistering("NmrWaitForClientDeregisterComplete", |provider| provider.await_module(handle))
        .unwrap_or(STATUS_INVALID_HANDLE)
}

// The registrar's functions for providers. This image supports only its own provider.

/// Fails: other providers cannot register here.
///
/// # Safety
/// Nothing is required of the arguments, which are not used.
#[unsafe(no_mangle)]
unsafe extern "system" fn NmrRegisterProvider(
    _characteristics: *const c_void,
    _context: *mut c_void,
    _handle: *mut HANDLE,
) -> NTSTATUS {
    machine().journal().line("error NmrRegisterProvider: providers other than WSK cannot register here");
    STATUS_NOT_SUPPORTED
}

/// Refuses: no provider is registered.
#[unsafe(no_mangle)]
extern "system" fn NmrDeregisterProvider(_handle: HANDLE) -> NTSTATUS {
    STATUS_INVALID_HANDLE
}

/// Refuses: no provider is registered.
#[unsafe(no_mangle)]
extern "system" fn NmrWaitForProviderDeregisterComplete(_handle: HANDLE) -> NTSTATUS {
    STATUS_INVALID_HANDLE
}

/// Does nothing: no provider has clients to detach.
#[unsafe(no_mangle)]
extern "system" fn NmrProviderDetachClientComplete(_binding: HANDLE) {}
