//! `WskCloseSocket`: its waits, its effects, and forbidden calls (contract 4.20).

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use wsk_sim::nt_user::faults::Point;
use wsk_sim::raw::*;
use wsk_sim::{Completion, FaultPoint, Sim};
use wsk_sys::nt::{self, NTSTATUS};
use wsk_sys::*;

use crate::support::*;

/// Number of times that a race is tried.
const ROUNDS: u32 = 1024;

/// A connection with its peer; `events` has its callbacks.
fn connected_pair(client: &Client, events: &Recorder) -> (Socket, Peer) {
    let (listener, address) = client.bound_listener(&Recorder::new());
    let accept = listener.accept_with(events).pends();
    let peer = Peer::connect(address);
    let connection = accept.socket();
    listener.close().ok();
    (connection, peer)
}

/// Shows: CLOSE-02, CLOSE-03, CLOSE-09, CLOSE-10
#[test]
fn a_close_cancels_what_is_pending_and_completes_after_it() {
    for_each_mode(|_| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let (connection, _peer) = connected_pair(&client, &Recorder::new());
        let order = Arc::new(Mutex::new(Vec::new()));
        let noting = |what: &'static str| {
            let order = Arc::clone(&order);
            Request::new().hook(move |_, _| order.lock().unwrap().push(what))
        };
        let accept = noting("pending").accept(&listener, None, 0).pends();
        let done = listener.close_with(noting("close")).ok();
        assert_eq!((done.information, done.runs), (0, 1));
        assert_eq!(accept.fails(STATUS_CANCELLED).information, 0);
        let receive = noting("pending").receive(&connection, &Buffer::new(1), 0).pends();
        assert_eq!(connection.close_with(noting("close")).ok().information, 0);
        assert_eq!(receive.fails(STATUS_CANCELLED).information, 0);
        assert_eq!(*order.lock().unwrap(), ["pending", "close", "pending", "close"]);
    });
}

/// Shows: CLOSE-04
#[test]
fn closing_a_connection_that_was_not_disconnected_both_ways_resets_it() {
    for_each_mode(|_| {
        let client = Client::new();
        let (open, peer) = connected_pair(&client, &Recorder::new());
        open.close().ok();
        peer.expect_reset();
        let (half, peer) = connected_pair(&client, &Recorder::new());
        half.disconnect().returned();
        peer.expect_end();
        half.close().ok();
        // The peer's next bytes meet no connection.
        eventually("the peer is reset", || {
            use std::io::Write;
            peer.stream().write_all(b"late").is_err()
        });
    });
}

/// Shows: CLOSE-05
#[test]
fn closing_a_connection_that_was_disconnected_both_ways_is_silent() {
    for_each_mode(|_| {
        let client = Client::new();
        let (connection, peer) = connected_pair(&client, &Recorder::new());
        peer.half_close();
        assert_eq!(connection.receive(&Buffer::new(1)).ok().information, 0);
        connection.disconnect().ok();
        connection.close().ok();
        peer.expect_end();
    });
}

/// Shows: CLOSE-06, CLOSE-07
#[test]
fn a_close_pends_until_the_callbacks_in_progress_have_returned() {
    for completion in [Completion::Natural, Completion::Inline, Completion::PendEarly] {
        let sim = Sim::builder().completion(completion).build();
        sim.run(|_| {
            let client = Client::new();
            let events = Recorder::new();
            let (connection, peer) = connected_pair(&client, &events);
            assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
            let hold = events.hold(Kind::Receive);
            peer.send(b"x");
            hold.wait_entered();
            let close = connection.close();
            assert_eq!(close.returned(), STATUS_PENDING);
            assert!(close.wait_up_to(A_WHILE).is_none(), "the callback is still running");
            hold.open();
            close.ok();
            assert_eq!(events.entered(Kind::Receive), events.returned(Kind::Receive));
        });
    }
}

/// Shows: CLOSE-08
#[test]
fn nothing_is_called_after_a_close_has_completed() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, peer) = connected_pair(&client, &events);
        assert_eq!(connection.enable(WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        peer.send(b"before");
        events.receive_bytes(6);
        connection.close().ok();
        let called = events.entered(Kind::Receive) + events.entered(Kind::Disconnect);
        let _ = std::io::Write::write(&mut peer.stream(), b"after");
        peer.reset();
        // Another connection is served meanwhile, so the provider was not idle.
        let (other, other_peer) = connected_pair(&client, &Recorder::new());
        other_peer.send(b"ok");
        assert_eq!(other.receive_all(2), b"ok");
        assert_eq!(events.entered(Kind::Receive) + events.entered(Kind::Disconnect), called);
    });
}

