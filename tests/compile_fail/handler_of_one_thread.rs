//! Prevents: EVT-55

use std::cell::Cell;
use wsk::{DisconnectHandler, DisconnectKind};

/// Callbacks come in any thread.
struct Counts(Cell<u32>);

impl DisconnectHandler for Counts {
    fn disconnected(&self, _kind: DisconnectKind) {
        self.0.set(self.0.get() + 1);
    }
}

fn main() {}
