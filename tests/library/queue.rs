//! Queues of receives: bytes come out in order, and none is lost, whatever is dropped or refused when.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use wsk::{Buffer, Operation, ReceiveHalf, ReceiveQueue, Result, SendHalf, Status};
use wsk_sim::raw::Peer;
use wsk_sim::wsk_provider::OpenSocket;
use wsk_sim::{Completion, Sim};

use crate::support::*;

fn room(capacity: usize) -> Buffer {
    Buffer::try_with_capacity(capacity).unwrap()
}

/// A driver with one connection, whose halves are used.
struct Link {
    receive: ReceiveHalf,
    send: SendHalf,
    peer: Peer,
    listener: wsk::Listener,
    driver: Driver,
}

impl Link {
    #[track_caller]
    fn start() -> Self {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer) = connected(&listener);
        let (receive, send) = connection.into_split();
        Self { receive, send, peer, listener, driver }
    }

    /// Waits until so many bytes wait in the transport.
    #[track_caller]
    fn await_data(&self, count: usize) {
        eventually(|| wait(self.send.receive_backlog()).unwrap() >= count);
    }

    /// Ends everything, and gives the peer back.
    fn end(self) -> Peer {
        drop((self.receive, self.send, self.listener));
        self.driver.unload();
        self.peer
    }
}

#[track_caller]
fn next(queue: &mut ReceiveQueue<'_>) -> Result<Option<Buffer>> {
    let next = wait(queue.next());
    assert!(!matches!(&next, Ok(Some(buffer)) if buffer.is_empty()), "a buffer without bytes");
    next
}

/// Takes exactly so many bytes out of a queue, and puts its buffers back.
#[track_caller]
fn take(queue: &mut ReceiveQueue<'_>, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let buffer = next(queue).unwrap().expect("the stream goes on");
        bytes.extend_from_slice(&buffer);
        queue.put_back(buffer);
    }
    assert_eq!(bytes.len(), count);
    bytes
}

/// Receives exactly so many bytes without a queue.
#[track_caller]
fn receive_bytes(receive: &mut ReceiveHalf, count: usize) -> Vec<u8> {
    let (received, buffer) = wait(receive.receive_exact(room(count)));
    received.unwrap();
    buffer.to_vec()
}

fn numbers(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index / 7 + index) as u8).collect()
}

/// Returns whether WSK has a receive of the one connection.
fn receive_waits(sim: &Sim) -> bool {
    let waits = |socket: &OpenSocket| sim.provider().gathered(socket.address as *mut _).is_some();
    sim.provider().open_sockets().iter().any(waits)
}

/// All of the stream comes out in order, and then its end, as often as it is asked for.
///
/// Prevents: RCV-14, LIFE-09, IRP-24
#[test]
fn bytes_come_in_order_and_the_end_is_seen() {
    for_each_mode(|_| {
        let mut link = Link::start();
        let expected = numbers(3000);
        let sender = std::thread::spawn({
            let expected = expected.clone();
            let stream = link.peer.stream().try_clone().unwrap();
            move || {
                for chunk in expected.chunks(11) {
                    std::io::Write::write_all(&mut &stream, chunk).unwrap();
                    std::thread::yield_now();
                }
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            }
        });
        let mut queue = link.receive.queue(4, 7).unwrap();
        assert_eq!(take(&mut queue, expected.len()), expected);
        for _ in 0..3 {
            assert!(next(&mut queue).unwrap().is_none());
        }
        // A buffer that is put back then changes nothing.
        queue.put_back(room(8));
        assert!(next(&mut queue).unwrap().is_none());
        drop(queue);
        assert_eq!(wait(link.receive.receive(room(8))).0.unwrap(), 0);
        let mut queue = link.receive.queue(2, 8).unwrap();
        assert!(next(&mut queue).unwrap().is_none());
        drop(queue);
        sender.join().unwrap();
        link.end();
    });
}

