//! `WskBind`: valid addresses, and the effects of a bind (contract 4.7).

use std::net::SocketAddr;

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::SecondBind;
use wsk_sim::{Completion, Sim};
use wsk_sys::*;

use crate::support::*;

/// The categories that have an address.
const BINDABLE: [Category; 4] =
    [Category::Listen, Category::Connection, Category::Datagram, Category::Stream];

fn any_of(family: ADDRESS_FAMILY) -> SocketAddr {
    if family == AF_INET { ANY } else { "[::]:0".parse().unwrap() }
}

fn unbound(client: &Client, category: Category, family: ADDRESS_FAMILY) -> Socket {
    client.open(&SocketOptions { family, ..SocketOptions::new(category) }).socket()
}

/// Shows: BIND-01
#[test]
fn binding_pends_or_succeeds_inline_and_gives_no_information() {
    for (completion, expected) in [
        (Completion::Natural, STATUS_PENDING),
        (Completion::Inline, STATUS_SUCCESS),
        (Completion::PendNested, STATUS_PENDING),
        (Completion::PendEarly, STATUS_PENDING),
        (Completion::PendLate, STATUS_PENDING),
    ] {
        Sim::builder().completion(completion).build().run(move |_| {
            let client = Client::new();
            for category in BINDABLE {
                let socket = unbound(&client, category, AF_INET);
                let bind = socket.bind(LOCALHOST);
                assert_eq!(bind.returned(), expected, "{category:?}");
                assert_eq!(bind.ok().information, 0);
            }
        });
    }
}

/// Shows: BIND-02
#[test]
fn a_bound_listening_socket_listens() {
    for_each_mode(|sim| {
        let client = Client::new();
        let listener = client.listener(&Recorder::new());
        listener.bind(LOCALHOST).ok();
        let address = listener.local_address();
        // The peer's handshake succeeds without any further call.
        let peer = Peer::connect(address);
        await_untaken(sim, &listener, 1);
        assert_eq!(listener.accept().socket().remote_address(), peer.local());
        // No other category listens by that.
        let connection = client.connection(&Recorder::new());
        let deaf = connection.bind_localhost();
        assert!(Peer::is_refused(deaf));
    });
}

/// Shows: BIND-03, BIND-04
#[test]
fn every_category_binds_to_the_wildcard_and_is_given_a_port() {
    for_each_mode(|_| {
        let client = Client::new();
        for family in [AF_INET, AF_INET6] {
            for category in BINDABLE {
                let (one, two) = (unbound(&client, category, family), unbound(&client, category, family));
                for socket in [&one, &two] {
                    socket.bind(any_of(family)).ok();
                    let address = socket.local_address();
                    assert_eq!(address.ip(), any_of(family).ip());
                    assert_ne!(address.port(), 0);
                }
                assert_ne!(one.local_address().port(), two.local_address().port());
            }
        }
    });
}

/// Shows: BIND-05
#[test]
fn a_datagram_socket_on_the_wildcard_serves_every_local_address() {
    for_each_mode(|_| {
        let client = Client::new();
        let datagram = client.datagram(&Recorder::new());
        datagram.bind(ANY).ok();
        let port = datagram.local_address().port();
        let (host, to) = host_datagram();
        for own in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 9, 9, 9]] {
            host.send_to(&own, SocketAddr::from((own, port))).unwrap();
            assert_eq!(datagram.receive_datagram(4), (own.to_vec(), to));
        }
        assert_eq!(datagram.send_to(b"back", to).ok().information, 4);
        let mut bytes = [0; 8];
        let (length, from) = host.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..length], from.port()), (b"back".as_slice(), port));
    });
}

/// Shows: BIND-06, ADDR-02
#[test]
fn a_connection_on_the_wildcard_gets_its_port_at_once_and_its_ip_when_it_connects() {
    for_each_mode(|_| {
        let client = Client::new();
        for category in [Category::Connection, Category::Stream] {
            let (host, served) = host_listener();
            let connection = unbound(&client, category, AF_INET);
            connection.bind(ANY).ok();
            let before = connection.local_address();
            assert!(before.ip().is_unspecified() && before.port() != 0, "{before}");
            connection.connect(served).ok();
            let peer = Peer::accept(&host);
            let after = connection.local_address();
            assert_eq!(after, (served.ip(), before.port()).into());
            assert_eq!(peer.stream().peer_addr().unwrap(), after);
        }
    });
}

