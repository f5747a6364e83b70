//! Prevents: CLOSE-12, CLOSE-13

use wsk::{Buffer, Connection};

fn close(mut connection: Connection, buffer: Buffer) {
    let closed = connection.close();
    drop(connection.send(buffer));
    drop(connection.close());
    drop(closed);
}

fn main() {}
