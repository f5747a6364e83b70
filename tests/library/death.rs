//! Learning that WSK has given a socket up: by futures and by handlers, for every kind of socket, whatever is
//! enabled, under way or retained.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use wsk::executor::Executor;
use wsk::options::KeepAlive;
use wsk::{
    AcceptHandler, Buffer, CloseReason, Connection, Decision, DisconnectHandler, DisconnectKind, Events,
    Handlers, Incoming, Indication, InspectHandler, InspectId, Inspection, ListenerEvents, ReceiveHandler,
    RetainedData, SendBacklogHandler, Taken,
};
use wsk_sim::raw::Peer;
use wsk_sim::{FaultPoint, Sim};

use crate::support::*;

/// Has WSK give up the sockets whose kind begins with this word.
fn kill(sim: &Sim, kind: &str) {
    let mut killed = 0;
    for socket in sim.provider().open_sockets() {
        if socket.description.starts_with(kind) {
            assert!(sim.provider().kill(socket.address as *mut _));
            killed += 1;
        }
    }
    assert!(killed > 0, "there is such a socket");
}

type Closed = Pin<Box<dyn Future<Output = CloseReason> + Send>>;

/// Several waiters at once, all of them polled before anything happens.
fn waiters(closed: impl Fn() -> Closed) -> Vec<(Arc<Wakes>, Pin<Box<Closed>>)> {
    (0..3)
        .map(|_| {
            let (wakes, mut closed) = (Arc::new(Wakes::default()), Box::pin(closed()));
            assert!(wakes.poll(&mut closed).is_pending());
            (wakes, closed)
        })
        .collect()
}

/// Expects that each waiter is woken, and says this.
#[track_caller]
fn expect(waiters: Vec<(Arc<Wakes>, Pin<Box<Closed>>)>, reason: CloseReason) {
    for (wakes, mut closed) in waiters {
        let mut seen = 0;
        eventually(|| {
            // Nobody polls without having been woken.
            let woken = wakes.count();
            if woken == seen {
                return false;
            }
            seen = woken;
            match wakes.poll(&mut closed) {
                Poll::Ready(found) => {
                    assert_eq!(found, reason);
                    true
                }
                Poll::Pending => false,
            }
        });
    }
}

/// Says when the connection or the listener it belongs to is dead.
#[derive(Clone)]
struct Mourner(Tell<&'static str>);

impl AcceptHandler for Mourner {
    type Handlers = Handlers;

    fn accept(&self, _incoming: Incoming<'_, Handlers>) {}

    fn dead(&self) {
        self.0.say("accept");
    }
}

impl InspectHandler for Mourner {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        request.accept()
    }

    fn dead(&self) {
        self.0.say("inspect");
    }
}

impl wsk::AbortHandler for Mourner {
    fn abort(&self, _id: InspectId) {}
}

impl ReceiveHandler for Mourner {
    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a> {
        data.refuse()
    }

    fn dead(&self) {
        self.0.say("receive");
    }
}

impl DisconnectHandler for Mourner {
    fn disconnected(&self, _kind: DisconnectKind) {}

    fn dead(&self) {
        self.0.say("disconnect");
    }
}

impl SendBacklogHandler for Mourner {
    fn ideal_backlog(&self, _bytes: usize) {}

    fn dead(&self) {
        self.0.say("backlog");
    }
}

/// Everything that was said, in whatever order.
fn all(told: &Told<&'static str>, count: usize) -> Vec<&'static str> {
    let mut all: Vec<_> = (0..count).map(|_| told.next()).collect();
    all.sort_unstable();
    assert!(told.now().is_none(), "each is told once");
    all
}

/// A listener of each kind, with its events on or off, tells its end by itself: to several futures and to its
/// handlers.
///
/// Prevents: ACPT-05, INSP-08, LIFE-14, LIFE-17
#[test]
fn the_death_of_a_listener_is_learnt() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let (tell, told) = channel();
        let plain = driver.listen();
        let off =
            wait(driver.provider.listener().on_accept(Mourner(tell.clone())).bind(localhost())).unwrap();
        let on = wait(driver.provider.listener().on_accept(Mourner(tell.clone())).bind(localhost())).unwrap();
        on.enable(ListenerEvents::ACCEPT).unwrap();
        let conditional =
            wait(driver.provider.listener().conditional(Mourner(tell.clone())).bind(localhost())).unwrap();
        let both = driver.provider.listener().conditional(Mourner(tell.clone())).on_accept(Mourner(tell));
        let both = wait(both.bind(localhost())).unwrap();
        both.enable(ListenerEvents::ACCEPT).unwrap();
        let mut all_waiters = waiters(|| Box::pin(plain.closed()));
        all_waiters.extend(waiters(|| Box::pin(off.closed())));
        all_waiters.extend(waiters(|| Box::pin(on.closed())));
        all_waiters.extend(waiters(|| Box::pin(conditional.closed())));
        all_waiters.extend(waiters(|| Box::pin(both.closed())));
        kill(sim, "Listen");
        expect(all_waiters, CloseReason::Dead);
        assert_eq!(all(&told, 5), ["accept", "accept", "accept", "inspect", "inspect"]);
        driver.await_sockets(0);
        // Who asks late is told at once.
        assert_eq!(wait(plain.closed()), CloseReason::Dead);
        assert!(!plain.is_open() && !off.is_open() && !on.is_open());
        drop((plain, off, on, conditional, both));
        assert!(told.now().is_none());
        driver.unload();
    });
}

