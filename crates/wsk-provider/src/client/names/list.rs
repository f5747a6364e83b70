//! Lists that `WskGetAddressInfo` returns.

use std::collections::HashMap;
use std::mem;
use std::net::SocketAddr;
use std::ptr;

use parking_lot::Mutex;
use wsk_sys::{ADDRINFOEXW, AF_INET, AF_INET6, PADDRINFOEXW};

use super::lookup::Found;
use crate::address::{Family, OwnSockaddr};
use crate::provider::Inner;

/// Memory of one list.
#[derive(Debug)]
struct List {
    /// Entries, each linked to the next; they never move.
    entries: Box<[Entry]>,
}

#[derive(Debug)]
struct Entry {
    info: ADDRINFOEXW,
    address: OwnSockaddr,
    name: Vec<u16>,
}

// SAFETY: the pointers inside point to the entries' own memory.
unsafe impl Send for List {}

/// Lists that clients have not freed.
#[derive(Debug, Default)]
pub(crate) struct AddressLists(Mutex<HashMap<usize, List>>);

impl AddressLists {
    /// Creates a list of the results, and returns its head.
    pub(super) fn add(&self, found: &[Found]) -> PADDRINFOEXW {
        let mut entries: Box<[Entry]> = found.iter().map(Entry::new).collect();
        let mut next = ptr::null_mut();
        for entry in entries.iter_mut().rev() {
            entry.info.ai_next = mem::replace(&mut next, &raw mut entry.info);
            entry.info.ai_addr = entry.address.as_ptr();
            if !entry.name.is_empty() {
                entry.info.ai_canonname = entry.name.as_mut_ptr();
            }
        }
        self.0.lock().insert(next as usize, List { entries });
        next
    }

    /// Frees a list; false if there is no such list.
    pub(super) fn remove(&self, head: PADDRINFOEXW) -> bool {
        let removed = self.0.lock().remove(&(head as usize));
        removed.is_some()
    }

    /// Reports the lists that were never freed.
    pub(crate) fn report_leftovers(&self, provider: &Inner) {
        for list in self.0.lock().values() {
            let detail = format!("a list of {} addresses was never freed", list.entries.len());
            provider.violation("NAME-05", "WskFreeAddressInfo", &detail);
        }
    }
}

impl Entry {
    fn new(found: &Found) -> Self {
        let (family, number) = match found.address {
            SocketAddr::V4(_) => (Family::V4, AF_INET),
            SocketAddr::V6(_) => (Family::V6, AF_INET6),
        };
        let name =
            found.canonical.as_ref().map_or_else(Vec::new, |name| name.encode_utf16().chain([0]).collect());
        Self {
            info: ADDRINFOEXW {
                ai_flags: 0,
                ai_family: i32::from(number),
                ai_socktype: found.socket_type,
                ai_protocol: found.protocol,
                ai_addrlen: family.size(),
                ai_canonname: ptr::null_mut(),
                ai_addr: ptr::null_mut(),
                ai_blob: ptr::null_mut(),
                ai_bloblen: 0,
                ai_provider: ptr::null_mut(),
                ai_next: ptr::null_mut(),
            },
            address: OwnSockaddr::new(found.address, family),
            name,
        }
    }
}
