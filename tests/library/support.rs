//! Support of the tests: a driver on a simulated machine, machines of every kind, and polling by hand.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use wsk::ConnectionHandlers;
use wsk::executor::block_on_timeout;
use wsk::{
    AbortHandler, AcceptHandler, Buffer, Client, DatagramSocket, Decision, DisconnectHandler, DisconnectKind,
    Incoming, Indication, InspectHandler, InspectId, InspectToken, Inspection, Listener, ListenerBuilder,
    Passive, Provider, ReceiveFrom, ReceiveHandler, Taken,
};
use wsk_sim::raw::Peer;
use wsk_sim::{FaultPoint, Sim};

pub(crate) use crate::harness::at_dispatch;

/// Time that anything may take that happens at all.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) use wsk_sim::{COMPLETIONS, for_each_choice};

/// Runs a test in every mode. What the checker only advises against fails it, too.
#[track_caller]
pub(crate) fn for_each_mode(test: impl Fn(&Sim) + Clone + Send + 'static) {
    let build = |machine: wsk_sim::Builder| {
        let sim = machine.build();
        sim.forbid_advice();
        sim
    };
    wsk_sim::for_each_mode_with(build, test);
}

/// The proof that this thread may wait: the tests run on threads of the machine, and call this in no
/// callback.
pub(crate) fn passive() -> Passive<'static> {
    // SAFETY: a thread of the machine is at PASSIVE_LEVEL, and tests ask for this outside of callbacks only.
    unsafe { Passive::assume() }
}

/// Runs a future to its end. It has to wake for that.
#[track_caller]
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    wait_within(BOUND, future)
}

/// Runs a future to its end, and tells one that has forgotten to wake from one that has no end.
#[track_caller]
pub(crate) fn wait_within<F: Future>(bound: Duration, future: F) -> F::Output {
    let mut future = Box::pin(future);
    match block_on_timeout(passive(), bound, future.as_mut()) {
        Ok(output) => output,
        Err(error) if error.is_timeout() => never_woken(&mut future, bound),
        Err(error) => panic!("the wait itself has failed: {error}"),
    }
}

/// Reason why a future was not woken within `bound`.
#[track_caller]
fn never_woken<F: Future + ?Sized>(future: &mut Pin<Box<F>>, bound: Duration) -> ! {
    match poll(future) {
        Poll::Ready(_) => {
            panic!("a lost wake-up: there is a result, and nobody was woken for it in {bound:?}")
        }
        Poll::Pending => panic!("there is no result within {bound:?}"),
    }
}

/// Polls once, without a waker to speak of.
pub(crate) fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls once, while no allocation succeeds.
pub(crate) fn poll_without_memory<F: Future + ?Sized>(
    sim: &Sim,
    future: &mut Pin<Box<F>>,
) -> Poll<F::Output> {
    sim.kernel().faults().fail_from(1);
    let polled = poll(future);
    sim.kernel().faults().clear();
    polled
}

/// Takes the memory that the client keeps, for receives that wait.
pub(crate) fn take_kept_memory(sim: &Sim, datagrams: &DatagramSocket) -> Vec<Pin<Box<ReceiveFrom>>> {
    let mut waiting = Vec::new();
    loop {
        let mut receive = Box::pin(datagrams.receive_from(Buffer::try_with_capacity(8).unwrap()));
        if poll_without_memory(sim, &mut receive).is_ready() {
            return waiting;
        }
        waiting.push(receive);
    }
}

/// Polls whenever the future was woken, until there is a result, without waiting for anything in the machine.
#[track_caller]
pub(crate) fn ready<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> F::Output {
    ready_within(BOUND, future)
}

/// The same with a bound.
#[track_caller]
pub(crate) fn ready_within<F: Future + ?Sized>(bound: Duration, future: &mut Pin<Box<F>>) -> F::Output {
    let wakes = Arc::new(Wakes::default());
    let end = Instant::now() + bound;
    loop {
        let seen = wakes.count();
        if let Poll::Ready(output) = wakes.poll(future) {
            return output;
        }
        while wakes.count() == seen {
            if Instant::now() >= end {
                never_woken(future, bound);
            }
            std::thread::yield_now();
        }
    }
}

/// Counts how often it is woken.
#[derive(Debug, Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn poll<F: Future + ?Sized>(self: &Arc<Self>, future: &mut Pin<Box<F>>) -> Poll<F::Output> {
        future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }
}

/// Waits, with a bound, until `condition` holds.
#[track_caller]
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !condition() {
        assert!(Instant::now() < end, "it never happened");
        std::thread::yield_now();
    }
}

/// A driver that has registered and captured WSK.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) client: Client,
    pub(crate) provider: Provider,
}

