//! Accepting by IRP: every point at which the future can be dropped, and every way in which it can end.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use wsk::{Connection, Error, Listener, Result, Status};
use wsk_sim::Sim;
use wsk_sim::raw::{End, Peer};

use crate::support::*;

/// Every parameter that the contract binds the client to is made by the library; the checker looks at each of
/// them.
///
/// Prevents: LSN-09, LSN-10, LSN-12, LSN-13, LSN-14, LSN-15, LSN-18, LSN-19, LSN-20, LSN-34
/// Prevents: IRP-01, IRP-02, IRP-03, IRP-04, IRP-05, IRP-12, IRP-18, IRP-23, IRP-24, IRP-26, SOCK-03
/// Prevents: SOCK-06, SOCK-07, LIFE-07, BIND-12
#[test]
fn a_connection_is_taken_in_every_mode() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer) = connected(&listener);
        assert_eq!(connection.local_addr(), listener.local_addr());
        wait(connection.close());
        peer.expect_reset();
        wait(listener.close());
        driver.unload();
    });
}

/// The address buffers are large enough for either family, and what comes out is of the family.
///
/// Prevents: LSN-19, BIND-12, LIFE-06, LIFE-07, SOCK-11
#[test]
fn both_families_are_served() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        Sim::new().run(move |_| {
            let driver = Driver::start();
            let listener = wait(driver.provider.listener().bind(address.parse().unwrap())).unwrap();
            let (connection, peer) = connected(&listener);
            assert_eq!(connection.peer_addr(), peer.local());
            assert_eq!(connection.local_addr(), listener.local_addr());
            drop((connection, listener));
            peer.expect_reset();
            driver.unload();
        });
    }
}

/// An accept that is dropped while it waits takes nothing with it: the connection that comes later is there
/// for the next one.
///
/// Prevents: IRP-06, IRP-10, IRP-16
#[test]
fn an_accept_dropped_while_it_waits_leaves_the_connection_to_the_next() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        drop(listener.accept());
        let mut dropped = Box::pin(listener.accept());
        assert!(poll(&mut dropped).is_pending());
        drop(dropped);
        let (connection, peer) = connected(&listener);
        drop(connection);
        peer.expect_reset();
        driver.await_sockets(1);
        drop(listener);
        driver.unload();
    });
}

/// An accept whose connection came before it was dropped, unseen, has a socket to close.
///
/// Prevents: LSN-27, LSN-31, LSN-34, CLOSE-12
#[test]
fn a_connection_that_came_for_a_dropped_accept_is_closed() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let mut accept = Box::pin(listener.accept());
        assert!(poll(&mut accept).is_pending());
        let peer = Peer::connect(listener.local_addr());
        driver.await_sockets(2);
        drop(accept);
        peer.expect_reset();
        driver.await_sockets(1);
        drop(listener);
        driver.unload();
    });
}

/// The cancellation and the connection meet at every possible distance: either the accept was cancelled, and
/// the next one gets the connection, or it won, and its socket is closed.
///
/// Prevents: LSN-31, LSN-34, IRP-10, IRP-16
#[test]
fn a_cancelled_accept_that_wins_closes_its_connection() {
    for completion in COMPLETIONS {
        Sim::builder().completion(completion).build().run(|_| {
            let driver = Driver::start();
            let listener = driver.listen();
            for round in 0..40_u32 {
                let mut accept = Box::pin(listener.accept());
                assert!(poll(&mut accept).is_pending());
                let address = listener.local_addr();
                let peer = std::thread::spawn(move || Peer::connect(address));
                for _ in 0..round * 40 {
                    std::hint::spin_loop();
                }
                drop(accept);
                let peer = peer.join().unwrap();
                // Whichever it was: nobody holds the connection any more, or another accept gets it. On a
                // busy machine two connections can be delivered by two threads, so it may come behind one
                // that was made later.
                let marker = Peer::connect(listener.local_addr());
                let mut next = Box::pin(listener.accept());
                let (mut marked, mut end) = (false, None);
                eventually(|| {
                    if let Poll::Ready(connection) = poll(&mut next) {
                        marked |= connection.unwrap().peer_addr() == marker.local();
                        next = Box::pin(listener.accept());
                    }
                    end = end.take().or_else(|| peer.ended());
                    marked && end.is_some()
                });
                assert_eq!(end, Some(End::Reset));
            }
            drop(listener);
            driver.unload();
        });
    }
}

