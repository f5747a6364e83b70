//! Streams under stress: with cancelled, declined, retained and reset data, no byte is lost and nothing
//! hangs.

use std::collections::VecDeque;
use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wsk_sim::raw::*;
use wsk_sim::{Completion, FaultPoint, Level, Sim};
use wsk_sys::*;

/// Far longer than every wait in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A small random number generator, determined by its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn length(&mut self, bound: u64) -> usize {
        self.below(bound) as usize + 1
    }
}

/// Machines with different completion times and callback IRQLs.
fn machines() -> impl Iterator<Item = (u64, Sim)> {
    (0..8u64).map(|seed| {
        let completion = match seed % 4 {
            0 => Completion::Natural,
            1 => Completion::Random(seed),
            2 => Completion::PendLate,
            _ => Completion::PendEarly,
        };
        let level = Level::Random(seed);
        (seed, Sim::builder().completion(completion).callbacks(level).completions(level).build())
    })
}

fn connected(client: &Client, events: Option<&Recorder>) -> (Socket, Peer) {
    let (listener, address) = client.bound_listener(&Recorder::new());
    let accept = match events {
        Some(events) => listener.accept_with(events),
        None => listener.accept(),
    }
    .pends();
    let peer = Peer::connect(address);
    (accept.socket(), peer)
}

/// Returns the byte at an offset of the stream.
fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

/// Writes the stream in pieces of random size, and returns the peer.
fn write(peer: Peer, total: usize, seed: u64) -> thread::JoinHandle<Peer> {
    thread::spawn(move || {
        let mut dice = Dice(seed + 77);
        let mut at = 0;
        while at < total {
            let length = dice.length(900).min(total - at);
            let piece: Vec<u8> = (at..at + length).map(byte).collect();
            peer.send(&piece);
            at += length;
        }
        peer
    })
}

#[test]
fn cancelled_receives_lose_nothing() {
    const TOTAL: usize = 150_000;
    for (seed, sim) in machines() {
        let mut dice = Dice(seed);
        sim.choose_by(FaultPoint::CancelledWaitAll, move |alternatives| {
            dice.below(u64::from(alternatives)) as u32
        });
        sim.run(move |_| {
            let client = Client::new();
            let (socket, peer) = connected(&client, None);
            let writer = write(peer, TOTAL, seed);
            let mut dice = Dice(seed + 5);
            let mut queue: VecDeque<(Request, Buffer)> = VecDeque::new();
            let mut at = 0;
            let began = Instant::now();
            while at < TOTAL {
                assert!(began.elapsed() < PATIENCE, "stuck at {at}");
                while queue.len() < 4 {
                    let buffer = Buffer::new(dice.length(700));
                    let flags = if dice.below(2) == 0 { WSK_FLAG_WAITALL } else { 0 };
                    queue.push_back((Request::new().receive(&socket, &buffer, flags), buffer));
                }
                // At the end of the stream a receive may wait for more data than is left.
                if at + 3000 > TOTAL || dice.below(3) == 0 {
                    for (request, _) in queue.iter().filter(|(request, _)| !request.is_completed()) {
                        request.cancel();
                    }
                }
                let Some((request, buffer)) = queue.pop_front() else { unreachable!("it was filled above") };
                let done = request.wait();
                assert!([STATUS_SUCCESS, STATUS_CANCELLED].contains(&done.status), "{done:?}");
                for received in buffer.read_first(done.information) {
                    assert_eq!(received, byte(at), "at {at}");
                    at += 1;
                }
            }
            for (request, _) in queue {
                request.cancel();
                assert_eq!(request.wait().information, 0);
            }
            let peer = writer.join().expect("the writer");
            socket.disconnect().ok();
            drop(peer);
        });
    }
}