impl Driver {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let client = Client::register(passive()).expect("registering");
        let provider = client.capture(passive(), BOUND).expect("capturing");
        Self { client, provider }
    }

    #[track_caller]
    pub(crate) fn listen(&self) -> Listener {
        wait(self.provider.listener().bind(localhost())).expect("binding")
    }

    /// Waits until so many sockets are open.
    #[track_caller]
    pub(crate) fn await_sockets(&self, count: usize) {
        eventually(|| self.client.open_sockets() == count);
    }

    /// Closes what is open and deregisters.
    #[track_caller]
    pub(crate) fn unload(self) {
        drop(self.provider);
        self.client.unload(passive(), BOUND).expect("unloading");
    }
}

pub(crate) fn localhost() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

/// Waits until a peer's connection waits on the one listener to be taken.
#[track_caller]
pub(crate) fn await_untaken(sim: &Sim, count: usize) {
    eventually(|| {
        let sockets = sim.provider().open_sockets();
        let untaken =
            |socket: &wsk_sim::wsk_provider::OpenSocket| sim.provider().untaken(socket.address as *mut _);
        sockets.iter().filter_map(untaken).sum::<usize>() == count
    });
}

/// A connection from a peer to the listener.
#[track_caller]
pub(crate) fn connected(listener: &Listener) -> (wsk::Connection, Peer) {
    let peer = Peer::connect(listener.local_addr());
    let connection = wait(listener.accept()).expect("accepting");
    assert_eq!(connection.peer_addr(), peer.local());
    (connection, peer)
}

/// A receive under way that keeps its connection open.
pub(crate) type Receiving = Pin<Box<dyn Future<Output = (wsk::Result<usize>, wsk::Buffer)> + Send>>;

/// Receives with a connection that nothing else is done with.
pub(crate) fn receiving(mut connection: wsk::Connection, buffer: wsk::Buffer) -> Receiving {
    Box::pin(async move { connection.receive(buffer).await })
}

/// A handler of the accept event that is a closure.
pub(crate) struct Taker<E, F>(F, std::marker::PhantomData<fn(E)>);

impl<E, F> AcceptHandler for Taker<E, F>
where
    E: ConnectionHandlers,
    F: Fn(Incoming<'_, E>) + Send + Sync + 'static,
{
    type Handlers = E;

    fn accept(&self, incoming: Incoming<'_, E>) {
        (self.0)(incoming);
    }
}

/// Takes connections with a closure.
pub(crate) fn taker<E, F>(take: F) -> Taker<E, F>
where
    E: ConnectionHandlers,
    F: Fn(Incoming<'_, E>) + Send + Sync + 'static,
{
    Taker(take, std::marker::PhantomData)
}

/// Values on their way from handlers to the test.
#[derive(Debug)]
pub(crate) struct Told<T>(Mutex<mpsc::Receiver<T>>);

/// Sender with which a handler says something to the test.
#[derive(Debug)]
pub(crate) struct Tell<T>(Mutex<mpsc::Sender<T>>);

pub(crate) fn channel<T>() -> (Tell<T>, Told<T>) {
    let (sender, receiver) = mpsc::channel();
    (Tell(Mutex::new(sender)), Told(Mutex::new(receiver)))
}

impl<T> Tell<T> {
    pub(crate) fn say(&self, value: T) {
        // A test that has heard enough does not listen any more.
        let _ = self.0.lock().unwrap().send(value);
    }
}

impl<T> Clone for Tell<T> {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.0.lock().unwrap().clone()))
    }
}

impl<T> Told<T> {
    #[track_caller]
    pub(crate) fn next(&self) -> T {
        self.0.lock().unwrap().recv_timeout(BOUND).expect("the handler says something")
    }

    /// Returns everything that was said by now.
    pub(crate) fn now(&self) -> Option<T> {
        self.0.lock().unwrap().try_recv().ok()
    }
}

/// Tells the test when it is dropped.
#[derive(Debug)]
pub(crate) struct OnDrop(pub(crate) Tell<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.say(());
    }
}

/// A handler of received data that is a closure.
pub(crate) struct OnReceive<F>(pub(crate) F);

impl<F> ReceiveHandler for OnReceive<F>
where
    F: for<'a> Fn(Indication<'a>) -> Taken<'a> + Send + Sync + 'static,
{
    fn receive<'a>(&self, data: Indication<'a>) -> Taken<'a> {
        (self.0)(data)
    }
}

/// Makes a closure a handler of received data.
pub(crate) fn on_receive<F>(handle: F) -> OnReceive<F>
where
    F: for<'a> Fn(Indication<'a>) -> Taken<'a> + Send + Sync + 'static,
{
    OnReceive(handle)
}

