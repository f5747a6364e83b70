//! Prevents: INSP-10, LIFE-13

use std::sync::Mutex;
use wsk::{AbortHandler, Decision, InspectHandler, InspectId, Inspection};

/// Keeps the answer to one request for the next one.
struct Swaps(Mutex<Option<Decision<'static>>>);

impl InspectHandler for Swaps {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        let answer = request.accept();
        self.0.lock().unwrap().replace(answer).unwrap()
    }
}

impl AbortHandler for Swaps {
    fn abort(&self, _id: InspectId) {}
}

fn main() {}
