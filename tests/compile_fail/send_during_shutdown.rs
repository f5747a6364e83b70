//! Prevents: SND-15

use wsk::{Buffer, SendHalf};

fn send(mut half: SendHalf, late: Buffer) {
    let shutdown = half.shutdown();
    drop(half.send(late));
    drop(shutdown);
}

fn main() {}
