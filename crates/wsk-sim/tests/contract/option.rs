//! Socket options: their sockets, the time at which they can be set, and their effects (contract 4.16).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::*;
use wsk_sim::{FaultPoint, Sim};
use wsk_sys::nt::PSECURITY_DESCRIPTOR;
use wsk_sys::*;

use crate::support::*;

/// The categories that have an address of their own and options for it.
const SHARING: [Category; 3] = [Category::Listen, Category::Datagram, Category::Connection];

/// The bytes of a `SOCKADDR_IN`.
fn sockaddr_in(address: SocketAddr) -> [u8; 16] {
    let (IpAddr::V4(ip), port) = (address.ip(), address.port()) else { panic!("an IPv4 address") };
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes[4..8].copy_from_slice(&ip.octets());
    bytes
}

fn unbound(client: &Client, category: Category) -> Socket {
    client.open(&SocketOptions::new(category)).socket()
}

/// Shows: OPT-05, OPT-07
#[test]
fn conditional_accept_is_off_until_it_is_set_and_can_be_cleared_before_the_bind() {
    for_each_mode(|_| {
        let client = Client::new();
        for values in [&[][..], &[1], &[1, 0], &[0], &[1, 0, 1]] {
            let events = Recorder::new();
            let listener = client.listener(&events);
            assert_eq!(listener.get_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT), 0);
            for &value in values {
                let done = listener.set_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, value).ok();
                assert_eq!(done.information, 0);
                assert_eq!(listener.get_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT), value);
            }
            let address = listener.bind_localhost();
            let accept = listener.accept().pends();
            let peer = Peer::connect(address);
            assert_eq!(accept.socket().remote_address(), peer.local());
            // The request was inspected if, and only if, the mode was on at the bind.
            let inspected = u64::from(values.last() == Some(&1));
            assert_eq!(events.entered(Kind::Inspect), inspected, "{values:?}");
        }
    });
}

/// Shows: OPT-06, OPT-07
#[test]
fn conditional_accept_cannot_be_changed_after_the_bind() {
    for_each_choice(
        |behaviours, choice: ConditionalAfterBind| behaviours.conditional_after_bind = choice,
        |_, choice| {
            let client = Client::new();
            for on in [0, 1] {
                let events = Recorder::new();
                let listener = client.listener(&events);
                listener.set_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, on).ok();
                let address = listener.bind_localhost();
                for value in [1, 0] {
                    let set = listener.set_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, value);
                    let done = set.fails(choice.status());
                    assert_eq!((done.returned, done.information), (choice.status(), 0));
                }
                assert_eq!(listener.get_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT), on);
                let _peer = Peer::connect(address);
                listener.accept().socket();
                assert_eq!(events.entered(Kind::Inspect), u64::from(on));
            }
        },
    );
    assert_eq!(ConditionalAfterBind::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Shows: OPT-08
#[test]
fn a_transport_may_have_no_conditional_accept() {
    for_each_choice(
        |behaviours, choice: ConditionalUnsupported| behaviours.conditional_unsupported = choice,
        |sim, choice| {
            sim.provider().configure(|config| config.conditional_accept = false);
            let client = Client::new();
            let events = Recorder::new();
            let listener = client.listener(&events);
            let set = listener.set_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1);
            assert_eq!(set.fails(choice.status()).information, 0);
            for category in [Category::Datagram, Category::Connection, Category::Basic] {
                let socket = unbound(&client, category);
                socket.set_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1).fails(choice.status());
            }
            // The socket listens nevertheless, without inspection.
            let address = listener.bind_localhost();
            let _peer = Peer::connect(address);
            listener.accept().socket();
            assert_eq!(events.entered(Kind::Inspect), 0);
        },
    );
    assert_eq!(ConditionalUnsupported::default().status(), STATUS_NOT_SUPPORTED);
}

