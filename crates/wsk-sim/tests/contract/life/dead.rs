//! Sockets that the provider can no longer run.

use wsk_sim::raw::*;
use wsk_sim::{FaultPoint, Sim};
use wsk_sys::*;

use crate::link::Link;
use crate::support::*;

type Call = fn(&Socket) -> Request;
type Make = fn(&Client) -> Socket;

fn listener(client: &Client) -> Socket {
    client.bound_listener(&Recorder::new()).0
}

fn datagram(client: &Client) -> Socket {
    let socket = client.datagram(&Recorder::new());
    socket.bind_localhost();
    socket
}

fn connection(client: &Client) -> Socket {
    accepted_pair(client, &Recorder::new()).0
}

fn stream(client: &Client) -> Socket {
    client.socket(Category::Stream, &Recorder::new())
}

/// A call of each function, on a socket of each category that has it.
const CALLS: [(Make, Call); 18] = [
    (listener, |s| s.accept()),
    (listener, |s| s.bind(LOCALHOST)),
    (listener, |s| Request::new().local_address(s).0),
    (listener, |s| s.set_option(SOL_SOCKET, SO_KEEPALIVE, 1)),
    (listener, |s| s.inspect_complete(WSK_INSPECT_ID { Key: 1, SerialNumber: 2 }, WskInspectAccept)),
    (datagram, |s| s.send_to(b"x", LOCALHOST)),
    (datagram, |s| Request::new().receive_from(s, &Buffer::new(1), ReceiveFromOptions::default()).0),
    (datagram, |s| Request::new().send_messages(s, BufferList::new(&[Buffer::of(b"x")]), Some(LOCALHOST), 0)),
    (datagram, |s| Request::new().local_address(s).0),
    (connection, |s| s.send(b"x")),
    (connection, |s| s.receive(&Buffer::new(1))),
    (connection, Socket::disconnect),
    (connection, Socket::abort),
    (connection, |s| s.connect(LOCALHOST)),
    (connection, |s| Request::new().connect_ex(s, LOCALHOST, None, 0)),
    (connection, |s| Request::new().remote_address(s).0),
    (stream, |s| s.bind(LOCALHOST)),
    (stream, Socket::listen),
];

/// Shows: LIFE-14, LIFE-17
#[test]
fn every_call_on_a_dead_socket_fails_and_the_close_works() {
    for_each_mode(|sim| {
        let client = Client::new();
        for (make, call) in CALLS {
            let socket = make(&client);
            assert!(sim.provider().kill(socket.raw()));
            let done = call(&socket).fails(STATUS_FILE_FORCED_CLOSED);
            assert_eq!((done.returned, done.information, done.runs), (STATUS_FILE_FORCED_CLOSED, 0, 1));
            socket.close().ok();
        }
        // Without an IRP the return value is the status.
        let socket = listener(&client);
        sim.provider().kill(socket.raw());
        assert_eq!(socket.enable(WSK_EVENT_ACCEPT), STATUS_FILE_FORCED_CLOSED);
        socket.close().ok();
    });
}

/// Shows: LIFE-17
#[test]
fn a_socket_can_die_in_any_call_and_closing_it_is_the_answer() {
    for_each_mode(|sim| {
        let client = Client::new();
        for (make, call) in CALLS {
            let socket = make(&client);
            sim.choose(FaultPoint::DieInCall, 1);
            call(&socket).fails(STATUS_FILE_FORCED_CLOSED);
            sim.choose_naturally(FaultPoint::DieInCall);
            socket.close().ok();
        }
    });
}

/// Shows: LIFE-17
#[test]
fn requests_that_wait_end_when_their_socket_dies() {
    for_each_mode(|sim| {
        let link = Link::new();
        let (listener, datagram) = (listener(&link.client), datagram(&link.client));
        let buffer = Buffer::new(1);
        for (socket, request) in [
            (&listener, listener.accept()),
            (&datagram, Request::new().receive_from(&datagram, &buffer, ReceiveFromOptions::default()).0),
            (&link.socket, link.socket.receive(&buffer)),
        ] {
            let request = request.pends();
            sim.provider().kill(socket.raw());
            request.fails(STATUS_FILE_FORCED_CLOSED);
            socket.close().ok();
        }
    });
}

