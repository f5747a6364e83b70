//! Client memory that is pinned for a pending IRP.
//!
//! ```text
//!   call ──► PinList: recorded, costs next to nothing
//!              ├─ completes inline ──► dropped
//!              └─ pended ──► PinnedMemory: the host knows each block ──► unpinned, then the completion
//!                                                                        routine runs
//! ```
//!
//! A host that watches its pool reports when a pinned block is freed, with the rule that requires it.

use smallvec::SmallVec;
use wsk_sys::nt::{
    MDL, MDL_MAPPED_TO_SYSTEM_VA, MDL_SOURCE_IS_NONPAGED_POOL, PSECURITY_DESCRIPTOR, mdl_flags,
    mdl_mapped_system_va, mdl_next,
};
use wsk_sys::{WSK_BUF, WSK_BUF_LIST};

use crate::host::{Host, Pin};
use crate::provider::Inner;

/// Purpose for which a request needs client memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Memory for the address of `WskAccept`.
    AcceptAddress,
    /// An address that is passed in.
    AddressIn,
    /// Memory for an address that the provider writes.
    AddressOut,
    /// Control messages, their length and flags.
    ControlMessages,
    /// The buffers of a control call.
    ControlBuffer,
    /// The strings, hints and results of a name query.
    NameQuery,
}

impl Purpose {
    /// Returns the rule that requires the client to keep the memory, and its description in a report.
    const fn terms(self) -> (&'static str, &'static str) {
        match self {
            Self::AcceptAddress => ("LSN-20", "an address that a pending WskAccept writes"),
            Self::AddressIn => ("LIFE-06", "the address given to a pending request"),
            Self::AddressOut => ("LIFE-07", "an address that a pending request writes"),
            Self::ControlMessages => ("LIFE-10", "the control messages of a pending request"),
            Self::ControlBuffer => ("LIFE-11", "a buffer of a pending control call"),
            Self::NameQuery => ("LIFE-11", "a parameter of a pending name query"),
        }
    }
}

const DATA: &str = "LIFE-09";
const LIST: &str = "LIFE-10";

/// One piece of client memory.
#[derive(Clone, Copy, Debug)]
enum ClientMemory {
    Memory(*const u8, Purpose),
    Chain(*mut MDL),
    List(*const WSK_BUF_LIST),
}

/// Client memory to pin if the call of a request pends.
///
/// # Invariants
/// Each pointer is null or points to client memory that stays until the request completes.
#[derive(Debug, Default)]
pub(crate) struct PinList {
    memory: SmallVec<[ClientMemory; 2]>,
    /// Cached security descriptor in use; null for none.
    descriptor: usize,
}

impl PinList {
    /// Records memory at `address`; null is no memory.
    pub(super) fn add<T>(&mut self, address: *const T, purpose: Purpose) {
        if !address.is_null() {
            self.memory.push(ClientMemory::Memory(address.cast(), purpose));
        }
    }

    /// Records the MDLs of a buffer and the memory that they describe.
    ///
    /// # Safety
    /// `buffer` is null or points to a descriptor; its chain stays until the request completes.
    pub(super) unsafe fn add_buffer(&mut self, buffer: *const WSK_BUF) {
        if buffer.is_null() {
            return;
        }
        // SAFETY: the caller guarantees a readable descriptor, wherever it lies.
        let WSK_BUF { Mdl: mdl, Length: length, .. } = unsafe { buffer.read_unaligned() };
        if length != 0 && !mdl.is_null() {
            self.memory.push(ClientMemory::Chain(mdl));
        }
    }

    /// Records the nodes of a list and their buffers.
    ///
    /// # Safety
    /// `list` is null or points to a list that stays, with its buffers, until the request completes.
    pub(super) unsafe fn add_list(&mut self, list: *const WSK_BUF_LIST) {
        if !list.is_null() {
            self.memory.push(ClientMemory::List(list));
        }
    }

    /// Records the use of a cached security descriptor; null is none.
    pub(super) fn add_descriptor(&mut self, descriptor: PSECURITY_DESCRIPTOR) {
        self.descriptor = descriptor as usize;
    }

