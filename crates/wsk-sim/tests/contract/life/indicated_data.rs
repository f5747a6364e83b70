//! Use of indicated data after its return to WSK: as the MDL of a transfer, or through an MDL of the client.

use std::sync::{Arc, Mutex};

use wsk_sim::raw::*;
use wsk_sim::{Completion, FaultPoint, Sim};
use wsk_sys::nt::*;
use wsk_sys::*;

use crate::link::*;
use crate::support::*;

/// Descriptors on their way from a callback to the test.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<WSK_BUF>>>);

// SAFETY: the descriptors are only numbers here; they are used in calls of the provider, which recognizes its
// own memory.
unsafe impl Send for Kept {}
// SAFETY: the descriptors are only numbers here; they are used in calls of the provider, which recognizes its
// own memory.
unsafe impl Sync for Kept {}

impl Kept {
    /// Answers a receive callback with `answer`, and keeps the indicated descriptors.
    fn answering(&self, answer: ReceiveAnswer) -> impl Fn(&Receive) -> ReceiveAnswer + Send + Sync + use<> {
        let kept = self.clone();
        move |receive| {
            // SAFETY: the list is being indicated.
            kept.add(unsafe { receive.list.descriptors() });
            answer
        }
    }

    fn add(&self, descriptors: impl IntoIterator<Item = WSK_BUF>) {
        self.0.lock().unwrap().extend(descriptors);
    }

    fn get(&self, index: usize) -> WSK_BUF {
        self.0.lock().unwrap()[index]
    }
}

/// A link whose client got an indication with a list of `shape`, kept the descriptors, and returned `answer`.
fn shown(sim: &Sim, shape: u32, answer: ReceiveAnswer) -> (Link, Kept, ListHandle) {
    sim.choose(FaultPoint::IndicationShape, shape);
    let link = Link::new();
    let kept = Kept::default();
    link.events.on_receive(kept.answering(answer));
    link.enable(WSK_EVENT_RECEIVE);
    link.peer.send(b"what WSK shows");
    let list = link.events.receive().list;
    (link, kept, list)
}

/// Covers each element, in each layout, for every answer that does not retain the data.
///
/// Catches: LIFE-13
#[test]
fn an_indication_that_is_sent_when_it_is_over_is_caught() {
    for answer in [ReceiveAnswer::all(), ReceiveAnswer::part(3), ReceiveAnswer::decline()] {
        for (shape, element) in [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (3, 1)] {
            let sim = Sim::builder().completion(Completion::PendLate).build();
            sim.expect("LIFE-13").run(move |sim| {
                let (link, kept, _) = shown(sim, shape, answer);
                link.events.on_receive(|_| ReceiveAnswer::all());
                // SAFETY: the provider quarantines indicated data for a while.
                let request = unsafe { Request::new().send_described(&link.socket, kept.get(element)) };
                assert_caught(sim, "LIFE-13", "WskSend");
                request.wait();
            });
        }
    }
}

/// Catches: LIFE-13
#[test]
fn a_receive_into_an_indication_that_is_over_is_caught() {
    Sim::new().expect("LIFE-13").run(|sim| {
        let (link, kept, _) = shown(sim, 0, ReceiveAnswer::all());
        link.socket.disable(WSK_EVENT_RECEIVE);
        // SAFETY: the provider quarantines indicated data for a while.
        let request = unsafe { Request::new().receive_described(&link.socket, kept.get(0)) };
        assert_caught(sim, "LIFE-13", "WskReceive");
        link.peer.send(b"into it");
        request.ok();
    });
}

/// Catches: LIFE-13
#[test]
fn an_indication_that_was_released_is_over() {
    Sim::new().expect("LIFE-13").run(|sim| {
        let (link, kept, list) = shown(sim, 1, ReceiveAnswer::retain());
        // SAFETY: the client has the list.
        unsafe { Request::new().send_described(&link.socket, kept.get(1)) }.ok();
        assert!(sim.violations_of("LIFE-13").is_empty(), "it is the client's until it is released");
        assert_eq!(link.socket.release(list), STATUS_SUCCESS);
        // SAFETY: the provider quarantines indicated data for a while.
        unsafe { Request::new().send_described(&link.socket, kept.get(1)) }.wait();
        assert_caught(sim, "LIFE-13", "WskSend");
    });
}

