//! Receiving by IRP: no byte is lost, none overtakes another, whatever is dropped when.

use std::task::Poll;
use std::time::Duration;

use wsk::ReceiveFlags;
use wsk::{Buffer, Connection, Status};
use wsk_sim::raw::Peer;
use wsk_sim::wsk_provider::{OpenSocket, Release};
use wsk_sim::{Completion, FaultPoint, Sim};

use crate::support::*;

fn room(capacity: usize) -> Buffer {
    Buffer::try_with_capacity(capacity).unwrap()
}

/// Receives until there are so many bytes.
#[track_caller]
fn receive_bytes(connection: &mut Connection, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let (received, buffer) = wait(connection.receive(room(64)));
        assert_eq!(received.unwrap(), buffer.len());
        assert!(!buffer.is_empty(), "the stream has ended after {bytes:?}");
        bytes.extend_from_slice(&buffer);
    }
    assert_eq!(bytes.len(), count);
    bytes
}

/// The buffer comes back with the bytes; nothing is the end of the stream.
///
/// Prevents: RCV-14, SND-08, SND-09, LIFE-09, IRP-24, RCV-22, SND-20
#[test]
fn data_is_received_and_the_end_is_seen() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        peer.send(b"one");
        let (received, buffer) = wait(connection.receive(room(16)));
        assert_eq!((received.unwrap(), &buffer[..]), (3, &b"one"[..]));
        let mut waits = Box::pin(connection.receive(buffer));
        assert!(poll(&mut waits).is_pending());
        peer.send(b"two");
        let (received, buffer) = wait(waits);
        assert_eq!((received.unwrap(), &buffer[..]), (3, &b"two"[..]));
        peer.half_close();
        let (end, buffer) = wait(connection.receive(buffer));
        assert_eq!((end.unwrap(), buffer.len()), (0, 0));
        let (end, _) = wait(connection.receive(buffer));
        assert_eq!(end.unwrap(), 0);
        drop((connection, listener));
        driver.unload();
    });
}

/// The library uses nothing of WSK that came after Vista.
///
/// Prevents: RCV-22, SND-20
#[test]
fn the_oldest_wsk_will_do() {
    Sim::builder().provider(|config| config.release = Release::Vista).build().run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        peer.send(b"old");
        assert_eq!(receive_bytes(&mut connection, 3), b"old");
        wait(connection.send(Buffer::try_from_slice(b"times").unwrap())).0.unwrap();
        assert_eq!(peer.receive(5), b"times");
        wait(connection.shutdown_after(Buffer::try_from_slice(b"!").unwrap())).0.unwrap();
        peer.close();
        drop((connection, listener));
        driver.unload();
    });
}

/// A receive that is dropped at any point: the stream goes on as if it had never been.
///
/// Prevents: IRP-06, IRP-10, IRP-16, LIFE-09, RCV-06
#[test]
fn a_dropped_receive_loses_nothing() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        drop(connection.receive(room(8)));
        let mut pending = Box::pin(connection.receive(room(8)));
        assert!(poll(&mut pending).is_pending());
        drop(pending);
        // Data was there, and the receive had it, but nobody looked.
        peer.send(b"abc");
        eventually(|| wait(connection.receive_backlog()).unwrap() == 3);
        let mut won = Box::pin(connection.receive(room(8)));
        match poll(&mut won) {
            Poll::Ready((received, buffer)) => {
                assert_eq!((received.unwrap(), &buffer[..]), (3, &b"abc"[..]));
                peer.send(b"abc");
            }
            Poll::Pending => drop(won),
        }
        peer.send(b"defgh");
        assert_eq!(receive_bytes(&mut connection, 8), b"abcdefgh");
        drop((connection, listener));
        driver.unload();
    });
}

/// Number of bytes that are sent.
const LENGTH: usize = 3000;

/// Cancellations and data meet at every distance, and the stream is whole all the same.
///
/// Prevents: IRP-10, IRP-16, LIFE-09
#[test]
fn dropped_receives_race_with_data() {
    for completion in COMPLETIONS {
        Sim::builder().completion(completion).build().run(|_| {
            let driver = Driver::start();
            let listener = driver.listen();
            let (mut connection, peer) = connected(&listener);
            let sender = std::thread::spawn(move || {
                for chunk in (0..LENGTH).map(|index| index as u8).collect::<Vec<_>>().chunks(7) {
                    peer.send(chunk);
                    std::thread::yield_now();
                }
                peer
            });
            let mut bytes = Vec::new();
            let mut round = 0_u32;
            while bytes.len() < LENGTH {
                round += 1;
                let mut receive = Box::pin(connection.receive(room(1 + (round % 13) as usize)));
                let mut outcome = poll(&mut receive);
                for _ in 0..round % 50 {
                    std::hint::spin_loop();
                }
                if !round.is_multiple_of(3) && outcome.is_pending() {
                    drop(receive);
                    continue;
                }
                if outcome.is_pending() {
                    outcome = Poll::Ready(wait(receive));
                }
                if let Poll::Ready((received, buffer)) = outcome {
                    assert_eq!(received.unwrap(), buffer.len());
                    bytes.extend_from_slice(&buffer);
                }
            }
            let expected: Vec<_> = (0..LENGTH).map(|index| index as u8).collect();
            assert_eq!(bytes, expected);
            drop((sender.join().unwrap(), connection, listener));
            driver.unload();
        });
    }
}

