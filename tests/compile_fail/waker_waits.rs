//! Prevents: IRP-13, IRQL-13

use std::sync::Arc;
use std::task::{Wake, Waker};
use wsk::Passive;

/// A waker runs inside completion routines.
struct Waits(Passive<'static>);

impl Wake for Waits {
    fn wake(self: Arc<Self>) {}
}

fn waker(passive: Passive<'static>) -> Waker {
    Waker::from(Arc::new(Waits(passive)))
}

fn main() {}
