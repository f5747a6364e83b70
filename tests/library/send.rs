//! Sending and disconnecting.

use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use wsk::SendFlags;
use wsk::{Buffer, SendHalf, Status};
use wsk_sim::raw::{End, Peer};
use wsk_sim::wsk_provider::behaviours::{AbortiveBuffer, EmptySend, SecondDisconnect, SendAfterDisconnect};
use wsk_sim::{Completion, Sim};

use crate::support::*;

fn bytes(bytes: &[u8]) -> Buffer {
    Buffer::try_from_slice(bytes).unwrap()
}

/// More than any transport buffers for a peer that does not read.
fn much() -> Buffer {
    let mut buffer = Buffer::try_with_capacity(15 << 20).unwrap();
    buffer.set_len(15 << 20).unwrap();
    buffer
}

/// The buffer goes to WSK and comes back.
///
/// Prevents: SND-08, SND-09, LIFE-09, IRP-24
#[test]
fn everything_is_sent_in_order() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer) = connected(&listener);
        let (_receiving, mut connection) = connection.into_split();
        let (sent, mut buffer) = wait(connection.send(bytes(b"one ")));
        assert_eq!(sent.unwrap(), 4);
        buffer.as_mut_slice().copy_from_slice(b"two ");
        let (sent, mut buffer) = wait(connection.send_with(buffer, SendFlags::NO_DELAY));
        assert_eq!(sent.unwrap(), 4);
        buffer.truncate(2);
        buffer.as_mut_slice().copy_from_slice(b"3 ");
        let mut several = Vec::new();
        for part in [buffer, bytes(b"four "), bytes(b"five")] {
            let mut send = Box::pin(connection.post(part));
            match poll(&mut send) {
                std::task::Poll::Ready((sent, _)) => drop(sent.unwrap()),
                std::task::Poll::Pending => several.push(send),
            }
        }
        for send in several {
            wait(send).0.unwrap();
        }
        assert_eq!(peer.receive(19), b"one two 3 four five");
        drop((connection, listener));
        driver.unload();
    });
}

/// Sends beyond the ideal backlog are sends like any other.
///
/// Prevents: SND-13
#[test]
fn the_ideal_backlog_is_advice() {
    Sim::builder().provider(|config| config.ideal_send_backlog = 4).build().run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let ideal = wait(connection.ideal_send_backlog()).unwrap();
        assert_eq!(ideal, 4);
        wait(connection.send(bytes(&[7; 1000]))).0.unwrap();
        assert_eq!(peer.receive(1000), [7; 1000]);
        drop((connection, listener));
        driver.unload();
    });
}

/// Sending nothing does nothing, whatever WSK would have said to it.
#[test]
fn an_empty_send_succeeds() {
    for_each_choice(
        |behaviours, choice: EmptySend| behaviours.empty_send = choice,
        |_, _| {
            let driver = Driver::start();
            let listener = driver.listen();
            let (mut connection, peer) = connected(&listener);
            let (sent, buffer) = wait(connection.send(Buffer::try_with_capacity(4).unwrap()));
            assert_eq!((sent.unwrap(), buffer.capacity()), (0, 4));
            wait(connection.shutdown_after(Buffer::try_with_capacity(4).unwrap())).0.unwrap();
            peer.expect_end();
            drop((connection, listener));
            driver.unload();
        },
    );
}

/// A send that is dropped while WSK has its buffer: the memory stays until WSK is done with it.
///
/// Prevents: LIFE-09, IRP-06, IRP-10, IRP-16
#[test]
fn a_send_may_be_dropped_at_any_point() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        drop(connection.send(bytes(b"never")));
        let mut sending = Box::pin(connection.send(much()));
        assert!(poll(&mut sending).is_pending());
        drop(sending);
        drop((connection, peer));
        driver.await_sockets(1);
        // And one whose outcome is not looked at, while the connection goes.
        let (connection, peer) = connected(&listener);
        let (receiving, mut half) = connection.into_split();
        let mut sending = Box::pin(half.post(much()));
        let _ = poll(&mut sending);
        drop((receiving, half));
        driver.await_sockets(1);
        assert!(ready_or_done(&mut sending));
        drop((sending, peer, listener));
        driver.unload();
    });
}

/// The send has ended, or had its say before.
fn ready_or_done(sending: &mut std::pin::Pin<Box<wsk::Posted>>) -> bool {
    let (sent, buffer) = ready(sending);
    assert_eq!(buffer.capacity(), 15 << 20);
    sent.is_err()
}

