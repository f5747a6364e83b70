//! The client's memory that the provider needs for longer than a call.
//!
//! ```text
//!   call ──► Loans: noted, costs next to nothing
//!              ├─ completes inline ──► forgotten
//!              └─ pended ──► PinnedMemory: the host knows each block ──► unpinned, then the completion
//!                                                                        routine runs
//! ```
//!
//! A host that watches its pool reports when a held block is freed, with the rule that asks for it.

use smallvec::SmallVec;
use wsk_sys::nt::{
    MDL, MDL_MAPPED_TO_SYSTEM_VA, MDL_SOURCE_IS_NONPAGED_POOL, PSECURITY_DESCRIPTOR, mdl_flags,
    mdl_mapped_system_va, mdl_next,
};
use wsk_sys::{WSK_BUF, WSK_BUF_LIST};

use crate::host::{Host, Pin};
use crate::provider::Inner;

/// Purpose for which a request needs memory of the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Memory for the address of `WskAccept`.
    AcceptAddress,
    /// An address that is passed in.
    AddressIn,
    /// Memory for an address that is written.
    AddressOut,
    /// Control messages, their length and flags.
    ControlMessages,
    /// The buffers of a control call.
    ControlBuffer,
    /// The strings, hints and results of a name query.
    NameQuery,
}

impl Purpose {
    /// The rule that asks the client to keep it, and the words for a report.
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

/// One piece of memory.
#[derive(Clone, Copy, Debug)]
enum LentMemory {
    Memory(*const u8, Purpose),
    Chain(*mut MDL),
    List(*const WSK_BUF_LIST),
}

/// Memory that a request has been lent, as long as its call has not pended.
///
/// # Invariants
/// Each pointer is null or the client's, which keeps the memory until the request completes.
#[derive(Debug, Default)]
pub(crate) struct Loans {
    memory: SmallVec<[LentMemory; 2]>,
    /// The cached security descriptor that is used; null for none.
    descriptor: usize,
}

impl Loans {
    /// Notes memory at `address`; null is no memory.
    pub(super) fn add<T>(&mut self, address: *const T, purpose: Purpose) {
        if !address.is_null() {
            self.memory.push(LentMemory::Memory(address.cast(), purpose));
        }
    }

    /// Notes the MDLs of a buffer and what they describe.
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
            self.memory.push(LentMemory::Chain(mdl));
        }
    }

    /// Notes the nodes of a list and their buffers.
    ///
    /// # Safety
    /// `list` is null or points to a list that stays, with its buffers, until the request completes.
    pub(super) unsafe fn add_list(&mut self, list: *const WSK_BUF_LIST) {
        if !list.is_null() {
            self.memory.push(LentMemory::List(list));
        }
    }

    /// Notes the use of a cached security descriptor; null is none.
    pub(super) fn add_descriptor(&mut self, descriptor: PSECURITY_DESCRIPTOR) {
        self.descriptor = descriptor as usize;
    }

    /// Tells the host of all of it.
    pub(super) fn hold(self, provider: &Inner) -> PinnedMemory {
        let mut held = PinnedMemory { descriptor: self.descriptor, ..PinnedMemory::default() };
        if held.descriptor != 0 {
            provider.descriptors.begin_use(held.descriptor);
        }
        for loan in &self.memory {
            match *loan {
                LentMemory::Memory(..) => {}
                // SAFETY: by the invariant the chain stays until the request completes.
                LentMemory::Chain(mdl) => unsafe { use_shown(provider, &mut held, mdl) },
                LentMemory::List(mut list) => {
                    while !list.is_null() {
                        // SAFETY: by the invariant the list stays until the request completes.
                        let node = unsafe { list.read_unaligned() };
                        // SAFETY: by the invariant the list stays until the request completes.
                        unsafe { use_shown(provider, &mut held, node.Buffer.Mdl) };
                        list = node.Next;
                    }
                }
            }
        }
        if !provider.live_config.watches_memory() {
            return held;
        }
        let host = &*provider.host;
        for loan in self.memory {
            match loan {
                LentMemory::Memory(address, purpose) => {
                    let (rule, what) = purpose.terms();
                    held.add(host, address, rule, what);
                }
                // SAFETY: by the invariant the chain stays until the request completes.
                LentMemory::Chain(mdl) => unsafe { hold_chain(host, &mut held, mdl) },
                LentMemory::List(mut list) => {
                    while !list.is_null() {
                        held.add(host, list, LIST, "a node of the list given to a pending request");
                        // SAFETY: by the invariant the list stays until the request completes.
                        let node = unsafe { list.read_unaligned() };
                        // SAFETY: by the invariant the list stays until the request completes.
                        unsafe { hold_chain(host, &mut held, node.Buffer.Mdl) };
                        list = node.Next;
                    }
                }
            }
        }
        held
    }
}

/// Holds each MDL of a chain and the memory it describes, where that is mapped.
///
/// # Safety
/// The chain is live.
unsafe fn hold_chain(host: &dyn Host, held: &mut PinnedMemory, mut mdl: *mut MDL) {
    while !mdl.is_null() {
        held.add(host, mdl, DATA, "an MDL of a pending transfer");
        // SAFETY: the caller guarantees that the chain is live.
        let mapped = unsafe { mdl_flags(mdl) } & (MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL) != 0;
        if mapped {
            // SAFETY: the caller guarantees that the chain is live.
            let bytes = unsafe { mdl_mapped_system_va(mdl) };
            held.add(host, bytes, DATA, "the data of a pending transfer");
        }
        // SAFETY: the caller guarantees that the chain is live.
        mdl = unsafe { mdl_next(mdl) };
    }
}

/// Notes the use of what indications show, among the MDLs of a chain and what they describe.
///
/// # Safety
/// The chain is live.
unsafe fn use_shown(provider: &Inner, held: &mut PinnedMemory, mut mdl: *mut MDL) {
    let shown = provider.packets.shown();
    while !mdl.is_null() {
        held.shown.extend(shown.begin_use(mdl.addr()));
        // SAFETY: the caller guarantees that the chain is live.
        let mapped = unsafe { mdl_flags(mdl) } & (MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL) != 0;
        if mapped {
            // SAFETY: the caller guarantees that the chain is live.
            let bytes = unsafe { mdl_mapped_system_va(mdl) };
            held.shown.extend(shown.begin_use(bytes.addr()));
        }
        // SAFETY: the caller guarantees that the chain is live.
        mdl = unsafe { mdl_next(mdl) };
    }
}

/// Memory of the client's that the host watches, memory of the provider's that an indication shows, and a
/// descriptor in use. The owner lets all of it go.
#[derive(Debug, Default)]
pub(crate) struct PinnedMemory {
    memory: SmallVec<[Pin; 2]>,
    shown: Vec<usize>,
    descriptor: usize,
}

impl PinnedMemory {
    /// Holds the memory at `address`, if there is any.
    pub(crate) fn add<T>(
        &mut self,
        host: &dyn Host,
        address: *const T,
        rule: &'static str,
        what: &'static str,
    ) {
        if !address.is_null()
            && let Some(hold) = host.pin(address.cast(), rule, what)
        {
            self.memory.push(hold);
        }
    }

    /// The client may free all of it from here on.
    pub(crate) fn let_go(&mut self, provider: &Inner) {
        for hold in self.memory.drain(..) {
            provider.host.unpin(hold);
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
