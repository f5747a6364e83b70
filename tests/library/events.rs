//! Events of listeners and connections: switching them, and what they say.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use wsk::memory::Ref;
use wsk::{
    Buffer, Connection, Disabled, DisconnectHandler, DisconnectKind, Error, Events, Handlers, Indication,
    ListenerEvents, ReceiveHandler, SendBacklogHandler, Status, Taken,
};

use wsk_sim::nt_user::faults::Point;
use wsk_sim::raw::Peer;
use wsk_sim::wsk_provider::behaviours::{BytesAccepted, DisableSeveral};
use wsk_sim::{FaultPoint, Level, Sim};

use crate::support::*;

/// Waits in a callback for the test to let it go on; a callback may be slow, if not for a WSK request.
struct Hold {
    entered: Tell<()>,
    go: Mutex<mpsc::Receiver<()>>,
}

fn hold() -> (Hold, Told<()>, mpsc::Sender<()>) {
    let (entered, has_entered) = channel();
    let (release, go) = mpsc::channel();
    (Hold { entered, go: Mutex::new(go) }, has_entered, release)
}

impl Hold {
    fn here(&self) {
        self.entered.say(());
        let _ = self.go.lock().unwrap().recv_timeout(BOUND);
    }
}

impl DisconnectHandler for Hold {
    fn disconnected(&self, _kind: DisconnectKind) {
        self.here();
    }
}

/// Switching off tells whether calls are in progress, by value, and can be waited for.
///
/// Prevents: EVT-01, EVT-02, EVT-03, EVT-10, EVT-14, EVT-21, EVT-23, EVT-24
#[test]
fn switching_an_event_off_tells_whether_it_is_off() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (held, has_entered, release) = hold();
        let mut accept = Box::pin(listener.accept_with(Handlers::new().disconnect(held)));
        assert!(poll(&mut accept).is_pending());
        let peer = Peer::connect(listener.local_addr());
        let connection = wait(accept).unwrap();
        assert_eq!(connection.disable(Events::DISCONNECT).unwrap(), Disabled::Now);
        connection.enable(Events::DISCONNECT).unwrap();
        connection.enable(Events::DISCONNECT).unwrap();
        wait(connection.disable_and_wait(Events::DISCONNECT)).unwrap();
        connection.enable(Events::DISCONNECT).unwrap();
        peer.half_close();
        has_entered.next();
        assert_eq!(connection.disable(Events::DISCONNECT).unwrap(), Disabled::WhenCallbacksReturn);
        let mut dropped = Box::pin(connection.disable_and_wait(Events::DISCONNECT));
        assert!(poll(&mut dropped).is_pending());
        drop(dropped);
        let mut off = Box::pin(connection.disable_and_wait(Events::DISCONNECT));
        assert!(poll(&mut off).is_pending());
        release.send(()).unwrap();
        wait(off).unwrap();
        assert_eq!(connection.disable(Events::DISCONNECT).unwrap(), Disabled::Now);
        drop((connection, listener));
        driver.unload();
    });
}

/// One event at a time is switched off; several are refused before WSK is asked, whatever it would have done.
///
/// Prevents: EVT-28
#[test]
fn events_are_switched_off_one_at_a_time() {
    for_each_choice(
        |behaviours, choice: DisableSeveral| behaviours.disable_several = choice,
        |_, _| {
            let driver = Driver::start();
            let listener = driver.listen();
            let (connection, _peer) = connected(&listener);
            for events in [Events::empty(), Events::RECEIVE | Events::DISCONNECT, Events::all()] {
                assert_eq!(connection.disable(events).unwrap_err().status(), Status::INVALID_PARAMETER);
                let waited: Error = wait(connection.disable_and_wait(events)).unwrap_err();
                assert_eq!(waited.status(), Status::INVALID_PARAMETER);
            }
            drop((connection, listener));
            driver.unload();
        },
    );
}

/// A handler that knows the connection it handles.
struct Inside {
    connection: Mutex<Option<Connection>>,
    tell: Tell<(Disabled, usize)>,
}

impl ReceiveHandler for Inside {
    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a> {
        let mut connection = self.connection.lock().unwrap();
        let connection = connection.as_mut().expect("it is there before the event is on");
        // What may be asked for here is asked for; nothing is waited for.
        let disabled = connection.disable(Events::RECEIVE).unwrap();
        let mut send = Box::pin(connection.send(Buffer::try_from_slice(b"seen").unwrap()));
        let _ = poll(&mut send);
        self.tell.say((disabled, data.len()));
        data.accept()
    }
}

