//! Stream sockets, which get their role only after the bind (contract 4.11, 5.8).

use std::ffi::c_void;
use std::ptr;

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::*;
use wsk_sim::{Completion, Release, Sim};
use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::support::*;

/// A stream socket that listens.
fn listening(client: &Client, events: &Recorder) -> (Socket, std::net::SocketAddr) {
    let stream = client.socket(Category::Stream, events);
    let address = stream.bind_localhost();
    stream.listen().ok();
    (stream, address)
}

/// A stream socket that is connected, with its peer.
fn connected(client: &Client, events: &Recorder) -> (Socket, Peer) {
    let (host, served) = host_listener();
    let stream = client.socket(Category::Stream, events);
    stream.bind_localhost();
    stream.connect(served).ok();
    (stream, Peer::accept(&host))
}

/// Shows: STRM-01
#[test]
fn stream_sockets_exist_from_1703_on() {
    for (release, exist) in [
        (Release::Vista, false),
        (Release::Windows7, false),
        (Release::Windows8, false),
        (Release::Redstone2, true),
        (Release::Redstone3, true),
        (Release::Redstone4, true),
    ] {
        Sim::builder().provider(|config| config.release = release).build().run(move |_| {
            let client = Client::new();
            let request = client.open(&SocketOptions::new(Category::Stream));
            if exist {
                request.socket();
            } else {
                assert_eq!(request.fails(STATUS_NOT_SUPPORTED).information, 0);
            }
        });
    }
}

unsafe extern "system" fn disconnect(_: *mut c_void, _: u32) -> NTSTATUS {
    STATUS_SUCCESS
}

/// Catches: STRM-02
#[test]
fn tables_embedded_where_pointers_to_tables_belong_are_caught() {
    let sim = Sim::new();
    sim.expect("STRM-02");
    sim.run(|sim| {
        let client = Client::new();
        let open = |table: *const c_void| {
            let options = SocketOptions::new(Category::Stream);
            // SAFETY: no event of the socket is ever enabled, so the members of the table are never called.
            unsafe { client.open_as(Request::new(), &options, ptr::null_mut(), table) }
        };
        open(Recorder::new().table(Category::Stream)).socket();
        assert!(sim.violations_of("STRM-02").is_empty());
        // The first members of an embedded table are read as the pointers: to code, which is no table.
        let embedded = PoolBox::new(WSK_CLIENT_CONNECTION_DISPATCH {
            WskReceiveEvent: None,
            WskDisconnectEvent: Some(disconnect),
            WskSendBacklogEvent: None,
        });
        open(embedded.as_ptr().cast()).socket();
        assert_caught(sim, "STRM-02", "WskSocket");
        // And a table on the stack behind a pointer that is fine.
        let listen =
            WSK_CLIENT_LISTEN_DISPATCH { WskAcceptEvent: None, WskInspectEvent: None, WskAbortEvent: None };
        let pair =
            PoolBox::new(WSK_CLIENT_STREAM_DISPATCH { Listen: &raw const listen, Connect: ptr::null() });
        open(pair.as_ptr().cast()).socket();
        assert_eq!(sim.violations_of("STRM-02").len(), 2);
    });
}

/// Shows: STRM-03, STRM-04
#[test]
fn listening_needs_a_bound_socket_and_an_irp_and_no_other_owner() {
    for (completion, expected) in [
        (Completion::Natural, STATUS_PENDING),
        (Completion::Inline, STATUS_SUCCESS),
        (Completion::PendNested, STATUS_PENDING),
        (Completion::PendEarly, STATUS_PENDING),
        (Completion::PendLate, STATUS_PENDING),
    ] {
        Sim::builder().completion(completion).build().run(move |sim| {
            let client = Client::new();
            let stream = client.socket(Category::Stream, &Recorder::new());
            let address = stream.bind_localhost();
            assert!(Peer::is_refused(address), "it does not listen by its bind");
            // There is no peer, and no backlog to be given.
            let listen = stream.listen();
            assert_eq!(listen.returned(), expected);
            assert_eq!(listen.ok().information, 0);
            assert_eq!(stream.local_address(), address);
            let peer = Peer::connect(address);
            await_untaken(sim, &stream, 1);
            assert_eq!(stream.accept().socket().remote_address(), peer.local());
        });
    }
}

/// Shows: STRM-03
/// Catches: IRP-18
#[test]
fn listening_without_an_irp_is_refused() {
    let sim = Sim::new();
    sim.expect("IRP-18");
    sim.run(|sim| {
        let client = Client::new();
        let stream = client.socket(Category::Stream, &Recorder::new());
        stream.bind_localhost();
        assert_eq!(Request::null().listen(&stream).returned(), STATUS_INVALID_PARAMETER);
        assert_caught(sim, "IRP-18", "WskListen");
        stream.listen().ok();
    });
}

