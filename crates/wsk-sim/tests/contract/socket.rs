//! `WskSocket`: valid sockets, the completion of the request, and the state of a new socket (contract 4.6,
//! 1.11).

use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::Alternatives;
use wsk_sim::wsk_provider::behaviours::{CategoryBits, NoSuchPair, NullClientIrp};
use wsk_sim::{Completion, FaultPoint, Sim};
use wsk_sys::nt::{IRP, NTSTATUS};
use wsk_sys::*;

use crate::support::*;

const CATEGORIES: [Category; 5] =
    [Category::Basic, Category::Listen, Category::Connection, Category::Datagram, Category::Stream];

/// Shows: SOCK-01
#[test]
fn making_a_socket_pends_or_succeeds_inline() {
    for (completion, expected) in [
        (Completion::Natural, STATUS_PENDING),
        (Completion::Inline, STATUS_SUCCESS),
        (Completion::PendNested, STATUS_PENDING),
        (Completion::PendEarly, STATUS_PENDING),
        (Completion::PendLate, STATUS_PENDING),
    ] {
        Sim::builder().completion(completion).build().run(move |_| {
            let client = Client::new();
            for category in CATEGORIES {
                let request = client.open(&SocketOptions::new(category));
                assert_eq!(request.returned(), expected, "{category:?}");
                let done = request.ok();
                assert_ne!(done.information, 0);
                assert_eq!(request.socket().raw().expose_provenance(), done.information);
            }
        });
    }
}

/// Shows: SOCK-02
#[test]
fn a_new_socket_makes_no_callback() {
    for_each_mode(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        let peer = Peer::connect(address);
        await_untaken(sim, &listener, 1);
        let connection = listener.accept_with(&events).socket();
        peer.send(b"in");
        assert_eq!(connection.receive_all(2), b"in");
        peer.half_close();
        assert_eq!(connection.receive(&Buffer::new(1)).ok().information, 0);
        let datagram = client.datagram(&events);
        let bound = datagram.bind_localhost();
        host_datagram().0.send_to(b"out", bound).unwrap();
        assert_eq!(datagram.receive_datagram(3).0, b"out");
        assert!(events.drain().is_empty());
    });
}

/// Arguments of callbacks that have no state of their own.
static CALLED: Mutex<Vec<(&str, usize)>> = Mutex::new(Vec::new());

fn note(name: &'static str, context: *mut c_void) {
    CALLED.lock().unwrap().push((name, context.addr()));
}

/// Waits until the callback has been called with this context, and with no other.
fn await_call(name: &str, context: usize) {
    eventually(name, || CALLED.lock().unwrap().iter().any(|call| call.0 == name));
    let mut called = CALLED.lock().unwrap();
    assert!(called.iter().all(|call| call.0 != name || call.1 == context), "{name}: {called:?}");
    called.retain(|call| call.0 != name);
}

mod noting {
    //! Callbacks that note their context.

    use super::*;

    /// Place for the socket of a `WskAcceptEvent`, and the context it gives it.
    pub(super) static TAKEN: Mutex<Option<(usize, usize)>> = Mutex::new(None);

    pub(super) unsafe extern "system" fn accept(
        context: *mut c_void,
        _: u32,
        _: PSOCKADDR,
        _: PSOCKADDR,
        socket: PWSK_SOCKET,
        socket_context: *mut *mut c_void,
        dispatch: *mut *const WSK_CLIENT_CONNECTION_DISPATCH,
    ) -> NTSTATUS {
        note("accept", context);
        let mut taken = TAKEN.lock().unwrap();
        let given = taken.take().expect("a context for the socket").1;
        // SAFETY: both are variables of the caller.
        unsafe { socket_context.write(ptr::without_provenance_mut(given)) };
        // SAFETY: both are variables of the caller.
        unsafe { dispatch.write(&raw const CONNECTION) };
        *taken = Some((socket.expose_provenance(), given));
        STATUS_SUCCESS
    }

    pub(super) unsafe extern "system" fn inspect(
        context: *mut c_void,
        _: PSOCKADDR,
        _: PSOCKADDR,
        _: PWSK_INSPECT_ID,
    ) -> WSK_INSPECT_ACTION {
        note("inspect", context);
        if TAKEN.lock().unwrap().is_some() { WskInspectAccept } else { WskInspectPend }
    }

