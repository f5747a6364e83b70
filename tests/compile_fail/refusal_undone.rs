//! Prevents: ACPT-09, LIFE-13

use std::sync::Mutex;
use wsk::connection::NoEvents;
use wsk::{AcceptHandler, Incoming};

/// Takes the connection later, after it was refused.
struct Later(Mutex<Vec<Incoming<'static, NoEvents>>>);

impl AcceptHandler for Later {
    type Events = NoEvents;

    fn accept(&self, incoming: Incoming<'_, NoEvents>) {
        self.0.lock().unwrap().push(incoming);
    }
}

fn main() {}
