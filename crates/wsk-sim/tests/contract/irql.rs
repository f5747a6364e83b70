//! IRQLs: of calls and of client code (contract 4.3).

use std::ptr;
use std::time::Duration;

use wsk_sim::raw::*;
use wsk_sim::{Level, Sim};
use wsk_sys::nt::{self, DISPATCH_LEVEL, KIRQL, PASSIVE_LEVEL};
use wsk_sys::*;

use crate::support::*;

/// The highest level there is to raise to in these tests: a device's.
const DEVICE_LEVEL: KIRQL = 5;

/// Runs `body` at `irql`.
fn at<T>(irql: KIRQL, body: impl FnOnce() -> T) -> T {
    // SAFETY: the level is lowered again below, on the same thread.
    let before = unsafe { nt::KfRaiseIrql(irql) };
    let result = body();
    // SAFETY: `before` is the level that the thread had.
    unsafe { nt::KeLowerIrql(before) };
    result
}

/// Shows: IRQL-01, IRQL-02, IRQL-03, IRQL-12, IRQL-15
#[test]
fn callbacks_and_completion_routines_run_at_the_level_they_are_asked_to_and_no_higher() {
    for (level, expected) in [(Level::Passive, PASSIVE_LEVEL), (Level::Dispatch, DISPATCH_LEVEL)] {
        let sim = Sim::builder().callbacks(level).completions(level).build();
        sim.run(move |_| {
            let client = Client::new();
            let events = Recorder::new();
            let (listener, address) = client.conditional_listener(&events);
            events.inspecting(WskInspectPend);
            let gone = Peer::connect(address);
            let inspect = events.inspect();
            gone.reset();
            let abort = events.abort();
            listener.inspect_complete(inspect.id(), WskInspectAccept).wait();
            events.inspecting(WskInspectAccept);
            assert_eq!(
                listener.enable(WSK_EVENT_ACCEPT | WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT),
                STATUS_SUCCESS
            );
            let own = Recorder::new();
            let given = own.clone();
            events.on_accept(move |_| AcceptAnswer::take_with(&given));
            let peer = Peer::connect(address);
            let accept = events.accept();
            peer.send(b"x");
            let receive = own.receive();
            peer.half_close();
            let disconnect = own.disconnect();
            let levels = [inspect.at, abort.at, accept.at, receive.at, disconnect.at].map(|at| at.irql);
            assert_eq!(levels, [expected; 5]);
            for flags in [accept.flags, receive.flags, disconnect.flags] {
                assert_eq!(flags & WSK_FLAG_AT_DISPATCH_LEVEL != 0, expected == DISPATCH_LEVEL);
            }
            let done = accept.socket().send(b"y").ok();
            assert!(done.irql == expected || done.same_thread, "{done:?}");
        });
    }
}

/// Shows: IRQL-15
#[test]
fn the_flag_may_be_missing_at_dispatch_level_but_is_never_set_below() {
    let sim = Sim::builder().callbacks(Level::Random(11)).build();
    sim.run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        let (mut unflagged, mut flagged) = (0, 0);
        for _ in 0..64 {
            let _peer = Peer::connect(address);
            let accept = events.accept();
            let flag = accept.flags & WSK_FLAG_AT_DISPATCH_LEVEL != 0;
            assert!(!flag || accept.at.irql == DISPATCH_LEVEL);
            match (accept.at.irql, flag) {
                (DISPATCH_LEVEL, false) => unflagged += 1,
                (DISPATCH_LEVEL, true) => flagged += 1,
                _ => {}
            }
            accept.socket().close().ok();
        }
        assert!(
            unflagged > 0 && flagged > 0,
            "{unflagged} calls at DISPATCH_LEVEL had no flag, {flagged} had it"
        );
    });
}

