//! Creation, binding, options and closing of sockets, with the possible mistakes of a client.

use std::net::SocketAddr;
use std::ptr;

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::{Alternatives, NullClientIrp};
use wsk_sim::{Completion, FaultPoint, Release, Sim};
use wsk_sys::*;

#[test]
fn pairs_of_type_and_protocol() {
    Sim::new().run(|_| {
        let client = Client::new();
        let pairs = [
            (Category::Basic, SOCK_RAW, 47, true),
            (Category::Listen, SOCK_DGRAM, IPPROTO_UDP, true),
            (Category::Listen, SOCK_STREAM, 0, false),
            (Category::Connection, SOCK_DGRAM, IPPROTO_UDP, false),
            (Category::Datagram, SOCK_RAW, IPPROTO_ICMP, true),
            (Category::Stream, SOCK_STREAM, IPPROTO_TCP, true),
        ];
        for (category, socket_type, protocol, exists) in pairs {
            let options = SocketOptions { socket_type, protocol, ..SocketOptions::new(category) };
            let request = client.open(&options);
            if exists {
                assert_eq!(request.returned(), STATUS_PENDING);
                request.socket().close().ok();
            } else {
                request.fails(STATUS_PROTOCOL_NOT_SUPPORTED);
            }
        }
        let datagrams = SocketOptions {
            socket_type: SOCK_DGRAM,
            protocol: IPPROTO_UDP,
            ..SocketOptions::new(Category::Listen)
        };
        let listener = client.open(&datagrams).socket();
        let bind = listener.bind(LOCALHOST);
        assert_eq!(bind.returned(), STATUS_PENDING);
        bind.fails(STATUS_NOT_IMPLEMENTED);
    });
}

#[test]
fn a_null_client_is_no_handle() {
    for &choice in NullClientIrp::ALL {
        let sim = Sim::builder().behaviours(|b| b.null_client_irp = choice).build();
        sim.run(move |_| {
            let client = Client::new();
            let function = client.dispatch().WskSocket.expect("the table has WskSocket");
            let request = Request::new().submit("WskSocket", |irp| {
                let nothing = ptr::null_mut();
                // SAFETY: the provider recognizes a null client.
                unsafe {
                    let (kind, protocol) = (SOCK_STREAM, IPPROTO_TCP);
                    let flags = WSK_FLAG_LISTEN_SOCKET;
                    let table = ptr::null();
                    function(
                        nothing, AF_INET, kind, protocol, flags, nothing, table, nothing, nothing, nothing,
                        irp,
                    )
                }
            });
            assert_eq!(request.returned(), STATUS_INVALID_HANDLE);
            assert_eq!(request.is_completed(), choice == NullClientIrp::Completed);
        });
    }
}

#[test]
fn connecting_in_one_call() {
    for completion in [Completion::Natural, Completion::PendLate, Completion::PendEarly] {
        Sim::builder().completion(completion).build().run(|_| {
            let client = Client::new();
            let (host, address) = host_listener();
            let socket = client.socket_connect(Request::new(), LOCALHOST, address, 0, None).socket();
            let peer = Peer::accept(&host);
            assert_eq!(socket.remote_address(), address);
            peer.send(b"all in one");
            assert_eq!(socket.receive_all(10), b"all in one");
            let refused = client.socket_connect(Request::new(), LOCALHOST, closed_port(), 0, None);
            assert_eq!(refused.fails(STATUS_CONNECTION_REFUSED).information, 0);
        });
    }
}

#[test]
fn addresses_are_shared_as_asked() {
    /// The two options, and none.
    const FORMS: [Option<u32>; 3] = [None, Some(SO_REUSEADDR), Some(SO_EXCLUSIVEADDRUSE)];
    Sim::new().run(|_| {
        let client = Client::new();
        let binder = |form: Option<u32>| {
            let socket = client.listener(&Recorder::new());
            if let Some(option) = form {
                socket.set_option(SOL_SOCKET, option, 1).ok();
                assert_eq!(socket.get_option(SOL_SOCKET, option), 1);
            }
            socket
        };
        // The same specific address: rows are the second binder, columns the first.
        let (in_use, denied) = (STATUS_ADDRESS_ALREADY_EXISTS, STATUS_ACCESS_DENIED);
        let expected = [[in_use, denied, in_use], [denied, STATUS_SUCCESS, denied], [in_use, in_use, in_use]];
        for (row, second) in FORMS.into_iter().enumerate() {
            for (column, first) in FORMS.into_iter().enumerate() {
                let holder = binder(first);
                let address = holder.bind_localhost();
                let other = binder(second);
                let done = other.bind(address).wait();
                assert_eq!(done.status, expected[row][column], "{second:?} after {first:?}");
                let other_address = SocketAddr::new([127, 77, 0, 9].into(), address.port());
                if done.status != STATUS_SUCCESS {
                    // A failed bind leaves the socket unchanged; another address is no conflict.
                    other.bind(other_address).ok();
                }
                holder.close().ok();
                other.close().ok();
            }
        }
    });
}

