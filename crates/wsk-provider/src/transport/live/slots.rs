//! Mapping of host events to sinks.

use std::sync::Arc;

use mio::Token;

use super::listener::Acceptor;
use crate::transport::ReadySink;

/// Half of a token is the slot, the other half its generation.
const SLOT_BITS: u32 = usize::BITS / 2;
/// Tokens of slots are below this number.
pub(super) const SLOT_TOKENS: usize = usize::MAX;

/// Recipient of the events of a socket.
#[derive(Clone)]
pub(super) enum Target {
    Ready(Arc<dyn ReadySink>),
    Accept(Arc<Acceptor>),
}

impl Target {
    /// Returns whether a donated thread may call it.
    pub(super) fn accepts_donated_thread(&self) -> bool {
        match self {
            Self::Ready(sink) => sink.accepts_donated_thread(),
            Self::Accept(_) => false,
        }
    }
}

#[derive(Default)]
struct Slot {
    generation: usize,
    target: Option<Target>,
}

/// The targets.
///
/// # Invariants
/// A slot is in `free` exactly when it has no target, and its generation has gone up since its last one.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

impl Slots {
    /// Takes a slot for `target`.
    pub(super) fn insert(&mut self, target: Target) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        slot.target = Some(target);
        Token(slot.generation << SLOT_BITS | index)
    }

    fn slot(&mut self, token: Token) -> Option<(usize, &mut Slot)> {
        let index = token.0 & ((1 << SLOT_BITS) - 1);
        let generation = token.0 >> SLOT_BITS;
        self.slots.get_mut(index).filter(|slot| slot.generation == generation).map(|slot| (index, slot))
    }

    /// Returns the target of an event with `token`.
    pub(super) fn target(&mut self, token: Token) -> Option<Target> {
        self.slot(token)?.1.target.clone()
    }

    /// Returns the targets of up to `count` slots from `first` on, and the next slot, which wraps around.
    pub(super) fn some(&self, first: usize, count: usize) -> (impl Iterator<Item = Target> + '_, usize) {
        let first = if first < self.slots.len() { first } else { 0 };
        let end = self.slots.len().min(first + count);
        (self.slots[first..end].iter().filter_map(|slot| slot.target.clone()), end)
    }

    /// Replaces the current target, and returns it.
    pub(super) fn replace(&mut self, token: Token, target: Target) -> Option<Target> {
        self.slot(token)?.1.target.replace(target)
    }

    /// Frees the slot, and returns its target.
    pub(super) fn remove(&mut self, token: Token) -> Option<Target> {
        let (index, slot) = self.slot(token)?;
        let target = slot.target.take();
        // The highest generation could make a token that is not below `SLOT_TOKENS`.
        slot.generation = (slot.generation + 1) % ((1 << SLOT_BITS) - 1);
        self.free.push(index);
        target
    }
}
