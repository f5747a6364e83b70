//! Prevents: IRQL-13, IRQL-06, IRQL-07

fn claim() -> wsk::Passive<'static> {
    wsk::Passive::assume()
}

fn main() {}
