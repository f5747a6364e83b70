//! The cell of an operation: the owner of the request in every order of events.

#[path = "../../../src/operation/cell.rs"]
mod cell;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use self::cell::{Abandoned, Cell, End};
use crate::shims::{Guarded, await_true, every_order, look};

/// An operation: its cell, the request, and how often its result was taken care of.
struct Operation {
    cell: Cell,
    request: Guarded,
    taken: AtomicUsize,
}

impl Operation {
    fn new() -> Arc<Self> {
        Arc::new(Self { cell: Cell::new(), request: Guarded::new(), taken: AtomicUsize::new(0) })
    }

    fn take(&self) {
        self.request.change();
        self.taken.fetch_add(1, Ordering::Relaxed);
    }
}

/// Submits the operation; WSK completes it on another thread.
fn submit(operation: &Arc<Operation>) -> thread::JoinHandle<()> {
    operation.request.change();
    operation.cell.submit();
    let operation = operation.clone();
    thread::spawn(move || {
        // `Request::completed`.
        operation.request.change();
        if operation.cell.complete() {
            operation.take();
        }
    })
}

/// The future is woken, and then owns the request.
#[test]
fn an_operation_that_completes_wakes_its_future() {
    every_order(|| {
        let operation = Operation::new();
        let wsk = submit(&operation);
        await_true(|context| {
            let end = operation.cell.poll(context);
            assert!(matches!(end, None | Some(End::Completed)));
            end.is_some()
        });
        operation.take();
        wsk.join().unwrap();
        assert_eq!(operation.taken.load(Ordering::Relaxed), 1);
    });
}

/// A dropped future and the completion, in any order: exactly one of them owns the result.
#[test]
fn an_abandoned_operation_has_one_owner() {
    every_order(|| {
        let operation = Operation::new();
        let wsk = submit(&operation);
        if look(|context| operation.cell.poll(context)).is_some() {
            operation.take();
        } else {
            match operation.cell.abandon() {
                Abandoned::Submitted => {}
                Abandoned::Ended(End::Completed) => operation.take(),
                other => panic!("{other:?}"),
            }
        }
        wsk.join().unwrap();
        assert_eq!(operation.taken.load(Ordering::Relaxed), 1);
        operation.request.change();
    });
}

/// An operation that was not submitted completes at once, as refused, whether or not it is polled.
#[test]
fn a_refused_operation_is_told_from_a_completed_one() {
    every_order(|| {
        for polled in [false, true] {
            let cell = Cell::new();
            assert_eq!(cell.abandon(), Abandoned::Idle);
            cell.submit();
            cell.refuse();
            if polled {
                assert_eq!(look(|context| cell.poll(context)), Some(End::Refused));
            }
            assert_eq!(cell.abandon(), Abandoned::Ended(End::Refused));
        }
    });
}
