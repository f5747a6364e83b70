//! Prevents: RCVE-18, RCVE-20

use wsk::RetainedData;

fn twice(retained: RetainedData) {
    let again = retained.clone();
    drop(retained);
    drop(again);
}

fn main() {}
