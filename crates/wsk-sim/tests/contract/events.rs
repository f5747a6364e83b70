//! Switching event callbacks with `SO_WSK_EVENT_CALLBACK` (contract 4.18).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::Alternatives;
use wsk_sim::wsk_provider::behaviours::*;
use wsk_sim::{Completion, FaultPoint, Sim};
use wsk_sys::*;

use crate::support::*;

/// A connection with its peer; `events` has its callbacks.
fn connected_pair(client: &Client, events: &Recorder) -> (Socket, Peer) {
    let (listener, address) = client.bound_listener(&Recorder::new());
    let accept = listener.accept_with(events).pends();
    let peer = Peer::connect(address);
    let connection = accept.socket();
    listener.close().ok();
    (connection, peer)
}

/// The bytes of the first datagram of an event.
fn bytes_of(event: &ReceiveFrom) -> Vec<u8> {
    event.datagrams.as_ref().and_then(|list| list.first()?.data.clone()).expect("a datagram")
}

/// Shows: EVT-01, EVT-12, EVT-30, EVT-31, EVT-32
#[test]
fn each_category_has_its_events_and_enabling_them_finishes_inline() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let peer = Peer::connect(address);
        let accepted = events.accept();
        assert_eq!(accepted.remote, Some(peer.local()));
        drop(accepted.socket());
        let datagram = client.datagram(&events);
        let bound = datagram.bind_localhost();
        assert_eq!(datagram.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
        let (host, _) = host_datagram();
        host.send_to(b"one", bound).unwrap();
        assert_eq!(bytes_of(&events.receive_from()), b"one");
        let (connection, peer) = connected_pair(&client, &events);
        for event in [WSK_EVENT_RECEIVE, WSK_EVENT_DISCONNECT, WSK_EVENT_SEND_BACKLOG] {
            assert_eq!(connection.enable(event), STATUS_SUCCESS);
        }
        peer.send(b"two");
        assert_eq!(events.receive_bytes(3), b"two");
        peer.close();
        assert!(!events.disconnect().abortive());
    });
}

/// Shows: EVT-04, EVT-05
#[test]
fn the_option_applies_to_every_category_that_has_events() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, _) = client.bound_listener(&events);
        let datagram = client.datagram(&events);
        datagram.bind_localhost();
        let (connection, _peer) = connected_pair(&client, &events);
        let stream = client.socket(Category::Stream, &events);
        let address = stream.bind_localhost();
        stream.listen().ok();
        for (socket, mask) in [
            (&listener, WSK_EVENT_ACCEPT),
            (&datagram, WSK_EVENT_RECEIVE_FROM),
            (&connection, WSK_EVENT_RECEIVE),
            (&stream, WSK_EVENT_ACCEPT),
        ] {
            assert_eq!(socket.enable(mask), STATUS_SUCCESS);
        }
        let peer = Peer::connect(address);
        assert_eq!(events.accept().remote, Some(peer.local()));
    });
}

/// Shows: EVT-06
#[test]
fn a_basic_socket_without_an_extension_has_no_events() {
    for_each_choice(
        |behaviours, choice: EventsOnBasic| behaviours.events_on_basic = choice,
        |_, choice| {
            let client = Client::new();
            let basic = client.open(&SocketOptions::new(Category::Basic)).socket();
            assert_eq!(basic.enable(WSK_EVENT_RECEIVE), choice.status());
        },
    );
    assert_eq!(EventsOnBasic::default().status(), STATUS_INVALID_PARAMETER);
}

/// Shows: EVT-09
/// Catches: EVT-07, EVT-08
#[test]
fn events_are_refused_before_the_socket_is_bound_or_connected() {
    for &choice in EventsTooEarly::ALL {
        let sim = Sim::builder().behaviours(|behaviours| behaviours.events_too_early = choice).build();
        sim.expect("EVT-07").expect("EVT-08");
        sim.run(move |sim| {
            let client = Client::new();
            let events = Recorder::new();
            let listener = client.listener(&events);
            assert_eq!(listener.enable(WSK_EVENT_ACCEPT), choice.status());
            let datagram = client.datagram(&events);
            assert_eq!(datagram.enable(WSK_EVENT_RECEIVE_FROM), choice.status());
            assert_caught(sim, "EVT-07", "WskControlSocket");
            let connection = client.connection(&events);
            connection.bind_localhost();
            assert_eq!(connection.enable(WSK_EVENT_RECEIVE), choice.status());
            assert_caught(sim, "EVT-08", "WskControlSocket");
        });
    }
    assert_eq!(EventsTooEarly::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Shows: EVT-11
/// Catches: EVT-10
#[test]
fn enabling_with_an_irp_works_and_is_advised_against() {
    let sim = Sim::new();
    sim.expect_advice("EVT-10");
    sim.run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, peer) = connected_pair(&client, &events);
        connection.control(&Control::events(WSK_EVENT_RECEIVE)).ok();
        assert_advised(sim, "EVT-10", "WskControlSocket");
        peer.send(b"x");
        assert_eq!(events.receive_bytes(1), b"x");
    });
}

