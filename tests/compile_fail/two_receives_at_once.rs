use wsk::{Buffer, Connection};

fn receive(mut connection: Connection, one: Buffer, other: Buffer) {
    let first = connection.receive(one);
    let second = connection.receive(other);
    drop((first, second));
}

fn main() {}
