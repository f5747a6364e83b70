//! Arguments of `WskAccept`: flags, IRP, context, table and address buffers (contract 4.8, 4.4).

use std::ffi::c_void;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::nt::{self, NTSTATUS};
use wsk_sys::*;

use crate::support::*;

/// Catches: LSN-09
#[test]
fn reserved_flags_are_caught() {
    let sim = Sim::new();
    sim.expect("LSN-09").run(|sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let done = Request::new().accept(&listener, None, 1).fails(STATUS_INVALID_PARAMETER);
        assert_eq!(done.returned, STATUS_INVALID_PARAMETER);
        assert_caught(sim, "LSN-09", "WskAccept");
    });
}

/// Catches: LSN-10
#[test]
fn an_accept_without_an_irp_is_caught() {
    let sim = Sim::new();
    sim.expect("LSN-10").run(|sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        assert_eq!(Request::null().accept(&listener, None, 0).returned(), STATUS_INVALID_PARAMETER);
        assert_caught(sim, "LSN-10", "WskAccept");
    });
}

/// The context that the last call of [`note_context`] was given.
static NOTED: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

unsafe extern "system" fn note_context(context: *mut c_void, _flags: u32) -> NTSTATUS {
    NOTED.store(context, Ordering::SeqCst);
    STATUS_SUCCESS
}

static NOTING: WSK_CLIENT_CONNECTION_DISPATCH = WSK_CLIENT_CONNECTION_DISPATCH {
    WskReceiveEvent: None,
    WskDisconnectEvent: Some(note_context),
    WskSendBacklogEvent: None,
};

/// The context is a small number here: to read through it would end the test.
///
/// Shows: LSN-11
#[test]
fn the_context_comes_back_unchanged() {
    for_each_mode(|_| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let context = ptr::without_provenance_mut(0x1235);
        let parameters = AcceptParameters { context, dispatch: &raw const NOTING, ..Default::default() };
        let accept = accept_as(Request::new(), &listener, parameters).pends();
        let peer = Peer::connect(address);
        let socket = accept.socket();
        NOTED.store(ptr::null_mut(), Ordering::SeqCst);
        assert_eq!(socket.enable(WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        peer.close();
        eventually("WskDisconnectEvent", || !NOTED.load(Ordering::SeqCst).is_null());
        assert_eq!(NOTED.load(Ordering::SeqCst), context);
    });
}

/// Catches: LSN-12
#[test]
fn a_context_on_the_stack_is_caught() {
    let sim = Sim::new();
    sim.expect("LSN-12").run(|sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let mut on_the_stack = 0_u64;
        let context = (&raw mut on_the_stack).cast();
        let parameters = AcceptParameters { context, dispatch: &raw const NOTING, ..Default::default() };
        drop(accept_as(Request::new(), &listener, parameters));
        assert_caught(sim, "LSN-12", "WskAccept");
    });
}

/// Catches: LSN-13
#[test]
fn a_context_that_no_callback_can_get_is_caught() {
    let sim = Sim::new();
    sim.expect("LSN-13").run(|sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let context = ptr::without_provenance_mut(0x1234);
        drop(accept_as(Request::new(), &listener, AcceptParameters { context, ..Default::default() }));
        assert_caught(sim, "LSN-13", "WskAccept");
    });
}

/// Catches: LSN-14
#[test]
fn a_table_on_the_stack_is_caught() {
    let sim = Sim::new();
    sim.expect("LSN-14").run(|sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        let on_the_stack = NOTING;
        let parameters = AcceptParameters { dispatch: &raw const on_the_stack, ..Default::default() };
        drop(accept_as(Request::new(), &listener, parameters));
        assert_caught(sim, "LSN-14", "WskAccept");
    });
}

/// Shows: LSN-15
#[test]
fn a_connection_without_a_table_works_without_events() {
    for_each_mode(|_| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let accept = accept_as(Request::new(), &listener, AcceptParameters::default()).pends();
        let peer = Peer::connect(address);
        let socket = accept.socket();
        peer.send(b"in");
        assert_eq!(socket.receive_all(2), b"in");
        socket.disconnect().ok();
        peer.expect_end();
    });
}