/// A connection tells its end by itself whichever events are on: none, one of them, all.
///
/// Prevents: RCVE-02, LIFE-14, LIFE-17
#[test]
fn the_death_of_a_connection_is_learnt() {
    for_each_mode(|sim| {
        // There are handlers whose events stay off.
        sim.expect_advice("LSN-15");
        let driver = Driver::start();
        let listener = driver.listen();
        let (tell, told) = channel();
        let (plain, plain_peer) = connected(&listener);
        let mut all_waiters = waiters(|| Box::pin(plain.closed()));
        let (mut connections, mut peers) = (Vec::new(), vec![plain_peer]);
        for on in [
            Events::empty(),
            Events::RECEIVE,
            Events::DISCONNECT,
            Events::SEND_BACKLOG,
            Events::RECEIVE | Events::DISCONNECT | Events::SEND_BACKLOG,
        ] {
            let mourner = Mourner(tell.clone());
            let handlers =
                Handlers::new().receive(mourner.clone()).disconnect(mourner.clone()).send_backlog(mourner);
            let accept = listener.accept_with(handlers);
            peers.push(Peer::connect(listener.local_addr()));
            let connection = wait(accept).unwrap();
            if !on.is_empty() {
                connection.enable(on).unwrap();
            }
            // Refused data stops the receive event, but not this.
            peers.last().unwrap().send(b"refused");
            all_waiters.extend(waiters(|| Box::pin(connection.closed())));
            connections.push(connection);
        }
        kill(sim, "Connect");
        expect(all_waiters, CloseReason::Dead);
        let said = all(&told, 15);
        for handler in ["backlog", "disconnect", "receive"] {
            assert_eq!(said.iter().filter(|word| **word == handler).count(), 5);
        }
        driver.await_sockets(1);
        assert_eq!(wait(plain.closed()), CloseReason::Dead);
        drop((plain, connections, peers, listener));
        driver.unload();
    });
}

/// A handler of one event alone, shared by a counted reference.
///
/// Prevents: LIFE-17
#[test]
fn handlers_behind_references_are_told() {
    let sim = Sim::new();
    sim.run(|sim| {
        let driver = Driver::start();
        let (tell, told) = channel();
        let mourner = || wsk::memory::Ref::try_new(Mourner(tell.clone())).unwrap();
        let both = driver.provider.listener().conditional(mourner()).on_accept(mourner());
        let listener = wait(both.bind(localhost())).unwrap();
        let connections: (Connection, Connection, Connection);
        let peers = (0..3).map(|_| Peer::connect(listener.local_addr())).collect::<Vec<_>>();
        connections = (
            wait(listener.accept_with(Handlers::new().receive(mourner()))).unwrap(),
            wait(listener.accept_with(Handlers::new().disconnect(mourner()))).unwrap(),
            wait(listener.accept_with(Handlers::new().send_backlog(mourner()))).unwrap(),
        );
        kill(sim, "Listen");
        kill(sim, "Connect");
        wait(connections.0.closed());
        wait(connections.1.closed());
        wait(connections.2.closed());
        assert_eq!(all(&told, 5), ["accept", "backlog", "disconnect", "inspect", "receive"]);
        drop((connections, listener, peers));
        driver.unload();
    });
}

