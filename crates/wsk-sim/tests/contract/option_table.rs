//! All options and control codes that drivers use: their sockets, their sizes, and their effect on the host.

use std::net::SocketAddr;

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::{ReceiveExIrp, UnknownCode};
use wsk_sim::wsk_provider::controls::*;
use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::support::*;

const CATEGORIES: [Category; 5] =
    [Category::Basic, Category::Listen, Category::Connection, Category::Datagram, Category::Stream];

/// The socket families, and whether IPv6 is to serve IPv4 as well.
const FAMILIES: [(bool, bool); 3] = [(false, false), (true, false), (true, true)];

fn open(client: &Client, category: Category, (v6, dual): (bool, bool)) -> Socket {
    let options = SocketOptions::new(category);
    let socket = client.open(&if v6 { options.v6() } else { options }).socket();
    if dual && category != Category::Basic {
        socket.set_option(IPPROTO_IPV6, IPV6_V6ONLY, 0).ok();
    }
    socket
}

/// Returns whether the table gives the option to such a socket.
fn has(row: &OptionRow, category: Category, (v6, dual): (bool, bool)) -> bool {
    use Category::{Basic, Connection, Datagram, Listen, Stream};
    let category = match row.sockets {
        Sockets::Listening => matches!(category, Listen | Stream),
        Sockets::Tcp => matches!(category, Listen | Connection | Stream),
        Sockets::Connecting => matches!(category, Connection | Stream),
        Sockets::Datagram => category == Datagram,
        Sockets::Bindable => category != Basic,
        Sockets::None => false,
    };
    let family = match row.level {
        IPPROTO_IP => !v6 || dual,
        IPPROTO_IPV6 => v6,
        _ => true,
    };
    category && family && row.fate != Fate::Refused
}

/// Answer of a socket that does not have the option.
fn refusal(row: &OptionRow) -> NTSTATUS {
    if row.code == SO_CONDITIONAL_ACCEPT { STATUS_NOT_SUPPORTED } else { STATUS_INVALID_PARAMETER }
}

/// A value that is not the default, and that any host takes.
fn other_value(row: &OptionRow) -> u32 {
    match (row.level, row.code) {
        (SOL_SOCKET, SO_RCVBUF | SO_SNDBUF) => 32 << 10,
        (IPPROTO_IP, IP_MULTICAST_IF) => u32::from_ne_bytes([127, 0, 0, 1]),
        (IPPROTO_IPV6, IPV6_MULTICAST_IF) => 1,
        (IPPROTO_IP, IP_TOS) => 8,
        _ if matches!(row.value, Value::Number) => 7,
        _ => 1 - row.default,
    }
}

fn read(socket: &Socket, row: &OptionRow, room: usize) -> Vec<u8> {
    read_control(socket, &Control::get(row.level, row.code, room))
}

fn expected(row: &OptionRow, value: u32) -> Vec<u8> {
    if row.value == Value::Byte { vec![value as u8] } else { value.to_ne_bytes().to_vec() }
}