/// Shows: STRM-05, STRM-06, STRM-09
#[test]
fn a_stream_socket_has_one_role_for_good() {
    for_each_choice(
        |behaviours, choice: OtherRole| behaviours.other_role = choice,
        |_, choice| {
            let client = Client::new();
            let refused = |request: Request| {
                let done = request.fails(choice.status());
                assert_eq!((done.returned, done.information), (choice.status(), 0));
            };
            let (_host, served) = host_listener();
            let buffer = Buffer::new(4);
            let (listener, address) = listening(&client, &Recorder::new());
            refused(listener.connect(served));
            refused(Request::new().connect_ex(&listener, served, None, 0));
            refused(listener.send(b"x"));
            refused(listener.receive(&buffer));
            refused(listener.disconnect());
            refused(listener.listen());
            let peer = Peer::connect(address);
            assert_eq!(listener.accept().socket().remote_address(), peer.local());
            let (connection, peer) = connected(&client, &Recorder::new());
            refused(connection.listen());
            refused(connection.accept());
            connection.send(b"x").ok();
            assert_eq!(peer.receive(1), b"x");
        },
    );
    assert_eq!(OtherRole::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Shows: STRM-07
#[test]
fn an_unbound_stream_socket_takes_no_role() {
    for_each_choice(
        |behaviours, choice: StreamUnbound| behaviours.stream_unbound = choice,
        |_, choice| {
            let client = Client::new();
            let (_host, served) = host_listener();
            let stream = client.socket(Category::Stream, &Recorder::new());
            for request in [stream.listen(), stream.connect(served)] {
                let done = request.fails(choice.status());
                assert_eq!((done.returned, done.information), (choice.status(), 0));
            }
            stream.bind_localhost();
            stream.listen().ok();
        },
    );
    assert_eq!(StreamUnbound::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Shows: STRM-08
#[test]
fn an_accept_before_the_listening_is_refused_or_waits_for_it() {
    for_each_choice(
        |behaviours, choice: AcceptBeforeListen| behaviours.accept_before_listen = choice,
        |_, choice| {
            let client = Client::new();
            let stream = client.socket(Category::Stream, &Recorder::new());
            let address = stream.bind_localhost();
            let accept = stream.accept();
            match choice {
                AcceptBeforeListen::Refused => {
                    let done = accept.fails(STATUS_INVALID_DEVICE_STATE);
                    assert_eq!((done.returned, done.information), (STATUS_INVALID_DEVICE_STATE, 0));
                    stream.listen().ok();
                }
                AcceptBeforeListen::Queued => {
                    let accept = accept.pends();
                    stream.listen().ok();
                    assert!(!accept.is_completed());
                    let peer = Peer::connect(address);
                    assert_eq!(accept.socket().remote_address(), peer.local());
                    // One that waits is ended by a cancellation, by the other role, and by the close.
                    let other = client.socket(Category::Stream, &Recorder::new());
                    other.bind_localhost();
                    let cancelled = other.accept().pends();
                    cancelled.cancel();
                    cancelled.fails(STATUS_CANCELLED);
                    let outdone = other.accept().pends();
                    let (_host, served) = host_listener();
                    other.connect(served).ok();
                    outdone.fails(OtherRole::default().status());
                    let third = client.socket(Category::Stream, &Recorder::new());
                    third.bind_localhost();
                    let closed = third.accept().pends();
                    third.close().ok();
                    closed.fails(STATUS_CANCELLED);
                }
            }
            let peer = Peer::connect(address);
            assert_eq!(stream.accept().socket().remote_address(), peer.local());
        },
    );
    assert_eq!(AcceptBeforeListen::default(), AcceptBeforeListen::Refused);
}

/// Shows: STRM-10
#[test]
fn the_accept_event_can_be_enabled_once_the_socket_listens() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (stream, address) = listening(&client, &events);
        assert_eq!(stream.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let peer = Peer::connect(address);
        let accepted = events.accept().socket();
        assert_eq!(accepted.remote_address(), peer.local());
        assert_eq!(stream.disable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
    });
}

/// Shows: STRM-10
/// Catches: EVT-07
#[test]
fn the_accept_event_before_that_is_caught() {
    let sim = Sim::new();
    sim.expect("EVT-07");
    sim.run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let stream = client.socket(Category::Stream, &events);
        stream.bind_localhost();
        assert_eq!(stream.enable(WSK_EVENT_ACCEPT), STATUS_INVALID_DEVICE_STATE);
        assert_caught(sim, "EVT-07", "WskControlSocket");
        stream.listen().ok();
        assert_eq!(stream.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
    });
}

/// Shows: STRM-11
#[test]
fn the_table_of_a_stream_socket_has_no_inspect_complete() {
    for_each_mode(|_| {
        let client = Client::new();
        let (stream, _) = listening(&client, &Recorder::new());
        let (listener, _) = client.bound_listener(&Recorder::new());
        // SAFETY: the tables of the provider are constant, and the category says which one this is.
        let complete =
            unsafe { (*listener.dispatch().cast::<WSK_PROVIDER_LISTEN_DISPATCH>()).WskInspectComplete };
        let complete = complete.expect("a listening socket completes inspections") as usize;
        // SAFETY: the tables of the provider are constant, and the category says which one this is; the table
        // is as large as its structure, which holds pointers alone.
        let members = unsafe {
            let count = size_of::<WSK_PROVIDER_STREAM_DISPATCH>() / size_of::<usize>();
            std::slice::from_raw_parts(stream.dispatch().cast::<usize>(), count)
        };
        assert!(members.iter().all(|&member| member != complete && member != 0));
    });
}

/// A stream socket that inspects cannot pend: the request is rejected.
///
/// Catches: STRM-11
#[test]
fn pending_on_a_stream_socket_is_caught() {
    let inspects = |behaviours: &mut wsk_sim::Behaviours| {
        behaviours.conditional_stream = ConditionalStream::Accepted;
    };
    let sim = Sim::builder().behaviours(inspects).build();
    sim.expect("STRM-11").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let stream = client.socket(Category::Stream, &events);
        stream.set_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1).ok();
        let address = stream.bind_localhost();
        stream.listen().ok();
        let accept = stream.accept().pends();
        for count in [1, 2] {
            Peer::connect(address).expect_reset();
            events.inspect();
            assert_answer_caught(sim, "STRM-11", "WskInspectEvent");
            assert_eq!(sim.violations_of("STRM-11").len(), count);
        }
        assert!(!accept.is_completed());
        // Nothing is left that is to be decided, and the next one is asked about again.
        events.inspecting(WskInspectAccept);
        let peer = Peer::connect(address);
        assert_eq!(accept.socket().remote_address(), peer.local());
    });
}