/// Shows: IRQL-04, IRQL-12
#[test]
fn socket_functions_can_be_called_at_dispatch_level() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        let accept = at(DISPATCH_LEVEL, || listener.accept());
        let peer = Peer::connect(address);
        let connection = accept.socket();
        peer.send(b"in");
        let buffer = Buffer::new(2);
        let requests = at(DISPATCH_LEVEL, || {
            [
                connection.send(b"out"),
                connection.receive(&buffer),
                connection.set_option(SOL_SOCKET, SO_KEEPALIVE, 1),
                Request::new().local_address(&connection).0,
                Request::new().remote_address(&connection).0,
                Request::new().local_address(&listener).0,
            ]
        });
        for request in requests {
            request.ok();
        }
        assert_eq!(peer.receive(3), b"out");
        let ended = at(DISPATCH_LEVEL, || connection.disconnect());
        peer.expect_end();
        peer.close();
        ended.ok();
        at(DISPATCH_LEVEL, || connection.close()).ok();
        at(DISPATCH_LEVEL, || listener.close()).ok();
    });
}

/// Catches: IRQL-04
#[test]
fn an_accept_above_dispatch_level_is_caught() {
    let sim = Sim::new();
    sim.expect("IRQL-04").expect("IRQL-12").expect("NT-IRQL");
    sim.run(|sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let accept = at(DEVICE_LEVEL, || listener.accept());
        assert_caught(sim, "IRQL-04", "WskAccept");
        accept.cancel();
        accept.wait();
        at(DEVICE_LEVEL, || Request::new().local_address(&listener).0).wait();
        assert_caught(sim, "IRQL-12", "WskGetLocalAddress");
    });
}

/// Catches: IRQL-05
#[test]
fn a_callback_that_stays_long_at_dispatch_level_is_reported() {
    let sim = Sim::builder().callbacks(Level::Dispatch).build();
    sim.kernel().set_dispatch_budget(Some(Duration::from_nanos(1)));
    sim.expect_advice("IRQL-05");
    sim.run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        events.inspecting(WskInspectReject);
        let (_listener, address) = client.conditional_listener(&events);
        let _peer = Peer::connect(address);
        events.inspect();
        assert_answer_caught(sim, "IRQL-05", "WskInspectEvent");
    });
}

/// Catches: IRQL-06
#[test]
fn registering_and_deregistering_above_passive_level_are_caught() {
    let sim = Sim::new();
    sim.expect("IRQL-06").expect("REG-25");
    sim.run(|sim| {
        let client = at(DISPATCH_LEVEL, || Client::registered(MAKE_WSK_VERSION(1, 0)).unwrap());
        assert_caught(sim, "IRQL-06", "WskRegister");
        at(DISPATCH_LEVEL, || client.deregister());
        assert_caught(sim, "IRQL-06", "WskDeregister");
    });
}

/// Shows: IRQL-08
/// Catches: IRQL-07
#[test]
fn a_capture_at_dispatch_level_may_poll_and_must_not_wait() {
    let sim = Sim::new();
    sim.expect("IRQL-07");
    sim.run(|sim| {
        let client = Client::registered(MAKE_WSK_VERSION(1, 0)).unwrap();
        at(DISPATCH_LEVEL, || client.capture(WSK_NO_WAIT)).unwrap();
        assert!(at(DISPATCH_LEVEL, || client.query()).is_ok());
        at(DISPATCH_LEVEL, || client.release());
        assert!(sim.violations_of("IRQL-07").is_empty());
        at(DISPATCH_LEVEL, || client.capture(10)).unwrap();
        assert_caught(sim, "IRQL-07", "WskCaptureProviderNPI");
        client.release();
        client.deregister();
    });
}

/// Catches: IRQL-10
#[test]
fn an_address_list_query_above_passive_level_is_caught() {
    let sim = Sim::new();
    sim.expect("IRQL-10");
    sim.run(|sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let query = Control::ioctl(SIO_ADDRESS_LIST_QUERY, None, Some(4096)).with_size();
        at(DISPATCH_LEVEL, || listener.control_now(&query));
        assert_caught(sim, "IRQL-10", "WskControlSocket");
    });
}

/// Catches: IRQL-13
#[test]
fn a_wait_at_dispatch_level_is_caught() {
    let sim = Sim::new();
    sim.expect("IRQL-13");
    sim.run(|sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let accept = listener.accept().pends();
        assert!(at(DISPATCH_LEVEL, || accept.wait_up_to(Duration::from_millis(1))).is_none());
        assert!(!sim.violations_of("IRQL-13").is_empty());
        accept.cancel();
        accept.wait();
    });
}

