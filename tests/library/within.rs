//! Time limits: what is cancelled because its time is up gives back its buffer, and loses nothing.

use std::time::{Duration, Instant};

use wsk::{Buffer, Connection, Operation, Status};
use wsk_sim::raw::{End, Peer};
use wsk_sim::{Completion, FaultPoint, Sim};

use crate::support::*;

/// A time that nothing in a test takes.
const LONG: Duration = Duration::from_hours(1);
/// A time that passes while a test waits.
const SHORT: Duration = Duration::from_millis(5);

fn room(capacity: usize) -> Buffer {
    Buffer::try_with_capacity(capacity).unwrap()
}

/// Asserts that the time was up for the operation itself.
#[track_caller]
fn expired(error: wsk::Error, operation: Operation) {
    assert_eq!((error.operation(), error.status()), (operation, Status::IO_TIMEOUT));
    assert!(error.is_timeout());
}

/// The buffer comes back, and the stream goes on as if the receive had never been.
///
/// Prevents: IRP-10, IRP-16, LIFE-09
#[test]
fn a_receive_whose_time_is_up_gives_its_buffer_back() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        for limit in [SHORT, Duration::ZERO] {
            let (received, buffer) = wait(connection.receive(room(16)).within(limit));
            expired(received.unwrap_err(), Operation::Receive);
            assert_eq!((buffer.capacity(), buffer.len()), (16, 0));
        }
        peer.send(b"one");
        let (received, buffer) = wait(connection.receive(room(16)).within(LONG));
        assert_eq!((received.unwrap(), &buffer[..]), (3, &b"one"[..]));
        // A result that is there is not late.
        peer.send(b"two");
        eventually(|| wait(connection.receive_backlog()).unwrap() == 3);
        peer.half_close();
        let (received, buffer) = wait(connection.receive_exact(buffer.slice(0..3).unwrap()).within(LONG));
        received.unwrap();
        assert_eq!(&buffer.into_inner()[..], b"two");
        wait(connection.drain().within(LONG)).unwrap();
        drop((connection, listener));
        driver.unload();
    });
}

/// An exact receive has the bytes that came in its buffer, with the error, if WSK hands them out with the
/// cancellation; otherwise the next receive gets them.
///
/// Prevents: RCV-06, IRP-16
#[test]
fn an_exact_receive_whose_time_is_up_has_the_bytes_that_came() {
    for tells in [0, 1] {
        Sim::builder().completion(Completion::Natural).build().run(move |sim| {
            sim.choose(FaultPoint::CancelledWaitAll, tells);
            let driver = Driver::start();
            let listener = driver.listen();
            let (mut connection, peer) = connected(&listener);
            peer.send(b"abc");
            eventually(|| wait(connection.receive_backlog()).unwrap() == 3);
            let (received, buffer) = wait(connection.receive_exact(room(8)).within(SHORT));
            expired(received.unwrap_err(), Operation::Receive);
            assert_eq!(&buffer[..], if tells == 1 { &b"abc"[..] } else { b"" });
            let mut seen = buffer.to_vec();
            peer.send(b"defgh");
            let rest = room(8 - seen.len());
            let (received, buffer) = wait(connection.receive_exact(rest).within(LONG));
            received.unwrap();
            seen.extend_from_slice(&buffer);
            assert_eq!(seen, b"abcdefgh");
            drop((connection, listener));
            driver.unload();
        });
    }
}

/// Bytes that come when the time is just up are the result, or those of the next receive: none is lost or
/// comes twice, wherever between the two the end of the time falls.
///
/// Prevents: IRP-16, LIFE-09
#[test]
fn no_byte_is_lost_at_the_limit() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let (mut expected, mut seen, mut late) = (Vec::new(), Vec::new(), 0);
        for round in 0..300_u32 {
            let limit = Duration::from_micros(u64::from(round % 60) * 5);
            let mut receive = Box::pin(connection.receive(room(4)).within(limit));
            let early = poll(&mut receive);
            let sent = round.to_le_bytes();
            peer.send(&sent);
            expected.extend_from_slice(&sent);
            let (received, buffer) = match early {
                std::task::Poll::Ready(output) => output,
                std::task::Poll::Pending if round % 7 == 3 => {
                    // Given up altogether, before or after the time.
                    drop(receive);
                    continue;
                }
                std::task::Poll::Pending => ready(&mut receive),
            };
            match received {
                Ok(count) => assert_eq!(count, buffer.len()),
                Err(error) => {
                    late += 1;
                    expired(error, Operation::Receive);
                }
            }
            seen.extend_from_slice(&buffer);
        }
        while seen.len() < expected.len() {
            let (received, buffer) = wait(connection.receive(room(64)));
            assert!(received.unwrap() > 0, "the stream has ended");
            seen.extend_from_slice(&buffer);
        }
        assert_eq!(seen, expected);
        assert!(late > 0, "no limit expired");
        drop((connection, listener));
        driver.unload();
    });
}