/// As many receives as the queue is deep are under way, also while all buffers but one are used. When all are
/// out, that is an error, and no wait without an end.
#[test]
fn several_receives_are_under_way() {
    for_each_mode(|_| {
        let mut link = Link::start();
        link.peer.send(b"abcdefghijklmnop");
        link.await_data(16);
        let mut queue = link.receive.queue(3, 4).unwrap();
        let taken: Vec<_> = (0..3).map(|_| next(&mut queue).unwrap().unwrap()).collect();
        assert!(taken.iter().map(|buffer| &buffer[..]).eq([&b"abcd"[..], b"efgh", b"ijkl"]));
        for _ in 0..2 {
            let error = next(&mut queue).unwrap_err();
            assert_eq!(
                (error.operation(), error.status()),
                (Operation::Receive, Status::INVALID_DEVICE_STATE)
            );
        }
        for buffer in taken {
            queue.put_back(buffer);
        }
        assert_eq!(take(&mut queue, 4), b"mnop");
        drop(queue);
        link.end();
    });
}

/// A queue takes other buffers, too, of whatever capacity, and posts them at once; those beyond its depth are
/// freed.
#[test]
fn other_buffers_are_put_back() {
    for_each_mode(|sim| {
        let mut link = Link::start();
        link.peer.send(b"abcd");
        link.await_data(4);
        let mut queue = link.receive.queue(1, 4).unwrap();
        // The queue has its own buffer, and is full.
        queue.put_back(room(9));
        assert!(!receive_waits(sim));
        let first = next(&mut queue).unwrap().unwrap();
        assert_eq!((&first[..], first.capacity()), (&b"abcd"[..], 4));
        assert!(!receive_waits(sim));
        queue.put_back(Buffer::try_from_slice(b"not empty").unwrap());
        assert!(receive_waits(sim));
        queue.put_back(first);
        link.peer.send(b"123456789");
        let second = next(&mut queue).unwrap().unwrap();
        assert_eq!((&second[..], second.capacity()), (&b"123456789"[..], 9));
        assert_eq!(next(&mut queue).unwrap_err().status(), Status::INVALID_DEVICE_STATE);
        drop(queue);
        link.end();
    });
}

#[test]
fn a_queue_of_nothing_is_refused() {
    Sim::new().run(|_| {
        let mut link = Link::start();
        for (depth, size) in [(0, 16), (4, 0), (0, 0)] {
            let error = link.receive.queue(depth, size).unwrap_err();
            assert_eq!((error.operation(), error.status()), (Operation::Receive, Status::INVALID_PARAMETER));
        }
        for (depth, size) in [(usize::MAX, 1), (1, usize::MAX)] {
            assert!(link.receive.queue(depth, size).unwrap_err().is_out_of_memory());
        }
        link.end();
    });
}

/// A machine on which a receive that has its data already completes only after a while, past all cancelling.
fn slow() -> Sim {
    Sim::builder()
        .completion(Completion::PendLate)
        .provider(|config| config.late_by = Duration::from_millis(60))
        .build()
}

/// A queue waits for the end of a dropped receive, and hands out the bytes that this left before all others,
/// in as many buffers as it takes.
#[test]
fn bytes_of_a_dropped_receive_come_first() {
    slow().run(|_| {
        let mut link = Link::start();
        for depth in [1, 3] {
            link.peer.send(b"abcdefgh");
            link.await_data(8);
            let mut abandoned = Box::pin(link.receive.receive(room(6)));
            assert!(poll(&mut abandoned).is_pending());
            drop(abandoned);
            let mut queue = link.receive.queue(depth, 4).unwrap();
            let wakes = Arc::new(Wakes::default());
            assert!(wakes.poll(&mut Box::pin(queue.next())).is_pending());
            eventually(|| wakes.count() > 0);
            assert_eq!(take(&mut queue, 8), b"abcdefgh");
            drop(queue);
        }
        link.end();
    });
}

/// Bytes that are kept stay so while all buffers are out, and when the queue is dropped among them.
#[test]
fn a_queue_is_dropped_among_bytes_that_were_kept() {
    slow().run(|_| {
        let mut link = Link::start();
        link.peer.send(b"abcdefgh");
        link.await_data(8);
        let mut abandoned = Box::pin(link.receive.receive(room(8)));
        assert!(poll(&mut abandoned).is_pending());
        drop(abandoned);
        let mut queue = link.receive.queue(1, 3).unwrap();
        let first = next(&mut queue).unwrap().unwrap();
        assert_eq!(next(&mut queue).unwrap_err().status(), Status::INVALID_DEVICE_STATE);
        queue.put_back(first);
        assert_eq!(&next(&mut queue).unwrap().unwrap()[..], b"def");
        drop(queue);
        assert_eq!(receive_bytes(&mut link.receive, 2), b"gh");
        link.end();
    });
}

