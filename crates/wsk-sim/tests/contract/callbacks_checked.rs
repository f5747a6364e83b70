//! Forbidden actions of callbacks: a panic that leaves them, and the assumption of a low IRQL.

use wsk_sim::raw::*;
use wsk_sim::{Level, Sim};
use wsk_sys::nt;
use wsk_sys::*;

use crate::link::*;
use crate::support::*;

/// Runs `body`, which makes a callback of that name panic, until the machine has stopped.
fn panics_in(name: &'static str, body: impl FnOnce() + Send + 'static) {
    let sim = Sim::new();
    let own = sim.clone();
    sim.expect("LIFE-18").run(move |_| {
        let keeps = own.clone();
        body();
        // The kernel stops this thread here.
        eventually("the kernel stops", || keeps.kernel().stopped().is_some());
    });
    let found = sim.violations_of("LIFE-18");
    assert!(found.iter().any(|found| found.call == name), "{name}: {found:?}");
}

/// Leaks the objects of a test: on a machine that has stopped they cannot be closed.
fn leave<T>(value: T) {
    std::mem::forget(value);
}

/// Catches: LIFE-18
#[test]
fn a_panic_that_would_leave_a_receive_event_is_caught() {
    panics_in("WskReceiveEvent", || {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        link.events.on_receive(|_| panic!("a receive event that goes wrong"));
        link.peer.send(b"x");
        leave(link);
    });
}

/// Catches: LIFE-18
#[test]
fn a_panic_that_would_leave_a_disconnect_event_is_caught() {
    panics_in("WskDisconnectEvent", || {
        let link = Link::with_events(WSK_EVENT_DISCONNECT);
        link.events.on_disconnect(|_| panic!("a disconnect event that goes wrong"));
        link.peer.half_close();
        leave(link);
    });
}

/// Catches: LIFE-18
#[test]
fn a_panic_that_would_leave_an_accept_event_is_caught() {
    panics_in("WskAcceptEvent", || {
        let client = Client::new();
        let events = Recorder::new();
        events.on_accept(|_| -> AcceptAnswer { panic!("an accept event that goes wrong") });
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        leave((Peer::connect(address), listener, client));
    });
}

/// Catches: LIFE-18
#[test]
fn a_panic_that_would_leave_an_abort_event_is_caught() {
    panics_in("WskAbortEvent", || {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        events.on_abort(|_| panic!("an abort event that goes wrong"));
        let (listener, address) = client.conditional_listener(&events);
        let peer = Peer::connect(address);
        events.inspect();
        peer.reset();
        leave((listener, client));
    });
}

/// Catches: LIFE-18
#[test]
fn a_panic_that_would_leave_a_completion_routine_is_caught() {
    panics_in("a completion routine", || {
        let link = Link::new();
        let receive = Request::new().hook(|_, _| panic!("a completion routine that goes wrong"));
        let receive = receive.receive(&link.socket, &Buffer::new(1), 0).pends();
        link.peer.send(b"x");
        leave((link, receive));
    });
}

/// Sets an event for a wait that is to follow at once, which is for APC_LEVEL and below.
fn set_to_wait() {
    let storage = PoolBox::new(std::mem::MaybeUninit::<nt::KEVENT>::uninit());
    let event: *mut nt::KEVENT = storage.as_ptr().cast();
    // SAFETY: the storage is as large as an event, and lasts.
    unsafe { nt::KeInitializeEvent(event, nt::NOTIFICATION_EVENT, 0) };
    // SAFETY: the event is initialised.
    unsafe { nt::KeSetEvent(event, nt::IO_NO_INCREMENT, 1) };
}

/// Runs `body`, whose callback does [`set_to_wait`], with the callbacks at DISPATCH_LEVEL, and at
/// PASSIVE_LEVEL, where nothing is wrong with that.
fn assumes_a_low_level(body: impl Fn(&Sim) + Clone + Send + 'static) {
    Sim::builder().callbacks(Level::Passive).build().run(body.clone());
    let sim = Sim::builder().callbacks(Level::Dispatch).build();
    sim.expect("IRQL-15").run(move |sim| {
        body(sim);
        assert_caught(sim, "IRQL-15", "KeSetEvent");
    });
}

/// Catches: IRQL-15
#[test]
fn a_receive_event_that_takes_a_low_level_for_granted_is_caught() {
    assumes_a_low_level(|_| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        link.events.on_receive(|_| {
            set_to_wait();
            ReceiveAnswer::all()
        });
        link.peer.send(b"x");
        link.events.receive();
    });
}

/// Catches: IRQL-15
#[test]
fn an_accept_event_that_takes_a_low_level_for_granted_is_caught() {
    assumes_a_low_level(|_| {
        let client = Client::new();
        let events = Recorder::new();
        events.on_accept(|_| {
            set_to_wait();
            AcceptAnswer::take()
        });
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let _peer = Peer::connect(address);
        drop(events.accept().socket());
    });
}

/// Catches: IRQL-15
#[test]
fn a_receive_from_event_that_takes_a_low_level_for_granted_is_caught() {
    assumes_a_low_level(|_| {
        let client = Client::new();
        let events = Recorder::new();
        events.on_receive_from(|_| {
            set_to_wait();
            STATUS_SUCCESS
        });
        let socket = client.socket(Category::Datagram, &events);
        let address = socket.bind_localhost();
        assert_eq!(socket.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
        let host = std::net::UdpSocket::bind(LOCALHOST).expect("a host socket");
        host.send_to(b"x", address).expect("a datagram");
        events.receive_from();
    });
}
