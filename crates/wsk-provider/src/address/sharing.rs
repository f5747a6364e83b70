//! Rights to bind an address that another socket has (contract 4.7, BIND-07 and BIND-13 to BIND-18).
//!
//! ```text
//!   bind ──► Claim ──► listener, connection or datagram socket ──► released with it
//!              └─ exclusive ──► each accepted connection ──► released with the last of them
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use wsk_sys::nt::NTSTATUS;
use wsk_sys::{STATUS_ACCESS_DENIED, STATUS_ADDRESS_ALREADY_EXISTS};

use super::descriptor::Rights;

/// Sharing option of a bind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Neither option.
    #[default]
    Default,
    /// `SO_REUSEADDR`.
    Reuse,
    /// `SO_EXCLUSIVEADDRUSE`.
    Exclusive,
}

/// One owner of an address.
#[derive(Clone, Debug)]
struct Holder {
    ticket: u64,
    protocol: u32,
    address: SocketAddr,
    v6_only: bool,
    sharing: Sharing,
    rights: Rights,
}

#[derive(Debug, Default)]
struct Holders {
    next: u64,
    all: Vec<Holder>,
}

/// Addresses of the sockets of one provider.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressTable(Arc<Mutex<Holders>>);

/// An entry of the table, which is removed when this is dropped.
#[derive(Debug)]
struct Entry {
    table: AddressTable,
    ticket: u64,
}

/// Right to an address; it ends when the last copy of this is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    entry: Arc<Entry>,
    exclusive: bool,
    /// Another socket of this provider has the address, or an overlapping one, and this one may share it.
    pub(crate) shared: bool,
}

/// Result of the table for a second owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Granted,
    InUse,
    Denied,
    Check,
}

/// The table of the contract: option and address form of the second binder against those of the first. The
/// arms follow its rows.
#[allow(clippy::match_same_arms)]
fn verdict(second: Sharing, second_wild: bool, first: Sharing, first_wild: bool) -> Verdict {
    use Sharing::{Default, Exclusive, Reuse};
    use Verdict::{Check, Denied, Granted, InUse};
    match (second, second_wild, first, first_wild) {
        (Default, true, _, true) => InUse,
        (Default, true, _, false) => Granted,
        (Default, false, Default | Reuse, true) => Check,
        (Default, false, Exclusive, true) | (Default, false, Reuse, false) => Denied,
        (Default, false, Default | Exclusive, false) => InUse,
        (Reuse, true, Default | Exclusive, true) => Denied,
        (Reuse, true, Reuse, true) | (Reuse, true, _, false) => Granted,
        (Reuse, false, Default, true) => Check,
        (Reuse, false, Reuse, _) => Granted,
        (Reuse, false, Default, false) | (Reuse, false, Exclusive, _) => Denied,
        (Exclusive, true, _, _) => InUse,
        (Exclusive, false, Default | Reuse, true) => Check,
        (Exclusive, false, Exclusive, true) => Denied,
        (Exclusive, false, _, false) => InUse,
    }
}

/// Returns the IPv4 equivalent of an address, for the comparison across families.
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// Returns which of two addresses are wildcards, if they overlap; `None` if they do not.
fn overlap(second: &SocketAddr, second_v6_only: bool, first: &Holder) -> Option<(bool, bool)> {
    if second.port() != first.address.port() {
        return None;
    }
    let (a, b) = (plain(second.ip()), plain(first.address.ip()));
    let (a_wild, b_wild) = (a.is_unspecified(), b.is_unspecified());
    let a_both = a_wild && a.is_ipv6() && !second_v6_only;
    let b_both = b_wild && b.is_ipv6() && !first.v6_only;
    if a.is_ipv4() != b.is_ipv4() && !a_both && !b_both {
        return None;
    }
    (a_wild || b_wild || a == b).then_some((a_wild, b_wild))
}