/// Shows: LIFE-15
#[test]
fn a_list_retained_on_a_dead_socket_can_be_released_before_the_close() {
    for_each_mode(|sim| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        link.events.on_receive(|event| {
            if event.is_sentinel() { ReceiveAnswer::all() } else { ReceiveAnswer::retain() }
        });
        link.peer.send(b"kept");
        let kept = link.events.receive();
        sim.provider().kill(link.socket.raw());
        assert!(link.events.receive().is_sentinel());
        // SAFETY: the list was retained and is released below.
        assert_eq!(unsafe { kept.list.elements() }.concat(), b"kept");
        assert_eq!(link.socket.release(kept.list), STATUS_SUCCESS);
        link.socket.close().ok();

        let client = Client::new();
        let events = Recorder::new();
        events
            .on_receive_from(|event| if event.datagrams.is_some() { STATUS_PENDING } else { STATUS_SUCCESS });
        let socket = client.datagram(&events);
        let address = socket.bind_localhost();
        assert_eq!(socket.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
        let (host, _) = host_datagram();
        host.send_to(b"kept", address).unwrap();
        let kept = events.receive_from();
        sim.provider().kill(socket.raw());
        assert!(events.receive_from().datagrams.is_none());
        assert_eq!(socket.release(kept.list), STATUS_SUCCESS);
        socket.close().ok();
    });
}

/// Shows: LIFE-16
#[test]
fn a_dying_socket_calls_each_enabled_event_that_can_say_so_once() {
    for_each_mode(|sim| {
        let link = Link::with_events(WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT | WSK_EVENT_SEND_BACKLOG);
        let (listening, datagrams, silent) = (Recorder::new(), Recorder::new(), Recorder::new());
        listening.on_accept(|_| AcceptAnswer::refuse());
        let (listener, _) = link.client.bound_listener(&listening);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let datagram = link.client.datagram(&datagrams);
        datagram.bind_localhost();
        assert_eq!(datagram.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
        // A socket whose event is disabled.
        let (quiet, _) = link.client.bound_listener(&silent);
        for socket in [&link.socket, &listener, &datagram, &quiet] {
            sim.provider().kill(socket.raw());
            // A second death has no effect.
            sim.provider().kill(socket.raw());
        }
        assert!(link.events.receive().is_sentinel());
        assert!(listening.accept().socket.is_none());
        assert!(datagrams.receive_from().datagrams.is_none());
        for socket in [&link.socket, &listener, &datagram, &quiet] {
            // No callback comes after the close.
            socket.close().ok();
        }
        for events in [&link.events, &listening, &datagrams, &silent] {
            assert!(events.drain().is_empty());
        }
        assert_eq!((link.events.entered(Kind::Receive), link.events.entered(Kind::Disconnect)), (1, 0));
        assert_eq!((listening.entered(Kind::Accept), datagrams.entered(Kind::ReceiveFrom)), (1, 1));
        assert_eq!(silent.entered(Kind::Accept), 0);
    });
}

/// Catches: LIFE-17
#[test]
fn a_dead_socket_that_is_used_again_is_caught() {
    let sim = Sim::new();
    sim.expect("LIFE-17");
    sim.run(|sim| {
        let client = Client::new();
        let socket = datagram(&client);
        sim.provider().kill(socket.raw());
        socket.send_to(b"x", LOCALHOST).fails(STATUS_FILE_FORCED_CLOSED);
        assert!(sim.violations_of("LIFE-17").is_empty(), "the client could not know");
        socket.send_to(b"x", LOCALHOST).fails(STATUS_FILE_FORCED_CLOSED);
        assert_caught(sim, "LIFE-17", "WskSendTo");
    });
}

/// A thread does not know the result of a call of another thread, and may be about to make a call.
///
/// Catches: LIFE-17
#[test]
fn a_thread_that_could_not_know_is_not_blamed() {
    let sim = Sim::new();
    sim.expect("LIFE-17");
    sim.run(|sim| {
        let client = Client::new();
        let socket = datagram(&client);
        sim.provider().kill(socket.raw());
        socket.send_to(b"x", LOCALHOST).fails(STATUS_FILE_FORCED_CLOSED);
        let counted = sim.clone();
        let other = move || {
            socket.send_to(b"x", LOCALHOST).fails(STATUS_FILE_FORCED_CLOSED);
            assert!(counted.violations_of("LIFE-17").is_empty(), "this thread could not know");
            socket.send_to(b"x", LOCALHOST).fails(STATUS_FILE_FORCED_CLOSED);
            socket
        };
        let socket = sim.thread("another", other).join().unwrap();
        assert_caught(sim, "LIFE-17", "WskSendTo");
        drop(socket);
    });
}