/// Shows: BIND-07, BIND-10
#[test]
fn an_address_in_use_is_refused_and_another_may_follow() {
    for_each_mode(|_| {
        let client = Client::new();
        for category in [Category::Listen, Category::Connection, Category::Stream] {
            let (holder, second) = (unbound(&client, category, AF_INET), unbound(&client, category, AF_INET));
            let taken = holder.bind_localhost();
            assert_eq!(second.bind(taken).fails(STATUS_ADDRESS_ALREADY_EXISTS).information, 0);
            let (query, _) = Request::new().local_address(&second);
            query.fails(STATUS_INVALID_DEVICE_STATE);
            // It is as it was: options that precede the bind can be set, and another address taken.
            second.set_option(SOL_SOCKET, SO_REUSEADDR, 1).ok();
            assert_ne!(second.bind_localhost(), taken);
        }
        // The addresses of other protocols, and of strangers to this machine.
        let (tcp, held) = client.bound_listener(&Recorder::new());
        let udp = client.datagram(&Recorder::new());
        udp.bind(held).ok();
        drop(tcp);
        let (_host, foreign) = host_listener();
        client.listener(&Recorder::new()).bind(foreign).fails(STATUS_ADDRESS_ALREADY_EXISTS);
        let (_host, foreign) = host_datagram();
        let datagram = client.datagram(&Recorder::new());
        datagram.bind(foreign).fails(STATUS_ADDRESS_ALREADY_EXISTS);
        datagram.bind_localhost();
    });
}

/// Shows: BIND-08, BIND-10
#[test]
fn an_address_without_the_right_to_it_is_refused() {
    for_each_mode(|_| {
        let client = Client::new();
        for category in BINDABLE {
            let (holder, second) = (unbound(&client, category, AF_INET), unbound(&client, category, AF_INET));
            holder.bind(ANY).ok();
            let port = holder.local_address().port();
            assert_eq!(second.bind(([127, 0, 0, 1], port).into()).fails(STATUS_ACCESS_DENIED).information, 0);
            second.bind_localhost();
        }
    });
}

/// Shows: BIND-11
#[test]
fn a_second_bind_is_refused() {
    for_each_choice(
        |behaviours, choice: SecondBind| behaviours.second_bind = choice,
        |_, choice| {
            let client = Client::new();
            for category in BINDABLE {
                let socket = unbound(&client, category, AF_INET);
                let address = socket.bind_localhost();
                let done = socket.bind(LOCALHOST).fails(choice.status());
                assert_eq!((done.returned, done.information), (choice.status(), 0), "{category:?}");
                assert_eq!(socket.local_address(), address);
            }
            // A listener is not disturbed.
            let (listener, address) = client.bound_listener(&Recorder::new());
            listener.bind(LOCALHOST).fails(choice.status());
            let _peer = Peer::connect(address);
            listener.accept().socket();
        },
    );
    assert_eq!(SecondBind::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Catches: BIND-12
#[test]
fn an_address_of_another_family_is_caught() {
    let sim = Sim::new();
    sim.expect("BIND-12");
    sim.run(|sim| {
        let client = Client::new();
        let mut caught = 0;
        for category in BINDABLE {
            for (family, foreign) in [(AF_INET, LOCALHOST_V6), (AF_INET6, LOCALHOST)] {
                let socket = unbound(&client, category, family);
                socket.bind(foreign).fails(STATUS_INVALID_PARAMETER);
                caught += 1;
                assert_eq!(sim.violations_of("BIND-12").len(), caught);
                socket.bind(any_of(family)).ok();
            }
        }
        assert_caught(sim, "BIND-12", "WskBind");
        assert_eq!(sim.violations_of("BIND-12").len(), caught);
    });
}
