//! Prevents: REG-10, EVT-21, REG-27

#![deny(unused_must_use)]

use core::time::Duration;
use wsk::{Client, Connection, Events, Passive};

fn ignores(passive: Passive<'_>, connection: &Connection) -> wsk::Result<()> {
    Client::register(passive);
    let client = Client::register(passive)?;
    client.capture(passive, Duration::ZERO);
    client.unload(passive, Duration::ZERO);
    connection.disable(Events::RECEIVE)?;
    Ok(())
}

fn main() {}
