//! The stage of a pended request: it is decided once, or aborted, and its token learns which.

#[path = "../../../src/listener/stage.rs"]
mod stage;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use self::stage::{Progress, Stage};
use crate::shims::{Guarded, await_true, every_order, orders};

/// A request: its stage, the IRP, which belongs to the thread that moves it out of `Pended`, and how often
/// WSK was notified of it, by a call or by the result of the callback.
struct Request {
    progress: Progress,
    irp: Guarded,
    notified: AtomicUsize,
    aborted: AtomicUsize,
}

impl Request {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            progress: Progress::new(),
            irp: Guarded::new(),
            notified: AtomicUsize::new(0),
            aborted: AtomicUsize::new(0),
        })
    }

    fn tell(&self) {
        self.notified.fetch_add(1, Ordering::Relaxed);
    }

    /// The callback's last action.
    fn callback_returns(&self) -> bool {
        match self.progress.step(Stage::Asking, Stage::Pended) {
            Ok(()) => true,
            Err(Stage::Accepted | Stage::Rejected | Stage::Aborted) => {
                self.tell();
                false
            }
            Err(Stage::Repeated) => true,
            Err(other) => panic!("the callback has not returned, and finds {other:?}"),
        }
    }

    /// Decides by the token; returns true if that made a call to WSK.
    fn decide(&self) -> bool {
        if self.progress.step(Stage::Asking, Stage::Accepted).is_ok() {
            return false;
        }
        let decided = self.progress.step(Stage::Pended, Stage::Completing).is_ok();
        if decided {
            self.irp.change();
            self.tell();
        }
        decided
    }

    /// Drops the token; returns true if it is left to the reaper.
    fn abandon(&self) -> bool {
        self.progress.step(Stage::Asking, Stage::Rejected).is_err()
            && self.progress.step(Stage::Pended, Stage::Dropped).is_ok()
    }

    /// Rejects the request of a dropped token, as the reaper; returns true if that made a call to WSK.
    fn reap(&self) -> bool {
        let decided = self.progress.step(Stage::Dropped, Stage::Completing).is_ok();
        if decided {
            self.irp.change();
            self.tell();
        }
        decided
    }

    /// The completion routine of `WskInspectComplete`.
    fn completed(&self) {
        self.irp.change();
        let _ = self.progress.step(Stage::Completing, Stage::Completed);
        self.progress.wake();
    }

    /// The peer gives up: an abort comes after the callback's return.
    fn abort(&self) {
        for from in [Stage::Pended, Stage::Dropped] {
            if self.progress.step(from, Stage::Aborted).is_ok() {
                self.aborted.fetch_add(1, Ordering::Relaxed);
                return self.progress.wake();
            }
        }
    }

    /// The listener closes: what is pended is rejected, and what is being asked is answered with reject.
    fn end(&self) {
        if self.progress.step(Stage::Asking, Stage::Aborted).is_err()
            && self.progress.step(Stage::Pended, Stage::Aborted).is_ok()
        {
            self.irp.change();
            self.tell();
        }
        self.progress.wake();
    }

    /// Waits for the outcome of the request.
    fn outcome(&self) -> Stage {
        let mut last = Stage::Asking;
        await_true(|context| {
            last = self.progress.watch(context);
            !matches!(last, Stage::Asking | Stage::Pended | Stage::Dropped | Stage::Completing)
        });
        last
    }
}

fn spawn(request: &Arc<Request>, act: fn(&Request)) -> thread::JoinHandle<()> {
    let request = request.clone();
    thread::spawn(move || act(&request))
}

/// A token that decides while the callback returns: either the callback's answer or a call passes the
/// decision to WSK, never both.
#[test]
fn a_decision_meets_the_callbacks_return() {
    every_order(|| {
        let request = Request::new();
        let callback = spawn(&request, |request| {
            let _ = request.callback_returns();
        });
        if request.decide() {
            request.completed();
        }
        callback.join().unwrap();
        assert_eq!(request.notified.load(Ordering::Relaxed), 1);
        assert!(matches!(request.progress.stage(), Stage::Accepted | Stage::Completed));
    });
}

/// A decision, its completion and an abort: WSK is notified at most once, a waiting task is woken, and sees
/// the IRP's outcome.
#[test]
fn a_decision_meets_an_abort() {
    orders(3, || {
        let request = Request::new();
        assert!(request.callback_returns());
        let aborter = spawn(&request, Request::abort);
        if request.decide() {
            let wsk = spawn(&request, Request::completed);
            if request.outcome() == Stage::Completed {
                assert_eq!(request.irp.look(), 2);
            }
            wsk.join().unwrap();
        }
        aborter.join().unwrap();
        let (notified, aborted) =
            (request.notified.load(Ordering::Relaxed), request.aborted.load(Ordering::Relaxed));
        assert!(
            notified <= 1 && aborted <= 1 && notified + aborted >= 1,
            "notified {notified}, aborted {aborted}"
        );
    });
}

/// A dropped token, the reaper and an abort: WSK is notified at most once, and not of a request that it has
/// aborted.
#[test]
fn a_dropped_token_meets_an_abort() {
    every_order(|| {
        let request = Request::new();
        assert!(request.callback_returns());
        let aborter = spawn(&request, Request::abort);
        let notified = request.abandon() && request.reap();
        if notified {
            request.completed();
        }
        aborter.join().unwrap();
        let (calls, aborted) =
            (request.notified.load(Ordering::Relaxed), request.aborted.load(Ordering::Relaxed));
        assert_eq!((calls, aborted), if notified { (1, 0) } else { (0, 1) });
    });
}

/// A token that waits for the abort, however that comes.
#[test]
fn an_abort_wakes_the_token() {
    every_order(|| {
        let request = Request::new();
        assert!(request.callback_returns());
        let aborter = spawn(&request, Request::abort);
        await_true(|context| request.progress.watch(context) == Stage::Aborted);
        aborter.join().unwrap();
    });
}

/// A closing listener, a callback that returns and a token that decides: WSK is notified exactly once, by one
/// of them.
#[test]
fn the_close_of_the_listener_meets_a_decision() {
    orders(4, || {
        let request = Request::new();
        let callback = spawn(&request, |request| {
            let _ = request.callback_returns();
        });
        let closer = spawn(&request, Request::end);
        let decided = request.decide();
        if decided {
            request.completed();
        }
        callback.join().unwrap();
        closer.join().unwrap();
        let notified = request.notified.load(Ordering::Relaxed);
        // What is still pended when all this is over would never be decided; the library lists it until the
        // close, and lists nothing new after it.
        if request.progress.stage() == Stage::Pended {
            assert_eq!(notified, 0);
            request.end();
        }
        assert_eq!(request.notified.load(Ordering::Relaxed), 1);
    });
}
