//! Prevents: EVT-07, EVT-08, SOCK-03

use wsk::{Connection, ListenerEvents};

fn switch(connection: &Connection) {
    connection.enable(ListenerEvents::ACCEPT).unwrap();
}

fn main() {}
