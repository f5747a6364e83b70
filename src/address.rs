//! Socket addresses: `core::net` types on the safe side, `SOCKADDR` on the other.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use wsk_sys::{ADDRESS_FAMILY, AF_INET, AF_INET6, SOCKADDR, SOCKADDR_IN, SOCKADDR_IN6, SOCKADDR_STORAGE};

use crate::error::{Error, Operation, Result, Status};

/// Storage for an address of any family, 128 bytes, as WSK reads and writes it (rule LIFE-07).
///
/// It must lie in non-paged memory while a request uses it, so operations keep one in their block.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct SockAddr {
    storage: SOCKADDR_STORAGE,
}

impl SockAddr {
    /// Storage without an address (`AF_UNSPEC`), for WSK to fill.
    pub const fn unspecified() -> Self {
        Self { storage: SOCKADDR_STORAGE::zeroed() }
    }

    /// The wildcard address and port 0 of a family.
    pub fn wildcard(family: Family) -> Self {
        Self::from(family.wildcard(0))
    }

    /// The family number.
    pub fn family(&self) -> ADDRESS_FAMILY {
        self.storage.ss_family
    }

    /// The address, unless its family is neither IPv4 nor IPv6.
    pub fn to_socket_addr(&self) -> Option<SocketAddr> {
        // SAFETY: the storage is initialised and large enough for every family.
        unsafe { socket_addr_from_raw(self.as_ptr()) }
    }

    /// The address that `operation` got from WSK.
    ///
    /// # Errors
    /// `STATUS_INVALID_ADDRESS` for a family that is neither IPv4 nor IPv6.
    pub(crate) fn require(&self, operation: Operation) -> Result<SocketAddr> {
        self.to_socket_addr().ok_or_else(|| Error::new(operation, Status::INVALID_ADDRESS))
    }

    /// The storage as WSK reads it.
    pub fn as_ptr(&self) -> *const SOCKADDR {
        (&raw const self.storage).cast()
    }

    /// The storage as WSK writes it.
    pub fn as_mut_ptr(&mut self) -> *mut SOCKADDR {
        (&raw mut self.storage).cast()
    }
}

impl Default for SockAddr {
    fn default() -> Self {
        Self::unspecified()
    }
}

impl From<SocketAddr> for SockAddr {
    fn from(address: SocketAddr) -> Self {
        let mut this = Self::unspecified();
        match address {
            SocketAddr::V4(v4) => {
                let value = SOCKADDR_IN::new(v4.ip().octets(), v4.port());
                // SAFETY: the storage is larger than a `SOCKADDR_IN`, aligned for it, and this value's own.
                unsafe { this.as_mut_ptr().cast::<SOCKADDR_IN>().write(value) };
            }
            SocketAddr::V6(v6) => {
                let value = SOCKADDR_IN6 {
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_scope_id: v6.scope_id(),
                    ..SOCKADDR_IN6::new(v6.ip().octets(), v6.port())
                };
                // SAFETY: the storage is larger than a `SOCKADDR_IN6`, aligned for it, and this value's own.
                unsafe { this.as_mut_ptr().cast::<SOCKADDR_IN6>().write(value) };
            }
        }
        this
    }
}

impl fmt::Debug for SockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_socket_addr() {
            Some(address) => fmt::Debug::fmt(&address, f),
            None => write!(f, "SockAddr(family {})", self.family()),
        }
    }
}

/// Copies an address out of memory that WSK lends, as a callback must (rule LIFE-13).
///
/// `None` for a null pointer and for a family that is neither IPv4 nor IPv6.
///
/// # Safety
/// `address` is null, or points to an initialised address as long as its family says, which nobody writes
/// during the call.
pub(crate) unsafe fn socket_addr_from_raw(address: *const SOCKADDR) -> Option<SocketAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: every address starts with its family, and the caller says that this is one; C callers promise
    // no more alignment than the family's own.
    let family = unsafe { address.cast::<ADDRESS_FAMILY>().read_unaligned() };
    match family {
        AF_INET => {
            // SAFETY: the family says that the whole type is there.
            let value = unsafe { address.cast::<SOCKADDR_IN>().read_unaligned() };
            let ip = Ipv4Addr::from(value.sin_addr.s_b);
            Some(SocketAddrV4::new(ip, u16::from_be(value.sin_port)).into())
        }
        AF_INET6 => {
            // SAFETY: the family says that the whole type is there.
            let value = unsafe { address.cast::<SOCKADDR_IN6>().read_unaligned() };
            let ip = Ipv6Addr::from(value.sin6_addr.Byte);
            let port = u16::from_be(value.sin6_port);
            Some(SocketAddrV6::new(ip, port, value.sin6_flowinfo, value.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// The address families that sockets are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }

    /// The number in `ws2def.h`.
    pub const fn raw(self) -> ADDRESS_FAMILY {
        match self {
            Self::V4 => AF_INET,
            Self::V6 => AF_INET6,
        }
    }

    /// The address that means every local one.
    pub const fn wildcard(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 => SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)),
            Self::V6 => SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)),
        }
    }
}

/// `address` as a socket of `family` takes it: an IPv4 address becomes an IPv4-mapped one for an IPv6 socket,
/// and such a one becomes an IPv4 address for an IPv4 socket.
///
/// `None` if a socket of that family cannot reach the address.
pub fn for_family(address: SocketAddr, family: Family) -> Option<SocketAddr> {
    match (address, family) {
        (SocketAddr::V4(_), Family::V4) | (SocketAddr::V6(_), Family::V6) => Some(address),
        (SocketAddr::V4(v4), Family::V6) => {
            Some(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into())
        }
        (SocketAddr::V6(v6), Family::V4) => {
            v6.ip().to_ipv4_mapped().map(|ip| SocketAddrV4::new(ip, v6.port()).into())
        }
    }
}

/// `address` with an IPv4-mapped IPv6 address, as a dual-mode socket reports its IPv4 peers, made an IPv4
/// one.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddrV4::new(ip, address.port()).into(),
        IpAddr::V6(_) => address,
    }
}