/// Shows: OPT-09, OPT-11, OPT-12, OPT-13, OPT-14, OPT-15, OPT-17, OPT-18
#[test]
fn every_option_of_the_table_is_answered_as_it_says() {
    Sim::new().run(|_| {
        let client = Client::new();
        for row in OPTIONS {
            for (category, family) in CATEGORIES.into_iter().flat_map(|c| FAMILIES.map(|family| (c, family)))
            {
                let what = format!("{} of {category:?} {family:?}", row.name);
                let socket = open(&client, category, family);
                let value = other_value(row);
                let set = |value: u32| socket.set_option(row.level, row.code, value);
                if !has(row, category, family) {
                    assert_eq!(set(value).wait().status, refusal(row), "{what}");
                    let get = socket.control(&Control::get(row.level, row.code, 4));
                    assert_eq!(get.wait().status, refusal(row), "{what}");
                    continue;
                }
                match row.value {
                    // Not numbers; they have tests of their own.
                    Value::Descriptor | Value::Membership | Value::MembershipV6 => continue,
                    // Covered by other tests, since it needs a table of callbacks, or another provider.
                    _ if row.code == SO_CONDITIONAL_ACCEPT => continue,
                    _ => {}
                }
                if row.code != IPV6_V6ONLY || !family.1 {
                    assert_eq!(read(&socket, row, 4), expected(row, row.default), "{what}");
                }
                assert_eq!(set(value).ok().information, 0, "{what}");
                assert_eq!(read(&socket, row, 4), expected(row, value), "{what}");
                // The bind takes it over, and it can be changed then, or not.
                let local: SocketAddr = if family.0 { LOCALHOST_V6 } else { LOCALHOST };
                let local = if family.1 { "[::]:0".parse().expect("an address") } else { local };
                assert_eq!(socket.bind(local).wait().status, STATUS_SUCCESS, "{what}");
                assert_eq!(read(&socket, row, 4), expected(row, value), "{what}");
                // A default value is no address of an interface, and no time.
                let back = if row.default == 0 && row.value == Value::Number { value } else { row.default };
                let expected_status =
                    if row.before_bind { STATUS_INVALID_DEVICE_STATE } else { STATUS_SUCCESS };
                assert_eq!(set(back).wait().status, expected_status, "{what}");
                let now = if row.before_bind { value } else { back };
                assert_eq!(read(&socket, row, 4), expected(row, now), "{what}");
            }
        }
    });
}

/// Flags of the transport may be one byte long; those of the layer above it may not.
///
/// Shows: OPT-12, OPT-17
/// Catches: OPT-01
#[test]
fn options_are_taken_in_the_sizes_of_the_table() {
    let sim = Sim::new();
    sim.expect("OPT-01");
    sim.run(|sim| {
        let client = Client::new();
        let mut short = 0;
        for row in OPTIONS {
            for category in CATEGORIES {
                let family = (row.level == IPPROTO_IPV6, false);
                if !has(row, category, family) || row.code == SO_CONDITIONAL_ACCEPT {
                    continue;
                }
                let what = format!("{} of {category:?}", row.name);
                let socket = open(&client, category, family);
                let set = |size: usize| {
                    let value = other_value(row).to_le_bytes();
                    let bytes: Vec<u8> =
                        (0..size).map(|index| value.get(index).copied().unwrap_or(0)).collect();
                    socket.control(&Control::set(row.level, row.code, &bytes)).wait().status
                };
                if matches!(row.value, Value::Flag | Value::Byte) {
                    assert_eq!(set(1), STATUS_SUCCESS, "{what}");
                    assert_eq!(read(&socket, row, 1), [other_value(row) as u8], "{what}");
                }
                if matches!(row.value, Value::Flag | Value::Byte | Value::Switch | Value::Number) {
                    assert_eq!(set(4), STATUS_SUCCESS, "{what}");
                    assert_eq!(set(8), STATUS_SUCCESS, "{what}");
                }
                assert_eq!(sim.violations_of("OPT-01").len(), short, "{what}");
                assert_eq!(set(row.least_size() - 1), STATUS_INVALID_PARAMETER, "{what}");
                short += 1;
                assert_eq!(sim.violations_of("OPT-01").len(), short, "{what}");
            }
        }
    });
}

