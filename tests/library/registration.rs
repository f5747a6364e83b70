//! Registering, capturing, unloading.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use wsk::options::{ExclusiveAddress, KeepAlive, V6Only};
use wsk::{Buffer, Client, Connection, Events, Handlers, Listener, ListenerEvents, Status};
use wsk_sim::Sim;
use wsk_sim::raw::Peer;

use crate::support::*;

const SHORT: Duration = Duration::from_millis(30);

/// A registration is ended once, whether by unloading or by dropping; the checker counts.
///
/// Prevents: REG-02, REG-05, REG-25, REG-26, LIFE-01, LIFE-03, EVT-42, EVT-53, EVT-54, IRQL-06
#[test]
fn every_registration_is_ended_once() {
    let sim = Sim::new();
    sim.expect("REG-27").run(|sim| {
        let unloaded = Client::register(passive()).unwrap();
        let other = Client::register(passive()).unwrap();
        let dropped = Client::register(passive()).unwrap();
        unloaded.unload(passive(), BOUND).unwrap();
        drop(dropped);
        let provider = other.capture(passive(), BOUND).unwrap();
        let listener = wait(provider.listener().bind(localhost())).unwrap();
        drop(provider);
        // Dropping a client closes what is open, in the background.
        drop(other);
        eventually(|| !listener.is_open());
        drop(listener);
        await_threads(sim);
    });
}