/// The MDL is the client's own, and the memory it describes is the provider's.
///
/// Catches: LIFE-13
#[test]
fn data_that_is_over_is_known_behind_an_mdl_of_the_clients() {
    Sim::new().expect("LIFE-13").expect("NT-NON-PAGED").run(|sim| {
        let (link, kept, _) = shown(sim, 0, ReceiveAnswer::all());
        let WSK_BUF { Mdl: shown, Length, .. } = kept.get(0);
        // SAFETY: the provider quarantines indicated data for a while.
        let bytes = unsafe { mdl_mapped_system_va(shown) };
        // SAFETY: nothing is required of the arguments.
        let own = unsafe { IoAllocateMdl(bytes, Length as u32, 0, 0, std::ptr::null_mut()) };
        // SAFETY: the MDL was just allocated.
        unsafe { MmBuildMdlForNonPagedPool(own) };
        // SAFETY: the MDL stays until the request has completed.
        let request =
            unsafe { Request::new().send_described(&link.socket, WSK_BUF { Mdl: own, Offset: 0, Length }) };
        assert_caught(sim, "LIFE-13", "WskSend");
        request.wait();
        // SAFETY: the request is over.
        unsafe { IoFreeMdl(own) };
    });
}

/// The callback itself passes the data to a receive that pends, and then does not retain it.
///
/// Catches: LIFE-13
#[test]
fn a_request_that_is_pending_when_the_indication_is_over_is_caught() {
    Sim::new().expect("LIFE-13").run(|sim| {
        let link = Link::new();
        let other = Arc::new(Link::new());
        let pending = Arc::new(Mutex::new(None));
        let (keep, own) = (Arc::clone(&pending), Arc::clone(&other));
        link.events.on_receive(move |receive| {
            // SAFETY: the list is being indicated.
            let buffer = unsafe { receive.list.descriptors() }[0];
            // SAFETY: the provider recognizes its own memory.
            let request = unsafe { Request::new().receive_described(&own.socket, buffer) };
            *keep.lock().unwrap() = Some(request.pends());
            ReceiveAnswer::all()
        });
        link.enable(WSK_EVENT_RECEIVE);
        link.peer.send(b"what WSK shows");
        link.events.receive();
        assert_answer_caught(sim, "LIFE-13", "WskReceiveEvent");
        other.peer.send(b"into it");
        pending.lock().unwrap().take().expect("it was made").ok();
        link.forget_answers();
    });
}

/// Catches: LIFE-13
#[test]
fn a_request_that_is_pending_when_the_indication_is_released_is_caught() {
    Sim::new().expect("LIFE-13").run(|sim| {
        let (link, kept, list) = shown(sim, 0, ReceiveAnswer::retain());
        let other = Link::new();
        // SAFETY: the client has the list, for now.
        let request = unsafe { Request::new().receive_described(&other.socket, kept.get(0)) }.pends();
        assert!(sim.violations_of("LIFE-13").is_empty());
        assert_eq!(link.socket.release(list), STATUS_SUCCESS);
        assert_caught(sim, "LIFE-13", "WskRelease");
        other.peer.send(b"into it");
        request.ok();
    });
}

/// Catches: LIFE-13
#[test]
fn a_client_that_writes_to_an_indication_that_is_over_is_caught_at_the_end() {
    Sim::new().expect("LIFE-13").run(|sim| {
        let (_link, kept, _) = shown(sim, 0, ReceiveAnswer::all());
        // SAFETY: the provider quarantines indicated data for a while.
        let bytes = unsafe { mdl_mapped_system_va(kept.get(0).Mdl) }.cast::<u8>();
        // SAFETY: the provider quarantines indicated data for a while.
        unsafe { bytes.write(b'!') };
        assert!(sim.violations_of("LIFE-13").is_empty());
    });
}

