//! Accepting by event.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use wsk::{Buffer, Connection, DisconnectKind, Events, Handlers, ListenerEvents};
use wsk_sim::raw::Peer;
use wsk_sim::wsk_provider::behaviours::InheritedEvents;
use wsk_sim::{FaultPoint, Sim};

use crate::support::*;

/// A handler that takes the connection gives WSK a context that is complete, writes both outputs, and owns
/// the socket.
///
/// Prevents: ACPT-06, ACPT-07, ACPT-16, EVT-01, EVT-07, EVT-10, EVT-55, LSN-34, LIFE-13
#[test]
fn a_handler_takes_connections() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (tell, told) = channel();
        let take = move |incoming: wsk::Incoming<'_, Handlers>| {
            let ends = (incoming.local_addr(), incoming.peer_addr());
            tell.say((ends, incoming.accept(Handlers::new()).unwrap()));
        };
        let builder = driver.provider.listener().on_accept(taker(take));
        let listener = wait(builder.bind(localhost())).unwrap();
        listener.enable(ListenerEvents::ACCEPT).unwrap();
        for _ in 0..3 {
            let peer = Peer::connect(listener.local_addr());
            let ((local, remote), mut connection): (_, Connection) = told.next();
            assert_eq!((local, remote), (listener.local_addr(), peer.local()));
            assert_eq!((connection.local_addr(), connection.peer_addr()), (local, remote));
            wait(connection.send(Buffer::try_from_slice(b"hello").unwrap())).0.unwrap();
            assert_eq!(peer.receive(5), b"hello");
            drop(connection);
            peer.expect_reset();
            driver.await_sockets(1);
        }
        wait(listener.close());
        driver.unload();
    });
}

/// A handler that does nothing with the connection it is shown refuses it; nobody touches the socket
/// afterwards, and no other status ever goes out.
///
/// Prevents: ACPT-09, ACPT-10
#[test]
fn a_handler_that_does_nothing_refuses() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let refuse = move |_: wsk::Incoming<'_, Handlers>| {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        let listener = wait(driver.provider.listener().on_accept(taker(refuse)).bind(localhost())).unwrap();
        listener.enable(ListenerEvents::ACCEPT).unwrap();
        for number in 1..=3 {
            Peer::connect(listener.local_addr()).expect_reset();
            eventually(|| asked.load(Ordering::SeqCst) == number);
            driver.await_sockets(1);
        }
        drop(listener);
        driver.unload();
    });
}

/// A connection may be dropped inside the very callback that brought it; the socket is closed only once it is
/// the client's.
///
/// Prevents: ACPT-06, CLOSE-12, CLOSE-17, LSN-34
#[test]
fn a_connection_may_be_dropped_inside_the_handler() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (closed, dropped) = channel();
        let take = move |incoming: wsk::Incoming<'_, Handlers>| {
            let connection = incoming.accept(Handlers::new()).unwrap();
            if connection.peer_addr().port().is_multiple_of(2) {
                drop(connection);
            } else {
                // A close that is only asked for: nobody waits for it here.
                drop(connection.close());
            }
            closed.say(());
        };
        let listener = wait(driver.provider.listener().on_accept(taker(take)).bind(localhost())).unwrap();
        listener.enable(ListenerEvents::ACCEPT).unwrap();
        for _ in 0..6 {
            Peer::connect(listener.local_addr()).expect_reset();
            dropped.next();
        }
        driver.await_sockets(1);
        drop(listener);
        driver.unload();
    });
}

