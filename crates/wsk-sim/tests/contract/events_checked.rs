//! Mistakes that a client can make around its event callbacks, and how they are seen.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::life::table;
use crate::support::*;

/// Context of a callback that blocks until it is released.
#[derive(Debug, Default)]
struct Held {
    entered: AtomicBool,
    open: AtomicBool,
}

unsafe extern "system" fn held_disconnect(context: *mut c_void, _flags: u32) -> NTSTATUS {
    // SAFETY: the context is the one that the socket was given; the checker keeps it if it is freed too
    // early.
    let held = unsafe { &*context.cast::<Held>() };
    held.entered.store(true, SeqCst);
    while !held.open.load(SeqCst) {
        std::thread::yield_now();
    }
    STATUS_SUCCESS
}

static HELD: WSK_CLIENT_CONNECTION_DISPATCH = WSK_CLIENT_CONNECTION_DISPATCH {
    WskReceiveEvent: None,
    WskDisconnectEvent: Some(held_disconnect),
    WskSendBacklogEvent: None,
};

/// Catches: EVT-21
#[test]
fn freeing_the_context_when_a_disable_is_still_pending_is_caught() {
    for with_irp in [false, true] {
        let sim = Sim::new();
        sim.expect("EVT-21");
        sim.run(move |sim| {
            let client = Client::new();
            let (listener, address) = client.bound_listener(&Recorder::new());
            let context = PoolBox::new(Held::default());
            let raw = context.as_ptr();
            let parameters = AcceptParameters {
                context: raw.cast(),
                dispatch: &raw const HELD,
                ..AcceptParameters::default()
            };
            let accept = accept_as(Request::new(), &listener, parameters);
            let peer = Peer::connect(address);
            let connection = accept.socket();
            assert_eq!(connection.enable(WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
            peer.reset();
            eventually("the callback runs", || context.entered.load(SeqCst));
            let pending = with_irp.then(|| connection.disable_with_irp(WSK_EVENT_DISCONNECT));
            match &pending {
                Some(request) => assert_eq!(request.returned(), STATUS_PENDING),
                None => assert_eq!(connection.disable(WSK_EVENT_DISCONNECT), STATUS_EVENT_PENDING),
            }
            // Both statuses are a success to `NT_SUCCESS`, and the callback is still running.
            drop(context);
            assert_caught(sim, "EVT-21", "ExFreePoolWithTag");
            // SAFETY: the checker keeps memory that is still needed.
            unsafe { &*raw }.open.store(true, SeqCst);
            if let Some(request) = pending {
                request.ok();
            }
            connection.close().ok();
        });
    }
}

/// Catches: EVT-24
#[test]
fn an_interface_identifier_in_freed_memory_is_caught() {
    let sim = Sim::new();
    sim.expect("EVT-24");
    sim.run(|sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let interface = PoolBox::new(NPI_WSK_INTERFACE_ID);
        let control = WSK_EVENT_CALLBACK_CONTROL { NpiId: interface.as_ptr(), EventMask: WSK_EVENT_ACCEPT };
        let control = PoolBox::new(control);
        // SAFETY: every table begins with the basic one.
        let function = unsafe { table::<WSK_PROVIDER_BASIC_DISPATCH>(&listener) }.WskControlSocket.unwrap();
        let enable = || {
            let (size, input, null) = (size_of_val(&*control), control.as_ptr().cast(), ptr::null_mut());
            let (code, level, size_out) = (SO_WSK_EVENT_CALLBACK, SOL_SOCKET, ptr::null_mut());
            Request::null().submit("WskControlSocket", |irp| {
                // SAFETY: the buffers outlive the call; the checker tells freed memory from other.
                unsafe {
                    function(listener.raw(), WskSetOption, code, level, size, input, 0, null, size_out, irp)
                }
            })
        };
        assert_eq!(enable().returned(), STATUS_SUCCESS);
        drop(interface);
        assert_eq!(enable().returned(), STATUS_INVALID_PARAMETER);
        assert_caught(sim, "EVT-24", "WskControlSocket");
    });
}

/// Catches: EVT-49
#[test]
fn a_static_callback_that_uses_a_socket_pointer_not_stored_yet_is_caught() {
    let sim = Sim::new();
    sim.expect("EVT-49");
    sim.run(|sim| {
        let client = Client::new();
        assert_eq!(client.static_events(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
        let events = Recorder::new();
        // Where the client stores its socket, once it comes to that.
        let stored = Arc::new(std::sync::atomic::AtomicPtr::<WSK_SOCKET>::default());
        let other = client.datagram(&Recorder::new());
        // SAFETY: the socket is one of datagrams.
        let function = unsafe { table::<WSK_PROVIDER_DATAGRAM_DISPATCH>(&other) }.WskRelease.unwrap();
        let seen = Arc::clone(&stored);
        events.on_receive_from(move |event| {
            if event.datagrams.is_some() {
                // SAFETY: the provider recognizes pointers that are no sockets.
                unsafe { function(seen.load(SeqCst), event.list.0.cast()) };
            }
            STATUS_SUCCESS
        });
        let socket = client.datagram(&events);
        let address = socket.bind_localhost();
        let (host, _) = host_datagram();
        host.send_to(b"early", address).unwrap();
        events.receive_from();
        stored.store(socket.raw(), SeqCst);
        assert!(sim.violations_of("EVT-49").iter().any(|violation| violation.call == "WskRelease"));
        events.on_receive_from(|_| STATUS_SUCCESS);
    });
}

/// A connection waits on a listener whose callback for it was never enabled.
fn ignored(sim: &Sim) -> (Client, Socket, Peer) {
    let client = Client::new();
    let (listener, address) = client.bound_listener(&Recorder::new());
    let peer = Peer::connect(address);
    await_untaken(sim, &listener, 1);
    (client, listener, peer)
}

/// Shows: SOCK-02
#[test]
fn an_accept_callback_that_was_never_enabled_while_a_client_waits_is_told() {
    Sim::new().expect_advice("SOCK-02").run(|sim| {
        let (_client, listener, _peer) = ignored(sim);
        listener.close().ok();
        let [said] = &sim.violations_of("SOCK-02")[..] else { panic!("{:?}", sim.kernel().violations()) };
        assert!(said.detail.contains("WskAcceptEvent"), "{said}");
    });
}

/// A test that waits for the callback sees why it does not come when the wait is given up.
#[test]
fn a_hang_says_that_an_accept_callback_was_never_enabled() {
    let patience = Some(std::time::Duration::from_secs(1));
    let sim = Sim::builder().kernel(|kernel| kernel.watchdog = patience).build();
    let machine = sim.clone();
    sim.expect("NT-HANG").run(|sim| {
        let (client, listener, peer) = ignored(sim);
        client.deregister();
        drop((listener, peer));
    });
    let [said] = &machine.violations_of("NT-HANG")[..] else { panic!("one hang: {machine:?}") };
    assert!(said.detail.contains("with input for WskAcceptEvent, which was never enabled"), "{said}");
}

/// Shows: SOCK-02
#[test]
fn a_datagram_callback_that_was_never_enabled_while_datagrams_wait_is_told() {
    Sim::new().expect_advice("SOCK-02").run(|sim| {
        let client = Client::new();
        let socket = client.datagram(&Recorder::new());
        let address = socket.bind_localhost();
        let sender = client.datagram(&Recorder::new());
        sender.bind_localhost();
        sender.send_to(b"unheard", address).ok();
        eventually("the datagram has come", || {
            let open = sim.provider().open_sockets();
            open.iter().any(|open| open.description.contains("WskReceiveFromEvent"))
        });
        socket.close().ok();
    });
}

/// Not where the callback was enabled once, or where connections are asked for.
#[test]
fn a_client_that_does_not_take_everything_is_left_alone() {
    Sim::new().forbid_advice().run(|sim| {
        let (_client, listener, _peer) = ignored(sim);
        let _taken = listener.accept().socket();
        let _other = Peer::connect(listener.local_address());
        await_untaken(sim, &listener, 1);
        listener.close().ok();
    });
    Sim::new().forbid_advice().run(|sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
        listener.disable_with_irp(WSK_EVENT_ACCEPT).ok();
        let _peer = Peer::connect(address);
        await_untaken(sim, &listener, 1);
        listener.close().ok();
    });
}