/// Retained data keeps the close back, but not the news.
///
/// Prevents: RCVE-19, LIFE-17
#[test]
fn death_is_learnt_while_data_is_retained() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (tell, told) = channel::<RetainedData>();
        let retains = on_receive(move |data| match data.retain() {
            Ok((received, retained)) => {
                tell.say(retained);
                received
            }
            Err((_, data)) => data.refuse(),
        });
        let accept = listener.accept_with(Handlers::new().receive(retains));
        let peer = Peer::connect(listener.local_addr());
        let connection = wait(accept).unwrap();
        connection.enable(Events::RECEIVE).unwrap();
        peer.send(b"kept");
        let retained = told.next();
        // With the event off, nothing but asking tells.
        let _off = connection.disable(Events::RECEIVE).unwrap();
        let waiting = waiters(|| Box::pin(connection.closed()));
        kill(sim, "Connect");
        expect(waiting, CloseReason::Dead);
        assert_eq!(driver.client.open_sockets(), 2);
        assert_eq!(retained.len(), 4);
        drop(retained);
        driver.await_sockets(1);
        drop((connection, listener, peer));
        driver.unload();
    });
}

/// An operation that nobody polls any more, or whose future is gone, tells of the death all the same.
///
/// Prevents: LSN-07, LIFE-17
#[test]
fn operations_under_way_tell_of_the_death() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let control = connection.control();
        let mut accept = Box::pin(listener.accept());
        assert!(poll(&mut accept).is_pending());
        let mut receive = Box::pin(connection.receive(Buffer::try_with_capacity(8).unwrap()));
        assert!(poll(&mut receive).is_pending());
        kill(sim, "Listen");
        kill(sim, "Connect");
        // They are not polled.
        driver.await_sockets(0);
        assert!(!listener.is_open() && !control.is_open());
        assert!(ready(&mut accept).unwrap_err().is_socket_dead());
        assert!(ready(&mut receive).0.unwrap_err().is_socket_dead());
        drop((connection, listener, peer));
        driver.unload();
    });
}

/// The end by this side is no death: the handle is closed or dropped, or the client unloads.
///
/// Prevents: CLOSE-13
#[test]
fn closing_is_told_from_death() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (tell, told) = channel();
        let listen = || {
            let builder = driver.provider.listener().on_accept(Mourner(tell.clone()));
            wait(builder.bind(localhost())).unwrap()
        };
        let (closed, dropped, unloaded) = (listen(), driver.listen(), listen());
        let (of_closed, of_dropped) =
            (waiters(|| Box::pin(closed.closed())), waiters(|| Box::pin(dropped.closed())));
        let (connection, peer) = connected(&dropped);
        let of_connection = waiters(|| Box::pin(connection.closed()));
        wait(closed.close());
        expect(of_closed, CloseReason::Local);
        drop(dropped);
        expect(of_dropped, CloseReason::Local);
        drop(connection);
        expect(of_connection, CloseReason::Local);
        let of_unloaded = waiters(|| Box::pin(unloaded.closed()));
        driver.unload();
        expect(of_unloaded, CloseReason::Local);
        assert_eq!(wait(unloaded.closed()), CloseReason::Local);
        assert!(told.now().is_none());
        drop((unloaded, peer));
    });
}

/// Waiters may go at any moment, in any order, while others are woken.
///
/// Prevents: LIFE-17
#[test]
fn waiters_come_and_go() {
    let sim = Sim::new();
    sim.run(|sim| {
        let driver = Driver::start();
        for round in 0..50 {
            let listener = driver.listen();
            let mut waiting = Vec::new();
            for _ in 0..8 {
                waiting.extend(waiters(|| Box::pin(listener.closed())));
            }
            // The first, the last, and some in between.
            for at in [0, 5, waiting.len() - 3, round % 10] {
                drop(waiting.remove(at));
            }
            let go = waiting.split_off(10);
            let dropper = sim.thread("dropper", move || drop(go));
            kill(sim, "Listen");
            expect(waiting, CloseReason::Dead);
            dropper.join().unwrap();
            drop(listener);
            driver.await_sockets(0);
        }
        driver.unload();
    });
}

/// Waiting, being told and going away need no memory.
#[test]
fn waiting_needs_no_memory() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer) = connected(&listener);
        sim.kernel().faults().fail_from(1);
        let of_listener = waiters(|| Box::pin(listener.closed()));
        let of_connection = waiters(|| Box::pin(connection.closed()));
        kill(sim, "Listen");
        kill(sim, "Connect");
        expect(of_listener, CloseReason::Dead);
        expect(of_connection, CloseReason::Dead);
        driver.await_sockets(0);
        sim.kernel().faults().clear();
        drop((connection, listener, peer));
        driver.unload();
    });
}

/// Beginning to wait, asking and going away are all allowed at `DISPATCH_LEVEL`.
///
/// Prevents: IRQL-14
#[test]
fn waiting_works_at_dispatch_level() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer) = connected(&listener);
        let (of_listener, of_connection) = at_dispatch(|| {
            drop(waiters(|| Box::pin(connection.closed())));
            let mut pause = Box::pin(listener.pause());
            assert!(poll(&mut pause).is_pending());
            drop(pause);
            (waiters(|| Box::pin(listener.closed())), waiters(|| Box::pin(connection.closed())))
        });
        kill(sim, "Listen");
        kill(sim, "Connect");
        expect(of_listener, CloseReason::Dead);
        at_dispatch(|| expect(of_connection, CloseReason::Dead));
        drop((connection, listener, peer));
        driver.unload();
    });
}

