//! Which sink an event of the host belongs to.

use std::sync::Arc;

use mio::Token;

use super::listener::Acceptor;
use crate::transport::ReadySink;

/// Half of a token is the slot, the other half tells one user of the slot from the next.
const SLOT_BITS: u32 = usize::BITS / 2;
/// Tokens of slots are below this number.
pub(super) const SLOT_TOKENS: usize = usize::MAX;

/// Whom to tell about a socket.
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

    /// Whom an event with `token` belongs to.
    pub(super) fn target(&mut self, token: Token) -> Option<Target> {
        self.slot(token)?.1.target.clone()
    }

    /// The targets of up to `count` slots from `first` on, and the slot that comes next: the first again
    /// behind the last.
    pub(super) fn some(&self, first: usize, count: usize) -> (impl Iterator<Item = Target> + '_, usize) {
        let first = if first < self.slots.len() { first } else { 0 };
        let end = self.slots.len().min(first + count);
        (self.slots[first..end].iter().filter_map(|slot| slot.target.clone()), end)
    }

    /// Puts another target in the place of the present one, which is the result.
    pub(super) fn replace(&mut self, token: Token, target: Target) -> Option<Target> {
        self.slot(token)?.1.target.replace(target)
    }

    /// Gives the slot up; the result is its target.
    pub(super) fn remove(&mut self, token: Token) -> Option<Target> {
        let (index, slot) = self.slot(token)?;
        let target = slot.target.take();
        // The highest generation could make a token that is not below `SLOT_TOKENS`.
        slot.generation = (slot.generation + 1) % ((1 << SLOT_BITS) - 1);
        self.free.push(index);
        target
    }
}