/// After a graceful disconnect of this side nothing is sent, and WSK is not even asked.
///
/// Prevents: SND-15, DISC-29
#[test]
fn nothing_is_sent_after_a_graceful_disconnect() {
    for_each_choice(
        |behaviours, choice: SendAfterDisconnect| behaviours.send_after_disconnect = choice,
        |_, _| {
            let driver = Driver::start();
            let listener = driver.listen();
            let (mut connection, peer) = connected(&listener);
            let (ended, last) = wait(connection.shutdown_after(bytes(b"last words")));
            assert_eq!((ended, &last[..]), (Ok(()), &b"last words"[..]));
            let (refused, buffer) = wait(connection.send(bytes(b"too late")));
            assert_eq!(refused.unwrap_err().status(), Status::LOCAL_DISCONNECT);
            assert_eq!(&buffer[..], b"too late");
            assert_eq!(peer.end(), End::Graceful(b"last words".to_vec()));
            // Receiving goes on until the peer ends its side, and the socket is there until it is closed.
            peer.send(b"answer").half_close();
            let (received, buffer) = wait(connection.receive_exact(Buffer::try_with_capacity(16).unwrap()));
            assert_eq!(received.unwrap_err().status(), Status::END_OF_FILE);
            assert_eq!(&buffer[..], b"answer");
            assert_eq!(driver.client.open_sockets(), 2);
            wait(connection.close());
            drop(listener);
            driver.unload();
        },
    );
}

/// A second graceful disconnect has one answer, whatever WSK would have said to it.
#[test]
fn a_second_disconnect_is_refused() {
    for_each_choice(
        |behaviours, choice: SecondDisconnect| behaviours.second_disconnect = choice,
        |_, _| {
            let driver = Driver::start();
            let listener = driver.listen();
            let (mut connection, peer) = connected(&listener);
            wait(connection.shutdown()).unwrap();
            let again = wait(connection.shutdown()).unwrap_err();
            assert_eq!(again.status(), Status::INVALID_DEVICE_STATE);
            peer.expect_end();
            drop((connection, peer, listener));
            driver.unload();
        },
    );
}

/// An abort has no last buffer, by its signature, and resets at once; it ends a disconnect that is stuck.
///
/// Prevents: DISC-23, DISC-29
#[test]
fn an_abort_resets() {
    for_each_choice(
        |behaviours, choice: AbortiveBuffer| behaviours.abortive_buffer = choice,
        |sim, _| {
            for completion in COMPLETIONS {
                sim.provider().configure(|config| config.completion = completion);
                let driver = Driver::start();
                let listener = driver.listen();
                let (mut connection, peer) = connected(&listener);
                wait(connection.abort()).unwrap();
                peer.expect_reset();
                assert!(wait(connection.receive(bytes(b"x"))).0.is_err());
                assert_eq!(driver.client.open_sockets(), 2);
                drop(connection);

                let (stuck, peer) = connected(&listener);
                let control = stuck.control();
                let (receiving, mut stuck) = stuck.into_split();
                let mut sending = Box::pin(stuck.post(much()));
                assert!(poll(&mut sending).is_pending());
                let mut disconnect = Box::pin(stuck.shutdown());
                assert!(poll(&mut disconnect).is_pending());
                wait(control.abort()).unwrap();
                assert!(wait(sending).0.is_err());
                // It is forced to end, one way or another.
                let _ = wait(disconnect);
                drop((receiving, stuck, peer, listener));
                driver.unload();
            }
        },
    );
}

/// Disconnects that are dropped at any point.
///
/// Prevents: IRP-10, IRP-16, LIFE-09
#[test]
fn a_disconnect_may_be_dropped_at_any_point() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        drop(connection.shutdown_after(bytes(b"never")));
        wait(connection.send(bytes(b"still"))).0.unwrap();
        assert_eq!(peer.receive(5), b"still");
        let (receiving, mut half) = connection.into_split();
        let mut sending = Box::pin(half.post(much()));
        assert!(poll(&mut sending).is_pending());
        let mut disconnect = Box::pin(half.shutdown_after(bytes(b"stuck")));
        assert!(poll(&mut disconnect).is_pending());
        drop(disconnect);
        assert_eq!(wait(half.send(bytes(b"no"))).0.unwrap_err().status(), Status::LOCAL_DISCONNECT);
        drop((sending, receiving, half));
        driver.await_sockets(1);

        let (connection, peer) = connected(&listener);
        let mut abort = Box::pin(connection.abort());
        let _ = poll(&mut abort);
        drop(abort);
        peer.expect_reset();
        drop((connection, listener));
        driver.unload();
    });
}