/// A handler of received data that tells it and takes all of it.
pub(crate) fn tells_data(
    tell: Tell<Vec<u8>>,
) -> OnReceive<impl for<'a> Fn(Indication<'a>) -> Taken<'a> + Send + Sync> {
    on_receive(move |data| {
        tell.say(bytes_of(&data));
        data.accept()
    })
}

/// The bytes of an indication.
pub(crate) fn bytes_of(data: &Indication<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    data.for_each(|piece| {
        bytes.extend_from_slice(piece);
        true
    })
    .expect("the memory is mapped");
    assert_eq!(bytes.len(), data.len());
    bytes
}

/// A handler of disconnects that tells of them.
#[derive(Debug)]
pub(crate) struct TellsDisconnects(pub(crate) Tell<DisconnectKind>);

impl DisconnectHandler for TellsDisconnects {
    fn disconnected(&self, kind: DisconnectKind) {
        self.0.say(kind);
    }
}

/// A gate that is two closures.
pub(crate) struct Gate<I, A>(I, A);

impl<I, A> InspectHandler for Gate<I, A>
where
    I: for<'a> Fn(Inspection<'a>) -> Decision<'a> + Send + Sync + 'static,
    A: Send + Sync + 'static,
{
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        (self.0)(request)
    }
}

impl<I, A> AbortHandler for Gate<I, A>
where
    I: Send + Sync + 'static,
    A: Fn(InspectId) + Send + Sync + 'static,
{
    fn abort(&self, id: InspectId) {
        (self.1)(id);
    }
}

/// Inspects with a closure, and learns of aborts with another.
pub(crate) fn gate<I, A>(inspect: I, abort: A) -> Gate<I, A>
where
    I: for<'a> Fn(Inspection<'a>) -> Decision<'a> + Send + Sync + 'static,
    A: Fn(InspectId) + Send + Sync + 'static,
{
    Gate(inspect, abort)
}

/// A handler that several events share.
pub(crate) struct Shared<H>(Arc<H>);

impl<H: InspectHandler> InspectHandler for Shared<H> {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        self.0.inspect(request)
    }

    fn dead(&self) {
        self.0.dead();
    }
}

impl<H: AbortHandler> AbortHandler for Shared<H> {
    fn abort(&self, id: InspectId) {
        self.0.abort(id);
    }
}

/// Listeners with one handler for inspections and aborts.
pub(crate) trait Conditional<A> {
    fn conditional<G>(self, gate: G) -> ListenerBuilder<Shared<G>, Shared<G>, A>
    where
        G: InspectHandler + AbortHandler;
}

impl<A> Conditional<A> for ListenerBuilder<(), (), A> {
    fn conditional<G>(self, gate: G) -> ListenerBuilder<Shared<G>, Shared<G>, A>
    where
        G: InspectHandler + AbortHandler,
    {
        let gate = Arc::new(gate);
        self.inspect(Shared(Arc::clone(&gate))).on_abort(Shared(gate))
    }
}

/// A conditional listener whose requests are pended: the listener, the tokens, the aborts.
pub(crate) struct Pending {
    pub(crate) listener: Listener,
    pub(crate) tokens: Told<InspectToken>,
    pub(crate) aborts: Told<InspectId>,
}

/// Pends everything.
pub(crate) struct PendingGate {
    pub(crate) tokens: Tell<InspectToken>,
    pub(crate) aborts: Tell<InspectId>,
}

impl InspectHandler for PendingGate {
    fn inspect<'a>(&self, request: Inspection<'a>) -> Decision<'a> {
        match request.pend() {
            Ok((decision, token)) => {
                self.tokens.say(token);
                decision
            }
            Err((error, request)) => {
                assert!(error.is_out_of_memory());
                request.reject()
            }
        }
    }
}

impl AbortHandler for PendingGate {
    fn abort(&self, id: InspectId) {
        self.aborts.say(id);
    }
}

/// Counts the requests whose callback has returned pend, as WSK sees it. Tokens are told before: a decision
/// that is made then is the callback's answer, and no call.
pub(crate) fn count_pended(sim: &Sim) -> Arc<AtomicUsize> {
    let pended = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pended);
    // Asked when a request is pended; it is not dropped for that.
    sim.choose_by(FaultPoint::DropAfterPend, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        0
    });
    pended
}

impl Driver {
    /// Listens and pends everything.
    #[track_caller]
    pub(crate) fn listen_pending(&self) -> Pending {
        let (tell_tokens, tokens) = channel();
        let (tell_aborts, aborts) = channel();
        let gate = PendingGate { tokens: tell_tokens, aborts: tell_aborts };
        let listener = wait(self.provider.listener().conditional(gate).bind(localhost())).expect("binding");
        Pending { listener, tokens, aborts }
    }
}
