//! Sockets as the library makes them: their contexts, descriptors and options.

use std::ffi::c_void;
use std::net::TcpListener;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wsk::options::{
    ConditionalAccept, ExclusiveAddress, KeepAlive, KeepAliveCount, KeepAliveIdle, KeepAliveInterval,
    ReceiveBufferSize, ReuseAddress, SendBufferSize, TimeToLive, TypeOfService, UnicastHops, V6Only,
};
use wsk::{Events, Handlers, Listener, Status};
use wsk_sim::Sim;
use wsk_sim::raw::{Buffer, Peer};
use wsk_sim::wsk_provider::{Attachment, Extension};
use wsk_sys::NPIID;
use wsk_sys::nt::PSECURITY_DESCRIPTOR;

use crate::support::*;

/// A self-relative descriptor that lets everybody share an address: it has no list.
fn everybody() -> Buffer {
    let mut bytes = [0; 20];
    (bytes[0], bytes[3]) = (1, 0x80);
    Buffer::of(&bytes)
}

/// A descriptor for a socket comes from the cache only, stays there as long as a request needs it, and goes
/// back once.
///
/// Prevents: SOCK-15, OPT-01, OPT-02, OPT-04
#[test]
fn a_descriptor_is_cached_used_and_released() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let buffer = everybody();
        // SAFETY: the bytes are a whole descriptor.
        let cached = unsafe { driver.provider.cache_security_descriptor(passive(), buffer.address()) };
        let cached = cached.expect("a cached copy");
        drop(buffer);
        let wildcard = "0.0.0.0:0".parse().unwrap();
        let open = wait(driver.provider.listener().security(cached.clone()).bind(wildcard)).unwrap();
        let closed = wait(driver.provider.listener().bind(wildcard)).unwrap();
        drop(cached);
        // The first lets others in on one of its addresses, as its descriptor says; the second has the
        // default one.
        let beside = |port| wait(driver.provider.listener().bind(([127, 0, 0, 1], port).into()));
        let second = beside(open.local_addr().port()).expect("a shared address");
        let refused = beside(closed.local_addr().port()).expect_err("no shared address");
        assert_eq!(refused.status(), Status::from(wsk_sys::STATUS_ACCESS_DENIED));
        drop((second, open, closed));
        driver.unload();
    });
}

/// A bind that is given up at any moment keeps the descriptor until the request that uses it has completed.
///
/// Prevents: LIFE-12, OPT-04
#[test]
fn a_descriptor_outlives_the_bind_that_was_given_up() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let buffer = everybody();
        for polls in 1..=8 {
            // SAFETY: the bytes are a whole descriptor.
            let cached = unsafe { driver.provider.cache_security_descriptor(passive(), buffer.address()) };
            let mut bind = Box::pin(driver.provider.listener().security(cached.unwrap()).bind(localhost()));
            for _ in 0..polls {
                if poll(&mut bind).is_ready() {
                    break;
                }
                std::thread::yield_now();
            }
            // What was pending still is, and with it goes the last clone of the descriptor.
        }
        driver.unload();
    });
}

/// One that nobody used goes back as well.
///
/// Prevents: OPT-04
#[test]
fn a_descriptor_that_is_not_used_is_released() {
    Sim::new().run(|_| {
        let driver = Driver::start();
        let buffer = everybody();
        for null in [false, true] {
            let descriptor: PSECURITY_DESCRIPTOR = if null { ptr::null_mut() } else { buffer.address() };
            // SAFETY: the bytes are a whole descriptor; null is refused by WSK.
            let cached = unsafe { driver.provider.cache_security_descriptor(passive(), descriptor) };
            assert_eq!(cached.is_err(), null);
        }
        driver.unload();
    });
}

/// A listener, and one of the host with the same port at the IPv4 loopback address, which the first has to
/// leave alone. Where another program has that address and port, another port is tried.
fn beside_ipv4(listen: impl Fn() -> Listener) -> (Listener, TcpListener) {
    for _ in 0..100 {
        let listener = listen();
        if let Ok(host) = TcpListener::bind(("127.0.0.1", listener.local_addr().port())) {
            return (listener, host);
        }
        wait(listener.close());
    }
    panic!("no listener leaves IPv4 alone");
}

/// An IPv6 listener is told before it is bound whether it serves IPv4, or not at all.
///
/// Prevents: OPT-15, OPT-01, OPT-02
#[test]
fn a_dual_stack_listener_is_one_that_was_asked_for() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listen = |only: Option<bool>| {
            let builder = driver.provider.listener();
            let builder = if let Some(only) = only { builder.option(V6Only(only)) } else { builder };
            wait(builder.bind("[::]:0".parse().unwrap())).unwrap()
        };
        for asked in [None, Some(true)] {
            let (listener, host) = beside_ipv4(|| listen(asked));
            let _peer = Peer::connect(host.local_addr().unwrap());
            host.accept().unwrap();
            // A peer that comes later is the first this listener sees.
            let later = Peer::connect(([0, 0, 0, 0, 0, 0, 0, 1], listener.local_addr().port()).into());
            assert_eq!(wait(listener.accept()).unwrap().peer_addr(), later.local());
            wait(listener.close());
        }
        let listener = listen(Some(false));
        let peer = Peer::connect(([127, 0, 0, 1], listener.local_addr().port()).into());
        assert_eq!(wait(listener.accept()).unwrap().peer_addr(), peer.local());
        wait(listener.close());
        // For an IPv4 address it means nothing.
        let listener = wait(driver.provider.listener().option(V6Only(false)).bind(localhost())).unwrap();
        connected(&listener);
        drop(listener);
        driver.unload();
    });
}

