//! State machines that several threads move.

use core::fmt;
use core::marker::PhantomData;

use super::atomic::{AtomicU8, Ordering};

/// A state of a machine whose transitions are known; made by [`states!`].
pub(crate) trait State: Copy + PartialEq + fmt::Debug + 'static {
    /// All states; the machine begins in the first.
    #[cfg(test)]
    const ALL: &'static [Self];

    /// The state with this number.
    fn from_raw(raw: u8) -> Self;

    /// The number of the state.
    fn raw(self) -> u8;

    /// Returns whether the machine has a transition from this state to `next`.
    fn leads_to(self, next: Self) -> bool;
}

/// Declares a state machine: an enum, and for each state the ones that it leads to.
macro_rules! states {
    (
        $(#[$about:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$doc:meta])* $state:ident => [$($next:ident),*],)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        $visibility enum $name {
            $($(#[$doc])* $state,)+
        }

        impl $crate::sync::State for $name {
            #[cfg(test)]
            const ALL: &'static [Self] = &[$(Self::$state),+];

            #[inline]
            fn from_raw(raw: u8) -> Self {
                $(if raw == Self::$state as u8 {
                    return Self::$state;
                })+
                // No other number is ever stored.
                debug_assert!(false, "no such state");
                [$(Self::$state),+][0]
            }

            #[inline]
            fn raw(self) -> u8 {
                self as u8
            }

            #[inline]
            fn leads_to(self, next: Self) -> bool {
                match self {
                    $(Self::$state => false $(|| next == Self::$next)*,)+
                }
            }
        }
    };
}
pub(crate) use states;

/// The state of a machine that several threads move, each along a transition that the machine has.
///
/// Every move releases what its thread did before, and every look acquires it.
pub(crate) struct AtomicState<S> {
    raw: AtomicU8,
    _state: PhantomData<S>,
}

impl<S: State> AtomicState<S> {
    /// A machine in its first state.
    pub(crate) fn new(first: S) -> Self {
        Self { raw: AtomicU8::new(first.raw()), _state: PhantomData }
    }

    /// The state at some moment.
    #[inline]
    pub(crate) fn get(&self) -> S {
        S::from_raw(self.raw.load(Ordering::Acquire))
    }

    /// Moves on from `from`, if that is the state; else says which one is.
    #[inline]
    pub(crate) fn step(&self, from: S, to: S) -> Result<(), S> {
        debug_assert!(from.leads_to(to), "{from:?} does not lead to {to:?}");
        let moved = self.raw.compare_exchange(from.raw(), to.raw(), Ordering::AcqRel, Ordering::Acquire);
        moved.map(drop).map_err(S::from_raw)
    }

    /// Moves on from `from`, which is the state, and which no other thread may leave.
    #[inline]
    pub(crate) fn leave(&self, from: S, to: S) {
        debug_assert!(from.leads_to(to), "{from:?} does not lead to {to:?}");
        debug_assert_eq!(self.get(), from, "only its owner leaves a state");
        self.raw.store(to.raw(), Ordering::Release);
    }

    /// Moves on from whatever is the state, which is returned; each that it can be leads to `to`.
    #[inline]
    pub(crate) fn replace(&self, to: S) -> S {
        let before = S::from_raw(self.raw.swap(to.raw(), Ordering::AcqRel));
        debug_assert!(before.leads_to(to), "{before:?} does not lead to {to:?}");
        before
    }
}