/// Shows: EVT-13
#[test]
fn what_waits_already_is_indicated_when_its_event_is_enabled() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        let peer = Peer::connect(address);
        await_untaken(sim, &listener, 1);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let own = Recorder::new();
        drop(events.accept().socket());
        peer.expect_reset();
        let (connection, peer) = connected_pair(&client, &own);
        peer.send(b"early");
        eventually("the bytes are there", || {
            let query = Control::ioctl(SIO_WSK_QUERY_RECEIVE_BACKLOG, None, Some(size_of::<usize>()));
            let (request, output, _) = Request::new().control(&connection, &query);
            request.ok();
            output.expect("a backlog").bytes() == 5_usize.to_ne_bytes()
        });
        assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        assert_eq!(own.receive_bytes(5), b"early");
    });
}

/// Shows: EVT-14, EVT-15, EVT-16, EVT-20, EVT-27
#[test]
fn disabling_an_idle_event_takes_effect_at_once_with_and_without_an_irp() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, peer) = connected_pair(&client, &events);
        for with_irp in [false, true] {
            assert_eq!(connection.enable(WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
            // Enabling another one leaves the first enabled.
            assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
            peer.send(b"seen");
            assert_eq!(events.receive_bytes(4), b"seen");
            if with_irp {
                let done = connection.disable_with_irp(WSK_EVENT_RECEIVE).ok();
                assert_eq!(done.returned, STATUS_SUCCESS);
            } else {
                assert_eq!(connection.disable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
            }
            let calls = events.entered(Kind::Receive);
            peer.send(b"unseen");
            // The bytes have arrived, and no callback was called for them.
            assert_eq!(connection.receive_all(6), b"unseen");
            assert_eq!(events.entered(Kind::Receive), calls);
        }
        peer.close();
        assert!(!events.disconnect().abortive());
    });
}

/// Shows: EVT-17, EVT-18
#[test]
fn disabling_an_event_in_progress_says_so_and_ends_with_its_callback() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, peer) = connected_pair(&client, &events);
        for with_irp in [false, true] {
            assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
            let hold = events.hold(Kind::Receive);
            peer.send(b"1");
            hold.wait_entered();
            if with_irp {
                let disable = connection.disable_with_irp(WSK_EVENT_RECEIVE);
                assert_eq!(disable.returned(), STATUS_PENDING);
                assert!(disable.wait_up_to(A_WHILE).is_none());
                hold.open();
                disable.ok();
            } else {
                assert_eq!(connection.disable(WSK_EVENT_RECEIVE), STATUS_EVENT_PENDING);
                hold.open();
            }
            assert_eq!(events.receive_bytes(1), b"1");
            let calls = events.entered(Kind::Receive);
            peer.send(b"2");
            assert_eq!(connection.receive_all(1), b"2");
            assert_eq!(events.entered(Kind::Receive), calls);
        }
    });
}

/// Shows: EVT-19
#[test]
fn disabling_waits_for_all_of_several_callbacks_in_progress() {
    let sim = Sim::new();
    sim.choose(FaultPoint::ConcurrentReceiveFrom, 1);
    sim.run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let datagram = client.datagram(&events);
        let bound = datagram.bind_localhost();
        let (let_out, exits): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel::<()>()).unzip();
        let (exits, inside) = (Mutex::new(exits), Arc::new(AtomicUsize::new(0)));
        let entered = Arc::clone(&inside);
        events.on_receive_from(move |_| {
            let exit = exits.lock().unwrap().pop();
            entered.fetch_add(1, Ordering::SeqCst);
            if let Some(exit) = exit {
                exit.recv_timeout(BOUND).expect("the test lets the callback out");
            }
            STATUS_SUCCESS
        });
        assert_eq!(datagram.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
        let (host, _) = host_datagram();
        for count in 1..=2 {
            host.send_to(b"x", bound).unwrap();
            eventually("a callback is entered", || inside.load(Ordering::SeqCst) == count);
        }
        let disable = datagram.disable_with_irp(WSK_EVENT_RECEIVE_FROM);
        assert_eq!(disable.returned(), STATUS_PENDING);
        let_out[0].send(()).unwrap();
        events.receive_from();
        assert!(disable.wait_up_to(A_WHILE).is_none(), "one callback is still running");
        let_out[1].send(()).unwrap();
        disable.ok();
    });
}