/// The option is set and never read, so that nobody minds how many bytes its value has.
///
/// Prevents: OPT-13, OPT-01, OPT-02
#[test]
fn connections_can_be_kept_alive() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = wait(driver.provider.listener().option(KeepAlive(true)).bind(localhost())).unwrap();
        let (connection, peer) = connected(&listener);
        wait(connection.close());
        peer.expect_reset();
        drop(listener);
        driver.unload();
    });
}

/// Sets an option on a socket and reads it back.
macro_rules! set_and_get {
    ($socket:expr; $($option:expr),* $(,)?) => { $(
        wait($socket.set($option)).unwrap();
        assert_eq!(wait($socket.get()), Ok($option));
    )* };
}

/// Options that were set before the bind, or on the socket, are read back; accepted connections have those
/// they inherit.
///
/// Prevents: OPT-01, OPT-02, OPT-13
#[test]
fn options_that_were_set_are_read_back() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let builder = driver.provider.listener().option(KeepAlive(false)).option(ExclusiveAddress(true));
        let builder = builder.option(KeepAlive(true)).option(KeepAliveIdle(77)).option(TimeToLive(33));
        let listener = wait(builder.bind(localhost())).unwrap();
        assert_eq!(wait(listener.get()), Ok(KeepAlive(true)));
        assert_eq!(wait(listener.get()), Ok(KeepAliveIdle(77)));
        assert_eq!(wait(listener.get()), Ok(ExclusiveAddress(true)));
        assert_eq!(wait(listener.get()), Ok(ReuseAddress(false)));
        assert_eq!(wait(listener.get()), Ok(ConditionalAccept(false)));
        assert_eq!(wait(listener.get()), Ok(TimeToLive(33)));
        let (connection, peer) = connected(&listener);
        assert_eq!(wait(connection.get()), Ok(KeepAlive(true)));
        set_and_get![connection;
            KeepAlive(false), KeepAlive(true), KeepAliveIdle(60), KeepAliveInterval(5), KeepAliveCount(7),
            TimeToLive(21), TypeOfService(16),
        ];
        set_and_get![listener;
            KeepAlive(false), KeepAliveIdle(61), KeepAliveInterval(6), KeepAliveCount(8), TypeOfService(8),
        ];
        // The host may give more than was asked for.
        wait(connection.set(ReceiveBufferSize(1 << 16))).unwrap();
        assert!(wait(connection.get::<ReceiveBufferSize>()).unwrap().0 >= 1 << 16);
        wait(connection.set(SendBufferSize(1 << 16))).unwrap();
        assert!(wait(connection.get::<SendBufferSize>()).unwrap().0 >= 1 << 16);
        // An option of IPv6 on an IPv4 socket.
        assert!(wait(connection.get::<UnicastHops>()).is_err());
        drop((connection, peer, listener));
        driver.unload();
    });
}

/// Options of a connection that has died are refused, and nothing is asked of WSK.
///
/// Prevents: LIFE-17
#[test]
fn options_of_a_closed_connection_are_refused() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, _peer) = connected(&listener);
        let control = connection.control();
        wait(connection.close());
        assert!(wait(control.set(KeepAlive(true))).unwrap_err().is_socket_dead());
        assert!(wait(control.get::<KeepAlive>()).unwrap_err().is_socket_dead());
        drop(listener);
        driver.unload();
    });
}

/// Every category has tables and calls of its own, which safe code cannot mix up: its sockets are of the
/// category that their type says.
///
/// Prevents: SOCK-04, STRM-02, STRM-11
#[test]
fn sockets_are_of_the_category_that_their_type_says() {
    for_each_mode(|sim| {
        let driver = Driver::start();
        let pending = driver.listen_pending();
        let listener = driver.listen();
        let (connection, _peer) = connected(&listener);
        let datagram = wait(driver.provider.datagram().bind(localhost())).unwrap();
        let mut kinds: Vec<_> = sim
            .provider()
            .open_sockets()
            .iter()
            .map(|socket| socket.description.split(' ').next().unwrap_or_default().to_owned())
            .collect();
        kinds.sort();
        assert_eq!(kinds, ["Connection", "Datagram", "Listen", "Listen"]);
        drop((pending, connection, datagram, listener));
        driver.unload();
    });
}

/// An extension whose events have the numbers of WSK's.
#[derive(Debug, Default)]
struct Bystander(AtomicBool);

impl Extension for Bystander {
    fn id(&self) -> NPIID {
        NPIID { data1: 0xB5, data2: 0, data3: 0, data4: [0; 8] }
    }

    fn events(&self) -> u32 {
        wsk_sys::WSK_EVENT_RECEIVE | wsk_sys::WSK_EVENT_DISCONNECT
    }

    fn dispatch(&self) -> *const c_void {
        ptr::null()
    }

    unsafe fn has_callback(&self, _dispatch: *const c_void, _event: u32) -> bool {
        true
    }

    fn attached(&self, _attachment: &Arc<Attachment>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Safe code names no interface: what it enables is WSK's own, whatever else the machine has.
///
/// Prevents: EVT-23, EVT-25, IOC-06
#[test]
fn events_of_extensions_are_out_of_reach() {
    for_each_mode(|sim| {
        let bystander = Arc::new(Bystander::default());
        let own = Arc::clone(&bystander);
        sim.provider().configure(|config| config.extensions.push(own));
        let driver = Driver::start();
        let listener = driver.listen();
        let (tell, told) = channel();
        let peer = Peer::connect(listener.local_addr());
        let connection = wait(listener.accept_with(Handlers::new().receive(tells_data(tell)))).unwrap();
        connection.enable(Events::RECEIVE).unwrap();
        peer.send(b"x");
        assert_eq!(told.next(), b"x");
        assert!(!bystander.0.load(Ordering::SeqCst));
        drop((connection, listener));
        driver.unload();
    });
}