/// A machine on which a receive that has its data already completes only after a while, past all cancelling.
fn slow() -> Sim {
    Sim::builder()
        .completion(Completion::PendLate)
        .provider(|config| config.late_by = Duration::from_millis(60))
        .build()
}

/// A receive whose future is forgotten leaves the connection busy, whether WSK has it or it waits for its
/// turn; the connection can be closed all the same.
#[test]
fn a_forgotten_receive_leaves_the_connection_busy() {
    for waits in [false, true] {
        slow().run(move |_| {
            let driver = Driver::start();
            let listener = driver.listen();
            let (mut connection, peer) = connected(&listener);
            if waits {
                peer.send(b"first");
                eventually(|| wait(connection.receive_backlog()).unwrap() > 0);
                let mut abandoned = Box::pin(connection.receive(room(8)));
                assert!(poll(&mut abandoned).is_pending());
                drop(abandoned);
            }
            let mut forgotten = Box::pin(connection.receive(room(8)));
            assert!(poll(&mut forgotten).is_pending());
            // Forgotten as far as the connection can know; freed in the end all the same, so that nothing is
            // left behind.
            let forgotten =
                Box::into_raw(std::pin::Pin::into_inner(forgotten)).cast::<wsk::Receive<'static>>();
            for _ in 0..2 {
                let busy = wait(connection.receive(room(8))).0.unwrap_err();
                assert_eq!(busy.status(), Status::DEVICE_BUSY);
            }
            wait(connection.close());
            // SAFETY: it is the box that was leaked above, and a receive holds nothing of what it borrows but
            // a lifetime.
            drop(unsafe { Box::from_raw(forgotten) });
            drop((peer, listener));
            driver.unload();
        });
    }
}

/// While an abandoned receive has not ended, the next one waits for it.
#[test]
fn the_receive_after_an_abandoned_one_has_its_turn() {
    slow().run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let control = connection.control();
        let await_data = || eventually(|| wait(control.receive_backlog()).unwrap() > 0);
        for round in 0..3 {
            peer.send(b"first");
            await_data();
            let mut abandoned = Box::pin(connection.receive(room(8)));
            assert!(poll(&mut abandoned).is_pending());
            drop(abandoned);
            let wakes = std::sync::Arc::new(Wakes::default());
            let mut next = Box::pin(connection.receive(room(3)));
            assert!(wakes.poll(&mut next).is_pending());
            match round {
                0 => {
                    // Its turn has come.
                    eventually(|| wakes.count() > 0);
                    let (received, buffer) = ready(&mut next);
                    assert_eq!((received.unwrap(), &buffer[..]), (3, &b"fir"[..]));
                }
                // Given up before its turn came, and after.
                1 => drop(next),
                _ => {
                    eventually(|| wakes.count() > 0);
                    drop(next);
                }
            }
            let rest = if round == 0 { &b"st"[..] } else { b"first" };
            assert_eq!(receive_bytes(&mut connection, rest.len()), rest);
        }
        drop((connection, listener));
        driver.unload();
    });
}

/// A receive that waits for all goes on behind the bytes that a dropped one left, and is not content with
/// them.
///
/// Prevents: RCV-06, RCV-14
#[test]
fn a_receive_of_all_goes_on_behind_what_was_kept() {
    slow().run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let leave = |connection: &mut Connection, bytes: &[u8]| {
            peer.send(bytes);
            eventually(|| wait(connection.receive_backlog()).unwrap() == bytes.len());
            let mut abandoned = Box::pin(connection.receive(room(16)));
            assert!(poll(&mut abandoned).is_pending());
            drop(abandoned);
        };
        leave(&mut connection, b"abc");
        let mut all = Box::pin(connection.receive_exact(room(8)));
        assert!(poll(&mut all).is_pending());
        peer.send(b"defghij");
        let (received, buffer) = wait(all);
        assert_eq!((received, &buffer[..]), (Ok(()), &b"abcdefgh"[..]));
        assert_eq!(receive_bytes(&mut connection, 2), b"ij");
        // More was kept than is asked for.
        leave(&mut connection, b"klmno");
        let (received, buffer) = wait(connection.receive_exact(room(3)));
        assert_eq!((received, &buffer[..]), (Ok(()), &b"klm"[..]));
        // What was kept, and then the end.
        peer.half_close();
        let (received, buffer) = wait(connection.receive_exact(room(8)));
        assert_eq!((received.unwrap_err().status(), &buffer[..]), (Status::END_OF_FILE, &b"no"[..]));
        drop((connection, listener));
        driver.unload();
    });
}

