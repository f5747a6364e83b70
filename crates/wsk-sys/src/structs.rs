//! The data structures of `wsk.h`.

use core::ffi::c_void;
use core::fmt;

use crate::nt::{GUID, KSPIN_LOCK, MDL};
use crate::{ADDRESS_FAMILY, PCMSGHDR, PNPIID, PSOCKADDR, PWSK_CLIENT_DISPATCH, PWSK_PROVIDER_DISPATCH};

/// A socket. The provider owns the object, which is larger than this prefix.
#[repr(C)]
#[derive(Debug)]
pub struct WSK_SOCKET {
    /// The function table of the socket's category.
    pub Dispatch: *const c_void,
}
/// A pointer to a socket.
pub type PWSK_SOCKET = *mut WSK_SOCKET;

/// The provider's client object, an opaque pointer.
pub type PWSK_CLIENT = *mut c_void;

/// The versions a provider supports.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WSK_PROVIDER_CHARACTERISTICS {
    /// The highest version.
    pub HighestVersion: u16,
    /// The lowest version.
    pub LowestVersion: u16,
}

/// A transport that sockets can be created on.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct WSK_TRANSPORT {
    /// The version of the transport.
    pub Version: u16,
    /// The socket type.
    pub SocketType: u16,
    /// The protocol.
    pub Protocol: u32,
    /// The address family; `AF_UNSPEC` stands for any.
    pub AddressFamily: ADDRESS_FAMILY,
    /// The provider of the transport.
    pub ProviderId: GUID,
}

impl fmt::Debug for WSK_TRANSPORT {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WSK_TRANSPORT")
            .field("Version", &self.Version)
            .field("SocketType", &self.SocketType)
            .field("Protocol", &self.Protocol)
            .field("AddressFamily", &self.AddressFamily)
            .finish_non_exhaustive()
    }
}

/// A range of a chain of MDLs.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_BUF {
    /// The first MDL of the chain.
    pub Mdl: *mut MDL,
    /// The start of the range, inside the first MDL.
    pub Offset: u32,
    /// The length of the range in bytes.
    pub Length: usize,
}
/// A pointer to a buffer descriptor.
pub type PWSK_BUF = *mut WSK_BUF;

/// A list of buffers (Windows 8).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_BUF_LIST {
    /// The next element, or null.
    pub Next: *mut WSK_BUF_LIST,
    /// The buffer.
    pub Buffer: WSK_BUF,
}
/// A pointer to a list of buffers.
pub type PWSK_BUF_LIST = *mut WSK_BUF_LIST;

/// Received stream data, as a list.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_DATA_INDICATION {
    /// The next element, or null.
    pub Next: *mut WSK_DATA_INDICATION,
    /// The data of this element.
    pub Buffer: WSK_BUF,
}
/// A pointer to received stream data.
pub type PWSK_DATA_INDICATION = *mut WSK_DATA_INDICATION;

/// Received datagrams, as a list.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_DATAGRAM_INDICATION {
    /// The next element, or null.
    pub Next: *mut WSK_DATAGRAM_INDICATION,
    /// The data; the MDL may be null.
    pub Buffer: WSK_BUF,
    /// Control messages, or null.
    pub ControlInfo: PCMSGHDR,
    /// The bytes of `ControlInfo`.
    pub ControlInfoLength: u32,
    /// The sender.
    pub RemoteAddress: PSOCKADDR,
}
/// A pointer to received datagrams.
pub type PWSK_DATAGRAM_INDICATION = *mut WSK_DATAGRAM_INDICATION;

/// Identifies an incoming connection request under inspection.
///
/// Two identifiers are the same when both fields are; padding bytes do not count, nor does the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WSK_INSPECT_ID {
    /// A key that may be used again later.
    pub Key: usize,
    /// Tells uses of a key apart.
    pub SerialNumber: u32,
}
/// A pointer to an inspection identifier.
pub type PWSK_INSPECT_ID = *mut WSK_INSPECT_ID;

/// One TDI device mapping.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_TDI_MAP {
    /// The socket type.
    pub SocketType: u16,
    /// The address family.
    pub AddressFamily: ADDRESS_FAMILY,
    /// The protocol.
    pub Protocol: u32,
    /// The device name, terminated by zero.
    pub TdiDeviceName: *const u16,
}

/// Input of [`WSK_TDI_DEVICENAME_MAPPING`](crate::WSK_TDI_DEVICENAME_MAPPING).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_TDI_MAP_INFO {
    /// The number of mappings.
    pub ElementCount: u32,
    /// The mappings.
    pub Map: *const WSK_TDI_MAP,
}

/// Turns event callbacks on or off.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_EVENT_CALLBACK_CONTROL {
    /// The interface of the events: [`NPI_WSK_INTERFACE_ID`](crate::NPI_WSK_INTERFACE_ID), or an extension's.
    pub NpiId: PNPIID,
    /// `WSK_EVENT_…` bits.
    pub EventMask: u32,
}

/// Input of [`SIO_WSK_REGISTER_EXTENSION`](crate::SIO_WSK_REGISTER_EXTENSION).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_EXTENSION_CONTROL_IN {
    /// The interface of the extension.
    pub NpiId: PNPIID,
    /// Passed to the extension's callbacks.
    pub ClientContext: *mut c_void,
    /// The callbacks for the extension.
    pub ClientDispatch: *const c_void,
}

/// Output of [`SIO_WSK_REGISTER_EXTENSION`](crate::SIO_WSK_REGISTER_EXTENSION).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_EXTENSION_CONTROL_OUT {
    /// Passed to the extension's functions.
    pub ProviderContext: *mut c_void,
    /// The functions of the extension.
    pub ProviderDispatch: *const c_void,
}

/// The client's part of the interface, for [`WskRegister`](crate::WskRegister).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_CLIENT_NPI {
    /// Passed to `WskClientEvent`.
    pub ClientContext: *mut c_void,
    /// The client's table, alive until deregistration has returned.
    pub Dispatch: PWSK_CLIENT_DISPATCH,
}

/// The provider's part of the interface, which a client captures.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WSK_PROVIDER_NPI {
    /// The client, first argument of every function of `Dispatch`.
    pub Client: PWSK_CLIENT,
    /// The provider's table.
    pub Dispatch: PWSK_PROVIDER_DISPATCH,
}

/// A registration. It holds a spin lock: non-paged, and in one place until deregistration has returned.
///
/// Aligned to 8 bytes on every target, as the `u64` makes it on 32-bit Windows.
#[repr(C, align(8))]
#[derive(Debug)]
pub struct WSK_REGISTRATION {
    /// The registration's state, private to the provider.
    pub ReservedRegistrationState: u64,
    /// The registration's context, private to the provider.
    pub ReservedRegistrationContext: *mut c_void,
    /// The registration's spin lock, private to the provider.
    pub ReservedRegistrationLock: KSPIN_LOCK,
}

impl WSK_REGISTRATION {
    /// Storage for [`WskRegister`](crate::WskRegister).
    pub const fn zeroed() -> Self {
        Self {
            ReservedRegistrationState: 0,
            ReservedRegistrationContext: core::ptr::null_mut(),
            ReservedRegistrationLock: 0,
        }
    }
}
