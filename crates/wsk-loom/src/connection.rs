//! Connections: the turn to receive, the sends before a disconnect, and retained data.

#[path = "../../../src/connection/indicated.rs"]
mod indicated;
#[path = "../../../src/connection/turn.rs"]
mod turn;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use self::indicated::Indicated;
use self::turn::{Admission, Turn};
use crate::shims::{Guarded, await_true, every_order, look, orders};

/// A connection as receives see it: the turn, and the stream, which belongs to the one that has the turn.
struct Receives {
    turn: Turn,
    stream: Guarded,
}

/// A receive was submitted and its future dropped; WSK ends it on another thread.
fn abandoned() -> (Arc<Receives>, thread::JoinHandle<()>) {
    let receives = Arc::new(Receives { turn: Turn::new(), stream: Guarded::new() });
    assert_eq!(receives.turn.take(), Admission::Mine);
    receives.turn.abandon();
    let of_wsk = receives.clone();
    let wsk = thread::spawn(move || {
        // What it received is kept, in front of what the next one receives.
        of_wsk.stream.change();
        of_wsk.turn.end_abandoned();
    });
    (receives, wsk)
}

impl Receives {
    /// Checks at the end that the turn is free.
    fn assert_free(&self) {
        assert_eq!(
            self.turn.take(),
            Admission::Mine,
            "the turn is lost: no receive has it, and no new one gets it"
        );
        self.stream.change();
        self.turn.give();
    }

    /// Receives if the turn is free at once, or gives up.
    fn try_once(&self) {
        match self.turn.take() {
            Admission::Busy => {}
            Admission::Mine => {
                self.stream.change();
                self.turn.give();
            }
            Admission::Claimed => {
                if look(|context| self.turn.has_come(context)) {
                    self.stream.change();
                    self.turn.give();
                } else {
                    self.turn.give_up_claim();
                }
            }
        }
    }
}

/// A claim that is given up around the end of the abandoned receive: the turn is not lost.
#[test]
fn a_claim_given_up_at_the_end_of_the_abandoned_receive() {
    every_order(|| {
        let (receives, wsk) = abandoned();
        receives.try_once();
        wsk.join().unwrap();
        receives.assert_free();
    });
}

/// The same with two claims, the second one made after the first was given up.
#[test]
fn claims_given_up_by_two_threads() {
    orders(4, || {
        let (receives, wsk) = abandoned();
        let other = {
            let receives = receives.clone();
            thread::spawn(move || receives.try_once())
        };
        receives.try_once();
        other.join().unwrap();
        wsk.join().unwrap();
        receives.assert_free();
    });
}

/// A receive that waits for an abandoned one has its turn, is woken, and sees what was kept; no other receive
/// gets in between.
#[test]
fn a_claim_is_woken_when_its_turn_has_come() {
    every_order(|| {
        let (receives, wsk) = abandoned();
        match receives.turn.take() {
            Admission::Mine => {}
            Admission::Claimed => await_true(|context| receives.turn.has_come(context)),
            Admission::Busy => panic!("nobody else receives"),
        }
        assert_eq!(receives.stream.look(), 1, "the kept bytes come first");
        receives.stream.change();
        receives.turn.give();
        wsk.join().unwrap();
        receives.assert_free();
    });
}

/// A receive that waits while another one claims and gives up before it: the late wake-up of the first does
/// no harm.
#[test]
fn a_claim_after_a_claim_given_up_is_woken() {
    orders(4, || {
        let (receives, wsk) = abandoned();
        let other = {
            let receives = receives.clone();
            thread::spawn(move || receives.try_once())
        };
        let turn = &receives.turn;
        match turn.take() {
            Admission::Mine => turn.give(),
            Admission::Claimed => {
                await_true(|context| turn.has_come(context));
                receives.stream.change();
                turn.give();
            }
            Admission::Busy => {}
        }
        other.join().unwrap();
        wsk.join().unwrap();
        receives.assert_free();
    });
}

/// A receive that is abandoned when the turn came by a claim: the next claim waits for its end, too.
#[test]
fn an_abandoned_receive_after_an_abandoned_one() {
    every_order(|| {
        let (receives, wsk) = abandoned();
        if receives.turn.take() == Admission::Claimed {
            await_true(|context| receives.turn.has_come(context));
        }
        receives.turn.abandon();
        assert_eq!(receives.turn.take(), Admission::Claimed);
        receives.turn.give_up_claim();
        receives.turn.end_abandoned();
        wsk.join().unwrap();
        receives.assert_free();
    });
}

/// Data that is retained, and released before or after the callback's return: either the callback accepts it,
/// or it is released with a call later, never both or neither.
#[test]
fn retained_data_is_given_back_once() {
    every_order(|| {
        let shared = Arc::new((Indicated::new(), Guarded::new(), AtomicUsize::new(0)));
        // Any addresses: they are not dereferenced.
        let list: *mut u8 = core::ptr::dangling_mut();
        shared.0.begin(list);
        let retained = {
            let shared = shared.clone();
            thread::spawn(move || {
                let list = core::ptr::dangling_mut();
                shared.1.change();
                if !shared.0.end(list) {
                    // `WskRelease`.
                    shared.2.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        if !shared.0.end(list) {
            // The callback says that all was accepted; the memory is WSK's, and what was done with it is
            // done.
            shared.1.change();
            shared.2.fetch_add(1, Ordering::Relaxed);
        }
        retained.join().unwrap();
        assert_eq!(shared.2.load(Ordering::Relaxed), 1);
    });
}
