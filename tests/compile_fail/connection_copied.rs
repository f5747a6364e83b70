//! Prevents: CLOSE-12, LSN-27

use wsk::Connection;

fn copy(connection: &Connection) -> Connection {
    connection.clone()
}

fn main() {}