/// An event may be switched off inside its own callback, where it is not off yet, and nobody waits.
///
/// Prevents: EVT-21, EVT-22, EVT-56, IRQL-13
#[test]
fn an_event_may_be_switched_off_inside_its_own_callback() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (tell, told) = channel();
        let inside = Ref::try_new(Inside { connection: Mutex::new(None), tell }).unwrap();
        let peer = Peer::connect(listener.local_addr());
        let connection = wait(listener.accept_with(Handlers::new().receive(inside.clone()))).unwrap();
        *inside.connection.lock().unwrap() = Some(connection);
        let enable = || {
            inside.connection.lock().unwrap().as_ref().map(|connection| connection.enable(Events::RECEIVE))
        };
        enable().unwrap().unwrap();
        peer.send(b"first");
        assert_eq!(told.next(), (Disabled::WhenCallbacksReturn, 5));
        eventually(|| {
            let connection = inside.connection.lock().unwrap();
            connection.as_ref().unwrap().disable(Events::RECEIVE).unwrap() == Disabled::Now
        });
        peer.send(b"second");
        enable().unwrap().unwrap();
        assert_eq!(told.next(), (Disabled::WhenCallbacksReturn, 6));
        let connection = inside.connection.lock().unwrap().take();
        drop((connection, inside, listener));
        driver.unload();
    });
}

/// The accept event of a listener, switched off, lets no further connection through; those wait for whoever
/// takes them.
///
/// Prevents: EVT-07, EVT-14, EVT-21
#[test]
fn the_accept_event_can_be_switched_off_and_on() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let (tell, told) = channel();
        let take =
            move |incoming: wsk::Incoming<'_, Handlers>| tell.say(incoming.accept(Handlers::new()).unwrap());
        let listener = wait(driver.provider.listener().on_accept(taker(take)).bind(localhost())).unwrap();
        assert_eq!(listener.disable(ListenerEvents::ACCEPT).unwrap(), Disabled::Now);
        listener.enable(ListenerEvents::ACCEPT).unwrap();
        let _first = (Peer::connect(listener.local_addr()), told.next());
        wait(listener.disable_and_wait(ListenerEvents::ACCEPT)).unwrap();
        let second = Peer::connect(listener.local_addr());
        await_untaken(sim, 1);
        assert!(told.now().is_none());
        let by_accept = wait(listener.accept()).unwrap();
        assert_eq!(by_accept.peer_addr(), second.local());
        let third = Peer::connect(listener.local_addr());
        await_untaken(sim, 1);
        listener.enable(ListenerEvents::ACCEPT).unwrap();
        let by_event: Connection = told.next();
        assert_eq!(by_event.peer_addr(), third.local());
        drop((by_accept, by_event, listener));
        driver.unload();
    });
}

/// The two kinds of disconnect are told apart by their one flag, whatever other flags are set; whatever the
/// level, no handler is told it could wait.
///
/// Prevents: DISC-06, DISC-07, DISC-08, EVT-55, EVT-08
#[test]
fn disconnects_of_the_peer_are_told_apart() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        for (kind, end) in
            [(DisconnectKind::Graceful, Peer::close as fn(Peer)), (DisconnectKind::Abortive, Peer::reset)]
        {
            let (tell, told) = channel();
            let accept = listener.accept_with(Handlers::new().disconnect(TellsDisconnects(tell)));
            let peer = Peer::connect(listener.local_addr());
            let connection = wait(accept).unwrap();
            connection.enable(Events::DISCONNECT).unwrap();
            end(peer);
            assert_eq!(told.next(), kind);
            drop(connection);
        }
        drop(listener);
        driver.unload();
    });
}

/// Each socket's handlers are its own: what WSK gets as context comes back to them.
///
/// Prevents: SOCK-05, LIFE-13
#[test]
fn every_connection_has_its_own_handlers() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let mut connections = Vec::new();
        for number in 0..5_u8 {
            let (tell, told) = channel();
            let accept = listener.accept_with(Handlers::new().receive(tells_data(tell)));
            let peer = Peer::connect(listener.local_addr());
            let connection = wait(accept).unwrap();
            connection.enable(Events::RECEIVE).unwrap();
            connections.push((number, connection, peer, told));
        }
        for (number, _, peer, _) in &connections {
            peer.send(&[*number]);
        }
        for (number, _, _, told) in &connections {
            assert_eq!(told.next(), [*number]);
        }
        drop((connections, listener));
        driver.unload();
    });
}

