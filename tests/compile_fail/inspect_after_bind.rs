//! Prevents: OPT-05

use wsk::{InspectHandler, Listener};

fn late(listener: Listener, gate: impl InspectHandler) {
    let _ = listener.inspect(gate);
}

fn main() {}
