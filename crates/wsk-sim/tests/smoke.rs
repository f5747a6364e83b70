//! The machine as a whole: raw calls of the provider under the checker.

use std::time::Duration;

use wsk_sim::raw::*;
use wsk_sim::{Completion, Level, Sim};
use wsk_sys::*;

/// All modes of completions and callbacks.
fn machines() -> impl Iterator<Item = Sim> {
    let completions = [
        Completion::Natural,
        Completion::Inline,
        Completion::PendNested,
        Completion::PendEarly,
        Completion::PendLate,
        Completion::Random(7),
    ];
    completions.into_iter().flat_map(|completion| {
        [Level::Passive, Level::Dispatch].into_iter().map(move |level| {
            Sim::builder().completion(completion).callbacks(level).completions(level).build()
        })
    })
}

#[test]
fn an_empty_run_is_clean() {
    Sim::new().run(|_| {});
}

#[test]
fn register_capture_release_deregister() {
    Sim::new().run(|_| {
        let client = Client::new();
        let versions = client.query().expect("the provider is there");
        assert_eq!((versions.LowestVersion, versions.HighestVersion), (0x0100, 0x0100));
        client.release();
        client.deregister();
    });
}

#[test]
fn a_connection_by_accept_carries_data_both_ways() {
    for sim in machines() {
        sim.run(|_| {
            let client = Client::new();
            let (listener, address) = client.bound_listener(&Recorder::new());
            let accept = listener.accept().pends();
            let peer = Peer::connect(address);
            accept.wait();
            let (local, remote) = accept.addresses().expect("both addresses");
            assert_eq!((local, remote), (address, peer.local()));
            let socket = accept.socket();
            assert_eq!(socket.remote_address(), peer.local());
            peer.send(b"ping");
            assert_eq!(socket.receive_all(4), b"ping");
            assert_eq!(socket.send(b"pong").ok().information, 4);
            assert_eq!(peer.receive(4), b"pong");
            socket.disconnect().ok();
            peer.expect_end();
            peer.close();
            assert_eq!(socket.receive(&Buffer::new(8)).ok().information, 0);
            socket.close().ok();
            listener.close().ok();
        });
    }
}

#[test]
fn a_connection_by_event_carries_data_by_event() {
    for sim in machines() {
        sim.run(|_| {
            let client = Client::new();
            let (listening, connected) = (Recorder::new(), Recorder::new());
            let given = connected.clone();
            listening.on_accept(move |_| AcceptAnswer::take_with(&given));
            let (listener, address) = client.bound_listener(&listening);
            assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
            let peer = Peer::connect(address);
            let accepted = listening.accept();
            assert_eq!(accepted.remote, Some(peer.local()));
            let socket = accepted.socket();
            assert_eq!(socket.enable(WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
            peer.send(b"hello");
            assert_eq!(connected.receive_bytes(5), b"hello");
            peer.reset();
            assert!(connected.disconnect().abortive());
            assert_eq!(listener.disable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        });
    }
}

#[test]
fn a_rejected_request_is_reset() {
    for sim in machines() {
        sim.run(|_| {
            let client = Client::new();
            let events = Recorder::new();
            events.inspecting(WskInspectReject);
            let (listener, address) = client.conditional_listener(&events);
            let peer = Peer::connect(address);
            let inspected = events.inspect();
            assert_eq!((inspected.local, inspected.remote), (Some(address), Some(peer.local())));
            peer.expect_reset();
            listener.close().ok();
            assert!(events.drain().is_empty());
        });
    }
}

#[test]
fn an_accepted_request_is_delivered_with_its_identifier() {
    for sim in machines() {
        sim.run(|_| {
            let client = Client::new();
            let events = Recorder::new();
            let (listener, address) = client.conditional_listener(&events);
            let accept = listener.accept().pends();
            let peer = Peer::connect(address);
            let socket = accept.socket();
            assert_eq!(socket.query_inspect_id(), Ok(events.inspect().id()));
            socket.send(b"in").ok();
            assert_eq!(peer.receive(2), b"in");
        });
    }
}

#[test]
fn a_pended_request_waits_for_its_decision() {
    for sim in machines() {
        sim.run(|_| {
            let client = Client::new();
            let events = Recorder::new();
            events.inspecting(WskInspectPend);
            let (listener, address) = client.conditional_listener(&events);
            let accept = listener.accept().pends();
            let (first, second) = (Peer::connect(address), Peer::connect(address));
            let (one, other) = (events.inspect(), events.inspect());
            let (turned_away, let_in) =
                if one.remote == Some(first.local()) { (one, other) } else { (other, one) };
            listener.inspect_complete(turned_away.id(), WskInspectReject).ok();
            first.expect_reset();
            assert!(!accept.is_completed());
            listener.inspect_complete(let_in.id(), WskInspectAccept).ok();
            assert_eq!(accept.socket().remote_address(), second.local());
        });
    }
}

#[test]
fn a_request_that_goes_away_is_aborted() {
    for sim in machines() {
        sim.run(|_| {
            let client = Client::new();
            let events = Recorder::new();
            events.inspecting(WskInspectPend);
            let (_listener, address) = client.conditional_listener(&events);
            let peer = Peer::connect(address);
            let id = events.inspect().id();
            peer.reset();
            assert_eq!(events.abort().id, Some(id));
        });
    }
}

#[test]
fn an_event_cannot_be_disabled_while_it_runs() {
    Sim::new().run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let hold = events.hold(Kind::Accept);
        let _peer = Peer::connect(address);
        hold.wait_entered();
        assert_eq!(listener.disable(WSK_EVENT_ACCEPT), STATUS_EVENT_PENDING);
        let disabled = listener.disable_with_irp(WSK_EVENT_ACCEPT).pends();
        hold.open();
        disabled.ok();
        assert_eq!(events.returned(Kind::Accept), 1);
    });
}

#[test]
fn closing_cancels_what_is_pending() {
    for sim in machines() {
        sim.run(|_| {
            let client = Client::new();
            let (listener, _) = client.bound_listener(&Recorder::new());
            let accepts = [listener.accept().pends(), listener.accept().pends()];
            listener.close().ok();
            for accept in accepts {
                assert_eq!(accept.fails(STATUS_CANCELLED).information, 0);
            }
        });
    }
}

#[test]
fn a_cancelled_accept_is_cancelled() {
    Sim::new().run(|_| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let accept = listener.accept().pends();
        accept.cancel();
        accept.fails(STATUS_CANCELLED);
    });
}

