//! Prevents: OPT-05

use wsk::Listener;
use wsk::options::ExclusiveAddress;

fn late(listener: &Listener) {
    drop(listener.set(ExclusiveAddress(true)));
}

fn main() {}
