//! Conversion of socket addresses between `std::net` and C.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use wsk_sys::{
    ADDRESS_FAMILY, AF_INET, AF_INET6, PSOCKADDR, SOCKADDR, SOCKADDR_IN, SOCKADDR_IN6, SOCKADDR_STORAGE,
};

use super::PoolBox;

/// The IPv4 loopback address with a port of the provider's choice.
pub const LOCALHOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The IPv6 loopback address with a port of the provider's choice.
pub const LOCALHOST_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// The IPv4 wildcard with a port of the provider's choice.
pub const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The address family of an address.
pub fn family_of(address: SocketAddr) -> ADDRESS_FAMILY {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// The size of the C form of an address.
pub fn size_of_address(address: SocketAddr) -> usize {
    if address.is_ipv4() { size_of::<SOCKADDR_IN>() } else { size_of::<SOCKADDR_IN6>() }
}

/// A C address in non-paged memory, with room for any family.
#[derive(Debug)]
pub struct CAddress(PoolBox<SOCKADDR_STORAGE>);

impl CAddress {
    /// Room for an address to be written to.
    pub fn empty() -> Self {
        Self(PoolBox::new(SOCKADDR_STORAGE::zeroed()))
    }

    /// The C form of `address`.
    pub fn new(address: SocketAddr) -> Self {
        let storage = Self::empty();
        match address {
            SocketAddr::V4(v4) => {
                let value = SOCKADDR_IN::new(v4.ip().octets(), v4.port());
                // SAFETY: the storage holds an address of any family.
                unsafe { storage.as_ptr().cast::<SOCKADDR_IN>().write(value) };
            }
            SocketAddr::V6(v6) => {
                let mut value = SOCKADDR_IN6::new(v6.ip().octets(), v6.port());
                value.sin6_flowinfo = v6.flowinfo();
                value.sin6_scope_id = v6.scope_id();
                // SAFETY: the storage holds an address of any family.
                unsafe { storage.as_ptr().cast::<SOCKADDR_IN6>().write(value) };
            }
        }
        storage
    }

    /// The address of the C address.
    pub fn as_ptr(&self) -> PSOCKADDR {
        self.0.as_ptr().cast()
    }

    /// The socket address; `None` for a family other than IPv4 and IPv6.
    pub fn get(&self) -> Option<SocketAddr> {
        // SAFETY: the storage is alive and holds an address of any family.
        unsafe { read_address(self.as_ptr()) }
    }
}

/// Reads a C address; `None` for null and for a family other than IPv4 and IPv6.
///
/// # Safety
/// `address` is null or points to an address of the size of its family.
pub unsafe fn read_address(address: *const SOCKADDR) -> Option<SocketAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: every address starts with its family.
    match unsafe { address.cast::<ADDRESS_FAMILY>().read_unaligned() } {
        AF_INET => {
            // SAFETY: the family implies this type.
            let v4 = unsafe { address.cast::<SOCKADDR_IN>().read_unaligned() };
            Some(SocketAddr::from((v4.sin_addr.s_b, u16::from_be(v4.sin_port))))
        }
        AF_INET6 => {
            // SAFETY: the family implies this type.
            let v6 = unsafe { address.cast::<SOCKADDR_IN6>().read_unaligned() };
            let ip = Ipv6Addr::from(v6.sin6_addr.Byte);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}
