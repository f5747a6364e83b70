//! Prevents: EVT-56, IRQL-13

use wsk::{Indication, Passive, ReceiveHandler, Received};

struct Waits(Passive<'static>);

impl ReceiveHandler for Waits {
    fn receive<'a>(&self, data: Indication<'a>) -> Received<'a> {
        data.accept()
    }
}

fn main() {}
