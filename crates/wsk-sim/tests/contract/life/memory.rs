//! Memory that must stay until a request completes: the checker keeps it if it is freed too early, so that
//! only a report results.

use std::ptr;
use std::sync::Arc;

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::*;

use super::{Stall, stalling, table};
use crate::link::Link;
use crate::support::*;

const FREE: &str = "ExFreePoolWithTag";

/// Catches: LIFE-06
#[test]
fn an_address_freed_before_its_request_completes_is_caught() {
    let sim = stalling("LIFE-06");
    sim.run(|sim| {
        let client = Client::new();
        let socket = client.datagram(&Recorder::new());
        let address = CAddress::new(LOCALHOST);
        let stall = Stall::new(&client);
        // SAFETY: the test frees the address too early on purpose; the checker keeps it.
        let bind = unsafe { Request::new().bind_at(&socket, address.as_ptr()) }.pends();
        drop(address);
        assert_caught(sim, "LIFE-06", FREE);
        stall.end();
        bind.ok();
    });
}

/// Catches: LIFE-06
#[test]
fn the_address_of_a_connect_that_still_tries_is_needed() {
    let sim = Sim::new();
    sim.expect("LIFE-06");
    sim.run(|sim| {
        let client = Client::new();
        let silent = SilentHost::new();
        let socket = client.connection(&Recorder::new());
        socket.bind_localhost();
        // SAFETY: the socket is a connection.
        let function = unsafe { table::<WSK_PROVIDER_CONNECTION_DISPATCH>(&socket) }.WskConnect.unwrap();
        let address = CAddress::new(silent.address());
        let connect = Request::new().submit("WskConnect", |irp| {
            // SAFETY: the test frees the address too early on purpose; the checker keeps it.
            unsafe { function(socket.raw(), address.as_ptr(), 0, irp) }
        });
        drop(address);
        assert_caught(sim, "LIFE-06", FREE);
        connect.cancel();
        connect.fails(STATUS_CANCELLED);
    });
}

/// Catches: LIFE-07
#[test]
fn an_output_address_freed_before_its_request_completes_is_caught() {
    let sim = stalling("LIFE-07");
    sim.run(|sim| {
        let client = Client::new();
        let socket = client.datagram(&Recorder::new());
        let bound = socket.bind_localhost();
        // SAFETY: the socket is one of datagrams.
        let functions = unsafe { table::<WSK_PROVIDER_DATAGRAM_DISPATCH>(&socket) };
        let (ask, receive) = (functions.WskGetLocalAddress.unwrap(), functions.WskReceiveFrom.unwrap());
        let address = CAddress::empty();
        let stall = Stall::new(&client);
        let request = Request::new().submit("WskGetLocalAddress", |irp| {
            // SAFETY: the test frees the address too early on purpose; the checker keeps it.
            unsafe { ask(socket.raw(), address.as_ptr(), irp) }
        });
        drop(address);
        assert_caught(sim, "LIFE-07", FREE);
        stall.end();
        request.ok();
        // The sender of a datagram that has not come yet.
        let (buffer, sender) = (Buffer::new(8), CAddress::empty());
        let mut descriptor = buffer.wsk_buf();
        let request = Request::new().submit("WskReceiveFrom", |irp| {
            let null = ptr::null_mut();
            // SAFETY: the test frees the address too early on purpose; the checker keeps it; the buffer
            // outlives the request.
            unsafe {
                receive(
                    socket.raw(),
                    &raw mut descriptor,
                    0,
                    sender.as_ptr(),
                    null,
                    ptr::null_mut(),
                    null,
                    irp,
                )
            }
        });
        drop(sender);
        assert_eq!(sim.violations_of("LIFE-07").len(), 2);
        let (host, _) = host_datagram();
        host.send_to(b"late", bound).unwrap();
        assert_eq!(request.ok().information, 4);
    });
}

