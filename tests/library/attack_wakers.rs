//! Wakers are code of the user's: no lock of the library is held when they are called.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};

use wsk::{Client, CloseReason};
use wsk_sim::Sim;

use crate::support::*;

/// Keeps the reaper, which calls it, until the test has its client back.
#[derive(Default)]
struct Holds(AtomicBool);

impl Wake for Holds {
    fn wake(self: Arc<Self>) {
        eventually(|| self.0.load(Ordering::SeqCst));
    }
}

/// Asks the client how many sockets are open.
#[derive(Default)]
struct Asks {
    client: OnceLock<Client>,
    woken: AtomicUsize,
}

impl Wake for Asks {
    fn wake(self: Arc<Self>) {
        let client = self.client.get().expect("the test has its client back");
        assert!(client.open_sockets() <= 3);
        self.woken.fetch_add(1, Ordering::SeqCst);
    }
}

/// An unloading client closes its sockets, and whoever waits for that is woken; it may ask the client then.
#[test]
fn who_is_woken_by_the_unloading_may_ask_the_client() {
    Sim::new().run(|_| {
        let driver = Driver::start();
        let listeners: Vec<_> = (0..3).map(|_| driver.listen()).collect();
        let (holds, asks) = (Arc::new(Holds::default()), Arc::new(Asks::default()));
        // What pauses is woken first, when the client stops.
        let mut pause = Box::pin(driver.provider.pause());
        let waker = Waker::from(Arc::clone(&holds));
        assert!(pause.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let mut closed: Vec<_> = listeners.iter().map(|listener| Box::pin(listener.closed())).collect();
        for closed in &mut closed {
            let waker = Waker::from(Arc::clone(&asks));
            assert!(closed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        drop(driver.provider);
        let held = driver.client.unload(passive(), std::time::Duration::ZERO).unwrap_err();
        assert!(asks.client.set(held.into_inner()).is_ok());
        holds.0.store(true, Ordering::SeqCst);
        eventually(|| asks.woken.load(Ordering::SeqCst) >= 3);
        for closed in &mut closed {
            assert_eq!(ready(closed), CloseReason::Local);
        }
        drop((closed, pause, listeners));
        let client = Arc::into_inner(asks).and_then(|asks| asks.client.into_inner()).expect("the last owner");
        client.unload(passive(), BOUND).expect("unloading");
    });
}