/// A cancelled receive of everything may report what it had got together with an error; those bytes are not
/// lost.
///
/// Prevents: RCV-06
#[test]
fn a_cancelled_receive_of_all_keeps_what_it_had_got() {
    for choice in [0, 1] {
        for completion in COMPLETIONS {
            Sim::builder().completion(completion).build().run(move |sim| {
                sim.choose(FaultPoint::CancelledWaitAll, choice);
                let driver = Driver::start();
                let listener = driver.listen();
                let (mut connection, peer) = connected(&listener);
                let mut all = Box::pin(connection.receive_with(room(100), ReceiveFlags::WAIT_ALL));
                assert!(poll(&mut all).is_pending());
                peer.send(b"some of it");
                // The receive takes them from the transport.
                let sockets = sim.provider().open_sockets();
                let gathered = |socket: &OpenSocket| sim.provider().gathered(socket.address as *mut _);
                eventually(|| sockets.iter().any(|socket| gathered(socket) == Some(10)));
                drop(all);
                peer.send(b" and the rest");
                assert_eq!(receive_bytes(&mut connection, 23), b"some of it and the rest");
                drop((connection, listener));
                driver.unload();
            });
        }
    }
}

/// Bytes that came before an error are in the buffer; errors are errors.
///
/// Prevents: RCV-06, RCV-14
#[test]
fn a_reset_ends_a_receive_of_all_with_what_it_has() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let mut all = Box::pin(connection.receive_exact(room(100)));
        assert!(poll(&mut all).is_pending());
        peer.reset();
        let (received, buffer) = wait(all);
        assert!(received.is_err());
        assert!(buffer.is_empty());
        assert!(wait(connection.receive(buffer)).0.is_err());
        drop((connection, listener));
        driver.unload();
    });
}

/// Draining has no buffer and no other flag; what was kept goes too.
///
/// Prevents: RCV-08, RCV-09
#[test]
fn draining_discards_everything_until_the_end() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        assert_eq!(ReceiveFlags::all(), ReceiveFlags::WAIT_ALL);
        let mut abandoned = Box::pin(connection.receive(room(8)));
        assert!(poll(&mut abandoned).is_pending());
        peer.send(b"for nobody");
        drop(abandoned);
        let mut dropped = Box::pin(connection.drain());
        assert!(poll(&mut dropped).is_pending());
        drop(dropped);
        let mut drain = Box::pin(connection.drain());
        assert!(poll(&mut drain).is_pending());
        peer.send(b"more").half_close();
        wait(drain).unwrap();
        assert_eq!(wait(connection.receive(room(8))).0.unwrap(), 0);
        drop((connection, listener));
        driver.unload();
    });
}

/// A receive may outlive its connection's handle, the close, and the client.
///
/// Prevents: CLOSE-13, LIFE-09, LIFE-05
#[test]
fn a_receive_outlives_its_connection() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let control = connection.control();
        let mut pending = Box::pin(connection.receive(room(8)));
        assert!(poll(&mut pending).is_pending());
        wait(control.close());
        let (cancelled, buffer) = ready(&mut pending);
        assert!(cancelled.unwrap_err().is_cancelled());
        assert_eq!(buffer.capacity(), 8);
        drop(pending);
        let (refused, _) = wait(connection.receive(room(8)));
        assert!(refused.unwrap_err().is_socket_dead());
        peer.expect_reset();
        drop(listener);
        driver.unload();
    });
}

/// A connection whose transport has gone closes itself, whoever is told first.
///
/// Prevents: LIFE-17, CLOSE-11
#[test]
fn a_dead_connection_closes_itself() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut pending, peer_of_pending) = connected(&listener);
        let (mut asked, peer_of_asked) = connected(&listener);
        let mut receive = Box::pin(pending.receive(room(8)));
        assert!(poll(&mut receive).is_pending());
        sim.provider().depart();
        assert!(wait(receive).0.is_err());
        assert!(wait(asked.receive(room(8))).0.unwrap_err().is_socket_dead());
        assert!(wait(asked.send(Buffer::try_from_slice(b"x").unwrap())).0.unwrap_err().is_socket_dead());
        assert!(wait(listener.accept()).is_err());
        wait(pending.close());
        driver.await_sockets(0);
        drop((asked, listener));
        peer_of_pending.expect_reset();
        peer_of_asked.expect_reset();
        driver.unload();
    });
}

