//! Name queries: numbers are resolved at once, names by the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use wsk_sys::{NI_DGRAM, NI_NAMEREQD, NI_NOFQDN, NI_NUMERICHOST, NI_NUMERICSERV};

use crate::address::Family;

/// Arguments of `WskGetAddressInfo`.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) node: Option<String>,
    pub(super) service: Option<String>,
    pub(super) family: Option<Family>,
    pub(super) passive: bool,
    pub(super) numeric: bool,
    pub(super) canonical: bool,
    /// Socket type and protocol of each entry of an address.
    pub(super) transports: Vec<(i32, i32)>,
}

/// A name query.
#[derive(Debug)]
pub(super) enum Question {
    /// Addresses of a name.
    Addresses(Wanted),
    /// Names of an address. `node` selects the name of the node, in addition to the service.
    Names { address: SocketAddr, flags: u32, node: bool },
}

/// One address of the result.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) address: SocketAddr,
    pub(super) canonical: Option<String>,
    pub(super) socket_type: i32,
    pub(super) protocol: i32,
}

/// Known entries.
#[derive(Debug)]
pub(super) enum Answer {
    Addresses(Vec<Found>),
    Names { node: String, service: String },
    Unknown,
}

impl Wanted {
    fn answer(&self, addresses: impl IntoIterator<Item = IpAddr>, port: u16) -> Answer {
        let fits = |ip: &IpAddr| self.family.is_none_or(|family| (family == Family::V4) == ip.is_ipv4());
        let mut found: Vec<Found> = Vec::new();
        for ip in addresses.into_iter().filter(fits) {
            let address = SocketAddr::new(ip, port);
            if found.iter().any(|other| other.address == address) {
                continue;
            }
            for &(socket_type, protocol) in &self.transports {
                let canonical = if self.canonical && found.is_empty() { self.node.clone() } else { None };
                found.push(Found { address, canonical, socket_type, protocol });
            }
        }
        Answer::Addresses(found)
    }

    /// Returns the port; `None` if the service is a name, which only the host can resolve.
    fn port(&self) -> Option<u16> {
        self.service.as_ref().map_or(Some(0), |service| service.parse().ok())
    }
}

impl Question {
    /// Resolves a query that does not need the host; `None` if it does.
    pub(super) fn answer_from_numbers(&self) -> Option<Answer> {
        match self {
            Self::Addresses(wanted) => {
                let Some(port) = wanted.port() else { return Some(Answer::Unknown) };
                let Some(node) = &wanted.node else {
                    let own: [IpAddr; 2] = if wanted.passive {
                        [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()]
                    } else {
                        [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]
                    };
                    return Some(wanted.answer(own, port));
                };
                match node.parse::<IpAddr>() {
                    Ok(ip) => Some(wanted.answer([ip], port)),
                    Err(_) => wanted.numeric.then_some(Answer::Unknown),
                }
            }
            Self::Names { address, flags, node } => {
                let numeric_host = !node || flags & NI_NUMERICHOST != 0;
                let numeric = numeric_host && flags & NI_NUMERICSERV != 0;
                numeric.then(|| numbers_of(*address))
            }
        }
    }

    /// Queries the host, which may take long.
    pub(super) fn answer_from_host(&self) -> Answer {
        match self {
            Self::Addresses(wanted) => {
                let (Some(node), Some(port)) = (&wanted.node, wanted.port()) else { return Answer::Unknown };
                match (node.as_str(), port).to_socket_addrs() {
                    Ok(found) => wanted.answer(found.map(|address| address.ip()), port),
                    Err(_) => Answer::Unknown,
                }
            }
            Self::Names { address, flags, .. } => names_of(*address, *flags),
        }
    }
}

/// Formats an address as numbers.
fn numbers_of(address: SocketAddr) -> Answer {
    Answer::Names { node: address.ip().to_string(), service: address.port().to_string() }
}

/// Queries the host for the names of an address.
#[cfg(unix)]
fn names_of(address: SocketAddr, flags: u32) -> Answer {
    let host_flags = [
        (NI_NOFQDN, libc::NI_NOFQDN),
        (NI_NUMERICHOST, libc::NI_NUMERICHOST),
        (NI_NAMEREQD, libc::NI_NAMEREQD),
        (NI_NUMERICSERV, libc::NI_NUMERICSERV),
        (NI_DGRAM, libc::NI_DGRAM),
    ];
    let host_flags =
        host_flags.into_iter().filter(|(own, _)| flags & own != 0).fold(0, |all, (_, host)| all | host);
    let address = socket2::SockAddr::from(address);
    let (mut node, mut service) = ([0u8; wsk_sys::NI_MAXHOST], [0u8; wsk_sys::NI_MAXSERV]);
    // SAFETY: the address is whole, and both buffers are as long as is said.
    let failed = unsafe {
        libc::getnameinfo(
            address.as_ptr().cast(),
            address.len(),
            node.as_mut_ptr().cast(),
            node.len() as libc::socklen_t,
            service.as_mut_ptr().cast(),
            service.len() as libc::socklen_t,
            host_flags,
        )
    };
    if failed != 0 {
        return Answer::Unknown;
    }
    let text = |bytes: &[u8]| {
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    };
    Answer::Names { node: text(&node), service: text(&service) }
}

/// Formats the address as numbers: this host has no name query.
#[cfg(not(unix))]
fn names_of(address: SocketAddr, flags: u32) -> Answer {
    let _ = (NI_NOFQDN, NI_DGRAM, NI_NUMERICHOST, NI_NUMERICSERV);
    if flags & NI_NAMEREQD != 0 { Answer::Unknown } else { numbers_of(address) }
}
