//! Prevents: OPT-05

use wsk::{AbortHandler, InspectHandler, Listener};

fn late(listener: Listener, gate: impl InspectHandler + AbortHandler) {
    let _ = listener.conditional(gate);
}

fn main() {}
