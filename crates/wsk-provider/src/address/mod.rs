//! Addresses: SOCKADDRs at the interface, rights to share one, and the security descriptors for them.

mod descriptor;
mod sharing;

pub(crate) use descriptor::{DescriptorCache, Released};
pub(crate) use sharing::{AddressTable, Claim, Sharing};

use std::ffi::c_void;
use std::mem::{align_of, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use wsk_sys::{
    ADDRESS_FAMILY, AF_INET, AF_INET6, IN_ADDR, IN6_ADDR, PSOCKADDR, SOCKADDR, SOCKADDR_IN, SOCKADDR_IN6,
    SOCKADDR_STORAGE,
};

use crate::provider::Inner;

/// Address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
}

impl Family {
    /// Returns the family with this number.
    pub(crate) fn from_number(number: ADDRESS_FAMILY) -> Option<Self> {
        match number {
            AF_INET => Some(Self::V4),
            AF_INET6 => Some(Self::V6),
            _ => None,
        }
    }

    /// Returns the size of its SOCKADDR.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::V4 => size_of::<SOCKADDR_IN>(),
            Self::V6 => size_of::<SOCKADDR_IN6>(),
        }
    }
}

/// Returns the family of an address, if it is supported.
///
/// # Safety
/// `address` is null or points to a SOCKADDR.
unsafe fn family_of(address: PSOCKADDR) -> Option<Family> {
    if address.is_null() {
        return None;
    }
    // SAFETY: every SOCKADDR starts with its family; it may lie unaligned in the client's memory.
    Family::from_number(unsafe { address.cast::<ADDRESS_FAMILY>().read_unaligned() })
}

/// Reads an address of `family`; `None` if it is null or of another family.
///
/// # Safety
/// `address` is null or points to a whole SOCKADDR of the family it names.
unsafe fn read(address: PSOCKADDR, family: Family) -> Option<SocketAddr> {
    // SAFETY: the caller guarantees that `address` is null or points to a whole SOCKADDR of the family it
    // names.
    if unsafe { family_of(address) } != Some(family) {
        return None;
    }
    Some(match family {
        Family::V4 => {
            // SAFETY: the family says which SOCKADDR it is; it may lie unaligned.
            let v4 = unsafe { address.cast::<SOCKADDR_IN>().read_unaligned() };
            SocketAddrV4::new(Ipv4Addr::from(v4.sin_addr.s_b), u16::from_be(v4.sin_port)).into()
        }
        Family::V6 => {
            // SAFETY: the family says which SOCKADDR it is; it may lie unaligned.
            let v6 = unsafe { address.cast::<SOCKADDR_IN6>().read_unaligned() };
            let ip = Ipv6Addr::from(v6.sin6_addr.Byte);
            SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), v6.sin6_flowinfo, v6.sin6_scope_id).into()
        }
    })
}

/// Writes an address in the form of `family`, with an IPv4 address mapped to IPv6 if necessary.
///
/// # Safety
/// `out` is null or has room for the SOCKADDR of `family`.
pub(crate) unsafe fn write(out: PSOCKADDR, address: SocketAddr, family: Family) {
    if out.is_null() {
        return;
    }
    match family {
        Family::V4 => {
            let (ip, port) = match address {
                SocketAddr::V4(v4) => (*v4.ip(), v4.port()),
                SocketAddr::V6(v6) => (v6.ip().to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED), v6.port()),
            };
            let value = SOCKADDR_IN {
                sin_family: AF_INET,
                sin_port: port.to_be(),
                sin_addr: IN_ADDR { s_b: ip.octets() },
                sin_zero: [0; 8],
            };
            // SAFETY: the caller guarantees the room; it may lie unaligned.
            unsafe { out.cast::<SOCKADDR_IN>().write_unaligned(value) };
        }
        Family::V6 => {
            let value = match address {
                SocketAddr::V4(v4) => SOCKADDR_IN6 {
                    sin6_family: AF_INET6,
                    sin6_port: v4.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: IN6_ADDR { Byte: v4.ip().to_ipv6_mapped().octets() },
                    sin6_scope_id: 0,
                },
                SocketAddr::V6(v6) => SOCKADDR_IN6 {
                    sin6_family: AF_INET6,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: IN6_ADDR { Byte: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                },
            };
            // SAFETY: the caller guarantees the room; it may lie unaligned.
            unsafe { out.cast::<SOCKADDR_IN6>().write_unaligned(value) };
        }
    }
}

/// An address in provider memory, for callbacks.
#[derive(Debug)]
pub(crate) struct OwnSockaddr(SOCKADDR_STORAGE);

impl OwnSockaddr {
    /// Creates a copy of `address` in the form of `family`.
    pub(crate) fn new(address: SocketAddr, family: Family) -> Self {
        const { assert!(align_of::<SOCKADDR_STORAGE>() >= align_of::<SOCKADDR_IN6>()) };
        let mut storage = SOCKADDR_STORAGE::zeroed();
        // SAFETY: the storage has room for the SOCKADDR of any family.
        unsafe { write((&raw mut storage).cast(), address, family) };
        Self(storage)
    }

    /// Returns the pointer for a callback.
    pub(crate) fn as_ptr(&mut self) -> *mut SOCKADDR {
        (&raw mut self.0).cast()
    }

    /// Poisons the contents: a pointer to it is no longer a valid address.
    pub(crate) fn poison(&mut self, stale: Stale) {
        let fill = stale.fill();
        self.0.ss_family = u16::from_ne_bytes([fill; 2]);
        self.0.__ss_pad1 = [fill; 6];
        self.0.__ss_align = i64::from_ne_bytes([fill; 8]);
        self.0.__ss_pad2 = [fill; 112];
    }
}