/// Tells of the ideal backlog.
struct TellsBacklog(Tell<usize>);

impl SendBacklogHandler for TellsBacklog {
    fn ideal_backlog(&self, bytes: usize) {
        self.0.say(bytes);
    }
}

/// Changes of the ideal backlog reach their handler.
///
/// Prevents: SND-13, EVT-34
#[test]
fn the_ideal_backlog_is_told() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (tell, told) = channel();
        let accept = listener.accept_with(Handlers::new().send_backlog(TellsBacklog(tell)));
        let peer = Peer::connect(listener.local_addr());
        let connection = wait(accept).unwrap();
        connection.enable(Events::SEND_BACKLOG).unwrap();
        for socket in sim.provider().open_sockets() {
            sim.provider().set_ideal_send_backlog(socket.address as *mut _, 12345);
        }
        assert_eq!(told.next(), 12345);
        drop((connection, peer, listener));
        driver.unload();
    });
}

/// Whatever the number of accepted bytes is when the callback begins, what the handler takes is what WSK is
/// told.
///
/// Prevents: RCVE-13, RCVE-12, RCV-19
#[test]
fn a_handler_takes_all_some_or_none() {
    for_each_choice(
        |behaviours, choice: BytesAccepted| behaviours.bytes_accepted = choice,
        |sim, _| {
            for shape in 0..4 {
                sim.choose(FaultPoint::IndicationShape, shape);
                let driver = Driver::start();
                let listener = driver.listen();
                let (tell, told) = channel();
                let calls = AtomicUsize::new(0);
                let handler = on_receive(move |data| {
                    tell.say(bytes_of(&data));
                    match calls.fetch_add(1, Ordering::SeqCst) {
                        0 => data.accept(),
                        1 => data.accept_first(3),
                        2 => data.refuse(),
                        3 => data.accept_first(usize::MAX),
                        _ => match data.retain() {
                            Ok((received, retained)) => {
                                drop(retained);
                                received
                            }
                            Err((_, data)) => data.accept(),
                        },
                    }
                });
                let accept = listener.accept_with(Handlers::new().receive(handler));
                let peer = Peer::connect(listener.local_addr());
                let mut connection = wait(accept).unwrap();
                connection.enable(Events::RECEIVE).unwrap();
                peer.send(b"all of it");
                assert_eq!(told.next(), b"all of it");
                peer.send(b"some of it");
                assert_eq!(told.next(), b"some of it");
                // The rest is the next to be received; then the event goes on.
                let (received, buffer) = wait(connection.receive(Buffer::try_with_capacity(64).unwrap()));
                assert_eq!((received.unwrap(), &buffer[..]), (7, &b"e of it"[..]));
                peer.send(b"none of it");
                assert_eq!(told.next(), b"none of it");
                let (received, buffer) =
                    wait(connection.receive_exact(Buffer::try_with_capacity(10).unwrap()));
                assert_eq!((received, &buffer[..]), (Ok(()), &b"none of it"[..]));
                for text in [&b"more than all"[..], b"retained a while", b"and again"] {
                    peer.send(text);
                    assert_eq!(told.next(), text);
                }
                eventually(|| wait(connection.receive_backlog()).unwrap() == 0);
                drop((connection, listener));
                driver.unload();
            }
        },
    );
}

/// The event may come although a receive is under way; between them every byte is seen once.
///
/// Prevents: RCV-19
#[test]
fn the_receive_event_may_come_although_a_receive_waits() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (tell, told) = channel();
        let accept = listener.accept_with(Handlers::new().receive(tells_data(tell)));
        let peer = Peer::connect(listener.local_addr());
        let mut connection = wait(accept).unwrap();
        connection.enable(Events::RECEIVE).unwrap();
        let mut receive = Box::pin(connection.receive(Buffer::try_with_capacity(8).unwrap()));
        assert!(poll(&mut receive).is_pending());
        sim.choose_once(FaultPoint::EventDespiteIrp, 1);
        peer.send(b"event");
        assert_eq!(told.next(), b"event");
        peer.send(b"receive");
        let (received, buffer) = wait(receive);
        assert_eq!((received.unwrap(), &buffer[..]), (7, &b"receive"[..]));
        drop((connection, listener));
        driver.unload();
    });
}

