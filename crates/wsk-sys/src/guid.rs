//! Interface identifiers.

pub use crate::nt::GUID;

/// The identifier of a network programming interface.
pub type NPIID = GUID;
/// A pointer to an interface identifier.
pub type PNPIID = *const NPIID;

/// The identifier of WSK itself; events of WSK are enabled under it.
///
/// A static, because [`WSK_EVENT_CALLBACK_CONTROL::NpiId`](crate::WSK_EVENT_CALLBACK_CONTROL::NpiId) points to
/// it. The Windows header only declares it; the value is the one that `netio.lib` carries.
pub static NPI_WSK_INTERFACE_ID: NPIID = GUID {
    data1: 0x2227_E803,
    data2: 0x8D8B,
    data3: 0x11D4,
    data4: [0xAB, 0xAD, 0x00, 0x90, 0x27, 0x71, 0x9E, 0x09],
};