fn refuses(data: wsk::Indication<'_>) -> wsk::Taken<'_> {
    data.refuse()
}

fn rejects(request: wsk::Inspection<'_>) -> wsk::Decision<'_> {
    request.reject()
}

/// Waits for the threads of clients that were dropped without unloading. A driver cannot: it unloads.
#[track_caller]
pub(crate) fn await_threads(sim: &Sim) {
    eventually(|| !sim.kernel().threads().iter().any(|name| name.starts_with("system-thread")));
}

/// Each capture is given back once, with the last clone; nothing is called through it afterwards, and sockets
/// live on.
///
/// Prevents: REG-11, REG-12
#[test]
fn every_capture_is_released_once() {
    for_each_mode(|_| {
        let client = Client::register(passive()).unwrap();
        let first = client.capture(passive(), BOUND).unwrap();
        let second = client.capture(passive(), Duration::ZERO).unwrap();
        let clone = first.clone();
        let builder = first.listener();
        drop((first, second));
        let listener = wait(builder.bind(localhost())).unwrap();
        drop(clone);
        let (mut connection, peer) = connected(&listener);
        wait(connection.send(Buffer::try_from_slice(b"on").unwrap())).0.unwrap();
        assert_eq!(peer.receive(2), b"on");
        drop((connection, listener));
        client.unload(passive(), BOUND).unwrap();
    });
}

/// A capture never waits longer than it was told to, and never for ever: one that did would be advised
/// against soon.
///
/// Prevents: REG-29, REG-10, IRQL-07
#[test]
fn a_capture_is_bounded() {
    let impatient = Sim::builder().late().provider(|config| config.capture_patience = SHORT / 2).build();
    impatient.forbid_advice().run(|sim| {
        let client = Client::register(passive()).unwrap();
        for bound in [Duration::ZERO, Duration::from_nanos(1), SHORT] {
            let start = Instant::now();
            let error = client.capture(passive(), bound).unwrap_err();
            assert_eq!(error.status(), Status::DEVICE_NOT_READY);
            assert!(start.elapsed() < bound + BOUND);
        }
        assert_eq!(client.provider_versions().unwrap_err().status(), Status::DEVICE_NOT_READY);
        let arriving = sim.clone();
        let arrival = sim.thread("arrival", move || {
            std::thread::sleep(SHORT);
            arriving.provider().arrive();
        });
        // As long as can be: still not for ever.
        drop(client.capture(passive(), Duration::MAX).unwrap());
        arrival.join().unwrap();
        client.unload(passive(), BOUND).unwrap();
    });
}

/// A provider that does not speak version 1.0 says so, tells what it speaks, and lets the client go.
///
/// Prevents: REG-16, REG-05
#[test]
fn an_unknown_version_is_an_error() {
    Sim::builder()
        .provider(|config| (config.lowest_version, config.highest_version) = (0x0200, 0x0203))
        .build()
        .run(|_| {
            let client = Client::register(passive()).unwrap();
            assert_eq!(client.capture(passive(), BOUND).unwrap_err().status(), Status::NOINTERFACE);
            assert_eq!(client.provider_versions().unwrap(), ((2, 0), (2, 3)));
            client.unload(passive(), BOUND).unwrap();
            let again = Client::register(passive()).unwrap();
            again.unload(passive(), BOUND).unwrap();
        });
}

/// A higher minor version than was asked for is welcome.
///
/// Prevents: REG-17, IRP-28
#[test]
fn a_higher_minor_version_will_do() {
    Sim::builder().provider(|config| config.highest_version = 0x0105).build().run(|_| {
        let driver = Driver::start();
        assert_eq!(driver.client.provider_versions().unwrap(), ((1, 0), (1, 5)));
        let listener = driver.listen();
        let (connection, _peer) = connected(&listener);
        drop((connection, listener));
        driver.unload();
    });
}

/// Unloading is bounded, says who holds it up, and can be gone on with.
///
/// Prevents: REG-12, REG-26, REG-27
#[test]
fn unloading_reports_who_holds_it_up() {
    Sim::new().run(|_| {
        let Driver { client, provider } = Driver::start();
        let listener = wait(provider.listener().bind(localhost())).unwrap();
        let builder = provider.listener();
        let start = Instant::now();
        let held = client.unload(passive(), SHORT).unwrap_err();
        assert!(start.elapsed() < SHORT + BOUND);
        assert_eq!((held.providers(), held.sockets()), (1, 0));
        assert!(held.to_string().contains("still in use: captures of WSK (1);"), "{held}");
        assert!(!listener.is_open());
        // A client that is being unloaded serves nobody any more.
        let client = held.into_inner();
        let error = client.capture(passive(), BOUND).unwrap_err();
        assert_eq!(error.status(), Status::DEVICE_NOT_READY);
        assert_eq!(client.provider_versions().unwrap_err().status(), Status::DEVICE_NOT_READY);
        // What is made with a provider that is still held is closed at once.
        let late = wait(builder.bind(localhost()));
        assert!(late.is_err() || !late.as_ref().is_ok_and(Listener::is_open));
        let held = client.unload(passive(), SHORT).unwrap_err();
        drop(provider);
        held.into_inner().unload(passive(), BOUND).unwrap();
        drop((late, listener));
    });
}

/// Everything that can be open is open when the driver unloads: sockets of every kind, requests of every
/// kind, events that are on, tokens, futures nobody polls, bindings under way.
///
/// Prevents: REG-02, REG-27, LSN-34, INSP-18, CLOSE-01, CLOSE-12, CLOSE-13
#[test]
fn everything_may_be_open_when_the_driver_unloads() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (tell, told) = channel();
        let take =
            move |incoming: wsk::Incoming<'_, Handlers>| tell.say(incoming.accept(Handlers::new()).unwrap());
        let by_event = wait(driver.provider.listener().on_accept(taker(take)).bind(localhost())).unwrap();
        by_event.enable(ListenerEvents::ACCEPT).unwrap();
        let pending = driver.listen_pending();

        let (connection, peer) = connected(&listener);
        let peers: Vec<_> =
            [by_event.local_addr(), pending.listener.local_addr(), pending.listener.local_addr()]
                .map(Peer::connect)
                .into();
        let (mut taken, token): (Connection, _) = (told.next(), pending.tokens.next());
        let mut inspection = Box::pin(pending.tokens.next().decide_with(std::future::pending()));
        assert!(poll(&mut inspection).is_pending());
        let accept = listener.accept_with(Handlers::new().receive(on_receive(refuses)));
        let third = Peer::connect(listener.local_addr());
        let handled = wait(accept).unwrap();
        handled.enable(Events::RECEIVE).unwrap();
        third.send(b"refused");

        let mut futures: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
        let mut start = |mut future: Pin<Box<dyn Future<Output = ()>>>| {
            let waker = std::task::Waker::noop();
            if future.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending() {
                futures.push(future);
            }
        };
        let control = connection.control();
        let (mut receiving, mut sending) = connection.into_split();
        let receive = async move { receiving.receive(Buffer::try_with_capacity(8).unwrap()).await };
        start(Box::pin(async move {
            let _ = receive.await;
        }));
        let mut much = Buffer::try_with_capacity(8 << 20).unwrap();
        much.set_len(8 << 20).unwrap();
        let send = sending.post(much);
        start(Box::pin(async move {
            let _ = send.await;
        }));
        let disconnect = async move { sending.shutdown().await };
        start(Box::pin(async move {
            let _ = disconnect.await;
        }));
        let taken_control = taken.control();
        let drain = async move { taken.drain().await };
        start(Box::pin(async move {
            let _ = drain.await;
        }));
        let accept = listener.accept();
        start(Box::pin(async move {
            let _ = accept.await;
        }));
        let backlog = taken_control.receive_backlog();
        start(Box::pin(async move {
            let _ = backlog.await;
        }));
        let disable = handled.disable_and_wait(Events::RECEIVE);
        start(Box::pin(async move {
            let _ = disable.await;
        }));

        driver.unload();
        for future in &mut futures {
            // They all have ended.
            eventually(|| {
                let waker = std::task::Waker::noop();
                future.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready()
            });
        }
        assert!(token.is_aborted());
        assert!(ready(&mut inspection).is_err());
        assert!(!control.is_open() && !listener.is_open() && !taken_control.is_open() && !handled.is_open());
        drop((peers, peer, third));
    });
}

