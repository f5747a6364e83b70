//! Values that hang on each other: dropping the first of a long chain ends all of it, one after the other and
//! not one inside the other.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use wsk::{
    AbortHandler, Buffer, Decision, DisconnectHandler, DisconnectKind, Handlers, InspectHandler, InspectId,
    Inspection, Listener,
};
use wsk_sim::raw::Peer;
use wsk_sim::{Completion, Sim};

use crate::support::*;

/// Number of bytes of stack that the end of a chain may take, whatever its length. One link takes a kilobyte
/// or two.
const BOUND: usize = 48 << 10;

/// Places where links were dropped, and how many.
#[derive(Debug, Default)]
struct Depth(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The lowest and the highest address on each thread's stack.
    ranges: HashMap<ThreadId, (usize, usize)>,
    links: usize,
}

impl Depth {
    fn note(&self) {
        let here = 0_u8;
        let here = std::ptr::from_ref(&here).addr();
        let mut seen = self.0.lock().unwrap();
        let range = seen.ranges.entry(std::thread::current().id()).or_insert((here, here));
        *range = (range.0.min(here), range.1.max(here));
        seen.links += 1;
    }

    fn links(&self) -> usize {
        self.0.lock().unwrap().links
    }

    #[track_caller]
    fn check(&self, links: usize) {
        eventually(|| self.links() == links);
        let deepest = self.0.lock().unwrap().ranges.values().map(|(low, high)| high - low).max().unwrap();
        assert!(deepest < BOUND, "{links} links took {deepest} bytes of a stack");
    }
}

/// A handler that owns the next thing of the chain.
struct Link {
    next: Option<Box<dyn Any + Send + Sync>>,
    depth: Arc<Depth>,
}

/// Futures are `Send`; nobody polls them through the link.
struct Owns<T>(Mutex<T>);

impl Link {
    fn new<T: Send + 'static>(next: Option<T>, depth: &Arc<Depth>) -> Self {
        let next = next.map(|next| Box::new(Owns(Mutex::new(next))) as Box<dyn Any + Send + Sync>);
        Self { next, depth: Arc::clone(depth) }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.depth.note();
        drop(self.next.take());
    }
}

impl DisconnectHandler for Link {
    fn disconnected(&self, _kind: DisconnectKind) {}
}

impl InspectHandler for Link {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        request.reject()
    }
}

impl AbortHandler for Link {
    fn abort(&self, _id: InspectId) {}
}

/// Accepts under way, each in the handlers of the connection that the one before it waits for.
fn chain_of_accepts(listener: &Listener, length: usize, depth: &Arc<Depth>) -> Box<dyn Any + Send> {
    let mut first = None;
    for _ in 0..length {
        let handlers = Handlers::new().disconnect(Link::new(first.take(), depth));
        let mut accept = Box::pin(listener.accept_with(handlers));
        assert!(poll(&mut accept).is_pending());
        first = Some(accept);
    }
    Box::new(first)
}

/// Handlers of connections to come that own the next accept are dropped one after the other.
///
/// Prevents: LIFE-17, LSN-31
#[test]
fn accepts_that_hang_on_each_other_end_one_after_the_other() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let depth = Arc::default();
        let chain = chain_of_accepts(&listener, 100, &depth);
        drop(chain);
        depth.check(100);
        // At DISPATCH_LEVEL, and by the close of the listener, as well.
        let depth = Arc::default();
        let chain = chain_of_accepts(&listener, 100, &depth);
        at_dispatch(|| drop(chain));
        depth.check(100);
        let depth = Arc::default();
        let chain = chain_of_accepts(&listener, 100, &depth);
        drop(listener);
        driver.unload();
        drop(chain);
        depth.check(100);
    });
}

/// So many that no stack would do.
///
/// Prevents: LIFE-17
#[test]
fn a_chain_may_have_any_length() {
    const LENGTH: usize = 5000;
    Sim::builder().completion(Completion::Natural).kernel(|kernel| kernel.poison = false).build().run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let depth = Arc::default();
        let chain = chain_of_accepts(&listener, LENGTH, &depth);
        drop(chain);
        depth.check(LENGTH);
        drop(listener);
        driver.unload();
    });
}

/// Handlers of established connections that own a receive of the next connection, all of which close with it.
///
/// Prevents: LIFE-17, CLOSE-17
#[test]
fn connections_that_hang_on_each_other_end_one_after_the_other() {
    const LENGTH: usize = 40;
    for_each_mode(|sim| {
        // There are handlers whose events stay off.
        sim.expect_advice("LSN-15");
        let driver = Driver::start();
        let listener = driver.listen();
        let depth = Arc::default();
        let mut peers = Vec::new();
        let mut first: Option<Box<dyn Any + Send>> = None;
        for _ in 0..LENGTH {
            let accept = listener.accept_with(Handlers::new().disconnect(Link::new(first.take(), &depth)));
            peers.push(Peer::connect(listener.local_addr()));
            let mut receive = receiving(wait(accept).unwrap(), Buffer::try_with_capacity(8).unwrap());
            assert!(poll(&mut receive).is_pending());
            first = Some(Box::new(receive));
        }
        drop(first);
        depth.check(LENGTH);
        driver.await_sockets(1);
        drop((listener, peers));
        driver.unload();
    });
}

/// Gates that own a listener, and binds that were given up with their gates.
///
/// Prevents: LIFE-17, CLOSE-17
#[test]
fn listeners_that_hang_on_each_other_end_one_after_the_other() {
    const LENGTH: usize = 40;
    for_each_mode(|_| {
        let driver = Driver::start();
        for given_up in [false, true] {
            let depth = Arc::default();
            let mut first: Option<Box<dyn Any + Send>> = None;
            for _ in 0..LENGTH {
                let builder = driver.provider.listener().conditional(Link::new(first.take(), &depth));
                let mut bind = Box::pin(builder.bind(localhost()));
                first = Some(if given_up {
                    let _ = poll(&mut bind);
                    Box::new(bind)
                } else {
                    let listener = wait(bind).unwrap();
                    let mut accept = Box::pin(listener.accept());
                    assert!(poll(&mut accept).is_pending());
                    Box::new((accept, listener))
                });
            }
            drop(first);
            depth.check(LENGTH);
        }
        driver.unload();
    });
}
