//! The datagram calls and their control messages (contract 4.13, 4.14).

use std::net::SocketAddr;
use std::ptr;

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::*;
use wsk_sys::*;

use crate::support::*;

/// The table of a datagram socket.
fn table(socket: &Socket) -> &'static WSK_PROVIDER_DATAGRAM_DISPATCH {
    // SAFETY: a datagram socket has the table of its category, which lasts as long as the provider.
    unsafe { &*socket.dispatch().cast() }
}

/// `WskSendTo` with a length and a pointer of control messages that need not go together.
fn send_to(socket: &Socket, to: SocketAddr, length: u32, control: PCMSGHDR) -> Request {
    let function = table(socket).WskSendTo.expect("the table has WskSendTo");
    let (buffer, address) = (Buffer::of(b"x"), CAddress::new(to));
    let (mut descriptor, remote) = (buffer.wsk_buf(), address.as_ptr());
    Request::new().keep((buffer, address)).submit("WskSendTo", |irp| {
        // SAFETY: the request keeps buffer and address; the provider looks at no control messages without a
        // length.
        unsafe { function(socket.raw(), &raw mut descriptor, 0, remote, length, control, irp) }
    })
}

/// The same with `WskSendMessages`.
fn send_messages(socket: &Socket, to: SocketAddr, length: u32, control: PCMSGHDR) -> Request {
    let function = table(socket).WskSendMessages.expect("the table has WskSendMessages");
    let (list, address) = (BufferList::new(&[Buffer::of(b"x")]), CAddress::new(to));
    let (head, remote) = (list.head(), address.as_ptr());
    Request::new().keep((list, address)).submit("WskSendMessages", |irp| {
        // SAFETY: the request keeps buffer and address; the provider looks at no control messages without a
        // length.
        unsafe { function(socket.raw(), head, 0, remote, length, control, irp) }
    })
}

/// A length of zero stands for no control messages, whatever the pointer is: clients that work on Windows
/// always pass one.
///
/// Catches: DGR-07
#[test]
fn a_pointer_to_no_control_messages_is_ignored() {
    let sim = Sim::new();
    sim.expect_advice("DGR-07");
    sim.run(|sim| {
        let client = Client::new();
        let socket = client.datagram(&Recorder::new());
        let own = socket.bind_localhost();
        for (count, send) in [send_to, send_messages].into_iter().enumerate() {
            let control = PoolBox::new([0_u64; 4]);
            let request = send(&socket, own, 0, control.as_ptr().cast());
            // The request does not need a buffer without a length.
            drop(control);
            assert_eq!(request.ok().information, 1);
            assert_eq!(socket.receive_datagram(8), (b"x".to_vec(), own));
            assert_eq!(sim.violations_of("DGR-07").len(), count + 1);
        }
    });
}

/// Catches: DGR-07
#[test]
fn a_length_without_control_messages_is_caught() {
    let sim = Sim::new();
    sim.expect("DGR-07");
    sim.run(|sim| {
        let client = Client::new();
        let socket = client.datagram(&Recorder::new());
        let own = socket.bind_localhost();
        for (call, send) in
            [("WskSendTo", send_to as fn(_, _, _, _) -> _), ("WskSendMessages", send_messages)]
        {
            let request: Request = send(&socket, own, 32, ptr::null_mut());
            request.fails(STATUS_INVALID_PARAMETER);
            assert_caught(sim, "DGR-07", call);
        }
        assert!(
            sim.violations_of("DGR-07").iter().all(|report| report.severity == wsk_sim::Severity::Violation)
        );
    });
}