/// The host's socket that has the local address and no peer.
#[cfg(target_os = "linux")]
fn with_host_socket<T>(local: SocketAddr, look: impl Fn(&socket2::SockRef<'_>) -> T) -> T {
    use std::os::fd::BorrowedFd;
    let numbers = std::fs::read_dir("/proc/self/fd")
        .expect("the descriptors")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers.collect::<Vec<_>>() {
        // SAFETY: the descriptor is only asked about itself; one that has been closed meanwhile is an error.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let socket = socket2::SockRef::from(&descriptor);
        if socket.local_addr().ok().and_then(|address| address.as_socket()) == Some(local) {
            return look(&socket);
        }
    }
    panic!("no socket of the host is at {local}");
}

/// Shows: OPT-17
#[test]
#[cfg(target_os = "linux")]
fn the_host_is_told_how_idle_connections_are_probed() {
    use std::time::Duration;
    Sim::new().run(|_| {
        let client = Client::new();
        let keep_alive_of = |socket: &Socket| {
            with_host_socket(socket.local_address(), |host| {
                let (idle, interval) =
                    (host.tcp_keepalive_time().unwrap(), host.tcp_keepalive_interval().unwrap());
                (host.keepalive().unwrap(), idle, interval, host.tcp_keepalive_retries().unwrap())
            })
        };
        for category in [Category::Listen, Category::Connection] {
            for before in [true, false] {
                let socket = client.open(&SocketOptions::new(category)).socket();
                if !before {
                    socket.bind_localhost();
                }
                for (option, value) in [(TCP_KEEPIDLE, 30), (TCP_KEEPINTVL, 3), (TCP_KEEPCNT, 4)] {
                    socket.set_option(IPPROTO_TCP, option, value).ok();
                }
                if before {
                    socket.bind_localhost();
                }
                // The times alone switch nothing on.
                let times = (Duration::from_secs(30), Duration::from_secs(3), 4);
                assert_eq!(
                    keep_alive_of(&socket),
                    (false, times.0, times.1, times.2),
                    "{category:?} {before}"
                );
                socket.set_option(SOL_SOCKET, SO_KEEPALIVE, 1).ok();
                assert_eq!(
                    keep_alive_of(&socket),
                    (true, times.0, times.1, times.2),
                    "{category:?} {before}"
                );
                let vals: Vec<u8> =
                    [1_u32, 20_000, 2_000].iter().flat_map(|value| value.to_ne_bytes()).collect();
                socket.control(&Control::ioctl(SIO_KEEPALIVE_VALS, Some(&vals), None)).ok();
                let times = (Duration::from_secs(20), Duration::from_secs(2), 4);
                assert_eq!(
                    keep_alive_of(&socket),
                    (true, times.0, times.1, times.2),
                    "{category:?} {before}"
                );
                assert_eq!(socket.get_option(IPPROTO_TCP, TCP_KEEPIDLE), 20);
            }
        }
    });
}

/// Windows takes times that this host does not: they are cut, and read back as they were set.
///
/// Shows: OPT-17
#[test]
#[cfg(target_os = "linux")]
fn times_that_the_host_does_not_take_are_cut() {
    use std::time::Duration;
    Sim::new().run(|_| {
        let client = Client::new();
        for before in [true, false] {
            let socket = client.open(&SocketOptions::new(Category::Connection)).socket();
            let set = || {
                for (option, value) in [(TCP_KEEPIDLE, 86_400), (TCP_KEEPINTVL, 40_000), (TCP_KEEPCNT, 255)] {
                    socket.set_option(IPPROTO_TCP, option, value).ok();
                }
            };
            if before {
                set();
            }
            let local = socket.bind_localhost();
            if !before {
                set();
            }
            with_host_socket(local, |host| {
                let longest = Duration::from_secs(32_767);
                assert_eq!(host.tcp_keepalive_time().unwrap(), longest);
                assert_eq!(host.tcp_keepalive_interval().unwrap(), longest);
                assert_eq!(host.tcp_keepalive_retries().unwrap(), 127);
            });
            assert_eq!(socket.get_option(IPPROTO_TCP, TCP_KEEPIDLE), 86_400);
        }
    });
}

/// Shows: OPT-18
#[test]
fn a_life_of_no_hops_or_too_many_is_refused_before_the_bind_and_after_it() {
    Sim::new().run(|_| {
        let client = Client::new();
        let too_many = [
            (IPPROTO_IP, IP_TTL),
            (IPPROTO_IP, IP_MULTICAST_TTL),
            (IPPROTO_IPV6, IPV6_UNICAST_HOPS),
            (IPPROTO_IPV6, IPV6_MULTICAST_HOPS),
        ];
        for (level, option) in too_many {
            let socket = open(&client, Category::Datagram, (level == IPPROTO_IPV6, false));
            for bound in [false, true] {
                if bound {
                    socket.bind(if level == IPPROTO_IPV6 { LOCALHOST_V6 } else { LOCALHOST }).ok();
                }
                socket.set_option(level, option, 200).ok();
                socket.set_option(level, option, 256).fails(STATUS_INVALID_PARAMETER);
                if option == IP_TTL && level == IPPROTO_IP {
                    socket.set_option(level, option, 0).fails(STATUS_INVALID_PARAMETER);
                }
                assert_eq!(socket.get_option(level, option), 200);
            }
        }
    });
}

/// Options that an accepted connection has from its listener.
///
/// Shows: OPT-17
#[test]
fn accepted_sockets_have_the_options_of_their_listener() {
    Sim::new().run(|_| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let inherited = [
            (IPPROTO_TCP, TCP_KEEPIDLE, 60),
            (IPPROTO_TCP, TCP_KEEPINTVL, 5),
            (IPPROTO_TCP, TCP_KEEPCNT, 3),
            (SOL_SOCKET, SO_SNDBUF, 40 << 10),
            (IPPROTO_IP, IP_TTL, 9),
        ];
        for (level, option, value) in inherited {
            listener.set_option(level, option, value).ok();
        }
        let _peer = Peer::connect(address);
        let connection = listener.accept().socket();
        for (level, option, value) in inherited {
            assert_eq!(connection.get_option(level, option), value);
        }
    });
}