/// Handles may be dropped in any order, before and after the client.
///
/// Prevents: REG-02, REG-12, CLOSE-13, LIFE-05
#[test]
fn handles_may_be_dropped_in_any_order() {
    let sim = Sim::new();
    sim.expect("REG-27").run(|sim| {
        let mut order: Vec<usize> = (0..5).collect();
        loop {
            let Driver { client, provider } = Driver::start();
            let listener = wait(provider.listener().bind(localhost())).unwrap();
            let (connection, _peer) = connected(&listener);
            let (receive_half, send_half) = connection.into_split();
            let mut receive = Box::pin(async move {
                let mut receive_half = receive_half;
                receive_half.receive(Buffer::try_with_capacity(8).unwrap()).await
            });
            assert!(poll(&mut receive).is_pending());
            let mut handles: [Option<Box<dyn std::any::Any>>; 5] = [
                Some(Box::new(client)),
                Some(Box::new(provider)),
                Some(Box::new(listener)),
                Some(Box::new(send_half)),
                Some(Box::new(receive)),
            ];
            for &index in &order {
                drop(handles[index].take());
            }
            await_threads(sim);
            if !next_permutation(&mut order) {
                break;
            }
        }
    });
}

fn next_permutation(order: &mut [usize]) -> bool {
    let Some(pivot) = order.windows(2).rposition(|pair| pair[0] < pair[1]) else { return false };
    let swap = order.iter().rposition(|&item| item > order[pivot]).expect("there is a larger one");
    order.swap(pivot, swap);
    order[pivot + 1..].reverse();
    true
}

/// Sockets in the making are closed when their future is dropped, at whatever step that is.
///
/// Prevents: REG-12, LSN-34, IRP-10, IRP-16, CLOSE-12, OPT-01, OPT-02, LIFE-06, LIFE-11
#[test]
fn a_listener_in_the_making_may_be_dropped_at_every_step() {
    for_each_mode(|_| {
        let driver = Driver::start();
        for polls in 0.. {
            let gate = gate(rejects, |_| {});
            let builder = driver
                .provider
                .listener()
                .conditional(gate)
                .option(ExclusiveAddress(true))
                .option(KeepAlive(true))
                .option(V6Only(false));
            let address = if polls % 2 == 0 { "[::1]:0" } else { "127.0.0.1:0" };
            let mut bind = Box::pin(builder.bind(address.parse().unwrap()));
            let wakes = Arc::new(Wakes::default());
            let mut ended = false;
            for number in 0..polls {
                if wakes.poll(&mut bind).is_ready() {
                    ended = true;
                    break;
                }
                eventually(|| wakes.count() > number);
            }
            drop(bind);
            driver.await_sockets(0);
            if ended {
                break;
            }
        }
        driver.unload();
    });
}

/// A client may be shared, captured from and unloaded by several threads.
///
/// Prevents: REG-02, REG-11, REG-12, LIFE-03
#[test]
fn captures_race_with_the_end_of_the_client() {
    for _ in 0..20 {
        let sim = Sim::new();
        sim.expect("REG-27").run(|sim| {
            let client = Arc::new(Client::register(passive()).unwrap());
            let captors: Vec<_> = (0..3)
                .map(|_| {
                    let client = Arc::clone(&client);
                    sim.thread("captor", move || {
                        for _ in 0..20 {
                            let provider = client.capture(passive(), SHORT).unwrap();
                            assert!(client.provider_versions().is_ok());
                            drop(provider);
                        }
                    })
                })
                .collect();
            drop(client);
            for captor in captors {
                captor.join().unwrap();
            }
            await_threads(sim);
        });
    }
}

/// A client that could not be unloaded in time deregisters by itself, while its handle is asked for this and
/// that.
///
/// Prevents: REG-02, LIFE-03
#[test]
fn a_client_may_be_asked_while_it_deregisters() {
    for _ in 0..20 {
        Sim::new().run(|sim| {
            let Driver { client, provider } = Driver::start();
            let client = client.unload(passive(), Duration::ZERO).unwrap_err().into_inner();
            let provider = Mutex::new(Some(provider));
            let dropper = sim.thread("dropper", move || drop(provider.lock().unwrap().take()));
            for _ in 0..50 {
                assert!(client.provider_versions().is_err());
                assert!(client.capture(passive(), Duration::ZERO).is_err());
                assert_eq!(client.open_sockets(), 0);
            }
            dropper.join().unwrap();
            client.unload(passive(), BOUND).unwrap();
        });
    }
}
