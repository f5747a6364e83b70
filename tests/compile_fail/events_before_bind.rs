//! Prevents: EVT-07

use wsk::{ListenerEvents, Provider};

fn early(provider: &Provider) {
    provider.listener().enable(ListenerEvents::ACCEPT).unwrap();
}

fn main() {}