/// Catches: IRQL-09
#[test]
fn name_queries_above_passive_level_are_caught() {
    let sim = Sim::new();
    sim.expect("IRQL-09");
    sim.run(|sim| {
        let client = Client::new();
        let functions = client.dispatch();
        let (own, null) = (client.npi().Client, ptr::null_mut());
        let ask = functions.WskGetAddressInfo.unwrap();
        let mut text: Vec<u8> = "127.0.0.1".encode_utf16().flat_map(u16::to_ne_bytes).collect();
        text.extend([0, 0]);
        let units = Buffer::of(&text);
        let length = (text.len() - 2) as u16;
        let node = PoolBox::new(UNICODE_STRING {
            Length: length,
            MaximumLength: length + 2,
            Buffer: units.address().cast(),
        });
        let result = PoolBox::<PADDRINFOEXW>::new(ptr::null_mut());
        let (process, thread) = (ptr::null_mut(), ptr::null_mut());
        let asked = at(DISPATCH_LEVEL, || {
            Request::new().submit("WskGetAddressInfo", |irp| {
                let (string, out) = (node.as_ptr(), result.as_ptr());
                // SAFETY: everything outlives the request.
                unsafe {
                    ask(own, string, ptr::null_mut(), 0, ptr::null_mut(), null, out, process, thread, irp)
                }
            })
        });
        asked.ok();
        assert_caught(sim, "IRQL-09", "WskGetAddressInfo");
        // SAFETY: the list is the one that the query gave, freed once.
        at(DISPATCH_LEVEL, || unsafe { functions.WskFreeAddressInfo.unwrap()(own, *result) });
        assert_caught(sim, "IRQL-09", "WskFreeAddressInfo");
        let address = CAddress::new(LOCALHOST);
        let name = at(DISPATCH_LEVEL, || {
            Request::new().submit("WskGetNameInfo", |irp| {
                let (address, flags) = (address.as_ptr(), NI_NUMERICHOST | NI_NUMERICSERV);
                let (node, function) = (node.as_ptr(), functions.WskGetNameInfo.unwrap());
                // SAFETY: the list is the one that the query gave, freed once.
                unsafe { function(own, address, 16, node, ptr::null_mut(), flags, process, thread, irp) }
            })
        });
        name.wait();
        assert_caught(sim, "IRQL-09", "WskGetNameInfo");
    });
}

/// Catches: IRQL-11
#[test]
fn rdma_adapters_are_for_passive_level() {
    let sim = Sim::new();
    sim.expect("IRQL-11");
    sim.run(|sim| {
        let client = Client::new();
        let size = size_of::<WSK_PROVIDER_NDK_DISPATCH>();
        let answer = client.control_now(WSKNDK_GET_WSK_PROVIDER_NDK_DISPATCH, None, Some(size));
        assert_eq!(answer.status, STATUS_SUCCESS);
        // SAFETY: the output is the structure.
        let functions =
            unsafe { answer.output.as_ptr().cast::<WSK_PROVIDER_NDK_DISPATCH>().read_unaligned() };
        let own = client.npi().Client;
        let mut adapter = ptr::null_mut();
        let version = NDK_VERSION { Major: 1, Minor: 2 };
        let (open, close) = (functions.WskOpenNdkAdapter.unwrap(), functions.WskCloseNdkAdapter.unwrap());
        // SAFETY: the variable outlives the call.
        let opened = unsafe { open(own, version, 1, &raw mut adapter) };
        assert_eq!(opened, STATUS_NOT_SUPPORTED);
        assert!(sim.violations_of("IRQL-11").is_empty());
        // SAFETY: the variable outlives the call.
        at(DISPATCH_LEVEL, || unsafe { open(own, version, 1, &raw mut adapter) });
        assert_caught(sim, "IRQL-11", "WskOpenNdkAdapter");
        // SAFETY: the provider recognizes what is no adapter.
        at(DISPATCH_LEVEL, || unsafe { close(own, adapter) });
        assert_caught(sim, "IRQL-11", "WskCloseNdkAdapter");
    });
}