    pub(super) unsafe extern "system" fn abort(context: *mut c_void, _: PWSK_INSPECT_ID) -> NTSTATUS {
        note("abort", context);
        STATUS_SUCCESS
    }

    unsafe extern "system" fn receive(
        context: *mut c_void,
        _: u32,
        _: PWSK_DATA_INDICATION,
        _: usize,
        _: *mut usize,
    ) -> NTSTATUS {
        note("receive", context);
        STATUS_SUCCESS
    }

    unsafe extern "system" fn disconnect(context: *mut c_void, _: u32) -> NTSTATUS {
        note("disconnect", context);
        STATUS_SUCCESS
    }

    unsafe extern "system" fn send_backlog(context: *mut c_void, _: usize) -> NTSTATUS {
        note("backlog", context);
        STATUS_SUCCESS
    }

    unsafe extern "system" fn receive_from(
        context: *mut c_void,
        _: u32,
        _: PWSK_DATAGRAM_INDICATION,
    ) -> NTSTATUS {
        note("receive from", context);
        STATUS_SUCCESS
    }

    pub(super) static LISTEN: WSK_CLIENT_LISTEN_DISPATCH = WSK_CLIENT_LISTEN_DISPATCH {
        WskAcceptEvent: Some(accept),
        WskInspectEvent: Some(inspect),
        WskAbortEvent: Some(abort),
    };
    static CONNECTION: WSK_CLIENT_CONNECTION_DISPATCH = WSK_CLIENT_CONNECTION_DISPATCH {
        WskReceiveEvent: Some(receive),
        WskDisconnectEvent: Some(disconnect),
        WskSendBacklogEvent: Some(send_backlog),
    };
    pub(super) static DATAGRAM: WSK_CLIENT_DATAGRAM_DISPATCH =
        WSK_CLIENT_DATAGRAM_DISPATCH { WskReceiveFromEvent: Some(receive_from) };
}

