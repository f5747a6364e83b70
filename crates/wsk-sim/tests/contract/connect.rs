//! `WskConnect` and `WskConnectEx`: success and failure of a connect (contract 4.10, 5.6).

use std::net::SocketAddr;

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::*;
use wsk_sim::wsk_provider::transport::status_of;
use wsk_sim::wsk_provider::{Alternatives, Behaviours};
use wsk_sim::{Completion, Sim};
use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::support::*;

/// The categories that connect.
const CONNECTING: [Category; 2] = [Category::Connection, Category::Stream];

fn bound(client: &Client, category: Category) -> Socket {
    let socket = client.open(&SocketOptions::new(category)).socket();
    socket.bind(ANY).ok();
    socket
}

/// Shows: CONN-01
#[test]
fn an_unbound_connection_cannot_connect() {
    for_each_mode(|_| {
        let client = Client::new();
        let (_host, served) = host_listener();
        let connection = client.connection(&Recorder::new());
        for request in [
            connection.connect(served),
            Request::new().connect_ex(&connection, served, Some(&Buffer::of(b"x")), 0),
        ] {
            let done = request.fails(STATUS_INVALID_DEVICE_STATE);
            assert_eq!((done.returned, done.information), (STATUS_INVALID_DEVICE_STATE, 0));
        }
        connection.bind_localhost();
        connection.connect(served).ok();
    });
}

/// Shows: CONN-02
#[test]
fn connecting_pends_and_gives_no_information() {
    for_each_mode(|_| {
        let client = Client::new();
        for category in CONNECTING {
            let (host, served) = host_listener();
            let connection = bound(&client, category);
            let done = connection.connect(served).ok();
            assert_eq!(done.information, 0);
            assert!(done.returned == STATUS_PENDING || done.returned == STATUS_SUCCESS);
            let peer = Peer::accept(&host);
            assert_eq!(connection.remote_address(), served);
            connection.send(b"out").ok();
            assert_eq!(peer.receive(3), b"out");
        }
    });
    Sim::new().run(|_| {
        let client = Client::new();
        let (_host, served) = host_listener();
        assert_eq!(bound(&client, Category::Connection).connect(served).returned(), STATUS_PENDING);
    });
}

/// Shows: CONN-03
#[test]
fn a_refused_connect_says_so() {
    for_each_mode(|_| {
        let client = Client::new();
        for category in CONNECTING {
            let connection = bound(&client, category);
            assert_eq!(connection.connect(closed_port()).fails(STATUS_CONNECTION_REFUSED).information, 0);
        }
    });
}

/// Other failures of a host cannot be produced on a single machine: the translation of its errors, which
/// every connect uses, is tested directly.
///
/// Shows: CONN-03
#[test]
fn a_failing_connect_has_the_status_that_fits() {
    use std::io::{Error, ErrorKind};
    for (kind, status) in [
        (ErrorKind::ConnectionRefused, STATUS_CONNECTION_REFUSED),
        (ErrorKind::TimedOut, STATUS_IO_TIMEOUT),
        (ErrorKind::HostUnreachable, STATUS_HOST_UNREACHABLE),
        (ErrorKind::NetworkUnreachable, STATUS_NETWORK_UNREACHABLE),
        (ErrorKind::PermissionDenied, STATUS_ACCESS_DENIED),
    ] {
        assert_eq!(status_of(&Error::from(kind)), status, "{kind:?}");
    }
    // A host refuses the broadcast address by policy before it sends anything.
    for_each_mode(|_| {
        let client = Client::new();
        let broadcast = SocketAddr::from(([255, 255, 255, 255], 9));
        let status = bound(&client, Category::Connection).connect(broadcast).wait().status;
        assert!([STATUS_ACCESS_DENIED, STATUS_NETWORK_UNREACHABLE].contains(&status), "{status:#x}");
    });
}

