//! Rights to bind an address that another socket has (contract 4.7).

use std::net::SocketAddr;
use std::ptr;

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::support::*;

/// Manner in which a socket asks to hold its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Default,
    Reuse,
    Exclusive,
}

use Form::{Default, Exclusive, Reuse};

const FORMS: [Form; 3] = [Default, Reuse, Exclusive];

/// Fate of the second binder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    InUse,
    Denied,
    /// The descriptor of the first decides.
    Check,
}

use Verdict::{Check, Denied, InUse, Ok};

impl Verdict {
    fn status(self, shares: bool) -> NTSTATUS {
        match self {
            Ok => STATUS_SUCCESS,
            InUse => STATUS_ADDRESS_ALREADY_EXISTS,
            Check if shares => STATUS_SUCCESS,
            Denied | Check => STATUS_ACCESS_DENIED,
        }
    }
}

/// A socket of the form, with the given descriptor.
fn binder(client: &Client, category: Category, form: Form, descriptor: &Descriptor<'_>) -> Socket {
    let options = SocketOptions { security: descriptor.raw(), ..SocketOptions::new(category) };
    let socket = client.open(&options).socket();
    choose(&socket, form);
    socket
}

/// Sets the option of the form.
fn choose(socket: &Socket, form: Form) {
    match form {
        Default => {}
        Reuse => drop(socket.set_option(SOL_SOCKET, SO_REUSEADDR, 1).ok()),
        Exclusive => drop(socket.set_option(SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1).ok()),
    }
}

/// Binds a second socket of the form after every kind of first one: on the wildcard (`wild`) and on an
/// address of its own. `expected` has a row of (default W, default S, reuse W, reuse S, exclusive W,
/// exclusive S) for each.
fn second_binder(second: Form, expected: [[Verdict; 6]; 2]) {
    Sim::new().run(move |_| {
        let client = Client::new();
        for shares in [false, true] {
            let descriptor = Descriptor::cached(&client, shares);
            let private = Descriptor::cached(&client, false);
            for category in [Category::Listen, Category::Datagram, Category::Connection] {
                for (row, wild) in expected.iter().zip([true, false]) {
                    let firsts = FORMS.into_iter().flat_map(|form| [(form, true), (form, false)]);
                    for (verdict, (first, first_wild)) in row.iter().zip(firsts) {
                        let ip = if wild { ANY.ip() } else { LOCALHOST.ip() };
                        let expected = verdict.status(shares);
                        let ((_holder, other), port, done) = free_of_strangers(expected, || {
                            let holder = binder(&client, category, first, &descriptor);
                            holder.bind(if first_wild { ANY } else { LOCALHOST }).ok();
                            let port = holder.local_address().port();
                            let other = binder(&client, category, second, &private);
                            let done = other.bind(SocketAddr::new(ip, port)).wait();
                            ((holder, other), port, done)
                        });
                        assert_eq!(
                            done.status, expected,
                            "{category:?}: {second:?} {wild} after {first:?} {first_wild}, {shares}"
                        );
                        if done.status == STATUS_SUCCESS {
                            assert_eq!(other.local_address(), (ip, port).into());
                        }
                    }
                }
            }
        }
    });
}

/// Number of attempts to find a port that no other program has on any address.
const TRIES: usize = 20;

/// Retries with another port when a bind that should succeed collides with a socket of another program: the
/// port was free on the first binder's address, but not necessarily on the other addresses of the host.
fn free_of_strangers<T>(expected: NTSTATUS, mut attempt: impl FnMut() -> (T, u16, Done)) -> (T, u16, Done) {
    let mut result = attempt();
    for _ in 1..TRIES {
        if expected != STATUS_SUCCESS || result.2.status != STATUS_ADDRESS_ALREADY_EXISTS {
            break;
        }
        result = attempt();
    }
    result
}

/// Shows: BIND-13, BIND-16
#[test]
fn a_second_binder_without_an_option() {
    second_binder(Default, [[InUse, Ok, InUse, Ok, InUse, Ok], [Check, InUse, Check, Denied, Denied, InUse]]);
}