/// Catches: LIFE-07
#[test]
fn an_output_address_on_the_stack_or_too_small_is_caught() {
    let sim = Sim::new();
    // The provider writes to the given addresses.
    sim.expect("LIFE-07").expect("NT-POOL-OVERRUN");
    sim.run(|sim| {
        let client = Client::new();
        let (listener, _) = client.bound_listener(&Recorder::new());
        // SAFETY: the socket is a listener.
        let ask = unsafe { table::<WSK_PROVIDER_LISTEN_DISPATCH>(&listener) }.WskGetLocalAddress.unwrap();
        let mut on_stack = SOCKADDR_STORAGE::zeroed();
        let small = PoolBox::new([0_u64; 1]);
        for address in [(&raw mut on_stack).cast(), small.as_ptr().cast()] {
            let before = sim.violations_of("LIFE-07").len();
            Request::new()
                .submit("WskGetLocalAddress", |irp| {
                    // SAFETY: the request is waited for, and the checker recognizes what is no room for an
                    // address.
                    unsafe { ask(listener.raw(), address, irp) }
                })
                .wait();
            assert_eq!(sim.violations_of("LIFE-07").len(), before + 1);
        }
        assert_caught(sim, "LIFE-07", "WskGetLocalAddress");
    });
}

/// Shows: LIFE-08
#[test]
fn the_descriptor_of_a_buffer_is_needed_during_the_call_only() {
    for_each_mode(|_| {
        let link = Link::new();
        let buffer = Buffer::new(4);
        // SAFETY: the socket is a connection.
        let functions = unsafe { table::<WSK_PROVIDER_CONNECTION_DISPATCH>(&link.socket) };
        let (receive, send) = (functions.WskReceive.unwrap(), functions.WskSend.unwrap());
        let mut descriptor = buffer.wsk_buf();
        let received = Request::new().submit("WskReceive", |irp| {
            // SAFETY: the buffer outlives the request; the descriptor is needed during the call only.
            unsafe { receive(link.socket.raw(), &raw mut descriptor, WSK_FLAG_WAITALL, irp) }
        });
        let other = Buffer::of(b"data");
        descriptor = other.wsk_buf();
        let sent = Request::new().submit("WskSend", |irp| {
            // SAFETY: the buffer outlives the request; the descriptor is needed during the call only.
            unsafe { send(link.socket.raw(), &raw mut descriptor, 0, irp) }
        });
        descriptor = WSK_BUF { Mdl: ptr::null_mut(), Offset: u32::MAX, Length: usize::MAX };
        assert_eq!(descriptor.Offset, u32::MAX);
        sent.ok();
        assert_eq!(link.peer.receive(4), b"data");
        link.peer.send(b"here");
        assert_eq!(received.ok().information, 4);
        assert_eq!(buffer.read(), b"here");
    });
}

/// Catches: LIFE-09
#[test]
fn data_and_mdls_freed_before_their_transfer_completes_are_caught() {
    let sim = Sim::new();
    sim.expect("LIFE-09");
    sim.run(|sim| {
        let link = Link::new();
        let buffer = Buffer::chain(&[2, 6]);
        let mut descriptor = buffer.wsk_buf();
        // SAFETY: the socket is a connection.
        let function = unsafe { table::<WSK_PROVIDER_CONNECTION_DISPATCH>(&link.socket) }.WskReceive.unwrap();
        let receive = Request::new().submit("WskReceive", |irp| {
            // SAFETY: the test frees the buffer too early on purpose; the checker keeps it.
            unsafe { function(link.socket.raw(), &raw mut descriptor, 0, irp) }
        });
        drop(buffer);
        assert_caught(sim, "LIFE-09", FREE);
        assert_caught(sim, "LIFE-09", "IoFreeMdl");
        assert_eq!(sim.violations_of("LIFE-09").len(), 4, "both MDLs and both pieces of memory");
        link.peer.send(b"data");
        assert_eq!(receive.ok().information, 4);
    });
}