/// Catches: LSN-15
#[test]
fn a_table_of_which_nothing_is_enabled_is_advised_against() {
    let sim = Sim::new();
    sim.expect_advice("LSN-15").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.bound_listener(&events);
        let used = listener.accept_with(&events).pends();
        let _peer = Peer::connect(address);
        let used = used.socket();
        assert_eq!(used.enable(WSK_EVENT_DISCONNECT), STATUS_SUCCESS);
        used.close().ok();
        assert!(sim.violations_of("LSN-15").is_empty());
        let unused = listener.accept_with(&events).pends();
        let _peer = Peer::connect(address);
        unused.socket().close().ok();
        assert_caught(sim, "LSN-15", "WskCloseSocket");
    });
}

fn accept_addresses(
    listener: &Socket,
    to: SocketAddr,
    from: Option<IpAddr>,
) -> (SocketAddr, SocketAddr, Peer) {
    let accept = listener.accept().pends();
    let peer = from.map_or_else(|| Peer::connect(to), |from| Peer::connect_from(from, to));
    accept.ok();
    let (local, remote) = accept.addresses().expect("both addresses");
    drop(accept.socket());
    (local, remote, peer)
}

/// Shows: LSN-16
#[test]
fn accept_tells_where_the_connection_came_to_and_from() {
    for_each_mode(|_| {
        let client = Client::new();
        let events = Recorder::new();
        // On the wildcard, the local address is the one the peer has chosen.
        let listener = client.listener(&events);
        listener.bind(ANY).ok();
        let port = listener.local_address().port();
        let (to, from) = (Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(127, 0, 0, 2));
        let (local, remote, peer) = accept_addresses(&listener, (to, port).into(), Some(from.into()));
        assert_eq!((local, remote), (SocketAddr::from((to, port)), peer.local()));
        assert_eq!(remote.ip(), from);

        let listener = client.open(&SocketOptions::new(Category::Listen).recorder(&events).v6()).socket();
        listener.bind(LOCALHOST_V6).ok();
        let address = listener.local_address();
        let (local, remote, peer) = accept_addresses(&listener, address, None);
        assert_eq!((local, remote), (address, peer.local()));
        assert!(local.is_ipv6() && remote.is_ipv6());
    });
}

/// Shows: LSN-17
#[test]
fn either_address_of_accept_may_be_null() {
    for_each_mode(|_| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        for (wants_local, wants_remote) in [(false, false), (true, false), (false, true), (true, true)] {
            let (local, remote) = (CAddress::empty(), CAddress::empty());
            let wanted = |wants, buffer: &CAddress| if wants { buffer.as_ptr() } else { ptr::null_mut() };
            let parameters = AcceptParameters {
                local: wanted(wants_local, &local),
                remote: wanted(wants_remote, &remote),
                ..Default::default()
            };
            let accept = accept_as(Request::new(), &listener, parameters).pends();
            let peer = Peer::connect(address);
            drop(accept.socket());
            assert_eq!(local.get(), wants_local.then_some(address));
            assert_eq!(remote.get(), wants_remote.then_some(peer.local()));
        }
    });
}

/// Catches: LSN-18
#[test]
fn address_buffers_on_the_stack_are_caught() {
    let sim = Sim::new();
    sim.expect("LSN-18").run(|sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let mut on_the_stack = SOCKADDR_STORAGE::zeroed();
        let buffer = (&raw mut on_the_stack).cast();
        let accept =
            accept_as(Request::new(), &listener, AcceptParameters { local: buffer, ..Default::default() })
                .pends();
        assert_caught(sim, "LSN-18", "WskAccept");
        drop(accept);
        let _peer = Peer::connect(address);
        await_untaken(sim, &listener, 1);
        let parameters = AcceptParameters { remote: buffer, ..Default::default() };
        drop(accept_as(Request::new(), &listener, parameters).socket());
        assert_eq!(sim.violations_of("LSN-18").len(), 2);
    });
}

/// Catches: LSN-19
#[test]
fn address_buffers_that_are_too_small_are_caught() {
    let sim = Sim::new();
    sim.expect("LSN-19").run(|sim| {
        let client = Client::new();
        let (v4, _) = client.bound_listener(&Recorder::new());
        let v6 = client.open(&SocketOptions::new(Category::Listen).v6()).socket();
        v6.bind(LOCALHOST_V6).ok();
        let (less, enough_for_v4) = (PoolBox::new([0_u8; 15]), PoolBox::new([0_u8; 16]));
        for (listener, buffer, broken) in [
            (&v4, less.as_ptr().cast(), true),
            (&v4, enough_for_v4.as_ptr().cast(), false),
            (&v6, enough_for_v4.as_ptr().cast(), true),
        ] {
            let before = sim.violations_of("LSN-19").len();
            let parameters = AcceptParameters { remote: buffer, ..Default::default() };
            drop(accept_as(Request::new(), listener, parameters).pends());
            assert_eq!(sim.violations_of("LSN-19").len() - before, usize::from(broken));
        }
        assert_caught(sim, "LSN-19", "WskAccept");
    });
}

