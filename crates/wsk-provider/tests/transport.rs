//! The host network behind [`Transport`], without WSK on top.

mod common;

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wsk_provider::transport::live::{Live, Settings};
use wsk_provider::transport::{BindOptions, ListenSink, Ready, ReadySink, Stream, Transport, Waiting};
use wsk_sim::raw::Peer;

use common::incoming;

/// Far longer than every wait in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

struct Reports(Mutex<Sender<Ready>>);

impl ReadySink for Reports {
    fn ready(&self, ready: Ready) {
        let _ = self.0.lock().unwrap().send(ready);
    }
}

fn reports() -> (Arc<Reports>, Receiver<Ready>) {
    let (sender, receiver) = channel();
    (Arc::new(Reports(Mutex::new(sender))), receiver)
}

fn network(settings: Settings) -> Live {
    let live = Live::with(settings).unwrap();
    live.start(Arc::new(|_, job| std::thread::Builder::new().spawn(job).map(drop)), Arc::new(|_| ()))
        .unwrap();
    live
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Waits for reports until `done` holds.
fn until(reports: &Receiver<Ready>, mut done: impl FnMut() -> bool) {
    while !done() {
        reports.recv_timeout(PATIENCE).expect("no report");
    }
}

#[test]
fn bytes_and_both_ends_pass() {
    let live = network(Settings::default());
    let (sink, streams) = incoming();
    let listener = live.listen(loopback(0), &BindOptions::default(), sink).unwrap();
    let mut peer = TcpStream::connect(listener.local_address().unwrap()).unwrap();
    let mut stream = streams.recv_timeout(PATIENCE).unwrap();
    assert_eq!(stream.remote_address(), peer.local_addr().unwrap());
    assert_eq!(stream.local_address().unwrap(), peer.peer_addr().unwrap());
    let (sink, ready) = reports();
    stream.attach(sink).unwrap();
    assert_eq!(stream.peek().unwrap(), Waiting::Nothing);

    peer.write_all(b"hello").unwrap();
    until(&ready, || stream.peek().unwrap() == Waiting::Data);
    let (mut one, mut two) = ([0; 2], [0; 8]);
    let read = stream.try_read(&mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)]).unwrap();
    assert_eq!((read, &one, &two[..3]), (5, b"he", b"llo".as_slice()));
    assert_eq!(stream.try_read(&mut [IoSliceMut::new(&mut one)]).unwrap_err().kind(), ErrorKind::WouldBlock);

    assert_eq!(stream.try_write(&[IoSlice::new(b"by"), IoSlice::new(b"e")]).unwrap(), 3);
    stream.shut_write().unwrap();
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"bye");
    until(&ready, || stream.drained().unwrap() != Some(false));

    drop(peer);
    until(&ready, || stream.peek().unwrap() == Waiting::End);
    stream.close();
}

#[test]
fn dropping_a_stream_resets_it() {
    let live = network(Settings::default());
    let (sink, streams) = incoming();
    let listener = live.listen(loopback(0), &BindOptions::default(), sink).unwrap();
    let peer = Peer::connect(listener.local_address().unwrap());
    drop(streams.recv_timeout(PATIENCE).unwrap());
    peer.expect_reset();
}

/// At the maximum number of streams, further ones wait in the host's queue, and are accepted one by one as
/// streams end.
#[test]
fn no_more_streams_are_accepted_than_the_maximum() {
    let live = network(Settings { streams: Some(2), ..Settings::default() });
    let (sink, streams) = incoming();
    let listener = live.listen(loopback(0), &BindOptions::default(), sink).unwrap();
    listener.set_accepting(false);
    let address = listener.local_address().unwrap();
    let peers: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    listener.set_accepting(true);
    let mut taken = Vec::new();
    for next in &peers {
        taken.push(streams.recv_timeout(PATIENCE).unwrap());
        assert_eq!(taken.last().unwrap().remote_address(), next.local_addr().unwrap());
        if taken.len() == 2 {
            taken.remove(0).close();
        }
    }
}

/// All waiting connections of a listener are handled in one call, for which the stop waits.
#[test]
fn a_full_listener_leaves_the_rest_to_the_host() {
    let live = network(Settings { streams: Some(2), ..Settings::default() });
    let (sink, streams) = incoming();
    let listener = live.listen(loopback(0), &BindOptions::default(), sink).unwrap();
    listener.set_accepting(false);
    let address = listener.local_address().unwrap();
    let _peers: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    listener.set_accepting(true);
    let first = streams.recv_timeout(PATIENCE).unwrap();
    live.stop();
    assert_eq!(1 + streams.try_iter().count(), 2);
    drop(first);
}