/// Catches: LIFE-09
#[test]
fn data_is_needed_until_a_cancelled_transfer_has_completed_and_no_longer() {
    let sim = stalling("LIFE-09");
    sim.run(|sim| {
        let link = Link::new();
        let kept = Buffer::of(b"kept");
        // After the completion its memory may be freed.
        let receive = link.socket.receive(&kept).pends();
        receive.cancel();
        receive.fails(STATUS_CANCELLED);
        drop((receive, kept));
        link.socket.send(b"sent").ok();
        assert!(sim.violations_of("LIFE-09").is_empty());
        let last = Buffer::of(b"last words");
        let mut descriptor = last.wsk_buf();
        // SAFETY: the socket is a connection.
        let function = unsafe { table::<WSK_PROVIDER_CONNECTION_DISPATCH>(&link.socket) }.WskSend.unwrap();
        let stall = Stall::new(&link.client);
        let send = Request::new().submit("WskSend", |irp| {
            // SAFETY: the test frees the buffer too early on purpose; the checker keeps it.
            unsafe { function(link.socket.raw(), &raw mut descriptor, 0, irp) }
        });
        drop(last);
        assert_caught(sim, "LIFE-09", FREE);
        stall.end();
        send.ok();
    });
}

/// Catches: LIFE-10
#[test]
fn the_nodes_of_a_list_and_control_messages_freed_too_early_are_caught() {
    let sim = stalling("LIFE-10");
    sim.run(|sim| {
        let client = Client::new();
        let socket = client.datagram(&Recorder::new());
        let own = socket.bind_localhost();
        let address = CAddress::new(own);
        // SAFETY: the socket is one of datagrams.
        let functions = unsafe { table::<WSK_PROVIDER_DATAGRAM_DISPATCH>(&socket) };
        let (send, receive) = (functions.WskSendMessages.unwrap(), functions.WskReceiveFrom.unwrap());
        let buffers = [Buffer::of(b"one"), Buffer::of(b"two")];
        let list = BufferList::new(&buffers);
        let stall = Stall::new(&client);
        let sent = Request::new().submit("WskSendMessages", |irp| {
            // SAFETY: the test frees the list too early on purpose; the checker keeps it.
            unsafe { send(socket.raw(), list.head(), 0, address.as_ptr(), 0, ptr::null_mut(), irp) }
        });
        drop(list);
        assert_caught(sim, "LIFE-10", FREE);
        assert_eq!(sim.violations_of("LIFE-10").len(), 2);
        stall.end();
        sent.ok();
        assert_eq!(socket.receive_datagram(8).0, b"one");
        assert_eq!(socket.receive_datagram(8).0, b"two");
        // Further outputs of a receive.
        let (length, messages, flags) = (PoolBox::new(16_u32), PoolBox::new([0_u64; 2]), PoolBox::new(0_u32));
        let buffer = Buffer::new(8);
        let mut descriptor = buffer.wsk_buf();
        let received = Request::new().submit("WskReceiveFrom", |irp| {
            let (length, flags, messages) = (length.as_ptr(), flags.as_ptr(), messages.as_ptr().cast());
            let null = ptr::null_mut();
            // SAFETY: the test frees the outputs too early on purpose; the checker keeps them.
            unsafe { receive(socket.raw(), &raw mut descriptor, 0, null, length, messages, flags, irp) }
        });
        drop((length, messages, flags));
        assert_eq!(sim.violations_of("LIFE-10").len(), 5);
        socket.send_to(b"three", own).ok();
        assert_eq!(received.ok().information, 5);
    });
}

