//! The memory of indicated data: mapped once, by one thread, before anybody else can read it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use nt_user::faults::Point;
use wsk::{Events, Handlers, RetainedData};
use wsk_sim::raw::Peer;
use wsk_sim::{FaultPoint, Sim};

use crate::support::*;

/// The provider's choice of a list whose MDLs are not mapped.
const UNMAPPED: u32 = 4;

/// Counts the attempts to map something from now on, and lets none of them fail.
fn count_mappings(sim: &Sim) -> Arc<AtomicUsize> {
    let mappings = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&mappings);
    sim.kernel().faults().fail_if(move |attempt| {
        counted.fetch_add(usize::from(attempt.point == Point::Mapping), Ordering::SeqCst);
        false
    });
    mappings
}

/// Data that is retained is mapped by then: threads that read it share it, and write nothing, its MDLs
/// included.
///
/// Prevents: RCVE-12, RCVE-17, RCVE-18, LIFE-13
#[test]
fn reading_retained_data_maps_nothing() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (tell, told) = channel::<RetainedData>();
        let handler = on_receive(move |data| match data.retain() {
            Ok((received, retained)) => {
                tell.say(retained);
                received
            }
            Err((_, data)) => data.accept(),
        });
        let accept = listener.accept_with(Handlers::new().receive(handler));
        let peer = Peer::connect(listener.local_addr());
        let connection = wait(accept).unwrap();
        sim.choose(FaultPoint::IndicationShape, UNMAPPED);
        connection.enable(Events::RECEIVE).unwrap();
        peer.send(b"unmapped");
        let retained = Arc::new(told.next());
        let mappings = count_mappings(sim);
        let barrier = Arc::new(Barrier::new(2));
        let readers = ["one reader", "the other"].map(|name| {
            let (retained, barrier) = (Arc::clone(&retained), Arc::clone(&barrier));
            sim.thread(name, move || {
                barrier.wait();
                let mut target = [0; 8];
                assert_eq!(retained.copy_to(&mut target).unwrap(), 8);
                assert_eq!(&target, b"unmapped");
                at_dispatch(|| retained.for_each(|piece| !piece.is_empty()).unwrap());
            })
        });
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(mappings.load(Ordering::SeqCst), 0, "readers of retained data mapped it");
        sim.kernel().faults().clear();
        drop(retained);
        drop((connection, listener));
        driver.unload();
    });
}

/// A walk over an indication that is begun inside another one finds what that one mapped.
///
/// Prevents: RCVE-12, RCVE-17
#[test]
fn an_indication_is_mapped_once_however_often_it_is_read() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (tell, told) = channel();
        let handler = on_receive(move |data| {
            let mut nested = Vec::new();
            data.for_each(|_| {
                nested = bytes_of(&data);
                true
            })
            .unwrap();
            assert_eq!(nested, bytes_of(&data));
            tell.say(nested);
            data.accept()
        });
        let accept = listener.accept_with(Handlers::new().receive(handler));
        let peer = Peer::connect(listener.local_addr());
        let connection = wait(accept).unwrap();
        sim.choose(FaultPoint::IndicationShape, UNMAPPED);
        connection.enable(Events::RECEIVE).unwrap();
        peer.send(b"twice");
        let mut heard = Vec::new();
        while heard.len() < 5 {
            heard.extend(told.next());
        }
        assert_eq!(heard, b"twice");
        drop((connection, listener));
        driver.unload();
    });
}

/// Memory that cannot be mapped is not retained; the indication comes back, and can be read when there is
/// room again.
///
/// Prevents: RCVE-17, LIFE-13
#[test]
fn data_that_cannot_be_mapped_is_not_retained() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (tell, told) = channel();
        let kernel = sim.kernel().clone();
        let handler = on_receive(move |data| {
            kernel.faults().fail_all(Point::Mapping);
            let Err((error, data)) = data.retain() else { panic!("retained what cannot be mapped") };
            kernel.faults().clear();
            assert!(error.is_out_of_memory());
            tell.say(bytes_of(&data));
            data.accept()
        });
        let accept = listener.accept_with(Handlers::new().receive(handler));
        let peer = Peer::connect(listener.local_addr());
        let connection = wait(accept).unwrap();
        sim.choose(FaultPoint::IndicationShape, UNMAPPED);
        connection.enable(Events::RECEIVE).unwrap();
        peer.send(b"x");
        assert_eq!(told.next(), b"x");
        // The socket is not held by what was not retained.
        wait(connection.close());
        drop(listener);
        driver.unload();
    });
}
