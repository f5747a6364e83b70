//! Interface identifiers.

pub use crate::nt::GUID;
use crate::nt::guid;

/// The identifier of a network programming interface.
pub type NPIID = GUID;
/// A pointer to an interface identifier.
pub type PNPIID = *const NPIID;

/// The identifier of WSK itself; events of WSK are enabled under it.
///
/// A static, because [`WSK_EVENT_CALLBACK_CONTROL::NpiId`](crate::WSK_EVENT_CALLBACK_CONTROL::NpiId) points
/// to it. The Windows header only declares it; the value is the one that `netio.lib` carries.
pub static NPI_WSK_INTERFACE_ID: NPIID = NPI_WSK_INTERFACE_ID_VALUE;
pub(crate) const NPI_WSK_INTERFACE_ID_VALUE: NPIID =
    guid(0x2227_E803, 0x8D8B, 0x11D4, [0xAB, 0xAD, 0x00, 0x90, 0x27, 0x71, 0x9E, 0x09]);