/// A queue is dropped with receives that have data, some of it not told yet: the next receive waits for the
/// end of all of them, and gets the bytes in order.
///
/// Prevents: IRP-06, IRP-10, IRP-16, LIFE-09
#[test]
fn a_dropped_queue_leaves_its_bytes_in_order() {
    for completed in [true, false] {
        for queues in [true, false] {
            slow().run(move |_| {
                let mut link = Link::start();
                link.peer.send(b"abcdefghijkl");
                link.await_data(12);
                let mut queue = link.receive.queue(5, 3).unwrap();
                let wakes = Arc::new(Wakes::default());
                assert!(wakes.poll(&mut Box::pin(queue.next())).is_pending());
                if completed {
                    eventually(|| wakes.count() > 0);
                    // What is behind the oldest one completes at about the same time.
                    std::thread::sleep(Duration::from_millis(20));
                    at_dispatch(|| drop(queue));
                } else {
                    drop(queue);
                    // The next one is given up before its turn.
                    let mut queue = link.receive.queue(1, 1).unwrap();
                    assert!(poll(&mut Box::pin(queue.next())).is_pending());
                    drop(queue);
                    let mut claim = Box::pin(link.receive.receive(room(1)));
                    assert!(poll(&mut claim).is_pending());
                    drop(claim);
                }
                link.peer.send(b"mnop");
                if queues {
                    let mut queue = link.receive.queue(2, 5).unwrap();
                    assert_eq!(take(&mut queue, 16), b"abcdefghijklmnop");
                } else {
                    let (received, buffer) = wait(link.receive.receive(room(5)));
                    assert_eq!((received.unwrap(), &buffer[..]), (5, &b"abcde"[..]));
                    assert_eq!(receive_bytes(&mut link.receive, 11), b"fghijklmnop");
                }
                link.end();
            });
        }
    }
}

/// One of the ways in which receiving goes on.
fn receive_some(receive: &mut ReceiveHalf, round: u32, bytes: &mut Vec<u8>, length: usize) {
    let spin = || (0..round % 50).for_each(|_| std::hint::spin_loop());
    match round % 4 {
        0 => {
            let mut dropped = Box::pin(receive.receive(room(1 + (round % 13) as usize)));
            let outcome = poll(&mut dropped);
            spin();
            if let Poll::Ready((received, buffer)) = outcome {
                assert_eq!(received.unwrap(), buffer.len());
                bytes.extend_from_slice(&buffer);
            }
        }
        1 => {
            let count = (1 + (round % 17) as usize).min(length - bytes.len());
            bytes.extend(receive_bytes(receive, count));
        }
        _ => {
            let mut queue = receive.queue(1 + (round % 5) as usize, 1 + (round % 11) as usize).unwrap();
            for step in 0..round % 9 {
                let outcome = poll(&mut Box::pin(queue.next()));
                spin();
                let buffer = match outcome {
                    Poll::Ready(buffer) => buffer,
                    Poll::Pending if (round + step).is_multiple_of(3) && bytes.len() < length => {
                        next(&mut queue)
                    }
                    Poll::Pending => continue,
                };
                match buffer {
                    Ok(Some(buffer)) => {
                        bytes.extend_from_slice(&buffer);
                        if !(round + step).is_multiple_of(5) {
                            queue.put_back(buffer);
                        }
                    }
                    Ok(None) => panic!("the stream goes on"),
                    Err(error) => {
                        assert_eq!(error.status(), Status::INVALID_DEVICE_STATE);
                        queue.put_back(room(3));
                    }
                }
            }
            if round.is_multiple_of(3) {
                at_dispatch(|| drop(queue));
            }
        }
    }
}

/// Queues and receives are dropped at every distance to the data, and the stream is whole all the same.
///
/// Prevents: IRP-10, IRP-16, LIFE-09
#[test]
fn dropped_queues_race_with_data() {
    for completion in COMPLETIONS {
        Sim::builder().completion(completion).build().run(|_| {
            let mut link = Link::start();
            let expected = numbers(6000);
            let sender = std::thread::spawn({
                let expected = expected.clone();
                let stream = link.peer.stream().try_clone().unwrap();
                move || {
                    for chunk in expected.chunks(7) {
                        std::io::Write::write_all(&mut &stream, chunk).unwrap();
                        std::thread::yield_now();
                    }
                }
            });
            let mut bytes = Vec::new();
            let mut round = 0;
            while bytes.len() < expected.len() {
                round += 1;
                receive_some(&mut link.receive, round, &mut bytes, expected.len());
            }
            assert!(bytes == expected, "{} bytes in {round} rounds", bytes.len());
            sender.join().unwrap();
            link.end();
        });
    }
}