/// Leaves a receive to WSK that has the bytes of the peer, and that ends late.
fn abandon_a_receive(connection: &mut Connection, peer: &Peer) {
    peer.send(b"kept");
    eventually(|| wait(connection.receive_backlog()).unwrap() == 4);
    let mut abandoned = Box::pin(connection.receive(room(4)));
    assert!(poll(&mut abandoned).is_pending());
}

/// A receive behind an abandoned one, which ends late, leaves when its time is up, and gives its claim up.
#[test]
fn a_receive_that_waits_for_its_turn_has_a_limit_too() {
    let late = Duration::from_millis(200);
    let machine = Sim::builder().completion(Completion::PendLate);
    machine.provider(move |config| config.late_by = late).build().run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        abandon_a_receive(&mut connection, &peer);
        let (received, buffer) = wait(connection.receive(room(16)).within(SHORT));
        expired(received.unwrap_err(), Operation::Receive);
        assert_eq!((buffer.capacity(), buffer.len()), (16, 0));
        // The claim is free for the next one, which gets the bytes.
        let (received, buffer) = wait(connection.receive(buffer));
        assert_eq!((received.unwrap(), &buffer[..]), (4, &b"kept"[..]));
        drop((connection, listener));
        driver.unload();
    });
}

/// Bytes more than any transport buffers for a peer that does not read.
const MUCH: usize = 15 << 20;

/// The fate of the bytes of a cancelled send is not known, so the stream ends there, with a reset.
///
/// Prevents: SND-09, LIFE-09, IRP-16
#[test]
fn a_send_whose_time_is_up_gives_its_buffer_back_and_ends_the_stream() {
    for_each_mode(|_| {
        for posted in [false, true] {
            let driver = Driver::start();
            let listener = driver.listen();
            let (connection, peer) = connected(&listener);
            let (receive, mut send) = connection.into_split();
            let mut buffer = room(MUCH);
            buffer.set_len(MUCH).unwrap();
            let (sent, buffer) = if posted {
                wait(send.post(buffer).within(SHORT))
            } else {
                wait(send.send(buffer).within(SHORT))
            };
            expired(sent.unwrap_err(), Operation::Send);
            assert_eq!(buffer.len(), MUCH);
            let (sent, _) = wait(send.send(Buffer::try_from_slice(b"more").unwrap()));
            assert_eq!(sent.unwrap_err().status(), Status::CONNECTION_ABORTED);
            assert_eq!(wait(send.shutdown()).unwrap_err().status(), Status::CONNECTION_ABORTED);
            drop((receive, send));
            assert!(matches!(peer.end(), End::Reset), "a stream with a hole looks whole");
            drop(listener);
            driver.unload();
        }
    });
}

/// A send that succeeds leaves the stream whole, and one that does not ends it, wherever the end of the time
/// falls.
#[test]
fn a_send_is_whole_or_the_stream_ends() {
    Sim::new().run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let mut cut = 0;
        for round in 0..120_u64 {
            let (mut connection, peer) = connected(&listener);
            let read = move || std::thread::spawn(move || peer.end());
            // The first send has no time, and a peer that does not read yet, so it cannot succeed.
            let (size, mut later, reader) =
                if round == 0 { (MUCH, Some(read), None) } else { (1 << 22, None, Some(read())) };
            let mut sent = 0;
            let ended = (0..2).find_map(|_| {
                let mut buffer = room(size);
                buffer.set_len(size).unwrap();
                // From no time to more than it takes.
                let limit = Duration::from_micros(round * round * 10);
                let (result, _) = wait(connection.send(buffer).within(limit));
                sent += result.as_ref().copied().unwrap_or(0);
                result.err()
            });
            let reader = reader.unwrap_or_else(|| later.take().expect("one of the two")());
            if let Some(error) = ended {
                expired(error, Operation::Send);
                cut += 1;
                assert_eq!(wait(connection.shutdown()).unwrap_err().status(), Status::CONNECTION_ABORTED);
                drop(connection);
                assert_eq!(reader.join().unwrap(), End::Reset);
            } else {
                wait(connection.shutdown()).unwrap();
                assert!(matches!(reader.join().unwrap(), End::Graceful(bytes) if bytes.len() == sent));
                drop(connection);
            }
        }
        assert!(cut > 0, "no limit expired");
        drop(listener);
        driver.unload();
    });
}

