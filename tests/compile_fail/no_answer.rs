//! Prevents: INSP-10, INSP-28, INSP-29

use wsk::{AbortHandler, Decision, InspectHandler, InspectId, Inspection};

/// There is no way to an answer but through the request.
struct Silent;

impl InspectHandler for Silent {
    fn inspect<'a>(&self, _request: Inspection<'a>) -> Decision<'a> {
        Default::default()
    }
}

impl AbortHandler for Silent {
    fn abort(&self, _id: InspectId) {}
}

fn main() {}
