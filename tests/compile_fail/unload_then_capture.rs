//! Prevents: REG-02, REG-12, LIFE-03

use core::time::Duration;
use wsk::{Client, Passive};

fn after(client: Client, passive: Passive<'_>) {
    let _ = client.unload(Duration::MAX, passive);
    let _ = client.capture(Duration::ZERO, passive);
    let _ = client.unload(Duration::MAX, passive);
}

fn main() {}
