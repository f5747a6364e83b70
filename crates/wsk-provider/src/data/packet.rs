//! Provider memory that is indicated to a receive callback: the data, its MDLs, and their list.
//!
//! ```text
//!   room ─► indicated (in a callback) ─► room            SUCCESS, or not accepted
//!                     └─► retained (PENDING) ─► room     WskRelease
//! ```

use std::fmt;
use std::ops::Range;
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};

use wsk_sys::nt::{
    MDL, MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED, MDL_SOURCE_IS_NONPAGED_POOL, set_mdl_byte_count,
    set_mdl_byte_offset, set_mdl_flags, set_mdl_mapped_system_va, set_mdl_next, set_mdl_size,
    set_mdl_start_va,
};
use wsk_sys::{WSK_BUF, WSK_DATA_INDICATION};

use super::shown::{POISON, Quarantine, Show, Shown};

/// Capacity of a packet: the maximum size of a datagram.
pub(crate) const ROOM: usize = 64 * 1024;
/// Bytes in front of the data, so that an MDL can begin before it.
const HEADROOM: usize = 64;
/// Number of list elements of a packet, and of MDLs for each.
const NODES: usize = 4;
/// The page size that MDL arithmetic uses.
const PAGE: usize = 4096;

/// Layout of an indication (contract 5.10, N9). Clients have to cope with every layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One element over one MDL.
    #[default]
    Plain,
    /// The data spread over several elements.
    Several,
    /// One element over a chain of MDLs, the first of which begins before the data.
    Chained,
    /// Elements without data around the one that has it.
    Gaps,
    /// One element over one MDL whose pages are locked and not mapped: the client's mapping can fail
    /// (RCVE-17).
    Unmapped,
}

/// One packet. Its address is stable while a client may access it.
///
/// # Invariants
/// `nodes` and `mdls` point into this packet and its `data` only, which is why it lives in a box from the
/// start.
pub(crate) struct Packet {
    nodes: [WSK_DATA_INDICATION; NODES],
    mdls: [[MDL; 2]; NODES],
    data: Box<[u8]>,
    length: usize,
}

// SAFETY: the pointers lead into the packet itself, which its owner alone reaches.
unsafe impl Send for Packet {}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Packet {
    fn new() -> Box<Self> {
        const BUFFER: WSK_BUF = WSK_BUF { Mdl: null_mut(), Offset: 0, Length: 0 };
        Box::new(Self {
            nodes: [WSK_DATA_INDICATION { Next: null_mut(), Buffer: BUFFER }; NODES],
            mdls: [[MDL::default(); 2]; NODES],
            data: vec![0; HEADROOM + ROOM].into_boxed_slice(),
            length: 0,
        })
    }

    /// Returns the room for data.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.data[HEADROOM..]
    }

    /// Sets the number of bytes that have been filled.
    pub(crate) fn set_length(&mut self, length: usize) {
        debug_assert!(length <= ROOM, "a packet was overfilled");
        self.length = length;
    }

    /// The data.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data[HEADROOM..HEADROOM + self.length]
    }

    /// Returns whether the data is as [`poison`](Show::poison) has left it.
    fn is_poisoned(&self) -> bool {
        self.bytes().iter().all(|byte| *byte == POISON)
    }

    /// Returns whether `element` is one of this packet's.
    pub(crate) fn has_element(&self, element: *const WSK_DATA_INDICATION) -> bool {
        self.nodes.as_ptr_range().contains(&element)
    }

    /// Returns the list over the data, with the layout `shape`. The pointer is valid until the packet is
    /// changed or returned.
    pub(crate) fn list(&mut self, shape: Shape) -> *mut WSK_DATA_INDICATION {
        let length = self.length;
        match shape {
            Shape::Plain => {
                self.element(0, HEADROOM, 0, length, 0);
                self.link(1)
            }
            Shape::Unmapped => {
                self.element(0, HEADROOM, 0, length, 0);
                let [mdl, _] = &mut self.mdls[0];
                // SAFETY: the MDL belongs to this packet.
                unsafe { set_mdl_flags(mdl, MDL_PAGES_LOCKED) };
                // SAFETY: the MDL belongs to this packet.
                unsafe { set_mdl_mapped_system_va(mdl, null_mut()) };
                self.link(1)
            }
            Shape::Several => {
                let first = length.div_ceil(3);
                let second = (length - first).div_ceil(2);
                self.element(0, HEADROOM, 0, first, 0);
                self.element(1, HEADROOM + first, 0, second, 0);
                self.element(2, HEADROOM + first + second, 0, length - first - second, 0);
                self.link(3)
            }
            Shape::Chained => {
                self.element(0, HEADROOM - 24, 24, length, length / 2);
                self.link(1)
            }
            Shape::Gaps => {
                self.element(0, HEADROOM, 0, 0, 0);
                self.element(1, HEADROOM - 8, 8, length, 0);
                self.element(2, HEADROOM + length, 0, 0, 0);
                self.link(3)
            }
        }
    }

    /// Creates element `index` over `length` bytes at `offset` from `start`, with the last `tail` of them in
    /// a separate MDL.
    fn element(&mut self, index: usize, start: usize, offset: usize, length: usize, tail: usize) {
        let base = self.data.as_mut_ptr();
        let [first, second] = &mut self.mdls[index];
        describe(first, base.wrapping_add(start), offset + length - tail, null_mut());
        if tail > 0 {
            describe(second, base.wrapping_add(start + offset + length - tail), tail, null_mut());
            // SAFETY: the MDL belongs to this packet.
            unsafe { set_mdl_next(first, second) };
        }
        self.nodes[index].Buffer = WSK_BUF { Mdl: first, Offset: offset as u32, Length: length };
    }

    /// Links the first `count` elements, and returns the head.
    fn link(&mut self, count: usize) -> *mut WSK_DATA_INDICATION {
        let head = self.nodes.as_mut_ptr();
        for index in 0..count {
            let next = if index + 1 < count { head.wrapping_add(index + 1) } else { null_mut() };
            self.nodes[index].Next = next;
        }
        self.nodes.as_mut_ptr()
    }
}

