//! Codes of `WskControlClient`, and the kind of a `WskControlSocket` request.

use crate::enumeration::c_enum;

/// Lists the available transports.
pub const WSK_TRANSPORT_LIST_QUERY: u32 = 2;
/// Completes when the list of transports changes.
pub const WSK_TRANSPORT_LIST_CHANGE: u32 = 3;
/// Makes a cached copy of a security descriptor.
pub const WSK_CACHE_SD: u32 = 4;
/// Releases a cached security descriptor.
pub const WSK_RELEASE_SD: u32 = 5;
/// Maps address families and protocols to TDI devices.
pub const WSK_TDI_DEVICENAME_MAPPING: u32 = 6;
/// Turns events on for every socket created later.
pub const WSK_SET_STATIC_EVENT_CALLBACKS: u32 = 7;
/// Sets how WSK uses TDI.
pub const WSK_TDI_BEHAVIOR: u32 = 8;
/// Flag of [`WSK_TDI_BEHAVIOR`]: pass TDI filters by.
pub const WSK_TDI_BEHAVIOR_BYPASS_TDI: u32 = 0x0000_0001;
/// Fetches the network direct table of `wskndk.h`: `'NDKD'`.
pub const WSKNDK_GET_WSK_PROVIDER_NDK_DISPATCH: u32 = 0x4E44_4B44;

c_enum! {
    /// The kind of a `WskControlSocket` request.
    WSK_CONTROL_SOCKET_TYPE {
        /// Set a socket option.
        WskSetOption = 0,
        /// Read a socket option.
        WskGetOption = 1,
        /// An I/O control code.
        WskIoctl = 2,
        /// One more than the last kind.
        WskControlMax = 3,
    }
}

c_enum! {
    /// The answer of `WskInspectEvent`, and the decision given to `WskInspectComplete`.
    ///
    /// Zero is reject: a zeroed answer turns the connection away.
    WSK_INSPECT_ACTION {
        /// Turn the connection request away.
        WskInspectReject = 0,
        /// Let the connection be established.
        WskInspectAccept = 1,
        /// Decide later with `WskInspectComplete`.
        WskInspectPend = 2,
        /// One more than the last answer.
        WskInspectMax = 3,
    }
}