/// Closes connections one after the other, each at about the moment when its last request, which another
/// thread cancels, is done with. `close` is what the close is submitted with.
fn close_at_the_end_of_the_last_request(sim: &Sim, close: impl Fn(&Socket) -> Request) {
    let client = Client::new();
    let (listener, address) = client.bound_listener(&Recorder::new());
    let (give, given) = mpsc::channel::<Request>();
    let (take_back, taken) = mpsc::channel();
    let canceller = sim.thread("cancel", move || {
        for receive in given {
            receive.cancel();
            take_back.send(receive).expect("the test waits for it");
        }
    });
    for round in 0..ROUNDS {
        let peer = Peer::connect(address);
        // None of its events is ever on. That the close says so, which takes a while, gives the other thread
        // its chance.
        let connection = listener.accept_with(&Recorder::new()).socket();
        let completing = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&completing);
        // The request is to be done with while the close ends the connection, which takes some dozen
        // microseconds.
        let hook = move |_, _| {
            seen.store(true, Ordering::SeqCst);
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros((round % 64).into()) {}
        };
        let receive = Request::new().hook(hook).receive(&connection, &Buffer::new(1), 0).pends();
        give.send(receive).expect("a thread cancels");
        while !completing.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
        connection.close_with(close(&connection)).ok();
        taken.recv_timeout(BOUND).expect("the request is cancelled").fails(STATUS_CANCELLED);
        peer.expect_reset();
    }
    drop(give);
    canceller.join().expect("a thread that cancels");
    listener.close().ok();
}

/// Shows: CLOSE-02, IRP-07
#[test]
fn a_close_that_may_complete_inline_is_not_completed_by_who_ends_the_last_request() {
    let sim = Sim::builder().completion(Completion::Inline).build();
    // Its return value and the pending bit of the IRP have to agree.
    sim.run(|sim| close_at_the_end_of_the_last_request(sim, |_| Request::new()));
}

/// Shows: REG-20, CLOSE-02
#[test]
fn a_socket_is_there_until_its_close_has_completed() {
    let sim = Sim::builder().completion(Completion::PendLate).build();
    sim.run(|sim| {
        close_at_the_end_of_the_last_request(sim, |connection| {
            let (provider, socket) = (sim.provider().clone(), connection.raw() as usize);
            let is_there = move || provider.open_sockets().iter().any(|open| open.address == socket);
            Request::new().hook(move |_, _| assert!(is_there()))
        });
    });
}

/// Shows: CLOSE-15
#[test]
fn a_close_may_be_started_inside_a_callback_and_completes_after_it() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, peer) = connected_pair(&client, &events);
        let socket = Arc::new(Mutex::new(Some(connection)));
        let close = Arc::new(Mutex::new(None));
        let inside = Arc::new(AtomicBool::new(false));
        let (own, started, within) = (Arc::clone(&socket), Arc::clone(&close), Arc::clone(&inside));
        events.on_receive(move |_| {
            if let Some(connection) = own.lock().unwrap().take() {
                within.store(true, Ordering::SeqCst);
                let seen = Arc::clone(&within);
                let overlapped = move |_, _| assert!(!seen.load(Ordering::SeqCst), "the callback is running");
                let request = connection.close_with(Request::new().hook(overlapped));
                assert_eq!(request.returned(), STATUS_PENDING);
                *started.lock().unwrap() = Some(request);
                within.store(false, Ordering::SeqCst);
            }
            ReceiveAnswer::all()
        });
        let enabled = socket.lock().unwrap().as_ref().map(|connection| connection.enable(WSK_EVENT_RECEIVE));
        assert_eq!(enabled, Some(STATUS_SUCCESS));
        peer.send(b"x");
        eventually("the callback closes", || close.lock().unwrap().is_some());
        let request = close.lock().unwrap().take().unwrap();
        request.ok();
        assert_eq!(events.returned(Kind::Receive), 1);
        events.on_receive(|_| ReceiveAnswer::all());
    });
}

/// Catches: CLOSE-01
#[test]
fn a_close_while_another_call_executes_is_caught() {
    let sim = Sim::builder().completion(Completion::Inline).build();
    sim.expect("CLOSE-01");
    sim.run(|sim| {
        let client = Client::new();
        let (connection, _peer) = connected_pair(&client, &Recorder::new());
        let connection = Arc::new(connection);
        let again = Arc::clone(&connection);
        // The completion routine runs inside of `WskSend`, which is still executing when it closes.
        Request::new().hook(move |_, _| drop(again.close())).send(&connection, &Buffer::of(b"x"), 0).wait();
        assert_caught(sim, "CLOSE-01", "WskCloseSocket");
    });
}

/// Catches: CLOSE-12
#[test]
fn a_second_close_is_caught() {
    let sim = Sim::new();
    sim.expect("CLOSE-12");
    sim.run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, peer) = connected_pair(&client, &events);
        assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        // A callback keeps the first close from completing, so that the socket is still there.
        let hold = events.hold(Kind::Receive);
        peer.send(b"x");
        hold.wait_entered();
        let close = connection.close();
        connection.close().wait();
        assert_caught(sim, "CLOSE-12", "WskCloseSocket");
        hold.open();
        close.ok();
    });
}

/// Catches: CLOSE-13
#[test]
fn a_call_on_a_closing_socket_is_caught() {
    let sim = Sim::new();
    sim.expect("CLOSE-13");
    sim.run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, peer) = connected_pair(&client, &events);
        assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        let hold = events.hold(Kind::Receive);
        peer.send(b"x");
        hold.wait_entered();
        let close = connection.close();
        connection.send(b"late").wait();
        assert_caught(sim, "CLOSE-13", "WskSend");
        hold.open();
        close.ok();
    });
}

