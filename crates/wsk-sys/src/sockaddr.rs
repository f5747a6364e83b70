//! Addresses, strings and address information (`ws2def.h`, `ntdef.h`).

use core::ffi::c_void;
use core::fmt;

use crate::nt::GUID;
use crate::{ADDRESS_FAMILY, AF_INET, AF_INET6};

/// A socket address of any family: a prefix of the concrete types.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SOCKADDR {
    /// The family, which determines the concrete type.
    pub sa_family: ADDRESS_FAMILY,
    /// The start of the address proper.
    pub sa_data: [u8; 14],
}
/// A pointer to a socket address.
pub type PSOCKADDR = *mut SOCKADDR;

/// An IPv4 address, four bytes in network order, aligned like the C type.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IN_ADDR {
    /// The bytes in network order.
    pub s_b: [u8; 4],
}

/// An IPv6 address, sixteen bytes in network order.
#[repr(C, align(2))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IN6_ADDR {
    /// The bytes in network order.
    pub Byte: [u8; 16],
}

/// An IPv4 socket address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SOCKADDR_IN {
    /// [`AF_INET`].
    pub sin_family: ADDRESS_FAMILY,
    /// The port, in network order.
    pub sin_port: u16,
    /// The address.
    pub sin_addr: IN_ADDR,
    /// Zero.
    pub sin_zero: [u8; 8],
}

impl SOCKADDR_IN {
    /// An address from its bytes and a port in host order.
    pub const fn new(address: [u8; 4], port: u16) -> Self {
        Self {
            sin_family: AF_INET,
            sin_port: port.to_be(),
            sin_addr: IN_ADDR { s_b: address },
            sin_zero: [0; 8],
        }
    }
}

/// An IPv6 socket address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SOCKADDR_IN6 {
    /// [`AF_INET6`].
    pub sin6_family: ADDRESS_FAMILY,
    /// The port, in network order.
    pub sin6_port: u16,
    /// The flow information.
    pub sin6_flowinfo: u32,
    /// The address.
    pub sin6_addr: IN6_ADDR,
    /// The scope of a link-local address.
    pub sin6_scope_id: u32,
}

impl SOCKADDR_IN6 {
    /// An address from its bytes and a port in host order.
    pub const fn new(address: [u8; 16], port: u16) -> Self {
        Self {
            sin6_family: AF_INET6,
            sin6_port: port.to_be(),
            sin6_flowinfo: 0,
            sin6_addr: IN6_ADDR { Byte: address },
            sin6_scope_id: 0,
        }
    }
}

/// Storage for an address of any family.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct SOCKADDR_STORAGE {
    /// The family, which determines the concrete type.
    pub ss_family: ADDRESS_FAMILY,
    /// Padding up to the aligned member, part of the address.
    pub __ss_pad1: [u8; 6],
    /// The aligned member, part of the address.
    pub __ss_align: i64,
    /// Padding up to the full size, part of the address.
    pub __ss_pad2: [u8; 112],
}

impl SOCKADDR_STORAGE {
    /// Storage of zeroes: family `AF_UNSPEC`.
    pub const fn zeroed() -> Self {
        Self { ss_family: 0, __ss_pad1: [0; 6], __ss_align: 0, __ss_pad2: [0; 112] }
    }
}

impl Default for SOCKADDR_STORAGE {
    fn default() -> Self {
        Self::zeroed()
    }
}

impl fmt::Debug for SOCKADDR_STORAGE {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SOCKADDR_STORAGE").field("ss_family", &self.ss_family).finish_non_exhaustive()
    }
}

/// An address by reference (`ws2def.h`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SOCKET_ADDRESS {
    /// The address.
    pub lpSockaddr: PSOCKADDR,
    /// Its length in bytes.
    pub iSockaddrLength: i32,
}

/// A list of addresses; more elements follow the first one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SOCKET_ADDRESS_LIST {
    /// The number of elements.
    pub iAddressCount: i32,
    /// The first element.
    pub Address: [SOCKET_ADDRESS; 1],
}

pub use crate::nt::UNICODE_STRING;
/// A pointer to a counted string.
pub type PUNICODE_STRING = *mut UNICODE_STRING;

/// An element of the answer of `WskGetAddressInfo`, and the form of its hints.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ADDRINFOEXW {
    /// `AI_…` flags.
    pub ai_flags: i32,
    /// The address family.
    pub ai_family: i32,
    /// The socket type.
    pub ai_socktype: i32,
    /// The protocol.
    pub ai_protocol: i32,
    /// The length of the address in bytes.
    pub ai_addrlen: usize,
    /// The canonical name, or null.
    pub ai_canonname: *mut u16,
    /// The address.
    pub ai_addr: PSOCKADDR,
    /// Data of the name space provider.
    pub ai_blob: *mut c_void,
    /// Its length in bytes.
    pub ai_bloblen: usize,
    /// The name space provider.
    pub ai_provider: *mut GUID,
    /// The next element, or null.
    pub ai_next: *mut ADDRINFOEXW,
}
/// A pointer to address information.
pub type PADDRINFOEXW = *mut ADDRINFOEXW;