/// Shows: CONN-04
#[test]
fn a_connection_that_failed_is_of_no_use_or_can_try_again() {
    for_each_choice(
        |behaviours, choice: FailedConnect| behaviours.failed_connect = choice,
        |_, choice| {
            let client = Client::new();
            let connection = bound(&client, Category::Connection);
            connection.connect(closed_port()).fails(STATUS_CONNECTION_REFUSED);
            let (host, served) = host_listener();
            let again = connection.connect(served);
            match choice {
                FailedConnect::Refused => {
                    again.fails(STATUS_INVALID_DEVICE_STATE);
                    connection.send(b"x").fails(STATUS_INVALID_DEVICE_STATE);
                    connection.receive(&Buffer::new(1)).fails(STATUS_INVALID_DEVICE_STATE);
                }
                FailedConnect::Retry => {
                    again.ok();
                    connection.send(b"x").ok();
                    assert_eq!(Peer::accept(&host).receive(1), b"x");
                }
            }
            connection.close().ok();
        },
    );
    assert_eq!(FailedConnect::default(), FailedConnect::Refused);
}

/// Shows: CONN-05
#[test]
fn a_pending_connect_can_be_cancelled() {
    for_each_mode(|_| {
        let client = Client::new();
        let silent = SilentHost::new();
        for category in CONNECTING {
            let connection = bound(&client, category);
            let connect = connection.connect(silent.address()).pends();
            assert!(!connect.is_completed());
            assert!(connect.cancel());
            assert_eq!(connect.fails(STATUS_CANCELLED).information, 0);
            let (query, _) = Request::new().remote_address(&connection);
            query.fails(STATUS_INVALID_DEVICE_STATE);
        }
    });
}

/// Shows: CONN-05
#[test]
fn a_cancelled_connect_that_won_the_race_is_a_connection() {
    for_each_mode(|_| {
        let client = Client::new();
        let (host, served) = host_listener();
        let connection = bound(&client, Category::Connection);
        let connect = connection.connect(served);
        connect.cancel();
        let status = connect.wait().status;
        if status == STATUS_SUCCESS {
            connection.send(b"x").ok();
            assert_eq!(Peer::accept(&host).receive(1), b"x");
        } else {
            assert_eq!(status, STATUS_CANCELLED);
            connection.send(b"x").fails(STATUS_INVALID_DEVICE_STATE);
        }
    });
}

/// Shows: CONN-06
#[test]
fn a_close_ends_a_pending_connect() {
    for_each_mode(|_| {
        let client = Client::new();
        let silent = SilentHost::new();
        for category in CONNECTING {
            let connection = bound(&client, category);
            let connect = connection.connect(silent.address()).pends();
            connection.close().ok();
            assert!(connect.is_completed(), "before the close");
            connect.fails(STATUS_CANCELLED);
        }
    });
}