/// Catches: LIFE-11
#[test]
fn the_buffers_of_a_pending_control_call_freed_too_early_are_caught() {
    let sim = stalling("LIFE-11");
    sim.run(|sim| {
        let link = Link::new();
        // SAFETY: every table begins with the basic one.
        let function =
            unsafe { table::<WSK_PROVIDER_BASIC_DISPATCH>(&link.socket) }.WskControlSocket.unwrap();
        let (input, output) = (PoolBox::new(1_u32), PoolBox::new(0_usize));
        let stall = Stall::new(&link.client);
        let (socket, null) = (link.socket.raw(), ptr::null_mut());
        let (read, write) = (input.as_ptr().cast(), output.as_ptr().cast());
        let set = Request::new().submit("WskControlSocket", |irp| {
            // SAFETY: the test frees the buffers too early on purpose; the checker keeps them.
            unsafe {
                function(
                    socket,
                    WskSetOption,
                    SO_KEEPALIVE,
                    SOL_SOCKET,
                    4,
                    read,
                    0,
                    null,
                    ptr::null_mut(),
                    irp,
                )
            }
        });
        let query = Request::new().submit("WskControlSocket", |irp| {
            let code = SIO_WSK_QUERY_RECEIVE_BACKLOG;
            // SAFETY: the test frees the buffers too early on purpose; the checker keeps them.
            unsafe {
                function(socket, WskIoctl, code, 0, 0, null, size_of::<usize>(), write, ptr::null_mut(), irp)
            }
        });
        drop((input, output));
        assert_caught(sim, "LIFE-11", FREE);
        assert_eq!(sim.violations_of("LIFE-11").len(), 2);
        stall.end();
        set.ok();
        query.ok();
    });
}

/// A string in pool, with its NUL.
struct Text {
    _units: Arc<Buffer>,
    string: PoolBox<UNICODE_STRING>,
}

impl Text {
    fn new(text: &str) -> Self {
        let units: Vec<u8> = text.encode_utf16().chain([0]).flat_map(u16::to_ne_bytes).collect();
        let buffer = Buffer::of(&units);
        let string = PoolBox::new(UNICODE_STRING {
            Length: (units.len() - 2) as u16,
            MaximumLength: units.len() as u16,
            Buffer: buffer.address().cast(),
        });
        Self { _units: Arc::new(buffer), string }
    }
}

/// Catches: LIFE-11
#[test]
fn the_names_and_the_result_of_a_query_freed_too_early_are_caught() {
    let sim = stalling("LIFE-11");
    // The list that was written to a variable the client no longer has cannot be freed.
    sim.expect("NAME-05");
    sim.run(|sim| {
        let client = Client::new();
        let function = client.dispatch().WskGetAddressInfo.expect("the table has names");
        let (node, result) = (Text::new("127.0.0.1"), PoolBox::<PADDRINFOEXW>::new(ptr::null_mut()));
        let stall = Stall::new(&client);
        let request = Request::new().submit("WskGetAddressInfo", |irp| {
            let (client, node, null) = (client.npi().Client, node.string.as_ptr(), ptr::null_mut());
            let (process, thread, out) = (ptr::null_mut(), ptr::null_mut(), result.as_ptr());
            // SAFETY: the test frees node and result too early on purpose; the checker keeps them.
            unsafe {
                function(client, node, ptr::null_mut(), 0, ptr::null_mut(), null, out, process, thread, irp)
            }
        });
        drop((node, result));
        assert_caught(sim, "LIFE-11", FREE);
        assert_eq!(sim.violations_of("LIFE-11").len(), 3, "the string, its characters, the result");
        stall.end();
        request.ok();
    });
}

/// Catches: LIFE-12
#[test]
fn a_descriptor_released_before_the_request_that_uses_it_completes_is_caught() {
    let sim = stalling("LIFE-12");
    sim.run(|sim| {
        let client = Client::new();
        let descriptor = Descriptor::cached(&client, true);
        let options = SocketOptions { security: descriptor.raw(), ..SocketOptions::new(Category::Datagram) };
        // Once the request has completed the descriptor may go, and the socket stays.
        let early = client.open(&options).socket();
        drop(descriptor);
        assert!(sim.violations_of("LIFE-12").is_empty());
        early.close().ok();
        let descriptor = Descriptor::cached(&client, true);
        let options = SocketOptions { security: descriptor.raw(), ..SocketOptions::new(Category::Datagram) };
        let stall = Stall::new(&client);
        let open = client.open(&options).pends();
        drop(descriptor);
        assert_caught(sim, "LIFE-12", "WskControlClient");
        stall.end();
        open.socket().close().ok();
    });
}
