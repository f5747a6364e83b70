//! Prevents: ACPT-06, ACPT-07, LSN-34

use wsk::connection::NoEvents;
use wsk::{AcceptHandler, Incoming};

struct Twice;

impl AcceptHandler for Twice {
    type Events = NoEvents;

    fn accept(&self, incoming: Incoming<'_, NoEvents>) {
        let _ = incoming.accept(NoEvents::new());
        let _ = incoming.accept(NoEvents::new());
    }
}

fn main() {}
