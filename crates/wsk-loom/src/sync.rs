//! Signals and the reaper's queue; and `wsk::sync` made of loom's.

/// Loom's counterpart of `wsk::sync::atomic`.
pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering};

    pub(crate) use crate::shims::AtomicWaker;
}
#[path = "../../../src/sync/signal.rs"]
mod signal;
#[path = "../../../src/sync/stack.rs"]
mod stack;
#[path = "../../../src/sync/state.rs"]
mod state;

pub(crate) use crate::shims::{EventCell, EventKind, SpinGuard, SpinLock};
pub(crate) use signal::Signal;
pub(crate) use stack::{Link, Linked, Stack};
pub(crate) use state::{AtomicState, State, states};

use core::ptr::NonNull;

use loom::sync::Arc;
use loom::thread;

use crate::shims::{Guarded, await_true, every_order, look, orders};

/// A task that waits for a signal is woken, and sees the writes before it.
#[test]
fn a_signal_wakes_and_publishes() {
    every_order(|| {
        let shared = Arc::new((Signal::new(), Guarded::new()));
        let giver = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.1.change();
                shared.0.give();
            })
        };
        await_true(|context| shared.0.poll(context));
        assert_eq!(shared.1.look(), 1);
        giver.join().unwrap();
    });
}

/// A poll of a signal sees the writes before it, without waiting.
#[test]
fn a_signal_that_is_seen_publishes() {
    every_order(|| {
        let shared = Arc::new((Signal::new(), Guarded::new()));
        let giver = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.1.change();
                shared.0.give();
            })
        };
        if look(|context| shared.0.poll(context)) {
            assert_eq!(shared.1.look(), 1);
        }
        giver.join().unwrap();
        assert!(shared.0.is_given());
    });
}

/// An element of a stack, with memory of its own.
#[repr(C)]
struct Element {
    link: Link,
    memory: Guarded,
    number: u32,
}

struct Owned(Box<Element>);

// SAFETY: the link is the first field of the element, which does not move while the stack has it.
unsafe impl Linked for Owned {
    fn into_link(self) -> NonNull<Link> {
        NonNull::from(Box::leak(self.0)).cast()
    }

    unsafe fn from_link(link: NonNull<Link>) -> Self {
        // SAFETY: `into_link` leaked this box, and the caller takes it back once.
        Self(unsafe { Box::from_raw(link.cast::<Element>().as_ptr()) })
    }
}

fn element(number: u32) -> Owned {
    let element = Owned(Box::new(Element { link: Link::new(), memory: Guarded::new(), number }));
    element.0.memory.change();
    element
}

/// The result of `push` is enough to keep the consumer from sleeping while the stack is not empty. The
/// elements of each thread come out in order, once, with the writes before their push.
#[test]
fn the_reaper_misses_no_job() {
    orders(3, || {
        let shared = Arc::new((Stack::<Owned>::new(), EventCell::uninitialized()));
        let push = |numbers: core::ops::Range<u32>| {
            let shared = shared.clone();
            move || {
                for number in numbers {
                    if shared.0.push(element(number)) {
                        shared.1.give();
                    }
                }
            }
        };
        let one = thread::spawn(push(0..2));
        let other = thread::spawn(push(2..3));
        let mut taken = Vec::new();
        while taken.len() < 3 {
            shared.1.take();
            for element in shared.0.take_all() {
                element.0.memory.change();
                taken.push(element.0.number);
            }
        }
        let firsts: Vec<_> = taken.iter().copied().filter(|number| *number < 2).collect();
        assert_eq!(firsts, [0, 1]);
        assert!(taken.contains(&2));
        one.join().unwrap();
        other.join().unwrap();
    });
}