/// Threads send while another one disconnects, under a lock of the driver: every send is before it, or
/// refused.
///
/// Prevents: SND-15, CLOSE-01
#[test]
fn sends_race_with_a_disconnect() {
    for completion in [Completion::Natural, Completion::PendEarly, Completion::Random(3)] {
        Sim::builder().completion(completion).build().run(|sim| {
            let driver = Driver::start();
            let listener = driver.listen();
            for _ in 0..30 {
                let (connection, peer) = connected(&listener);
                let (receiving, half) = connection.into_split();
                let half = Arc::new(Mutex::new(half));
                let senders: Vec<_> =
                    (0..3).map(|_| sim.thread("sender", send_until_refused(&half))).collect();
                let reader = std::thread::spawn(move || peer.end());
                for _ in 0..200 {
                    std::hint::spin_loop();
                }
                wait(half.lock().unwrap().shutdown()).unwrap();
                let sent: usize = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
                let End::Graceful(received) = reader.join().unwrap() else {
                    panic!("it was disconnected gracefully")
                };
                assert_eq!(received.len(), sent);
                drop((receiving, half));
            }
            drop(listener);
            driver.unload();
        });
    }
}

fn send_until_refused(half: &Arc<Mutex<SendHalf>>) -> impl FnOnce() -> usize + Send + 'static {
    let half = Arc::clone(half);
    move || {
        let mut sent = 0;
        loop {
            // Submitted under the lock, which is free while the send is under way.
            let posted = half.lock().unwrap().post(bytes(b"abc"));
            match wait(posted).0 {
                Ok(count) => sent += count,
                Err(error) => {
                    assert_eq!(error.status(), Status::LOCAL_DISCONNECT);
                    return sent;
                }
            }
        }
    }
}

/// Calls on a connection are let in until it closes, and none after: threads call whatever there is to call
/// while another one closes, and the close comes last.
///
/// Prevents: CLOSE-01, CLOSE-12, CLOSE-13, LIFE-05
#[test]
fn calls_race_with_the_close() {
    for completion in COMPLETIONS {
        Sim::builder().completion(completion).build().run(|sim| {
            let driver = Driver::start();
            let listener = driver.listen();
            for round in 0..15 {
                let (connection, peer) = connected(&listener);
                let control = connection.control();
                let (mut receiving, mut sending) = connection.into_split();
                let callers = [
                    sim.thread("asks", move || {
                        for _ in 0..20 {
                            let _ = wait(control.receive_backlog());
                        }
                    }),
                    sim.thread("sends", move || {
                        for _ in 0..20 {
                            let _ = wait(sending.send(bytes(b"x")));
                        }
                    }),
                    sim.thread("receives", move || {
                        for _ in 0..20 {
                            let mut receive = Box::pin(receiving.receive(bytes(b"y")));
                            let _ = poll(&mut receive);
                            drop(receive);
                            let _ = receiving.inspect_id();
                        }
                    }),
                ];
                if round % 2 == 0 {
                    std::thread::sleep(Duration::from_micros(100));
                }
                // The last half goes with whichever thread is last.
                for caller in callers {
                    caller.join().unwrap();
                }
                peer.expect_reset();
            }
            driver.await_sockets(1);
            drop(listener);
            driver.unload();
        });
    }
}

/// A close asked for while calls are executing waits for them.
///
/// Prevents: CLOSE-01
#[test]
fn unloading_races_with_calls() {
    for completion in COMPLETIONS {
        Sim::builder().completion(completion).build().run(|sim| {
            for _ in 0..15 {
                let driver = Driver::start();
                let listener = driver.listen();
                let (mut connection, peer): (_, Peer) = connected(&listener);
                let caller = sim.thread("caller", move || {
                    while wait(connection.send(bytes(b"x"))).0.is_ok() {}
                    let _ = wait(connection.receive(bytes(b"y")));
                    assert!(!connection.is_open());
                });
                let accepter = sim.thread("accepter", move || while wait(listener.accept()).is_ok() {});
                let reader = std::thread::spawn(move || drop(peer.end()));
                std::thread::yield_now();
                driver.unload();
                caller.join().unwrap();
                accepter.join().unwrap();
                reader.join().unwrap();
            }
        });
    }
}

/// A last buffer that could not be sent for lack of memory comes back, and can be sent again.
#[test]
fn a_last_buffer_without_memory_comes_back() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let datagrams = wait(driver.provider.datagram().bind(localhost())).unwrap();
        let waiting = take_kept_memory(sim, &datagrams);
        let mut ending = Box::pin(connection.shutdown_after(bytes(b"last words")));
        let polled = poll_without_memory(sim, &mut ending);
        let Poll::Ready((ended, last)) = polled else { panic!("memory was out") };
        assert!(ended.unwrap_err().is_out_of_memory());
        drop(ending);
        assert_eq!(&last[..], b"last words");
        wait(connection.shutdown_after(last)).0.unwrap();
        assert_eq!(peer.end(), End::Graceful(b"last words".to_vec()));
        drop((waiting, datagrams, connection, listener));
        driver.unload();
    });
}
