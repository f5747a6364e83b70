//! IRPs: completion, results, and forbidden operations (contract 4.1, 4.2).

use std::sync::Arc;

use wsk_sim::raw::*;
use wsk_sim::{Completion, FaultPoint, Sim};
use wsk_sys::nt;
use wsk_sys::*;

use crate::support::*;

/// A connection of the client with its peer.
fn connected_pair(client: &Client) -> (Socket, Peer) {
    let (listener, address) = client.bound_listener(&Recorder::new());
    let accept = listener.accept().pends();
    let peer = Peer::connect(address);
    let connection = accept.socket();
    listener.close().ok();
    (connection, peer)
}

/// Calls of every outcome: inline or pended success, failure, and cancellation.
fn calls_of_every_outcome(client: &Client, see: &mut dyn FnMut(Done)) {
    let (connection, _peer) = connected_pair(client);
    see(connection.send(b"success").ok());
    see(connection.set_option(SOL_SOCKET, SO_KEEPALIVE, 1).ok());
    let unbound = client.connection(&Recorder::new());
    see(unbound.connect(closed_port()).fails(STATUS_INVALID_DEVICE_STATE));
    see(Request::new().remote_address(&unbound).0.fails(STATUS_INVALID_DEVICE_STATE));
    unbound.bind_localhost();
    see(unbound.connect(closed_port()).fails(STATUS_CONNECTION_REFUSED));
    let receive = connection.receive(&Buffer::new(8)).pends();
    receive.cancel();
    see(receive.fails(STATUS_CANCELLED));
    let swept = connection.receive(&Buffer::new(8)).pends();
    see(connection.close().ok());
    see(swept.fails(STATUS_CANCELLED));
}

/// Shows: IRP-07, IRP-08, IRP-09, IRP-11, IRP-24
#[test]
fn every_request_completes_once_before_or_after_the_return_as_the_return_says() {
    for_each_mode(|_| {
        let client = Client::new();
        calls_of_every_outcome(&client, &mut |done| {
            assert_eq!(done.runs, 1, "{done:?}");
            assert_eq!(done.pending_returned, done.returned == STATUS_PENDING, "{done:?}");
            if done.returned != STATUS_PENDING {
                assert!(done.before_return && done.returned == done.status, "{done:?}");
            }
        });
    });
}

/// Shows: IRP-09
#[test]
fn a_pended_request_may_complete_before_its_call_returns_and_on_another_thread() {
    let sim = Sim::builder().completion(Completion::PendEarly).build();
    sim.run(|_| {
        let client = Client::new();
        let (connection, _peer) = connected_pair(&client);
        let done = connection.send(b"x").ok();
        assert_eq!((done.returned, done.before_return, done.same_thread), (STATUS_PENDING, true, false));
    });
}

/// Shows: IRP-25
#[test]
fn the_completion_routine_of_a_single_location_irp_gets_no_device() {
    for_each_mode(|_| {
        let client = Client::new();
        calls_of_every_outcome(&client, &mut |done| assert!(done.device_is_null, "{done:?}"));
    });
}

/// Shows: IRP-22
#[test]
fn a_failed_request_has_information_zero() {
    for_each_mode(|_| {
        let client = Client::new();
        calls_of_every_outcome(&client, &mut |done| {
            assert!(nt_success(done.status) || done.information == 0, "{done:?}");
        });
    });
}

/// Shows: IRP-15
#[test]
fn a_pending_request_can_be_cancelled() {
    for_each_mode(|_| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let (connection, _peer) = connected_pair(&client);
        for pending in [listener.accept().pends(), connection.receive(&Buffer::new(1)).pends()] {
            pending.cancel();
            let done = pending.fails(STATUS_CANCELLED);
            assert_eq!((done.runs, done.information), (1, 0));
            // Once more, when there is nothing left to cancel.
            assert!(!pending.cancel());
        }
    });
}

/// Shows: IRP-15
#[test]
fn a_cancel_that_loses_leaves_the_success() {
    for_each_mode(|_| {
        let client = Client::new();
        let (connection, peer) = connected_pair(&client);
        let buffer = Buffer::new(4);
        let receive = connection.receive(&buffer).pends();
        peer.send(b"data");
        receive.wait();
        assert!(!receive.cancel());
        assert_eq!(receive.ok().information, 4);
        assert_eq!(buffer.read(), b"data");
    });
}

