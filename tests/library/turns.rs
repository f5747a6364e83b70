//! Turns on a connection: one receive after the other, and sends before a disconnect, also when one is given
//! up, finds no memory, or is called while another is.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use wsk::SendFlags;
use wsk::{Buffer, Status};
use wsk_sim::raw::End;
use wsk_sim::{Completion, Sim};

use crate::support::*;

fn room(capacity: usize) -> Buffer {
    Buffer::try_with_capacity(capacity).unwrap()
}

fn bytes(bytes: &[u8]) -> Buffer {
    Buffer::try_from_slice(bytes).unwrap()
}

/// A machine on which what is ready completes so much later.
fn late_by(time: Duration) -> Sim {
    Sim::builder().completion(Completion::PendLate).provider(move |config| config.late_by = time).build()
}

/// Number of bytes that are sent at a time.
const CHUNK: usize = 40_000;

/// A receive that waits for an abandoned one is given up when that ends, at any distance: the next one has
/// its turn. The model `connection::a_claim_given_up_at_the_end_of_the_abandoned_receive` shows it for every
/// distance there is; this is the whole library, near the one that matters.
#[test]
fn a_receive_given_up_at_the_end_of_an_abandoned_one() {
    late_by(Duration::from_micros(30)).run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let mut left = 0;
        let mut spin = 500_u32;
        for round in 0..3000 {
            if left < 100 {
                peer.send(&vec![7; CHUNK]);
                eventually(|| wait(connection.receive_backlog()).unwrap() > 100);
                left += CHUNK;
            }
            let mut abandoned = Box::pin(connection.receive(room(1)));
            if poll(&mut abandoned).is_ready() {
                left -= 1;
                continue;
            }
            drop(abandoned);
            let wakes = Arc::new(Wakes::default());
            let mut claim = Box::pin(connection.receive(room(1)));
            if wakes.poll(&mut claim).is_ready() {
                left -= 2;
                spin = spin.saturating_sub(1);
                continue;
            }
            for _ in 0..spin {
                std::hint::spin_loop();
            }
            // The distance is kept near the moment at which the abandoned one ends.
            spin = if wakes.count() > 0 { spin.saturating_sub(1 + round % 3) } else { spin + 1 + round % 3 };
            drop(claim);
            // Nobody receives any more, so a turn comes as soon as the abandoned one has ended.
            eventually(|| match poll(&mut Box::pin(connection.receive(room(1)))) {
                Poll::Ready((Err(error), _)) => {
                    assert_eq!(error.status(), Status::DEVICE_BUSY);
                    false
                }
                Poll::Ready((Ok(_), _)) | Poll::Pending => true,
            });
            left -= 3;
        }
        drop((connection, listener));
        driver.unload();
    });
}

/// More receives than the client keeps memory for after a few connections.
const MANY: usize = 12;

/// A receive that finds no memory gives its turn back, whether it had it at once or waited for it.
#[test]
fn a_receive_without_memory_gives_its_turn_back() {
    for claims in [false, true] {
        late_by(Duration::from_millis(20)).run(move |sim| {
            let driver = Driver::start();
            let listener = driver.listen();
            let (mut connection, peer) = connected(&listener);
            let others: Vec<_> = (0..MANY).map(|_| connected(&listener)).collect();
            let wakes = Arc::new(Wakes::default());
            if claims {
                peer.send(b"kept");
                eventually(|| wait(connection.receive_backlog()).unwrap() > 0);
                let mut abandoned = Box::pin(connection.receive(room(1)));
                assert!(poll(&mut abandoned).is_pending());
                drop(abandoned);
            }
            let mut receive = Box::pin(connection.receive_exact(room(8)));
            if claims {
                assert!(wakes.poll(&mut receive).is_pending());
                eventually(|| wakes.count() > 0);
            }
            let (others, peers): (Vec<_>, Vec<_>) = others.into_iter().unzip();
            let mut waiting: Vec<_> = others.into_iter().map(|other| receiving(other, room(8))).collect();
            sim.kernel().faults().fail_from(1);
            // The memory that the client keeps is taken by receives that wait.
            let refused: Vec<_> = waiting.iter_mut().map(|receive| poll(receive).is_ready()).collect();
            let (result, buffer) = ready(&mut receive);
            sim.kernel().faults().clear();
            assert!(result.unwrap_err().is_out_of_memory() && refused.contains(&true));
            drop(receive);
            let mut again = Box::pin(connection.receive(buffer));
            match poll(&mut again) {
                Poll::Pending => {}
                Poll::Ready((result, _)) => drop(result.expect("its turn is free")),
            }
            drop(again);
            drop((waiting, peers, connection, listener));
            driver.unload();
        });
    }
}

