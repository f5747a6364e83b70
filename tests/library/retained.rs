//! Received data kept beyond its callback: given back once, before the close, by whoever drops it.

use std::sync::atomic::{AtomicUsize, Ordering};

use wsk::ConnectionHandlers;
use wsk::{Buffer, Connection, Events, Handlers, Indication, Listener, RetainedData, Taken};
use wsk_sim::raw::Peer;
use wsk_sim::{FaultPoint, Sim};

use crate::support::*;

type Retains = Handlers<OnReceive<fn(Indication<'_>) -> Taken<'_>>>;

/// A handler that retains everything and hands it out.
fn retains(
    tell: Tell<RetainedData>,
) -> OnReceive<impl for<'a> Fn(Indication<'a>) -> Taken<'a> + Send + Sync> {
    on_receive(move |data| match data.retain() {
        Ok((received, retained)) => {
            tell.say(retained);
            received
        }
        Err((_, data)) => data.accept(),
    })
}

fn bytes(retained: &RetainedData) -> Vec<u8> {
    let mut bytes = Vec::new();
    retained
        .for_each(|piece| {
            bytes.extend_from_slice(piece);
            true
        })
        .unwrap();
    assert_eq!(bytes.len(), retained.len());
    bytes
}

/// Retained data can be read and dropped on any thread, at any level, in any order, and is released once
/// each.
///
/// Prevents: RCVE-12, RCVE-13, RCVE-18, RCVE-20, LIFE-13
#[test]
fn retained_data_is_given_back_once() {
    for_each_mode(|sim| {
        for shape in 0..4 {
            sim.choose(FaultPoint::IndicationShape, shape);
            let driver = Driver::start();
            let listener = driver.listen();
            let (tell, told) = channel();
            let accept = listener.accept_with(Handlers::new().receive(retains(tell)));
            let peer = Peer::connect(listener.local_addr());
            let connection = wait(accept).unwrap();
            connection.enable(Events::RECEIVE).unwrap();
            let mut kept = Vec::new();
            for text in [&b"first"[..], b"second", b"third", b"fourth"] {
                peer.send(text);
                let retained = told.next();
                assert_eq!(bytes(&retained), text);
                kept.push(retained);
            }
            let third = kept.remove(2);
            sim.thread("elsewhere", move || {
                assert_eq!(bytes(&third), b"third");
                drop(third);
            })
            .join()
            .unwrap();
            let last = kept.pop();
            at_dispatch(|| drop(last));
            assert_eq!(bytes(&kept[0]), b"first");
            drop(kept);
            drop((connection, listener));
            driver.unload();
        }
    });
}

/// A connection whose handler has retained the four bytes that its peer sent.
fn with_kept_data(driver: &Driver) -> (Listener, Connection, Peer, RetainedData) {
    let listener = driver.listen();
    let (tell, told) = channel();
    let accept = listener.accept_with(Handlers::new().receive(retains(tell)));
    let peer = Peer::connect(listener.local_addr());
    let connection = wait(accept).unwrap();
    connection.enable(Events::RECEIVE).unwrap();
    peer.send(b"kept");
    let retained = told.next();
    (listener, connection, peer, retained)
}

/// Data retained while the connection goes: the close waits for it, and the release comes first.
///
/// Prevents: RCVE-19, RCVE-20, CLOSE-13, CLOSE-01
#[test]
fn retained_data_is_given_back_before_the_close() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (listener, connection, peer, retained) = with_kept_data(&driver);
        let mut close = Box::pin(connection.close());
        assert!(poll(&mut close).is_pending());
        assert_eq!(driver.client.open_sockets(), 2);
        assert_eq!(bytes(&retained), b"kept");
        drop(retained);
        wait(close.as_mut());
        driver.await_sockets(1);
        drop((close, listener, peer));
        driver.unload();
    });
}

