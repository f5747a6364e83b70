//! Prevents: INSP-10

use wsk::{Decision, Inspection};

fn inspect<'a>(request: Inspection<'a>) -> Decision<'a> {
    let first = request.accept();
    let _second = request.reject();
    first
}

fn main() {}
