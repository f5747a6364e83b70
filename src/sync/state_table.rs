//! The table of a state machine, for tests: all pairs of its states are tried.

extern crate std;

use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use super::{AtomicState, State, states};

/// The transitions of a machine, a line for each state, to be compared with what is meant.
///
/// Each pair of states is tried: a machine in any state makes exactly the steps it has, each only from where
/// it begins, and every state can be reached.
pub(crate) fn table<S: State>() -> String {
    let mut reached = vec![S::ALL[0]];
    let mut lines = Vec::new();
    for &from in S::ALL {
        assert_eq!(S::from_raw(from.raw()), from);
        let next: Vec<_> = S::ALL.iter().copied().filter(|to| from.leads_to(*to)).collect();
        for &to in &next {
            for &current in S::ALL {
                let machine = AtomicState::new(current);
                let stepped = machine.step(from, to);
                assert_eq!(stepped, if current == from { Ok(()) } else { Err(current) });
                assert_eq!(machine.get(), if current == from { to } else { current });
            }
            let machine = AtomicState::new(from);
            assert_eq!(machine.replace(to), from);
            assert_eq!(machine.get(), to);
        }
        lines.push(format!("{from:?} -> {next:?}"));
    }
    // As often as there are states: each round reaches one more, or none is left.
    for _ in S::ALL {
        let next: Vec<_> =
            S::ALL.iter().copied().filter(|to| reached.iter().any(|at| at.leads_to(*to))).collect();
        reached.extend(next);
    }
    for state in S::ALL {
        assert!(reached.contains(state), "{state:?} is never reached");
    }
    lines.join("\n")
}

states! {
    /// A machine to try the table with.
    enum Light {
        /// The first.
        Red => [Green],
        /// The second.
        Green => [Yellow, Red],
        /// The last.
        Yellow => [],
    }
}

#[test]
fn a_table_shows_each_state_and_what_it_leads_to() {
    assert_eq!(table::<Light>(), "Red -> [Green]\nGreen -> [Red, Yellow]\nYellow -> []");
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "Yellow does not lead to Red")]
fn a_step_that_a_machine_does_not_have_is_caught() {
    let _ = AtomicState::new(Light::Yellow).step(Light::Yellow, Light::Red);
}
