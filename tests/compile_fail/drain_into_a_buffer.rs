//! Prevents: RCV-08, RCV-09

use wsk::ReceiveFlags;
use wsk::{Buffer, Connection};

fn drain(connection: &mut Connection, buffer: Buffer) {
    drop(connection.drain(buffer));
    let _ = ReceiveFlags::DRAIN | ReceiveFlags::WAIT_ALL;
}

fn main() {}
