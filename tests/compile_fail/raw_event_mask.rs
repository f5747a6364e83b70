//! Prevents: EVT-25, EVT-28

use wsk::{Connection, Events};

fn switch(connection: &Connection) {
    connection.enable(0x8000_0040).unwrap();
    connection.enable(Events(0x40)).unwrap();
}

fn main() {}
