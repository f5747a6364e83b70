//! Limits on clients: the number of all clients and of those of each source.
//!
//! ```text
//!   pended ────────► ClientPermit, held by the asker ────► decided: released
//!   delivered ─────► ClientPermit, held by the session ──► closed: released
//!                      │
//!                      └── Source: its number of permits; in the tree while there are any
//! ```
//!
//! Pended requests take at most half of the permits. Windows inspects a request before the sender's address
//! is verified. Forged requests never end before their answer is due, so without this limit a flood of them
//! would take all permits.
//!
//! A request that is accepted at once gets its permit when its connection is delivered. Earlier, the permit
//! could leak: an abort follows if the client gives up during the inspection (INSP-33), but nothing need
//! follow if it gives up between the answer and the delivery. So the limits are checked at the inspection and
//! charged at the delivery; in between the request is in no limit.
//!
//! Sources are in a tree by address. The cost of a request grows with the length of a path in it, which is
//! bounded whatever addresses an attacker chooses; the chains of a hash table are not.
#![expect(clippy::expl_impl_clone_on_copy, reason = "the adapter is written by a macro")]

use core::fmt;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering};

use gate_protocol::{Limits, Reason};
use intrusive_collections::{KeyAdapter, RBTree, RBTreeAtomicLink, UnsafeRef, intrusive_adapter};
use wsk::memory::{Cache, Ref};
use wsk::sync::SpinLock;

/// Key of a source: an IPv4 address, or the first 64 bits of an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SourceKey {
    V4(u32),
    V6(u64),
}

impl SourceKey {
    fn of(remote: IpAddr) -> Self {
        match remote.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

/// # Invariants
/// `clients` is used under the lock of the table only.
struct Source {
    link: RBTreeAtomicLink,
    key: SourceKey,
    clients: AtomicU32,
}

intrusive_adapter!(Links = UnsafeRef<Source>: Source { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for Links {
    type Key = SourceKey;

    fn get_key(&self, source: &'a Source) -> SourceKey {
        source.key
    }
}

/// Counts of all clients. Clones share the table.
#[derive(Clone, Debug)]
pub(crate) struct ClientTable(Ref<SpinLock<State>>);

/// # Invariants
/// `sources` holds exactly the sources with permits, `taken` is the number of all permits, `pended` the
/// number of those for pended requests, and `len` the number of sources. Each source in the tree came from
/// [`Ref::into_raw`], and the tree owns that count.
struct State {
    sources: RBTree<Links>,
    len: u32,
    taken: u32,
    pended: u32,
}

/// Kind of client a permit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientKind {
    Pended,
    Connected,
}

/// Permit of a client, released when dropped.
///
/// # Invariants
/// It is counted in its source, which is therefore in the tree, and in `pended` if that is its kind.
pub(crate) struct ClientPermit {
    table: ClientTable,
    kind: ClientKind,
    source: Ref<Source>,
}

impl ClientTable {
    /// Creates an empty table.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn try_new() -> Result<Self, wsk::memory::OutOfMemory> {
        let state = State { sources: RBTree::new(Links::NEW), len: 0, taken: 0, pended: 0 };
        Ref::try_new(SpinLock::new(state)).map(Self)
    }

    /// Checks the limits for a client from `remote`. IRQL: `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn check(&self, limits: Limits, remote: IpAddr, kind: ClientKind) -> Result<(), Reason> {
        let key = SourceKey::of(remote);
        self.0.with(|state| state.check(limits, key, kind).map(drop))
    }

    /// Acquires a permit for a client from `remote`; memory for a new source comes from `cache`.
    /// IRQL: `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn acquire(
        &self,
        limits: Limits,
        remote: IpAddr,
        kind: ClientKind,
        cache: &Cache,
    ) -> Result<ClientPermit, Reason> {
        let key = SourceKey::of(remote);
        let mut source = self.0.with(|state| state.acquire(limits, key, kind, None))?;
        if source.is_none() {
            let new = Source { link: RBTreeAtomicLink::new(), key, clients: AtomicU32::new(0) };
            let new = Ref::try_new_in(new, cache).map_err(|_| Reason::Memory)?;
            // Another client of the source may have come meanwhile, and then it is that one's source.
            source = self.0.with(|state| state.acquire(limits, key, kind, Some(new)))?;
        }
        let table = self.clone();
        source.map(|source| ClientPermit { table, kind, source }).ok_or(Reason::Memory)
    }

    /// Returns the number of clients and the number of their sources. IRQL: `<= DISPATCH_LEVEL`.
    pub(crate) fn count(&self) -> (u32, u32) {
        self.0.with(|state| (state.taken, state.len))
    }
}

impl State {
    /// Returns the source of a client if it is in the tree, or an error if a limit is reached.
    fn check(
        &self,
        limits: Limits,
        key: SourceKey,
        kind: ClientKind,
    ) -> Result<Option<*const Source>, Reason> {
        if self.taken >= limits.clients
            || (kind == ClientKind::Pended && self.pended >= limits.clients.div_ceil(2))
        {
            return Err(Reason::Full);
        }
        let found = self.sources.find(&key);
        let Some(source) = found.get() else { return Ok(None) };
        if limits.per_source != Limits::NONE && source.clients.load(Ordering::Relaxed) >= limits.per_source {
            return Err(Reason::Source);
        }
        // The pointer that reaches the whole block, not only what the tree shows of it.
        Ok(found.clone_pointer().map(UnsafeRef::into_raw).map(<*mut Source>::cast_const))
    }

    /// Acquires a permit of the source, which is `new` if the tree has none. Returns `None` without either.
    fn acquire(
        &mut self,
        limits: Limits,
        key: SourceKey,
        kind: ClientKind,
        new: Option<Ref<Source>>,
    ) -> Result<Option<Ref<Source>>, Reason> {
        let source = if let Some(known) = self.check(limits, key, kind)? {
            // SAFETY: the tree has the source, and a share in it.
            unsafe { Ref::clone_from_raw(known) }
        } else {
            let Some(new) = new else { return Ok(None) };
            // SAFETY: a `Ref` never moves its value, and the count given up here is the tree's.
            self.sources.insert(unsafe { UnsafeRef::from_raw(Ref::into_raw(new.clone())) });
            self.len += 1;
            new
        };
        source.clients.fetch_add(1, Ordering::Relaxed);
        self.taken += 1;
        self.pended += u32::from(kind == ClientKind::Pended);
        Ok(Some(source))
    }

    /// Releases a permit. Returns the tree's reference to the source if that was its last permit.
    fn release(&mut self, source: &Ref<Source>, kind: ClientKind) -> Option<Ref<Source>> {
        self.taken -= 1;
        self.pended -= u32::from(kind == ClientKind::Pended);
        if source.clients.fetch_sub(1, Ordering::Relaxed) > 1 {
            return None;
        }
        // SAFETY: a source that has a permit is in this tree; the pointer reaches its whole block.
        let removed = unsafe { self.sources.cursor_mut_from_ptr(Ref::as_ptr(source)) }.remove()?;
        self.len -= 1;
        // SAFETY: the tree owned this count, by its invariant, and has just given it up.
        Some(unsafe { Ref::from_raw(UnsafeRef::into_raw(removed)) })
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let Self { table, kind, source } = self;
        drop(table.0.with(|state| state.release(source, *kind)));
    }
}

impl fmt::Debug for ClientPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientPermit({:?}, {:?})", self.kind, self.source.key)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} permits of {} sources, {} pended", self.taken, self.len, self.pended)
    }
}

#[cfg(test)]
mod tests;