/// Shows: BIND-14, BIND-16
#[test]
fn a_second_binder_with_reuse() {
    second_binder(Reuse, [[Denied, Ok, Ok, Ok, Denied, Ok], [Check, Denied, Ok, Ok, Denied, Denied]]);
}

/// Shows: BIND-15, BIND-16
#[test]
fn a_second_binder_that_wants_the_address_for_itself() {
    second_binder(
        Exclusive,
        [[InUse, InUse, InUse, InUse, InUse, InUse], [Check, InUse, Check, InUse, Denied, InUse]],
    );
}

/// Shows: BIND-17
#[test]
fn different_addresses_never_conflict() {
    for_each_mode(|_| {
        let client = Client::new();
        let descriptor = Descriptor::cached(&client, false);
        for category in [Category::Listen, Category::Datagram, Category::Connection] {
            for (first, second) in FORMS.into_iter().flat_map(|first| FORMS.map(|second| (first, second))) {
                let (_sockets, _, done) = free_of_strangers(STATUS_SUCCESS, || {
                    let holder = binder(&client, category, first, &descriptor);
                    let port = holder.bind_localhost().port();
                    let other = binder(&client, category, second, &descriptor);
                    let done = other.bind(([127, 0, 0, 77], port).into()).wait();
                    ((holder, other), port, done)
                });
                assert_eq!(done.status, STATUS_SUCCESS, "{category:?}: {second:?} beside {first:?}");
            }
        }
    });
}

/// Shows: BIND-16, OPT-03
#[test]
fn the_descriptor_set_as_an_option_is_the_one_that_counts() {
    for_each_mode(|_| {
        let client = Client::new();
        let (shared, private) = (Descriptor::cached(&client, true), Descriptor::cached(&client, false));
        for category in [Category::Listen, Category::Datagram, Category::Connection] {
            for (before, after, expected) in [
                (ptr::null_mut(), shared.raw(), STATUS_SUCCESS),
                (private.raw(), shared.raw(), STATUS_SUCCESS),
                (shared.raw(), private.raw(), STATUS_ACCESS_DENIED),
            ] {
                let options = SocketOptions { security: before, ..SocketOptions::new(category) };
                let holder = client.open(&options).socket();
                let value = after.expose_provenance().to_ne_bytes();
                holder.control(&Control::set(SOL_SOCKET, SO_WSK_SECURITY, &value)).ok();
                holder.bind(ANY).ok();
                let port = holder.local_address().port();
                let second = client.open(&SocketOptions::new(category)).socket();
                assert_eq!(second.bind(([127, 0, 0, 1], port).into()).wait().status, expected);
            }
        }
    });
}

/// The addresses of a listener, the address its client connects to, and whether the listener is to serve IPv4
/// as well.
const LISTENERS: [(&str, &str, bool); 5] = [
    ("127.0.0.1:0", "127.0.0.1", false),
    ("0.0.0.0:0", "127.0.0.1", false),
    ("[::1]:0", "::1", false),
    ("[::]:0", "::1", false),
    ("[::]:0", "127.0.0.1", true),
];

/// A socket of the form for an address, which serves IPv4 as well if it is to be `dual`.
fn binder_for(
    client: &Client,
    address: SocketAddr,
    form: Form,
    dual: bool,
    options: SocketOptions,
) -> Socket {
    let socket = client.open(&if address.is_ipv6() { options.v6() } else { options }).socket();
    if dual {
        socket.set_option(IPPROTO_IPV6, IPV6_V6ONLY, 0).ok();
    }
    choose(&socket, form);
    socket
}

/// Another listener for the address.
fn again(client: &Client, address: SocketAddr, form: Form, dual: bool) -> Socket {
    binder_for(client, address, form, dual, SocketOptions::new(Category::Listen))
}

/// End of a connection.
#[derive(Clone, Copy, Debug)]
enum Going {
    Closed,
    Aborted,
    ResetByPeer,
}

