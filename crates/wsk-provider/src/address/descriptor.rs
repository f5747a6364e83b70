//! Cached security descriptors, which decide whether another socket may share an address.

use std::collections::HashMap;
use std::ptr;

use parking_lot::Mutex;
use wsk_sys::nt::PSECURITY_DESCRIPTOR;

use crate::provider::Inner;

/// `SE_DACL_PRESENT`.
const DACL_PRESENT: u16 = 0x0004;
/// `SE_SELF_RELATIVE`.
const SELF_RELATIVE: u16 = 0x8000;
/// `ACCESS_ALLOWED_ACE_TYPE`.
const ALLOWED: u8 = 0;
/// `ACCESS_DENIED_ACE_TYPE`.
const REFUSED: u8 = 1;

/// Sharing that a descriptor allows; the default descriptor of WSK forbids it (SOCK-16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    shared: bool,
}

impl Rights {
    /// Returns whether a second socket passes the access check.
    pub(crate) fn grants_sharing(self) -> bool {
        self.shared
    }
}

/// Header of an absolute `SECURITY_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Absolute {
    revision: u8,
    sbz1: u8,
    control: u16,
    owner: *const u8,
    group: *const u8,
    sacl: *const u8,
    dacl: *const u8,
}

/// Header of a self-relative `SECURITY_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Relative {
    revision: u8,
    sbz1: u8,
    control: u16,
    owner: u32,
    group: u32,
    sacl: u32,
    dacl: u32,
}

/// Reads the sharing rights from `descriptor`: a missing list allows access to all, an empty one denies it to
/// all, and otherwise the first entry that allows or denies decides.
///
/// # Safety
/// `descriptor` points to a whole security descriptor.
unsafe fn rights_of(descriptor: PSECURITY_DESCRIPTOR) -> Rights {
    let base = descriptor.cast::<u8>().cast_const();
    // SAFETY: both forms have the control word at offset 2.
    let control = unsafe { base.wrapping_add(2).cast::<u16>().read_unaligned() };
    if control & DACL_PRESENT == 0 {
        return Rights { shared: true };
    }
    let list = if control & SELF_RELATIVE != 0 {
        // SAFETY: the control word says the descriptor is of this form.
        let offset = unsafe { base.cast::<Relative>().read_unaligned() }.dacl;
        if offset == 0 { ptr::null() } else { base.wrapping_add(offset as usize) }
    } else {
        // SAFETY: the control word says the descriptor is of this form.
        unsafe { base.cast::<Absolute>().read_unaligned() }.dacl
    };
    if list.is_null() {
        return Rights { shared: true };
    }
    // SAFETY: an ACL has its entry count at offset 4.
    let count = unsafe { list.wrapping_add(4).cast::<u16>().read_unaligned() };
    let mut entry = list.wrapping_add(8);
    for _ in 0..count {
        // SAFETY: the entry lies inside the list, as its count says.
        let kind = unsafe { entry.read() };
        if kind == ALLOWED || kind == REFUSED {
            return Rights { shared: kind == ALLOWED };
        }
        // SAFETY: each entry has its size at offset 2.
        let size = unsafe { entry.wrapping_add(2).cast::<u16>().read_unaligned() };
        entry = entry.wrapping_add(usize::from(size));
    }
    Rights { shared: false }
}

#[derive(Debug)]
struct Cached {
    /// The copy for clients: the header of an absolute descriptor, without its lists.
    copy: Box<[u64; 5]>,
    rights: Rights,
    references: usize,
    /// Number of pending requests that use it.
    users: usize,
}

/// Result of the release of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// It was released.
    Yes,
    /// It was released while a pending request uses it (LIFE-12).
    InUse,
    /// It is not a cached one.
    Unknown,
}

/// Descriptors that were returned by `WSK_CACHE_SD` and by reading `SO_WSK_SECURITY`.
#[derive(Debug, Default)]
pub(crate) struct DescriptorCache(Mutex<HashMap<usize, Cached>>);

impl DescriptorCache {
    /// Caches a copy of `descriptor`.
    ///
    /// # Safety
    /// `descriptor` points to a whole security descriptor.
    pub(crate) unsafe fn add(&self, descriptor: PSECURITY_DESCRIPTOR) -> PSECURITY_DESCRIPTOR {
        // SAFETY: the caller guarantees that `descriptor` points to a whole security descriptor.
        let rights = unsafe { rights_of(descriptor) };
        let mut copy = Box::new([0u64; 5]);
        // Revision 1; a list is present unless access is allowed to all.
        copy[0] = 1 | if rights.shared { 0 } else { u64::from(DACL_PRESENT) << 16 };
        let address = copy.as_mut_ptr();
        self.0.lock().insert(address as usize, Cached { copy, rights, references: 1, users: 0 });
        address.cast()
    }

    /// Adds a reference to a cached descriptor.
    pub(crate) fn share(&self, descriptor: PSECURITY_DESCRIPTOR) {
        if let Some(cached) = self.0.lock().get_mut(&(descriptor as usize)) {
            cached.references += 1;
        }
    }

    /// Records that a request uses a cached descriptor.
    pub(crate) fn begin_use(&self, descriptor: usize) {
        if let Some(cached) = self.0.lock().get_mut(&descriptor) {
            cached.users += 1;
        }
    }

    /// Ends the use by a request that completes. The descriptor may have been released meanwhile.
    pub(crate) fn end_use(&self, descriptor: usize) {
        if let Some(cached) = self.0.lock().get_mut(&descriptor) {
            cached.users -= 1;
        }
    }

    /// Releases one reference.
    pub(crate) fn release(&self, descriptor: PSECURITY_DESCRIPTOR) -> Released {
        let mut cached = self.0.lock();
        let Some(entry) = cached.get_mut(&(descriptor as usize)) else { return Released::Unknown };
        entry.references -= 1;
        if entry.references != 0 {
            return Released::Yes;
        }
        let released = if entry.users == 0 { Released::Yes } else { Released::InUse };
        cached.remove(&(descriptor as usize));
        released
    }

    /// Returns the sharing that a cached descriptor allows; `None` if it is not cached. Null is the default
    /// descriptor.
    pub(crate) fn rights(&self, descriptor: PSECURITY_DESCRIPTOR) -> Option<Rights> {
        if descriptor.is_null() {
            return Some(Rights::default());
        }
        self.0.lock().get(&(descriptor as usize)).map(|cached| cached.rights)
    }

    /// Reports the descriptors that were never released (CTL-07).
    pub(crate) fn report_leftovers(&self, provider: &Inner) {
        for (address, cached) in &*self.0.lock() {
            debug_assert_eq!(*address, cached.copy.as_ptr() as usize);
            let detail = format!("security descriptor {address:#x} was cached and never released");
            provider.violation("CTL-07", "WskControlClient", &detail);
        }
    }
}