/// Inside the handler the new connection is a full one: its events can be switched on there, and may come
/// before the handler has returned.
///
/// Prevents: ACPT-11, ACPT-12, EVT-08, EVT-13, IRQL-15
#[test]
fn a_handler_may_enable_the_events_of_the_new_connection() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (tell, told) = channel();
        let (tell_data, data) = channel();
        let take = move |incoming: wsk::Incoming<'_, _>| {
            let handlers = Handlers::new().receive(tells_data(tell_data.clone()));
            let connection = incoming.accept(handlers).unwrap();
            connection.enable(Events::RECEIVE).unwrap();
            tell.say(connection);
        };
        let listener = wait(driver.provider.listener().on_accept(taker(take)).bind(localhost())).unwrap();
        let peer = Peer::connect(listener.local_addr());
        peer.send(b"before the event is on");
        listener.enable(ListenerEvents::ACCEPT).unwrap();
        let connection = told.next();
        let mut heard = Vec::new();
        while heard.len() < 22 {
            heard.extend(data.next());
        }
        assert_eq!(heard, b"before the event is on");
        wait(connection.close());
        drop(listener);
        driver.unload();
    });
}

/// Events that connections inherit may come as soon as the outputs are written, or only after the return.
///
/// Prevents: ACPT-12, ACPT-16, EVT-34, EVT-48
#[test]
fn inherited_events_reach_the_handlers_of_the_connection() {
    for_each_choice(
        |behaviours, choice: InheritedEvents| behaviours.inherited_events = choice,
        |_, _| {
            let driver = Driver::start();
            let (tell, told) = channel();
            let (tell_data, data) = channel();
            let (tell_end, end) = channel();
            let take = move |incoming: wsk::Incoming<'_, _>| {
                let handlers = Handlers::new()
                    .receive(tells_data(tell_data.clone()))
                    .disconnect(TellsDisconnects(tell_end.clone()));
                tell.say(incoming.accept(handlers).unwrap());
            };
            let listener = wait(driver.provider.listener().on_accept(taker(take)).bind(localhost())).unwrap();
            assert!(listener.inherit(Events::SEND_BACKLOG).is_err(), "nobody handles it");
            listener.inherit(Events::RECEIVE | Events::DISCONNECT).unwrap();
            listener.enable(ListenerEvents::ACCEPT).unwrap();
            for _ in 0..20 {
                let peer = Peer::connect(listener.local_addr());
                peer.send(b"inherited");
                let connection = told.next();
                let mut heard = Vec::new();
                while heard.len() < 9 {
                    heard.extend(data.next());
                }
                assert_eq!(heard, b"inherited");
                peer.half_close();
                assert_eq!(end.next(), DisconnectKind::Graceful);
                drop(connection);
            }
            drop(listener);
            driver.unload();
        },
    );
}

/// A listener that is dead says so with a null socket; the handler never sees that, and the listener closes
/// itself.
///
/// Prevents: ACPT-05, LIFE-17
#[test]
fn a_dead_listener_is_closed_without_asking_the_handler() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let (tell, told) = channel();
        let take = move |_: wsk::Incoming<'_, Handlers>| tell.say(());
        let listener = wait(driver.provider.listener().on_accept(taker(take)).bind(localhost())).unwrap();
        listener.enable(ListenerEvents::ACCEPT).unwrap();
        sim.provider().depart();
        driver.await_sockets(0);
        assert!(!listener.is_open());
        assert!(told.now().is_none());
        assert!(listener.enable(ListenerEvents::ACCEPT).unwrap_err().is_socket_dead());
        drop(listener);
        driver.unload();
    });
}

/// The event may come although an accept is under way; both take connections, and each exactly one.
///
/// Prevents: LSN-23
#[test]
fn the_event_may_come_although_an_accept_waits() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let (tell, told) = channel();
        let take =
            move |incoming: wsk::Incoming<'_, Handlers>| tell.say(incoming.accept(Handlers::new()).unwrap());
        let listener = wait(driver.provider.listener().on_accept(taker(take)).bind(localhost())).unwrap();
        listener.enable(ListenerEvents::ACCEPT).unwrap();
        let mut accept = Box::pin(listener.accept());
        assert!(poll(&mut accept).is_pending());
        sim.choose_once(FaultPoint::EventDespiteIrp, 1);
        let by_event = Peer::connect(listener.local_addr());
        let told_of: Connection = told.next();
        assert_eq!(told_of.peer_addr(), by_event.local());
        let by_accept = Peer::connect(listener.local_addr());
        let accepted = wait(accept).unwrap();
        assert_eq!(accepted.peer_addr(), by_accept.local());
        drop((told_of, accepted, listener));
        driver.unload();
    });
}