/// Several accepts are under way, and those that were dropped are passed over.
#[test]
fn accepts_are_served_in_order_without_those_that_were_dropped() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let mut accepts: Vec<_> = (0..4).map(|_| Box::pin(listener.accept())).collect();
        for accept in &mut accepts {
            assert!(poll(accept).is_pending());
        }
        drop(accepts.remove(2));
        drop(accepts.remove(0));
        for accept in accepts {
            let peer = Peer::connect(listener.local_addr());
            let connection = wait(accept).unwrap();
            assert_eq!(connection.peer_addr(), peer.local());
        }
        drop(listener);
        driver.unload();
    });
}

/// After it has given its result, an accept is good for nothing, and harmless.
#[test]
fn an_accept_polled_after_its_result_stays_pending() {
    Sim::new().run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let _peer = Peer::connect(listener.local_addr());
        let mut accept = Box::pin(listener.accept());
        let connection = wait(accept.as_mut()).unwrap();
        assert!(poll(&mut accept).is_pending());
        drop((accept, connection, listener));
        driver.unload();
    });
}

/// An accept that is over, but that nobody has looked at, is no reason to wait: its connection is known and
/// closed.
///
/// Prevents: REG-27, LSN-34, LIFE-05
#[test]
fn an_accept_that_nobody_polls_does_not_hold_up_the_unloading() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let mut won = Box::pin(listener.accept());
        assert!(poll(&mut won).is_pending());
        let peer = Peer::connect(listener.local_addr());
        driver.await_sockets(2);
        let mut waits = Box::pin(listener.accept());
        assert!(poll(&mut waits).is_pending());
        driver.unload();
        peer.expect_reset();
        let connection = ready(&mut won).unwrap();
        assert!(!connection.is_open());
        assert!(ready(&mut waits).is_err());
    });
}

/// Accepts may outlive their listener, and say that it is gone.
///
/// Prevents: CLOSE-13, LIFE-05
#[test]
fn an_accept_outlives_its_listener() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let mut pending = Box::pin(listener.accept());
        assert!(poll(&mut pending).is_pending());
        let mut later = Box::pin(listener.accept());
        wait(listener.close());
        let error = ready(&mut pending).unwrap_err();
        assert!(error.is_cancelled(), "{error}");
        let error = ready(&mut later).unwrap_err();
        assert!(error.is_socket_dead(), "{error}");
        driver.unload();
    });
}

/// A listener that has lost its transport closes itself, whoever is told first: an accept under way, a new
/// one, or one that was dropped.
///
/// Prevents: LSN-07, LIFE-17
#[test]
fn a_dead_listener_closes_itself() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        for dropped in [false, true] {
            let listener = driver.listen();
            let mut accept = Box::pin(listener.accept());
            assert!(poll(&mut accept).is_pending());
            kill_the_listener(sim);
            if dropped {
                drop(accept);
            } else {
                assert!(wait(accept).unwrap_err().is_socket_dead());
            }
            driver.await_sockets(0);
            assert!(!listener.is_open());
            assert!(wait(listener.accept()).unwrap_err().is_socket_dead());
        }
        let listener = driver.listen();
        kill_the_listener(sim);
        assert!(listener.is_open());
        let error: Error = wait(listener.accept()).unwrap_err();
        assert_eq!(error.status(), Status::FILE_FORCED_CLOSED);
        driver.await_sockets(0);
        drop(listener);
        driver.unload();
    });
}

