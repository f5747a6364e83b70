//! The end of a registration: after the last use, and not later.

#[path = "../../../src/client/uses.rs"]
mod uses;

use loom::sync::Arc;
use loom::thread;

use self::uses::Uses;
use crate::shims::{Guarded, every_order, orders};
use crate::sync::{EventCell, SpinLock};

/// A client: the registration is read by its users, and written by the reaper that ends it.
struct Client {
    uses: Uses,
    registration: Guarded,
    sockets: SpinLock<usize>,
    wake: EventCell,
}

impl Client {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            uses: Uses::new(),
            registration: Guarded::new(),
            sockets: SpinLock::new(0),
            wake: EventCell::uninitialized(),
        })
    }

    fn leave(&self) {
        if self.uses.leave() {
            self.wake.give();
        }
    }

    fn open_sockets(&self) -> usize {
        *self.sockets.lock()
    }

    /// A use that creates a socket, if it is admitted.
    fn make_socket(&self) {
        if self.uses.enter() {
            self.registration.look();
            *self.sockets.lock() += 1;
            self.leave();
        }
    }

    /// The reaper: closes the sockets that it finds, and ends the registration when nothing is left.
    fn reap(&self) {
        loop {
            self.wake.take();
            if self.uses.is_stopping() && self.open_sockets() > 0 {
                // The close completes.
                *self.sockets.lock() -= 1;
                if self.uses.is_stopping() {
                    self.wake.give();
                }
            }
            if self.uses.are_over(|| self.open_sockets()) {
                assert_eq!(self.open_sockets(), 0, "a socket is left, and nobody to close it");
                return self.registration.change();
            }
        }
    }
}

/// A user that arrives while the client stops is admitted and waited for, or refused; the last one wakes the
/// reaper.
#[test]
fn a_use_meets_the_end() {
    every_order(|| {
        let client = Client::new();
        let user = {
            let client = client.clone();
            thread::spawn(move || {
                if client.uses.enter() {
                    client.registration.look();
                    client.leave();
                }
            })
        };
        let reaper = {
            let client = client.clone();
            thread::spawn(move || client.reap())
        };
        client.uses.stop();
        client.wake.give();
        user.join().unwrap();
        reaper.join().unwrap();
        assert_eq!(client.uses.count(), 0);
        assert!(!client.uses.enter());
    });
}

/// A socket that is created while the client stops is closed before the registration ends.
#[test]
fn a_socket_that_is_made_meanwhile_is_closed_first() {
    orders(4, || {
        let client = Client::new();
        let maker = {
            let client = client.clone();
            thread::spawn(move || client.make_socket())
        };
        let reaper = {
            let client = client.clone();
            thread::spawn(move || client.reap())
        };
        client.uses.stop();
        client.wake.give();
        maker.join().unwrap();
        reaper.join().unwrap();
        assert_eq!(client.open_sockets(), 0);
    });
}