/// Shows: OPT-09
#[test]
fn the_sharing_options_are_off_until_they_are_set_before_the_bind() {
    for_each_mode(|_| {
        let client = Client::new();
        for category in SHARING {
            for option in [SO_EXCLUSIVEADDRUSE, SO_REUSEADDR] {
                let (holder, second) = (unbound(&client, category), unbound(&client, category));
                for socket in [&holder, &second] {
                    assert_eq!(socket.get_option(SOL_SOCKET, option), 0);
                    for value in [1, 0, 1] {
                        socket.set_option(SOL_SOCKET, option, value).ok();
                        assert_eq!(socket.get_option(SOL_SOCKET, option), value);
                    }
                }
                let taken = holder.bind_localhost();
                // Both asked to share it, or both to have it alone.
                let shared =
                    if option == SO_REUSEADDR { STATUS_SUCCESS } else { STATUS_ADDRESS_ALREADY_EXISTS };
                assert_eq!(second.bind(taken).wait().status, shared, "{category:?}");
            }
        }
        unbound(&client, Category::Basic)
            .set_option(SOL_SOCKET, SO_REUSEADDR, 1)
            .fails(STATUS_INVALID_PARAMETER);
    });
}

/// Shows: OPT-09
#[test]
fn clearing_one_sharing_option_leaves_the_other() {
    Sim::new().run(|_| {
        let client = Client::new();
        for (set, cleared) in [(SO_EXCLUSIVEADDRUSE, SO_REUSEADDR), (SO_REUSEADDR, SO_EXCLUSIVEADDRUSE)] {
            let listener = unbound(&client, Category::Listen);
            listener.set_option(SOL_SOCKET, set, 1).ok();
            listener.set_option(SOL_SOCKET, cleared, 0).ok();
            assert_eq!(listener.get_option(SOL_SOCKET, set), 1);
            assert_eq!(listener.get_option(SOL_SOCKET, cleared), 0);
        }
    });
}