/// Shows: EVT-22
#[test]
fn disabling_an_event_inside_its_own_callback_does_not_wait() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, peer) = connected_pair(&client, &events);
        let connection = Arc::new(connection);
        assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        let own = Arc::clone(&connection);
        events.on_receive(move |_| {
            assert_eq!(own.disable(WSK_EVENT_RECEIVE), STATUS_EVENT_PENDING);
            ReceiveAnswer::all()
        });
        peer.send(b"x");
        events.receive();
        events.on_receive(|_| ReceiveAnswer::all());
        peer.send(b"y");
        assert_eq!(connection.receive_all(1), b"y");
        assert_eq!(events.entered(Kind::Receive), 1);
    });
}

/// Shows: EVT-26
#[test]
fn one_call_enables_any_combination() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, peer) = connected_pair(&client, &events);
        assert_eq!(connection.enable(WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        peer.send(b"x");
        assert_eq!(events.receive_bytes(1), b"x");
        peer.close();
        events.disconnect();
    });
}

/// Shows: EVT-29
/// Catches: EVT-28
#[test]
fn disabling_several_events_in_one_call_is_caught() {
    for &choice in DisableSeveral::ALL {
        let sim = Sim::builder().behaviours(|behaviours| behaviours.disable_several = choice).build();
        sim.expect("EVT-28");
        sim.run(move |sim| {
            let client = Client::new();
            let events = Recorder::new();
            let (connection, peer) = connected_pair(&client, &events);
            let both = WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT;
            assert_eq!(connection.enable(both), STATUS_SUCCESS);
            let status = connection.disable(both);
            assert_caught(sim, "EVT-28", "WskControlSocket");
            peer.send(b"x");
            if choice == DisableSeveral::default() {
                assert_eq!(status, STATUS_INVALID_PARAMETER);
                assert_eq!(events.receive_bytes(1), b"x");
            } else {
                assert_eq!(status, STATUS_SUCCESS);
                assert_eq!(connection.receive_all(1), b"x");
                assert_eq!(events.entered(Kind::Receive), 0);
            }
        });
    }
}

/// Shows: EVT-33
#[test]
fn an_event_of_another_category_is_refused_or_ignored() {
    for_each_choice(
        |behaviours, choice: ForeignEvents| behaviours.foreign_events = choice,
        |_, choice| {
            let client = Client::new();
            let events = Recorder::new();
            let (connection, _peer) = connected_pair(&client, &events);
            let status = connection.enable(WSK_EVENT_ACCEPT);
            assert_eq!(status == STATUS_SUCCESS, choice != ForeignEvents::default());
            if status != STATUS_SUCCESS {
                assert_eq!(status, STATUS_INVALID_PARAMETER);
            }
        },
    );
}

/// Shows: EVT-35
/// Catches: EVT-34
#[test]
fn an_event_without_a_callback_is_caught() {
    for &choice in NullCallback::ALL {
        let sim = Sim::builder().behaviours(|behaviours| behaviours.null_callback = choice).build();
        sim.expect("EVT-34");
        sim.run(move |sim| {
            let client = Client::new();
            let events = Recorder::with_tables(|tables| tables.connection.WskReceiveEvent = None);
            let (connection, peer) = connected_pair(&client, &events);
            let status = connection.enable(WSK_EVENT_RECEIVE);
            if choice == NullCallback::default() {
                assert_eq!(status, STATUS_INVALID_PARAMETER);
            } else {
                assert_eq!(status, STATUS_SUCCESS);
                peer.send(b"x");
            }
            eventually("it is reported", || !sim.violations_of("EVT-34").is_empty());
        });
    }
}

