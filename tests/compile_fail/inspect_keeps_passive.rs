//! Prevents: INSP-24, IRQL-13

use wsk::{AbortHandler, Decision, InspectHandler, InspectId, Inspection, Passive};

/// A gate that would wait.
struct Waits<'a>(Passive<'a>);

impl InspectHandler for Waits<'static> {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        wsk::executor::block_on(self.0, async {}).unwrap();
        request.accept()
    }
}

impl AbortHandler for Waits<'static> {
    fn abort(&self, _id: InspectId) {}
}

fn main() {}
