//! Prevents: CLOSE-17, SOCK-06, LIFE-13

use wsk::{AbortHandler, Decision, InspectHandler, InspectId, Inspection, Provider};

/// A gate over something of the caller's, which may be gone before the listener is.
struct Borrows<'b>(&'b [u8]);

impl InspectHandler for Borrows<'_> {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        if self.0.is_empty() { request.reject() } else { request.accept() }
    }
}

impl AbortHandler for Borrows<'_> {
    fn abort(&self, _id: InspectId) {}
}

fn listen(provider: &Provider) {
    let local = [1];
    let _ = provider.listener().inspect(Borrows(&local));
}

fn main() {}