/// A send that was whole before its time was up leaves the stream whole.
#[test]
fn a_send_in_time_leaves_the_stream_whole() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let (sent, _) = wait(connection.send(Buffer::try_from_slice(b"whole").unwrap()).within(LONG));
        assert_eq!(sent.unwrap(), 5);
        wait(connection.shutdown().within(LONG)).unwrap();
        assert_eq!(peer.end(), End::Graceful(b"whole".to_vec()));
        drop((connection, listener));
        driver.unload();
    });
}

/// An accept whose time is up leaves no socket behind, and one that wins the race is not lost.
///
/// Prevents: LSN-31, LSN-34, IRP-16
#[test]
fn an_accept_has_a_limit_and_loses_no_connection() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        expired(wait(listener.accept().within(SHORT)).unwrap_err(), Operation::Accept);
        for round in 0..100 {
            let mut accept = Box::pin(listener.accept().within(Duration::from_micros(round * 10)));
            let early = poll(&mut accept);
            let peer = Peer::connect(listener.local_addr());
            let accepted = match early {
                std::task::Poll::Ready(accepted) => accepted,
                std::task::Poll::Pending => ready(&mut accept),
            };
            let connection = accepted.unwrap_or_else(|error| {
                expired(error, Operation::Accept);
                wait(listener.accept()).unwrap()
            });
            assert_eq!(connection.peer_addr(), peer.local());
        }
        drop(listener);
        driver.unload();
    });
}

/// Connects, datagrams and aborts have limits that end nothing which is in time; a datagram that does not
/// come gives the buffer back.
///
/// Prevents: IRP-16, LIFE-09
#[test]
fn the_other_operations_have_limits() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let connection = wait(driver.provider.connect(listener.local_addr()).within(LONG)).unwrap();
        let accepted = wait(listener.accept().within(LONG)).unwrap();
        assert_eq!(accepted.peer_addr(), connection.local_addr());
        wait(connection.abort().within(LONG)).unwrap();

        let socket = wait(driver.provider.datagram().bind(localhost())).unwrap();
        let (received, buffer) = wait(socket.receive_from(room(16)).within(SHORT));
        expired(received.unwrap_err(), Operation::ReceiveFrom);
        assert_eq!(buffer.capacity(), 16);
        let hello = Buffer::try_from_slice(b"hello").unwrap();
        let (sent, hello) = wait(socket.send_to(hello, socket.local_addr()).within(LONG));
        assert_eq!((sent.unwrap(), &hello[..]), (5, &b"hello"[..]));
        let (received, buffer) = wait(socket.receive_from(buffer).within(LONG));
        assert_eq!((received.unwrap().len, &buffer[..]), (5, &b"hello"[..]));
        drop((connection, accepted, socket, listener));
        driver.unload();
    });
}

/// A connect that gets no answer ends with its limit, and leaves no socket behind.
///
/// Prevents: IRP-16, LIFE-05
#[test]
fn a_connect_without_an_answer_ends_with_its_limit() {
    let machine = Sim::builder().completion(Completion::PendLate);
    machine.provider(move |config| config.late_by = Duration::from_millis(100)).build().run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let start = Instant::now();
        match wait(driver.provider.connect(listener.local_addr()).within(SHORT)) {
            // It was made before the cancellation could be.
            Ok(connection) => drop(connection),
            Err(error) => expired(error, Operation::SocketConnect),
        }
        assert!(start.elapsed() < BOUND);
        driver.await_sockets(1);
        drop(listener);
        driver.unload();
    });
}

/// Receives what the peer sends.
#[track_caller]
fn receives(connection: &mut Connection, peer: &Peer) {
    peer.send(b"on");
    let (received, buffer) = wait(connection.receive_exact(room(2)));
    received.unwrap();
    assert_eq!(&buffer[..], b"on");
}

