//! Prevents: LIFE-13, RCVE-20

use std::sync::Mutex;
use wsk::{Indication, ReceiveHandler, Taken};

/// Looks at the data after the callback.
struct Keeps(Mutex<Vec<&'static [u8]>>);

impl ReceiveHandler for Keeps {
    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a> {
        data.for_each(|piece| {
            self.0.lock().unwrap().push(piece);
            true
        })
        .unwrap();
        data.accept()
    }
}

fn main() {}