/// A reset ends every receive with its error, after the bytes that came before.
#[test]
fn a_reset_is_an_error_of_each_receive() {
    for_each_mode(|_| {
        let Link { mut receive, send, peer, listener, driver } = Link::start();
        peer.send(b"last");
        let mut queue = receive.queue(3, 4).unwrap();
        assert_eq!(take(&mut queue, 4), b"last");
        assert!(poll(&mut Box::pin(queue.next())).is_pending());
        peer.reset();
        for _ in 0..5 {
            let error = next(&mut queue).unwrap_err();
            assert_eq!(error.operation(), Operation::Receive);
            assert_ne!(error.status(), Status::INVALID_DEVICE_STATE, "the buffers are the queue's still");
        }
        drop(queue);
        assert!(wait(receive.receive(room(4))).0.is_err());
        drop((receive, send, listener));
        driver.unload();
    });
}

/// A queue may outlive the close of its connection and the client's last socket; it tells so, and ends.
///
/// Prevents: CLOSE-13, LIFE-09, LIFE-05
#[test]
fn a_queue_ends_with_its_connection() {
    for_each_mode(|_| {
        let mut link = Link::start();
        let control = link.receive.control();
        let mut queue = link.receive.queue(2, 8).unwrap();
        assert!(poll(&mut Box::pin(queue.next())).is_pending());
        wait(control.close());
        for _ in 0..2 {
            assert!(next(&mut queue).unwrap_err().is_cancelled());
        }
        assert!(next(&mut queue).unwrap_err().is_socket_dead());
        drop(queue);
        drop(link.send);
        link.peer.expect_reset();
        drop((link.receive, link.listener));
        link.driver.unload();
    });
}

/// A queue is used and dropped at `DISPATCH_LEVEL`.
///
/// Prevents: IRQL-14
#[test]
fn queues_work_at_dispatch_level() {
    for_each_mode(|_| {
        let mut link = Link::start();
        let mut queue = at_dispatch(|| link.receive.queue(2, 8)).unwrap();
        let mut pending = Box::pin(queue.next());
        at_dispatch(|| assert!(poll(&mut pending).is_pending()));
        link.peer.send(b"high");
        let buffer = at_dispatch(|| ready(&mut pending)).unwrap().unwrap();
        assert_eq!(&buffer[..], b"high");
        at_dispatch(|| drop(pending));
        at_dispatch(|| queue.put_back(buffer));
        at_dispatch(|| drop(queue));
        link.peer.send(b"level");
        assert_eq!(receive_bytes(&mut link.receive, 5), b"level");
        link.end();
    });
}

/// A queue that is forgotten leaves the connection busy, and so does a receive for a queue.
#[test]
fn a_forgotten_receive_refuses_a_queue() {
    slow().run(|_| {
        let mut link = Link::start();
        let mut forgotten = Box::pin(link.receive.receive(room(8)));
        assert!(poll(&mut forgotten).is_pending());
        // Freed in the end all the same, so that nothing is left behind.
        let forgotten = Box::into_raw(std::pin::Pin::into_inner(forgotten)).cast::<wsk::Receive<'static>>();
        let mut queue = link.receive.queue(2, 8).unwrap();
        for _ in 0..2 {
            assert_eq!(next(&mut queue).unwrap_err().status(), Status::DEVICE_BUSY);
        }
        // SAFETY: it is the box that was leaked above, and a receive holds nothing of what it borrows but a
        // lifetime.
        drop(unsafe { Box::from_raw(forgotten) });
        link.peer.send(b"now");
        assert_eq!(take(&mut queue, 3), b"now");
        drop(queue);
        link.end();
    });
}

/// More receives than the client keeps memory for.
const MANY: usize = 12;