fn kill_the_listener(sim: &Sim) {
    let sockets = sim.provider().open_sockets();
    assert_eq!(sockets.len(), 1);
    assert!(sim.provider().kill(sockets[0].address as *mut _));
}

/// Asking, looking and dropping are all allowed at `DISPATCH_LEVEL`.
///
/// Prevents: IRQL-04, IRQL-14
#[test]
fn accepting_works_at_dispatch_level() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        at_dispatch(|| {
            let mut dropped = Box::pin(listener.accept());
            assert!(poll(&mut dropped).is_pending());
        });
        let mut accept = at_dispatch(|| {
            let mut accept = Box::pin(listener.accept());
            assert!(poll(&mut accept).is_pending());
            accept
        });
        let peer = Peer::connect(listener.local_addr());
        driver.await_sockets(2);
        let connection = at_dispatch(|| ready(&mut accept)).unwrap();
        at_dispatch(|| drop((connection, accept, listener)));
        peer.expect_reset();
        driver.unload();
    });
}

/// A waker that drops the very future it is to wake, inside the completion routine.
struct DropsTheFuture(Mutex<Option<Accepting>>);

type Accepting = Pin<Box<dyn Future<Output = Result<Connection>> + Send>>;

impl Wake for DropsTheFuture {
    fn wake(self: Arc<Self>) {
        let future = self.0.lock().unwrap().take();
        drop(future);
    }
}

/// A waker may be anybody's, and do what it likes: here it drops the future that is being completed.
///
/// Prevents: IRP-10, IRP-14, LSN-31
#[test]
fn a_waker_may_drop_the_accept_inside_the_completion_routine() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let waker = Arc::new(DropsTheFuture(Mutex::new(None)));
        let mut accept: Accepting = Box::pin(listener.accept());
        let woken = Waker::from(Arc::clone(&waker));
        assert!(accept.as_mut().poll(&mut Context::from_waker(&woken)).is_pending());
        *waker.0.lock().unwrap() = Some(accept);
        let peer = Peer::connect(listener.local_addr());
        peer.expect_reset();
        driver.await_sockets(1);
        assert!(waker.0.lock().unwrap().is_none());
        drop((woken, listener));
        driver.unload();
    });
}

/// Listeners are dropped while connections arrive and are taken: whatever was taken works on, the rest is
/// reset.
///
/// Prevents: LSN-34, CLOSE-01
#[test]
fn a_listener_may_be_dropped_while_connections_arrive() {
    for completion in COMPLETIONS {
        Sim::builder().completion(completion).build().run(|sim| {
            let driver = Driver::start();
            for _ in 0..10 {
                let listener = Arc::new(driver.listen());
                let address = listener.local_addr();
                let peers = std::thread::spawn(move || {
                    (0..8).filter_map(|_| Peer::try_connect(address).ok()).collect::<Vec<_>>()
                });
                let accepter = sim.thread("accepter", {
                    let listener = Arc::clone(&listener);
                    move || accept_until_it_ends(&listener)
                });
                std::thread::yield_now();
                // The last reference is the accepter's; it ends when the transport does.
                kill(sim, &listener);
                drop(listener);
                for connection in accepter.join().unwrap() {
                    assert!(connection.is_open());
                }
                drop(peers.join().unwrap());
                driver.await_sockets(0);
            }
            driver.unload();
        });
    }
}

/// Takes the listener's transport away, unless it is closed already.
fn kill(sim: &Sim, listener: &Listener) {
    eventually(|| {
        for socket in sim.provider().open_sockets() {
            if socket.description.starts_with("Listen") {
                sim.provider().kill(socket.address as *mut _);
            }
        }
        !listener.is_open()
    });
}

fn accept_until_it_ends(listener: &Listener) -> Vec<Connection> {
    let mut taken = Vec::new();
    while let Ok(connection) = wait(listener.accept()) {
        taken.push(connection);
    }
    taken
}
