//! More simultaneous requests than a test could make connections for, over a network that is only a list of
//! streams.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wsk_provider::transport::{
    BindOptions, Complain, Datagram, ListenSink, Listener, Ready, ReadySink, Reservation, Spawn, Stream,
    Transport, Tune, Waiting,
};
use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::*;

/// Maximum number of requests that are pended at once.
const CROWD: u32 = 100_000;

/// Sink of a stream, once it is attached.
type Watch = Arc<Mutex<Option<Arc<dyn ReadySink>>>>;

/// A network whose connections are made by the test, and have no data.
#[derive(Default)]
struct Network {
    listener: Mutex<Option<Arc<dyn ListenSink>>>,
    streams: Mutex<Vec<Watch>>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7);

impl Network {
    fn streams(&self) -> MutexGuard<'_, Vec<Watch>> {
        self.streams.lock().unwrap()
    }

    /// Connects a peer, and returns its number.
    fn connect(&self) -> usize {
        let sink = self.listener.lock().unwrap().clone().expect("a listener exists");
        let watch = Watch::default();
        let index = {
            let mut streams = self.streams();
            streams.push(Arc::clone(&watch));
            streams.len() - 1
        };
        sink.incoming(Box::new(Still { watch, index }));
        index
    }

    /// Resets the connection of a peer.
    fn reset(&self, index: usize) {
        let watch = self.streams()[index].lock().unwrap().take().expect("it has a sink");
        watch.ready(Ready { reset: true, ..Ready::default() });
    }
}

impl Transport for Network {
    fn start(&self, _spawn: Spawn, _complain: Complain) -> io::Result<()> {
        Ok(())
    }

    fn stop(&self) {
        self.listener.lock().unwrap().take();
        self.streams().clear();
    }

    fn reserve(&self, _local: SocketAddr, _options: &BindOptions) -> io::Result<Box<dyn Reservation>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn datagram(
        &self,
        _local: SocketAddr,
        _options: &BindOptions,
        _sink: Arc<dyn ReadySink>,
    ) -> io::Result<Box<dyn Datagram>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        Ok(vec![LOCAL.ip()])
    }

    fn listen(
        &self,
        _local: SocketAddr,
        _options: &BindOptions,
        sink: Arc<dyn ListenSink>,
    ) -> io::Result<Box<dyn Listener>> {
        *self.listener.lock().unwrap() = Some(sink);
        Ok(Box::new(Port))
    }
}

/// An idle connection.
struct Still {
    watch: Watch,
    index: usize,
}

impl std::fmt::Debug for Still {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Still").field(&self.index).finish()
    }
}

/// A listening address.
#[derive(Debug)]
struct Port;

macro_rules! tune {
    ($name:ty) => {
        impl Tune for $name {
            fn local_address(&self) -> io::Result<SocketAddr> {
                Ok(LOCAL)
            }
            fn set_keep_alive(&self, _on: bool) -> io::Result<()> {
                Ok(())
            }
            fn set_receive_buffer(&self, _bytes: usize) -> io::Result<()> {
                Ok(())
            }
            fn set_broadcast(&self, _on: bool) -> io::Result<()> {
                Ok(())
            }
        }
    };
}

tune!(Still);
tune!(Port);

impl Listener for Port {
    fn set_accepting(&self, _on: bool) {}
}

impl Stream for Still {
    fn attach(&mut self, sink: Arc<dyn ReadySink>) -> io::Result<()> {
        *self.watch.lock().unwrap() = Some(sink);
        Ok(())
    }

