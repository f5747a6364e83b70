//! Prevents: IRQL-13, IRP-13

use wsk::Passive;
use wsk::executor::Spawner;

fn start(spawner: &Spawner, passive: Passive<'static>) {
    spawner
        .spawn(async move {
            wsk::executor::block_on(passive, async {}).unwrap();
        })
        .unwrap();
}

fn main() {}