/// Shows: IRP-17
/// Catches: IRP-18
#[test]
fn a_function_that_needs_an_irp_does_nothing_without_one() {
    let sim = Sim::new();
    sim.expect("IRP-18").expect("LSN-10");
    sim.run(|sim| {
        let client = Client::new();
        let (connection, peer) = connected_pair(&client);
        let listener = client.listener(&Recorder::new());
        let address = "127.0.0.1:0".parse().unwrap();
        let created = client.open_with(Request::null(), &SocketOptions::new(Category::Listen));
        assert_eq!(created.returned(), STATUS_INVALID_PARAMETER);
        for request in [
            Request::null().bind(&listener, address, 0),
            Request::null().send(&connection, &Buffer::of(b"never"), 0),
            Request::null().receive(&connection, &Buffer::new(1), 0),
            Request::null().disconnect(&connection, None, 0),
            Request::null().local_address(&connection).0,
            Request::null().remote_address(&connection).0,
        ] {
            assert_eq!(request.returned(), STATUS_INVALID_PARAMETER);
        }
        // Nothing was bound, sent or disconnected.
        Request::new().local_address(&listener).0.fails(STATUS_INVALID_DEVICE_STATE);
        listener.bind_localhost();
        assert_eq!(Request::null().accept(&listener, None, 0).returned(), STATUS_INVALID_PARAMETER);
        connection.send(b"only this").ok();
        connection.disconnect().returned();
        assert_eq!(peer.receive(9), b"only this");
        peer.expect_end();
        for call in [
            "WskSocket",
            "WskBind",
            "WskSend",
            "WskReceive",
            "WskDisconnect",
            "WskGetLocalAddress",
            "WskGetRemoteAddress",
        ] {
            assert_caught(sim, "IRP-18", call);
        }
    });
}

/// Shows: IRP-19, IRP-21
#[test]
fn a_control_call_without_an_irp_is_answered_by_its_return() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, _) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let query = Control::ioctl(SIO_ADDRESS_LIST_QUERY, None, Some(4096)).with_size();
        let answer = listener.control_now(&query);
        assert_eq!(answer.status, STATUS_SUCCESS);
        assert!(answer.size > 0, "the size is there at the return");
    });
}

/// Shows: IRP-21
#[test]
fn a_control_call_with_an_irp_has_the_size_in_information() {
    for_each_mode(|_| {
        let client = Client::new();
        let (connection, _peer) = connected_pair(&client);
        let query = Control::ioctl(SIO_WSK_QUERY_IDEAL_SEND_BACKLOG, None, Some(size_of::<usize>()));
        assert_eq!(connection.control(&query).ok().information, size_of::<usize>());
    });
}

/// Shows: IRP-20
#[test]
fn a_control_call_without_an_irp_may_be_refused_when_it_cannot_finish_inline() {
    let sim = Sim::new();
    sim.choose(FaultPoint::NotInline, 1);
    sim.run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, _) = client.bound_listener(&events);
        let query = Control::ioctl(SIO_ADDRESS_LIST_QUERY, None, Some(4096)).with_size();
        assert_eq!(listener.control_now(&query).status, STATUS_REQUEST_NOT_ACCEPTED);
    });
}

/// Shows: IRP-27
#[test]
fn requests_without_a_result_complete_with_information_zero() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectPend);
        let stream = client.socket(Category::Stream, &Recorder::new());
        stream.bind_localhost();
        assert_eq!(stream.listen().ok().information, 0);
        assert_eq!(Request::new().local_address(&stream).0.ok().information, 0);
        let (connection, peer) = connected_pair(&client);
        assert_eq!(Request::new().remote_address(&connection).0.ok().information, 0);
        let disconnect = connection.disconnect();
        peer.close();
        assert_eq!(disconnect.ok().information, 0);
        let (listener, address) = client.conditional_listener(&events);
        let knocking = Peer::connect(address);
        let decided = listener.inspect_complete(events.inspect().id(), WskInspectReject);
        assert_eq!(decided.ok().information, 0);
        knocking.expect_reset();
    });
}