/// Shows: OPT-18
#[test]
fn a_datagram_socket_hears_the_groups_that_it_has_joined() {
    Sim::new().run(|_| {
        let client = Client::new();
        let socket = client.datagram(&Recorder::new());
        let join = |code| Control::set(IPPROTO_IP, code, &[239, 7, 7, 7, 127, 0, 0, 1]);
        // There is nothing to join with before there is an address.
        socket.control(&join(IP_ADD_MEMBERSHIP)).fails(STATUS_INVALID_DEVICE_STATE);
        socket.bind(ANY).ok();
        let port = socket.local_address().port();
        let from = u32::from_ne_bytes([127, 0, 0, 1]);
        socket.set_option(IPPROTO_IP, IP_MULTICAST_IF, from).ok();
        socket.set_option(IPPROTO_IP, IP_MULTICAST_LOOP, 1).ok();
        socket.control(&join(IP_ADD_MEMBERSHIP)).ok();
        socket.send_to(b"all", ([239, 7, 7, 7], port).into()).ok();
        assert_eq!(socket.receive_datagram(8).0, b"all");
        socket.control(&join(IP_DROP_MEMBERSHIP)).ok();
        // It cannot be left twice.
        socket.control(&join(IP_DROP_MEMBERSHIP)).fails(STATUS_INVALID_ADDRESS_COMPONENT);
    });
}

