//! Order of waiting connections, of decisions on one request, and of the latch of the receive event.

use std::sync::mpsc;

use wsk_sim::raw::*;
use wsk_sim::{Completion, Sim};
use wsk_sys::*;

use crate::link::*;
use crate::support::*;

/// Connects a number of peers, one after the other, which are not accepted.
fn untaken(sim: &Sim, listener: &Socket, address: std::net::SocketAddr, count: usize) -> Vec<Peer> {
    let connect = |number| {
        let peer = Peer::connect(address);
        await_untaken(sim, listener, number + 1);
        peer
    };
    (0..count).map(connect).collect()
}

/// Shows: LSN-36
#[test]
fn connections_that_wait_are_taken_in_the_order_in_which_they_came() {
    for_each_mode(|sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        for peer in untaken(sim, &listener, address, 4) {
            assert_eq!(listener.accept().socket().remote_address(), peer.local());
        }
    });
}

/// Shows: LSN-36
#[test]
fn connections_that_wait_are_told_in_the_order_in_which_they_came() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        let peers = untaken(sim, &listener, address, 4);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        for peer in peers {
            assert_eq!(events.accept().remote, Some(peer.local()));
        }
    });
}

/// The second decision comes while the first one is being taken: it is one too many, and changes nothing.
///
/// Catches: ICMP-04
#[test]
fn of_two_decisions_at_once_the_first_stands() {
    for (first, second) in [(WskInspectAccept, WskInspectReject), (WskInspectReject, WskInspectAccept)] {
        let sim = Sim::builder().completion(Completion::Inline).build();
        sim.expect("ICMP-04").run(move |sim| {
            let client = Client::new();
            let events = Recorder::new();
            events.inspecting(WskInspectPend);
            let (listener, address) = client.conditional_listener(&events);
            let accept = listener.accept().pends();
            let peer = Peer::connect(address);
            let id = events.inspect().id();
            let (sender, receiver) = mpsc::channel();
            let handle = listener.clone();
            // The routine of a decision runs before its call returns.
            let decision = Request::new().hook(move |_, _| {
                sender.send(handle.inspect_complete(id, second)).expect("the test listens");
            });
            decision.inspect_complete(&listener, id, first).ok();
            receiver.recv_timeout(BOUND).expect("the routine has run").fails(STATUS_NOT_FOUND);
            assert_caught(sim, "ICMP-04", "WskInspectComplete");
            assert_eq!(sim.violations_of("ICMP-04").len(), 1);
            if first == WskInspectAccept {
                assert_eq!(accept.socket().remote_address(), peer.local());
            } else {
                peer.expect_reset();
                assert!(!accept.is_completed());
                listener.close().ok();
                accept.fails(STATUS_CANCELLED);
            }
            assert_eq!(events.entered(Kind::Abort), 0);
        });
    }
}

/// A receive opens the latch of the receive event that it found shut, and not one that was shut later.
///
/// Shows: RCVE-06
#[test]
fn a_receive_that_completes_late_leaves_a_newer_latch_shut() {
    Sim::builder().completion(Completion::Inline).build().run(|_| {
        let link = Link::with_events(WSK_EVENT_RECEIVE);
        link.events.on_receive(|_| ReceiveAnswer::decline());
        link.peer.send(b"abcdef");
        link.events.receive();
        let (socket, events) = (link.socket.clone(), link.events.clone());
        let sender = link.peer.stream().try_clone().expect("another handle");
        let first = Request::new().hook(move |_, _| {
            // Another receive completes first and opens the latch; the event declines the next data, which
            // shuts it again.
            let rest = Buffer::new(3);
            let second = socket.receive(&rest);
            assert_eq!(second.poll().expect("it completes at once").information, 3);
            std::io::Write::write_all(&mut &sender, b"ghi").expect("the peer sends");
            eventually("the event declines again", || events.returned(Kind::Receive) == 2);
        });
        let buffer = Buffer::new(3);
        first.receive(&link.socket, &buffer, 0).ok();
        assert_eq!(link.events.receive().bytes(), b"ghi");
        assert_quiet(&link.events, Kind::Receive);
        assert_eq!(link.events.entered(Kind::Receive), 2);
        assert_eq!(link.socket.receive_all(3), b"ghi");
        link.socket.close().ok();
        assert_eq!(link.events.entered(Kind::Receive), 2);
    });
}
