//! Exports of `netio.sys` (import library `netio.lib`).

use core::ffi::c_void;

use crate::nt::{HANDLE, NTSTATUS};
use crate::{
    NPI_CLIENT_CHARACTERISTICS, WSK_CLIENT_NPI, WSK_PROVIDER_CHARACTERISTICS, WSK_PROVIDER_NPI,
    WSK_REGISTRATION,
};

unsafe extern "system" {
    /// Registers a client. The block stays in place until [`WskDeregister`] has returned. IRQL = PASSIVE.
    pub fn WskRegister(WskClientNpi: *mut WSK_CLIENT_NPI, WskRegistration: *mut WSK_REGISTRATION)
    -> NTSTATUS;
    /// Captures the provider, waiting up to `WaitTimeout` milliseconds for it.
    /// IRQL = PASSIVE, or <= DISPATCH with [`WSK_NO_WAIT`](crate::WSK_NO_WAIT).
    pub fn WskCaptureProviderNPI(
        WskRegistration: *mut WSK_REGISTRATION,
        WaitTimeout: u32,
        WskProviderNpi: *mut WSK_PROVIDER_NPI,
    ) -> NTSTATUS;
    /// Releases a captured provider. IRQL <= DISPATCH.
    pub fn WskReleaseProviderNPI(WskRegistration: *mut WSK_REGISTRATION);
    /// Reads the versions that the provider supports. IRQL <= DISPATCH.
    pub fn WskQueryProviderCharacteristics(
        WskRegistration: *mut WSK_REGISTRATION,
        WskProviderCharacteristics: *mut WSK_PROVIDER_CHARACTERISTICS,
    ) -> NTSTATUS;
    /// Ends a registration; waits for captures, sockets and requests. IRQL = PASSIVE.
    pub fn WskDeregister(WskRegistration: *mut WSK_REGISTRATION);

    /// Registers a client with the Network Module Registrar. IRQL = PASSIVE.
    pub fn NmrRegisterClient(
        ClientCharacteristics: *const NPI_CLIENT_CHARACTERISTICS,
        ClientContext: *mut c_void,
        NmrClientHandle: *mut HANDLE,
    ) -> NTSTATUS;
    /// Starts to end a registration with the registrar; success, or `STATUS_PENDING`. IRQL = PASSIVE.
    pub fn NmrDeregisterClient(NmrClientHandle: HANDLE) -> NTSTATUS;
    /// Waits until a registration with the registrar has ended. IRQL = PASSIVE.
    pub fn NmrWaitForClientDeregisterComplete(NmrClientHandle: HANDLE) -> NTSTATUS;
    /// Attaches to a provider from within the attach callback. IRQL = PASSIVE.
    pub fn NmrClientAttachProvider(
        NmrBindingHandle: HANDLE,
        ClientBindingContext: *mut c_void,
        ClientDispatch: *const c_void,
        ProviderBindingContext: *mut *mut c_void,
        ProviderDispatch: *mut *const c_void,
    ) -> NTSTATUS;
    /// Reports that a pended detach is done. IRQL <= DISPATCH.
    pub fn NmrClientDetachProviderComplete(NmrBindingHandle: HANDLE);
}
