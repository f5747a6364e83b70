//! Rundown protection before the close: exactly one thread starts the close, when no call is in progress.

#[path = "../../../src/socket/rundown.rs"]
mod rundown;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use self::rundown::{Duty, Rundown};
use crate::shims::{Guarded, every_order, orders};

struct Socket {
    rundown: Rundown,
    /// Read by calls, written by the creation of the socket and by its close.
    handle: Guarded,
    closes: AtomicUsize,
    /// The number of times that the handlers were notified of the death.
    notified: AtomicUsize,
}

impl Socket {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            rundown: Rundown::new(),
            handle: Guarded::new(),
            closes: AtomicUsize::new(0),
            notified: AtomicUsize::new(0),
        })
    }

    /// Performs the action that a transition has returned.
    fn follow(&self, duty: Duty) {
        if duty == Duty::StartClose {
            self.handle.change();
            self.closes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn attach(&self) {
        self.handle.change();
        self.follow(self.rundown.attach());
    }

    fn call(&self) {
        if self.rundown.acquire() {
            self.handle.look();
            self.follow(self.rundown.release());
        }
    }

    /// Reports that the socket is dead: the first report notifies the handlers and then closes it.
    fn die(&self) {
        let news = self.rundown.die();
        self.follow(self.rundown.begin());
        if news {
            self.handle.look();
            self.notified.fetch_add(1, Ordering::Relaxed);
            self.follow(self.rundown.release());
        }
    }

    fn notified(&self) -> usize {
        self.notified.load(Ordering::Relaxed)
    }

    fn closes(&self) -> usize {
        self.closes.load(Ordering::Relaxed)
    }
}

fn spawn(socket: &Arc<Socket>, act: fn(&Socket)) -> thread::JoinHandle<()> {
    let socket = socket.clone();
    thread::spawn(move || act(&socket))
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Calls and two that close, as a handle that is dropped while the client unloads: one starts the close,
/// after the last call.
#[test]
fn one_starts_the_close_after_the_last_call() {
    orders(3, || {
        let socket = Socket::new();
        socket.attach();
        let threads = [
            spawn(&socket, Socket::call),
            spawn(&socket, |socket| socket.follow(socket.rundown.begin())),
            spawn(&socket, Socket::call),
        ];
        socket.follow(socket.rundown.begin());
        join(threads);
        assert_eq!(socket.closes(), 1);
        assert!(!socket.rundown.acquire() && !socket.rundown.is_open());
    });
}

/// A socket that is created while its request is abandoned is still closed, once.
#[test]
fn a_socket_that_comes_while_it_is_given_up_is_closed() {
    every_order(|| {
        let socket = Socket::new();
        let threads = [spawn(&socket, Socket::attach), spawn(&socket, Socket::call)];
        socket.follow(socket.rundown.begin());
        join(threads);
        assert_eq!(socket.closes(), 1);
    });
}

/// A socket whose request is abandoned and then fails: there is nothing to close.
#[test]
fn a_socket_that_never_comes_is_not_closed() {
    every_order(|| {
        let socket = Socket::new();
        let other = spawn(&socket, |socket| socket.follow(socket.rundown.begin()));
        socket.follow(socket.rundown.begin());
        socket.call();
        join([other]);
        assert_eq!(socket.closes(), 0);
        assert!(!socket.rundown.is_attached());
    });
}

/// A socket that comes by the accept event: the close waits for the callback's return, also if it was asked
/// for before.
#[test]
fn a_socket_of_an_event_is_closed_after_its_callback() {
    every_order(|| {
        let socket = Socket::new();
        let callback = spawn(&socket, |socket| {
            socket.handle.change();
            socket.rundown.attach_and_acquire();
            socket.handle.look();
            socket.follow(socket.rundown.release());
        });
        let caller = spawn(&socket, Socket::call);
        socket.follow(socket.rundown.begin());
        join([callback, caller]);
        assert_eq!(socket.closes(), 1);
    });
}

/// Several reports of the death at once, as from the requests that end with it: the handlers are notified
/// once, before the close begins, which is not requested otherwise.
#[test]
fn a_death_that_is_told_at_several_places_is_news_once() {
    orders(3, || {
        let socket = Socket::new();
        socket.attach();
        let threads = [spawn(&socket, Socket::die), spawn(&socket, Socket::call)];
        socket.die();
        join(threads);
        assert_eq!((socket.notified(), socket.closes()), (1, 1));
        assert!(socket.rundown.is_dead() && !socket.rundown.is_open());
    });
}

/// A death races with a close of this side: it is reported or not, and there is one close in either case.
#[test]
fn a_death_may_meet_the_close() {
    orders(3, || {
        let socket = Socket::new();
        socket.attach();
        let threads = [spawn(&socket, Socket::die), spawn(&socket, Socket::die)];
        socket.follow(socket.rundown.begin());
        join(threads);
        assert!(socket.notified() <= 1);
        assert_eq!(socket.closes(), 1);
    });
}

/// Pieces that keep a socket from closing, and an abort around the release of the last one: the abort is made
/// at most once, and the close starts once, after it.
#[test]
fn an_abort_precedes_the_close() {
    orders(3, || {
        let socket = Socket::new();
        socket.attach();
        assert!(socket.rundown.acquire());
        let aborts = [(); 2].map(|()| {
            spawn(&socket, |socket| {
                socket.follow(socket.rundown.begin());
                if socket.rundown.acquire_for_abort() {
                    socket.handle.look();
                    socket.notified.fetch_add(1, Ordering::Relaxed);
                    socket.follow(socket.rundown.release());
                }
            })
        });
        socket.handle.look();
        socket.follow(socket.rundown.release());
        join(aborts);
        assert_eq!(socket.closes(), 1);
        assert!(socket.notified() <= 1);
    });
}