#[test]
fn options_keep_their_values_and_their_time() {
    Sim::new().run(|_| {
        let client = Client::new();
        let listener = client.listener(&Recorder::new());
        assert_eq!(listener.get_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT), 0);
        listener.set_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1).ok();
        listener.set_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 0).ok();
        listener.set_option(SOL_SOCKET, SO_RCVBUF, 32 * 1024).ok();
        listener.set_option(SOL_SOCKET, SO_KEEPALIVE, 1).ok();
        let address = listener.bind_localhost();
        for option in [SO_CONDITIONAL_ACCEPT, SO_REUSEADDR, SO_EXCLUSIVEADDRUSE] {
            listener.set_option(SOL_SOCKET, option, 1).fails(STATUS_INVALID_DEVICE_STATE);
        }
        listener.set_option(SOL_SOCKET, 0x7777, 1).fails(STATUS_INVALID_PARAMETER);
        let accept = listener.accept().pends();
        let _peer = Peer::connect(address);
        let accepted = accept.socket();
        assert_eq!(accepted.get_option(SOL_SOCKET, SO_RCVBUF), 32 * 1024);
        let keep_alive = accepted.control(&Control::get(SOL_SOCKET, SO_KEEPALIVE, 4));
        assert_eq!(keep_alive.ok().information, 1, "one byte");
        let dual = client.open(&SocketOptions::new(Category::Listen).v6()).socket();
        assert_eq!(dual.get_option(IPPROTO_IPV6, IPV6_V6ONLY), 1);
        dual.set_option(IPPROTO_IPV6, IPV6_V6ONLY, 0).ok();
        dual.bind("[::]:0".parse().expect("an address")).ok();
        let port = dual.local_address().port();
        let accept = dual.accept().pends();
        let _peer = Peer::connect(SocketAddr::new([127, 0, 0, 1].into(), port));
        let mapped = accept.socket().remote_address();
        assert_eq!(mapped.ip().to_canonical(), std::net::IpAddr::from([127, 0, 0, 1]));
        assert!(mapped.is_ipv6());
    });
}

#[test]
fn objects_that_cannot_be_allocated() {
    Sim::new().run(|sim| {
        let client = Client::new();
        sim.choose_once(FaultPoint::AllocationFails, 1);
        let request = client.open(&SocketOptions::new(Category::Listen));
        assert_eq!(request.fails(STATUS_INSUFFICIENT_RESOURCES).information, 0);
        let _fine = client.listener(&Recorder::new());
    });
}

#[test]
fn an_old_release_has_shorter_tables() {
    let sim = Sim::builder().provider(|config| config.release = Release::Windows8).build();
    sim.expect("LAY-15");
    sim.run(|sim| {
        let client = Client::new();
        client.open(&SocketOptions::new(Category::Stream)).fails(STATUS_NOT_SUPPORTED);
        let connection = client.connection(&Recorder::new());
        connection.bind(LOCALHOST).ok();
        Request::new().connect_ex(&connection, closed_port(), None, 0).fails(STATUS_NOT_IMPLEMENTED);
        assert_eq!(sim.violations_of("LAY-15").len(), 1);
    });
}

#[test]
fn mistakes_are_reported() {
    let sim = Sim::new();
    for rule in ["SOCK-04", "SOCK-07", "SOCK-15", "BIND-12", "IRP-26", "OPT-01", "OPT-02", "EVT-01", "EVT-42"]
    {
        sim.expect(rule);
    }
    sim.run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let basic = SocketOptions { flags: WSK_FLAG_BASIC_SOCKET, ..SocketOptions::new(Category::Listen) };
        let basic = client.open(&basic.recorder(&events)).socket();
        basic.close().ok();
        let both = WSK_FLAG_LISTEN_SOCKET | WSK_FLAG_DATAGRAM_SOCKET;
        client
            .open(&SocketOptions { flags: both, ..SocketOptions::new(Category::Listen) })
            .fails(STATUS_INVALID_PARAMETER);
        let descriptor = PoolBox::new([1_u64; 5]);
        let uncached =
            SocketOptions { security: descriptor.as_ptr().cast(), ..SocketOptions::new(Category::Listen) };
        client.open(&uncached).fails(STATUS_INVALID_PARAMETER);
        assert_eq!(client.static_events(WSK_EVENT_ACCEPT), STATUS_INVALID_DEVICE_STATE);

        let listener = client.listener(&events);
        listener.bind(LOCALHOST_V6).fails(STATUS_INVALID_PARAMETER);
        Request::new().bind(&listener, LOCALHOST, 7).fails(STATUS_INVALID_PARAMETER);
        let set = Control::set(SOL_SOCKET, SO_KEEPALIVE, &1_u32.to_ne_bytes());
        assert_eq!(listener.control_now(&set).status, STATUS_SUCCESS);
        listener.control(&set.with_size()).ok();
        let mut wrong = Control::events(WSK_EVENT_ACCEPT);
        wrong.level = IPPROTO_TCP;
        assert_eq!(listener.control_now(&wrong).status, STATUS_INVALID_PARAMETER);
    });
}

#[test]
fn calls_after_the_end_are_reported() {
    let sim = Sim::new();
    for rule in ["CLOSE-12", "CLOSE-13", "REG-12"] {
        sim.expect(rule);
    }
    sim.run(|_| {
        let client = Client::new();
        let listener = client.listener(&Recorder::new());
        listener.close().ok();
        listener.accept().fails(STATUS_FILE_FORCED_CLOSED);
        listener.close().fails(STATUS_FILE_FORCED_CLOSED);
        client.release();
        assert_eq!(client.open(&SocketOptions::new(Category::Listen)).returned(), STATUS_INVALID_HANDLE);
    });
}
