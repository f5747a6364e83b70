//! IPv4 peers of a dual-stack listener: every address that is handed out is the IPv4 one, so that a gate
//! which compares IPv4 addresses sees them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use wsk::options::V6Only;
use wsk::{Handlers, ListenerEvents};
use wsk_sim::Sim;
use wsk_sim::raw::Peer;

use crate::support::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn everywhere() -> SocketAddr {
    "[::]:0".parse().unwrap()
}

/// The IPv4 address of a dual-stack listener.
fn reach(local: SocketAddr) -> SocketAddr {
    SocketAddr::new(LOOPBACK, local.port())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// A reject list of IPv4 addresses holds for peers that come to an IPv6 socket.
///
/// Prevents: OPT-15, INSP-22
#[test]
fn a_gate_sees_ipv4_peers_as_such() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (tell, told) = channel();
        let decide = gate(
            move |request| {
                tell.say((request.local_addr(), request.peer_addr(), request.raw_peer_addr()));
                assert_eq!(request.raw_local_addr(), mapped(request.local_addr()));
                if request.peer_addr().ip() == LOOPBACK { request.reject() } else { request.accept() }
            },
            |_| {},
        );
        let builder = driver.provider.listener().option(V6Only(false)).conditional(decide);
        let listener = wait(builder.bind(everywhere())).unwrap();
        let at = reach(listener.local_addr());
        let peer = Peer::connect(at);
        let (local, remote, raw) = told.next();
        assert_eq!((local, remote, raw), (at, peer.local(), mapped(peer.local())));
        peer.expect_reset();
        // An IPv6 peer keeps its address.
        let sixth = Peer::connect(SocketAddr::new("::1".parse().unwrap(), at.port()));
        let (_, remote, raw) = told.next();
        assert_eq!((remote, raw), (sixth.local(), sixth.local()));
        drop((listener, sixth));
        driver.unload();
    });
}

/// Tokens, connections that were accepted by request and those that came by the event say the same.
///
/// Prevents: OPT-15, LSN-20, ACPT-16
#[test]
fn all_that_has_addresses_gives_ipv4_peers_as_such() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let (tell, tokens) = channel();
        let pend = gate(
            move |request| match request.pend() {
                Ok((decision, token)) => {
                    tell.say(token);
                    decision
                }
                Err((_, request)) => request.reject(),
            },
            |_| {},
        );
        let builder = driver.provider.listener().option(V6Only(false)).conditional(pend);
        let listener = wait(builder.bind(everywhere())).unwrap();
        let at = reach(listener.local_addr());
        let peer = Peer::connect(at);
        let token = tokens.next();
        assert_eq!((token.local_addr(), token.peer_addr()), (at, peer.local()));
        assert_eq!(token.raw_peer_addr(), mapped(peer.local()));
        assert_eq!(token.raw_local_addr(), mapped(at));
        wait(token.accept()).unwrap();
        let connection = wait(listener.accept()).unwrap();
        assert_eq!((connection.local_addr(), connection.peer_addr()), (at, peer.local()));
        assert_eq!(connection.raw_local_addr(), mapped(at));
        assert_eq!(connection.raw_peer_addr(), mapped(peer.local()));
        drop((connection, listener, peer));

        let (tell, told) = channel();
        let take = move |incoming: wsk::Incoming<'_, Handlers>| {
            let seen = (incoming.local_addr(), incoming.peer_addr(), incoming.raw_peer_addr());
            assert_eq!(incoming.raw_local_addr(), mapped(seen.0));
            let connection = incoming.accept(Handlers::new()).unwrap();
            assert_eq!((connection.local_addr(), connection.peer_addr()), (seen.0, seen.1));
            tell.say(seen);
        };
        let builder = driver.provider.listener().option(V6Only(false)).on_accept(taker(take));
        let listener = wait(builder.bind(everywhere())).unwrap();
        listener.enable(ListenerEvents::ACCEPT).unwrap();
        let at = reach(listener.local_addr());
        let peer = Peer::connect(at);
        assert_eq!(told.next(), (at, peer.local(), mapped(peer.local())));
        drop((listener, peer));
        driver.unload();
    });
}

/// A listener that is bound to a mapped address says which IPv4 address that is.
///
/// Prevents: OPT-15, BIND-12
#[test]
fn a_listener_at_a_mapped_address_says_the_ipv4_one() {
    Sim::new().run(|_| {
        let driver = Driver::start();
        let local = mapped(localhost());
        let listener = wait(driver.provider.listener().option(V6Only(false)).bind(local)).unwrap();
        assert_eq!(listener.local_addr().ip(), LOOPBACK);
        assert_eq!(listener.raw_local_addr(), mapped(listener.local_addr()));
        connected(&listener);
        drop(listener);
        driver.unload();
    });
}
