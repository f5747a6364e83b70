//! Prevents: ACPT-09, LIFE-13

use std::sync::Mutex;
use wsk::Handlers;
use wsk::{AcceptHandler, Incoming};

/// Takes the connection later, after it was refused.
struct Later(Mutex<Vec<Incoming<'static, Handlers>>>);

impl AcceptHandler for Later {
    type Handlers = Handlers;

    fn accept(&self, incoming: Incoming<'_, Handlers>) {
        self.0.lock().unwrap().push(incoming);
    }
}

fn main() {}
