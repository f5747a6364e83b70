//! Support of many of the tests: machines of every kind, bounded waits, and expected reports of the checker.

use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use wsk_sim::raw::*;
use wsk_sim::{Builder, Report, Severity, Sim};
use wsk_sys::nt::PSECURITY_DESCRIPTOR;
use wsk_sys::{STATUS_SUCCESS, WSK_INSPECT_ACTION};

/// Time to wait for an event that must not happen, if there is no other indication.
pub(crate) const A_WHILE: Duration = Duration::from_millis(30);

pub(crate) use wsk_sim::{COMPLETIONS, for_each_choice, for_each_mode};

/// Runs a test in every mode, on machines that `setup` has changed.
#[track_caller]
pub(crate) fn for_each_mode_of(
    setup: impl Fn(Builder) -> Builder,
    test: impl Fn(&Sim) + Clone + Send + 'static,
) {
    wsk_sim::for_each_mode_with(|machine| setup(machine).build(), test);
}

/// Waits, with a bound, until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + BOUND;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {BOUND:?}");
        std::thread::yield_now();
    }
}

/// Waits until so many connections wait on a listener to be accepted.
#[track_caller]
pub(crate) fn await_untaken(sim: &Sim, listener: &Socket, count: usize) {
    eventually("connections wait on the listener", || sim.provider().untaken(listener.raw()) == Some(count));
}

/// Expects that the checker has named `rule` for a call that this test made.
#[track_caller]
pub(crate) fn assert_caught(sim: &Sim, rule: &str, call: &str) {
    let violations = sim.violations_of(rule);
    let found =
        violations.iter().any(|violation| violation.call == call && violation.location.contains("contract"));
    assert!(found, "{rule} was not caught in {call}, but: {:?}", sim.kernel().violations());
}

/// Expects that the checker has advised against something under `rule` in a call that this test made, and has
/// not called it a violation.
#[track_caller]
pub(crate) fn assert_advised(sim: &Sim, rule: &str, call: &str) {
    assert_caught(sim, rule, call);
    let reports = sim.violations_of(rule);
    assert!(reports.iter().all(|report| report.severity == Severity::Advice), "{reports:?}");
}

/// Expects that the checker has reported `rule` for the result of a callback of this test.
#[track_caller]
pub(crate) fn assert_answer_caught(sim: &Sim, rule: &'static str, callback: &str) {
    eventually(rule, || sim.violations_of(rule).iter().any(|violation| violation.call == callback));
}

/// `WskAccept` with these parameters. The tests keep the memory valid, or expect that it is reported.
pub(crate) fn accept_as(request: Request, listener: &Socket, parameters: AcceptParameters) -> Request {
    // SAFETY: the tables of the tests are static or a recorder's; their buffers outlive the requests or are
    // caught.
    unsafe { request.accept_as(listener, parameters) }
}

/// Runs `body`, which leaves something undone, on a machine, and finishes it.
pub(crate) fn left_behind(sim: &Sim, body: impl FnOnce(&Sim) + Send + 'static) -> Report {
    let own = sim.clone();
    sim.thread("test", move || body(&own)).join().expect("the test itself goes well");
    sim.finish()
}

/// Expects that the end of a run has named `rule` for something left undone.
#[track_caller]
pub(crate) fn assert_reported(report: &Report, rule: &str, call: &str) {
    let found = report.violations.iter().any(|violation| violation.rule == rule && violation.call == call);
    assert!(found, "{rule} was not reported for {call}, but:\n{report}");
}

/// Inspections that wait for the test to answer each of them.
#[derive(Debug)]
pub(crate) struct Inspector {
    asked: Mutex<mpsc::Receiver<(Inspect, mpsc::Sender<WSK_INSPECT_ACTION>)>>,
}

/// An inspection whose callback is waiting for its answer. Dropped unanswered it rejects.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) event: Inspect,
    answer: mpsc::Sender<WSK_INSPECT_ACTION>,
}

impl Inspector {
    /// Holds every `WskInspectEvent` of `events` open until it is answered.
    pub(crate) fn of(events: &Recorder) -> Self {
        let (ask, asked) = mpsc::channel();
        let ask = Mutex::new(ask);
        events.on_inspect(move |event| {
            let (answer, answered) = mpsc::channel();
            let sent = ask.lock().unwrap().send((event.clone(), answer));
            if sent.is_err() {
                return wsk_sys::WskInspectReject;
            }
            answered.recv().unwrap_or(wsk_sys::WskInspectReject)
        });
        Self { asked: Mutex::new(asked) }
    }

    /// The next inspection, still running.
    #[track_caller]
    pub(crate) fn next(&self) -> Asked {
        let (event, answer) = self.asked.lock().unwrap().recv_timeout(BOUND).expect("a WskInspectEvent");
        Asked { event, answer }
    }
}

impl Asked {
    /// Lets the callback return.
    pub(crate) fn answer(self, action: WSK_INSPECT_ACTION) {
        self.answer.send(action).expect("the callback waits for its answer");
    }
}

/// A security descriptor in the cache of WSK, given back when dropped.
#[derive(Debug)]
pub(crate) struct Descriptor<'a> {
    client: &'a Client,
    raw: PSECURITY_DESCRIPTOR,
}

impl<'a> Descriptor<'a> {
    /// Caches a descriptor that allows all, or no, other sockets to share an address.
    #[track_caller]
    pub(crate) fn cached(client: &'a Client, shares: bool) -> Self {
        // Self-relative: without a list access is allowed to all, with the empty one at offset 20 to none.
        let mut bytes = [0; 28];
        (bytes[0], bytes[3]) = (1, 0x80);
        if !shares {
            (bytes[2], bytes[16], bytes[20], bytes[22]) = (0x04, 20, 2, 8);
        }
        let buffer = Buffer::of(&bytes);
        // SAFETY: the bytes are a whole descriptor, in memory that lasts for the call.
        let raw = unsafe { client.cache_descriptor(buffer.address()) }.expect("a cached descriptor");
        Self { client, raw }
    }

    pub(crate) fn raw(&self) -> PSECURITY_DESCRIPTOR {
        self.raw
    }
}

impl Drop for Descriptor<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.client.release_descriptor(self.raw), STATUS_SUCCESS);
        }
    }
}

/// A connection of a listener with its peer; `events` has its callbacks.
#[track_caller]
pub(crate) fn accepted_pair(client: &Client, events: &Recorder) -> (Socket, Peer) {
    let (listener, address) = client.bound_listener(&Recorder::new());
    let accept = listener.accept_with(events).pends();
    let peer = Peer::connect(address);
    let connection = accept.socket();
    listener.close().ok();
    (connection, peer)
}

/// An option of `size` bytes, read with an IRP.
#[track_caller]
pub(crate) fn read_control(socket: &Socket, control: &Control) -> Vec<u8> {
    let (request, output, _) = Request::new().control(socket, control);
    let size = request.ok().information;
    let mut bytes = output.expect("an output was given").bytes();
    bytes.truncate(size);
    bytes
}

/// A host that answers no request for a connection: its one listener is full.
#[derive(Debug)]
pub(crate) struct SilentHost {
    listener: socket2::Socket,
    _fillers: Vec<socket2::Socket>,
}

impl SilentHost {
    pub(crate) fn new() -> Self {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&LOCALHOST.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let fillers = (0..4).map(|_| {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            let _ = filler.connect(&address);
            filler
        });
        Self { listener, _fillers: fillers.collect() }
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }
}