impl AddressTable {
    /// Requests `address`. Port 0 never conflicts; the assigned port is set with [`Claim::settle`].
    pub(crate) fn claim(
        &self,
        protocol: u32,
        address: SocketAddr,
        v6_only: bool,
        sharing: Sharing,
        rights: Rights,
    ) -> Result<Claim, NTSTATUS> {
        let mut holders = self.0.lock();
        let mut shared = false;
        if address.port() != 0 {
            for first in holders.all.iter().filter(|first| first.protocol == protocol) {
                let Some((wild, first_wild)) = overlap(&address, v6_only, first) else { continue };
                match verdict(sharing, wild, first.sharing, first_wild) {
                    Verdict::Granted => {}
                    Verdict::Check if first.rights.grants_sharing() => {}
                    Verdict::Check | Verdict::Denied => return Err(STATUS_ACCESS_DENIED),
                    Verdict::InUse => return Err(STATUS_ADDRESS_ALREADY_EXISTS),
                }
                shared = true;
            }
        }
        holders.next += 1;
        let ticket = holders.next;
        holders.all.push(Holder { ticket, protocol, address, v6_only, sharing, rights });
        let entry = Arc::new(Entry { table: self.clone(), ticket });
        Ok(Claim { entry, exclusive: sharing == Sharing::Exclusive, shared })
    }
}

impl Claim {
    /// Sets the assigned address.
    pub(crate) fn settle(&self, address: SocketAddr) {
        let Entry { table, ticket } = &*self.entry;
        let mut holders = table.0.lock();
        if let Some(holder) = holders.all.iter_mut().find(|holder| holder.ticket == *ticket) {
            holder.address = address;
        }
    }

    /// Returns the claim of a connection that was accepted through this address: its exclusive use outlasts
    /// the listener (BIND-18).
    pub(crate) fn of_connections(&self) -> Option<Self> {
        self.exclusive.then(|| self.clone())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut holders = self.table.0.lock();
        if let Some(index) = holders.all.iter().position(|holder| holder.ticket == self.ticket) {
            holders.all.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sharing::{Default, Exclusive, Reuse};
    use super::Verdict::{Check, Denied, Granted, InUse};
    use super::*;

    /// The table as the contract prints it: rows are the second binder, columns the first.
    #[test]
    fn the_whole_table() {
        let columns = [
            (Default, true),
            (Default, false),
            (Reuse, true),
            (Reuse, false),
            (Exclusive, true),
            (Exclusive, false),
        ];
        let rows = [
            ((Default, true), [InUse, Granted, InUse, Granted, InUse, Granted]),
            ((Default, false), [Check, InUse, Check, Denied, Denied, InUse]),
            ((Reuse, true), [Denied, Granted, Granted, Granted, Denied, Granted]),
            ((Reuse, false), [Check, Denied, Granted, Granted, Denied, Denied]),
            ((Exclusive, true), [InUse, InUse, InUse, InUse, InUse, InUse]),
            ((Exclusive, false), [Check, InUse, Check, InUse, Denied, InUse]),
        ];
        for ((second, second_wild), expected) in rows {
            for ((first, first_wild), expected) in columns.into_iter().zip(expected) {
                assert_eq!(
                    verdict(second, second_wild, first, first_wild),
                    expected,
                    "{second:?} {second_wild} after {first:?} {first_wild}"
                );
            }
        }
    }

    #[test]
    fn different_addresses_never_conflict() {
        let table = AddressTable::default();
        let one = table.claim(6, "127.0.0.1:80".parse().unwrap(), false, Exclusive, Rights::default());
        let two = table.claim(6, "127.0.0.2:80".parse().unwrap(), false, Exclusive, Rights::default());
        let three = table.claim(6, "127.0.0.1:80".parse().unwrap(), false, Default, Rights::default());
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(three.err(), Some(STATUS_ADDRESS_ALREADY_EXISTS));
        drop(one);
        assert!(table.claim(6, "127.0.0.1:80".parse().unwrap(), false, Default, Rights::default()).is_ok());
    }
}