/// Shows: OPT-03, OPT-10
#[test]
fn an_option_that_precedes_the_bind_is_refused_afterwards() {
    for_each_choice(
        |behaviours, choice: OptionAfterBind| behaviours.option_after_bind = choice,
        |_, choice| {
            let client = Client::new();
            let cached = Descriptor::cached(&client, true);
            let security = cached.raw().expose_provenance().to_ne_bytes();
            for category in SHARING {
                let v4 = unbound(&client, category);
                v4.bind_localhost();
                for option in [SO_EXCLUSIVEADDRUSE, SO_REUSEADDR] {
                    for value in [0, 1] {
                        v4.set_option(SOL_SOCKET, option, value).fails(choice.status());
                    }
                    assert_eq!(v4.get_option(SOL_SOCKET, option), 0);
                }
                v4.control(&Control::set(SOL_SOCKET, SO_WSK_SECURITY, &security)).fails(choice.status());
                let v6 = client.open(&SocketOptions::new(category).v6()).socket();
                v6.bind(LOCALHOST_V6).ok();
                v6.set_option(IPPROTO_IPV6, IPV6_V6ONLY, 0).fails(choice.status());
                assert_eq!(v6.get_option(IPPROTO_IPV6, IPV6_V6ONLY), 1);
            }
        },
    );
    assert_eq!(OptionAfterBind::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Value of `SO_WSK_SECURITY` now; the reader releases it.
fn read_security(socket: &Socket) -> PSECURITY_DESCRIPTOR {
    let size = size_of::<PSECURITY_DESCRIPTOR>();
    let bytes = read_control(socket, &Control::get(SOL_SOCKET, SO_WSK_SECURITY, size));
    std::ptr::with_exposed_provenance_mut(usize::from_ne_bytes(bytes.try_into().expect("a pointer")))
}

/// Shows: OPT-04
#[test]
fn reading_the_descriptor_gives_a_copy_to_release() {
    for_each_mode(|_| {
        let client = Client::new();
        for category in SHARING {
            let cached = Descriptor::cached(&client, true);
            let socket = unbound(&client, category);
            // The default one, and the one that was set; before the bind and after it.
            for bound in [false, true] {
                if bound {
                    let value = cached.raw().expose_provenance().to_ne_bytes();
                    socket.control(&Control::set(SOL_SOCKET, SO_WSK_SECURITY, &value)).ok();
                    socket.bind_localhost();
                }
                let (one, two) = (read_security(&socket), read_security(&socket));
                assert!(!one.is_null() && !two.is_null());
                // The value is a cached descriptor like any other: it can be passed for a socket.
                let security = one;
                client.open(&SocketOptions { security, ..SocketOptions::new(category) }).socket();
                assert_eq!(client.release_descriptor(one), STATUS_SUCCESS);
                assert_eq!(client.release_descriptor(two), STATUS_SUCCESS);
            }
        }
    });
}

/// Catches: CTL-07
#[test]
fn a_descriptor_that_was_read_and_not_released_is_caught() {
    let sim = Sim::new();
    let report = left_behind(&sim, |_| {
        let client = Client::new();
        let listener = unbound(&client, Category::Listen);
        read_security(&listener);
    });
    assert_reported(&report, "CTL-07", "WskControlClient");
}

/// Shows: OPT-11
#[test]
fn broadcasting_is_an_option_of_datagram_sockets() {
    for_each_mode(|_| {
        let client = Client::new();
        let datagram = client.datagram(&Recorder::new());
        assert_eq!(datagram.get_option(SOL_SOCKET, SO_BROADCAST), 0);
        let broadcast = SocketAddr::from((Ipv4Addr::new(127, 255, 255, 255), 9));
        for bound in [false, true] {
            if bound {
                datagram.bind_localhost();
            }
            for value in [1, 0] {
                datagram.set_option(SOL_SOCKET, SO_BROADCAST, value).ok();
                assert_eq!(datagram.get_option(SOL_SOCKET, SO_BROADCAST), value);
                if bound {
                    let expected = if value == 1 { STATUS_SUCCESS } else { STATUS_ACCESS_DENIED };
                    assert_eq!(datagram.send_to(b"all", broadcast).wait().status, expected);
                }
            }
        }
        for category in [Category::Basic, Category::Listen, Category::Connection, Category::Stream] {
            unbound(&client, category)
                .set_option(SOL_SOCKET, SO_BROADCAST, 1)
                .fails(STATUS_INVALID_PARAMETER);
        }
    });
}

/// Reads `SO_KEEPALIVE`.
fn keep_alive(socket: &Socket) -> Vec<u8> {
    read_control(socket, &Control::get(SOL_SOCKET, SO_KEEPALIVE, 4))
}

/// Shows: OPT-12, OPT-13
#[test]
fn keep_alive_is_an_option_of_tcp_and_reads_as_one_byte() {
    for_each_mode(|_| {
        let client = Client::new();
        let (listener, connection) =
            (unbound(&client, Category::Listen), unbound(&client, Category::Connection));
        for socket in [&listener, &connection] {
            assert_eq!(keep_alive(socket), [0]);
            for (bound, value) in [(false, 1), (false, 0), (true, 1), (true, 0)] {
                if bound && value == 1 {
                    socket.bind_localhost();
                }
                socket.set_option(SOL_SOCKET, SO_KEEPALIVE, value).ok();
                assert_eq!(keep_alive(socket), [value as u8]);
            }
        }
        unbound(&client, Category::Datagram)
            .set_option(SOL_SOCKET, SO_KEEPALIVE, 1)
            .fails(STATUS_INVALID_PARAMETER);
        // Accepted sockets have the options of their listener, in both ways of acceptance.
        for value in [1, 0] {
            let events = Recorder::new();
            let listener = client.listener(&events);
            listener.set_option(SOL_SOCKET, SO_KEEPALIVE, value).ok();
            let address = listener.bind_localhost();
            let _one = Peer::connect(address);
            assert_eq!(keep_alive(&listener.accept().socket()), [value as u8]);
            assert_eq!(listener.enable(WSK_EVENT_ACCEPT), STATUS_SUCCESS);
            let _two = Peer::connect(address);
            assert_eq!(keep_alive(&events.accept().socket()), [value as u8]);
        }
    });
}

/// Shows: OPT-14
#[test]
fn the_receive_buffer_is_an_option_that_accepted_sockets_inherit() {
    for_each_mode(|_| {
        let client = Client::new();
        for category in SHARING {
            let socket = unbound(&client, category);
            assert_ne!(socket.get_option(SOL_SOCKET, SO_RCVBUF), 0);
            for (bound, value) in [(false, 16 << 10), (true, 24 << 10)] {
                if bound {
                    socket.bind_localhost();
                }
                socket.set_option(SOL_SOCKET, SO_RCVBUF, value).ok();
                assert_eq!(socket.get_option(SOL_SOCKET, SO_RCVBUF), value);
            }
        }
        let listener = unbound(&client, Category::Listen);
        listener.set_option(SOL_SOCKET, SO_RCVBUF, 40 << 10).ok();
        let address = listener.bind_localhost();
        let _peer = Peer::connect(address);
        assert_eq!(listener.accept().socket().get_option(SOL_SOCKET, SO_RCVBUF), 40 << 10);
    });
}

/// Shows: OPT-15
#[test]
fn an_ipv6_socket_serves_ipv4_too_only_when_it_was_told_to() {
    for_each_mode(|_| {
        let client = Client::new();
        for v6_only in [1, 0] {
            let listener = client.open(&SocketOptions::new(Category::Listen).v6()).socket();
            assert_eq!(listener.get_option(IPPROTO_IPV6, IPV6_V6ONLY), 1);
            if v6_only == 0 {
                listener.set_option(IPPROTO_IPV6, IPV6_V6ONLY, 0).ok();
            }
            listener.bind("[::]:0".parse().unwrap()).ok();
            let port = listener.local_address().port();
            let peer = Peer::connect((LOCALHOST_V6.ip(), port).into());
            assert_eq!(listener.accept().socket().remote_address(), peer.local());
            let v4 = (LOCALHOST.ip(), port).into();
            if v6_only == 1 {
                assert!(Peer::is_refused(v4));
                continue;
            }
            let peer = Peer::connect(v4);
            let remote = listener.accept().socket().remote_address();
            let IpAddr::V4(own) = peer.local().ip() else { panic!("an IPv4 peer") };
            assert_eq!(remote, (own.to_ipv6_mapped(), peer.local().port()).into());
        }
        let v4 = unbound(&client, Category::Listen);
        v4.set_option(IPPROTO_IPV6, IPV6_V6ONLY, 0).fails(STATUS_INVALID_PARAMETER);
    });
}

/// Shows: OPT-16
#[test]
fn an_unknown_option_is_refused() {
    for_each_choice(
        |behaviours, choice: UnknownOption| behaviours.unknown_option = choice,
        |_, choice| {
            let client = Client::new();
            for category in [Category::Basic, Category::Listen, Category::Datagram, Category::Connection] {
                let socket = unbound(&client, category);
                for (level, option) in [(SOL_SOCKET, 0x7777), (0x7777, SO_RCVBUF), (IPPROTO_TCP, TCP_NODELAY)]
                {
                    let done = socket.set_option(level, option, 1).fails(choice.status());
                    assert_eq!((done.returned, done.information), (choice.status(), 0));
                    socket.control(&Control::get(level, option, 4)).fails(choice.status());
                }
            }
        },
    );
    assert_eq!(UnknownOption::default().status(), STATUS_INVALID_PARAMETER);
}

/// Drivers that work on Windows do so, which is why it is advice.
///
/// Catches: OPT-01
#[test]
fn outputs_for_a_setting_and_inputs_for_a_reading_are_advised_against() {
    let sim = Sim::new();
    sim.expect_advice("OPT-01");
    sim.run(|sim| {
        let client = Client::new();
        let listener = unbound(&client, Category::Listen);
        let set = Control::set(SOL_SOCKET, SO_RCVBUF, &4096_u32.to_ne_bytes());
        let get = Control::get(SOL_SOCKET, SO_RCVBUF, 4);
        for right in [&set, &get] {
            listener.control(right).ok();
        }
        assert!(sim.violations_of("OPT-01").is_empty());
        let wrong = [
            Control { output: Some(4), ..set.clone() },
            set.with_size(),
            Control { input: Some(vec![0; 4]), ..get.clone() },
            get.with_size(),
        ];
        for (count, control) in wrong.iter().enumerate() {
            listener.control(control).ok();
            assert_eq!(sim.violations_of("OPT-01").len(), count + 1, "{control:?}");
        }
        assert_advised(sim, "OPT-01", "WskControlSocket");
    });
}

/// A length of zero means no buffer, with any pointer.
///
/// Shows: IOC-03, IOC-16, CTL-02
#[test]
fn a_buffer_of_no_length_is_no_buffer() {
    Sim::new().run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let socket = client.datagram(&events);
        let set = Control::set(SOL_SOCKET, SO_BROADCAST, &1_u32.to_ne_bytes());
        socket.control(&Control { output: Some(0), ..set }).ok();
        let get = Control { input: Some(Vec::new()), ..Control::get(SOL_SOCKET, SO_BROADCAST, 4) };
        assert_eq!(read_control(&socket, &get), 1_u32.to_ne_bytes());

        let own = socket.bind_localhost();
        let enable = Control { output: Some(0), ..Control::events(WSK_EVENT_RECEIVE_FROM) };
        assert_eq!(socket.control_now(&enable).status, STATUS_SUCCESS);
        assert_eq!(socket.disable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
        for code in [SIO_WSK_SET_REMOTE_ADDRESS, SIO_WSK_SET_SENDTO_ADDRESS] {
            socket.control(&Control::ioctl(code, Some(&sockaddr_in(own)), None)).ok();
            Request::new().send_to(&socket, &Buffer::of(b"x"), None, &[], 0).ok();
            socket.control(&Control::ioctl(code, Some(&[]), None)).ok();
            let nowhere = Request::new().send_to(&socket, &Buffer::of(b"x"), None, &[], 0);
            nowhere.fails(NoDestination::default().status());
        }

        let (connection, peer) = accepted_pair(&client, &events);
        connection.control(&Control::ioctl(SIO_WSK_SET_RECEIVE_EX_CALLBACK, Some(&[]), None)).ok();
        peer.send(b"y");
        assert_eq!(connection.receive_all(1), b"y");
        let query = Control::ioctl(SIO_ADDRESS_LIST_QUERY, Some(&[]), Some(0)).with_size();
        let answer = connection.control_now(&query);
        assert_eq!(answer.status, STATUS_BUFFER_OVERFLOW);
        assert_ne!(answer.size, 0);
        let transports = client.control_now(WSK_TRANSPORT_LIST_QUERY, Some(&[]), Some(0));
        assert_eq!(transports.status, STATUS_BUFFER_OVERFLOW);
        for rule in ["OPT-01", "EVT-03"] {
            assert!(sim.violations_of(rule).is_empty(), "{rule}");
        }
    });
}

/// Catches: OPT-01
#[test]
fn an_option_with_too_small_a_buffer_is_caught() {
    let sim = Sim::new();
    sim.expect("OPT-01");
    sim.run(|sim| {
        let client = Client::new();
        let listener = client.listener(&Recorder::new());
        let short = [
            Control::set(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, &[1]),
            Control { input: None, ..Control::set(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, &[]) },
            Control::get(SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 3),
            Control::set(SOL_SOCKET, SO_WSK_SECURITY, &[0; 4]),
        ];
        for (count, control) in short.iter().enumerate() {
            listener.control(control).fails(STATUS_INVALID_PARAMETER);
            assert_eq!(sim.violations_of("OPT-01").len(), count + 1, "{control:?}");
        }
        assert_eq!(listener.get_option(SOL_SOCKET, SO_CONDITIONAL_ACCEPT), 0);
    });
}

/// Catches: OPT-02
#[test]
fn an_option_without_an_irp_is_caught() {
    let sim = Sim::new();
    sim.expect("OPT-02");
    sim.run(|sim| {
        let client = Client::new();
        let listener = client.listener(&Recorder::new());
        let v6 = client.open(&SocketOptions::new(Category::Listen).v6()).socket();
        let datagram = client.datagram(&Recorder::new());
        let one = 1_u32.to_ne_bytes();
        let documented = [
            (&listener, SOL_SOCKET, SO_CONDITIONAL_ACCEPT),
            (&listener, SOL_SOCKET, SO_REUSEADDR),
            (&listener, SOL_SOCKET, SO_EXCLUSIVEADDRUSE),
            (&listener, SOL_SOCKET, SO_KEEPALIVE),
            (&listener, SOL_SOCKET, SO_RCVBUF),
            (&datagram, SOL_SOCKET, SO_BROADCAST),
            (&v6, IPPROTO_IPV6, IPV6_V6ONLY),
        ];
        let mut caught = 0;
        for (socket, level, option) in documented {
            for control in [Control::set(level, option, &one), Control::get(level, option, 4)] {
                socket.control_now(&control);
                caught += 1;
                assert_eq!(sim.violations_of("OPT-02").len(), caught, "{control:?}");
            }
        }
        assert_caught(sim, "OPT-02", "WskControlSocket");
    });
}

/// Shows: OPT-03
#[test]
fn every_option_answers_forced_closed_on_a_dead_socket() {
    Sim::new().run(|sim| {
        let client = Client::new();
        let listener = unbound(&client, Category::Listen);
        let cached = Descriptor::cached(&client, true);
        let value = cached.raw().expose_provenance().to_ne_bytes();
        sim.choose_once(FaultPoint::DieInCall, 1);
        listener.control(&Control::set(SOL_SOCKET, SO_WSK_SECURITY, &value)).fails(STATUS_FILE_FORCED_CLOSED);
        listener.close().ok();
    });
}