/// Every control code is known by its number, and looks for its IRP before anything else.
///
/// Shows: IRP-19
/// Catches: IRP-18, IOC-06, IOC-11, IOC-12
#[test]
fn every_control_code_of_the_table_takes_an_irp_as_it_says() {
    let sim = Sim::new();
    sim.expect("IRP-18").expect("IOC-06").expect("IOC-11").expect("IOC-12");
    sim.run(|sim| {
        let client = Client::new();
        for row in IOCTLS {
            let socket = client.datagram(&Recorder::new());
            socket.bind_localhost();
            let control = Control::ioctl(row.code, None, None).with_size();
            let count = || sim.violations_of(row.rule).len();
            let before = count();
            match row.irp {
                Irp::Required => {
                    assert_eq!(socket.control_now(&control).status, STATUS_INVALID_PARAMETER, "{}", row.name);
                    assert_eq!(count(), before + 1, "{}", row.name);
                }
                Irp::Forbidden => {
                    let request = socket.control(&control);
                    request.cancel();
                    request.wait();
                    assert!(count() > before, "{}", row.name);
                }
                Irp::Either => {
                    let with = socket.control(&control).wait().status;
                    assert_eq!(socket.control_now(&control).status, with, "{}", row.name);
                    assert_eq!(count(), before, "{}", row.name);
                }
            }
        }
        let basic = client.open(&SocketOptions::new(Category::Basic)).socket();
        let spread = Control::ioctl(SIO_QUERY_RSS_SCALABILITY_INFO, None, Some(1));
        assert_eq!(read_control(&basic, &spread), [0]);
        let unknown = Control::ioctl(0x9800_7777, None, None);
        assert_eq!(basic.control_now(&unknown).status, STATUS_INVALID_DEVICE_REQUEST);
    });
}

/// The tables have all names of the headers.
///
/// Shows: OPT-16, OPT-18
#[test]
fn the_tables_have_every_option_and_control_code_that_the_headers_name() {
    let names = |source: &'static str| {
        source
            .lines()
            .filter_map(|line| line.strip_prefix("pub const ")?.split_once(": u32 =").map(|pair| pair.0))
    };
    // A level, a base, a control message, and the option that is a call of its own.
    let others = ["SOL_SOCKET", "WSK_SO_BASE", "UDP_COALESCED_INFO", "SO_WSK_EVENT_CALLBACK"];
    let options = names(include_str!("../../../wsk-sys/src/options.rs"));
    for name in options.filter(|name| !others.contains(name)) {
        assert!(OPTIONS.iter().any(|row| row.name == name), "{name} is not in the table");
    }
    let codes = names(include_str!("../../../wsk-sys/src/ioctl.rs")).filter(|name| name.starts_with("SIO_"));
    for name in codes {
        assert!(IOCTLS.iter().any(|row| row.name == name), "{name} is not in the table");
    }
    for (index, row) in OPTIONS.iter().enumerate() {
        let same = |other: &OptionRow| (other.level, other.code) == (row.level, row.code);
        assert_eq!(OPTIONS.iter().position(same), Some(index), "{} is there twice", row.name);
    }
}

/// Shows: IOC-15
#[test]
fn the_callback_for_received_data_is_set_with_an_irp_or_without() {
    for_each_choice(
        |behaviours, choice: ReceiveExIrp| behaviours.receive_ex_irp = choice,
        |_, choice| {
            let client = Client::new();
            let (connection, _peer) = accepted_pair(&client, &Recorder::new());
            // A null pointer turns the callback off.
            let control =
                Control::ioctl(SIO_WSK_SET_RECEIVE_EX_CALLBACK, Some(&[0; size_of::<usize>()]), None);
            let expected = |taken| if taken { STATUS_SUCCESS } else { STATUS_INVALID_PARAMETER };
            let with = connection.control(&control).wait().status;
            assert_eq!(with, expected(choice != ReceiveExIrp::Forbidden));
            let without = connection.control_now(&control).status;
            assert_eq!(without, expected(choice != ReceiveExIrp::Required));
        },
    );
}

/// Shows: CTL-11
#[test]
fn an_unknown_code_for_the_client_is_refused() {
    for_each_choice(
        |behaviours, choice: UnknownCode| behaviours.unknown_code = choice,
        |_, choice| {
            let client = Client::new();
            assert_eq!(client.control_now(0x7777, None, None).status, choice.status());
        },
    );
    assert_eq!(UnknownCode::default().status(), STATUS_INVALID_PARAMETER);
}
