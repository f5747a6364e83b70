//! One datagram in the provider's memory, in the form in which it is indicated.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::ptr::{self, null_mut};

use wsk_sys::nt::MDL;
use wsk_sys::{MSG_BCAST, MSG_MCAST, WSK_BUF, WSK_DATAGRAM_INDICATION};

use super::control::{ControlInfo, Wanted};
use crate::address::{Family, OwnSockaddr, Stale};
use crate::data::{POISON, Show, describe};
use crate::transport::Received;

/// Bytes in front of the data, so that an MDL can begin before it.
const HEADROOM: usize = 16;

/// One datagram. Its address is stable while a client may access it.
///
/// # Invariants
/// The object stays in the box in which it was created, since it has pointers to its own `node`, `mdls` and
/// `address`.
pub(super) struct Message {
    node: WSK_DATAGRAM_INDICATION,
    mdls: [MDL; 2],
    address: OwnSockaddr,
    data: Box<[u8]>,
    pub(super) control: ControlInfo,
    pub(super) from: SocketAddr,
    /// `MSG_BCAST` or `MSG_MCAST`.
    pub(super) flags: u32,
    /// The client has returned `STATUS_PENDING` for its list.
    pub(super) retained: bool,
}

// SAFETY: the pointers lead into the message itself, or along the list that its owner made.
unsafe impl Send for Message {}

impl Show for Message {
    fn pieces(&self) -> [Range<usize>; 2] {
        let own = ptr::from_ref(self);
        let data = self.data.as_ptr_range();
        [own.addr()..own.wrapping_add(1).addr(), data.start.addr()..data.end.addr()]
    }

    fn poison(&mut self) {
        self.data.fill(POISON);
        self.address.poison(Stale::Indication);
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("from", &self.from)
            .field("length", &self.bytes().len())
            .field("retained", &self.retained)
            .finish_non_exhaustive()
    }
}

impl Message {
    /// Creates a datagram without data, of which only the sender is known.
    pub(super) fn empty(from: SocketAddr, family: Family) -> Box<Self> {
        let received = Received { length: 0, from, to: None, broadcast: false, interface: 0, service: None };
        Self::new(&[], &received, Wanted::default(), family)
    }

    /// Creates a received datagram, with the requested control messages.
    pub(super) fn new(bytes: &[u8], received: &Received, wanted: Wanted, family: Family) -> Box<Self> {
        let mut data = vec![0; HEADROOM + bytes.len()].into_boxed_slice();
        data[HEADROOM..].copy_from_slice(bytes);
        let flags = match received.to {
            Some(to) if to.is_multicast() => MSG_MCAST,
            Some(_) if received.broadcast => MSG_BCAST,
            _ => 0,
        };
        Box::new(Self {
            node: WSK_DATAGRAM_INDICATION {
                Next: null_mut(),
                Buffer: WSK_BUF { Mdl: null_mut(), Offset: 0, Length: 0 },
                ControlInfo: null_mut(),
                ControlInfoLength: 0,
                RemoteAddress: null_mut(),
            },
            mdls: [MDL::default(); 2],
            address: OwnSockaddr::new(received.from, family),
            data,
            control: ControlInfo::new(wanted, received),
            from: received.from,
            flags,
            retained: false,
        })
    }

    /// The data.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.data[HEADROOM..]
    }

    /// Creates its list element: `chained` spreads the data over two MDLs, the first of which begins before
    /// the data; without `with_control` the control messages are left out.
    pub(super) fn element(&mut self, chained: bool, with_control: bool) -> *mut WSK_DATAGRAM_INDICATION {
        let length = self.bytes().len();
        let base = self.data.as_mut_ptr();
        let [first, second] = &mut self.mdls;
        let (offset, tail) = if chained { (HEADROOM / 2, length / 2) } else { (0, 0) };
        if tail > 0 {
            describe(second, base.wrapping_add(HEADROOM + length - tail), tail, null_mut());
        }
        let next: *mut MDL = if tail > 0 { second } else { null_mut() };
        describe(first, base.wrapping_add(HEADROOM - offset), offset + length - tail, next);
        self.node.Buffer = WSK_BUF { Mdl: first, Offset: offset as u32, Length: length };
        if with_control {
            self.node.ControlInfo = self.control.as_ptr().cast();
            self.node.ControlInfoLength = self.control.length() as u32;
        }
        self.node.Next = null_mut();
        self.node.RemoteAddress = self.address.as_ptr();
        &raw mut self.node
    }

    /// Creates a list element without data, as a provider without memory may indicate.
    pub(super) fn empty_element(&mut self) -> *mut WSK_DATAGRAM_INDICATION {
        self.node.Buffer = WSK_BUF { Mdl: null_mut(), Offset: 0, Length: 0 };
        self.node.Next = null_mut();
        self.node.RemoteAddress = self.address.as_ptr();
        &raw mut self.node
    }

    /// Puts `next` behind this element.
    pub(super) fn link(&mut self, next: *mut WSK_DATAGRAM_INDICATION) {
        self.node.Next = next;
    }
}
