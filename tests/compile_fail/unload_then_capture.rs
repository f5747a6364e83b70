//! Prevents: REG-02, REG-12, LIFE-03

use core::time::Duration;
use wsk::{Client, Passive};

fn after(client: Client, passive: Passive<'_>) {
    let _ = client.unload(passive, Duration::MAX);
    let _ = client.capture(passive, Duration::ZERO);
    let _ = client.unload(passive, Duration::MAX);
}

fn main() {}
