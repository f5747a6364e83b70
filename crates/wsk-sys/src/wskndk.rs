//! Kernel network direct through WSK (`wskndk.h`, Windows 10 1703).

use core::ffi::c_void;

use crate::PWSK_CLIENT;
use crate::nt::NTSTATUS;

/// The version of network direct a client asks for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NDK_VERSION {
    /// The major number.
    pub Major: u16,
    /// The minor number.
    pub Minor: u16,
}

/// The index of a network interface.
pub type NET_IFINDEX = u32;

/// A network direct adapter, opaque.
pub type PNDK_ADAPTER = *mut c_void;

/// Opens the network direct adapter of an interface. IRQL = PASSIVE.
pub type PFN_WSK_NDK_OPEN_ADAPTER = unsafe extern "system" fn(
    WskClient: PWSK_CLIENT,
    NdkVersion: NDK_VERSION,
    InterfaceIndex: NET_IFINDEX,
    NdkAdapter: *mut PNDK_ADAPTER,
) -> NTSTATUS;
/// Closes an adapter. IRQL = PASSIVE.
pub type PFN_WSK_NDK_CLOSE_ADAPTER =
    unsafe extern "system" fn(WskClient: PWSK_CLIENT, NdkAdapter: PNDK_ADAPTER);

/// The network direct functions.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_PROVIDER_NDK_DISPATCH {
    /// Opens an adapter.
    pub WskOpenNdkAdapter: Option<PFN_WSK_NDK_OPEN_ADAPTER>,
    /// Closes an adapter.
    pub WskCloseNdkAdapter: Option<PFN_WSK_NDK_CLOSE_ADAPTER>,
}
