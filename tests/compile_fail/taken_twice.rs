//! Prevents: ACPT-06, ACPT-07, LSN-34

use wsk::Handlers;
use wsk::{AcceptHandler, Incoming};

struct Twice;

impl AcceptHandler for Twice {
    type Handlers = Handlers;

    fn accept(&self, incoming: Incoming<'_, Handlers>) {
        let _ = incoming.accept(Handlers::new());
        let _ = incoming.accept(Handlers::new());
    }
}

fn main() {}
