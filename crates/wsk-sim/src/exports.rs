//! The exports of `netio.sys`: each symbol finds the provider of the calling thread's kernel.

use std::time::Duration;

use std::ffi::c_void;

use nt_user::{Idle, Kernel};
use wsk_provider::Provider;
use wsk_sys::nt::{HANDLE, NTSTATUS};
use wsk_sys::{
    NPI_CLIENT_CHARACTERISTICS, WSK_CLIENT_NPI, WSK_PROVIDER_CHARACTERISTICS, WSK_PROVIDER_NPI,
    WSK_REGISTRATION,
};

/// The provider of a kernel, stored as an extension.
#[derive(Debug)]
pub(crate) struct Attached(pub(crate) Provider);

/// Donated threads poll the network.
impl Idle for Attached {
    fn serve(&self, patience: Duration, over: &mut dyn FnMut() -> bool) {
        self.0.donate_thread(patience, over);
    }

    fn kick(&self) {
        self.0.kick();
    }
}

/// The provider of the calling thread's kernel, if there is one.
pub(crate) fn current() -> Option<Provider> {
    Some(Kernel::current()?.find_extension::<Attached>()?.0.clone())
}

/// Describes what the clients on a kernel have not released.
pub(crate) fn describe_hang(kernel: &Kernel) -> String {
    let awaited = kernel.find_extension::<Attached>().map(|attached| attached.0.awaited());
    awaited.filter(|said| !said.is_empty()).map(|said| format!("On WSK, {said}")).unwrap_or_default()
}

/// The provider of the calling thread's kernel.
fn provider(call: &str) -> Provider {
    let Some(kernel) = Kernel::current() else {
        panic!("{call} was called on a thread that belongs to no kernel; see Sim::enter");
    };
    let Some(attached) = kernel.find_extension::<Attached>() else {
        panic!("{call} was called on a kernel without a provider; see Sim");
    };
    attached.0.clone()
}

/// See [`wsk_sys::WskRegister`].
///
/// # Safety
/// `npi` is null or points to a valid NPI. Its dispatch table stays valid, and `registration`, which is null
/// or points to a `WSK_REGISTRATION`, does not move, until the deregistration has returned.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn WskRegister(
    npi: *mut WSK_CLIENT_NPI,
    registration: *mut WSK_REGISTRATION,
) -> NTSTATUS {
    // SAFETY: the caller keeps the contract of `WskRegister` for both pointers.
    unsafe { provider("WskRegister").register(npi, registration) }
}

/// See [`wsk_sys::WskCaptureProviderNPI`].
///
/// # Safety
/// `registration` is null or points to a `WSK_REGISTRATION`; `npi` is null or points to memory for the NPI.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn WskCaptureProviderNPI(
    registration: *mut WSK_REGISTRATION,
    timeout: u32,
    npi: *mut WSK_PROVIDER_NPI,
) -> NTSTATUS {
    // SAFETY: the caller keeps the contract of `WskCaptureProviderNPI`: a registered `registration`, and a
    // place for the NPI.
    unsafe { provider("WskCaptureProviderNPI").capture(registration, timeout, npi) }
}

/// See [`wsk_sys::WskReleaseProviderNPI`].
///
/// # Safety
/// `registration` is null or points to a `WSK_REGISTRATION`.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn WskReleaseProviderNPI(registration: *mut WSK_REGISTRATION) {
    // SAFETY: the caller guarantees that the pointer is null or points to a `WSK_REGISTRATION`.
    unsafe { provider("WskReleaseProviderNPI").release(registration) };
}

/// See [`wsk_sys::WskQueryProviderCharacteristics`].
///
/// # Safety
/// `registration` is null or points to a `WSK_REGISTRATION`; `characteristics` is null or points to memory
/// for the result.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn WskQueryProviderCharacteristics(
    registration: *mut WSK_REGISTRATION,
    characteristics: *mut WSK_PROVIDER_CHARACTERISTICS,
) -> NTSTATUS {
    // SAFETY: the caller keeps the contract of `WskQueryProviderCharacteristics`: the result can be written.
    unsafe {
        provider("WskQueryProviderCharacteristics").query_characteristics(registration, characteristics)
    }
}

/// See [`wsk_sys::WskDeregister`].
///
/// # Safety
/// `registration` is null or points to a `WSK_REGISTRATION` that stays valid until this call has returned.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn WskDeregister(registration: *mut WSK_REGISTRATION) {
    // SAFETY: the caller has registered `registration` and releases it here.
    unsafe { provider("WskDeregister").deregister(registration) };
}

/// See [`wsk_sys::NmrRegisterClient`].
///
/// # Safety
/// `characteristics` is null or points to valid characteristics, which stay valid until the deregistration is
/// complete; `handle` is null or points to memory for the handle.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn NmrRegisterClient(
    characteristics: *const NPI_CLIENT_CHARACTERISTICS,
    context: *mut c_void,
    handle: *mut HANDLE,
) -> NTSTATUS {
    // SAFETY: the caller keeps the contract of `NmrRegisterClient`: the characteristics live until
    // deregistration.
    unsafe { provider("NmrRegisterClient").register_module(characteristics, context, handle) }
}

/// See [`wsk_sys::NmrClientAttachProvider`].
///
/// # Safety
/// The caller is in its attach callback for `binding`; `dispatch` stays valid until the detach is complete,
/// and the outputs point to memory for the results.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn NmrClientAttachProvider(
    binding: HANDLE,
    context: *mut c_void,
    dispatch: *const c_void,
    provider_context: *mut *mut c_void,
    provider_dispatch: *mut *const c_void,
) -> NTSTATUS {
    let provider = provider("NmrClientAttachProvider");
    // SAFETY: the caller is in its attach callback, which passed `binding`; the results can be written.
    unsafe { provider.attach_module(binding, context, dispatch, provider_context, provider_dispatch) }
}

/// See [`wsk_sys::NmrClientDetachProviderComplete`].
///
/// # Safety
/// Nothing is required of `binding`, which is only looked up.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn NmrClientDetachProviderComplete(binding: HANDLE) {
    provider("NmrClientDetachProviderComplete").module_detached(binding);
}

/// See [`wsk_sys::NmrDeregisterClient`].
///
/// # Safety
/// Nothing is required of `handle`, which is only looked up.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn NmrDeregisterClient(handle: HANDLE) -> NTSTATUS {
    provider("NmrDeregisterClient").deregister_module(handle)
}

/// See [`wsk_sys::NmrWaitForClientDeregisterComplete`].
///
/// # Safety
/// Nothing is required of `handle`, which is only looked up.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn NmrWaitForClientDeregisterComplete(handle: HANDLE) -> NTSTATUS {
    provider("NmrWaitForClientDeregisterComplete").await_module(handle)
}