/// Shows: STRM-12
#[test]
fn conditional_accept_is_not_supported_on_stream_sockets_or_works() {
    for_each_choice(
        |behaviours, choice: ConditionalStream| behaviours.conditional_stream = choice,
        |_, choice| {
            let client = Client::new();
            let events = Recorder::new();
            let stream = client.socket(Category::Stream, &events);
            let set = stream.set_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1);
            match choice {
                ConditionalStream::Refused => drop(set.fails(STATUS_NOT_SUPPORTED)),
                ConditionalStream::Accepted => drop(set.ok()),
            }
            let address = stream.bind_localhost();
            stream.listen().ok();
            let peer = Peer::connect(address);
            assert_eq!(stream.accept().socket().remote_address(), peer.local());
            let inspected = u64::from(choice == ConditionalStream::Accepted);
            assert_eq!(events.entered(Kind::Inspect), inspected);
            if choice == ConditionalStream::Accepted {
                events.inspecting(WskInspectReject);
                Peer::connect(address).expect_reset();
            }
        },
    );
    assert_eq!(ConditionalStream::default(), ConditionalStream::Refused);
}

/// Shows: STRM-13
#[test]
fn a_connected_stream_socket_is_a_connection() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (stream, peer) = connected(&client, &events);
        stream.send(b"out").ok();
        assert_eq!(peer.receive(3), b"out");
        peer.send(b"in");
        assert_eq!(stream.receive_all(2), b"in");
        assert_eq!(stream.enable(WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        peer.send(b"by event");
        assert_eq!(events.receive_bytes(8), b"by event");
        peer.half_close();
        assert!(!events.disconnect().abortive());
        stream.disconnect().ok();
        peer.expect_end();
        stream.close().ok();
        // An accepted one is of the connection category, whatever made it.
        let (listener, address) = listening(&client, &Recorder::new());
        let accept = listener.accept().pends();
        let peer = Peer::connect(address);
        let accepted = accept.socket();
        accepted.send(b"out").ok();
        assert_eq!(peer.receive(3), b"out");
        accepted.abort().ok();
        peer.expect_reset();
    });
}