/// The close of a connection ends a receive that waits for an abandoned one, too.
#[test]
fn a_receive_that_waits_for_its_turn_ends_with_the_connection() {
    late_by(Duration::from_millis(20)).run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        peer.send(b"for nobody");
        eventually(|| wait(connection.receive_backlog()).unwrap() > 0);
        let mut abandoned = Box::pin(connection.receive(room(1)));
        assert!(poll(&mut abandoned).is_pending());
        drop(abandoned);
        let wakes = Arc::new(Wakes::default());
        let control = connection.control();
        let mut claim = Box::pin(connection.receive_exact(room(8)));
        assert!(wakes.poll(&mut claim).is_pending());
        wait(control.close());
        // It is woken, and needs no close to be looked at again.
        assert!(wakes.count() > 0);
        let (result, kept) = ready(&mut claim);
        assert!(result.unwrap_err().is_socket_dead());
        assert_eq!(&kept[..], b"f");
        drop((peer, listener));
        driver.unload();
    });
}

/// A disconnect follows the sends that were posted before it, and none comes after it.
///
/// Prevents: SND-15
#[test]
fn a_disconnect_follows_the_posted_sends() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer) = connected(&listener);
        let (receiving, mut sending) = connection.into_split();
        let posted = [b"one", b"two", b"six"].map(|text| sending.post(bytes(text)));
        let mut disconnect = Box::pin(sending.shutdown());
        let made = poll(&mut disconnect);
        drop(disconnect);
        let late = wait(sending.post(bytes(b"late"))).0.unwrap_err();
        assert_eq!(late.status(), Status::LOCAL_DISCONNECT);
        let second = wait(sending.shutdown()).unwrap_err();
        assert_eq!(second.status(), Status::INVALID_DEVICE_STATE);
        for send in posted {
            assert_eq!(wait(send).0, Ok(3));
        }
        if made.is_ready() {
            assert_eq!(peer.end(), End::Graceful(b"onetwosix".to_vec()));
        }
        drop((receiving, sending, listener));
        driver.unload();
    });
}

/// A posted send that is detached goes on without its future; one that is dropped is cancelled.
#[test]
fn a_detached_send_goes_on() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer) = connected(&listener);
        let (receiving, mut sending) = connection.into_split();
        let large = vec![7; 8 << 20];
        sending.post(bytes(&large)).detach();
        sending.post(bytes(b"end")).detach();
        let mut expected = large;
        expected.extend_from_slice(b"end");
        assert!(peer.receive(expected.len()) == expected);
        wait(sending.shutdown()).unwrap();
        drop((receiving, sending, listener));
        driver.unload();
    });
}

