use wsk::{AbortHandler, InspectId, Provider};

struct Forgets;

impl AbortHandler for Forgets {
    fn abort(&self, _id: InspectId) {}
}

fn listen(provider: &Provider) {
    let _ = provider.listener().on_abort(Forgets);
}

fn main() {}