/// Tasks of an executor wait, beside a loop that accepts.
#[test]
fn tasks_wait_for_the_end() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let executor = Executor::start(passive(), 2).unwrap();
        let (tell, told) = channel();
        let listener = driver.listen();
        for _ in 0..4 {
            let (tell, closed) = (tell.clone(), listener.closed());
            executor.spawner().spawn(async move { tell.say(closed.await) }).unwrap();
        }
        let accept = listener.accept();
        executor.spawner().spawn(async move { assert!(accept.await.is_err()) }).unwrap();
        kill(sim, "Listen");
        for _ in 0..4 {
            assert_eq!(told.next(), CloseReason::Dead);
        }
        assert!(executor.stop(passive(), BOUND).is_ok());
        drop(listener);
        driver.unload();
    });
}

/// Each kind of operation that is the first to meet the death closes the socket by itself, polled to its end
/// or dropped.
///
/// Prevents: LSN-07, LIFE-17
#[test]
fn whichever_operation_meets_the_death_closes_the_socket() {
    type Meet = for<'a> fn(&'a mut Connection) -> Pin<Box<dyn Future<Output = ()> + 'a>>;
    fn bytes() -> Buffer {
        Buffer::try_from_slice(b"x").unwrap()
    }
    let all: [(&str, Meet); 8] = [
        ("send", |c| Box::pin(ignore(c.send(bytes())))),
        ("receive", |c| Box::pin(ignore(c.receive(bytes())))),
        ("drain", |c| Box::pin(ignore(c.drain()))),
        ("disconnect", |c| Box::pin(ignore(c.shutdown()))),
        ("disconnect after", |c| Box::pin(ignore(c.shutdown_after(bytes())))),
        ("abort", |c| Box::pin(ignore(c.abort()))),
        ("receive backlog", |c| Box::pin(ignore(c.receive_backlog()))),
        ("ideal backlog", |c| Box::pin(ignore(c.ideal_send_backlog()))),
    ];
    for dropped in [false, true] {
        for_each_mode(move |sim| {
            let driver = Driver::start();
            let listener = driver.listen();
            for (name, meet) in all {
                let (mut connection, peer) = connected(&listener);
                let mut operation = meet(&mut connection);
                sim.choose(FaultPoint::DieInCall, 1);
                let first = poll(&mut operation);
                sim.choose_naturally(FaultPoint::DieInCall);
                if dropped || first.is_ready() {
                    drop(operation);
                } else {
                    wait(operation);
                }
                eventually(|| !connection.is_open());
                driver.await_sockets(1);
                assert_eq!(wait(connection.closed()), CloseReason::Dead, "{name}");
                drop((connection, peer));
            }
            drop(listener);
            driver.unload();
        });
    }
}

async fn ignore<T>(operation: impl Future<Output = T>) {
    let _ = operation.await;
}

/// So does a question that has no IRP.
///
/// Prevents: LIFE-17
#[test]
fn a_question_without_an_irp_meets_the_death() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer) = connected(&listener);
        kill(sim, "Connect");
        assert!(connection.inspect_id().unwrap_err().is_socket_dead());
        driver.await_sockets(1);
        assert_eq!(wait(connection.closed()), CloseReason::Dead);
        drop((connection, listener, peer));
        driver.unload();
    });
}

/// Binding is given up when the listener dies in the middle of it, and its handler is told unless the bind
/// was dropped.
///
/// Prevents: LIFE-17
#[test]
fn a_listener_that_dies_while_it_is_made_is_closed() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        for dropped in [false, true] {
            let (tell, told) = channel();
            let listener = driver.provider.listener().option(KeepAlive(true)).conditional(Mourner(tell));
            let mut bind = Box::pin(listener.bind(localhost()));
            sim.choose(FaultPoint::DieInCall, 1);
            let first = poll(&mut bind);
            if dropped {
                drop(bind);
            } else {
                let bound = if let Poll::Ready(bound) = first { bound } else { wait(bind) };
                assert!(bound.unwrap_err().is_socket_dead());
                // One that is dropped may be closed by this side before WSK says that it is dead.
                assert_eq!(told.next(), "inspect");
            }
            sim.choose_naturally(FaultPoint::DieInCall);
            driver.await_sockets(0);
        }
        driver.unload();
    });
}