/// Memory that cannot be mapped is an error, not a fault; the data stays.
///
/// Prevents: RCVE-17
#[test]
fn data_that_cannot_be_mapped_is_an_error() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (tell, told) = channel();
        let handler = on_receive(move |data| {
            let mut target = [0; 8];
            tell.say(data.copy_to(&mut target).map(|count| target[..count].to_vec()));
            data.refuse()
        });
        let accept = listener.accept_with(Handlers::new().receive(handler));
        let peer = Peer::connect(listener.local_addr());
        let mut connection = wait(accept).unwrap();
        sim.kernel().faults().fail_all(Point::Mapping);
        sim.choose(FaultPoint::IndicationShape, 4);
        connection.enable(Events::RECEIVE).unwrap();
        peer.send(b"unmapped");
        assert!(told.next().unwrap_err().is_out_of_memory());
        sim.kernel().faults().clear();
        let (received, buffer) = wait(connection.receive_exact(Buffer::try_with_capacity(8).unwrap()));
        assert_eq!((received, &buffer[..]), (Ok(()), &b"unmapped"[..]));
        drop((connection, listener));
        driver.unload();
    });
}

/// Handlers get no right to wait, and ask for what they start without it: their time at `DISPATCH_LEVEL` is
/// short.
///
/// Prevents: IRQL-05, IRQL-13, IRQL-15, DISC-14, EVT-56
#[test]
fn handlers_that_start_requests_are_short() {
    let sim = Sim::builder().callbacks(Level::Dispatch).completions(Level::Dispatch).build();
    // Generous, because the threads of a busy host are not.
    sim.kernel().set_dispatch_budget(Some(Duration::from_secs(1)));
    let checked = sim.clone();
    sim.run(|_| {
        let driver = Driver::start();
        let (tell, told) = channel();
        let take = move |incoming: wsk::Incoming<'_, Handlers>| {
            let (mut receiving, mut sending) = incoming.accept(Handlers::new()).unwrap().into_split();
            let mut receive = Box::pin(async move {
                let _ = receiving.receive(Buffer::try_with_capacity(8).unwrap()).await;
            });
            let _ = poll(&mut receive);
            let mut send = Box::pin(sending.post(Buffer::try_from_slice(b"hello").unwrap()));
            let _ = poll(&mut send);
            tell.say((sending, receive, send));
        };
        let listener = wait(driver.provider.listener().on_accept(taker(take)).bind(localhost())).unwrap();
        listener.enable(ListenerEvents::ACCEPT).unwrap();
        for _ in 0..20 {
            let peer = Peer::connect(listener.local_addr());
            assert_eq!(peer.receive(5), b"hello");
            drop(told.next());
        }
        drop(listener);
        driver.unload();
    });
    assert!(checked.violations_of("IRQL-05").is_empty());
}

/// While a callback runs its handlers are alive, though the connection was dropped and its close has begun.
///
/// Prevents: CLOSE-17, CLOSE-01, LIFE-13
#[test]
fn handlers_live_until_the_close_has_completed() {
    struct Watched {
        hold: Hold,
        alive: Arc<AtomicBool>,
    }
    impl DisconnectHandler for Watched {
        fn disconnected(&self, kind: DisconnectKind) {
            self.hold.disconnected(kind);
            assert!(self.alive.load(Ordering::SeqCst));
        }
    }
    impl Drop for Watched {
        fn drop(&mut self) {
            self.alive.store(false, Ordering::SeqCst);
        }
    }
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (hold, has_entered, release) = hold();
        let alive = Arc::new(AtomicBool::new(true));
        let watched = Watched { hold, alive: Arc::clone(&alive) };
        let accept = listener.accept_with(Handlers::new().disconnect(watched));
        let peer = Peer::connect(listener.local_addr());
        let connection = wait(accept).unwrap();
        connection.enable(Events::DISCONNECT).unwrap();
        peer.close();
        has_entered.next();
        let mut close = Box::pin(connection.close());
        assert!(poll(&mut close).is_pending());
        assert!(alive.load(Ordering::SeqCst));
        assert_eq!(driver.client.open_sockets(), 2);
        release.send(()).unwrap();
        wait(close.as_mut());
        drop(close);
        eventually(|| !alive.load(Ordering::SeqCst));
        drop(listener);
        driver.unload();
    });
}