/// All of it works at `DISPATCH_LEVEL`.
///
/// Prevents: IRQL-14
#[test]
fn receiving_works_at_dispatch_level() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let mut receive = Box::pin(connection.receive(room(8)));
        at_dispatch(|| assert!(poll(&mut receive).is_pending()));
        peer.send(b"high");
        let (received, buffer) = at_dispatch(|| ready(&mut receive));
        assert_eq!((received.unwrap(), &buffer[..]), (4, &b"high"[..]));
        at_dispatch(|| drop(receive));
        at_dispatch(|| {
            let mut dropped = Box::pin(connection.receive(buffer));
            assert!(poll(&mut dropped).is_pending());
            drop(dropped);
        });
        peer.send(b"level");
        assert_eq!(receive_bytes(&mut connection, 5), b"level");
        drop((connection, listener));
        driver.unload();
    });
}

/// Peers that send to a connection nobody takes are reset when the listener goes.
#[test]
fn connections_nobody_takes_are_reset() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let peers: Vec<_> = (0..3).map(|_| Peer::connect(listener.local_addr())).collect();
        await_untaken(sim, 3);
        drop(listener);
        for peer in peers {
            peer.expect_reset();
        }
        driver.unload();
    });
}

/// A receive of everything for which memory is out leaves the bytes that a dropped one left where they are:
/// it comes back empty, and the next attempt, with the same buffer, gets all.
///
/// Prevents: LIFE-18
#[test]
fn a_receive_of_all_without_memory_leaves_what_was_kept() {
    // The block of the operation, and what the I/O manager keeps the image with.
    for (attempt, with_device) in [(1, false), (1, true), (2, true)] {
        // A block that was on its way back to the client is taken instead, at times.
        let refused = (0..20).any(|_| {
            let (say, said) = channel();
            slow().run(move |sim| say.say(refuse_a_receive_of_all(sim, attempt, with_device)));
            said.next()
        });
        assert!(refused, "no memory was asked for");
    }
}

/// Refuses an allocation to a receive of everything; returns whether there was one.
fn refuse_a_receive_of_all(sim: &Sim, attempt: u64, with_device: bool) -> bool {
    let device = with_device.then(|| sim.kernel().create_device());
    let client = match device {
        // SAFETY: the device is deleted when the client is gone.
        Some(device) => unsafe { wsk::Client::register_for(passive(), device) },
        None => wsk::Client::register(passive()),
    };
    let client = client.unwrap();
    let provider = client.capture(passive(), BOUND).unwrap();
    let driver = Driver { client, provider };
    let listener = driver.listen();
    let (mut connection, peer) = connected(&listener);
    // The memory that the client keeps is taken by receives that wait.
    let (mut waiting, _peers): (Vec<_>, Vec<_>) = (0..12)
        .map(|_| connected(&listener))
        .map(|(other, peer)| (receiving(other, room(8)), peer))
        .collect();
    peer.send(b"abcd");
    eventually(|| wait(connection.receive_backlog()).unwrap() == 4);
    let mut abandoned = Box::pin(connection.receive(room(8)));
    assert!(poll(&mut abandoned).is_pending());
    drop(abandoned);
    let (received, _) = wait(connection.receive(room(1)));
    assert_eq!(received, Ok(1));
    for receive in &mut waiting {
        assert!(poll(receive).is_pending());
    }
    peer.send(b"efgh");
    let buffer = room(7).slice(1..7).unwrap();
    sim.kernel().faults().fail_nth(attempt);
    let mut receive = Box::pin(connection.receive_exact(buffer));
    let first = poll(&mut receive);
    let was_refused = sim.kernel().faults().injected() > 0;
    sim.kernel().faults().clear();
    let all = match first {
        Poll::Ready((received, buffer)) => {
            assert!(was_refused && received.unwrap_err().is_out_of_memory());
            drop(receive);
            let whole = buffer.into_inner();
            assert_eq!(whole.len(), 1, "bytes that are kept still are not in the buffer, too");
            let (received, buffer) = wait(connection.receive_exact(whole.slice(1..7).unwrap()));
            received.unwrap();
            buffer
        }
        Poll::Pending => ready(&mut receive).1,
    };
    assert_eq!(&all.into_inner()[1..], b"bcdefg");
    drop((connection, waiting, listener));
    driver.unload();
    if let Some(device) = device {
        eventually(|| sim.kernel().device_references(device) == 1);
        sim.kernel().delete_device(device);
    }
    was_refused
}
