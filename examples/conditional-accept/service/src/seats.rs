//! The seats: how many clients are there, and how many of each source.
//!
//! ```text
//!   pended ────────► Seat, with the asker ──► decided: given back
//!   delivered ─────► Seat, with the session ──► closed: given back
//!                      │
//!                      └── Source: its number of seats; in the tree as long as it has one
//! ```
//!
//! Pended requests take half of the places at most. Where the sender's address is not checked before a request is inspected, as on
//! Windows, a flood of forged ones could take all of them otherwise, as none of these ever ends before its answer is due.
//!
//! A request that is accepted at once has no seat before its connection is delivered, as a seat could be lost: an abort follows if it
//! is given up while it is inspected (INSP-33), and nothing need follow if that happens between the answer and the delivery. So room
//! is looked for when it is inspected, and taken when it is delivered; in between it is in no limit. Sources are in a tree by address: what a request
//! costs grows with the length of a path in it, which is bounded whatever addresses an attacker chooses, as the chains of a
//! hash table are not.
#![expect(clippy::expl_impl_clone_on_copy, reason = "the adapter is written by a macro")]

use core::fmt;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering};

use gate_protocol::{Limits, Reason};
use intrusive_collections::{KeyAdapter, RBTree, RBTreeAtomicLink, UnsafeRef, intrusive_adapter};
use wsk::memory::{Cache, Ref};
use wsk::sync::SpinLock;

/// What counts as one source: an IPv4 address, or the first 64 bits of an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    V4(u32),
    V6(u64),
}

impl Origin {
    fn of(remote: IpAddr) -> Self {
        match remote.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

/// # Invariants
/// `seats` is used under the lock of the hall only.
struct Source {
    link: RBTreeAtomicLink,
    origin: Origin,
    seats: AtomicU32,
}

intrusive_adapter!(Links = UnsafeRef<Source>: Source { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for Links {
    type Key = Origin;

    fn get_key(&self, source: &'a Source) -> Origin {
        source.origin
    }
}

/// Where the clients are; clones are the same hall.
#[derive(Clone, Debug)]
pub(crate) struct Hall(Ref<SpinLock<State>>);

/// # Invariants
/// `sources` holds exactly the sources with seats, `taken` is the sum of these, `pended` how many of them are for pended requests,
/// and `len` how many sources there are. Each source in the tree came from [`Ref::into_raw`], and that count is the tree's.
struct State {
    sources: RBTree<Links>,
    len: u32,
    taken: u32,
    pended: u32,
}

/// What a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guest {
    Pended,
    Connected,
}

/// A client's place; dropped, it is given back.
///
/// # Invariants
/// It is one of the seats of its source, which therefore is in the tree, and counted as one for its guest.
pub(crate) struct Seat {
    hall: Hall,
    guest: Guest,
    source: Ref<Source>,
}

impl Hall {
    /// An empty one.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn try_new() -> Result<Self, wsk::memory::OutOfMemory> {
        let state = State { sources: RBTree::new(Links::NEW), len: 0, taken: 0, pended: 0 };
        Ref::try_new(SpinLock::new(state)).map(Self)
    }

    /// Whether there is room for a client from `remote`. IRQL: `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn room(&self, limits: Limits, remote: IpAddr, guest: Guest) -> Result<(), Reason> {
        let origin = Origin::of(remote);
        self.0.with(|state| state.room(limits, origin, guest).map(drop))
    }

    /// Takes a seat for a client from `remote`; the memory for a source that is new comes from `cache`. IRQL:
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn take(
        &self,
        limits: Limits,
        remote: IpAddr,
        guest: Guest,
        cache: &Cache,
    ) -> Result<Seat, Reason> {
        let origin = Origin::of(remote);
        let mut source = self.0.with(|state| state.take(limits, origin, guest, None))?;
        if source.is_none() {
            let new = Source { link: RBTreeAtomicLink::new(), origin, seats: AtomicU32::new(0) };
            let new = Ref::try_new_in(new, cache).map_err(|_| Reason::Memory)?;
            // Another client of the source may have come meanwhile, and then it is that one's source.
            source = self.0.with(|state| state.take(limits, origin, guest, Some(new)))?;
        }
        let hall = self.clone();
        source.map(|source| Seat { hall, guest, source }).ok_or(Reason::Memory)
    }

    /// How many clients there are, and of how many sources. IRQL: `<= DISPATCH_LEVEL`.
    pub(crate) fn count(&self) -> (u32, u32) {
        self.0.with(|state| (state.taken, state.len))
    }
}

impl State {
    /// The source that a client would be of, if it is known; an error if there is no room for the client.
    fn room(&self, limits: Limits, origin: Origin, guest: Guest) -> Result<Option<*const Source>, Reason> {
        if self.taken >= limits.clients
            || (guest == Guest::Pended && self.pended >= limits.clients.div_ceil(2))
        {
            return Err(Reason::Full);
        }
        let found = self.sources.find(&origin);
        let Some(source) = found.get() else { return Ok(None) };
        if limits.per_source != Limits::NONE && source.seats.load(Ordering::Relaxed) >= limits.per_source {
            return Err(Reason::Source);
        }
        // The pointer that reaches the whole block, not only what the tree shows of it.
        Ok(found.clone_pointer().map(UnsafeRef::into_raw).map(<*mut Source>::cast_const))
    }

    /// Takes a seat with the source, which becomes `new` if it is not known; `None` if it is neither. What is not needed of `new`
    /// goes back to its cache.
    fn take(
        &mut self,
        limits: Limits,
        origin: Origin,
        guest: Guest,
        new: Option<Ref<Source>>,
    ) -> Result<Option<Ref<Source>>, Reason> {
        let source = if let Some(known) = self.room(limits, origin, guest)? {
            // SAFETY: the tree has the source, and a share in it.
            unsafe { Ref::clone_from_raw(known) }
        } else {
            let Some(new) = new else { return Ok(None) };
            // SAFETY: a `Ref` never moves its value, and the count given up here is the tree's.
            self.sources.insert(unsafe { UnsafeRef::from_raw(Ref::into_raw(new.clone())) });
            self.len += 1;
            new
        };
        source.seats.fetch_add(1, Ordering::Relaxed);
        self.taken += 1;
        self.pended += u32::from(guest == Guest::Pended);
        Ok(Some(source))
    }

    /// Gives a seat of the source and the guest back; the tree's share in the source, if that was the last of its seats.
    fn give_back(&mut self, source: &Ref<Source>, guest: Guest) -> Option<Ref<Source>> {
        self.taken -= 1;
        self.pended -= u32::from(guest == Guest::Pended);
        if source.seats.fetch_sub(1, Ordering::Relaxed) > 1 {
            return None;
        }
        // SAFETY: a source that has a seat is in this tree; the pointer reaches its whole block.
        let removed = unsafe { self.sources.cursor_mut_from_ptr(Ref::as_ptr(source)) }.remove()?;
        self.len -= 1;
        // SAFETY: the tree owned this count, by its invariant, and has just given it up.
        Some(unsafe { Ref::from_raw(UnsafeRef::into_raw(removed)) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Self { hall, guest, source } = self;
        drop(hall.0.with(|state| state.give_back(source, *guest)));
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seat({:?}, {:?})", self.guest, self.source.origin)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seats of {} sources, {} pended", self.taken, self.len, self.pended)
    }
}

#[cfg(test)]
mod tests;
