//! Prevents: SOCK-03, SOCK-04, SOCK-07

use wsk::{Buffer, Connection, Listener};

fn mixed(listener: &Listener, connection: &Connection, buffer: Buffer) {
    drop(listener.send(buffer));
    drop(connection.accept());
}

fn main() {}
