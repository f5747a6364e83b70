//! Requests whose sender ends its side, or gives up, around the decision, and their remembered fates.

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::PendedEnd;
use wsk_sys::*;

use crate::support::*;

/// A peer that has finished sending has not given up.
fn end(peer: Peer, closes: bool) -> Option<Peer> {
    if closes {
        peer.close();
        return None;
    }
    peer.half_close();
    Some(peer)
}

/// Shows: INSP-12, INSP-13
#[test]
fn an_accepted_request_whose_sender_ends_its_side_at_once_is_delivered_with_its_end() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let inspector = Inspector::of(&events);
        let (listener, address) = client.conditional_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        for (by_event, closes) in [(false, false), (false, true), (true, false), (true, true)] {
            let accept = (!by_event).then(|| listener.accept().pends());
            let peer = Peer::connect(address);
            let remote = peer.local();
            let asked = inspector.next();
            // The end is there before the answer is.
            let peer = end(peer, closes);
            asked.answer(WskInspectAccept);
            events.inspect();
            let socket = match accept {
                Some(accept) => accept.socket(),
                None => events.accept().socket(),
            };
            assert_eq!(socket.remote_address(), remote);
            assert_eq!(socket.receive(&Buffer::new(1)).ok().information, 0);
            if let Some(peer) = peer {
                // It is still listening.
                socket.send(b"answer").ok();
                assert_eq!(peer.receive(6), b"answer");
            }
        }
        assert_eq!(events.entered(Kind::Abort), 0);
    });
}

/// The disconnect is indicated to a client that accepts the connection by event with its events enabled.
///
/// Shows: INSP-12, EVT-37
#[test]
fn the_end_of_a_request_that_is_delivered_by_event_is_told() {
    for_each_mode(|_| {
        let client = Client::new();
        let (events, connected) = (Recorder::new(), Recorder::new());
        let inspector = Inspector::of(&events);
        let given = connected.clone();
        events.on_accept(move |_| AcceptAnswer::take_with(&given));
        let (listener, address) = client.conditional_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT | WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        let peer = Peer::connect(address);
        let asked = inspector.next();
        peer.half_close();
        asked.answer(WskInspectAccept);
        let _socket = events.accept().socket();
        assert!(!connected.disconnect().abortive());
    });
}

/// Shows: ABRT-01, ICMP-01
#[test]
fn a_pended_request_whose_sender_ends_its_side_has_given_up_or_not() {
    for_each_choice(
        |behaviours, choice: PendedEnd| behaviours.pended_end = choice,
        |_, choice| {
            let client = Client::new();
            let events = Recorder::new();
            events.inspecting(WskInspectPend);
            let (listener, address) = client.conditional_listener(&events);
            for closes in [false, true] {
                let peer = Peer::connect(address);
                let id = events.inspect().id();
                let peer = end(peer, closes);
                if choice == PendedEnd::GivesUp {
                    assert_eq!(events.abort().id, Some(id));
                    continue;
                }
                listener.inspect_complete(id, WskInspectAccept).ok();
                let socket = listener.accept().socket();
                assert_eq!(socket.query_inspect_id(), Ok(id));
                assert_eq!(socket.receive(&Buffer::new(1)).ok().information, 0);
                drop(peer);
            }
            // A peer that resets has given up, in either case.
            let before = events.entered(Kind::Abort);
            let peer = Peer::connect(address);
            let id = events.inspect().id();
            peer.reset();
            assert_eq!(events.abort().id, Some(id));
            assert_eq!(events.entered(Kind::Abort), before + 1);
        },
    );
    assert_eq!(PendedEnd::default(), PendedEnd::GivesUp);
}