/// A dead connection takes its retained data back, so that it can be closed.
///
/// Prevents: RCVE-02, RCVE-19, LIFE-17
#[test]
fn a_dead_connection_takes_retained_data_back() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let (listener, connection, _peer, retained) = with_kept_data(&driver);
        sim.provider().depart();
        // The sentinel has it close itself, and the retained data holds that up.
        eventually(|| !connection.is_open());
        assert!(driver.client.open_sockets() > 0);
        assert_eq!(bytes(&retained), b"kept");
        drop(retained);
        assert!(wait(listener.accept()).is_err());
        driver.await_sockets(0);
        drop((connection, listener));
        driver.unload();
    });
}

/// Calls that are refused because the connection closes do not let it close any sooner: retained data still
/// keeps it back.
///
/// Prevents: RCVE-19, CLOSE-13
#[test]
fn refused_calls_do_not_close_over_retained_data() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let (listener, connection, _peer, retained) = with_kept_data(&driver);
        let (mut receiving, connection) = connection.into_split();
        let mut later = Box::pin(receiving.receive(Buffer::try_with_capacity(8).unwrap()));
        sim.provider().depart();
        eventually(|| !connection.is_open());
        for _ in 0..3 {
            assert!(connection.enable(Events::RECEIVE).is_err());
            assert!(connection.inspect_id().is_err());
            assert!(wait(connection.receive_backlog()).is_err());
        }
        assert!(ready(&mut later).0.is_err());
        assert!(driver.client.open_sockets() > 0);
        assert_eq!(bytes(&retained), b"kept");
        drop(retained);
        assert!(wait(listener.accept()).is_err());
        driver.await_sockets(0);
        drop((connection, listener));
        driver.unload();
    });
}

/// Retained data is dropped inside the callback, on another thread while the callback returns, or later: it
/// is accepted, or released, never both.
///
/// Prevents: RCVE-20
#[test]
fn dropping_retained_data_races_with_the_return_of_its_callback() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (tell, told) = channel();
        let calls = AtomicUsize::new(0);
        let (tell_count, counted) = channel();
        let handler = on_receive(move |data| {
            let length = data.len();
            let (received, retained) = data.retain().map_err(|(error, _)| error).unwrap();
            match calls.fetch_add(1, Ordering::SeqCst) % 2 {
                0 => drop(retained),
                _ => tell.say(retained),
            }
            tell_count.say(length);
            received
        });
        let accept = listener.accept_with(Handlers::new().receive(handler));
        let peer = Peer::connect(listener.local_addr());
        let connection = wait(accept).unwrap();
        connection.enable(Events::RECEIVE).unwrap();
        let dropper = sim.thread("dropper", move || {
            let mut dropped = 0;
            while dropped < 20 {
                drop(told.next());
                dropped += 1;
            }
        });
        let mut calls = 0;
        while calls < 40 {
            peer.send(b"x");
            let mut length = 0;
            while length < 1 {
                length += counted.next();
                calls += 1;
            }
        }
        dropper.join().unwrap();
        drop((connection, listener, peer));
        driver.unload();
    });
}

/// Data that is retained holds the unloading up, which says so, and goes on when it is dropped.
///
/// Prevents: RCVE-19, REG-27
#[test]
fn retained_data_holds_up_the_unloading() {
    Sim::new().run(|_| {
        let driver = Driver::start();
        let (listener, connection, _peer, retained) = with_kept_data(&driver);
        drop(driver.provider);
        let held = driver.client.unload(passive(), std::time::Duration::from_millis(50)).unwrap_err();
        assert_eq!((held.sockets(), held.providers()), (1, 0));
        assert_eq!(bytes(&retained), b"kept");
        let client = held.into_inner();
        drop(retained);
        client.unload(passive(), BOUND).unwrap();
        drop((connection, listener));
    });
}

/// The types of handlers can be named.
#[test]
fn a_connection_with_handlers_can_be_named() {
    fn named<E: ConnectionHandlers>() -> Events {
        E::HANDLED
    }
    assert_eq!(named::<Retains>(), Events::RECEIVE);
}