/// A connection without handlers has neither a context nor a table.
///
/// Prevents: LSN-13, LSN-15, EVT-34
#[test]
fn events_without_a_handler_cannot_be_switched_on() {
    Sim::new().run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let error = listener.enable(ListenerEvents::ACCEPT).unwrap_err();
        assert_eq!(error.status(), wsk::Status::INVALID_PARAMETER);
        let (connection, _peer) = connected(&listener);
        for event in [Events::RECEIVE, Events::DISCONNECT, Events::SEND_BACKLOG, Events::empty()] {
            assert_eq!(connection.enable(event).unwrap_err().status(), wsk::Status::INVALID_PARAMETER);
        }
        let accept = listener.accept_with(Handlers::new().disconnect(TellsDisconnects(channel().0)));
        let peer = Peer::connect(listener.local_addr());
        let handled = wait(accept).unwrap();
        assert!(handled.enable(Events::RECEIVE | Events::DISCONNECT).is_err());
        handled.enable(Events::DISCONNECT).unwrap();
        drop((peer, connection, handled, listener));
        driver.unload();
    });
}

/// Connections that arrive by event while the driver unloads are closed, whoever was about to take them.
///
/// Prevents: REG-27, CLOSE-01
#[test]
fn connections_may_arrive_by_event_while_the_driver_unloads() {
    for _ in 0..20 {
        Sim::new().run(|_| {
            let driver = Driver::start();
            let taken = Arc::new(Mutex::new(Vec::new()));
            let kept = Arc::clone(&taken);
            let take = move |incoming: wsk::Incoming<'_, Handlers>| {
                if let Ok(connection) = incoming.accept(Handlers::new()) {
                    kept.lock().unwrap().push(connection);
                }
            };
            let listener = wait(driver.provider.listener().on_accept(taker(take)).bind(localhost())).unwrap();
            listener.enable(ListenerEvents::ACCEPT).unwrap();
            let address = listener.local_addr();
            let peers = std::thread::spawn(move || {
                (0..20).filter_map(|_| Peer::try_connect(address).ok()).collect::<Vec<_>>()
            });
            std::thread::yield_now();
            driver.unload();
            drop((peers.join().unwrap(), listener));
            taken.lock().unwrap().clear();
        });
    }
}

/// A connection that is closed inside the handler that takes it is not WSK's to close before that has
/// returned: only then is the socket the client's.
///
/// Prevents: ACPT-06, CLOSE-01
#[test]
fn a_connection_closed_in_its_accept_handler_closes_afterwards() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let (tell, told) = channel();
        let machine = sim.clone();
        let live = move || {
            let sockets = machine.provider().open_sockets();
            sockets.iter().filter(|socket| socket.description.contains("Live, accepted")).count()
        };
        let take = move |incoming: wsk::Incoming<'_, Handlers>| {
            let before = live();
            let closed = incoming.accept(Handlers::new()).unwrap().close();
            tell.say((before, live(), closed));
        };
        let listener = wait(driver.provider.listener().on_accept(taker(take)).bind(localhost())).unwrap();
        listener.enable(ListenerEvents::ACCEPT).unwrap();
        for _ in 0..5 {
            let peer = Peer::connect(listener.local_addr());
            let (before, after, closed) = told.next();
            assert_eq!((before, after), (1, 1), "the close was made inside the handler");
            wait(closed);
            peer.expect_reset();
        }
        drop(listener);
        driver.unload();
    });
}
