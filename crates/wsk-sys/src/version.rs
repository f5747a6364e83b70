//! Versions of the interface, and the timeouts of the capture call.

/// Packs a version: the major number in the high byte, the minor in the low one.
pub const fn MAKE_WSK_VERSION(major: u8, minor: u8) -> u16 {
    (major as u16) << 8 | minor as u16
}

/// The major number of a packed version.
pub const fn WSK_MAJOR_VERSION(version: u16) -> u8 {
    (version >> 8) as u8
}

/// The minor number of a packed version.
pub const fn WSK_MINOR_VERSION(version: u16) -> u8 {
    version as u8
}

/// Timeout of [`WskCaptureProviderNPI`](crate::WskCaptureProviderNPI): poll.
pub const WSK_NO_WAIT: u32 = 0;
/// Timeout of [`WskCaptureProviderNPI`](crate::WskCaptureProviderNPI): wait without bound.
pub const WSK_INFINITE_WAIT: u32 = 0xFFFF_FFFF;