/// Reason why a callback's address is stale. It is encoded in the poison, so that it is known when a client
/// passes the address back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// The inspection's callback has returned.
    Inspection,
    /// The callback was the sentinel of its listener.
    Sentinel,
    /// Another callback has returned.
    Indication,
}

impl Stale {
    const ALL: [Self; 3] = [Self::Inspection, Self::Sentinel, Self::Indication];

    const fn fill(self) -> u8 {
        match self {
            Self::Inspection => 0xDD,
            Self::Sentinel => 0xDE,
            Self::Indication => 0xDF,
        }
    }

    const fn rule(self) -> &'static str {
        match self {
            Self::Inspection => "INSP-23",
            Self::Sentinel => "INSP-09",
            Self::Indication => "LIFE-13",
        }
    }

    /// Returns the reason why an address is stale, if it is poisoned.
    ///
    /// # Safety
    /// `address` is null or points to a SOCKADDR.
    unsafe fn of(address: PSOCKADDR) -> Option<Self> {
        if address.is_null() {
            return None;
        }
        // SAFETY: every SOCKADDR starts with its family; it may lie unaligned in the client's memory.
        let family = unsafe { address.cast::<ADDRESS_FAMILY>().read_unaligned() };
        Self::ALL.into_iter().find(|stale| family == u16::from_ne_bytes([stale.fill(); 2]))
    }
}

impl Inner {
    /// Returns whether client memory at `address` has `bytes`, as far as the host knows; reports a violation
    /// of `rule` if not.
    pub(crate) fn is_whole<T>(
        &self,
        call: &'static str,
        address: *const T,
        bytes: usize,
        rule: &'static str,
    ) -> bool {
        if address.is_null() || bytes == 0 {
            return true;
        }
        let detail = match self.host.room(address.cast()) {
            Some(room) if room < bytes => {
                format!("{bytes} bytes at {address:p} are needed, but the client's memory has {room} there")
            }
            None if self.host.is_freed(address.cast()) => format!("the memory at {address:p} has been freed"),
            _ => return true,
        };
        self.violation(rule, call, &detail);
        false
    }

    /// Returns whether the buffers of a control call are as long as the client says (LIFE-11).
    pub(crate) fn are_whole(
        &self,
        call: &'static str,
        (input, input_size): (*mut c_void, usize),
        (output, output_size): (*mut c_void, usize),
    ) -> bool {
        self.is_whole(call, input, input_size, "LIFE-11")
            & self.is_whole(call, output, output_size, "LIFE-11")
    }

    /// Copies an address that a client passes to `call`. Missing bytes at its end are reported (LIFE-06), and
    /// replaced by zeros.
    ///
    /// # Safety
    /// `address` is null or points to a whole SOCKADDR of the family it names, unless the host knows that it
    /// does not.
    unsafe fn copy_address(&self, call: &'static str, address: PSOCKADDR) -> Option<SOCKADDR_STORAGE> {
        if address.is_null() || !self.is_whole(call, address, size_of::<ADDRESS_FAMILY>(), "LIFE-06") {
            return None;
        }
        // SAFETY: as far as the host knows, the memory has at least a family.
        let needed = unsafe { family_of(address) }.map_or(size_of::<ADDRESS_FAMILY>(), Family::size);
        let whole = self.is_whole(call, address, needed, "LIFE-06");
        let there = if whole { needed } else { self.host.room(address.cast_const().cast()).unwrap_or(0) };
        let mut storage = SOCKADDR_STORAGE::zeroed();
        // SAFETY: the caller guarantees a whole address, or the host has said how many bytes there are; no
        // more than the address of a family, which the storage has room for.
        unsafe {
            (&raw mut storage).cast::<u8>().copy_from_nonoverlapping(address.cast(), there.min(needed));
        }
        Some(storage)
    }

    /// Returns the family of the address that a client passes to `call`.
    ///
    /// # Safety
    /// `address` is null or points to a whole SOCKADDR of the family it names, unless the host knows that it
    /// does not.
    pub(crate) unsafe fn family_of(&self, call: &'static str, address: PSOCKADDR) -> Option<Family> {
        if !self.is_whole(call, address, size_of::<ADDRESS_FAMILY>(), "LIFE-06") {
            return None;
        }
        // SAFETY: the caller guarantees that `address` is null or points to a whole SOCKADDR, unless the host
        // knows better.
        unsafe { family_of(address) }
    }

    /// Reads the address of `family` that a client passes to `call`; `None` if it is none. Reports an address
    /// that was only valid during a callback, and one that is incomplete.
    ///
    /// # Safety
    /// `address` is null or points to a whole SOCKADDR of the family it names, unless the host knows that it
    /// does not.
    pub(crate) unsafe fn read_address(
        &self,
        call: &'static str,
        address: PSOCKADDR,
        family: Family,
    ) -> Option<SocketAddr> {
        // SAFETY: the caller guarantees that `address` is null or points to a whole SOCKADDR of the family it
        // names, unless the host knows that it does not.
        let mut copy = unsafe { self.copy_address(call, address) }?;
        let copy: PSOCKADDR = (&raw mut copy).cast();
        // SAFETY: the copy has room for an address of any family.
        let read = unsafe { read(copy, family) };
        if read.is_none()
            // SAFETY: the copy has room for an address of any family.
            && let Some(stale) = unsafe { Stale::of(copy) }
        {
            self.violation(
                stale.rule(),
                call,
                "the address was passed to a callback that has returned: pass a copy",
            );
        }
        read
    }
}