/// Catches: LSN-20
#[test]
fn an_address_buffer_that_is_freed_too_early_is_caught() {
    let sim = Sim::new();
    sim.expect("LSN-20").run(|sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let remote = CAddress::empty();
        let parameters = AcceptParameters { remote: remote.as_ptr(), ..Default::default() };
        let accept = accept_as(Request::new(), &listener, parameters).pends();
        assert!(sim.violations_of("LSN-20").is_empty());
        drop(remote);
        // Where the mistake is made, and where it shows.
        assert_caught(sim, "LSN-20", "ExFreePoolWithTag");
        let _peer = Peer::connect(address);
        drop(accept.socket());
        assert_answer_caught(sim, "LSN-20", "WskAccept");
    });
}

/// Catches: LSN-27
#[test]
fn a_client_that_frees_an_accepted_socket_is_caught() {
    let sim = Sim::new();
    sim.expect("NT-POOL-FREE").run(|sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let accept = listener.accept().pends();
        let _peer = Peer::connect(address);
        let socket = accept.socket();
        // SAFETY: the kernel recognizes what is no block of its pool, and frees nothing.
        unsafe { nt::ExFreePoolWithTag(socket.raw().cast(), TAG) };
        assert_caught(sim, "NT-POOL-FREE", "ExFreePoolWithTag");
    });
}

/// Catches: LSN-07
#[test]
fn a_dead_listener_that_is_used_again_is_caught() {
    let sim = Sim::new();
    sim.expect("LSN-07").run(|sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        assert!(sim.provider().kill(listener.raw()));
        listener.accept().fails(STATUS_FILE_FORCED_CLOSED);
        assert!(sim.violations_of("LSN-07").is_empty());
        listener.accept().fails(STATUS_FILE_FORCED_CLOSED);
        assert_caught(sim, "LSN-07", "WskAccept");
    });
}

/// Catches: LSN-07
#[test]
fn a_dead_listener_that_is_not_closed_is_caught() {
    let report = left_behind(&Sim::new(), |sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        assert!(sim.provider().kill(listener.raw()));
        listener.accept().fails(STATUS_FILE_FORCED_CLOSED);
        listener.forget();
        client.forget();
    });
    assert_reported(&report, "LSN-07", "WskCloseSocket");
}

/// Leaves the socket of an accept open, whose IRP had been cancelled or not.
fn leave_accepted_socket(cancelled: bool) -> wsk_sim::Report {
    left_behind(&Sim::new(), move |sim| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let _peer = Peer::connect(address);
        await_untaken(sim, &listener, 1);
        let request = Request::new();
        if cancelled {
            // There is no cancel routine yet: the cancellation is noted, and loses.
            assert!(!request.cancel());
        }
        let done = request.accept(&listener, None, 0);
        assert_eq!(done.returned(), STATUS_SUCCESS);
        done.socket().forget();
        listener.close().ok();
        client.forget();
    })
}

/// Catches: LSN-34
#[test]
fn an_accepted_socket_that_is_left_open_is_caught() {
    let report = leave_accepted_socket(false);
    assert_reported(&report, "LSN-34", "WskCloseSocket");
}

/// Catches: LSN-31
#[test]
fn a_socket_that_came_in_spite_of_the_cancellation_and_is_left_open_is_caught() {
    let report = leave_accepted_socket(true);
    assert_reported(&report, "LSN-31", "WskCloseSocket");
}

/// Shows: LSN-20
#[test]
fn the_address_buffers_are_written_until_the_request_completes() {
    for_each_mode(|_| {
        let client = Client::new();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let remote = Arc::new(CAddress::empty());
        let parameters = AcceptParameters { remote: remote.as_ptr(), ..Default::default() };
        let accept = accept_as(Request::new().keep(Arc::clone(&remote)), &listener, parameters).pends();
        assert_eq!(remote.get(), None);
        let peer = Peer::connect(address);
        drop(accept.socket());
        assert_eq!(remote.get(), Some(peer.local()));
    });
}