/// Shows: DGR-01
#[test]
fn nothing_is_sent_or_received_without_an_address() {
    for_each_choice(
        |behaviours, choice: DatagramUnbound| behaviours.datagram_unbound = choice,
        |_, choice| {
            let client = Client::new();
            let socket = client.datagram(&Recorder::new());
            let (_host, to) = host_datagram();
            send_to(&socket, to, 0, ptr::null_mut()).fails(choice.status());
            send_messages(&socket, to, 0, ptr::null_mut()).fails(choice.status());
            let options = ReceiveFromOptions::default();
            let (receive, _) = Request::new().receive_from(&socket, &Buffer::new(1), options);
            assert_eq!(receive.fails(choice.status()).information, 0);
        },
    );
    assert_eq!(DatagramUnbound::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Shows: DGR-04
#[test]
fn a_datagram_needs_a_destination() {
    for_each_choice(
        |behaviours, choice: NoDestination| behaviours.no_destination = choice,
        |_, choice| {
            let client = Client::new();
            let socket = client.datagram(&Recorder::new());
            socket.bind_localhost();
            let nowhere = Request::new().send_to(&socket, &Buffer::of(b"x"), None, &[], 0);
            assert_eq!(nowhere.fails(choice.status()).information, 0);
            let list = BufferList::new(&[Buffer::of(b"x")]);
            Request::new().send_messages(&socket, list, None, 0).fails(choice.status());
        },
    );
    assert_eq!(NoDestination::default().status(), STATUS_INVALID_PARAMETER);
}

/// Shows: DGR-13
#[test]
fn what_does_not_fit_of_a_datagram_is_lost_and_told() {
    for_each_choice(
        |behaviours, choice: Truncated| behaviours.truncated = choice,
        |_, choice| {
            let client = Client::new();
            let socket = client.datagram(&Recorder::new());
            let own = socket.bind_localhost();
            for (sent, room) in [(b"whole", 5), (b"trunc", 3)] {
                // The receive waits for the datagram, or finds it.
                for waits in [true, false] {
                    let buffer = Buffer::new(room);
                    let receive =
                        || Request::new().receive_from(&socket, &buffer, ReceiveFromOptions::default());
                    let early = waits.then(receive);
                    socket.send_to(sent, own).ok();
                    let (request, outputs) = early.unwrap_or_else(receive);
                    let done = request.wait();
                    let (status, flags) = match room {
                        5 => (STATUS_SUCCESS, 0),
                        _ => (choice.status(), MSG_TRUNC),
                    };
                    assert_eq!((done.status, done.information), (status, room));
                    assert_eq!((**outputs.control_flags, outputs.remote.get()), (flags, Some(own)));
                    assert_eq!(buffer.read(), sent[..room]);
                }
            }
        },
    );
    assert_eq!(Truncated::default().status(), STATUS_SUCCESS);
}

/// Waits until the host has nothing more for a datagram socket.
#[cfg(target_os = "linux")]
fn await_taken(local: SocketAddr) {
    let port = format!(":{:04X}", local.port());
    eventually("the host's queue is empty", || {
        let table = std::fs::read_to_string("/proc/net/udp").expect("the sockets of the host");
        let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut queues = rows.filter(|row| row[1].ends_with(&port)).map(|row| row[4]);
        queues.all(|queues| queues.ends_with(":00000000"))
    });
}

/// Shows: DGR-32
#[test]
#[cfg(target_os = "linux")]
fn datagrams_beyond_the_limit_are_dropped() {
    for most in [1, 3] {
        Sim::builder().provider(move |config| config.datagrams = most).build().run(move |_| {
            let client = Client::new();
            let socket = client.datagram(&Recorder::new());
            let own = socket.bind_localhost();
            let (host, _) = host_datagram();
            for number in 0..8 {
                host.send_to(&[number], own).unwrap();
            }
            await_taken(own);
            for number in 0..most {
                assert_eq!(socket.receive_datagram(1).0, [number as u8]);
            }
            // Further datagrams find room again, and no others before them.
            host.send_to(b"n", own).unwrap();
            assert_eq!(socket.receive_datagram(1).0, b"n");
        });
    }
}

/// Shows: IOC-04
#[test]
fn a_destination_is_fixed_for_a_socket_that_has_an_address() {
    for_each_choice(
        |behaviours, choice: FixedAddressUnbound| behaviours.fixed_address_unbound = choice,
        |_, choice| {
            let client = Client::new();
            let socket = client.datagram(&Recorder::new());
            for code in [SIO_WSK_SET_REMOTE_ADDRESS, SIO_WSK_SET_SENDTO_ADDRESS] {
                let unset = || socket.control(&Control::ioctl(code, None, None));
                assert_eq!(unset().fails(choice.status()).information, 0);
            }
            socket.bind_localhost();
            for code in [SIO_WSK_SET_REMOTE_ADDRESS, SIO_WSK_SET_SENDTO_ADDRESS] {
                socket.control(&Control::ioctl(code, None, None)).ok();
            }
        },
    );
    assert_eq!(FixedAddressUnbound::default().status(), STATUS_INVALID_DEVICE_STATE);
}

/// Levels and kinds of control messages.
#[cfg(target_os = "linux")]
type Kinds = &'static [(u32, u32)];

/// Addresses of the binds and of the datagrams, with the expected control messages.
#[cfg(target_os = "linux")]
const TOLD: [(&str, &str, Kinds); 4] = [
    ("127.0.0.1:0", "127.0.0.1", &[(IPPROTO_IP, IP_PKTINFO), (IPPROTO_IP, IP_TOS), (IPPROTO_IP, IP_ECN)]),
    ("[::1]:0", "::1", &[(IPPROTO_IPV6, IPV6_PKTINFO), (IPPROTO_IPV6, IPV6_ECN)]),
    ("[::]:0", "::1", &[(IPPROTO_IPV6, IPV6_PKTINFO), (IPPROTO_IPV6, IPV6_ECN)]),
    ("[::]:0", "127.0.0.1", &[(IPPROTO_IP, IP_PKTINFO), (IPPROTO_IP, IP_TOS), (IPPROTO_IP, IP_ECN)]),
];

/// The options that ask for control messages.
#[cfg(target_os = "linux")]
const ASKING: [(u32, u32); 5] = [
    (IPPROTO_IP, IP_PKTINFO),
    (IPPROTO_IP, IP_RECVTOS),
    (IPPROTO_IP, IP_ECN),
    (IPPROTO_IPV6, IPV6_PKTINFO),
    (IPPROTO_IPV6, IPV6_ECN),
];

/// A datagram socket of the host whose packets have the type of service, or traffic class.
#[cfg(target_os = "linux")]
fn marked_host(to: SocketAddr, service: u32) -> socket2::Socket {
    use socket2::{Domain, Socket, Type};
    let host = Socket::new(Domain::for_address(to), Type::DGRAM, None).unwrap();
    if to.is_ipv4() { host.set_tos_v4(service) } else { host.set_tclass_v6(service) }.unwrap();
    host
}

/// Checks the control messages in a buffer.
#[cfg(target_os = "linux")]
fn check_messages(control: &[u8], expected: &[(u32, u32)], to: SocketAddr, service: u32) {
    let messages: Vec<ControlMessage<'_>> = ControlMessages::new(control).collect();
    let kinds: Vec<(u32, u32)> = messages.iter().map(|m| (m.level as u32, m.kind as u32)).collect();
    assert_eq!(kinds, expected);
    for message in messages {
        let number = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().expect("four bytes"));
        match (message.level as u32, message.kind as u32) {
            (IPPROTO_IP, IP_TOS) => assert_eq!(number(message.data), service),
            (_, IP_ECN) => assert_eq!(number(message.data), service & 3),
            _ => {
                let (address, interface) = message.data.split_at(message.data.len() - 4);
                let ip = match to.ip() {
                    std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
                    std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
                };
                assert_eq!(address, ip);
                assert_ne!(number(interface), 0, "the loopback interface has a number");
            }
        }
    }
}

/// Shows: DGR-15, DGR-34
#[test]
#[cfg(target_os = "linux")]
fn control_messages_tell_what_the_socket_has_asked_for() {
    Sim::new().run(|_| {
        let client = Client::new();
        for (local, ip, expected) in TOLD {
            let local: SocketAddr = local.parse().expect("an address");
            let events = Recorder::new();
            let options = SocketOptions::new(Category::Datagram).recorder(&events);
            let socket = client.open(&if local.is_ipv6() { options.v6() } else { options }).socket();
            let dual = local.is_ipv6() && local.ip().is_unspecified();
            if dual {
                socket.set_option(IPPROTO_IPV6, IPV6_V6ONLY, 0).ok();
            }
            socket.bind(local).ok();
            let to = SocketAddr::new(ip.parse().expect("an address"), socket.local_address().port());
            let service = 0x2D;
            let host = marked_host(to, service);
            let receive = |room: u32| {
                host.send_to(b"x", &to.into()).unwrap();
                let options = ReceiveFromOptions { control: Some(room), ..ReceiveFromOptions::default() };
                let (request, outputs) = Request::new().receive_from(&socket, &Buffer::new(1), options);
                request.ok();
                let length = **outputs.control_length as usize;
                (outputs.control.bytes()[..length].to_vec(), **outputs.control_flags)
            };
            assert_eq!(receive(128), (Vec::new(), 0), "nothing was asked for");
            let has = |(level, _): &(u32, u32)| {
                *level == IPPROTO_IPV6 && local.is_ipv6() || *level == IPPROTO_IP && (local.is_ipv4() || dual)
            };
            for (level, option) in ASKING.into_iter().filter(has) {
                socket.set_option(level, option, 1).ok();
            }
            let (control, flags) = receive(128);
            check_messages(&control, expected, to, service);
            assert_eq!(flags, 0);
            // Messages that do not fit are left out, which the flags report.
            assert_eq!(receive(8), (Vec::new(), MSG_CTRUNC));
            assert_eq!(receive(0), (Vec::new(), MSG_CTRUNC));

            assert_eq!(socket.enable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
            host.send_to(b"y", &to.into()).unwrap();
            let received = events.receive_from().datagrams.expect("a datagram");
            check_messages(&received[0].control, expected, to, service);
            assert_eq!(socket.disable(WSK_EVENT_RECEIVE_FROM), STATUS_SUCCESS);
            for (level, option) in ASKING.into_iter().filter(has) {
                socket.set_option(level, option, 0).ok();
            }
            assert_eq!(receive(128), (Vec::new(), 0), "nothing is asked for any more");
        }
    });
}