/// Shows: SOCK-05
#[test]
fn every_callback_gets_the_context_of_its_socket_unchanged() {
    for_each_mode(|sim| {
        let client = Client::new();
        for (own, connected) in [(0x51_usize, 0x52_usize), (0, 0x53), (0x54, 0), (0, 0)] {
            let open = |category, table: *const c_void| {
                let context = ptr::without_provenance_mut(own);
                // SAFETY: the table is static and its callbacks take any context.
                unsafe { client.open_as(Request::new(), &SocketOptions::new(category), context, table) }
                    .socket()
            };
            let listener = open(Category::Listen, (&raw const noting::LISTEN).cast());
            listener.conditional_accept();
            let address = listener.bind_localhost();
            *noting::TAKEN.lock().unwrap() = None;
            let gone = Peer::connect(address);
            await_call("inspect", own);
            gone.reset();
            await_call("abort", own);
            *noting::TAKEN.lock().unwrap() = Some((0, connected));
            let events = WSK_EVENT_ACCEPT | WSK_EVENT_RECEIVE | WSK_EVENT_DISCONNECT | WSK_EVENT_SEND_BACKLOG;
            assert_eq!(listener.enable(events), STATUS_SUCCESS);
            let peer = Peer::connect(address);
            await_call("accept", own);
            await_call("inspect", own);
            peer.send(b"x");
            await_call("receive", connected);
            let (socket, _) = noting::TAKEN.lock().unwrap().take().expect("an accepted socket");
            let socket = ptr::with_exposed_provenance_mut::<WSK_SOCKET>(socket);
            assert!(sim.provider().set_ideal_send_backlog(socket, 123_456));
            await_call("backlog", connected);
            peer.close();
            await_call("disconnect", connected);
            close_raw(socket);
            let datagram = open(Category::Datagram, (&raw const noting::DATAGRAM).cast());
            let bound = datagram.bind_localhost();
            assert_eq!(datagram.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
            host_datagram().0.send_to(b"x", bound).unwrap();
            await_call("receive from", own);
        }
    });
}

/// Closes a socket of which there is nothing but the pointer.
fn close_raw(socket: PWSK_SOCKET) {
    // SAFETY: the socket is open; its first member is the table.
    let dispatch = unsafe { (*socket).Dispatch };
    // SAFETY: every table begins with the basic one.
    let close = unsafe { (*dispatch.cast::<WSK_PROVIDER_BASIC_DISPATCH>()).WskCloseSocket };
    let close = close.expect("every table has WskCloseSocket");
    // SAFETY: the socket is not in use.
    Request::new().submit("WskCloseSocket", |irp| unsafe { close(socket, irp) }).ok();
}

/// Shows: SOCK-08
/// Catches: SOCK-07
#[test]
fn several_category_bits_are_refused_or_one_of_them_wins() {
    for &choice in CategoryBits::ALL {
        let sim = Sim::builder().behaviours(|behaviours| behaviours.category_bits = choice).build();
        sim.expect("SOCK-07");
        sim.run(move |sim| {
            let client = Client::new();
            let flags = WSK_FLAG_LISTEN_SOCKET | WSK_FLAG_CONNECTION_SOCKET;
            let request = client.open(&SocketOptions { flags, ..SocketOptions::new(Category::Listen) });
            assert_caught(sim, "SOCK-07", "WskSocket");
            match choice {
                CategoryBits::Refused => assert_eq!(request.fails(STATUS_INVALID_PARAMETER).information, 0),
                CategoryBits::LowestWins => {
                    let listener = request.socket();
                    let address = listener.bind_localhost();
                    let accept = listener.accept().pends();
                    let _peer = Peer::connect(address);
                    accept.socket();
                }
            }
        });
    }
    assert_eq!(CategoryBits::default(), CategoryBits::Refused);
}

/// Catches: SOCK-07
#[test]
fn an_unknown_category_is_caught() {
    let sim = Sim::new();
    sim.expect("SOCK-07");
    sim.run(|sim| {
        let client = Client::new();
        let options = SocketOptions { flags: 0x10, ..SocketOptions::new(Category::Listen) };
        client.open(&options).fails(STATUS_INVALID_PARAMETER);
        assert_caught(sim, "SOCK-07", "WskSocket");
    });
}

/// Shows: SOCK-09
#[test]
fn the_documented_pairs_work_for_both_families_and_others_do_not() {
    const TCP: (u16, u32) = (SOCK_STREAM, IPPROTO_TCP);
    const UDP: (u16, u32) = (SOCK_DGRAM, IPPROTO_UDP);
    const RAW: [(u16, u32); 3] = [(SOCK_RAW, IPPROTO_ICMP), (SOCK_RAW, 47), (SOCK_RAW, IPPROTO_RAW)];
    for_each_mode(|_| {
        let client = Client::new();
        for family in [AF_INET, AF_INET6] {
            let open = |category, (socket_type, protocol)| {
                let options = SocketOptions { family, socket_type, protocol, ..SocketOptions::new(category) };
                client.open(&options)
            };
            for pair in [TCP, UDP].into_iter().chain(RAW) {
                open(Category::Basic, pair).socket();
            }
            for category in [Category::Listen, Category::Connection, Category::Stream] {
                open(category, TCP).socket();
                open(category, RAW[0]).fails(STATUS_PROTOCOL_NOT_SUPPORTED);
            }
            for pair in [UDP].into_iter().chain(RAW) {
                open(Category::Datagram, pair).socket();
                if pair != UDP {
                    open(Category::Connection, pair).fails(STATUS_PROTOCOL_NOT_SUPPORTED);
                }
            }
            open(Category::Datagram, TCP).fails(STATUS_PROTOCOL_NOT_SUPPORTED);
            open(Category::Connection, UDP).fails(STATUS_PROTOCOL_NOT_SUPPORTED);
        }
        let unknown = SocketOptions { family: AF_UNIX, ..SocketOptions::new(Category::Listen) };
        client.open(&unknown).fails(STATUS_PROTOCOL_NOT_SUPPORTED);
    });
}

/// Shows: SOCK-10, BIND-09
#[test]
fn a_datagram_listener_can_be_made_and_not_bound() {
    for_each_mode(|_| {
        let client = Client::new();
        let udp = SocketOptions {
            socket_type: SOCK_DGRAM,
            protocol: IPPROTO_UDP,
            ..SocketOptions::new(Category::Listen)
        };
        let listener = client.open(&udp).socket();
        let bind = listener.bind(LOCALHOST);
        assert_eq!(bind.fails(STATUS_NOT_IMPLEMENTED).information, 0);
        let (unbound, _) = Request::new().local_address(&listener);
        unbound.fails(STATUS_INVALID_DEVICE_STATE);
        // And no second attempt goes better: the socket is as it was.
        listener.bind(LOCALHOST).fails(STATUS_NOT_IMPLEMENTED);
    });
}

/// Shows: BIND-09
#[test]
fn the_bind_of_a_datagram_listener_pends_before_it_fails() {
    Sim::new().run(|_| {
        let client = Client::new();
        let udp = SocketOptions {
            socket_type: SOCK_DGRAM,
            protocol: IPPROTO_UDP,
            ..SocketOptions::new(Category::Listen)
        };
        let bind = client.open(&udp).socket().bind(LOCALHOST);
        assert_eq!(bind.returned(), STATUS_PENDING);
        bind.fails(STATUS_NOT_IMPLEMENTED);
    });
}

/// `WskSocketConnect` for a protocol, from and to nowhere in particular.
fn socket_connect(client: &Client, raw: PWSK_CLIENT, protocol: u32, irp: *mut IRP) -> NTSTATUS {
    let function = client.dispatch().WskSocketConnect.expect("the table has WskSocketConnect");
    let (address, null) = (CAddress::new(LOCALHOST), ptr::null_mut());
    let (at, table) = (address.as_ptr(), ptr::null());
    // SAFETY: the addresses are whole and last for the call, which fails; the provider recognizes a null
    // client.
    unsafe {
        function(raw, SOCK_STREAM, protocol, at, at, 0, null, table, null.cast(), null.cast(), null, irp)
    }
}

/// Shows: SOCK-11
#[test]
fn protocol_0_stands_for_no_protocol() {
    for_each_choice(
        |behaviours, choice: NoSuchPair| behaviours.no_such_pair = choice,
        |_, choice| {
            let client = Client::new();
            for category in CATEGORIES {
                let pairs = [
                    SocketOptions { protocol: 0, ..SocketOptions::new(category) },
                    SocketOptions { socket_type: SOCK_SEQPACKET, ..SocketOptions::new(category) },
                    SocketOptions { protocol: IPPROTO_ICMP, ..SocketOptions::new(category) },
                ];
                for options in pairs {
                    let done = client.open(&options).fails(choice.status());
                    assert_eq!((done.returned, done.information), (choice.status(), 0), "{options:?}");
                }
            }
            let connect = Request::new()
                .submit("WskSocketConnect", |irp| socket_connect(&client, client.npi().Client, 0, irp));
            assert_eq!(connect.fails(choice.status()).returned, choice.status());
        },
    );
    assert_eq!(NoSuchPair::default().status(), STATUS_PROTOCOL_NOT_SUPPORTED);
    assert!(NoSuchPair::ALL.iter().any(|choice| choice.status() == 0xC000_023E_u32 as NTSTATUS));
}

/// Every call on a client that takes an IRP looks for that first.
///
/// Shows: SOCK-12, IRP-17
#[test]
fn a_null_client_without_an_irp_is_an_invalid_parameter() {
    Sim::new().run(|_| {
        let client = Client::new();
        let functions = client.dispatch();
        let (null, no_irp) = (ptr::null_mut::<c_void>(), ptr::null_mut());
        let make = functions.WskSocket.expect("the table has WskSocket");
        let (family, tcp, flags) = (AF_INET, IPPROTO_TCP, WSK_FLAG_LISTEN_SOCKET);
        let table = ptr::null();
        // SAFETY: the provider recognizes a null client and a null IRP.
        let made = unsafe {
            make(
                null.cast(),
                family,
                SOCK_STREAM,
                tcp,
                flags,
                null,
                table,
                null.cast(),
                null.cast(),
                null,
                no_irp,
            )
        };
        assert_eq!(made, STATUS_INVALID_PARAMETER);
        let connected = socket_connect(&client, ptr::null_mut(), IPPROTO_TCP, no_irp.cast());
        assert_eq!(connected, STATUS_INVALID_PARAMETER);
        let control = functions.WskControlClient.expect("the table has WskControlClient");
        let ask = |code| {
            // SAFETY: the provider recognizes a null client and a null IRP.
            unsafe { control(null.cast(), code, 0, null, 0, null, ptr::null_mut(), no_irp) }
        };
        assert_eq!(ask(WSK_TRANSPORT_LIST_CHANGE), STATUS_INVALID_PARAMETER);
        // This one takes none.
        assert_eq!(ask(WSK_TRANSPORT_LIST_QUERY), STATUS_INVALID_HANDLE);
    });
}

/// Shows: SOCK-12, SOCK-13
#[test]
fn a_null_client_is_an_invalid_handle() {
    for_each_choice(
        |behaviours, choice: NullClientIrp| behaviours.null_client_irp = choice,
        |_, choice| {
            let client = Client::new();
            let function = client.dispatch().WskSocket.expect("the table has WskSocket");
            let request = Request::new().submit("WskSocket", |irp| {
                let null = ptr::null_mut();
                // SAFETY: the provider recognizes a null client.
                unsafe {
                    function(
                        null,
                        AF_INET,
                        SOCK_STREAM,
                        IPPROTO_TCP,
                        WSK_FLAG_LISTEN_SOCKET,
                        null,
                        ptr::null(),
                        null,
                        null,
                        null,
                        irp,
                    )
                }
            });
            assert_eq!(request.returned(), STATUS_INVALID_HANDLE);
            match choice {
                NullClientIrp::Untouched => assert!(!request.is_completed()),
                NullClientIrp::Completed => assert_eq!(request.wait().status, STATUS_INVALID_HANDLE),
            }
        },
    );
    assert_eq!(NullClientIrp::default(), NullClientIrp::Untouched);
}

/// Shows: SOCK-16
#[test]
fn the_default_descriptor_forbids_sharing() {
    for_each_mode(|_| {
        let client = Client::new();
        for descriptor in [None, Some(false), Some(true)] {
            let cached = descriptor.map(|shares| Descriptor::cached(&client, shares));
            let security = cached.as_ref().map_or(ptr::null_mut(), Descriptor::raw);
            let holder =
                client.open(&SocketOptions { security, ..SocketOptions::new(Category::Listen) }).socket();
            holder.bind(ANY).ok();
            let port = holder.local_address().port();
            let second = client.listener(&Recorder::new());
            let bind = second.bind(([127, 0, 0, 1], port).into()).wait();
            let expected = if descriptor == Some(true) { STATUS_SUCCESS } else { STATUS_ACCESS_DENIED };
            assert_eq!(bind.status, expected, "{descriptor:?}");
            second.close().ok();
            holder.close().ok();
        }
    });
}

/// Shows: SOCK-20
#[test]
fn an_allocation_that_fails_is_reported_by_every_call_that_makes_a_socket() {
    for_each_mode(|sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        for category in CATEGORIES {
            sim.choose_once(FaultPoint::AllocationFails, 1);
            let request = client.open(&SocketOptions::new(category));
            assert_eq!(request.fails(STATUS_INSUFFICIENT_RESOURCES).information, 0);
        }
        sim.choose_once(FaultPoint::AllocationFails, 1);
        let connect = client.socket_connect(Request::new(), LOCALHOST, address, 0, None);
        assert_eq!(connect.fails(STATUS_INSUFFICIENT_RESOURCES).information, 0);
        let accept = listener.accept().pends();
        sim.choose_once(FaultPoint::AllocationFails, 1);
        let _lost = Peer::connect(address);
        assert_eq!(accept.fails(STATUS_INSUFFICIENT_RESOURCES).information, 0);
        // And then all goes well again.
        let accept = listener.accept();
        let _peer = Peer::connect(address);
        accept.socket();
    });
}

/// Shows: SOCK-21
#[test]
fn a_basic_socket_has_control_and_close_and_nothing_else() {
    const { assert!(size_of::<WSK_PROVIDER_BASIC_DISPATCH>() == 2 * size_of::<usize>()) };
    for_each_mode(|_| {
        let client = Client::new();
        let basic = client.open(&SocketOptions::new(Category::Basic)).socket();
        let query = Control::ioctl(SIO_ADDRESS_LIST_QUERY, None, Some(4096)).with_size();
        let answer = basic.control_now(&query);
        assert!(answer.status == STATUS_SUCCESS && answer.size != 0, "{answer:?}");
        basic.set_option(SOL_SOCKET, SO_KEEPALIVE, 1).fails(STATUS_INVALID_PARAMETER);
        basic.close().ok();
    });
}