/// Every allocation of a queue is refused in turn, once alone and once with all that follow: bytes that were
/// kept come first all the same, and none is lost.
///
/// Prevents: LIFE-18
#[test]
fn a_queue_without_memory_loses_nothing() {
    for all_that_follow in [false, true] {
        for with_device in [false, true] {
            let mut refused = 0;
            for attempt in 1..1000 {
                let (say, said) = channel();
                slow_a_little().run(move |sim| {
                    say.say(refuse_one(sim, attempt, all_that_follow, with_device));
                });
                if !said.next() {
                    break;
                }
                refused = attempt;
            }
            assert!(refused > MANY as u64, "the queue asks for memory, {refused} times");
        }
    }
}

fn slow_a_little() -> Sim {
    Sim::builder()
        .completion(Completion::PendLate)
        .provider(|config| config.late_by = Duration::from_millis(5))
        .build()
}

/// Receives with a queue to which one allocation is refused; returns whether one was.
fn refuse_one(sim: &Sim, attempt: u64, all_that_follow: bool, with_device: bool) -> bool {
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
    let (connection, peer) = connected(&listener);
    let (mut receive, send) = connection.into_split();
    let expected = numbers(300);
    peer.send(&expected);
    eventually(|| wait(send.receive_backlog()).unwrap() >= expected.len());
    let mut abandoned = Box::pin(receive.receive(room(10)));
    assert!(poll(&mut abandoned).is_pending());
    drop(abandoned);
    let mut turn = Box::pin(receive.receive(room(1)));
    let mut bytes = wait(&mut turn).1.to_vec();
    drop(turn);

    let faults = sim.kernel().faults();
    if all_that_follow {
        faults.fail_from(attempt);
    } else {
        faults.fail_nth(attempt);
    }
    let told = std::cell::Cell::new(false);
    let out = |error: wsk::Error| {
        assert!(error.is_out_of_memory(), "{error}");
        told.set(true);
        faults.clear();
    };
    match receive.queue(MANY, 6) {
        Err(error) => out(error),
        Ok(mut queue) => {
            // Each receive has its turn again after the last refusal.
            for until in [100, 100 + 2 * MANY * 6] {
                while bytes.len() < until {
                    // Waiting takes memory, too; looking does not.
                    match ready(&mut Box::pin(queue.next())) {
                        Ok(Some(buffer)) => {
                            bytes.extend_from_slice(&buffer);
                            queue.put_back(buffer);
                        }
                        Ok(None) => panic!("the stream goes on"),
                        Err(error) => out(error),
                    }
                }
                told.set(told.get() || faults.injected() > 0);
                faults.clear();
            }
            // No buffer is lost either.
            assert!(format!("{queue:?}").contains(&format!("idle: 0, under_way: {MANY}")), "{queue:?}");
            at_dispatch(|| drop(queue));
        }
    }
    let was_refused = told.get() || faults.injected() > 0;
    faults.clear();
    let rest = receive_bytes(&mut receive, expected.len() - bytes.len());
    bytes.extend(rest);
    assert!(bytes == expected, "attempt {attempt}: {bytes:?}");
    drop((receive, send, listener));
    driver.unload();
    if let Some(device) = device {
        eventually(|| sim.kernel().device_references(device) == 1);
        sim.kernel().delete_device(device);
    }
    was_refused
}

/// A connection whose queue is used up and made again, in steady state, takes memory for the queue only.
#[test]
fn receiving_with_a_queue_allocates_nothing() {
    for completion in COMPLETIONS {
        Sim::builder().completion(completion).build().run(|sim| {
            let mut link = Link::start();
            let mut queue = link.receive.queue(3, 8).unwrap();
            let allocations = || sim.kernel().pool_stats(wsk::memory::TAG).allocations;
            let mut round = || {
                let before = allocations();
                for _ in 0..10 {
                    link.peer.send(b"twice eight, so ");
                    let mut count = 0;
                    while count < 16 {
                        let buffer = ready(&mut Box::pin(queue.next())).unwrap().unwrap();
                        count += buffer.len();
                        queue.put_back(buffer);
                    }
                }
                allocations() == before
            };
            assert!((0..20).any(|_| round()), "it goes on allocating");
            drop(queue);
            link.end();
        });
    }
}

/// A queue can be spawned, and used in whatever thread.
#[test]
fn a_queue_may_move_between_threads() {
    const fn is_send<T: Send>() {}
    const fn is_unpin<T: Unpin>() {}
    const {
        is_send::<ReceiveQueue<'static>>();
        is_send::<wsk::ReceiveNext<'static, 'static>>();
        is_unpin::<wsk::ReceiveNext<'static, 'static>>();
    }
}