/// Covers the data of datagrams.
///
/// Catches: LIFE-13
#[test]
fn a_datagram_that_is_used_when_it_is_over_is_caught() {
    for retained in [false, true] {
        Sim::new().expect("LIFE-13").run(move |sim| {
            let client = Client::new();
            let events = Recorder::new();
            let kept = Kept::default();
            let own = kept.clone();
            events.on_receive_from(move |received| {
                let list: *const WSK_DATAGRAM_INDICATION = received.list.0.cast();
                // SAFETY: the list is being indicated.
                own.add([unsafe { (*list).Buffer }]);
                if retained { STATUS_PENDING } else { STATUS_SUCCESS }
            });
            let socket = client.datagram(&events);
            let address = socket.bind_localhost();
            assert_eq!(socket.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
            let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            peer.send_to(b"datagram", address).unwrap();
            let list = events.receive_from().list;
            if retained {
                assert_eq!(socket.release(list), STATUS_SUCCESS);
            }
            let link = Link::new();
            // SAFETY: the provider quarantines indicated data for a while.
            unsafe { Request::new().send_described(&link.socket, kept.get(0)) }.wait();
            assert_caught(sim, "LIFE-13", "WskSend");
        });
    }
}

/// A datagram that the callback has not taken is WSK's again, and is indicated again once the event is
/// enabled.
///
/// Catches: LIFE-13
#[test]
fn a_datagram_that_is_used_when_it_was_not_taken_is_caught() {
    // Late enough for the send to be in progress when the callback returns, and until the datagram is
    // indicated again.
    let late = Sim::builder().provider(|config| config.late_by = std::time::Duration::from_millis(20));
    late.completion(Completion::PendLate).build().expect("LIFE-13").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let link = Link::new();
        let sends = Arc::new(Mutex::new(Vec::new()));
        let (own, to) = (Arc::clone(&sends), link.socket.clone());
        events.on_receive_from(move |received| {
            let mut sends = own.lock().unwrap();
            if !sends.is_empty() {
                return STATUS_SUCCESS;
            }
            let list: *const WSK_DATAGRAM_INDICATION = received.list.0.cast();
            // SAFETY: the list is being indicated.
            let buffer = unsafe { (*list).Buffer };
            // SAFETY: that WSK has the data back before the send is done is the breach this test commits.
            sends.push(unsafe { Request::new().send_described(&to, buffer) });
            STATUS_DATA_NOT_ACCEPTED
        });
        let socket = client.datagram(&events);
        let address = socket.bind_localhost();
        assert_eq!(socket.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.send_to(b"datagram", address).unwrap();
        events.receive_from();
        eventually("the callback's return is judged", || !sim.violations_of("LIFE-13").is_empty());
        assert_eq!(sim.violations_of("LIFE-13")[0].call, "WskReceiveFromEvent");
        assert_eq!(socket.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
        events.receive_from();
        for send in sends.lock().unwrap().drain(..) {
            send.ok();
        }
        // The closure keeps the connection.
        events.on_receive_from(|_| STATUS_SUCCESS);
    });
}

/// The sender's address in an indication is returned with its datagram.
///
/// Catches: LIFE-13
#[test]
fn the_senders_address_is_over_with_its_datagram() {
    Sim::new().expect("LIFE-13").expect("BIND-12").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (sender, receiver) = std::sync::mpsc::channel();
        let sender = Mutex::new(sender);
        events.on_receive_from(move |received| {
            let list: *const WSK_DATAGRAM_INDICATION = received.list.0.cast();
            // SAFETY: the list is being indicated.
            let remote = unsafe { (*list).RemoteAddress };
            sender.lock().unwrap().send(remote.expose_provenance()).unwrap();
            STATUS_SUCCESS
        });
        let socket = client.datagram(&events);
        let address = socket.bind_localhost();
        assert_eq!(socket.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.send_to(b"datagram", address).unwrap();
        events.receive_from();
        let remote = std::ptr::with_exposed_provenance_mut(receiver.recv().unwrap());
        let other = client.datagram(&Recorder::new());
        // SAFETY: the provider quarantines indicated data for a while.
        unsafe { Request::new().bind_at(&other, remote) }.fails(STATUS_INVALID_PARAMETER);
        assert_caught(sim, "LIFE-13", "WskBind");
    });
}

/// The close of a socket returns the data that its client has retained.
///
/// Catches: LIFE-13
#[test]
fn an_indication_is_over_with_its_socket() {
    Sim::new().expect("LIFE-13").expect("RCVE-19").run(|sim| {
        let (link, kept, _) = shown(sim, 0, ReceiveAnswer::retain());
        link.socket.close().ok();
        let other = Link::new();
        // SAFETY: the provider quarantines indicated data for a while.
        unsafe { Request::new().send_described(&other.socket, kept.get(0)) }.wait();
        assert_caught(sim, "LIFE-13", "WskSend");
    });
    Sim::new().expect("LIFE-13").expect("RCVE-19").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let kept = Kept::default();
        let own = kept.clone();
        events.on_receive_from(move |received| {
            let list: *const WSK_DATAGRAM_INDICATION = received.list.0.cast();
            // SAFETY: the list is being indicated.
            own.add([unsafe { (*list).Buffer }]);
            STATUS_PENDING
        });
        let socket = client.datagram(&events);
        let address = socket.bind_localhost();
        assert_eq!(socket.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
        let (peer, _) = host_datagram();
        peer.send_to(b"datagram", address).unwrap();
        events.receive_from();
        socket.close().ok();
        let link = Link::new();
        // SAFETY: the provider quarantines indicated data for a while.
        unsafe { Request::new().send_described(&link.socket, kept.get(0)) }.wait();
        assert_caught(sim, "LIFE-13", "WskSend");
    });
}