    fn connected(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn try_read(&mut self, _buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn try_write(&mut self, _buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn peek(&self) -> io::Result<Waiting> {
        Ok(Waiting::Nothing)
    }

    fn unread(&self) -> io::Result<usize> {
        Ok(0)
    }

    fn shut_write(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn drained(&self) -> io::Result<Option<bool>> {
        Ok(None)
    }

    fn remote_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::from_bits(0x0A00_0000 + u32::try_from(self.index).unwrap()), 9))
    }

    fn close(self: Box<Self>) {}

    fn abort(self: Box<Self>) {
        self.watch.lock().unwrap().take();
    }
}

/// Runs a machine on this network, with a conditional listener that pends. Only one at a time, because the
/// processor time is that of the whole process.
fn run(test: impl FnOnce(&Network, &Recorder, &Socket) + Send + 'static) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let network = Arc::new(Network::default());
    Sim::builder().transport(Arc::clone(&network) as _).build().run(move |_| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let (listener, _) = client.conditional_listener(&events);
        test(&network, &events, &listener);
    });
}

/// Number of requests that are compared with as many others.
const PART: usize = CROWD as usize / 20;

/// Returns the processor time of `body`, on all threads of the process. `None` if the host does not report
/// it.
fn cost(body: impl FnOnce()) -> Option<Duration> {
    let before = processor_time();
    body();
    Some(processor_time()?.saturating_sub(before?))
}

#[cfg(target_os = "linux")]
fn processor_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is a place for the time.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    (status == 0).then(|| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
}

#[cfg(not(target_os = "linux"))]
fn processor_time() -> Option<Duration> {
    None
}

/// Checks that the cost among few requests is that among very many: a search would take many times as long.
fn assert_alike(what: &str, few: Option<Duration>, many: Option<Duration>) {
    let Some((few, many)) = few.zip(many) else { return };
    assert!(
        many < few * 4,
        "{what}: {PART} of them take {few:?} among few others, and {many:?} among very many"
    );
}

/// The cost of another request does not depend on the number of requests.
#[test]
fn as_many_requests_as_one_likes_are_pended() {
    run(|network, events, listener| {
        let pend = |count: usize, pended: &mut Vec<WSK_INSPECT_ID>| {
            for _ in 0..count {
                network.connect();
                pended.push(events.inspect().id());
            }
        };
        let decide = |ids: &[WSK_INSPECT_ID]| {
            for id in ids {
                listener.inspect_complete(*id, WskInspectReject).ok();
            }
        };
        // Not in an order in which a search would find them first.
        let shuffle = |ids: &mut [WSK_INSPECT_ID]| {
            ids.sort_unstable_by_key(|id| id.Key.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        };
        let mut pended = Vec::new();
        let pend_few = cost(|| pend(PART, &mut pended));
        shuffle(&mut pended);
        let decide_few = cost(|| decide(&pended));
        pended.clear();
        for _ in 0..CROWD as usize / PART {
            let many = cost(|| pend(PART, &mut pended));
            assert_alike("requests that are pended", pend_few, many);
        }
        let mut keys: Vec<_> = pended.iter().map(|id| id.Key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), pended.len());
        // Decided requests make room for as many others, without growth.
        let highest = keys[keys.len() - 1];
        shuffle(&mut pended);
        let rest = pended.split_off(CROWD as usize / 2);
        for part in pended.chunks(PART) {
            let many = cost(|| decide(part));
            assert_alike("requests that are decided", decide_few, many);
        }
        pended = rest;
        let old = pended.len();
        pend(CROWD as usize / 2, &mut pended);
        assert!(pended[old..].iter().all(|id| id.Key <= highest));
        decide(&pended);
    });
}

/// A driver whose decision races with an abort, and that does not run until very many other requests have
/// ended.
#[test]
fn a_decision_that_was_delayed_for_long_is_not_reported() {
    run(|network, events, listener| {
        let peer = network.connect();
        let id = events.inspect().id();
        network.reset(peer);
        assert_eq!(events.abort().id, Some(id));
        for _ in 0..CROWD {
            let peer = network.connect();
            let other = events.inspect().id();
            network.reset(peer);
            assert_eq!(events.abort().id, Some(other));
        }
        let late = listener.inspect_complete(id, WskInspectAccept).wait();
        assert!(matches!(late.status, STATUS_SUCCESS | STATUS_NOT_FOUND), "{late:?}");
    });
}
