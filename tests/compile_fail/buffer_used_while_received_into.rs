//! Prevents: LIFE-09

use wsk::{Buffer, Connection};

fn receive(connection: &mut Connection, mut buffer: Buffer) {
    let receive = connection.receive(buffer);
    buffer.clear();
    drop(receive);
}

fn main() {}
