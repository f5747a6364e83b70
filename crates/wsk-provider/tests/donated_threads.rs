//! Threads donated to the host network.

mod common;

use std::io::{ErrorKind, IoSliceMut, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use wsk_provider::transport::live::Live;
use wsk_provider::transport::{BindOptions, Ready, ReadySink, Stream, Transport};

use common::incoming;

/// Far longer than every wait in these tests.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than a full batch.
const STREAMS: usize = 16;

/// Reports which sink was called, and whether the thread was donated.
struct Reports {
    to: Mutex<Sender<(usize, bool, ThreadId)>>,
    index: usize,
    accepts_donated_thread: bool,
}

impl ReadySink for Reports {
    fn ready(&self, ready: Ready) {
        let _ = self.to.lock().unwrap().send((self.index, ready.donated, thread::current().id()));
    }

    fn accepts_donated_thread(&self) -> bool {
        self.accepts_donated_thread
    }
}

struct Network {
    live: Live,
    streams: Vec<Box<dyn Stream>>,
    peers: Vec<TcpStream>,
    reports: Receiver<(usize, bool, ThreadId)>,
}

impl Network {
    fn new(accepts_donated_thread: impl Fn(usize) -> bool) -> Self {
        let live = Live::new().unwrap();
        live.start(Arc::new(|_, job| thread::Builder::new().spawn(job).map(drop)), Arc::new(|_| ())).unwrap();
        let (sink, incoming) = incoming();
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = live.listen(local, &BindOptions::default(), sink).unwrap();
        let address = listener.local_address().unwrap();
        let (to, reports) = channel();
        let (mut streams, mut peers) = (Vec::new(), Vec::new());
        for index in 0..STREAMS {
            peers.push(TcpStream::connect(address).unwrap());
            let mut stream = incoming.recv_timeout(PATIENCE).unwrap();
            let to = Mutex::new(to.clone());
            stream
                .attach(Arc::new(Reports {
                    to,
                    index,
                    accepts_donated_thread: accepts_donated_thread(index),
                }))
                .unwrap();
            streams.push(stream);
        }
        let network = Self { live, streams, peers, reports };
        network.settle();
        network
    }

    /// Takes the reports of the current state.
    fn settle(&self) {
        while self.reports.recv_timeout(Duration::from_millis(100)).is_ok() {}
    }

    /// Writes data to each stream.
    fn write(&mut self) {
        for peer in &mut self.peers {
            peer.write_all(b"x").unwrap();
        }
    }

    /// Reads the data of [`Self::write`], if it has arrived: reports may be spurious. Returns whether it had.
    fn read(&mut self, index: usize) -> bool {
        match self.streams[index].try_read(&mut [IoSliceMut::new(&mut [0; 8])]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            read => {
                assert_eq!(read.unwrap(), 1);
                true
            }
        }
    }
}

/// Under load the polling thread leaves the sockets to a donated thread, and takes them back afterwards.
#[test]
fn a_donated_thread_serves_the_sockets() {
    let mut network = Network::new(|_| true);
    let start = Instant::now();
    let mut by_donated = 0;
    while by_donated == 0 {
        assert!(start.elapsed() < PATIENCE, "the thread was never made use of");
        network.write();
        let mut reported = 0;
        while reported < STREAMS {
            network.live.donate_thread(PATIENCE, &mut || true);
            while let Ok((index, donated, thread)) = network.reports.try_recv() {
                assert_eq!(donated, thread == thread::current().id());
                if network.read(index) {
                    reported += 1;
                    by_donated += usize::from(donated);
                }
            }
        }
    }
    // From here on no thread is donated.
    network.write();
    let mut reported = 0;
    while reported < STREAMS {
        let (index, donated, _) = network.reports.recv_timeout(PATIENCE).unwrap();
        assert!(!donated);
        reported += usize::from(network.read(index));
    }
}

/// Work that may call the client is left to the reactor's own threads, and nothing is lost.
#[test]
fn some_sinks_are_not_for_donated_threads() {
    let mut network = Network::new(|index| index % 4 != 0);
    for _ in 0..50 {
        network.write();
        let mut reported = 0;
        while reported < STREAMS {
            network.live.donate_thread(PATIENCE, &mut || true);
            while let Ok((index, donated, _)) = network.reports.try_recv() {
                assert!(!donated || index % 4 != 0);
                reported += usize::from(network.read(index));
            }
        }
    }
}

/// A donated thread returns when it is kicked, and when the network stops.
#[test]
fn a_donated_thread_comes_back() {
    let mut network = Network::new(|_| true);
    network.write();
    thread::scope(|scope| {
        let live = &network.live;
        let donated = scope.spawn(move || {
            let start = Instant::now();
            // While polling, and while another thread polls.
            while start.elapsed() < Duration::from_millis(200) {
                let mut asked = 0;
                live.donate_thread(PATIENCE, &mut || {
                    asked += 1;
                    asked > 3
                });
            }
        });
        for _ in 0..100 {
            live.kick();
            thread::yield_now();
        }
        donated.join().unwrap();
    });
    thread::scope(|scope| {
        let live = &network.live;
        let donated = scope.spawn(move || live.donate_thread(PATIENCE, &mut || false));
        live.stop();
        donated.join().unwrap();
    });
}