/// Catches: IRP-02
#[test]
fn a_completion_routine_that_is_not_for_every_outcome_is_caught() {
    let sim = Sim::new();
    sim.expect("IRP-02");
    sim.run(|sim| {
        let client = Client::new();
        let (connection, _peer) = connected_pair(&client);
        let listener = client.listener(&Recorder::new());
        let partial = || Request::new().invoked_on(nt::SL_INVOKE_ON_SUCCESS | nt::SL_INVOKE_ON_ERROR);
        partial().send(&connection, &Buffer::of(b"x"), 0).ok();
        assert_caught(sim, "IRP-02", "WskSend");
        partial().bind(&listener, LOCALHOST, 0).ok();
        assert_caught(sim, "IRP-02", "WskBind");
        partial().local_address(&listener).0.ok();
        assert_caught(sim, "IRP-02", "WskGetLocalAddress");
        let accept = partial().accept(&listener, None, 0).pends();
        assert_caught(sim, "IRP-02", "WskAccept");
        assert_eq!(sim.violations_of("IRP-02").len(), 4);
        accept.cancel();
        accept.wait();
    });
}

/// Catches: IRP-03
#[test]
fn a_completion_routine_that_lets_go_of_a_client_irp_is_caught() {
    // By this thread, so that the routine has returned when the call has.
    let sim = Sim::builder().completion(Completion::Inline).build();
    sim.expect("IRP-03");
    sim.run(|sim| {
        let client = Client::new();
        let (connection, _peer) = connected_pair(&client);
        Request::new().returning(STATUS_SUCCESS).send(&connection, &Buffer::of(b"x"), 0).ok();
        assert!(!sim.violations_of("IRP-03").is_empty());
    });
}

/// Catches: IRP-06
#[test]
fn an_irp_that_is_still_pending_is_caught_when_it_is_submitted_again() {
    let sim = Sim::new();
    sim.expect("IRP-06");
    sim.run(|sim| {
        let client = Client::new();
        let (connection, _peer) = connected_pair(&client);
        let receive = connection.receive(&Buffer::new(1)).pends();
        // SAFETY: the IRP is live; that it is pending is the breach this test commits.
        unsafe { nt::IoReuseIrp(receive.irp(), STATUS_SUCCESS) };
        assert!(!sim.violations_of("IRP-06").is_empty());
        receive.cancel();
        receive.wait();
    });
}

/// Catches: IRP-14
#[test]
fn calls_nested_in_completion_routines_are_advised_against() {
    let sim = Sim::builder().completion(Completion::Inline).build();
    sim.expect_advice("IRP-14");
    sim.run(|sim| {
        let client = Client::new();
        let (connection, _peer) = connected_pair(&client);
        let connection = Arc::new(connection);
        send_nested(&connection, 32);
        assert!(!sim.violations_of("IRP-14").is_empty());
    });
}

/// Sends from within the completion routine of a send, `depth` deep; every one of them completes inline.
fn send_nested(connection: &Arc<Socket>, depth: u32) {
    let again = Arc::clone(connection);
    let request = Request::new()
        .hook(move |_, _| {
            if depth > 0 {
                send_nested(&again, depth - 1);
            }
        })
        .send(connection, &Buffer::of(b"x"), 0);
    assert!(request.is_completed());
}

/// Catches: IRP-26
#[test]
fn reserved_flags_that_are_set_are_caught() {
    let sim = Sim::new();
    sim.expect("IRP-26");
    sim.run(|sim| {
        let client = Client::new();
        let address = "127.0.0.1:0".parse().unwrap();
        let (_host, served) = host_listener();
        let bound = client.connection(&Recorder::new());
        Request::new().bind(&bound, address, 1).wait();
        let connecting = client.connection(&Recorder::new());
        connecting.bind_localhost();
        Request::new().connect(&connecting, served, 1).wait();
        for call in ["WskBind", "WskConnect"] {
            assert_caught(sim, "IRP-26", call);
        }
    });
}