/// Shows: EVT-36, EVT-37, EVT-38, EVT-41
#[test]
fn connections_inherit_the_events_of_their_listener_when_they_come_by_the_event() {
    for_each_mode(|_| {
        let client = Client::new();
        let (events, own) = (Recorder::new(), Recorder::new());
        let given = own.clone();
        events.on_accept(move |_| AcceptAnswer::take_with(&given));
        let (listener, address) = client.bound_listener(&events);
        let inherited = WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT;
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT | inherited), STATUS_SUCCESS);
        for again in [false, true] {
            if again {
                assert_eq!(listener.disable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
                assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
            }
            let peer = Peer::connect(address);
            let _connection = events.accept().socket();
            peer.send(b"x");
            assert_eq!(own.receive_bytes(1), b"x");
            peer.close();
            own.disconnect();
        }
        // By an IRP they do not.
        assert_eq!(listener.disable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let other = Recorder::new();
        let accept = listener.accept_with(&other).pends();
        let peer = Peer::connect(address);
        let connection = accept.socket();
        peer.send(b"y");
        assert_eq!(connection.receive_all(1), b"y");
        assert_eq!(other.entered(Kind::Receive), 0);
        assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        events.on_accept(|_| AcceptAnswer::take());
    });
}

/// Shows: EVT-39, EVT-40
#[test]
fn inherited_events_cannot_be_switched_off_on_the_listener() {
    for_each_choice(
        |behaviours, choice: DisableInherited| behaviours.disable_inherited = choice,
        |_, choice| {
            let client = Client::new();
            let (events, own) = (Recorder::new(), Recorder::new());
            let given = own.clone();
            events.on_accept(move |_| AcceptAnswer::take_with(&given));
            let (listener, address) = client.bound_listener(&events);
            assert_eq!(listener.enable(WSK_EVENT_ACCEPT | WSK_EVENT_RECEIVE), STATUS_SUCCESS);
            assert_eq!(listener.disable(WSK_EVENT_RECEIVE), choice.status());
            let peer = Peer::connect(address);
            let _connection = events.accept().socket();
            peer.send(b"x");
            assert_eq!(own.receive_bytes(1), b"x");
            events.on_accept(|_| AcceptAnswer::take());
        },
    );
    assert_eq!(DisableInherited::default().status(), STATUS_INVALID_PARAMETER);
}

/// Catches: EVT-01, EVT-02, EVT-03, EVT-23, EVT-25
#[test]
fn a_control_structure_that_is_not_as_it_should_be_is_caught() {
    static OTHER: NPIID = NPIID { data1: 1, data2: 2, data3: 3, data4: [4; 8] };
    let sim = Sim::new();
    sim.expect("EVT-01").expect("EVT-02").expect("EVT-03").expect("EVT-23").expect("EVT-25");
    sim.run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, _peer) = connected_pair(&client, &events);
        let good = Control::events(WSK_EVENT_RECEIVE);
        let wrong_kind = Control { kind: WskIoctl, ..good.clone() };
        assert!(!nt_success(connection.control_now(&wrong_kind).status));
        assert_caught(sim, "EVT-01", "WskControlSocket");
        let mut short = good.clone();
        short.input.as_mut().unwrap().truncate(12);
        assert!(!nt_success(connection.control_now(&short).status));
        assert_caught(sim, "EVT-02", "WskControlSocket");
        let with_output = good.clone().with_size();
        connection.control_now(&with_output);
        assert_advised(sim, "EVT-03", "WskControlSocket");
        let foreign = Control { input: Some(event_control(&OTHER, WSK_EVENT_RECEIVE)), ..good };
        assert_eq!(connection.control_now(&foreign).status, STATUS_NOT_SUPPORTED);
        assert_caught(sim, "EVT-23", "WskControlSocket");
        // A bit of no standard event is meant for an extension, whose own identifier it needs.
        let extension = Control { input: Some(event_control(&OTHER, 1)), ..Control::events(1) };
        assert_eq!(connection.control_now(&extension).status, STATUS_NOT_SUPPORTED);
        assert_caught(sim, "EVT-25", "WskControlSocket");
    });
}

