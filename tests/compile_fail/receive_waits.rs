//! Prevents: EVT-56, IRQL-13

use wsk::{Indication, Passive, ReceiveHandler, Taken};

struct Waits(Passive<'static>);

impl ReceiveHandler for Waits {
    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a> {
        data.accept()
    }
}

fn main() {}
