//! Prevents: DISC-23

use wsk::{Buffer, Connection};

fn abort(connection: &Connection, last: Buffer) {
    drop(connection.abort(last));
}

fn main() {}
