//! Prevents: INSP-30

use wsk::{Decision, InspectHandler, Inspection, Provider};

struct Half;

impl InspectHandler for Half {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        request.accept()
    }
}

fn listen(provider: &Provider) {
    let _ = provider.listener().conditional(Half);
}

fn main() {}
