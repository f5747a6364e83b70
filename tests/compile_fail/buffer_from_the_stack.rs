//! Prevents: LIFE-09, SND-09, LSN-18

use wsk::Connection;

fn send(connection: &Connection) {
    let bytes = [0_u8; 16];
    drop(connection.send(&bytes));
}

fn main() {}