/// Catches: CLOSE-11
#[test]
fn going_on_with_a_socket_whose_close_has_failed_is_caught() {
    let sim = Sim::new();
    sim.expect("CLOSE-11");
    sim.run(|sim| {
        let client = Client::new();
        let (connection, peer) = connected_pair(&client, &Recorder::new());
        sim.choose_once(FaultPoint::CloseFails, 1);
        connection.close().fails(STATUS_UNSUCCESSFUL);
        // The socket is gone nevertheless.
        peer.expect_reset();
        connection.send(b"x").wait();
        assert_caught(sim, "CLOSE-11", "WskSend");
        connection.close().wait();
        assert_caught(sim, "CLOSE-11", "WskCloseSocket");
    });
}

/// Catches: CLOSE-14
#[test]
fn a_socket_that_cannot_be_closed_for_want_of_an_irp_is_reported() {
    let sim = Sim::new();
    let report = left_behind(&sim, |sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        sim.kernel().faults().fail_all(Point::Irp);
        // SAFETY: the level is passive.
        let irp = unsafe { nt::IoAllocateIrp(1, 0) };
        assert!(irp.is_null(), "and so this client cannot close");
        listener.forget();
        client.forget();
    });
    assert_reported(&report, "CLOSE-14", "WskCloseSocket");
}

/// Shows: CLOSE-16
#[test]
fn a_close_leaves_the_cached_descriptor_to_the_client() {
    for_each_mode(|_| {
        let client = Client::new();
        let descriptor = Descriptor::cached(&client, true);
        let options = SocketOptions { security: descriptor.raw(), ..SocketOptions::new(Category::Listen) };
        for _ in 0..2 {
            // The second socket finds the descriptor as the first has left it.
            let listener = client.open(&options).socket();
            listener.bind_localhost();
            listener.close().ok();
        }
        // It is released once, and that works.
        drop(descriptor);
    });
    let sim = Sim::new();
    let report = left_behind(&sim, |_| {
        let client = Client::new();
        let descriptor = Descriptor::cached(&client, true);
        let options = SocketOptions { security: descriptor.raw(), ..SocketOptions::new(Category::Listen) };
        client.open(&options).socket().close().ok();
        std::mem::forget(descriptor);
    });
    assert_reported(&report, "CTL-07", "WskControlClient");
}

/// The context of a connection whose callback closes it.
struct Closing {
    socket: Mutex<Option<Socket>>,
    close: Mutex<Option<mpsc::Sender<Request>>>,
}

unsafe extern "system" fn close_and_free(context: *mut c_void, _flags: u32) -> NTSTATUS {
    // SAFETY: the context is the block that the socket was given, which this callback takes for its own.
    let context = unsafe { PoolBox::from_raw(context.cast::<Closing>()) };
    let socket = context.socket.lock().unwrap().take().expect("the socket is there");
    let sender = context.close.lock().unwrap().take().expect("it is closed once");
    let _ = sender.send(socket.close());
    drop(context);
    STATUS_SUCCESS
}

/// Catches: CLOSE-17
#[test]
fn freeing_the_context_in_the_callback_that_started_the_close_is_caught() {
    static TABLE: WSK_CLIENT_CONNECTION_DISPATCH = WSK_CLIENT_CONNECTION_DISPATCH {
        WskReceiveEvent: None,
        WskDisconnectEvent: Some(close_and_free),
        WskSendBacklogEvent: None,
    };
    let sim = Sim::new();
    sim.expect("CLOSE-17");
    sim.run(|sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let (sender, closes) = mpsc::channel();
        let context =
            PoolBox::new(Closing { socket: Mutex::new(None), close: Mutex::new(Some(sender)) }).into_raw();
        let parameters = AcceptParameters {
            context: context.cast(),
            dispatch: &raw const TABLE,
            ..AcceptParameters::default()
        };
        let accept = accept_as(Request::new(), &listener, parameters);
        let peer = Peer::connect(address);
        let connection = accept.socket();
        // SAFETY: the context lives until the callback frees it.
        *unsafe { &*context }.socket.lock().unwrap() = Some(connection.clone());
        assert_eq!(connection.enable(WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        peer.reset();
        closes.recv_timeout(BOUND).expect("the callback closes").ok();
        assert_caught(sim, "CLOSE-17", "ExFreePoolWithTag");
    });
}

/// Catches: CLOSE-17
#[test]
fn freeing_the_table_of_an_open_socket_is_caught() {
    let sim = Sim::new();
    sim.expect("CLOSE-17");
    sim.run(|sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let table = PoolBox::new(Tables::default().connection);
        let parameters = AcceptParameters { dispatch: table.as_ptr(), ..AcceptParameters::default() };
        let accept = accept_as(Request::new(), &listener, parameters);
        let _peer = Peer::connect(address);
        let connection = accept.socket();
        drop(table);
        assert_caught(sim, "CLOSE-17", "ExFreePoolWithTag");
        connection.close().ok();
        assert_eq!(sim.violations_of("CLOSE-17").len(), 1);
    });
}