#[test]
fn a_stuck_peer_keeps_the_stream_undrained() {
    let live = network(Settings { send_buffer: Some(16 << 10), ..Settings::default() });
    let (sink, streams) = incoming();
    let listener = live.listen(loopback(0), &BindOptions::default(), sink).unwrap();
    let mut peer = TcpStream::connect(listener.local_address().unwrap()).unwrap();
    let mut stream = streams.recv_timeout(PATIENCE).unwrap();
    let (sink, ready) = reports();
    stream.attach(sink).unwrap();
    let block = vec![7; 64 << 10];
    let mut sent = 0;
    loop {
        match stream.try_write(&[IoSlice::new(&block)]) {
            Ok(bytes) => sent += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    stream.shut_write().unwrap();
    assert_ne!(stream.drained().unwrap(), Some(true));
    let mut all = Vec::new();
    peer.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), sent);
    until(&ready, || stream.drained().unwrap() != Some(false));
}

#[test]
fn a_reserved_address_connects_or_is_refused() {
    let live = network(Settings::default());
    let server = TcpListener::bind(loopback(0)).unwrap();
    let reservation = live.reserve(loopback(0), &BindOptions::default()).unwrap();
    let local = reservation.local_address().unwrap();
    let (sink, ready) = reports();
    let stream = reservation.connect(server.local_addr().unwrap(), sink).unwrap();
    until(&ready, || stream.connected().unwrap());
    assert_eq!(server.accept().unwrap().1, local);

    let refused = server.local_addr().unwrap();
    drop(server);
    let (sink, ready) = reports();
    let attempt = live.reserve(loopback(0), &BindOptions::default()).unwrap().connect(refused, sink);
    let error = match attempt {
        Err(error) => error,
        Ok(stream) => {
            let mut outcome = Ok(false);
            until(&ready, || {
                outcome = stream.connected();
                outcome.is_err()
            });
            outcome.unwrap_err()
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_granted_overlap_works_and_strangers_still_collide() {
    let live = network(Settings::default());
    let (wild_sink, wild_streams) = incoming();
    let wild = live.listen(SocketAddr::from(([0; 4], 0)), &BindOptions::default(), wild_sink).unwrap();
    let port = wild.local_address().unwrap().port();
    let (sink, streams) = incoming();
    let refused = live.listen(loopback(port), &BindOptions::default(), sink.clone()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AddrInUse);
    let granted = BindOptions { share: true, ..BindOptions::default() };
    let specific = live.listen(loopback(port), &granted, sink).unwrap();

    assert_eq!(TcpListener::bind(loopback(port)).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(TcpListener::bind(("0.0.0.0", port)).unwrap_err().kind(), ErrorKind::AddrInUse);

    let _peer = TcpStream::connect(loopback(port)).unwrap();
    let _stream = streams.recv_timeout(PATIENCE).expect("the specific address comes first");
    drop(specific);
    let _other = TcpStream::connect(loopback(port)).unwrap();
    let _stream = wild_streams.recv_timeout(PATIENCE).expect("the wildcard takes the rest");
}

#[test]
fn a_closed_listener_frees_its_address_at_once() {
    let live = network(Settings::default());
    let (sink, streams) = incoming();
    let listener = live.listen(loopback(0), &BindOptions::default(), sink.clone()).unwrap();
    let address = listener.local_address().unwrap();
    let peer = TcpStream::connect(address).unwrap();
    let stream = streams.recv_timeout(PATIENCE).unwrap();
    drop(listener);
    let listener = live.listen(address, &BindOptions::default(), sink).unwrap();
    drop((listener, stream, peer));
}

#[test]
fn a_listener_at_rest_keeps_its_streams_waiting() {
    let live = network(Settings::default());
    let (sink, streams) = incoming();
    let listener = live.listen(loopback(0), &BindOptions::default(), sink).unwrap();
    listener.set_accepting(false);
    let _peer = TcpStream::connect(listener.local_address().unwrap()).unwrap();
    assert!(streams.recv_timeout(Duration::from_millis(50)).is_err());
    listener.set_accepting(true);
    streams.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_crowd_is_served() {
    const CROWD: usize = 400;
    let live = network(Settings::default());
    let (sink, streams) = incoming();
    let listener = live.listen(loopback(0), &BindOptions::default(), sink).unwrap();
    let address = listener.local_address().unwrap();
    let peers: Vec<_> = (0..CROWD).map(|_| TcpStream::connect(address).unwrap()).collect();
    let accepted: Vec<_> = (0..CROWD).map(|_| streams.recv_timeout(PATIENCE).unwrap()).collect();
    drop((peers, accepted));
}

#[test]
fn datagrams_pass() {
    let live = network(Settings::default());
    let (sink, ready) = reports();
    let port = live.datagram(loopback(0), &BindOptions::default(), sink).unwrap();
    let peer = std::net::UdpSocket::bind(loopback(0)).unwrap();
    peer.send_to(b"ping", port.local_address().unwrap()).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut received = None;
    until(&ready, || {
        received = port.try_receive(&mut buffer).ok();
        received.is_some()
    });
    let received = received.unwrap();
    assert_eq!((&buffer[..received.length], received.from), (b"ping".as_slice(), peer.local_addr().unwrap()));
    assert!(!received.broadcast);
    assert!(received.to.is_none_or(|to| to.is_loopback()));
    assert_eq!(port.try_send(b"pong", received.from).unwrap(), 4);
    let (length, from) = peer.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (b"pong".as_slice(), port.local_address().unwrap()));
}

/// Holds its thread until it is let go, and takes note of the threads it was called on.
struct Holding {
    reports: Mutex<Sender<std::thread::ThreadId>>,
    go: Mutex<Receiver<()>>,
}

impl ListenSink for Holding {
    fn incoming(&self, _stream: Box<dyn Stream>) {
        let _ = self.reports.lock().unwrap().send(std::thread::current().id());
        self.go.lock().unwrap().recv().unwrap();
    }

    fn failed(&self, error: std::io::Error) {
        panic!("listener failed: {error}");
    }
}

#[test]
fn a_sink_that_blocks_its_thread_blocks_no_other() {
    let live = network(Settings::default());
    let (sender, holding) = channel();
    let (go, gone) = channel();
    let sink = Arc::new(Holding { reports: Mutex::new(sender), go: Mutex::new(gone) });
    let held = live.listen(loopback(0), &BindOptions::default(), sink).unwrap();
    let (sink, streams) = incoming();
    let free = live.listen(loopback(0), &BindOptions::default(), sink).unwrap();
    for _ in 0..3 {
        let peer = TcpStream::connect(held.local_address().unwrap()).unwrap();
        holding.recv_timeout(PATIENCE).unwrap();
        for _ in 0..3 {
            let _other = TcpStream::connect(free.local_address().unwrap()).unwrap();
            streams.recv_timeout(PATIENCE).unwrap();
        }
        go.send(()).unwrap();
        drop(peer);
    }
    live.stop();
}

/// Stops the network as soon as it hears of a stream.
struct Stopping(Arc<Mutex<Option<Arc<Live>>>>, Mutex<Sender<()>>);

impl ListenSink for Stopping {
    fn incoming(&self, stream: Box<dyn Stream>) {
        drop(stream);
        if let Some(live) = self.0.lock().unwrap().take() {
            live.stop();
            drop(live);
            self.1.lock().unwrap().send(()).unwrap();
        }
    }

    fn failed(&self, error: std::io::Error) {
        panic!("listener failed: {error}");
    }
}

#[test]
fn a_network_that_is_stopped_during_a_batch_drops_all_sinks() {
    let live = Arc::new(Live::new().unwrap());
    let itself = Arc::new(Mutex::new(Some(Arc::clone(&live))));
    let (stopped, stop) = channel();
    let sinks: Vec<_> =
        (0..2).map(|_| Arc::new(Stopping(Arc::clone(&itself), Mutex::new(stopped.clone())))).collect();
    let listeners: Vec<_> = sinks
        .iter()
        .map(|sink| live.listen(loopback(0), &BindOptions::default(), Arc::clone(sink) as _).unwrap())
        .collect();
    // Both have data before the poll, so that one batch has both.
    let peers: Vec<_> = listeners
        .iter()
        .map(|listener| TcpStream::connect(listener.local_address().unwrap()).unwrap())
        .collect();
    live.start(Arc::new(|_, job| std::thread::Builder::new().spawn(job).map(drop)), Arc::new(|_| ()))
        .unwrap();
    stop.recv_timeout(PATIENCE).expect("a stream is reported");
    drop((listeners, live, peers));
    let left: Vec<_> = sinks.iter().map(Arc::downgrade).collect();
    drop(sinks);
    let end = Instant::now() + PATIENCE;
    while left.iter().any(|sink| sink.strong_count() != 0) {
        assert!(Instant::now() < end, "a sink is blocked for ever");
        std::thread::yield_now();
    }
}