/// Makes `mdl` describe mapped memory with a stable address.
pub(crate) fn describe(mdl: &mut MDL, address: *mut u8, length: usize, next: *mut MDL) {
    let offset = address.addr() % PAGE;
    let mdl: *mut MDL = mdl;
    // SAFETY: the MDL is borrowed mutably from its packet; the same holds for every line below.
    unsafe { set_mdl_next(mdl, next) };
    // SAFETY: see above.
    unsafe { set_mdl_size(mdl, size_of::<MDL>() as i16) };
    // SAFETY: see above.
    unsafe { set_mdl_flags(mdl, MDL_SOURCE_IS_NONPAGED_POOL | MDL_MAPPED_TO_SYSTEM_VA) };
    // SAFETY: see above.
    unsafe { set_mdl_mapped_system_va(mdl, address.cast()) };
    // SAFETY: see above.
    unsafe { set_mdl_start_va(mdl, address.wrapping_sub(offset).cast()) };
    // SAFETY: see above.
    unsafe { set_mdl_byte_offset(mdl, offset as u32) };
    // SAFETY: see above.
    unsafe { set_mdl_byte_count(mdl, length as u32) };
}

impl Show for Packet {
    fn pieces(&self) -> [Range<usize>; 2] {
        let own = ptr::from_ref(self);
        let data = self.data.as_ptr_range();
        [own.addr()..own.wrapping_add(1).addr(), data.start.addr()..data.end.addr()]
    }

    fn poison(&mut self) {
        self.data[HEADROOM..HEADROOM + self.length].fill(POISON);
    }
}

/// The packets of a provider, and all memory that its indications show.
#[derive(Default)]
pub(crate) struct Packets {
    shown: Shown,
    /// Packets that were returned, for reuse.
    spare: Quarantine<Packet>,
    /// Datagrams that were returned.
    datagrams: Quarantine<dyn Show>,
    /// Number of packets that were written to after their return.
    written: AtomicUsize,
}

impl fmt::Debug for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packets").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl Packets {
    /// Returns an empty packet.
    pub(crate) fn take(&self) -> Box<Packet> {
        let packet = match self.spare.reuse(|packet| self.shown.is_used(packet)) {
            Some(packet) => {
                self.written.fetch_add(usize::from(!packet.is_poisoned()), Ordering::Relaxed);
                packet
            }
            None => Packet::new(),
        };
        self.shown.begin(&*packet);
        packet
    }

    /// Takes back a packet that no client may access any more; true if a pending request still uses it.
    pub(crate) fn give_back(&self, mut packet: Box<Packet>) -> bool {
        let used = self.shown.end(&mut *packet);
        if let Some(oldest) = self.spare.quarantine(packet, |packet| self.shown.is_used(packet)) {
            self.shown.forget(&*oldest);
        }
        used
    }

    /// Registers a datagram that is about to be indicated.
    pub(crate) fn show(&self, datagram: &dyn Show) {
        self.shown.begin(datagram);
    }

    /// Takes back a datagram that no client may access any more; true if a pending request still uses it.
    pub(crate) fn quarantine(&self, mut datagram: Box<dyn Show>) -> bool {
        let used = self.shown.end(&mut *datagram);
        if let Some(oldest) = self.datagrams.quarantine(datagram, |datagram| self.shown.is_used(datagram)) {
            self.shown.forget(&*oldest);
        }
        used
    }

    /// Takes back a datagram that was not accepted, to be indicated again or received; true if a pending
    /// request still uses it.
    pub(crate) fn hide(&self, datagram: &dyn Show) -> bool {
        self.shown.hide(datagram)
    }

    /// Returns the register of indicated memory.
    pub(crate) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Returns the number of packets that were written to after their return.
    pub(crate) fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed) + self.spare.count(|packet| !packet.is_poisoned())
    }
}
