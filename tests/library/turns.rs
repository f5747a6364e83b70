//! Turns on a connection: one receive after the other, and sends before a disconnect, also when one is given up, finds
//! no memory, or is called while another is.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use wsk::connection::SendFlags;
use wsk::{Buffer, Connection, Status};
use wsk_sim::raw::{End, Peer};
use wsk_sim::{Completion, Knob, Sim};

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

/// How many bytes are sent at a time.
const CHUNK: usize = 40_000;

/// A receive that waits for an abandoned one is given up when that ends, at any distance: the next one has its turn. The
/// model `connection::a_claim_given_up_at_the_end_of_the_abandoned_receive` shows it for every distance there is; this
/// is the whole library, near the one that matters.
#[test]
fn a_receive_given_up_at_the_end_of_an_abandoned_one() {
    late_by(Duration::from_micros(30)).run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer) = connected(&listener);
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
            let (connection, peer) = connected(&listener);
            let others: Vec<_> = (0..MANY).map(|_| connected(&listener)).collect();
            let wakes = Arc::new(Wakes::default());
            let mut receive = Box::pin(connection.receive_all(room(8)));
            if claims {
                peer.send(b"kept");
                eventually(|| wait(connection.receive_backlog()).unwrap() > 0);
                let mut abandoned = Box::pin(connection.receive(room(1)));
                assert!(poll(&mut abandoned).is_pending());
                drop(abandoned);
                assert!(wakes.poll(&mut receive).is_pending());
                eventually(|| wakes.count() > 0);
            }
            let mut waiting: Vec<_> =
                others.iter().map(|(other, _)| Box::pin(other.receive(room(8)))).collect();
            sim.kernel().faults().fail_from(1);
            // The memory that the client keeps is taken by receives that wait.
            let refused: Vec<_> = waiting.iter_mut().map(|receive| poll(receive).is_ready()).collect();
            let (result, buffer) = ready(&mut receive);
            sim.kernel().faults().clear();
            assert!(result.unwrap_err().is_out_of_memory() && refused.contains(&true));
            let mut again = Box::pin(connection.receive(buffer));
            match poll(&mut again) {
                Poll::Pending => {}
                Poll::Ready((result, _)) => drop(result.expect("its turn is free")),
            }
            drop((again, waiting, others, connection, listener));
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
        let (connection, peer) = connected(&listener);
        peer.send(b"for nobody");
        eventually(|| wait(connection.receive_backlog()).unwrap() > 0);
        let mut abandoned = Box::pin(connection.receive(room(1)));
        assert!(poll(&mut abandoned).is_pending());
        drop(abandoned);
        let wakes = Arc::new(Wakes::default());
        let mut claim = Box::pin(connection.receive_all(room(8)));
        assert!(wakes.poll(&mut claim).is_pending());
        wait(connection.close());
        // It is woken, and needs no close to be looked at again.
        assert!(wakes.count() > 0);
        let (result, kept) = ready(&mut claim);
        assert!(result.unwrap_err().is_socket_dead());
        assert_eq!(&kept[..], b"f");
        drop((peer, listener));
        driver.unload();
    });
}

/// Stops the next call on a socket until the test lets it go on.
fn stop_in_call(sim: &Sim) -> (Told<()>, Tell<()>) {
    let (tell_reached, reached) = channel();
    let (go_on, told) = channel();
    let mut first = true;
    sim.choose_by(Knob::DieInCall, move |_| {
        if std::mem::take(&mut first) {
            tell_reached.say(());
            told.next();
        }
        0
    });
    (reached, go_on)
}

/// A disconnect waits for a send that is being handed to WSK, and is woken when that has happened. What was sent precedes
/// the end.
///
/// Prevents: SND-15
#[test]
fn a_disconnect_waits_for_a_send_that_is_being_made() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer) = connected(&listener);
        let connection = Arc::new(connection);
        let (reached, go_on) = stop_in_call(sim);
        let sender = sending(sim, &connection);
        reached.next();
        let wakes = Arc::new(Wakes::default());
        let mut disconnect = Box::pin(connection.disconnect());
        assert!(wakes.poll(&mut disconnect).is_pending());
        // Sends are over, and a second disconnect is one too many, though the first is not made yet.
        let late = wait(connection.send(bytes(b"late"))).0.unwrap_err();
        assert_eq!(late.status(), Status::LOCAL_DISCONNECT);
        let second = wait(connection.disconnect()).unwrap_err();
        assert_eq!(second.status(), Status::INVALID_DEVICE_STATE);
        assert_eq!(wakes.count(), 0);
        go_on.say(());
        sender.join().unwrap();
        eventually(|| wakes.count() > 0);
        wait(disconnect).unwrap();
        assert_eq!(peer.end(), End::Graceful(b"early".to_vec()));
        drop((connection, listener));
        driver.unload();
    });
}

/// A disconnect that is dropped while it waits for a send was never made: sends go on, and another one can follow.
#[test]
fn a_disconnect_that_is_dropped_while_it_waits_was_never_made() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer): (Connection, Peer) = connected(&listener);
        let connection = Arc::new(connection);
        let (reached, go_on) = stop_in_call(sim);
        let sender = sending(sim, &connection);
        reached.next();
        let mut disconnect = Box::pin(connection.disconnect());
        assert!(poll(&mut disconnect).is_pending());
        drop(disconnect);
        go_on.say(());
        sender.join().unwrap();
        wait(connection.send(bytes(b" and late"))).0.unwrap();
        wait(connection.disconnect()).unwrap();
        assert_eq!(peer.end(), End::Graceful(b"early and late".to_vec()));
        drop((connection, listener));
        driver.unload();
    });
}

fn sending(sim: &Sim, connection: &Arc<Connection>) -> wsk_sim::nt_user::Joiner<()> {
    let connection = connection.clone();
    sim.thread("sender", move || assert_eq!(wait(connection.send(bytes(b"early"))).0.unwrap(), 5))
}

/// The flags of a send reach WSK.
#[test]
fn a_send_without_delay_says_so() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, _peer) = connected(&listener);
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