#[test]
fn declined_and_kept_indications_lose_nothing() {
    const TOTAL: usize = 100_000;
    for (seed, sim) in machines() {
        let mut dice = Dice(seed);
        sim.choose_by(FaultPoint::IndicationShape, move |alternatives| {
            dice.below(u64::from(alternatives)) as u32
        });
        let mut dice = Dice(seed + 9);
        sim.choose_by(FaultPoint::EventDespiteIrp, move |_| u32::from(dice.below(16) == 0));
        sim.run(move |_| {
            let client = Client::new();
            let events = Recorder::new();
            let received: Arc<Mutex<Vec<u8>>> = Arc::default();
            let kept: Arc<Mutex<Vec<ListHandle>>> = Arc::default();
            let shut = Arc::new(AtomicBool::new(false));
            let dice = Mutex::new(Dice(seed + 3));
            let (taken, keeping, shutting) = (Arc::clone(&received), Arc::clone(&kept), Arc::clone(&shut));
            events.on_receive(move |event| {
                let bytes = event.bytes();
                let mut dice = dice.lock();
                let count = match dice.below(4) {
                    0 | 2 => bytes.len(),
                    1 => dice.below(bytes.len() as u64) as usize,
                    _ => 0,
                };
                taken.lock().extend(&bytes[..count]);
                if count < bytes.len() {
                    shutting.store(true, Ordering::SeqCst);
                    return if count == 0 { ReceiveAnswer::decline() } else { ReceiveAnswer::part(count) };
                }
                if dice.below(2) == 0 {
                    return ReceiveAnswer::part(count);
                }
                keeping.lock().push(event.list);
                ReceiveAnswer::retain()
            });
            let (socket, peer) = connected(&client, Some(&events));
            assert_eq!(socket.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
            let writer = write(peer, TOTAL, seed);
            let began = Instant::now();
            let give_back = || {
                for list in std::mem::take(&mut *kept.lock()) {
                    assert_eq!(socket.release(list), STATUS_SUCCESS);
                }
            };
            while received.lock().len() < TOTAL {
                assert!(began.elapsed() < PATIENCE, "stuck at {}", received.lock().len());
                if shut.swap(false, Ordering::SeqCst) {
                    // Opens the receive latch and takes nothing.
                    socket.receive(&Buffer::new(0)).ok();
                }
                give_back();
                thread::yield_now();
            }
            assert!(received.lock().iter().enumerate().all(|(at, received)| *received == byte(at)));
            let peer = writer.join().expect("the writer");
            while events.entered(Kind::Receive) != events.returned(Kind::Receive) {
                thread::yield_now();
            }
            give_back();
            socket.disconnect().ok();
            drop(peer);
        });
    }
}

#[test]
fn connections_end_at_any_moment() {
    for (seed, sim) in machines() {
        sim.run(move |sim| {
            let client = Client::new();
            let mut dice = Dice(seed + 1);
            for _ in 0..40 {
                let events = Recorder::new();
                let (socket, peer) = connected(&client, Some(&events));
                let mask =
                    [WSK_EVENT_DISCONNECT, WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT | WSK_EVENT_SEND_BACKLOG];
                assert_eq!(socket.enable(mask[dice.below(2) as usize]), STATUS_SUCCESS);
                let (way, pause) = (dice.below(3), Duration::from_micros(dice.below(200)));
                let end = thread::spawn(move || {
                    let _ = peer.stream().write_all(&[1; 3000]);
                    thread::sleep(pause);
                    match way {
                        0 => peer.reset(),
                        1 => drop(peer.stream().shutdown(Shutdown::Write)),
                        _ => peer.close(),
                    }
                });
                let mut requests: Vec<Request> = Vec::new();
                for _ in 0..6 {
                    match dice.below(4) {
                        0 => requests.push(socket.receive(&Buffer::new(500))),
                        1 => requests.push(Request::new().receive(
                            &socket,
                            &Buffer::new(5000),
                            WSK_FLAG_WAITALL,
                        )),
                        2 => requests.push(socket.send(&vec![0; dice.length(200_000)])),
                        _ if requests.is_empty() => {}
                        _ => drop(requests[dice.below(requests.len() as u64) as usize].cancel()),
                    }
                }
                match dice.below(4) {
                    0 => requests.push(socket.disconnect()),
                    1 => requests.push(socket.abort()),
                    2 => assert!(sim.provider().kill(socket.raw())),
                    _ => {}
                }
                let close = socket.close();
                for request in requests {
                    assert!(request.wait_up_to(PATIENCE).is_some(), "a request never ended");
                }
                close.ok();
                end.join().expect("the peer");
            }
        });
    }
}
