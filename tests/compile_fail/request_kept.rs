//! Prevents: INSP-19, INSP-23, LIFE-13

use wsk::{AbortHandler, Decision, InspectHandler, InspectId, Inspection};

/// Hands the request itself to another thread, beyond the callback.
struct Keeps(std::sync::mpsc::SyncSender<Inspection<'static>>);

impl InspectHandler for Keeps {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        let (decision, _token) = request.pend().unwrap_or_else(|(_, request)| {
            self.0.send(request).unwrap();
            unreachable!()
        });
        decision
    }
}

impl AbortHandler for Keeps {
    fn abort(&self, _id: InspectId) {}
}

fn main() {}