#[test]
fn connecting_out() {
    for sim in machines() {
        sim.run(|_| {
            let client = Client::new();
            let (host, address) = host_listener();
            let socket = client.connected(address, &Recorder::new());
            let peer = Peer::accept(&host);
            assert_eq!(socket.local_address(), peer.stream().peer_addr().expect("a peer"));
            socket.send(b"out").ok();
            assert_eq!(peer.receive(3), b"out");
            socket.abort().ok();
            peer.expect_reset();
        });
    }
}

#[test]
fn datagrams() {
    for sim in machines() {
        sim.run(|_| {
            let client = Client::new();
            let (host, host_address) = host_datagram();
            let socket = client.datagram(&Recorder::new());
            let address = socket.bind_localhost();
            socket.send_to(b"out", host_address).ok();
            let mut bytes = [0; 8];
            assert_eq!(host.recv_from(&mut bytes).expect("a datagram"), (3, address));
            host.send_to(b"back", address).expect("sending");
            assert_eq!(socket.receive_datagram(8), (b"back".to_vec(), host_address));
        });
    }
}

#[test]
fn a_broken_rule_is_reported_and_fails_the_run_unless_expected() {
    let report = |expect: bool| {
        let sim = Sim::new();
        if expect {
            sim.expect("IRP-26");
        }
        let joiner = sim.thread("test", || {
            let client = Client::new();
            let listener = client.listener(&Recorder::new());
            let done = Request::new().bind(&listener, LOCALHOST, 1).wait();
            assert!(!nt_success(done.status), "{done:?}");
        });
        joiner.join().expect("the thread ends well");
        sim.finish()
    };
    assert!(report(true).is_clean());
    let unexpected = report(false);
    assert!(!unexpected.is_clean());
    assert!(unexpected.violations[0].location.contains("smoke"), "{unexpected}");
}

#[test]
fn what_is_left_behind_is_told() {
    let sim = Sim::new();
    let joiner = sim.thread("test", || {
        let client = Client::new();
        std::mem::forget(Buffer::new(100));
        client.listener(&Recorder::new()).forget();
        client.forget();
    });
    joiner.join().expect("the thread ends well");
    let report = sim.finish();
    assert!(!report.is_clean());
    assert!(report.leaks.count() != 0, "{report}");
    assert!(!report.violations.is_empty(), "{report}");
}

#[test]
fn a_late_provider_is_waited_for() {
    let sim = Sim::builder().late().build();
    sim.run(|sim| {
        let client = Client::registered(0x0100).expect("registration needs no provider");
        assert_eq!(client.capture(WSK_NO_WAIT), Err(STATUS_DEVICE_NOT_READY));
        assert_eq!(client.query(), Err(STATUS_DEVICE_NOT_READY));
        let provider = sim.provider().clone();
        let arrival = sim.thread("arrival", move || provider.arrive());
        assert_eq!(client.capture(10_000), Ok(()));
        arrival.join().expect("the thread ends well");
    });
}

#[test]
fn a_socket_whose_provider_dies_says_so() {
    Sim::new().run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.on_accept(|_| AcceptAnswer::refuse());
        let (listener, _) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let accept = listener.accept().pends();
        assert!(sim.provider().kill(listener.raw()));
        accept.fails(STATUS_FILE_FORCED_CLOSED);
        let sentinel = events.next_of(Kind::Accept, Duration::from_secs(5));
        assert!(matches!(sentinel, Some(Event::Accept(Accept { socket: None, .. }))), "{sentinel:?}");
        listener.close().ok();
    });
}