/// Without memory for the timer nothing has begun; without memory for the operation the timer goes.
#[test]
fn a_limit_without_memory_begins_nothing() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let datagrams = wait(driver.provider.datagram().bind(localhost())).unwrap();
        let (mut timer, mut operation) = (0, 0);
        for _ in 0..2 {
            // The memory that the client keeps is in these; their number decides which of the two is refused.
            let mut waiting = Vec::new();
            loop {
                let mut receive = Box::pin(datagrams.receive_from(room(8)).within(LONG));
                let polled = poll_without_memory(sim, &mut receive);
                let std::task::Poll::Ready((received, buffer)) = polled else {
                    waiting.push(receive);
                    continue;
                };
                let error = received.unwrap_err();
                assert!(error.is_out_of_memory());
                assert_eq!(buffer.capacity(), 8);
                match error.operation() {
                    Operation::Timer => timer += 1,
                    Operation::ReceiveFrom => operation += 1,
                    other => panic!("{other:?}"),
                }
                break;
            }
            let mut send = Box::pin(connection.send(Buffer::try_from_slice(b"x").unwrap()).within(LONG));
            let polled = poll_without_memory(sim, &mut send);
            let std::task::Poll::Ready((sent, buffer)) = polled else { panic!("memory was out") };
            assert!(sent.unwrap_err().is_out_of_memory());
            drop(send);
            // The stream is whole.
            wait(connection.send(buffer)).0.unwrap();
            assert_eq!(peer.receive(1), b"x");
            receives(&mut connection, &peer);
            // One block more is kept when these go; the other kind is refused next.
            drop(waiting.pop());
            drop(wait(datagrams.receive_from(room(8)).within(SHORT)));
            drop(waiting);
        }
        assert!(timer + operation == 2, "{timer} and {operation}");
        drop((connection, datagrams, listener));
        driver.unload();
    });
}

/// The buffer of a receive that never started is empty, also when it had bytes before: its time is up while
/// it waits for its turn.
#[test]
fn stale_bytes_are_not_bytes_that_came() {
    let late = Duration::from_millis(200);
    let machine = Sim::builder().completion(Completion::PendLate);
    machine.provider(move |config| config.late_by = late).build().run(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        abandon_a_receive(&mut connection, &peer);
        // A buffer that is used again, with the bytes of the message before.
        let used = Buffer::try_from_slice(b"old!").unwrap();
        let (received, buffer) = wait(connection.receive_exact(used).within(SHORT));
        assert!(received.unwrap_err().is_timeout());
        // "The bytes that came are in it."
        assert_eq!(&buffer[..], b"", "bytes that never came");
        drop((connection, listener));
        driver.unload();
    });
}

/// The buffer is empty, too, if there is no memory for the timer.
#[test]
fn stale_bytes_without_memory_for_the_timer() {
    Sim::new().run(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, _peer) = connected(&listener);
        let datagrams = wait(driver.provider.datagram().bind(localhost())).unwrap();
        let waiting = take_kept_memory(sim, &datagrams);
        let used = Buffer::try_from_slice(b"old!").unwrap();
        let mut receive = Box::pin(connection.receive_exact(used).within(LONG));
        let polled = poll_without_memory(sim, &mut receive);
        let std::task::Poll::Ready((received, buffer)) = polled else { panic!("memory was out") };
        assert!(received.unwrap_err().is_out_of_memory());
        assert_eq!(&buffer[..], b"", "bytes that never came");
        drop(receive);
        drop((waiting, datagrams, connection, listener));
        driver.unload();
    });
}

/// The time is up while the local address of a new connection is read.
#[test]
fn a_connect_has_its_limit_while_its_address_is_read() {
    let machine = Sim::builder().completion(Completion::PendLate);
    machine.provider(move |config| config.late_by = Duration::from_millis(1)).build().run(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let mut connect =
            Box::pin(driver.provider.connect(listener.local_addr()).within(Duration::from_millis(300)));
        assert!(poll(&mut connect).is_pending());
        driver.await_sockets(2);
        sim.provider().configure(|config| config.late_by = Duration::from_secs(2));
        let start = Instant::now();
        let outcome = ready(&mut connect);
        assert_eq!(outcome.as_ref().unwrap().peer_addr(), listener.local_addr());
        assert!(start.elapsed() < Duration::from_secs(1));
        sim.provider().configure(|config| config.late_by = Duration::from_millis(1));
        drop((connect, outcome, listener));
        driver.unload();
    });
}
