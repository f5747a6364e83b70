//! Flags that are made of bits: what has no name does not reach WSK.

use wsk::{Buffer, Error, Events, Handlers, ListenerEvents, Operation};
use wsk::{ReceiveFlags, SendFlags};

use crate::support::*;

fn refused(operation: Operation) -> Error {
    Error::new(operation, wsk_sys::STATUS_INVALID_PARAMETER)
}

/// Every bit of a word that is not among `named`, alone and together with them.
fn unnamed(named: u32) -> impl Iterator<Item = u32> {
    let alone = (0..u32::BITS).map(|bit| 1 << bit).filter(move |bit| bit & named == 0);
    alone.flat_map(move |bit| [bit, bit | named]).chain([6 & !named | named, !named, u32::MAX])
}

/// Flags of a receive that have no name are refused, the buffer comes back as it was, and the turn is not
/// taken.
///
/// Prevents: RCV-08, RCV-09
#[test]
fn unnamed_flags_of_a_receive_are_refused() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        for bits in unnamed(ReceiveFlags::all().bits()) {
            let flags = ReceiveFlags::from_bits_retain(bits);
            let buffer = Buffer::try_from_slice(b"mine").unwrap();
            let (result, buffer) = wait(connection.receive_with(buffer, flags));
            assert_eq!(result, Err(refused(Operation::Receive)), "{bits:#x}");
            assert_eq!(&*buffer, b"mine");
        }
        // None of them has taken the turn.
        peer.send(b"data");
        assert_eq!(wait(connection.receive(Buffer::try_with_capacity(4).unwrap())).0, Ok(4));
        drop((connection, listener));
        driver.unload();
    });
}

/// Flags of a send that have no name are refused, also with nothing to send, and nothing is sent.
///
/// Prevents: SND-05, SND-06
#[test]
fn unnamed_flags_of_a_send_are_refused() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        for bits in unnamed(SendFlags::all().bits()) {
            let flags = SendFlags::from_bits_retain(bits);
            for text in [&b"never"[..], b""] {
                let buffer = Buffer::try_from_slice(text).unwrap();
                let (result, buffer) = wait(connection.send_with(buffer, flags));
                assert_eq!(result, Err(refused(Operation::Send)), "{bits:#x}");
                assert_eq!(&*buffer, text);
            }
        }
        wait(connection.send_with(Buffer::try_from_slice(b"sent").unwrap(), SendFlags::NO_DELAY)).0.unwrap();
        assert_eq!(peer.receive(4), b"sent");
        drop((connection, listener));
        driver.unload();
    });
}

/// Events of a connection that have no name are not switched, neither on nor off.
///
/// Prevents: EVT-26, EVT-28
#[test]
fn unnamed_events_of_a_connection_are_refused() {
    for_each_mode(|sim| {
        // There are handlers whose events stay off.
        sim.expect_advice("LSN-15");
        let driver = Driver::start();
        let listener = driver.listen();
        let (tell, _told) = channel();
        let accept = listener.accept_with(Handlers::new().receive(tells_data(tell)));
        let peer = wsk_sim::raw::Peer::connect(listener.local_addr());
        let connection = wait(accept).unwrap();
        let refused = refused(Operation::EventCallbacks);
        for bits in unnamed(Events::all().bits()) {
            let events = Events::from_bits_retain(bits);
            assert_eq!(connection.enable(events), Err(refused), "{bits:#x}");
            assert_eq!(connection.disable(events), Err(refused), "{bits:#x}");
            assert_eq!(wait(connection.disable_and_wait(events)), Err(refused), "{bits:#x}");
        }
        drop((connection, listener, peer));
        driver.unload();
    });
}

/// Events of a listener that have no name are not switched on.
///
/// Prevents: EVT-26
#[test]
fn unnamed_events_of_a_listener_are_refused() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let take = |incoming: wsk::Incoming<'_, Handlers>| _ = incoming.accept(Handlers::new());
        let listener = wait(driver.provider.listener().on_accept(taker(take)).bind(localhost())).unwrap();
        for bits in unnamed(ListenerEvents::all().bits()) {
            let error = listener.enable(ListenerEvents::from_bits_retain(bits)).unwrap_err();
            assert_eq!(error, refused(Operation::EventCallbacks), "{bits:#x}");
        }
        listener.enable(ListenerEvents::ACCEPT).unwrap();
        drop(listener);
        driver.unload();
    });
}