/// Shows: CONN-08
#[test]
fn a_second_connect_while_one_is_pending_is_refused() {
    for_each_choice(
        |behaviours, choice: ConnectWhileConnecting| behaviours.connect_while_connecting = choice,
        |_, choice| {
            let client = Client::new();
            let silent = SilentHost::new();
            let connection = bound(&client, Category::Connection);
            let first = connection.connect(silent.address()).pends();
            let done = connection.connect(silent.address()).fails(choice.status());
            assert_eq!((done.returned, done.information), (choice.status(), 0));
            assert!(!first.is_completed());
            first.cancel();
            first.fails(STATUS_CANCELLED);
        },
    );
    assert_eq!(ConnectWhileConnecting::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Shows: CONN-09
#[test]
fn a_connected_socket_is_not_connected_or_bound_again() {
    fn check(select: impl FnOnce(&mut Behaviours), connect: NTSTATUS, bind: NTSTATUS) {
        Sim::builder().behaviours(select).build().run(move |_| {
            let client = Client::new();
            let (host, served) = host_listener();
            let connected = client.connected(served, &Recorder::new());
            let peer = Peer::accept(&host);
            let (accepted, accepted_peer) = accepted_pair(&client, &Recorder::new());
            for (socket, peer) in [(&connected, &peer), (&accepted, &accepted_peer)] {
                assert_eq!(socket.connect(served).fails(connect).returned, connect);
                assert_eq!(socket.bind(LOCALHOST).fails(bind).returned, bind);
                // It is none the worse for it.
                socket.send(b"x").ok();
                assert_eq!(peer.receive(1), b"x");
            }
        });
    }
    let (connect, bind) = (ConnectConnected::default().status(), BindConnected::default().status());
    assert_eq!((connect, bind), (STATUS_CONNECTION_ACTIVE, STATUS_INVALID_DEVICE_STATE));
    for &choice in ConnectConnected::ALL {
        check(|behaviours| behaviours.connect_connected = choice, choice.status(), bind);
    }
    for &choice in BindConnected::ALL {
        check(|behaviours| behaviours.bind_connected = choice, connect, choice.status());
    }
}

/// Shows: CONN-10, CONN-12
#[test]
fn connect_ex_takes_data_along_up_to_its_limit() {
    for_each_mode(|_| {
        let client = Client::new();
        for category in CONNECTING {
            let (host, served) = host_listener();
            let connection = bound(&client, category);
            let too_much = Request::new().connect_ex(&connection, served, Some(&Buffer::new(65_536)), 0);
            assert_eq!(too_much.fails(STATUS_BUFFER_OVERFLOW).information, 0);
            let bytes: Vec<u8> = (0..65_535_u32).map(|index| (index % 251) as u8).collect();
            let data = Buffer::of(&bytes);
            let done = Request::new().connect_ex(&connection, served, Some(&data), 0).ok();
            assert_eq!(done.information, 0);
            // The buffer and its MDL are the client's again.
            drop(data);
            let peer = Peer::accept(&host);
            assert_eq!(peer.receive(bytes.len()), bytes);
            connection.send(b"and more").ok();
            assert_eq!(peer.receive(8), b"and more");
        }
        // Without data it is a connect like any other.
        let (host, served) = host_listener();
        let connection = bound(&client, Category::Connection);
        Request::new().connect_ex(&connection, served, None, 0).ok();
        connection.send(b"x").ok();
        assert_eq!(Peer::accept(&host).receive(1), b"x");
    });
}

/// Shows: CONN-11
/// Catches: IRP-26
#[test]
fn connect_ex_with_flags_is_refused() {
    let sim = Sim::builder().completion(Completion::Random(5)).build();
    sim.expect("IRP-26");
    sim.run(|sim| {
        let client = Client::new();
        let (_host, served) = host_listener();
        let connection = bound(&client, Category::Connection);
        let data = Buffer::of(b"x");
        for (data, flags) in [(None, 1), (Some(&data), 2), (Some(&data), u32::MAX)] {
            let done = Request::new().connect_ex(&connection, served, data, flags).wait();
            assert_eq!((done.returned, done.status), (STATUS_INVALID_PARAMETER, STATUS_INVALID_PARAMETER));
        }
        assert_caught(sim, "IRP-26", "WskConnectEx");
        connection.connect(served).ok();
    });
}

/// Shows: CONN-13
#[test]
fn an_unconnected_socket_transfers_nothing() {
    for_each_choice(
        |behaviours, choice: NotConnected| behaviours.not_connected = choice,
        |_, choice| {
            let client = Client::new();
            for category in CONNECTING {
                let socket = client.open(&SocketOptions::new(category)).socket();
                for bound in [false, true] {
                    if bound {
                        socket.bind_localhost();
                    }
                    let buffer = Buffer::new(4);
                    for request in
                        [socket.send(b"out"), socket.receive(&buffer), socket.disconnect(), socket.abort()]
                    {
                        let done = request.fails(choice.status());
                        assert_eq!((done.returned, done.information), (choice.status(), 0));
                    }
                }
                // It can still be connected.
                let (_host, served) = host_listener();
                socket.connect(served).ok();
            }
        },
    );
    assert_eq!(NotConnected::default().status(), STATUS_INVALID_DEVICE_STATE);
}
