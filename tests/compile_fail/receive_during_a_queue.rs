use wsk::{Buffer, ReceiveHalf, ReceiveQueue, Result};

fn receive(half: &mut ReceiveHalf, buffer: Buffer) -> Result<()> {
    let queue: ReceiveQueue<'_> = half.queue(4, 4096)?;
    let receive = half.receive(buffer);
    drop((queue, receive));
    Ok(())
}

fn main() {}