/// A listener of the form that has accepted one connection and is closed: its address, the connection, and
/// its peer.
fn left_connection(
    client: &Client,
    form: Form,
    (local, target, dual): (&str, &str, bool),
    by_event: bool,
) -> (SocketAddr, Socket, Peer) {
    let events = Recorder::new();
    let local: SocketAddr = local.parse().expect("an address");
    let options = SocketOptions::new(Category::Listen).recorder(&events);
    let listener = binder_for(client, local, form, dual, options);
    listener.bind(local).ok();
    let address = listener.local_address();
    let target = SocketAddr::new(target.parse().expect("an address"), address.port());
    let (connection, peer) = if by_event {
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let peer = Peer::connect(target);
        (events.accept().socket(), peer)
    } else {
        let accept = listener.accept().pends();
        let peer = Peer::connect(target);
        (accept.socket(), peer)
    };
    listener.close().ok();
    (address, connection, peer)
}

/// The owner of an exclusive address cannot have it again while a connection that came through it is alive.
///
/// Shows: BIND-18
#[test]
fn a_connection_keeps_the_exclusive_address_of_its_listener() {
    for_each_mode(|_| {
        let client = Client::new();
        for (kind, going, by_event) in LISTENERS.into_iter().flat_map(|kind| {
            [(Going::Closed, false), (Going::Aborted, true), (Going::ResetByPeer, false)]
                .map(|(going, by_event)| (kind, going, by_event))
        }) {
            let (_second, _, done) = free_of_strangers(STATUS_SUCCESS, || {
                let (address, connection, peer) = left_connection(&client, Exclusive, kind, by_event);
                let second = again(&client, address, Exclusive, kind.2);
                let bind = || second.bind(address).wait();
                assert_eq!(bind().status, STATUS_ADDRESS_ALREADY_EXISTS, "{kind:?}");
                match going {
                    Going::Closed => drop(connection.close().ok()),
                    Going::Aborted => drop(connection.abort().ok()),
                    Going::ResetByPeer => {
                        peer.reset();
                        connection.receive(&Buffer::new(1)).wait();
                    }
                }
                let done = bind();
                (second, address.port(), done)
            });
            assert_eq!(done.status, STATUS_SUCCESS, "{kind:?} {going:?}");
        }
    });
}

/// An overlapping address is still in use after the close of the listener.
///
/// Shows: BIND-18
#[test]
fn a_connection_keeps_the_exclusive_address_against_what_overlaps() {
    Sim::new().run(|_| {
        let client = Client::new();
        let all = |port: u16| {
            ["127.0.0.1", "0.0.0.0", "::1", "::"]
                .map(|ip| SocketAddr::new(ip.parse().expect("an address"), port))
        };
        for kind in LISTENERS {
            let tries = |port: u16| {
                let mut statuses = Vec::new();
                for address in all(port) {
                    for form in FORMS {
                        // One that gets the address is gone again when the next one tries.
                        let dual = address.is_ipv6() && kind.2;
                        let second = again(&client, address, form, dual);
                        statuses.push(second.bind(address).wait().status);
                        second.close().ok();
                    }
                }
                statuses
            };
            // A stranger that takes the port on another address in between makes the two differ.
            let same = (0..TRIES).any(|_| {
                let (address, connection, _peer) = left_connection(&client, Exclusive, kind, false);
                let after = tries(address.port());
                assert!(after.iter().any(|status| *status != STATUS_SUCCESS), "{kind:?}");
                connection.close().ok();
                let listener = again(&client, address, Exclusive, kind.2);
                listener.bind(address).wait().status == STATUS_SUCCESS && after == tries(address.port())
            });
            assert!(same, "{kind:?}");
        }
    });
}

/// Without the option connections do not block the address.
///
/// Shows: BIND-18
#[test]
fn a_connection_does_not_keep_an_address_that_is_not_exclusive() {
    for_each_mode(|_| {
        let client = Client::new();
        for kind in LISTENERS {
            for (first, second) in
                [(Default, Default), (Reuse, Reuse), (Reuse, Default), (Default, Exclusive)]
            {
                let (_kept, _, done) = free_of_strangers(STATUS_SUCCESS, || {
                    let (address, connection, peer) = left_connection(&client, first, kind, false);
                    let other = again(&client, address, second, kind.2);
                    let done = other.bind(address).wait();
                    ((connection, peer, other), address.port(), done)
                });
                assert_eq!(done.status, STATUS_SUCCESS, "{kind:?} {first:?} {second:?}");
            }
        }
    });
}