    /// Pins all of it with the host.
    pub(super) fn pin(self, provider: &Inner) -> PinnedMemory {
        let mut pinned = PinnedMemory { descriptor: self.descriptor, ..PinnedMemory::default() };
        if pinned.descriptor != 0 {
            provider.descriptors.begin_use(pinned.descriptor);
        }
        for piece in &self.memory {
            match *piece {
                ClientMemory::Memory(..) => {}
                // SAFETY: by the invariant the chain stays until the request completes.
                ClientMemory::Chain(mdl) => unsafe { use_shown(provider, &mut pinned, mdl) },
                ClientMemory::List(mut list) => {
                    while !list.is_null() {
                        // SAFETY: by the invariant the list stays until the request completes.
                        let node = unsafe { list.read_unaligned() };
                        // SAFETY: by the invariant the list stays until the request completes.
                        unsafe { use_shown(provider, &mut pinned, node.Buffer.Mdl) };
                        list = node.Next;
                    }
                }
            }
        }
        if !provider.live_config.watches_memory() {
            return pinned;
        }
        let host = &*provider.host;
        for piece in self.memory {
            match piece {
                ClientMemory::Memory(address, purpose) => {
                    let (rule, what) = purpose.terms();
                    pinned.add(host, address, rule, what);
                }
                // SAFETY: by the invariant the chain stays until the request completes.
                ClientMemory::Chain(mdl) => unsafe { pin_chain(host, &mut pinned, mdl) },
                ClientMemory::List(mut list) => {
                    while !list.is_null() {
                        pinned.add(host, list, LIST, "a node of the list given to a pending request");
                        // SAFETY: by the invariant the list stays until the request completes.
                        let node = unsafe { list.read_unaligned() };
                        // SAFETY: by the invariant the list stays until the request completes.
                        unsafe { pin_chain(host, &mut pinned, node.Buffer.Mdl) };
                        list = node.Next;
                    }
                }
            }
        }
        pinned
    }
}

/// Pins each MDL of a chain, and the memory that it describes if that is mapped.
///
/// # Safety
/// The chain is live.
unsafe fn pin_chain(host: &dyn Host, pinned: &mut PinnedMemory, mut mdl: *mut MDL) {
    while !mdl.is_null() {
        pinned.add(host, mdl, DATA, "an MDL of a pending transfer");
        // SAFETY: the caller guarantees that the chain is live.
        let mapped = unsafe { mdl_flags(mdl) } & (MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL) != 0;
        if mapped {
            // SAFETY: the caller guarantees that the chain is live.
            let bytes = unsafe { mdl_mapped_system_va(mdl) };
            pinned.add(host, bytes, DATA, "the data of a pending transfer");
        }
        // SAFETY: the caller guarantees that the chain is live.
        mdl = unsafe { mdl_next(mdl) };
    }
}

/// Records the use of indicated data among the MDLs of a chain and the memory that they describe.
///
/// # Safety
/// The chain is live.
unsafe fn use_shown(provider: &Inner, pinned: &mut PinnedMemory, mut mdl: *mut MDL) {
    let shown = provider.packets.shown();
    while !mdl.is_null() {
        pinned.shown.extend(shown.begin_use(mdl.addr()));
        // SAFETY: the caller guarantees that the chain is live.
        let mapped = unsafe { mdl_flags(mdl) } & (MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL) != 0;
        if mapped {
            // SAFETY: the caller guarantees that the chain is live.
            let bytes = unsafe { mdl_mapped_system_va(mdl) };
            pinned.shown.extend(shown.begin_use(bytes.addr()));
        }
        // SAFETY: the caller guarantees that the chain is live.
        mdl = unsafe { mdl_next(mdl) };
    }
}

/// Client memory that the host watches, provider memory that an indication shows, and a descriptor in use.
/// The owner unpins all of it.
#[derive(Debug, Default)]
pub(crate) struct PinnedMemory {
    memory: SmallVec<[Pin; 2]>,
    shown: Vec<usize>,
    descriptor: usize,
}

impl PinnedMemory {
    /// Pins the memory at `address`; null is no memory.
    pub(crate) fn add<T>(
        &mut self,
        host: &dyn Host,
        address: *const T,
        rule: &'static str,
        what: &'static str,
    ) {
        if !address.is_null()
            && let Some(pin) = host.pin(address.cast(), rule, what)
        {
            self.memory.push(pin);
        }
    }

    /// Unpins all of it: the client may free it from here on.
    pub(crate) fn unpin(&mut self, provider: &Inner) {
        for pin in self.memory.drain(..) {
            provider.host.unpin(pin);
        }
        for shown in self.shown.drain(..) {
            provider.packets.shown().end_use(shown);
        }
        let descriptor = std::mem::take(&mut self.descriptor);
        if descriptor != 0 {
            provider.descriptors.end_use(descriptor);
        }
    }
}