/// A posted send that fails lets nothing out behind it, whether anybody looks at it or not: not bytes, and no
/// end of the stream that would make the rest look whole.
#[test]
fn nothing_goes_out_behind_a_posted_send_that_failed() {
    for_each_mode(|sim| {
        for detaches in [true, false] {
            let driver = Driver::start();
            let listener = driver.listen();
            let (connection, peer) = connected(&listener);
            let (receiving, mut sending) = connection.into_split();
            let buffer = || bytes(b"lost");
            // More than the blocks that are kept from earlier requests.
            let buffers: Vec<_> = (0..64).map(|_| buffer()).collect();
            wait(sending.send(bytes(b"head"))).0.unwrap();
            let behind = buffer();
            sim.kernel().faults().fail_from(1);
            let posted: Vec<_> = buffers.into_iter().map(|buffer| sending.post(buffer)).collect();
            sim.kernel().faults().clear();
            let behind = sending.post(behind);
            if detaches {
                for posted in posted {
                    posted.detach();
                }
            } else {
                let results: Vec<_> = posted.into_iter().map(|posted| wait(posted).0).collect();
                assert!(results.is_sorted_by_key(Result::is_err), "{results:?}");
                assert!(results.last().unwrap().is_err());
            }
            let aborted = |error: wsk::Error| assert_eq!(error.status(), Status::CONNECTION_ABORTED);
            aborted(wait(behind).0.unwrap_err());
            aborted(wait(sending.send(bytes(b"tail"))).0.unwrap_err());
            aborted(wait(sending.shutdown()).unwrap_err());
            drop((receiving, sending));
            assert_eq!(peer.end(), End::Reset);
            drop(listener);
            driver.unload();
        }
    });
}

/// Nothing goes out behind a send that was dropped under way.
#[test]
fn nothing_goes_out_behind_a_send_that_was_dropped() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let mut dropped = Box::pin(connection.send(bytes(&vec![7; 32 << 20])));
        assert!(poll(&mut dropped).is_pending());
        drop(dropped);
        let (sent, _) = wait(connection.send(bytes(b"tail")));
        assert_eq!(sent.unwrap_err().status(), Status::CONNECTION_ABORTED);
        assert_eq!(wait(connection.shutdown()).unwrap_err().status(), Status::CONNECTION_ABORTED);
        drop(connection);
        assert_eq!(peer.end(), End::Reset);
        drop(listener);
        driver.unload();
    });
}

/// The halves of one connection can be put together again, and those of two cannot; the last half closes it.
///
/// Prevents: CLOSE-13
#[test]
fn halves_are_reunited() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let ((one, peer), (other, _other_peer)) = (connected(&listener), connected(&listener));
        let (one_receives, one_sends) = one.into_split();
        let (other_receives, other_sends) = other.into_split();
        let error = one_receives.reunite(other_sends).unwrap_err();
        assert_eq!(error.to_string(), "the halves are of different connections");
        let (one_receives, other_sends) = error.into_inner();
        let other = other_receives.reunite(other_sends).unwrap();
        assert_eq!(driver.client.open_sockets(), 3);
        drop(one_receives);
        assert!(one_sends.is_open());
        assert_eq!(one_sends.peer_addr(), peer.local());
        let control = one_sends.control();
        drop(one_sends);
        assert!(!control.is_open());
        assert_eq!(wait(control.closed()), wsk::CloseReason::Local);
        drop(other);
        driver.await_sockets(1);
        drop(listener);
        driver.unload();
    });
}

/// The flags of a send reach WSK.
#[test]
fn a_send_without_delay_says_so() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, _peer) = connected(&listener);
        let undelayed = || {
            let sockets = sim.provider().open_sockets();
            let of = |socket: &wsk_sim::wsk_provider::OpenSocket| {
                sim.provider().undelayed_sends(socket.address as *mut _)
            };
            sockets.iter().filter_map(of).sum::<u64>()
        };
        wait(connection.send(bytes(b"delayed, perhaps"))).0.unwrap();
        assert_eq!(undelayed(), 0);
        wait(connection.send_with(bytes(b"at once"), SendFlags::NO_DELAY)).0.unwrap();
        assert_eq!(undelayed(), 1);
        drop((connection, listener));
        driver.unload();
    });
}