/// Shows: EVT-43, EVT-47, EVT-48
#[test]
fn static_events_are_on_from_the_first_moment_in_every_category_they_suit() {
    for_each_mode(|_| {
        let client = Client::new();
        let mask = WSK_EVENT_ACCEPT | WSK_EVENT_RECEIVE_FROM | WSK_EVENT_RECEIVE;
        assert_eq!(client.static_events(mask), STATUS_SUCCESS);
        let events = Recorder::new();
        let (_listener, address) = client.bound_listener(&events);
        let _peer = Peer::connect(address);
        drop(events.accept().socket());
        let datagram = client.datagram(&events);
        let bound = datagram.bind_localhost();
        host_datagram().0.send_to(b"one", bound).unwrap();
        assert_eq!(bytes_of(&events.receive_from()), b"one");
        let (host, served) = host_listener();
        let connection = client.connected(served, &events);
        Peer::accept(&host).send(b"two");
        assert_eq!(events.receive_bytes(3), b"two");
        connection.close().ok();
    });
}

/// Shows: EVT-44, EVT-51
#[test]
fn static_events_end_with_the_close_and_not_before() {
    let sim = Sim::new();
    sim.run(|_| {
        let client = Client::new();
        assert_eq!(client.static_events(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.disable(WSK_EVENT_ACCEPT), STATUS_INVALID_PARAMETER);
        let _peer = Peer::connect(address);
        drop(events.accept().socket());
        listener.close().ok();
        let calls = events.entered(Kind::Accept);
        assert!(Peer::is_refused(address));
        assert_eq!(events.entered(Kind::Accept), calls);
    });
}

/// Shows: EVT-45
/// Catches: EVT-42
#[test]
fn static_events_are_set_once() {
    for &choice in SecondStatic::ALL {
        let sim = Sim::builder().behaviours(|behaviours| behaviours.second_static = choice).build();
        sim.expect("EVT-42");
        sim.run(move |sim| {
            let client = Client::new();
            assert_eq!(client.static_events(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
            let status = client.static_events(WSK_EVENT_RECEIVE);
            assert_caught(sim, "EVT-42", "WskControlClient");
            if choice == SecondStatic::default() {
                assert_eq!(status, STATUS_INVALID_DEVICE_STATE);
            } else {
                assert_eq!(status, STATUS_SUCCESS);
            }
        });
    }
}

/// Shows: EVT-46
/// Catches: EVT-42
#[test]
fn static_events_after_the_first_socket_are_caught() {
    for &choice in LateStatic::ALL {
        let sim = Sim::builder().behaviours(|behaviours| behaviours.late_static = choice).build();
        sim.expect("EVT-42");
        sim.run(move |sim| {
            let client = Client::new();
            let _first = client.listener(&Recorder::new());
            let status = client.static_events(WSK_EVENT_ACCEPT);
            assert_eq!(status == STATUS_SUCCESS, choice != LateStatic::default());
            assert_caught(sim, "EVT-42", "WskControlClient");
        });
    }
}

/// Shows: EVT-50
#[test]
fn static_events_reach_connections_taken_by_an_irp_or_not() {
    for_each_choice(
        |behaviours, choice: StaticOnAccept| behaviours.static_on_accept = choice,
        |_, choice| {
            let client = Client::new();
            assert_eq!(client.static_events(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
            let events = Recorder::new();
            let (connection, peer) = connected_pair(&client, &events);
            peer.send(b"x");
            if choice == StaticOnAccept::default() {
                assert_eq!(connection.receive_all(1), b"x");
                assert_eq!(events.entered(Kind::Receive), 0);
                assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
            } else {
                assert_eq!(events.receive_bytes(1), b"x");
            }
        },
    );
}

/// Shows: EVT-52
#[test]
fn the_bits_that_no_event_has_switch_nothing_on() {
    let sim = Sim::builder().completion(Completion::Natural).build();
    sim.run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (connection, _peer) = connected_pair(&client, &events);
        let known = WSK_EVENT_SEND_BACKLOG
            | WSK_EVENT_RECEIVE
            | WSK_EVENT_DISCONNECT
            | WSK_EVENT_RECEIVE_FROM
            | WSK_EVENT_ACCEPT
            | WSK_EVENT_DISABLE;
        for bit in (0..32).map(|shift| 1_u32 << shift).filter(|bit| known & bit == 0) {
            assert_eq!(connection.enable(bit), STATUS_INVALID_PARAMETER, "{bit:#x}");
        }
    });
}

/// Shows: EVT-55
#[test]
fn callbacks_run_in_threads_of_the_providers_choosing() {
    let sim = Sim::new();
    sim.run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let _peer = Peer::connect(address);
        let accept = events.accept();
        assert_ne!(accept.at.thread, std::thread::current().id());
        drop(accept.socket());
    });
}
